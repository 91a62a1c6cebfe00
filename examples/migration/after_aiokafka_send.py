"""Futures, headers, errors, flush and close, coming from aiokafka.

python examples/migration/after_aiokafka_send.py bootstrap_servers topic
"""

from __future__ import annotations

import asyncio
import sys

from kafka_ext import AsyncKafkaProducer, ErrorCode, KafkaException, ProducerRecord


async def main(bootstrap_servers: str, topic: str) -> None:
    # Nothing to start; the end of the block is stop().
    async with AsyncKafkaProducer(bootstrap_servers=bootstrap_servers, linger_ms=5) as producer:
        # One record, and wait.
        record = ProducerRecord(topic, b"order 0", key=b"ada", headers=[("source", b"web")])
        metadata = await producer.send_and_wait(record)
        print("ada:", metadata.topic, metadata.partition, metadata.offset)

        # Many at a time.
        futures = []
        for n in range(1, 6):
            key, timestamp = b"customer %d" % n, 1_700_000_000_000 + n
            record = ProducerRecord(topic, b"order %d" % n, key=key, timestamp=timestamp)
            futures.append(await producer.send(record))
        for metadata in await asyncio.gather(*futures):
            print("partition", metadata.partition)

        # A refused record.
        try:
            await producer.send_and_wait(ProducerRecord(topic, bytes(2_000_000)))
        except KafkaException as exc:
            if exc.error != ErrorCode.MSG_SIZE_TOO_LARGE:
                raise
            print("too large")

        await producer.send(ProducerRecord(topic, b"the last", key=b"ada"))
        await producer.flush()


if __name__ == "__main__":
    asyncio.run(main(*sys.argv[1:]))
