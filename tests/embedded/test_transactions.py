"""Transactions on the mock cluster."""

import sys
import threading
import time

import pytest
from faultlib import Outcomes, interrupt_after, run_program, within

from kafka_ext import (
    ConsumerGroupMetadata,
    ErrorCode,
    KafkaException,
    KafkaProducer,
    KafkaTimeoutError,
    ProducerRecord,
    TopicPartition,
)
from kafka_ext.testing import ApiKey, EmbeddedBroker


@pytest.fixture(params=[False, True], ids=["thread", "manual"])
def transactional(request, make_producer):
    producer = make_producer(
        {
            "transactional.id": "one",
            "enable.idempotence": ...,
            "enable.manual.events.poll": request.param,
        }
    )
    producer.init_transactions(30)
    return producer


@pytest.fixture
def transactional_on(make_producer):
    """Makes a producer of transactions on a broker, with its defaults but for what is given."""

    def make(broker, **settings):
        return make_producer(
            broker.config(transactional_id="one", **settings)
            | {
                "test.mock.num.brokers": ...,
                "enable.idempotence": ...,
            }
        )

    return make


def test_a_transactional_id_alone_means_idempotence(transactional):
    assert transactional.get_property("enable.idempotence") == "true"


@pytest.mark.parametrize(
    "error", ["CONCURRENT_TRANSACTIONS", "NOT_COORDINATOR", "COORDINATOR_LOAD_IN_PROGRESS"]
)
def test_init_waits_for_a_coordinator_that_is_not_ready(transactional_on, error):
    """As when it still aborts what a fenced predecessor has left: librdkafka gives up at once, and
    calls it retriable.
    """
    with EmbeddedBroker() as broker:
        broker.fail_requests(ApiKey.INIT_PRODUCER_ID, [ErrorCode[error]] * 2)
        producer = transactional_on(broker)
        producer.init_transactions(30)
        assert broker.unused_faults() == []


def test_init_does_not_wait_for_ever_for_a_coordinator_that_is_not_ready(transactional_on):
    with EmbeddedBroker() as broker:
        broker.fail_requests(ApiKey.INIT_PRODUCER_ID, [ErrorCode["CONCURRENT_TRANSACTIONS"]] * 1000)
        producer = transactional_on(broker)
        with within(1), pytest.raises(KafkaException) as raised:
            producer.init_transactions(1)
        assert raised.value.error.is_retriable
        broker.clear_faults()
        producer.init_transactions(30)


def test_begin_and_commit(transactional, reports):
    for round_ in range(2):
        transactional.begin_transaction()
        transactional.send(ProducerRecord("t", b"v", id=round_), reports)
        transactional.commit_transaction(30)
    assert (reports.ids, reports.errors) == ([0, 1], [None, None])


def test_begin_and_abort(make_producer, reports, transactional):
    transactional.begin_transaction()
    buffer = bytearray(b"v")
    transactional.send(ProducerRecord("t", buffer), reports)
    transactional.abort_transaction(30)
    transactional.flush(10)
    assert len(reports) == 1
    buffer.append(1)
    transactional.begin_transaction()
    transactional.send(ProducerRecord("t", b"v"), reports)
    transactional.commit_transaction(30)
    assert len(reports) == 2
    assert reports.errors[1] is None


@pytest.mark.parametrize("manual", [False, True])
@pytest.mark.parametrize("delay", [0.0, 0.3])
def test_a_transaction_begun_after_an_abort_of_records_in_flight_can_be_committed(
    transactional_on, manual, delay
):
    """Purging what is in flight would leave a hole in the sequence numbers, of which the broker
    complains in the next one.
    """
    with EmbeddedBroker(topics={"orders": 1}) as broker:
        producer = transactional_on(broker, **{"enable.manual.events.poll": manual})
        producer.init_transactions(30)
        for _ in range(3):
            outcomes = Outcomes()
            producer.begin_transaction()
            broker.round_trip_time(delay)
            for number in range(10):
                producer.send(ProducerRecord("orders", b"aborted"), outcomes.expect(number))
                time.sleep(0.01)
            producer.abort_transaction(30)
            outcomes.check(range(10))
            broker.round_trip_time(0)
            with producer.transaction(30):
                producer.send(ProducerRecord("orders", b"committed"), outcomes.expect("committed"))
            assert outcomes.reports["committed"][1] is None


def test_an_abort_keeps_to_its_time_and_can_be_taken_up_again(transactional_on, reports):
    with EmbeddedBroker(topics={"orders": 1}) as broker:
        producer = transactional_on(broker, **{"enable.manual.events.poll": True})
        producer.init_transactions(30)
        with producer.transaction(30):
            producer.send(ProducerRecord("orders", b"first"))
        producer.begin_transaction()
        broker.round_trip_time(1.5)
        producer.send(ProducerRecord("orders", b"aborted"), reports)
        time.sleep(0.2)
        with within(0.2), pytest.raises(KafkaTimeoutError):
            producer.abort_transaction(0.2)
        broker.round_trip_time(0)
        producer.abort_transaction(30)
        assert len(reports) == 1
        with producer.transaction(30):
            pass


@pytest.mark.slow(8)
@pytest.mark.parametrize("manual", [False, True], ids=["thread", "manual"])
def test_an_abort_waits_for_a_main_thread_of_librdkafkas_that_is_late(transactional_on, manual):
    """Statistics of ten thousand partitions keep it busy for tens of milliseconds, over and over.

    An abort in pieces shorter than that got the answers to one step for those to another: it raised
    STATE, or the next transaction was said to have begun before it had, and its first send raised
    STATE.
    """
    with EmbeddedBroker(topics={"orders": 1, "wide": 10_000}) as broker:
        producer = transactional_on(
            broker, **{"enable.manual.events.poll": manual, "statistics.interval.ms": 1}
        )
        producer.fetch_broker_metadata("wide")
        producer.init_transactions(30)
        for _ in range(10):
            outcomes = Outcomes()
            producer.begin_transaction()
            producer.send(ProducerRecord("orders", b"aborted"), outcomes.expect(1))
            producer.abort_transaction(30)
            outcomes.check([1])
        with producer.transaction(30):
            producer.send(ProducerRecord("orders", b"committed"))


@pytest.mark.parametrize(("ends", "other"), [("commit", "abort"), ("abort", "commit")])
def test_what_is_ended_one_way_is_not_ended_the_other(transactional_on, ends, other):
    """A commit that nobody waited for any more used to be tried again behind an abort's back, and
    to commit the next transaction early.
    """
    with EmbeddedBroker(topics={"orders": 1}) as broker:
        producer = transactional_on(broker)
        end, end_otherwise = (
            getattr(producer, f"{ends}_transaction"),
            getattr(producer, f"{other}_transaction"),
        )
        producer.init_transactions(30)
        producer.begin_transaction()
        producer.sync_send(ProducerRecord("orders", b"first"))
        broker.round_trip_time(1.0)
        with pytest.raises(KafkaTimeoutError, match=ends):
            end(0.05)
        with pytest.raises(KafkaException, match=f"{ends}_transaction is under way") as caught:
            end_otherwise(0.05)
        assert caught.value.error == ErrorCode.CONFLICT
        assert caught.value.error.is_retriable
        broker.round_trip_time(0)
        end(30)
        producer.begin_transaction()
        producer.sync_send(ProducerRecord("orders", b"second"))
        time.sleep(0.3)
        producer.sync_send(ProducerRecord("orders", b"third"))
        producer.commit_transaction(30)


@pytest.mark.found(3)
@pytest.mark.parametrize("manual", [False, True], ids=["thread", "manual"])
def test_an_abort_is_waited_for_in_small_pieces(transactional_on, manual):
    """One that simply blocked would return the first time: the coordinator takes longer to answer
    than any of the pieces.
    """
    with EmbeddedBroker(topics={"orders": 1}) as broker:
        producer = transactional_on(broker, **{"enable.manual.events.poll": manual})
        producer.init_transactions(30)
        for _ in range(3):
            outcomes = Outcomes()
            producer.begin_transaction()
            producer.sync_send(
                ProducerRecord("orders", b"written")
            )  # so that there is something to abort
            broker.round_trip_time(0.3)
            producer.send(ProducerRecord("orders", b"aborted"), outcomes.expect(1))
            waited = 0
            while True:
                try:
                    producer.abort_transaction(0.001)
                    break
                except KafkaTimeoutError:
                    waited += 1
            assert waited
            broker.round_trip_time(0)
            outcomes.check([1])


def test_the_context_manager_commits(transactional, reports):
    with transactional.transaction() as producer:
        assert producer is transactional
        producer.send(ProducerRecord("t", b"v"), reports)
    assert reports.errors == [None]
    with pytest.raises(KafkaException):  # it has ended
        transactional.commit_transaction(10)


def test_the_context_manager_aborts_when_the_block_raises(transactional, reports):
    with (  # noqa: PT012
        pytest.raises(ZeroDivisionError),
        transactional.transaction(),
    ):
        transactional.send(ProducerRecord("t", b"v"), reports)
        raise ZeroDivisionError
    transactional.flush(10)
    assert len(reports) == 1
    with transactional.transaction():  # the next one can begin
        pass


def test_a_callback_that_raises_ends_no_transaction_half(transactional, unraisable):
    def raising(metadata, error):
        raise ValueError("from the callback")

    manual = transactional.get_property("enable.manual.events.poll") == "true"
    transactional.begin_transaction()
    transactional.send(ProducerRecord("t", b"v"), raising)
    if manual:
        with pytest.raises(ValueError, match="from the callback"):
            transactional.commit_transaction(30)
    else:
        transactional.commit_transaction(30)
        assert [str(exc) for exc, _ in unraisable] == ["from the callback"]
    with (  # noqa: PT012
        pytest.raises(ZeroDivisionError),
        transactional.transaction(),
    ):
        transactional.send(ProducerRecord("t", b"v"), raising)
        raise ZeroDivisionError
    with transactional.transaction():
        pass


@pytest.mark.parametrize(
    ("offsets", "group"),
    [
        ({("in", 0): 5, TopicPartition("in", 1): 7}, "group"),
        ({("in", 0): 5}, ConsumerGroupMetadata("group")),
        (
            [type("Offset", (), {"topic": "in", "partition": 0, "offset": 5})()],
            ConsumerGroupMetadata("group"),
        ),
    ],
)
def test_send_offsets(transactional, offsets, group):
    transactional.fetch_broker_metadata(
        "in"
    )  # which creates it: offsets of a topic that is not there are tried until time is up
    with transactional.transaction():
        transactional.send(ProducerRecord("t", b"v"))
        transactional.send_offsets_to_transaction(offsets, group, timeout=30)


@pytest.mark.parametrize(
    ("offsets", "group", "kind"),
    [
        ({("in", -1): 5}, "group", ValueError),
        ({("in", 0): -5}, "group", ValueError),
        ({(5, 0): 5}, "group", TypeError),
        ({("in", 0): 5}, 5, TypeError),
        ({("in", 0): 5}, None, TypeError),
        (5, "group", TypeError),
    ],
    ids=repr,
)
def test_offsets_that_are_none(transactional, offsets, group, kind):
    with transactional.transaction():
        with pytest.raises(kind):
            transactional.send_offsets_to_transaction(offsets, group, timeout=30)
        transactional.send(ProducerRecord("t", b"v"))


def test_sending_outside_a_transaction_is_refused(transactional):
    value = bytearray(b"v")
    with pytest.raises(KafkaException) as caught:
        transactional.send(ProducerRecord("t", value))
    assert caught.value.error == ErrorCode.STATE
    value.append(1)


def test_a_second_begin_is_refused_and_the_first_goes_on(transactional, reports):
    transactional.begin_transaction()
    with pytest.raises(KafkaException) as caught:
        transactional.begin_transaction()
    assert caught.value.error == ErrorCode.STATE
    transactional.send(ProducerRecord("t", b"v"), reports)
    transactional.commit_transaction(30)
    assert reports.errors == [None]


@pytest.mark.parametrize(
    "call", ["init_transactions", "begin_transaction", "commit_transaction", "abort_transaction"]
)
def test_without_a_transactional_id_they_are_refused(producer, call):
    with pytest.raises(KafkaException) as caught:
        getattr(producer, call)()
    assert caught.value.error == ErrorCode.NOT_CONFIGURED


def test_no_broker_in_time(make_producer):
    nobody_there = {"bootstrap.servers": "127.0.0.1:1", "test.mock.num.brokers": ...}
    producer = make_producer(nobody_there | {"transactional.id": "x", "enable.idempotence": ...})
    with pytest.raises(TimeoutError) as caught:
        producer.init_transactions(0.3)
    assert caught.value.error.is_retriable


def test_other_threads_run_while_a_transaction_begins():
    """rd_kafka_begin_transaction() asks librdkafka's main thread and waits for it: not with the
    GIL.
    """
    ticks = [0]
    running = True

    def tick():
        while running:
            ticks[0] += 1
            time.sleep(0)  # gives the GIL away, and wants it back at once

    with (
        EmbeddedBroker(topics={"orders": 1}) as broker,
        KafkaProducer(broker.config(transactional_id="t")) as producer,
    ):
        producer.init_transactions(20)
        other = threading.Thread(target=tick)
        interval = sys.getswitchinterval()
        seen = 0
        other.start()
        sys.setswitchinterval(
            100
            # from here on the other thread runs when this one lets go of the GIL, and at no other
            # time
        )
        try:
            for _ in range(50):
                before = ticks[0]
                producer.begin_transaction()
                seen += ticks[0] - before
                producer.commit_transaction(20)
        finally:
            sys.setswitchinterval(interval)
            running = False
            other.join()
    assert seen > 0


@pytest.mark.parametrize("manual", [False, True], ids=["thread", "manual"])
def test_a_commit_is_waited_for_in_small_pieces(manual):
    """Each in a millisecond, while the coordinator takes its time: librdkafka itself would end the
    process (commit_slices.c).
    """
    run_program(f"""
        from kafka_ext.testing import EmbeddedBroker

        with EmbeddedBroker(topics={{"t": 1}}) as broker:
            manual = {{"enable.manual.events.poll": {manual}}}
            with KafkaProducer(broker.config(**manual), transactional_id="one", linger_ms=0) as producer:
                producer.init_transactions(30)
                broker.round_trip_time(0.05)
                for n in range(10):
                    producer.begin_transaction()
                    producer.send(ProducerRecord("t", b"%d" % n))
                    waited = 0
                    while True:
                        try:
                            producer.commit_transaction(0.001)
                            break
                        except KafkaTimeoutError as exc:
                            assert exc.error.is_retriable
                            waited += 1
                    assert waited
            broker.round_trip_time(0)
            assert [m.value for m in broker.messages("t", count=10)] == [b"%d" % n for n in range(10)]
        """)


def test_ctrl_c_in_a_commit_and_once_more(kafka_broker, make_producer):
    """The commit goes on; calling it again waits for its end, and the next transaction is one of
    its own.
    """
    producer = make_producer(
        kafka_broker.config(transactional_id="one")
        | {
            "test.mock.num.brokers": ...,
            "enable.idempotence": True,
        }
    )
    producer.init_transactions(30)
    # Until these are cleared no commit ends, however late the signal comes.
    kafka_broker.fail_requests(ApiKey.END_TXN, [ErrorCode.CONCURRENT_TRANSACTIONS] * 10_000)
    producer.begin_transaction()
    producer.send(ProducerRecord("t", b"first", partition=0))
    timer = interrupt_after(0.2)
    with pytest.raises(KeyboardInterrupt):
        producer.commit_transaction(30)
    timer.join()
    kafka_broker.clear_faults()
    producer.commit_transaction(30)
    producer.begin_transaction()
    producer.send(ProducerRecord("t", b"second", partition=0))
    producer.commit_transaction(30)
    assert [m.value for m in kafka_broker.messages("t", count=2)] == [b"first", b"second"]
