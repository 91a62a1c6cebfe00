/* What a message keeps alive from `send` to its report, and nothing else.
 *
 * A message's opaque pointer, the only thing librdkafka carries for us, is one of three:
 *
 *     NULL          nothing is kept: no value or a copied one, and nobody to call
 *     pointer | 1   one strong reference to an immutable `bytes` or `str` whose memory is the
 *                   value; nobody to call
 *     pointer       a kx_message: everything else
 *
 * kx_message_make() is the one function that makes it, kx_message_release() the one that releases
 * it; both hold the GIL. No other code looks into the pointer, but for the questions asked through
 * kx_message_of() and kx_message_quiet().
 */
#ifndef KAFKA_EXT_MESSAGE_H
#define KAFKA_EXT_MESSAGE_H

#include <Python.h>
#include <stdarg.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

static void kx_refuse(const char *format, ...);

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

/* The exception for memory that cannot be sent, from its words: an InvalidRecordError, made by
 * the extension (core/producer/message.pyx). */
static PyObject *(*kx_invalid_record)(PyObject *message) = NULL;

static void kx_refuse(const char *format, ...)
{
    va_list arguments;
    PyObject *text, *exception = NULL;
    va_start(arguments, format);
    text = PyUnicode_FromFormatV(format, arguments);
    va_end(arguments);
    if (text)
        exception = kx_invalid_record(text);
    if (exception)
        PyErr_SetObject((PyObject *)Py_TYPE(exception), exception);
    Py_XDECREF(text);
    Py_XDECREF(exception);
}

typedef enum kx_content {
    KX_PLAIN,       /* its bytes are what it means */
    KX_ADDRESSES,   /* somewhere in it are pointers */
    KX_TEXT,        /* text in four (or two) bytes a character */
    KX_PADDED,      /* strings of one size each, padded with NULs */
    KX_NUMBER       /* one number, for who does not look at the dimensions */
} kx_content;

/* What lies in a buffer, by its format: struct's letters, PEP 3118's, and those of ctypes ("z",
 * and "Z" alone, are pointers there). */
static kx_content kx_content_of(const char *format)
{
    const char *last = NULL;
    size_t letters = 0;
    if (!format)
        return KX_PLAIN;
    for (const char *at = format; *at; at++) {
        if (*at == ':') {                               /* a field's name */
            const char *end = strchr(at + 1, ':');
            if (!end)
                break;
            at = end;
        } else if (strchr("OP&Xz", *at) || (*at == 'Z' && (!at[1] || !strchr("fdg", at[1])))) {
            return KX_ADDRESSES;
        } else if (strchr("uw", *at)) {
            return KX_TEXT;
        } else if ((*at >= 'a' && *at <= 'z') || (*at >= 'A' && *at <= 'Z') || *at == '?') {
            letters += *at != 'Z';
            last = at;
        }
    }
    if (letters != 1)
        return KX_PLAIN;        /* a record */
    return *last == 's' ? KX_PADDED : strchr("xpc", *last) ? KX_PLAIN : KX_NUMBER;
}

/* The first of `count` strings of `width` bytes that ends in NUL, or -1. NumPy fills short ones
 * up with NULs and forgets their length. */
static inline int64_t kx_first_padded(const void *strings, int64_t count, size_t width)
{
    for (int64_t i = 0; width && i < count; i++)
        if (!((const char *)strings)[(size_t)(i + 1) * width - 1])
            return i;
    return -1;
}

/* NumPy has no buffer format for some of its types (datetime64, for one): whether this is an
 * array of one that holds no pointers. */
static int kx_plain_without_format(PyObject *object)
{
    PyObject *dtype = PyObject_GetAttrString(object, "dtype");
    PyObject *objects = dtype ? PyObject_GetAttrString(dtype, "hasobject") : NULL;
    const int plain = objects == Py_False;
    Py_XDECREF(objects);
    Py_XDECREF(dtype);
    PyErr_Clear();
    return plain;
}

/* NumPy's scalars of time say that they are eight bytes. */
static inline int kx_is_numpy_time(PyObject *object)
{
    const char *name = Py_TYPE(object)->tp_name;
    return !strcmp(name, "numpy.datetime64") || !strcmp(name, "numpy.timedelta64");
}

/* ctypes says "B" of unions and packed structures, whatever their size. */
static inline int kx_is_structure(const Py_buffer *view)
{
    return view->itemsize > 1 && view->format && !strcmp(view->format, "B");
}

/* Refuse what is no bytes: 0, or -1 with an exception that names `what`. Never an address sent,
 * and nothing but what is meant. */
static int kx_check_content(PyObject *object, const Py_buffer *view, const char *what)
{
    const char *name = Py_TYPE(object)->tp_name;
    const kx_content content = kx_content_of(view->format);
    if (content == KX_ADDRESSES) {
        PyErr_Format(PyExc_TypeError,
                     "%s must be a buffer of plain data; this %.200s holds pointers "
                     "(format '%.100s')",
                     what, name, view->format);
    } else if (content == KX_TEXT) {
        PyErr_Format(PyExc_TypeError,
                     "%s must be bytes or a str; this %.200s holds text as numbers of characters "
                     "(format '%.100s'): encode it first",
                     what, name, view->format);
    } else if ((content == KX_NUMBER && !view->ndim && !kx_is_structure(view))
               || kx_is_numpy_time(object)) {
        PyErr_Format(PyExc_TypeError,
                     "%s must be a buffer (bytes, bytearray, memoryview, array, ...), a str or "
                     "None, not one number (%.200s): encode it first",
                     what, name);
    } else if (content == KX_PADDED && view->ndim) {
        const int64_t padded =
            view->itemsize
                ? kx_first_padded(view->buf, view->len / view->itemsize, (size_t)view->itemsize)
                : -1;
        if (padded < 0)
            return 0;
        kx_refuse("%s: item %lld of this %.200s of strings ends in NUL, which is padding or "
                  "content; use bytes (a list of them: tolist())",
                  what, (long long)padded, name);
    } else {
        return 0;
    }
    return -1;
}

/* NumPy's masked arrays, records and subclasses of them: their buffer is what lies under the
 * mask as well. Classes written in C are none. */
static int kx_is_masked(PyObject *object)
{
    PyObject *mro = Py_TYPE(object)->tp_mro;
    if (!PyType_HasFeature(Py_TYPE(object), Py_TPFLAGS_HEAPTYPE) || !mro)
        return 0;
    for (Py_ssize_t i = 0; i < PyTuple_GET_SIZE(mro); i++)
        if (!strcmp(((PyTypeObject *)PyTuple_GET_ITEM(mro, i))->tp_name, "MaskedArray"))
            return 1;
    return 0;
}

/* Export the C-contiguous buffer of `object`, with its format where it has one: 0, or -1 with an
 * exception that names `what`. BufferError is a full queue and nothing else; exporters raise it,
 * ValueError or TypeError for memory that cannot be had. */
static int kx_export(PyObject *object, Py_buffer *view, const char *what)
{
    PyObject *type, *value, *traceback;
    if (kx_is_masked(object)) {
        PyErr_Format(PyExc_TypeError,
                     "%s: a masked array would be sent with what is under its mask: give "
                     "filled(...) of it, or where it is a column pyarrow.array(...) of it, which "
                     "has nulls there",
                     what);
        return -1;
    }
    if (!PyObject_GetBuffer(object, view, PyBUF_C_CONTIGUOUS | PyBUF_FORMAT))
        return 0;
    if (!PyErr_ExceptionMatches(PyExc_ValueError) && !PyErr_ExceptionMatches(PyExc_TypeError)
        && !PyErr_ExceptionMatches(PyExc_BufferError))
        return -1;
    PyErr_Fetch(&type, &value, &traceback);
    if (kx_plain_without_format(object) && !PyObject_GetBuffer(object, view, PyBUF_C_CONTIGUOUS)) {
        Py_XDECREF(type);
        Py_XDECREF(value);
        Py_XDECREF(traceback);
        return 0;
    }
    PyErr_Clear();
    kx_refuse("%s: %.200s gives no C-contiguous buffer (%S)", what, Py_TYPE(object)->tp_name,
              value ? value : Py_None);
    Py_XDECREF(type);
    Py_XDECREF(value);
    Py_XDECREF(traceback);
    return -1;
}

/* Any exporter of a contiguous buffer; the buffer stays exported, hence in place, until
 * kx_bytes_drop. */
static int kx_bytes_export(PyObject *object, kx_bytes *bytes, const char *what)
{
    Py_buffer *view;
    if (!PyObject_CheckBuffer(object)) {
        int found = kx_dlpack_get(object, &bytes->data, &bytes->size, &bytes->owner, what);
        if (found == 0)
            PyErr_Format(PyExc_TypeError,
                         "%s must be a buffer (bytes, bytearray, memoryview, array, ...), a str or "
                         "None, not %.200s",
                         what, Py_TYPE(object)->tp_name);
        return found > 0 ? 0 : -1;
    }
    view = kx_raw_malloc(sizeof(*view));
    if (!view) {
        PyErr_NoMemory();
        return -1;
    }
    if (kx_export(object, view, what) < 0) {
        PyMem_RawFree(view);
        return -1;
    }
    if (kx_check_content(object, view, what) < 0) {
        PyBuffer_Release(view);
        PyMem_RawFree(view);
        return -1;
    }
    bytes->view = view;
    bytes->data = view->buf ? view->buf : "";
    bytes->size = (size_t)view->len;
    return 0;
}

/* A str that UTF-8 does not have: replaces the UnicodeEncodeError, which names nothing and
 * carries the text. */
static void kx_refuse_surrogates(const char *what)
{
    PyObject *type, *value, *traceback;
    Py_ssize_t start = 0;
    if (!PyErr_ExceptionMatches(PyExc_UnicodeEncodeError))
        return;
    PyErr_Fetch(&type, &value, &traceback);
    PyErr_NormalizeException(&type, &value, &traceback);
    if (value && PyUnicodeEncodeError_GetStart(value, &start) < 0)
        PyErr_Clear();
    Py_XDECREF(type);
    Py_XDECREF(value);
    Py_XDECREF(traceback);
    kx_refuse("%s: a str with a lone surrogate (at index %zd) has no UTF-8: surrogates not allowed",
              what, start);
}

/* The UTF-8 of a str, which CPython keeps with it; or NULL with an exception that names `what`. */
static inline const char *kx_utf8(PyObject *text, Py_ssize_t *size, const char *what)
{
    const char *data = PyUnicode_AsUTF8AndSize(text, size);
    if (!data)
        kx_refuse_surrogates(what);
    return data;
}

/* The bytes of `object`: 0, or -1 with an exception that names `what`. Immutable objects cost a
 * reference, nothing more; a str is its UTF-8, which CPython keeps with it (for ASCII it is the
 * str's own memory). */
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
        bytes->data = kx_utf8(object, &size, what);
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

/* Messages are made by senders and released by whoever serves the queue, so they never go
 * through malloc one by one: two threads meeting on an arena's lock, one with the GIL, was the
 * largest single cost measured (docs/performance). */
#define KX_SLAB 512

typedef struct kx_slab {
    struct kx_slab *next;
    kx_message messages[KX_SLAB];
} kx_slab;

typedef struct kx_pool {
    kx_message *free;
    kx_slab *slabs;
    /* messages whose value is ours to keep in place, those of batches included */
    int64_t pinned_messages;
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
    KX_INVARIANT(pool->pinned_messages == 0 && pool->pinned_bytes == 0,
                 "a pool goes with values pinned");
#endif
    while (pool->slabs) {
        kx_slab *slab = pool->slabs;
        pool->slabs = slab->next;
        kx_usable(slab, sizeof(*slab));
        PyMem_RawFree(slab);
    }
    pool->free = NULL;
}

/* Whether it is the memory of a `bytes` or a `str`, which a reference alone keeps as it is. */
static inline int kx_bytes_immutable(const kx_bytes *b)
{
    return !b->view && (PyBytes_Check(b->owner) || PyUnicode_Check(b->owner));
}

/* Make a message's opaque pointer. Takes over what `value` owns; takes new references to the
 * rest (each may be NULL). With `copied`, librdkafka will have the value's bytes for itself: the
 * caller drops `value` after the enqueue. 0, or -1 with MemoryError and nothing taken. */
static inline int kx_message_make(kx_pool *pool, kx_bytes *value, int copied, PyObject *on_delivery,
                                  PyObject *id, PyObject *headers, void **opaque)
{
    const int pins = !copied && (value->owner || value->view);
    if (!on_delivery && (!pins || kx_bytes_immutable(value))) {
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

/* Whether nobody is to be called. Safe without the GIL: what it reads is not written between
 * make and release. */
static inline int kx_message_quiet(void *opaque)
{
    kx_message *message = kx_message_of(opaque);
    return !message || !message->on_delivery;
}

/* Let go of everything a message kept, exactly once. Holds the GIL: destructors may run. */
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
            /* kept with the str since `send`: cannot fail */
            (void)PyUnicode_AsUTF8AndSize(owner, &size);
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

/* A report nobody listens to needs the GIL only for its release. So the thread that serves the
 * queue, without the GIL, puts such opaques on this list, and the next thread that holds the GIL
 * anyway (a sender, as a rule) empties it. Chunks are pushed and the whole list is taken with
 * one atomic exchange each. */
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
    while (!__atomic_compare_exchange_n(&releases->full, &chunk->next, chunk, 1, __ATOMIC_RELEASE,
                                        __ATOMIC_RELAXED)) {
    }
}

/* Put one off: 0, or -1 when there is no memory for it (the caller then releases it itself, with
 * the GIL). No GIL. */
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
 * Destructors run, and they may do anything, sending included. They belong to whoever sent what
 * is released, not to the call that happens to release it: so they count as callbacks, and wait
 * for no room. One that comes back here leaves the rest to the call it is in. */
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
