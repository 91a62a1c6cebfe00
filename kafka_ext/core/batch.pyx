# Batches: columns in, one object out that knows what became of each message. The loop itself is C, in include/kafka_ext/batch.h.

import asyncio as _asyncio

from cpython.buffer cimport PyBUF_WRITABLE

# With one list of headers for each message, so many are made at a time.
cdef enum:
    HEADER_WINDOW = 16384


@cython.final
cdef class BatchPart:
    """Messages of known number: a whole batch, or a chunk of a stream. What they pin goes with the last report."""

    cdef kx_part c
    cdef object pins                # what keeps the values in place; None when librdkafka copied them
    cdef BatchDelivery batch
    cdef int64_t start              # the index, in the batch, of the first

    def __dealloc__(self):
        kx_part_destroy(&self.c)


@cython.final
cdef class _Numbers:
    """A buffer over a part's own memory."""

    cdef BatchPart part             # keeps the memory
    cdef void *data                 # borrowed from `part`
    cdef Py_ssize_t[1] shape
    cdef Py_ssize_t[1] strides
    cdef bint wide

    def __getbuffer__(self, Py_buffer *view, int flags):
        if flags & PyBUF_WRITABLE:
            raise BufferError("read-only")
        view.buf = self.data
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


cdef object _numbers(BatchPart part, bint wide):
    cdef _Numbers numbers = _Numbers.__new__(_Numbers)
    numbers.part = part
    numbers.wide = wide
    numbers.data = <void *>part.c.offsets if wide else <void *>part.c.partitions
    numbers.shape[0] = part.c.length
    numbers.strides[0] = 8 if wide else 4
    return memoryview(numbers)


@cython.final
cdef class BatchDelivery:
    """What becomes of a batch: the result of `send_batch` and `send_table`. Thread-safe; `await` it, `wait` for it, or leave it.

    Attributes:
        pending (int): messages without a report yet.
        failed (int): messages that were not enqueued or not delivered, so far.
        offsets (memoryview): int64, by index; -1 while, or where, it is not known. NumPy and Arrow take it without a copy; complete once
            `done()`.
        partitions (memoryview): int32, in the same way.
        ids (object): what was given as `ids`.
        topic (str): where it went.
    """

    cdef readonly object ids
    cdef readonly str topic
    cdef list parts                 # BatchPart
    cdef int64_t length
    cdef int64_t open_parts         # those without all reports, and one more while the enqueueing goes on
    cdef object on_delivery
    cdef list callbacks             # add_done_callback's; None once done
    cdef object finished            # threading.Event
    cdef object lock
    cdef Handle handle
    cdef int gave_up                # the code all that is not enqueued yet fails with; 0: none
    cdef object __weakref__

    def __init__(self):
        raise TypeError("a BatchDelivery is made by send_batch and send_table only")

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
        for item in self.parts:
            part = item
            failed += KX_LOAD(part.c.failed)
        return failed

    def done(self):
        """Whether every message has been reported, and `on_delivery` has returned."""
        return self.finished.is_set()

    def wait(self, timeout=None):
        """Wait until every message has been reported; True.

        Under manual polling it serves the producer's events meanwhile.

        Raises:
            KafkaTimeoutError: messages are still without a report after `timeout` seconds. They stay on their way.
            KafkaException: called inside a callback of the same producer.
        """
        cdef int64_t deadline = _deadline(timeout)
        if self.finished.is_set():
            return True
        self.handle.check_not_in_callback("wait")
        while not self.finished.is_set():
            if self.handle.forked:
                self.handle.refuse()            # its reports come to the parent
            if self.handle.manual and not self.handle.closing:
                self.handle.enter()
                try:
                    serve_here(self.handle, _remaining_ms(deadline, SLICE_MS))
                finally:
                    self.handle.leave()
                _raise_callbacks(self.handle.take_raised())
                PyErr_CheckSignals()
            else:
                self.finished.wait(_remaining_ms(deadline, 1000) / 1000.0)
            if not self.finished.is_set() and _expired(deadline):
                raise KafkaTimeoutError(KafkaError(
                    RD_KAFKA_RESP_ERR__TIMED_OUT, f"{self.pending} of {self.length} records have no report after {timeout} s"))
        return True

    def errors(self):
        """What failed, so far: `(index, KafkaError)` in the order of the index."""
        cdef BatchPart part
        cdef kx_failure *failures               # owned
        cdef size_t i, count
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
        if self.handle.rk != NULL:
            fatal = _fatal_error(self.handle.rk)
            if fatal is not None and (code == RD_KAFKA_RESP_ERR__FATAL or fatal == code):
                return fatal
        return KafkaError(code)

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
        if len(parts) == 1:
            return _numbers(parts[0], wide)
        joined = b"".join([_numbers(part, wide) for part in parts])
        return memoryview(joined).cast("q" if wide else "i")

    def add_done_callback(self, callback):
        """Have `callback(batch)` called once every message has been reported: by the thread that serves the events, or at once here."""
        if not PyCallable_Check(callback):
            raise TypeError(f"callback must be callable, not {type(callback).__name__}")
        with self.lock:
            if self.callbacks is not None:
                self.callbacks.append(callback)
                return
        callback(self)

    def __await__(self):
        loop = _asyncio.get_running_loop()
        future = loop.create_future()
        self.add_done_callback(_Resolve(loop, future))
        return future.__await__()

    def __repr__(self):
        return f"<BatchDelivery of {self.length} to {self.topic}: {self.pending} pending, {self.failed} failed>"

    cdef int close_part(self) except -1:
        """One part fewer to wait for; the last one completes the batch."""
        with self.lock:
            self.open_parts -= 1
            if self.open_parts:
                return 0
        self.complete()
        return 0

    cdef int complete(self) except -1:
        cdef Handle handle = self.handle
        if self.on_delivery is not None:
            call(handle, self.on_delivery, (self,))
        elif self.failed:
            _log.warning("%d of %d records of a batch to %s not delivered, and no callback to tell: %s", self.failed, self.length,
                         self.topic, self.errors()[0][1])
        with self.lock:
            callbacks = self.callbacks
            self.callbacks = None
            self.on_delivery = None
        self.finished.set()
        for callback in callbacks:
            call(handle, callback, (self,))
        KX_ADD(handle.open_batches, -1)
        return 0


def _index_of(pair):
    return pair[0]


def _raise_callbacks(raised):
    from kafka_ext.producer import _raise_all

    _raise_all(raised)


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
            self.future.set_result(batch)


cdef int finish_parts(Handle handle, kx_part *part) noexcept:
    """Let go of what finished parts pin (rule 1: once, for the list is taken whole), and complete their batches."""
    cdef kx_part *next
    cdef BatchPart owner
    while part != NULL:
        next = part.next
        kx_parts_remove(&handle.parts, part)
        owner = <BatchPart>part.owner
        Py_DECREF(owner)                # the reference that `_start_part` took
        owner.pins = None
        try:
            owner.batch.close_part()
        except BaseException as exc:
            unraisable(exc, owner.batch)
        owner.batch = None              # no cycle: the batch's memory goes with the last reference to it
        part = next
    return 0


cdef int64_t complete_batches(Handle handle) noexcept:
    """Complete the batches whose sender was the last to have something to do with them; how many."""
    cdef int64_t count = 0
    while handle.completed:
        batch = handle.completed.pop(0)
        KX_ADD(handle.completed_count, -1)
        try:
            (<BatchDelivery>batch).complete()
        except BaseException as exc:
            unraisable(exc, batch)
        count += 1
    return count


# ------------------------------------------------------------------ sending

cdef BatchDelivery _new_batch(Handle handle, str topic, on_delivery, ids):
    cdef BatchDelivery batch = BatchDelivery.__new__(BatchDelivery)
    batch.handle = handle
    batch.topic = topic
    batch.on_delivery = on_delivery
    batch.ids = ids
    batch.parts = []
    batch.callbacks = []
    batch.open_parts = 1
    batch.finished = _threading.Event()
    batch.lock = _threading.Lock()
    return batch


cdef int _end_of_sending(Handle handle, BatchDelivery batch) except -1:
    """All is enqueued or refused. A batch that is complete already is completed by the thread that serves, like any other.

    Only from here on does close() wait for the batch: before, it waits for the call that sends it.
    """
    cdef int64_t open_parts
    if handle.state == CLOSED:          # by a signal handler, in the midst of sending: nobody serves any more
        finish_parts(handle, kx_parts_take_finished(&handle.parts))
    with batch.lock:
        KX_ADD(handle.open_batches, 1)
        batch.open_parts -= 1
        open_parts = batch.open_parts
    if not open_parts:
        handle.completed.append(batch)
        KX_ADD(handle.completed_count, 1)
    if handle.state == CLOSED:
        complete_batches(handle)
    else:
        rd_kafka_queue_yield(handle.queue)      # where the last messages were refused, no report wakes who serves
    return 0


cdef BatchPart _start_part(Handle handle, BatchDelivery batch, int64_t length, pins):
    cdef BatchPart part = BatchPart()
    cdef int result
    if length > KX_MAX_BATCH:
        raise ValueError(f"a batch holds at most {KX_MAX_BATCH} messages, not {length}")
    if kx_part_init(&part.c, length) != 0:
        raise MemoryError()
    result = kx_parts_add(&handle.parts, &part.c)
    if result == -1:
        raise MemoryError()
    if result != 0:
        raise QueueFullError(KafkaError(RD_KAFKA_RESP_ERR__QUEUE_FULL, "too many batches are in flight; wait for some of them"))
    part.c.owner = <void *>part
    Py_INCREF(part)                     # released by finish_parts, after the last report
    part.pins = pins
    part.batch = batch
    part.start = batch.length
    batch.parts.append(part)
    batch.length += length
    with batch.lock:
        batch.open_parts += 1
    return part


cdef int _enqueue_segment(Handle handle, kx_enqueue *e, bint may_wait, int64_t deadline) except -1:
    """Enqueue one segment, waiting for room as `send` does: 0, or 1 when it gave up, for good, at `part.batch.gave_up`.

    Each message ends up enqueued or failed, also when this raises.
    """
    cdef unsigned long seen
    cdef int result, milliseconds
    cdef int64_t started
    cdef bint in_callback = kx_in_callback()
    cdef BatchDelivery batch = (<BatchPart>e.part.owner).batch
    try:
        while not batch.gave_up:
            if handle.state != OPEN:            # another thread closes
                batch.gave_up = RD_KAFKA_RESP_ERR__STATE
                break
            handle.let_signals()
            seen = kx_gate_seen(&handle.gate)
            with nogil:
                result = kx_enqueue_some(e)
            KX_ADD(handle.sent, e.accepted)
            KX_ADD(handle.sent_bytes, e.accepted_bytes)
            e.accepted = e.accepted_bytes = 0
            if result == 0:
                return 0
            if kx_releases_waiting(&handle.releases):
                kx_releases_empty(&handle.releases, &handle.pool)
            if result != RD_KAFKA_RESP_ERR__QUEUE_FULL:
                continue
            if not may_wait or handle.manual or in_callback:
                batch.gave_up = RD_KAFKA_RESP_ERR__QUEUE_FULL
            elif _expired(deadline):
                batch.gave_up = RD_KAFKA_RESP_ERR__TIMED_OUT
            else:
                started = kx_now_us()
                milliseconds = _remaining_ms(deadline, SLICE_MS)
                with nogil:
                    kx_gate_wait(&handle.gate, seen, milliseconds)
                KX_ADD(handle.blocked_us, kx_now_us() - started)
    except ProducerClosedError:                 # by a signal handler
        batch.gave_up = RD_KAFKA_RESP_ERR__STATE
        raise
    except BaseException:
        batch.gave_up = RD_KAFKA_RESP_ERR__INTR
        raise
    finally:
        if batch.gave_up:
            with nogil:
                kx_enqueue_abandon(e, batch.gave_up)
    return 1


cdef extern from "Python.h":
    void Py_INCREF(object o) noexcept


cdef int _check_lengths(int64_t length, int64_t other, str what) except -1:
    if other >= 0 and other != length:
        raise ValueError(f"{what} has {other} items, values has {length}")
    return 0


def send_batch(Producer producer, topic, values, keys, partitions, timestamps, headers, ids, on_delivery, option, action, timeout):
    cdef Handle handle = producer.handle
    cdef bint copy = option is _COPY
    cdef int64_t deadline = _deadline(timeout)
    cdef Column column, key_column = None
    cdef Integers partition_numbers = None, timestamp_numbers = None
    cdef tuple same_headers = None
    cdef list each_headers = None
    cdef Topic known
    cdef BatchDelivery batch
    cdef BatchPart part
    _check_batch_arguments(producer, topic, on_delivery, option, action)
    handle.enter()
    try:
        known = handle.topic(topic)
        column = column_of(values, "values", False)
        if keys is not None:
            key_column = column_of(keys, "keys", True)
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
            _check_lengths(column.length, len(ids), "ids")
        if partition_numbers is None and producer._partitioner is not None:
            partition_numbers = _chosen_partitions(
                producer, handle, known, key_column, column.length,
                action is _BLOCK, deadline)
        batch = _new_batch(handle, known.name, on_delivery, ids)
        try:
            if column.length:
                part = _start_part(handle, batch, column.length, None if copy else column.pins)
                _enqueue_column(handle, known, part, column, key_column, partition_numbers, timestamp_numbers,
                                same_headers, each_headers, copy, action is _BLOCK, deadline)
        except BaseException as exc:
            _remember_batch(exc, batch)
            raise
        finally:
            _end_of_sending(handle, batch)
        return batch
    finally:
        handle.leave()


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
        raise TypeError(f"topic must be a str, not {type(topic).__name__}")
    if on_delivery is not None and not PyCallable_Check(on_delivery):
        raise TypeError(f"on_delivery must be callable or None, not {type(on_delivery).__name__}")
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
    return 0


cdef tuple _batch_headers(object headers, int64_t length):
    """`(the same for all, None)` or `(None, one for each)`."""
    if isinstance(headers, _Mapping):
        return _checked_headers(headers), None
    if isinstance(headers, (str, bytes, bytearray)):
        raise TypeError(f"headers must be (name, value) pairs or a sequence of such lists, not {type(headers).__name__}")
    rows = list(headers)
    if all([isinstance(row, tuple) and len(row) == 2 and isinstance(row[0], str) for row in rows]):
        return _checked_headers(rows), None
    _check_lengths(length, len(rows), "headers")
    return None, [() if row is None else _checked_headers(row) for row in rows]


cdef tuple _checked_headers(object headers):
    """Wrong ones are found before anything is enqueued."""
    cdef tuple pairs = _header_pairs(headers)
    rd_kafka_headers_destroy(_make_headers(pairs))
    return pairs


cdef Integers _chosen_partitions(Producer producer, Handle handle, Topic topic, Column keys, int64_t length, bint may_wait,
                                 int64_t deadline):
    """Ask a partitioner written in Python for each key, before anything is enqueued."""
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
            if span.data != NULL:
                key = (<const char *>span.data)[:span.size]
        chosen.append(producer._choose_partition(handle, topic, key, may_wait, deadline))
    return integers_of(chosen, "partitions", 0, INT32_MAX)


cdef int _enqueue_column(Handle handle, Topic topic, BatchPart part, Column values, Column keys, Integers partitions,
                         Integers timestamps, tuple same_headers, list each_headers, bint copy, bint may_wait,
                         int64_t deadline) except -1:
    """Enqueue a column of values, run by run: as far as one segment of each column goes."""
    cdef kx_enqueue e
    cdef kx_segment value_run, key_run
    cdef kx_integers partition_run, timestamp_run
    cdef size_t value_segment = 0, key_segment = 0
    cdef int64_t value_at = 0, key_at = 0, run
    cdef rd_kafka_headers_t *headers = NULL         # owned
    cdef rd_kafka_headers_t **window = NULL         # owned, and so are those in it
    cdef int64_t i, windowed = 0
    cdef int gave_up
    memset(&e, 0, sizeof(e))
    e.copy = copy
    e.rk = handle.rk
    e.topic = topic.rkt
    e.part = &part.c
    e.parts = &handle.parts
    try:
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
                    window[i] = _make_headers(each_headers[e.base + i]) if each_headers[e.base + i] else NULL
                    windowed += 1
            value_run = kx_segment_slice(&values.segments[value_segment], value_at, run)
            e.values = &value_run
            if partitions is not None:
                partition_run = partitions.c
                partition_run.offset += e.base
                e.partitions = &partition_run
            if timestamps is not None:
                timestamp_run = timestamps.c
                timestamp_run.offset += e.base
                e.timestamps = &timestamp_run
            e.next = 0
            gave_up = _enqueue_segment(handle, &e, may_wait, deadline)
            for i in range(windowed):
                if window[i] != NULL:
                    rd_kafka_headers_destroy(window[i])
            windowed = 0
            e.values = NULL
            e.base += run
            if gave_up:
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
        # Given up, or interrupted: the run at hand has been answered by _enqueue_segment, what comes behind it is here.
        if e.values != NULL:
            e.base += kx_segment_length(e.values)
        if e.base < part.c.length:
            memset(&value_run, 0, sizeof(value_run))
            value_run.layout = KX_NULLS
            value_run.length = part.c.length - e.base
            e.values = &value_run
            e.next = 0
            kx_enqueue_abandon(&e, part.batch.gave_up or RD_KAFKA_RESP_ERR__INTR)
    return 0


def send_table(Producer producer, table, topic, value, key, partition, timestamp, headers, on_delivery, option, action, timeout):
    cdef Handle handle = producer.handle
    cdef bint copy = option is _COPY
    cdef int64_t deadline = _deadline(timeout)
    cdef _Stream stream = _Stream()
    cdef BatchDelivery batch
    cdef Topic known
    _check_batch_arguments(producer, topic, on_delivery, option, action)
    if not _is_arrow(table):
        raise TypeError(
            f"table must have __arrow_c_stream__ or __arrow_c_array__ (pyarrow, Polars, DuckDB, pandas), not {type(table).__name__}")
    if isinstance(headers, str):
        raise TypeError("headers must be a sequence of column names, not a str")
    names = list(headers)
    handle.enter()
    try:
        known = handle.topic(topic)
        stream.open(table, "table")
        if stream.schema.format.decode() != "+s":
            raise TypeError(f"table must be a table or struct array, not an Arrow column of {_arrow_type(stream.schema.format.decode())}")
        columns = [_column_name(stream, i) for i in range(stream.schema.n_children)]
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
        batch = _new_batch(handle, known.name, on_delivery, None)
        try:
            while True:
                holder = stream.next()
                if holder is None:
                    break
                handle.let_signals()
                _send_chunk(producer, handle, known, batch, stream, holder, where, value, key, partition, timestamp, names, copy,
                            action is _BLOCK, deadline)
        except BaseException as exc:
            _remember_batch(exc, batch)
            raise
        finally:
            _end_of_sending(handle, batch)
        return batch
    finally:
        handle.leave()


cdef str _column_name(_Stream stream, int64_t i):
    if stream.schema.children == NULL or stream.schema.children[i] == NULL:
        raise ValueError("table: malformed Arrow schema: a column is missing")
    if stream.schema.children[i].name == NULL:
        return ""
    return stream.schema.children[i].name.decode("utf-8", "replace")


cdef Column _child_column(_Stream stream, kx_arrow_array *array, int child, str what):
    """Column `child` of a chunk, sliced as the chunk is."""
    cdef Column column = Column()
    column.add_arrow(stream.schema.children[child], array.children[child], what, array)
    return column


cdef Integers _child_integers(_Stream stream, kx_arrow_array *array, int child, str what, int64_t least, int64_t most):
    cdef Integers integers = Integers()
    cdef char[128] text
    cdef const char *problem = kx_integers_from_arrow(
        stream.schema.children[child], array.children[child], least > 0, &integers.c, text, sizeof(text))
    _arrow_problem(problem, text, what, "int32 or int64" if least == 0 else "int64 or a timestamp")
    if array.length > integers.c.length - array.offset:
        raise ValueError(f"{what}: malformed Arrow array: a column shorter than its table")
    integers.c.offset += array.offset
    integers.c.length = integers.length = array.length
    _check_integers(integers, what, least, most)
    return integers


cdef int _send_chunk(Producer producer, Handle handle, Topic topic, BatchDelivery batch, _Stream stream, holder, dict where, value, key,
                     partition, timestamp, list header_names, bint copy, bint may_wait, int64_t deadline) except -1:
    cdef kx_arrow_array *array = _array_of(holder)
    cdef Column values, keys = None
    cdef Integers partitions = None, timestamps = None
    cdef BatchPart part
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
    elif producer._partitioner is not None:
        partitions = _chosen_partitions(
            producer, handle, topic, keys, values.length, may_wait, deadline)
    if timestamp is not None:
        timestamps = _child_integers(stream, array, where[timestamp], f"timestamp ({timestamp})", 1, INT64_MAX)
    header_columns = [_child_column(stream, array, where[name], f"headers ({name})") for name in header_names]
    if values.length == 0:
        return 0
    part = _start_part(handle, batch, values.length, None if copy else holder)
    _enqueue_table_chunk(handle, topic, part, values, keys, partitions, timestamps, header_names, header_columns, copy,
                         may_wait, deadline)
    return 0


cdef int _enqueue_table_chunk(Handle handle, Topic topic, BatchPart part, Column values, Column keys,
                              Integers partitions, Integers timestamps, list header_names, list header_columns, bint copy,
                              bint may_wait, int64_t deadline) except -1:
    cdef kx_enqueue e
    cdef size_t i, count = len(header_columns)
    cdef kx_segment *segments = NULL        # owned
    cdef const char **names = NULL          # owned; what it points at is kept by `encoded`
    memset(&e, 0, sizeof(e))
    encoded = [name.encode() for name in header_names]
    try:
        if count:
            segments = <kx_segment *>malloc(count * sizeof(kx_segment))
            names = <const char **>malloc(count * sizeof(char *))
            if segments == NULL or names == NULL:
                raise MemoryError()
            for i in range(count):
                segments[i] = (<Column>header_columns[i]).segments[0]
                names[i] = <bytes>encoded[i]
        e.header_columns = segments
        e.header_names = names
        e.header_count = count
        e.copy = copy
        e.rk = handle.rk
        e.topic = topic.rkt
        e.part = &part.c
        e.parts = &handle.parts
        e.values = &values.segments[0]
        if keys is not None:
            e.keys = &keys.segments[0]
        if partitions is not None:
            e.partitions = &partitions.c
        if timestamps is not None:
            e.timestamps = &timestamps.c
        _enqueue_segment(handle, &e, may_wait, deadline)
    except BaseException:
        # After _enqueue_segment there is nothing left; where something else failed, not one of them was tried.
        e.part = &part.c
        e.parts = &handle.parts
        e.values = &values.segments[0]
        kx_enqueue_abandon(&e, RD_KAFKA_RESP_ERR__INTR)
        raise
    finally:
        free(segments)
        free(<void *>names)
    return 0
