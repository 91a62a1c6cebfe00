"""Serializers run at the edge: before anything is enqueued, and not at all where there are none."""

from __future__ import annotations

import asyncio
import json

import pytest
from faultlib import is_pinned, within

from kafka_ext import (
    KafkaException,
    KafkaProducer,
    KafkaSink,
    ProducerClosedError,
    ProducerRecord,
    SendOption,
    Serializer,
)
from kafka_ext.aio import AsyncKafkaProducer
from kafka_ext.recoverable import RecoverableProducer
from kafka_ext.testing import EmbeddedBroker


@pytest.fixture
def broker():
    with EmbeddedBroker(topics={"orders": 4}) as broker:
        yield broker


@pytest.fixture
def config(broker):
    return broker.config(enable_idempotence=False, linger_ms=0)


class WithTopic:
    def serialize(self, topic, data):
        return f"{topic}:{data}"


def as_json(value):
    return json.dumps(value)


@pytest.mark.parametrize("by", ["keywords", "properties"])
def test_each_way_to_send_serializes(broker, config, by):
    given = {"value_serializer": as_json, "key_serializer": WithTopic()}
    producer = KafkaProducer(config, **given) if by == "keywords" else KafkaProducer(config | given)
    with producer:
        record = ProducerRecord(
            "orders", {"n": 1}, key=7, headers={"h": b"1"}, partition=2, timestamp=1234567, id="x"
        )
        producer.send(record)
        assert producer.try_send(record) is None
        producer.send(record, option=SendOption.TO_COPY_RECORD_VALUE)
        assert producer.send_future(record).result(10).record_id == "x"
        producer.sync_send(record, timeout=10)
        assert (record.value, record.key) == ({"n": 1}, 7)  # its owner's, untouched
        assert producer.get_property("value_serializer") == repr(as_json)
    messages = broker.messages("orders", count=5)
    assert {(m.partition, m.key, m.value, m.headers[0], m.timestamp) for m in messages} == {
        (2, b"orders:7", b'{"n": 1}', ("h", b"1"), 1234567)
    }


def test_none_stays_a_tombstone_and_no_key(broker, config):
    with KafkaProducer(
        config, value_serializer=pytest.fail, key_serializer=pytest.fail
    ) as producer:
        producer.sync_send(ProducerRecord("orders"), timeout=10)
    (message,) = broker.messages("orders")
    assert (message.key, message.value) == (None, None)


def test_what_a_serializer_raises_send_raises_and_nothing_is_pinned(config, reports):
    pinned = bytearray(b"x")

    def failing(value):
        raise LookupError("no schema")

    with KafkaProducer(config, key_serializer=failing) as producer:
        record = ProducerRecord("orders", pinned, key="k")
        for call in (producer.send, producer.try_send):
            with pytest.raises(LookupError, match="no schema"):
                call(record, reports)
        with pytest.raises(LookupError, match="no schema"):
            producer.sync_send(record)
        assert not is_pinned(pinned)
        assert producer.metrics().sent == 0
        producer.flush(1)
    assert not reports


def test_what_a_serializer_returns_must_be_sendable(config):
    with (
        KafkaProducer(config, value_serializer=lambda value: 5) as producer,
        pytest.raises(TypeError, match="value"),
    ):
        producer.send(ProducerRecord("orders", "x"))


def test_a_serializer_may_return_memory_that_stays_in_place(broker, config):
    with KafkaProducer(config, value_serializer=bytearray) as producer:
        producer.sync_send(ProducerRecord("orders", [1, 2, 3]), timeout=10)
    assert broker.messages("orders")[0].value == b"\1\2\3"


@pytest.mark.parametrize("value", [5, "json", b"json"])
def test_no_serializer(config, value):
    with pytest.raises(TypeError, match="value_serializer must be callable"):
        KafkaProducer(config, value_serializer=value)


def test_none_is_none(broker, config):
    with KafkaProducer(config, value_serializer=None) as producer:
        producer.send_batch("orders", [b"a"]).wait(10)
    assert isinstance(WithTopic(), Serializer)


def test_interceptors_see_objects_and_partitioners_see_bytes(broker, config):
    seen = []

    class Interceptor:
        def on_send(self, record):
            seen.append(record.value)
            return ProducerRecord(record.topic, [*record.value, 3], key=record.key)

        def on_acknowledgement(self, metadata, error):
            seen.append(error)

    def partitioner(topic, key, count):
        seen.append(key)
        return 3

    with KafkaProducer(
        config,
        interceptors=[Interceptor()],
        partitioner=partitioner,
        value_serializer=as_json,
        key_serializer=as_json,
    ) as producer:
        producer.sync_send(ProducerRecord("orders", [1, 2], key={"k": 1}), timeout=10)
        assert seen == [[1, 2], '{"k": 1}', None]
        with pytest.raises(TypeError):
            producer.send(ProducerRecord("orders", [object()]))
        assert "not JSON serializable" in str(seen[-1])
    (message,) = broker.messages("orders")
    assert (message.partition, message.key, message.value) == (3, b'{"k": 1}', b"[1, 2, 3]")


def test_batches_say_why_not(config):
    with (
        KafkaProducer(config, value_serializer=as_json) as producer,
        pytest.raises(KafkaException, match="see records one by one"),
    ):
        producer.send_batch("orders", ["a"])


def test_close_does_not_wait_for_a_serializer(config):
    """It may ask a registry that does not answer; here it is the serializer that closes, as a
    signal handler in its midst would.
    """

    def closing(value):
        producer.close()
        return value

    producer = KafkaProducer(config, value_serializer=closing)
    with within(1), pytest.raises(ProducerClosedError):
        producer.send(ProducerRecord("orders", b"x"))
    with pytest.raises(ProducerClosedError):
        producer.send(ProducerRecord("orders", b"x"))


def test_a_sink_serializes_rows(broker, config):
    with KafkaSink(config | {"value_serializer": as_json}, "orders") as sink:
        assert sink.write([{"n": n} for n in range(3)]) == 3
    assert sorted(message.value for message in broker.messages("orders")) == [
        b'{"n": 0}',
        b'{"n": 1}',
        b'{"n": 2}',
    ]


def test_a_recoverable_producer_serializes_once(broker, config):
    count = []
    value = {"n": 1}

    def counting(value):
        count.append(value)
        return json.dumps(value)

    quiet = {
        "error_cb": lambda error: None,
        "log_cb": lambda *log: None,
        "enable.idempotence": True,
        "linger.ms": 10_000,
    }
    with RecoverableProducer(
        config | quiet, on_fatal="resend", value_serializer=counting
    ) as producer:
        producer.send(ProducerRecord("orders", value))
        value["n"] = 2
        producer.handle.test_fatal_error(45, "for the test")
    assert len(count) == 1
    assert [message.value for message in broker.messages("orders", count=1)] == [b'{"n": 1}']


def test_an_asyncio_producer_serializes(broker, config):
    async def main():
        async with AsyncKafkaProducer(
            config, value_serializer=as_json, key_serializer=WithTopic()
        ) as producer:
            record = ProducerRecord("orders", {"n": 1}, key=7, partition=0)
            await (await producer.send(record))
            await producer.send_nowait(record)
            await producer.send_and_wait(record)
            with pytest.raises(TypeError, match="not JSON serializable"):
                producer.send_nowait(ProducerRecord("orders", object()))
            with pytest.raises(TypeError, match="not JSON serializable"):
                await producer.send_and_wait(ProducerRecord("orders", object()))

    asyncio.run(main())
    assert {(message.key, message.value) for message in broker.messages("orders", count=3)} == {
        (b"orders:7", b'{"n": 1}')
    }
