"""A refcount-leak hunt over every public call, its errors included: after fifty of them there are
as many objects as before.

Counted are CPython's own memory blocks (a leaked object is one at least) and the references to what
is shared by all calls. What has no case here fails: a new public name brings its own.
"""

import array
import asyncio
import enum
import gc
import inspect
import logging
import os
import pickle
import sys
import time
import warnings

import pytest
from faultlib import SCALE, closed_port

import kafka_ext
from kafka_ext import (
    ActionWhileQueueIsFull,
    AsyncKafkaProducer,
    BatchDelivery,
    BrokerMetadata,
    BrokerNode,
    ConsumerGroupMetadata,
    DeliveryError,
    ErrorCode,
    InvalidConfigError,
    InvalidRecordError,
    KafkaError,
    KafkaException,
    KafkaProducer,
    KafkaSink,
    KafkaTimeoutError,
    OAuthBearerToken,
    PartitionMetadata,
    ProducerClosedError,
    ProducerForkedError,
    ProducerInterceptor,
    ProducerMetrics,
    ProducerRecord,
    Properties,
    QueueFullError,
    SendOption,
    Serializer,
    TopicMetadata,
    TopicPartition,
    _rdkafka,
)
from kafka_ext.testing import EmbeddedBroker

CALLS = max(int(50 * SCALE), 10)
LEAK = CALLS * 0.7
SETTLING = 2.0  # seconds
VALUE, KEY, BUFFER, ID = (
    b"".join([b"a ", b"value"]),
    "".join(["a ", "key"]),
    bytearray(b"buffer"),
    object(),
)
HEADERS = [("name", b"content"), ("other", BUFFER), ("none", None)]


def on_delivery(metadata, error):
    pass


class Refused:
    """No argument that any call takes."""


class World:
    """What the calls are made on: one producer of each kind, and their broker."""

    def __init__(self, broker):
        self.broker = broker
        quiet = {"log_level": 0, "error_cb": lambda error: None, "enable.idempotence": False}
        self.producer = KafkaProducer(broker.config(linger_ms=0) | quiet)
        self.manual = KafkaProducer(
            broker.config(linger_ms=0) | quiet | {"enable.manual.events.poll": True}
        )
        # Full for as long as the tests take: a record that timed out would make room.
        full = {"queue.buffering.max.messages": 1, "message.timeout.ms": 0}
        self.full = KafkaProducer({"bootstrap.servers": closed_port()} | full | quiet)
        self.full.send(ProducerRecord("t", VALUE))
        self.transactional = KafkaProducer(
            broker.config(transactional_id="t", log_level=0, error_cb=lambda error: None)
        )
        self.transactional.init_transactions(20)
        self.closed = KafkaProducer(broker.config() | quiet)
        self.closed.close()
        self.metadata = self.producer.sync_send(
            ProducerRecord("t", VALUE, key=KEY, headers=HEADERS, id=ID), 20
        )
        self.batch = self.producer.send_batch("t", [VALUE], ids=[ID])
        self.batch.wait(20)
        self.failed = self.full.send_batch("t", [VALUE] * 3, action=ActionWhileQueueIsFull.NO_BLOCK)
        self.failed.wait(20)
        self.loop = asyncio.new_event_loop()
        self.aio, self.aio_transactional, self.aio_closed = self.run(self.make_aio(quiet))
        self.record = ProducerRecord(
            "t", VALUE, key=KEY, headers=HEADERS, id=ID, partition=0, timestamp=1
        )
        self.error = KafkaError(ErrorCode.QUEUE_FULL, "a message")
        node = BrokerNode(1, "h", 2)
        partition = PartitionMetadata(0, node.id, (node.id,), (node.id,))
        self.samples = {
            "RecordMetadata": self.metadata,
            "BatchDelivery": self.batch,
            "ProducerRecord": self.record,
            "KafkaError": self.error,
            "ConsumerGroupMetadata": ConsumerGroupMetadata("g"),
            "OAuthBearerToken": OAuthBearerToken("v", 1),
            "PartitionMetadata": partition,
            "TopicMetadata": TopicMetadata("t", {0: partition}),
            "TopicPartition": TopicPartition("t", 0),
            "ProducerMetrics": self.producer.metrics(),
            "KafkaProducer": self.producer,
            "AsyncKafkaProducer": self.aio,
        }
        self.sink = self.samples["KafkaSink"] = KafkaSink(broker.config(linger_ms=0), "t")
        self.rows = KafkaSink(broker.config(linger_ms=0), "t", value="v", key="k")

    async def make_aio(self, quiet):
        """Its producers, one of each kind too, which live in the world's own event loop."""
        producer = AsyncKafkaProducer(self.broker.config(linger_ms=0) | quiet)
        transactional = AsyncKafkaProducer(
            self.broker.config(transactional_id="aio", log_level=0, error_cb=lambda error: None)
        )
        await transactional.init_transactions(20)
        closed = AsyncKafkaProducer(self.broker.config() | quiet)
        await closed.aclose()
        return producer, transactional, closed

    def run(self, awaitable):
        return self.loop.run_until_complete(awaitable)

    def close(self):
        for producer in (self.aio, self.aio_transactional):
            self.run(producer.aclose(20))
        self.loop.close()
        self.sink.close()
        self.rows.close()
        self.full.close(0)
        for producer in (self.producer, self.manual, self.transactional):
            producer.close(20)

    def transaction(self, *calls):
        self.transactional.begin_transaction()
        try:
            self.transactional.send(ProducerRecord("t", VALUE), on_delivery)
            for call in calls:
                call(self.transactional)
        finally:
            self.transactional.abort_transaction(20)


def fails(call, *exceptions):
    expected = exceptions or (TypeError, ValueError, BufferError, KafkaException)

    def case(w):
        try:
            call(w)
        except expected:
            return
        raise AssertionError("it did not fail")

    return case


def awaits(call):
    """A call of an AsyncKafkaProducer, awaited in the world's event loop."""

    async def awaiting(w):
        result = call(w)
        if inspect.isawaitable(result):
            result = await result
        if isinstance(result, (asyncio.Future, BatchDelivery)):
            await result

    return lambda w: w.run(awaiting(w))


async def aio_sends(w):
    """What waits to be sent is reported before the call counts as done."""
    await asyncio.gather(
        *(w.aio.send_nowait(ProducerRecord("t", value)) for value in (VALUE, BUFFER))
    )


async def aio_in_transaction(w, end="commit"):
    await w.aio_transactional.begin_transaction()
    await w.aio_transactional.send(ProducerRecord("t", VALUE))
    if end == "commit":
        await w.aio_transactional.commit_transaction(20)
    else:
        await w.aio_transactional.abort_transaction(20)


async def aio_transaction_fails(w):
    async with w.aio_transactional.transaction(20):
        raise ZeroDivisionError


async def aio_offsets(w):
    async with w.aio_transactional.transaction(20):
        await w.aio_transactional.send_offsets_to_transaction(
            {TopicPartition("t", 0): 1}, ConsumerGroupMetadata("g"), 20
        )


async def aio_life(w):
    async with AsyncKafkaProducer(w.broker.config(enable_idempotence=False)) as producer:
        await producer.send_and_wait(ProducerRecord("t", VALUE))


def sent(call):
    """A call that sends: with what it sent reported, by both kinds of producers."""

    def case(w):
        call(w.producer)
        w.producer.flush(20)
        call(w.manual)
        w.manual.flush(20)

    return case


def in_transaction(w):
    with w.transactional.transaction(20):
        w.transactional.send(ProducerRecord("t", VALUE))


def broken_transaction(w):
    with w.transactional.transaction(20):
        raise ZeroDivisionError


def raising(metadata, error):
    raise ZeroDivisionError


def callback_raises(w):
    w.manual.send(ProducerRecord("t", VALUE), raising)
    w.manual.flush(20)


async def awaited(batch):
    return await batch


def made(cls, *arguments, **keywords):
    return lambda w: cls(*arguments, **keywords)


def exceptions(cls):
    return [
        lambda w: str(cls(w.error)),
        lambda w: cls(w.error).__reduce__(),
        fails(lambda w: cls("no error")),
    ]


def dropped(w):
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ResourceWarning)
        producer = KafkaProducer(w.broker.config(enable_idempotence=False, log_level=0))
        producer.send(ProducerRecord("t", VALUE), on_delivery)
        handle = producer.handle
        del producer
        while not handle.closed:
            time.sleep(0.001)


CASES = {
    "AsyncKafkaProducer": [
        awaits(aio_life),
        lambda w: repr(w.aio),
        fails(awaits(lambda w: AsyncKafkaProducer({"no.such.property": 1}))),
    ],
    "AsyncKafkaProducer.abort_transaction": [
        awaits(lambda w: aio_in_transaction(w, "abort")),
        fails(awaits(lambda w: w.aio.abort_transaction(1))),
    ],
    "AsyncKafkaProducer.aclose": [
        awaits(lambda w: w.aio_closed.aclose()),
        fails(awaits(lambda w: w.aio.aclose(Refused()))),
    ],
    "AsyncKafkaProducer.begin_transaction": [
        fails(awaits(lambda w: w.aio.begin_transaction())),
        fails(awaits(lambda w: w.aio_closed.begin_transaction())),
    ],
    "AsyncKafkaProducer.close": [
        awaits(lambda w: w.aio_closed.close()),
        fails(awaits(lambda w: w.aio.close(Refused()))),
    ],
    "AsyncKafkaProducer.commit_transaction": [
        awaits(aio_in_transaction),
        fails(awaits(lambda w: w.aio.commit_transaction(1))),
    ],
    "AsyncKafkaProducer.fatal_error": [
        lambda w: w.aio.fatal_error(),
        fails(lambda w: w.aio_closed.fatal_error()),
    ],
    "AsyncKafkaProducer.fetch_broker_metadata": [
        awaits(lambda w: w.aio.fetch_broker_metadata("t")),
        fails(awaits(lambda w: w.aio.fetch_broker_metadata(5))),
        fails(awaits(lambda w: w.aio_closed.fetch_broker_metadata("t"))),
    ],
    "AsyncKafkaProducer.flush": [
        awaits(lambda w: w.aio.flush(20)),
        fails(awaits(lambda w: w.aio.flush(Refused()))),
        fails(awaits(lambda w: w.aio_closed.flush())),
    ],
    "AsyncKafkaProducer.get_property": [
        lambda w: w.aio.get_property("linger.ms"),
        fails(lambda w: w.aio.get_property("no.such.property")),
    ],
    "AsyncKafkaProducer.init_transactions": [
        fails(awaits(lambda w: w.aio.init_transactions(1))),
        fails(awaits(lambda w: w.aio_closed.init_transactions(1))),
    ],
    "AsyncKafkaProducer.metrics": [lambda w: w.aio.metrics()],
    "AsyncKafkaProducer.purge": [
        awaits(lambda w: w.aio.purge()),
        fails(awaits(lambda w: w.aio_closed.purge())),
    ],
    "AsyncKafkaProducer.send": [
        awaits(lambda w: w.aio.send(w.record)),
        awaits(
            lambda w: w.aio.send(
                ProducerRecord("t", BUFFER, id=ID), option=SendOption.TO_COPY_RECORD_VALUE
            )
        ),
        fails(awaits(lambda w: w.aio.send(Refused()))),
        fails(awaits(lambda w: w.aio.send("t", VALUE))),
        fails(awaits(lambda w: w.aio.send(w.record, option=Refused()))),
        fails(awaits(lambda w: w.aio.send(ProducerRecord("t", Refused())))),
        fails(awaits(lambda w: w.aio.send(ProducerRecord("t", BUFFER, partition=999)))),
        fails(awaits(lambda w: w.aio_closed.send(w.record))),
    ],
    "AsyncKafkaProducer.send_and_wait": [
        awaits(lambda w: w.aio.send_and_wait(w.record)),
        fails(awaits(lambda w: w.aio.send_and_wait(Refused()))),
        fails(awaits(lambda w: w.aio_closed.send_and_wait(w.record))),
    ],
    "AsyncKafkaProducer.send_batch": [
        awaits(lambda w: w.aio.send_batch("t", [VALUE, BUFFER, KEY, None], ids=[ID] * 4)),
        fails(awaits(lambda w: w.aio.send_batch("t", [VALUE, Refused()]))),
        fails(awaits(lambda w: w.aio_closed.send_batch("t", [VALUE]))),
    ],
    "AsyncKafkaProducer.send_nowait": [
        awaits(aio_sends),
        fails(awaits(lambda w: w.aio.send_nowait(Refused()))),
        fails(awaits(lambda w: w.aio_closed.send_nowait(w.record))),
    ],
    "AsyncKafkaProducer.send_offsets_to_transaction": [
        awaits(aio_offsets),
        fails(awaits(lambda w: w.aio.send_offsets_to_transaction(Refused(), "g", 1))),
    ],
    "AsyncKafkaProducer.send_table": [
        awaits(lambda w: w.aio.send_table(table(), topic="t", value="v", key="k")),
        fails(awaits(lambda w: w.aio.send_table(table(), topic="t", value="no such column"))),
        fails(awaits(lambda w: w.aio.send_table(Refused(), topic="t", value="v"))),
    ],
    "AsyncKafkaProducer.transaction": [
        fails(awaits(aio_transaction_fails), ZeroDivisionError),
        fails(lambda w: w.run(w.aio.transaction().__aenter__())),
    ],
    "BatchDelivery": [
        fails(lambda w: kafka_ext.BatchDelivery()),
        lambda w: (len(w.batch), bool(w.batch), repr(w.batch)),
    ],
    "BatchDelivery.add_done_callback": [
        lambda w: w.batch.add_done_callback(lambda batch: None),
        fails(lambda w: w.batch.add_done_callback(5)),
        lambda w: asyncio.run(awaited(w.batch)),
    ],
    "BatchDelivery.done": [lambda w: w.batch.done()],
    "BatchDelivery.errors": [lambda w: w.batch.errors(), lambda w: w.failed.errors()],
    "BatchDelivery.raise_for_errors": [
        lambda w: w.batch.raise_for_errors(),
        fails(lambda w: w.failed.raise_for_errors()),
    ],
    "BatchDelivery.wait": [
        lambda w: w.batch.wait(),
        fails(lambda w: w.full.send_batch("t", [VALUE], timeout=Refused()).wait(1)),
    ],
    "BrokerMetadata": [made(BrokerMetadata, None, None, {}, {})],
    "BrokerNode": [lambda w: hash(BrokerNode(1, "h", 2))],
    "ConsumerGroupMetadata": [made(ConsumerGroupMetadata, "g", 1, "m", "i")],
    "InvalidConfigError": [
        *exceptions(InvalidConfigError),
        lambda w: InvalidConfigError(w.error, "linger.ms").property,
    ],
    "InvalidRecordError": exceptions(InvalidRecordError),
    "KafkaError": [
        lambda w: (
            str(KafkaError(-184)),
            repr(KafkaError(12345, "m", is_fatal=True)),
            hash(w.error),
            w.error == ErrorCode.QUEUE_FULL,
        ),
        lambda w: (w.error.__reduce__(), w.error == "other"),
        fails(lambda w: KafkaError("no code")),
    ],
    "KafkaException": exceptions(KafkaException),
    "KafkaProducer": [
        lambda w: KafkaProducer(w.broker.config(enable_idempotence=False)).close(20),
        lambda w: repr(w.producer),
        dropped,
        fails(lambda w: KafkaProducer({"no.such.property": 1})),
        fails(lambda w: KafkaProducer(linger_ms="never")),
        fails(lambda w: KafkaProducer(5)),
        fails(lambda w: KafkaProducer(error_cb=5)),
        fails(lambda w: KafkaProducer({"security.protocol": "ssl", "ssl.ca.location": "/nowhere"})),
        fails(lambda w: w.producer.__reduce__()),
    ],
    "KafkaProducer.abort_transaction": [
        lambda w: w.transaction(),
        fails(lambda w: w.producer.abort_transaction(1)),
    ],
    "KafkaProducer.begin_transaction": [
        fails(lambda w: w.producer.begin_transaction()),
        fails(lambda w: w.closed.begin_transaction()),
    ],
    "KafkaProducer.close": [
        lambda w: w.closed.close(),
        fails(lambda w: KafkaProducer(w.broker.config()).close(Refused()), TypeError),
    ],
    "KafkaProducer.commit_transaction": [
        in_transaction,
        fails(lambda w: w.producer.commit_transaction(1)),
    ],
    "KafkaProducer.fatal_error": [
        lambda w: w.producer.fatal_error(),
        fails(lambda w: w.closed.fatal_error()),
    ],
    "KafkaProducer.fetch_broker_metadata": [
        lambda w: w.producer.fetch_broker_metadata("t"),
        lambda w: w.producer.fetch_broker_metadata(),
        fails(lambda w: w.producer.fetch_broker_metadata(5)),
        fails(lambda w: w.producer.fetch_broker_metadata("bad name")),
        fails(lambda w: w.full.fetch_broker_metadata("t", 0.001)),
        fails(lambda w: w.closed.fetch_broker_metadata("t")),
    ],
    "KafkaProducer.flush": [
        lambda w: w.producer.flush(20),
        lambda w: w.manual.flush(20),
        fails(lambda w: w.producer.flush(Refused())),
        fails(lambda w: w.closed.flush()),
        fails(callback_raises, ZeroDivisionError),
    ],
    "KafkaProducer.get_property": [
        lambda w: (
            w.producer.get_property("linger.ms"),
            w.producer.get_property("partitioner"),
            w.producer.get_property("error_cb"),
        ),
        fails(lambda w: w.producer.get_property("no.such.property")),
        fails(lambda w: w.producer.get_property(5)),
    ],
    "KafkaProducer.init_transactions": [
        fails(lambda w: w.producer.init_transactions(1)),
        fails(lambda w: w.closed.init_transactions(1)),
    ],
    "KafkaProducer.metrics": [lambda w: w.producer.metrics()],
    "KafkaProducer.poll_events": [
        lambda w: w.manual.poll_events(),
        fails(lambda w: w.producer.poll_events()),
        fails(lambda w: w.manual.poll_events(Refused())),
        fails(lambda w: w.closed.poll_events()),
    ],
    "KafkaProducer.purge": [lambda w: w.producer.purge(), fails(lambda w: w.closed.purge())],
    "KafkaProducer.send": [
        sent(
            lambda p: p.send(
                ProducerRecord("t", VALUE, key=KEY, headers=HEADERS, id=ID), on_delivery
            )
        ),
        sent(
            lambda p: p.send(
                ProducerRecord("t", BUFFER), on_delivery, option=SendOption.TO_COPY_RECORD_VALUE
            )
        ),
        sent(
            lambda p: p.send(
                ProducerRecord(
                    "t", memoryview(BUFFER), headers={"name": BUFFER}, timestamp=1, partition=0
                )
            )
        ),
        sent(lambda p: p.send(ProducerRecord("t", None))),
        fails(lambda w: w.producer.send(Refused())),
        fails(lambda w: w.producer.send(w.record, Refused())),
        fails(lambda w: w.producer.send(w.record, option=Refused())),
        fails(lambda w: w.producer.send(w.record, action=Refused())),
        fails(lambda w: w.producer.send(w.record, timeout=Refused())),
        fails(lambda w: w.producer.send(ProducerRecord("t", Refused()))),
        fails(lambda w: w.producer.send(ProducerRecord("t", VALUE, key=Refused()))),
        fails(
            lambda w: w.producer.send(
                ProducerRecord("t", VALUE, headers=[("name", BUFFER), ("other", Refused())])
            )
        ),
        fails(lambda w: w.producer.send(ProducerRecord("t", VALUE, headers=5))),
        fails(lambda w: w.producer.send(ProducerRecord("t", memoryview(BUFFER)[::2]))),
        fails(lambda w: w.producer.send(ProducerRecord("bad name", VALUE))),
        fails(
            lambda w: w.producer.send(
                ProducerRecord("t", BUFFER, headers=HEADERS, partition=999), on_delivery
            )
        ),
        fails(lambda w: w.full.send(w.record, on_delivery, action=ActionWhileQueueIsFull.NO_BLOCK)),
        fails(lambda w: w.full.send(ProducerRecord("t", BUFFER), on_delivery, timeout=0.001)),
        fails(lambda w: w.closed.send(w.record, on_delivery)),
    ],
    "KafkaProducer.send_batch": [
        sent(
            lambda p: p.send_batch(
                "t", [VALUE, BUFFER, KEY, None], ids=[ID] * 4, on_delivery=lambda batch: None
            )
        ),
        sent(
            lambda p: p.send_batch(
                "t", [VALUE], keys=[KEY], headers=HEADERS, partitions=[0], timestamps=[1]
            )
        ),
        sent(
            lambda p: p.send_batch(
                "t",
                [VALUE],
                keys=KEY,
                headers=[HEADERS],
                partitions=array.array("i", [0]),
                timestamps=1,
            )
        ),
        sent(
            lambda p: p.send_batch(
                "t",
                memoryview(bytearray(6)).cast("B", (2, 3)),
                option=SendOption.TO_COPY_RECORD_VALUE,
            )
        ),
        sent(lambda p: p.send_batch("t", [])),
        fails(lambda w: w.producer.send_batch("t", [VALUE, Refused()])),
        fails(lambda w: w.producer.send_batch("t", Refused())),
        fails(lambda w: w.producer.send_batch("t", [VALUE], keys=[KEY, KEY])),
        fails(lambda w: w.producer.send_batch("t", [BUFFER], headers=[[("name", Refused())]])),
        fails(lambda w: w.producer.send_batch("t", [BUFFER], partitions=[Refused()])),
        fails(lambda w: w.producer.send_batch("t", [BUFFER], timestamps=[-5])),
        fails(lambda w: w.producer.send_batch("bad name", [BUFFER])),
        fails(lambda w: w.closed.send_batch("t", [BUFFER])),
        lambda w: w.full.send_batch(
            "t", [BUFFER, VALUE], on_delivery=lambda batch: None, timeout=0.001
        ).wait(20),
        lambda w: w.producer.send_batch("t", [BUFFER], partitions=[999]).wait(20),
    ],
    "KafkaProducer.send_future": [
        sent(lambda p: p.send_future(w_record())),
        fails(lambda w: w.producer.send_future(Refused())),
        fails(lambda w: w.full.send_future(w.record, timeout=0.001)),
    ],
    "KafkaProducer.send_offsets_to_transaction": [
        lambda w: w.transaction(
            lambda p: p.send_offsets_to_transaction(
                {TopicPartition("t", 0): 1}, ConsumerGroupMetadata("g"), 20
            )
        ),
        fails(lambda w: w.producer.send_offsets_to_transaction({("t", 0): 1}, "g", 1)),
        fails(
            lambda w: w.producer.send_offsets_to_transaction([Refused()], "g", 1),
            TypeError,
            AttributeError,
        ),
        fails(lambda w: w.producer.send_offsets_to_transaction({("t", 0): 1}, Refused(), 1)),
    ],
    "KafkaProducer.send_table": [
        fails(lambda w: w.producer.send_table([], topic="t", value="v")),
        fails(lambda w: w.producer.send_table(table(), topic="t", value="other")),
        fails(
            lambda w: w.producer.send_table(table(), topic="t", value="v", headers=["v", "other"])
        ),
        sent(
            lambda p: p.send_table(
                table(), topic="t", value="v", key="k", partition="p", timestamp="s", headers=["k"]
            )
        ),
        fails(lambda w: w.closed.send_table(table(), topic="t", value="v")),
    ],
    "KafkaProducer.sync_send": [
        lambda w: w.producer.sync_send(w.record, 20),
        lambda w: w.manual.sync_send(w.record, 20),
        fails(lambda w: w.producer.sync_send(ProducerRecord("t", BUFFER, partition=999), 20)),
        fails(lambda w: w.full.sync_send(ProducerRecord("t", BUFFER), 0.001)),
        fails(lambda w: w.closed.sync_send(w.record)),
    ],
    "KafkaProducer.transaction": [in_transaction, fails(broken_transaction, ZeroDivisionError)],
    "KafkaProducer.try_send": [
        sent(lambda p: p.try_send(w_record(), on_delivery)),
        lambda w: w.full.try_send(w.record, on_delivery),
        lambda w: w.closed.try_send(w.record, on_delivery),
        fails(lambda w: w.producer.try_send(Refused())),
    ],
    "KafkaTimeoutError": exceptions(KafkaTimeoutError),
    "OAuthBearerToken": [made(OAuthBearerToken, "value", 1)],
    "PartitionMetadata": [lambda w: hash(w.samples["PartitionMetadata"])],
    "ProducerClosedError": exceptions(ProducerClosedError),
    "ProducerForkedError": exceptions(ProducerForkedError),
    "ProducerInterceptor": [lambda w: ProducerInterceptor.__mro__],
    "ProducerInterceptor.on_acknowledgement": [
        lambda w: ProducerInterceptor.on_acknowledgement(w, w.metadata, None)
    ],
    "ProducerInterceptor.on_send": [lambda w: ProducerInterceptor.on_send(w, w.record)],
    "ProducerMetrics": [
        lambda w: repr(
            ProducerMetrics(*range(9), b'{"brokers": {"b": {}}}').statistics.brokers["b"].rtt
        ),
        fails(lambda w: ProducerMetrics(statistics_json=b"no JSON").statistics),
        lambda w: (
            w.producer.metrics().refused,
            w.full.metrics().failures,
            w.full.metrics().refusals,
            w.full.metrics().retries,
        ),
    ],
    "ProducerRecord": [
        lambda w: (repr(w.record), w.record.__reduce__()),
        fails(lambda w: ProducerRecord(5)),
        fails(lambda w: ProducerRecord("t", partition=-5)),
        fails(lambda w: ProducerRecord("t", timestamp="now")),
    ],
    "Properties": [
        lambda w: (
            repr(Properties({"sasl.password": "x"}, linger_ms=5)),
            dict(Properties(linger_ms=5)),
        ),
        fails(lambda w: Properties(5)),
        fails(lambda w: Properties({5: 5})),
    ],
    "Properties.copy": [lambda w: Properties(linger_ms=5).copy()],
    "Properties.put": [
        lambda w: Properties().put("linger.ms", 5),
        fails(lambda w: Properties().put(5, 5)),
    ],
    "QueueFullError": exceptions(QueueFullError),
    "RecordMetadata": [
        fails(lambda w: kafka_ext.RecordMetadata()),
        lambda w: (str(w.metadata), repr(w.metadata)),
    ],
    "TopicMetadata": [lambda w: repr(w.samples["TopicMetadata"])],
    "TopicPartition": [made(TopicPartition, "t", 0)],
    "get_include": [lambda w: kafka_ext.get_include()],
    "DeliveryError": [
        lambda w: DeliveryError([(1, w.error)], 2),
        lambda w: pickle.loads(pickle.dumps(DeliveryError([(1, w.error)], 2))),
    ],
    "KafkaSink": [
        lambda w: KafkaSink({"bootstrap.servers": "h:1"}, "t", value="v", key="k"),
        fails(lambda w: KafkaSink({"transactional.id": "x"}, "t")),
        fails(lambda w: KafkaSink({}, 5)),
        lambda w: pickle.loads(pickle.dumps(KafkaSink({"bootstrap.servers": "h:1"}, "t"))),
    ],
    "KafkaSink.write": [
        lambda w: w.sink.write([VALUE, w_record()], timeout=20),
        fails(lambda w: w.sink.write([object()])),
    ],
    "KafkaSink.write_batch": [
        lambda w: w.sink.write_batch([VALUE, None], keys=KEY, timeout=20),
        fails(lambda w: w.sink.write_batch(5)),
    ],
    "KafkaSink.write_table": [
        lambda w: w.rows.write_table(table(), timeout=20),
        fails(lambda w: w.rows.write_table(5)),
    ],
    "KafkaSink.metrics": [
        lambda w: w.sink.metrics(),
        lambda w: KafkaSink({"bootstrap.servers": "h:1"}, "t").metrics(),
    ],
    "KafkaSink.close": [lambda w: KafkaSink({"bootstrap.servers": "h:1"}, "t").close()],
    "Serializer": [lambda w: isinstance(w, Serializer)],
    "Serializer.serialize": [lambda w: Serializer.serialize],
}


def w_record():
    return ProducerRecord("t", BUFFER, key=KEY, headers=HEADERS, id=ID)


def table():
    pyarrow = pytest.importorskip("pyarrow")
    return pyarrow.table({"v": ["one", None], "k": [b"a", b"b"], "p": [0, None], "s": [1, 2]})


def public_names():
    """Every class, method, attribute and function that `kafka_ext` makes public, as
    `Class.name`.
    """
    for name in kafka_ext.__all__:
        thing = getattr(kafka_ext, name)
        if not callable(thing) or (inspect.isclass(thing) and issubclass(thing, enum.Enum)):
            continue
        yield name
        for cls in thing.__mro__ if inspect.isclass(thing) else ():
            if cls.__module__.startswith("kafka_ext"):
                yield from (
                    f"{name}.{attribute}"
                    for attribute in vars(cls)
                    if not attribute.startswith("_")
                )


NAMES = sorted(set(public_names()))


@pytest.fixture(scope="module")
def world():
    with EmbeddedBroker(topics={"t": 1}) as broker:
        world = World(broker)
        yield world
        world.close()


@pytest.fixture(autouse=True)
def nothing_left_behind():
    """In place of conftest.py's, which counts what a test leaves: here one world is for
    them all.
    """
    yield
    gc.collect()
    deadline = time.monotonic() + 10
    while (
        left := _rdkafka.live_objects()["messages"] + _rdkafka.live_objects()["batches"]
    ) > 1 and time.monotonic() < deadline:
        time.sleep(0.01)
    assert left <= 1  # the one that fills the full queue


# CPython keeps the names that it has lately looked up in types, thousands of them, also those that
# were made for one lookup: reprlib and pickle do that. Which it keeps depends on where they are in
# memory.
clear_caches = getattr(sys, "_clear_internal_caches", None) or sys._clear_type_cache


def counts():
    gc.collect()
    clear_caches()
    shared = (
        None,
        True,
        VALUE,
        KEY,
        BUFFER,
        ID,
        HEADERS,
        on_delivery,
        KafkaError,
        ProducerRecord,
        ErrorCode.QUEUE_FULL,
    )
    return [sys.getrefcount(thing) for thing in shared]


def leaked(call, world):
    """How many blocks, and references to what is shared, fifty calls have left when all is done
    that they have given others to do.

    What the events thread has not got to yet is there like something leaked, and it may not get the
    GIL for longer than the calls take.
    """
    for _ in range(10):
        call(world)
    time.sleep(0.002)
    before, blocks = counts(), sys.getallocatedblocks()
    for _ in range(CALLS):
        call(world)
    deadline = time.monotonic() + SETTLING
    while True:
        after, now = counts(), sys.getallocatedblocks()
        grown = max(now - blocks, *(b - a for a, b in zip(before, after, strict=True)))
        if grown < LEAK or time.monotonic() > deadline:
            return grown
        time.sleep(0.01)


def case_of(name):
    if name in CASES:
        return CASES[name]
    # What is merely read needs no case of its own.
    owner, _, attribute = name.partition(".")
    return [lambda w: getattr(w.samples[owner], attribute)]


def test_every_public_name_has_a_case():
    """A name without one is only read, and that must be all that can be done with it."""
    for name in NAMES:
        owner, _, attribute = name.partition(".")
        if name not in CASES:
            assert attribute, f"{name} needs a case in CASES"
            static = inspect.getattr_static(getattr(kafka_ext, owner), attribute)
            assert not callable(static), f"{name}() needs a case in CASES"
    assert not set(CASES) - set(NAMES), "cases for what is not there"


@pytest.mark.parametrize("name", NAMES)
def test_nothing_is_leaked_by(world, name, monkeypatch):
    monkeypatch.setattr("sys.unraisablehook", lambda arguments: None)
    monkeypatch.setattr(
        logging.getLogger("kafka_ext"), "disabled", True
    )  # pytest keeps what is logged
    for number, call in enumerate(case_of(name)):
        # A little is caches': what leaks, leaks each time.
        for _ in range(6):
            grown = leaked(call, world)
            if grown < LEAK:
                break
        assert grown < LEAK, f"case {number} of {name}: {grown} in {CALLS} calls"


def test_a_leak_would_be_seen(world):
    kept = []
    assert (
        leaked(lambda w: kept.append(object()), world) >= CALLS
        or os.environ.get("PYTHONMALLOC") == "malloc"
    )
    assert leaked(lambda w: kept.append(VALUE), world) >= CALLS
