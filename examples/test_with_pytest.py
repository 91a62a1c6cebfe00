"""Testing code that sends: the fixtures come with the package, no Kafka and no set-up.

    python -m pytest examples/test_with_pytest.py

With --kafka-bootstrap-servers=host:port the tests that need no faults run against a real cluster.
"""

from __future__ import annotations

import pytest

from kafka_ext import ErrorCode, KafkaException, KafkaProducer, ProducerRecord
from kafka_ext.testing import ApiKey, EmbeddedBroker


# The code under test.
def publish(producer: KafkaProducer, order: dict[str, str]) -> None:
    producer.send(ProducerRecord("orders", order["item"], key=order["customer"]))


@pytest.mark.kafka_broker(topics={"orders": 2})
def test_an_order_reaches_its_topic(
    kafka_broker: EmbeddedBroker, kafka_producer: KafkaProducer
) -> None:
    publish(kafka_producer, {"customer": "ada", "item": "a book"})
    kafka_producer.flush(timeout=10)

    (message,) = kafka_broker.messages("orders", count=1)
    assert (message.key, message.value) == (b"ada", b"a book")


def test_orders_keep_their_order(
    kafka_broker: EmbeddedBroker, kafka_producer: KafkaProducer
) -> None:
    items = [f"item {n}" for n in range(100)]
    for item in items:
        publish(kafka_producer, {"customer": "ada", "item": item})
    kafka_producer.flush(timeout=10)

    # When it fails it says what is missing, doubled or out of place.
    values = [item.encode() for item in items]
    kafka_broker.assert_delivered("orders", values, exactly_once=True, ordered=True)


def test_a_short_outage_is_survived(
    kafka_broker: EmbeddedBroker, kafka_producer: KafkaProducer
) -> None:
    kafka_broker.fail_requests(ApiKey.PRODUCE, [ErrorCode.NOT_ENOUGH_REPLICAS] * 2)
    metadata = kafka_producer.sync_send(ProducerRecord("orders", b"a book"), timeout=10)
    assert metadata.offset == 0  # librdkafka has tried again


def test_a_refusal_is_reported(kafka_broker: EmbeddedBroker, kafka_producer: KafkaProducer) -> None:
    kafka_broker.fail_requests(ApiKey.PRODUCE, [ErrorCode.TOPIC_AUTHORIZATION_FAILED])
    with pytest.raises(KafkaException) as refused:
        kafka_producer.sync_send(ProducerRecord("orders", b"a book"), timeout=10)
    assert refused.value.error == ErrorCode.TOPIC_AUTHORIZATION_FAILED
