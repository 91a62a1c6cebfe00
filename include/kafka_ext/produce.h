/* One enqueue, by the cheapest of librdkafka's calls that can carry the record. */
#ifndef KAFKA_EXT_PRODUCE_H
#define KAFKA_EXT_PRODUCE_H

#include <librdkafka/rdkafka.h>

#include "kafka_ext/message.h"

/* Never blocks (RD_KAFKA_MSG_F_BLOCK cannot be interrupted and has no timeout). On success the
 * headers and the opaque are librdkafka's, on failure still the caller's. rd_kafka_produce takes
 * neither headers nor a timestamp, but costs half of rd_kafka_produceva. */
static inline rd_kafka_resp_err_t kx_produce(rd_kafka_t *rk, rd_kafka_topic_t *topic,
                                             int32_t partition, int copy, const kx_bytes *value,
                                             const kx_bytes *key, rd_kafka_headers_t *headers,
                                             int64_t timestamp, void *opaque)
{
    const int flags = copy ? RD_KAFKA_MSG_F_COPY : 0;
    if (!headers && !timestamp) {
        const int failed = rd_kafka_produce(topic, partition, flags, (void *)value->data,
                                            value->size, key->data, key->size, opaque);
        return failed ? rd_kafka_last_error() : RD_KAFKA_RESP_ERR_NO_ERROR;
    }
    {
        rd_kafka_vu_t fields[8];
        size_t count = 0;
        rd_kafka_error_t *error;
        rd_kafka_resp_err_t code;
#define KX_FIELD(type, member, content)            \
    do {                                           \
        fields[count].vtype = RD_KAFKA_VTYPE_##type; \
        fields[count++].u.member = (content);      \
    } while (0)
        KX_FIELD(RKT, rkt, topic);
        KX_FIELD(PARTITION, i32, partition);
        KX_FIELD(MSGFLAGS, i, flags);
        KX_FIELD(VALUE, mem.ptr, (void *)value->data);
        fields[count - 1].u.mem.size = value->size;
        KX_FIELD(KEY, mem.ptr, (void *)key->data);
        fields[count - 1].u.mem.size = key->size;
        KX_FIELD(OPAQUE, ptr, opaque);
        if (timestamp)
            KX_FIELD(TIMESTAMP, i64, timestamp);
        if (headers)
            KX_FIELD(HEADERS, headers, headers);
#undef KX_FIELD
        error = rd_kafka_produceva(rk, fields, count);
        if (!error)
            return RD_KAFKA_RESP_ERR_NO_ERROR;
        code = rd_kafka_error_code(error);
        rd_kafka_error_destroy(error);
        return code;
    }
}

#endif
