"""A transaction that is committed, and one that is aborted, coming from aiokafka.

python examples/migration/after_aiokafka_transactions.py bootstrap_servers topic
"""

from __future__ import annotations

import asyncio
import sys

from kafka_ext import AsyncKafkaProducer, ProducerRecord


async def transfer(producer: AsyncKafkaProducer, topic: str, amounts: list[int]) -> None:
    async with producer.transaction():
        for amount in amounts:
            if amount < 0:
                raise ValueError(f"amount {amount}")
            await producer.send(ProducerRecord(topic, b"%d" % amount, partition=0))


async def main(bootstrap_servers: str, topic: str) -> None:
    async with AsyncKafkaProducer(
        bootstrap_servers=bootstrap_servers, transactional_id=f"{topic}-after"
    ) as producer:
        await producer.init_transactions()  # start() does it there
        await transfer(producer, topic, [1, 2, 3])
        print("committed")
        try:
            await transfer(producer, topic, [4, 5, -6])
        except ValueError as exc:
            print("aborted:", exc)


if __name__ == "__main__":
    asyncio.run(main(*sys.argv[1:]))
