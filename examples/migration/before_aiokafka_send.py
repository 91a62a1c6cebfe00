"""Futures, headers, errors, flush and stop, with aiokafka.

python examples/migration/before_aiokafka_send.py bootstrap_servers topic
"""

from __future__ import annotations

import asyncio
import sys

from aiokafka import AIOKafkaProducer
from aiokafka.errors import MessageSizeTooLargeError


async def main(bootstrap_servers: str, topic: str) -> None:
    producer = AIOKafkaProducer(
        bootstrap_servers=bootstrap_servers,
        acks="all",
        enable_idempotence=True,
        linger_ms=5,
    )
    await producer.start()
    try:
        # One record, and wait.
        metadata = await producer.send_and_wait(
            topic, b"order 0", key=b"ada", headers=[("source", b"web")]
        )
        print("ada:", metadata.topic, metadata.partition, metadata.offset)

        # Many at a time.
        futures = []
        for n in range(1, 6):
            key, timestamp = b"customer %d" % n, 1_700_000_000_000 + n
            futures.append(
                await producer.send(topic, b"order %d" % n, key=key, timestamp_ms=timestamp)
            )
        for metadata in await asyncio.gather(*futures):
            print("partition", metadata.partition)

        # A refused record.
        try:
            await producer.send_and_wait(topic, bytes(2_000_000))
        except MessageSizeTooLargeError:
            print("too large")

        await producer.send(topic, b"the last", key=b"ada")
        await producer.flush()
    finally:
        await producer.stop()


if __name__ == "__main__":
    asyncio.run(main(*sys.argv[1:]))
