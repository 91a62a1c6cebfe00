"""Callbacks of the asyncio producer: those in its properties, and those of futures that nobody
keeps.
"""

import asyncio

import pytest
from faultlib import Throttling

from kafka_ext import ErrorCode, ProducerRecord
from kafka_ext.aio import AsyncKafkaProducer
from kafka_ext.testing import ApiKey, EmbeddedBroker

COUNT = 500


@pytest.mark.parametrize("fails", [False, True], ids=["delivered", "failed"])
def test_done_callbacks_of_futures_that_nobody_keeps_are_called_once_each(fails):
    seen = [0] * COUNT

    async def main(broker):
        async with AsyncKafkaProducer(
            broker.config(linger_ms=5, enable_idempotence=False)
        ) as producer:
            for number in range(COUNT):
                future = await producer.send(ProducerRecord("orders", b"x", id=number))

                def done(future, number=number):
                    assert (future.exception() is not None) == fails
                    seen[number] += 1

                future.add_done_callback(done)
                del future
            await producer.flush()
        await asyncio.sleep(0)  # what was added to a future is called in the loop's next turn

    with EmbeddedBroker(topics={"orders": 1}) as broker:
        if fails:
            # Not an error of the topic: once it has heard of one, librdkafka refuses the records
            # behind it at `send`.
            broker.fail_requests(ApiKey.PRODUCE, [ErrorCode.MSG_SIZE_TOO_LARGE] * COUNT)
        asyncio.run(main(broker))
        broker.clear_faults()
    assert seen == [1] * COUNT


@pytest.mark.found(13)
def test_throttle_cb():
    async def main(address):
        told = asyncio.Queue()
        async with AsyncKafkaProducer(
            bootstrap_servers=address, throttle_cb=lambda *event: told.put_nowait(event)
        ) as producer:
            await producer.send_and_wait(ProducerRecord("orders", b"x"))
            assert await asyncio.wait_for(told.get(), 20) == (address, 1, 0.25)

    with EmbeddedBroker(topics={"orders": 1}) as broker:
        throttling = Throttling(int(broker.bootstrap_servers.rpartition(":")[2]), 250)
        try:
            asyncio.run(main(f"127.0.0.1:{throttling.port}"))
        finally:
            throttling.close()
