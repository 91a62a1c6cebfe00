"""A batch for one partition, with aiokafka.

python examples/migration/before_aiokafka_batch.py bootstrap_servers topic
"""

from __future__ import annotations

import asyncio
import sys

from aiokafka import AIOKafkaProducer


async def main(bootstrap_servers: str, topic: str) -> None:
    values = [b"line %d" % n for n in range(2000)]
    producer = AIOKafkaProducer(
        bootstrap_servers=bootstrap_servers, acks="all", enable_idempotence=True
    )
    await producer.start()
    try:
        sent = 0
        while sent < len(values):
            # As many as fit into max_batch_size, 16 KB; then another.
            batch = producer.create_batch()
            while sent < len(values):
                if batch.append(key=None, value=values[sent], timestamp=None) is None:
                    break
                sent += 1
            future = await producer.send_batch(batch, topic, partition=0)
            await future
        print(sent, "delivered")
    finally:
        await producer.stop()


if __name__ == "__main__":
    asyncio.run(main(*sys.argv[1:]))
