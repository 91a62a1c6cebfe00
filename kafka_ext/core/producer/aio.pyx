# asyncio: sending from an event loop. client/loop.pyx serves the reports.

import warnings as _warnings

cdef enum:
    # Sends that go through one after the other before the task lets others have a turn: an `await`
    # that need not wait does not.
    LOOP_SENDS = 256
    # How long a partitioner written in Python waits to learn how many partitions a topic has, in
    # microseconds; as the synchronous producer.
    PARTITIONS_TIMEOUT = 10 * 1000000
    # Futures made the short way before the loop is asked again for one of its own: whether it is in
    # debug mode by now.
    LOOP_FUTURES = 256
    PYGEN_RETURN = 0
    PYGEN_NEXT = 1


# ------------------------------------------------------------------ sending

cdef class AsyncProducer:
    """The sending half of AsyncKafkaProducer, in C. Made by AsyncKafkaProducer only."""

    @property
    def handle(self):
        if self._client is None:
            raise ProducerClosedError(KafkaError(RD_KAFKA_RESP_ERR__STATE,
                                                 "the producer is closed: its constructor failed"))
        return self._client

    def _handle_or_none(self):
        return self._client

    cpdef object _open(self, ProducerClient client, partitioner, interceptors, loop,
                       serializers=None):
        cdef Producer producer = Producer.__new__(Producer)
        _import_asyncio()
        producer._open(client, partitioner, interceptors, serializers)
        self._producer = producer
        self._client = client
        self._loop = loop
        self._tells_its_thread = getattr(type(loop), "is_running", None) is _base_is_running
        self._turns_left = LOOP_SENDS
        self._turnstile = _Lock()

    def send(self, record, *misplaced, option=_NO_COPY):
        """`future = await producer.send(record)`: enqueue a record, waiting while the queue is
        full; its outcome comes through the future.

        Nothing happens before it is awaited (or made a task). The `await` is over when the record
        is enqueued; as a rule at once. While the queue is full the calling task is suspended, and
        those who wait are served in their order. Every 256 sends the task lets others have a turn
        of the loop, so that sending in a loop starves nobody.

        The value is not copied: its exporter stays pinned until the future has its result. Key and
        headers are copied.

        Args:
            record (ProducerRecord): what to send.
            option (SendOption): TO_COPY_RECORD_VALUE has librdkafka copy the value before the
                `await` is over.

        Returns:
            Sending: an awaitable, with all that a coroutine has, so that `asyncio.create_task` and
                `gather` take it. Its result is an `asyncio.Future`: a RecordMetadata, or a
                KafkaException that says why it was not delivered. It is resolved on the loop's
                thread. Cancelling it, or a task that awaits it, takes nothing back: the record
                stays on its way, and is still counted.

        Raises (the `await`): what `KafkaProducer.send` raises, except that it never raises for a
            full queue. Cancelled while it waits, or raising for any other reason, it has enqueued
            nothing. Source: rd_kafka_produce(), rd_kafka_produceva().

            TypeError: an argument is of the wrong type; it is named.
            RuntimeError: awaited in another event loop than the producer's.
        """
        cdef Sending sending
        if misplaced or not isinstance(record, ProducerRecord):
            raise no_record("send", record, misplaced)
        if option is not _NO_COPY and option is not _COPY:
            raise TypeError(f"option must be a SendOption, not {_shorten(option)}")
        if self._client is None:
            self.handle
        sending = Sending.__new__(Sending)
        sending.producer = self
        sending.record = <ProducerRecord>record
        sending.copy = option is not _NO_COPY
        return sending

    def send_nowait(self, record, *misplaced, option=_NO_COPY):
        """As `send`, for where nothing can be awaited (protocols, callbacks): enqueue now, or raise
        QueueFullError. Returns the future.

        It also raises QueueFullError while others wait for room, and a retriable KafkaException
        where a partitioner written in Python has to be asked and the topic's partitions are not
        known yet.
        """
        if misplaced or not isinstance(record, ProducerRecord):
            raise no_record("send_nowait", record, misplaced)
        if option is not _NO_COPY and option is not _COPY:
            raise TypeError(f"option must be a SendOption, not {_shorten(option)}")
        if self._client is None:
            self.handle
        self._check_loop()
        try:
            future = self._send_now(record, option is not _NO_COPY)
        except BaseException as exc:
            self._not_sent(record, exc)
            raise
        self._sent(record)
        return future

    cdef object _send_now(self, ProducerRecord record, bint copy):
        if self._waiting:
            self._producer._refused(RD_KAFKA_RESP_ERR__QUEUE_FULL)
        future = self._new_future()
        if self._producer._interceptors is None:
            self._enqueue_for(self._producer._serialized(record), future, copy)
            return future
        replaced, acknowledge = self._intercepted(record, future)
        try:
            self._enqueue_for(self._producer._serialized(replaced), acknowledge, copy)
        except BaseException as exc:
            (<_Acknowledge>acknowledge).refused(replaced, exc)
            raise
        return future

    cpdef int _not_sent(self, record, exc) except -1:
        """A send of `record` (None: of a batch) has come to nothing, for the reason that `exc`
        says."""
        self._producer._missed(
            record, exc.error.code if isinstance(exc, KafkaException) else RAISED)
        return 0

    cdef int _sent(self, ProducerRecord record) except -1:
        """`record` is enqueued."""
        if self._client.transaction.refused is not None:
            self._client.transaction.note_sent(record)
        return 0

    def _check_loop(self):
        """Raise unless the calling thread runs the producer's event loop."""
        running = _get_running_loop()
        if running is not self._loop:
            if self._client is not None and self._client.life.generation != kx_fork_generation:
                self._client.refuse()
            where = "outside of any event loop" if running is None else "in another event loop"
            raise RuntimeError(
                "this AsyncKafkaProducer belongs to the event loop it was made in, and is used "
                f"{where}; make one in each loop, "
                "and call it by loop.call_soon_threadsafe() or asyncio.run_coroutine_threadsafe() "
                "from other threads")

    cdef bint on_its_loop(self) except -1:
        """Whether the calling thread runs the producer's loop; cheaply, for each send asks.

        _get_running_loop() is a system call (getpid) before Python 3.12, a tenth of a send. A
        thread runs one loop at a time: so if ours runs at all and did so in this thread when it
        served last, it is the one. asyncio's own is_running() is a call of a Python function for
        one attribute, which those versions will not change any more.
        """
        if _GETPID_EACH_TIME and self._client.loop.thread == PyThread_get_thread_ident():
            if self._tells_its_thread:
                return self._loop._thread_id is not None
            return self._loop.is_running()
        return _get_running_loop() is self._loop

    cdef object _new_future(self):
        if self._futures_left == 0:
            self._futures_left = LOOP_FUTURES
            future = self._loop.create_future()
            self._loop_at = kx_future_loop_at(future, self._loop) if type(future) is _Future else 0
            return future
        self._futures_left -= 1
        if self._loop_at:
            return kx_future_new(<PyTypeObject *>_Future, self._loop, self._loop_at)
        return self._loop.create_future()

    cdef int _enqueue_now(self, ProducerRecord record, object on_delivery, bint copy) except? -9999:
        return self._producer._enqueue(self._client, record, on_delivery, copy, False, -1)

    cdef int _enqueue_for(self, ProducerRecord record, on_delivery, bint copy) except -1:
        cdef int err = self._enqueue_now(record, on_delivery, copy)
        if err != 0:
            self._producer._refused(err)
        return 0

    cdef tuple _intercepted(self, record, future):
        """The record that the interceptors make of `record`, and who is to be told of its
        report."""
        return (self._producer._intercept(record),
                _Acknowledge(self._producer._interceptors, _ResolveFuture(future)))

    cdef tuple _prepare(self, record):
        """For a send that may have to wait: `(record, future, who is to be told)`."""
        future = self._new_future()
        if self._producer._interceptors is None:
            return self._producer._serialized(record), future, future
        replaced, acknowledge = self._intercepted(record, future)
        try:
            return self._producer._serialized(replaced), future, acknowledge
        except BaseException as exc:
            (<_Acknowledge>acknowledge).refused(replaced, exc)
            raise

    cdef bint _partitions_known(self, ProducerRecord record) except -1:
        """Whether a partitioner written in Python can be asked where to put `record`; if not, they
        are being asked for."""
        if self._producer._partitioner is None or record._partition != NO_PARTITION:
            return True
        self._client.check_usable()
        try:
            partition_count_of(self._client, self._client.topic(record._topic), False)
        except KafkaException as exc:
            if exc.error.code != RD_KAFKA_RESP_ERR__WAIT_CACHE:
                raise
            return False
        return True

    cdef int64_t _wait_begins(self) noexcept:
        self._waiting += 1
        return kx_now_us()

    cdef int _wait_ends(self, int64_t began) except -1:
        self._waiting -= 1
        KX_ADD(self._client.counts.blocked_us, kx_now_us() - began)
        return 0


@cython.final
cdef class _ResolveFuture:
    """A delivery callback that resolves a future: what is told last of an intercepted record."""

    cdef object future

    def __init__(self, future):
        self.future = future

    def __call__(self, metadata, error):
        if not resolve(self.future, metadata if error is None else _exception(error),
                       error is not None) and error is not None:
            _log.warning("1 record to %s not delivered, and its future was cancelled: %s",
                         metadata.topic, error)


@cython.final
@cython.freelist(16)
cdef class Sending:
    """A send that has been asked for: `await` it, once. Made by `AsyncKafkaProducer.send` only."""

    def __init__(self):
        raise TypeError("a Sending is made by AsyncKafkaProducer.send only")

    def __dealloc__(self):
        if not self.begun and self.producer is not None:
            never_awaited(self.record)
        if self.paused and self.producer is not None:
            self.producer._paused -= 1

    def __await__(self):
        return self

    def __iter__(self):
        return self

    def __next__(self):
        return self.send(None)

    def send(self, value):
        """Go on; as a generator's."""
        cdef PyObject *result = NULL        # owned
        cdef int status = sending_send(<PyObject *>self, <PyObject *>value, &result)
        outcome = <object>result
        Py_DECREF(outcome)
        if status == PYGEN_RETURN:
            raise StopIteration(outcome)
        return outcome

    def throw(self, kind, value=None, traceback=None):
        """Raise at the point where it waits; as a generator's."""
        self.begun = True
        if self.rest is not None:
            if value is None and traceback is None:
                return self.rest.throw(kind)
            return self.rest.throw(kind, value, traceback)
        self.done()
        if isinstance(kind, type):
            kind = kind() if value is None else value if isinstance(value, kind) else kind(value)
        raise kind if traceback is None else kind.with_traceback(traceback)

    def close(self):
        """Give up: nothing is enqueued."""
        self.begun = True
        if self.rest is not None:
            self.rest.close()
        self.done()

    cdef int done(self) except -1:
        if self.paused:
            self.paused = False
            self.producer._paused -= 1
        self.producer = None
        self.record = None
        self.rest = None
        return 0


cdef int never_awaited(ProducerRecord record) noexcept:
    try:
        _warnings.warn(
            f"AsyncKafkaProducer.send() was never awaited, and the record to {record._topic} not "
            "sent", RuntimeWarning, stacklevel=1)
    except BaseException as exc:
        unraisable(exc, None)
    return 0


cdef int sending_send(PyObject *itself, PyObject *value, PyObject **result) except -1:
    """One step of the awaiting: PYGEN_RETURN with the future, PYGEN_NEXT with what to wait for
    (type slot am_send)."""
    cdef Sending sending = <Sending>itself
    cdef AsyncProducer producer = sending.producer
    cdef int err
    result[0] = NULL
    if sending.rest is not None:
        return sending_rest(sending, value, result)
    if producer is None:
        raise RuntimeError("cannot await the same send() twice")
    if not producer.on_its_loop():
        sending.begun = True
        producer._check_loop()
    if not sending.begun:
        sending.begun = True
        producer._turns_left -= 1
        if producer._turns_left < 0 or producer._paused:
            # Before the enqueue, so that a task cancelled here has sent nothing; and behind those
            # who pause already, in their order. A bare yield is asyncio.sleep(0).
            if producer._turns_left < 0:
                producer._turns_left = LOOP_SENDS
            sending.paused = True
            producer._paused += 1
            Py_INCREF(None)
            result[0] = <PyObject *>None
            return PYGEN_NEXT
    elif sending.paused:
        sending.paused = False
        producer._paused -= 1
    if (producer._waiting == 0 and not producer._producer._detour
            and producer._producer._partitioner is None):
        future = producer._new_future()
        err = RAISED
        try:
            err = producer._enqueue_now(sending.record, future, sending.copy)
        finally:
            if err != RD_KAFKA_RESP_ERR_NO_ERROR and err != RD_KAFKA_RESP_ERR__QUEUE_FULL:
                producer._producer._missed(sending.record, err)
        if err == RD_KAFKA_RESP_ERR_NO_ERROR:
            if producer._client.transaction.refused is not None:
                producer._client.transaction.note_sent(sending.record)
            sending.producer = None
            sending.record = None
            Py_INCREF(future)
            result[0] = <PyObject *>future
            return PYGEN_RETURN
        if err != RD_KAFKA_RESP_ERR__QUEUE_FULL:
            sending.done()
            producer._producer._refused(err)
    sending.rest = _send_later(producer, sending.record, sending.copy)
    return sending_rest(sending, <PyObject *>None, result)


cdef int sending_rest(Sending sending, PyObject *value, PyObject **result) except -1:
    cdef int status
    try:
        status = PyIter_Send(sending.rest, value, result)
    except BaseException:
        sending.done()
        raise
    if status == PYGEN_RETURN:
        sending.done()
    return status


kx_set_am_send(<PyTypeObject *>Sending, sending_send)


async def _send_later(AsyncProducer producer, ProducerRecord given, bint copy):
    """A send that cannot be done at once, or has Python of the user's to call."""
    cdef int err
    cdef int64_t began
    cdef ProducerRecord record
    try:
        record, future, on_delivery = producer._prepare(given)
    except BaseException as exc:
        producer._not_sent(given, exc)
        raise
    began = producer._wait_begins()
    try:
        # Asked for before it queues up, so that an unknown topic holds up nobody else.
        await _wait_for_partitions(producer, record)
        async with producer._turnstile:
            while True:
                err = producer._enqueue_now(record, on_delivery, copy)
                if err == RD_KAFKA_RESP_ERR_NO_ERROR:
                    producer._sent(given)
                    return future
                if err != RD_KAFKA_RESP_ERR__QUEUE_FULL:
                    producer._producer._refused(err)
                await producer._client.loop.served()
    except BaseException as exc:
        producer._not_sent(given, exc)
        if isinstance(on_delivery, _Acknowledge):
            (<_Acknowledge>on_delivery).refused(record, exc)
        raise
    finally:
        producer._wait_ends(began)


async def _wait_for_partitions(AsyncProducer producer, ProducerRecord record):
    """Until a partitioner written in Python can be told how many partitions there are (a thread
    finds out, every few minutes)."""
    cdef int64_t end = kx_now_us() + PARTITIONS_TIMEOUT
    while not producer._partitions_known(record):
        if kx_now_us() > end:
            raise KafkaException(KafkaError(
                RD_KAFKA_RESP_ERR__UNKNOWN_TOPIC,
                f"topic {record._topic}: its partitions are not known, so the partitioner cannot "
                "be asked"))
        await loop_sleep(producer._loop, 0.005)


# ------------------------------------------------------------------ batches

async def loop_send_batch(AsyncProducer producer, topic, values, keys, partitions, timestamps,
                          headers, ids, on_delivery, option):
    """AsyncKafkaProducer.send_batch; the steps are core/producer/batch.pyx's."""
    try:
        # It is asked for those that a column leaves null, too.
        if producer._producer._partitioner is not None and not isinstance(partitions, int):
            await _wait_for_partitions(producer, ProducerRecord(topic))
        _check_batch_arguments(producer._producer, topic, on_delivery, option, _BLOCK)
        steps, batch = _started(
            producer,
            _batch_steps(producer._producer, topic, values, keys, partitions, timestamps, headers,
                         ids, on_delivery, option is _COPY, False, -1))
    except BaseException as exc:
        producer._not_sent(None, exc)
        raise
    return await _enqueue_all(producer, steps, batch)


async def loop_send_table(AsyncProducer producer, table, topic, value, key, partition, timestamp,
                          headers, on_delivery, option):
    """The same for send_table."""
    try:
        if producer._producer._partitioner is not None:
            await _wait_for_partitions(producer, ProducerRecord(topic))
        _check_batch_arguments(producer._producer, topic, on_delivery, option, _BLOCK)
        steps, batch = _started(
            producer,
            _table_steps(producer._producer, table, topic, value, key, partition, timestamp,
                         headers, on_delivery, option is _COPY, False, -1))
    except BaseException as exc:
        producer._not_sent(None, exc)
        raise
    return await _enqueue_all(producer, steps, batch)


cdef tuple _started(AsyncProducer producer, steps):
    producer._client.check_usable()
    return steps, next(steps)


async def _enqueue_all(AsyncProducer producer, steps, BatchDelivery batch):
    """Go through the steps, which say True when the queue is full and False when there is more to
    do at once. What is not enqueued when a task is cancelled fails with INTR, and `batch` of the
    exception is what was."""
    cdef int64_t began = producer._wait_begins()
    try:
        async with producer._turnstile:
            while (full := next(steps, None)) is not None:
                if full:
                    await producer._client.loop.served()
                else:
                    await _yield_turn(0)
    except BaseException as exc:
        if not batch.gave_up:
            batch.gave_up = RD_KAFKA_RESP_ERR__INTR
        steps.close()
        _remember_batch(exc, batch)
        raise
    finally:
        producer._wait_ends(began)
    return batch


# ------------------------------------------------------------------ transactions

def init_transactions_slice(ProducerClient client, int milliseconds):
    """Begin or resume rd_kafka_init_transactions(): None when it is done, else the KafkaError."""
    cdef rd_kafka_error_t *error
    error = init_slice(client, milliseconds)
    try:
        check_error(error, "rd_kafka_init_transactions", client.cause)
    except KafkaException as exc:
        return exc.error
    return None
