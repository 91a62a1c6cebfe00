"""Callbacks, keys, headers, timestamps, errors and flush, coming from confluent-kafka.

python examples/migration/after_confluent_delivery.py bootstrap_servers topic
"""

from __future__ import annotations

import sys

from kafka_ext import KafkaException, KafkaProducer, KafkaTimeoutError, ProducerRecord


def main(bootstrap_servers: str, topic: str) -> None:
    lines: list[str] = []

    def acked(metadata, error):
        if error is not None:
            lines.append(f"failed: {error.message}")
        else:
            # The key is not kept: an id is, and comes back.
            lines.append(f"{metadata.record_id}: partition {metadata.partition}")

    producer = KafkaProducer(
        {
            "bootstrap.servers": bootstrap_servers,
            "linger.ms": 5,
            # acks=all and idempotence are the defaults.
            # Keys land where confluent-kafka puts them.
            "partitioner": "consistent_random",
        }
    )
    for n in range(6):
        producer.send(
            ProducerRecord(
                topic,
                f"order {n}",
                key=f"customer {n}",
                headers=[("source", "web"), ("try", "1")],
                timestamp=1_700_000_000_000 + n,
                id=f"customer {n}",
            ),
            acked,
        )
    try:
        producer.send(ProducerRecord(topic, bytes(2_000_000)), acked)
    except KafkaException as exc:
        print("refused:", exc.error.name)
    try:
        producer.send(ProducerRecord(topic, "nowhere", key="customer 7", partition=99), acked)
    except KafkaException as exc:
        # Where the topic is known already, this is told at once.
        lines.append(f"failed: {exc.error.message}")
    try:
        producer.flush(30)
    except KafkaTimeoutError:
        print("not answered:", producer.metrics().outstanding)
    producer.close()
    print(*sorted(lines), sep="\n")


if __name__ == "__main__":
    main(*sys.argv[1:])
