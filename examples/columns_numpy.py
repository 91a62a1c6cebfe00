"""Rows of NumPy arrays, structured ones too, without a copy.

    python examples/columns_numpy.py [bootstrap servers]

Without an argument it starts a broker of its own. Needs NumPy.
"""

from __future__ import annotations

import sys

import numpy as np

from kafka_ext import KafkaProducer
from kafka_ext.testing import EmbeddedBroker


def send_records(producer: KafkaProducer) -> None:
    trades = np.zeros(1000, dtype=[("instrument", "S8"), ("price", "<f8"), ("size", "<i4")])
    trades["instrument"] = b"ACME"
    trades["price"] = np.linspace(10, 20, 1000)
    times = 1767225600000 + np.arange(1000)  # milliseconds since the epoch
    # tolist(): NumPy pads its strings with NUL, which would be sent as part of the key.
    batch = producer.send_batch(
        "trades", trades, keys=trades["instrument"].tolist(), timestamps=times
    )
    batch.wait(timeout=30)
    batch.raise_for_errors()
    print(
        len(batch),
        "records of",
        trades.itemsize,
        "bytes at offsets",
        batch.offsets[0],
        "to",
        batch.offsets[-1],
    )


def send_images(producer: KafkaProducer) -> None:
    images = np.random.default_rng(1).integers(0, 255, size=(50, 28, 28), dtype=np.uint8)
    batch = producer.send_batch("images", images.reshape(50, -1), partitions=np.arange(50) % 2)
    # Until this returns librdkafka reads the array: it must not be written to.
    batch.wait(timeout=30)
    print(np.bincount(batch.partitions).tolist(), "images in each partition")


def main(bootstrap_servers: str) -> None:
    with KafkaProducer(bootstrap_servers=bootstrap_servers) as producer:
        send_records(producer)
        send_images(producer)


if __name__ == "__main__":
    if len(sys.argv) > 1:
        main(sys.argv[1])
    else:
        with EmbeddedBroker(topics={"trades": 1, "images": 2}) as broker:
            main(broker.bootstrap_servers)
