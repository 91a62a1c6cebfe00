"""One thread for everything: callbacks run where you call poll_events(), so they need no locks.

    python examples/manual_polling.py [bootstrap servers]

Without an argument it starts a broker of its own.
"""

from __future__ import annotations

import sys

from kafka_ext import KafkaError, KafkaProducer, ProducerRecord, QueueFullError, RecordMetadata
from kafka_ext.testing import EmbeddedBroker


def send_all(producer: KafkaProducer, topic: str, to_send: dict[int, str]) -> None:
    """Send every value of `to_send`; each is taken out of it when it has been delivered."""

    def on_delivery(metadata: RecordMetadata, error: KafkaError | None) -> None:
        if error:
            print(f"message {metadata.record_id} failed: {error}", file=sys.stderr)
        else:
            del to_send[metadata.record_id]

    for number, value in list(to_send.items()):
        record = ProducerRecord(topic, value, id=number)
        while True:
            try:
                producer.send(record, on_delivery)
                break
            except QueueFullError:
                # Nobody but us makes room: serve reports, then try again.
                producer.poll_events(timeout=0.1)
        producer.poll_events()  # what has come meanwhile, without waiting
    producer.flush(timeout=30)  # serves the rest


def main(bootstrap_servers: str) -> None:
    # A queue this small is full all the time: it shows the other way through the loop.
    properties = {
        "bootstrap.servers": bootstrap_servers,
        "enable.manual.events.poll": True,
        "queue.buffering.max.messages": 100,
    }
    to_send = {number: f"value {number}" for number in range(1000)}
    with KafkaProducer(properties) as producer:
        send_all(producer, "manual", to_send)
    print(len(to_send), "messages left")


if __name__ == "__main__":
    if len(sys.argv) > 1:
        main(sys.argv[1])
    else:
        with EmbeddedBroker() as broker:
            main(broker.bootstrap_servers)
