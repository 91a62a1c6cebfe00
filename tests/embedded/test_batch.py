"""send_batch: lists and buffers of every kind, keys, partitions, timestamps, headers, against what
arrives at the broker.
"""

import array
import asyncio
import collections
import ctypes
import datetime
import mmap
import threading

import numpy as np
import pytest
from batchlib import Rows, delivered, fresh_topic
from faultlib import shown

from kafka_ext import (
    BatchDelivery,
    ErrorCode,
    KafkaException,
    KafkaProducer,
    KafkaTimeoutError,
    ProducerRecord,
    SendOption,
)
from kafka_ext.testing import EmbeddedBroker


@pytest.fixture(scope="module")
def broker():
    with EmbeddedBroker() as broker:
        yield broker


@pytest.fixture
def producer(broker):
    with KafkaProducer(broker.config(**{"enable.idempotence": False, "linger.ms": 1})) as producer:
        yield producer


@pytest.fixture(params=[False, True], ids=["events thread", "manual polling"])
def either(broker, request):
    """A producer of each kind."""
    settings = {
        "enable.idempotence": False,
        "linger.ms": 1,
        "enable.manual.events.poll": request.param,
    }
    with KafkaProducer(broker.config(**settings)) as producer:
        yield producer


class Point(ctypes.Structure):
    _fields_ = [("x", ctypes.c_int32), ("y", ctypes.c_int32)]


def mapped(content):
    memory = mmap.mmap(-1, len(content))
    memory[:] = content
    return memory


# ---------------------------------------------------------------------- values


@pytest.mark.parametrize("option", SendOption)
@pytest.mark.parametrize(
    ("values", "arrive"),
    [
        ([b"one", b"", None, b"\0\xff"], [b"one", b"", None, b"\0\xff"]),
        ((b"a tuple",), [b"a tuple"]),
        ([None, None], [None, None]),
        (
            ["text", "ümläut", "", None, "\U0001f600"],
            [b"text", "ümläut".encode(), b"", None, "\U0001f600".encode()],
        ),
        ([bytearray(b"ba"), bytearray(), b"bytes", None], [b"ba", b"", b"bytes", None]),
        ([memoryview(b"xabcx")[1:-1], memoryview(b"")], [b"abc", b""]),
        ([array.array("H", [1, 256])], [b"\1\0\0\1"]),
        ([mapped(b"mapped")], [b"mapped"]),
        ([np.arange(3, dtype="<i2"), np.array([0.0])], [b"\0\0\1\0\2\0", b"\0" * 8]),
        ([type("Derived", (bytes,), {})(b"derived")], [b"derived"]),
        (np.array([[1, 2], [3, 4]], dtype="<i2"), [b"\1\0\2\0", b"\3\0\4\0"]),
        (np.zeros((3, 0)), [b"", b"", b""]),
        (
            np.array([(1, b"ab"), (2, b"c")], dtype=[("n", "<i4"), ("s", "S2")]),
            [b"\1\0\0\0ab", b"\2\0\0\0c\0"],
        ),
        (np.array([b"abc", b"def"]), [b"abc", b"def"]),
        (np.array([b"abc", b"def"], dtype="V3"), [b"abc", b"def"]),
        (memoryview(b"abcdef").cast("B", (2, 3)), [b"abc", b"def"]),
        ((Point * 2)(Point(1, 2), Point(3, 4)), [b"\1\0\0\0\2\0\0\0", b"\3\0\0\0\4\0\0\0"]),
    ],
    ids=lambda values: None if isinstance(values, list) else type(values).__name__,
)
def test_values(broker, producer, values, arrive, option):
    topic = fresh_topic(broker)
    batch = delivered(producer.send_batch(topic, values, option=option))
    assert len(batch) == len(arrive)
    assert Rows(broker, topic, len(arrive)).values == arrive
    assert batch.offsets.tolist() == list(range(len(arrive)))
    assert batch.partitions.tolist() == [0] * len(arrive)


@pytest.mark.parametrize("length", [1, 2, 63, 1023, 1024, 1025, 2048, 65_536, 65_537, 100_000])
def test_lengths(broker, producer, length):
    """Around the loop's own turns (1024) and rounds (64 turns)."""
    topic = fresh_topic(broker, partitions=4)
    batch = delivered(producer.send_batch(topic, [b"%d" % i for i in range(length)]))
    assert len(batch.offsets) == length
    arrived = Rows(broker, topic, length)
    assert sorted(int(row.value) for row in arrived) == list(range(length))
    at = {(row.partition, row.offset): int(row.value) for row in arrived}
    assert [at[place] for place in zip(batch.partitions, batch.offsets, strict=True)] == list(
        range(length)
    )


@pytest.mark.parametrize(
    "values",
    [[], (), np.zeros((0, 3)), np.zeros(0, dtype=[("a", "i4")])],
    ids=["list", "tuple", "rows", "records"],
)
def test_nothing(either, values):
    called = []
    batch = either.send_batch(
        "t",
        values,
        keys=b"k",
        partitions=[],
        timestamps=[],
        headers=[],
        ids=[],
        on_delivery=called.append,
    )
    delivered(batch)
    assert called == [batch]
    assert len(batch) == 0
    assert batch.offsets.tolist() == batch.partitions.tolist() == []


def test_the_list_may_change_meanwhile(broker, producer):
    topic = fresh_topic(broker)
    values = [b"x" * (i % 7) for i in range(1000)]
    expected = values.copy()
    batch = producer.send_batch(topic, values)
    values.clear()
    delivered(batch)
    assert Rows(broker, topic, 1000).values == expected


# ---------------------------------------------------------------------- keys


@pytest.mark.parametrize(
    ("keys", "arrive"),
    [
        (None, [None] * 3),
        (b"k", [b"k"] * 3),
        ("kü", ["kü".encode()] * 3),
        (b"", [b""] * 3),
        (bytearray(b"k"), [b"k"] * 3),
        (memoryview(b"k"), [b"k"] * 3),
        (array.array("B", b"k"), [b"k"] * 3),
        (np.frombuffer(b"k", "u1"), [b"k"] * 3),
        ([b"a", None, b""], [b"a", None, b""]),
        (("a", bytearray(b"b"), None), [b"a", b"b", None]),
        (np.array([[1], [2], [3]], "u1"), [b"\1", b"\2", b"\3"]),
    ],
    ids=shown,
)
def test_keys(broker, producer, keys, arrive):
    topic = fresh_topic(broker)
    delivered(producer.send_batch(topic, [b"0", b"1", b"2"], keys=keys))
    rows = Rows(broker, topic, 3)
    assert rows.keys == arrive
    assert rows.values == [b"0", b"1", b"2"]


def test_a_key_lands_where_send_puts_it(broker, producer):
    topic = fresh_topic(broker, partitions=8)
    keys = [b"key-%d" % i for i in range(200)]
    batch = delivered(producer.send_batch(topic, keys, keys=keys))
    assert batch.partitions.tolist() == [
        producer.sync_send(ProducerRecord(topic, b"", key=key)).partition for key in keys
    ]


# ---------------------------------------------------------------------- partitions and timestamps

FOUR = [
    [3, 0, 2, 0],
    (3, 0, 2, 0),
    array.array("B", [3, 0, 2, 0]),
    array.array("q", [3, 0, 2, 0]),
    np.array([3, 0, 2, 0], "i2"),
    np.array([3, 0, 2, 0], "u8"),
    np.frombuffer(b"x" + np.array([3, 0, 2, 0], "i4").tobytes(), "i4", offset=1),
    collections.deque([3, 0, 2, 0]),
]


@pytest.mark.parametrize(
    "partitions",
    FOUR,
    ids=lambda numbers: type(numbers).__name__ + getattr(numbers, "typecode", ""),
)
def test_partitions(broker, producer, partitions):
    topic = fresh_topic(broker, partitions=4)
    batch = delivered(producer.send_batch(topic, [b"a", b"b", b"c", b"d"], partitions=partitions))
    assert batch.partitions.tolist() == [3, 0, 2, 0]
    assert {(row.value, row.partition) for row in Rows(broker, topic, 4)} == {
        (b"a", 3),
        (b"b", 0),
        (b"c", 2),
        (b"d", 0),
    }


@pytest.mark.parametrize(
    "partition", [2, np.int64(2), np.array(2)], ids=["int", "numpy scalar", "numpy 0-d"]
)
def test_one_partition_for_all(broker, producer, partition):
    topic = fresh_topic(broker, partitions=4)
    batch = delivered(producer.send_batch(topic, [b"x"] * 50, partitions=partition))
    assert batch.partitions.tolist() == [2] * 50


def test_partitions_left_to_the_partitioner(broker, producer):
    """None in a list: this one has none. Keys keep their place, whoever else names it."""
    topic = fresh_topic(broker, partitions=4)
    home = producer.sync_send(ProducerRecord(topic, b"", key=b"k")).partition
    partitions = [None if i % 3 else home for i in range(3000)]
    batch = delivered(
        producer.send_batch(
            topic, [b"%d" % i for i in range(3000)], keys=b"k", partitions=partitions
        )
    )
    assert set(batch.partitions) == {home}
    assert batch.offsets.tolist() == list(range(1, 3001))


def test_each_partition_keeps_its_order(broker, producer):
    topic = fresh_topic(broker, partitions=16)
    partitions = [i * 7919 % 16 for i in range(20_000)]
    delivered(producer.send_batch(topic, [b"%d" % i for i in range(20_000)], partitions=partitions))
    last = [-1] * 16
    for row in Rows(broker, topic, 20_000):
        assert int(row.value) > last[row.partition]
        last[row.partition] = int(row.value)


@pytest.mark.parametrize("known", [False, True], ids=["topic unknown", "topic known"])
@pytest.mark.parametrize(
    "extra",
    [{}, {"headers": {"h": b"v"}}, {"timestamps": 5}],
    ids=["plain", "headers", "timestamps"],
)
def test_partitions_that_do_not_exist(broker, extra, known):
    """Each of them an error by its index, the others delivered, and close() does not wait for what
    librdkafka has lost.
    """
    topic = fresh_topic(broker, partitions=2)
    with KafkaProducer(broker.config(**{"enable.idempotence": False})) as producer:
        if known:
            producer.sync_send(ProducerRecord(topic, b"", partition=0))
        batch = producer.send_batch(
            topic,
            [b"%d" % i for i in range(3000)],
            partitions=[i % 4 for i in range(3000)],
            **extra,
        )
        batch.wait(20)
        assert [index for index, _ in batch.errors()] == [i for i in range(3000) if i % 4 > 1]
        assert {error.code for _, error in batch.errors()} == {ErrorCode.UNKNOWN_PARTITION}
        assert batch.failed == 1500
        assert [offset >= 0 for offset in batch.offsets] == [i % 4 < 2 for i in range(3000)]
    rows = Rows(broker, topic, 1500 + known)
    assert {row.value for row in rows if row.value} == {b"%d" % i for i in range(3000) if i % 4 < 2}


MOMENT = datetime.datetime(2026, 1, 2, 3, 4, 5, 678000, tzinfo=datetime.timezone.utc)
MS = 1767323045678


@pytest.mark.parametrize(
    ("timestamps", "arrive"),
    [
        (MS, [MS] * 3),
        (MOMENT, [MS] * 3),
        ([1, 2, MS], [1, 2, MS]),
        ([MOMENT, MS + 1, MOMENT + datetime.timedelta(milliseconds=2)], [MS, MS + 1, MS + 2]),
        (range(10, 13), [10, 11, 12]),
        (np.array([5, 6, 7]), [5, 6, 7]),
    ],
    ids=["int", "datetime", "list", "datetimes", "range", "numpy"],
)
def test_timestamps(broker, producer, timestamps, arrive):
    topic = fresh_topic(broker)
    delivered(producer.send_batch(topic, [b"0", b"1", b"2"], timestamps=timestamps))
    assert [row.timestamp for row in Rows(broker, topic, 3)] == arrive


def test_a_timestamp_of_none_is_now(broker, producer):
    topic = fresh_topic(broker)
    delivered(producer.send_batch(topic, [b"0", b"1"], timestamps=[None, 7]))
    now, seven = [row.timestamp for row in Rows(broker, topic, 2)]
    assert seven == 7
    assert now > MS


# ---------------------------------------------------------------------- headers and ids


@pytest.mark.parametrize(
    ("headers", "arrive"),
    [
        ({"a": b"1", "b": None}, [[("a", b"1"), ("b", None)]] * 3),
        ([("a", b"1"), ("a", "2"), ("e", b"")], [[("a", b"1"), ("a", b"2"), ("e", b"")]] * 3),
        ([], [[]] * 3),
        (
            [[("a", b"1")], None, {"b": bytearray(b"2"), "c": None}],
            [[("a", b"1")], [], [("b", b"2"), ("c", None)]],
        ),
        (([], [["a", b"1"]], ()), [[], [("a", b"1")], []]),
    ],
    ids=["mapping for all", "pairs for all", "none for all", "each", "each, as lists"],
)
def test_headers(broker, producer, headers, arrive):
    topic = fresh_topic(broker)
    delivered(producer.send_batch(topic, [b"0", b"1", b"2"], keys=b"k", headers=headers))
    rows = Rows(broker, topic, 3)
    assert [list(row.headers) for row in rows] == arrive
    assert rows.keys == [b"k"] * 3


def test_headers_of_more_messages_than_are_made_at_a_time(broker, producer):
    topic = fresh_topic(broker)
    count = 20_000
    delivered(
        producer.send_batch(
            topic,
            [b""] * count,
            headers=[[("i", b"%d" % i)] if i % 5 else None for i in range(count)],
        )
    )
    assert [list(row.headers) for row in Rows(broker, topic, count)] == [
        [("i", b"%d" % i)] if i % 5 else [] for i in range(count)
    ]


def test_everything_at_once(broker, producer):
    topic = fresh_topic(broker, partitions=3)
    n = 2500
    batch = producer.send_batch(
        topic,
        [f"v{i}" for i in range(n)],
        keys=[f"k{i}" if i % 7 else None for i in range(n)],
        partitions=[i % 3 for i in range(n)],
        timestamps=np.arange(1, n + 1),
        headers=[[("h", b"%d" % i)] for i in range(n)],
        ids=range(n),
    )
    delivered(batch)
    assert batch.ids == range(n)
    rows = {(row.partition, row.offset): row for row in Rows(broker, topic, n)}
    for i, place in enumerate(zip(batch.partitions, batch.offsets, strict=True)):
        row = rows[place]
        assert row.value == b"v%d" % i
        assert row.key == (b"k%d" % i if i % 7 else None)
        assert (row.partition, row.timestamp, list(row.headers)) == (
            i % 3,
            i + 1,
            [("h", b"%d" % i)],
        )


def test_a_partitioner_written_in_python(broker):
    topic = fresh_topic(broker, partitions=3)
    settings = {
        "enable.idempotence": False,
        "partitioner": lambda topic, key, count: int(key) % count if key else 0,
    }
    with KafkaProducer(broker.config(**settings)) as producer:
        batch = delivered(producer.send_batch(topic, [b"x"] * 4, keys=[b"5", "4", None, b"1"]))
    assert batch.partitions.tolist() == [2, 1, 0, 1]


def test_a_partitioner_written_in_python_has_those_that_are_none(broker):
    """They used to go to librdkafka's own partitioner."""
    topic = fresh_topic(broker, partitions=30)
    settings = {"enable.idempotence": False, "partitioner": lambda topic, key, count: int(key)}
    keys = [b"%d" % i for i in range(20)]
    with KafkaProducer(broker.config(**settings)) as producer:
        given = [None if i % 3 else 29 for i in range(20)]
        assert delivered(
            producer.send_batch(topic, [b"x"] * 20, keys=keys, partitions=given)
        ).partitions.tolist() == [i if i % 3 else 29 for i in range(20)]
        assert set(
            delivered(producer.send_batch(topic, [b"x"] * 20, keys=keys, partitions=7)).partitions
        ) == {7}


# ---------------------------------------------------------------------- BatchDelivery


def test_on_delivery_is_called_once_and_last(either):
    """By then every message has been reported; with an events thread it is that thread
    that calls.
    """
    seen = []

    def on_delivery(batch):
        seen.append(
            (batch, batch.pending, batch.failed, min(batch.offsets) >= 0, threading.get_ident())
        )

    batch = either.send_batch("t", [b"x"] * 5000, on_delivery=on_delivery)
    delivered(batch)
    either.flush(10)
    assert [entry[:4] for entry in seen] == [(batch, 0, 0, True)]
    assert (seen[0][4] == threading.get_ident()) == either.handle.manual


def test_done_callbacks(either):
    order = []
    batch = either.send_batch(
        "t", [b"x"] * 10, on_delivery=lambda batch: order.append("on_delivery")
    )
    batch.add_done_callback(lambda batch: order.append("first"))
    batch.add_done_callback(lambda batch: order.append("second"))
    delivered(batch)
    either.flush(10)
    assert order == ["on_delivery", "first", "second"]
    batch.add_done_callback(order.append)
    assert order[-1] is batch
    with pytest.raises(TypeError, match="callback must be callable"):
        batch.add_done_callback(None)


def test_poll_events_counts_a_batch_that_has_no_report(broker):
    """All of it was refused, so that nothing but its end is left to serve."""
    with KafkaProducer(
        broker.config(**{"enable.manual.events.poll": True, "enable.idempotence": False})
    ) as producer:
        called = []
        producer.send_batch("t", [b"x" * 2_000_000], on_delivery=called.append)
        assert producer.poll_events(10) >= 1
        assert [batch.failed for batch in called] == [1]


def test_awaitable(broker, producer):
    async def main():
        first = producer.send_batch("t", [b"x"] * 1000)
        assert await first is first
        assert await first is first
        second, third = await asyncio.gather(
            producer.send_batch("t", [b"y"] * 10), producer.send_batch("t", [])
        )
        assert (len(second), len(third)) == (10, 0)

    asyncio.run(main())


def test_a_loop_that_is_gone_when_the_batch_ends(broker, unraisable):
    broker.round_trip_time(0.3)
    try:
        with KafkaProducer(broker.config(**{"enable.idempotence": False})) as producer:

            async def main():
                await asyncio.wait_for(producer.send_batch("t", [b"x"]), 0.05)

            with pytest.raises(asyncio.TimeoutError):
                asyncio.run(main())
            producer.flush(10)
    finally:
        broker.clear_faults()
    assert unraisable == []


def test_wait_for_no_time(broker, producer):
    broker.round_trip_time(0.3)
    try:
        batch = producer.send_batch("t", [b"x"] * 3)
        with pytest.raises(KafkaTimeoutError, match="of 3 records have no report after 0"):
            batch.wait(0)
        assert (batch.done(), batch.pending, batch.errors()) == (False, 3, [])
        assert batch.offsets.tolist() == [-1] * 3
        assert batch.wait(20) is True
    finally:
        broker.clear_faults()


def test_wait_in_a_callback(either):
    caught = []

    def on_delivery(batch):
        batch.add_done_callback(lambda batch: None)
        try:
            either.send_batch("t", [b"y"]).wait(5)
        except KafkaException as error:
            caught.append(error.error.code)

    delivered(either.send_batch("t", [b"x"], on_delivery=on_delivery))
    either.flush(10)
    assert caught == [ErrorCode.STATE]


def test_numbers_are_read_only_buffers_of_int64_and_int32(broker, producer):
    batch = delivered(producer.send_batch(fresh_topic(broker), [b"x"] * 5))
    assert (batch.offsets.format, batch.partitions.format) == ("q", "i")
    assert batch.offsets.readonly
    offsets = np.asarray(batch.offsets)
    assert offsets.dtype == np.int64
    assert np.asarray(batch.partitions).dtype == np.int32
    del batch
    assert (np.diff(offsets) == 1).all()


def test_a_batch_is_made_by_sending_only(producer):
    with pytest.raises(TypeError, match="made by send_batch"):
        BatchDelivery()
    batch = delivered(producer.send_batch("t", [b"x"]))
    assert repr(batch) == "<BatchDelivery of 1 to t: 0 pending, 0 failed>"
    assert producer.send_batch("t", [])


def test_metrics_count_each_message(broker, producer):
    delivered(producer.send_batch("t", [b"abc"] * 100))
    producer.flush(10)
    metrics = producer.metrics()
    assert (metrics.sent, metrics.sent_bytes, metrics.delivered, metrics.outstanding) == (
        100,
        300,
        100,
        0,
    )
