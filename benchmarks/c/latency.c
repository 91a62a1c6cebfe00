/* From rd_kafka_produce to its delivery report in C, the clock read at the same places as benchmarks/latency/measure.py reads it.
 *
 * Usage: latency TOPIC SIZE TURNS INTERVAL_US AT_ONCE BUSY WARM_UP FILE NAME=VALUE...
 *
 * The main thread sends, a second one waits in rd_kafka_poll() and is called back. Writes each message's latency to FILE, as 64 bit
 * integers of nanoseconds in the order of the sends; the topic has one partition, so that the reports come in it too.
 */
#include <inttypes.h>
#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#include <librdkafka/rdkafka.h>

static rd_kafka_t *producer;
static int64_t *sent, *reported;
static long reports; /* written by the polling thread */
static int stop;

static void die(const char *what)
{
    fprintf(stderr, "latency: %s\n", what);
    exit(1);
}

static int64_t now(void)
{
    struct timespec t;
    clock_gettime(CLOCK_MONOTONIC, &t);
    return (int64_t)t.tv_sec * 1000000000 + t.tv_nsec;
}

static void on_report(rd_kafka_t *rk, const rd_kafka_message_t *message, void *opaque)
{
    (void)rk;
    (void)opaque;
    reported[reports] = now();
    if (message->err)
        die(rd_kafka_err2str(message->err));
    __atomic_store_n(&reports, reports + 1, __ATOMIC_RELEASE);
}

static void *poll_thread(void *unused)
{
    (void)unused;
    while (!__atomic_load_n(&stop, __ATOMIC_RELAXED))
        rd_kafka_poll(producer, 1000);
    return NULL;
}

static void wait_until(int64_t due, int busy)
{
    const struct timespec until = {(time_t)(due / 1000000000), (long)(due % 1000000000)};
    if (!busy)
        clock_nanosleep(CLOCK_MONOTONIC, TIMER_ABSTIME, &until, NULL);
    while (now() < due) {
    }
}

static void await_reports(long wanted)
{
    const struct timespec pause = {0, 1000000};
    while (__atomic_load_n(&reports, __ATOMIC_ACQUIRE) < wanted)
        nanosleep(&pause, NULL);
}

int main(int argc, char **argv)
{
    char errstr[512];
    pthread_t thread;
    rd_kafka_conf_t *conf = rd_kafka_conf_new();
    rd_kafka_topic_t *topic;

    if (argc < 9)
        die("TOPIC SIZE TURNS INTERVAL_US AT_ONCE BUSY WARM_UP FILE NAME=VALUE...");
    const size_t size = (size_t)atol(argv[2]);
    const long turns = atol(argv[3]), interval_us = atol(argv[4]), at_once = atol(argv[5]), warm_up = atol(argv[7]);
    const int busy = atoi(argv[6]);
    const long count = warm_up + turns * at_once;
    for (int i = 9; i < argc; i++) {
        char *value = strchr(argv[i], '=');
        if (!value)
            die(argv[i]);
        *value++ = 0;
        if (rd_kafka_conf_set(conf, argv[i], value, errstr, sizeof(errstr)) != RD_KAFKA_CONF_OK)
            die(errstr);
    }
    rd_kafka_conf_set_dr_msg_cb(conf, on_report);
    producer = rd_kafka_new(RD_KAFKA_PRODUCER, conf, errstr, sizeof(errstr));
    if (!producer)
        die(errstr);
    topic = rd_kafka_topic_new(producer, argv[1], NULL);
    char *value = calloc(1, size);
    sent = malloc((size_t)count * sizeof(*sent));
    reported = malloc((size_t)count * sizeof(*reported));
    memset(sent, 0, (size_t)count * sizeof(*sent)); /* no page is to be found missing while the clock runs */
    memset(reported, 0, (size_t)count * sizeof(*reported));
    pthread_create(&thread, NULL, poll_thread, NULL);

    long n = 0;
    for (; n < warm_up; n++)
        if (rd_kafka_produce(topic, RD_KAFKA_PARTITION_UA, 0, value, size, NULL, 0, NULL))
            die(rd_kafka_err2str(rd_kafka_last_error()));
    await_reports(warm_up);
    const int64_t start = now() + 100000000;
    for (long turn = 0; turn < turns; turn++) {
        wait_until(start + turn * interval_us * 1000, busy);
        for (long i = 0; i < at_once; i++) {
            sent[n++] = now();
            if (rd_kafka_produce(topic, RD_KAFKA_PARTITION_UA, 0, value, size, NULL, 0, NULL))
                die(rd_kafka_err2str(rd_kafka_last_error()));
        }
    }
    await_reports(count);
    __atomic_store_n(&stop, 1, __ATOMIC_RELAXED);
    pthread_join(thread, NULL);
    FILE *file = fopen(argv[8], "wb");
    if (!file)
        die("the file cannot be written");
    for (long i = warm_up; i < count; i++) {
        const int64_t latency = reported[i] - sent[i];
        fwrite(&latency, sizeof(latency), 1, file);
    }
    if (fclose(file))
        die("the file cannot be written");
    rd_kafka_topic_destroy(topic);
    rd_kafka_destroy(producer);
    return 0;
}
