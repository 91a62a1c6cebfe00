"""A transaction that is committed, and one that is aborted, with aiokafka.

python examples/migration/before_aiokafka_transactions.py bootstrap_servers topic
"""

from __future__ import annotations

import asyncio
import sys

from aiokafka import AIOKafkaProducer


async def transfer(producer: AIOKafkaProducer, topic: str, amounts: list[int]) -> None:
    async with producer.transaction():
        for amount in amounts:
            if amount < 0:
                raise ValueError(f"amount {amount}")
            await producer.send(topic, b"%d" % amount, partition=0)


async def main(bootstrap_servers: str, topic: str) -> None:
    producer = AIOKafkaProducer(
        bootstrap_servers=bootstrap_servers, transactional_id=f"{topic}-before"
    )
    await producer.start()
    try:
        await transfer(producer, topic, [1, 2, 3])
        print("committed")
        try:
            await transfer(producer, topic, [4, 5, -6])
        except ValueError as exc:
            print("aborted:", exc)
    finally:
        await producer.stop()


if __name__ == "__main__":
    asyncio.run(main(*sys.argv[1:]))
