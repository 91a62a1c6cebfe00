"""The user's code inside a call: it may do anything, close the producer included, and holds up
nobody.
"""

from __future__ import annotations

import asyncio
import concurrent.futures
import gc
import threading
import time

import pyarrow as pa
import pytest
from faultlib import closed_port, run_program, within

from kafka_ext import ErrorCode, KafkaException, KafkaProducer, ProducerClosedError, ProducerRecord
from kafka_ext._rdkafka import own_threads
from kafka_ext.aio import AsyncKafkaProducer
from kafka_ext.recoverable import RecoverableProducer
from kafka_ext.testing import EmbeddedBroker

UNREACHABLE = {
    "log_level": 0,
    "error_cb": lambda error: None,
    "enable.idempotence": False,
    "topic.metadata.refresh.interval.ms": -1,
}


def unreachable(properties=None, **keywords):
    return KafkaProducer(
        {"bootstrap.servers": closed_port()} | UNREACHABLE | dict(properties or {}), **keywords
    )


class Closing:
    """Something whose end closes a producer. In a cycle, so that a collection finds it,
    or alone.
    """

    def __init__(self, producer, cycle=False):
        self.producer = producer
        self.cycle = self if cycle else None

    def __del__(self):
        self.producer.close(0)


# ---------------------------------------------------------------------- row 13: close() by what
# runs inside a send


def close_from_partitioner(make_producer, manual):
    def partitioner(topic, key, count):
        producer.close(1)
        return 0

    producer = make_producer({"enable.manual.events.poll": manual, "partitioner": partitioner})
    return producer, lambda: producer.send(ProducerRecord("t", b"v"))


def close_from_batch_partitioner(make_producer, manual):
    def partitioner(topic, key, count):
        producer.close(1)
        return 0

    producer = make_producer({"enable.manual.events.poll": manual, "partitioner": partitioner})
    return producer, lambda: producer.send_batch("t", [b"v"]).raise_for_errors()


def close_from_headers(make_producer, manual):
    producer = make_producer({"enable.manual.events.poll": manual})

    def headers():
        producer.close(1)
        yield "name", b"value"

    return producer, lambda: producer.send(ProducerRecord("t", b"v", headers=headers()))


def close_from_headers_of_a_batch(make_producer, manual):
    producer = make_producer({"enable.manual.events.poll": manual})

    def headers():
        producer.close(1)
        yield "name", b"value"

    return producer, lambda: producer.send_batch("t", [b"v"], headers=headers()).raise_for_errors()


def close_from_stream(make_producer, manual):
    producer = make_producer({"enable.manual.events.poll": manual})

    def chunks():
        producer.close(1)
        yield pa.record_batch({"v": [b"v"]})

    reader = pa.RecordBatchReader.from_batches(pa.schema({"v": pa.binary()}), chunks())
    return producer, lambda: producer.send_table(reader, topic="t", value="v").raise_for_errors()


def close_from_second_chunk(make_producer, manual):
    producer = make_producer({"enable.manual.events.poll": manual})

    def chunks():
        yield pa.record_batch({"v": [b"v"] * 10})
        producer.close(1)
        yield pa.record_batch({"v": [b"v"] * 10})

    reader = pa.RecordBatchReader.from_batches(pa.schema({"v": pa.binary()}), chunks())
    return producer, lambda: producer.send_table(reader, topic="t", value="v").raise_for_errors()


def close_from_finalizer_within_headers(make_producer, manual):
    producer = make_producer({"enable.manual.events.poll": manual})

    def headers():
        Closing(producer, cycle=True)
        gc.collect()
        yield "name", b"value"

    return producer, lambda: producer.send(ProducerRecord("t", b"v", headers=headers()))


def close_from_interceptor(make_producer, manual):
    class Interceptor:
        def on_send(self, record):
            producer.close(1)
            return record

        def on_acknowledgement(self, metadata, error):
            pass

    producer = make_producer({"enable.manual.events.poll": manual, "interceptors": [Interceptor()]})
    return producer, lambda: producer.send(ProducerRecord("t", b"v"))


def close_from_serializer(make_producer, manual):
    def serializer(value):
        producer.close(1)
        return value

    producer = make_producer({"enable.manual.events.poll": manual, "value_serializer": serializer})
    return producer, lambda: producer.send(ProducerRecord("t", b"v"))


CLOSERS = [
    close_from_partitioner,
    close_from_batch_partitioner,
    close_from_headers,
    close_from_headers_of_a_batch,
    close_from_stream,
    close_from_second_chunk,
    close_from_finalizer_within_headers,
    close_from_interceptor,
    close_from_serializer,
]


@pytest.mark.found(13)
@pytest.mark.timeout(20)
@pytest.mark.parametrize("manual", [False, True], ids=["threaded", "manual"])
@pytest.mark.parametrize("closer", CLOSERS)
def test_close_inside_a_send(make_producer, closer, manual):
    """It closes; and the send around it raises, for nobody would report its record."""
    producer, send = closer(make_producer, manual)
    with within(1), pytest.raises(Exception) as caught:
        send()
    assert "closed" in str(caught.value) or "state" in str(caught.value).lower()
    with pytest.raises(ProducerClosedError):
        producer.flush(0)
    metrics = producer.metrics()
    assert metrics.pinned_messages == 0
    assert metrics.sent == metrics.delivered + metrics.failed


@pytest.mark.found(13)
@pytest.mark.timeout(20)
def test_close_in_the_finalizer_of_what_a_send_releases(make_producer):
    """A sender empties what reports nobody listened to have left behind: finalizers run in its
    call.
    """
    producer = make_producer()
    closed = []

    class Value(bytes):
        def __del__(self):
            closed.append(True)
            producer.close(1)

    producer.send(ProducerRecord("t", Value(b"v")))

    def send_until_closed():
        while True:
            producer.send(ProducerRecord("t", b"w"), timeout=1)
            producer.flush(1)

    with within(2), pytest.raises(ProducerClosedError):
        send_until_closed()
    assert closed


@pytest.mark.found(13)
@pytest.mark.timeout(30)
def test_close_in_a_signal_handler_inside_a_partitioner():
    program = """
    inside = threading.Event()
    producer = KafkaProducer({**QUICK, "partitioner": lambda topic, key, count: partition()})
    def partition():
        os.kill(os.getpid(), signal.SIGTERM)
        for _ in range(1000):
            time.sleep(0.001)
        return 0
    def on_term(number, frame):
        producer.close(1)
    signal.signal(signal.SIGTERM, on_term)
    try:
        producer.send(ProducerRecord("t", b"v"))
    except ProducerClosedError:
        print("raised")
    """
    assert run_program(program, timeout=15).stdout == "raised\n"


@pytest.mark.found(13)
@pytest.mark.timeout(30)
@pytest.mark.parametrize("call", ["send", "send_batch"])
def test_close_beside_a_partitioner_that_waits_for_a_broker(call):
    """The partitioner's question has its own ten seconds; close(0) of another thread has none of
    them.
    """
    producer = unreachable(partitioner=lambda topic, key, count: 0)
    outcome = []

    def send():
        try:
            if call == "send":
                producer.send(ProducerRecord("t", b"v"))
            else:
                producer.send_batch("t", [b"v"])
        except Exception as exc:  # noqa: BLE001 - looked at below
            outcome.append(type(exc))

    sender = threading.Thread(target=send)
    sender.start()
    while not own_threads():
        time.sleep(0.01)
    with within(0.25):
        producer.close(0)
    sender.join(15)
    assert outcome
    assert not sender.is_alive()


@pytest.mark.found(13)
@pytest.mark.timeout(30)
def test_close_beside_user_code_that_takes_its_time(make_producer):
    """Whatever hook a sender is in, close() does not wait for it, and the sender is told."""
    inside, go_on = threading.Event(), threading.Event()

    def headers():
        inside.set()
        go_on.wait(20)
        yield "name", b"value"

    producer = make_producer()
    outcome = []

    def send():
        try:
            producer.send(ProducerRecord("t", b"v", headers=headers()))
        except ProducerClosedError:
            outcome.append("told")

    sender = threading.Thread(target=send)
    sender.start()
    assert inside.wait(10)
    with within(1):
        producer.close(1)
    go_on.set()
    sender.join(10)
    assert outcome == ["told"]


# ---------------------------------------------------------------------- row 14: finalizers that
# send


@pytest.mark.found(17)
@pytest.mark.timeout(20)
@pytest.mark.parametrize("manual", [False, True], ids=["threaded", "manual"])
@pytest.mark.parametrize("wait", ["result", "exception"])
def test_a_future_waited_for_in_a_callback(make_producer, manual, wait):
    """It would wait for itself, and raises at once as `batch.wait()` does; done, it answers there
    too.
    """
    producer = make_producer({"enable.manual.events.poll": manual})
    outcome = []

    def on_delivery(metadata, error):
        future = producer.send_future(ProducerRecord("t", b"w"))
        try:
            getattr(future, wait)()
        except KafkaException as exc:
            outcome.append(exc.error.code)
        future.add_done_callback(lambda future: outcome.append(future.result().offset is not None))

    producer.send(ProducerRecord("t", b"v"), on_delivery)
    with within(2):
        producer.flush(10)
    assert outcome == [ErrorCode.STATE, True]


@pytest.mark.found(17)
@pytest.mark.timeout(20)
@pytest.mark.parametrize("kind", ["threaded", "manual", "recoverable"])
@pytest.mark.parametrize(
    "wait",
    [concurrent.futures.wait, lambda futures: next(concurrent.futures.as_completed(futures))],
    ids=["wait", "as_completed"],
)
def test_futures_waited_for_together_in_a_callback(kafka_broker, kind, wait):
    settings = kafka_broker.config(
        **{"enable.manual.events.poll": True} if kind == "manual" else {}
    )
    outcome = []

    def on_delivery(metadata, error):
        futures = [producer.send_future(ProducerRecord("t", b"w")) for _ in range(2)]
        try:
            wait(futures)
        except KafkaException as exc:
            outcome.append(exc.error.code)
        futures[0].add_done_callback(
            lambda future: outcome.append(future.result().offset is not None)
        )
        other.extend(futures)

    other = []
    with (RecoverableProducer if kind == "recoverable" else KafkaProducer)(settings) as producer:
        producer.send(ProducerRecord("t", b"v"), on_delivery)
        with within(2):
            producer.flush(10)
        assert outcome == [ErrorCode.STATE, True]
        assert concurrent.futures.wait(other, 10).done == set(other)
        assert set(concurrent.futures.as_completed(other, 10)) == set(other)
        if kind != "manual":
            other = [producer.send_future(ProducerRecord("t", b"w")) for _ in range(2)]
            assert concurrent.futures.wait(other, 10).done == set(other)


@pytest.mark.found(14)
@pytest.mark.timeout(30)
@pytest.mark.parametrize("call", ["send", "send_batch", "send_future", "sync_send"])
def test_a_finalizer_that_sends_with_a_full_queue(call):
    """The events thread releases the value: what it waits for, only it could do."""
    with EmbeddedBroker(topics={"t": 1}) as broker:
        producer = KafkaProducer(
            broker.config(
                **{"queue.buffering.max.messages": 1, "enable.idempotence": False, "linger.ms": 200}
            )
        )
        outcome, ended = [], threading.Event()

        class Value(bytes):
            def __del__(self):
                try:
                    producer.send(ProducerRecord("t", b"fills the queue"))
                    if call == "send_batch":
                        producer.send_batch("t", [b"a", b"b"]).raise_for_errors()
                    else:
                        getattr(producer, call)(ProducerRecord("t", b"again"))
                except Exception as exc:  # noqa: BLE001 - looked at below
                    outcome.append(exc)
                finally:
                    ended.set()

        producer.send(ProducerRecord("t", Value(b"v")))
        assert ended.wait(10)
        assert len(outcome) == 1
        with within(5):
            producer.close(5)
        assert len(broker.messages("t")) >= 1


# ---------------------------------------------------------------------- row 22: batches are told in
# their order


@pytest.mark.found(22)
@pytest.mark.parametrize("manual", [False, True], ids=["threaded", "manual"])
def test_batches_that_end_together_are_told_in_their_order(kafka_broker, manual):
    told = []
    kafka_broker.create_topic("t", 1)
    settings = {"enable.manual.events.poll": manual, "linger.ms": 100}
    with KafkaProducer(kafka_broker.config(**settings)) as producer:
        for number in range(200):
            producer.send_batch(
                "t",
                [b"v"] * 3,
                ids=[number] * 3,
                on_delivery=lambda batch: told.append(batch.ids[0]),
            )
        producer.flush(10)
    assert told == list(range(200))


@pytest.mark.found(22)
@pytest.mark.parametrize("manual", [False, True], ids=["threaded", "manual"])
def test_batches_that_fail_together_are_told_in_their_order(manual):
    """By a purge, whose reports come in whatever order.."""
    told = []
    producer = unreachable({"enable.manual.events.poll": manual})
    for number in range(50):
        producer.send_batch(
            "t", [b"v"] * 2, ids=[number] * 2, on_delivery=lambda batch: told.append(batch.ids[0])
        )
    producer.close(0)
    assert told == list(range(50))


@pytest.mark.found(22)
@pytest.mark.parametrize("fails", [False, True], ids=["delivered", "failed"])
def test_batches_of_asyncio_that_end_together_are_told_in_their_order(kafka_broker, fails):
    told = []
    kafka_broker.create_topic("t", 1)
    settings = (
        {"bootstrap.servers": closed_port()} | UNREACHABLE
        if fails
        else kafka_broker.config(**{"linger.ms": 100})
    )

    async def main():
        async with AsyncKafkaProducer(settings) as producer:
            for number in range(200):
                await producer.send_batch(
                    "t",
                    [b"v"] * 3,
                    ids=[number] * 3,
                    on_delivery=lambda batch: told.append(batch.ids[0]),
                )
            await producer.aclose(0 if fails else None)

    asyncio.run(main())
    assert told == list(range(200))
