"""kafka_ext."""

from __future__ import annotations

import asyncio
import atexit
import threading
import time
from collections.abc import Callable, Iterable, Sequence
from typing import Any

import kafka_ext
from kafka_ext import (
    BatchDelivery,
    KafkaError,
    KafkaProducer,
    ProducerRecord,
    QueueFullError,
    RecordMetadata,
    SendOption,
)
from kafka_ext.aio import AsyncKafkaProducer

from ..job import FIRST as FIRST_DELIVERY
from ..job import FIRST_PLAIN, FIRST_TRANSACTIONAL, TOPIC
from ..loop import drive
from . import Burst, Sender

VERSION = f"kafka_ext {kafka_ext.__version__}"


def callback(settings: dict[str, str]) -> Sender:
    """A callback each, called by the events thread."""
    producer = KafkaProducer(settings)

    def send_all(values: Iterable[bytes]) -> int:
        delivered = 0

        def on_delivery(metadata: RecordMetadata, error: KafkaError | None) -> None:
            nonlocal delivered
            if error is None:
                delivered += 1

        send = producer.send
        for value in values:
            send(ProducerRecord(TOPIC, value), on_delivery)
        producer.flush()
        return delivered

    return send_all


def callback_manual(settings: dict[str, str]) -> Sender:
    """A callback each, called by the sender's own polling."""
    producer = KafkaProducer({**settings, "enable.manual.events.poll": "true"})

    def send_all(values: Iterable[bytes]) -> int:
        delivered = 0

        def on_delivery(metadata: RecordMetadata, error: KafkaError | None) -> None:
            nonlocal delivered
            if error is None:
                delivered += 1

        send = producer.send
        for value in values:
            record = ProducerRecord(TOPIC, value)
            while True:
                try:
                    send(record, on_delivery)
                    break
                except QueueFullError:
                    producer.poll_events(0.1)
        producer.flush()
        return delivered

    return send_all


def _without_callback(
    producer: KafkaProducer, option: SendOption = SendOption.NO_COPY_RECORD_VALUE
) -> Sender:
    def send_all(values: Iterable[bytes]) -> int:
        before = producer.metrics().delivered
        send = producer.send
        if option is SendOption.NO_COPY_RECORD_VALUE:
            for value in values:
                send(ProducerRecord(TOPIC, value))
        else:
            for value in values:
                send(ProducerRecord(TOPIC, value), option=option)
        producer.flush()
        return producer.metrics().delivered - before

    return send_all


def no_callback(settings: dict[str, str]) -> Sender:
    """Nobody is called; failures are counted and logged."""
    return _without_callback(KafkaProducer(settings))


def copy(settings: dict[str, str]) -> Sender:
    """No callback, and librdkafka copies the value within send."""
    return _without_callback(KafkaProducer(settings), SendOption.TO_COPY_RECORD_VALUE)


def no_callback_manual(settings: dict[str, str]) -> Sender:
    """No callback, no events thread: the sender polls when the queue is full."""
    producer = KafkaProducer({**settings, "enable.manual.events.poll": "true"})

    def send_all(values: Iterable[bytes]) -> int:
        before = producer.metrics().delivered
        send = producer.send
        for value in values:
            record = ProducerRecord(TOPIC, value)
            while True:
                try:
                    send(record)
                    break
                except QueueFullError:
                    producer.poll_events(0.1)
        producer.flush()
        return producer.metrics().delivered - before

    return send_all


def batch(settings: dict[str, str]) -> Sender:
    """send_batch with lists or Arrow columns, a callback for each."""
    producer = KafkaProducer(settings)

    def send_all(columns: Iterable[Any]) -> int:
        delivered = 0

        def on_delivery(batch: BatchDelivery) -> None:
            nonlocal delivered
            delivered += len(batch) - batch.failed

        for column in columns:
            producer.send_batch(TOPIC, column, on_delivery=on_delivery)
        producer.flush()
        return delivered

    return send_all


def arrow(values: list[bytes]) -> Any:
    import pyarrow as pa

    return pa.array(values, pa.binary())


def send_time(settings: dict[str, str]) -> Burst:
    """The calls of send alone: the records are there already, and nobody is called back."""
    producer = KafkaProducer(settings)

    def burst(values: Sequence[bytes]) -> int:
        records = [ProducerRecord(TOPIC, value) for value in values]
        send = producer.send
        start = time.perf_counter_ns()
        for record in records:
            send(record)
        nanoseconds = time.perf_counter_ns() - start
        producer.flush()
        return nanoseconds

    return burst


def asyncio_future(settings: dict[str, str]) -> Sender:
    """A future each, on an event loop."""
    loop = asyncio.new_event_loop()

    async def start() -> AsyncKafkaProducer:
        return AsyncKafkaProducer(settings)

    producer = loop.run_until_complete(start())
    atexit.register(lambda: loop.run_until_complete(producer.aclose()))

    async def send_some(values: Sequence[bytes]) -> list[asyncio.Future[RecordMetadata]]:
        send = producer.send
        return [await send(ProducerRecord(TOPIC, value)) for value in values]

    return lambda values: loop.run_until_complete(drive(send_some, producer.flush, values))


def first_delivery(settings: dict[str, str], value: bytes) -> float:
    """Seconds from a producer's constructor to its first report."""
    reported = 0.0

    def on_delivery(metadata: RecordMetadata, error: KafkaError | None) -> None:
        nonlocal reported
        assert error is None
        reported = time.perf_counter()
        told.set()

    told = threading.Event()
    start = time.perf_counter()
    with KafkaProducer(settings) as producer:
        producer.send(ProducerRecord(TOPIC, value), on_delivery)
        told.wait()
    return reported - start


def first_delivery_transactional(settings: dict[str, str], value: bytes) -> float:
    """The same in a transaction, its initialization included."""
    start = time.perf_counter()
    with KafkaProducer({**settings, "transactional.id": str(start)}) as producer:
        producer.init_transactions(30)
        producer.begin_transaction()
        producer.sync_send(ProducerRecord(TOPIC, value))
        took = time.perf_counter() - start
        producer.commit_transaction(30)
    return took


FIRST = {
    FIRST_DELIVERY: first_delivery,
    FIRST_PLAIN: first_delivery,
    FIRST_TRANSACTIONAL: first_delivery_transactional,
}

WAYS = {
    "asyncio": asyncio_future,
    "callback": callback,
    "callback-manual": callback_manual,
    "no-callback": no_callback,
    "no-callback-manual": no_callback_manual,
    "copy": copy,
    "batch": batch,
    "column": batch,
}
BATCHES: dict[str, Callable[[list[bytes]], Any]] = {"batch": list, "column": arrow}
