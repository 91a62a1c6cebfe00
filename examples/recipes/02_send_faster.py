"""Why is it slow, and how do I send more in a second?

python examples/recipes/02_send_faster.py
"""

from __future__ import annotations

import time

from kafka_ext import KafkaProducer, ProducerRecord
from kafka_ext.testing import EmbeddedBroker


def one_by_one(producer: KafkaProducer, lines: list[bytes]) -> None:
    """The slow way: a request for each record, and a round trip's wait for its answer."""
    for line in lines:
        producer.sync_send(ProducerRecord("lines", line), timeout=30)


def as_they_come(producer: KafkaProducer, lines: list[bytes]) -> None:
    """Nobody waits for a single record; those that are sent within linger.ms share a request."""
    for line in lines:
        producer.send(ProducerRecord("lines", line))
    producer.flush(timeout=60)


def all_in_one_call(producer: KafkaProducer, lines: list[bytes]) -> None:
    """When they are there together, one call takes them all."""
    batch = producer.send_batch("lines", lines)
    batch.wait(timeout=60)
    batch.raise_for_errors()


def make_producer(bootstrap_servers: str) -> KafkaProducer:
    return KafkaProducer(
        bootstrap_servers=bootstrap_servers,
        # how long a record may wait for others to go with it; 5 ms is the default
        linger_ms=20,
        # fewer bytes, for a little processor time: the larger the batches, the better
        compression_type="lz4",
        statistics_interval_ms=50,
    )


def requests(producer: KafkaProducer, records: int) -> int:
    """How many requests librdkafka has made of so many records, by its statistics."""
    deadline = time.monotonic() + 30
    while time.monotonic() < deadline:
        statistics = producer.metrics().statistics
        if statistics is not None and statistics["txmsgs"] >= records:
            return sum(broker["req"].get("Produce", 0) for broker in statistics["brokers"].values())
        time.sleep(0.05)
    raise TimeoutError("no statistics came")


def main() -> None:
    lines = [b"line %d" % n for n in range(20_000)]
    made: dict[str, float] = {}
    with EmbeddedBroker(topics={"lines": 1}) as broker:
        for send, some in (
            (one_by_one, lines[:20]),
            (as_they_come, lines),
            (all_in_one_call, lines),
        ):
            with make_producer(broker.bootstrap_servers) as producer:
                send(producer, some)
                made[send.__name__] = len(some) / requests(producer, len(some))
            print(f"{send.__name__}: {made[send.__name__]:.0f} records in a request")
        assert len(broker.messages("lines")) == 20 + 2 * len(lines)
    assert made["one_by_one"] == 1
    assert made["as_they_come"] > 20
    assert made["all_in_one_call"] > 20


if __name__ == "__main__":
    main()
