"""Going on after a fatal error: the producer is replaced, and records without an answer are sent
again.

    python examples/recoverable.py

It starts a broker of its own, and breaks the producer on purpose.
"""

from __future__ import annotations

from kafka_ext import ErrorCode, KafkaError, ProducerRecord, RecordMetadata
from kafka_ext.recoverable import RecoverableProducer
from kafka_ext.testing import EmbeddedBroker

outcomes: list[KafkaError | None] = []


def on_delivery(metadata: RecordMetadata, error: KafkaError | None) -> None:
    outcomes.append(error)  # the final outcome: there is no call when a record is sent again


def on_recovery(error: KafkaError, resent: int) -> None:
    print(f"replaced after {error.name}; {resent} records were sent again")


def main() -> None:
    with EmbeddedBroker(topics={"orders": 1}) as broker:
        with RecoverableProducer(
            bootstrap_servers=broker.bootstrap_servers,
            linger_ms=1000,  # so that the records are still here when the error comes
            on_fatal="resend",  # duplicates are possible; without it each callback gets the error
            on_recovery=on_recovery,
        ) as producer:
            for number in range(10):
                producer.send(ProducerRecord("orders", f"{number}", key="ada"), on_delivery)
            # As if the broker had lost what it knows of this producer.
            producer.handle.test_fatal_error(ErrorCode.OUT_OF_ORDER_SEQUENCE_NUMBER, "on purpose")
            for number in range(10, 20):
                # waits until the ten before it are on their way
                producer.send(ProducerRecord("orders", f"{number}", key="ada"), on_delivery)
        values = [int(message.value or b"") for message in broker.messages("orders", count=20)]
        assert values == list(range(20))
        print(f"{outcomes.count(None)} of {len(outcomes)} delivered, in order")


if __name__ == "__main__":
    main()
