/* A broker in a process of its own: librdkafka's mock cluster, until standard input ends. Usage: broker TOPIC PARTITIONS */
#include <stdio.h>
#include <stdlib.h>

#include <librdkafka/rdkafka.h>
#include <librdkafka/rdkafka_mock.h>

int main(int argc, char **argv)
{
    char errstr[512];
    rd_kafka_t *rk;
    rd_kafka_mock_cluster_t *cluster;

    if (argc != 3) {
        fprintf(stderr, "usage: broker TOPIC PARTITIONS\n");
        return 2;
    }
    rk = rd_kafka_new(RD_KAFKA_PRODUCER, rd_kafka_conf_new(), errstr, sizeof(errstr));
    cluster = rk ? rd_kafka_mock_cluster_new(rk, 1) : NULL;
    if (!cluster || rd_kafka_mock_topic_create(cluster, argv[1], atoi(argv[2]), 1)) {
        fprintf(stderr, "no mock cluster: %s\n", rk ? "rd_kafka_mock_cluster_new" : errstr);
        return 1;
    }
    puts(rd_kafka_mock_cluster_bootstraps(cluster));
    fflush(stdout);
    while (getchar() != EOF) {
    }
    rd_kafka_mock_cluster_destroy(cluster);
    rd_kafka_destroy(rk);
    return 0;
}
