/* What librdkafka itself can do: one producer in C, from the first send to the last delivery report.
 *
 * Usage: baseline CALL REPORTS LAYOUT TOPIC COUNT SIZE DISTINCT BATCH WARM_UP NAME=VALUE...
 *
 *     CALL      produce | copy | batch      rd_kafka_produce without or with RD_KAFKA_MSG_F_COPY, rd_kafka_produce_batch without
 *     REPORTS   thread | inline             reports taken as events by a second thread, or by the sender whenever the queue is full
 *     LAYOUT    bytes | arrow               values laid out as CPython's bytes objects, each in a malloc of its own, or in Arrow's binary
 *                                           columns of BATCH values: offsets, and one piece of memory
 *     DISTINCT  how many values are sent in turn
 *     BATCH     how many of them in a call of rd_kafka_produce_batch, 1000 at the most, and in a column
 *
 * Prints one line of JSON.
 */
#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#include <librdkafka/rdkafka.h>

enum { MOST = 1000, REPORTS = 1000 };

/* The head of a bytes object in CPython, by size and place of what is read. */
typedef struct object {
    long references;
    void *type;
    size_t size;
    long hash;
    char data[];
} object;

typedef struct column {
    int *offsets;
    char *data;
} column;

static rd_kafka_t *producer;
static rd_kafka_topic_t *topic;
static rd_kafka_queue_t *events;
static object **objects;
static column *columns;
static size_t size;
static long distinct, batch_size;
static long reported, failed; /* written by whoever takes the reports */
static int stop;

static void die(const char *what)
{
    fprintf(stderr, "baseline: %s\n", what);
    exit(1);
}

static double now(clockid_t clock)
{
    struct timespec t;
    clock_gettime(clock, &t);
    return (double)t.tv_sec + 1e-9 * (double)t.tv_nsec;
}

/* Not getrusage: over fork and exec ru_maxrss keeps the peak of the parent. */
static long memory_kib(const char *what)
{
    char line[256];
    long kib = -1;
    FILE *status = fopen("/proc/self/status", "r");
    if (!status)
        die("no /proc/self/status");
    while (kib < 0 && fgets(line, sizeof(line), status))
        if (!strncmp(line, what, strlen(what)))
            sscanf(line + strlen(what), ": %ld", &kib);
    fclose(status);
    return kib;
}

static void take_reports(int timeout_ms)
{
    const rd_kafka_message_t *messages[REPORTS];
    rd_kafka_event_t *event = rd_kafka_queue_poll(events, timeout_ms);
    if (!event)
        return;
    if (rd_kafka_event_type(event) == RD_KAFKA_EVENT_DR) {
        long bad = 0, all = 0;
        size_t n;
        while ((n = rd_kafka_event_message_array(event, messages, REPORTS)) > 0) {
            for (size_t i = 0; i < n; i++)
                bad += messages[i]->err != RD_KAFKA_RESP_ERR_NO_ERROR;
            all += (long)n;
        }
        failed += bad;
        __atomic_add_fetch(&reported, all, __ATOMIC_RELEASE);
    }
    rd_kafka_event_destroy(event);
}

static void *report_thread(void *unused)
{
    (void)unused;
    while (!__atomic_load_n(&stop, __ATOMIC_RELAXED))
        take_reports(100);
    return NULL;
}

static void wait_for_room(int inline_reports)
{
    struct timespec pause = {0, 1000000};
    if (inline_reports)
        take_reports(10);
    else
        nanosleep(&pause, NULL);
}

static void send_each(long count, int flags, int inline_reports)
{
    for (long i = 0; i < count; i++) {
        object *o = objects[i % distinct];
        while (rd_kafka_produce(topic, RD_KAFKA_PARTITION_UA, flags, o->data, o->size, NULL, 0, NULL)) {
            if (rd_kafka_last_error() != RD_KAFKA_RESP_ERR__QUEUE_FULL)
                die(rd_kafka_err2str(rd_kafka_last_error()));
            wait_for_room(inline_reports);
        }
    }
}

static void take_value(rd_kafka_message_t *message, long i)
{
    i %= distinct;
    if (columns) {
        const column *c = &columns[i / batch_size];
        const long row = i % batch_size;
        message->payload = c->data + c->offsets[row];
        message->len = (size_t)(c->offsets[row + 1] - c->offsets[row]);
    } else {
        message->payload = objects[i]->data;
        message->len = objects[i]->size;
    }
}

static void send_batches(long count, int inline_reports)
{
    static rd_kafka_message_t batch[MOST];
    const long most = batch_size < MOST ? batch_size : MOST;
    long sent = 0;
    int waiting = 0; /* those of the last call that found no room, moved to the front */
    while (sent < count || waiting) {
        while (waiting < most && sent < count) {
            memset(&batch[waiting], 0, sizeof(batch[0]));
            take_value(&batch[waiting++], sent++);
        }
        if (rd_kafka_produce_batch(topic, RD_KAFKA_PARTITION_UA, 0, batch, waiting) == waiting) {
            waiting = 0;
            continue;
        }
        int refused = 0;
        for (int i = 0; i < waiting; i++)
            if (batch[i].err) {
                if (batch[i].err != RD_KAFKA_RESP_ERR__QUEUE_FULL)
                    die(rd_kafka_err2str(batch[i].err));
                batch[refused++] = batch[i];
            }
        waiting = refused;
        wait_for_room(inline_reports);
    }
}

static void make_objects(void)
{
    objects = malloc((size_t)distinct * sizeof(*objects));
    for (long i = 0; i < distinct; i++) {
        objects[i] = malloc(sizeof(object) + size + 1);
        objects[i]->size = size;
        memset(objects[i]->data, (int)('a' + i % 26), size);
    }
}

static void make_columns(void)
{
    const long count = distinct / batch_size;
    columns = malloc((size_t)count * sizeof(*columns));
    for (long i = 0; i < count; i++) {
        columns[i].offsets = malloc((size_t)(batch_size + 1) * sizeof(int));
        columns[i].data = malloc((size_t)batch_size * size);
        memset(columns[i].data, (int)('a' + i % 26), (size_t)batch_size * size);
        for (long row = 0; row <= batch_size; row++)
            columns[i].offsets[row] = (int)(row * (long)size);
    }
}

static void send_all(const char *call, long count, int inline_reports)
{
    const long wanted = __atomic_load_n(&reported, __ATOMIC_ACQUIRE) + count;
    if (!strcmp(call, "batch"))
        send_batches(count, inline_reports);
    else
        send_each(count, strcmp(call, "copy") ? 0 : RD_KAFKA_MSG_F_COPY, inline_reports);
    while (__atomic_load_n(&reported, __ATOMIC_ACQUIRE) < wanted) {
        rd_kafka_flush(producer, inline_reports ? 0 : 100); /* in event mode it takes no reports, but ends the lingering */
        if (inline_reports)
            take_reports(10);
    }
}

int main(int argc, char **argv)
{
    char errstr[512];
    pthread_t thread;
    rd_kafka_conf_t *conf = rd_kafka_conf_new();

    if (argc < 10)
        die("CALL REPORTS LAYOUT TOPIC COUNT SIZE DISTINCT BATCH WARM_UP NAME=VALUE...");
    const char *call = argv[1];
    const int inline_reports = !strcmp(argv[2], "inline");
    const long count = atol(argv[5]), warm_up = atol(argv[9]);
    size = (size_t)atol(argv[6]);
    distinct = atol(argv[7]);
    batch_size = atol(argv[8]);
    for (int i = 10; i < argc; i++) {
        char *value = strchr(argv[i], '=');
        if (!value)
            die(argv[i]);
        *value++ = 0;
        if (rd_kafka_conf_set(conf, argv[i], value, errstr, sizeof(errstr)) != RD_KAFKA_CONF_OK)
            die(errstr);
    }
    rd_kafka_conf_set_events(conf, RD_KAFKA_EVENT_DR);
    producer = rd_kafka_new(RD_KAFKA_PRODUCER, conf, errstr, sizeof(errstr));
    if (!producer)
        die(errstr);
    events = rd_kafka_queue_get_main(producer);
    topic = rd_kafka_topic_new(producer, argv[4], NULL);
    if (strcmp(argv[3], "arrow"))
        make_objects();
    else
        make_columns();
    if (!inline_reports)
        pthread_create(&thread, NULL, report_thread, NULL);

    send_all(call, warm_up, inline_reports);
    const long before = memory_kib("VmRSS");
    const double start = now(CLOCK_MONOTONIC), cpu = now(CLOCK_PROCESS_CPUTIME_ID);
    send_all(call, count, inline_reports);
    const double seconds = now(CLOCK_MONOTONIC) - start, cpu_seconds = now(CLOCK_PROCESS_CPUTIME_ID) - cpu;

    printf("{\"seconds\": %.6f, \"cpu_seconds\": %.6f, \"before_kib\": %ld, \"peak_kib\": %ld, \"reported\": %ld, \"failed\": %ld, "
           "\"version\": \"librdkafka %s\"}\n",
           seconds, cpu_seconds, before, memory_kib("VmHWM"), reported - warm_up, failed, rd_kafka_version_str());
    __atomic_store_n(&stop, 1, __ATOMIC_RELAXED);
    if (!inline_reports)
        pthread_join(thread, NULL);
    rd_kafka_topic_destroy(topic);
    rd_kafka_queue_destroy(events);
    rd_kafka_destroy(producer);
    return 0;
}
