# asyncio: a client that its event loop serves, on the loop's own thread, and futures.
#
# librdkafka writes to a pipe when its queue of events stops being empty
# (rd_kafka_queue_io_event_enable). The loop reads the pipe and calls `serve_on_loop`, which serves
# one turn of a bounded size, so that other tasks get theirs. The turn runs with the GIL, and
# resolves futures directly. There is no thread but librdkafka's own.

import sys as _sys

# asyncio's, from the first event loop on: importing it takes longer than all of this package.
cdef object _Future = None              # the C type behind asyncio.Future, which uvloop uses too
cdef object _set_result = None
cdef object _set_exception = None
cdef object _callbacks_of = None        # the descriptor of _Future's attribute _callbacks
cdef object _get_running_loop = None
cdef object _base_is_running = None
cdef object _Lock = None
cdef object _yield_turn = None          # asyncio.sleep
# asyncio.get_running_loop() makes a system call each time
cdef bint _GETPID_EACH_TIME = _sys.version_info < (3, 12)

cdef enum:
    # Reports answered in one turn, some 0.3 microseconds each: how long other tasks wait. To that
    # comes the time in which librdkafka frees the messages of a request, all at once.
    LOOP_MESSAGES = 1024


cdef int _import_asyncio() except -1:
    global _callbacks_of, _Future, _set_result, _set_exception, _get_running_loop
    global _base_is_running, _Lock, _yield_turn
    if _Future is None:
        import asyncio

        _set_result, _set_exception = asyncio.Future.set_result, asyncio.Future.set_exception
        # Gives None where get_running_loop() raises: outside of a loop, and from Python 3.12 on in
        # a child forked in a loop's callback.
        _get_running_loop = asyncio._get_running_loop
        _base_is_running = asyncio.BaseEventLoop.is_running
        _callbacks_of = vars(asyncio.Future)["_callbacks"]
        _Lock, _yield_turn = asyncio.Lock, asyncio.sleep
        _Future = asyncio.Future
    return 0


@cython.final
cdef class EventLoop:
    """The event loop that serves a client, and those who wait for what comes of it."""

    def __cinit__(self):
        self.waiting = []

    def served(self):
        """A future that is done once events have been served, or the client closes."""
        waiter = self.loop.create_future()
        self.waiting.append(waiter)
        return waiter

    def wake(self):
        """Let all who wait look again."""
        if not self.waiting:
            return
        waiting, self.waiting = self.waiting, []
        for waiter in waiting:
            if not waiter.done():
                waiter.set_result(None)

    cdef int pass_on(self) except -1:
        """Outcomes found by another thread than the loop's go to the loop, all at once: the client
        was dropped, or the interpreter exits."""
        outcomes = self.outcomes
        self.outcomes = None
        try:
            self.loop.call_soon_threadsafe(_resolve_all, outcomes)
        except RuntimeError:            # closed: no task can be at the futures
            _resolve_all(outcomes)
        return 0


cdef int pass_on_outcomes(Client client) noexcept:
    try:
        client.loop.pass_on()
    except BaseException as exc:
        not_lost(client, exc)
    return 0


def attach_loop(Client client, loop, int fd):
    """Have librdkafka write a byte to `fd` when there is something to serve, and resolve futures
    on `loop`. Returns the client's EventLoop."""
    cdef EventLoop served_by = EventLoop()
    _import_asyncio()
    served_by.loop = loop
    served_by.thread = PyThread_get_thread_ident()
    client.loop = served_by
    rd_kafka_queue_io_event_enable(client.queue, fd, b"1", 1)
    return served_by


def detach_loop(Client client):
    """No more bytes to the descriptor, which can be closed then. Any thread."""
    if client.queue != NULL and client.life.generation == kx_fork_generation:
        rd_kafka_queue_io_event_enable(client.queue, -1, NULL, 0)


def serve_on_loop(Client client):
    """Serve one turn on the loop's thread; true when more may be there."""
    # In a forked child all this is the parent's. And a client that was dropped has a thread.
    if (client.life.generation != kx_fork_generation or KX_FLAG(client.life.abandoned)
            or client.life.state == CLOSED):
        return False
    if not KX_TRY(client.serving.taken):
        return False
    client.serving.thread = client.loop.thread = PyThread_get_thread_ident()
    kx_enter_callbacks()
    try:
        serve(client, 0, LOOP_MESSAGES)
        client.release_rest()
    finally:
        kx_leave_callbacks()
        client.serving.thread = 0
        KX_LET(client.serving.taken)
    if client.life.generation != kx_fork_generation:
        return False
    # Sleep only after a poll that found the queue empty: librdkafka writes no further byte until
    # one has (rd_kafka_q_mark_served), however many events come.
    return not client.serving.drained


# ------------------------------------------------------------------ threads and time

cdef class LoopOutcome:
    """What a thread tells at its end, as a future of the loop's: called with `(failed, result)`."""

    def __init__(self, loop):
        self.loop = loop
        self.future = loop.create_future()

    def __call__(self, tuple outcome):
        try:
            self.loop.call_soon_threadsafe(self._settle, outcome)
        except RuntimeError:
            pass                # the loop is closed, and who waited is gone with it

    def _settle(self, tuple outcome):
        failed, result = outcome
        if self.future.done():
            return              # cancelled: the call went on by itself
        if failed:
            self.future.set_exception(result)
        else:
            self.future.set_result(result)


cdef class LoopAlarm:
    """`with LoopAlarm(loop, seconds) as over`: a future that is done after `seconds` (None: never),
    by no clock of the loop's, which tests like to stop. Its thread ends with the block."""

    def __init__(self, loop, seconds):
        self.outcome = LoopOutcome(loop)
        self.ended = Event()
        self.seconds = seconds

    def __enter__(self):
        if self.seconds is not None:
            try:
                new_thread("kafka_ext call", _rings, self.outcome, self.ended, self.seconds).start()
            except BaseException:
                self.__exit__()
                raise
        return self.outcome.future

    def __exit__(self, *exc):
        self.ended.set()
        self.outcome.future.cancel()


def _rings(tell, ended, seconds):
    ended.wait(seconds)
    tell((False, None))


async def loop_sleep(loop, seconds):
    with LoopAlarm(loop, seconds) as over:
        await over


# ------------------------------------------------------------------ futures

cdef int settle_future(
        EventLoop loop, object future, object outcome, bint failed) except -1:
    """Resolve `future` here, or where this is not the loop's thread let the loop do it. 0: it has
    been cancelled, and nobody hears of the outcome."""
    if loop.thread == PyThread_get_thread_ident():
        return resolve(future, outcome, failed)
    if loop.outcomes is None:
        loop.outcomes = []
    loop.outcomes.append((future, outcome, failed))
    return 1


cdef bint _has_callbacks(object future) except -1:
    """Whether a future calls something when it is done. If unknown, assume yes."""
    callbacks = getattr(future, "_callbacks", future)
    return callbacks is future or bool(callbacks)


cdef bint resolve(object future, object outcome, bint failed) except -1:
    """Give `future` its outcome; False when it has one already, having been cancelled. Its
    callbacks run in the loop's next turn."""
    cdef PyObject *arguments[2]
    cdef PyObject *result
    cdef PyGetSetDef *callbacks_of
    cdef object callbacks
    kx_future_shown(future)
    # Where a signal handler raises in the loop's call_soon(), the future forgets the callbacks
    # that it has not scheduled yet.
    if type(future) is _Future:
        callbacks_of = (<PyGetSetDescrObject *>_callbacks_of).d_getset
        result = callbacks_of.get(<PyObject *>future, callbacks_of.closure)
        callbacks = <object>result
        Py_DECREF(callbacks)
    else:
        callbacks = getattr(future, "_callbacks", None)
    arguments[0] = <PyObject *>future
    arguments[1] = <PyObject *>outcome
    result = PyObject_Vectorcall(_set_exception if failed else _set_result, arguments, 2, NULL)
    if result != NULL:
        Py_DECREF(<object>result)
        return True
    return resolved_in_part(future, callbacks)


cdef bint resolved_in_part(object future, object callbacks) except -1:
    """What `resolve` does with the exception that is set: False, or the exception again, once all
    callbacks are scheduled nevertheless."""
    try:
        _propagate()
    except BaseException as exc:
        if isinstance(exc, Exception) and (
                not future.done() or future.get_loop().is_closed() or not callbacks):
            return False        # InvalidStateError; or the loop is closed, with all that waited
        schedule_rest(future, callbacks or ())
        raise


cdef int schedule_rest(object future, object callbacks) except -1:
    """Have the loop call those of a future's callbacks that it does not know of yet."""
    loop = future.get_loop()
    if not future.done() or loop.is_closed():
        return 0
    for callback, context in callbacks:
        for _ in range(100):            # each time another signal may come in between
            try:
                if not is_scheduled(loop, callback):
                    loop.call_soon(callback, future, context=context)
                break
            except (KeyboardInterrupt, SystemExit):
                continue
    return 0


cdef bint is_scheduled(object loop, object callback) except -1:
    """Whether `callback` is among what the loop calls next. uvloop has no such list, and runs no
    signal handler in its call_soon()."""
    for handle in tuple(getattr(loop, "_ready", ())):
        if getattr(handle, "_callback", None) is callback:
            return True
    return False


def _resolve_all(list outcomes):
    interrupted = None
    for future, outcome, failed in outcomes:
        try:
            resolve(future, outcome, failed)
        except BaseException as exc:
            interrupted = exc
    if interrupted is not None:
        raise interrupted
