"""Interceptors: add a trace header to every record, and time every answer, without touching the
code that sends.

    python examples/tracing.py [bootstrap servers]

Without an argument it starts a broker of its own.
"""

from __future__ import annotations

import secrets
import sys

from kafka_ext import KafkaError, KafkaProducer, ProducerRecord, RecordMetadata
from kafka_ext.testing import EmbeddedBroker


class Tracing:
    """Gives each record a W3C `traceparent` header.

    A real one would take the trace from the context of the request at hand.
    """

    def __init__(self) -> None:
        self.spans: list[tuple[str, float | None, str]] = []

    def on_send(self, record: ProducerRecord) -> ProducerRecord:
        # On the thread that sends. A record may be sent again by its owner, so it is
        # not changed but replaced.
        traceparent = f"00-{secrets.token_hex(16)}-{secrets.token_hex(8)}-01"
        return ProducerRecord(
            record.topic,
            record.value,
            key=record.key,
            partition=record.partition,
            headers=[*(record.headers or ()), ("traceparent", traceparent)],
            timestamp=record.timestamp,
            id=record.id,
        )

    def on_acknowledgement(self, metadata: RecordMetadata, error: KafkaError | None) -> None:
        # Before the record's own callback, on the same thread; also for a record that
        # send() refused.
        traceparent = dict(metadata.headers or ()).get("traceparent", "?")
        self.spans.append((str(traceparent), metadata.latency, error.name if error else "ok"))


def main(bootstrap_servers: str) -> None:
    tracing = Tracing()
    with KafkaProducer(bootstrap_servers=bootstrap_servers, interceptors=[tracing]) as producer:
        for n in range(3):
            producer.send(ProducerRecord("traced", f"request {n}", headers=[("service", b"shop")]))
    print(len(tracing.spans), "spans:", ", ".join(outcome for _, _, outcome in tracing.spans))


if __name__ == "__main__":
    if len(sys.argv) > 1:
        main(sys.argv[1])
    else:
        with EmbeddedBroker() as broker:
            main(broker.bootstrap_servers)
