# What kafka_ext.testing asks a cluster: which partitions a topic has, where they begin and end, and
# a new topic. Offsets and new topics are admin requests, whose answers come through a queue, so
# that the wait can be sliced. Partitions are not: the admin request for them goes to the
# controller, and the mock cluster has none. rd_kafka_metadata() waits in a thread of its own.

import warnings as _warnings

cdef int64_t live_readers = 0

# librdkafka gives up on an admin request after this; ours are asked again until the caller's own
# time is over.
cdef enum:
    ADMIN_REQUEST_MS = 30000


cdef bytes _topic_name(object topic):
    """`topic` as librdkafka wants it. The mock cluster takes any name, so Kafka's rule is checked
    here."""
    if not isinstance(topic, str):
        raise TypeError(f"topic must be a str, not {type(topic).__name__}")
    return checked_topic_name(topic).encode()


def check_topic_name(topic):
    """`topic` as a plain str, if it is a name that Kafka allows.

    Raises:
        TypeError: it is no str.
        InvalidRecordError: it breaks Kafka's rule (also a ValueError).
    """
    return _topic_name(topic).decode()


cdef class ClusterClient:
    """A client that asks a cluster about topics; TopicReader adds reading them.

    Args:
        bootstrap_servers (str): where the cluster is.
        config (Mapping[str, str] | None): more of librdkafka's properties, for a cluster that wants
            TLS or SASL.

    Raises:
        InvalidConfigError: librdkafka refuses a property.

    It is thread-safe; calls wait for each other. `close` it, or use it as a context manager.
    """

    def __cinit__(self, *args, **kwargs):
        self.rk = NULL
        self.asking = 0
        self.generation = kx_fork_generation
        self.closing = False

    def __init__(self, bootstrap_servers, config=None):
        cdef char[512] errstr
        cdef rd_kafka_conf_t *conf
        cdef rd_kafka_t *rk
        if self.rk != NULL:
            raise RuntimeError(f"a {type(self).__name__} is initialised once")
        if not isinstance(bootstrap_servers, str):
            raise TypeError(
                f"bootstrap_servers must be a str, not {type(bootstrap_servers).__name__}")
        if config is not None and not isinstance(config, _Mapping):
            raise TypeError(f"config must be a mapping or None, not {type(config).__name__}")
        self.lock = Monitor()
        self.leaving = Monitor()
        settings = {
            "bootstrap.servers": bootstrap_servers,
            "client.id": "kafka_ext.testing",
            "log_level": "0",                       # what goes wrong is raised
            "allow.auto.create.topics": "false",    # looking must not make what is looked for
            "enable.metrics.push": "false",
            "enable.partition.eof": "true",
            "auto.offset.reset": "error",           # never skip what retention has taken away
            "check.crcs": "true",
            # A mock broker answers a fetch that finds nothing only when this is over, whatever
            # arrives meanwhile.
            "fetch.wait.max.ms": "10",
            "fetch.error.backoff.ms": "10",
            "fetch.queue.backoff.ms": "10",
            "max.partition.fetch.bytes": "8388608",
            "fetch.max.bytes": "134217728",
            "receive.message.max.bytes": "2147483647",
            "queued.max.messages.kbytes": "131072",
            "reconnect.backoff.ms": "20",
            "reconnect.backoff.max.ms": "200",
            "topic.metadata.refresh.fast.interval.ms": "20",
            "retry.backoff.ms": "20",
        }
        for name, value in (config or {}).items():
            if not isinstance(name, str) or not isinstance(value, str):
                raise TypeError(
                    f"config must be str to str, but {name!r} is of {type(value).__name__}")
            settings[exact_str(name)] = exact_str(value)
        # by default librdkafka reads what is committed
        self.uncommitted = settings.get("isolation.level") == "read_uncommitted"
        conf = make_conf(settings, ())
        with nogil:
            rk = rd_kafka_new(RD_KAFKA_CONSUMER, conf, errstr, sizeof(errstr))
        if rk == NULL:
            rd_kafka_conf_destroy(conf)     # a refused conf stays the caller's
            raise refused_conf(errstr, settings)
        self.rk = rk
        KX_ADD(live_readers, 1)

    def __dealloc__(self):
        # Only C is freed here, and only by the process that owns it; __del__ has warned. No
        # librdkafka thread wants the GIL.
        if self.rk != NULL and self.generation == kx_fork_generation:
            self.free()

    def __del__(self):
        if self.rk != NULL and not self.closing and self.generation == kx_fork_generation:
            _warnings.warn(f"unclosed {self!r}", ResourceWarning, source=self)

    cdef void free(self) noexcept:
        """The one place where the C side ends."""
        cdef rd_kafka_t *rk = self.rk
        self.rk = NULL
        self.free_more()
        rd_kafka_destroy_flags(rk, RD_KAFKA_DESTROY_F_NO_CONSUMER_CLOSE)
        KX_ADD(live_readers, -1)

    cdef void free_more(self) noexcept:
        pass

    def close(self):
        """End it; a call in another thread raises. Idempotent. In a forked child it only
        forgets."""
        self.closing = True
        if self.generation != kx_fork_generation:
            return
        with self.lock, self.leaving:
            if self.rk != NULL and self.asking == 0:
                self.free()

    def __enter__(self):
        return self

    def __exit__(self, *exc_info):
        self.close()

    def __repr__(self):
        return f"<{type(self).__name__}{' closed' if self.closing else ''}>"

    cdef int check_open(self) except -1:
        if self.generation != kx_fork_generation:
            raise KafkaException(KafkaError(
                RD_KAFKA_RESP_ERR__STATE,
                f"this {type(self).__name__} was made before fork() and belongs to the parent; "
                "make one in this process"))
        if self.closing or self.rk == NULL:
            raise KafkaException(KafkaError(RD_KAFKA_RESP_ERR__STATE,
                                            f"the {type(self).__name__} is closed"))
        return 0

    # ------------------------------------------------------------------ asking

    cdef rd_kafka_AdminOptions_t *options(self, rd_kafka_admin_op_t api,
                                          int64_t deadline) except NULL:
        """Options (owned by the caller) for one admin request that ends by itself."""
        cdef char[512] errstr
        cdef rd_kafka_AdminOptions_t *options = rd_kafka_AdminOptions_new(self.rk, api)
        cdef int milliseconds = max(_remaining_ms(deadline, ADMIN_REQUEST_MS), 1)
        if options == NULL:
            raise MemoryError()
        rd_kafka_AdminOptions_set_request_timeout(options, milliseconds, errstr, sizeof(errstr))
        if api == RD_KAFKA_ADMIN_OP_CREATETOPICS:
            # A topic that the controller knows of and the other brokers do not is no topic yet.
            rd_kafka_AdminOptions_set_operation_timeout(options, milliseconds, errstr,
                                                        sizeof(errstr))
        if api == RD_KAFKA_ADMIN_OP_LISTOFFSETS and not self.uncommitted:
            # The end for those who read what is committed: waiting for more would be waiting for a
            # transaction to end.
            rd_kafka_AdminOptions_set_isolation_level(options,
                                                      RD_KAFKA_ISOLATION_LEVEL_READ_COMMITTED)
        return options

    cdef rd_kafka_event_t *answer(self, rd_kafka_queue_t *queue, int64_t deadline,
                                  str what) except NULL:
        """The one event of `queue` (the event is the caller's), waited for in slices so that
        signals get through."""
        cdef rd_kafka_event_t *event = NULL
        cdef int milliseconds
        while True:
            milliseconds = _remaining_ms(deadline, _slice_ms(SLICE_MS))
            with nogil:
                event = rd_kafka_queue_poll(queue, milliseconds)
            if event != NULL:
                return event
            _pause()
            self.check_open()
            if _expired(deadline):
                raise KafkaTimeoutError(KafkaError(RD_KAFKA_RESP_ERR__TIMED_OUT,
                                                   f"no answer in time to {what}"))

    cdef object metadata(self, object topic, int64_t deadline, str what):
        """`(broker ids, {topic: (error, partition count)})` of one topic (bytes) or of all (None)
        (rd_kafka_metadata)."""
        while True:
            outcome = []
            milliseconds = max(_remaining_ms(deadline, ADMIN_REQUEST_MS), 1)
            with self.leaving:
                self.asking += 1
            try:
                thread = start_thread("kafka_ext metadata", self._ask_metadata,
                                      (topic, milliseconds, outcome))
            except BaseException:
                with self.leaving:
                    self.asking -= 1
                raise
            while thread.is_alive():
                # interruptible: a signal handler that raises leaves the thread to end by itself
                thread.join(0.1)
                self.check_open()
            if isinstance(outcome[0], BaseException):
                raise outcome[0]
            err, brokers, topics = outcome[0]
            if err == RD_KAFKA_RESP_ERR_NO_ERROR:
                return brokers, topics
            if err not in (RD_KAFKA_RESP_ERR__TIMED_OUT, RD_KAFKA_RESP_ERR__TRANSPORT):
                raise _exception(KafkaError(err, f"{what}: {rd_kafka_err2str(err).decode()}"))
            self.pause(deadline, what)

    def _ask_metadata(self, topic, int timeout_ms, list outcome):
        """In a thread of its own: rd_kafka_metadata() cannot be interrupted. The last one out of a
        closed client frees it."""
        cdef const rd_kafka_metadata_t *metadata = NULL     # owned
        cdef rd_kafka_topic_t *rkt = NULL                   # owned
        cdef const char *c_topic = NULL
        cdef bint every = topic is None
        cdef rd_kafka_resp_err_t err = RD_KAFKA_RESP_ERR_NO_ERROR
        try:
            if not every:
                c_topic = topic
            with nogil:
                if not every:
                    rkt = rd_kafka_topic_new(self.rk, c_topic, NULL)
                    if rkt == NULL:
                        err = rd_kafka_last_error()
                if err == RD_KAFKA_RESP_ERR_NO_ERROR:
                    err = rd_kafka_metadata(self.rk, every, rkt, &metadata, timeout_ms)
                if rkt != NULL:
                    rd_kafka_topic_destroy(rkt)
            brokers = []
            topics = {}
            if err == RD_KAFKA_RESP_ERR_NO_ERROR:
                brokers = [metadata.brokers[i].id for i in range(metadata.broker_cnt)]
                topics = {
                    metadata.topics[i].topic.decode(): (metadata.topics[i].err,
                                                        metadata.topics[i].partition_cnt)
                    for i in range(metadata.topic_cnt)}
            outcome.append((err, brokers, topics))
        except BaseException as exc:
            outcome.append(exc)
        finally:
            if metadata != NULL:
                rd_kafka_metadata_destroy(metadata)
            with self.leaving:
                self.asking -= 1
                if self.closing and self.asking == 0 and self.rk != NULL:
                    self.free()

    cdef int partitions_of(self, bytes topic, int64_t deadline) except -1:
        """How many partitions `topic` has. Raises UNKNOWN_TOPIC_OR_PART when there is no such
        topic."""
        cdef str name = topic.decode()
        cdef str what = f"what partitions {name!r} has"
        while True:
            _, topics = self.metadata(topic, deadline, what)
            err, count = topics.get(name, (RD_KAFKA_RESP_ERR_UNKNOWN_TOPIC_OR_PART, 0))
            if err == RD_KAFKA_RESP_ERR_NO_ERROR and count > 0:
                return count
            if err not in (RD_KAFKA_RESP_ERR_NO_ERROR, RD_KAFKA_RESP_ERR_LEADER_NOT_AVAILABLE):
                raise _exception(
                    KafkaError(err, f"topic {name!r}: {rd_kafka_err2str(err).decode()}"))
            self.pause(deadline, what)      # just being made

    cdef bint asks_again(self, rd_kafka_resp_err_t err, int64_t deadline) noexcept:
        """Whether an admin request that failed is worth another try."""
        return not _expired(deadline) and err in (RD_KAFKA_RESP_ERR__TIMED_OUT,
                                                  RD_KAFKA_RESP_ERR__TRANSPORT)

    cdef int pause(self, int64_t deadline, str what) except -1:
        cdef timespec pause
        pause.tv_sec = 0
        pause.tv_nsec = 20000000
        with nogil:
            nanosleep(&pause, NULL)
        PyErr_CheckSignals()
        self.check_open()
        if _expired(deadline):
            raise KafkaTimeoutError(KafkaError(RD_KAFKA_RESP_ERR__TIMED_OUT,
                                               f"no answer in time to {what}"))
        return 0

    cdef dict offsets_of(self, list partitions, int64_t which, int64_t deadline):
        """`{(topic, partition): offset}` of the first offset (EARLIEST) or the next one (LATEST) of
        each (rd_kafka_ListOffsets)."""
        cdef rd_kafka_queue_t *queue = NULL                 # owned, all four
        cdef rd_kafka_AdminOptions_t *options = NULL
        cdef rd_kafka_topic_partition_list_t *asked = NULL
        cdef rd_kafka_event_t *event = NULL
        cdef const rd_kafka_ListOffsetsResultInfo_t **infos
        cdef const rd_kafka_topic_partition_t *info
        cdef rd_kafka_resp_err_t err
        cdef size_t count = 0
        cdef dict offsets = {}
        cdef str what = "where the partitions begin and end"
        cdef bytes c_topic
        while len(offsets) < len(partitions):
            try:
                queue = rd_kafka_queue_new(self.rk)
                options = self.options(RD_KAFKA_ADMIN_OP_LISTOFFSETS, deadline)
                asked = rd_kafka_topic_partition_list_new(<int>len(partitions))
                for topic, partition in partitions:
                    if (topic, partition) not in offsets:
                        c_topic = topic.encode()
                        rd_kafka_topic_partition_list_add(asked, c_topic, partition).offset = which
                rd_kafka_ListOffsets(self.rk, asked, options, queue)
                event = self.answer(queue, deadline, what)
                err = rd_kafka_event_error(event)
                if err != RD_KAFKA_RESP_ERR_NO_ERROR:
                    if not self.asks_again(err, deadline):
                        raise _exception(
                            KafkaError(
                                err,
                                f"{what}: "
                                f"{rd_kafka_event_error_string(event).decode('utf-8', 'replace')}"))
                else:
                    infos = rd_kafka_ListOffsets_result_infos(
                        rd_kafka_event_ListOffsets_result(event), &count)
                    for i in range(count):
                        info = rd_kafka_ListOffsetsResultInfo_topic_partition(infos[i])
                        if info.err == RD_KAFKA_RESP_ERR_NO_ERROR:
                            offsets[(info.topic.decode(), info.partition)] = info.offset
                        elif info.err in (RD_KAFKA_RESP_ERR_UNKNOWN_TOPIC_OR_PART,
                                          RD_KAFKA_RESP_ERR__UNKNOWN_PARTITION):
                            raise KafkaException(
                                KafkaError(info.err,
                                           f"partition {info.topic.decode()}-{info.partition} is "
                                           "unknown"))
                        # Any other error is a leader that moves or is away: asked again, until the
                        # time is over.
                    if len(offsets) == len(partitions):
                        return offsets
            finally:
                if event != NULL:
                    rd_kafka_event_destroy(event)
                    event = NULL
                if asked != NULL:
                    rd_kafka_topic_partition_list_destroy(asked)
                    asked = NULL
                if options != NULL:
                    rd_kafka_AdminOptions_destroy(options)
                    options = NULL
                if queue != NULL:
                    rd_kafka_queue_destroy(queue)
                    queue = NULL
            self.pause(deadline, what)
        return offsets

    def partition_count(self, topic, timeout=10.0):
        """How many partitions `topic` has.

        Raises:
            KafkaException: there is no such topic (UNKNOWN_TOPIC_OR_PART), or it has an error.
            KafkaTimeoutError: no answer within `timeout` seconds.
        """
        cdef bytes name = _topic_name(topic)
        cdef int64_t deadline = _deadline(timeout)
        # before the lock, which somebody may have held in the parent of a forked child
        self.check_open()
        with self.lock:
            self.check_open()
            return self.partitions_of(name, deadline)

    def topics(self, timeout=10.0):
        """Which topics there are, as a dict of their numbers of partitions; those with an error are
        left out.

        Raises:
            KafkaTimeoutError: no answer within `timeout` seconds.
        """
        cdef int64_t deadline = _deadline(timeout)
        # before the lock, which somebody may have held in the parent of a forked child
        self.check_open()
        with self.lock:
            self.check_open()
            _, topics = self.metadata(None, deadline, "what topics there are")
        return {
            name: count for name, (
                err, count) in topics.items() if err == RD_KAFKA_RESP_ERR_NO_ERROR and count}

    def broker_ids(self, timeout=10.0):
        """The ids of the brokers that are up, as a list.

        Raises:
            KafkaTimeoutError: no answer within `timeout` seconds.
        """
        cdef int64_t deadline = _deadline(timeout)
        # before the lock, which somebody may have held in the parent of a forked child
        self.check_open()
        with self.lock:
            self.check_open()
            brokers, _ = self.metadata(None, deadline, "what brokers there are")
        return sorted(brokers)

    def end_offsets(self, partitions, timeout=10.0):
        """The offset that the next record of each `(topic, partition)` will get, as a dict.

        Raises:
            KafkaException: a partition is unknown.
            KafkaTimeoutError: no answer within `timeout` seconds.
        """
        cdef int64_t deadline = _deadline(timeout)
        cdef list wanted = [(topic, int(partition)) for topic, partition in partitions]
        for topic, _ in wanted:
            _topic_name(topic)
        # before the lock, which somebody may have held in the parent of a forked child
        self.check_open()
        with self.lock:
            self.check_open()
            return self.offsets_of(wanted, RD_KAFKA_OFFSET_SPEC_LATEST, deadline)

    def create_topic(self, topic, int partitions=1, int replication_factor=1, timeout=30.0):
        """Make a topic, and wait until it is there (rd_kafka_CreateTopics). A mock cluster cannot
        do this.

        Raises:
            KafkaException: the cluster refuses: TOPIC_ALREADY_EXISTS, INVALID_REPLICATION_FACTOR, …
            KafkaTimeoutError: no answer within `timeout` seconds.
        """
        cdef rd_kafka_queue_t *queue = NULL                 # owned, all four
        cdef rd_kafka_AdminOptions_t *options = NULL
        cdef rd_kafka_NewTopic_t *wanted = NULL
        cdef rd_kafka_event_t *event = NULL
        cdef const rd_kafka_topic_result_t **results
        cdef const char *text
        cdef rd_kafka_resp_err_t err
        cdef size_t count = 0
        cdef char[512] errstr
        cdef bytes name = _topic_name(topic)
        cdef int64_t deadline = _deadline(timeout)
        # before the lock, which somebody may have held in the parent of a forked child
        self.check_open()
        with self.lock:
            self.check_open()
            try:
                wanted = rd_kafka_NewTopic_new(name, partitions, replication_factor, errstr,
                                               sizeof(errstr))
                if wanted == NULL:
                    raise ValueError((<bytes>errstr).decode("utf-8", "replace"))
                queue = rd_kafka_queue_new(self.rk)
                options = self.options(RD_KAFKA_ADMIN_OP_CREATETOPICS, deadline)
                rd_kafka_CreateTopics(self.rk, &wanted, 1, options, queue)
                event = self.answer(queue, deadline, f"making topic {topic!r}")
                err = rd_kafka_event_error(event)
                text = rd_kafka_event_error_string(event)
                if err == RD_KAFKA_RESP_ERR_NO_ERROR:
                    results = rd_kafka_CreateTopics_result_topics(
                        rd_kafka_event_CreateTopics_result(event), &count)
                    if count:
                        err = rd_kafka_topic_result_error(results[0])
                        text = rd_kafka_topic_result_error_string(results[0])
                if err != RD_KAFKA_RESP_ERR_NO_ERROR:
                    reason = text.decode(
                        "utf-8", "replace") if text != NULL else rd_kafka_err2str(err).decode()
                    raise _exception(KafkaError(err, f"making topic {topic!r}: {reason}"))
            finally:
                if event != NULL:
                    rd_kafka_event_destroy(event)
                if options != NULL:
                    rd_kafka_AdminOptions_destroy(options)
                if wanted != NULL:
                    rd_kafka_NewTopic_destroy(wanted)
                if queue != NULL:
                    rd_kafka_queue_destroy(queue)
