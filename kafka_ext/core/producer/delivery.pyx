# Delivery reports: from the event to the callback, the future or the batch.
#
# sort_reports() counts without the GIL and notes what needs it; answer_reports() calls back. A
# message is answered exactly once, and then everything it kept is released.

cdef tuple _NOTHING = ()

# So long after the first record was sent without any report, there is a line in the log.
cdef int64_t SILENCE_US = 5 * 1000000


cdef int64_t sort_reports(
        ProducerClient client, rd_kafka_event_t *event, int64_t at_most) noexcept nogil:
    """Count at most so many of an event's reports: put off the release of what was delivered with
    nothing to call, note the rest for the GIL.

    Returns:
        How many.
    """
    cdef (const rd_kafka_message_t *)[128] chunk      # borrowed: the event owns them
    cdef const rd_kafka_message_t *message
    cdef size_t n, i
    cdef int64_t sorted = 0, answered = 0
    cdef kx_part *part = NULL
    cdef kx_part *of_message
    while sorted < at_most:
        n = rd_kafka_event_message_array(
            event, chunk, <size_t>min(<int64_t>128, at_most - sorted))
        if n == 0:
            break
        sorted += <int64_t>n
        for i in range(n):
            message = chunk[i]
            if kx_opaque_is_part(message._private):
                of_message = kx_part_report(&client.batches.parts, message)
                if of_message != part:
                    kx_part_answered(&client.batches.parts, part, answered)
                    part = of_message
                    answered = 0
                answered += 1
                if message.err == RD_KAFKA_RESP_ERR_NO_ERROR:
                    client.reports.quiet += 1
                else:
                    count_failed(client, message)
                continue
            if message.err == RD_KAFKA_RESP_ERR_NO_ERROR and kx_message_quiet(message._private):
                if (message._private == NULL
                        or kx_releases_add(&client.releases, message._private) == 0):
                    client.reports.quiet += 1
                    continue
            note_report(client, message)
    kx_part_answered(&client.batches.parts, part, answered)
    return sorted


cdef int count_failed(ProducerClient client, const rd_kafka_message_t *message) noexcept nogil:
    KX_ADD(client.counts.failed, 1)
    KX_ADD(client.counts.failed_bytes, <int64_t>message.len)
    kx_count(&client.counts.failures, message.err)
    return 0


cdef int note_report(ProducerClient client, const rd_kafka_message_t *message) noexcept nogil:
    """Note a report that needs the GIL."""
    cdef Reports *reports = &client.reports
    cdef const rd_kafka_message_t **larger
    cdef size_t size
    if reports.count == reports.size:
        size = max(<size_t>1024, reports.size * 2)
        larger = <const rd_kafka_message_t **>realloc(
            <void *>reports.waiting, size * sizeof(void *))
        if larger == NULL:
            with gil:
                kx_enter_callbacks()
                report(client, message)     # out of memory: not later, then, but now
                kx_leave_callbacks()
            return 0
        reports.waiting = larger
        reports.size = size
    reports.waiting[reports.count] = message
    reports.count += 1
    return 0


cdef bint answer_reports(ProducerClient client) noexcept:
    """Answer the reports that were noted. False: a callback has forked, and this is the child."""
    cdef Reports *reports = &client.reports
    cdef size_t count = reports.count, i
    reports.count = 0
    for i in range(count):
        if i + 4 < count:               # made by another thread, so in another core's cache
            __builtin_prefetch(kx_message_of(reports.waiting[i + 4]._private))
        report(client, reports.waiting[i])
        if client.life.generation != kx_fork_generation:
            return False
    log_unheard(client)
    return True


cdef int report(ProducerClient client, const rd_kafka_message_t *message) noexcept:
    """Answer one message: call back, then release what it kept, whatever the callback does."""
    cdef kx_message *kept = kx_message_of(message._private)
    cdef RecordMetadata metadata
    cdef object error = None
    cdef object on_delivery
    cdef (PyObject *)[3] arguments      # borrowed; the first is the callee's to use
    cdef PyObject *result               # owned
    if message.err != RD_KAFKA_RESP_ERR_NO_ERROR:
        count_failed(client, message)
        if kept == NULL or kept.on_delivery == NULL:
            count_unheard(client, message)
            kx_message_release(&client.pool, message._private)
            return 0
        error = error_of(client, message)
    else:
        KX_ADD(client.counts.delivered, 1)
        if kept == NULL or kept.on_delivery == NULL:
            kx_message_release(&client.pool, message._private)
            return 0
    on_delivery = <object>kept.on_delivery
    if client.loop is not None and isinstance(on_delivery, _Future):
        answer_future(client, message, kept, on_delivery, error)
        kx_message_release(&client.pool, message._private)
        return 0
    metadata = client.spare.last
    if metadata is None:
        metadata = new_metadata(client.spare)
        if metadata is None:
            callback_failed(client, on_delivery)
            kx_message_release(&client.pool, message._private)
            return 0
    else:
        client.spare.last = None
    metadata.message = message
    # The Topic's name, which Topics keeps.
    metadata._topic = <object>rd_kafka_topic_opaque(message.rkt)
    metadata._record_id = <object>kept.id if kept.id != NULL else None
    metadata._headers = <object>kept.headers if kept.headers != NULL else None
    if KX_FREE_THREADED:
        metadata.settle()
    arguments[1] = <PyObject *>metadata
    arguments[2] = <PyObject *>error
    result = PyObject_Vectorcall(
        on_delivery, &arguments[1], 2 | PY_VECTORCALL_ARGUMENTS_OFFSET, NULL)
    if result == NULL:
        callback_failed(client, on_delivery)
    else:
        Py_DECREF(<object>result)
    if not KX_FREE_THREADED and Py_REFCNT(metadata) == 1:
        metadata.message = NULL         # the callback has not kept it: the next report can have it
        metadata._record_id = None
        metadata._headers = None
        client.spare.last = metadata
    else:
        metadata.settle()
    kx_message_release(&client.pool, message._private)
    return 0


cdef int answer_future(
        ProducerClient client, const rd_kafka_message_t *message, kx_message *kept,
        object future, object error) noexcept:
    """Resolve the future of one message. The caller releases what it kept, in any case."""
    cdef RecordMetadata metadata
    try:
        # `kept` has one reference and report() the other: nothing can ever look at the outcome,
        # unless the future has a callback.
        if not KX_FREE_THREADED and Py_REFCNT(future) == 2 and not _has_callbacks(future):
            if error is not None:
                count_unheard(client, message)
            return 0
        if error is None:
            metadata = RecordMetadata.__new__(RecordMetadata)
            metadata.message = message
            metadata._topic = <object>rd_kafka_topic_opaque(message.rkt)
            metadata._record_id = <object>kept.id if kept.id != NULL else None
            metadata._headers = <object>kept.headers if kept.headers != NULL else None
            metadata.settle()
            if kept.id == NULL and kept.headers == NULL:
                # It refers to a str alone, so it is in no cycle: one object less to look at.
                PyObject_GC_UnTrack(metadata)
            outcome = metadata
        else:
            outcome = _exception(error)
        if not settle_future(client.loop, future, outcome, error is not None) \
                and error is not None:
            count_unheard(client, message)      # cancelled: nobody waits for it
    except BaseException as exc:
        not_lost(client, exc)
    return 0


@cython.final
cdef class SpareMetadata:
    """Metadata made beforehand: for the next report, and for the one that finds no memory."""


cdef RecordMetadata new_metadata(SpareMetadata spare):
    """One to be filled; the one in reserve where there is no memory; None, with the error set,
    where that is gone as well.

    By the type's own slot, and the caller looks at what comes of it: a try-except would save the
    thread's exception state for each record.
    """
    cdef PyObject *made = (<PyTypeObject *>RecordMetadata).tp_new(      # owned
        <PyTypeObject *>RecordMetadata, <PyObject *>_NOTHING, NULL)
    cdef RecordMetadata metadata
    if made != NULL:
        metadata = <RecordMetadata>made
        Py_DECREF(metadata)
        if spare.reserve is None:
            spare.reserve, metadata = metadata, None
            return new_metadata(spare)
        return metadata
    metadata = spare.reserve
    if metadata is not None:
        spare.reserve = None
        PyErr_Clear()
    return metadata


cdef int callback_failed(ProducerClient client, object callback) noexcept:
    """A callback has raised: the exception is set, and taken from there."""
    try:
        _propagate()
    except BaseException as exc:
        count_raised(client, callback, exc)
    return 0


# ------------------------------------------------------------------ failures

cdef object error_of(ProducerClient client, const rd_kafka_message_t *message):
    """The error of a failed record, in any case: without memory for its text, or with a signal
    handler that raises meanwhile."""
    try:
        return delivery_error(client, message.err)
    except MemoryError:
        pass
    except BaseException as exc:
        not_lost(client, exc)
    return _prepared_error(message.err)


cdef object delivery_error(ProducerClient client, int code):
    """The error of a record's report. One that a fatal error has failed says so: librdkafka then
    purges the queue by itself.

    What the broker says of it in words is not asked for: rd_kafka_message_produce_errstr() points
    into the answer that librdkafka has parsed, and its broker thread frees that at the same time
    (2.15.1 too; tests/cluster/produce_errstr.c shows it).
    """
    # A batch that was unpickled has no client.
    if client is None:
        return KafkaError(code)
    # After a fatal error rd_kafka_produceva, unlike rd_kafka_produce, returns the error's own code.
    if client.rk != NULL and code == rd_kafka_fatal_error(client.rk, NULL, 0):
        return _fatal_error(client.rk)
    if client.rk != NULL and code in (
            RD_KAFKA_RESP_ERR__FATAL, RD_KAFKA_RESP_ERR__PURGE_QUEUE,
            RD_KAFKA_RESP_ERR__PURGE_INFLIGHT):
        fatal = _fatal_error(client.rk)
        if fatal is not None:
            if code == RD_KAFKA_RESP_ERR__FATAL:
                return fatal
            words = rd_kafka_err2str(<rd_kafka_resp_err_t>code).decode("utf-8", "replace")
            return KafkaError(code, f"{words}, after the fatal error {fatal}", is_fatal=True)
    if code == RD_KAFKA_RESP_ERR__MSG_TIMED_OUT and client.connection_errors is not None:
        cause = client.connection_errors.hint(client)
        if cause:
            words = rd_kafka_err2str(<rd_kafka_resp_err_t>code).decode("utf-8", "replace")
            return KafkaError(code, words + cause)
    return KafkaError(code)


cdef int count_unheard(ProducerClient client, const rd_kafka_message_t *message) noexcept:
    """Count a failure without a callback. One line a turn says how many there were."""
    try:
        if client.spare.unheard is None:
            client.spare.unheard = {}
        topic = <object>rd_kafka_topic_opaque(message.rkt)
        code = int(message.err)
        key = (topic, code)
        seen = client.spare.unheard.get(key)
        if seen is None:
            seen = client.spare.unheard[key] = [0, delivery_error(client, message.err)]
        seen[0] += 1
    except BaseException as exc:
        not_lost(client, exc)
    return 0


cdef int log_unheard(ProducerClient client) noexcept:
    if client.spare.unheard is None:
        return 0
    cdef dict failures = client.spare.unheard
    client.spare.unheard = None
    try:
        for (topic, _), [count, error] in failures.items():
            _log.warning(
                "kafka_ext: %d record%s to %s not delivered, and no callback to tell: %s",
                count, "" if count == 1 else "s", topic, error)
    except BaseException as exc:
        not_lost(client, exc)
    return 0


cdef int watch_silence(ProducerClient client) noexcept nogil:
    """Notice that nothing has been reported since the first record was sent. In each turn."""
    cdef int64_t now
    cdef Reports *reports = &client.reports
    if (KX_LOAD(client.counts.reported) or not KX_LOAD(client.counts.sent)
            or reports.silence_logged):
        return 0
    now = kx_now_us()
    if not reports.waiting_since:
        reports.waiting_since = now
    elif now - reports.waiting_since > SILENCE_US:
        reports.silence_logged = True
        with gil:
            log_silence(client)
    return 0


cdef int log_silence(ProducerClient client) noexcept:
    try:
        if client.connection_errors.last is None:
            _log.warning(
                "kafka_ext: nothing was acknowledged by %s in %d s, and there was no error; it "
                "goes on trying: check that Kafka brokers listen there and that security.protocol "
                "is the one they speak",
                get_conf(rd_kafka_conf(client.rk), "bootstrap.servers"), SILENCE_US // 1000000)
    except BaseException as exc:
        not_lost(client, exc)
    return 0
