# Memory as the C of this package asks for it, and what a debug build lets tests do to it
# (include/kafka_ext/memory.h).


cdef bint _MEMORY_IS_WATCHED = kx_watch_memory()


def fail_allocations(int64_t first, int64_t times=1, bint everywhere=False):
    """From here on let `times` allocations fail, from the one with number `first` on (0: the next),
    in this thread or `everywhere`.

    For tests of what happens then. Counted are this package's own in C, and Python's; not
    librdkafka's, which ends the process when `malloc` fails (rd_malloc() asserts).
    `allocations_failed` ends it.

    Raises:
        RuntimeError: this is not a debug build (KAFKA_EXT_DEBUG=1).
    """
    if not _MEMORY_IS_WATCHED:
        raise RuntimeError(
            "allocations can be made to fail in a debug build only: build with KAFKA_EXT_DEBUG=1")
    kx_fail_from(first, times, everywhere)


def allocations_failed():
    """End what `fail_allocations` began: `(counted, failed)` since then."""
    cdef int64_t counted, failed
    kx_fail_no_more(&counted, &failed)
    return counted, failed
