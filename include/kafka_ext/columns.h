/* Columns of bytes and of integers, as the enqueue loop reads them: without the GIL and without Python.
 *
 * A column is a list of segments, each one piece of memory in one layout; a cursor walks along it. Whoever makes a segment keeps its
 * memory in place (BatchDelivery's pins); nothing here owns anything but the lists themselves.
 */
#ifndef KAFKA_EXT_COLUMNS_H
#define KAFKA_EXT_COLUMNS_H

#include <Python.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "kafka_ext/arrow.h"

/* ------------------------------------------------------------------ bytes */

typedef enum kx_layout {
    KX_NULLS,       /* no memory: every one is null */
    KX_ONE,         /* the same bytes for all */
    KX_OBJECTS,     /* PyObject *[]: exact `bytes`, immutable, so that they can be read without the GIL */
    KX_POINTERS,    /* kx_span[]: pointer and length of each; a NULL pointer is null */
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
    const void *const *buffers; /* the data buffers of views */
    const int64_t *sizes;       /* and their sizes */
    int64_t buffer_count;
    size_t width;               /* KX_ROWS, KX_ONE */
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

static inline int kx_bit(const uint8_t *bitmap, int64_t i) { return !bitmap || (bitmap[i >> 3] >> (i & 7) & 1); }

static inline int64_t kx_code(const void *codes, int width, int64_t i)
{
    switch (width) {
    case -1: return ((const int8_t *)codes)[i];
    case 1: return ((const uint8_t *)codes)[i];
    case -2: return ((const int16_t *)codes)[i];
    case 2: return ((const uint16_t *)codes)[i];
    case -4: return ((const int32_t *)codes)[i];
    case 4: return ((const uint32_t *)codes)[i];
    case -8: return ((const int64_t *)codes)[i];
    default: {
        uint64_t code = ((const uint64_t *)codes)[i];
        return code > INT64_MAX ? -1 : (int64_t)code;
    }
    }
}

/* Element `i` of a segment that kx_segment_check() has passed. Empty is never NULL: that is what a tombstone is. */
static inline kx_span kx_segment_at(const kx_segment *s, int64_t i)
{
    static const char empty[1] = "";
    kx_span span = {NULL, 0};
    if (s->codes) {
        if (!kx_bit(s->code_validity, i + s->code_offset))
            return span;
        i = kx_code(s->codes, s->code_width, i + s->code_offset);
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
        return ((const kx_span *)s->index)[i];
    case KX_ROWS:
        span.data = s->width ? (const char *)s->data + (size_t)i * s->width : empty;
        span.size = s->width;
        return span;
    case KX_BINARY32: {
        const int32_t *offsets = s->index;
        span.size = (size_t)(offsets[i + 1] - offsets[i]);
        span.data = span.size ? (const char *)s->data + offsets[i] : empty;
        return span;
    }
    case KX_BINARY64: {
        const int64_t *offsets = s->index;
        span.size = (size_t)(offsets[i + 1] - offsets[i]);
        span.data = span.size ? (const char *)s->data + offsets[i] : empty;
        return span;
    }
    case KX_VIEWS: {
        const kx_view16 *view = (const kx_view16 *)s->index + i;
        span.size = (size_t)view->size;
        if (view->size <= 12)
            span.data = view->u.inlined;
        else
            span.data = (const char *)s->buffers[view->u.elsewhere.buffer] + view->u.elsewhere.offset;
        return span;
    }
    }
    return span;
}

/* What would make kx_segment_at() read where it must not: NULL, or what is wrong (static text). Once a segment, before anything is
 * enqueued; reads each offset once. */
static const char *kx_segment_check(const kx_segment *s)
{
    int64_t last = s->codes ? s->code_length : s->length;
    if (s->length < 0 || s->offset < 0 || s->code_length < 0 || s->code_offset < 0)
        return "a negative length or offset";
    if (s->codes)
        for (int64_t i = 0; i < last; i++)
            if (kx_bit(s->code_validity, i + s->code_offset)) {
                int64_t code = kx_code(s->codes, s->code_width, i + s->code_offset);
                if (code < 0 || code >= s->length)
                    return "a dictionary index out of range";
            }
    if (!s->length)
        return NULL;
    switch (s->layout) {
    case KX_BINARY32: {
        const int32_t *offsets = (const int32_t *)s->index + s->offset;
        if (offsets[0] < 0)
            return "a negative offset";
        for (int64_t i = 0; i < s->length; i++)
            if (offsets[i + 1] < offsets[i])
                return "offsets that go backwards";
        return s->data || offsets[s->length] == offsets[0] ? NULL : "no data buffer";
    }
    case KX_BINARY64: {
        const int64_t *offsets = (const int64_t *)s->index + s->offset;
        if (offsets[0] < 0)
            return "a negative offset";
        for (int64_t i = 0; i < s->length; i++)
            if (offsets[i + 1] < offsets[i])
                return "offsets that go backwards";
        return s->data || offsets[s->length] == offsets[0] ? NULL : "no data buffer";
    }
    case KX_VIEWS: {
        const kx_view16 *views = (const kx_view16 *)s->index + s->offset;
        for (int64_t i = 0; i < s->length; i++) {
            const kx_view16 *v = &views[i];
            if (s->validity && !kx_bit(s->validity, i + s->offset))
                continue;
            if (v->size < 0)
                return "a view of negative size";
            if (v->size > 12 && (v->u.elsewhere.buffer < 0 || v->u.elsewhere.buffer >= s->buffer_count || v->u.elsewhere.offset < 0
                                 || (int64_t)v->u.elsewhere.offset + v->size > s->sizes[v->u.elsewhere.buffer]))
                return "a view outside its buffers";
        }
        return NULL;
    }
    default:
        return NULL;
    }
}

static inline int64_t kx_segment_length(const kx_segment *s) { return s->codes ? s->code_length : s->length; }

/* ------------------------------------------------------------------ integers */

typedef struct kx_integers {
    const void *data;           /* NULL: `one` for all */
    int width;                  /* bytes; negative: signed */
    int64_t offset;
    int64_t length;
    const uint8_t *validity;
    int64_t one;
    int64_t multiply, divide;   /* to milliseconds */
} kx_integers;

/* Element `i`, or `absent` where it is null. */
static inline int64_t kx_integer_at(const kx_integers *c, int64_t i, int64_t absent)
{
    int64_t value;
    if (!c->data)
        return c->one;
    i += c->offset;
    if (c->validity && !kx_bit(c->validity, i))
        return absent;
    value = kx_code(c->data, c->width, i);
    if (c->divide > 1)
        return value / c->divide;
    if (c->multiply > 1)
        return value > INT64_MAX / c->multiply || value < INT64_MIN / c->multiply ? -1 : value * c->multiply;
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

/* A segment over one Arrow array of bytes. NULL, or what is wrong with it (in `text` where it needs more words). Neither takes nor
 * releases anything: the array must outlive the segment. */
static const char *kx_segment_from_arrow(const kx_arrow_schema *schema, const kx_arrow_array *array, kx_segment *s, char *text, size_t size)
{
    const char *format = schema->format;
    memset(s, 0, sizeof(*s));
    if (!format || !array->release)
        return "it was released before";
    if (array->length < 0 || array->offset < 0)
        return "a negative length or offset";
    if (schema->dictionary) {
        static const char codes[] = "cCsSiIlL";
        static const int widths[] = {-1, 1, -2, 2, -4, 4, -8, 8};
        const char *found = format[0] && !format[1] ? strchr(codes, format[0]) : NULL;
        const char *wrong;
        if (!found || !array->dictionary || array->n_buffers < 2)
            return "a dictionary without indices or values";
        wrong = kx_segment_from_arrow(schema->dictionary, array->dictionary, s, text, size);
        if (wrong)
            return wrong;
        if (s->codes)
            return "a dictionary of dictionaries";
        s->codes = array->buffers[1];
        s->code_width = widths[found - codes];
        s->code_validity = array->null_count ? array->buffers[0] : NULL;
        s->code_offset = array->offset;
        s->code_length = array->length;
        if (!s->codes) {
            static const int64_t none[1] = {0};
            if (array->length)
                return "no index buffer";
            s->codes = none;
        }
        return NULL;
    }
    s->length = array->length;
    s->offset = array->offset;
    if (!strcmp(format, "n")) {
        s->layout = KX_NULLS;
        return NULL;
    }
    if (array->n_buffers < 1 || !array->buffers)
        return "no buffers";
    s->validity = array->null_count ? array->buffers[0] : NULL;
    if (!strcmp(format, "z") || !strcmp(format, "u") || !strcmp(format, "Z") || !strcmp(format, "U")) {
        s->layout = format[0] == 'z' || format[0] == 'u' ? KX_BINARY32 : KX_BINARY64;
        if (array->n_buffers < 3)
            return "too few buffers";
        s->index = array->buffers[1];
        s->data = array->buffers[2];
        return s->index || !s->length ? NULL : "no offsets buffer";
    }
    if (!strcmp(format, "vz") || !strcmp(format, "vu")) {
        s->layout = KX_VIEWS;
        if (array->n_buffers < 3)
            return "too few buffers";
        s->index = array->buffers[1];
        s->buffers = (const void *const *)array->buffers + 2;
        s->buffer_count = array->n_buffers - 3;
        s->sizes = array->buffers[array->n_buffers - 1];
        if (s->buffer_count && !s->sizes)
            return "no sizes of its buffers";
        return s->index || !s->length ? NULL : "no views buffer";
    }
    if (!strncmp(format, "w:", 2)) {
        char *end;
        long width = strtol(format + 2, &end, 10);
        if (*end || width < 0 || array->n_buffers < 2)
            return "a malformed fixed size";
        s->layout = KX_ROWS;
        s->width = (size_t)width;
        s->data = array->buffers[1];
        return s->data || !s->length || !width ? NULL : "no data buffer";
    }
    snprintf(text, size, "Arrow type %.60s", format);
    return text;
}

/* An integer or timestamp column over one Arrow array; the same promises. `timestamp` allows Arrow's timestamps as well. */
static const char *kx_integers_from_arrow(const kx_arrow_schema *schema, const kx_arrow_array *array, int timestamp, kx_integers *c,
                                          char *text, size_t size)
{
    static const char codes[] = "cCsSiIlL";
    static const int widths[] = {-1, 1, -2, 2, -4, 4, -8, 8};
    const char *format = schema->format;
    const char *found;
    memset(c, 0, sizeof(*c));
    if (!format || !array->release)
        return "it was released before";
    if (array->length < 0 || array->offset < 0)
        return "a negative length or offset";
    found = format[0] && !format[1] ? strchr(codes, format[0]) : NULL;
    c->multiply = c->divide = 1;
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
        snprintf(text, size, "Arrow type %.60s", format);
        return text;
    }
    if (array->n_buffers < 2 || (array->length && !array->buffers[1]))
        return "no data buffer";
    c->length = array->length;
    c->offset = array->offset;
    c->validity = array->null_count ? array->buffers[0] : NULL;
    c->data = array->buffers[1] ? array->buffers[1] : (const void *)"";
    return NULL;
}

#endif
