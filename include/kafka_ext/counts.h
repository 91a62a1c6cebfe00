/* How often each of librdkafka's error codes came up: neither memory nor a lock nor the GIL is
 * needed to count one. */
#ifndef KAFKA_EXT_COUNTS_H
#define KAFKA_EXT_COUNTS_H

#include <librdkafka/rdkafka.h>
#include <stdint.h>

/* From librdkafka's own codes (RD_KAFKA_RESP_ERR__BEGIN is -200) to well past those of today's
 * protocol (133). */
#define KX_FIRST_CODE (-200)
#define KX_CODES 400

typedef struct kx_counts {
    int64_t of[KX_CODES];       /* by code - KX_FIRST_CODE */
} kx_counts;

/* Any thread. A code that a newer broker has made up is counted as UNKNOWN. */
static inline void kx_count(kx_counts *counts, int code)
{
    int i = code - KX_FIRST_CODE;
    if (i < 0 || i >= KX_CODES)
        i = RD_KAFKA_RESP_ERR_UNKNOWN - KX_FIRST_CODE;
    __atomic_fetch_add(&counts->of[i], 1, __ATOMIC_RELAXED);
}

static inline int64_t kx_counted(const kx_counts *counts, int code)
{
    return __atomic_load_n(&counts->of[code - KX_FIRST_CODE], __ATOMIC_RELAXED);
}

#endif
