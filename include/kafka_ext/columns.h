/* Columns of bytes and of integers, as the enqueue loop reads them: without the GIL and without
 * Python.
 *
 * A column is a list of segments, each one piece of memory in one layout; a cursor walks along it.
 * Whoever makes a segment keeps its memory in place (BatchDelivery's pins); nothing here owns
 * anything but the lists themselves.
 */
#ifndef KAFKA_EXT_COLUMNS_H
#define KAFKA_EXT_COLUMNS_H

#include <Python.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "kafka_ext/arrow.h"

/* ------------------------------------------------------------------ bytes */

typedef enum kx_layout {
    KX_NULLS,       /* no memory: every one is null */
    KX_ONE,         /* the same bytes for all */
    /* PyObject *[]: exact `bytes`, immutable, so that they can be read without the GIL */
    KX_OBJECTS,
    KX_POINTERS,    /* structs of `width` bytes that begin with a kx_span; a NULL pointer is null */
    KX_ROWS,        /* rows of equal size, one behind another */
    KX_BINARY32,    /* Arrow binary and string: int32 offsets into one buffer */
    KX_BINARY64,    /* their large forms */
    KX_VIEWS        /* Arrow binary and string views */
} kx_layout;

typedef struct kx_span {
    const void *data;
    size_t size;
} kx_span;

typedef struct kx_segment {
    kx_layout layout;
    int64_t length;
    int64_t offset;             /* of the first one, in elements (Arrow slices) */
    const uint8_t *validity;    /* Arrow's bitmap, or NULL: none is null */
    const void *index;          /* offsets, views, objects or spans */
    const void *data;           /* bytes */
    /* the data buffers of views; a copy that nobody else writes, as the next */
    const void *const *buffers;
    const int64_t *sizes;       /* and their sizes */
    int64_t buffer_count;
    size_t width;               /* KX_ROWS, KX_ONE, KX_POINTERS */
    /* KX_BINARY32 and 64: what lies between the first and the last offset, as kx_segment_check()
     * found them */
    int64_t first, last;
    /* a dictionary-encoded column reads its values through these indices */
    const void *codes;
    int code_width;             /* bytes; negative: signed */
    const uint8_t *code_validity;
    int64_t code_offset;
    int64_t code_length;
} kx_segment;

typedef struct kx_view16 {
    int32_t size;
    union {
        uint8_t inlined[12];
        struct { uint8_t prefix[4]; int32_t buffer; int32_t offset; } elsewhere;
    } u;
} kx_view16;

static inline int kx_bit(const uint8_t *bitmap, int64_t i)
{
    return !bitmap || (bitmap[i >> 3] >> (i & 7) & 1);
}

/* Element `i` of numbers that may lie at any address: Arrow recommends alignment and does not
 * require it, a buffer promises none. */
#define KX_AT(type)                                                             \
    static inline type kx_at_##type(const void *numbers, int64_t i)             \
    {                                                                           \
        type number;                                                            \
        memcpy(&number, (const char *)numbers + (size_t)i * sizeof(type), sizeof(type)); \
        return number;                                                          \
    }
KX_AT(int16_t)
KX_AT(uint16_t)
KX_AT(int32_t)
KX_AT(uint32_t)
KX_AT(int64_t)
KX_AT(uint64_t)
KX_AT(kx_view16)
#undef KX_AT

static inline int64_t kx_code(const void *codes, int width, int64_t i)
{
    switch (width) {
    case -1: return ((const int8_t *)codes)[i];
    case 1: return ((const uint8_t *)codes)[i];
    case -2: return kx_at_int16_t(codes, i);
    case 2: return kx_at_uint16_t(codes, i);
    case -4: return kx_at_int32_t(codes, i);
    case 4: return kx_at_uint32_t(codes, i);
    case -8: return kx_at_int64_t(codes, i);
    default: {
        uint64_t code = kx_at_uint64_t(codes, i);
        return code > INT64_MAX ? -1 : (int64_t)code;
    }
    }
}

/* Where a column's memory says something else than when it was checked. */
static const char kx_changed[1];

static inline int kx_view_fits(const kx_segment *s, const kx_view16 *view)
{
    const int32_t buffer = view->u.elsewhere.buffer, offset = view->u.elsewhere.offset;
    return buffer >= 0 && buffer < s->buffer_count && offset >= 0 && s->buffers[buffer]
        && (int64_t)offset + view->size <= s->sizes[buffer];
}

/* Element `i` of a segment that kx_segment_check() has passed. Empty is never NULL: that is what
 * a tombstone is.
 *
 * Offsets, views and indices lie in the caller's memory, which another thread may write while
 * the call waits without the GIL. So each is held here once more against what kx_segment_check()
 * found; `data` is kx_changed where it leads elsewhere. */
static inline kx_span kx_segment_at(const kx_segment *s, int64_t i)
{
    static const char empty[1] = "";
    const kx_span changed = {kx_changed, 0};
    kx_span span = {NULL, 0};
    if (s->codes) {
        if (!kx_bit(s->code_validity, i + s->code_offset))
            return span;
        i = kx_code(s->codes, s->code_width, i + s->code_offset);
        if (i < 0 || i >= s->length)
            return changed;
    }
    i += s->offset;
    if (s->validity && !kx_bit(s->validity, i))
        return span;
    switch (s->layout) {
    case KX_NULLS:
        return span;
    case KX_ONE:
        span.data = s->data;
        span.size = s->width;
        return span;
    case KX_OBJECTS: {
        PyObject *object = ((PyObject *const *)s->index)[i];
        if (object != Py_None) {
            span.data = PyBytes_AS_STRING(object);
            span.size = (size_t)PyBytes_GET_SIZE(object);
        }
        return span;
    }
    case KX_POINTERS:
        memcpy(&span, (const char *)s->index + (size_t)i * s->width, sizeof(span));
        return span;
    case KX_ROWS:
        span.data = s->width ? (const char *)s->data + (size_t)i * s->width : empty;
        span.size = s->width;
        return span;
    case KX_BINARY32: {
        const int32_t start = kx_at_int32_t(s->index, i), end = kx_at_int32_t(s->index, i + 1);
        if (__builtin_expect(start < s->first || end < start || end > s->last, 0))
            return changed;
        span.size = (size_t)(end - start);
        span.data = span.size ? (const char *)s->data + start : empty;
        return span;
    }
    case KX_BINARY64: {
        const int64_t start = kx_at_int64_t(s->index, i), end = kx_at_int64_t(s->index, i + 1);
        if (__builtin_expect(start < s->first || end < start || end > s->last, 0))
            return changed;
        span.size = (size_t)(end - start);
        span.data = span.size ? (const char *)s->data + start : empty;
        return span;
    }
    case KX_VIEWS: {
        const kx_view16 view = kx_at_kx_view16(s->index, i);
        if (view.size < 0 || (view.size > 12 && !kx_view_fits(s, &view)))
            return changed;
        span.size = (size_t)view.size;
        if (view.size <= 12)
            span.data = (const char *)s->index + (size_t)i * sizeof(view) + offsetof(kx_view16, u);
        else
            span.data = (const char *)s->buffers[view.u.elsewhere.buffer] + view.u.elsewhere.offset;
        return span;
    }
    }
    return span;
}

/* A reference to each of `count` objects, and the objects into `held`, as long as each is an
 * exact `bytes` or None: how many that were. Holds the GIL. In memory that no cache has, waiting
 * for each object in turn would cost more than all the rest: they are asked for ahead. */
#define KX_AHEAD 16

static inline Py_ssize_t kx_objects_hold(PyObject *const *objects, Py_ssize_t count,
                                         PyObject **held)
{
    for (Py_ssize_t i = 0; i < count; i++) {
        if (i + KX_AHEAD < count)
            __builtin_prefetch(objects[i + KX_AHEAD], 1);
        if (!PyBytes_CheckExact(objects[i]) && objects[i] != Py_None)
            return i;
        held[i] = Py_NewRef(objects[i]);
    }
    return count;
}

static inline void kx_objects_drop(PyObject **held, Py_ssize_t count)
{
    for (Py_ssize_t i = 0; i < count; i++) {
        if (i + KX_AHEAD < count)
            __builtin_prefetch(held[i + KX_AHEAD], 1);
        Py_DECREF(held[i]);
    }
}

/* Element `i` will be asked for soon. Only objects lie where no prefetcher of the processor's
 * own would guess. */
static inline void kx_segment_ahead(const kx_segment *s, int64_t i)
{
    if (s->layout == KX_OBJECTS && i < s->length)
        __builtin_prefetch(((PyObject *const *)s->index)[s->offset + i]);
}

/* What would make kx_segment_at() read where it must not: NULL, or what is wrong (static text).
 * Once a segment, before anything is enqueued; reads each offset once. Notes what the offsets
 * span. */
static const char *kx_segment_check(kx_segment *s)
{
    if (s->length < 0 || s->offset < 0 || s->code_length < 0 || s->code_offset < 0)
        return "a negative length or offset";
    if (s->code_length > INT64_MAX - s->code_offset)
        return "a length beyond all memory";
    if (s->codes)
        for (int64_t i = 0; i < s->code_length; i++)
            if (kx_bit(s->code_validity, i + s->code_offset)) {
                int64_t code = kx_code(s->codes, s->code_width, i + s->code_offset);
                if (code < 0 || code >= s->length)
                    return "a dictionary index out of range";
            }
    if (!s->length)
        return NULL;
    if (s->length > INT64_MAX - s->offset)
        return "a length beyond all memory";
    switch (s->layout) {
    case KX_BINARY32: {
        int32_t last_offset = kx_at_int32_t(s->index, s->offset);
        const int32_t first = last_offset;
        if (first < 0)
            return "a negative offset";
        for (int64_t i = 1; i <= s->length; i++) {
            const int32_t offset = kx_at_int32_t(s->index, s->offset + i);
            if (offset < last_offset)
                return "offsets that go backwards";
            last_offset = offset;
        }
        s->first = first;
        s->last = last_offset;
        return s->data || last_offset == first ? NULL : "no data buffer";
    }
    case KX_BINARY64: {
        int64_t last_offset = kx_at_int64_t(s->index, s->offset);
        const int64_t first = last_offset;
        if (first < 0)
            return "a negative offset";
        for (int64_t i = 1; i <= s->length; i++) {
            const int64_t offset = kx_at_int64_t(s->index, s->offset + i);
            if (offset < last_offset)
                return "offsets that go backwards";
            last_offset = offset;
        }
        s->first = first;
        s->last = last_offset;
        return s->data || last_offset == first ? NULL : "no data buffer";
    }
    case KX_VIEWS:
        for (int64_t i = 0; i < s->length; i++) {
            const kx_view16 v = kx_at_kx_view16(s->index, s->offset + i);
            if (s->validity && !kx_bit(s->validity, s->offset + i))
                continue;
            if (v.size < 0)
                return "a view of negative size";
            if (v.size > 12 && !kx_view_fits(s, &v))
                return "a view outside its buffers";
        }
        return NULL;
    default:
        return NULL;
    }
}

/* Copy what tells where views may lead, their buffers and the sizes of these, into `memory`:
 * kx_segment_own_size() bytes, which the caller keeps as long as the segment. Between the import
 * and the check. */
static inline size_t kx_segment_own_size(const kx_segment *s)
{
    return s->layout == KX_VIEWS ? (size_t)s->buffer_count * (sizeof(void *) + sizeof(int64_t)) : 0;
}

static inline void kx_segment_own(kx_segment *s, void *memory)
{
    const size_t count = (size_t)s->buffer_count;
    int64_t *sizes = memory;
    const void **buffers = (const void **)(sizes + count);
    if (s->layout != KX_VIEWS || !count)
        return;
    memcpy(sizes, s->sizes, count * sizeof(*sizes));
    memcpy(buffers, s->buffers, count * sizeof(*buffers));
    s->sizes = sizes;
    s->buffers = buffers;
}

static inline int64_t kx_segment_length(const kx_segment *s)
{
    return s->codes ? s->code_length : s->length;
}

/* Its messages from `start` on, `length` of them; the caller sees to it that they are there. */
static inline kx_segment kx_segment_slice(const kx_segment *s, int64_t start, int64_t length)
{
    kx_segment slice = *s;
    if (slice.codes) {
        slice.code_offset += start;
        slice.code_length = length;
    } else {
        slice.offset += start;
        slice.length = length;
    }
    return slice;
}

/* ------------------------------------------------------------------ integers */

typedef struct kx_integers {
    const void *data;           /* NULL: `one` for all */
    int width;                  /* bytes; negative: signed */
    int64_t offset;
    int64_t length;
    const uint8_t *validity;
    int64_t one;
    int64_t multiply, divide;   /* to milliseconds */
    /* INT64_MIN is null too: numbers made here, which have no bitmap. Without data: all are null */
    int blanks;
} kx_integers;

/* Element `i`, or `absent` where it is null. */
static inline int64_t kx_integer_at(const kx_integers *c, int64_t i, int64_t absent)
{
    int64_t value;
    if (!c->data)
        return c->blanks ? absent : c->one;
    i += c->offset;
    if (c->validity && !kx_bit(c->validity, i))
        return absent;
    value = kx_code(c->data, c->width, i);
    if (c->blanks && value == INT64_MIN)
        return absent;
    if (c->divide > 1)
        return value / c->divide;
    if (c->multiply > 1)
        return value > INT64_MAX / c->multiply || value < INT64_MIN / c->multiply
                   ? -1
                   : value * c->multiply;
    return value;
}

/* The index of the first element outside [least, most] and not null, or -1. */
static int64_t kx_integers_outside(const kx_integers *c, int64_t least, int64_t most)
{
    for (int64_t i = 0; i < c->length; i++) {
        int64_t value = kx_integer_at(c, i, least);
        if (value < least || value > most)
            return i;
    }
    return -1;
}

/* ------------------------------------------------------------------ from Arrow */

/* Whether the structure of an Arrow array can be looked into: NULL, or what is wrong with it. */
static inline const char *kx_arrow_check(const kx_arrow_schema *schema, const kx_arrow_array *array,
                                         int64_t buffers)
{
    if (!schema->format || !array->release)
        return "it was released before";
    if (array->length < 0 || array->offset < 0)
        return "a negative length or offset";
    if (array->length > INT64_MAX - array->offset)
        return "a length beyond all memory";
    if (array->n_buffers < buffers || (buffers && !array->buffers))
        return "too few buffers";
    if (buffers && array->null_count > 0 && !array->buffers[0])
        return "nulls without a validity bitmap";
    return NULL;
}

/* A segment over one Arrow array of bytes. NULL, or what is wrong with it (in `text` where it
 * needs more words). Neither takes nor releases anything: the array must outlive the segment. */
static const char *kx_segment_from_arrow(const kx_arrow_schema *schema, const kx_arrow_array *array,
                                         kx_segment *s, char *text, size_t size)
{
    const char *format = schema->format;
    const char *wrong = kx_arrow_check(schema, array, 0);
    memset(s, 0, sizeof(*s));
    if (wrong)
        return wrong;
    if (schema->dictionary) {
        static const char codes[] = "cCsSiIlL";
        static const int widths[] = {-1, 1, -2, 2, -4, 4, -8, 8};
        static const int64_t none[1] = {0};
        const char *found = format[0] && !format[1] ? strchr(codes, format[0]) : NULL;
        if (!found || !array->dictionary)
            return "a dictionary without indices or values";
        if (schema->dictionary->dictionary)
            return "a dictionary of dictionaries";
        wrong = kx_arrow_check(schema, array, 2);
        if (wrong)
            return wrong;
        wrong = kx_segment_from_arrow(schema->dictionary, array->dictionary, s, text, size);
        if (wrong)
            return wrong;
        if (array->length && !array->buffers[1])
            return "no index buffer";
        s->codes = array->buffers[1] ? array->buffers[1] : none;
        s->code_width = widths[found - codes];
        s->code_validity = array->null_count ? array->buffers[0] : NULL;
        s->code_offset = array->offset;
        s->code_length = array->length;
        return NULL;
    }
    s->length = array->length;
    s->offset = array->offset;
    if (!strcmp(format, "n")) {
        s->layout = KX_NULLS;
        return NULL;
    }
    if (!strcmp(format, "z") || !strcmp(format, "u") || !strcmp(format, "Z")
        || !strcmp(format, "U")) {
        wrong = kx_arrow_check(schema, array, 3);
        if (wrong)
            return wrong;
        s->layout = format[0] == 'z' || format[0] == 'u' ? KX_BINARY32 : KX_BINARY64;
        s->validity = array->null_count ? array->buffers[0] : NULL;
        s->index = array->buffers[1];
        s->data = array->buffers[2];
        return s->index || !s->length ? NULL : "no offsets buffer";
    }
    if (!strcmp(format, "vz") || !strcmp(format, "vu")) {
        wrong = kx_arrow_check(schema, array, 3);
        if (wrong)
            return wrong;
        s->layout = KX_VIEWS;
        s->validity = array->null_count ? array->buffers[0] : NULL;
        s->index = array->buffers[1];
        s->buffers = (const void *const *)array->buffers + 2;
        s->buffer_count = array->n_buffers - 3;
        /* perhaps unaligned: kx_segment_own() comes first */
        s->sizes = array->buffers[array->n_buffers - 1];
        if (s->buffer_count && !s->sizes)
            return "no sizes of its buffers";
        return s->index || !s->length ? NULL : "no views buffer";
    }
    if (!strncmp(format, "w:", 2)) {
        char *end;
        long width = strtol(format + 2, &end, 10);
        wrong = kx_arrow_check(schema, array, 2);
        if (wrong)
            return wrong;
        if (end == format + 2 || *end || width < 0 || width > INT32_MAX)
            return "a malformed fixed size";
        s->layout = KX_ROWS;
        s->validity = array->null_count ? array->buffers[0] : NULL;
        s->width = (size_t)width;
        s->data = array->buffers[1];
        return s->data || !s->length || !width ? NULL : "no data buffer";
    }
    snprintf(text, size, "Arrow type %.60s", format);
    return text;
}

/* An integer or timestamp column over one Arrow array; the same promises. `timestamp` allows
 * Arrow's timestamps as well. */
static const char *kx_integers_from_arrow(const kx_arrow_schema *schema,
                                          const kx_arrow_array *array, int timestamp,
                                          kx_integers *c, char *text, size_t size)
{
    static const char codes[] = "cCsSiIlL";
    static const int widths[] = {-1, 1, -2, 2, -4, 4, -8, 8};
    const char *format = schema->format;
    const char *found;
    const char *wrong = kx_arrow_check(schema, array, 0);
    memset(c, 0, sizeof(*c));
    if (wrong)
        return wrong;
    found = format[0] && !format[1] ? strchr(codes, format[0]) : NULL;
    c->multiply = c->divide = 1;
    if (!strcmp(format, "n") && !schema->dictionary) {
        c->blanks = 1;
        c->length = array->length;
        c->offset = array->offset;
        return NULL;
    }
    if (found && !schema->dictionary) {
        c->width = widths[found - codes];
    } else if (timestamp && !strncmp(format, "ts", 2) && format[2] && format[3] == ':') {
        c->width = -8;
        switch (format[2]) {
        case 's': c->multiply = 1000; break;
        case 'm': break;
        case 'u': c->divide = 1000; break;
        case 'n': c->divide = 1000000; break;
        default: return "an unknown timestamp unit";
        }
    } else {
        snprintf(text, size, "Arrow type %.60s", schema->dictionary ? "dictionary" : format);
        return text;
    }
    wrong = kx_arrow_check(schema, array, 2);
    if (wrong)
        return wrong;
    if (array->length && !array->buffers[1])
        return "no data buffer";
    c->length = array->length;
    c->offset = array->offset;
    c->validity = array->null_count ? array->buffers[0] : NULL;
    c->data = array->buffers[1] ? array->buffers[1] : (const void *)"";
    return NULL;
}

/* Whether a struct array's columns can be looked at: NULL, or what is wrong. */
static const char *kx_table_check(const kx_arrow_schema *schema, const kx_arrow_array *array)
{
    const char *wrong = kx_arrow_check(schema, array, 0);
    if (wrong)
        return wrong;
    if (array->n_children != schema->n_children || (array->n_children && !array->children))
        return "not as its schema says";
    for (int64_t i = 0; i < array->n_children; i++)
        if (!array->children[i])
            return "a column is missing";
    return NULL;
}

/* Whether a struct array that has been checked has rows that are null as a whole. */
static int kx_table_has_nulls(const kx_arrow_array *array)
{
    if (array->null_count && array->n_buffers > 0 && array->buffers && array->buffers[0])
        for (int64_t i = 0; i < array->length; i++)
            if (!kx_bit(array->buffers[0], array->offset + i))
                return 1;
    return 0;
}

#endif
