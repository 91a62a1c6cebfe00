# Shared by everything in core/: C functions of CPython and libc, our own C for any kind of client,
# and the layouts of core/client/. Nothing here knows of producers or consumers.

from cpython.buffer cimport (
    PyBUF_FORMAT, PyBUF_WRITABLE, PyBuffer_Release, PyObject_CheckBuffer)
from cpython.exc cimport PyErr_CheckSignals, PyErr_SetObject, PyErr_WriteUnraisable
from cpython.object cimport PyObject
from cpython.pycapsule cimport PyCapsule_GetPointer, PyCapsule_IsValid
from libc.stdint cimport INT32_MAX, INT64_MAX, INT64_MIN, int16_t, int32_t, int64_t
from libc.stdio cimport FILE, fclose
from libc.stdlib cimport free
from libc.string cimport memchr, memcpy, memset, strncpy
from posix.time cimport nanosleep, timespec

from librdkafka cimport *

cdef class Client
cdef class Event


# ------------------------------------------------------------------ CPython and libc

cdef extern from "Python.h":
    const size_t PY_VECTORCALL_ARGUMENTS_OFFSET
    const Py_ssize_t PY_SSIZE_T_MAX
    ctypedef struct PyTypeObject:
        PyObject *(*tp_new)(PyTypeObject *kind, PyObject *arguments, PyObject *keywords) noexcept
    ctypedef struct PyGetSetDef:
        PyObject *(*get)(PyObject *, void *) except NULL
        void *closure
    ctypedef struct PyGetSetDescrObject:
        PyGetSetDef *d_getset
    PyTypeObject *Py_TYPE(object o) noexcept
    Py_ssize_t Py_REFCNT(object o) noexcept
    void Py_INCREF(object o) noexcept
    void Py_DECREF(object o) noexcept
    void PyErr_Clear() noexcept
    int PyCallable_Check(object o) noexcept
    # Returns a pointer, so that the caller looks at a failure itself: a try-except would save the
    # thread's exception state for each record.
    PyObject *PyObject_Vectorcall(
        object callable, PyObject **arguments, size_t count, void *names) noexcept
    void PyObject_GC_UnTrack(object o) noexcept
    int PyIter_Send(object iterator, PyObject *value, PyObject **result) except -1
    bytes PyBytes_FromStringAndSize(const char *text, Py_ssize_t size)
    str PyUnicode_FromObject(object text)
    Py_ssize_t PySequence_Fast_GET_SIZE(object sequence) noexcept
    PyObject **PySequence_Fast_ITEMS(object sequence) noexcept

cdef extern from "pythread.h" nogil:
    unsigned long PYTHREAD_INVALID_THREAD_ID
    unsigned long PyThread_start_new_thread(
        void (*function)(void *) noexcept, void *argument) noexcept
    unsigned long PyThread_get_thread_ident() noexcept

cdef extern from "<stdio.h>" nogil:
    FILE *open_memstream(char **text, size_t *size) noexcept

cdef extern from "<locale.h>" nogil:
    ctypedef struct lconv:
        char *decimal_point
    lconv *localeconv() noexcept

cdef extern from "<string.h>" nogil:
    void *memmem(const void *memory, size_t size, const void *wanted, size_t wanted_size) noexcept

cdef extern from *:
    void __builtin_prefetch(const void *address) noexcept nogil


# ------------------------------------------------------------------ our own C

cdef extern from "kafka_ext/version_guard.h":
    pass

cdef extern from "kafka_ext/memory.h" nogil:
    void *malloc "kx_malloc"(size_t size) noexcept
    void *calloc "kx_calloc"(size_t count, size_t size) noexcept
    void *realloc "kx_realloc"(void *memory, size_t size) noexcept
    bint kx_watch_memory() noexcept
    void kx_fail_from(int64_t first, int64_t times, bint everywhere) noexcept
    void kx_fail_no_more(int64_t *counted, int64_t *failed) noexcept

cdef extern from "kafka_ext/threads.h" nogil:
    const bint KX_FREE_THREADED
    int64_t kx_now_us() noexcept
    int kx_fork_generation
    int kx_watch_forks() noexcept
    void kx_enter_callbacks() noexcept
    void kx_leave_callbacks() noexcept
    bint kx_in_callback() noexcept
    void kx_enters() noexcept
    void kx_leaves() noexcept
    int kx_own_thread
    void kx_set_own_thread(int own) noexcept
    void KX_ADD(int64_t counter, int64_t n) noexcept
    int64_t KX_LOAD(int64_t counter) noexcept
    void KX_STORE(int64_t counter, int64_t value) noexcept
    int KX_FLAG "KX_LOAD"(int flag) noexcept
    void KX_SET "KX_STORE"(int flag, int value) noexcept
    bint KX_TRY(int flag) noexcept
    void KX_LET(int flag) noexcept
    ctypedef struct kx_gate:
        pass
    int kx_gate_init(kx_gate *gate) noexcept
    void kx_gate_destroy(kx_gate *gate) noexcept
    unsigned long kx_gate_seen(kx_gate *gate) noexcept
    void kx_gate_open(kx_gate *gate) noexcept
    void kx_gate_wait(kx_gate *gate, unsigned long seen, long milliseconds) noexcept

cdef extern from "kafka_ext/counts.h" nogil:
    enum:
        KX_FIRST_CODE
        KX_CODES
    ctypedef struct kx_counts:
        pass
    void kx_count(kx_counts *counts, int code) noexcept
    int64_t kx_counted(const kx_counts *counts, int code) noexcept

cdef extern from "kafka_ext/handover.h" nogil:
    int kx_handover_init() noexcept
    void kx_handover_ask() noexcept
    bint kx_handover_got() noexcept with gil
    bint kx_handover_wanted() noexcept
    void kx_handover_give() noexcept with gil
    void kx_handover_nap(int64_t since, int64_t now) noexcept
    void kx_handover_end() noexcept

cdef extern from "kafka_ext/callbacks.h":
    ctypedef enum kx_runs:
        KX_RUNS
        KX_COROUTINE
    kx_runs kx_callback_runs(object callback, object partial) noexcept

cdef extern from "kafka_ext/build.h":
    const char *KAFKA_EXT_LINKAGE
    const char *KAFKA_EXT_ALLOCATOR
    const char *KAFKA_EXT_LIBRARIES
    const char *KAFKA_EXT_SOURCES
    const char *KAFKA_EXT_PATCHES
    const bint KX_DEBUG_BUILD


cdef extern from "kafka_ext/future.h":
    ctypedef int (*kx_sendfunc)(PyObject *, PyObject *, PyObject **) except -1
    Py_ssize_t kx_future_loop_at(object future, object loop) noexcept
    object kx_future_new(PyTypeObject *type, object loop, Py_ssize_t loop_at)
    void kx_future_shown(object future) noexcept
    void kx_set_am_send(PyTypeObject *type, kx_sendfunc send) noexcept


# ------------------------------------------------------------------ life.pyx


cdef struct Life:
    # Where a client is in its life. life.pyx has the state machine and says who may change what.
    int state                       # ClientState
    int generation                  # kx_fork_generation of the process that made it
    int64_t callers                 # calls that may touch rk right now; close() waits for them
    int users                       # those that keep rk: the client until destroy(), and threads
    kx_gate gate                    # opens when events were served and when the state changes
    bint gate_made
    int abandoned                   # KX_FLAG: its owner was collected: finish the work, then end
    int stop                        # KX_FLAG: the events thread is to end
    bint in_run                     # a thread is inside run()
    bint out_of_time                # a close elsewhere has no time left: give up what is open


# ------------------------------------------------------------------ serving.pyx


cdef struct Throttle:
    Throttle *next
    int32_t broker_id
    int milliseconds
    char[256] broker_name


cdef struct Serving:
    # Who serves the queue of events, and what the next turn finds. Only the serving thread
    # changes anything but `taken`.
    int taken                       # KX_TRY: a thread serves, one at a time
    unsigned long thread            # its ident; 0: none. In a callback, the thread that runs it
    # When the last turn began for which another thread had to give up the GIL, in microseconds;
    # else 0
    int64_t handed_over
    rd_kafka_event_t *at_hand       # owned: an event of whose messages some have been answered
    int64_t at_hand_taken           # how many
    bint drained                    # the last turn's last poll found the queue empty
    Throttle *throttles             # owned: what librdkafka has called back since the last turn


@cython.final
cdef class CallbackErrors:
    # What callbacks have raised.
    cdef int64_t count              # all of them, for the metrics
    cdef list kept                  # manual polling: for the serving call to raise
    cdef int64_t not_kept           # and how many more, past MAX_RAISED
    cdef int shown                  # events thread: given to sys.unraisablehook in this second
    cdef int64_t not_shown          # and how many more, past MAX_RAISED
    cdef int64_t shown_until        # when that second is over, in microseconds

    cdef int keep(self, object exc) except -1
    cdef int show(self, object exc, object callback) except -1
    cdef int report_not_shown(self) noexcept


# ------------------------------------------------------------------ loop.pyx


@cython.final
cdef class EventLoop:
    # The asyncio event loop that serves a client.
    cdef object loop
    cdef unsigned long thread       # the thread that the loop ran in when it last served
    cdef list outcomes              # for futures, found in another thread than the loop's
    cdef list waiting               # futures of those who wait for the next turn of serving

    cdef int pass_on(self) except -1


@cython.final
cdef class LoopOutcome:
    # What a thread tells a loop at its end.
    cdef object loop
    cdef readonly object future


@cython.final
cdef class LoopAlarm:
    # A future that is done after a time.
    cdef LoopOutcome outcome
    cdef object ended               # an Event
    cdef object seconds             # None: it never is


# ------------------------------------------------------------------ diagnosis.pyx, secrets.pyx


@cython.final
cdef class ConnectionErrors:
    # The last error of a connection, and what was logged when. Only the serving thread writes it.
    cdef str last                   # "; last connection error: …"; None: there was none
    cdef int64_t last_at            # in microseconds of the monotonic clock
    cdef int64_t progress           # Client.progress() at that time
    cdef dict logged                # text -> when

    cdef bint due(self, str text) except -1
    cdef int remember(self, Client client, int code, str text) except -1
    cdef str hint(self, Client client)


@cython.final
cdef class Secrets:
    # The texts that must appear nowhere: of the settings, and of the newest token.
    cdef tuple of_settings
    cdef tuple all

    cdef str redacted(self, const char *text)


# ------------------------------------------------------------------ client.pyx


cdef class Client:
    cdef rd_kafka_t *rk             # owned
    cdef rd_kafka_queue_t *queue    # owned: all events come here
    cdef Life life
    cdef Serving serving
    cdef readonly bint manual       # no events thread: whoever calls serves
    cdef EventLoop loop             # None: no event loop serves
    cdef object callbacks           # dict: error_cb, stats_cb, throttle_cb, log_cb, …
    cdef CallbackErrors callback_errors
    cdef ConnectionErrors connection_errors
    cdef Secrets secrets
    cdef kx_counts errors           # librdkafka's own, by code
    cdef bytes statistics           # the newest, as JSON
    cdef object __weakref__

    cdef int connect(
        self, rd_kafka_type_t kind, int events, dict settings, object extra_names) except -1

    # ---- life.pyx says what these are for
    cdef int enter(self) except -1
    cdef bint try_enter(self) noexcept
    cdef int leave(self) noexcept
    cdef int let_signals(self) except -1
    cdef bint retain(self) noexcept
    cdef int retain_open(self) except -1
    cdef int release(self) except -1
    cdef bint ended(self) noexcept
    cdef int64_t serve_here(self, int timeout_ms) except -1

    # ---- what each kind of client has its own way of; serving.pyx and client.pyx call them
    cdef int refuse(self) except -1
    cdef int64_t progress(self) noexcept
    cdef rd_kafka_topic_t *topic_handle(self, object name) except NULL
    cdef int64_t take(self, rd_kafka_event_t *event, int64_t at_most) noexcept nogil
    cdef int64_t ready(self) noexcept nogil
    cdef bint answer(self) noexcept
    cdef bint finish_turn(self) noexcept
    cdef int give_back(self, int64_t messages) noexcept nogil
    cdef bint finish_slice(self, int milliseconds) noexcept
    cdef int give_up(self) except -1
    cdef bint has_rest(self) noexcept nogil
    cdef int release_rest(self) noexcept
    cdef int before_destroy(self) except -1
    cdef int after_destroy(self) except -1


# ------------------------------------------------------------------ calls.pyx


@cython.final
cdef class ThreadCall:
    # The outcome of a call in a thread of its own, and whether anybody still waits for it.
    cdef readonly tuple outcome     # (failed, result); None while it is not done
    cdef public bint given_up       # nobody waits any more
    cdef Event done
    cdef object tell                # called with the outcome as well; or None

    cdef object wait(self, Client client)


# ------------------------------------------------------------------ threads.pyx
@cython.final
cdef class Event:
    cdef kx_gate gate
    cdef bint gate_made
    cdef int generation                 # kx_fork_generation of the process that made the gate
    cdef int told                       # KX_FLAG


@cython.final
cdef class Monitor:
    cdef kx_gate gate                   # opened by who lets go of it
    cdef bint gate_made
    cdef int generation                 # kx_fork_generation of the process that made the gate
    cdef int taken                      # KX_TRY
    cdef int64_t owner                  # 0: nobody
    cdef int64_t depth
    cdef list waiting                   # an Event for each

    cdef object take_again(self)


@cython.final
cdef class Thread:
    cdef readonly str name
    cdef object function
    cdef tuple arguments
    cdef Event ended
    cdef bint started
