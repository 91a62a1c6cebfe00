"""Sending from an event loop: a future for each record, back-pressure that suspends, and a batch
that can be awaited.

    python examples/asyncio_producer.py [bootstrap servers]

Without an argument it starts a broker of its own.
"""

from __future__ import annotations

import asyncio
import sys

from kafka_ext import AsyncKafkaProducer, KafkaException, ProducerRecord
from kafka_ext.testing import EmbeddedBroker


async def send_orders(bootstrap_servers: str) -> None:
    async with AsyncKafkaProducer(bootstrap_servers=bootstrap_servers) as producer:
        # One record, and what became of it.
        metadata = await producer.send_and_wait(
            ProducerRecord("orders", "the first order", key="ada")
        )
        print("delivered to partition", metadata.partition, "at offset", metadata.offset)

        # Many: `await send` is over when the record is enqueued, its future when it is delivered.
        futures = [
            await producer.send(ProducerRecord("orders", f"order {n}", id=n)) for n in range(1000)
        ]
        delivered = 0
        for future in futures:
            try:
                await future
                delivered += 1
            except KafkaException as exc:
                print("not delivered:", exc.error)
        print(delivered, "of", len(futures), "delivered")

        # A column in one call.
        batch = await producer.send_batch("orders", [f"order {n}" for n in range(10_000)])
        await batch
        print(len(batch), "in a batch,", batch.failed, "failed")
    # Whatever was still on its way has been delivered here.


def main(bootstrap_servers: str) -> None:
    asyncio.run(send_orders(bootstrap_servers))


if __name__ == "__main__":
    if len(sys.argv) > 1:
        main(sys.argv[1])
    else:
        with EmbeddedBroker() as broker:
            main(broker.bootstrap_servers)
