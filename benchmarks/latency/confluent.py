"""confluent-kafka, with a thread that polls, as its documentation shows it."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from typing import Any

from confluent_kafka import Producer

from .load import TOPIC
from .measure import Unpolled


class PollingThread(Unpolled):
    error_at = 0

    def __init__(self, settings: dict[str, str], on_delivery: Callable[[Any, Any], None]) -> None:
        self.producer = Producer(settings)
        self.on_delivery = on_delivery
        threading.Thread(target=self._poll, daemon=True).start()

    def _poll(self) -> None:
        while True:
            self.producer.poll(1)

    def send(self, value: bytes) -> None:
        while True:
            try:
                self.producer.produce(TOPIC, value, on_delivery=self.on_delivery)
                return
            except BufferError:  # noqa: PERF203 - the queue is full
                time.sleep(0.001)
