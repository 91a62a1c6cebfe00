# Calls of librdkafka that wait and cannot be interrupted: each runs in a thread of its own.


@cython.final
cdef class ThreadCall:
    """The outcome of a call in a thread of its own, and whether anybody still waits for it.

    `call_in_thread` calls it at the end of the thread.
    """

    def __init__(self, tell=None):
        self.tell = tell
        self.done = Event()

    def __call__(self, outcome):
        self.outcome = outcome
        self.done.set()
        if self.tell is not None:
            self.tell(outcome)

    cdef object wait(self, Client client):
        """Return or raise what the call did. Lets signal handlers run meanwhile, and gives up when
        the client is closed."""
        try:
            while not self.done.wait(SLICE_MS / 1000.0):
                client.check_usable()
        finally:
            self.given_up = True
        failed, result = self.outcome
        if failed:
            raise result
        return result


def call_in_thread(Client client, tell, function, *arguments):
    """Call `function(*arguments)` in a thread of its own, which at its end calls
    `tell((False, result))` or `tell((True, exception))`.

    The waiting caller can give up, because of a signal or a close. The call goes on by itself until
    librdkafka returns, and keeps what it uses: close() does not wait for it.
    """
    client.retain_open()
    try:
        start_thread("kafka_ext call", _run_call, (client, tell, function, arguments))
    except BaseException:
        client.release()
        raise


def _run_call(Client client, tell, function, arguments):
    try:
        outcome = (False, function(*arguments))
    except BaseException as exc:
        outcome = (True, exc)
    finally:
        client.release()
    tell(outcome)
