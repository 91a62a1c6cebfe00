"""A transaction that is committed, and one that is aborted, with confluent-kafka.

python examples/migration/before_confluent_transactions.py bootstrap_servers topic
"""

from __future__ import annotations

import sys

from confluent_kafka import KafkaException, Producer


def transfer(producer: Producer, topic: str, amounts: list[int]) -> None:
    producer.begin_transaction()
    try:
        for amount in amounts:
            if amount < 0:
                raise ValueError(f"amount {amount}")
            producer.produce(topic, str(amount), partition=0)
        producer.commit_transaction(30)
    except KafkaException as exc:
        if exc.args[0].txn_requires_abort():
            producer.abort_transaction(30)
        raise
    except BaseException:
        producer.abort_transaction(30)
        raise


def main(bootstrap_servers: str, topic: str) -> None:
    producer = Producer(
        {"bootstrap.servers": bootstrap_servers, "transactional.id": f"{topic}-before"}
    )
    producer.init_transactions(30)
    transfer(producer, topic, [1, 2, 3])
    print("committed")
    try:
        transfer(producer, topic, [4, 5, -6])
    except ValueError as exc:
        print("aborted:", exc)


if __name__ == "__main__":
    main(*sys.argv[1:])
