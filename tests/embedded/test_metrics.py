"""metrics(): every record is counted once, wherever it goes, and by why it went wrong
(docs/observability.md).
"""

from __future__ import annotations

import asyncio
import dataclasses
import threading

import pytest
from faultlib import close_shared_producers, wait_until

from kafka_ext import (
    ActionWhileQueueIsFull,
    ErrorCode,
    KafkaException,
    KafkaSink,
    KafkaTimeoutError,
    ProducerMetrics,
    ProducerRecord,
    QueueFullError,
    _shared_producers,
)
from kafka_ext.aio import AsyncKafkaProducer
from kafka_ext.metrics import added
from kafka_ext.recoverable import RecoverableProducer
from kafka_ext.testing import ApiKey, EmbeddedBroker

NO_BLOCK = ActionWhileQueueIsFull.NO_BLOCK
STUCK = {
    "bootstrap.servers": "127.0.0.1:1",
    "test.mock.num.brokers": ...,
    "log_level": 0,
    "error_cb": lambda error: None,
}
MANUAL = {"enable.manual.events.poll": True}


@pytest.fixture(scope="module")
def broker():
    with EmbeddedBroker() as broker:
        yield broker


def never(*arguments):
    raise AssertionError("a refused record calls nobody back")


class TestFailures:
    @pytest.mark.parametrize("manual", [False, True])
    def test_by_error_code(self, make_producer, reports, manual):
        producer = make_producer(
            STUCK | {"enable.manual.events.poll": manual, "message.timeout.ms": 100}
        )
        producer.send(ProducerRecord("t", b"12345"), reports)
        producer.send(ProducerRecord("t", bytearray(10)))
        producer.flush(10)
        assert producer.metrics().failures == {ErrorCode.MSG_TIMED_OUT: 2}
        producer.send(ProducerRecord("t", b"123"))
        producer.purge()
        producer.flush(10)
        metrics = producer.metrics()
        assert metrics.failures == {ErrorCode.MSG_TIMED_OUT: 2, ErrorCode.PURGE_QUEUE: 1}
        assert {type(code) for code in metrics.failures} == {ErrorCode}
        assert (metrics.failed, metrics.failed_bytes, metrics.delivered, metrics.sent_bytes) == (
            3,
            18,
            0,
            18,
        )
        producer.close()
        assert (producer.metrics().failures, producer.metrics().failed) == (metrics.failures, 3)

    @pytest.mark.parametrize("manual", [False, True])
    def test_of_batches(self, make_producer, manual):
        producer = make_producer(STUCK | {"enable.manual.events.poll": manual})
        seen = []
        batch = producer.send_batch(
            "t",
            [b"1", b"22", None],
            on_delivery=lambda batch: seen.append(producer.metrics().pending_batches),
        )
        assert (producer.metrics().batches, producer.metrics().pending_batches) == (1, 1)
        producer.purge()
        batch.wait(10)
        assert seen == [0]
        metrics = producer.metrics()
        assert metrics.failures == {ErrorCode.PURGE_QUEUE: 3}
        assert (metrics.failed, metrics.failed_bytes, metrics.batches, metrics.pending_batches) == (
            3,
            3,
            1,
            0,
        )

    def test_what_the_broker_refused(self, broker, make_producer):
        producer = make_producer(
            broker.config() | {"test.mock.num.brokers": ..., "linger.ms": 60_000}
        )
        broker.fail_requests(
            ApiKey.PRODUCE, [ErrorCode.TOPIC_AUTHORIZATION_FAILED] * 3
        )  # in one request or more
        for _ in range(3):
            producer.send(
                ProducerRecord("refused", b"v", partition=0), lambda metadata, error: None
            )
        producer.flush(10)
        assert producer.metrics().failures == {ErrorCode.TOPIC_AUTHORIZATION_FAILED: 3}
        broker.clear_faults()


class TestRefusals:
    @pytest.fixture
    def full(self, make_producer):
        producer = make_producer(STUCK | {"queue.buffering.max.messages": 1})
        producer.send(ProducerRecord("t", b"v"), lambda metadata, error: None)
        return producer

    def test_a_full_queue(self, full):
        with pytest.raises(QueueFullError):
            full.send(ProducerRecord("t", b"v"), never, action=NO_BLOCK)
        assert full.try_send(ProducerRecord("t", b"v"), never) == ErrorCode.QUEUE_FULL
        with pytest.raises(KafkaTimeoutError):
            full.send(ProducerRecord("t", b"v"), never, timeout=0.01)
        with pytest.raises(KafkaTimeoutError):
            full.send_future(ProducerRecord("t", b"v"), timeout=0.01)
        metrics = full.metrics()
        assert metrics.refusals == {ErrorCode.QUEUE_FULL: 2, ErrorCode.TIMED_OUT: 2}
        assert (metrics.refused, metrics.sent, metrics.failed, metrics.outstanding) == (4, 1, 0, 1)

    def test_with_interceptors_and_serializers(self, make_producer):
        class Interceptor:
            def on_send(self, record):
                return record

            def on_acknowledgement(self, metadata, error):
                pass

        producer = make_producer(
            STUCK | {"queue.buffering.max.messages": 1},
            interceptors=[Interceptor()],
            value_serializer=str.encode,
        )
        for _ in range(3):
            producer.try_send(ProducerRecord("t", "v"))
        assert (producer.metrics().sent, producer.metrics().refusals) == (
            1,
            {ErrorCode.QUEUE_FULL: 2},
        )

    def test_what_librdkafka_refuses(self, make_producer):
        producer = make_producer({"message.max.bytes": 1000})
        with pytest.raises(KafkaException):
            producer.send(ProducerRecord("t", bytes(2000)), never)
        with pytest.raises(KafkaException):
            producer.sync_send(ProducerRecord("t", bytes(2000)))
        producer.send_batch(
            "t", [b"v", bytes(2000), b"v", bytes(2000)], on_delivery=lambda batch: None
        )
        producer.flush(10)
        metrics = producer.metrics()
        assert metrics.refusals == {ErrorCode.MSG_SIZE_TOO_LARGE: 4}
        assert (metrics.sent, metrics.delivered, metrics.failed) == (2, 2, 0)

    def test_what_found_no_room_in_a_batch(self, full):
        full.send_batch("t", [b"v"] * 5, on_delivery=lambda batch: None, action=NO_BLOCK).wait(10)
        full.send_batch("t", [b"v"] * 3, on_delivery=lambda batch: None, timeout=0.01).wait(10)
        assert full.metrics().refusals == {ErrorCode.QUEUE_FULL: 5, ErrorCode.TIMED_OUT: 3}
        assert (full.metrics().batches, full.metrics().pending_batches) == (2, 0)

    def test_wrong_arguments_and_a_closed_producer_are_none(self, make_producer):
        producer = make_producer()
        for record in (5, ProducerRecord("no topic!", b"v"), ProducerRecord("t", object())):
            with pytest.raises((TypeError, KafkaException)):
                producer.send(record)
        producer.close()
        with pytest.raises(KafkaException):
            producer.send(ProducerRecord("t", b"v"))
        assert producer.metrics().refused == 0

    def test_each_try_of_many_threads_is_counted_once(self, make_producer):
        producer = make_producer(STUCK | {"queue.buffering.max.messages": 100} | MANUAL)
        batches = []

        def work():
            for _ in range(200):
                producer.try_send(ProducerRecord("t", b"v"))
            batches.append(producer.send_batch("t", [b"v"] * 200, on_delivery=lambda batch: None))

        threads = [threading.Thread(target=work) for _ in range(4)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        metrics = producer.metrics()
        assert (metrics.sent, metrics.refusals) == (100, {ErrorCode.QUEUE_FULL: 1500})
        assert sum(batch.failed for batch in batches) + metrics.sent <= 900
        producer.purge()
        producer.flush(10)
        metrics = producer.metrics()
        assert (metrics.failed, metrics.outstanding, metrics.pending_batches, metrics.batches) == (
            100,
            0,
            0,
            4,
        )


def test_errors_of_librdkafka_are_counted_by_code(make_producer):
    heard = []
    producer = make_producer(STUCK | {"error_cb": heard.append})
    wait_until(lambda: ErrorCode.ALL_BROKERS_DOWN in producer.metrics().errors)
    assert producer.metrics().errors[ErrorCode.ALL_BROKERS_DOWN] >= 1
    producer.close()
    assert sum(producer.metrics().errors.values()) == len(heard)


def test_fatal_errors_among_them(make_producer):
    producer = make_producer({"enable.idempotence": True}, error_cb=lambda error: None)
    producer.handle.test_fatal_error(ErrorCode.OUT_OF_ORDER_SEQUENCE_NUMBER, "for the test")
    wait_until(lambda: producer.metrics().errors.get(ErrorCode.OUT_OF_ORDER_SEQUENCE_NUMBER))
    with pytest.raises(KafkaException):
        producer.send(ProducerRecord("t", b"v"))
    assert producer.metrics().refused == 1


def test_what_waits_for_poll_events_is_seen(make_producer):
    producer = make_producer(MANUAL)
    producer.send(ProducerRecord("t", b"v"))
    wait_until(lambda: producer.metrics().waiting_events)
    assert producer.metrics().outstanding == 1
    producer.flush(10)
    wait_until(lambda: producer.poll_events() == 0)
    assert producer.metrics().waiting_events == 0


def test_a_producer_that_has_done_nothing(make_producer):
    metrics = make_producer().metrics()
    assert dataclasses.replace(metrics, waiting_events=0) == ProducerMetrics()
    assert (metrics.refused, metrics.retries, metrics.statistics) == (0, None, None)
    assert hash(metrics) == hash(dataclasses.replace(metrics))


def test_what_was_sent_again_is_in_the_statistics(broker, make_producer):
    producer = make_producer(
        broker.config()
        | {"test.mock.num.brokers": ..., "statistics.interval.ms": 50, "retry.backoff.ms": 1}
    )
    broker.create_topic("retried")
    broker.fail_requests(ApiKey.PRODUCE, [ErrorCode.NOT_ENOUGH_REPLICAS] * 2)
    producer.sync_send(ProducerRecord("retried", b"v"), timeout=10)
    wait_until(lambda: producer.metrics().statistics and producer.metrics().statistics.txmsgs == 3)
    metrics = producer.metrics()
    assert (metrics.sent, metrics.delivered, metrics.failed) == (1, 1, 0)
    # As librdkafka counts them: the record went back to its queue, and out with another request.
    assert metrics.retries == 0
    assert sum(broker.req["Produce"] for broker in metrics.statistics.brokers.values()) == 3


class TestAsync:
    def test_counts_as_the_other_one(self):
        async def main():
            async with AsyncKafkaProducer(
                {name: value for name, value in STUCK.items() if value is not ...},
                queue_buffering_max_messages=2,
                enable_idempotence=False,
            ) as producer:
                first = await producer.send(ProducerRecord("t", b"12345"))
                second = await producer.send(ProducerRecord("t", b"123"))
                with pytest.raises(QueueFullError):
                    producer.send_nowait(ProducerRecord("t", b"v"))
                waiting = asyncio.create_task(producer.send(ProducerRecord("t", b"v")))
                await asyncio.sleep(0.01)
                with pytest.raises(QueueFullError):  # behind who waits
                    producer.send_nowait(ProducerRecord("t", b"v"))
                assert producer.metrics().refusals == {ErrorCode.QUEUE_FULL: 2}
                producer.purge()
                third = await waiting
                with pytest.raises(KafkaException):
                    await producer.send(ProducerRecord("t", bytes(2_000_000)))
                producer.purge()
                await asyncio.gather(first, second, third, return_exceptions=True)
                await producer.flush(10)
                metrics = producer.metrics()
                assert metrics.refusals == {
                    ErrorCode.QUEUE_FULL: 2,
                    ErrorCode.MSG_SIZE_TOO_LARGE: 1,
                }
                assert metrics.failures == {ErrorCode.PURGE_QUEUE: 3}
                assert (
                    metrics.sent,
                    metrics.failed,
                    metrics.failed_bytes,
                    metrics.outstanding,
                ) == (3, 3, 9, 0)
                batch = await producer.send_batch("t", [b"1", b"2"], on_delivery=lambda batch: None)
                assert producer.metrics().pending_batches == 1
                producer.purge()
                await batch
                metrics = producer.metrics()
                assert metrics.failures == {ErrorCode.PURGE_QUEUE: 5}
                assert (metrics.batches, metrics.pending_batches) == (1, 0)

        asyncio.run(main())


class TestSink:
    @pytest.fixture(autouse=True)
    def no_producer_is_shared(self):
        close_shared_producers()
        yield
        close_shared_producers()

    def test_sinks_of_one_process_share_them(self, broker):
        properties = broker.config(enable_idempotence=False)
        sink = KafkaSink(properties, "sunk")
        assert sink.metrics() == ProducerMetrics()
        sink.write([b"1", b"22"])
        wait_until(
            lambda: not sink.metrics().outstanding
        )  # served to its end, a moment after `write` knows
        assert KafkaSink(properties, "elsewhere").metrics() == sink.metrics()
        metrics = sink.metrics()
        assert (
            metrics.sent,
            metrics.sent_bytes,
            metrics.delivered,
            metrics.batches,
            metrics.outstanding,
        ) == (2, 3, 2, 1, 0)
        sink.close()
        assert sink.metrics() == ProducerMetrics()

    def test_they_go_on_after_a_fatal_error(self, broker):
        sink = KafkaSink(
            broker.config(enable_idempotence=True, error_cb=lambda error: None), "sunk"
        )
        for number in range(1, 4):
            sink.write([b"1"])
            assert (sink.metrics().sent, sink.metrics().delivered) == (number, number)
            (made,) = _shared_producers._producers.values()
            made.current.handle.test_fatal_error(
                ErrorCode.OUT_OF_ORDER_SEQUENCE_NUMBER, "for the test"
            )
        sink.write([b"1"])
        (made,) = _shared_producers._producers.values()
        assert sink.metrics().delivered == 4
        # Their counts are kept, they are not, once their events threads have closed them.
        wait_until(lambda: sink.metrics().delivered == 4 and not made._ended)


def test_a_recoverable_producer_adds_up_its_producers(broker):
    properties = broker.config(
        enable_idempotence=True,
        linger_ms=60_000,
        error_cb=lambda error: None,
        log_cb=lambda *log: None,
    )
    producer = RecoverableProducer(properties, on_fatal="resend")
    for _ in range(10):
        producer.send(ProducerRecord("again", b"12"), lambda metadata, error: None)
    producer._newest.handle.test_fatal_error(ErrorCode.OUT_OF_ORDER_SEQUENCE_NUMBER, "for the test")
    producer.flush(10)
    metrics = producer.metrics()
    assert (
        metrics.sent,
        metrics.sent_bytes,
        metrics.delivered,
        metrics.failed,
        metrics.failed_bytes,
    ) == (20, 40, 10, 10, 20)
    assert sum(metrics.failures.values()) == 10
    assert metrics.errors[ErrorCode.OUT_OF_ORDER_SEQUENCE_NUMBER] == 1
    producer.close()


def test_adding_up():
    past = ProducerMetrics(
        sent=1,
        outstanding=5,
        waiting_events=2,
        failures={ErrorCode.FAIL: 1},
        statistics_json=b"{}",
        blocked_seconds=0.5,
    )
    now = ProducerMetrics(
        sent=2,
        outstanding=1,
        failures={ErrorCode.FAIL: 1, ErrorCode.QUEUE_FULL: 2},
        blocked_seconds=0.25,
        batches=3,
    )
    assert added(past, now) == ProducerMetrics(
        sent=3,
        outstanding=1,
        failures={ErrorCode.FAIL: 2, ErrorCode.QUEUE_FULL: 2},
        blocked_seconds=0.75,
        batches=3,
    )
