# From librdkafka's queue to the callbacks: reports, errors, statistics, logs, throttling, token refreshes.
#
# Whoever serves (the events thread, or under manual polling the caller) takes all that waits, does without the GIL what needs none,
# takes it once for the rest, and gives the events back to librdkafka after their callbacks have returned (rules 1 and 3).

import builtins as _builtins
import logging as _logging


cdef tuple _NOTHING = ()

cdef object _log = _logging.getLogger("kafka_ext")
# syslog's eight levels, which librdkafka uses
cdef tuple _LOG_LEVELS = (50, 50, 50, 40, 30, 20, 20, 10)

# One turn of serving: enough to be worth a GIL entry, not so much that a full queue waits long for its first room.
cdef enum:
    MAX_EVENTS = 256
    MAX_MESSAGES = 8192
    # So many callbacks at most are worth an interruption of whoever computes (include/kafka_ext/handover.h). Many come from a sender at
    # full speed, which is better left alone for the interpreter's five milliseconds: fewer and longer turns.
    FEW_CALLBACKS = 64
    # Exceptions of callbacks that are kept for one serving call, or shown in one second by an events
    # thread. A callback with a bug raises for every record, and a thousand tell as much as a million.
    MAX_RAISED = 1000


cdef int64_t serve_here(Handle handle, int timeout_ms) except -1:
    """Serve one turn on this thread, one thread at a time; the number of reports and other events served."""
    cdef unsigned long me = PyThread_get_thread_ident()
    cdef int64_t served
    if handle.serving_thread == me:
        with nogil:                         # the events thread itself, or its successor
            return serve(handle, timeout_ms)
    cdef unsigned long seen = kx_gate_seen(&handle.gate)
    if not KX_TRY(handle.serving):
        with nogil:                         # another thread serves
            kx_gate_wait(&handle.gate, seen, timeout_ms)
        return 0
    handle.serving_thread = me
    try:
        with nogil:
            served = serve(handle, timeout_ms)
        return served
    finally:
        handle.serving_thread = 0
        KX_LET(handle.serving)


cdef int64_t serve(Handle handle, int timeout_ms) noexcept nogil:
    cdef (rd_kafka_event_t *)[MAX_EVENTS] events      # owned here, until destroyed below
    cdef rd_kafka_event_t *event
    cdef size_t count = 0, others = 0, messages = 0, i
    cdef int64_t quiet = 0, ended = 0       # 1: batches have, which is an event too where no report came with it
    cdef bint asked = False
    cdef kx_part *finished

    handle.todo_count = 0
    if handle.at_hand != NULL:              # an event loop has begun with it
        events[0] = handle.at_hand
        count = 1
        messages = handle.at_hand_answered + rd_kafka_event_message_count(handle.at_hand)
        quiet = sort_reports(handle, handle.at_hand)
        handle.at_hand = NULL
        timeout_ms = 0
    event = rd_kafka_queue_poll(handle.queue, timeout_ms)
    if event != NULL and handle.handed_over:
        kx_handover_nap(handle.handed_over, kx_now_us())        # what comes meanwhile is served in the same turn
    while event != NULL:
        events[count] = event
        count += 1
        if rd_kafka_event_type(event) == RD_KAFKA_EVENT_DR:
            messages += rd_kafka_event_message_count(event)
            quiet += sort_reports(handle, event)
        else:
            others += 1
        if count == MAX_EVENTS or messages >= MAX_MESSAGES:
            break
        event = rd_kafka_queue_poll(handle.queue, 0)

    KX_ADD(handle.delivered, quiet)     # before a batch tells that it is done: who waited for it may look
    finished = kx_parts_take_finished(&handle.parts)
    if handle.todo_count or others or handle.throttles != NULL or finished != NULL or KX_LOAD(handle.completed_count) \
            or not_shown_is_due(handle):
        if not handle.manual and handle.todo_count <= FEW_CALLBACKS:
            asked = True
            kx_handover_ask()
        with gil:
            if asked:
                handle.handed_over = kx_now_us() if kx_handover_got() else 0
            kx_enter_callbacks()
            for i in range(handle.todo_count):
                if i + 4 < handle.todo_count:       # made by another thread, so in another core's cache
                    __builtin_prefetch(kx_message_of(handle.todo[i + 4]._private))
                report(handle, handle.todo[i], LATENCY_NOW)
                if handle.generation != kx_fork_generation:
                    kx_leave_callbacks()
                    return 0                    # the callback has forked, and this is the child: all the rest is the parent's
            report_unheard(handle)
            if others:
                for i in range(count):
                    if rd_kafka_event_type(events[i]) != RD_KAFKA_EVENT_DR:
                        serve_other(handle, events[i])
            if handle.throttles != NULL:
                serve_throttles(handle)
            if not_shown_is_due(handle):
                report_not_shown(handle)
            finish_parts(handle, finished)
            if complete_batches(handle) or finished != NULL:
                ended = 1
            if handle.answers is not None:
                pass_on_answers(handle)
            kx_leave_callbacks()
    kx_releases_publish(&handle.releases)
    for i in range(count):
        rd_kafka_event_destroy(events[i])           # now librdkafka forgets the messages and there is room for others
    if messages or finished != NULL:
        # Only the serving thread writes it; a closing thread reads it.
        KX_ADD(handle.reported, <int64_t>messages)
        kx_gate_open(&handle.gate)
    watch_silence(handle)
    return max(<int64_t>(messages + others), ended)


cdef int64_t sort_reports(Handle handle, rd_kafka_event_t *event) noexcept nogil:
    """Count a batch's reports, put off the release of what was delivered with nobody to call, note the rest for the GIL.

    Returns the number delivered without it.
    """
    cdef (const rd_kafka_message_t *)[128] batch      # borrowed: the event owns them
    cdef const rd_kafka_message_t *message
    cdef size_t n, i
    cdef int64_t quiet = 0, answered = 0
    cdef kx_part *part = NULL
    cdef kx_part *of_message
    while True:
        n = rd_kafka_event_message_array(event, batch, 128)
        if n == 0:
            kx_part_answered(&handle.parts, part, answered)
            return quiet
        for i in range(n):
            message = batch[i]
            if kx_opaque_is_part(message._private):
                of_message = kx_part_report(&handle.parts, message)
                if of_message != part:
                    kx_part_answered(&handle.parts, part, answered)
                    part = of_message
                    answered = 0
                answered += 1
                if message.err == RD_KAFKA_RESP_ERR_NO_ERROR:
                    quiet += 1
                else:
                    count_failed(handle, message)
                continue
            if message.err == RD_KAFKA_RESP_ERR_NO_ERROR and kx_message_quiet(message._private):
                if message._private == NULL or kx_releases_add(&handle.releases, message._private) == 0:
                    quiet += 1
                    continue
            note(handle, message)


cdef int count_failed(Handle handle, const rd_kafka_message_t *message) noexcept nogil:
    KX_ADD(handle.failed, 1)
    KX_ADD(handle.failed_bytes, <int64_t>message.len)
    kx_count(&handle.failures, message.err)
    return 0


cdef int note(Handle handle, const rd_kafka_message_t *message) noexcept nogil:
    cdef const rd_kafka_message_t **larger
    cdef size_t size
    if handle.todo_count == handle.todo_size:
        size = max(<size_t>1024, handle.todo_size * 2)
        larger = <const rd_kafka_message_t **>realloc(<void *>handle.todo, size * sizeof(void *))
        if larger == NULL:
            with gil:
                kx_enter_callbacks()
                report(handle, message, LATENCY_NOW)    # out of memory: not later, then, but now
                kx_leave_callbacks()
            return 0
        handle.todo = larger
        handle.todo_size = size
    handle.todo[handle.todo_count] = message
    handle.todo_count += 1
    return 0


cdef int report(Handle handle, const rd_kafka_message_t *message, int64_t latency) noexcept:
    """Answer one message: call back, then let go of what it kept (rule 1: exactly once, whatever the callback does)."""
    cdef kx_message *kept = kx_message_of(message._private)
    cdef RecordMetadata metadata
    cdef object error = None
    cdef object on_delivery
    cdef (PyObject *)[3] arguments        # borrowed; the first is the callee's to use
    cdef PyObject *result               # owned
    if message.err != RD_KAFKA_RESP_ERR_NO_ERROR:
        count_failed(handle, message)
        if kept == NULL or kept.on_delivery == NULL:
            unheard(handle, message)
            kx_message_release(&handle.pool, message._private)
            return 0
        error = error_of(handle, message)
    else:
        KX_ADD(handle.delivered, 1)
        if kept == NULL or kept.on_delivery == NULL:
            kx_message_release(&handle.pool, message._private)
            return 0
    on_delivery = <object>kept.on_delivery
    if handle.loop is not None and isinstance(on_delivery, _Future):
        answer(handle, message, latency, kept, on_delivery, error)
        kx_message_release(&handle.pool, message._private)
        return 0
    metadata = handle.spare
    if metadata is None:
        metadata = new_metadata(handle)
        if metadata is None:
            call_failed(handle, on_delivery)
            kx_message_release(&handle.pool, message._private)
            return 0
    else:
        handle.spare = None
    metadata.message = message
    metadata._topic = <object>rd_kafka_topic_opaque(message.rkt)    # the Topic's name, kept by handle.topics
    metadata._record_id = <object>kept.id if kept.id != NULL else None
    metadata._headers = <object>kept.headers if kept.headers != NULL else None
    if KX_FREE_THREADED:
        metadata.settle(latency)
    arguments[1] = <PyObject *>metadata
    arguments[2] = <PyObject *>error
    result = PyObject_Vectorcall(on_delivery, &arguments[1], 2 | PY_VECTORCALL_ARGUMENTS_OFFSET, NULL)
    if result == NULL:
        call_failed(handle, on_delivery)
    else:
        Py_DECREF(<object>result)
    if not KX_FREE_THREADED and Py_REFCNT(metadata) == 1:
        metadata.message = NULL         # nobody kept it: the next report can have it
        metadata._record_id = None
        metadata._headers = None
        handle.spare = metadata
    else:
        metadata.settle(latency)
    kx_message_release(&handle.pool, message._private)
    return 0


cdef RecordMetadata new_metadata(Handle handle):
    """One to be filled; the one in reserve where there is no memory; None, with the error set, where that is gone as well.

    By type's own slot, and what comes of it looked at here: a try-except would save the thread's exception state for each record.
    """
    cdef PyObject *made = (<PyTypeObject *>RecordMetadata).tp_new(<PyTypeObject *>RecordMetadata, <PyObject *>_NOTHING, NULL)   # owned
    cdef RecordMetadata metadata
    if made != NULL:
        metadata = <RecordMetadata>made
        Py_DECREF(metadata)
        if handle.reserve is None:
            handle.reserve, metadata = metadata, None
            return new_metadata(handle)
        return metadata
    metadata = handle.reserve
    if metadata is not None:
        handle.reserve = None
        PyErr_Clear()
    return metadata


cdef object error_of(Handle handle, const rd_kafka_message_t *message):
    """The error of a failed record, in any case: without memory for its text, or with a signal handler that raises meanwhile."""
    try:
        return delivery_error(handle, message.err)
    except MemoryError:
        pass
    except BaseException as exc:
        not_lost(handle, exc)
    return _prepared_error(message.err)


cdef int call_failed(Handle handle, object callback) noexcept:
    """A callback has raised: the exception is set, and taken from there."""
    KX_ADD(handle.callback_errors, 1)
    try:
        _propagate()
    except BaseException as exc:
        callback_raised(handle, callback, exc)
    return 0


cdef int _propagate() except -1:
    return -1


cdef object delivery_error(Handle handle, int code):
    """The error of a record's report. One that a fatal error has failed says so: librdkafka purges the queue then, unasked.

    What the broker says of it in words is not asked for: rd_kafka_message_produce_errstr() points into the answer that librdkafka has
    parsed, and its broker thread frees that at the same time (2.15.1 too; tests/cluster/produce_errstr.c shows it).
    """
    # After a fatal error rd_kafka_produceva, unlike rd_kafka_produce, returns the code of the error itself.
    if handle.rk != NULL and code == rd_kafka_fatal_error(handle.rk, NULL, 0):
        return _fatal_error(handle.rk)
    if handle.rk != NULL and code in (RD_KAFKA_RESP_ERR__FATAL, RD_KAFKA_RESP_ERR__PURGE_QUEUE, RD_KAFKA_RESP_ERR__PURGE_INFLIGHT):
        fatal = _fatal_error(handle.rk)
        if fatal is not None:
            if code == RD_KAFKA_RESP_ERR__FATAL:
                return fatal
            words = rd_kafka_err2str(<rd_kafka_resp_err_t>code).decode("utf-8", "replace")
            return KafkaError(code, f"{words}, after the fatal error {fatal}", is_fatal=True)
    if code == _MSG_TIMED_OUT and handle.causes is not None:
        cause = handle.causes.known(handle)
        if cause:
            return KafkaError(code, rd_kafka_err2str(<rd_kafka_resp_err_t>code).decode("utf-8", "replace") + cause)
    return KafkaError(code)


cdef int callback_raised(Handle handle, object callback, object exc) except -1:
    """Under manual polling the serving call raises it at its end; in the events thread it goes to sys.unraisablehook."""
    if handle.manual and not KX_FLAG(handle.dropped):
        keep_raised(handle, exc)
    else:
        show_raised(handle, callback, exc)
    return 0


cdef int keep_raised(Handle handle, object exc) except -1:
    """Keep `exc` for the serving call, one of MAX_RAISED. Always room for an interruption (KeyboardInterrupt, SystemExit)."""
    if len(handle.raised) < MAX_RAISED:
        handle.raised.append(exc)
        return 0
    handle.not_kept += 1
    if not isinstance(exc, Exception) and isinstance(handle.raised[MAX_RAISED - 1], Exception):
        handle.raised[MAX_RAISED - 1] = exc
    return 0


cdef int show_raised(Handle handle, object callback, object exc) except -1:
    """Give `exc` to sys.unraisablehook, MAX_RAISED in a second; of what is over, a line in the log says how many."""
    cdef int64_t now = kx_now_us()
    if now >= handle.shown_until:
        report_not_shown(handle)
        handle.shown_until = now + 1000000
        handle.shown = 0
    if handle.shown < MAX_RAISED or not isinstance(exc, Exception):
        handle.shown += 1
        unraisable(exc, callback)
    else:
        handle.not_shown += 1
    return 0


cdef bint not_shown_is_due(Handle handle) noexcept nogil:
    return handle.not_shown and kx_now_us() >= handle.shown_until


cdef int report_not_shown(Handle handle) noexcept:
    cdef int64_t count = handle.not_shown
    handle.not_shown = 0
    try:
        if count:
            _log.warning("%d more callbacks raised; of one second, the first %d exceptions are shown", count, MAX_RAISED)
    except BaseException as exc:
        unraisable(exc, None)
    return 0


def raise_together(list raised):
    """Raise what callbacks raised: one exception as it is, several as an ExceptionGroup.

    Before Python 3.11, the first one, with the others in its `__context__`.
    """
    if not raised:
        return
    for exc in raised:
        if not isinstance(exc, Exception):
            raise exc               # KeyboardInterrupt and SystemExit go before all others
    if len(raised) == 1:
        raise raised[0]
    group = getattr(_builtins, "BaseExceptionGroup", None)
    if group is not None:
        raise group("delivery and event callbacks raised", raised)
    for i in range(len(raised) - 1):
        raised[i].__context__ = raised[i + 1]
    raise raised[0]


cdef int unraisable(object exc, object where) noexcept:
    """Give `exc` to sys.unraisablehook. It must be the error that is set: one that is being handled, PyErr_WriteUnraisable does not see."""
    PyErr_SetObject(type(exc), exc)
    PyErr_WriteUnraisable(where)
    return 0


cdef int call(Handle handle, object callback, tuple arguments) noexcept:
    """Call one of the properties' callbacks. What it raises loses nothing of what comes after."""
    try:
        callback(*arguments)
    except BaseException as exc:
        KX_ADD(handle.callback_errors, 1)
        callback_raised(handle, callback, exc)
    return 0


cdef int unheard(Handle handle, const rd_kafka_message_t *message) noexcept:
    """Count a failure nobody listens to; one line a turn says how many, not one a record."""
    try:
        if handle.unheard is None:
            handle.unheard = {}
        topic = <object>rd_kafka_topic_opaque(message.rkt)
        code = int(message.err)
        key = (topic, code)
        seen = handle.unheard.get(key)
        if seen is None:
            seen = handle.unheard[key] = [0, delivery_error(handle, message.err)]
        seen[0] += 1
    except BaseException as exc:
        not_lost(handle, exc)
    return 0


cdef int report_unheard(Handle handle) noexcept:
    if handle.unheard is None:
        return 0
    cdef dict failures = handle.unheard
    handle.unheard = None
    try:
        for (topic, _), [count, error] in failures.items():
            _log.warning("kafka_ext: %d record%s to %s not delivered, and no callback to tell: %s",
                         count, "" if count == 1 else "s", topic, error)
    except BaseException as exc:
        not_lost(handle, exc)
    return 0


cdef int serve_other(Handle handle, rd_kafka_event_t *event) noexcept:
    cdef int kind = rd_kafka_event_type(event)
    try:
        if kind == RD_KAFKA_EVENT_LOG:
            serve_log(handle, event)
        elif kind == RD_KAFKA_EVENT_ERROR:
            serve_error(handle, event)
        elif kind == RD_KAFKA_EVENT_STATS:
            handle.stats_json = rd_kafka_event_stats(event)
            callback = handle.callbacks.get("stats_cb")
            if callback is not None:
                from json import loads

                call(handle, callback, (loads(handle.stats_json),))
        elif kind == RD_KAFKA_EVENT_OAUTHBEARER_TOKEN_REFRESH:
            serve_token_refresh(handle, event)
    except BaseException as exc:
        not_lost(handle, exc)
    return 0


cdef int not_lost(Handle handle, object exc) noexcept:
    """What came up between callbacks: a signal handler's, as a rule. Whoever serves raises it, as what a callback raises; Ctrl-C works."""
    if handle.manual and not KX_FLAG(handle.dropped):
        try:
            keep_raised(handle, exc)
        except BaseException as failure:
            unraisable(failure, None)
    else:
        unraisable(exc, None)
    return 0


cdef int serve_log(Handle handle, rd_kafka_event_t *event) except -1:
    cdef const char *facility = NULL
    cdef const char *text = NULL
    cdef int level = 7
    if rd_kafka_event_log(event, &facility, &text, &level) != 0:
        return 0
    message = redact(text.decode("utf-8", "replace"), handle.secrets)
    name = facility.decode("utf-8", "replace")
    callback = handle.callbacks.get("log_cb")
    if callback is not None:
        call(handle, callback, (level, name, message))
    else:
        say_log(handle, level, name, message)
    return 0


cdef int serve_error(Handle handle, rd_kafka_event_t *event) except -1:
    cdef const char *text = rd_kafka_event_error_string(event)
    error = None
    if rd_kafka_event_error_is_fatal(event) or rd_kafka_event_error(event) == RD_KAFKA_RESP_ERR__FATAL:
        error = _fatal_error(handle.rk)
    if error is None:
        said = redact(text.decode("utf-8", "replace"), handle.secrets) if text != NULL else None
        error = KafkaError(rd_kafka_event_error(event), said)
    kx_count(&handle.errors, error.code)
    callback = handle.callbacks.get("error_cb")
    if int(error.code) in _ADVICE:
        handle.causes.remember(handle, error.code, _cleaned(error.message))
    if callback is not None:
        call(handle, callback, (error,))
    else:
        say_error(handle, error)
    return 0


cdef int serve_token_refresh(Handle handle, rd_kafka_event_t *event) except -1:
    cdef const char *config = rd_kafka_event_config_string(event)
    callback = handle.callbacks["oauthbearer_token_refresh_cb"]
    try:
        token = callback(config.decode("utf-8", "replace") if config != NULL else "")
        if token is None and handle.loop is not None:
            return 0                # a coroutine gets it: it comes later, to set_token() or refuse_token()
        set_token(handle, token)
    except BaseException as exc:
        refuse_token(handle, exc)
        KX_ADD(handle.callback_errors, 1)
        callback_raised(handle, callback, exc)
    return 0


def set_token(Handle handle, token):
    """Give librdkafka the OAuthBearerToken that it has asked for (rd_kafka_oauthbearer_set_token)."""
    cdef char[512] errstr
    cdef const char **extensions = NULL     # owned; what it points at is kept by `encoded`
    cdef int64_t lifetime = token.lifetime_ms
    cdef bytes value = token_bytes("value", token.value)
    cdef bytes principal = token_bytes("principal", token.principal)
    encoded = []
    for key, extension in token.extensions.items():
        encoded += [token_bytes("extensions", key), token_bytes("extensions", extension)]
    texts = (token.value, *token.extensions.values())
    handle.secrets = handle.setting_secrets + tuple([text for text in texts if len(text) >= SHORTEST_SECRET])
    try:
        extensions = <const char **>malloc((len(encoded) + 1) * sizeof(char *))
        if extensions == NULL:
            raise MemoryError()
        for i, part in enumerate(encoded):
            extensions[i] = <bytes>part
        if rd_kafka_oauthbearer_set_token(handle.rk, value, lifetime, principal, extensions, len(encoded), errstr, sizeof(errstr)):
            raise ValueError(redact(_said(errstr), handle.secrets))
    finally:
        free(<void *>extensions)


cdef bytes token_bytes(str field, object text):
    """A part of a token in UTF-8. Refused without saying it, and without an exception that would hold it."""
    encoded = text.encode("utf-8", "replace")
    if b"\0" in encoded or encoded.decode() != text:
        raise invalid_property(
            "oauthbearer_token_refresh_cb", f"the token's {field} must be text without surrogates and NUL characters")
    return encoded


def refuse_token(Handle handle, exc):
    """Tell librdkafka that there is no token, and why; it asks again later (rd_kafka_oauthbearer_set_token_failure)."""
    try:
        reason = f"{type(exc).__name__}: {exc}".encode("utf-8", "backslashreplace")
    except MemoryError:
        reason = b"MemoryError"             # without an answer, librdkafka would never ask again
    rd_kafka_oauthbearer_set_token_failure(handle.rk, reason)


cdef void _on_throttle(rd_kafka_t *rk, const char *broker_name, int32_t broker_id, int throttle_time_ms, void *opaque) noexcept nogil:
    """librdkafka has no event for throttling: it calls this from within rd_kafka_queue_poll, on the serving thread, with no GIL."""
    cdef Throttle *throttle = <Throttle *>malloc(sizeof(Throttle))
    if throttle == NULL:
        return
    throttle.broker_id = broker_id
    throttle.milliseconds = throttle_time_ms
    strncpy(throttle.broker_name, broker_name, sizeof(throttle.broker_name) - 1)
    throttle.broker_name[sizeof(throttle.broker_name) - 1] = 0
    cdef Throttle **end = <Throttle **>opaque       # Handle.throttles
    while end[0] != NULL:
        end = &end[0].next
    throttle.next = NULL
    end[0] = throttle


cdef int serve_throttles(Handle handle) noexcept:
    cdef Throttle *throttle
    while handle.throttles != NULL:
        throttle = handle.throttles
        handle.throttles = throttle.next
        try:
            callback = handle.callbacks.get("throttle_cb")
            if callback is not None:
                name = throttle.broker_name.decode("utf-8", "replace")
                call(handle, callback, (name, throttle.broker_id, throttle.milliseconds / 1000.0))
        except BaseException as exc:
            not_lost(handle, exc)
        free(throttle)
    return 0
