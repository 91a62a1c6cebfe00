# The life of a client, and its deadlines.
#
#   state     entered by       what it means
#   NEW       the constructor  nobody serves it yet
#   OPEN      open()           calls are let in; a thread, a loop or the caller serves
#   CLOSING   begin_close()    no new calls; what was sent is still reported
#   CLOSED    destroy()        everything is reported; librdkafka's side goes with its last user
#
# Each step is taken once and in this order. A fork ends the client in the child in any state
# (`generation` differs): every call raises there, and nothing is freed.
#
# Two ways to keep librdkafka's side alive:
#
#   enter() … leave()       counts a call in; close() waits for it. Only C may run in between, for a
#                           tenth of a second at most: Python code could close the client, and wait
#                           for itself. What may run Python comes before or after, and then the
#                           state is looked at anew.
#   retain() … release()    for calls in threads of their own, where Python and C take turns.
#                           close() does not wait for them; the last one frees.
#
# Everything waits at the client's gate, in slices, until a deadline on CLOCK_MONOTONIC. The gate
# opens when events have been served and when the state changes.

cdef enum ClientState:
    NEW = 0
    OPEN = 1
    CLOSING = 2
    CLOSED = 3

cdef enum:
    # A wait lets signal handlers run this often, so that Ctrl-C works.
    SLICE_MS = 100
    MAX_WAIT_MS = 1000 * 3600 * 24

# On free-threaded builds an object released by another thread is freed only when its owner next
# runs bytecode. A thread that waits in C runs this, or a stream of batches would stay in memory.
cdef object _some_bytecode = eval("lambda: None")


cdef int64_t _deadline(object timeout) except -2:
    """When `timeout` seconds are over, in microseconds of the monotonic clock; -1 for never."""
    if timeout is None:
        return -1
    try:
        seconds = float(timeout)
    except (TypeError, ValueError):
        raise TypeError(
            f"timeout must be a number of seconds or None, not {_shorten(timeout)}") from None
    if isinstance(timeout, (str, bytes)):
        raise TypeError(
            f"timeout must be a number of seconds or None, not {type(timeout).__name__}")
    if not seconds >= 0:
        raise ValueError(
            f"timeout must be 0 or more seconds, or None for no limit, not {timeout!r}")
    return kx_now_us() + <int64_t>(min(seconds, 1e9) * 1e6)


cdef int _remaining_ms(int64_t deadline, int at_most) noexcept nogil:
    """Milliseconds until `deadline`, rounded up, at least 0 and at most `at_most`."""
    if deadline < 0:
        return at_most
    cdef int64_t left = (deadline - kx_now_us() + 999) // 1000
    if left < 0:
        return 0
    return <int>left if left < at_most else at_most


cdef bint _expired(int64_t deadline) noexcept nogil:
    return deadline >= 0 and kx_now_us() >= deadline


cdef int _sleep_ms(int milliseconds) noexcept nogil:
    cdef timespec pause
    pause.tv_sec = milliseconds // 1000
    pause.tv_nsec = <long>(milliseconds % 1000) * 1000000
    nanosleep(&pause, NULL)
    return 0


def deadline(timeout):
    """The end of `timeout` seconds (None: no limit) on the clock of `seconds_until`."""
    return _deadline(timeout)


def seconds_until(int64_t deadline):
    """Seconds left until `deadline`, 0.0 past it, None for no limit."""
    if deadline < 0:
        return None
    return max(deadline - kx_now_us(), 0) / 1e6
