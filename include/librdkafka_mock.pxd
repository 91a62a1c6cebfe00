# librdkafka's mock cluster, as far as kafka_ext.testing uses it, in the order of rdkafka_mock.h.
# The API is experimental: what came late is behind a version guard. Nothing here takes the GIL and
# nothing here may raise.

from libc.stdint cimport int16_t, int32_t, int64_t

from librdkafka cimport rd_kafka_mock_cluster_t, rd_kafka_resp_err_t, rd_kafka_t

cdef extern from *:
    """
    #include <librdkafka/rdkafka.h>
    #include <librdkafka/rdkafka_mock.h>
    #if RD_KAFKA_VERSION < 0x020e00ff
    /* Not there before 2.14: only a broker that comes back under its old address needs it. */
    #define rd_kafka_mock_broker_set_host_port(cluster, broker_id, host, port) ((void)0)
    #define KX_MOCK_HAS_HOST_PORT 0
    #else
    #define KX_MOCK_HAS_HOST_PORT 1
    #endif
    """
    const bint KX_MOCK_HAS_HOST_PORT

cdef extern from "librdkafka/rdkafka_mock.h" nogil:

    # --- cluster ---
    rd_kafka_mock_cluster_t *rd_kafka_mock_cluster_new(rd_kafka_t *rk, int broker_cnt) noexcept
    void rd_kafka_mock_cluster_destroy(rd_kafka_mock_cluster_t *mcluster) noexcept
    const char *rd_kafka_mock_cluster_bootstraps(const rd_kafka_mock_cluster_t *mcluster) noexcept

    # --- errors on requests ---
    void rd_kafka_mock_clear_request_errors(rd_kafka_mock_cluster_t *mcluster,
                                            int16_t ApiKey) noexcept
    void rd_kafka_mock_push_request_errors_array(
        rd_kafka_mock_cluster_t *mcluster, int16_t ApiKey, size_t cnt,
        const rd_kafka_resp_err_t *errors) noexcept
    void rd_kafka_mock_group_initial_rebalance_delay_ms(rd_kafka_mock_cluster_t *mcluster,
                                                        int32_t delay_ms) noexcept
    rd_kafka_resp_err_t rd_kafka_mock_broker_push_request_error_rtts(
        rd_kafka_mock_cluster_t *mcluster, int32_t broker_id, int16_t ApiKey, size_t cnt,
        ...) noexcept
    rd_kafka_resp_err_t rd_kafka_mock_broker_error_stack_cnt(
        rd_kafka_mock_cluster_t *mcluster, int32_t broker_id, int16_t ApiKey, size_t *cntp) noexcept

    # --- topics and partitions ---
    void rd_kafka_mock_topic_set_error(
        rd_kafka_mock_cluster_t *mcluster, const char *topic, rd_kafka_resp_err_t err) noexcept
    rd_kafka_resp_err_t rd_kafka_mock_topic_create(
        rd_kafka_mock_cluster_t *mcluster, const char *topic, int partition_cnt,
        int replication_factor) noexcept
    rd_kafka_resp_err_t rd_kafka_mock_partition_set_leader(
        rd_kafka_mock_cluster_t *mcluster, const char *topic, int32_t partition,
        int32_t broker_id) noexcept

    # --- brokers ---
    rd_kafka_resp_err_t rd_kafka_mock_broker_set_down(rd_kafka_mock_cluster_t *mcluster,
                                                      int32_t broker_id) noexcept
    void rd_kafka_mock_broker_set_host_port(
        rd_kafka_mock_cluster_t *mcluster, int32_t broker_id, const char *host, int port) noexcept
    rd_kafka_resp_err_t rd_kafka_mock_broker_set_up(rd_kafka_mock_cluster_t *mcluster,
                                                    int32_t broker_id) noexcept
    rd_kafka_resp_err_t rd_kafka_mock_broker_set_rtt(
        rd_kafka_mock_cluster_t *mcluster, int32_t broker_id, int rtt_ms) noexcept

    # --- requests seen ---
    void rd_kafka_mock_start_request_tracking(rd_kafka_mock_cluster_t *mcluster) noexcept
    void rd_kafka_mock_stop_request_tracking(rd_kafka_mock_cluster_t *mcluster) noexcept
    ctypedef struct rd_kafka_mock_request_t
    void rd_kafka_mock_request_destroy_array(rd_kafka_mock_request_t **mreqs,
                                             size_t mreq_cnt) noexcept
    int32_t rd_kafka_mock_request_id(rd_kafka_mock_request_t *mreq) noexcept
    int16_t rd_kafka_mock_request_api_key(rd_kafka_mock_request_t *mreq) noexcept
    rd_kafka_mock_request_t **rd_kafka_mock_get_requests(
        rd_kafka_mock_cluster_t *mcluster, size_t *cntp) noexcept
    void rd_kafka_mock_clear_requests(rd_kafka_mock_cluster_t *mcluster) noexcept
