# Batches: columns in, one object out that knows what became of each message. The loop itself is C,
# in include/kafka_ext/batch.h.


# With one list of headers for each message, so many are made at a time.
cdef enum:
    HEADER_WINDOW = 16384
    # An event loop's other tasks get a turn after so many thousands of messages.
    LOOP_TURNS = 4


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
    """All is enqueued or refused. A batch that is complete already is completed by the thread that
    serves, like any other.

    Only from here on does close() wait for the batch. One that ends while it is being sent leaves
    the rest to the sender: it fails.
    """
    KX_ADD(client.counts.batches, 1)
    KX_ADD(client.batches.pending, 1)
    KX_ADD(client.batches.open, 1)
    batch.close_part()
    if client.retain():
        # where the last messages were refused, no report wakes who serves
        rd_kafka_queue_yield(client.queue)
        client.release()
    if client.life.state == CLOSED:                  # nobody serves any more
        kx_enter_callbacks()
        finish_parts(client, kx_parts_take_finished(&client.batches.parts))
        complete_batches(client)
        kx_leave_callbacks()
    return 0


cdef BatchPart _start_part(ProducerClient client, BatchDelivery batch, int64_t length, pins):
    """A part for the next `length` messages, which `pins` keeps in place (None: they are copied).
    Either all of it is done or nothing."""
    cdef BatchPart part = BatchPart()
    cdef int result
    if length > KX_MAX_BATCH:
        raise ValueError(f"a chunk holds at most {KX_MAX_BATCH} messages, not {length}")
    if batch.all_offsets != NULL:
        result = kx_part_init(&part.c, length, &batch.all_offsets[batch.length],
                              &batch.all_partitions[batch.length])
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
        raise QueueFullError(KafkaError(RD_KAFKA_RESP_ERR__QUEUE_FULL,
                                        "too many batches are in flight; wait for some of them"))
    # From here on nothing may fail: the part is known, and ends by its reports only.
    Py_INCREF(part)                     # released by finish_parts, after the last report
    batch.length += length
    with cython.critical_section(batch):
        batch.open_parts += 1
    return part


# A batch is sent by a generator, so that a thread can wait for room in the queue, and a coroutine
# too. It first yields the BatchDelivery, then True whenever the queue is full and False whenever it
# has only been at it for a while. Whoever drives it waits and resumes it until it ends, having set
# `gave_up` where the rest shall fail; or closes it. Either way each message ends up enqueued or
# failed.

cdef enum:
    GAVE_UP = 1


cdef int _enqueue_turns(ProducerClient client, BatchDelivery batch, kx_enqueue *e) except -2:
    """Enqueue some of a segment: 0 when it is through, GAVE_UP when the rest has failed,
    QUEUE_FULL, or -1: go on."""
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
            # else another thread closes, and the rest fails
            if client.life.state == OPEN:
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
        # By a signal handler, which may have closed the producer too; or the generator's own, which
        # has ended then.
        batch.gave_up = RD_KAFKA_RESP_ERR__STATE if isinstance(
            exc, ProducerClosedError) else RD_KAFKA_RESP_ERR__INTR
        steps.close()
        _remember_batch(exc, batch)
        raise


cdef int _check_lengths(int64_t length, int64_t other, str what) except -1:
    if other >= 0 and other != length:
        raise ValueError(f"{what} has {other} items, values has {length}")
    return 0


def send_batch(Producer producer, topic, values, keys, partitions, timestamps, headers, ids,
               on_delivery, option, action, timeout):
    cdef ProducerClient client = producer.handle
    cdef int64_t deadline = _deadline(timeout)
    cdef BatchDelivery batch = None
    try:
        _check_batch_arguments(producer, topic, on_delivery, option, action)
        client.check_usable()
        steps = _batch_steps(producer, topic, values, keys, partitions, timestamps, headers, ids,
                             on_delivery, option is _COPY,
                             action is _BLOCK, deadline)
        batch = _send_here(client, steps, action is _BLOCK, deadline)
        return batch
    finally:
        if batch is None:
            producer._missed(None, RAISED)


def _batch_steps(Producer producer, topic, values, keys, partitions, timestamps, headers, ids,
                 on_delivery, bint copy, bint may_wait,
                 int64_t deadline):
    cdef ProducerClient client = producer.handle
    cdef Column column, key_column = None
    cdef Integers partition_numbers = None, timestamp_numbers = None
    cdef tuple same_headers = None
    cdef list each_headers = None
    cdef Topic destination
    cdef BatchDelivery batch
    cdef Column piece, key_piece
    cdef _Cursor values_left, keys_left
    cdef int64_t length
    destination = client.topic(topic)
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
        partition_numbers = _chosen_partitions(producer, client, destination, key_column,
                                               column.length, partition_numbers, may_wait, deadline)
    batch = _new_batch(client, destination.name, on_delivery, ids, column.length)
    values_left = _cursor(column)
    keys_left = None if key_column is None else _cursor(key_column)
    try:
        yield batch
        while batch.length < column.length:
            length = min(column.length - batch.length, PART)
            piece = values_left.take(length)
            key_piece = None if keys_left is None else keys_left.take(length)
            yield from _column_steps(client, destination, batch, piece, key_piece,
                                     partition_numbers, timestamp_numbers, same_headers,
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
    """What was enqueued before an interruption is not lost track of; where nothing was, there is
    nobody to call."""
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
            f"topic must be a str, not {type(topic).__name__}: send_batch(topic, values), or "
            "send_table(table, topic=…, value=…)")
    if on_delivery is not None:
        _check_callback(on_delivery, "on_delivery")
    if option is not _COPY and option is not _NO_COPY:
        raise TypeError(f"option must be a SendOption, not {_shorten(option)}")
    if action is not _BLOCK and action is not _NO_BLOCK:
        raise TypeError(f"action must be an ActionWhileQueueIsFull, not {_shorten(action)}")
    if producer._interceptors is not None:
        raise KafkaException(KafkaError(
            ErrorCode["NOT_IMPLEMENTED"],
            "interceptors see records one by one, and a batch has none: send() them, or use a "
            "producer without"))
    if producer._serializers is not None:
        raise KafkaException(KafkaError(
            ErrorCode["NOT_IMPLEMENTED"],
            "value_serializer and key_serializer see records one by one, and a batch has none: "
            "give it a column that is serialized "
            "already, to a producer without them, or send() records"))
    cdef ProducerClient client = producer.handle
    if client.transaction.end is not None or client.transaction.state not in (
            NO_TRANSACTIONS, IN_TRANSACTION):
        raise KafkaException(refused_outside(client))
    return 0


cdef tuple _batch_headers(object headers, int64_t length):
    """`(the same for all, None)` or `(None, one for each)`."""
    if isinstance(headers, _Mapping):
        return _checked_headers(headers), None
    if isinstance(headers, (str, bytes, bytearray)) or not hasattr(headers, "__iter__"):
        raise TypeError(
            "headers must be (name, value) pairs or a sequence of such lists, not "
            f"{type(headers).__name__}")
    rows = list(headers)
    cdef list each = []
    for row in rows:
        if not (isinstance(row, tuple) and len(row) == 2 and isinstance(row[0], str)):
            break
    else:
        return _checked_headers(rows), None
    _check_lengths(length, len(rows), "headers")
    # An iterator gives its pairs once: where the same one stands in several rows, each of them gets
    # what it gave.
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
    """Ask a partitioner written in Python for each key whose partition is not given, before
    anything is enqueued."""
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
    """Enqueue the batch's next piece of values and keys, run by run: as far as one segment of each
    goes.

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
                key_run = kx_segment_slice(&keys.segments[key_segment],
                                           key_at if keys.length >= 0 else 0, run)
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
        # Given up, or interrupted: what is left of the run at hand (nothing, as a rule), then what
        # comes behind it.
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
