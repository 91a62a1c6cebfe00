/* Refuses librdkafka releases that would break what kafka_ext promises, at compile time,
 * whatever found the headers: the consumer needs 2.13.2; before 2.12 a record with headers to a
 * partition that does not exist is a double free; before 2.5 a retried idempotent batch may not be
 * the same batch. */
#ifndef KAFKA_EXT_VERSION_GUARD_H
#define KAFKA_EXT_VERSION_GUARD_H

#include <librdkafka/rdkafka.h>

#if !defined(RD_KAFKA_VERSION) || RD_KAFKA_VERSION < 0x020d02ff
#error "kafka_ext needs librdkafka 2.13.2 or newer (version_guard.h says why)"
#endif

#endif
