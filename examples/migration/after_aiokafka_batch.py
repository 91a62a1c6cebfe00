"""A batch for one partition, coming from aiokafka.

python examples/migration/after_aiokafka_batch.py bootstrap_servers topic
"""

from __future__ import annotations

import asyncio
import sys

from kafka_ext import AsyncKafkaProducer


async def main(bootstrap_servers: str, topic: str) -> None:
    values = [b"line %d" % n for n in range(2000)]
    async with AsyncKafkaProducer(bootstrap_servers=bootstrap_servers) as producer:
        # However many. Without partitions= the keys, or chance, decide.
        batch = await producer.send_batch(topic, values, partitions=0)
        await batch
        batch.raise_for_errors()
        print(len(batch), "delivered")


if __name__ == "__main__":
    asyncio.run(main(*sys.argv[1:]))
