"""More than the queue holds, coming from confluent-kafka.

python examples/migration/after_confluent_queue_full.py bootstrap_servers topic
"""

from __future__ import annotations

import sys

from kafka_ext import KafkaProducer, ProducerRecord


def main(bootstrap_servers: str, topic: str) -> None:
    delivered = 0

    def acked(metadata, error):
        nonlocal delivered
        delivered += error is None

    with KafkaProducer(
        {
            "bootstrap.servers": bootstrap_servers,
            "queue.buffering.max.messages": 100,
        }
    ) as producer:
        for n in range(1000):
            # Waits for room. Callbacks need no poll.
            producer.send(ProducerRecord(topic, f"order {n}", partition=0), acked)
    print(delivered, "delivered")


if __name__ == "__main__":
    main(*sys.argv[1:])
