/* A defect of librdkafka 2.14.2 to 2.15.1 by itself: the text of rd_kafka_message_produce_errstr() is freed before the report is destroyed.
 *
 * It points into the answer that the broker's thread has parsed, and not into the copy that the report owns; that thread frees the
 * answer when it has queued the report. So kafka_ext never asks for the text (delivery_error() in kafka_ext/core/producer/delivery.pyx).
 *
 * Needs a compacted topic, whose records without keys are refused with words, and an AddressSanitizer build:
 *
 *     KAFKA_EXT_SANITIZE=address,undefined KAFKA_EXT_ALLOCATOR=system python3 wheels/librdkafka.py      # names the prefix
 *     cc -g -fsanitize=address,undefined -I$PREFIX/include tests/cluster/produce_errstr.c $PREFIX/lib/librdkafka.a \
 *         -lm -lcurl -lzstd -lssl -lcrypto -lz -ldl -lpthread -lrt -o produce_errstr
 *     ./produce_errstr 127.0.0.1:9092 a-compacted-topic
 */

#include <librdkafka/rdkafka.h>
#include <stdio.h>
#include <unistd.h>

int main(int argc, char **argv) {
    char errstr[512];
    if (argc < 3)
        return 2;
    rd_kafka_conf_t *conf = rd_kafka_conf_new();
    rd_kafka_conf_set(conf, "bootstrap.servers", argv[1], errstr, sizeof(errstr));
    rd_kafka_conf_set_events(conf, RD_KAFKA_EVENT_DR);
    rd_kafka_t *rk = rd_kafka_new(RD_KAFKA_PRODUCER, conf, errstr, sizeof(errstr));
    rd_kafka_queue_t *queue = rd_kafka_queue_get_main(rk);
    rd_kafka_producev(rk, RD_KAFKA_V_TOPIC(argv[2]), RD_KAFKA_V_VALUE("v", 1), RD_KAFKA_V_END);
    sleep(2); /* long enough for the broker's thread to be done with the answer; without it, they race */
    rd_kafka_event_t *event = rd_kafka_queue_poll(queue, 10000);
    const rd_kafka_message_t *message = rd_kafka_event_message_next(event);
    printf("%s: %s\n", rd_kafka_err2name(message->err), rd_kafka_message_produce_errstr(message)); /* heap-use-after-free */
    rd_kafka_event_destroy(event);
    rd_kafka_queue_destroy(queue);
    rd_kafka_destroy(rk);
    return 0;
}
