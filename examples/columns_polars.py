"""Columns of a Polars frame.

    python examples/columns_polars.py [bootstrap servers]

Without an argument it starts a broker of its own. Needs Polars.
"""

from __future__ import annotations

import sys

import polars as pl

from kafka_ext import KafkaProducer
from kafka_ext.testing import EmbeddedBroker


def send_frame(producer: KafkaProducer) -> None:
    readings = pl.DataFrame({"sensor": ["a", "b", "a", "c"], "celsius": [20.5, None, 21.0, 19.5]})
    # One JSON text a row; the sensor's name is the key, so that each sensor's readings keep their
    # order.
    messages = readings.with_columns(message=pl.struct("sensor", "celsius").struct.json_encode())
    batch = producer.send_table(messages, topic="readings", value="message", key="sensor")
    batch.wait(timeout=30)
    batch.raise_for_errors()
    print(messages["message"][0], "is at offset", batch.offsets[0])


def send_series(producer: KafkaProducer) -> None:
    words = pl.Series(["one", "two", None, "three"])
    batch = producer.send_batch("words", words)
    batch.wait(timeout=30)
    print(len(batch), "words sent,", batch.failed, "failed")


def main(bootstrap_servers: str) -> None:
    with KafkaProducer(bootstrap_servers=bootstrap_servers) as producer:
        send_frame(producer)
        send_series(producer)


if __name__ == "__main__":
    if len(sys.argv) > 1:
        main(sys.argv[1])
    else:
        with EmbeddedBroker(topics={"readings": 1}) as broker:
            main(broker.bootstrap_servers)
