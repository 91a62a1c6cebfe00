# Topics: their handles, and how many partitions they have.

import re as _re

cdef int64_t live_topics = 0

cdef object _TOPIC_NAME = _re.compile(r"[a-zA-Z0-9._-]{1,249}")


cdef str checked_topic_name(object topic):
    """`topic` as a plain str, if Kafka allows it as a name."""
    if not _TOPIC_NAME.fullmatch(topic) or topic in (".", ".."):
        raise InvalidRecordError(KafkaError(
            RD_KAFKA_RESP_ERR_TOPIC_EXCEPTION,
            f"topic {_shorten(topic)}: a topic's name is 1 to 249 of the characters "
            "a-z A-Z 0-9 . _ -, and neither . nor .."))
    return exact_str(topic)


@cython.final
cdef class Topic:
    """A topic's handle, and its name: one str, which the metadata of all its records share."""

    def __cinit__(self):
        self.rkt = NULL


@cython.final
cdef class Topics:
    """The topics of a producer. Looking one up in librdkafka costs more than the rest of a send."""

    def __cinit__(self):
        self.by_name = {}

    cdef Topic make(self, Client client, str name):
        """The handle of topic `name`, which is not in `by_name` yet."""
        cdef Topic topic = Topic()
        topic.name = checked_topic_name(name)
        cdef bytes c_name = topic.name.encode()
        cdef const char *c_text = c_name
        cdef rd_kafka_topic_conf_t *conf
        cdef rd_kafka_resp_err_t err = RD_KAFKA_RESP_ERR_NO_ERROR
        client.enter()
        conf = rd_kafka_default_topic_conf_dup(client.rk)
        rd_kafka_topic_conf_set_opaque(conf, <void *>topic.name)
        topic.rkt = rd_kafka_topic_new(client.rk, c_text, conf)
        if topic.rkt == NULL:
            rd_kafka_topic_conf_destroy(conf)
            err = rd_kafka_last_error()
        else:
            # Two threads may have come here for the same name: librdkafka counts references, and
            # the first one's name stays in use.
            KX_ADD(live_topics, 1)
            with cython.critical_section(self):
                topic.next = self.all
                self.all = topic
        client.leave()
        check(err, "rd_kafka_topic_new")
        return self.by_name.setdefault(topic.name, topic)

    cdef int destroy_handles(self) noexcept:
        cdef Topic topic = self.all
        while topic is not None:
            rd_kafka_topic_destroy(topic.rkt)
            topic.rkt = NULL
            KX_ADD(live_topics, -1)
            topic = topic.next
        return 0

    cdef int forget(self) except -1:
        """The names are the C topics' opaques: they go when librdkafka cannot look at them."""
        cdef Topic topic
        self.by_name.clear()
        while self.all is not None:         # one by one: a chain that goes at once recurses
            topic = self.all
            self.all = topic.next
            topic.next = None
        self.last_used = None
        return 0


# ------------------------------------------------------------------ partitions

cdef int partition_count_of(ProducerClient client, Topic topic, bint may_wait=True,
                            int64_t deadline=-1) except -1:
    """How many partitions `topic` has, asked again as often as librdkafka itself does
    (topic.metadata.refresh.interval.ms).

    Waits at most ten seconds, and not beyond `deadline`. Without `may_wait` the question is asked
    in the background, and until there is an answer this raises a retriable KafkaException.
    """
    cdef int64_t now = kx_now_us()
    cdef int milliseconds
    if topic.partition_count and now < topic.counted_at:
        return topic.partition_count
    if not may_wait:
        if not topic.asking:
            topic.asking = True
            try:
                start_thread("kafka_ext call", _ask_partition_count, (client, topic))
            except BaseException:
                topic.asking = False
                raise
        if topic.partition_count:
            # a little old; librdkafka's own partitioners go by no newer one
            return topic.partition_count
        raise KafkaException(KafkaError(
            RD_KAFKA_RESP_ERR__WAIT_CACHE,
            f"topic {topic.name}: its partitions are not known yet, so the partitioner cannot be "
            "asked; try again", is_retriable=True))
    now += 10 * 1000000
    if deadline < 0 or now < deadline:
        deadline = now
    while True:
        _, _, _, _, topics = fetch_metadata(client, topic.name,
                                            max(deadline - kx_now_us(), 0) / 1e6)
        for name, partitions, err in topics:
            if name == topic.name and err == RD_KAFKA_RESP_ERR_NO_ERROR and partitions:
                interval = int(client.get_property("topic.metadata.refresh.interval.ms"))
                topic.counted_at = kx_now_us() + max(interval, 1000) * 1000
                topic.partition_count = len(partitions)
                return topic.partition_count
        if _expired(deadline):
            raise KafkaException(KafkaError(
                topics[0][2] if topics and topics[0][2] else RD_KAFKA_RESP_ERR__UNKNOWN_TOPIC,
                f"topic {topic.name}: its partitions are not known, so the partitioner cannot be "
                "asked"))
        milliseconds = _slice_ms(SLICE_MS)
        with nogil:
            # being created, perhaps
            kx_gate_wait(&client.life.gate, kx_gate_seen(&client.life.gate), milliseconds)
        client.let_signals()


def _ask_partition_count(ProducerClient client, Topic topic):
    """Find out in the background; what goes wrong is seen by the send that cannot do without."""
    try:
        partition_count_of(client, topic)
    except KafkaException:
        pass
    finally:
        topic.asking = False
