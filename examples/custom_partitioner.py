"""A partitioner of your own: any callable of (topic, key, number of partitions).

    python examples/custom_partitioner.py [bootstrap servers]

Without an argument it starts a broker of its own.
"""

from __future__ import annotations

import sys
import zlib
from collections import Counter
from typing import Any

from kafka_ext import KafkaError, KafkaProducer, ProducerRecord, RecordMetadata
from kafka_ext.testing import EmbeddedBroker


def by_customer(topic: str, key: Any, partition_count: int) -> int:
    """Keys are `customer/order`: all of a customer's orders go to one partition.

    Runs on the sending thread, before the enqueue.
    """
    customer, _, _ = key.partition("/")
    return zlib.crc32(customer.encode()) % partition_count


def main(bootstrap_servers: str) -> None:
    partitions: dict[str, Counter[int | None]] = {}

    def on_delivery(metadata: RecordMetadata, error: KafkaError | None) -> None:
        if error is None:
            partitions.setdefault(metadata.record_id, Counter())[metadata.partition] += 1

    with KafkaProducer(bootstrap_servers=bootstrap_servers, partitioner=by_customer) as producer:
        for customer in ("ada", "bob", "eve"):
            for order in range(5):
                producer.send(
                    ProducerRecord("by-customer", b"...", key=f"{customer}/{order}", id=customer),
                    on_delivery,
                )
    for customer, counts in sorted(partitions.items()):
        print(f"{customer}: {sum(counts.values())} orders in {len(counts)} partition")


if __name__ == "__main__":
    if len(sys.argv) > 1:
        main(sys.argv[1])
    else:
        with EmbeddedBroker(topics={"by-customer": 4}) as broker:
            main(broker.bootstrap_servers)
