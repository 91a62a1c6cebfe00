# librdkafka's C API, as far as kafka_ext uses it, in the order of rdkafka.h.
# Nothing here takes the GIL and nothing here may raise: hence `noexcept nogil` on the whole block.

from libc.stdint cimport int16_t, int32_t, int64_t
from libc.stdio cimport FILE

cdef extern from "librdkafka/rdkafka.h" nogil:

    # --- version ---
    const int RD_KAFKA_VERSION
    int rd_kafka_version() noexcept
    const char *rd_kafka_version_str() noexcept

    # --- constants and types ---
    ctypedef enum rd_kafka_type_t:
        RD_KAFKA_PRODUCER
        RD_KAFKA_CONSUMER

    ctypedef enum rd_kafka_timestamp_type_t:
        RD_KAFKA_TIMESTAMP_NOT_AVAILABLE
        RD_KAFKA_TIMESTAMP_CREATE_TIME
        RD_KAFKA_TIMESTAMP_LOG_APPEND_TIME

    ctypedef struct rd_kafka_t
    ctypedef struct rd_kafka_topic_t
    ctypedef struct rd_kafka_conf_t
    ctypedef struct rd_kafka_topic_conf_t
    ctypedef struct rd_kafka_queue_t
    ctypedef struct rd_kafka_event_t
    ctypedef struct rd_kafka_headers_t
    ctypedef struct rd_kafka_error_t
    ctypedef struct rd_kafka_consumer_group_metadata_t
    ctypedef struct rd_kafka_mock_cluster_t

    ctypedef int rd_kafka_resp_err_t
    rd_kafka_resp_err_t RD_KAFKA_RESP_ERR_NO_ERROR
    rd_kafka_resp_err_t RD_KAFKA_RESP_ERR__FAIL
    rd_kafka_resp_err_t RD_KAFKA_RESP_ERR__TIMED_OUT
    rd_kafka_resp_err_t RD_KAFKA_RESP_ERR__QUEUE_FULL
    rd_kafka_resp_err_t RD_KAFKA_RESP_ERR__STATE
    rd_kafka_resp_err_t RD_KAFKA_RESP_ERR__CONFLICT
    rd_kafka_resp_err_t RD_KAFKA_RESP_ERR__NOT_CONFIGURED
    rd_kafka_resp_err_t RD_KAFKA_RESP_ERR__INCONSISTENT
    rd_kafka_resp_err_t RD_KAFKA_RESP_ERR__FATAL
    rd_kafka_resp_err_t RD_KAFKA_RESP_ERR__PURGE_QUEUE
    rd_kafka_resp_err_t RD_KAFKA_RESP_ERR__PURGE_INFLIGHT
    rd_kafka_resp_err_t RD_KAFKA_RESP_ERR__INVALID_ARG
    rd_kafka_resp_err_t RD_KAFKA_RESP_ERR__PARTITION_EOF
    rd_kafka_resp_err_t RD_KAFKA_RESP_ERR__AUTO_OFFSET_RESET
    rd_kafka_resp_err_t RD_KAFKA_RESP_ERR__UNKNOWN_PARTITION
    rd_kafka_resp_err_t RD_KAFKA_RESP_ERR__UNKNOWN_TOPIC
    rd_kafka_resp_err_t RD_KAFKA_RESP_ERR__BAD_MSG
    rd_kafka_resp_err_t RD_KAFKA_RESP_ERR__TRANSPORT
    rd_kafka_resp_err_t RD_KAFKA_RESP_ERR__RESOLVE
    rd_kafka_resp_err_t RD_KAFKA_RESP_ERR__MSG_TIMED_OUT
    rd_kafka_resp_err_t RD_KAFKA_RESP_ERR__ALL_BROKERS_DOWN
    rd_kafka_resp_err_t RD_KAFKA_RESP_ERR__SSL
    rd_kafka_resp_err_t RD_KAFKA_RESP_ERR__AUTHENTICATION
    rd_kafka_resp_err_t RD_KAFKA_RESP_ERR__INTR
    rd_kafka_resp_err_t RD_KAFKA_RESP_ERR__WAIT_CACHE
    rd_kafka_resp_err_t RD_KAFKA_RESP_ERR__NOT_IMPLEMENTED
    rd_kafka_resp_err_t RD_KAFKA_RESP_ERR_MSG_SIZE_TOO_LARGE
    rd_kafka_resp_err_t RD_KAFKA_RESP_ERR_TOPIC_EXCEPTION
    rd_kafka_resp_err_t RD_KAFKA_RESP_ERR_UNKNOWN_TOPIC_OR_PART
    rd_kafka_resp_err_t RD_KAFKA_RESP_ERR_LEADER_NOT_AVAILABLE
    rd_kafka_resp_err_t RD_KAFKA_RESP_ERR_TOPIC_ALREADY_EXISTS

    struct rd_kafka_err_desc:
        rd_kafka_resp_err_t code
        const char *name        # borrowed, static; NULL for an unused slot
        const char *desc
    void rd_kafka_get_err_descs(const rd_kafka_err_desc **errdescs, size_t *cntp) noexcept
    const char *rd_kafka_err2str(rd_kafka_resp_err_t err) noexcept
    const char *rd_kafka_err2name(rd_kafka_resp_err_t err) noexcept
    rd_kafka_resp_err_t rd_kafka_last_error() noexcept
    rd_kafka_resp_err_t rd_kafka_fatal_error(rd_kafka_t *rk, char *errstr,
                                             size_t errstr_size) noexcept
    rd_kafka_resp_err_t rd_kafka_test_fatal_error(
        rd_kafka_t *rk, rd_kafka_resp_err_t err, const char *reason) noexcept

    # --- rich errors ---
    rd_kafka_resp_err_t rd_kafka_error_code(const rd_kafka_error_t *error) noexcept
    const char *rd_kafka_error_string(const rd_kafka_error_t *error) noexcept
    int rd_kafka_error_is_fatal(const rd_kafka_error_t *error) noexcept
    int rd_kafka_error_is_retriable(const rd_kafka_error_t *error) noexcept
    int rd_kafka_error_txn_requires_abort(const rd_kafka_error_t *error) noexcept
    void rd_kafka_error_destroy(rd_kafka_error_t *error) noexcept

    # --- topic partition lists ---
    ctypedef struct rd_kafka_topic_partition_t:
        char *topic
        int32_t partition
        int64_t offset
        void *metadata
        size_t metadata_size
        void *opaque
        rd_kafka_resp_err_t err
    ctypedef struct rd_kafka_topic_partition_list_t:
        int cnt
        int size
        rd_kafka_topic_partition_t *elems
    rd_kafka_topic_partition_list_t *rd_kafka_topic_partition_list_new(int size) noexcept
    void rd_kafka_topic_partition_list_destroy(rd_kafka_topic_partition_list_t *rkparlist) noexcept
    rd_kafka_topic_partition_t *rd_kafka_topic_partition_list_add(
        rd_kafka_topic_partition_list_t *rktparlist, const char *topic, int32_t partition) noexcept
    void rd_kafka_topic_partition_set_leader_epoch(
        rd_kafka_topic_partition_t *rktpar, int32_t leader_epoch) noexcept

    # --- var-arg produce ---
    ctypedef enum rd_kafka_vtype_t:
        RD_KAFKA_VTYPE_END
        RD_KAFKA_VTYPE_TOPIC
        RD_KAFKA_VTYPE_RKT
        RD_KAFKA_VTYPE_PARTITION
        RD_KAFKA_VTYPE_VALUE
        RD_KAFKA_VTYPE_KEY
        RD_KAFKA_VTYPE_OPAQUE
        RD_KAFKA_VTYPE_MSGFLAGS
        RD_KAFKA_VTYPE_TIMESTAMP
        RD_KAFKA_VTYPE_HEADER
        RD_KAFKA_VTYPE_HEADERS

    # --- message headers ---
    rd_kafka_headers_t *rd_kafka_headers_new(size_t initial_count) noexcept
    void rd_kafka_headers_destroy(rd_kafka_headers_t *hdrs) noexcept
    rd_kafka_resp_err_t rd_kafka_header_add(
        rd_kafka_headers_t *hdrs, const char *name, ssize_t name_size,
        const void *value, ssize_t value_size) noexcept
    rd_kafka_resp_err_t rd_kafka_header_get_all(
        const rd_kafka_headers_t *hdrs, size_t idx, const char **namep,
        const void **valuep, size_t *sizep) noexcept

    # --- messages ---
    ctypedef struct rd_kafka_message_t:
        rd_kafka_resp_err_t err
        rd_kafka_topic_t *rkt
        int32_t partition
        void *payload
        size_t len
        void *key
        size_t key_len
        int64_t offset
        void *_private          # a producer's per-message opaque
    void rd_kafka_message_destroy(rd_kafka_message_t *rkmessage) noexcept
    const char *rd_kafka_message_errstr(const rd_kafka_message_t *rkmessage) noexcept
    int64_t rd_kafka_message_timestamp(
        const rd_kafka_message_t *rkmessage, rd_kafka_timestamp_type_t *tstype) noexcept
    int64_t rd_kafka_message_latency(const rd_kafka_message_t *rkmessage) noexcept
    int32_t rd_kafka_message_broker_id(const rd_kafka_message_t *rkmessage) noexcept
    rd_kafka_resp_err_t rd_kafka_message_headers(
        const rd_kafka_message_t *rkmessage, rd_kafka_headers_t **hdrsp) noexcept
    ctypedef enum rd_kafka_msg_status_t:
        RD_KAFKA_MSG_STATUS_NOT_PERSISTED
        RD_KAFKA_MSG_STATUS_POSSIBLY_PERSISTED
        RD_KAFKA_MSG_STATUS_PERSISTED
    rd_kafka_msg_status_t rd_kafka_message_status(const rd_kafka_message_t *rkmessage) noexcept

    # --- configuration ---
    ctypedef enum rd_kafka_conf_res_t:
        RD_KAFKA_CONF_UNKNOWN
        RD_KAFKA_CONF_INVALID
        RD_KAFKA_CONF_OK
    rd_kafka_conf_t *rd_kafka_conf_new() noexcept
    void rd_kafka_conf_destroy(rd_kafka_conf_t *conf) noexcept
    rd_kafka_conf_res_t rd_kafka_conf_set(
        rd_kafka_conf_t *conf, const char *name, const char *value,
        char *errstr, size_t errstr_size) noexcept
    void rd_kafka_conf_set_events(rd_kafka_conf_t *conf, int events) noexcept
    void rd_kafka_conf_enable_sasl_queue(rd_kafka_conf_t *conf, int enable) noexcept
    void rd_kafka_conf_set_throttle_cb(
        rd_kafka_conf_t *conf,
        void (*throttle_cb)(rd_kafka_t *rk, const char *broker_name, int32_t broker_id,
                            int throttle_time_ms, void *opaque) noexcept nogil) noexcept
    void rd_kafka_conf_set_opaque(rd_kafka_conf_t *conf, void *opaque) noexcept
    rd_kafka_conf_res_t rd_kafka_conf_get(
        const rd_kafka_conf_t *conf, const char *name, char *dest, size_t *dest_size) noexcept
    void rd_kafka_conf_properties_show(FILE *fp) noexcept

    # --- topic configuration ---
    void rd_kafka_topic_conf_destroy(rd_kafka_topic_conf_t *topic_conf) noexcept
    void rd_kafka_topic_conf_set_opaque(rd_kafka_topic_conf_t *conf, void *opaque) noexcept

    # --- handle ---
    rd_kafka_t *rd_kafka_new(
        rd_kafka_type_t type, rd_kafka_conf_t *conf, char *errstr, size_t errstr_size) noexcept
    void rd_kafka_destroy(rd_kafka_t *rk) noexcept
    const int RD_KAFKA_DESTROY_F_NO_CONSUMER_CLOSE
    void rd_kafka_destroy_flags(rd_kafka_t *rk, int flags) noexcept
    const char *rd_kafka_name(const rd_kafka_t *rk) noexcept
    const rd_kafka_conf_t *rd_kafka_conf(rd_kafka_t *rk) noexcept
    rd_kafka_topic_conf_t *rd_kafka_default_topic_conf_dup(rd_kafka_t *rk) noexcept
    rd_kafka_topic_t *rd_kafka_topic_new(
        rd_kafka_t *rk, const char *topic, rd_kafka_topic_conf_t *conf) noexcept
    void rd_kafka_topic_destroy(rd_kafka_topic_t *rkt) noexcept
    const char *rd_kafka_topic_name(const rd_kafka_topic_t *rkt) noexcept
    void *rd_kafka_topic_opaque(const rd_kafka_topic_t *rkt) noexcept
    const int32_t RD_KAFKA_PARTITION_UA
    int rd_kafka_poll(rd_kafka_t *rk, int timeout_ms) noexcept
    char *rd_kafka_clusterid(rd_kafka_t *rk, int timeout_ms) noexcept
    int32_t rd_kafka_controllerid(rd_kafka_t *rk, int timeout_ms) noexcept
    void rd_kafka_mem_free(rd_kafka_t *rk, void *ptr) noexcept
    rd_kafka_error_t *rd_kafka_sasl_background_callbacks_enable(rd_kafka_t *rk) noexcept
    rd_kafka_resp_err_t rd_kafka_oauthbearer_set_token(
        rd_kafka_t *rk, const char *token_value, int64_t md_lifetime_ms,
        const char *md_principal_name, const char **extensions, size_t extension_size,
        char *errstr, size_t errstr_size) noexcept
    rd_kafka_resp_err_t rd_kafka_oauthbearer_set_token_failure(
        rd_kafka_t *rk, const char *errstr) noexcept

    # --- queues ---
    void rd_kafka_queue_destroy(rd_kafka_queue_t *rkqu) noexcept
    rd_kafka_queue_t *rd_kafka_queue_new(rd_kafka_t *rk) noexcept
    rd_kafka_queue_t *rd_kafka_queue_get_main(rd_kafka_t *rk) noexcept
    rd_kafka_resp_err_t rd_kafka_set_log_queue(rd_kafka_t *rk, rd_kafka_queue_t *rkqu) noexcept
    size_t rd_kafka_queue_length(rd_kafka_queue_t *rkqu) noexcept
    void rd_kafka_queue_io_event_enable(
        rd_kafka_queue_t *rkqu, int fd, const void *payload, size_t size) noexcept
    void rd_kafka_queue_yield(rd_kafka_queue_t *rkqu) noexcept

    # --- simple consumer, by queues: what reads topics back ---
    int rd_kafka_consume_start_queue(
        rd_kafka_topic_t *rkt, int32_t partition, int64_t offset, rd_kafka_queue_t *rkqu) noexcept
    int rd_kafka_consume_stop(rd_kafka_topic_t *rkt, int32_t partition) noexcept
    rd_kafka_message_t *rd_kafka_consume_queue(rd_kafka_queue_t *rkqu, int timeout_ms) noexcept
    ssize_t rd_kafka_consume_batch_queue(
        rd_kafka_queue_t *rkqu, int timeout_ms, rd_kafka_message_t **rkmessages,
        size_t rkmessages_size) noexcept

    # --- produce ---
    const int RD_KAFKA_MSG_F_FREE
    const int RD_KAFKA_MSG_F_COPY
    const int RD_KAFKA_MSG_F_BLOCK
    const int RD_KAFKA_MSG_F_PARTITION
    int rd_kafka_produce(
        rd_kafka_topic_t *rkt, int32_t partition, int msgflags, void *payload, size_t len,
        const void *key, size_t keylen, void *msg_opaque) noexcept
    rd_kafka_resp_err_t rd_kafka_producev(rd_kafka_t *rk, ...) noexcept
    int rd_kafka_produce_batch(
        rd_kafka_topic_t *rkt, int32_t partition, int msgflags,
        rd_kafka_message_t *rkmessages, int message_cnt) noexcept
    rd_kafka_resp_err_t rd_kafka_flush(rd_kafka_t *rk, int timeout_ms) noexcept
    const int RD_KAFKA_PURGE_F_QUEUE
    const int RD_KAFKA_PURGE_F_INFLIGHT
    const int RD_KAFKA_PURGE_F_NON_BLOCKING
    rd_kafka_resp_err_t rd_kafka_purge(rd_kafka_t *rk, int purge_flags) noexcept

    # --- metadata ---
    struct rd_kafka_metadata_broker:
        int32_t id
        char *host
        int port
    ctypedef rd_kafka_metadata_broker rd_kafka_metadata_broker_t
    struct rd_kafka_metadata_partition:
        int32_t id
        rd_kafka_resp_err_t err
        int32_t leader
        int replica_cnt
        int32_t *replicas
        int isr_cnt
        int32_t *isrs
    ctypedef rd_kafka_metadata_partition rd_kafka_metadata_partition_t
    struct rd_kafka_metadata_topic:
        char *topic
        int partition_cnt
        rd_kafka_metadata_partition *partitions
        rd_kafka_resp_err_t err
    ctypedef rd_kafka_metadata_topic rd_kafka_metadata_topic_t
    ctypedef struct rd_kafka_metadata_t:
        int broker_cnt
        rd_kafka_metadata_broker *brokers
        int topic_cnt
        rd_kafka_metadata_topic *topics
        int32_t orig_broker_id
        char *orig_broker_name
    rd_kafka_resp_err_t rd_kafka_metadata(
        rd_kafka_t *rk, int all_topics, rd_kafka_topic_t *only_rkt,
        const rd_kafka_metadata_t **metadatap, int timeout_ms) noexcept
    void rd_kafka_metadata_destroy(const rd_kafka_metadata_t *metadata) noexcept

    # --- misc ---
    int rd_kafka_brokers_add(rd_kafka_t *rk, const char *brokerlist) noexcept
    int rd_kafka_outq_len(rd_kafka_t *rk) noexcept

    # --- events ---
    const int RD_KAFKA_EVENT_NONE
    const int RD_KAFKA_EVENT_DR
    const int RD_KAFKA_EVENT_LOG
    const int RD_KAFKA_EVENT_ERROR
    const int RD_KAFKA_EVENT_STATS
    const int RD_KAFKA_EVENT_OAUTHBEARER_TOKEN_REFRESH
    int rd_kafka_event_type(const rd_kafka_event_t *rkev) noexcept
    void rd_kafka_event_destroy(rd_kafka_event_t *rkev) noexcept
    const rd_kafka_message_t *rd_kafka_event_message_next(rd_kafka_event_t *rkev) noexcept
    size_t rd_kafka_event_message_array(
        rd_kafka_event_t *rkev, const rd_kafka_message_t **rkmessages, size_t size) noexcept
    size_t rd_kafka_event_message_count(rd_kafka_event_t *rkev) noexcept
    const char *rd_kafka_event_config_string(rd_kafka_event_t *rkev) noexcept
    rd_kafka_resp_err_t rd_kafka_event_error(rd_kafka_event_t *rkev) noexcept
    const char *rd_kafka_event_error_string(rd_kafka_event_t *rkev) noexcept
    int rd_kafka_event_error_is_fatal(rd_kafka_event_t *rkev) noexcept
    int rd_kafka_event_log(
        rd_kafka_event_t *rkev, const char **fac, const char **str, int *level) noexcept
    const char *rd_kafka_event_stats(rd_kafka_event_t *rkev) noexcept
    rd_kafka_event_t *rd_kafka_queue_poll(rd_kafka_queue_t *rkqu, int timeout_ms) noexcept

    # --- transactions ---
    rd_kafka_error_t *rd_kafka_init_transactions(rd_kafka_t *rk, int timeout_ms) noexcept
    rd_kafka_error_t *rd_kafka_begin_transaction(rd_kafka_t *rk) noexcept
    rd_kafka_error_t *rd_kafka_send_offsets_to_transaction(
        rd_kafka_t *rk, const rd_kafka_topic_partition_list_t *offsets,
        const rd_kafka_consumer_group_metadata_t *cgmetadata, int timeout_ms) noexcept
    rd_kafka_error_t *rd_kafka_commit_transaction(rd_kafka_t *rk, int timeout_ms) noexcept
    rd_kafka_error_t *rd_kafka_abort_transaction(rd_kafka_t *rk, int timeout_ms) noexcept
    rd_kafka_consumer_group_metadata_t *rd_kafka_consumer_group_metadata_new_with_genid(
        const char *group_id, int32_t generation_id, const char *member_id,
        const char *group_instance_id) noexcept
    rd_kafka_consumer_group_metadata_t *rd_kafka_consumer_group_metadata_new(
        const char *group_id) noexcept
    void rd_kafka_consumer_group_metadata_destroy(
        rd_kafka_consumer_group_metadata_t *cgmetadata) noexcept
    rd_kafka_error_t *rd_kafka_consumer_group_metadata_read(
        rd_kafka_consumer_group_metadata_t **cgmdp, const void *buffer, size_t size) noexcept

    # --- admin: results, options ---
    ctypedef rd_kafka_event_t rd_kafka_CreateTopics_result_t
    ctypedef rd_kafka_event_t rd_kafka_ListOffsets_result_t
    const rd_kafka_CreateTopics_result_t *rd_kafka_event_CreateTopics_result(
        rd_kafka_event_t *rkev) noexcept
    const rd_kafka_ListOffsets_result_t *rd_kafka_event_ListOffsets_result(
        rd_kafka_event_t *rkev) noexcept
    ctypedef enum rd_kafka_admin_op_t:
        RD_KAFKA_ADMIN_OP_CREATETOPICS
        RD_KAFKA_ADMIN_OP_LISTOFFSETS
    ctypedef struct rd_kafka_AdminOptions_t
    rd_kafka_AdminOptions_t *rd_kafka_AdminOptions_new(rd_kafka_t *rk,
                                                       rd_kafka_admin_op_t for_api) noexcept
    void rd_kafka_AdminOptions_destroy(rd_kafka_AdminOptions_t *options) noexcept
    rd_kafka_resp_err_t rd_kafka_AdminOptions_set_request_timeout(
        rd_kafka_AdminOptions_t *options, int timeout_ms, char *errstr, size_t errstr_size) noexcept
    rd_kafka_resp_err_t rd_kafka_AdminOptions_set_operation_timeout(
        rd_kafka_AdminOptions_t *options, int timeout_ms, char *errstr, size_t errstr_size) noexcept

    ctypedef enum rd_kafka_IsolationLevel_t:
        RD_KAFKA_ISOLATION_LEVEL_READ_UNCOMMITTED
        RD_KAFKA_ISOLATION_LEVEL_READ_COMMITTED
    rd_kafka_error_t *rd_kafka_AdminOptions_set_isolation_level(
        rd_kafka_AdminOptions_t *options, rd_kafka_IsolationLevel_t value) noexcept

    # --- admin: topics ---
    ctypedef struct rd_kafka_topic_result_t
    rd_kafka_resp_err_t rd_kafka_topic_result_error(
        const rd_kafka_topic_result_t *topicres) noexcept
    const char *rd_kafka_topic_result_error_string(const rd_kafka_topic_result_t *topicres) noexcept
    ctypedef struct rd_kafka_NewTopic_t
    rd_kafka_NewTopic_t *rd_kafka_NewTopic_new(
        const char *topic, int num_partitions, int replication_factor, char *errstr,
        size_t errstr_size) noexcept
    void rd_kafka_NewTopic_destroy(rd_kafka_NewTopic_t *new_topic) noexcept
    void rd_kafka_CreateTopics(
        rd_kafka_t *rk, rd_kafka_NewTopic_t **new_topics, size_t new_topic_cnt,
        const rd_kafka_AdminOptions_t *options, rd_kafka_queue_t *rkqu) noexcept
    const rd_kafka_topic_result_t **rd_kafka_CreateTopics_result_topics(
        const rd_kafka_CreateTopics_result_t *result, size_t *cntp) noexcept

    # --- admin: offsets ---
    ctypedef enum rd_kafka_OffsetSpec_t:
        RD_KAFKA_OFFSET_SPEC_EARLIEST
        RD_KAFKA_OFFSET_SPEC_LATEST
    ctypedef struct rd_kafka_ListOffsetsResultInfo_t
    const rd_kafka_topic_partition_t *rd_kafka_ListOffsetsResultInfo_topic_partition(
        const rd_kafka_ListOffsetsResultInfo_t *result_info) noexcept
    const rd_kafka_ListOffsetsResultInfo_t **rd_kafka_ListOffsets_result_infos(
        const rd_kafka_ListOffsets_result_t *result, size_t *cntp) noexcept
    void rd_kafka_ListOffsets(
        rd_kafka_t *rk, rd_kafka_topic_partition_list_t *topic_partitions,
        const rd_kafka_AdminOptions_t *options, rd_kafka_queue_t *rkqu) noexcept
