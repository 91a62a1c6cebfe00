"""RecoverableProducer: after a fatal error there is another producer, and each record still has its
one outcome.
"""

from __future__ import annotations

import contextlib
import gc
import inspect
import itertools
import logging
import os
import pickle
import random
import signal
import sys
import threading
import time
import warnings
import weakref

import pytest
from faultlib import Outcomes, is_pinned, run_program, wait_until, within

from kafka_ext import (
    ActionWhileQueueIsFull,
    ErrorCode,
    InvalidConfigError,
    InvalidRecordError,
    KafkaException,
    KafkaProducer,
    KafkaTimeoutError,
    PersistedStatus,
    ProducerClosedError,
    ProducerForkedError,
    ProducerRecord,
    QueueFullError,
    SendOption,
)
from kafka_ext.logging import KafkaHandler
from kafka_ext.recoverable import RecoverableProducer
from kafka_ext.testing import EmbeddedBroker

SEQUENCE = ErrorCode.OUT_OF_ORDER_SEQUENCE_NUMBER


@pytest.fixture
def broker():
    with EmbeddedBroker(topics={"orders": 2}) as broker:
        yield broker


@pytest.fixture
def recoverable(broker):
    """Makes RecoverableProducers that send again, and hold what they are sent until they are
    flushed: a fatal error finds it.
    """
    made = []

    def make(properties=None, /, on_fatal="resend", **keywords):
        settings = {
            "linger.ms": 60_000,
            "error_cb": lambda error: None,
            "log_cb": lambda *log: None,
        } | dict(properties or {})
        made.append(RecoverableProducer(broker.config() | settings, on_fatal=on_fatal, **keywords))
        return made[-1]

    yield make
    for producer in made:
        producer.close(0)


def break_it(producer, reason="for the test"):
    """What a broker does that has lost the producer's state (rd_kafka_test_fatal_error)."""
    producer._newest.handle.test_fatal_error(SEQUENCE, reason)


def sent(broker, count):
    return [
        (message.partition, message.value) for message in broker.messages("orders", count=count)
    ]


def in_order(found, count):
    """Each partition's numbers ascend, and each number is there once."""
    numbers = [[int(value) for partition, value in found if partition == which] for which in (0, 1)]
    assert all(part == sorted(part) for part in numbers)
    assert sorted(numbers[0] + numbers[1]) == list(range(count))


# ---------------------------------------------------------------------- resend


def test_what_was_not_answered_is_sent_again_in_order_and_before_what_is_newer(broker, recoverable):
    recovered = []
    producer = recoverable(on_recovery=lambda error, resent: recovered.append((error, resent)))
    outcomes = Outcomes()
    for number in range(1000):
        producer.send(
            ProducerRecord("orders", b"%d" % number, key=b"%d" % (number % 5)),
            outcomes.expect(number),
        )
    break_it(producer)
    for number in range(1000, 2000):
        producer.send(
            ProducerRecord("orders", b"%d" % number, key=b"%d" % (number % 5)),
            outcomes.expect(number),
        )
    producer.flush(10)
    outcomes.check(range(2000))
    assert not outcomes.errors
    in_order(sent(broker, 2000), 2000)
    assert recovered == [(SEQUENCE, 1000)]
    assert recovered[0][0].is_fatal
    assert producer.recoveries == 1
    assert producer.fatal_error() is None
    metrics = producer.metrics()
    assert (metrics.sent, metrics.delivered, metrics.failed, metrics.outstanding) == (
        3000,
        2000,
        1000,
        0,
    )


def test_without_keys_a_record_keeps_the_partition_it_had(broker, recoverable):
    """The partitioner has chosen, and the new producer's would choose anew: the order within the
    partition would be gone.
    """
    producer = recoverable({"partitioner": "random"})
    partitions = {}
    for number in range(200):
        producer.send(
            ProducerRecord("orders", b"%d" % number),
            lambda metadata, error: partitions.setdefault(metadata.record_id, metadata),
        )
    wait_until(lambda: producer.fetch_broker_metadata("orders").topics["orders"])
    break_it(producer)
    producer.flush(10)
    in_order(sent(broker, 200), 200)


def test_a_record_keeps_its_timestamp_headers_and_id(broker, recoverable):
    producer = recoverable()
    before = time.time() * 1000
    told = []
    record = ProducerRecord(
        "orders", b"value", key=b"key", headers={"a": b"1", "b": None}, id="mine", partition=1
    )
    producer.send(record, lambda metadata, error: told.append((metadata, error)))
    after = time.time() * 1000
    record.key = record.headers = None  # its owner's again
    record.value = b"another"
    time.sleep(0.05)
    break_it(producer)
    producer.flush(10)
    (message,) = broker.messages("orders")
    assert (message.partition, message.key, message.value, message.headers) == (
        1,
        b"key",
        b"value",
        [("a", b"1"), ("b", None)],
    )
    assert int(before) <= message.timestamp <= after
    ((metadata, error),) = told
    assert error is None
    assert (metadata.record_id, metadata.offset, metadata.headers) == (
        "mine",
        0,
        [("a", b"1"), ("b", None)],
    )


def test_an_idle_producer_is_replaced_as_well(broker, recoverable):
    producer = recoverable({"linger.ms": 0})
    break_it(producer)
    wait_until(lambda: producer.recoveries == 1)
    assert producer.sync_send(ProducerRecord("orders", b"a"), timeout=10).offset == 0


def test_again_and_again(broker, recoverable):
    producer = recoverable()
    outcomes = Outcomes()
    for number in range(500):
        producer.send(ProducerRecord("orders", b"%d" % number, key="k"), outcomes.expect(number))
        if number % 100 == 50:
            break_it(producer)
    producer.flush(20)
    outcomes.check(range(500))
    assert not outcomes.errors
    in_order(sent(broker, 500), 500)
    assert producer.recoveries == 5


def test_a_fatal_error_while_a_recovery_is_going_on(broker, recoverable, monkeypatch):
    """The producer that should replace the broken one breaks too, in the midst of what
    it is sent.
    """
    producer = recoverable()
    outcomes = Outcomes()
    for number in range(300):
        producer.send(ProducerRecord("orders", b"%d" % number, key="k"), outcomes.expect(number))
    send_again = RecoverableProducer._send_again
    broken = []

    def breaking(self, record):
        if record.number == 100 and len(broken) < 2:
            broken.append(True)
            self._newest.handle.test_fatal_error(SEQUENCE, "again")
        return send_again(self, record)

    monkeypatch.setattr(RecoverableProducer, "_send_again", breaking)
    break_it(producer)
    producer.flush(20)
    outcomes.check(range(300))
    assert not outcomes.errors
    assert len(broken) == 2
    in_order(sent(broker, 300), 300)


def unanswered(producer, broker, outcomes):
    """Send a record whose request gets to a broker that does not read on: stored once it does, and
    not answered until then.
    """
    producer.sync_send(ProducerRecord("orders", b"0", partition=0), timeout=10)
    broker.pause()
    producer.send(ProducerRecord("orders", b"1", partition=0), outcomes.expect(1))
    wait_until(lambda: in_flight(producer))


def in_flight(producer):
    statistics = producer.metrics().statistics
    return statistics is not None and any(
        broker["waitresp_msg_cnt"] for broker in statistics["brokers"].values()
    )


@pytest.fixture
def other_process():
    with EmbeddedBroker(topics={"orders": 2}, isolation="process") as broker:
        yield broker


def test_a_duplicate_is_possible_where_the_acknowledgement_was_lost(other_process, recoverable):
    """The documentation says so, and this is why: it is stored, and nobody has heard."""
    producer = recoverable(
        other_process.config(linger_ms=0, statistics_interval_ms=20), answer_timeout=0
    )
    outcomes = Outcomes()
    unanswered(producer, other_process, outcomes)
    break_it(producer)
    wait_until(lambda: producer.recoveries == 1)
    other_process.resume()
    producer.flush(20)
    outcomes.check([1])
    assert not outcomes.errors
    assert [value for _, value in sent(other_process, 3)] == [b"0", b"1", b"1"]


def test_an_answer_that_comes_in_time_makes_no_duplicate(other_process, recoverable):
    producer = recoverable(
        other_process.config(linger_ms=0, statistics_interval_ms=20), answer_timeout=10
    )
    outcomes = Outcomes()
    unanswered(producer, other_process, outcomes)
    break_it(producer)
    other_process.resume()
    producer.flush(20)
    outcomes.check([1])
    assert not outcomes.errors
    assert producer.recoveries == 1
    assert [value for _, value in sent(other_process, 2)] == [b"0", b"1"]


def test_values_stay_pinned_through_a_recovery_and_are_let_go_once(broker, recoverable):
    producer = recoverable()
    value = bytearray(b"pinned")
    copied = bytearray(b"copied")
    pinned = []
    producer.send(
        ProducerRecord("orders", value, partition=0),
        lambda metadata, error: pinned.append(is_pinned(value)),
    )
    producer.send(
        ProducerRecord("orders", copied, partition=0), option=SendOption.TO_COPY_RECORD_VALUE
    )
    copied[:] = b"reused"
    assert is_pinned(value)
    assert not is_pinned(copied)
    kept = _pins_seen(producer, value)
    break_it(producer)
    producer.flush(10)
    assert kept
    assert all(kept)
    assert pinned == [True]
    wait_until(lambda: not is_pinned(value))
    assert [content for _, content in sent(broker, 2)] == [b"pinned", b"copied"]


def _pins_seen(producer, value):
    """Whether it is pinned just before it is sent again, when no producer has it."""
    seen = []
    send_again = producer._send_again

    def looking(record):
        seen.append(is_pinned(value))
        return send_again(record)

    producer._send_again = looking
    return seen


def test_other_failures_are_reported_and_not_sent_again(broker, recoverable):
    producer = recoverable({"linger.ms": 0, "message.timeout.ms": 60_000})
    with pytest.raises(KafkaException) as caught:
        producer.sync_send(ProducerRecord("orders", bytes(2_000_000)), timeout=10)
    assert caught.value.error == ErrorCode.MSG_SIZE_TOO_LARGE
    producer.sync_send(ProducerRecord("orders", b"a", partition=0), timeout=10)
    with pytest.raises(KafkaException) as caught:
        producer.sync_send(ProducerRecord("orders", b"a", partition=9), timeout=10)
    assert caught.value.error == ErrorCode.UNKNOWN_PARTITION
    assert producer.recoveries == 0


def test_purge_is_not_undone(broker, recoverable):
    producer = recoverable()
    outcomes = Outcomes()
    for number in range(10):
        producer.send(ProducerRecord("orders", b"x"), outcomes.expect(number))
    producer.purge()
    outcomes.wait(10)
    outcomes.check(range(10))
    assert set(outcomes.errors) == {ErrorCode.PURGE_QUEUE}
    assert producer.recoveries == 0


def test_a_record_whose_time_is_up_is_reported(broker, recoverable):
    producer = recoverable({"linger.ms": 10_000})
    outcomes = Outcomes()
    for number in range(10):
        producer.send(ProducerRecord("orders", b"x"), outcomes.expect(number))
    producer._lifetime = 0.0
    for number in range(10, 20):
        producer.send(ProducerRecord("orders", b"x"), outcomes.expect(number))
    break_it(producer)
    producer.flush(10)
    outcomes.check(range(20))
    assert {number for number, (_, error) in outcomes.reports.items() if error is not None} == set(
        range(10, 20)
    )
    assert len(sent(broker, 10)) == 10


@pytest.mark.parametrize("how", ["del", "close"])
def test_a_resend_without_anybody_to_tell(broker, recoverable, caplog, how):
    producer = recoverable()
    producer.send(ProducerRecord("orders", b"a"))
    break_it(producer)
    producer.close(10)
    assert len(sent(broker, 1)) == 1
    assert "1 records were sent again" in caplog.text


def test_a_failure_nobody_listens_to_is_logged(recoverable, caplog):
    producer = recoverable({"bootstrap.servers": "127.0.0.1:1"})  # close() would flush to a broker
    producer.send(ProducerRecord("orders", b"a"))
    producer.close(0)
    assert "1 record to orders not delivered, and no callback to tell: PURGE" in caplog.text


# ---------------------------------------------------------------------- while it recovers


@pytest.fixture
def recovering(other_process, recoverable):
    """A producer whose recovery waits for an answer that does not come, until `go` is called."""
    producer = recoverable(
        other_process.config(linger_ms=0, statistics_interval_ms=20), answer_timeout=60
    )
    outcomes = Outcomes()
    unanswered(producer, other_process, outcomes)
    old = producer._newest
    break_it(producer)
    wait_until(lambda: producer.fatal_error() is not None)
    yield producer, outcomes, lambda: setattr(old.handle, "out_of_time", True)
    old.handle.out_of_time = True
    other_process.resume()


def test_what_may_not_wait_is_told_that_the_queue_is_full(recovering):
    producer, _, _ = recovering
    record = ProducerRecord("orders", b"x")
    assert producer.fatal_error() == SEQUENCE
    assert "recovering" in repr(producer)
    with within(0):
        assert producer.try_send(record, pytest.fail) == ErrorCode.QUEUE_FULL
        with pytest.raises(QueueFullError, match="replaced after a fatal error"):
            producer.send(record, pytest.fail, action=ActionWhileQueueIsFull.NO_BLOCK)
    with within(0.3), pytest.raises(KafkaTimeoutError):
        producer.send(record, pytest.fail, timeout=0.3)
    with within(0.3), pytest.raises(KafkaTimeoutError):
        producer.sync_send(record, timeout=0.3)
    with within(0.3), pytest.raises(KafkaTimeoutError):
        producer.flush(timeout=0.3)
    with within(0.3), pytest.raises(KafkaTimeoutError):
        producer.fetch_broker_metadata(timeout=0.3)


def test_what_may_wait_waits(other_process, recovering):
    producer, outcomes, _ = recovering
    thread = threading.Thread(
        target=lambda: producer.send(
            ProducerRecord("orders", b"2", partition=0), outcomes.expect(2)
        )
    )
    thread.start()
    time.sleep(0.2)
    assert thread.is_alive()
    other_process.resume()
    thread.join(10)
    producer.flush(10)
    outcomes.check([1, 2])
    assert not outcomes.errors
    assert [value for _, value in sent(other_process, 3)] == [b"0", b"1", b"2"]


def test_close_in_a_recovery_keeps_its_time_and_reports_the_rest(recovering):
    producer, outcomes, _ = recovering
    with within(0.3):
        producer.close(0.3)
    outcomes.check([1])
    (error,) = outcomes.errors
    assert error in (ErrorCode.PURGE_INFLIGHT, SEQUENCE)
    assert outcomes.reports[1][0].persisted_status is PersistedStatus.POSSIBLY
    with pytest.raises(ProducerClosedError):
        producer.send(ProducerRecord("orders", b"x"))
    producer.close()


def test_a_second_close_with_less_time_ends_the_first(recovering):
    producer, outcomes, _ = recovering
    first = threading.Thread(target=producer.close)
    first.start()
    time.sleep(0.2)
    with within(0.2):
        producer.close(0.2)
    first.join(5)
    assert not first.is_alive()
    outcomes.check([1])


def test_purge_in_a_recovery(recovering):
    producer, outcomes, go = recovering
    producer.purge()
    go()
    producer.flush(10)
    outcomes.check([1])
    assert outcomes.errors == [ErrorCode.PURGE_INFLIGHT]


def test_ctrl_c_while_waiting_for_a_recovery(other_process, recovering):
    producer, outcomes, _ = recovering
    threading.Timer(0.3, os.kill, (os.getpid(), signal.SIGINT)).start()
    with within(0.3), pytest.raises(KeyboardInterrupt):
        producer.send(ProducerRecord("orders", b"x"), pytest.fail)
    other_process.resume()
    producer.flush(10)
    outcomes.check([1])


def test_no_producer_to_be_had(broker, recoverable, monkeypatch, caplog):
    """A certificate that is gone, say: tried again until it works."""
    producer = recoverable()
    outcomes = Outcomes()
    producer.send(ProducerRecord("orders", b"0", partition=0), outcomes.expect(0))
    producer._settings.put("ssl.ca.location", "/nowhere").put("security.protocol", "ssl")
    break_it(producer)
    wait_until(lambda: "no producer could be made" in caplog.text)
    assert not outcomes.reports
    del producer._settings["ssl.ca.location"], producer._settings["security.protocol"]
    producer.flush(20)
    outcomes.check([0])
    assert not outcomes.errors


def test_close_when_no_producer_is_to_be_had(broker, recoverable):
    producer = recoverable()
    outcomes = Outcomes()
    producer.send(ProducerRecord("orders", b"0", partition=0), outcomes.expect(0))
    producer._settings.put("ssl.ca.location", "/nowhere").put("security.protocol", "ssl")
    break_it(producer)
    with within(1):
        producer.close(1)
    outcomes.check([0])
    assert outcomes.errors[0].is_fatal or outcomes.errors[0] == ErrorCode.PURGE_QUEUE


# ---------------------------------------------------------------------- report


def test_report_tells_each_record_and_goes_on(broker, recoverable):
    producer = recoverable(on_fatal="report")
    outcomes = Outcomes()
    for number in range(100):
        producer.send(
            ProducerRecord("orders", b"%d" % number, partition=0), outcomes.expect(number)
        )
    break_it(producer)
    outcomes.wait(100)
    outcomes.check(range(100))
    assert len(outcomes.errors) == 100
    assert all(error.is_fatal or error == ErrorCode.PURGE_QUEUE for error in outcomes.errors)
    assert {metadata.persisted_status for metadata, _ in outcomes.reports.values()} == {
        PersistedStatus.NOT
    }
    producer.send(ProducerRecord("orders", b"after", partition=0), outcomes.expect("after"))
    producer.flush(10)
    assert outcomes.reports["after"][1] is None
    assert sent(broker, 1) == [(0, b"after")]
    assert producer.recoveries == 1


def test_report_takes_batches_and_resend_says_why_not(broker, recoverable):
    producer = recoverable({"linger.ms": 5}, on_fatal="report")
    assert producer.send_batch("orders", [b"a", b"b"]).wait(10)
    break_it(producer)
    batch = producer.send_batch("orders", [b"c"])
    batch.wait(10)
    producer.flush(10)
    with pytest.raises(KafkaException, match="a batch keeps none"):
        recoverable().send_batch("orders", [b"a"])


def test_it_reports_unless_told_otherwise(broker):
    """A record that may be stored already could be there twice if it was sent again unasked."""
    quiet = {"linger.ms": 60_000, "error_cb": lambda error: None, "log_cb": lambda *log: None}
    with RecoverableProducer(broker.config() | quiet) as producer:
        outcomes = Outcomes()
        for number in range(10):
            producer.send(
                ProducerRecord("orders", b"%d" % number, partition=0), outcomes.expect(number)
            )
        break_it(producer)
        outcomes.wait(10)
        assert len(outcomes.errors) == 10
        for number, (metadata, _) in sorted(outcomes.reports.items()):
            assert metadata.persisted_status is PersistedStatus.NOT
            producer.send(
                ProducerRecord("orders", b"%d" % number, partition=0)
            )  # nobody can have them
        producer.flush(10)
        assert producer.recoveries == 1
    assert sent(broker, 10) == [(0, b"%d" % number) for number in range(10)]


# ---------------------------------------------------------------------- in a KafkaProducer's place


def test_it_is_a_kafka_producer(broker, recoverable):
    producer = recoverable(on_fatal="report")
    assert isinstance(producer, KafkaProducer)
    logger = logging.getLogger("test_it_is_a_kafka_producer")
    handler = KafkaHandler("orders", producer=producer)
    logger.addHandler(handler)
    logger.propagate = False
    break_it(producer)
    wait_until(lambda: producer.recoveries == 1)
    logger.warning("after")
    handler.flush()
    logger.removeHandler(handler)
    handler.close()
    assert (handler.dropped, handler.failed) == (0, 0)
    assert [content for _, content in sent(broker, 1)] == [b"after"]


def test_every_call_of_a_kafka_producer_is_its_own():
    """What is inherited must not use the C side that a RecoverableProducer does not have."""
    inherited = {
        "sync_send",
        "send_future",
        "transaction",
        "properties",
    }  # they call what is overridden
    public = {name for name in dir(KafkaProducer) if not name.startswith("_")}
    assert public - inherited <= set(vars(RecoverableProducer))
    for name in public - inherited - {"handle"}:
        expected, own = (
            inspect.signature(getattr(KafkaProducer, name)),
            inspect.signature(getattr(RecoverableProducer, name)),
        )
        assert list(own.parameters) == list(expected.parameters), name


def test_transactions_and_manual_polling_are_refused_with_the_reason(recoverable):
    producer = recoverable()
    calls = [
        producer.init_transactions,
        producer.begin_transaction,
        producer.commit_transaction,
        producer.abort_transaction,
        lambda: producer.send_offsets_to_transaction({}, "group"),
        producer.transaction().__enter__,
    ]
    for call in calls:
        with pytest.raises(
            KafkaException, match="no transactions: another producer cannot go on with one"
        ):
            call()
    with pytest.raises(KafkaException, match="serves its events itself"):
        producer.poll_events()


@pytest.mark.parametrize("kind", [KafkaProducer, RecoverableProducer])
def test_unfit_properties_leave_nothing_behind(kind):
    with pytest.raises(InvalidConfigError):
        kind({"bootstrap.servers": "127.0.0.1:9", "linger.mss": 5})


# ---------------------------------------------------------------------- callbacks


def test_a_callback_may_send_and_may_not_wait(broker, recoverable):
    producer = recoverable({"linger.ms": 0})
    seen = []

    def on_delivery(metadata, error):
        for call in (
            producer.flush,
            producer.close,
            lambda: producer.sync_send(ProducerRecord("orders", b"x")),
        ):
            with pytest.raises(KafkaException) as caught:
                call()
            seen.append(caught.value.error)
        seen.append(producer.try_send(ProducerRecord("orders", b"b")))

    producer.send(ProducerRecord("orders", b"a"), on_delivery)
    producer.flush(10)
    assert seen == [ErrorCode.STATE] * 3 + [None]
    assert len(sent(broker, 2)) == 2


def test_a_callback_that_sends_while_the_producer_is_broken_does_not_wait(broker, recoverable):
    producer = recoverable(on_fatal="report")
    answers = []
    for _ in range(10):
        producer.send(
            ProducerRecord("orders", b"a"),
            lambda metadata, error: answers.append(
                producer.try_send(ProducerRecord("orders", b"b"))
            ),
        )
    break_it(producer)
    with within(5):
        producer.flush(10)
    assert answers == [ErrorCode.QUEUE_FULL] * 10


def test_callbacks_that_raise_lose_nothing(broker, recoverable, unraisable):
    def on_recovery(error, resent):
        raise LookupError("mine")

    producer = recoverable(on_recovery=on_recovery)
    called = []

    def on_delivery(metadata, error):
        called.append(metadata.record_id)
        raise RuntimeError(metadata.record_id)

    for number in range(20):
        producer.send(ProducerRecord("orders", b"x", id=number, partition=0), on_delivery)
    break_it(producer)
    producer.flush(10)
    wait_until(lambda: len(unraisable) == 21)
    assert called == list(range(20))
    assert {type(exc) for exc, _ in unraisable} == {LookupError, RuntimeError}


def test_on_recovery_may_send(broker, recoverable):
    results = []
    producer = recoverable(
        {"linger.ms": 0},
        on_recovery=lambda error, resent: results.append(
            producer.sync_send(ProducerRecord("orders", b"news"), timeout=10)
        ),
    )
    break_it(producer)
    wait_until(lambda: results)
    assert results[0].offset == 0


def test_the_own_error_callback_still_hears_all(recoverable):
    heard = []
    producer = recoverable({"error_cb": heard.append})
    break_it(producer)
    wait_until(lambda: producer.recoveries == 1)
    assert any(error.is_fatal for error in heard)


def test_futures_have_the_final_outcome(broker, recoverable):
    producer = recoverable()
    future = producer.send_future(ProducerRecord("orders", b"a"))
    break_it(producer)
    producer.flush(10)
    assert future.result(1).offset == 0


# ---------------------------------------------------------------------- a random life


@pytest.mark.parametrize("seed", range(6))
def test_each_send_has_one_outcome_whatever_happens(broker, recoverable, seed):
    rng = random.Random(seed)
    producer = recoverable(
        {"linger.ms": rng.choice([0, 5, 100])},
        answer_timeout=5,
        on_fatal=rng.choice(["resend", "resend", "report"]),
    )
    outcomes = Outcomes()
    accepted = [[] for _ in range(4)]
    done = threading.Event()

    def work(number):
        for index in range(400):
            name = f"{number}:{index}"
            try:
                producer.send(
                    ProducerRecord("orders", name.encode(), key=b"%d" % number),
                    outcomes.expect(name),
                )
            except KafkaException:
                continue
            accepted[number].append(name)
            if rng.random() < 0.1:
                time.sleep(0.01)

    def breaking():
        while not done.wait(rng.random() * 0.2):
            with contextlib.suppress(KafkaException):  # being replaced
                break_it(producer)

    threads = [threading.Thread(target=work, args=(number,)) for number in range(4)]
    breaker = threading.Thread(target=breaking)
    break_it(producer)
    for thread in (*threads, breaker):
        thread.start()
    for thread in threads:
        thread.join()
    done.set()
    breaker.join()
    producer.close(30)
    names = list(itertools.chain(*accepted))
    outcomes.check(names)
    delivered = {name for name in names if outcomes.reports[name][1] is None}
    found = [message.value.decode() for message in broker.messages("orders")]
    assert delivered <= set(found)
    if producer._resends:
        assert delivered == set(names)
        assert len(found) == len(names)  # all answers came in time: no duplicates
        for number in range(4):
            assert [name for name in found if name.startswith(f"{number}:")] == accepted[number]
    assert producer.recoveries > 0


# ---------------------------------------------------------------------- life


@pytest.mark.parametrize("on_fatal", ["resend", "report"])
def test_dropped_without_close_it_still_delivers(broker, recoverable, on_fatal):
    producer = RecoverableProducer(broker.config(linger_ms=200), on_fatal=on_fatal)
    told = []
    producer.send(ProducerRecord("orders", b"a"), lambda metadata, error: told.append(error))
    gone = weakref.ref(producer)
    with warnings.catch_warnings(record=True) as warned:
        warnings.simplefilter("always")
        del producer
        gc.collect()
        wait_until(lambda: gone() is None)
        wait_until(lambda: told)
    assert told == [None]
    assert any("was not closed" in str(warning.message) for warning in warned)


def test_the_interpreters_end_in_the_middle_of_a_recovery(broker):
    done = run_program(f"""
        from kafka_ext.recoverable import RecoverableProducer
        producer = RecoverableProducer(
            {broker.config(linger_ms=60_000)!r}, on_fatal="resend", log_cb=lambda *log: None, error_cb=lambda error: None
        )
        for number in range(100):
            producer.send(ProducerRecord("orders", b"%d" % number, partition=0), lambda metadata, error: print("told", error))
        producer._newest.handle.test_fatal_error(ErrorCode.OUT_OF_ORDER_SEQUENCE_NUMBER, "for the test")
        """)
    if (
        (3, 12) <= sys.version_info < (3, 12, 2)
    ):  # they start no thread at the end: nothing is sent again, but each record is reported
        assert [line.split(":")[0] for line in done.stdout.splitlines()] == [
            "told PURGE_QUEUE"
        ] * 100
        return
    assert done.stdout.split("\n") == ["told None"] * 100 + [""]
    assert [value for _, value in sent(broker, 100)] == [b"%d" % number for number in range(100)]


@pytest.mark.parametrize(
    "raised",
    [RuntimeError("can't start new thread"), MemoryError(), OSError("no room for a stack")],
    ids=repr,
)
@pytest.mark.parametrize("starts", [False, True], ids=["no thread", "thread"])
def test_a_process_that_has_no_threads_left_reports_what_it_cannot_send_again(
    recoverable, monkeypatch, raised, starts
):
    """Where it has no memory either, Thread.start() may raise with the thread running."""
    start = threading.Thread.start
    producer = recoverable()
    told = []
    for number in range(10):
        producer.send(
            ProducerRecord("orders", b"%d" % number), lambda metadata, error: told.append(error)
        )

    def refuse(thread):
        if starts:
            start(thread)
        raise raised

    with monkeypatch.context() as patched:
        patched.setattr(threading.Thread, "start", refuse)
        break_it(producer)
        producer.flush(30)
    assert len(told) == 10
    assert all(
        error.is_fatal or error == SEQUENCE or error.name.startswith("PURGE") for error in told
    ), told
    with pytest.raises(KafkaException) as refused:
        producer.send(ProducerRecord("orders", b"more"))
    assert refused.value.error.is_fatal
    producer.close(30)


@pytest.mark.filterwarnings("ignore:.*multi-threaded, use of fork:DeprecationWarning")
def test_a_child_cannot_use_it(recovering):
    producer, _, _ = recovering
    child = os.fork()
    if not child:
        status = 1
        try:
            for call in (
                lambda: producer.send(ProducerRecord("orders")),
                producer.flush,
                producer.close,
                producer.metrics,
                producer.purge,
            ):
                try:
                    call()
                except ProducerForkedError:
                    continue
                break
            else:
                status = 0
        finally:
            os._exit(status)
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0


def test_it_cannot_be_pickled(recoverable):
    with pytest.raises(TypeError, match="KafkaSink"):
        pickle.dumps(recoverable())


@pytest.mark.parametrize(
    ("arguments", "error", "match"),
    [
        ({"on_fatal": "ignore"}, ValueError, "on_fatal"),
        ({"on_recovery": 5}, TypeError, "on_recovery"),
        ({"answer_timeout": "long"}, TypeError, "timeout"),
        ({"transactional_id": "x"}, InvalidConfigError, "transactional.id"),
        ({"enable_manual_events_poll": True}, InvalidConfigError, "manual"),
        ({"linger_mss": 5}, InvalidConfigError, "linger.ms"),
    ],
)
def test_arguments(recoverable, arguments, error, match):
    with pytest.raises(error, match=match):
        recoverable(**arguments)


def test_wrong_types_are_named_and_pin_nothing(recoverable):
    producer = recoverable()
    value = bytearray(b"x")
    with pytest.raises(TypeError, match="record"):
        producer.send(b"x")
    with pytest.raises(TypeError, match="on_delivery"):
        producer.send(ProducerRecord("orders", value), 5)
    with pytest.raises(TypeError, match="option"):
        producer.send(ProducerRecord("orders", value), option=5)
    with pytest.raises(TypeError, match="action"):
        producer.send(ProducerRecord("orders", value), action=5)
    with pytest.raises(TypeError, match="key"):
        producer.send(ProducerRecord("orders", value, key=5))
    with pytest.raises(TypeError, match="value"):
        producer.send(ProducerRecord("orders", 5))
    with pytest.raises(TypeError, match="header"):
        producer.send(ProducerRecord("orders", value, headers=[5]))
    with pytest.raises(InvalidRecordError, match="key"):
        producer.send(ProducerRecord("orders", value, key=memoryview(b"abcd")[::2]))
    assert not is_pinned(value)
    producer.flush(1)
    assert producer.properties["linger.ms"] == "60000"
    assert producer.get_property("linger.ms") == "60000"
    assert producer.get_property("error_cb") is not None


@pytest.mark.parametrize("headers", [5, "", b"", "ab", ["ab"], [("a", 5)], {"a": 5}])
def test_what_are_no_headers_is_refused_as_by_a_kafka_producer(broker, recoverable, headers):
    producer = recoverable()
    with (
        KafkaProducer(broker.config()) as other,
        pytest.raises(TypeError, match="headers") as expected,
    ):
        other.send(ProducerRecord("orders", b"v", headers=headers))
    with pytest.raises(TypeError) as refused:
        producer.send(ProducerRecord("orders", b"v", headers=headers))
    assert str(refused.value) == str(expected.value)
