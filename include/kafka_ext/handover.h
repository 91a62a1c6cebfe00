/* How a thread that waits for the GIL gets it from one that computes.
 *
 * CPython lets whoever holds the GIL keep it for five milliseconds (sys.getswitchinterval()) before
 * another one's wish interrupts it: a delivery report that needs a tenth of one for its whole way
 * would wait five more for its callback. So the thread that serves says that it waits, and who
 * holds the GIL lets go of it until that thread has got it: each `send` looks for the wish, and
 * from CPython 3.13 on a pending call (Py_AddPendingCall, which needs no GIL) interrupts the main
 * thread between two bytecodes, as a signal would. Older versions only look for pending calls of
 * other threads when they next look for signals, which is no sooner. Nothing but that is done
 * there: who calls the callbacks does not change.
 *
 * A wish costs who computes some 50 to 100 microseconds, two wake-ups of a thread;
 * kx_handover_nap() keeps wishes apart.
 */
#ifndef KAFKA_EXT_HANDOVER_H
#define KAFKA_EXT_HANDOVER_H

#include <Python.h>

#include "kafka_ext/threads.h"

/* At least so long from one turn that had to be asked for to the next, in microseconds. */
#define KX_HANDOVER_APART 500
/* At most so long the GIL is let go of, in milliseconds: the thread that asked may have got it
 * from another. */
#define KX_HANDOVER_MS 2

#ifdef Py_GIL_DISABLED

static inline int kx_handover_init(void) { return 0; }
static inline void kx_handover_ask(void) { }
static inline int kx_handover_got(void) { return 0; }
static inline int kx_handover_wanted(void) { return 0; }
static inline void kx_handover_give(void) { }
static inline void kx_handover_end(void) { }

#else

/* One for the process, for the GIL is, and a pending call cannot be taken back when a producer
 * goes. */
static struct {
    kx_gate got;        /* opened by each thread that has asked and holds the GIL now */
    int waiting;        /* how many have asked and do not hold it yet */
    int asked;          /* a pending call is on its way */
    int given;          /* somebody has let go of the GIL; changed with the GIL only */
    int ended;          /* the interpreter is about to, and with it the place for pending calls */
} kx_handover;

static inline int kx_handover_wanted(void)
{
    return __atomic_load_n(&kx_handover.waiting, __ATOMIC_RELAXED) > 0;
}

/* Let those have the GIL who have asked for it. Called with it, and has it again on return. */
static inline void kx_handover_give(void)
{
    const unsigned long seen = kx_gate_seen(&kx_handover.got);
    if (!kx_handover_wanted())
        return;
    kx_handover.given = 1;
    Py_BEGIN_ALLOW_THREADS
    kx_gate_wait(&kx_handover.got, seen, KX_HANDOVER_MS);
    Py_END_ALLOW_THREADS
}

#if PY_VERSION_HEX >= 0x030D0000
static int kx_handover_called(void *unused)
{
    (void)unused;
    KX_STORE(kx_handover.asked, 0);
    kx_handover_give();
    return 0;
}
#endif

/* Without the GIL, right before taking it. */
static inline void kx_handover_ask(void)
{
    __atomic_fetch_add(&kx_handover.waiting, 1, __ATOMIC_SEQ_CST);
#if PY_VERSION_HEX >= 0x030D0000
    if (!KX_LOAD(kx_handover.ended) && KX_TRY(kx_handover.asked)
        && Py_AddPendingCall(kx_handover_called, NULL) != 0)
        KX_LET(kx_handover.asked);      /* too many are waiting already: without, then */
#endif
}

/* With the GIL, which it has just taken after having asked: whether somebody had to let go of
 * it. */
static inline int kx_handover_got(void)
{
    const int given = kx_handover.given;
    kx_handover.given = 0;
    __atomic_fetch_sub(&kx_handover.waiting, 1, __ATOMIC_SEQ_CST);
    kx_gate_open(&kx_handover.got);
    return given;
}

/* At the interpreter's exit: no pending calls any more. */
static inline void kx_handover_end(void) { KX_STORE(kx_handover.ended, 1); }

/* In a child, nobody of the parent's waits; its pending calls may be there or not, and its locks
 * may be locked. */
static void kx_handover_after_fork(void)
{
    (void)kx_gate_init(&kx_handover.got);
    kx_handover.waiting = kx_handover.asked = kx_handover.given = 0;
}

static inline int kx_handover_init(void)
{
    if (kx_gate_init(&kx_handover.got))
        return -1;
    return pthread_atfork(NULL, NULL, kx_handover_after_fork);
}

#endif

/* Without the GIL: wait until KX_HANDOVER_APART is over since `since` (microseconds of the
 * monotonic clock, `now` of the same). */
static inline void kx_handover_nap(int64_t since, int64_t now)
{
    const int64_t left = since + KX_HANDOVER_APART - now;
    if (left > 0) {
        const struct timespec pause = {0, (long)left * 1000};
        nanosleep(&pause, NULL);
    }
}

#endif
