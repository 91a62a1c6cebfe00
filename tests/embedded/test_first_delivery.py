"""A new producer's first delivery waits for no timer of librdkafka's
(wheels/patches/0011-first-delivery.patch).
"""

from __future__ import annotations

import statistics
import threading
import time
from typing import Any

import pytest
from faultlib import wait_until

from kafka_ext import ErrorCode, KafkaProducer, ProducerRecord
from kafka_ext.testing import ApiKey, EmbeddedBroker

# The timer by which a producer id was asked for is 500 ms.
LESS_THAN_THE_TIMER = 0.3
RUNS = 5


class Log(list[str]):
    """What librdkafka logs; as a log_cb."""

    def __call__(self, level: int, facility: str, message: str) -> None:
        self.append(f"{facility} {message}")

    def count_of(self, text: str) -> int:
        return sum(text in line for line in self)


def connect(broker: EmbeddedBroker, **settings: Any) -> tuple[KafkaProducer, Log]:
    log = Log()
    config = broker.config(debug="protocol,broker", **settings)
    return KafkaProducer(config, log_cb=log, error_cb=lambda error: None), log


def first_delivery(broker: EmbeddedBroker, pause: float = 0.0, **settings: Any) -> float:
    """Seconds from making a producer until its first record is reported."""
    started = time.monotonic()
    with KafkaProducer(broker.config(**settings)) as producer:
        time.sleep(pause)
        if "transactional_id" in settings:
            producer.init_transactions(30)
            producer.begin_transaction()
        producer.send(ProducerRecord("orders", b"first"))
        producer.flush(30)
        took = time.monotonic() - started
        if "transactional_id" in settings:
            producer.commit_transaction(30)
    return took


# Sent while the producer connects to the bootstrap broker, and while it has no connection any more.
@pytest.mark.parametrize("pause", [0.0, 0.005, 0.03])
@pytest.mark.parametrize("way", ["idempotent", "transactional"])
def test_a_producer_id_takes_less_than_the_timer(way: str, pause: float) -> None:
    with EmbeddedBroker(brokers=3, topics={"orders": 3}) as broker:
        plain, other = [], []
        for run in range(RUNS):
            settings = (
                {"transactional_id": f"first-{run}"}
                if way == "transactional"
                else {"enable_idempotence": True}
            )
            plain.append(first_delivery(broker, pause, enable_idempotence=False))
            other.append(first_delivery(broker, pause, **settings))
        assert statistics.median(other) <= statistics.median(plain) + LESS_THAN_THE_TIMER


def test_the_bootstrap_broker_is_not_asked_for_a_producer_id() -> None:
    """Its handle ends while the answer is on its way, on any network that is slow: a warning for
    nothing, and half a second.
    """
    with EmbeddedBroker(topics={"orders": 1}) as broker:
        broker.round_trip_time(0.6)
        producer, log = connect(broker)
        with producer:
            producer.sync_send(ProducerRecord("orders", b"first"), timeout=30)
        assert log.count_of("Sent InitProducerIdRequest") == 1
        assert not log.count_of("Failed to acquire")


def test_brokers_that_come_one_after_another() -> None:
    with EmbeddedBroker(brokers=3, topics={"orders": 3}) as broker:
        for number in (1, 2, 3):
            broker.stop_broker(number)
        producer, log = connect(broker)
        with producer:
            reports: list[Any] = []
            for partition in range(3):
                producer.send(
                    ProducerRecord("orders", b"x", partition=partition),
                    lambda metadata, error: reports.append(error),
                )
            for number in (1, 2, 3):
                threading.Event().wait(0.3)
                broker.start_broker(number)
            wait_until(lambda: len(reports) == 3, 60)
            assert reports == [None] * 3
        assert log.count_of("Sent InitProducerIdRequest") == 1


def test_a_failure_keeps_its_backoff() -> None:
    """A broker that cannot give a producer id is asked again after 500 ms. librdkafka itself asks
    at once when metadata comes, as it does from each broker that is connected to.
    """
    errors = [ErrorCode.COORDINATOR_LOAD_IN_PROGRESS] * 5
    with EmbeddedBroker(brokers=3, topics={"orders": 3}) as broker:
        broker.fail_requests(ApiKey.INIT_PRODUCER_ID, errors)
        started = time.monotonic()
        producer, log = connect(broker, enable_idempotence=True)
        with producer:
            for partition in range(3):
                producer.send(ProducerRecord("orders", b"x", partition=partition))
            producer.flush(30)
        took = time.monotonic() - started
        asked = [i for i, line in enumerate(log) if "Sent InitProducerIdRequest" in line]
        assert len(asked) == 1 + len(errors)
        meanwhile = log[asked[0] : asked[-1]]
        metadata = sum("Received MetadataResponse" in line for line in meanwhile)
        assert metadata < len(errors)
        assert took >= 0.45 * (len(errors) - metadata)
