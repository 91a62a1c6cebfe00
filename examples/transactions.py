"""Transactions: records that become visible together, or not at all.

    python examples/transactions.py [bootstrap servers]

Without an argument it starts a broker of its own.
"""

from __future__ import annotations

import sys

from kafka_ext import KafkaException, KafkaProducer, ProducerRecord
from kafka_ext.testing import EmbeddedBroker


def transfer(producer: KafkaProducer, source: str, target: str, amount: int) -> None:
    # Commits at the end of the block; aborts when the block raises, and when the commit
    # itself must be aborted.
    with producer.transaction(timeout=30):
        producer.send(ProducerRecord("accounts", f"-{amount}", key=source))
        producer.send(ProducerRecord("accounts", f"+{amount}", key=target))
        if amount > 100:
            raise ValueError(f"{amount} is more than there is")


def main(bootstrap_servers: str) -> None:
    # The id names this producer across restarts: a new one with the same id fences the
    # old one off.
    with KafkaProducer(bootstrap_servers=bootstrap_servers, transactional_id="bank-1") as producer:
        producer.init_transactions(timeout=30)
        for amount in (10, 1000, 20):
            try:
                transfer(producer, "alice", "bob", amount)
            except ValueError as exc:
                print("aborted:", exc)
            except KafkaException as exc:
                if exc.error.is_fatal:
                    # fenced by another producer of the same id: close, and let the
                    # other one work
                    raise
                print("aborted:", exc.error)
            else:
                print("committed:", amount)


if __name__ == "__main__":
    if len(sys.argv) > 1:
        main(sys.argv[1])
    else:
        with EmbeddedBroker() as broker:
            main(broker.bootstrap_servers)
