"""What do I do when the queue is full, and why are callbacks not called?

python examples/recipes/08_queue_full.py
"""

from __future__ import annotations

from kafka_ext import (
    ActionWhileQueueIsFull,
    ErrorCode,
    KafkaError,
    KafkaProducer,
    KafkaTimeoutError,
    ProducerRecord,
    QueueFullError,
    RecordMetadata,
)
from kafka_ext.testing import EmbeddedBroker


def wait_for_room(producer: KafkaProducer, record: ProducerRecord) -> None:
    """The default, and right for most: who is faster than the cluster goes at its pace."""
    producer.send(record)


def wait_a_little(producer: KafkaProducer, record: ProducerRecord) -> bool:
    """Where somebody waits for you, too."""
    try:
        producer.send(record, timeout=0.05)
    except KafkaTimeoutError:
        return False
    return True


def drop_when_full(producer: KafkaProducer, record: ProducerRecord) -> bool:
    """Where the newest matters less than going on: metrics, traces."""
    error = producer.try_send(record)
    return error is None


def main() -> None:
    delivered: list[int] = []

    def on_delivery(metadata: RecordMetadata, error: KafkaError | None) -> None:
        # Called by the producer's own thread as soon as the answer is there. There is nothing
        # to poll, and no need to send or flush for it.
        assert error is None
        delivered.append(metadata.record_id)

    with EmbeddedBroker() as broker:
        broker.round_trip_time(0.2)
        with KafkaProducer(
            bootstrap_servers=broker.bootstrap_servers, queue_buffering_max_messages=100
        ) as producer:
            for n in range(250):
                producer.send(ProducerRecord("orders", b"order %d" % n, id=n), on_delivery)
            waited = producer.metrics().blocked_seconds
            print(f"250 records through a queue of 100, and send() has waited: {waited > 0}")
            assert waited > 0

            producer.flush(timeout=30)
            broker.round_trip_time(30)  # as good as gone
            record = ProducerRecord("orders", b"one more")
            while drop_when_full(producer, record):
                pass
            print("full after", producer.metrics().outstanding)
            assert producer.metrics().outstanding == 100
            assert producer.try_send(record) == ErrorCode.QUEUE_FULL
            assert not wait_a_little(producer, record)
            try:
                producer.send(record, action=ActionWhileQueueIsFull.NO_BLOCK)
            except QueueFullError as exc:
                print(exc)
                assert isinstance(exc, BufferError)
            else:
                raise AssertionError("there was room")
            broker.round_trip_time(0)
            producer.purge()
    assert sorted(delivered) == list(range(250))


if __name__ == "__main__":
    main()
