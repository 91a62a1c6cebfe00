/* A batch in flight: what its reports are counted in, without the GIL.
 *
 * A message of a batch has no memory of its own. Its opaque pointer is a number: which batch of the producer's, and which message of
 * it; the two low bits are 10, which no pointer and no tagged reference has (message.h).
 *
 *     63                      20 19      2 1 0
 *     [ index in the batch      | slot     |10 ]
 */
#ifndef KAFKA_EXT_BATCH_H
#define KAFKA_EXT_BATCH_H

#include <librdkafka/rdkafka.h>
#include <pthread.h>
#include <stdint.h>
#include <stdlib.h>

#include "kafka_ext/columns.h"
#include "kafka_ext/produce.h"
#include "kafka_ext/threads.h"

#define KX_SLOT_BITS 18
#define KX_SLOTS (1 << KX_SLOT_BITS)
#define KX_MAX_BATCH ((int64_t)1 << (62 - KX_SLOT_BITS))

/* Parts in flight anywhere in the process, for live_objects(). */
static int64_t kx_live_batches = 0;

typedef struct kx_failure {
    int64_t index;
    int32_t code;
} kx_failure;

/* One column of messages of known length: a whole batch, or one chunk of a stream. */
typedef struct kx_part {
    int64_t length;
    int64_t pending;            /* without a report yet; whoever counts it to 0 passes the part on to be finished */
    int64_t failed;
    int64_t *offsets;           /* owned; -1: not known to be in the log */
    int32_t *partitions;        /* owned; -1: none was chosen */
    kx_failure *failures;       /* owned; guarded by `lock` */
    size_t failure_count;
    size_t failure_size;
    int lost_failures;          /* no memory to note one: its code is then the last one noted */
    pthread_mutex_t lock;
    uint32_t slot;
    void *owner;                /* the BatchPart, a Python object; one reference is held while in flight */
    struct kx_part *next;       /* in the list of the finished */
} kx_part;

typedef struct kx_parts {
    kx_part **slots;            /* owned: KX_SLOTS of them, NULL where free */
    uint32_t next;              /* where to look for a free one */
    int64_t count;
    kx_part *finished;          /* pushed by whoever counts to 0, taken by the thread that serves */
    pthread_mutex_t lock;
} kx_parts;

static inline int kx_parts_init(kx_parts *parts)
{
    memset(parts, 0, sizeof(*parts));
    return pthread_mutex_init(&parts->lock, NULL) ? -1 : 0;
}

static inline void kx_parts_destroy(kx_parts *parts)
{
    free(parts->slots);
    pthread_mutex_destroy(&parts->lock);
}

/* 0: in flight from now on; -1: no memory; -2: no free slot (as many batches as KX_SLOTS are in flight). */
static inline int kx_parts_add(kx_parts *parts, kx_part *part)
{
    int result = -2;
    pthread_mutex_lock(&parts->lock);
    if (!parts->slots)
        parts->slots = calloc(KX_SLOTS, sizeof(*parts->slots));
    if (!parts->slots) {
        result = -1;
    } else if (parts->count < KX_SLOTS) {
        uint32_t slot = parts->next;
        while (parts->slots[slot])
            slot = (slot + 1) % KX_SLOTS;
        parts->next = (slot + 1) % KX_SLOTS;
        part->slot = slot;
        /* Read without the lock by the serving thread, but never before librdkafka's own locks have passed it a message with the slot. */
        __atomic_store_n(&parts->slots[slot], part, __ATOMIC_RELEASE);
        parts->count++;
        __atomic_fetch_add(&kx_live_batches, 1, __ATOMIC_RELAXED);
        result = 0;
    }
    pthread_mutex_unlock(&parts->lock);
    return result;
}

static inline void kx_parts_remove(kx_parts *parts, kx_part *part)
{
    pthread_mutex_lock(&parts->lock);
    parts->slots[part->slot] = NULL;
    parts->count--;
    __atomic_fetch_sub(&kx_live_batches, 1, __ATOMIC_RELAXED);
    pthread_mutex_unlock(&parts->lock);
}

static inline void *kx_part_opaque(const kx_part *part, int64_t index)
{
    return (void *)(uintptr_t)(((uint64_t)index << (KX_SLOT_BITS + 2)) | ((uint64_t)part->slot << 2) | 2);
}

static inline int64_t kx_opaque_index(const void *opaque) { return (int64_t)((uint64_t)(uintptr_t)opaque >> (KX_SLOT_BITS + 2)); }

static inline int kx_opaque_is_part(const void *opaque) { return ((uintptr_t)opaque & 3) == 2; }

static inline int kx_part_init(kx_part *part, int64_t length)
{
    memset(part, 0, sizeof(*part));
    part->length = part->pending = length;
    part->offsets = malloc((size_t)(length ? length : 1) * sizeof(*part->offsets));
    part->partitions = malloc((size_t)(length ? length : 1) * sizeof(*part->partitions));
    if (!part->offsets || !part->partitions || pthread_mutex_init(&part->lock, NULL)) {
        free(part->offsets);
        free(part->partitions);
        part->offsets = NULL;
        part->partitions = NULL;
        return -1;
    }
    memset(part->offsets, 0xff, (size_t)length * sizeof(*part->offsets));
    memset(part->partitions, 0xff, (size_t)length * sizeof(*part->partitions));
    return 0;
}

static inline void kx_part_destroy(kx_part *part)
{
    if (!part->offsets)
        return;
    free(part->offsets);
    free(part->partitions);
    free(part->failures);
    pthread_mutex_destroy(&part->lock);
    part->offsets = NULL;
}

static inline void kx_part_fail(kx_part *part, int64_t index, int32_t code)
{
    pthread_mutex_lock(&part->lock);
    part->failed++;
    if (part->failure_count == part->failure_size) {
        size_t size = part->failure_size ? part->failure_size * 2 : 64;
        kx_failure *larger = realloc(part->failures, size * sizeof(*larger));
        if (larger) {
            part->failures = larger;
            part->failure_size = size;
        }
    }
    if (part->failure_count < part->failure_size) {
        part->failures[part->failure_count].index = index;
        part->failures[part->failure_count++].code = code;
    } else {
        part->lost_failures++;
    }
    pthread_mutex_unlock(&part->lock);
}

/* Count `count` messages as answered; the last ones pass the part on to be finished, with the GIL, by the thread that serves. */
static inline int kx_part_answered(kx_parts *parts, kx_part *part, int64_t count)
{
    if (!count || __atomic_sub_fetch(&part->pending, count, __ATOMIC_ACQ_REL) != 0)
        return 0;
    pthread_mutex_lock(&parts->lock);
    part->next = parts->finished;
    parts->finished = part;
    pthread_mutex_unlock(&parts->lock);
    return 1;
}

/* Note one report (rule 1), and return its part; the caller counts it as answered, several at a time. No GIL. */
static inline kx_part *kx_part_report(kx_parts *parts, const rd_kafka_message_t *message)
{
    const uint64_t opaque = (uint64_t)(uintptr_t)message->_private;
    kx_part *part = __atomic_load_n(&parts->slots[(opaque >> 2) & (KX_SLOTS - 1)], __ATOMIC_ACQUIRE);
    const int64_t index = kx_opaque_index(message->_private);
    part->partitions[index] = message->partition;
    if (message->err)
        kx_part_fail(part, index, message->err);
    else
        part->offsets[index] = message->offset;
    return part;
}

static inline kx_part *kx_parts_take_finished(kx_parts *parts)
{
    kx_part *part;
    if (!__atomic_load_n(&parts->finished, __ATOMIC_ACQUIRE))
        return NULL;
    pthread_mutex_lock(&parts->lock);
    part = parts->finished;
    parts->finished = NULL;
    pthread_mutex_unlock(&parts->lock);
    return part;
}

/* ------------------------------------------------------------------ the enqueue loop */

typedef struct kx_enqueue {
    /* what: one segment of values; of the others, where the values' first message is in them */
    const kx_segment *values;
    const kx_segment *keys;             /* NULL: no keys; one segment as long as the values, or KX_ONE */
    const kx_integers *partitions;      /* NULL: the partitioner chooses */
    const kx_integers *timestamps;      /* NULL: now */
    rd_kafka_headers_t *headers;        /* owned by the caller: the same for all, copied; or NULL */
    rd_kafka_headers_t **each_headers;  /* owned by the caller: one for each, taken over when enqueued; or NULL */
    /* header columns of a table */
    const kx_segment *header_columns;
    const char *const *header_names;
    size_t header_count;
    int partition_count;                /* what is known of the topic: explicit partitions from here on are refused; 0: not known */
    int copy;
    /* where to */
    rd_kafka_t *rk;
    rd_kafka_topic_t *topic;
    kx_part *part;
    kx_parts *parts;
    int64_t base;                       /* the index, in the part, of the segment's first message */
    /* how far */
    int64_t next;
    int64_t accepted;
    int64_t accepted_bytes;
} kx_enqueue;

#define KX_TURN 1024

static inline rd_kafka_resp_err_t kx_enqueue_one(kx_enqueue *e, int64_t i, int32_t partition, kx_span value, kx_span key)
{
    rd_kafka_headers_t *headers = NULL;
    kx_bytes v = {value.data, value.size, NULL, NULL}, k = {key.data, key.size, NULL, NULL};
    int64_t timestamp = e->timestamps ? kx_integer_at(e->timestamps, i, 0) : 0;
    rd_kafka_resp_err_t err;
    if (e->each_headers) {
        headers = e->each_headers[i];
    } else if (e->headers) {
        headers = rd_kafka_headers_copy(e->headers);
    } else if (e->header_count) {
        headers = rd_kafka_headers_new(e->header_count);
        for (size_t h = 0; h < e->header_count; h++) {
            kx_span content = kx_segment_at(&e->header_columns[h], i);
            rd_kafka_header_add(headers, e->header_names[h], -1, content.data, content.data ? (ssize_t)content.size : 0);
        }
    }
    err = kx_produce(e->rk, e->topic, partition, e->copy, &v, &k, headers, timestamp, kx_part_opaque(e->part, e->base + i));
    if (!err && e->each_headers)
        e->each_headers[i] = NULL;
    else if (err && headers && !e->each_headers)
        rd_kafka_headers_destroy(headers);
    return err;
}

/* Enqueue from e->next on until all are through (0), the queue is full (QUEUE_FULL; `next` is the first that found no room), or some
 * turns are done (-1: go on; the caller looks after signals in between). A message that is refused for itself is noted as failed. */
static int kx_enqueue_some(kx_enqueue *e)
{
    const int64_t length = kx_segment_length(e->values);
    const int plain = !e->timestamps && !e->headers && !e->each_headers && !e->header_count
                      && (!e->partitions || !e->partitions->data || e->partition_count);
    const int flags = (e->copy ? RD_KAFKA_MSG_F_COPY : 0);
    for (int turn = 0; turn < 64; turn++) {
        const int64_t first = e->next;
        const int count = length - first < KX_TURN ? (int)(length - first) : KX_TURN;
        rd_kafka_message_t messages[KX_TURN];
        int64_t refused = 0;
        int used = 0, full = 0, turn_length = count;
        if (!count)
            return 0;
        for (int n = 0; n < count; n++) {
            const int64_t i = first + n;
            const kx_span value = kx_segment_at(e->values, i);
            const kx_span key = e->keys ? kx_segment_at(e->keys, i) : (kx_span){NULL, 0};
            const int32_t partition = e->partitions ? (int32_t)kx_integer_at(e->partitions, i, RD_KAFKA_PARTITION_UA) : RD_KAFKA_PARTITION_UA;
            if (plain) {
                rd_kafka_message_t *m = &messages[used];
                /* rd_kafka_produce_batch() loses a message (and its place in the queue) whose partition does not exist in a topic it
                 * knows, so such a one must not reach it. */
                if (partition >= 0 && e->partitions->data && partition >= e->partition_count) {
                    if (used) {
                        turn_length = n;    /* first those before it: when they find the queue full, this one comes again */
                        break;
                    }
                    kx_part_fail(e->part, e->base + i, RD_KAFKA_RESP_ERR__UNKNOWN_PARTITION);
                    refused++;
                    continue;
                }
                m->err = 0;
                m->payload = (void *)value.data;
                m->len = value.size;
                m->key = (void *)key.data;
                m->key_len = key.size;
                m->partition = partition;
                m->_private = kx_part_opaque(e->part, e->base + i);
                used++;
            } else {
                rd_kafka_resp_err_t err = kx_enqueue_one(e, i, partition, value, key);
                if (err == RD_KAFKA_RESP_ERR__QUEUE_FULL) {
                    full = 1;
                    e->next = i;
                    break;
                }
                if (err) {
                    kx_part_fail(e->part, e->base + i, err);
                    refused++;
                } else {
                    e->accepted++;
                    e->accepted_bytes += (int64_t)value.size;
                }
                e->next = i + 1;
            }
        }
        if (plain) {
            const int fixed = e->partitions && !e->partitions->data;
            e->next = first + turn_length;
            if (used) {
                kafka_ext_clock_stop();     /* a turn is a fraction of a millisecond; the call itself takes one time for all */
                rd_kafka_produce_batch(e->topic, fixed ? (int32_t)e->partitions->one : RD_KAFKA_PARTITION_UA,
                                       flags | (e->partitions && !fixed ? RD_KAFKA_MSG_F_PARTITION : 0), messages, used);
                kafka_ext_clock_go();
                for (int n = 0; n < used; n++) {
                    rd_kafka_message_t *m = &messages[n];
                    const int64_t i = kx_opaque_index(m->_private) - e->base;
                    if (!m->err) {
                        e->accepted++;
                        e->accepted_bytes += (int64_t)m->len;
                    } else if (m->err == RD_KAFKA_RESP_ERR__QUEUE_FULL) {
                        /* This one and all behind it: they come again, but those refused for themselves in between must not. */
                        full = 1;
                        e->next = i;
                        break;
                    } else {
                        kx_part_fail(e->part, e->base + i, m->err);
                        refused++;
                    }
                }
            }
        }
        kx_part_answered(e->parts, e->part, refused);
        if (full)
            return RD_KAFKA_RESP_ERR__QUEUE_FULL;
    }
    return e->next < length ? -1 : 0;
}

/* Give up on all that has not been enqueued: each is a failure with `code`. */
static void kx_enqueue_abandon(kx_enqueue *e, int32_t code)
{
    const int64_t length = kx_segment_length(e->values);
    const int64_t left = length - e->next;
    for (int64_t i = e->next; i < length; i++)
        kx_part_fail(e->part, e->base + i, code);
    e->next = length;
    kx_part_answered(e->parts, e->part, left);
}

#endif
