/* What threads share: counters, the gate a sender waits at, and how a fork is noticed.
 *
 * On a GIL build every counter below is changed with the GIL held, or by the one thread that serves
 * the queue; that is as cheap as a plain addition. A free-threaded build needs atomic ones.
 */
#ifndef KAFKA_EXT_THREADS_H
#define KAFKA_EXT_THREADS_H

#include <Python.h>
#include <errno.h>
#include <pthread.h>
#include <stdint.h>
#include <time.h>

#include "kafka_ext/memory.h"

#ifdef Py_GIL_DISABLED
#define KX_FREE_THREADED 1
#define KX_ADD(counter, n) ((void)__atomic_fetch_add(&(counter), (n), __ATOMIC_SEQ_CST))
#define KX_LOCK(lock) PyMutex_Lock(&(lock))
#define KX_UNLOCK(lock) PyMutex_Unlock(&(lock))
typedef PyMutex kx_lock;
#else
#define KX_FREE_THREADED 0
/* One thread at a time changes it, but others look at it meanwhile without the GIL. */
#define KX_ADD(counter, n)                                                            \
    __atomic_store_n(&(counter), __atomic_load_n(&(counter), __ATOMIC_RELAXED) + (n), \
                     __ATOMIC_RELEASE)
#define KX_LOCK(lock) ((void)0)
#define KX_UNLOCK(lock) ((void)0)
typedef char kx_lock;
#endif
#define KX_LOAD(counter) __atomic_load_n(&(counter), __ATOMIC_SEQ_CST)
#define KX_STORE(counter, n) __atomic_store_n(&(counter), (n), __ATOMIC_SEQ_CST)

/* A lock that nobody waits for: 1 for who has got it, until KX_LET. */
#define KX_TRY(flag) (!__atomic_exchange_n(&(flag), 1, __ATOMIC_ACQUIRE))
#define KX_LET(flag) __atomic_store_n(&(flag), 0, __ATOMIC_RELEASE)

/* Microseconds of the monotonic clock. */
static inline int64_t kx_now_us(void)
{
    struct timespec now;
    clock_gettime(CLOCK_MONOTONIC, &now);
    return (int64_t)now.tv_sec * 1000000 + now.tv_nsec / 1000;
}

/* 1: this thread is one of ours. It waits for real, and knows nothing of green threads. */
static __thread int kx_own_thread = 0;
static inline void kx_set_own_thread(int own) { kx_own_thread = own; }

/* ------------------------------------------------------------------ fork */

/* How many forks this process is away from the one that loaded the module. A handle remembers
 * the number it was made under; a different one means that librdkafka's threads are not here,
 * and that its connections are somebody else's. */
static int kx_fork_generation = 0;

static void kx_after_fork_in_child(void) { kx_fork_generation++; }

static inline int kx_watch_forks(void)
{
    return pthread_atfork(NULL, NULL, kx_after_fork_in_child);
}

/* ------------------------------------------------------------------ callbacks */

/* How many calls deep this thread is in callbacks, of any producer: there nothing waits for room
 * in a queue, since what makes the room may be waiting for this thread. */
static __thread int kx_callback_depth = 0;

static inline void kx_enter_callbacks(void) { kx_callback_depth++; }
static inline void kx_leave_callbacks(void) { kx_callback_depth--; }
static inline int kx_in_callback(void) { return kx_callback_depth > 0; }

/* ------------------------------------------------------------------ inside */

/* Between Handle.enter() and leave() there is C alone: whatever can run the user's code (a
 * callback excepted, in which close() raises) could close the producer there, and would wait for
 * itself. A debug build sees to it that nothing else comes in. */
#ifdef KAFKA_EXT_DEBUG
static __thread int kx_inside = 0;
static inline void kx_enters(void)
{
    KX_INVARIANT(!kx_inside || kx_in_callback(),
                 "the user's code runs where its call counts as inside");
    kx_inside++;
}
static inline void kx_leaves(void) { kx_inside--; }
#else
static inline void kx_enters(void) { }
static inline void kx_leaves(void) { }
#endif

/* ------------------------------------------------------------------ gate */

/* Where senders wait, without the GIL, for the events thread to make room in the queue. `opened`
 * counts the openings, so that one between a refused enqueue and the wait is never missed. */
typedef struct kx_gate {
    pthread_mutex_t mutex;
    pthread_cond_t condition;
    int waiting;
    unsigned long opened;
} kx_gate;

static inline int kx_gate_init(kx_gate *gate)
{
    pthread_condattr_t attributes;
    int failed;
    gate->waiting = 0;
    gate->opened = 0;
    if (pthread_mutex_init(&gate->mutex, NULL))
        return -1;
    if (pthread_condattr_init(&attributes)) {
        pthread_mutex_destroy(&gate->mutex);
        return -1;
    }
#ifndef __APPLE__
    pthread_condattr_setclock(&attributes, CLOCK_MONOTONIC);
#endif
    failed = pthread_cond_init(&gate->condition, &attributes);
    pthread_condattr_destroy(&attributes);
    if (failed) {
        pthread_mutex_destroy(&gate->mutex);
        return -1;
    }
    return 0;
}

static inline void kx_gate_destroy(kx_gate *gate)
{
    pthread_cond_destroy(&gate->condition);
    pthread_mutex_destroy(&gate->mutex);
}

static inline unsigned long kx_gate_seen(kx_gate *gate) { return KX_LOAD(gate->opened); }

static inline void kx_gate_open(kx_gate *gate)
{
    __atomic_fetch_add(&gate->opened, 1, __ATOMIC_SEQ_CST);
    if (KX_LOAD(gate->waiting)) {
        pthread_mutex_lock(&gate->mutex);
        pthread_cond_broadcast(&gate->condition);
        pthread_mutex_unlock(&gate->mutex);
    }
}

/* One wait on the gate's condition until `until`, of CLOCK_MONOTONIC, which nobody sets back;
 * ETIMEDOUT past it. */
static inline int kx_gate_wait_until(kx_gate *gate, const struct timespec *until)
{
#ifdef __APPLE__
    struct timespec left;
    clock_gettime(CLOCK_MONOTONIC, &left);
    left.tv_sec = until->tv_sec - left.tv_sec;
    left.tv_nsec = until->tv_nsec - left.tv_nsec;
    if (left.tv_nsec < 0) {
        left.tv_sec--;
        left.tv_nsec += 1000000000L;
    }
    if (left.tv_sec < 0)
        return ETIMEDOUT;
    return pthread_cond_timedwait_relative_np(&gate->condition, &gate->mutex, &left);
#else
    return pthread_cond_timedwait(&gate->condition, &gate->mutex, until);
#endif
}

/* Now and `milliseconds`, on CLOCK_MONOTONIC. */
static inline struct timespec kx_gate_deadline(long milliseconds)
{
    struct timespec until;
    clock_gettime(CLOCK_MONOTONIC, &until);
    until.tv_sec += milliseconds / 1000;
    until.tv_nsec += (milliseconds % 1000) * 1000000L;
    if (until.tv_nsec >= 1000000000L) {
        until.tv_sec++;
        until.tv_nsec -= 1000000000L;
    }
    return until;
}

/* Wait until the gate has been opened since `seen` was read, at most `milliseconds`. Never holds
 * the GIL. */
static inline void kx_gate_wait(kx_gate *gate, unsigned long seen, long milliseconds)
{
    const struct timespec until = kx_gate_deadline(milliseconds);
    pthread_mutex_lock(&gate->mutex);
    __atomic_fetch_add(&gate->waiting, 1, __ATOMIC_SEQ_CST);
    while (KX_LOAD(gate->opened) == seen)
        if (kx_gate_wait_until(gate, &until) == ETIMEDOUT)
            break;
    __atomic_fetch_sub(&gate->waiting, 1, __ATOMIC_SEQ_CST);
    pthread_mutex_unlock(&gate->mutex);
}

#endif
