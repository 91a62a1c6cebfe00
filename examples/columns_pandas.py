"""Columns of a pandas frame.

    python examples/columns_pandas.py [bootstrap servers]

Without an argument it starts a broker of its own. Needs pandas and pyarrow.
"""

from __future__ import annotations

import sys

import pandas as pd

from kafka_ext import KafkaProducer
from kafka_ext.testing import EmbeddedBroker


def send_frame(producer: KafkaProducer) -> None:
    visits = pd.DataFrame(
        {
            "page": ["/", "/about", "/"],
            "visitor": ["ada", "bob", None],
            "at": pd.to_datetime(["2026-01-01", "2026-01-02", "2026-01-03"]).tz_localize("UTC"),
        }
    )
    batch = producer.send_table(visits, topic="visits", value="page", key="visitor", timestamp="at")
    batch.wait(timeout=30)
    visits["offset"] = batch.offsets
    print(visits[["page", "offset"]].to_string(index=False))


def send_numbers(producer: KafkaProducer) -> None:
    # A row of numbers is sent as the memory it is; what is not contiguous must be made so first.
    numbers = (
        pd.DataFrame({"x": [1.0, 2.0], "y": [3.0, 4.0]})
        .to_numpy(copy=True, dtype="<f8")
        .copy(order="C")
    )
    batch = producer.send_batch("numbers", numbers)
    batch.wait(timeout=30)
    print(
        len(batch),
        "rows of",
        numbers.shape[1] * numbers.itemsize,
        "bytes sent,",
        batch.failed,
        "failed",
    )


def main(bootstrap_servers: str) -> None:
    with KafkaProducer(bootstrap_servers=bootstrap_servers) as producer:
        send_frame(producer)
        send_numbers(producer)


if __name__ == "__main__":
    if len(sys.argv) > 1:
        main(sys.argv[1])
    else:
        with EmbeddedBroker(topics={"visits": 1}) as broker:
            main(broker.bootstrap_servers)
