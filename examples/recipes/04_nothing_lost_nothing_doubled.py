"""How can I be sure that nothing is lost, and nothing is there twice?

python examples/recipes/04_nothing_lost_nothing_doubled.py
"""

from __future__ import annotations

import time

from kafka_ext import (
    ErrorCode,
    KafkaError,
    KafkaException,
    KafkaProducer,
    PersistedStatus,
    ProducerRecord,
    RecordMetadata,
)
from kafka_ext.testing import ApiKey, EmbeddedBroker


class Outbox:
    """What is still to be sent: a dict here, a table of your database in earnest."""

    def __init__(self, orders: dict[int, bytes]) -> None:
        self.waiting = orders
        self.doubtful: dict[int, KafkaError] = {}

    def send(self, producer: KafkaProducer) -> None:
        """Send what is waiting, and return when it is known of each what became of it."""
        for number, order in list(self.waiting.items()):
            try:
                producer.send(
                    ProducerRecord("orders", order, key=str(number), id=number), self.on_delivery
                )
            except KafkaException as exc:
                print(f"order {number} was not even taken ({exc.error.name}): it stays")
                break
        producer.flush()

    def on_delivery(self, metadata: RecordMetadata, error: KafkaError | None) -> None:
        if error is None:
            # On every in-sync replica. Now, and not after send(), it may be forgotten.
            del self.waiting[metadata.record_id]
        elif metadata.persisted_status is PersistedStatus.NOT:
            print(
                f"order {metadata.record_id} is not in the topic ({error.name}): it stays for the"
                " next round"
            )
        else:
            # It was sent and not answered: it may be there. Only a look into the topic can
            # tell, so no second copy is sent blindly.
            self.doubtful[metadata.record_id] = error
            del self.waiting[metadata.record_id]


def main() -> None:
    orders = {number: f"order {number}".encode() for number in range(200)}
    outbox = Outbox(dict(orders))
    with EmbeddedBroker(topics={"orders": 1}) as broker:
        # acks=all and enable.idempotence=true are the defaults; see the topic's
        # min.insync.replicas too.
        with KafkaProducer(bootstrap_servers=broker.bootstrap_servers) as producer:
            # A passing fault, which librdkafka deals with by itself: nobody hears of it.
            broker.fail_requests(ApiKey.PRODUCE, [ErrorCode.NOT_ENOUGH_REPLICAS] * 2)
            outbox.send(producer)
            assert not outbox.waiting

            # One that stays: it is reported, and sent again when somebody has repaired what
            # was wrong.
            outbox.waiting = {1000: b"order 1000", 1001: b"order 1001"}
            orders |= outbox.waiting
            broker.fail_requests(ApiKey.PRODUCE, [ErrorCode.TOPIC_AUTHORIZATION_FAILED])
            outbox.send(producer)
            assert list(outbox.waiting) == [1000, 1001]
            while outbox.waiting:
                time.sleep(0.1)
                outbox.send(producer)
        broker.assert_delivered("orders", orders.values(), exactly_once=True)
    assert not outbox.doubtful
    print(f"{len(orders)} orders, each in the topic once")


if __name__ == "__main__":
    main()
