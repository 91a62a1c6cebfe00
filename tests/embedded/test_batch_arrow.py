"""Arrow columns of every type, with and without nulls, sliced and in chunks, against what arrives
at the broker.
"""

import random

import numpy as np
import pytest
from batchlib import EVERY_TYPE, Rows, arrow, delivered, fresh_topic
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from kafka_ext import KafkaProducer, SendOption
from kafka_ext.testing import EmbeddedBroker

pa = pytest.importorskip("pyarrow")

# Five bytes each, so that they fit the fixed-size type, but for those that are longer than a view
# holds inline.
FIVE = [b"%05d" % i for i in range(40)]
MIXED = [
    b"%05d" % i if i % 3 else b"longer than twelve bytes %05d" % i if i % 2 else b""
    for i in range(40)
]
NULLS = {
    "no null": lambda values: values,
    "nulls": lambda values: [None if i % 4 == 1 else value for i, value in enumerate(values)],
    "first and last null": lambda values: [None, *values[1:-1], None],
    "all null": lambda values: [None] * len(values),
}
SLICES = {
    "whole": (0, 40),
    "from 3": (3, 40),
    "to 33": (0, 33),
    "9 to 26": (9, 26),
    "one": (17, 18),
    "empty": (20, 20),
    "past a byte": (8, 16),
}
CHUNKS = {"one chunk": [], "three chunks": [5, 6], "with empty ones": [0, 10, 10, 40]}


@pytest.fixture(scope="module")
def broker():
    with EmbeddedBroker() as broker:
        yield broker


@pytest.fixture
def producer(broker):
    with KafkaProducer(broker.config(**{"enable.idempotence": False, "linger.ms": 1})) as producer:
        yield producer


def chunked(array, cuts):
    """`array` as a ChunkedArray cut at `cuts`, or as it is."""
    if not cuts:
        return array
    ends = [min(cut, len(array)) for cut in [*cuts, len(array)]]
    starts = [0, *ends[:-1]]
    return pa.chunked_array(
        [array.slice(start, end - start) for start, end in zip(starts, ends, strict=True)],
        array.type,
    )


def values_for(kind):
    return FIVE if kind == "fixed_size_binary" else MIXED


@pytest.mark.parametrize("nulls", NULLS)
@pytest.mark.parametrize("kind", EVERY_TYPE)
def test_type_null_slice_chunks(broker, producer, kind, nulls):
    """As values and as keys, every slice of every chunking in a topic of its own order."""
    topic = fresh_topic(broker)
    values = NULLS[nulls](values_for(kind))
    whole = arrow(kind, values)
    expected = []
    for start, end in SLICES.values():
        for cuts in CHUNKS.values():
            column = chunked(whole.slice(start, end - start), cuts)
            keys = chunked(
                whole.slice(start, end - start),
                random.Random(start).sample(range(end - start + 1), 1),
            )
            delivered(
                producer.send_batch(
                    topic, column, keys=keys, option=random.choice(list(SendOption))
                )
            )
            expected += values[start:end]
    rows = Rows(broker, topic, len(expected))
    assert rows.values == expected
    assert rows.keys == expected


@pytest.mark.parametrize("kind", EVERY_TYPE)
def test_no_rows_at_all(producer, kind):
    for column in (arrow(kind, []), pa.chunked_array([], arrow(kind, []).type)):
        assert len(delivered(producer.send_batch("t", column))) == 0


def test_the_null_type(broker, producer):
    topic = fresh_topic(broker)
    delivered(producer.send_batch(topic, pa.nulls(3), keys=pa.nulls(3)))
    assert [(row.key, row.value) for row in Rows(broker, topic, 3)] == [(None, None)] * 3


def test_nulls_among_a_dictionarys_values(broker, producer):
    topic = fresh_topic(broker)
    column = pa.DictionaryArray.from_arrays(
        pa.array([2, 1, None, 0], pa.int8()), pa.array(["zero", None, "two"])
    )
    delivered(producer.send_batch(topic, column))
    assert Rows(broker, topic, 4).values == [b"two", None, None, b"zero"]


def test_a_dictionary_that_is_a_slice(broker, producer):
    topic = fresh_topic(broker)
    column = pa.DictionaryArray.from_arrays(
        pa.array([1, 0, 1], pa.uint8()), pa.array(["no", "zero", "one", "no"]).slice(1, 2)
    )
    delivered(producer.send_batch(topic, column.slice(1)))
    assert Rows(broker, topic, 2).values == [b"zero", b"one"]


def test_lists_of_keys_against_chunks_of_values(broker, producer):
    topic = fresh_topic(broker)
    column = pa.chunked_array([pa.array(FIVE[:7]), pa.array([], pa.binary()), pa.array(FIVE[7:])])
    delivered(producer.send_batch(topic, column, keys=FIVE))
    assert Rows(broker, topic, 40).keys == FIVE
    topic = fresh_topic(broker)
    delivered(
        producer.send_batch(
            topic, FIVE, keys=column, headers=[[("i", b"%d" % i)] for i in range(40)]
        )
    )
    rows = Rows(broker, topic, 40)
    assert rows.keys == FIVE
    assert [list(row.headers) for row in rows] == [[("i", b"%d" % i)] for i in range(40)]


@pytest.mark.parametrize(
    "kind",
    [
        pa.int8(),
        pa.uint8(),
        pa.int16(),
        pa.uint16(),
        pa.int32(),
        pa.uint32(),
        pa.int64(),
        pa.uint64(),
    ],
    ids=str,
)
@pytest.mark.parametrize("cuts", CHUNKS)
def test_partitions_of_every_integer_type(broker, producer, kind, cuts):
    topic = fresh_topic(broker, partitions=4)
    partitions = pa.array([None, *[i % 4 for i in range(40)]], kind).slice(1)
    batch = delivered(
        producer.send_batch(topic, FIVE, partitions=chunked(partitions, CHUNKS[cuts]))
    )
    assert batch.partitions.tolist() == [i % 4 for i in range(40)]


def test_null_partitions_are_left_to_the_partitioner(broker, producer):
    topic = fresh_topic(broker, partitions=4)
    expected = producer.send_batch(topic, FIVE, keys=FIVE)
    delivered(expected)
    for cuts in CHUNKS.values():
        partitions = chunked(pa.array([3 if i % 2 else None for i in range(40)], pa.int32()), cuts)
        batch = delivered(producer.send_batch(topic, FIVE, keys=FIVE, partitions=partitions))
        assert batch.partitions.tolist() == [
            3 if i % 2 else chosen for i, chosen in enumerate(expected.partitions)
        ]


MS = 1_700_000_000_123


@pytest.mark.parametrize(
    ("kind", "scale"),
    [("s", 0.001), ("ms", 1), ("us", 1000), ("ns", 1_000_000), ("int64", 1)],
    ids=lambda value: value if isinstance(value, str) else "",
)
@pytest.mark.parametrize("cuts", CHUNKS)
def test_timestamps_of_every_unit(broker, producer, kind, scale, cuts):
    topic = fresh_topic(broker)
    kind = pa.int64() if kind == "int64" else pa.timestamp(kind, tz="UTC")
    column = pa.array([int((MS + 1000 * i) * scale) for i in range(40)], pa.int64()).cast(kind)
    delivered(producer.send_batch(topic, FIVE, timestamps=chunked(column, CHUNKS[cuts])))
    expected = [MS + 1000 * i if scale >= 1 else MS // 1000 * 1000 + 1000 * i for i in range(40)]
    assert [row.timestamp for row in Rows(broker, topic, 40)] == expected


def test_offsets_as_arrow_takes_them(producer):
    batch = delivered(producer.send_batch("t", pa.array(FIVE)))
    column = pa.Array.from_buffers(pa.int64(), 40, [None, pa.py_buffer(batch.offsets)])
    assert column.to_pylist() == batch.offsets.tolist()


# ---------------------------------------------------------------------- others that speak Arrow


def test_polars(broker, producer):
    pl = pytest.importorskip("polars")
    topic = fresh_topic(broker)
    values = ["short", None, "", "a good deal longer than twelve bytes", "ü"]
    series = pl.concat([pl.Series(values), pl.Series(values)], rechunk=False)
    keys = pl.Series(values * 2).cast(pl.Categorical)
    delivered(producer.send_batch(topic, series, keys=keys, partitions=pl.Series([0] * 10)))
    rows = Rows(broker, topic, 10)
    assert (
        rows.values
        == rows.keys
        == [None if value is None else value.encode() for value in values * 2]
    )


def test_pandas(broker, producer):
    pd = pytest.importorskip("pandas", minversion="3.0")
    topic = fresh_topic(broker)
    frame = pd.DataFrame(
        {"v": ["one", None, "three"], "at": pd.to_datetime([MS, MS + 1, MS + 2], unit="ms")}
    )
    delivered(producer.send_batch(topic, frame["v"], timestamps=frame["at"]))
    rows = Rows(broker, topic, 3)
    assert rows.values == [b"one", None, b"three"]
    assert [row.timestamp for row in rows] == [MS, MS + 1, MS + 2]


# ---------------------------------------------------------------------- whatever hypothesis comes
# up with

CONTENT = st.one_of(st.none(), st.text("abcdefghij", max_size=30).map(str.encode))


@st.composite
def columns(draw, length):
    """`(Arrow column, its values)`: any type, null, slice and chunking."""
    kind = draw(st.sampled_from(EVERY_TYPE))
    before, after = draw(st.integers(0, 20)), draw(st.integers(0, 5))
    content = (
        st.one_of(st.none(), st.text("abc", min_size=5, max_size=5).map(str.encode))
        if kind == "fixed_size_binary"
        else CONTENT
    )
    values = draw(
        st.lists(content, min_size=before + length + after, max_size=before + length + after)
    )
    array = arrow(kind, values).slice(before, length)
    cuts = sorted(draw(st.lists(st.integers(0, length), max_size=3)))
    return chunked(array, cuts), values[before : before + length]


@st.composite
def batches(draw):
    length = draw(st.integers(1, 60))
    values = draw(columns(length))
    keys = draw(st.one_of(st.none(), columns(length)))
    partitions = draw(
        st.one_of(st.none(), st.lists(st.integers(0, 2), min_size=length, max_size=length))
    )
    timestamps = draw(
        st.one_of(st.none(), st.lists(st.integers(1, 2**40), min_size=length, max_size=length))
    )
    return length, values, keys, partitions, timestamps


@settings(
    max_examples=60,
    deadline=None,
    suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow],
)
@given(batches())
def test_any_columns(broker, producer, drawn):
    length, (column, values), keys, partitions, timestamps = drawn
    topic = fresh_topic(broker, partitions=3)
    batch = producer.send_batch(
        topic,
        column,
        keys=keys and keys[0],
        partitions=partitions and pa.array(partitions, pa.int16()),
        timestamps=timestamps and np.array(timestamps),
    )
    delivered(batch)
    rows = {(row.partition, row.offset): row for row in Rows(broker, topic, length)}
    arrived = [rows[place] for place in zip(batch.partitions, batch.offsets, strict=True)]
    assert [row.value for row in arrived] == values
    assert [row.key for row in arrived] == (keys[1] if keys else [None] * length)
    if partitions:
        assert batch.partitions.tolist() == partitions
    if timestamps:
        assert [row.timestamp for row in arrived] == timestamps
