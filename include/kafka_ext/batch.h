/* A batch in flight: what its reports are counted in, without the GIL.
 *
 * A message of a batch has no memory of its own. Its opaque pointer is a number: which batch of the
 * producer's, and which message of it; the two low bits are 10, which no pointer and no tagged
 * reference has (message.h).
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
#include "kafka_ext/counts.h"
#include "kafka_ext/memory.h"
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

/* In the place of an offset: that of a message which failed with `code`, and which could not be
 * listed. No offset is this small. */
#define KX_FAILED_WITH(code) (INT64_MIN / 2 + (code))
#define KX_IS_FAILURE(offset) ((offset) < INT64_MIN / 4)

/* Messages of known number, one behind another: a piece of a column, or a chunk of a stream.
 * Each is let go by itself. */
typedef struct kx_part {
    int64_t length;
    /* without a report yet; whoever counts it to 0 passes the part on to be finished */
    int64_t pending;
    int64_t failed;
    int64_t *offsets;           /* -1: not known to be in the log */
    int32_t *partitions;        /* -1: none was chosen */
    int owns;                   /* both; else they are the batch's */
    kx_failure *failures;       /* owned; guarded by `lock` */
    size_t failure_count;
    size_t failure_size;
    /* failures there was no memory to list: their codes are in `offsets`, by KX_FAILED_WITH */
    int64_t unlisted;
    /* enqueued without a copy: kept in place until the part is finished */
    int64_t pinned_messages;
    int64_t pinned_bytes;
#ifdef KAFKA_EXT_DEBUG
    unsigned char *answered;    /* owned: which messages have been */
#endif
    pthread_mutex_t lock;
    uint32_t slot;
    int64_t number;             /* its batch's, counted as they are sent */
    /* the BatchPart, a Python object; one reference is held while in flight */
    void *owner;
    struct kx_part *next;       /* in the list of the finished */
} kx_part;

typedef struct kx_parts {
    kx_part **slots;            /* owned: KX_SLOTS of them, NULL where free */
    uint32_t next;              /* where to look for a free one */
    int64_t count;
    kx_part *finished;          /* pushed by whoever counts to 0, taken by the thread that serves */
    kx_counts *refused;         /* the producer's: messages that were not enqueued; or NULL */
    int64_t missed;             /* those of the transaction at hand */
    /* why the first of them was not; 0: something else than librdkafka refused it */
    int32_t missed_code;
    pthread_mutex_t lock;
} kx_parts;

static inline int kx_parts_init(kx_parts *parts)
{
    memset(parts, 0, sizeof(*parts));
    return pthread_mutex_init(&parts->lock, NULL) ? -1 : 0;
}

/* A message that was to be sent was not enqueued. Any thread. */
static inline void kx_missed(kx_parts *parts, int32_t code)
{
    if (__atomic_fetch_add(&parts->missed, 1, __ATOMIC_RELAXED) == 0)
        __atomic_store_n(&parts->missed_code, code, __ATOMIC_RELAXED);
}

static inline void kx_parts_destroy(kx_parts *parts)
{
    KX_INVARIANT(parts->count == 0 && !parts->finished, "a producer goes with batches in flight");
    free(parts->slots);
    pthread_mutex_destroy(&parts->lock);
}

/* 0: in flight from now on; -1: no memory; -2: no free slot (as many batches as KX_SLOTS are in
 * flight). */
static inline int kx_parts_add(kx_parts *parts, kx_part *part)
{
    int result = -2;
    pthread_mutex_lock(&parts->lock);
    if (!parts->slots)
        parts->slots = kx_calloc(KX_SLOTS, sizeof(*parts->slots));
    if (!parts->slots) {
        result = -1;
    } else if (parts->count < KX_SLOTS) {
        uint32_t slot = parts->next;
        while (parts->slots[slot])
            slot = (slot + 1) % KX_SLOTS;
        parts->next = (slot + 1) % KX_SLOTS;
        part->slot = slot;
        /* Read without the lock by the serving thread, but never before librdkafka's own locks
         * have passed it a message with the slot. */
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
    KX_INVARIANT(parts->slots[part->slot] == part && parts->count > 0, "a batch removed twice");
    KX_INVARIANT(KX_LOAD(part->pending) == 0, "a batch finished with messages unanswered");
    parts->slots[part->slot] = NULL;
    parts->count--;
    __atomic_fetch_sub(&kx_live_batches, 1, __ATOMIC_RELAXED);
    pthread_mutex_unlock(&parts->lock);
}

static inline void *kx_part_opaque(const kx_part *part, int64_t index)
{
    return (void *)(uintptr_t)(((uint64_t)index << (KX_SLOT_BITS + 2)) | ((uint64_t)part->slot << 2)
                               | 2);
}

static inline int64_t kx_opaque_index(const void *opaque)
{
    return (int64_t)((uint64_t)(uintptr_t)opaque >> (KX_SLOT_BITS + 2));
}

static inline int kx_opaque_is_part(const void *opaque) { return ((uintptr_t)opaque & 3) == 2; }

static inline void kx_part_free_numbers(kx_part *part)
{
    if (part->owns) {
        free(part->offsets);
        free(part->partitions);
    }
    part->offsets = NULL;
    part->partitions = NULL;
}

/* With NULL for the numbers' memory the part gets its own. */
static inline int kx_part_init(kx_part *part, int64_t length, int64_t *offsets, int32_t *partitions)
{
    memset(part, 0, sizeof(*part));
    part->length = part->pending = length;
    part->owns = !offsets;
    part->offsets = offsets ? offsets
                            : kx_malloc((size_t)(length ? length : 1) * sizeof(*part->offsets));
    part->partitions = partitions ? partitions
                                  : kx_malloc((size_t)(length ? length : 1)
                                              * sizeof(*part->partitions));
    if (!part->offsets || !part->partitions || pthread_mutex_init(&part->lock, NULL)) {
        kx_part_free_numbers(part);
        return -1;
    }
#ifdef KAFKA_EXT_DEBUG
    part->answered = calloc((size_t)(length ? length : 1), 1);
#endif
    memset(part->offsets, 0xff, (size_t)length * sizeof(*part->offsets));
    memset(part->partitions, 0xff, (size_t)length * sizeof(*part->partitions));
    return 0;
}

static inline void kx_part_destroy(kx_part *part)
{
    if (!part->offsets)
        return;
    kx_part_free_numbers(part);
    free(part->failures);
#ifdef KAFKA_EXT_DEBUG
    free(part->answered);
#endif
    pthread_mutex_destroy(&part->lock);
}

/* Add up what all parts in flight keep in place. */
static inline void kx_parts_pinned(kx_parts *parts, int64_t *messages, int64_t *bytes)
{
    pthread_mutex_lock(&parts->lock);
    for (int64_t slot = 0, left = parts->count; left > 0; slot++)
        if (parts->slots[slot]) {
            *messages += __atomic_load_n(&parts->slots[slot]->pinned_messages, __ATOMIC_RELAXED);
            *bytes += __atomic_load_n(&parts->slots[slot]->pinned_bytes, __ATOMIC_RELAXED);
            left--;
        }
    pthread_mutex_unlock(&parts->lock);
}

/* Rule 1 for a batch: each of its messages is answered once. */
static inline void kx_part_once(kx_part *part, int64_t index)
{
    KX_INVARIANT(index >= 0 && index < part->length,
                 "an answer for a message that its batch does not have");
#ifdef KAFKA_EXT_DEBUG
    KX_INVARIANT(__atomic_exchange_n(&part->answered[index], 1, __ATOMIC_RELAXED) == 0,
                 "a message of a batch answered twice");
#else
    (void)part;
    (void)index;
#endif
}

static inline void kx_part_fail(kx_part *part, int64_t index, int32_t code)
{
    kx_part_once(part, index);
    pthread_mutex_lock(&part->lock);
    part->failed++;
    if (part->failure_count == part->failure_size) {
        size_t size = part->failure_size ? part->failure_size * 2 : 64;
        kx_failure *larger = kx_realloc(part->failures, size * sizeof(*larger));
        if (larger) {
            part->failures = larger;
            part->failure_size = size;
        }
    }
    if (part->failure_count < part->failure_size) {
        part->failures[part->failure_count].index = index;
        part->failures[part->failure_count++].code = code;
    } else {
        part->offsets[index] = KX_FAILED_WITH(code);
        part->unlisted++;
    }
    pthread_mutex_unlock(&part->lock);
}

/* A copy of what has failed so far, the caller's to free (NULL: none, or no memory); how many. */
static inline size_t kx_part_failures(kx_part *part, kx_failure **failures)
{
    size_t count;
    *failures = NULL;
    pthread_mutex_lock(&part->lock);
    count = part->failure_count + (size_t)part->unlisted;
    if (count) {
        *failures = kx_malloc(count * sizeof(**failures));
        if (*failures) {
            size_t n = part->failure_count;
            if (n)
                memcpy(*failures, part->failures, n * sizeof(**failures));
            for (int64_t i = 0; n < count; i++)
                if (KX_IS_FAILURE(part->offsets[i])) {
                    (*failures)[n].index = i;
                    (*failures)[n++].code = (int32_t)(part->offsets[i] - KX_FAILED_WITH(0));
                }
        }
    }
    pthread_mutex_unlock(&part->lock);
    return count;
}

/* Count `count` messages as answered; the last ones pass the part on to be finished, with the
 * GIL, by the thread that serves. */
static inline int kx_part_answered(kx_parts *parts, kx_part *part, int64_t count)
{
    int64_t pending;
    if (!count)
        return 0;
    pending = __atomic_sub_fetch(&part->pending, count, __ATOMIC_ACQ_REL);
    KX_INVARIANT(pending >= 0, "more answers than a batch has messages");
    if (pending)
        return 0;
    pthread_mutex_lock(&parts->lock);
    part->next = parts->finished;
    /* atomic: who takes them looks without the lock first */
    __atomic_store_n(&parts->finished, part, __ATOMIC_RELEASE);
    pthread_mutex_unlock(&parts->lock);
    return 1;
}

/* Note one report, and return its part; the caller counts it as answered, several at a time. No
 * GIL. */
static inline kx_part *kx_part_report(kx_parts *parts, const rd_kafka_message_t *message)
{
    const uint64_t opaque = (uint64_t)(uintptr_t)message->_private;
    kx_part *part =
        __atomic_load_n(&parts->slots[(opaque >> 2) & (KX_SLOTS - 1)], __ATOMIC_ACQUIRE);
    const int64_t index = kx_opaque_index(message->_private);
    KX_INVARIANT(part, "a report for a batch that is finished");
    part->partitions[index] = message->partition;
    if (message->err) {
        kx_part_fail(part, index, message->err);
    } else {
        kx_part_once(part, index);
        part->offsets[index] = message->offset < 0 ? -1 : message->offset;
    }
    return part;
}

/* Two lists that are in the order of their batches, as one. */
static inline kx_part *kx_parts_merge(kx_part *first, kx_part *second)
{
    kx_part *merged = NULL, **end = &merged;
    while (first && second) {
        kx_part **from = second->number < first->number ? &second : &first;
        *end = *from;
        end = &(*end)->next;
        *from = *end;
    }
    *end = first ? first : second;
    return merged;
}

/* In the order in which their batches were sent: they came as the last report of each did, the
 * last one first. */
static inline kx_part *kx_parts_sorted(kx_part *part)
{
    kx_part *runs[64] = {NULL};         /* of 1, 2, 4... parts, as in a binary number */
    kx_part *sorted = NULL;
    while (part) {
        kx_part *run = part;
        int i = 0;
        part = part->next;
        run->next = NULL;
        for (; runs[i]; runs[i++] = NULL)
            run = kx_parts_merge(runs[i], run);
        runs[i] = run;
    }
    for (int i = 0; i < 64; i++)
        if (runs[i])
            sorted = kx_parts_merge(runs[i], sorted);
    return sorted;
}

static inline kx_part *kx_parts_take_finished(kx_parts *parts)
{
    kx_part *part;
    if (!__atomic_load_n(&parts->finished, __ATOMIC_ACQUIRE))
        return NULL;
    pthread_mutex_lock(&parts->lock);
    part = parts->finished;
    __atomic_store_n(&parts->finished, NULL, __ATOMIC_RELEASE);
    pthread_mutex_unlock(&parts->lock);
    return kx_parts_sorted(part);
}

/* ------------------------------------------------------------------ the enqueue loop */

/* What a message fails with whose column was written to since it was checked. */
#define KX_CHANGED RD_KAFKA_RESP_ERR__INVALID_ARG

#define KX_TURN 1024
#define KX_TURNS 64

typedef struct kx_enqueue {
    /* what: one segment of values; of the others, where the values' first message is in them */
    const kx_segment *values;
    /* NULL: no keys; one segment as long as the values, or KX_ONE */
    const kx_segment *keys;
    const kx_integers *partitions;      /* NULL: the partitioner chooses */
    const kx_integers *timestamps;      /* NULL: now */
    rd_kafka_headers_t *headers;        /* owned by the caller: the same for all, copied; or NULL */
    /* owned by the caller: one for each, taken over when enqueued; or NULL */
    rd_kafka_headers_t **each_headers;
    /* header columns of a table */
    const kx_segment *header_columns;
    const char *const *header_names;
    size_t header_count;
    int copy;
    int turns;                          /* at most, in one call; 0: KX_TURNS */
    /* where to */
    rd_kafka_t *rk;
    rd_kafka_topic_t *topic;
    kx_part *part;
    kx_parts *parts;
    int64_t base;                       /* the index, in the part, of the segment's first message */
    /* how far */
    int64_t next;                       /* all before it are enqueued or failed */
    unsigned char done[KX_TURN];        /* and of those from there on, these */
    int64_t refused;                    /* failed, and not yet counted as answered */
    int64_t accepted;
    int64_t accepted_bytes;
    int64_t nulls;                      /* of the accepted: they have no value to keep in place */
} kx_enqueue;

static inline kx_span kx_enqueue_key(const kx_enqueue *e, int64_t i)
{
    return e->keys ? kx_segment_at(e->keys, i) : (kx_span){NULL, 0};
}

static inline void kx_enqueue_refused(kx_enqueue *e, int64_t i, int32_t code)
{
    kx_part_fail(e->part, e->base + i, code);
    kx_missed(e->parts, code);
    if (e->parts->refused)
        kx_count(e->parts->refused, code);
}

/* Message `i` has been tried. 1: the queue is full, and it comes again. */
static inline int kx_enqueue_tried(kx_enqueue *e, int64_t i, rd_kafka_resp_err_t err,
                                   const void *value, size_t size)
{
    if (err == RD_KAFKA_RESP_ERR__QUEUE_FULL)
        return 1;
    e->done[i - e->next] = 1;
    if (err) {
        kx_enqueue_refused(e, i, err);
        e->refused++;
    } else {
        e->accepted++;
        e->accepted_bytes += (int64_t)size;
        e->nulls += !value;
    }
    return 0;
}

static inline int kx_enqueue_one(kx_enqueue *e, int64_t i, int32_t partition)
{
    const kx_span value = kx_segment_at(e->values, i), key = kx_enqueue_key(e, i);
    const kx_bytes v = {value.data, value.size, NULL, NULL}, k = {key.data, key.size, NULL, NULL};
    const int64_t timestamp = e->timestamps ? kx_integer_at(e->timestamps, i, 0) : 0;
    rd_kafka_headers_t *headers = NULL;
    rd_kafka_resp_err_t err;
    if (value.data == kx_changed || key.data == kx_changed || timestamp < 0)
        return kx_enqueue_tried(e, i, KX_CHANGED, NULL, 0);
    if (e->each_headers) {
        headers = e->each_headers[i];
    } else if (e->headers) {
        headers = rd_kafka_headers_copy(e->headers);
    } else if (e->header_count) {
        headers = rd_kafka_headers_new(e->header_count);
        for (size_t h = 0; h < e->header_count; h++) {
            kx_span content = kx_segment_at(&e->header_columns[h], i);
            if (content.data == kx_changed) {
                rd_kafka_headers_destroy(headers);
                return kx_enqueue_tried(e, i, KX_CHANGED, NULL, 0);
            }
            rd_kafka_header_add(headers, e->header_names[h], -1, content.data,
                                content.data ? (ssize_t)content.size : 0);
        }
    }
    err = kx_produce(e->rk, e->topic, partition, e->copy, &v, &k, headers, timestamp,
                     kx_part_opaque(e->part, e->base + i));
    if (!err && e->each_headers)
        e->each_headers[i] = NULL;
    else if (err && headers && !e->each_headers)
        rd_kafka_headers_destroy(headers);
    return kx_enqueue_tried(e, i, err, value.data, value.size);
}

/* Of the turn's messages from `n` on, those that `following` chains to it (NULL: each that comes
 * behind it): to one partition, or to whichever the partitioner chooses. 1: the queue is full.
 *
 * Never with RD_KAFKA_MSG_F_PARTITION and a partition for each: that way
 * rd_kafka_produce_batch() loses a message whose partition does not exist (any more), and its
 * place in the queue with it, so that no flush ever ends. With one partition for all it looks
 * first. */
static inline int kx_enqueue_group(kx_enqueue *e, int32_t partition, int n, int count,
                                   const int16_t *following)
{
    rd_kafka_message_t messages[KX_TURN];
    int used = 0;
    for (; n >= 0 && n < count; n = following ? following[n] : n + 1) {
        rd_kafka_message_t *m = &messages[used];
        kx_span value, key;
        if (e->done[n])
            continue;
        kx_segment_ahead(e->values, e->next + n + KX_AHEAD);
        value = kx_segment_at(e->values, e->next + n);
        key = kx_enqueue_key(e, e->next + n);
        if (value.data == kx_changed || key.data == kx_changed) {
            kx_enqueue_tried(e, e->next + n, KX_CHANGED, NULL, 0);
            continue;
        }
        m->err = 0;
        m->payload = (void *)value.data;
        m->len = value.size;
        m->key = (void *)key.data;
        m->key_len = key.size;
        m->_private = kx_part_opaque(e->part, e->base + e->next + n);
        used++;
    }
    if (used)
        rd_kafka_produce_batch(e->topic, partition, e->copy ? RD_KAFKA_MSG_F_COPY : 0, messages,
                               used);
    for (n = 0; n < used; n++) {
        rd_kafka_message_t *m = &messages[n];
        if (kx_enqueue_tried(e, kx_opaque_index(m->_private) - e->base, m->err, m->payload, m->len))
            return 1;       /* it and all behind it */
    }
    return 0;
}

/* One that was written to since it was checked names none that there is. */
static inline int32_t kx_enqueue_partition(const kx_enqueue *e, int64_t i)
{
    const int64_t partition = kx_integer_at(e->partitions, i, RD_KAFKA_PARTITION_UA);
    return partition < RD_KAFKA_PARTITION_UA || partition > INT32_MAX ? INT32_MAX
                                                                      : (int32_t)partition;
}

/* A turn of messages with a partition for each: group by group, a partition each, so that each
 * keeps its order. */
static inline int kx_enqueue_partitioned(kx_enqueue *e, int count)
{
    enum { BUCKETS = 2 * KX_TURN };
    int32_t partitions[KX_TURN];
    int16_t following[KX_TURN], last[KX_TURN], firsts[KX_TURN], buckets[BUCKETS];
    int groups = 0, chosen = 0;
    for (int n = 0; n < count; n++) {
        partitions[n] = kx_enqueue_partition(e, e->next + n);
        chosen += partitions[n] == RD_KAFKA_PARTITION_UA;
    }
    if (chosen && chosen < count) {
        /* Some are the partitioner's choice, and it may choose one that others name: one by one
         * keeps their order. */
        for (int n = 0; n < count; n++)
            if (!e->done[n] && kx_enqueue_one(e, e->next + n, partitions[n]))
                return 1;
        return 0;
    }
    memset(buckets, 0xff, sizeof(buckets));
    for (int n = 0; n < count; n++) {
        uint32_t bucket = (uint32_t)partitions[n] * 2654435761u % BUCKETS;
        while (buckets[bucket] >= 0 && partitions[buckets[bucket]] != partitions[n])
            bucket = (bucket + 1) % BUCKETS;
        following[n] = -1;
        if (buckets[bucket] < 0) {
            buckets[bucket] = firsts[groups++] = (int16_t)n;
        } else {
            following[last[buckets[bucket]]] = (int16_t)n;
        }
        last[buckets[bucket]] = (int16_t)n;
    }
    for (int g = 0; g < groups; g++)
        if (kx_enqueue_group(e, partitions[firsts[g]], firsts[g], count, following))
            return 1;
    return 0;
}

/* The next `count` messages. 1: the queue is full. */
static inline int kx_enqueue_turn(kx_enqueue *e, int count)
{
    const int32_t all =
        e->partitions && !e->partitions->data ? kx_enqueue_partition(e, 0) : RD_KAFKA_PARTITION_UA;
    if (!e->timestamps && !e->headers && !e->each_headers && !e->header_count)
        return e->partitions && e->partitions->data ? kx_enqueue_partitioned(e, count)
                                                    : kx_enqueue_group(e, all, 0, count, NULL);
    /* rd_kafka_produce_batch() knows neither timestamps nor headers. */
    for (int n = 0; n < count; n++) {
        const int64_t i = e->next + n;
        const int32_t partition =
            e->partitions && e->partitions->data ? kx_enqueue_partition(e, i) : all;
        if (!e->done[n] && kx_enqueue_one(e, i, partition))
            return 1;
    }
    return 0;
}

/* Enqueue from e->next on until all are through (0), the queue is full (QUEUE_FULL), or some
 * turns are done (-1: go on; the caller looks after signals in between). A message that is
 * refused for itself is noted as failed. */
static int kx_enqueue_some(kx_enqueue *e)
{
    const int64_t length = kx_segment_length(e->values);
    const int turns = e->turns ? e->turns : KX_TURNS;
    int full = 0;
    e->accepted = e->accepted_bytes = e->nulls = 0;
    for (int turn = 0; turn < turns && !full && e->next < length; turn++) {
        const int count = length - e->next < KX_TURN ? (int)(length - e->next) : KX_TURN;
        full = kx_enqueue_turn(e, count);
        kx_part_answered(e->parts, e->part, e->refused);
        e->refused = 0;
        if (!full) {
            memset(e->done, 0, (size_t)count);
            e->next += count;
        }
    }
    if (!e->copy) {
        __atomic_fetch_add(&e->part->pinned_messages, e->accepted - e->nulls, __ATOMIC_RELAXED);
        __atomic_fetch_add(&e->part->pinned_bytes, e->accepted_bytes, __ATOMIC_RELAXED);
    }
    return full ? RD_KAFKA_RESP_ERR__QUEUE_FULL : e->next < length ? -1 : 0;
}

/* Give up on all that has not been enqueued: each is a failure with `code`. */
static void kx_enqueue_abandon(kx_enqueue *e, int32_t code)
{
    const int64_t length = kx_segment_length(e->values);
    int64_t left = 0;
    for (int64_t i = e->next; i < length; i++) {
        if (i - e->next < KX_TURN && e->done[i - e->next])
            continue;
        kx_enqueue_refused(e, i, code);
        left++;
    }
    memset(e->done, 0, sizeof(e->done));
    e->next = length;
    kx_part_answered(e->parts, e->part, left);
}

#endif
