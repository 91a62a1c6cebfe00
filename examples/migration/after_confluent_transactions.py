"""A transaction that is committed, and one that is aborted, coming from confluent-kafka.

python examples/migration/after_confluent_transactions.py bootstrap_servers topic
"""

from __future__ import annotations

import sys

from kafka_ext import KafkaProducer, ProducerRecord


def transfer(producer: KafkaProducer, topic: str, amounts: list[int]) -> None:
    # Commits; or aborts, when the block or the commit raises.
    with producer.transaction(timeout=30):
        for amount in amounts:
            if amount < 0:
                raise ValueError(f"amount {amount}")
            producer.send(ProducerRecord(topic, str(amount), partition=0))


def main(bootstrap_servers: str, topic: str) -> None:
    with KafkaProducer(
        {"bootstrap.servers": bootstrap_servers, "transactional.id": f"{topic}-after"}
    ) as producer:
        producer.init_transactions(30)
        transfer(producer, topic, [1, 2, 3])
        print("committed")
        try:
            transfer(producer, topic, [4, 5, -6])
        except ValueError as exc:
            print("aborted:", exc)


if __name__ == "__main__":
    main(*sys.argv[1:])
