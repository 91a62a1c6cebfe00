"""The result of a DuckDB query, streamed chunk by chunk.

    python examples/columns_duckdb.py [bootstrap servers]

Without an argument it starts a broker of its own. Needs DuckDB.
"""

from __future__ import annotations

import sys

import duckdb

from kafka_ext import KafkaProducer
from kafka_ext.testing import EmbeddedBroker


def send_query(producer: KafkaProducer) -> None:
    with duckdb.connect() as connection:
        result = connection.sql("""
            select 'user ' || range as customer, 'order ' || range as payload, (range % 4)::int as shard, '2026' as version
            from range(100_000)
            """)
        batch = producer.send_table(
            result,
            topic="orders",
            value="payload",
            key="customer",
            partition="shard",
            headers=["version"],
        )
        batch.wait(timeout=60)
    batch.raise_for_errors()
    print(len(batch), "rows sent,", batch.failed, "failed")


def main(bootstrap_servers: str) -> None:
    with KafkaProducer(bootstrap_servers=bootstrap_servers) as producer:
        send_query(producer)


if __name__ == "__main__":
    if len(sys.argv) > 1:
        main(sys.argv[1])
    else:
        with EmbeddedBroker(topics={"orders": 4}) as broker:
            main(broker.bootstrap_servers)
