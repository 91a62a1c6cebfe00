"""Why does nothing arrive: does my program reach the cluster at all?

python examples/recipes/01_reach_the_cluster.py
"""

from __future__ import annotations

import threading
from typing import Any

from kafka_ext import (
    ErrorCode,
    KafkaError,
    KafkaException,
    KafkaProducer,
    PersistedStatus,
    ProducerRecord,
    RecordMetadata,
)
from kafka_ext.testing import EmbeddedBroker


def connect(config: dict[str, Any], timeout: float = 10.0) -> KafkaProducer:
    """A producer that has talked to the cluster, or an exception that says what kept it."""
    met: list[KafkaError] = []
    # What librdkafka meets on its way: refused connections, unknown hosts, failed handshakes.
    producer = KafkaProducer(config | {"error_cb": met.append})
    try:
        cluster = producer.fetch_broker_metadata(timeout=timeout)
    except KafkaException as exc:
        producer.close(timeout=0)
        # The first says why; ALL_BROKERS_DOWN is what follows from it.
        why = next((error for error in met if error != ErrorCode.ALL_BROKERS_DOWN), exc.error)
        raise ConnectionError(
            f"{config['bootstrap.servers']} cannot be reached: {why.message}"
        ) from exc
    # The addresses records will go to. They are what the brokers say of themselves
    # (advertised.listeners), and must be reachable from here too.
    for broker in cluster.brokers.values():
        print(f"broker {broker.id} is at {broker.host}:{broker.port}")
    return producer


def main() -> None:
    broker = EmbeddedBroker()
    config = {"bootstrap.servers": broker.bootstrap_servers, "message.timeout.ms": 1000}
    with connect(config) as producer:
        producer.sync_send(ProducerRecord("orders", b"first"), timeout=30)

        # The cluster goes away. A record waits for it to come back, for message.timeout.ms at
        # most.
        broker.close()
        outcome: list[tuple[RecordMetadata, KafkaError | None]] = []
        reported = threading.Event()

        def on_delivery(metadata: RecordMetadata, error: KafkaError | None) -> None:
            outcome.append((metadata, error))
            reported.set()

        producer.send(ProducerRecord("orders", b"second"), on_delivery)
        assert reported.wait(30)
        metadata, error = outcome[0]
        assert error == ErrorCode.MSG_TIMED_OUT
        # It never left this process, so that sending it again cannot double it.
        assert metadata.persisted_status is PersistedStatus.NOT
        print("nobody there:", error)

    try:
        connect(config, timeout=1.0)
    except ConnectionError as exc:
        print(exc)
        assert "Connection refused" in str(exc)
    else:
        raise AssertionError("there is nobody at that address")


if __name__ == "__main__":
    main()
