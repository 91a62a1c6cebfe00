/* What a message keeps alive from `send` to its report, and nothing else (DESIGN.md, rule 2).
 *
 * A message's opaque pointer, the only thing librdkafka carries for us, is one of three:
 *
 *     NULL          nothing is kept: no value or a copied one, and nobody to call
 *     pointer | 1   one strong reference to an immutable `bytes` or `str` whose memory is the value; nobody to call
 *     pointer       a kx_message: everything else
 *
 * kx_message_make() is the one function that makes it, kx_message_release() the one that releases it; both hold the GIL. No other
 * code looks into the pointer, but for the questions asked through kx_message_of() and kx_message_quiet().
 */
#ifndef KAFKA_EXT_MESSAGE_H
#define KAFKA_EXT_MESSAGE_H

#include <Python.h>
#include <stdint.h>
#include <stdlib.h>

#include "kafka_ext/dlpack.h"
#include "kafka_ext/memory.h"
#include "kafka_ext/threads.h"

/* ------------------------------------------------------------------ bytes of an object */

/* The bytes of a Python object and what keeps them in place. */
typedef struct kx_bytes {
    const void *data;   /* borrowed: NULL for None, never NULL for what is merely empty */
    size_t size;
    PyObject *owner;    /* owned: the bytes, str or DLPack capsule the memory belongs to, or NULL */
    Py_buffer *view;    /* owned: the export of any other buffer, or NULL */
} kx_bytes;

static inline void kx_bytes_drop(kx_bytes *bytes)
{
    if (bytes->view) {
        PyBuffer_Release(bytes->view);
        PyMem_RawFree(bytes->view);
        bytes->view = NULL;
    }
    Py_CLEAR(bytes->owner);
}

/* Any exporter of a contiguous buffer; the buffer stays exported, hence in place, until kx_bytes_drop (rule 1). */
static int kx_bytes_export(PyObject *object, kx_bytes *bytes, const char *what)
{
    Py_buffer *view;
    if (!PyObject_CheckBuffer(object)) {
        int found = kx_dlpack_get(object, &bytes->data, &bytes->size, &bytes->owner);
        if (found == 0)
            PyErr_Format(PyExc_TypeError, "%s must be a buffer (bytes, bytearray, memoryview, array, ...), a str or None, not %.200s",
                         what, Py_TYPE(object)->tp_name);
        return found > 0 ? 0 : -1;
    }
    view = kx_raw_malloc(sizeof(*view));
    if (!view) {
        PyErr_NoMemory();
        return -1;
    }
    if (PyObject_GetBuffer(object, view, PyBUF_SIMPLE) < 0) {
        PyMem_RawFree(view);
        /* Exporters disagree on what to raise: NumPy says ValueError for strided memory. Here it is always BufferError. */
        if (PyErr_ExceptionMatches(PyExc_ValueError) || PyErr_ExceptionMatches(PyExc_TypeError)
            || PyErr_ExceptionMatches(PyExc_BufferError)) {
            PyObject *type, *value, *traceback;
            PyErr_Fetch(&type, &value, &traceback);
            PyErr_Format(PyExc_BufferError, "%s: %.200s gives no C-contiguous buffer (%S)", what, Py_TYPE(object)->tp_name,
                         value ? value : Py_None);
            Py_XDECREF(type);
            Py_XDECREF(value);
            Py_XDECREF(traceback);
        }
        return -1;
    }
    bytes->view = view;
    bytes->data = view->buf ? view->buf : "";
    bytes->size = (size_t)view->len;
    return 0;
}

/* The bytes of `object`: 0, or -1 with an exception that names `what`. Immutable objects cost a reference, nothing more; a str is
 * its UTF-8, which CPython keeps with it (for ASCII it is the str's own memory). */
static inline int kx_bytes_get(PyObject *object, kx_bytes *bytes, const char *what)
{
    bytes->owner = NULL;
    bytes->view = NULL;
    if (PyBytes_Check(object)) {
        bytes->data = PyBytes_AS_STRING(object);
        bytes->size = (size_t)PyBytes_GET_SIZE(object);
        bytes->owner = Py_NewRef(object);
        return 0;
    }
    if (object == Py_None) {
        bytes->data = NULL;
        bytes->size = 0;
        return 0;
    }
    if (PyUnicode_Check(object)) {
        Py_ssize_t size;
        bytes->data = PyUnicode_AsUTF8AndSize(object, &size);
        if (!bytes->data)
            return -1;
        bytes->size = (size_t)size;
        bytes->owner = Py_NewRef(object);
        return 0;
    }
    return kx_bytes_export(object, bytes, what);
}

/* ------------------------------------------------------------------ the message */

typedef struct kx_message {
    kx_bytes value;             /* what is pinned; empty when librdkafka copied it */
    PyObject *on_delivery;      /* owned, or NULL: nobody to call */
    PyObject *id;               /* owned, or NULL */
    PyObject *headers;          /* owned, or NULL: a tuple of pairs, for the report */
#ifdef KAFKA_EXT_DEBUG
    uint64_t state;             /* KX_IN_USE, or what kx_unusable() leaves */
#endif
    struct kx_message *next;    /* in the pool's free list, where it is all that may be looked at */
} kx_message;

#define KX_IN_USE UINT64_C(0x6b782d6d65737361)
#define KX_CONTENT offsetof(kx_message, next)

/* Everything in use anywhere in the process, for live_objects(). */
static int64_t kx_live_messages = 0;

/* Messages are made by senders and released by whoever serves the queue, so they never go through malloc one by one: two threads
 * meeting on an arena's lock, one with the GIL, was the largest single cost measured (docs/performance). */
#define KX_SLAB 512

typedef struct kx_slab {
    struct kx_slab *next;
    kx_message messages[KX_SLAB];
} kx_slab;

typedef struct kx_pool {
    kx_message *free;
    kx_slab *slabs;
    int64_t pinned_messages;    /* messages whose value is ours to keep in place, those of batches included */
    int64_t pinned_bytes;
#ifdef KAFKA_EXT_DEBUG
    int64_t taken;              /* structs that are not in the free list */
#endif
    kx_lock lock;
} kx_pool;

static inline kx_message *kx_pool_take(kx_pool *pool)
{
    kx_message *message;
    KX_LOCK(pool->lock);
    message = pool->free;
    if (!message) {
        kx_slab *slab = kx_raw_malloc(sizeof(*slab));
        if (slab) {
            slab->next = pool->slabs;
            pool->slabs = slab;
            for (int i = 0; i < KX_SLAB; i++) {
                kx_unusable(&slab->messages[i], KX_CONTENT);
                slab->messages[i].next = pool->free;
                pool->free = &slab->messages[i];
            }
            message = pool->free;
        }
    }
    if (message) {
        pool->free = message->next;
        kx_usable(message, KX_CONTENT);
#ifdef KAFKA_EXT_DEBUG
        message->state = KX_IN_USE;
        pool->taken++;
#endif
    }
    KX_UNLOCK(pool->lock);
    return message;
}

static inline void kx_pool_give(kx_pool *pool, kx_message *message)
{
    KX_LOCK(pool->lock);
#ifdef KAFKA_EXT_DEBUG
    pool->taken--;
#endif
    kx_unusable(message, KX_CONTENT);
    message->next = pool->free;
    pool->free = message;
    KX_UNLOCK(pool->lock);
}

static inline void kx_pool_destroy(kx_pool *pool)
{
#ifdef KAFKA_EXT_DEBUG
    KX_INVARIANT(pool->taken == 0, "a pool goes with messages in use");
    KX_INVARIANT(pool->pinned_messages == 0 && pool->pinned_bytes == 0, "a pool goes with values pinned");
#endif
    while (pool->slabs) {
        kx_slab *slab = pool->slabs;
        pool->slabs = slab->next;
        kx_usable(slab, sizeof(*slab));
        PyMem_RawFree(slab);
    }
    pool->free = NULL;
}

/* Make a message's opaque pointer. Takes over what `value` owns; takes new references to the rest (each may be NULL).
 * With `copied`, librdkafka will have the value's bytes for itself: the caller drops `value` after the enqueue.
 * 0, or -1 with MemoryError and nothing taken. */
static inline int kx_message_make(kx_pool *pool, kx_bytes *value, int copied, PyObject *on_delivery, PyObject *id, PyObject *headers,
                                  void **opaque)
{
    const int pins = !copied && (value->owner || value->view);
    if (!on_delivery && !(pins && (value->view || !(PyBytes_Check(value->owner) || PyUnicode_Check(value->owner))))) {
        *opaque = pins ? (void *)((uintptr_t)value->owner | 1) : NULL;
    } else {
        kx_message *message = kx_pool_take(pool);
        if (!message) {
            PyErr_NoMemory();
            return -1;
        }
        if (pins)
            message->value = *value;
        else
            message->value = (kx_bytes){NULL, 0, NULL, NULL};
        message->on_delivery = Py_XNewRef(on_delivery);
        message->id = Py_XNewRef(id);
        message->headers = Py_XNewRef(headers);
        *opaque = message;
    }
    if (*opaque)
        KX_ADD(kx_live_messages, 1);
    if (pins) {
        KX_ADD(pool->pinned_messages, 1);
        KX_ADD(pool->pinned_bytes, (int64_t)value->size);
        value->owner = NULL;
        value->view = NULL;
    }
    return 0;
}

/* The kx_message behind an opaque pointer, or NULL where there is none. Safe without the GIL. */
static inline kx_message *kx_message_of(void *opaque)
{
    return ((uintptr_t)opaque & 1) ? NULL : (kx_message *)opaque;
}

/* Whether nobody is to be called. Safe without the GIL: what it reads is not written between make and release. */
static inline int kx_message_quiet(void *opaque)
{
    kx_message *message = kx_message_of(opaque);
    return !message || !message->on_delivery;
}

/* Let go of everything a message kept, exactly once (rule 1). Holds the GIL: destructors may run. */
static inline void kx_message_release(kx_pool *pool, void *opaque)
{
    if (!opaque)
        return;
    KX_INVARIANT(((uintptr_t)opaque & 3) < 2, "the release of what is not a message");
    KX_INVARIANT(KX_LOAD(kx_live_messages) > 0, "more messages released than made");
    KX_ADD(kx_live_messages, -1);
    if ((uintptr_t)opaque & 1) {
        PyObject *owner = (PyObject *)((uintptr_t)opaque & ~(uintptr_t)1);
        Py_ssize_t size;
        KX_INVARIANT(Py_REFCNT(owner) > 0, "a value released before its message");
        if (PyBytes_Check(owner))
            size = PyBytes_GET_SIZE(owner);
        else
            (void)PyUnicode_AsUTF8AndSize(owner, &size);    /* kept with the str since `send`: cannot fail */
        KX_ADD(pool->pinned_messages, -1);
        KX_ADD(pool->pinned_bytes, -(int64_t)size);
        Py_DECREF(owner);
    } else {
        kx_message *message = opaque;
        kx_message kept;
        /* Under AddressSanitizer the second release of a message is a "use-after-poison" here. */
        KX_INVARIANT(message->state == KX_IN_USE, "a message released twice");
        kept = *message;
        kx_pool_give(pool, message);
        if (kept.value.owner || kept.value.view) {
            KX_ADD(pool->pinned_messages, -1);
            KX_ADD(pool->pinned_bytes, -(int64_t)kept.value.size);
            kx_bytes_drop(&kept.value);
        }
        Py_XDECREF(kept.on_delivery);
        Py_XDECREF(kept.id);
        Py_XDECREF(kept.headers);
    }
}

/* ------------------------------------------------------------------ releases put off */

/* A report nobody listens to needs the GIL only for its release. So the thread that serves the queue, without the GIL, puts such
 * opaques on this list, and the next thread that holds the GIL anyway (a sender, as a rule) empties it. Chunks are pushed and the
 * whole list is taken with one atomic exchange each. */
#define KX_CHUNK 510

typedef struct kx_chunk {
    struct kx_chunk *next;
    size_t count;
    void *opaques[KX_CHUNK];
} kx_chunk;

typedef struct kx_releases {
    kx_chunk *full;     /* shared: pushed by the serving thread, taken by anybody */
    kx_chunk *filling;  /* the serving thread's own */
} kx_releases;

/* Hand what has been put off to the others. No GIL. */
static inline void kx_releases_publish(kx_releases *releases)
{
    kx_chunk *chunk = releases->filling;
    if (!chunk)
        return;
    releases->filling = NULL;
    chunk->next = __atomic_load_n(&releases->full, __ATOMIC_RELAXED);
    while (!__atomic_compare_exchange_n(&releases->full, &chunk->next, chunk, 1, __ATOMIC_RELEASE, __ATOMIC_RELAXED)) {
    }
}

/* Put one off: 0, or -1 when there is no memory for it (the caller then releases it itself, with the GIL). No GIL. */
static inline int kx_releases_add(kx_releases *releases, void *opaque)
{
    kx_chunk *chunk = releases->filling;
    if (!chunk) {
        chunk = releases->filling = kx_malloc(sizeof(*chunk));
        if (!chunk)
            return -1;
        chunk->count = 0;
    }
    chunk->opaques[chunk->count++] = opaque;
    if (chunk->count == KX_CHUNK)
        kx_releases_publish(releases);
    return 0;
}

static inline int kx_releases_waiting(kx_releases *releases)
{
    return __atomic_load_n(&releases->full, __ATOMIC_RELAXED) != NULL;
}

/* Release all that was put off and published. Holds the GIL.
 *
 * Destructors run, and they may do anything, sending included. They belong to whoever sent what is released, not to the call that happens
 * to release it: so they count as callbacks, and wait for no room. One that comes back here leaves the rest to the call it is in. */
static inline void kx_releases_empty(kx_releases *releases, kx_pool *pool)
{
    static __thread int emptying = 0;
    kx_chunk *chunk;
    if (emptying)
        return;
    emptying = 1;
    kx_enter_callbacks();
    chunk = __atomic_exchange_n(&releases->full, NULL, __ATOMIC_ACQUIRE);
    while (chunk) {
        kx_chunk *next = chunk->next;
        for (size_t i = 0; i < chunk->count; i++)
            kx_message_release(pool, chunk->opaques[i]);
        free(chunk);
        chunk = next;
    }
    kx_leave_callbacks();
    emptying = 0;
}

#endif
