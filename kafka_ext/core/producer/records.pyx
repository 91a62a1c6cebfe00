# What goes in (ProducerRecord) and what comes out (RecordMetadata), and the small words both use.

import datetime as _datetime
from copyreg import _slotnames
from enum import IntEnum as _IntEnum, Enum as _Enum
from operator import index as _index


class SendOption(_IntEnum):
    """Whether `send` copies the value.

    NO_COPY_RECORD_VALUE
        The value's buffer stays pinned until its delivery callback has returned.
    TO_COPY_RECORD_VALUE
        librdkafka copies it within `send`; the buffer is the caller's again when `send` returns
        (RD_KAFKA_MSG_F_COPY).
    """

    __module__ = "kafka_ext"
    NO_COPY_RECORD_VALUE = 0
    TO_COPY_RECORD_VALUE = 1


class ActionWhileQueueIsFull(_IntEnum):
    """What `send` does when the local queue has no room (`queue.buffering.max.messages`,
    `queue.buffering.max.kbytes`).

    BLOCK
        Wait until there is, with the GIL released. With manual polling, and in a callback, as
        NO_BLOCK: nobody else would make room.
    NO_BLOCK
        Raise QueueFullError at once.
    """

    __module__ = "kafka_ext"
    BLOCK = 0
    NO_BLOCK = 1


class PersistedStatus(_IntEnum):
    """Whether a record is in the log (rd_kafka_msg_status_t).

    NOT: certainly not; sending it again makes no duplicate.
    POSSIBLY: it was sent and never answered; sending it again may make one.
    DONE: it is, acknowledged by as many replicas as `acks` asks for.
    """

    __module__ = "kafka_ext"
    NOT = RD_KAFKA_MSG_STATUS_NOT_PERSISTED
    POSSIBLY = RD_KAFKA_MSG_STATUS_POSSIBLY_PERSISTED
    DONE = RD_KAFKA_MSG_STATUS_PERSISTED


class TimestampType(str, _Enum):
    """Who set a record's timestamp: the producer (CREATE_TIME) or the broker (LOG_APPEND_TIME, the
    topic's `message.timestamp.type`)."""

    __module__ = "kafka_ext"
    NOT_AVAILABLE = "NotAvailable"
    CREATE_TIME = "CreateTime"
    LOG_APPEND_TIME = "LogAppendTime"

    def __str__(self):
        return self.value


cdef object _NO_COPY = SendOption.NO_COPY_RECORD_VALUE
cdef object _COPY = SendOption.TO_COPY_RECORD_VALUE
cdef object _BLOCK = ActionWhileQueueIsFull.BLOCK
cdef object _NO_BLOCK = ActionWhileQueueIsFull.NO_BLOCK

cdef tuple _PERSISTED = tuple(PersistedStatus)
cdef tuple _PERSISTED_TEXT = ("NotPersisted", "PossiblyPersisted", "Persisted")
cdef tuple _TIMESTAMP_TYPES = tuple(TimestampType)
cdef object _EPOCH = _datetime.datetime(1970, 1, 1, tzinfo=_datetime.timezone.utc)
cdef object _MILLISECOND = _datetime.timedelta(milliseconds=1)

# The one representation of "the partitioner chooses" and of "now" inside a record; both are
# librdkafka's own.
cdef enum:
    NO_PARTITION = -1
    NO_TIMESTAMP = 0


cdef object _invalid_record(str message):
    return InvalidRecordError(KafkaError(RD_KAFKA_RESP_ERR__INVALID_ARG, message))


cdef int32_t _partition(object value) except -2:
    if value is None:
        return NO_PARTITION
    try:
        number = _index(value)
    except TypeError:
        raise TypeError(f"partition must be an int or None, not {type(value).__name__}") from None
    if not 0 <= number <= INT32_MAX:
        raise _invalid_record(
            f"partition must be from 0 to {INT32_MAX}, not {number}; None lets the partitioner "
            "choose")
    return number


cdef object _milliseconds(object time, str what):
    """Milliseconds since the epoch of a datetime, which must say in which time zone it is.

    A naive one is local time for Python, UTC for pandas and for most columns: the same time would
    mean two.
    """
    if time != time:
        raise _invalid_record(f"{what} is {time}, which is no time; None means now")
    if time.utcoffset() is None:
        raise _invalid_record(
            f"{what} {time} has no time zone: give it one, astimezone() for local time, "
            "replace(tzinfo=timezone.utc) for UTC "
            "(pandas: tz_localize)")
    try:
        return (time.astimezone(_datetime.timezone.utc) - _EPOCH) // _MILLISECOND
    except OverflowError:
        raise _invalid_record(
            f"{what} {time} is outside the years that a datetime in UTC can be in") from None


cdef int64_t _timestamp(object value) except -1:
    if value is None:
        return NO_TIMESTAMP
    if isinstance(value, _datetime.datetime):
        number = _milliseconds(value, "timestamp")
    else:
        try:
            number = _index(value)
        except TypeError:
            raise TypeError(
                "timestamp must be an int (milliseconds since the epoch), a datetime or None, not "
                f"{type(value).__name__}"
            ) from None
    if not 0 < number <= INT64_MAX:
        raise _invalid_record(
            f"timestamp must be from 1 to {INT64_MAX} milliseconds since the epoch, not {number}; "
            "None means now "
            "(librdkafka takes 0 for now as well, so that the epoch itself cannot be sent)")
    return number


@cython.freelist(64)
cdef class ProducerRecord:
    """ProducerRecord(topic, value=None, *, key=None, partition=None, headers=None, \
timestamp=None, id=None)\n--\n\n\
    A record to send: where to, and what.

    Args:
        topic (str): the topic's name.
        value: any C-contiguous buffer, a str (sent as UTF-8), or None for a tombstone. Not copied,
            see `send`. With a producer that has a `value_serializer`, whatever that takes.
        key: the same types; copied within `send`. None for no key. With a `key_serializer`,
            whatever that takes.
        partition (int | None): 0 or more; None lets the partitioner choose.
        headers: `(name, value)` pairs in a sequence, or a mapping; names are str, values as `value`
            above. Copied within `send`. What can be gone through only once, such as a generator, is
            read here, into a list.
        timestamp (int | datetime | None): milliseconds since the epoch, or a datetime with a time
            zone; None means the time of `send`.
        id: anything; comes back as `RecordMetadata.record_id`.

    Raises:
        TypeError: an argument has the wrong type; it is named.
        ValueError: partition or timestamp is out of range (also a KafkaException).

    Every argument is an attribute that can be set again; a record can be sent any number of times.
    Equal to another of the same content, buffers being compared by what they hold; not hashable,
    since it can change. Pickled and copied with what a subclass has added.
    """

    def __init__(self, topic, value=None, *, key=None, partition=None, headers=None, timestamp=None,
                 id=None):
        if type(topic) is not str:
            self.topic = topic
        else:
            self._topic = topic
        self.value = value
        self.key = key
        if headers is not None:
            self.headers = headers
        self.id = id
        self._partition = NO_PARTITION if partition is None else _partition(partition)
        self._timestamp = NO_TIMESTAMP if timestamp is None else _timestamp(timestamp)

    @property
    def topic(self):
        return self._topic

    @topic.setter
    def topic(self, topic):
        if not isinstance(topic, str):
            raise TypeError(f"topic must be a str, not {type(topic).__name__}")
        self._topic = exact_str(topic)

    @property
    def headers(self):
        return self._headers

    @headers.setter
    def headers(self, headers):
        # A record may be looked at, tried again and sent again: what is gone after the first time
        # is read once, here.
        if hasattr(headers, "__next__"):
            headers = list(headers)
        self._headers = headers

    @property
    def partition(self):
        return None if self._partition == NO_PARTITION else self._partition

    @partition.setter
    def partition(self, partition):
        self._partition = _partition(partition)

    @property
    def timestamp(self):
        return None if self._timestamp == NO_TIMESTAMP else self._timestamp

    @timestamp.setter
    def timestamp(self, timestamp):
        self._timestamp = _timestamp(timestamp)

    def __reduce__(self):
        fields = (self._topic, self.value, self.key, self.partition, self.headers, self.timestamp,
                  self.id)
        added = getattr(self, "__dict__", None) or None
        slots = {name: getattr(self, name) for name in _slotnames(type(self))
                 if hasattr(self, name)}
        return _restore_record, (type(self), *fields), (added, slots) if slots else added

    def __eq__(self, other):
        if not isinstance(other, ProducerRecord):
            return NotImplemented
        return (
            self._topic == other.topic and self._partition == (<ProducerRecord>other)._partition
            and self._timestamp == (<ProducerRecord>other)._timestamp
            and same(self.value, other.value) and same(self.key, other.key)
            and same(self.headers, other.headers) and same(self.id, other.id))

    __hash__ = None

    def __repr__(self):
        parts = [repr(self._topic), _shorten(self.value)]
        for name in ("key", "partition", "headers", "timestamp", "id"):
            part = getattr(self, name)
            if part is not None:
                parts.append(f"{name}={_shorten(part)}")
        return f"ProducerRecord({', '.join(parts)})"


def _restore_record(kind, topic, value, key, partition, headers, timestamp, id):
    # a subclass may have another __init__; what it has added follows as state
    record = kind.__new__(kind)
    ProducerRecord.__init__(record, topic, value, key=key, partition=partition, headers=headers,
                            timestamp=timestamp, id=id)
    return record


cdef bint same(object one, object other) except -1:
    """Whether two parts of records are equal. Arrays compare element by element: those by the bytes
    that would be sent."""
    if one is other:
        return True
    try:
        equal = one == other
        if isinstance(equal, bool):
            return equal
    except Exception:
        pass
    try:
        return memoryview(one) == memoryview(other)
    except TypeError:
        return False


cdef enum:
    # When a mock cluster says that it appended, whenever that was: no time rather than one in 1970.
    MOCK_TIMESTAMP = 1234


@cython.final
@cython.freelist(64)
cdef class RecordMetadata:
    """RecordMetadata(*args, **kwargs)\n--\n\n\
    What became of one record: the argument of `on_delivery`, the result of `sync_send` and of
    `send_future`.

    Made by the producer only. Read-only, and valid for as long as it is kept. Equal to another of
    the same content, hashable, and can be pickled and copied (headers that are memoryviews as
    bytes).

    Attributes:
        topic (str): where the record went.
        partition (int | None): and which part of it; None while none was chosen.
        offset (int | None): its place in the partition; None when it is not known to be there.
        record_id (object): the record's `id`.
        key_size (int): bytes of the key.
        value_size (int): bytes of the value.
        timestamp (int | None): milliseconds since the epoch (rd_kafka_message_timestamp). None from
            an EmbeddedBroker, which answers with no time; the record there has its own.
        timestamp_type (TimestampType): who set it.
        persisted_status (PersistedStatus): whether it is in the log (rd_kafka_message_status).
        headers (list[tuple[str, object]] | None): the record's headers.
        latency (float | None): seconds from `send` to the callback (rd_kafka_message_latency).
        broker_id (int | None): the broker that answered (rd_kafka_message_broker_id).
    """

    def __init__(self):
        raise TypeError("a RecordMetadata is made by the producer only")

    cdef int settle(self) except -1:
        """Copy what is wanted of the message, while it is there. Called with the GIL, before the
        event is destroyed.
        """
        cdef const rd_kafka_message_t *message = self.message
        cdef rd_kafka_timestamp_type_t timestamp_type
        if message == NULL:
            return 0
        self._partition = message.partition
        self._offset = message.offset
        self._key_size = message.key_len
        self._value_size = message.len
        self._timestamp = rd_kafka_message_timestamp(message, &timestamp_type)
        self._timestamp_type = timestamp_type
        if (self._timestamp == MOCK_TIMESTAMP
                and timestamp_type == RD_KAFKA_TIMESTAMP_LOG_APPEND_TIME):
            self._timestamp = -1
            self._timestamp_type = RD_KAFKA_TIMESTAMP_NOT_AVAILABLE
        self._latency = rd_kafka_message_latency(message)
        self._status = rd_kafka_message_status(message)
        self._broker_id = rd_kafka_message_broker_id(message)
        self.message = NULL
        return 0

    @property
    def topic(self):
        return self._topic

    @property
    def partition(self):
        cdef int32_t partition = self.message.partition if self.message != NULL else self._partition
        return None if partition < 0 else partition

    @property
    def offset(self):
        cdef int64_t offset = self.message.offset if self.message != NULL else self._offset
        return None if offset < 0 else offset

    @property
    def record_id(self):
        return self._record_id

    @property
    def key_size(self):
        return self.message.key_len if self.message != NULL else self._key_size

    @property
    def value_size(self):
        return self.message.len if self.message != NULL else self._value_size

    @property
    def timestamp(self):
        self.settle()
        return None if self._timestamp < 0 else self._timestamp

    @property
    def timestamp_type(self):
        self.settle()
        return _TIMESTAMP_TYPES[self._timestamp_type]

    @property
    def persisted_status(self):
        cdef int status = rd_kafka_message_status(
            self.message) if self.message != NULL else self._status
        return _PERSISTED[status]

    @property
    def headers(self):
        return None if self._headers is None else list(self._headers)

    @property
    def latency(self):
        self.settle()
        return None if self._latency < 0 else self._latency / 1e6

    @property
    def broker_id(self):
        self.settle()
        return None if self._broker_id < 0 else self._broker_id

    cdef tuple fields(self):
        self.settle()
        return (self._topic, self._partition, self._offset, self._record_id, self._key_size,
                self._value_size, self._timestamp,
                self._timestamp_type, self._status, self._latency, self._broker_id)

    def __eq__(self, other):
        if not isinstance(other, RecordMetadata):
            return NotImplemented
        return self.fields() == (
            <RecordMetadata>other).fields() and self.header_pairs() == (
                <RecordMetadata>other).header_pairs()

    cdef object header_pairs(self):
        return None if self._headers is None else [tuple(pair) for pair in self._headers]

    def __hash__(self):
        self.settle()
        return hash((self._topic, self._partition, self._offset))

    def __reduce__(self):
        headers = self._headers
        if headers is not None:
            headers = [(name, bytes(value) if isinstance(value, memoryview) else value) for name,
                       value in headers]
        return _restore_metadata, (*self.fields(), headers)

    def __str__(self):
        self.settle()
        offset = "NA" if self._offset < 0 else str(self._offset)
        partition = "NA" if self._partition < 0 else str(self._partition)
        record_id = "" if self._record_id is None else f":id[{self._record_id}]"
        if self._timestamp < 0:
            when = ""
        else:
            try:
                time = (
                    _EPOCH + self._timestamp * _MILLISECOND).isoformat(
                        timespec="milliseconds").replace("+00:00", "Z")
            except OverflowError:
                time = str(self._timestamp)         # past the year 9999
            when = f",{_TIMESTAMP_TYPES[self._timestamp_type].value}[{time}]"
        status = _PERSISTED_TEXT[self._status]
        return f"{self._topic}-{partition}@{offset}{record_id}{when},{status}"

    def __repr__(self):
        return f"<RecordMetadata {self}>"


def _restore_metadata(topic, partition, offset, record_id, key_size, value_size, timestamp,
                      timestamp_type, status, latency, broker_id,
                      headers):
    cdef RecordMetadata metadata = RecordMetadata.__new__(RecordMetadata)
    metadata._topic = topic
    metadata._partition = partition
    metadata._offset = offset
    metadata._record_id = record_id
    metadata._key_size = key_size
    metadata._value_size = value_size
    metadata._timestamp = timestamp
    metadata._timestamp_type = timestamp_type
    metadata._status = status
    metadata._latency = latency
    metadata._broker_id = broker_id
    metadata._headers = headers
    return metadata
