# What the cluster says of itself.


def _fetch(Handle handle, Topic topic, int timeout_ms):
    """`(cluster id, controller, answering broker, brokers, topics)` as plain tuples."""
    cdef const rd_kafka_metadata_t *metadata = NULL     # owned
    cdef const rd_kafka_metadata_topic *of_topic
    cdef const rd_kafka_metadata_partition *of_partition
    cdef char *cluster_id = NULL                        # owned
    cdef int32_t controller
    cdef rd_kafka_resp_err_t err
    cdef rd_kafka_topic_t *rkt = topic.rkt if topic is not None else NULL
    cdef bint every = topic is None
    with nogil:
        err = rd_kafka_metadata(handle.rk, every, rkt, &metadata, timeout_ms)
    check(err, "rd_kafka_metadata")
    try:
        with nogil:
            cluster_id = rd_kafka_clusterid(handle.rk, 0)
            controller = rd_kafka_controllerid(handle.rk, 0)
        brokers = [(metadata.brokers[i].id, metadata.brokers[i].host.decode(), metadata.brokers[i].port)
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
        return (cluster_id.decode() if cluster_id != NULL else None, None if controller < 0 else controller,
                metadata.orig_broker_id, brokers, topics)
    finally:
        if cluster_id != NULL:
            rd_kafka_mem_free(handle.rk, cluster_id)
        rd_kafka_metadata_destroy(metadata)


# librdkafka's call cannot be interrupted, and keeps a closed producer's handle, so it is made again and again: the first time for so long,
# then twice that, so that however long a broker takes it has the time to answer. Once nobody waits any more, because of a close say, it
# ends within the last of these. What a call that ended is answered later is lost (rd_kafka_metadata destroys its queue), so that an answer
# that takes longer than the first is waited for anew.
cdef enum:
    FIRST_ASKING_MS = 4000
    LONGEST_ASKING_MS = 16000


def _ask(_Told told, Handle handle, Topic topic, int64_t deadline):
    cdef int at_most = FIRST_ASKING_MS
    while True:
        try:
            return _fetch(handle, topic, _remaining_ms(deadline, at_most))
        except KafkaException as exc:
            # No answer; no broker that could be asked; or its connection was lost.
            if exc.error.code not in (RD_KAFKA_RESP_ERR__TIMED_OUT, RD_KAFKA_RESP_ERR__TRANSPORT) or _expired(deadline):
                raise
            waits = exc.error.code == RD_KAFKA_RESP_ERR__TRANSPORT
        if told.given_up or handle.closing:
            handle.refuse()
        if waits:
            with nogil:
                _let_be(_remaining_ms(deadline, RETRY_PAUSE_MS))
        at_most = min(at_most * 2, LONGEST_ASKING_MS)


def fetch_metadata(Handle handle, topic, timeout):
    """What the cluster knows of `topic` (None: of all topics), waiting up to `timeout` seconds."""
    cdef _Told told = start_fetch_metadata(handle, None, topic, timeout)
    return told.wait(handle)


def start_fetch_metadata(Handle handle, tell, topic, timeout):
    """Begin what fetch_metadata waits for: a _Told, which calls `tell` as start_aside does. Set its `given_up` when nobody waits."""
    cdef int64_t deadline = _deadline(timeout)
    cdef _Told told = _Told(tell)
    handle.check_usable()
    start_aside(handle, told, _ask, told, handle, None if topic is None else handle.topic(topic), deadline)
    return told


cdef int partition_count_of(Handle handle, Topic topic, bint may_wait=True, int64_t deadline=-1) except -1:
    """How many partitions `topic` has, asked again as often as librdkafka itself does (topic.metadata.refresh.interval.ms).

    Waits at most ten seconds, and not beyond `deadline`. Without `may_wait` the question is asked in the background, and until there is an
    answer this raises a retriable KafkaException.
    """
    cdef int64_t now = kx_now_us()
    cdef int milliseconds
    if topic.partition_count and now < topic.counted_at:
        return topic.partition_count
    if not may_wait:
        if not topic.asking:
            topic.asking = True
            try:
                start_thread("kafka_ext call", _ask_partition_count, (handle, topic))
            except BaseException:
                topic.asking = False
                raise
        if topic.partition_count:
            return topic.partition_count        # a little old; librdkafka's own partitioners go by no newer one
        raise KafkaException(KafkaError(
            RD_KAFKA_RESP_ERR__WAIT_CACHE,
            f"topic {topic.name}: its partitions are not known yet, so the partitioner cannot be asked; try again", is_retriable=True))
    now += 10 * 1000000
    if deadline < 0 or now < deadline:
        deadline = now
    while True:
        _, _, _, _, topics = fetch_metadata(handle, topic.name, max(deadline - kx_now_us(), 0) / 1e6)
        for name, partitions, err in topics:
            if name == topic.name and err == RD_KAFKA_RESP_ERR_NO_ERROR and partitions:
                interval = int(handle.get_property("topic.metadata.refresh.interval.ms"))
                topic.counted_at = kx_now_us() + max(interval, 1000) * 1000
                topic.partition_count = len(partitions)
                return topic.partition_count
        if _expired(deadline):
            raise KafkaException(KafkaError(
                topics[0][2] if topics and topics[0][2] else RD_KAFKA_RESP_ERR__UNKNOWN_TOPIC,
                f"topic {topic.name}: its partitions are not known, so the partitioner cannot be asked"))
        milliseconds = _slice_ms(SLICE_MS)
        with nogil:
            kx_gate_wait(&handle.gate, kx_gate_seen(&handle.gate), milliseconds)    # being created, perhaps
        handle.let_signals()


def _ask_partition_count(Handle handle, Topic topic):
    """Find out in the background; what goes wrong is seen by the send that cannot do without."""
    try:
        partition_count_of(handle, topic)
    except KafkaException:
        pass
    finally:
        topic.asking = False
