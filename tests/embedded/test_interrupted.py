"""Ctrl-C, and whatever else a signal handler raises, in the midst of what replaces producers: it
leaves nobody behind for whom a later flush() or close() waits.
"""

from __future__ import annotations

import signal
import sys
import threading
from collections import Counter

import pytest
from faultlib import Outcomes, close_shared_producers, wait_until

import kafka_ext
from kafka_ext import (
    ActionWhileQueueIsFull,
    ErrorCode,
    KafkaException,
    KafkaProducer,
    KafkaSink,
    ProducerRecord,
    QueueFullError,
    _lifecycle,
    _replacement,
    _resend,
    _shared_producers,
    recoverable,
    sink,
)
from kafka_ext.recoverable import RecoverableProducer
from kafka_ext.testing import EmbeddedBroker

QUIET = {"error_cb": lambda error: None, "log_cb": lambda *log: None}
SEQUENCE = ErrorCode.OUT_OF_ORDER_SEQUENCE_NUMBER


@pytest.fixture
def broker():
    close_shared_producers()
    with EmbeddedBroker(topics={"orders": 1}) as broker:
        yield broker
        close_shared_producers()


class Ctrl:
    """Runs a call and raises KeyboardInterrupt at one of the places where CPython would: where a
    function of these modules begins, and where a C function returns to one.
    """

    def __init__(self, *modules):
        self._files = {module.__file__ for module in modules}
        self.place = 0
        self.came = False

    def next(self):
        """The next place; false when there is none any more."""
        is_more = self.came or not self.place
        self.place, self._left, self.came = self.place + 1, self.place, False
        return is_more

    def _profile(self, frame, event, argument):
        if event not in ("call", "c_return") or frame.f_code.co_filename not in self._files:
            return
        if self._left:
            self._left -= 1
            return
        sys.setprofile(None)
        self.came = True
        raise KeyboardInterrupt

    def c(self, call):
        """What it returns; None if it was interrupted."""
        sys.setprofile(self._profile)
        try:
            return call()
        except KeyboardInterrupt:
            assert self.came
            return None
        finally:
            sys.setprofile(None)


def in_a_thread(call):
    """What waits for a thread that is not waiting for anything any more hangs: in this one, the
    test ends.
    """
    thread = threading.Thread(target=call, daemon=True)
    thread.start()
    thread.join(20)
    assert not thread.is_alive()


def break_it(producer):
    producer.handle.test_fatal_error(SEQUENCE, "for the test")


# ---------------------------------------------------------------------- sinks


@pytest.mark.filterwarnings("ignore:.*was not closed:ResourceWarning")  # of a constructor
@pytest.mark.parametrize("is_broken", [False, True], ids=["first", "replaced"])
def test_a_write_interrupted_anywhere_leaves_no_user(broker, is_broken):
    written = KafkaSink(broker.config() | QUIET | {"linger.ms": 0}, "orders")
    ctrl = Ctrl(sink, _shared_producers, _replacement)
    while ctrl.next():
        if is_broken:
            written.write([b"v"])
            (made,) = _shared_producers._producers.values()
            break_it(made.current)
        ctrl.c(lambda: written.write([b"v"]))
        for made in _shared_producers._producers.values():
            assert (made.uses, made._maker, ctrl.place) == ({}, None, ctrl.place)
        in_a_thread(written.close)
        in_a_thread(lambda: written.write([b"v"]))
        in_a_thread(written.close)
    assert ctrl.place > 20


@pytest.mark.parametrize("raised", [KeyboardInterrupt, ValueError])
def test_a_signal_just_after_a_record_was_taken(broker, monkeypatch, raised):
    """With an Exception the write waits for what was sent before; not for what has its report."""
    send = KafkaProducer.send

    def interrupted(producer, record, on_delivery, **options):
        send(producer, record, on_delivery, **options)
        if record.value == b"2":
            producer.flush(20)  # it has its report already
            raise raised

    class Interceptor:
        def on_send(self, record):
            return record

        def on_acknowledgement(self, metadata, error):
            pass

    monkeypatch.setattr(KafkaProducer, "send", interrupted)
    written = KafkaSink(broker.config() | QUIET | {"interceptors": [Interceptor()]}, "orders")
    with pytest.raises(raised):
        written.write([b"1", b"2", b"3"], timeout=5)
    in_a_thread(written.close)
    assert {message.value for message in broker.messages("orders")} == {b"1", b"2"}


def test_close_in_a_write_of_the_same_thread(broker):
    """In a signal handler, or where the rows come from: the write is done all the same."""
    written = KafkaSink(broker.config() | QUIET, "orders")
    before = signal.signal(signal.SIGUSR1, lambda *signal: written.close())

    def rows():
        yield b"1"
        written.close()
        signal.raise_signal(signal.SIGUSR1)
        yield b"2"

    try:
        assert written.write(rows(), timeout=20) == 2
    finally:
        signal.signal(signal.SIGUSR1, before)
    assert not _shared_producers._producers
    assert len(broker.messages("orders")) == 2


@pytest.mark.parametrize("call", ["close", "write"])
def test_a_callback_of_the_sinks_producer_is_told(broker, call):
    calls = {"close": lambda: written.close(), "write": lambda: written.write([b"x"])}
    raised = []

    class Interceptor:
        def on_send(self, record):
            return record

        def on_acknowledgement(self, metadata, error):
            try:
                calls[call]()
            except KafkaException as exc:
                raised.append(exc)

    written = KafkaSink(broker.config() | QUIET | {"interceptors": [Interceptor()]}, "orders")
    assert written.write([b"1"], timeout=20) == 1
    (error,) = raised
    assert error.error == ErrorCode.STATE
    assert f"{call}() inside a callback" in str(error)
    written.close()


def test_what_is_made_while_close_comes_is_ended_without_a_warning(broker, recwarn):
    begun, go_on = threading.Event(), threading.Event()

    def properties():
        begun.set()
        go_on.wait(30)
        return broker.config() | QUIET

    written = KafkaSink(properties, "orders")
    thread = threading.Thread(target=lambda: written.write([b"1"]))
    thread.start()
    begun.wait(30)
    written.close()
    go_on.set()
    thread.join(30)
    assert len(broker.messages("orders")) == 1
    written.close()
    assert not [each for each in recwarn if each.category is ResourceWarning]


def test_a_time_limit_holds_while_a_producer_is_replaced(broker):
    """What the broken producer waits for is not waited for."""
    with EmbeddedBroker(topics={"orders": 1}, isolation="process") as other:
        written = KafkaSink(other.config() | QUIET | {"linger.ms": 0}, "orders")
        written.write([b"1"])
        (made,) = _shared_producers._producers.values()
        other.pause()
        for _ in range(2):

            def limited():
                with pytest.raises(KafkaException):
                    written.write([b"2"], timeout=0.5)

            in_a_thread(limited)
            break_it(made.current)
        other.resume()
        in_a_thread(lambda: written.write([b"3"]))
        in_a_thread(written.close)


def test_unfit_properties_leave_nothing_behind():
    for written in (
        KafkaSink({"bootstrap.servers": "127.0.0.1:1", "linger.mss": "1"}, "orders"),
        KafkaSink(lambda: {"linger.mss": "1"}, "orders"),
    ):
        for _ in range(2):
            with pytest.raises(kafka_ext.InvalidConfigError, match="linger"):
                written.write([b"1"])
        assert not _shared_producers._producers


# ---------------------------------------------------------------------- RecoverableProducer


@pytest.fixture
def make(broker):
    """Makes RecoverableProducers that hold what they are sent until they are flushed."""
    made = []

    def make(properties=(), /):
        settings = broker.config() | QUIET | {"linger.ms": 60_000} | dict(properties)
        made.append(RecoverableProducer(settings, on_fatal="resend"))
        return made[-1]

    yield make
    for producer in made:
        producer._properties.get("stats_cb", Held()).go_on.set()
        producer.close(0)


class Held:
    """Statistics, in whose callback the events thread stays until it may go on."""

    def __init__(self):
        self.begun, self.go_on = threading.Event(), threading.Event()
        self.properties = {"statistics.interval.ms": 20, "stats_cb": self}

    def __call__(self, statistics):
        self.begun.set()
        self.go_on.wait(30)


def test_ctrl_c_just_after_a_record_was_taken(make, monkeypatch):
    producer, told = make(), []
    send = KafkaProducer.send

    def interrupted(*arguments, **options):
        send(*arguments, **options)
        raise KeyboardInterrupt

    with monkeypatch.context() as patched:
        patched.setattr(KafkaProducer, "send", interrupted)
        with pytest.raises(KeyboardInterrupt):
            producer.send(ProducerRecord("orders", b"v"), lambda *told_: told.append(told_))
    producer.flush(20)
    assert len(told) == 1


def test_a_send_interrupted_anywhere(make):
    producer, outcomes = make(), Counter()
    ctrl = Ctrl(recoverable, _resend)
    while ctrl.next():

        def on_delivery(metadata, error, place=ctrl.place):
            assert error is None
            outcomes[place] += 1

        ctrl.c(lambda on_delivery=on_delivery: producer.send(ProducerRecord("orders"), on_delivery))
        producer.flush(20)
    assert set(outcomes.values()) == {1}
    assert ctrl.place > 5


def test_a_recovery_whose_beginning_is_interrupted_anywhere(make, broker):
    """By the thread that has met the fatal error first: another begins it anew."""
    ctrl = Ctrl(recoverable, _resend)
    while ctrl.next():
        held = Held()
        producer, outcomes = make(held.properties), Outcomes()
        held.begun.wait(30)
        producer.send(ProducerRecord("orders", b"%d" % ctrl.place), outcomes.expect(1))
        break_it(producer)

        def send(producer=producer):
            with pytest.raises(QueueFullError, match="is being replaced"):
                producer.send(ProducerRecord("orders"), action=ActionWhileQueueIsFull.NO_BLOCK)

        ctrl.c(send)
        held.go_on.set()
        producer.flush(20)
        outcomes.check([1])
        assert not outcomes.errors
        assert producer.recoveries == 1
        producer.close(20)
    assert ctrl.place > 5
    assert len(broker.messages("orders")) == ctrl.place - 1


@pytest.mark.parametrize("starts", [False, True], ids=["no thread", "thread"])
def test_ctrl_c_while_the_thread_of_a_recovery_starts(make, monkeypatch, starts):
    """Thread.start() waits for the thread to be there."""
    held = Held()
    producer, outcomes = make(held.properties), Outcomes()
    held.begun.wait(30)
    producer.send(ProducerRecord("orders"), outcomes.expect(1))
    break_it(producer)
    start = threading.Thread.start

    def interrupted(thread):
        if starts:
            start(thread)
        raise KeyboardInterrupt

    with monkeypatch.context() as patched:
        patched.setattr(threading.Thread, "start", interrupted)
        with pytest.raises(KeyboardInterrupt):
            producer.send(ProducerRecord("orders"))
    held.go_on.set()
    producer.flush(20)
    outcomes.check([1])
    assert not outcomes.errors
    assert producer.recoveries == 1


def test_an_interrupted_close_calls_back_once(make, broker, monkeypatch):
    producer, told = make(), []
    broker.stop_broker(1)  # close() flushes first, and a slow thread would find all delivered
    for number in range(3):
        producer.send(ProducerRecord("orders"), lambda _, error, number=number: told.append(number))
    held, producer._is_to_be_sent_again = producer._unanswered, lambda sent, error: True
    monkeypatch.setattr(producer, "_recover", lambda *arguments: None)
    finish = producer._finish_here

    def interrupted(sent, error):
        finish(sent, error)
        raise KeyboardInterrupt

    with monkeypatch.context() as patched:
        patched.setattr(producer, "_finish_here", interrupted)
        with pytest.raises(KeyboardInterrupt):
            producer.close(0)
    assert len(held) == 3
    producer.close(0)
    assert sorted(told) == [0, 1, 2]


def test_a_purge_after_a_fatal_error_is_not_undone(make):
    held = Held()
    producer, outcomes = make(held.properties), Outcomes()
    held.begun.wait(30)
    for number in range(3):
        producer.send(ProducerRecord("orders"), outcomes.expect(number))
    break_it(producer)
    producer.purge()
    held.go_on.set()
    producer.flush(20)
    outcomes.check(range(3))
    assert set(outcomes.errors) == {ErrorCode.PURGE_QUEUE}
    outcomes = Outcomes()
    producer.send(ProducerRecord("orders"), outcomes.expect(0))
    break_it(producer)
    producer.flush(20)
    outcomes.check([0])
    assert not outcomes.errors


def test_a_recovery_that_fails_is_tried_again(make, monkeypatch):
    """For want of memory, say: all calls wait for it."""
    producer, outcomes = make(), Outcomes()
    close, failed = KafkaProducer.close, []

    def failing(closed, timeout=None):
        if len(failed) < 2:
            failed.append(closed)
            raise MemoryError
        return close(closed, timeout)

    producer.send(ProducerRecord("orders"), outcomes.expect(1))
    monkeypatch.setattr(KafkaProducer, "close", failing)
    break_it(producer)
    producer.flush(20)
    outcomes.check([1])
    assert not outcomes.errors
    assert (len(failed), producer.recoveries) == (2, 1)


@pytest.mark.parametrize("raised", [SystemExit, KeyboardInterrupt])
def test_a_partitioner_that_raises_in_a_recovery_fails_its_record_only(make, raised):
    calls = []

    def partitioner(topic, key, partitions):
        calls.append(key)
        if len(calls) == 3:
            raise raised
        return 0

    producer, outcomes = make({"partitioner": partitioner}), Outcomes()
    for number in range(2):
        producer.send(ProducerRecord("orders", key=b"%d" % number), outcomes.expect(number))
    wait_until(lambda: len(calls) == 2)
    for sent in producer._outstanding:
        sent.record.partition = None
    keep = _resend.Sent.keep

    def forget(sent, metadata, error):
        keep(sent, metadata, error)
        sent.record.partition = None

    with pytest.MonkeyPatch.context() as patched:
        patched.setattr(_resend.Sent, "keep", forget)
        break_it(producer)
        producer.flush(20)
    outcomes.check(range(2))
    assert [error.code for error in outcomes.errors] == [ErrorCode.FAIL]


def test_a_value_that_no_memoryview_knows_is_sent_again(make, broker):
    numpy = pytest.importorskip("numpy")
    producer, outcomes = make(), Outcomes()
    value = numpy.array(["2020-01-01"], dtype="datetime64[s]")
    producer.send(ProducerRecord("orders", value), outcomes.expect(1))
    break_it(producer)
    producer.flush(20)
    outcomes.check([1])
    assert not outcomes.errors
    (message,) = broker.messages("orders")
    assert message.value == value.tobytes()


@pytest.mark.parametrize("call", ["flush", "close", "sync_send", "send", "metadata"])
def test_a_callback_called_by_a_recovery_is_told(call, make):
    """A record that was to be sent again, and was purged."""
    calls = {
        "flush": lambda: producer.flush(),
        "close": lambda: producer.close(),
        "sync_send": lambda: producer.sync_send(ProducerRecord("orders")),
        "send": lambda: producer.send(ProducerRecord("orders")),
        "metadata": lambda: producer.fetch_broker_metadata(timeout=None),
    }
    raised = []

    def on_delivery(metadata, error):
        assert error == ErrorCode.PURGE_QUEUE
        assert threading.current_thread().name == "kafka_ext recovery"
        try:
            calls[call]()
        except KafkaException as exc:
            raised.append(exc.error.code)

    producer = make()
    replace = producer._producers.replace

    def purged(*arguments, **options):
        """Between the end of one producer and the records that the next one is sent."""
        producer.purge()
        return replace(*arguments, **options)

    producer._producers.replace = purged
    producer.send(ProducerRecord("orders"), on_delivery)
    break_it(producer)
    in_a_thread(lambda: producer.flush(20))
    expected = ErrorCode.QUEUE_FULL if call in ("send", "metadata") else ErrorCode.STATE
    assert raised == [expected]


# ---------------------------------------------------------------------- exit


def test_who_is_added_while_the_exit_asks_who_there_is(broker):
    import weakref

    class Thing:
        pass

    things = [Thing() for _ in range(3)]
    known, more = weakref.WeakSet(things), Thing()

    def adding(frame, event, argument):
        """What another thread does, in the midst of the loop."""
        if event == "return" and frame.f_code is weakref.WeakSet.__iter__.__code__:
            known.add(more)

    sys.setprofile(adding)
    try:
        found = _lifecycle.members(known)
    finally:
        sys.setprofile(None)
    assert set(found) == {*things, more}
