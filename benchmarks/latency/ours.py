"""kafka_ext, with its events thread and polled by hand."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Any

from kafka_ext import KafkaProducer, ProducerRecord, QueueFullError

from .load import TOPIC
from .measure import Unpolled, spin


class EventsThread(Unpolled):
    """The default: the events thread calls back."""

    error_at = 1

    def __init__(self, settings: dict[str, str], on_delivery: Callable[[Any, Any], None]) -> None:
        self.producer = KafkaProducer(settings)
        self.on_delivery = on_delivery

    def send(self, value: bytes) -> None:
        self.producer.send(ProducerRecord(TOPIC, value), self.on_delivery)


class Polled(EventsThread):
    """`enable.manual.events.poll`: the sender polls while it has nothing else to do."""

    def __init__(self, settings: dict[str, str], on_delivery: Callable[[Any, Any], None]) -> None:
        super().__init__({**settings, "enable.manual.events.poll": "true"}, on_delivery)

    def send(self, value: bytes) -> None:
        record = ProducerRecord(TOPIC, value)
        while True:
            try:
                self.producer.send(record, self.on_delivery)
                return
            except QueueFullError:  # noqa: PERF203
                self.producer.poll_events(0.001)

    def sleep(self, until: int) -> None:
        self.producer.poll_events(
            0
        )  # also when it is late: reports must not wait for a sender that never catches up
        while (left := until - time.monotonic_ns()) > 0:
            self.producer.poll_events(left / 1e9)

    def compute(self, until: int) -> None:
        self.producer.poll_events(0)
        spin(until)
