"""The broker all clients send to: librdkafka's mock cluster in a process of its own."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

from kafka_ext.testing import EmbeddedBroker

from .job import PARTITIONS, TOPIC


@contextmanager
def running() -> Iterator[str]:
    """Its bootstrap servers, while it runs. It ends with this process, however that ends."""
    with EmbeddedBroker(topics={TOPIC: PARTITIONS}, isolation="process") as broker:
        yield broker.bootstrap_servers
