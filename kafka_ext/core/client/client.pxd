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
