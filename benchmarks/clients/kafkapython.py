"""kafka-python."""

from __future__ import annotations

from collections.abc import Iterable

import kafka

from ..job import BATCH_SIZE, TOPIC
from . import Sender

VERSION = f"kafka-python {kafka.__version__}"


def callback(settings: dict[str, str]) -> Sender:
    """send(), and a callback on the future that it gives."""
    producer = kafka.KafkaProducer(
        bootstrap_servers=settings["bootstrap.servers"],
        linger_ms=int(settings["linger.ms"]),
        acks=settings["acks"],
        enable_idempotence=settings["enable.idempotence"] == "true",
        batch_size=BATCH_SIZE,
        # It would begin with a newer ApiVersions request than the mock cluster knows, and cannot
        # read how that refuses it.
        api_version=(2, 1),
    )

    def send_all(values: Iterable[bytes]) -> int:
        delivered = 0

        def on_delivery(metadata: object) -> None:
            nonlocal delivered
            delivered += 1

        for value in values:
            producer.send(TOPIC, value).add_callback(on_delivery)
        producer.flush()
        return delivered

    return send_all


WAYS = {"callback": callback}
