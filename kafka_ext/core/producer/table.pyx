# Tables: the rows of an Arrow stream as messages, chunk by chunk.


def send_table(Producer producer, table, topic, value, key, partition, timestamp, headers,
               on_delivery, option, action, timeout):
    cdef ProducerClient client = producer.handle
    cdef int64_t deadline = _deadline(timeout)
    cdef BatchDelivery batch = None
    try:
        _check_batch_arguments(producer, topic, on_delivery, option, action)
        client.check_usable()
        steps = _table_steps(producer, table, topic, value, key, partition, timestamp, headers,
                             on_delivery, option is _COPY,
                             action is _BLOCK, deadline)
        batch = _send_here(client, steps, action is _BLOCK, deadline)
        return batch
    finally:
        if batch is None:
            producer._missed(None, RAISED)


def _table_steps(Producer producer, table, topic, value, key, partition, timestamp, headers,
                 on_delivery, bint copy, bint may_wait,
                 int64_t deadline):
    cdef ProducerClient client = producer.handle
    cdef _Stream stream = _Stream()
    cdef BatchDelivery batch
    cdef Topic destination
    if not _is_arrow(table):
        raise TypeError(
            "table must have __arrow_c_stream__ or __arrow_c_array__ (pyarrow, Polars, DuckDB, "
            f"pandas), not {type(table).__name__}")
    if isinstance(headers, str):
        raise TypeError("headers must be a sequence of column names, not a str")
    names = []
    for name in headers:
        names.append(_plain(name))
    value, key, partition, timestamp = _plain(
        value), _plain(key), _plain(partition), _plain(timestamp)
    destination = client.topic(topic)
    stream.open(table, "table")
    if stream.schema.format.decode() != "+s":
        raise TypeError(
            "table must be a table or struct array, not an Arrow column of "
            f"{_arrow_type(stream.schema.format.decode())}")
    columns = []
    for i in range(stream.schema.n_children):
        columns.append(_column_name(stream, i))
    where = {}
    for role, name in (("value", value), ("key", key), ("partition", partition),
                       ("timestamp", timestamp),
                       *(("headers", header) for header in names)):
        if name is None:
            if role == "value":
                raise TypeError("value must be the name of a column")
            continue
        if not isinstance(name, str):
            raise TypeError(f"{role} must be the name of a column, not {type(name).__name__}")
        if name not in columns:
            raise ValueError(
                f"{role}: the table has no column {name!r}; it has {', '.join(columns)}")
        if columns.count(name) > 1:
            raise ValueError(
                f"{role}: the table has {columns.count(name)} columns {name!r}; rename or drop all "
                "but one")
        where[name] = columns.index(name)
    batch = _new_batch(client, destination.name, on_delivery, None, 0)
    try:
        yield batch
        while True:
            holder = stream.next()
            if holder is None:
                break
            yield from _chunk_steps(producer, client, destination, batch, stream, holder, where,
                                    value, key, partition, timestamp, names, copy, may_wait,
                                    deadline)
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


cdef Integers _child_integers(_Stream stream, kx_arrow_array *array, int child, str what,
                              int64_t least, int64_t most):
    cdef Integers integers = Integers()
    cdef char[128] text
    cdef const char *problem = kx_integers_from_arrow(
        stream.schema.children[child], array.children[child], least > 0, &integers.c, text,
        sizeof(text))
    _arrow_problem(problem, text, what, _integers_wanted(least))
    if array.length > integers.c.length - array.offset:
        raise ValueError(f"{what}: malformed Arrow array: a column shorter than its table")
    integers.c.offset += array.offset
    integers.c.length = integers.length = array.length
    _check_integers(integers, what, least, most)
    return integers


def _chunk_steps(Producer producer, ProducerClient client, Topic topic, BatchDelivery batch,
                 _Stream stream, holder, dict where, value, key,
                 partition, timestamp, list header_names, bint copy, bint may_wait,
                 int64_t deadline):
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
        partitions = _child_integers(stream, array, where[partition], f"partition ({partition})", 0,
                                     INT32_MAX)
    if producer._partitioner is not None and _leaves_some(partitions):
        partitions = _chosen_partitions(producer, client, topic, keys, values.length, partitions,
                                        may_wait, deadline)
    if timestamp is not None:
        timestamps = _child_integers(stream, array, where[timestamp], f"timestamp ({timestamp})", 1,
                                     INT64_MAX)
    header_columns = []
    for name in header_names:
        header_columns.append(_child_column(stream, array, where[name], f"headers ({name})"))
    if values.length == 0:
        return
    yield from _rows_steps(client, topic, batch, values, keys, partitions, timestamps, header_names,
                           header_columns,
                           None if copy else holder)


def _rows_steps(
        ProducerClient client, Topic topic, BatchDelivery batch, Column values, Column keys,
        Integers partitions, Integers timestamps, list header_names, list header_columns, pins):
    """Enqueue a chunk of a table, one segment of each column, which `pins` keeps in place (None:
    its values are copied)."""
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
