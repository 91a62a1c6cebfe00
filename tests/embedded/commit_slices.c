/* librdkafka 2.15.1 ends the process when rd_kafka_commit_transaction() is taken up again with short timeouts:
 *
 *     BUG: Invalid transaction state transition attempted: CommittingTransaction -> AbortedNotAcked
 *
 * A call whose first step (rd_kafka_txn_op_begin_commit) finds no answer of librdkafka's main thread in time forgets its name, since it is
 * "not resumable yet"; but when an earlier call has sent EndTxn already, its answer is then taken for that of an abort
 * (rd_kafka_txn_endtxn_complete asks for the name). A main thread that is late makes it likely, a millisecond as timeout makes it easy.
 *
 *     cc commit_slices.c -lrdkafka -o commit_slices && ./commit_slices 1
 *
 * Some of a few dozen transactions will do.
 */
#include <librdkafka/rdkafka.h>
#include <librdkafka/rdkafka_mock.h>
#include <stdio.h>
#include <stdlib.h>
#include <time.h>

static void must(rd_kafka_error_t *error)
{
    if (error) {
        fprintf(stderr, "%s\n", rd_kafka_error_string(error));
        exit(1);
    }
}

int main(int argc, char **argv)
{
    const int timeout_ms = argc > 1 ? atoi(argv[1]) : 1;
    const struct timespec pause = {0, 3000000};
    char errstr[512];
    rd_kafka_conf_t *conf = rd_kafka_conf_new();
    rd_kafka_t *rk;
    rd_kafka_conf_set(conf, "test.mock.num.brokers", "1", errstr, sizeof(errstr));
    rd_kafka_conf_set(conf, "transactional.id", "commit-slices", errstr, sizeof(errstr));
    rk = rd_kafka_new(RD_KAFKA_PRODUCER, conf, errstr, sizeof(errstr));
    must(rd_kafka_init_transactions(rk, 30000));
    rd_kafka_mock_broker_set_rtt(rd_kafka_handle_mock_cluster(rk), 1, 100);
    for (int n = 0; n < 100; n++) {
        rd_kafka_error_t *error;
        must(rd_kafka_begin_transaction(rk));
        rd_kafka_producev(rk, RD_KAFKA_V_TOPIC("t"), RD_KAFKA_V_VALUE("v", 1), RD_KAFKA_V_END);
        while ((error = rd_kafka_commit_transaction(rk, timeout_ms))) {
            rd_kafka_error_destroy(error);
            nanosleep(&pause, NULL);
        }
    }
    rd_kafka_destroy(rk);
    return 0;
}
