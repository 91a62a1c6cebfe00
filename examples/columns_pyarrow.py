"""Arrow columns, tables and streams larger than memory, without a copy.

    python examples/columns_pyarrow.py [bootstrap servers]

Without an argument it starts a broker of its own. Needs pyarrow.
"""

from __future__ import annotations

import sys
from collections.abc import Iterator

import pyarrow as pa

from kafka_ext import KafkaProducer
from kafka_ext.testing import EmbeddedBroker


def send_column(producer: KafkaProducer) -> None:
    values = pa.array(["created", None, "deleted"])  # null: a tombstone
    keys = pa.array(["order 1", "order 2", "order 3"]).dictionary_encode()
    batch = producer.send_batch("events", values, keys=keys)
    batch.wait(timeout=30)
    batch.raise_for_errors()


def send_table(producer: KafkaProducer) -> None:
    orders = pa.table(
        {
            "payload": [b"a book", b"a lamp", b"a chair"],
            "customer": ["ada", "bob", "ada"],
            "shard": pa.array([0, 1, 0], pa.int32()),
            "at": pa.array(
                [1767225600000, 1767225600001, 1767225600002], pa.timestamp("ms", tz="UTC")
            ),
            "origin": ["web", None, "shop"],
        }
    )
    batch = producer.send_table(
        orders,
        topic="orders",
        value="payload",
        key="customer",
        partition="shard",
        timestamp="at",
        headers=["origin"],
    )
    batch.wait(timeout=30)
    sent = orders.append_column("offset", pa.array(batch.offsets))  # where each row went
    print(sent["offset"].to_pylist(), "are the offsets of", sent["payload"].to_pylist())


def send_stream(producer: KafkaProducer) -> None:
    def chunks() -> Iterator[pa.RecordBatch]:
        for n in range(100):  # of a file, a query, a Flight stream: never all of it in memory
            yield pa.record_batch({"line": [f"line {n * 1000 + i}" for i in range(1000)]})

    reader = pa.RecordBatchReader.from_batches(pa.schema({"line": pa.string()}), chunks())
    batch = producer.send_table(reader, topic="lines", value="line")
    batch.wait(timeout=60)
    print(len(batch), "lines sent,", batch.failed, "failed")


def main(bootstrap_servers: str) -> None:
    with KafkaProducer(bootstrap_servers=bootstrap_servers) as producer:
        send_column(producer)
        send_table(producer)
        send_stream(producer)


if __name__ == "__main__":
    if len(sys.argv) > 1:
        main(sys.argv[1])
    else:
        with EmbeddedBroker(topics={"orders": 2}) as broker:
            main(broker.bootstrap_servers)
