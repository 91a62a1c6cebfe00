"""The queue is full: who waits, who does not, and that a refused record leaves nothing behind."""

import os
import signal
import threading
import time

import pytest

from kafka_ext import (
    ActionWhileQueueIsFull,
    ErrorCode,
    KafkaException,
    KafkaTimeoutError,
    ProducerClosedError,
    ProducerRecord,
    QueueFullError,
    _rdkafka,
)

BLOCK, NO_BLOCK = ActionWhileQueueIsFull.BLOCK, ActionWhileQueueIsFull.NO_BLOCK
# Nothing is ever delivered: the queue stays full until somebody purges.
STUCK = {
    "bootstrap.servers": "127.0.0.1:1",
    "test.mock.num.brokers": ...,
    "queue.buffering.max.messages": 2,
}


def never(metadata, error):
    raise AssertionError("a refused send calls nobody back")


@pytest.fixture
def full(make_producer, reports):
    """A producer with an events thread whose queue is full."""
    return fill(make_producer(STUCK), reports)


@pytest.fixture
def full_manual(make_producer, reports):
    return fill(make_producer(STUCK, **{"enable.manual.events.poll": True}), reports)


def fill(producer, reports):
    for number in range(2):
        producer.send(ProducerRecord("t", b"waits", id=number), reports)
    return producer


def nothing_kept(producer):
    metrics = producer.metrics()
    assert (
        metrics.sent,
        metrics.pinned_messages,
        metrics.outstanding,
        _rdkafka.live_objects()["messages"],
    ) == (2, 2, 2, 2)


class TestNoBlock:
    def test_raises_at_once(self, full):
        value = bytearray(b"v")
        with pytest.raises(QueueFullError) as caught:
            full.send(ProducerRecord("t", value, headers=[("a", b"b")]), never, action=NO_BLOCK)
        assert caught.value.error == ErrorCode.QUEUE_FULL
        assert caught.value.error.is_retriable
        assert isinstance(caught.value, BufferError)
        assert isinstance(caught.value, KafkaException)
        value.append(1)
        nothing_kept(full)

    def test_is_returned_by_try_send(self, full, full_manual):
        for producer in (full, full_manual):
            value = bytearray(b"v")
            assert producer.try_send(ProducerRecord("t", value), never) == ErrorCode.QUEUE_FULL
            value.append(1)

    def test_is_raised_by_send_future(self, full):
        with pytest.raises(QueueFullError):
            full.send_future(ProducerRecord("t", b"v"), action=NO_BLOCK)

    def test_the_message_says_what_to_do(self, full, full_manual):
        with pytest.raises(QueueFullError, match=r"queue\.buffering\.max\.messages"):
            full.send(ProducerRecord("t", b""), action=NO_BLOCK)
        with pytest.raises(QueueFullError, match="poll_events"):
            full_manual.send(ProducerRecord("t", b""))


class TestManualPolling:
    @pytest.mark.parametrize("action", [BLOCK, NO_BLOCK])
    @pytest.mark.parametrize("timeout", [None, 5.0])
    def test_never_waits(self, full_manual, action, timeout):
        value = bytearray(b"v")
        started = time.monotonic()
        with pytest.raises(QueueFullError):
            full_manual.send(ProducerRecord("t", value), never, action=action, timeout=timeout)
        assert time.monotonic() - started < 2
        value.append(1)
        nothing_kept(full_manual)

    def test_polling_makes_room(self, make_producer, reports):
        producer = make_producer(
            {"enable.manual.events.poll": True, "queue.buffering.max.messages": 2}
        )
        delivered = 0
        for number in range(20):
            while producer.try_send(ProducerRecord("t", b"v", id=number), reports) is not None:
                delivered += producer.poll_events(1)
        producer.flush(10)
        assert sorted(reports.ids) == list(range(20))
        assert reports.errors == [None] * 20


class TestBlock:
    def test_waits_until_there_is_room(self, full, reports):
        sent = threading.Event()

        def send():
            full.send(ProducerRecord("t", b"v", id="late"), reports)
            sent.set()

        thread = threading.Thread(target=send)
        thread.start()
        assert not sent.wait(0.3)
        full.purge()
        assert sent.wait(10)
        thread.join()
        assert full.metrics().blocked_seconds > 0.1
        full.close(0)
        assert sorted(map(str, reports.ids)) == ["0", "1", "late"]

    def test_more_than_the_queue_takes(self, make_producer, reports):
        producer = make_producer({"queue.buffering.max.messages": 10})
        for number in range(2000):
            producer.send(ProducerRecord("t", b"v", id=number), reports)
        producer.flush(30)
        assert sorted(reports.ids) == list(range(2000))
        assert reports.errors == [None] * 2000

    def test_more_than_the_queue_takes_in_bytes(self, make_producer, reports):
        producer = make_producer({"queue.buffering.max.kbytes": 100})
        for number in range(50):
            producer.send(ProducerRecord("t", bytes(50_000), id=number), reports)
        producer.flush(30)
        assert sorted(reports.ids) == list(range(50))

    def test_other_threads_run_meanwhile(self, full):
        """The GIL is released: this thread counts while the other waits."""
        thread = threading.Thread(
            target=lambda: full.try_send(ProducerRecord("t", b"")) or pytest.fail("there was room")
        )
        waiter = threading.Thread(
            target=_ignore_closed, args=(lambda: full.send(ProducerRecord("t", b"")),)
        )
        waiter.start()
        time.sleep(0.05)
        thread.start()
        thread.join(5)
        assert not thread.is_alive()
        full.close(0)
        waiter.join(5)
        assert not waiter.is_alive()

    @pytest.mark.parametrize("call", ["send", "sync_send", "send_future"])
    def test_the_timeout_runs_out(self, full, reports, call):
        value = bytearray(b"v")
        started = time.monotonic()
        with pytest.raises(KafkaTimeoutError) as caught:
            getattr(full, call)(ProducerRecord("t", value, headers={"a": b"b"}), timeout=0.2)
        assert 0.19 <= time.monotonic() - started < 5
        assert caught.value.error == ErrorCode.TIMED_OUT
        assert isinstance(caught.value, TimeoutError)
        value.append(1)
        nothing_kept(full)

    def test_a_timeout_of_zero_tries_once(self, full):
        with pytest.raises(KafkaTimeoutError):
            full.send(ProducerRecord("t", b""), never, timeout=0)

    def test_ctrl_c(self, full):
        value = bytearray(b"v")
        threading.Timer(0.2, os.kill, (os.getpid(), signal.SIGINT)).start()
        with pytest.raises(KeyboardInterrupt):
            full.send(ProducerRecord("t", value), never)
        value.append(1)
        nothing_kept(full)

    def test_a_signal_handler_that_raises(self, full):
        class AlarmError(Exception):
            pass

        def handler(number, frame):
            raise AlarmError

        before = signal.signal(signal.SIGALRM, handler)
        try:
            signal.setitimer(signal.ITIMER_REAL, 0.1)
            with pytest.raises(AlarmError):
                full.send(ProducerRecord("t", b""), never)
        finally:
            signal.signal(signal.SIGALRM, before)
        nothing_kept(full)

    def test_a_signal_handler_that_returns_ends_no_wait(self, full, reports):
        called = []
        before = signal.signal(signal.SIGALRM, lambda *_: called.append(full.purge()))
        try:
            signal.setitimer(signal.ITIMER_REAL, 0.1)
            full.send(ProducerRecord("t", b"", id=3), reports)
        finally:
            signal.signal(signal.SIGALRM, before)
        assert called == [None]
        full.close(0)
        assert sorted(reports.ids) == [0, 1, 3]

    def test_close_ends_the_wait(self, full):
        raised = []

        def send():
            try:
                full.send(ProducerRecord("t", b""), never)
            except KafkaException as exc:
                raised.append(type(exc))

        thread = threading.Thread(target=send)
        thread.start()
        time.sleep(0.1)
        full.close(0)
        thread.join(10)
        assert raised == [ProducerClosedError]


class TestInACallback:
    @pytest.mark.parametrize("manual", [False, True])
    @pytest.mark.parametrize("call", ["send", "send_future"])
    def test_it_never_waits(self, make_producer, manual, call):
        producer = make_producer(STUCK, **{"enable.manual.events.poll": manual})
        raised = []

        def on_delivery(metadata, error):
            # The message of this very report still counts, as the one behind it does.
            try:
                getattr(producer, call)(ProducerRecord("t", b"from the callback"))
            except QueueFullError as exc:
                raised.append(exc.error.code)

        for _ in range(2):
            producer.send(ProducerRecord("t", b"v"), on_delivery)
        started = time.monotonic()
        producer.purge()
        producer.flush(10)
        assert time.monotonic() - started < 5
        assert raised == [ErrorCode.QUEUE_FULL] * 2

    def test_try_send_says_so(self, make_producer):
        producer = make_producer(STUCK)
        answers = []
        for _ in range(2):
            producer.send(
                ProducerRecord("t", b"v"),
                lambda *_: answers.append(producer.try_send(ProducerRecord("t", b""))),
            )
        producer.purge()
        producer.flush(10)
        assert answers == [ErrorCode.QUEUE_FULL] * 2


def _ignore_closed(call):
    try:
        call()
    except ProducerClosedError:
        pass
