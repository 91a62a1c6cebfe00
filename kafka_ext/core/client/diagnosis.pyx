# What is known of why nothing gets through, and how often the log says so.

import re as _re

# Why librdkafka has no producer id yet where a broker is slow to answer: it tries again, and
# nothing is wrong.
cdef str _SLOW_PRODUCER_ID = "destroyed without termination"

# A cause is logged at ERROR or WARNING once in so many microseconds; in between at DEBUG.
cdef int64_t LOG_AGAIN_US = 60 * 1000000
cdef enum:
    MOST_CAUSES = 100

cdef object _AFTER = _re.compile(r" \(after \d+ms in state .*\)$")

cdef str _ALL_DOWN = "no broker can be reached"
cdef dict _ADVICE = {
    <int>RD_KAFKA_RESP_ERR__TRANSPORT:
        "check that a broker listens there and that security.protocol is the one it speaks",
    <int>RD_KAFKA_RESP_ERR__RESOLVE:
        "check the host name in bootstrap.servers, or in the broker's advertised.listeners",
    <int>RD_KAFKA_RESP_ERR__SSL: "check security.protocol and the properties ssl.*",
    <int>RD_KAFKA_RESP_ERR__AUTHENTICATION: "check the properties sasl.*",
    <int>RD_KAFKA_RESP_ERR__BAD_MSG:
        "check that a Kafka broker listens there and that security.protocol is the one it speaks",
    <int>RD_KAFKA_RESP_ERR__ALL_BROKERS_DOWN: "check bootstrap.servers and the network",
}


@cython.final
cdef class ConnectionErrors:
    """The last error of a connection, and what was logged at WARNING when.

    Only the serving thread writes it.
    """

    def __cinit__(self):
        self.logged = {}

    cdef bint due(self, str text) except -1:
        """Whether `text` has not been logged for a while; then it counts as logged."""
        cdef int64_t now = kx_now_us()
        cdef int64_t at = self.logged.get(text, 0)
        if at and now - at < LOG_AGAIN_US:
            return False
        if len(self.logged) >= MOST_CAUSES:
            self.logged.clear()
        self.logged[text] = now
        return True

    cdef int remember(self, Client client, int code, str text) except -1:
        if code == RD_KAFKA_RESP_ERR__ALL_BROKERS_DOWN:     # a cause that is known is there still
            text = _ALL_DOWN if self.last is None else None
        if text is not None:
            self.last = f"; last connection error: {text}"
        self.last_at = kx_now_us()
        self.progress = client.progress()
        return 0

    cdef str hint(self, Client client):
        """What to append to the message of a timeout; "": nothing is known, or it is over."""
        if self.last is None:
            return ""
        if client.progress() != self.progress and kx_now_us() - self.last_at > LOG_AGAIN_US:
            return ""
        return self.last


cdef str _without_details(str text):
    """librdkafka's text without what differs from one time to the next."""
    return _AFTER.sub("", text).replace("/bootstrap: ", ": ", 1)


cdef int log_error(Client client, object error) except -1:
    """An error event without an `error_cb`: one line for a cause in a while, others at DEBUG."""
    cdef str text
    cdef int code = int(error.code)
    if error.is_fatal:
        _log.error("kafka_ext: fatal: %s; close the producer and make another", error)
        return 0
    text = _without_details(error.message)
    if code == RD_KAFKA_RESP_ERR__ALL_BROKERS_DOWN:
        text = _ALL_DOWN if client.connection_errors.last is None else None
    if text is None or not client.connection_errors.due(text):
        _log.debug("kafka_ext: %s", error)
        return 0
    advice = _ADVICE.get(code)
    _log.log(30 if advice is None else 40, "kafka_ext: %s: %s; it goes on trying%s",
             error.name, text, "" if advice is None else ": " + advice)
    return 0


cdef int log_log(Client client, int level, str facility, str message) except -1:
    """A log event without a `log_cb`."""
    cdef int python_level = _LOG_LEVELS[min(max(level, 0), 7)]
    # Errors of connections come as error events as well.
    if facility == "FAIL" or (facility == "GETPID" and _SLOW_PRODUCER_ID in message):
        python_level = 10
    elif python_level >= 30 and not client.connection_errors.due(_without_details(message)):
        python_level = 10
    _log.log(python_level, "kafka_ext: %s: %s", facility, message)
    return 0
