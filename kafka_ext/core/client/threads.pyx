# Threads of the operating system and what they wait at, whatever gevent or eventlet has made of
# `threading`.
#
# `monkey.patch_all()` turns threading.Thread into a green thread and locks into locks of green
# threads. The events thread waits inside librdkafka, so as a green thread it would stop the whole
# process, and a lock that it releases would wake nobody. So every thread and every lock that is
# shared with one comes from here. Who waits while `threading` is patched does so by time.sleep(),
# which is patched as well and lets the other green threads run.

import threading as _threading
import time as _time

cdef int64_t live_threads = 0       # that `start_thread` has begun


# How long a green thread lets the others run before it looks again, in seconds; and how long one
# that waits inside librdkafka keeps them from running, in milliseconds.
cdef double GREEN_PAUSE = 0.002
cdef enum:
    GREEN_SLICE_MS = 2

cdef object _BUILTIN = type(len)


cdef bint _patched():
    """Whether threading.Thread starts something else than a thread of the operating system."""
    # the first from Python 3.13 on
    for name in ("_start_joinable_thread", "_start_new_thread"):
        if type(getattr(_threading, name, len)) is not _BUILTIN:
            return True
    return False


cdef bint _green():
    """Whether whoever waits here keeps other green threads from running."""
    return not kx_own_thread and _patched()


cdef int _pause() except -1:
    """Between two slices of a wait: signal handlers get their turn, and other green threads."""
    PyErr_CheckSignals()
    if _green():
        _time.sleep(GREEN_PAUSE)
    return 0


cdef int _slice_ms(int milliseconds):
    """How long a slice of a wait may take."""
    return GREEN_SLICE_MS if _green() else milliseconds


cdef int _wait_at(kx_gate *gate, unsigned long seen, int64_t deadline) except -1:
    """Wait until `gate` has been opened since `seen` was read, until `deadline`, or for a slice;
    then signal handlers get their turn.

    In slices, for a signal may interrupt another thread than the main one, and its handler runs
    only once that one looks.
    """
    cdef int milliseconds
    if not _green():
        milliseconds = _remaining_ms(deadline, SLICE_MS)
        with nogil:
            kx_gate_wait(gate, seen, milliseconds)
    return _pause()


cdef int _own_gate(kx_gate *gate, int *generation) except -1:
    """Make `gate` anew in a forked child: a thread that is not there may have been at it."""
    if generation[0] != kx_fork_generation:
        generation[0] = kx_fork_generation
        if kx_gate_init(gate) != 0:
            raise MemoryError()
    return 0


@cython.final
cdef class Event:
    """As threading.Event, but never cleared. `set` takes and ignores arguments, so that it may be a
    callback; it needs no memory.

    Its waits go by CLOCK_MONOTONIC, which PyThread's do from Python 3.11 on.
    """

    def __cinit__(self):
        self.generation = kx_fork_generation
        if kx_gate_init(&self.gate) != 0:
            raise MemoryError()
        self.gate_made = True

    def __dealloc__(self):
        if self.gate_made and self.generation == kx_fork_generation:
            kx_gate_destroy(&self.gate)

    def set(self, *ignored):
        _own_gate(&self.gate, &self.generation)
        KX_SET(self.told, 1)
        kx_gate_open(&self.gate)

    def is_set(self):
        return bool(KX_FLAG(self.told))

    def wait(self, timeout=None):
        """Wait up to `timeout` seconds (None: no limit); whether it is set. Signal handlers run
        meanwhile; what they raise is raised."""
        cdef int64_t deadline = _deadline(timeout)
        cdef unsigned long seen
        if KX_FREE_THREADED:
            _some_bytecode()
        while True:
            _own_gate(&self.gate, &self.generation)
            seen = kx_gate_seen(&self.gate)
            if KX_FLAG(self.told):
                return True
            if _expired(deadline):
                return False
            _wait_at(&self.gate, seen, deadline)


cdef int64_t _owner() except 0:
    return _threading.get_ident() if _green() else <int64_t>PyThread_get_thread_ident()


@cython.final
cdef class Monitor:
    """A lock that its holder may take again (threading.RLock), and where it may wait for another to
    `notify_all` (threading.Condition).

    It belongs to a thread, or where `threading` is patched to a green thread.
    """

    def __cinit__(self):
        self.waiting = []
        self.generation = kx_fork_generation
        if kx_gate_init(&self.gate) != 0:
            raise MemoryError()
        self.gate_made = True

    def __dealloc__(self):
        if self.gate_made and self.generation == kx_fork_generation:
            kx_gate_destroy(&self.gate)

    def acquire(self, bint blocking=True, timeout=-1):
        cdef int64_t me = _owner()
        cdef int64_t deadline = 0
        cdef unsigned long seen
        if KX_LOAD(self.owner) == me:
            self.depth += 1
            return True
        if not KX_TRY(self.taken):
            if blocking:
                deadline = _deadline(None if timeout == -1 else timeout)
            while True:
                _own_gate(&self.gate, &self.generation)
                seen = kx_gate_seen(&self.gate)
                if KX_TRY(self.taken):
                    break
                if _expired(deadline):
                    return False
                _wait_at(&self.gate, seen, deadline)
        KX_STORE(self.owner, me)
        self.depth = 1
        return True

    def release(self):
        cdef int64_t me = _owner()
        if KX_LOAD(self.owner) != me:
            raise RuntimeError("cannot release a Monitor that this thread does not hold")
        self.depth -= 1
        if not self.depth:
            _own_gate(&self.gate, &self.generation)
            KX_STORE(self.owner, 0)
            KX_LET(self.taken)
            kx_gate_open(&self.gate)

    def __enter__(self):
        return self.acquire()

    def __exit__(self, *exc):
        self.release()

    def wait(self, timeout=None):
        """Let go of it, wait up to `timeout` seconds for `notify_all`, and take it again; whether
        it came."""
        cdef Event told = Event()
        cdef int64_t depth = self.depth
        self.waiting.append(told)
        self.depth = 1
        self.release()
        try:
            return told.wait(timeout)
        finally:
            interrupted = self.take_again()
            self.depth = depth
            if not told.is_set():
                self.waiting.remove(told)
            if interrupted is not None:
                raise interrupted

    cdef object take_again(self):
        """As `acquire`, in any case; what a signal handler raised meanwhile, or None."""
        interrupted = None
        while True:
            try:
                self.acquire()
                return interrupted
            except BaseException as exc:
                interrupted = exc

    def wait_for(self, predicate, timeout=None):
        """Wait until `predicate()` is true, up to `timeout` seconds; what it returned last."""
        cdef int64_t deadline = _deadline(timeout)
        found = predicate()
        while not found and not _expired(deadline):
            self.wait(seconds_until(deadline))
            found = predicate()
        return found

    def notify_all(self):
        """Wake all that wait. By its holder."""
        waiting, self.waiting = self.waiting, []
        for told in waiting:
            told.set()


@cython.final
cdef class Thread:
    """A daemon thread of the operating system that `threading` does not know. Has what this package
    uses of threading.Thread."""

    def __init__(self, str name, function, tuple arguments):
        self.name = name
        self.function = function
        self.arguments = arguments
        self.ended = Event()
        self.started = False

    def start(self):
        """Either this returns and the thread runs, or it raises and no thread does: signal handlers
        get no turn in between.

        threading.Thread's waits for the thread to be there, and a KeyboardInterrupt out of that
        wait leaves the thread running.
        """
        Py_INCREF(self)         # the thread's, which gives it back
        KX_ADD(live_threads, 1)
        if PyThread_start_new_thread(_run_thread, <void *>self) == PYTHREAD_INVALID_THREAD_ID:
            KX_ADD(live_threads, -1)
            Py_DECREF(self)
            raise RuntimeError("can't start new thread")
        self.started = True

    def is_alive(self):
        return self.started and not self.ended.is_set()

    def join(self, timeout=None):
        self.ended.wait(timeout)


cdef void _run_thread(void *started) noexcept with gil:
    cdef Thread thread = <Thread>started
    Py_DECREF(thread)           # start()'s; `thread` is another
    kx_set_own_thread(1)
    function, arguments = thread.function, thread.arguments
    thread.function = thread.arguments = None
    try:
        function(*arguments)
    except BaseException as exc:
        unraisable(exc, function)
    function = arguments = None
    thread.ended.set()
    KX_ADD(live_threads, -1)


def _own(function, arguments):
    kx_set_own_thread(1)
    function(*arguments)


def own_threads():
    """How many threads there are that `start_thread` has begun."""
    return KX_LOAD(live_threads)


cdef Thread start_thread(str name, function, tuple arguments):
    """For calls of librdkafka's that wait: what such a thread owns is its own once this has
    returned, and not if it raises."""
    cdef Thread thread = Thread(name, function, arguments)
    thread.start()
    return thread


def new_thread(str name, function, *arguments):
    """A daemon thread of the operating system that calls `function(*arguments)` once it is
    started."""
    if _patched():
        return Thread(name, function, arguments)
    # threading's own where it is one: debuggers, profilers and threading.enumerate() know it.
    return _threading.Thread(target=_own, args=(function, arguments), name=name, daemon=True)


def prepared_future(future):
    """A concurrent.futures.Future, made so that threads of the operating system may end it where
    `threading` is patched."""
    if _patched():
        future._condition = Monitor()
    return future


def sleep(double seconds):
    """As time.sleep, of the thread and not of a green one; not interrupted by signals."""
    cdef int milliseconds = <int>(seconds * 1000)
    with nogil:
        _sleep_ms(milliseconds)


def is_patched():
    """Whether threading.Thread starts something else than a thread of the operating system: gevent
    and eventlet make it so."""
    return _patched()
