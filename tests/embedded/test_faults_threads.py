"""Many threads, one producer, and an end that comes while they are at it."""

import threading
import time

import pytest
from faultlib import is_pinned, wait_until

from kafka_ext import (
    ErrorCode,
    KafkaException,
    KafkaProducer,
    ProducerClosedError,
    ProducerRecord,
    QueueFullError,
)
from kafka_ext.testing import EmbeddedBroker

THREADS = 8


def run_in_threads(count, work):
    """`work(i)` in `count` threads that start together; what they raised."""
    barrier = threading.Barrier(count)
    raised = []

    def run(i):
        barrier.wait(20)
        try:
            work(i)
        except BaseException as exc:  # noqa: BLE001 it is looked at by whoever joins
            raised.append(exc)

    threads = [threading.Thread(target=run, args=(i,)) for i in range(count)]
    for thread in threads:
        thread.start()
    return threads, raised


def join(threads):
    for thread in threads:
        thread.join(60)
        assert not thread.is_alive()


@pytest.fixture(scope="module")
def broker():
    with EmbeddedBroker(topics={"orders": 4}) as broker:
        yield broker


@pytest.mark.parametrize("manual", [False, True])
@pytest.mark.parametrize("timeout", [None, 0])
def test_fault_21_close_races_send(broker, manual, timeout):
    for turn in range(10):
        producer = KafkaProducer(
            broker.config(enable_idempotence=False, queue_buffering_max_messages=500),
            **{"enable.manual.events.poll": manual},
        )
        sent = [0] * THREADS
        values = [[] for _ in range(THREADS)]
        reports = [0] * THREADS

        def send(i, producer=producer, sent=sent, values=values, reports=reports):
            def on_delivery(metadata, error):
                reports[i] += 1

            while True:
                value = bytearray(b"x")
                values[i].append(value)
                try:
                    producer.send(ProducerRecord("orders", value), on_delivery)
                    sent[i] += 1
                except QueueFullError:
                    producer.poll_events(0.001)
                except ProducerClosedError:
                    return

        threads, raised = run_in_threads(THREADS, send)
        time.sleep(0.01 * turn)
        producer.close(timeout)
        join(threads)
        assert all(isinstance(exc, ProducerClosedError) for exc in raised)
        assert reports == sent
        assert not any(is_pinned(value) for each in values for value in each)
        assert producer.metrics().outstanding == 0


def test_flush_from_many_threads(broker):
    with KafkaProducer(broker.config(enable_idempotence=False)) as producer:

        def work(i):
            for _ in range(20):
                reports = []
                for _ in range(50):
                    producer.send(
                        ProducerRecord("orders", bytearray(b"x")),
                        lambda metadata, error, reports=reports: reports.append(error),
                    )
                producer.flush(30)
                assert reports == [None] * 50

        threads, raised = run_in_threads(THREADS, work)
        join(threads)
        assert not raised


def test_flush_poll_and_send_from_many_threads_under_manual_polling(broker):
    """Whoever comes first serves, for all; the others wait for it."""
    with KafkaProducer(
        broker.config(enable_idempotence=False), **{"enable.manual.events.poll": True}
    ) as producer:
        reports = []

        def work(i):
            for _ in range(10):
                for _ in range(50):
                    producer.send(
                        ProducerRecord("orders", bytearray(b"x")),
                        lambda metadata, error: reports.append(error),
                    )
                if i % 2:
                    producer.flush(30)
                else:
                    producer.poll_events(0.01)

        threads, raised = run_in_threads(THREADS, work)
        join(threads)
        producer.flush(30)
        assert not raised
        assert reports == [None] * (THREADS * 500)


def test_purge_races_send(broker):
    with KafkaProducer(broker.config(enable_idempotence=False)) as producer:
        reports = []
        stop = threading.Event()

        def purge():
            while not stop.is_set():
                producer.purge()

        purging = threading.Thread(target=purge)
        purging.start()

        def work(i):
            for _ in range(500):
                producer.send(
                    ProducerRecord("orders", bytearray(b"x")),
                    lambda metadata, error: reports.append(error),
                )

        threads, raised = run_in_threads(THREADS, work)
        join(threads)
        stop.set()
        purging.join(20)
        producer.flush(30)
        assert not raised
        assert len(reports) == THREADS * 500
        assert set(reports) <= {None, ErrorCode["PURGE_QUEUE"], ErrorCode["PURGE_INFLIGHT"]}


def test_many_topics_from_many_threads(broker):
    """The first use of each topic, in all threads at once."""
    with KafkaProducer(broker.config(enable_idempotence=False)) as producer:
        reports = []

        def work(i):
            for topic in range(100):
                producer.send(
                    ProducerRecord(f"topic-{topic}", b"x"),
                    lambda metadata, error, topic=topic: reports.append(
                        (metadata.topic, topic, error)
                    ),
                )

        threads, raised = run_in_threads(THREADS, work)
        join(threads)
        producer.flush(60)
        assert not raised
        assert len(reports) == THREADS * 100
        assert all(name == f"topic-{topic}" and error is None for name, topic, error in reports)


def test_callbacks_run_in_the_events_thread_while_the_main_thread_is_blocked(broker):
    with KafkaProducer(broker.config(enable_idempotence=False)) as producer:
        lock = threading.Lock()
        lock.acquire()
        threads = []

        def on_delivery(metadata, error):
            threads.append(threading.current_thread())
            lock.release()

        producer.send(ProducerRecord("orders", b"x"), on_delivery)
        assert lock.acquire(timeout=20)
        assert threads[0] is not threading.main_thread()
        assert threads[0].daemon
        assert threads[0].name.startswith("kafka_ext")


def test_callbacks_may_send_from_the_events_thread(broker):
    """A chain of records, each sent by the report of the one before."""
    with KafkaProducer(broker.config(enable_idempotence=False)) as producer:
        chain = []

        def on_delivery(metadata, error):
            chain.append(error)
            if len(chain) < 200:
                producer.send(ProducerRecord("orders", bytearray(b"x")), on_delivery)

        producer.send(ProducerRecord("orders", b"x"), on_delivery)
        wait_until(lambda: len(chain) == 200, 30)
        assert set(chain) == {None}


def test_futures_in_many_threads_while_closing(broker):
    producer = KafkaProducer(broker.config(enable_idempotence=False))
    futures = [[] for _ in range(THREADS)]

    def work(i):
        while True:
            futures[i].append(producer.send_future(ProducerRecord("orders", bytearray(b"x"))))

    threads, raised = run_in_threads(THREADS, work)
    time.sleep(0.1)
    producer.close()
    join(threads)
    assert [type(exc) for exc in raised] == [ProducerClosedError] * THREADS
    assert all(future.done() for each in futures for future in each)
    assert not any(future.exception() for each in futures for future in each)


def test_producers_in_many_threads(broker):
    def work(i):
        for _ in range(3):
            with KafkaProducer(broker.config(enable_idempotence=False)) as producer:
                producer.sync_send(ProducerRecord("orders", b"x"), timeout=20)
            with pytest.raises(KafkaException):
                producer.flush()

    threads, raised = run_in_threads(THREADS, work)
    join(threads)
    assert not raised
