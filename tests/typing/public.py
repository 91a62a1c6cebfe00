"""What a user's type checker sees of the public names: checked by `make types` (mypy --strict),
never run.
"""

from __future__ import annotations

from array import array
from asyncio import Future as AsyncFuture
from concurrent.futures import Future
from datetime import datetime

from typing_extensions import assert_type

import kafka_ext
from kafka_ext import (
    ActionWhileQueueIsFull,
    AsyncKafkaProducer,
    BatchDelivery,
    BrokerMetadata,
    ErrorCode,
    KafkaError,
    KafkaException,
    KafkaProducer,
    KafkaSink,
    PersistedStatus,
    ProducerMetrics,
    ProducerRecord,
    Properties,
    RecordMetadata,
    SendOption,
    TimestampType,
)
from kafka_ext.logging import KafkaHandler
from kafka_ext.recoverable import RecoverableProducer
from kafka_ext.testing import ApiKey, ConsumedMessage, EmbeddedBroker


def records() -> list[ProducerRecord]:
    return [
        ProducerRecord("t"),
        ProducerRecord("t", b"bytes", key="text", partition=1, timestamp=1, id=object()),
        ProducerRecord(
            "t",
            bytearray(b"v"),
            key=memoryview(b"k"),
            headers=[("a", b"1"), ("a", None)],
            timestamp=datetime.now(),
        ),
        ProducerRecord("t", array("d"), headers={"name": "text", "none": None}),
    ]


def on_delivery(metadata: RecordMetadata, error: KafkaError | None) -> None:
    assert_type(metadata.offset, int | None)
    assert_type(metadata.partition, int | None)
    assert_type(metadata.timestamp, int | None)
    assert_type(metadata.timestamp_type, TimestampType)
    assert_type(metadata.persisted_status, PersistedStatus)
    assert_type(metadata.latency, float | None)
    if error is not None:
        assert_type(error.code, ErrorCode)
        assert_type(error.is_retriable, bool)


def sending(producer: KafkaProducer, record: ProducerRecord) -> None:
    producer.send(record)
    producer.send(
        record,
        on_delivery,
        option=SendOption.TO_COPY_RECORD_VALUE,
        action=ActionWhileQueueIsFull.NO_BLOCK,
        timeout=1,
    )
    producer.send(record, lambda metadata, error: print(metadata.topic, error))
    assert_type(producer.try_send(record), KafkaError | None)
    assert_type(producer.sync_send(record, timeout=1.5), RecordMetadata)
    assert_type(producer.send_future(record), Future[RecordMetadata])
    batch = producer.send_batch("t", [b"v"], keys=["k"], partitions=0)
    assert_type(batch, BatchDelivery)
    assert_type(batch.errors(), list[tuple[int, KafkaError]])
    assert_type(batch.offsets, memoryview)
    assert_type(batch.wait(1), bool)
    producer.send("t", b"v")  # type: ignore[arg-type]
    producer.send(record, option=1)  # type: ignore[arg-type]
    producer.send(record, on_delivery, SendOption.TO_COPY_RECORD_VALUE)  # type: ignore[call-arg]
    ProducerRecord("t", b"v", b"k")  # type: ignore[call-arg]
    ProducerRecord(b"t")  # type: ignore[arg-type]


def everything_else() -> None:
    with KafkaProducer({"bootstrap.servers": "a:1"}, linger_ms=5) as producer:
        assert_type(producer, KafkaProducer)
        assert_type(producer.properties, Properties)
        assert_type(producer.get_property("acks"), str | None)
        assert_type(producer.metrics(), ProducerMetrics)
        assert_type(producer.fatal_error(), KafkaError | None)
        assert_type(producer.fetch_broker_metadata("t"), BrokerMetadata)
        assert_type(producer.poll_events(0.1), int)
        with producer.transaction() as same:
            assert_type(same, KafkaProducer)
    try:
        producer.close(timeout=None)
    except KafkaException as exc:
        assert_type(exc.error, KafkaError)
    assert_type(KafkaSink({}, "t").write([b"v"]), int)
    assert_type(kafka_ext.get_include(), str)


async def on_a_loop(record: ProducerRecord) -> None:
    async with AsyncKafkaProducer(bootstrap_servers="a:1") as producer:
        assert_type(producer, AsyncKafkaProducer)
        future = await producer.send(record)
        assert_type(future, AsyncFuture[RecordMetadata])
        assert_type(await future, RecordMetadata)
        assert_type(await producer.send_and_wait(record), RecordMetadata)
        batch = await producer.send_batch("t", [b"v"])
        assert_type(await batch, BatchDelivery)
        assert_type(producer.properties, Properties)
        assert_type(producer.get_property("acks"), str | None)
        assert_type(producer.metrics(), ProducerMetrics)
        assert_type(producer.fatal_error(), KafkaError | None)
        assert_type(await producer.fetch_broker_metadata(), BrokerMetadata)
        async with producer.transaction() as same:
            assert_type(same, AsyncKafkaProducer)


def a_broker() -> None:
    with EmbeddedBroker(brokers=3, topics={"orders": 4}, isolation="process") as broker:
        assert_type(broker, EmbeddedBroker)
        assert_type(broker.messages("orders"), list[ConsumedMessage])
        assert_type(broker.unused_faults(), list[str])
        broker.fail_requests(ApiKey.PRODUCE, [ErrorCode.NOT_ENOUGH_REPLICAS, 7], broker_id=1)
        KafkaProducer(broker.config(linger_ms=5)).close()
    EmbeddedBroker(isolation="container")  # type: ignore[arg-type]


def sends(producer: KafkaProducer) -> None:
    producer.send(ProducerRecord("t"))


def recoverable(anything: object) -> None:
    with RecoverableProducer(bootstrap_servers="a:1", on_fatal="resend") as producer:
        assert_type(producer, RecoverableProducer)
        sends(producer)
        KafkaHandler("logs", producer=producer)
        assert_type(producer.recoveries, int)
        assert_type(producer.send_batch("t", [b"v"], keys=[b"k"], timeout=1), BatchDelivery)
        assert_type(producer.send_future(ProducerRecord("t")), Future[RecordMetadata])
    if isinstance(anything, KafkaProducer):
        sends(anything)
