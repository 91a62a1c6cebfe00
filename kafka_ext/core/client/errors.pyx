# Errors are values at the bottom and exceptions at the top: C returns codes,
# and this file is the one place that turns a code into the right exception class.

from enum import IntEnum as _IntEnum


cdef object _list_error_codes():
    """Every code the loaded librdkafka knows, as `{name without the leading underscore: value}`."""
    cdef const rd_kafka_err_desc *descs = NULL
    cdef size_t count = 0
    rd_kafka_get_err_descs(&descs, &count)
    codes = {}
    for i in range(count):
        if descs[i].name != NULL and descs[i].desc != NULL:
            codes[descs[i].name.decode().lstrip("_")] = descs[i].code
    return codes


ErrorCode = _IntEnum("ErrorCode", _list_error_codes(), module="kafka_ext")
ErrorCode.__doc__ = """Every error code of the loaded librdkafka, under its own name without the
leading underscore.

Codes made by the client itself are negative, the broker's are those of the Kafka protocol. Source:
rd_kafka_get_err_descs().
"""

# What the Kafka protocol marks as retriable, and the local codes after which the same send may
# succeed later. librdkafka has retried these by itself for as long as message.timeout.ms allows;
# the flag tells a caller that trying anew makes sense.
cdef frozenset _RETRIABLE = frozenset(
    int(ErrorCode[name]) for name in (
        "CORRUPT_MESSAGE", "INVALID_MSG", "UNKNOWN_TOPIC_OR_PART", "LEADER_NOT_AVAILABLE",
        "NOT_LEADER_FOR_PARTITION",
        "REQUEST_TIMED_OUT", "REPLICA_NOT_AVAILABLE", "NETWORK_EXCEPTION",
        "COORDINATOR_LOAD_IN_PROGRESS",
        "COORDINATOR_NOT_AVAILABLE", "NOT_COORDINATOR", "NOT_ENOUGH_REPLICAS",
        "NOT_ENOUGH_REPLICAS_AFTER_APPEND",
        "NOT_CONTROLLER", "KAFKA_STORAGE_ERROR", "CONCURRENT_TRANSACTIONS", "FENCED_LEADER_EPOCH",
        "UNKNOWN_LEADER_EPOCH",
        "OFFSET_NOT_AVAILABLE", "PREFERRED_LEADER_NOT_AVAILABLE", "UNSTABLE_OFFSET_COMMIT",
        "THROTTLING_QUOTA_EXCEEDED",
        "QUEUE_FULL", "TIMED_OUT", "MSG_TIMED_OUT", "TIMED_OUT_QUEUE", "TRANSPORT",
        "ALL_BROKERS_DOWN", "RETRY", "WAIT_COORD",
        "IN_PROGRESS", "PREV_IN_PROGRESS", "RESOLVE",
    ) if name in ErrorCode.__members__
)


class KafkaError:
    """What went wrong, as a value: an error code and what is known of it.

    Equal to any other `KafkaError` of the same code and to that `ErrorCode`; hashable; picklable;
    always true.

    Attributes:
        code (ErrorCode): the code; a plain `int` where this librdkafka has no name for it.
        name (str): its name, such as ``"QUEUE_FULL"``.
        message (str): what happened, in librdkafka's words where it has any.
        is_fatal (bool): the producer can do nothing more; close it and make another
            (rd_kafka_fatal_error).
        is_retriable (bool): the same call may succeed later.
        transaction_requires_abort (bool): the transaction must be aborted
            (rd_kafka_error_txn_requires_abort).
    """

    __slots__ = ("_code", "_message", "_fatal", "_retriable", "_abort")
    __module__ = "kafka_ext"

    def __init__(self, code, message=None, *, is_fatal=False, is_retriable=None,
                 transaction_requires_abort=False):
        if not isinstance(code, int):
            raise TypeError(f"code must be an ErrorCode or an int, not {type(code).__name__}")
        try:
            self._code = ErrorCode(code)
        except ValueError:
            self._code = int(code)
        self._message = message
        self._fatal = bool(is_fatal)
        self._retriable = is_retriable
        self._abort = bool(transaction_requires_abort)

    @property
    def code(self):
        return self._code

    @property
    def name(self):
        return getattr(self._code, "name", f"ERR_{self._code}")

    @property
    def message(self):
        if self._message is None:
            return rd_kafka_err2str(<int>self._code).decode("utf-8", "replace")
        return self._message

    @property
    def is_fatal(self):
        return self._fatal

    @property
    def is_retriable(self):
        if self._retriable is None:
            return not self._fatal and int(self._code) in _RETRIABLE
        return self._retriable

    @property
    def transaction_requires_abort(self):
        return self._abort

    def __eq__(self, other):
        if isinstance(other, KafkaError):
            return int(self._code) == int(other._code)
        if isinstance(other, int):
            return int(self._code) == other
        return NotImplemented

    def __hash__(self):
        return hash(int(self._code))

    def __str__(self):
        return f"{self.name}: {self.message}"

    def __repr__(self):
        flags = "".join(
            f", {name}=True"
            for name in ("is_fatal", "is_retriable", "transaction_requires_abort")
            if getattr(self, name)
        )
        return f"KafkaError({self.name}, {self.message!r}{flags})"

    def __reduce__(self):
        return _restore_error, (int(self._code), self._message, self._fatal, self._retriable,
                                self._abort)


# One of each, made beforehand: where there is no memory to say more, a failed record is still
# reported as failed, and with its code.
cdef int _FIRST_CODE = min(ErrorCode)
cdef list _PREPARED = [KafkaError(code) for code in range(min(ErrorCode), max(ErrorCode) + 1)]


cdef object _prepared_error(int code):
    """The error for `code`, without an allocation."""
    cdef int i = code - _FIRST_CODE
    if not 0 <= i < len(_PREPARED):
        i = RD_KAFKA_RESP_ERR__FAIL - _FIRST_CODE
    return _PREPARED[i]


def _restore_error(code, message, fatal, retriable, abort):
    return KafkaError(code, message, is_fatal=fatal, is_retriable=retriable,
                      transaction_requires_abort=abort)


cdef object kept_of(object exc):
    """What was added to an exception, its notes among it, for a pickle or copy; without the batch,
    which stays where it is."""
    return {
        name: value for name, value in vars(
            exc).items() if name not in ("error", "property", "batch")} or None


class KafkaException(Exception):
    """The base of every exception of this package; `error` is the `KafkaError` that says why."""

    __module__ = "kafka_ext"

    def __init__(self, error, *args):
        if not isinstance(error, KafkaError):
            raise TypeError(f"error must be a KafkaError, not {type(error).__name__}")
        super().__init__(error, *args)
        self.error = error

    def __str__(self):
        return str(self.error)

    def __reduce__(self):
        return type(self), (self.error,), kept_of(self)


class QueueFullError(KafkaException, BufferError):
    """The local queue has no room (`queue.buffering.max.messages`, `queue.buffering.max.kbytes`)
    and the call may not wait."""

    __module__ = "kafka_ext"


class KafkaTimeoutError(KafkaException, TimeoutError):
    """The time given to a call ran out. What the call had started goes on: messages stay
    enqueued."""

    __module__ = "kafka_ext"


class InvalidConfigError(KafkaException, ValueError):
    """A property that is unknown, has a value librdkafka refuses, or contradicts another;
    `property` names it where one does."""

    __module__ = "kafka_ext"

    def __init__(self, error, property=None):
        super().__init__(error)
        self.property = property

    def __reduce__(self):
        return type(self), (self.error, self.property), kept_of(self)


class InvalidRecordError(KafkaException, ValueError):
    """A record that no broker could take: a bad topic name, a header name with a NUL, a partition
    out of range."""

    __module__ = "kafka_ext"


class ProducerClosedError(KafkaException):
    """The producer is closed, or closing."""

    __module__ = "kafka_ext"


class ProducerForkedError(KafkaException):
    """The producer was made before `os.fork()`: its threads and connections stayed in the parent.
    Make one in the child."""

    __module__ = "kafka_ext"


cdef object _exception(object error):
    """The exception that carries `error`: the one place where a code becomes a class."""
    cdef int code = <int>int(error.code)
    if code == RD_KAFKA_RESP_ERR__QUEUE_FULL:
        return QueueFullError(error)
    if code == RD_KAFKA_RESP_ERR__TIMED_OUT:
        return KafkaTimeoutError(error)
    return KafkaException(error)


cdef int check(rd_kafka_resp_err_t err, str call) except -1:
    """Raise for a code that librdkafka's function `call` returned."""
    if err != RD_KAFKA_RESP_ERR_NO_ERROR:
        raise _exception(
            KafkaError(err, f"{call}: {rd_kafka_err2str(err).decode('utf-8', 'replace')}"))
    return 0


cdef str _AFTER_FATAL = "; close this producer and make another"


cdef object fatal_hint(object fatal):
    """The fatal error as a call raises it that can do nothing more: with what to do."""
    return KafkaError(fatal.code, fatal.message + _AFTER_FATAL, is_fatal=True)


cdef int check_error(rd_kafka_error_t *error, str call, str cause="") except -1:
    """Raise for a rich error that librdkafka's function `call` returned, and free it (owned by the
    caller of that function).

    `cause` is what is known of the connections, to put behind what may succeed later.
    """
    if error == NULL:
        return 0
    cdef str next_call = ""
    if rd_kafka_error_is_fatal(error):
        next_call = _AFTER_FATAL
    elif rd_kafka_error_txn_requires_abort(error):
        next_call = "; call abort_transaction()"
    elif rd_kafka_error_is_retriable(error):
        next_call = cause
    try:
        value = KafkaError(
            rd_kafka_error_code(error),
            f"{call}: {rd_kafka_error_string(error).decode('utf-8', 'replace')}{next_call}",
            is_fatal=rd_kafka_error_is_fatal(error),
            is_retriable=bool(rd_kafka_error_is_retriable(error)),
            transaction_requires_abort=rd_kafka_error_txn_requires_abort(error),
        )
    finally:
        rd_kafka_error_destroy(error)
    raise _exception(value)


def exception_for(error):
    """The exception that carries `error`, of the class its code calls for."""
    return _exception(error)


cdef str _shorten(object value):
    text = repr(value)
    return text if len(text) <= 80 else f"{text[:60]}… <{type(value).__name__}>"


cdef str exact_str(object text):
    """The characters of a str, as a plain one: a subclass (a StrEnum, say) may print as something
    else, or hash as something else."""
    return text if type(text) is str else PyUnicode_FromObject(text)
