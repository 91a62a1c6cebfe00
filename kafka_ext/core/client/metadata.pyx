# What the cluster says of itself.


cdef tuple _fetch(Client client, object topic, int timeout_ms):
    """`(cluster id, controller, answering broker, brokers, topics)` as plain tuples."""
    cdef const rd_kafka_metadata_t *metadata = NULL     # owned
    cdef const rd_kafka_metadata_topic *of_topic
    cdef const rd_kafka_metadata_partition *of_partition
    cdef char *cluster_id = NULL                        # owned
    cdef int32_t controller
    cdef rd_kafka_resp_err_t err
    cdef rd_kafka_topic_t *rkt = NULL                   # borrowed
    cdef bint every = topic is None
    if not every:
        rkt = client.topic_handle(topic)
    with nogil:
        err = rd_kafka_metadata(client.rk, every, rkt, &metadata, timeout_ms)
    check(err, "rd_kafka_metadata")
    try:
        with nogil:
            cluster_id = rd_kafka_clusterid(client.rk, 0)
            controller = rd_kafka_controllerid(client.rk, 0)
        brokers = [(metadata.brokers[i].id, metadata.brokers[i].host.decode(),
                    metadata.brokers[i].port)
                   for i in range(metadata.broker_cnt)]
        topics = []
        for i in range(metadata.topic_cnt):
            of_topic = &metadata.topics[i]
            partitions = []
            for j in range(of_topic.partition_cnt):
                of_partition = &of_topic.partitions[j]
                partitions.append((
                    of_partition.id, of_partition.leader,
                    tuple([of_partition.replicas[k] for k in range(of_partition.replica_cnt)]),
                    tuple([of_partition.isrs[k] for k in range(of_partition.isr_cnt)]),
                    of_partition.err))
            topics.append((of_topic.topic.decode(), partitions, of_topic.err))
        return (cluster_id.decode() if cluster_id != NULL else None,
                None if controller < 0 else controller,
                metadata.orig_broker_id, brokers, topics)
    finally:
        if cluster_id != NULL:
            rd_kafka_mem_free(client.rk, cluster_id)
        rd_kafka_metadata_destroy(metadata)


# librdkafka's call cannot be interrupted, and keeps a closed client's rd_kafka_t. So it is made
# again and again: the first time for so long, then for twice that, so that a slow broker has the
# time to answer. Once nobody waits any more it ends within the last of these. An answer that comes
# after its call has ended is lost (rd_kafka_metadata destroys its queue), and waited for anew.
cdef enum:
    FIRST_ASKING_MS = 4000
    LONGEST_ASKING_MS = 16000
    # How long to wait before a call that was refused for the moment is made again: librdkafka's
    # retry.backoff.ms.
    RETRY_PAUSE_MS = 100


def _ask(ThreadCall asked, Client client, topic, int64_t deadline):
    cdef int at_most = FIRST_ASKING_MS
    while True:
        try:
            return _fetch(client, topic, _remaining_ms(deadline, at_most))
        except KafkaException as exc:
            # No answer; no broker that could be asked; or its connection was lost.
            if exc.error.code not in (
                    RD_KAFKA_RESP_ERR__TIMED_OUT, RD_KAFKA_RESP_ERR__TRANSPORT) \
                    or _expired(deadline):
                raise
            waits = exc.error.code == RD_KAFKA_RESP_ERR__TRANSPORT
        if asked.given_up or client.closing:
            client.refuse()
        if waits:
            with nogil:
                _sleep_ms(_remaining_ms(deadline, RETRY_PAUSE_MS))
        at_most = min(at_most * 2, LONGEST_ASKING_MS)


def fetch_metadata(Client client, topic, timeout):
    """What the cluster knows of `topic` (None: of all topics), waiting up to `timeout` seconds."""
    cdef ThreadCall asked = start_fetch_metadata(client, None, topic, timeout)
    return asked.wait(client)


def start_fetch_metadata(Client client, tell, topic, timeout):
    """Begin what fetch_metadata waits for, with `tell` as `call_in_thread`'s.

    Returns:
        The ThreadCall. Set its `given_up` when nobody waits any more.
    """
    cdef int64_t deadline = _deadline(timeout)
    cdef ThreadCall asked = ThreadCall(tell)
    client.check_usable()
    if topic is not None:
        client.topic_handle(topic)      # raises here, where the name is none
    call_in_thread(client, asked, _ask, asked, client, topic, deadline)
    return asked
