"""Columns: many messages in one call, at the speed of C, with nothing of Python's for each of them.

    python examples/batches.py [bootstrap servers]

Without an argument it starts a broker of its own. Needs NumPy.
"""

from __future__ import annotations

import asyncio
import sys

import numpy as np

from kafka_ext import KafkaProducer
from kafka_ext.testing import EmbeddedBroker


def send_list(producer: KafkaProducer) -> None:
    values = [f"event {n}" for n in range(10_000)]
    batch = producer.send_batch("events", values, keys="all to one partition")
    batch.wait(timeout=30)
    for index, error in batch.errors():
        print(f"event {index} was not delivered: {error}")
    print(len(batch), "events, the last at offset", batch.offsets[-1])


def send_array(producer: KafkaProducer) -> None:
    samples = np.random.default_rng(1).random((1000, 16))  # each row is a message of 128 bytes
    partitions = np.arange(1000, dtype=np.int32) % 4
    batch = producer.send_batch("samples", samples, partitions=partitions)
    # Until this returns librdkafka reads the array: it must not be written to.
    batch.wait(timeout=30)
    batch.raise_for_errors()
    delivered = np.asarray(batch.offsets)  # int64, by index, not copied
    print((delivered >= 0).sum(), "rows have an offset")


async def send_and_await(producer: KafkaProducer) -> None:
    batch = await producer.send_batch("events", [b"one", b"two", None])  # None: a tombstone
    print("awaited", len(batch))


def main(bootstrap_servers: str) -> None:
    with KafkaProducer(bootstrap_servers=bootstrap_servers) as producer:
        send_list(producer)
        send_array(producer)
        asyncio.run(send_and_await(producer))


if __name__ == "__main__":
    if len(sys.argv) > 1:
        main(sys.argv[1])
    else:
        with EmbeddedBroker(topics={"samples": 4}) as broker:
            main(broker.bootstrap_servers)
