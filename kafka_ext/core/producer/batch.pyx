# Batches: columns in, one object out that knows what became of each message. The loop itself is C, in include/kafka_ext/batch.h.


# With one list of headers for each message, so many are made at a time.
cdef enum:
    HEADER_WINDOW = 16384
    # An event loop's other tasks get a turn after so many thousands of messages.
    LOOP_TURNS = 4


@cython.final
cdef class BatchPart:
    """A piece of a batch, or a chunk of a stream. What its messages pin goes with the last report of them."""

    def __dealloc__(self):
        kx_part_destroy(&self.c)


@cython.final
cdef class _Numbers:
    """A buffer over a batch's, or a part's, own memory."""

    cdef object keeper              # keeps the memory
    cdef const void *data           # borrowed from `keeper`
    cdef Py_ssize_t[1] shape
    cdef Py_ssize_t[1] strides
    cdef bint wide

    def __getbuffer__(self, Py_buffer *view, int flags):
        if flags & PyBUF_WRITABLE:
            raise BufferError("read-only")
        view.buf = <void *>self.data
        view.obj = self
        view.itemsize = 8 if self.wide else 4
        view.len = self.shape[0] * view.itemsize
        view.readonly = 1
        view.format = NULL
        if flags & PyBUF_FORMAT:
            view.format = <char *>"q" if self.wide else <char *>"i"
        view.ndim = 1
        view.shape = self.shape
        view.strides = self.strides
        view.suboffsets = NULL
        view.internal = NULL


cdef object _numbers(object keeper, const int64_t *offsets, const int32_t *partitions, int64_t length, bint wide):
    cdef _Numbers numbers = _Numbers.__new__(_Numbers)
    numbers.keeper = keeper
    numbers.wide = wide
    numbers.data = <const void *>offsets if wide else <const void *>partitions
    numbers.shape[0] = length
    numbers.strides[0] = 8 if wide else 4
    return memoryview(numbers)


@cython.final
cdef class BatchDelivery:
    """BatchDelivery(*args, **kwargs)\n--\n\n\
    What becomes of a batch: the result of `send_batch` and `send_table`. Thread-safe; `await` it, `wait` for it, or leave it. Once it
    is `done()`, it can be pickled and copied: what comes of that says the same, and knows no producer.

    Attributes:
        pending (int): messages without a report yet.
        failed (int): messages that were not enqueued or not delivered, so far.
        offsets (memoryview): int64, by index; -1 while, or where, it is not known. NumPy and Arrow take it without a copy; complete once
            `done()`.
        partitions (memoryview): int32, in the same way.
        ids (object): what was given as `ids`.
        topic (str): where it went.
    """

    def __init__(self):
        raise TypeError("a BatchDelivery is made by send_batch and send_table only")

    def __dealloc__(self):
        free(self.all_offsets)
        free(self.all_partitions)

    def __len__(self):
        return self.length

    def __bool__(self):
        return True

    @property
    def pending(self):
        cdef int64_t pending = 0
        cdef BatchPart part
        for item in self.parts:
            part = item
            pending += KX_LOAD(part.c.pending)
        return pending

    @property
    def failed(self):
        cdef int64_t failed = 0
        cdef BatchPart part
        if self.restored is not None:
            return len(self.restored)
        for item in self.parts:
            part = item
            failed += KX_LOAD(part.c.failed)
        return failed

    def done(self):
        """Whether every message has been reported, and `on_delivery` has returned."""
        return self.ended

    def wait(self, timeout=None):
        """Wait until every message has been reported; True.

        Under manual polling it serves the producer's events meanwhile.

        Raises:
            KafkaTimeoutError: messages are still without a report after `timeout` seconds. They stay on their way.
            KafkaException: called inside a callback of the same producer.
        """
        cdef int64_t deadline = _deadline(timeout)
        cdef int milliseconds
        if self.ended:
            return True
        if self.client.loop is not None and self.client.loop.thread == PyThread_get_thread_ident() and not self.client.closing:
            raise KafkaException(KafkaError(
                RD_KAFKA_RESP_ERR__STATE, "wait() on the event loop's own thread would wait for itself; await the batch"))
        self.client.check_not_in_callback("wait")
        while not self.ended:
            if self.client.forked:
                self.client.refuse()            # its reports come to the parent
            if self.client.manual and not self.client.closing and self.client.loop is None:
                milliseconds = _remaining_ms(deadline, _slice_ms(SLICE_MS))
                self.client.enter()
                self.client.serve_here(milliseconds)
                self.client.leave()
                raise_together(self.client.take_raised())
                _pause()
            else:
                self.finished.wait(_remaining_ms(deadline, 1000) / 1000.0)
            if not self.ended and _expired(deadline):
                raise KafkaTimeoutError(KafkaError(
                    RD_KAFKA_RESP_ERR__TIMED_OUT,
                    f"{self.pending} of {self.length} records have no report after {timeout} s{self.client.cause}"))
        return True

    def errors(self):
        """What failed, so far: `(index, KafkaError)` in the order of the index."""
        cdef BatchPart part
        cdef kx_failure *failures               # owned
        cdef size_t i, count
        if self.restored is not None:
            return list(self.restored)
        found = []
        made = {}
        for item in self.parts:
            part = item
            # A copy: Python objects are made without the lock, which others take while they hold the GIL.
            count = kx_part_failures(&part.c, &failures)
            if count and failures == NULL:
                raise MemoryError()
            try:
                for i in range(count):
                    code = int(failures[i].code)
                    error = made.get(code)
                    if error is None:
                        error = made[code] = self.error_of(code)
                    found.append((part.start + failures[i].index, error))
            finally:
                free(failures)
        found.sort(key=_index_of)
        return found

    cdef object error_of(self, int code):
        return delivery_error(self.client, code)

    def raise_for_errors(self):
        """Raise a KafkaException for the first failure, if there is one; `errors()` has them all."""
        errors = self.errors()
        if errors:
            index, error = errors[0]
            raise _exception(KafkaError(
                error.code, f"{len(errors)} of {self.length} records failed; the first, at index {index}: {error.message}",
                is_fatal=error.is_fatal))

    @property
    def offsets(self):
        return self.numbers(True)

    @property
    def partitions(self):
        return self.numbers(False)

    cdef object numbers(self, bint wide):
        cdef list parts = self.parts
        cdef BatchPart part
        if self.all_offsets != NULL:
            return _numbers(self, self.all_offsets, self.all_partitions, self.length, wide)
        joined = bytearray()
        for item in parts:
            part = item
            one = _numbers(part, part.c.offsets, part.c.partitions, part.c.length, wide)
            if len(parts) == 1:
                return one
            joined += one
        return memoryview(bytes(joined)).cast("q" if wide else "i")

    def add_done_callback(self, callback):
        """Have `callback(batch)` called once every message has been reported: by the thread that serves the events, or at once here."""
        if not PyCallable_Check(callback):
            raise TypeError(f"callback must be callable, not {type(callback).__name__}")
        _check_runs(callback, "callback", False)
        self.heard = True
        self._observe(callback)

    def _observe(self, callback):
        """As add_done_callback, by who only looks on: failures nobody else hears of are still logged."""
        cdef bint later = False
        with cython.critical_section(self):
            if self.callbacks is not None:
                self.callbacks.append(callback)
                later = True
        if not later:
            callback(self)

    def __await__(self):
        # Only where it is used: importing it takes longer than importing all of this package.
        from asyncio import get_running_loop

        _know_asyncio()
        loop = get_running_loop()
        future = loop.create_future()
        self.add_done_callback(_Resolve(loop, future))
        return future.__await__()

    def __repr__(self):
        return f"<BatchDelivery of {self.length} to {self.topic}: {self.pending} pending, {self.failed} failed>"

    def __reduce__(self):
        if not self.ended:
            raise TypeError("a BatchDelivery can be pickled or copied only once it is done(): wait() for it first")
        return _restore_batch, (self.topic, self.ids, self.errors(), bytes(self.offsets), bytes(self.partitions))

    cdef int close_part(self) except -1:
        """One part fewer to wait for; with the last one there is nothing left but to tell it."""
        cdef int64_t left
        with cython.critical_section(self):
            self.open_parts -= 1
            left = self.open_parts
        if not left:
            to_be_completed(self.client, self)
        return 0

    cdef int complete(self) noexcept:
        """Tell who is to be told. It always comes to its end: whatever raises on the way, and where there is no memory either."""
        cdef ProducerClient client = self.client
        cdef list callbacks
        cdef Py_ssize_t i
        KX_ADD(client.batches.pending, -1)      # before anybody is told: who is may look
        try:
            if self.on_delivery is not None:
                call(client, self.on_delivery, (self,))
            elif self.failed and not self.heard:
                _log.warning("kafka_ext: %d of %d records of a batch to %s not delivered, and no callback to tell: %s",
                             self.failed, self.length, self.topic, self.errors()[0][1])
        except BaseException as exc:
            KX_ADD(client.callback_errors.count, self.on_delivery is not None)
            not_lost(client, exc)
        with cython.critical_section(self):
            callbacks = self.callbacks
            self.callbacks = None
            self.on_delivery = None
            self.ended = True
        try:
            self.finished.set()
        except BaseException as exc:            # who waits looks at `ended` every second
            not_lost(client, exc)
        for i in range(len(callbacks)):
            try:
                call(client, callbacks[i], (self,))
            except BaseException as exc:
                KX_ADD(client.callback_errors.count, 1)
                not_lost(client, exc)
        KX_ADD(client.batches.open, -1)
        return 0


def _restore_batch(topic, ids, errors, bytes offsets, bytes partitions):
    cdef BatchDelivery batch = BatchDelivery.__new__(BatchDelivery)
    batch.topic = topic
    batch.ids = ids
    batch.restored = errors
    batch.parts = []
    batch.length = len(partitions) // sizeof(int32_t)
    batch.ended = True
    batch.all_offsets = <int64_t *>malloc(len(offsets) or 1)        # freed with the batch
    batch.all_partitions = <int32_t *>malloc(len(partitions) or 1)
    if batch.all_offsets == NULL or batch.all_partitions == NULL:
        raise MemoryError()
    memcpy(batch.all_offsets, <const char *>offsets, len(offsets))
    memcpy(batch.all_partitions, <const char *>partitions, len(partitions))
    return batch


def _index_of(pair):
    return pair[0]


@cython.final
cdef class _Resolve:
    """Wakes the coroutine that awaits a batch, from whichever thread."""

    cdef object loop
    cdef object future

    def __init__(self, loop, future):
        self.loop = loop
        self.future = future

    def __call__(self, batch):
        try:
            self.loop.call_soon_threadsafe(self.resolve, batch)
        except RuntimeError:            # the loop is closed, and whoever waited is gone with it
            pass

    def resolve(self, batch):
        if not self.future.done():
            resolve(self.future, batch, False)


cdef int finish_parts(ProducerClient client, kx_part *part) noexcept:
    """Let go of what finished parts pin (rule 1: once, for the list is taken whole); complete_batches is to follow."""
    cdef kx_part *next
    cdef BatchPart owner
    while part != NULL:
        next = part.next
        kx_parts_remove(&client.batches.parts, part)
        owner = <BatchPart>part.owner
        Py_DECREF(owner)                # the reference that `_start_part` took
        owner.pins = None
        owner.batch.close_part()
        owner.batch = None              # no cycle: the batch's memory goes with the last reference to it
        part = next
    return 0


cdef int to_be_completed(ProducerClient client, BatchDelivery batch) noexcept:
    """Put `batch` into its place among those to be completed, the last one sent first: at the head, as a rule."""
    cdef BatchDelivery at
    with cython.critical_section(client):
        at = client.completed
        if at is None or at.number < batch.number:
            batch.next = at
            client.completed = batch
        else:
            while at.next is not None and at.next.number > batch.number:
                at = at.next
            batch.next = at.next
            at.next = batch
    KX_ADD(client.batches.completed_count, 1)
    return 0


cdef int64_t complete_batches(ProducerClient client) noexcept:
    """Complete the batches with which nobody has anything left to do, in the order in which they were sent; how many."""
    cdef int64_t count = 0
    cdef BatchDelivery batch, first = None, following
    with cython.critical_section(client):
        batch = client.completed
        client.completed = None
    while batch is not None:            # turned round: the oldest goes first
        following = batch.next
        batch.next = first
        first = batch
        batch = following
    while first is not None:
        batch = first
        first = batch.next
        batch.next = None
        KX_ADD(client.batches.completed_count, -1)
        batch.complete()
        count += 1
    return count


# ------------------------------------------------------------------ sending

cdef BatchDelivery _new_batch(ProducerClient client, str topic, on_delivery, ids, int64_t length):
    """A batch of `length` messages, or of as many as come: 0."""
    cdef BatchDelivery batch = BatchDelivery.__new__(BatchDelivery)
    batch.client = client
    batch.topic = topic
    batch.on_delivery = on_delivery
    batch.ids = ids
    batch.parts = []
    batch.callbacks = []
    batch.open_parts = 1
    with cython.critical_section(client):
        client.batches.last_number += 1
        batch.number = client.batches.last_number
    batch.finished = Event()
    if length > 0:
        batch.all_offsets = <int64_t *>malloc(length * sizeof(int64_t))
        batch.all_partitions = <int32_t *>malloc(length * sizeof(int32_t))
        if batch.all_offsets == NULL or batch.all_partitions == NULL:
            raise MemoryError()
    return batch


cdef int _end_of_sending(ProducerClient client, BatchDelivery batch) except -1:
    """All is enqueued or refused. A batch that is complete already is completed by the thread that serves, like any other.

    Only from here on does close() wait for the batch. One that ends while it is being sent leaves the rest to the sender: it fails.
    """
    KX_ADD(client.counts.batches, 1)
    KX_ADD(client.batches.pending, 1)
    KX_ADD(client.batches.open, 1)
    batch.close_part()
    if client.retain():
        rd_kafka_queue_yield(client.queue)      # where the last messages were refused, no report wakes who serves
        client.release()
    if client.life.state == CLOSED:                  # nobody serves any more
        kx_enter_callbacks()
        finish_parts(client, kx_parts_take_finished(&client.batches.parts))
        complete_batches(client)
        kx_leave_callbacks()
    return 0


cdef BatchPart _start_part(ProducerClient client, BatchDelivery batch, int64_t length, pins):
    """A part for the next `length` messages, which `pins` keeps in place (None: they are copied). Either all of it is done or nothing."""
    cdef BatchPart part = BatchPart()
    cdef int result
    if length > KX_MAX_BATCH:
        raise ValueError(f"a chunk holds at most {KX_MAX_BATCH} messages, not {length}")
    if batch.all_offsets != NULL:
        result = kx_part_init(&part.c, length, &batch.all_offsets[batch.length], &batch.all_partitions[batch.length])
    else:
        result = kx_part_init(&part.c, length, NULL, NULL)
    if result != 0:
        raise MemoryError()
    part.pins = pins
    part.batch = batch
    part.start = batch.length
    part.c.owner = <void *>part
    part.c.number = batch.number
    batch.parts.append(part)
    result = kx_parts_add(&client.batches.parts, &part.c)
    if result != 0:
        batch.parts.pop()
        part.batch = None
        if result == -1:
            raise MemoryError()
        raise QueueFullError(KafkaError(RD_KAFKA_RESP_ERR__QUEUE_FULL, "too many batches are in flight; wait for some of them"))
    # From here on nothing may fail: the part is known, and ends by its reports only.
    Py_INCREF(part)                     # released by finish_parts, after the last report
    batch.length += length
    with cython.critical_section(batch):
        batch.open_parts += 1
    return part


# A batch is sent by a generator, so that a thread can wait for room in the queue, and a coroutine too. It first yields the BatchDelivery,
# then True whenever the queue is full and False whenever it has only been at it for a while. Whoever drives it waits and resumes it until
# it ends, having set `gave_up` where the rest shall fail; or closes it. Either way each message ends up enqueued or failed.

cdef enum:
    GAVE_UP = 1


cdef int _enqueue_turns(ProducerClient client, BatchDelivery batch, kx_enqueue *e) except -2:
    """Enqueue some of a segment: 0 when it is through, GAVE_UP when the rest has failed, QUEUE_FULL, or -1: go on."""
    cdef int result
    # Another thread, or task, or a signal handler closes, or ends the transaction.
    if not batch.gave_up and (client.transaction.end is not None or not client.try_enter()):
        batch.gave_up = RD_KAFKA_RESP_ERR__STATE
    if batch.gave_up:
        with nogil:
            kx_enqueue_abandon(e, batch.gave_up)
        return GAVE_UP
    with nogil:
        result = kx_enqueue_some(e)
    KX_ADD(client.counts.sent, e.accepted)
    KX_ADD(client.counts.sent_bytes, e.accepted_bytes)
    client.leave()
    return result


cdef BatchDelivery _send_here(ProducerClient client, steps, bint may_wait, int64_t deadline):
    """Drive `steps` to the end on this thread, waiting for room as `send` does."""
    cdef unsigned long seen
    cdef int milliseconds
    cdef int64_t started
    cdef bint in_callback = kx_in_callback()
    cdef BatchDelivery batch = next(steps)
    try:
        while True:
            if client.life.state == OPEN:            # else another thread closes, and the rest fails
                client.let_signals()
            seen = kx_gate_seen(&client.life.gate)
            full = next(steps, None)
            if full is None:
                return batch
            if kx_releases_waiting(&client.releases):
                client.release_rest()
            if not full:
                continue
            if not may_wait or client.manual or in_callback:
                batch.gave_up = RD_KAFKA_RESP_ERR__QUEUE_FULL
            elif _expired(deadline):
                batch.gave_up = RD_KAFKA_RESP_ERR__TIMED_OUT
            else:
                started = kx_now_us()
                milliseconds = _remaining_ms(deadline, SLICE_MS)
                with nogil:
                    kx_gate_wait(&client.life.gate, seen, milliseconds)
                KX_ADD(client.counts.blocked_us, kx_now_us() - started)
    except BaseException as exc:
        # By a signal handler, which may have closed the producer too; or the generator's own, which has ended then.
        batch.gave_up = RD_KAFKA_RESP_ERR__STATE if isinstance(exc, ProducerClosedError) else RD_KAFKA_RESP_ERR__INTR
        steps.close()
        _remember_batch(exc, batch)
        raise


cdef int _check_lengths(int64_t length, int64_t other, str what) except -1:
    if other >= 0 and other != length:
        raise ValueError(f"{what} has {other} items, values has {length}")
    return 0


def send_batch(Producer producer, topic, values, keys, partitions, timestamps, headers, ids, on_delivery, option, action, timeout):
    cdef ProducerClient client = producer.handle
    cdef int64_t deadline = _deadline(timeout)
    cdef BatchDelivery batch = None
    try:
        _check_batch_arguments(producer, topic, on_delivery, option, action)
        client.check_usable()
        steps = _batch_steps(producer, topic, values, keys, partitions, timestamps, headers, ids, on_delivery, option is _COPY,
                             action is _BLOCK, deadline)
        batch = _send_here(client, steps, action is _BLOCK, deadline)
        return batch
    finally:
        if batch is None:
            producer._missed(None, RAISED)


def _batch_steps(Producer producer, topic, values, keys, partitions, timestamps, headers, ids, on_delivery, bint copy, bint may_wait,
                 int64_t deadline):
    cdef ProducerClient client = producer.handle
    cdef Column column, key_column = None
    cdef Integers partition_numbers = None, timestamp_numbers = None
    cdef tuple same_headers = None
    cdef list each_headers = None
    cdef Topic known
    cdef BatchDelivery batch
    cdef Column piece, key_piece
    cdef _Cursor values_left, keys_left
    cdef int64_t length
    known = client.topic(topic)
    column = column_of(values, "values")
    if keys is not None:
        key_column = column_of(keys, "keys", column.length)
        _check_lengths(column.length, key_column.length, "keys")
    if partitions is not None:
        partition_numbers = integers_of(partitions, "partitions", 0, INT32_MAX)
        _check_lengths(column.length, partition_numbers.length, "partitions")
    if timestamps is not None:
        timestamp_numbers = integers_of(timestamps, "timestamps", 1, INT64_MAX)
        _check_lengths(column.length, timestamp_numbers.length, "timestamps")
    if headers is not None:
        same_headers, each_headers = _batch_headers(headers, column.length)
    if ids is not None:
        if not hasattr(ids, "__len__"):
            raise TypeError(f"ids must be a sequence, one for each value, not {type(ids).__name__}")
        _check_lengths(column.length, len(ids), "ids")
    if producer._partitioner is not None and _leaves_some(partition_numbers):
        partition_numbers = _chosen_partitions(producer, client, known, key_column, column.length, partition_numbers, may_wait, deadline)
    batch = _new_batch(client, known.name, on_delivery, ids, column.length)
    values_left = _cursor(column)
    keys_left = None if key_column is None else _cursor(key_column)
    try:
        yield batch
        while batch.length < column.length:
            length = min(column.length - batch.length, PART)
            piece = values_left.take(length)
            key_piece = None if keys_left is None else keys_left.take(length)
            yield from _column_steps(client, known, batch, piece, key_piece, partition_numbers, timestamp_numbers, same_headers,
                                     each_headers, copy)
    except BaseException as exc:
        if batch.length:
            _fail_rest(client, batch, column.length)
        _remember_batch(exc, batch)
        raise
    finally:
        _end_of_sending(client, batch)


cdef int _fail_rest(ProducerClient client, BatchDelivery batch, int64_t until) except -1:
    """What an interruption left without a part: each has its index, and failed."""
    cdef kx_enqueue e
    cdef kx_segment rest
    cdef BatchPart part
    if batch.length == until:
        return 0
    part = _start_part(client, batch, until - batch.length, None)
    memset(&rest, 0, sizeof(rest))
    rest.layout = KX_NULLS
    rest.length = part.c.length
    memset(&e, 0, sizeof(e))
    e.part = &part.c
    e.parts = &client.batches.parts
    e.values = &rest
    kx_enqueue_abandon(&e, batch.gave_up or RD_KAFKA_RESP_ERR__INTR)
    return 0


cdef int _remember_batch(exc, BatchDelivery batch) except -1:
    """What was enqueued before an interruption is not lost track of; where nothing was, there is nobody to call."""
    if batch.length == 0:
        batch.on_delivery = None
    try:
        exc.batch = batch
    except AttributeError:
        pass
    return 0


cdef int _check_batch_arguments(Producer producer, topic, on_delivery, option, action) except -1:
    if not isinstance(topic, str):
        raise TypeError(
            f"topic must be a str, not {type(topic).__name__}: send_batch(topic, values), or send_table(table, topic=…, value=…)")
    if on_delivery is not None:
        _check_callback(on_delivery, "on_delivery")
    if option is not _COPY and option is not _NO_COPY:
        raise TypeError(f"option must be a SendOption, not {_shorten(option)}")
    if action is not _BLOCK and action is not _NO_BLOCK:
        raise TypeError(f"action must be an ActionWhileQueueIsFull, not {_shorten(action)}")
    if producer._interceptors is not None:
        raise KafkaException(KafkaError(
            ErrorCode["NOT_IMPLEMENTED"],
            "interceptors see records one by one, and a batch has none: send() them, or use a producer without"))
    if producer._serializers is not None:
        raise KafkaException(KafkaError(
            ErrorCode["NOT_IMPLEMENTED"],
            "value_serializer and key_serializer see records one by one, and a batch has none: give it a column that is serialized "
            "already, to a producer without them, or send() records"))
    cdef ProducerClient client = producer.handle
    if client.transaction.end is not None or client.transaction.state not in (NO_TRANSACTIONS, IN_TRANSACTION):
        raise KafkaException(refused_outside(client))
    return 0


cdef tuple _batch_headers(object headers, int64_t length):
    """`(the same for all, None)` or `(None, one for each)`."""
    if isinstance(headers, _Mapping):
        return _checked_headers(headers), None
    if isinstance(headers, (str, bytes, bytearray)) or not hasattr(headers, "__iter__"):
        raise TypeError(f"headers must be (name, value) pairs or a sequence of such lists, not {type(headers).__name__}")
    rows = list(headers)
    cdef list each = []
    for row in rows:
        if not (isinstance(row, tuple) and len(row) == 2 and isinstance(row[0], str)):
            break
    else:
        return _checked_headers(rows), None
    _check_lengths(length, len(rows), "headers")
    # An iterator gives its pairs once: where the same one stands in several rows, each of them gets what it gave.
    cdef dict read = {}
    for row in rows:
        if row is None:
            each.append(())
        elif not hasattr(row, "__next__"):
            each.append(_checked_headers(row))
        else:
            if id(row) not in read:
                read[id(row)] = _checked_headers(row)
            each.append(read[id(row)])
    return None, each


cdef tuple _checked_headers(object headers):
    """Wrong ones are found before anything is enqueued."""
    cdef tuple pairs = _header_pairs(headers)
    rd_kafka_headers_destroy(_make_headers(pairs))
    return pairs


cdef bint _leaves_some(Integers partitions) noexcept:
    """Whether a partition may be left to the partitioner."""
    return partitions is None or partitions.c.blanks or partitions.c.validity != NULL


cdef Integers _chosen_partitions(
        Producer producer, ProducerClient client, Topic topic, Column keys, int64_t length,
        Integers given, bint may_wait, int64_t deadline):
    """Ask a partitioner written in Python for each key whose partition is not given, before anything is enqueued."""
    cdef int64_t partition
    cdef kx_span span
    cdef int64_t _i
    cdef size_t segment = 0
    cdef int64_t at = 0
    chosen = _array("i")
    for _i in range(length):
        key = None
        if keys is not None:
            while keys.length >= 0 and at == kx_segment_length(&keys.segments[segment]):
                segment += 1
                at = 0
            span = kx_segment_at(&keys.segments[segment], at)
            at += 1
            if span.data == kx_changed:
                raise ValueError("keys: the column's memory was written to while it was read")
            if span.data != NULL:
                key = (<const char *>span.data)[:span.size]
        partition = NO_PARTITION if given is None else kx_integer_at(&given.c, _i, NO_PARTITION)
        if partition == NO_PARTITION:
            partition = producer._choose_partition(client, topic, key, may_wait, deadline)
        chosen.append(partition)
    return integers_of(chosen, "partitions", 0, INT32_MAX)


def _column_steps(
        ProducerClient client, Topic topic, BatchDelivery batch, Column values, Column keys,
        Integers partitions, Integers timestamps, tuple same_headers, list each_headers, bint copy):
    """Enqueue the batch's next piece of values and keys, run by run: as far as one segment of each goes.

    Of partitions, timestamps and headers the whole batch's are given.
    """
    cdef BatchPart part = None
    cdef int64_t start = batch.length
    cdef kx_enqueue e
    cdef kx_segment value_run, key_run
    cdef kx_integers partition_run, timestamp_run
    cdef size_t value_segment = 0, key_segment = 0
    cdef int64_t value_at = 0, key_at = 0, run
    cdef rd_kafka_headers_t *headers = NULL         # owned
    cdef rd_kafka_headers_t **window = NULL         # owned, and so are those in it
    cdef int64_t i, windowed = 0
    cdef int result = 0
    memset(&e, 0, sizeof(e))
    e.turns = LOOP_TURNS if client.loop is not None else 0
    e.copy = copy
    e.rk = client.rk
    e.topic = topic.rkt
    e.parts = &client.batches.parts
    try:
        part = _start_part(client, batch, values.length, None if copy else values.pins)
        e.part = &part.c
        if same_headers:
            headers = _make_headers(same_headers)
            e.headers = headers
        if each_headers is not None:
            window = <rd_kafka_headers_t **>malloc(HEADER_WINDOW * sizeof(void *))
            if window == NULL:
                raise MemoryError()
            e.each_headers = window
        while e.base < part.c.length:
            while value_at == kx_segment_length(&values.segments[value_segment]):
                value_segment += 1
                value_at = 0
            run = kx_segment_length(&values.segments[value_segment]) - value_at
            if keys is not None:
                while keys.length >= 0 and key_at == kx_segment_length(&keys.segments[key_segment]):
                    key_segment += 1
                    key_at = 0
                if keys.length >= 0:
                    run = min(run, kx_segment_length(&keys.segments[key_segment]) - key_at)
                key_run = kx_segment_slice(&keys.segments[key_segment], key_at if keys.length >= 0 else 0, run)
                e.keys = &key_run
            if each_headers is not None:
                run = min(run, HEADER_WINDOW)
                windowed = 0
                for i in range(run):
                    pairs = each_headers[start + e.base + i]
                    window[i] = _make_headers(pairs) if pairs else NULL
                    windowed += 1
            value_run = kx_segment_slice(&values.segments[value_segment], value_at, run)
            e.values = &value_run
            if partitions is not None:
                partition_run = partitions.c
                partition_run.offset += start + e.base
                e.partitions = &partition_run
            if timestamps is not None:
                timestamp_run = timestamps.c
                timestamp_run.offset += start + e.base
                e.timestamps = &timestamp_run
            e.next = 0
            while True:
                result = _enqueue_turns(client, batch, &e)
                if result == 0 or result == GAVE_UP:
                    break
                yield result == RD_KAFKA_RESP_ERR__QUEUE_FULL
            for i in range(windowed):
                if window[i] != NULL:
                    rd_kafka_headers_destroy(window[i])
            windowed = 0
            e.values = NULL
            e.base += run
            if result == GAVE_UP:
                break
            value_at += run
            key_at += run
    finally:
        for i in range(windowed):
            if window[i] != NULL:
                rd_kafka_headers_destroy(window[i])
        free(window)
        if headers != NULL:
            rd_kafka_headers_destroy(headers)
        # Given up, or interrupted: what is left of the run at hand (nothing, as a rule), then what comes behind it.
        if e.values != NULL:
            kx_enqueue_abandon(&e, batch.gave_up or RD_KAFKA_RESP_ERR__INTR)
            e.base += kx_segment_length(e.values)
        if part is not None and e.base < part.c.length:
            memset(&value_run, 0, sizeof(value_run))
            value_run.layout = KX_NULLS
            value_run.length = part.c.length - e.base
            e.values = &value_run
            e.next = 0
            kx_enqueue_abandon(&e, batch.gave_up or RD_KAFKA_RESP_ERR__INTR)


def send_table(Producer producer, table, topic, value, key, partition, timestamp, headers, on_delivery, option, action, timeout):
    cdef ProducerClient client = producer.handle
    cdef int64_t deadline = _deadline(timeout)
    cdef BatchDelivery batch = None
    try:
        _check_batch_arguments(producer, topic, on_delivery, option, action)
        client.check_usable()
        steps = _table_steps(producer, table, topic, value, key, partition, timestamp, headers, on_delivery, option is _COPY,
                             action is _BLOCK, deadline)
        batch = _send_here(client, steps, action is _BLOCK, deadline)
        return batch
    finally:
        if batch is None:
            producer._missed(None, RAISED)


def _table_steps(Producer producer, table, topic, value, key, partition, timestamp, headers, on_delivery, bint copy, bint may_wait,
                 int64_t deadline):
    cdef ProducerClient client = producer.handle
    cdef _Stream stream = _Stream()
    cdef BatchDelivery batch
    cdef Topic known
    if not _is_arrow(table):
        raise TypeError(
            f"table must have __arrow_c_stream__ or __arrow_c_array__ (pyarrow, Polars, DuckDB, pandas), not {type(table).__name__}")
    if isinstance(headers, str):
        raise TypeError("headers must be a sequence of column names, not a str")
    names = []
    for name in headers:
        names.append(_plain(name))
    value, key, partition, timestamp = _plain(value), _plain(key), _plain(partition), _plain(timestamp)
    known = client.topic(topic)
    stream.open(table, "table")
    if stream.schema.format.decode() != "+s":
        raise TypeError(f"table must be a table or struct array, not an Arrow column of {_arrow_type(stream.schema.format.decode())}")
    columns = []
    for i in range(stream.schema.n_children):
        columns.append(_column_name(stream, i))
    where = {}
    for role, name in (("value", value), ("key", key), ("partition", partition), ("timestamp", timestamp),
                       *(("headers", header) for header in names)):
        if name is None:
            if role == "value":
                raise TypeError("value must be the name of a column")
            continue
        if not isinstance(name, str):
            raise TypeError(f"{role} must be the name of a column, not {type(name).__name__}")
        if name not in columns:
            raise ValueError(f"{role}: the table has no column {name!r}; it has {', '.join(columns)}")
        if columns.count(name) > 1:
            raise ValueError(f"{role}: the table has {columns.count(name)} columns {name!r}; rename or drop all but one")
        where[name] = columns.index(name)
    batch = _new_batch(client, known.name, on_delivery, None, 0)
    try:
        yield batch
        while True:
            holder = stream.next()
            if holder is None:
                break
            yield from _chunk_steps(producer, client, known, batch, stream, holder, where, value, key, partition, timestamp, names, copy,
                                    may_wait, deadline)
            yield False
    except BaseException as exc:
        _remember_batch(exc, batch)
        raise
    finally:
        _end_of_sending(client, batch)


cdef object _plain(object name):
    return exact_str(name) if isinstance(name, str) else name


cdef str _column_name(_Stream stream, int64_t i):
    if stream.schema.children == NULL or stream.schema.children[i] == NULL:
        raise ValueError("table: malformed Arrow schema: a column is missing")
    if stream.schema.children[i].name == NULL:
        return ""
    return stream.schema.children[i].name.decode("utf-8", "replace")


cdef Column _child_column(_Stream stream, kx_arrow_array *array, int child, str what):
    """Column `child` of a chunk, sliced as the chunk is."""
    cdef Column column = Column()
    _check_no_addresses(stream, stream.schema.children[child], what)
    column.add_arrow(stream.schema.children[child], array.children[child], what, array)
    return column


cdef Integers _child_integers(_Stream stream, kx_arrow_array *array, int child, str what, int64_t least, int64_t most):
    cdef Integers integers = Integers()
    cdef char[128] text
    cdef const char *problem = kx_integers_from_arrow(
        stream.schema.children[child], array.children[child], least > 0, &integers.c, text, sizeof(text))
    _arrow_problem(problem, text, what, _integers_wanted(least))
    if array.length > integers.c.length - array.offset:
        raise ValueError(f"{what}: malformed Arrow array: a column shorter than its table")
    integers.c.offset += array.offset
    integers.c.length = integers.length = array.length
    _check_integers(integers, what, least, most)
    return integers


def _chunk_steps(Producer producer, ProducerClient client, Topic topic, BatchDelivery batch, _Stream stream, holder, dict where, value, key,
                 partition, timestamp, list header_names, bint copy, bint may_wait, int64_t deadline):
    cdef kx_arrow_array *array = _array_of(holder)
    cdef Column values, keys = None
    cdef Integers partitions = None, timestamps = None
    cdef const char *problem = kx_table_check(stream.schema, array)
    if problem != NULL:
        raise ValueError(f"table: malformed Arrow array: {problem.decode()}")
    if kx_table_has_nulls(array):
        raise ValueError("table: a struct array with null rows cannot be sent; drop them first")
    values = _child_column(stream, array, where[value], f"value ({value})")
    if key is not None:
        keys = _child_column(stream, array, where[key], f"key ({key})")
    if partition is not None:
        partitions = _child_integers(stream, array, where[partition], f"partition ({partition})", 0, INT32_MAX)
    if producer._partitioner is not None and _leaves_some(partitions):
        partitions = _chosen_partitions(producer, client, topic, keys, values.length, partitions, may_wait, deadline)
    if timestamp is not None:
        timestamps = _child_integers(stream, array, where[timestamp], f"timestamp ({timestamp})", 1, INT64_MAX)
    header_columns = []
    for name in header_names:
        header_columns.append(_child_column(stream, array, where[name], f"headers ({name})"))
    if values.length == 0:
        return
    yield from _rows_steps(client, topic, batch, values, keys, partitions, timestamps, header_names, header_columns,
                           None if copy else holder)


def _rows_steps(
        ProducerClient client, Topic topic, BatchDelivery batch, Column values, Column keys,
        Integers partitions, Integers timestamps, list header_names, list header_columns, pins):
    """Enqueue a chunk of a table, one segment of each column, which `pins` keeps in place (None: its values are copied)."""
    cdef kx_enqueue e
    cdef BatchPart part = None
    cdef int result = 0
    cdef size_t i, count = len(header_columns)
    cdef kx_segment *segments = NULL        # owned
    cdef const char **names = NULL          # owned; what it points at is kept by `encoded`
    memset(&e, 0, sizeof(e))
    try:
        part = _start_part(client, batch, values.length, pins)
        encoded = []
        for name in header_names:
            encoded.append(name.encode())
        if count:
            segments = <kx_segment *>malloc(count * sizeof(kx_segment))
            names = <const char **>malloc(count * sizeof(char *))
            if segments == NULL or names == NULL:
                raise MemoryError()
            for i in range(count):
                segments[i] = (<Column>header_columns[i]).segments[0]
                names[i] = <bytes>encoded[i]
        e.turns = LOOP_TURNS if client.loop is not None else 0
        e.header_columns = segments
        e.header_names = names
        e.header_count = count
        e.copy = pins is None
        e.rk = client.rk
        e.topic = topic.rkt
        e.part = &part.c
        e.parts = &client.batches.parts
        e.values = &values.segments[0]
        if keys is not None:
            e.keys = &keys.segments[0]
        if partitions is not None:
            e.partitions = &partitions.c
        if timestamps is not None:
            e.timestamps = &timestamps.c
        while True:
            result = _enqueue_turns(client, batch, &e)
            if result == 0 or result == GAVE_UP:
                break
            yield result == RD_KAFKA_RESP_ERR__QUEUE_FULL
    finally:
        # Interrupted, or nothing could be tried: all that is left fails. As a rule nothing is.
        if part is not None:
            e.part = &part.c
            e.parts = &client.batches.parts
            e.values = &values.segments[0]
            kx_enqueue_abandon(&e, batch.gave_up or RD_KAFKA_RESP_ERR__INTR)
        free(segments)
        free(<void *>names)
