"""What may not wait does not: a Python partitioner asked by try_send, and a callback that sends to
another producer's full queue.
"""

from __future__ import annotations

import threading
import time

from kafka_ext import ErrorCode, KafkaProducer, ProducerRecord, QueueFullError
from kafka_ext.testing import EmbeddedBroker


def test_try_send_does_not_wait_for_the_partitions_a_python_partitioner_asks_for() -> None:
    with EmbeddedBroker(topics={"t": 3}) as broker:
        broker.round_trip_time(0.5)
        with KafkaProducer(
            broker.config(partitioner=lambda topic, key, count: count - 1)
        ) as producer:
            started = time.monotonic()
            error = producer.try_send(ProducerRecord("t", b"v"))
            assert time.monotonic() - started < 0.4
            assert error is not None
            assert error.code == ErrorCode.WAIT_CACHE
            assert error.is_retriable
            deadline = time.monotonic() + 20
            while (
                error := producer.try_send(ProducerRecord("t", b"v"))
            ) is not None and time.monotonic() < deadline:
                time.sleep(0.05)
            assert error is None
            broker.round_trip_time(0.0)
        assert [message.partition for message in broker.messages("t", count=1)] == [2]


def test_a_callback_never_waits_for_room_in_another_producers_queue() -> None:
    outcome: list[object] = []
    finished = threading.Event()
    with EmbeddedBroker(topics={"t": 1}) as broker:
        full = KafkaProducer(
            {"bootstrap.servers": "127.0.0.1:1", "queue.buffering.max.messages": 1, "log_level": 0}
        )
        full.send(ProducerRecord("t", b"fills it"))

        def on_delivery(metadata: object, error: object) -> None:
            try:
                full.send(ProducerRecord("t", b"no room"), timeout=20)
            except QueueFullError as exc:
                outcome.append(exc)
            finally:
                finished.set()

        with KafkaProducer(broker.config()) as producer:
            producer.send(ProducerRecord("t", b"v"), on_delivery)
            assert finished.wait(15)
        assert [type(exc) for exc in outcome] == [QueueFullError]
        full.close(0)
