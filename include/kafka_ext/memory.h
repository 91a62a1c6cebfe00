/* Memory as this package asks for it, and what a debug build (KAFKA_EXT_DEBUG=1) watches over:
 * invariants that abort with a word on which one was broken, pooled memory that may not be touched
 * (AddressSanitizer), and allocations that fail on order.
 *
 * A release build has none of it: kx_malloc() is malloc(), and KX_INVARIANT() is nothing.
 */
#ifndef KAFKA_EXT_MEMORY_H
#define KAFKA_EXT_MEMORY_H

#include <Python.h>
#include <pthread.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#if defined(__SANITIZE_ADDRESS__)
#define KX_ASAN 1
#elif defined(__has_feature)
#if __has_feature(address_sanitizer)
#define KX_ASAN 1
#endif
#endif

#ifndef KAFKA_EXT_DEBUG

#define KX_INVARIANT(holds, what) ((void)0)
#define kx_malloc malloc
#define kx_calloc calloc
#define kx_realloc realloc
#define kx_raw_malloc PyMem_RawMalloc
#define kx_unusable(memory, size) ((void)0)
#define kx_usable(memory, size) ((void)0)

#else

/* ------------------------------------------------------------------ invariants */

static inline void kx_broken(const char *what, const char *file, int line)
{
    fprintf(stderr, "kafka_ext: invariant broken: %s (%s:%d)\n", what, file, line);
    fflush(stderr);
    abort();
}

#define KX_INVARIANT(holds, what) ((holds) ? (void)0 : kx_broken(what, __FILE__, __LINE__))

/* Memory that is kept but belongs to nobody for now: whoever reads or writes it is told by
 * AddressSanitizer, and finds nothing of use without it. */
#ifdef KX_ASAN
void __asan_poison_memory_region(void const volatile *memory, size_t size);
void __asan_unpoison_memory_region(void const volatile *memory, size_t size);
#endif

static inline void kx_unusable(void *memory, size_t size)
{
    memset(memory, 0xdd, size);
#ifdef KX_ASAN
    __asan_poison_memory_region(memory, size);
#endif
}

static inline void kx_usable(void *memory, size_t size)
{
#ifdef KX_ASAN
    __asan_unpoison_memory_region(memory, size);
#endif
    memset(memory, 0xcc, size);
}

/* ------------------------------------------------------------------ allocations that fail */

/* Which allocations fail: of those counted since it was armed, `times` from number `first` (0:
 * the next) on. Counted are this package's own in C, and Python's; librdkafka ends the process
 * when malloc() fails, so its own are let be. */
static struct {
    int64_t first, times;
    int64_t counted, failed;
    int armed;              /* 0: no; 1: in the thread that armed it; 2: in every thread */
    pthread_t thread;
} kx_failing = {0};

static inline int kx_fails(void)
{
    int64_t number;
    const int armed = __atomic_load_n(&kx_failing.armed, __ATOMIC_ACQUIRE);
    if (!armed || (armed == 1 && !pthread_equal(kx_failing.thread, pthread_self())))
        return 0;
    number = __atomic_fetch_add(&kx_failing.counted, 1, __ATOMIC_RELAXED);
    if (number < kx_failing.first || number - kx_failing.first >= kx_failing.times)
        return 0;
    __atomic_fetch_add(&kx_failing.failed, 1, __ATOMIC_RELAXED);
    return 1;
}

static inline void *kx_malloc(size_t size) { return kx_fails() ? NULL : malloc(size); }
static inline void *kx_calloc(size_t count, size_t size)
{
    return kx_fails() ? NULL : calloc(count, size);
}
static inline void *kx_realloc(void *memory, size_t size)
{
    return kx_fails() ? NULL : realloc(memory, size);
}
/* fails with Python's own */
static inline void *kx_raw_malloc(size_t size) { return PyMem_RawMalloc(size); }

/* Python's allocators, with this in front of them. */
static PyMemAllocatorEx kx_python_allocators[3];

static void *kx_python_malloc(void *context, size_t size)
{
    PyMemAllocatorEx *to = context;
    return kx_fails() ? NULL : to->malloc(to->ctx, size);
}

static void *kx_python_calloc(void *context, size_t count, size_t size)
{
    PyMemAllocatorEx *to = context;
    return kx_fails() ? NULL : to->calloc(to->ctx, count, size);
}

static void *kx_python_realloc(void *context, void *memory, size_t size)
{
    PyMemAllocatorEx *to = context;
    return kx_fails() ? NULL : to->realloc(to->ctx, memory, size);
}

static void kx_python_free(void *context, void *memory)
{
    PyMemAllocatorEx *to = context;
    to->free(to->ctx, memory);
}

/* Once, when the module is loaded and there are no threads of its own. */
static inline void kx_watch_python_allocators(void)
{
    static const PyMemAllocatorDomain domains[3] = {PYMEM_DOMAIN_RAW, PYMEM_DOMAIN_MEM,
                                                    PYMEM_DOMAIN_OBJ};
    static int watching = 0;
    if (watching++)
        return;
    for (int i = 0; i < 3; i++) {
        PyMemAllocatorEx in_front = {&kx_python_allocators[i], kx_python_malloc, kx_python_calloc,
                                     kx_python_realloc, kx_python_free};
        PyMem_GetAllocator(domains[i], &kx_python_allocators[i]);
        PyMem_SetAllocator(domains[i], &in_front);
    }
}

#endif
/* ------------------------------------------------------------------ for tests */

/* fail_allocations() and allocations_failed() of core/client/memory.pyx. */
#ifdef KAFKA_EXT_DEBUG

static inline int kx_watch_memory(void)
{
    kx_watch_python_allocators();
    return 1;
}

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

static inline int kx_watch_memory(void) { return 0; }
static inline void kx_fail_from(int64_t first, int64_t times, int everywhere)
{
    (void)first;
    (void)times;
    (void)everywhere;
}
static inline void kx_fail_no_more(int64_t *counted, int64_t *failed) { *counted = *failed = 0; }

#endif

#endif
