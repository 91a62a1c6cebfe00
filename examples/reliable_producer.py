"""A producer that knows what became of everything: nothing is dropped in silence, nothing is sent
twice.

    python examples/reliable_producer.py [bootstrap servers]

Without an argument it starts a broker of its own.

Each message comes from a source that wants to know when it is safe (here a dict, elsewhere a
database table or another queue).
"""

from __future__ import annotations

import logging
import sys
import threading

from kafka_ext import (
    KafkaError,
    KafkaException,
    KafkaProducer,
    KafkaTimeoutError,
    PersistedStatus,
    ProducerRecord,
    RecordMetadata,
)
from kafka_ext.testing import EmbeddedBroker

log = logging.getLogger("orders")


class Orders:
    """What is still to be sent, and what could not be."""

    def __init__(self, orders: dict[int, bytes]) -> None:
        self.waiting = orders
        self.refused: dict[int, KafkaError] = {}
        self.unknown: dict[int, KafkaError] = {}
        self.lock = threading.Lock()  # callbacks come from the events thread

    def on_delivery(self, metadata: RecordMetadata, error: KafkaError | None) -> None:
        with self.lock:
            if error is None:
                # in the log, on every in-sync replica: the source may forget it
                del self.waiting[metadata.record_id]
            elif metadata.persisted_status is PersistedStatus.POSSIBLY:
                # Sent, but never answered. Sending it again may make a second copy;
                # only a look into the topic can tell.
                self.unknown[metadata.record_id] = error
            else:
                # For certain not in the log: to be sent again later
                # (error.is_retriable), or to be looked at by a person.
                self.refused[metadata.record_id] = error


def make_producer(bootstrap_servers: str, failed: threading.Event) -> KafkaProducer:
    def on_error(error: KafkaError) -> None:
        log.log(logging.CRITICAL if error.is_fatal else logging.WARNING, "%s", error)
        if error.is_fatal:
            failed.set()  # nothing can be sent any more: close this producer and make another

    return KafkaProducer(
        bootstrap_servers=bootstrap_servers,
        # the default, as is enable_idempotence; written down because this program
        # depends on it
        acks="all",
        enable_idempotence=True,
        # how long librdkafka may try before a message is reported as failed
        message_timeout_ms=60_000,
        error_cb=on_error,
    )


def send(orders: Orders, producer: KafkaProducer, failed: threading.Event) -> None:
    with orders.lock:
        to_send = list(orders.waiting.items())
    for number, value in to_send:
        if failed.is_set():
            break
        # The order's number as key: all that concerns one order goes to one partition,
        # hence stays in its order.
        record = ProducerRecord("orders", value, key=str(number), id=number)
        try:
            producer.send(record, orders.on_delivery, timeout=30)
        except KafkaTimeoutError:
            log.error("the queue has been full for 30 s; the rest stays with the source")
            break
        except KafkaException as exc:
            # This record cannot be sent (too large, say). A send that raises holds
            # nothing and never calls back.
            with orders.lock:
                orders.refused[number] = exc.error


def main(bootstrap_servers: str) -> int:
    orders = Orders({number: f"order {number}".encode() for number in range(1000)})
    # larger than message.max.bytes: the one that will be refused
    orders.waiting[1000] = bytes(2_000_000)
    failed = threading.Event()
    with make_producer(bootstrap_servers, failed) as producer:
        send(orders, producer, failed)
    # The block's end has waited for every report, so this is the whole truth.
    delivered = 1001 - len(orders.waiting)
    print(f"{delivered} delivered, {len(orders.refused)} refused, {len(orders.unknown)} unknown")
    for number, error in orders.refused.items():
        print(f"order {number}: {error.name}")
    return 0 if delivered == 1000 and not orders.unknown else 1


if __name__ == "__main__":
    logging.basicConfig()
    if len(sys.argv) > 1:
        sys.exit(main(sys.argv[1]))
    with EmbeddedBroker() as broker:
        sys.exit(main(broker.bootstrap_servers))
