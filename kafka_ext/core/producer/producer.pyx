# The way down: one record from the caller to librdkafka's queue.

# A copy of this size or more is worth giving the GIL away for.
cdef enum:
    LARGE_COPY = 64 * 1024

# What _send returns beside librdkafka's codes.
cdef enum:
    TIMED_OUT = 1000000
    RAISED = -9999


cdef class Producer:
    """The sending half of KafkaProducer, in C. Made by KafkaProducer only."""

    @property
    def handle(self):
        if self._client is None:
            raise ProducerClosedError(KafkaError(RD_KAFKA_RESP_ERR__STATE,
                                                 "the producer is closed: its constructor failed"))
        return self._client

    def _handle_or_none(self):
        return self._client

    cpdef object _open(self, ProducerClient client, partitioner, interceptors, serializers=None):
        self._client = client
        self._partitioner = partitioner
        self._interceptors = interceptors
        self._serializers = serializers
        self._detour = interceptors is not None or serializers is not None

    def send(self, record, on_delivery=None, *, option=_NO_COPY, action=_BLOCK, timeout=None):
        """Enqueue a record; its outcome comes through `on_delivery`, exactly once.

        The value is not copied: its exporter stays pinned until the callback has returned, and
        writing into it before then is a race that librdkafka's retries make visible (a retry sends
        what is there by then). Key and headers are copied before this returns.

        Args:
            record (ProducerRecord): what to send.
            on_delivery: called as `on_delivery(metadata, error)` with a RecordMetadata and a
                KafkaError or None: by the events thread, or with `enable.manual.events.poll` by the
                thread that calls `poll_events`, `flush`, `sync_send` or `close`. Without one, a
                failure is counted in `metrics()` and logged at WARNING.
            option (SendOption): TO_COPY_RECORD_VALUE has librdkafka copy the value before this
                returns.
            action (ActionWhileQueueIsFull): what to do while the queue is full. BLOCK waits, with
                the GIL released. With manual polling, and inside a callback, it never waits.
            timeout (float | None): seconds BLOCK may wait; None for no limit.

        Raises:
            TypeError: an argument is of the wrong type; it is named.
            InvalidRecordError: no broker could take it, or its memory cannot be sent: not
                C-contiguous, not the CPU's (also a ValueError).
            QueueFullError: no room, and it may not wait (RD_KAFKA_RESP_ERR__QUEUE_FULL).
            KafkaTimeoutError: no room within `timeout`.
            KafkaException: librdkafka refuses it: too large (`message.max.bytes`), unknown
                partition, a fatal error before it.
            ProducerClosedError: closed, or being closed.
            ProducerForkedError: made before a fork.

        A send that raises has pinned nothing and never calls back. Source: rd_kafka_produce(),
        rd_kafka_produceva().
        """
        if not isinstance(record, ProducerRecord):
            raise no_record("send", record)
        cdef int err = RAISED
        try:
            err = self._send(<ProducerRecord>record, on_delivery, option, action, timeout)
        finally:
            if err != 0:
                self._missed(record, err)
        if err != 0:
            self._refused(err)
        if self._client.transaction.refused is not None:
            self._client.transaction.note_sent(record)

    def try_send(self, record, on_delivery=None, *, option=_NO_COPY):
        """As `send`, but never waits, and returns what kept the record from being enqueued as a
        KafkaError, None when nothing did.

        Raises:
            TypeError: as `send`.
            ProducerForkedError: made before a fork.
        """
        cdef int err = RAISED
        if not isinstance(record, ProducerRecord):
            raise no_record("try_send", record)
        try:
            err = self._send(<ProducerRecord>record, on_delivery, option, _NO_BLOCK, None)
        except ProducerForkedError:
            raise
        except KafkaException as exc:
            return exc.error
        finally:
            if err != 0:
                self._missed(record, err)
        if err == 0:
            if self._client.transaction.refused is not None:
                self._client.transaction.note_sent(record)
            return None
        self._count_refused(err)
        return self._send_error(err)

    cdef int _send(self, ProducerRecord record, object on_delivery, object option, object action,
                   object timeout) except? -9999:
        """Enqueue `record`: 0, librdkafka's code, or TIMED_OUT. Everything it took is given back
        unless it returns 0."""
        cdef ProducerClient client = self._client
        cdef bint copy = False
        if on_delivery is not None:
            _check_callback(on_delivery, "on_delivery")
        if option is not _NO_COPY:
            if option is not _COPY:
                raise TypeError(f"option must be a SendOption, not {_shorten(option)}")
            copy = True
        if action is not _BLOCK and action is not _NO_BLOCK:
            raise TypeError(f"action must be an ActionWhileQueueIsFull, not {_shorten(action)}")
        if client is None:
            client = self.handle
        cdef int64_t deadline = -1 if timeout is None else _deadline(timeout)
        if kx_handover_wanted():
            kx_handover_give()
        if self._detour:
            return self._send_detour(client, record, on_delivery, copy, action is _BLOCK, deadline)
        return self._enqueue(client, record, on_delivery, copy, action is _BLOCK, deadline)

    cdef int _enqueue(self, ProducerClient client, ProducerRecord record, object on_delivery,
                      bint copy, bint may_wait,
                      int64_t deadline) except? -9999:
        cdef kx_bytes value, key
        cdef rd_kafka_headers_t *headers = NULL     # owned until an enqueue succeeds
        cdef void *opaque = NULL                    # owned until an enqueue succeeds
        cdef PyObject *pairs = NULL                 # borrowed from `header_pairs`
        cdef int64_t size
        cdef int err
        cdef Topic topic
        cdef int32_t partition = record._partition
        cdef object header_pairs

        # All this can run the user's code, which may close the producer: it counts as inside only
        # from enter() on.
        if client.life.generation != kx_fork_generation or client.life.state > OPEN:
            client.refuse()
        topic = client.topic(record._topic)
        if kx_releases_waiting(&client.releases):
            client.release_rest()
        if partition == NO_PARTITION and self._partitioner is not None:
            partition = self._choose_partition(
                client, topic, record.key, may_wait, deadline)

        # Empty, for the way out below: a try-finally costs nothing where a try-except would save
        # the thread's exception state.
        value.owner = key.owner = NULL
        value.view = key.view = NULL
        try:
            kx_bytes_get(record.value, &value, b"value")
            kx_bytes_get(record.key, &key, b"key")
            if record._headers is not None:
                header_pairs = _header_pairs(record._headers)
                if header_pairs:
                    headers = _make_headers(header_pairs)
                    pairs = <PyObject *>header_pairs
            size = value.size
            kx_message_make(
                &client.pool, &value, copy,
                <PyObject *>on_delivery if on_delivery is not None else NULL,
                <PyObject *>record.id if record.id is not None else NULL,
                pairs, &opaque)
            if client.transaction.end is not None:
                # what comes now belongs to the next transaction
                return RD_KAFKA_RESP_ERR__STATE
            Client.enter(client)        # direct: a method of a base class would go by its table
            if copy and value.size >= LARGE_COPY:
                with nogil:
                    err = kx_produce(client.rk, topic.rkt, partition, True, &value, &key, headers,
                                     record._timestamp, opaque)
            else:
                # With the GIL: the call is non-blocking, and shorter than letting go of it and
                # taking it back. No thread of librdkafka waits for the GIL, so this is safe.
                err = kx_produce(client.rk, topic.rkt, partition, copy, &value, &key, headers,
                                 record._timestamp, opaque)
            client.leave_produce(err, size)
            if err == RD_KAFKA_RESP_ERR__QUEUE_FULL and may_wait and not client.manual:
                err = self._enqueue_later(
                    client, topic, partition, copy, &value, &key, headers, record._timestamp,
                    opaque, deadline)
            if err == RD_KAFKA_RESP_ERR_NO_ERROR:
                headers = NULL          # all librdkafka's now, until the report
                opaque = NULL
            return err
        finally:
            # What was not passed on is given back, on every way out.
            if opaque != NULL:
                kx_message_release(&client.pool, opaque)
            if headers != NULL:
                rd_kafka_headers_destroy(headers)
            kx_bytes_drop(&value)
            kx_bytes_drop(&key)

    cdef int _enqueue_later(
            self, ProducerClient client, Topic topic, int32_t partition, bint copy,
            const kx_bytes *value, const kx_bytes *key, rd_kafka_headers_t *headers,
            int64_t timestamp, void *opaque, int64_t deadline) except? -9999:
        """Wait for room, without the GIL and in slices, and try again. librdkafka's own blocking
        flag has no timeout and no signals."""
        cdef unsigned long seen
        cdef int err
        if kx_in_callback():
            # waiting for room here would be waiting for itself, or for another in its place
            return RD_KAFKA_RESP_ERR__QUEUE_FULL
        while True:
            seen = kx_gate_seen(&client.life.gate)
            if client.transaction.end is not None:
                return RD_KAFKA_RESP_ERR__STATE
            Client.enter(client)        # direct: a method of a base class would go by its table
            with nogil:
                err = kx_produce(client.rk, topic.rkt, partition, copy, value, key, headers,
                                 timestamp, opaque)
            client.leave_produce(err, value.size)
            if err != RD_KAFKA_RESP_ERR__QUEUE_FULL:
                return err
            if _expired(deadline):
                return TIMED_OUT
            client.wait_for_room(seen, deadline)
            client.release_rest()

    cdef object _send_error(self, int err):
        """The KafkaError for what _send returned."""
        cdef ProducerClient client = self._client
        if err == TIMED_OUT:
            return KafkaError(
                RD_KAFKA_RESP_ERR__TIMED_OUT,
                "the local queue stayed full for the whole timeout; the record was not "
                "enqueued" + client.cause)
        # After a fatal error rd_kafka_produce returns _FATAL, and rd_kafka_produceva the code of
        # the error itself.
        fatal = client.fatal_error()
        if fatal is not None and (err == RD_KAFKA_RESP_ERR__FATAL or fatal == err):
            return fatal_hint(fatal)
        if err == RD_KAFKA_RESP_ERR__STATE and client.transaction.state != NO_TRANSACTIONS:
            return refused_outside(client)
        if err == RD_KAFKA_RESP_ERR__QUEUE_FULL:
            hint = "call poll_events()" if client.manual else "wait, or raise the limits"
            return KafkaError(
                err,
                "the local queue is full (queue.buffering.max.messages, "
                "queue.buffering.max.kbytes): " + hint)
        return KafkaError(err)

    cdef int _missed(self, object record, int err) noexcept:
        """A send of `record` (None: of a batch) has come to nothing: the transaction that is open
        lacks it."""
        if self._client is not None:
            self._client.transaction.note_refused(
                record,
                RD_KAFKA_RESP_ERR__TIMED_OUT if err == TIMED_OUT else 0 if err == RAISED else err)
        return 0

    cdef int _count_refused(self, int err) noexcept:
        kx_count(
            &self._client.counts.refused, RD_KAFKA_RESP_ERR__TIMED_OUT if err == TIMED_OUT else err)
        return 0

    cdef int _refused(self, int err) except -1:
        self._count_refused(err)
        raise _exception(self._send_error(err))

    # ------------------------------------------------------------------ the user's Python code

    cdef int32_t _choose_partition(self, ProducerClient client, Topic topic, object key,
                                   bint may_wait, int64_t deadline) except -1:
        """Ask the caller's partitioner, here on the sending thread and before the enqueue:
        librdkafka's threads never run Python."""
        partition_count = partition_count_of(client, topic, may_wait, deadline)
        chosen = self._partitioner(topic.name, key, partition_count)
        try:
            partition = chosen.__index__()
        except AttributeError:
            raise TypeError(
                f"partitioner must return an int, not {type(chosen).__name__}") from None
        if not 0 <= partition < partition_count:
            raise _invalid_record(
                f"partitioner returned {partition} for topic {topic.name}, which has "
                f"{partition_count} partitions")
        return partition

    cdef object _intercept(self, object record):
        """As the Java client: an interceptor that raises is reported and passed over; the record
        goes on as it was."""
        for interceptor in self._interceptors:
            try:
                replaced = interceptor.on_send(record)
                if not isinstance(replaced, ProducerRecord):
                    raise TypeError(
                        f"on_send must return a ProducerRecord, not {type(replaced).__name__}")
                record = replaced
            except Exception as exc:
                unraisable(exc, interceptor)
        return record

    cdef int _send_detour(self, ProducerClient client, object record, object on_delivery, bint copy,
                          bint may_wait,
                          int64_t deadline) except? -9999:
        """By way of interceptors and serializers, in the Java client's order.

        They are the caller's code and may take their time (a serializer may ask a schema registry):
        close() does not wait for them.
        """
        client.check_usable()
        if self._interceptors is None:
            return self._enqueue(client, self._serialized(record), on_delivery, copy, may_wait,
                                 deadline)
        record = self._intercept(record)
        cdef _Acknowledge acknowledge = _Acknowledge(self._interceptors, on_delivery)
        cdef int err = 0
        try:
            err = self._enqueue(client, self._serialized(record), acknowledge, copy, may_wait,
                                deadline)
        except BaseException as exc:
            acknowledge.refused(record, exc)
            raise
        if err != 0:
            acknowledge.tell(_metadata_of_refused(record), self._send_error(err))
        return err

    cdef ProducerRecord _serialized(self, ProducerRecord record):
        """The record with its key and value as bytes; None stays None, so that there are
        tombstones."""
        if self._serializers is None:
            return record
        cdef ProducerRecord made = ProducerRecord.__new__(ProducerRecord)
        of_key, of_value = self._serializers
        made._topic = record._topic
        made._partition = record._partition
        made._timestamp = record._timestamp
        made._headers = record._headers
        made.id = record.id
        made.key = record.key if of_key is None or record.key is None else of_key(
            record._topic, record.key)
        made.value = record.value if of_value is None or record.value is None else of_value(
            record._topic, record.value)
        return made


@cython.final
cdef class _Acknowledge:
    """The delivery callback of an intercepted record: first the interceptors, then the caller's
    own."""

    def __init__(self, interceptors, on_delivery):
        self.interceptors = interceptors
        self.on_delivery = on_delivery

    cdef tell(self, metadata, error):
        for interceptor in self.interceptors:
            try:
                interceptor.on_acknowledgement(metadata, error)
            except Exception as exc:
                unraisable(exc, interceptor)

    cdef refused(self, record, exc):
        error = exc.error if isinstance(
            exc, KafkaException) else KafkaError(RD_KAFKA_RESP_ERR__INVALID_ARG, str(exc))
        self.tell(_metadata_of_refused(record), error)

    def __call__(self, metadata, error):
        self.tell(metadata, error)
        if self.on_delivery is not None:
            self.on_delivery(metadata, error)
        elif error is not None:
            _log.warning("kafka_ext: 1 record to %s not delivered, and no callback to tell: %s",
                         metadata.topic, error)


cdef RecordMetadata _metadata_of_refused(ProducerRecord record):
    """What an interceptor is told of a record that was never enqueued."""
    cdef RecordMetadata metadata = RecordMetadata.__new__(RecordMetadata)
    metadata._topic = record._topic
    metadata._record_id = record.id
    metadata._partition = record._partition
    metadata._offset = metadata._timestamp = metadata._latency = -1
    metadata._broker_id = -1
    metadata._status = RD_KAFKA_MSG_STATUS_NOT_PERSISTED
    metadata._timestamp_type = RD_KAFKA_TIMESTAMP_NOT_AVAILABLE
    return metadata


def no_record(str call, record, misplaced=()):
    """The TypeError for something else than a ProducerRecord: most likely a topic and a value, as
    other clients take them."""
    if isinstance(record, ProducerRecord):
        return TypeError(
            f"{call}() takes one record, and its options by name, not {len(misplaced) + 1} "
            "positional arguments")
    return TypeError(
        f'record must be a ProducerRecord, not {type(record).__name__}: '
        f'{call}(ProducerRecord("topic", b"value"))')
