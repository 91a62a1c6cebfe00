"""Testing coroutines that send, with pytest-asyncio; with anyio it is the same but for the marker.

python -m pytest examples/test_with_pytest_asyncio.py
"""

from __future__ import annotations

import asyncio

import pytest

from kafka_ext import AsyncKafkaProducer, ErrorCode, KafkaException, ProducerRecord
from kafka_ext.testing import ApiKey, EmbeddedBroker

pytestmark = pytest.mark.asyncio


# The code under test.
async def publish(producer: AsyncKafkaProducer, orders: list[str]) -> int:
    futures = [await producer.send(ProducerRecord("orders", order, key="ada")) for order in orders]
    return len(await asyncio.gather(*futures))


async def test_orders_keep_their_order(
    kafka_broker: EmbeddedBroker, async_kafka_producer: AsyncKafkaProducer
) -> None:
    assert await publish(async_kafka_producer, ["a book", "a pen"]) == 2
    kafka_broker.assert_delivered("orders", ["a book", "a pen"], exactly_once=True, ordered=True)


async def test_a_refusal_is_raised(
    kafka_broker: EmbeddedBroker, async_kafka_producer: AsyncKafkaProducer
) -> None:
    kafka_broker.fail_requests(ApiKey.PRODUCE, [ErrorCode.TOPIC_AUTHORIZATION_FAILED])
    with pytest.raises(KafkaException) as refused:
        await publish(async_kafka_producer, ["a book"])
    assert refused.value.error == ErrorCode.TOPIC_AUTHORIZATION_FAILED
