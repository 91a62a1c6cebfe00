"""Records in flight while their topic is deleted (wheels/patches/0013-removed-partition.patch)."""

from __future__ import annotations

from typing import Any

import pytest
from faultlib import Outcomes

from kafka_ext import ErrorCode, KafkaException, ProducerRecord, _rdkafka
from kafka_ext.testing import ApiKey, EmbeddedBroker

if "removed-partition" not in _rdkafka.build_info()["patches"]:
    pytest.skip("this librdkafka is not mended (wheels/patches)", allow_module_level=True)


def hears_of_it(producer: Any) -> bool:
    """Whether a broker that answers in time tells that the topic is gone."""
    try:
        producer.fetch_broker_metadata("t", timeout=0.1)
    except KafkaException as exc:
        return exc.error == ErrorCode.UNKNOWN_TOPIC_OR_PART
    return False


@pytest.mark.parametrize("idempotent", [True, False])
def test_a_request_in_flight_fails_like_what_is_queued(
    make_producer: Any, idempotent: bool
) -> None:
    """Its error must not be DESTROY, which means that the client is being closed."""
    with EmbeddedBroker(brokers=3, topics={"t": 1, "others": 3}) as broker:
        broker.move_leader("t", 0, 1)
        settings = {"topic_metadata_propagation_max_ms": 1, "enable_idempotence": idempotent}
        producer = make_producer(broker.config(**settings) | {"test.mock.num.brokers": ...})
        for partition in range(3):
            broker.move_leader("others", partition, partition + 1)
            producer.sync_send(
                ProducerRecord("others", b"connects", partition=partition), timeout=20
            )
        producer.sync_send(ProducerRecord("t", b"before"), timeout=20)
        broker.round_trip_time(2.0, 1)
        broker.fail_requests(ApiKey.PRODUCE, [ErrorCode.UNKNOWN_TOPIC_OR_PART] * 100, 1)
        broker.fail_topic("t", ErrorCode.UNKNOWN_TOPIC_OR_PART)
        outcomes = Outcomes()
        producer.send(ProducerRecord("t", b"in flight"), outcomes.expect("it"))
        # The two brokers that are asked now and then are quick, so the client hears of it long
        # before the answer to the request.
        while not outcomes.reports and not hears_of_it(producer):
            pass
        outcomes.wait(1, 20)
        outcomes.check(["it"])
        assert outcomes.errors == [ErrorCode.UNKNOWN_PARTITION]
        with pytest.raises(KafkaException) as raised:
            producer.send(ProducerRecord("t", b"late"))
        assert raised.value.error == ErrorCode.UNKNOWN_TOPIC
        broker.clear_faults()
