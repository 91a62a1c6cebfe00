# The dispatcher: from librdkafka's queue of events to the callbacks.
#
# serve() is one turn. The events thread calls it, under manual polling the caller, with asyncio the
# event loop. It takes what waits in the queue, does without the GIL what needs none, takes the GIL
# once for the rest, and gives the events back to librdkafka after their callbacks have returned.
# Messages are the business of each kind of client (Client.take and the methods after it);
# everything else, errors, logs, statistics, throttling and tokens, is answered here.

import builtins as _builtins
import logging as _logging

cdef object _log = _logging.getLogger("kafka_ext")
# syslog's eight levels, which librdkafka uses
cdef tuple _LOG_LEVELS = (50, 50, 50, 40, 30, 20, 20, 10)

cdef enum:
    # One turn: enough to be worth taking the GIL, few enough that a full queue soon has room.
    MAX_EVENTS = 256
    MAX_MESSAGES = 8192
    # What another event counts for among messages.
    EVENT_COST = 16
    # At most so many callbacks are worth interrupting the thread that computes (handover.h). Many
    # come from a sender at full speed, which had better keep the GIL for the interpreter's five
    # milliseconds: fewer and longer turns.
    FEW_CALLBACKS = 64
    # Exceptions of callbacks that are kept for one serving call, or shown in one second by an
    # events thread. A callback with a bug raises for every record.
    MAX_RAISED = 1000


cdef int64_t serve(Client client, int timeout_ms, int64_t budget) noexcept nogil:
    """Serve one turn of about `budget` messages, waiting up to `timeout_ms` for the first event.

    Called with or without the GIL, and by one thread at a time.

    Returns:
        The number of messages and other events served. More may be there: `serving.at_hand` is an
        event whose messages were too many for one turn.
    """
    cdef (rd_kafka_event_t *)[MAX_EVENTS] events    # owned here, until they are destroyed below
    cdef (bint)[MAX_EVENTS] is_other
    cdef rd_kafka_event_t *event = client.serving.at_hand
    cdef int64_t taken, carried, messages = 0, returned = 0, callbacks
    cdef size_t count = 0, others = 0, i
    cdef bint asked = False, ended = False

    carried = client.serving.at_hand_taken
    client.serving.at_hand = NULL
    client.serving.at_hand_taken = 0
    client.serving.drained = False
    while count < MAX_EVENTS and budget > 0:
        if event == NULL:
            event = rd_kafka_queue_poll(client.queue, 0 if count else timeout_ms)
            if event == NULL:
                client.serving.drained = True
                break
            if count == 0 and client.serving.handed_over:
                # What comes meanwhile is served in the same turn.
                kx_handover_nap(client.serving.handed_over, kx_now_us())
        is_other[count] = carried == 0 and rd_kafka_event_message_count(event) == 0
        if is_other[count]:
            others += 1
            budget -= EVENT_COST
        else:
            taken = client.take(event, budget)
            messages += taken
            budget -= taken
            if rd_kafka_event_message_count(event):
                client.serving.at_hand = event
                client.serving.at_hand_taken = carried + taken
                break
            returned += carried + taken
            carried = 0
        events[count] = event
        count += 1
        event = NULL

    callbacks = client.ready()
    if (callbacks >= 0 or others or client.serving.throttles != NULL
            or not_shown_is_due(client.callback_errors)):
        if not client.manual and callbacks <= FEW_CALLBACKS:
            asked = True
            kx_handover_ask()
        with gil:
            if asked:
                client.serving.handed_over = kx_now_us() if kx_handover_got() else 0
            kx_enter_callbacks()
            if not client.answer():
                kx_leave_callbacks()
                return 0            # a forked child: everything else is the parent's
            for i in range(count):
                if is_other[i]:
                    serve_other(client, events[i])
            if client.serving.throttles != NULL:
                serve_throttles(client)
            if not_shown_is_due(client.callback_errors):
                client.callback_errors.report_not_shown()
            ended = client.finish_turn()
            if client.loop is not None and client.loop.outcomes is not None:
                pass_on_outcomes(client)
            kx_leave_callbacks()
    for i in range(count):
        rd_kafka_event_destroy(events[i])   # librdkafka forgets their messages: there is room
    client.give_back(returned)
    if messages or ended:
        kx_gate_open(&client.life.gate)
    return max(messages + <int64_t>others, <int64_t>ended)


# ------------------------------------------------------------------ events that are no messages

cdef int serve_other(Client client, rd_kafka_event_t *event) noexcept:
    cdef int kind = rd_kafka_event_type(event)
    try:
        if kind == RD_KAFKA_EVENT_LOG:
            serve_log(client, event)
        elif kind == RD_KAFKA_EVENT_ERROR:
            serve_error(client, event)
        elif kind == RD_KAFKA_EVENT_STATS:
            client.statistics = rd_kafka_event_stats(event)
            callback = client.callbacks.get("stats_cb")
            if callback is not None:
                from json import loads

                call(client, callback, (loads(client.statistics),))
        elif kind == RD_KAFKA_EVENT_OAUTHBEARER_TOKEN_REFRESH:
            serve_token_refresh(client, event)
    except BaseException as exc:
        not_lost(client, exc)
    return 0


cdef int serve_log(Client client, rd_kafka_event_t *event) except -1:
    cdef const char *facility = NULL
    cdef const char *text = NULL
    cdef int level = 7
    if rd_kafka_event_log(event, &facility, &text, &level) != 0:
        return 0
    message = client.secrets.redacted(text)
    name = facility.decode("utf-8", "replace")
    callback = client.callbacks.get("log_cb")
    if callback is not None:
        call(client, callback, (level, name, message))
    else:
        log_log(client, level, name, message)
    return 0


cdef int serve_error(Client client, rd_kafka_event_t *event) except -1:
    cdef const char *text = rd_kafka_event_error_string(event)
    error = None
    if (rd_kafka_event_error_is_fatal(event)
            or rd_kafka_event_error(event) == RD_KAFKA_RESP_ERR__FATAL):
        error = _fatal_error(client.rk)
    if error is None:
        said = client.secrets.redacted(text) if text != NULL else None
        error = KafkaError(rd_kafka_event_error(event), said)
    kx_count(&client.errors, error.code)
    callback = client.callbacks.get("error_cb")
    if int(error.code) in _ADVICE:
        client.connection_errors.remember(client, error.code, _without_details(error.message))
    if callback is not None:
        call(client, callback, (error,))
    else:
        log_error(client, error)
    return 0


# ------------------------------------------------------------------ tokens

cdef int serve_token_refresh(Client client, rd_kafka_event_t *event) except -1:
    cdef const char *config = rd_kafka_event_config_string(event)
    callback = client.callbacks["oauthbearer_token_refresh_cb"]
    try:
        token = callback(config.decode("utf-8", "replace") if config != NULL else "")
        if token is None and client.loop is not None:
            return 0                # a coroutine gets it: set_token() or refuse_token() follows
        set_token(client, token)
    except BaseException as exc:
        refuse_token(client, exc)
        count_raised(client, callback, exc)
    return 0


def set_token(Client client, token):
    """Give librdkafka the OAuthBearerToken it has asked for (rd_kafka_oauthbearer_set_token)."""
    cdef char[512] errstr
    cdef const char **extensions = NULL     # owned; what it points at is kept by `encoded`
    cdef int64_t lifetime = token.lifetime_ms
    cdef bytes value = token_bytes("value", token.value)
    cdef bytes principal = token_bytes("principal", token.principal)
    encoded = []
    for key, extension in token.extensions.items():
        encoded += [token_bytes("extensions", key), token_bytes("extensions", extension)]
    texts = (token.value, *token.extensions.values())
    client.secrets.all = client.secrets.of_settings + tuple(
        [text for text in texts if len(text) >= SHORTEST_SECRET])
    try:
        extensions = <const char **>malloc((len(encoded) + 1) * sizeof(char *))
        if extensions == NULL:
            raise MemoryError()
        for i, part in enumerate(encoded):
            extensions[i] = <bytes>part
        if rd_kafka_oauthbearer_set_token(
                client.rk, value, lifetime, principal, extensions, len(encoded),
                errstr, sizeof(errstr)):
            raise ValueError(redact(_said(errstr), client.secrets.all))
    finally:
        free(<void *>extensions)


cdef bytes token_bytes(str field, object text):
    """A part of a token in UTF-8. An error neither shows it nor holds it."""
    encoded = text.encode("utf-8", "replace")
    if b"\0" in encoded or encoded.decode() != text:
        raise invalid_property(
            "oauthbearer_token_refresh_cb",
            f"the token's {field} must be text without surrogates and NUL characters")
    return encoded


def refuse_token(Client client, exc):
    """Tell librdkafka that there is no token, and why; it asks again later
    (rd_kafka_oauthbearer_set_token_failure)."""
    try:
        reason = f"{type(exc).__name__}: {exc}".encode("utf-8", "backslashreplace")
    except MemoryError:
        reason = b"MemoryError"             # without an answer, librdkafka would never ask again
    rd_kafka_oauthbearer_set_token_failure(client.rk, reason)


# ------------------------------------------------------------------ throttling

cdef void _on_throttle(
        rd_kafka_t *rk, const char *broker_name, int32_t broker_id, int throttle_time_ms,
        void *opaque) noexcept nogil:
    """librdkafka has no event for throttling: rd_kafka_queue_poll calls this on the serving
    thread, without the GIL."""
    cdef Throttle *throttle = <Throttle *>malloc(sizeof(Throttle))
    if throttle == NULL:
        return
    throttle.broker_id = broker_id
    throttle.milliseconds = throttle_time_ms
    strncpy(throttle.broker_name, broker_name, sizeof(throttle.broker_name) - 1)
    throttle.broker_name[sizeof(throttle.broker_name) - 1] = 0
    cdef Throttle **end = <Throttle **>opaque       # Serving.throttles
    while end[0] != NULL:
        end = &end[0].next
    throttle.next = NULL
    end[0] = throttle


cdef int serve_throttles(Client client) noexcept:
    cdef Throttle *throttle
    while client.serving.throttles != NULL:
        throttle = client.serving.throttles
        client.serving.throttles = throttle.next
        try:
            callback = client.callbacks.get("throttle_cb")
            if callback is not None:
                name = throttle.broker_name.decode("utf-8", "replace")
                call(client, callback,
                     (name, throttle.broker_id, throttle.milliseconds / 1000.0))
        except BaseException as exc:
            not_lost(client, exc)
        free(throttle)
    return 0


# ------------------------------------------------------------------ what callbacks raise

cdef int call(Client client, object callback, tuple arguments) noexcept:
    """Call one of the properties' callbacks. What it raises loses nothing of what comes after."""
    try:
        callback(*arguments)
    except BaseException as exc:
        count_raised(client, callback, exc)
    return 0


cdef int count_raised(Client client, object callback, object exc) except -1:
    """A callback has raised: under manual polling the serving call raises it at its end, in the
    events thread it goes to sys.unraisablehook."""
    KX_ADD(client.callback_errors.count, 1)
    if client.manual and not KX_FLAG(client.life.abandoned):
        client.callback_errors.keep(exc)
    else:
        client.callback_errors.show(exc, callback)
    return 0


cdef int not_lost(Client client, object exc) noexcept:
    """As `count_raised`, for what came up between callbacks: a signal handler's, as a rule."""
    if client.manual and not KX_FLAG(client.life.abandoned):
        try:
            client.callback_errors.keep(exc)
        except BaseException as failure:
            unraisable(failure, None)
    else:
        unraisable(exc, None)
    return 0


cdef bint not_shown_is_due(CallbackErrors errors) noexcept nogil:
    return errors.not_shown and kx_now_us() >= errors.shown_until


@cython.final
cdef class CallbackErrors:
    """What callbacks have raised: kept for the serving call, or shown, so many in a second."""

    def __cinit__(self):
        self.kept = []

    cdef int keep(self, object exc) except -1:
        """Keep `exc`, one of MAX_RAISED. There is always room for an interruption
        (KeyboardInterrupt, SystemExit)."""
        if len(self.kept) < MAX_RAISED:
            self.kept.append(exc)
            return 0
        self.not_kept += 1
        if (not isinstance(exc, Exception)
                and isinstance(self.kept[MAX_RAISED - 1], Exception)):
            self.kept[MAX_RAISED - 1] = exc
        return 0

    cdef int show(self, object exc, object callback) except -1:
        """Give `exc` to sys.unraisablehook, MAX_RAISED in a second; a line in the log says how
        many more there were."""
        cdef int64_t now = kx_now_us()
        if now >= self.shown_until:
            self.report_not_shown()
            self.shown_until = now + 1000000
            self.shown = 0
        if self.shown < MAX_RAISED or not isinstance(exc, Exception):
            self.shown += 1
            unraisable(exc, callback)
        else:
            self.not_shown += 1
        return 0

    cdef int report_not_shown(self) noexcept:
        cdef int64_t count = self.not_shown
        self.not_shown = 0
        try:
            if count:
                _log.warning(
                    "%d more callbacks raised; of one second, the first %d exceptions are shown",
                    count, MAX_RAISED)
        except BaseException as exc:
            unraisable(exc, None)
        return 0


cdef int unraisable(object exc, object where) noexcept:
    """Give `exc` to sys.unraisablehook. PyErr_WriteUnraisable takes the error that is set, not the
    one that is being handled."""
    PyErr_SetObject(type(exc), exc)
    PyErr_WriteUnraisable(where)
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


cdef int _propagate() except -1:
    """Raise the exception that is set."""
    return -1
