# Reading topics back: librdkafka's consumer with no group, all partitions into one queue, taken
# from it in large batches by a loop without the GIL. What users see of it is
# EmbeddedBroker.messages() and kafka_ext.testing.TopicReader.

# Messages taken from the queue at once; enough that the two locks an exchange costs do not show.
cdef enum:
    READ_BATCH = 4096


class RetentionLost(KafkaException):
    """Records are gone: the cluster has dropped the oldest of a partition before they were read.

    The mock cluster keeps 5 MiB or 100,000 batches a partition, whichever is less. Read as you
    write, spread over more partitions, or send less.

    Attributes:
        topic (str): where.
        partition (int): and in which part of it.
        offset (int): the first record that is missing.
        first_available (int | None): the first that is still there, where it is known.
    """

    __module__ = "kafka_ext.testing"

    def __init__(self, error, topic=None, partition=None, offset=None, first_available=None):
        super().__init__(error)
        self.topic = topic
        self.partition = partition
        self.offset = offset
        self.first_available = first_available

    def __reduce__(self):
        return type(self), (self.error, self.topic, self.partition, self.offset,
                            self.first_available), kept_of(self)


@cython.final
@cython.freelist(256)
@cython.no_gc
cdef class ConsumedMessage:
    """ConsumedMessage(topic, partition, offset, key=None, value=None, headers=(), \
timestamp=None)\n--\n\n\
    A record as it was read back. Equal to another of the same content; read-only.

    Attributes:
        topic (str): where it is.
        partition (int): and in which part of it.
        offset (int): and in which place of that.
        key (bytes | None): None is not empty.
        value (bytes | None): None is not empty: a record without a value is a tombstone.
        headers (list[tuple[str, bytes | None]]): in their order, repeats kept.
        timestamp (int | None): milliseconds since the epoch.
    """

    cdef readonly str topic
    cdef readonly object key
    cdef readonly object value
    cdef object _headers            # a list, or None for none
    cdef int64_t _timestamp         # -1: not available
    cdef readonly int64_t offset
    cdef readonly int32_t partition

    def __init__(self, str topic not None, int32_t partition, int64_t offset, key=None, value=None,
                 headers=(), timestamp=None):
        for name, content in (("key", key), ("value", value)):
            if content is not None and not isinstance(content, bytes):
                raise TypeError(f"{name} must be bytes or None, not {type(content).__name__}")
        self.topic = topic
        self.partition = partition
        self.offset = offset
        self.key = key
        self.value = value
        self._headers = [(name, content) for name, content in headers] or None
        self._timestamp = -1 if timestamp is None else timestamp

    @property
    def headers(self):
        if self._headers is None:
            self._headers = []
        return self._headers

    @property
    def timestamp(self):
        return None if self._timestamp < 0 else self._timestamp

    def _fields(self):
        return (self.topic, self.partition, self.offset, self.key, self.value, self.headers,
                self.timestamp)

    def __eq__(self, other):
        if isinstance(other, ConsumedMessage):
            return self._fields() == (<ConsumedMessage>other)._fields()
        return NotImplemented

    def __hash__(self):
        return hash((self.topic, self.partition, self.offset))

    def __reduce__(self):
        return ConsumedMessage, self._fields()

    def __repr__(self):
        parts = [f"{self.topic}-{self.partition}@{self.offset}"]
        for name in ("key", "value"):
            parts.append(f"{name}={_shorten(getattr(self, name))}")
        if self._headers:
            parts.append(f"headers={_shorten(self._headers)}")
        if self._timestamp >= 0:
            parts.append(f"timestamp={self._timestamp}")
        return f"<ConsumedMessage {' '.join(parts)}>"


cdef object _bytes_or_none(const void *data, size_t size):
    return None if data == NULL else PyBytes_FromStringAndSize(<const char *>data, <Py_ssize_t>size)


cdef list _read_headers(const rd_kafka_message_t *message):
    """The message's headers, or None for none. librdkafka parses them here, on first use."""
    cdef rd_kafka_headers_t *headers = NULL     # borrowed: the message owns them
    cdef const char *name = NULL
    cdef const void *content = NULL
    cdef size_t size = 0
    cdef size_t i = 0
    if rd_kafka_message_headers(message, &headers) != RD_KAFKA_RESP_ERR_NO_ERROR:
        return None
    cdef list pairs = []
    while rd_kafka_header_get_all(headers, i, &name, &content, &size) == RD_KAFKA_RESP_ERR_NO_ERROR:
        # Kafka says UTF-8; whatever another client wrote comes back as it was.
        pairs.append((name.decode("utf-8", "surrogateescape"), _bytes_or_none(content, size)))
        i += 1
    return pairs


cdef ConsumedMessage _consumed(str topic, const rd_kafka_message_t *message):
    cdef ConsumedMessage consumed = ConsumedMessage.__new__(ConsumedMessage)
    cdef rd_kafka_timestamp_type_t timestamp_type = RD_KAFKA_TIMESTAMP_NOT_AVAILABLE
    consumed.topic = topic
    consumed.partition = message.partition
    consumed.offset = message.offset
    consumed.key = _bytes_or_none(message.key, message.key_len)
    consumed.value = _bytes_or_none(message.payload, message.len)
    consumed._headers = _read_headers(message)
    consumed._timestamp = rd_kafka_message_timestamp(message, &timestamp_type)
    if timestamp_type == RD_KAFKA_TIMESTAMP_NOT_AVAILABLE:
        consumed._timestamp = -1
    return consumed


cdef class TopicReader(ClusterClient):
    """TopicReader(bootstrap_servers, topic, config=None, *, start=None, timeout=10.0)\n--\n\n\
    Reads a topic from its beginning, partitions interleaved as they come, each in the order of its
    offsets.

    Args:
        bootstrap_servers (str): where the cluster is.
        topic (str): what to read. It must exist; partitions it gets later are not read.
        config (Mapping[str, str] | None): more of librdkafka's properties, for a cluster that wants
            TLS or SASL.
        start (Mapping[int, int] | None): the first offset to read of a partition; 0 for those not
            named.
        timeout (float | None): seconds to wait for the cluster to say which partitions there are.

    Raises:
        TypeError: an argument is of the wrong type.
        ValueError: an argument is out of range.
        InvalidConfigError: librdkafka refuses a property.
        KafkaException: there is no such topic (UNKNOWN_TOPIC_OR_PART), or it has an error.
        KafkaTimeoutError: no answer in time.

    It remembers where it is: `read` goes on where the last one ended, so that a topic can be read
    while it is written, before the mock cluster's retention drops what is old. Thread-safe; calls
    wait for each other. `close` it, or use it as a context manager. Source:
    rd_kafka_consume_start_queue(), rd_kafka_consume_batch_queue().
    """

    def __cinit__(self, *args, **kwargs):
        self.rkt = NULL
        self.queue = NULL
        self.batch = NULL
        self.next_offset = NULL
        self.started = NULL
        self.count = 0

    def __init__(self, bootstrap_servers, topic, config=None, *, start=None, timeout=10.0):
        cdef bytes name = _topic_name(topic)
        cdef int64_t deadline = _deadline(timeout)
        cdef int partition, count
        cdef int64_t offset
        if start is not None and not isinstance(start, _Mapping):
            raise TypeError(
                "start must be a mapping of partitions to offsets or None, not "
                f"{type(start).__name__}")
        ClusterClient.__init__(self, bootstrap_servers, config)
        self.topic = exact_str(topic)
        self.kept = []
        self.failed = None
        try:
            count = self.partitions_of(name, deadline)
            offsets = [0] * count
            for partition, offset in (start or {}).items():
                if not 0 <= partition < count:
                    raise ValueError(
                        f"start: {topic!r} has the partitions 0 to {count - 1}, not {partition}")
                if offset < 0:
                    raise ValueError(f"start: an offset is 0 or more, not {offset}")
                offsets[partition] = offset
            self.open(name, offsets)
        except BaseException:
            self.close()
            raise

    cdef int open(self, bytes name, list offsets) except -1:
        cdef int partition
        self.batch = <rd_kafka_message_t **>malloc(READ_BATCH * sizeof(rd_kafka_message_t *))
        self.next_offset = <int64_t *>calloc(len(offsets) or 1, sizeof(int64_t))
        self.started = <bint *>calloc(len(offsets) or 1, sizeof(bint))
        if self.batch == NULL or self.next_offset == NULL or self.started == NULL:
            raise MemoryError()
        self.count = <int>len(offsets)
        self.queue = rd_kafka_queue_new(self.rk)
        self.rkt = rd_kafka_topic_new(self.rk, name, NULL)
        if self.rkt == NULL:
            check(rd_kafka_last_error(), "rd_kafka_topic_new")
        for partition in range(self.count):
            self.next_offset[partition] = offsets[partition]
            if rd_kafka_consume_start_queue(self.rkt, partition, offsets[partition],
                                            self.queue) != 0:
                check(rd_kafka_last_error(), "rd_kafka_consume_start_queue")
            self.started[partition] = True
        return 0

    def __dealloc__(self):
        # Only C is freed here; the base class's own __dealloc__ then finds nothing left to do.
        if self.rk != NULL and self.generation == kx_fork_generation:
            self.free()

    cdef void free_more(self) noexcept:
        cdef int partition
        if self.rkt != NULL:
            for partition in range(self.count):
                if self.started[partition]:
                    rd_kafka_consume_stop(self.rkt, partition)
            rd_kafka_topic_destroy(self.rkt)
            self.rkt = NULL
        if self.queue != NULL:
            rd_kafka_queue_destroy(self.queue)      # and with it the messages nobody took
            self.queue = NULL
        free(self.batch)
        free(self.next_offset)
        free(self.started)
        self.batch = NULL
        self.next_offset = NULL
        self.started = NULL
        self.count = 0

    def __repr__(self):
        return f"<TopicReader of {self.topic!r}{' closed' if self.closing else ''}>"

    @property
    def positions(self):
        """The offset that will be read next of each partition, as a dict. Empty once closed."""
        cdef int partition
        if self.generation != kx_fork_generation:
            return {}
        with self.lock:
            return {partition: self.next_offset[partition] for partition in range(self.count)}

    # ------------------------------------------------------------------ reading

    def read(self, max_messages=None, timeout=10.0):
        """Read on: up to `max_messages`, waiting until there are that many or `timeout` is over.

        Args:
            max_messages (int | None): how many at most; None for as many as come within `timeout`.
            timeout (float | None): seconds; 0 for what has been fetched already, None to wait for
                as long as it takes.

        Returns:
            list[ConsumedMessage]: fewer than `max_messages`, or none, when the time was over.

        Raises:
            RetentionLost: records that were not read yet are gone.
            KafkaException: the cluster has an error instead of messages.

        What it read before it raised comes with the next call, once there is one that does not.
        """
        cdef int64_t deadline = _deadline(timeout)
        cdef Py_ssize_t wanted = PY_SSIZE_T_MAX
        if max_messages is not None:
            wanted = max_messages
            if wanted < 0:
                raise ValueError(f"max_messages must be 0 or more, or None, not {max_messages}")
        elif deadline < 0:
            raise ValueError(
                "read needs max_messages or a timeout: with neither it would never end")
        # before the lock, which somebody may have held in the parent of a forked child
        self.check_open()
        with self.lock:
            self.check_open()
            return self.take(wanted, None, deadline)

    def read_to_end(self, timeout=10.0):
        """Read all that is there when this is called.

        Args:
            timeout (float | None): seconds it may take until the next message comes, not until all
                have come.

        Returns:
            list[ConsumedMessage]: up to the end as it was, and what came after it in the same
            batches.

        Raises:
            RetentionLost: records that were not read yet are gone.
            KafkaTimeoutError: nothing came for `timeout` seconds though the end was not reached.
            KafkaException: the cluster has an error instead of messages.

        What it read before it raised comes with the next call, once there is one that does not.
        """
        cdef int64_t deadline = _deadline(timeout)
        # before the lock, which somebody may have held in the parent of a forked child
        self.check_open()
        with self.lock:
            self.check_open()
            ends = self.offsets_of([(self.topic, p) for p in range(self.count)],
                                   RD_KAFKA_OFFSET_SPEC_LATEST, deadline)
            return self.take(
                PY_SSIZE_T_MAX, {partition: end for (_, partition),
                                 end in ends.items()}, deadline, timeout)

    cdef list take(self, Py_ssize_t wanted, dict ends, int64_t deadline, object patience=None):
        """The loop: exchange, look, until there is enough. `patience` is started anew with each
        exchange that brought something."""
        cdef list messages = self.kept
        cdef Py_ssize_t n
        self.kept = []
        try:
            while len(messages) < wanted:
                if ends is not None and self.reached(ends):
                    break
                if self.failed is not None:
                    if messages and ends is None:
                        break               # first what there is, then, next time, what was wrong
                    raise self.failed
                n = self.exchange(wanted - len(messages), _remaining_ms(deadline, SLICE_MS))
                self.sort(n, messages)
                PyErr_CheckSignals()
                self.check_open()
                if n > 0:
                    if patience is not None:
                        deadline = _deadline(patience)
                elif _expired(deadline):
                    if ends is not None:
                        raise KafkaTimeoutError(KafkaError(
                            RD_KAFKA_RESP_ERR__TIMED_OUT,
                            f"no message of {self.topic!r} for {patience} s, though not all were "
                            f"read: {self.missing(ends)}"))
                    break
        except BaseException:
            self.kept = messages
            raise
        if len(messages) > wanted:
            self.kept = messages[wanted:]
            return messages[:wanted]
        return messages

    cdef Py_ssize_t exchange(self, Py_ssize_t at_most, int milliseconds) noexcept:
        """Fill `batch` with what has come, waiting for the first one. Never with the GIL (rule
        4)."""
        cdef Py_ssize_t n
        cdef Py_ssize_t room = min(at_most, <Py_ssize_t>READ_BATCH)
        cdef rd_kafka_message_t *first
        with nogil:
            n = rd_kafka_consume_batch_queue(self.queue, 0, self.batch, room)
            if n <= 0:
                n = 0
                first = rd_kafka_consume_queue(self.queue, milliseconds)
                if first != NULL:
                    self.batch[0] = first
                    n = 1
                    if room > 1:
                        n += max(
                            rd_kafka_consume_batch_queue(
                                self.queue, 0, self.batch + 1, room - 1), <ssize_t>0)
            rd_kafka_poll(self.rk, 0)       # errors and logs nobody listens to must not pile up
        return n

    cdef int sort(self, Py_ssize_t n, list messages) except -1:
        """Append the batch's messages, and note its errors. Each message is given back to
        librdkafka once, whatever raises."""
        cdef Py_ssize_t i = 0
        cdef rd_kafka_message_t *message
        try:
            while i < n:
                message = self.batch[i]
                if message.err == RD_KAFKA_RESP_ERR_NO_ERROR:
                    messages.append(_consumed(self.topic, message))
                    self.next_offset[message.partition] = message.offset + 1
                elif message.err == RD_KAFKA_RESP_ERR__PARTITION_EOF:
                    # With transactions the log ends in control records, which are offsets without
                    # messages.
                    self.next_offset[
                        message.partition] = max(self.next_offset[message.partition],
                                                 message.offset)
                elif self.failed is None:
                    self.failed = self.failure(message)
                i += 1
                rd_kafka_message_destroy(message)
        finally:
            while i < n:
                rd_kafka_message_destroy(self.batch[i])
                i += 1
        return 0

    cdef object failure(self, const rd_kafka_message_t *message):
        cdef const char *text = rd_kafka_message_errstr(message)
        reason = text.decode("utf-8", "replace") if text != NULL else None
        if message.err != RD_KAFKA_RESP_ERR__AUTO_OFFSET_RESET:
            return _exception(KafkaError(message.err, reason))
        offset = self.next_offset[message.partition]
        first = None
        try:
            where = [(self.topic, message.partition)]
            first = self.offsets_of(where, RD_KAFKA_OFFSET_SPEC_EARLIEST,
                                    kx_now_us() + 1000000)[where[0]]
        except KafkaException:
            pass            # it only makes the message better
        known = "" if first is None else f", the first still there is {first}"
        return RetentionLost(
            KafkaError(
                message.err,
                f"{self.topic}-{message.partition}: offset {offset} is gone{known}: the cluster "
                "has dropped old records (a mock broker keeps 5 MiB or 100,000 batches of a "
                "partition)"),
            self.topic, message.partition, offset, first)

    cdef bint reached(self, dict ends) except -1:
        cdef int partition
        for partition in range(self.count):
            if self.next_offset[partition] < <int64_t>ends.get(partition, 0):
                return False
        return True

    cdef str missing(self, dict ends):
        return ", ".join([
            f"partition {partition} is at {self.next_offset[partition]} of {ends[partition]}"
            for partition in range(
                self.count) if self.next_offset[partition] < <int64_t>ends.get(partition, 0)])
