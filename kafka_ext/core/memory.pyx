# Memory as the C of this package asks for it, and what a debug build lets tests do to it (include/kafka_ext/memory.h).

from libc.stdint cimport int64_t

cdef extern from "kafka_ext/memory.h" nogil:
    void *malloc "kx_malloc"(size_t size) noexcept
    void *calloc "kx_calloc"(size_t count, size_t size) noexcept
    void *realloc "kx_realloc"(void *memory, size_t size) noexcept

cdef extern from *:
    """
    #ifdef KAFKA_EXT_DEBUG
    static inline int kx_watch(void) { kx_watch_python_allocators(); return 1; }
    static inline void kx_fail_from(int64_t first, int64_t times, int everywhere)
    {
        kx_failing.first = first;
        kx_failing.times = times;
        kx_failing.counted = kx_failing.failed = 0;
        kx_failing.thread = pthread_self();
        __atomic_store_n(&kx_failing.armed, everywhere ? 2 : 1, __ATOMIC_RELEASE);
    }
    static inline void kx_fail_no_more(int64_t *counted, int64_t *failed)
    {
        __atomic_store_n(&kx_failing.armed, 0, __ATOMIC_RELEASE);
        *counted = __atomic_load_n(&kx_failing.counted, __ATOMIC_RELAXED);
        *failed = __atomic_load_n(&kx_failing.failed, __ATOMIC_RELAXED);
    }
    #else
    static inline int kx_watch(void) { return 0; }
    static inline void kx_fail_from(int64_t first, int64_t times, int everywhere) { (void)first, (void)times, (void)everywhere; }
    static inline void kx_fail_no_more(int64_t *counted, int64_t *failed) { *counted = *failed = 0; }
    #endif
    """
    bint kx_watch() noexcept
    void kx_fail_from(int64_t first, int64_t times, bint everywhere) noexcept
    void kx_fail_no_more(int64_t *counted, int64_t *failed) noexcept

cdef bint _MEMORY_IS_WATCHED = kx_watch()


def fail_allocations(int64_t first, int64_t times=1, bint everywhere=False):
    """From here on let `times` allocations fail, from the one with number `first` on (0: the next), in this thread or `everywhere`.

    For tests of what happens then. Counted are this package's own in C, and Python's; not librdkafka's, which ends the process when
    `malloc` fails (rd_malloc() asserts). `allocations_failed` ends it.

    Raises:
        RuntimeError: this is not a debug build (KAFKA_EXT_DEBUG=1).
    """
    if not _MEMORY_IS_WATCHED:
        raise RuntimeError("allocations can be made to fail in a debug build only: build with KAFKA_EXT_DEBUG=1")
    kx_fail_from(first, times, everywhere)


def allocations_failed():
    """End what `fail_allocations` began: `(counted, failed)` since then."""
    cdef int64_t counted, failed
    kx_fail_no_more(&counted, &failed)
    return counted, failed
