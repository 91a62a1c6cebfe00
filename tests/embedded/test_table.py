"""send_table: tables and streams by the names of their columns, against what arrives at
the broker.
"""

import pytest
from batchlib import EVERY_TYPE, Rows, arrow, delivered, fresh_topic
from faultlib import run_program
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from kafka_ext import KafkaProducer, _rdkafka
from kafka_ext.testing import EmbeddedBroker

pa = pytest.importorskip("pyarrow")

MS = 1_700_000_000_000


@pytest.fixture(scope="module")
def broker():
    with EmbeddedBroker() as broker:
        yield broker


@pytest.fixture
def producer(broker):
    with KafkaProducer(broker.config(**{"enable.idempotence": False, "linger.ms": 1})) as producer:
        yield producer


def orders(n=1000):
    return pa.table(
        {
            "payload": [b"%d" % i if i % 10 else None for i in range(n)],
            "customer": [f"c{i % 13}" for i in range(n)],
            "shard": pa.array([i % 3 for i in range(n)], pa.int16()),
            "at": pa.array([(MS + i) * 1000 for i in range(n)], pa.timestamp("us")),
            "kind": pa.array(["new", None, "", "old"] * (n // 4)).dictionary_encode(),
        }
    )


def check(rows, batch, table):
    """Each row of `table` is where `batch` says, with everything."""
    at = {(row.partition, row.offset): row for row in rows}
    for expected, place in zip(
        table.to_pylist(), zip(batch.partitions, batch.offsets, strict=True), strict=True
    ):
        row = at[place]
        assert row.value == expected["payload"]
        assert row.key == expected["customer"].encode()
        assert row.partition == expected["shard"]
        assert row.timestamp == int(expected["at"].timestamp() * 1000 + 0.5)
        assert list(row.headers) == [
            ("kind", None if expected["kind"] is None else expected["kind"].encode()),
            ("customer", row.key),
        ]


NAMES = {
    "value": "payload",
    "key": "customer",
    "partition": "shard",
    "timestamp": "at",
    "headers": ["kind", "customer"],
}


@pytest.mark.parametrize(
    "form",
    [
        lambda table: table,
        lambda table: table.combine_chunks().to_batches()[0],
        lambda table: pa.RecordBatchReader.from_batches(
            table.schema, table.to_batches(max_chunksize=97)
        ),
        lambda table: pa.Table.from_batches(table.to_batches(max_chunksize=300)),
        lambda table: table.to_struct_array(),
    ],
    ids=["table", "record batch", "reader", "chunks", "struct array"],
)
def test_every_form_of_a_table(broker, producer, form, monkeypatch):
    monkeypatch.setenv("TZ", "UTC")
    topic = fresh_topic(broker, partitions=3)
    table = orders().replace_schema_metadata(None)
    table = table.set_column(3, "at", table["at"].cast(pa.timestamp("us", tz="UTC")))
    for part in (table, table.slice(13, 500)):
        start = len(broker.messages(topic))
        batch = delivered(producer.send_table(form(part), topic=topic, **NAMES))
        assert len(batch) == part.num_rows
        check(Rows(broker, topic, start + part.num_rows), batch, part)


def test_polars_frame(broker, producer):
    pl = pytest.importorskip("polars")
    topic = fresh_topic(broker)
    frame = pl.DataFrame(
        {"v": ["a", None, "a longer one than fits a view"], "n": [1, 2, 3], "k": ["x", "y", "x"]}
    ).with_columns(pl.col("k").cast(pl.Categorical))
    delivered(producer.send_table(frame, topic=topic, value="v", key="k", headers=["v"]))
    rows = Rows(broker, topic, 3)
    assert rows.values == [b"a", None, b"a longer one than fits a view"]
    assert rows.keys == [b"x", b"y", b"x"]


def test_pandas_frame(broker, producer):
    pd = pytest.importorskip("pandas")
    topic = fresh_topic(broker)
    delivered(
        producer.send_table(
            pd.DataFrame({"v": ["a", "b"], "k": [None, "k"]}), topic=topic, value="v", key="k"
        )
    )
    assert [(row.key, row.value) for row in Rows(broker, topic, 2)] == [(None, b"a"), (b"k", b"b")]


def test_duckdb_relation(broker, producer):
    duckdb = pytest.importorskip("duckdb")
    topic = fresh_topic(broker, partitions=2)
    with duckdb.connect() as connection:
        relation = connection.sql("""
            select 'value ' || range as v, (range % 2)::utinyint as p, make_timestamp(1700000000000000 + range * 1000) as t
            from range(5000)
            """)
        batch = delivered(
            producer.send_table(relation, topic=topic, value="v", partition="p", timestamp="t")
        )
    assert batch.partitions.tolist() == [0, 1] * 2500
    assert {(row.value, row.timestamp) for row in Rows(broker, topic, 5000)} == {
        (b"value %d" % i, MS + i) for i in range(5000)
    }


def test_an_empty_table_and_an_empty_stream(producer):
    table = orders(0)
    for empty in (table, pa.Table.from_batches([], table.schema)):
        called = []
        batch = delivered(
            producer.send_table(empty, topic="t", value="payload", on_delivery=called.append)
        )
        assert (len(batch), called) == (0, [batch])
    reader = pa.RecordBatchReader.from_batches(table.schema, [])
    with pytest.warns(RuntimeWarning, match="it is empty, or has been read before"):
        assert len(delivered(producer.send_table(reader, topic="t", value="payload"))) == 0


def test_chunks_without_rows_between_others(broker, producer):
    topic = fresh_topic(broker)
    schema = pa.schema({"v": pa.string()})
    chunks = [
        pa.record_batch({"v": pa.array(rows, pa.string())})
        for rows in ([], ["a"], [], [], ["b", None], [])
    ]
    batch = delivered(
        producer.send_table(
            pa.RecordBatchReader.from_batches(schema, chunks), topic=topic, value="v"
        )
    )
    assert Rows(broker, topic, 3).values == [b"a", b"b", None]
    assert batch.offsets.tolist() == [0, 1, 2]


def test_a_partitioner_written_in_python(broker):
    topic = fresh_topic(broker, partitions=3)
    with KafkaProducer(
        broker.config(
            **{
                "enable.idempotence": False,
                "partitioner": lambda topic, key, count: len(key) % count,
            }
        )
    ) as producer:
        table = pa.Table.from_batches(
            pa.table({"v": ["a", "b", "c"], "k": ["1", "22", "333"]}).to_batches(max_chunksize=2)
        )
        assert delivered(
            producer.send_table(table, topic=topic, value="v", key="k")
        ).partitions.tolist() == [1, 2, 0]


def test_a_partitioner_written_in_python_has_those_that_are_null(broker):
    topic = fresh_topic(broker, partitions=9)
    with KafkaProducer(
        broker.config(
            **{"enable.idempotence": False, "partitioner": lambda topic, key, count: len(key)}
        )
    ) as producer:
        table = pa.table(
            {
                "v": ["a", "b", "c", "d"],
                "k": ["1", "22", "333", "4444"],
                "p": pa.array([8, None, 0, None], pa.int16()),
            }
        )
        for chunks in (
            table,
            table.slice(1),
            pa.Table.from_batches(table.to_batches(max_chunksize=3)),
        ):
            batch = delivered(
                producer.send_table(chunks, topic=topic, value="v", key="k", partition="p")
            )
            assert batch.partitions.tolist() == [8, 2, 0, 4][-len(chunks) :]
            column = chunks["p"]
            batch = delivered(
                producer.send_batch(topic, chunks["v"], keys=chunks["k"], partitions=column)
            )
            assert batch.partitions.tolist() == [8, 2, 0, 4][-len(chunks) :]


def test_one_column_in_two_parts(broker, producer):
    topic = fresh_topic(broker)
    delivered(
        producer.send_table(
            pa.table({"v": ["a"]}), topic=topic, value="v", key="v", headers=["v", "v"]
        )
    )
    (row,) = Rows(broker, topic, 1)
    assert (row.key, row.value, list(row.headers)) == (b"a", b"a", [("v", b"a"), ("v", b"a")])


# ---------------------------------------------------------------------- streams that go wrong


def failing_reader(good):
    """`good` chunks of three rows, then an error."""
    schema = pa.schema({"v": pa.string()})

    def chunks():
        for i in range(good):
            yield pa.record_batch({"v": [f"{i}-{j}" for j in range(3)]})
        raise RuntimeError("the source broke")

    return pa.RecordBatchReader.from_batches(schema, chunks())


@pytest.mark.parametrize("good", [0, 1, 5])
def test_a_stream_that_fails_in_the_middle(broker, producer, good):
    """What was enqueued before is delivered and called back, and the exception knows it."""
    topic = fresh_topic(broker)
    called = []
    with pytest.raises(
        ValueError, match=r"table: the Arrow stream failed: .*the source broke"
    ) as caught:
        producer.send_table(failing_reader(good), topic=topic, value="v", on_delivery=called.append)
    batch = delivered(caught.value.batch)
    assert len(batch) == 3 * good
    assert called == ([batch] if good else [])
    assert Rows(broker, topic, 3 * good).values == [
        b"%d-%d" % (i, j) for i in range(good) for j in range(3)
    ]


def test_a_chunk_that_turns_out_unusable(broker, producer):
    topic = fresh_topic(broker)
    chunks = [
        pa.record_batch({"v": ["a", "b"], "p": pa.array(p, pa.int32())})
        for p in ([0, 0], [0, -1], [0, 0])
    ]
    with pytest.raises(
        ValueError, match=r"partition \(p\) must be from 0 to 2147483647; item 1 is -1"
    ) as caught:
        producer.send_table(
            pa.RecordBatchReader.from_batches(chunks[0].schema, chunks),
            topic=topic,
            value="v",
            partition="p",
        )
    assert len(delivered(caught.value.batch)) == 2
    assert Rows(broker, topic, 2).values == [b"a", b"b"]


def test_a_stream_in_send_batch_that_fails_sends_nothing(producer):
    class Column:
        def __arrow_c_stream__(self, requested_schema=None):
            def chunks():
                yield pa.record_batch({"v": ["a"]})
                raise RuntimeError("the source broke")

            return pa.RecordBatchReader.from_batches(
                pa.schema({"v": pa.string()}), chunks()
            ).__arrow_c_stream__()

    with pytest.raises((ValueError, TypeError)):
        producer.send_batch("t", Column())
    assert producer.metrics().sent == 0
    assert _rdkafka.live_objects()["batches"] == 0


# ---------------------------------------------------------------------- larger than memory


@pytest.mark.slow(6)
def test_a_stream_larger_than_memory_passes_in_bounded_memory():
    """Half a gigabyte through a queue of 8 MB: no more of it is in memory than the queue and the
    chunk at hand.
    """
    done = run_program(
        """
        import resource
        import pyarrow as pa
        producer = KafkaProducer({**QUICK, "queue.buffering.max.kbytes": 8192, "linger.ms": 5, "log_level": 0})
        schema = pa.schema({"v": pa.binary()})
        def chunks(count):
            for i in range(count):
                yield pa.record_batch({"v": [bytes([i % 256]) * 16384] * 256})
        def send(count):
            batch = producer.send_table(pa.RecordBatchReader.from_batches(schema, chunks(count)), topic="t", value="v")
            batch.wait(100)
            assert batch.failed == 0, batch.errors()[:3]
            return len(batch)
        send(8)
        before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
        assert send(128) == 128 * 256
        producer.close()
        print((resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before) // 1024)
        """,
        timeout=200,
    )
    assert int(done.stdout) < 150


# ---------------------------------------------------------------------- whatever hypothesis comes
# up with


@st.composite
def tables(draw):
    """A table of random columns with the rows it stands for, in random chunks and sliced."""
    length = draw(st.integers(0, 50))
    column = {}
    for name in ("v", "k", "h"):
        kind = draw(st.sampled_from(EVERY_TYPE))
        size = {"min_size": 5, "max_size": 5} if kind == "fixed_size_binary" else {"max_size": 20}
        content = st.one_of(st.none(), st.text("abc", **size).map(str.encode))
        column[name] = arrow(kind, draw(st.lists(content, min_size=length, max_size=length)))
    column["p"] = pa.array(
        draw(st.lists(st.integers(0, 2), min_size=length, max_size=length)), pa.uint8()
    )
    table = pa.table(column)
    start = draw(st.integers(0, length))
    table = table.slice(start, draw(st.integers(0, length)))
    return pa.Table.from_batches(
        table.to_batches(max_chunksize=draw(st.integers(1, 60))), table.schema
    )


def as_bytes(value):
    return value.encode() if isinstance(value, str) else value


@settings(
    max_examples=50,
    deadline=None,
    suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow],
)
@given(tables())
def test_any_table(broker, producer, table):
    topic = fresh_topic(broker, partitions=3)
    batch = delivered(
        producer.send_table(table, topic=topic, value="v", key="k", partition="p", headers=["h"])
    )
    at = {(row.partition, row.offset): row for row in Rows(broker, topic, table.num_rows)}
    arrived = [at[place] for place in zip(batch.partitions, batch.offsets, strict=True)]
    expected = table.to_pylist()
    assert [row.value for row in arrived] == [as_bytes(row["v"]) for row in expected]
    assert [row.key for row in arrived] == [as_bytes(row["k"]) for row in expected]
    assert [list(row.headers) for row in arrived] == [
        [("h", as_bytes(row["h"]))] for row in expected
    ]
    assert [row.partition for row in arrived] == [row["p"] for row in expected]
