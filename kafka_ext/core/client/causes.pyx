# What a producer knows of why nothing gets through, and how often it says so.

import re as _re

# Why librdkafka has no producer id yet where a broker is slow to answer: it tries again, and nothing is wrong.
cdef str _SLOW_PRODUCER_ID = "destroyed without termination"

# A cause is said at ERROR or WARNING once in so long, in microseconds; in between at DEBUG.
cdef int64_t SAY_AGAIN_US = 60 * 1000000
# So long after the first record was sent without any report, there is a line.
cdef int64_t SILENCE_US = 5 * 1000000
cdef enum:
    MOST_CAUSES = 100

cdef object _AFTER = _re.compile(r" \(after \d+ms in state .*\)$")

cdef str _NOBODY = "no broker can be reached"
cdef int _ALL_DOWN = ErrorCode["ALL_BROKERS_DOWN"]
cdef int _MSG_TIMED_OUT = ErrorCode["MSG_TIMED_OUT"]
cdef dict _ADVICE = {
    int(ErrorCode["TRANSPORT"]): "check that a broker listens there and that security.protocol is the one it speaks",
    int(ErrorCode["RESOLVE"]): "check the host name in bootstrap.servers, or in the broker's advertised.listeners",
    int(ErrorCode["SSL"]): "check security.protocol and the properties ssl.*",
    int(ErrorCode["AUTHENTICATION"]): "check the properties sasl.*",
    int(ErrorCode["BAD_MSG"]): "check that a Kafka broker listens there and that security.protocol is the one it speaks",
    int(ErrorCode["ALL_BROKERS_DOWN"]): "check bootstrap.servers and the network",
}


@cython.final
cdef class _Causes:
    """The last error of a connection, and what was said at WARNING when. Only the serving thread writes it."""

    def __init__(self):
        self.said = {}

    cdef bint due(self, str text) except -1:
        """Whether `text` has not been said in a while; then it counts as said."""
        cdef int64_t now = kx_now_us()
        cdef int64_t at = self.said.get(text, 0)
        if at and now - at < SAY_AGAIN_US:
            return False
        if len(self.said) >= MOST_CAUSES:
            self.said.clear()
        self.said[text] = now
        return True

    cdef int remember(self, Handle handle, int code, str text) except -1:
        if code == _ALL_DOWN:           # where the cause is known already, it is still there
            text = _NOBODY if self.last is None else None
        if text is not None:
            self.last = f"; last connection error: {text}"
        self.last_at = kx_now_us()
        self.delivered = KX_LOAD(handle.delivered)
        return 0

    cdef str known(self, Handle handle):
        """What to put behind the message of a timeout; "": nothing is known, or it is over."""
        if self.last is None:
            return ""
        if KX_LOAD(handle.delivered) != self.delivered and kx_now_us() - self.last_at > SAY_AGAIN_US:
            return ""
        return self.last


cdef str _cleaned(str text):
    """librdkafka's text without what changes from one time to the next."""
    return _AFTER.sub("", text).replace("/bootstrap: ", ": ", 1)


cdef int say_error(Handle handle, object error) except -1:
    """An error event without an `error_cb`: one line for a cause in a while, the others at DEBUG."""
    cdef str text
    cdef int code = int(error.code)
    if error.is_fatal:
        _log.error("kafka_ext: fatal: %s; close the producer and make another", error)
        return 0
    text = _cleaned(error.message)
    if code == _ALL_DOWN:
        text = _NOBODY if handle.causes.last is None else None
    if text is None or not handle.causes.due(text):
        _log.debug("kafka_ext: %s", error)
        return 0
    advice = _ADVICE.get(code)
    _log.log(30 if advice is None else 40, "kafka_ext: %s: %s; it goes on trying%s", error.name, text,
             "" if advice is None else ": " + advice)
    return 0


cdef int say_log(Handle handle, int level, str facility, str message) except -1:
    """A log event without a `log_cb`."""
    cdef int python_level = _LOG_LEVELS[min(max(level, 0), 7)]
    # Errors of connections come as error events as well.
    if facility == "FAIL" or (facility == "GETPID" and _SLOW_PRODUCER_ID in message):
        python_level = 10
    elif python_level >= 30 and not handle.causes.due(_cleaned(message)):
        python_level = 10
    _log.log(python_level, "kafka_ext: %s: %s", facility, message)
    return 0


cdef int watch_silence(Handle handle) noexcept nogil:
    """Notice that nothing has been reported since the first record was sent. By the serving thread, in each turn."""
    cdef int64_t now
    if KX_LOAD(handle.reported) or not KX_LOAD(handle.sent) or handle.silence_told:
        return 0
    now = kx_now_us()
    if not handle.waiting_since:
        handle.waiting_since = now
    elif now - handle.waiting_since > SILENCE_US:
        handle.silence_told = True
        with gil:
            say_silence(handle)
    return 0


cdef int say_silence(Handle handle) noexcept:
    try:
        if handle.causes.last is None:
            _log.warning(
                "kafka_ext: nothing was acknowledged by %s in %d s, and there was no error; it goes on trying: check that Kafka brokers "
                "listen there and that security.protocol is the one they speak",
                get_conf(rd_kafka_conf(handle.rk), "bootstrap.servers"), SILENCE_US // 1000000)
    except BaseException as exc:
        not_lost(handle, exc)
    return 0
