"""The GIL's way from a thread that computes to the events thread. With a switch interval of hours,
nothing but the handover moves it.
"""

from __future__ import annotations

import sys
import threading
import time
from collections.abc import Iterator

import pytest

from kafka_ext import KafkaError, KafkaProducer, ProducerRecord, RecordMetadata
from kafka_ext.testing import EmbeddedBroker

pytestmark = pytest.mark.skipif(
    not getattr(sys, "_is_gil_enabled", lambda: True)(), reason="there is no GIL to hand over"
)

PATIENCE = 20.0  # seconds until a callback that does not come is given up


@pytest.fixture
def nobody_is_interrupted() -> Iterator[None]:
    before = sys.getswitchinterval()
    sys.setswitchinterval(3600)
    yield
    sys.setswitchinterval(before)


class Calls:
    def __init__(self) -> None:
        self.threads: list[threading.Thread] = []

    def __call__(self, metadata: RecordMetadata, error: KafkaError | None) -> None:
        assert error is None
        self.threads.append(threading.current_thread())


@pytest.fixture
def producer(kafka_broker: EmbeddedBroker) -> Iterator[KafkaProducer]:
    with KafkaProducer(kafka_broker.config(linger_ms=0)) as producer:
        producer.sync_send(ProducerRecord("t", b"connects"))
        yield producer


def send_until_called(producer: KafkaProducer, calls: Calls, start: list[int]) -> None:
    """Send, and never let go of the GIL by anything else than that."""
    end = time.monotonic() + PATIENCE
    while not calls.threads and time.monotonic() < end:
        start[0] += 1
        producer.send(ProducerRecord("t", b"value"), calls)
        pause = time.monotonic() + 0.001
        while time.monotonic() < pause:
            pass


def test_a_sender_that_computes_lets_the_events_thread_call_back(
    producer: KafkaProducer, nobody_is_interrupted: None
) -> None:
    calls = Calls()
    sent = [0]
    send_until_called(producer, calls, sent)
    assert calls.threads, "no callback came while the sender computed"
    assert calls.threads[0].name == "kafka_ext events"
    producer.flush()
    assert len(calls.threads) == sent[0]


def test_so_does_a_sender_in_another_thread(
    producer: KafkaProducer, nobody_is_interrupted: None
) -> None:
    calls = Calls()
    sent = [0]
    thread = threading.Thread(target=send_until_called, args=(producer, calls, sent))
    thread.start()
    thread.join()
    assert calls.threads, "no callback came while the sender computed"
    assert calls.threads[0].name == "kafka_ext events"


@pytest.mark.skipif(
    sys.version_info < (3, 13),
    reason="before, pending calls of other threads wait for the switch interval too",
)
def test_the_main_thread_is_interrupted_between_two_sends(
    producer: KafkaProducer, nobody_is_interrupted: None
) -> None:
    calls = Calls()
    producer.send(ProducerRecord("t", b"value"), calls)
    end = time.monotonic() + PATIENCE
    while not calls.threads and time.monotonic() < end:
        pass
    assert calls.threads, "no callback came while the main thread computed"
    assert calls.threads[0].name == "kafka_ext events"
