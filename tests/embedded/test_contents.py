"""What arrives at the broker is what was in the record, whatever it was made of and whatever
becomes of the buffers after `send`.
"""

import array
import ctypes
import mmap
import threading
import time
from collections import OrderedDict
from datetime import datetime, timedelta, timezone
from types import MappingProxyType

import numpy as np
import pytest

from kafka_ext import ErrorCode, KafkaException, KafkaProducer, ProducerRecord, SendOption
from kafka_ext.testing import EmbeddedBroker

# The most that librdkafka reserves for a record's lengths, attributes, timestamp and offset
# (RD_KAFKAP_MESSAGE_V2_MAX_OVERHEAD).
OVERHEAD = 36


@pytest.fixture
def broker():
    with EmbeddedBroker(topics={"one": 1, "four": 4}) as broker:
        yield broker


@pytest.fixture
def connect(broker):
    """Makes producers of `broker`, with idempotence off, one thing less that can go wrong; closes
    them.
    """
    made = []

    def connect(**settings):
        made.append(
            KafkaProducer(broker.config(**{"enable_idempotence": False, "linger_ms": 0} | settings))
        )
        return made[-1]

    yield connect
    for producer in made:
        producer.close(10)


@pytest.fixture
def lingering(connect):
    """A producer that looks at no record before flush() tells it to: whatever is written into a
    buffer until then is in time.
    """
    return connect(linger_ms=60_000)


def arrived(broker, producer, *records, **options):
    """The messages that `records`, sent to the topic "one", have become."""
    for record in records:
        producer.send(record, **options)
    producer.flush(20)
    messages = broker.messages("one")
    assert len(messages) == len(records)
    return messages


# ---------------------------------------------------------------------- None and empty


@pytest.mark.parametrize("option", SendOption)
def test_none_and_empty_are_different(broker, connect, option):
    nothing = [None, b"", "", bytearray(), memoryview(b""), array.array("i"), np.empty((0, 3))]
    both = [(key, value) for key in nothing for value in nothing]
    messages = arrived(
        broker,
        connect(),
        *(ProducerRecord("one", value, key=key) for key, value in both),
        option=option,
    )
    for (key, value), message in zip(both, messages, strict=True):
        assert message.key == (None if key is None else b"")
        assert message.value == (None if value is None else b"")


@pytest.mark.parametrize(
    "extra",
    [{}, {"headers": [("a", b"b")]}, {"timestamp": 1}],
    ids=["plain", "headers", "timestamp"],
)
@pytest.mark.parametrize("partition", [None, 0])
def test_a_tombstone_has_its_key_and_no_value(broker, connect, extra, partition):
    """Each of the calls that librdkafka has for an enqueue."""
    first, second = arrived(
        broker, connect(),
        ProducerRecord("one", key=b"gone", partition=partition, **extra),
        ProducerRecord("one", b"", key=b"there", partition=partition, **extra),
    )  # fmt: skip
    assert (first.key, first.value) == (b"gone", None)
    assert (second.key, second.value) == (b"there", b"")


# ---------------------------------------------------------------------- what values, keys and
# headers can be made of


class Octets(bytes):
    pass


class Text(str):
    __slots__ = ()


class Structure(ctypes.Structure):
    _fields_ = (("a", ctypes.c_int64), ("b", ctypes.c_double))


class Packed(ctypes.LittleEndianStructure):
    _pack_ = 1
    _fields_ = (("a", ctypes.c_int32), ("b", ctypes.c_int8))


class OnlyDLPack:
    """A CPU tensor with neither buffer protocol nor __array_interface__."""

    def __init__(self, array):
        self._array = array

    def __dlpack__(self, **_):
        return self._array.__dlpack__()

    def __dlpack_device__(self):
        return self._array.__dlpack_device__()


def mapped(content):
    memory = mmap.mmap(-1, len(content))
    memory[:] = content
    return memory


NUMBERS = array.array("i", [1, -2, 3])
KINDS = {
    "bytes": (lambda: b"\0plain\xff", b"\0plain\xff"),
    "bytes subclass": (lambda: Octets(b"octets"), b"octets"),
    "ASCII str": (lambda: "plain", b"plain"),
    "Latin-1 str": (lambda: "stråle", "stråle".encode()),
    "BMP str": (lambda: "日本語", "日本語".encode()),
    "astral str": (lambda: "🦜 \0 é", "🦜 \0 é".encode()),
    "str subclass": (lambda: Text("né"), "né".encode()),
    "bytearray": (lambda: bytearray(b"bytearray"), b"bytearray"),
    "memoryview": (lambda: memoryview(b"memoryview"), b"memoryview"),
    "slice": (lambda: memoryview(bytearray(b"<slice>"))[1:-1], b"slice"),
    "two dimensions": (lambda: memoryview(bytes(range(12))).cast("B", (3, 4)), bytes(range(12))),
    "array": (lambda: array.array("i", NUMBERS), NUMBERS.tobytes()),
    "mmap": (lambda: mapped(b"mapped memory"), b"mapped memory"),
    "ctypes array": (lambda: (ctypes.c_int * 3)(1, -2, 3), NUMBERS.tobytes()),
    "ctypes structure": (lambda: Structure(1, 2.5), bytes(Structure(1, 2.5))),
    "ctypes packed structure": (lambda: Packed(1, 2), b"\1\0\0\0\2"),
    "numpy": (
        lambda: np.arange(6, dtype=np.int16).reshape(2, 3),
        np.arange(6, dtype=np.int16).tobytes(),
    ),
    "numpy row": (
        lambda: np.arange(6, dtype=np.int16).reshape(2, 3)[1],
        np.arange(3, 6, dtype=np.int16).tobytes(),
    ),
    "DLPack only": (
        lambda: OnlyDLPack(np.arange(5, dtype=np.float64)),
        np.arange(5, dtype=np.float64).tobytes(),
    ),
}


@pytest.mark.parametrize("kind", KINDS)
def test_every_kind_of_buffer_as_value_key_and_header(broker, connect, kind):
    make, content = KINDS[kind]
    producer = connect()
    # Nobody but the producer keeps what is made here.
    producer.send(ProducerRecord("one", make()))
    producer.send(ProducerRecord("one", make()), option=SendOption.TO_COPY_RECORD_VALUE)
    producer.send(
        ProducerRecord("one", make(), key=make(), headers=[("h", make()), ("h", make())]),
        lambda metadata, error: None,
    )
    producer.send(ProducerRecord("one", key=make(), headers={"h": make()}, timestamp=5))
    producer.flush(10)
    alone, copied, everything, tombstone = broker.messages("one")
    assert (alone.key, alone.value, alone.headers) == (None, content, [])
    assert (copied.key, copied.value, copied.headers) == (None, content, [])
    assert (everything.key, everything.value, everything.headers) == (
        content,
        content,
        [("h", content), ("h", content)],
    )
    assert (tombstone.key, tombstone.value, tombstone.headers, tombstone.timestamp) == (
        content,
        None,
        [("h", content)],
        5,
    )


def test_a_sliver_of_something_large(broker, connect):
    large = bytearray(range(256)) * 4096
    pieces = [(0, 10), (1, 2), (100_001, 200_003), (len(large) - 3, len(large)), (7, 7)]
    messages = arrived(
        broker,
        connect(),
        *(ProducerRecord("one", memoryview(large)[start:end]) for start, end in pieces),
    )
    assert [message.value for message in messages] == [
        bytes(large[start:end]) for start, end in pieces
    ]


# ---------------------------------------------------------------------- headers


def test_headers_keep_order_repeats_and_none(broker, connect):
    headers = [
        ("z", b"1"),
        ("a", b"2"),
        ("z", b"1"),
        ("z", b"3"),
        ("none", None),
        ("empty", b""),
        ("", b"no name"),
        ("ümlaut 日本 🦜", b""),
    ]
    (message,) = arrived(broker, connect(), ProducerRecord("one", b"v", headers=headers))
    assert message.headers == headers


@pytest.mark.parametrize(
    "headers",
    [
        {"b": "text é", "a": None, "c": bytearray(b"buffer")},
        OrderedDict([("b", "text é"), ("a", None), ("c", b"buffer")]),
        MappingProxyType({"b": "text é", "a": None, "c": memoryview(b"buffer")}),
        (("b", "text é"), ("a", None), ("c", b"buffer")),
        [["b", "text é"], ("a", None), ["c", array.array("B", b"buffer")]],
    ],
    ids=["dict", "OrderedDict", "proxy", "tuple", "list of lists"],
)
def test_headers_in_every_form(broker, connect, headers):
    (message,) = arrived(broker, connect(), ProducerRecord("one", b"v", headers=headers))
    assert message.headers == [("b", "text é".encode()), ("a", None), ("c", b"buffer")]


def test_headers_of_an_iterator(broker, connect):
    (message,) = arrived(
        broker, connect(), ProducerRecord("one", b"v", headers=((name, name * 2) for name in "abc"))
    )
    assert message.headers == [("a", b"aa"), ("b", b"bb"), ("c", b"cc")]


@pytest.mark.parametrize("headers", [None, [], (), {}])
def test_no_headers_are_none(broker, connect, headers):
    (message,) = arrived(broker, connect(), ProducerRecord("one", b"v", headers=headers))
    assert message.headers == []


def test_a_hundred_thousand_headers_on_one_record_and_none_on_the_next(broker, connect):
    headers = [("même nom", b"%d" % n) for n in range(100_000)]
    first, second = arrived(
        broker,
        connect(message_max_bytes=5_000_000),
        ProducerRecord("one", b"many", headers=headers),
        ProducerRecord("one", b"none"),
    )
    assert first.headers == headers
    assert (second.value, second.headers) == (b"none", [])


# ---------------------------------------------------------------------- timestamps and partitions


@pytest.mark.parametrize(
    ("given", "milliseconds"),
    [
        (1, 1),
        (1_700_000_000_123, 1_700_000_000_123),
        (2**62, 2**62),
        (datetime(2023, 11, 14, 22, 13, 20, 123_999, timezone.utc), 1_700_000_000_123),
        (
            datetime(2023, 11, 15, 3, 43, 20, tzinfo=timezone(timedelta(hours=5, minutes=30))),
            1_700_000_000_000,
        ),
    ],
)
def test_a_timestamp_arrives_in_milliseconds(broker, connect, given, milliseconds):
    (message,) = arrived(broker, connect(), ProducerRecord("one", b"v", timestamp=given))
    assert message.timestamp == milliseconds


def test_timestamps_go_with_their_records_and_need_no_order(broker, connect):
    given = [5, 1, 1_700_000_000_000, 2, None, 3]
    before = time.time_ns() // 1_000_000
    messages = arrived(
        broker,
        connect(linger_ms=50),
        *(ProducerRecord("one", b"v", timestamp=when) for when in given),
    )
    after = time.time_ns() // 1_000_000
    assert [message.timestamp for message in messages if message.timestamp < before] == [
        when for when in given if when is not None
    ]
    assert before <= messages[4].timestamp <= after


@pytest.mark.parametrize("option", SendOption)
def test_a_partition_that_was_named_is_where_it_arrives(broker, connect, option):
    producer = connect()
    for n in range(40):
        # The key would have it elsewhere.
        producer.send(
            ProducerRecord("four", b"%d" % n, key=b"the same", partition=n * 3 % 4), option=option
        )
    producer.flush(10)
    messages = broker.messages("four")
    for partition in range(4):
        values = [message.value for message in messages if message.partition == partition]
        assert values == [b"%d" % n for n in range(40) if n * 3 % 4 == partition]


# ---------------------------------------------------------------------- buffers that are
# overwritten


@pytest.mark.parametrize("size", [1, 1000, 65_535, 65_536, 500_000])
def test_copied_values_are_those_of_the_moment_of_send(broker, lingering, size):
    """One buffer, filled anew for each record: the GIL is kept for small copies, and let go of for
    large ones.
    """
    buffer = bytearray(size)
    for n in range(1, 6):
        buffer[:] = bytes([n]) * size
        lingering.send(ProducerRecord("one", buffer), option=SendOption.TO_COPY_RECORD_VALUE)
        buffer[:] = b"\xff" * size
    lingering.flush(10)
    assert [message.value for message in broker.messages("one")] == [
        bytes([n]) * size for n in range(1, 6)
    ]


def test_copied_values_of_a_view_and_an_array(broker, lingering):
    memory, numbers = bytearray(b"<view>"), np.arange(4, dtype=np.int32)
    content = numbers.tobytes()
    lingering.send(
        ProducerRecord("one", memoryview(memory)[1:-1], timestamp=7),
        option=SendOption.TO_COPY_RECORD_VALUE,
    )
    lingering.send(
        ProducerRecord("one", numbers, headers={"a": b"b"}), option=SendOption.TO_COPY_RECORD_VALUE
    )
    memory[:] = b"xxxxxx"
    numbers[:] = -1
    lingering.flush(10)
    assert [message.value for message in broker.messages("one")] == [b"view", content]


def test_a_value_that_is_not_copied_is_sent_as_it_is_by_then(broker, lingering):
    """The caller's race, which the docs name; here it shows that nothing was copied."""
    buffer = bytearray(b"then")
    lingering.send(ProducerRecord("one", buffer))
    buffer[:] = b"now!"
    lingering.flush(10)
    assert [message.value for message in broker.messages("one")] == [b"now!"]


@pytest.mark.parametrize("option", SendOption)
@pytest.mark.parametrize("form", [list, dict])
def test_keys_and_headers_are_always_those_of_the_moment_of_send(broker, lingering, option, form):
    key, header = bytearray(b"the key"), bytearray(b"the header")
    headers = form([("first", header)])
    lingering.send(ProducerRecord("one", b"v", key=key, headers=headers), option=option)
    key[:] = b"overwritten"
    header[:] = b"overwritten, and longer"
    headers.clear()
    lingering.flush(10)
    (message,) = broker.messages("one")
    assert (message.key, message.headers) == (b"the key", [("first", b"the header")])


@pytest.mark.parametrize("form", [list, dict])
def test_the_report_has_the_headers_of_the_moment_of_send(lingering, reports, form):
    header = bytearray(b"the header")
    headers = form([("first", header)])
    lingering.send(ProducerRecord("one", b"v", headers=headers), reports)
    header[:] = b"overwritten, and longer"
    headers.clear()
    lingering.flush(10)
    assert reports[0][0].headers == [("first", b"the header")]


def test_a_record_can_be_changed_and_sent_again(broker, lingering):
    record = ProducerRecord("one", b"first", key=b"1", headers={"n": b"1"}, timestamp=1)
    lingering.send(record)
    record.value, record.key, record.headers, record.timestamp = None, None, None, 2
    lingering.send(record)
    record.value = "third"
    lingering.send(record)
    lingering.flush(10)
    assert [(m.value, m.key, m.headers, m.timestamp) for m in broker.messages("one")] == [
        (b"first", b"1", [("n", b"1")], 1),
        (None, None, [], 2),
        (b"third", None, [], 2),
    ]


# ---------------------------------------------------------------------- every way of sending, in
# order


@pytest.mark.parametrize("manual", [False, True])
def test_every_way_of_sending_arrives(broker, connect, manual):
    producer = connect(**{"enable.manual.events.poll": manual})
    record = {"key": b"k", "headers": {"h": b"1"}, "timestamp": 9}
    producer.send(ProducerRecord("one", b"send", **record))
    assert producer.try_send(ProducerRecord("one", b"try_send", **record)) is None
    future = producer.send_future(ProducerRecord("one", b"send_future", **record))
    metadata = producer.sync_send(ProducerRecord("one", b"sync_send", **record), timeout=10)
    batch = producer.send_batch(
        "one", [b"send_batch"], keys=[b"k"], headers={"h": b"1"}, timestamps=9
    )
    producer.flush(10)
    assert (future.result(0).offset, metadata.offset, list(batch.offsets)) == (2, 3, [4])
    messages = broker.messages("one")
    assert [message.value for message in messages] == [
        b"send",
        b"try_send",
        b"send_future",
        b"sync_send",
        b"send_batch",
    ]
    assert {(message.key, tuple(message.headers), message.timestamp) for message in messages} == {
        (b"k", (("h", b"1"),), 9)
    }


@pytest.mark.parametrize(
    "settings",
    [
        {},
        {"enable_idempotence": True},
        {"queue_buffering_max_messages": 50, "batch_num_messages": 7},
    ],
)
def test_order_within_a_partition_is_that_of_send(broker, connect, settings):
    """Small and large values, with headers and without, copied and not: they take different ways to
    the same queue.
    """
    producer = connect(linger_ms=1, **settings)
    values = []
    for n in range(2000):
        values.append((b"%d" % n).ljust(70_000 if n % 200 == 0 else 10 + n % 90))
        producer.send(
            ProducerRecord(
                "one",
                values[-1],
                headers={"n": b""} if n % 3 == 0 else None,
                timestamp=n + 1 if n % 5 == 0 else None,
            ),
            option=SendOption(n % 2),
        )
    producer.flush(20)
    assert [message.value for message in broker.messages("one")] == values


def test_order_within_a_partition_is_that_of_each_thread(broker, connect):
    producer = connect(queue_buffering_max_messages=200)

    def send(thread):
        for n in range(500):
            producer.send(ProducerRecord("one", b"%d" % n, key=b"%d" % thread))

    threads = [threading.Thread(target=send, args=(thread,)) for thread in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    producer.flush(10)
    messages = broker.messages("one")
    for thread in range(4):
        assert [
            int(message.value) for message in messages if message.key == b"%d" % thread
        ] == list(range(500))


# ---------------------------------------------------------------------- sizes and names at their
# limits


def varint(size):
    """Bytes of a length in a record (zigzag, seven bits a byte)."""
    return max(1, ((2 * size).bit_length() + 6) // 7)


def plain(value):
    return value.encode() if isinstance(value, str) else value if value is None else bytes(value)


@pytest.mark.parametrize("limit", [1000, 100_000, 1_000_000])
@pytest.mark.parametrize("option", SendOption)
def test_message_max_bytes_counts_value_key_headers_and_36_bytes(broker, connect, limit, option):
    """The largest that fits arrives whole, one byte more is refused: in the value, in the key, in a
    header.
    """
    producer = connect(message_max_bytes=limit)
    headers = [("name", b"h" * 200), ("none", None)]
    around = len("name") + varint(4) + 200 + varint(200) + len("none") + varint(4) + 1
    room = limit - OVERHEAD
    fits = [
        {"value": b"v" * room},
        {"value": None, "key": b"k" * room},
        {"value": bytearray(b"v" * (room - 100)), "key": b"k" * 100},
        {"value": memoryview(b"v" * (room - 100 - around)), "key": b"k" * 100, "headers": headers},
        {"value": "v" * (room - around), "headers": headers, "timestamp": 1},
    ]
    for fields in fits:
        producer.send(ProducerRecord("one", **fields), option=option)
        larger = [
            fields | {part: plain(fields[part]) + b"+"}
            for part in ("value", "key")
            if fields.get(part)
        ]
        if "headers" in fields:
            larger.append(fields | {"headers": [("name", b"h" * 201), ("none", None)]})
        for too_large in larger:
            with pytest.raises(KafkaException) as caught:
                producer.send(ProducerRecord("one", **too_large), pytest.fail, option=option)
            assert caught.value.error == ErrorCode.MSG_SIZE_TOO_LARGE
    producer.flush(20)
    assert [
        (message.value, message.key, message.headers) for message in broker.messages("one")
    ] == [(plain(fields["value"]), fields.get("key"), fields.get("headers", [])) for fields in fits]


def test_a_topic_name_of_249_characters(broker, connect):
    name = "Topic.with_a-name" + "9" * (249 - 17)
    producer = connect()
    assert producer.sync_send(ProducerRecord(name, b"v", key=b"k"), timeout=10).topic == name
    (message,) = broker.messages(name)
    assert (message.topic, message.key, message.value) == (name, b"k", b"v")
    with pytest.raises(ValueError):
        producer.send(ProducerRecord(name + "9", b"v"))
