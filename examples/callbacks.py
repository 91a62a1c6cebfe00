"""Send lines and be told what became of each: the C++ library's quick start, in Python.

    python examples/callbacks.py [bootstrap servers]

Without an argument it starts a broker of its own.
"""

from __future__ import annotations

import sys

from kafka_ext import KafkaError, KafkaProducer, ProducerRecord, RecordMetadata
from kafka_ext.testing import EmbeddedBroker


def send_lines(bootstrap_servers: str, topic: str, lines: list[str]) -> None:
    def on_delivery(metadata: RecordMetadata, error: KafkaError | None) -> None:
        # Called exactly once for each line, by the producer's events thread.
        if error:
            print("% Message delivery failed:", error.message, file=sys.stderr)
        else:
            print("% Message delivered:", metadata)

    with KafkaProducer(bootstrap_servers=bootstrap_servers) as producer:
        for number, line in enumerate(lines):
            # The producer keeps `line` alive until its callback has returned: no copy,
            # and nothing to look after.
            producer.send(ProducerRecord(topic, line, id=number), on_delivery)

        # sync_send waits for the answer, and raises when the record was not delivered.
        metadata = producer.sync_send(ProducerRecord(topic, "the last line"), timeout=30)
        print("% The last one is at offset", metadata.offset)
    # Leaving the block has waited for every callback.


if __name__ == "__main__":
    LINES = ["one line", "another", "and Grüße as UTF-8"]
    if len(sys.argv) > 1:
        send_lines(sys.argv[1], "lines", LINES)
    else:
        with EmbeddedBroker() as broker:
            send_lines(broker.bootstrap_servers, "lines", LINES)
