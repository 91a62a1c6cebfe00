"""What brokers, networks and callbacks do to records that were accepted.

Always: each accepted send gets exactly one report, and its buffer is let go of then; a send that
    raised gets no callback and holds nothing.
README.md in this folder says which faults, or parts of them, need a real broker.
"""

import threading
import time

import pytest
from faultlib import Outcomes, closed_port, is_pinned, wait_until, within

from kafka_ext import (
    ActionWhileQueueIsFull,
    ErrorCode,
    KafkaException,
    KafkaProducer,
    KafkaTimeoutError,
    PersistedStatus,
    ProducerRecord,
    QueueFullError,
)
from kafka_ext.testing import ApiKey, EmbeddedBroker


@pytest.fixture
def quiet():
    """Makes quiet producers, and closes them. They are idempotent, as is the default."""
    made = []

    def make(config, **settings):
        config = {"linger.ms": 0, "log_level": 0, "error_cb": lambda error: None} | config
        made.append(KafkaProducer(config | settings))
        return made[-1]

    yield make
    for producer in made:
        producer.close(1)


class Sending:
    """Sends numbered records in pinned bytearrays, and knows in the end whether each was reported
    once and released.
    """

    def __init__(self, producer, topic="orders"):
        self.producer = producer
        self.topic = topic
        self.outcomes = Outcomes()
        self.values = []

    def send(self, count, partition=None, size=0):
        for _ in range(count):
            number = len(self.values)
            value = bytearray(b"%d" % number).ljust(size, b".")
            self.producer.send(
                ProducerRecord(self.topic, value, partition=partition), self.outcomes.expect(number)
            )
            self.values.append(value)

    def check(self):
        self.outcomes.check(range(len(self.values)))
        wait_until(lambda: self.producer.metrics().pinned_messages == 0)
        assert not any(map(is_pinned, self.values))
        return self.outcomes.errors


# ---------------------------------------------------------------------- brokers and networks


def test_fault_01_broker_killed_in_flush(quiet):
    with EmbeddedBroker(isolation="process", topics={"orders": 4}) as broker:
        producer = quiet(broker.config(message_timeout_ms=1500))
        sending = Sending(producer)
        sending.send(1000)
        producer.flush(10)
        broker.round_trip_time(0.2)
        sending.send(1000)
        threading.Timer(0.05, broker.kill).start()
        with within(1.5):
            producer.flush()
        errors = sending.check()
        assert set(errors) <= {ErrorCode["MSG_TIMED_OUT"]}
        assert len(errors) == 1000
        with within(0):
            producer.close()


def test_fault_02_leader_changes_keep_the_order(quiet):
    with EmbeddedBroker(brokers=3, topics={"orders": 1}) as broker:
        producer = quiet(
            broker.config(
                enable_idempotence=True, topic_metadata_refresh_interval_ms=500, retry_backoff_ms=10
            )
        )
        sending = Sending(producer)
        for turn in range(6):
            sending.send(200, partition=0)
            broker.move_leader("orders", 0, turn % 3 + 1)
            sending.send(200, partition=0)
            time.sleep(0.05)
        producer.flush(60)
        assert not sending.check()
        broker.assert_delivered("orders", sending.values, ordered=True)
        producer.close()


def test_fault_03_no_way_to_any_broker(quiet):
    """The network as good as cut: connections break and are refused. Records wait for it to come
    back, for as long as they may.
    """
    with EmbeddedBroker(topics={"orders": 4}) as broker:
        producer = quiet(broker.config(message_timeout_ms=1000))
        sending = Sending(producer)
        sending.send(100)
        producer.flush(10)
        broker.stop_broker(1)
        sending.send(100)
        with within(1):
            producer.flush()
        assert sending.check() == [ErrorCode["MSG_TIMED_OUT"]] * 100
        broker.start_broker(1)
        # What comes after the cut is delivered, over a new connection.
        producer.close()
        with quiet(broker.config()) as after:
            after.sync_send(ProducerRecord("orders", b"after"), timeout=10)


def test_fault_03_the_network_comes_back_in_time(quiet):
    with EmbeddedBroker(topics={"orders": 4}) as broker:
        producer = quiet(broker.config())
        sending = Sending(producer)
        broker.stop_broker(1)
        sending.send(100)
        threading.Timer(0.3, broker.start_broker, (1,)).start()
        producer.flush(20)
        assert not sending.check()
        broker.assert_delivered("orders", sending.values, exactly_once=True)
        producer.close()


@pytest.mark.parametrize("idempotence", [False, True])
def test_fault_04_acknowledgements_lost(quiet, idempotence):
    """Stored, and sent again: one report each. That no copy is left takes a broker that
    de-duplicates, which this one does not.
    """
    with EmbeddedBroker(topics={"orders": 1}) as broker:
        producer = quiet(
            broker.config(
                enable_idempotence=idempotence, retry_backoff_ms=10, reconnect_backoff_ms=10
            )
        )
        sending = Sending(producer)
        broker.lose_acks(2)
        for _ in range(10):
            sending.send(50)
            producer.flush(20)
        assert not sending.check()
        broker.assert_delivered("orders", sending.values)
        assert not broker.unused_faults()
        producer.close()


def test_fault_05_broker_stopped_for_good(quiet):
    with EmbeddedBroker(isolation="process", topics={"orders": 4}) as broker:
        producer = quiet(broker.config(message_timeout_ms=1000))
        sending = Sending(producer)
        sending.send(100)
        producer.flush(10)
        broker.pause()
        sending.send(100)
        with within(1):
            producer.flush()
        assert sending.check() == [ErrorCode["MSG_TIMED_OUT"]] * 100
        with within(0.5):
            producer.close()
        broker.resume()


def test_fault_05_broker_stopped_and_continued(quiet):
    with EmbeddedBroker(isolation="process", topics={"orders": 4}) as broker:
        producer = quiet(broker.config())
        sending = Sending(producer)
        broker.pause()
        sending.send(1000)
        threading.Timer(0.3, broker.resume).start()
        producer.flush(20)
        assert not sending.check()
        broker.assert_delivered("orders", sending.values, exactly_once=True)
        producer.close()


def test_fault_06_not_enough_replicas_is_retried(quiet):
    with EmbeddedBroker(topics={"orders": 1}) as broker:
        producer = quiet(broker.config(retry_backoff_ms=10))
        sending = Sending(producer)
        broker.fail_requests(
            ApiKey.PRODUCE,
            [ErrorCode["NOT_ENOUGH_REPLICAS"], ErrorCode["NOT_ENOUGH_REPLICAS_AFTER_APPEND"]] * 3,
        )
        sending.send(100)
        producer.flush(20)
        assert not sending.check()
        broker.assert_delivered("orders", sending.values)
        producer.close()


def test_fault_06_not_enough_replicas_is_reported_when_retries_are_used_up(quiet):
    with EmbeddedBroker(topics={"orders": 1}) as broker:
        producer = quiet(broker.config(retry_backoff_ms=10, retries=2))
        sending = Sending(producer)
        broker.fail_requests(ApiKey.PRODUCE, [ErrorCode["NOT_ENOUGH_REPLICAS"]] * 3)
        sending.send(1)
        producer.flush(20)
        (error,) = sending.check()
        assert error == ErrorCode["NOT_ENOUGH_REPLICAS"]
        assert error.is_retriable
        assert not broker.unused_faults()
        producer.close()


def test_fault_07_timed_out_in_flight_is_possibly_persisted(quiet):
    with EmbeddedBroker(topics={"orders": 1}) as broker:
        producer = quiet(broker.config(message_timeout_ms=1000))
        producer.sync_send(ProducerRecord("orders", b"first"), timeout=10)
        broker.round_trip_time(30)
        sending = Sending(producer)
        sending.send(1)
        producer.flush(10)
        (error,) = sending.check()
        assert error == ErrorCode["MSG_TIMED_OUT"]
        metadata, _ = sending.outcomes.reports[0]
        assert metadata.persisted_status is PersistedStatus.POSSIBLY
        assert metadata.offset is None
        # And it is there: it only never said so.
        broker.round_trip_time(0)
        assert len(broker.messages("orders", 2)) == 2
        producer.close(0.1)


def test_fault_07_timed_out_in_the_queue_is_not_persisted(quiet):
    producer = quiet({"bootstrap.servers": closed_port(), "message.timeout.ms": 500})
    sending = Sending(producer)
    sending.send(10)
    with within(0.5 + 1):
        producer.flush()
    assert sending.check() == [ErrorCode["MSG_TIMED_OUT"]] * 10
    assert {metadata.persisted_status for metadata, _ in sending.outcomes.reports.values()} == {
        PersistedStatus.NOT
    }
    producer.close()


# ---------------------------------------------------------------------- limits


@pytest.mark.parametrize(
    "settings", [{"queue.buffering.max.messages": 10}, {"queue.buffering.max.kbytes": 10}]
)
def test_fault_08_queue_full(quiet, settings):
    """Our own sliced wait: it ends when there is room, when time is up, and never pins what it
    refuses.
    """
    with EmbeddedBroker(topics={"orders": 1}) as broker:
        producer = quiet(broker.config() | settings | {"linger.ms": 200})
        sending = Sending(producer)
        sending.send(10, size=1024)
        refused = bytearray(1024)
        for action, expected, seconds in (
            (ActionWhileQueueIsFull.NO_BLOCK, QueueFullError, 0),
            (ActionWhileQueueIsFull.BLOCK, KafkaTimeoutError, 0.05),
        ):
            with within(seconds), pytest.raises(expected):
                producer.send(
                    ProducerRecord("orders", refused), pytest.fail, action=action, timeout=0.05
                )
            assert not is_pinned(refused)
        assert (
            producer.try_send(ProducerRecord("orders", refused), pytest.fail)
            == ErrorCode["QUEUE_FULL"]
        )
        assert not is_pinned(refused)
        sending.send(100, size=1024)  # waits, again and again
        producer.flush(20)
        assert not sending.check()
        assert producer.metrics().blocked_seconds > 0
        broker.assert_delivered("orders", sending.values, exactly_once=True, ordered=True)
        producer.close()


def test_fault_08_queue_full_and_no_broker_waits_in_python_time(quiet):
    """A blocked send gives other threads their turn: librdkafka's blocking flag would be fine with
    that, but it could not be stopped.
    """
    producer = quiet({"bootstrap.servers": closed_port(), "queue.buffering.max.messages": 1})
    sending = Sending(producer)
    sending.send(1)
    blocked = threading.Thread(target=sending.send, args=(1,))
    blocked.start()
    turns = 0
    deadline = time.monotonic() + 0.3
    while time.monotonic() < deadline:
        turns += 1
        time.sleep(0.001)
    assert blocked.is_alive()
    assert turns > 20
    producer.purge()
    blocked.join(10)
    assert not blocked.is_alive()
    producer.close(0)
    assert len(sending.outcomes.errors) == 2
    assert not any(map(is_pinned, sending.values))


def test_fault_09_too_large_for_the_client(quiet):
    with EmbeddedBroker(topics={"orders": 1}) as broker:
        producer = quiet(broker.config(message_max_bytes=10_000))
        # The limit is of the record as it goes over the wire, whose other fields take some bytes.
        accepted, refused = [], []
        for size in range(9_900, 10_002):
            value = bytearray(size)
            try:
                producer.send(ProducerRecord("orders", value))
                accepted.append(size)
            except KafkaException as error:
                assert error.error == ErrorCode["MSG_SIZE_TOO_LARGE"]  # noqa: PT017
                assert not is_pinned(value)
                refused.append(size)
        assert max(accepted) + 1 == min(refused)
        assert min(refused) <= 10_001
        producer.flush(10)
        assert [len(message.value) for message in broker.messages("orders")] == accepted


def test_fault_10_too_large_for_the_broker(quiet):
    with EmbeddedBroker(topics={"orders": 1}) as broker:
        producer = quiet(broker.config(linger_ms=100))
        producer.sync_send(ProducerRecord("orders", b"warm"), timeout=10)
        sending = Sending(producer)
        broker.fail_requests(ApiKey.PRODUCE, [ErrorCode["MSG_SIZE_TOO_LARGE"]])
        sending.send(50)
        producer.flush(10)
        errors = sending.check()
        assert set(errors) == {ErrorCode["MSG_SIZE_TOO_LARGE"]}
        assert len(errors) == 50 or len(broker.messages("orders")) == 51 - len(errors)
        producer.close()


def test_fault_11_unknown_topic(quiet):
    with EmbeddedBroker(auto_create_topics=False, topics={"orders": 1}) as broker:
        producer = quiet(broker.config(message_timeout_ms=3000))
        broker.fail_topic("nowhere", ErrorCode["UNKNOWN_TOPIC_OR_PART"])
        sending = Sending(producer, "nowhere")
        with within(3 + 1):
            try:
                sending.send(1)
            except KafkaException as error:
                assert error.error == ErrorCode["UNKNOWN_TOPIC"]  # noqa: PT017
            producer.flush()
        errors = sending.check()
        assert len(errors) == len(sending.values)
        assert set(errors) <= {
            ErrorCode["UNKNOWN_TOPIC"],
            ErrorCode["UNKNOWN_TOPIC_OR_PART"],
            ErrorCode["MSG_TIMED_OUT"],
        }
        producer.close()


@pytest.mark.parametrize("headers", [None, [("name", b"value")]])
def test_fault_12_unknown_partition(quiet, headers):
    """Raised once the partitions are known, reported before; never both. With headers it was a
    double free before librdkafka 2.12.
    """
    with EmbeddedBroker(topics={"orders": 1}) as broker:
        broker.round_trip_time(3)  # what the partitions are is not known before the first send
        producer = quiet(broker.config())
        outcomes = Outcomes()
        raised = []
        values = [bytearray(b"x") for _ in range(100)]
        for number, value in enumerate(values):
            try:
                producer.send(
                    ProducerRecord("orders", value, partition=999, headers=headers),
                    outcomes.expect(number),
                )
            except KafkaException as error:
                assert error.error == ErrorCode["UNKNOWN_PARTITION"]  # noqa: PT017
                raised.append(number)
            if number == 50:
                broker.round_trip_time(0)
                producer.flush(20)
                producer.fetch_broker_metadata("orders")
        producer.flush(10)
        assert raised
        outcomes.check(set(range(100)) - set(raised))
        assert set(outcomes.errors) == {ErrorCode["UNKNOWN_PARTITION"]}
        assert not any(map(is_pinned, values))
        producer.sync_send(ProducerRecord("orders", b"x", partition=0), timeout=10)
        producer.close()


# ---------------------------------------------------------------------- fatal


@pytest.mark.parametrize("manual", [False, True])
def test_fault_13_fatal_error(quiet, manual):
    with EmbeddedBroker(topics={"orders": 1}) as broker:
        heard = []
        producer = quiet(
            broker.config(enable_idempotence=True),
            **{"enable.manual.events.poll": manual, "error_cb": heard.append, "linger.ms": 5000},
        )
        sending = Sending(producer)
        sending.send(10)
        assert producer.fatal_error() is None
        producer.handle.test_fatal_error(ErrorCode["OUT_OF_ORDER_SEQUENCE_NUMBER"], "a test")
        value = bytearray(b"x")
        with pytest.raises(KafkaException) as caught:
            producer.send(ProducerRecord("orders", value), pytest.fail)
        assert caught.value.error == ErrorCode["OUT_OF_ORDER_SEQUENCE_NUMBER"]
        assert caught.value.error.is_fatal
        assert "a test" in caught.value.error.message
        assert not is_pinned(value)
        assert producer.try_send(ProducerRecord("orders", value), pytest.fail).is_fatal
        for more in (
            {"headers": {"a": b"1"}},
            {"timestamp": 1234567},
        ):  # another call of librdkafka's, and another code
            assert producer.try_send(ProducerRecord("orders", value, **more), pytest.fail).is_fatal
        for more in ({}, {"timestamps": 1234567}):
            batch = producer.send_batch("orders", [b"x"], **more)
            batch.wait(10)
            assert [error.is_fatal for _, error in batch.errors()] == [True]
        assert producer.fatal_error() == ErrorCode["OUT_OF_ORDER_SEQUENCE_NUMBER"]
        producer.flush(
            10
        )  # what the fatal error fails is reported; flush itself has nothing to complain of
        for error in sending.check():
            # Those purged for it say why.
            assert error.is_fatal
            assert "OUT_OF_ORDER_SEQUENCE_NUMBER" in f"{error.name} {error.message}"
        with within(0):
            producer.close()
        assert any(error.is_fatal for error in heard)


# ---------------------------------------------------------------------- callbacks


def test_fault_18_a_thousand_callbacks_that_raise(make_producer, unraisable):
    producer = make_producer()
    values = [bytearray(b"x") for _ in range(1000)]
    called = []

    def on_delivery(metadata, error):
        called.append(metadata.record_id)
        raise RuntimeError(metadata.record_id)

    for number, value in enumerate(values):
        producer.send(ProducerRecord("t", value, id=number, partition=0), on_delivery)
    producer.flush(10)
    assert called == list(range(1000))
    assert [error.args[0] for error, _ in unraisable] == called
    assert producer.metrics().callback_errors == 1000
    assert not any(map(is_pinned, values))


def test_fault_18_a_thousand_callbacks_that_raise_under_manual_polling(manual):
    values = [bytearray(b"x") for _ in range(1000)]
    called = []

    def on_delivery(metadata, error):
        called.append(metadata.record_id)
        raise RuntimeError(metadata.record_id)

    for number, value in enumerate(values):
        manual.send(ProducerRecord("t", value, id=number, partition=0), on_delivery)
    raised = []
    for _ in range(1000):
        try:
            manual.flush(10)
            break
        except (
            RuntimeError
        ) as error:  # the first of several in Python 3.10, where the others are its context
            while error is not None:
                raised.append(error)
                error = error.__context__
        except Exception as group:  # noqa: BLE001 an ExceptionGroup, which Python 3.10 has not
            raised.extend(group.exceptions)
    assert called == list(range(1000))
    assert [error.args[0] for error in raised] == called
    assert not any(map(is_pinned, values))
    manual.flush()


def test_fault_18_callbacks_that_raise_what_ends_programs(make_producer, unraisable):
    producer = make_producer()
    reports = []

    def on_delivery(metadata, error):
        reports.append(error)
        raise (SystemExit, KeyboardInterrupt, GeneratorExit)[len(reports) % 3]

    for _ in range(30):
        producer.send(ProducerRecord("t", bytearray(b"x")), on_delivery)
    producer.flush(10)
    assert reports == [None] * 30
    assert len(unraisable) == 30


@pytest.mark.parametrize("manual", [False, True])
def test_fault_19_a_callback_that_sends_on_a_full_queue(quiet, manual):
    """In a callback there is nobody to wait for but itself: QueueFullError at once, or room."""
    with EmbeddedBroker(topics={"orders": 1}) as broker:
        producer = quiet(
            broker.config(),
            **{"queue.buffering.max.messages": 10, "enable.manual.events.poll": manual},
        )
        refused = []
        reports = []

        def on_delivery(metadata, error):
            reports.append(error)
            if len(reports) > 10:
                return
            while not refused or len(refused) < len(reports):
                try:
                    producer.send(
                        ProducerRecord("orders", b"again"),
                        lambda metadata, error: reports.append(error),
                    )
                except QueueFullError as full:  # noqa: PERF203
                    refused.append(full)

        for _ in range(10):
            producer.send(ProducerRecord("orders", b"x"), on_delivery)
        with within(5):
            producer.flush(20)
        assert len(reports) >= 10
        assert refused
        assert set(reports) == {None}
        producer.close()


def test_fault_32_event_callbacks_that_raise(unraisable):
    raised = []

    def callback(name):
        def on_event(*arguments):
            raised.append(name)
            raise RuntimeError(name)

        return on_event

    producer = KafkaProducer(
        {
            "bootstrap.servers": closed_port(),
            "statistics.interval.ms": 50,
            "message.timeout.ms": 500,
            "enable.idempotence": False,
        },
        **{name: callback(name) for name in ("error_cb", "stats_cb", "log_cb")},
    )
    sending = Sending(producer)
    sending.send(10)
    wait_until(lambda: {"error_cb", "stats_cb", "log_cb"} <= set(raised))
    producer.flush(10)
    assert sending.check() == [ErrorCode["MSG_TIMED_OUT"]] * 10
    producer.close()
    assert [error.args[0] for error, _ in unraisable] == raised
    assert producer.metrics().callback_errors == len(raised)


def test_fault_39_slow_callback(make_producer):
    """It holds up the reports behind it, and nothing else: sending goes on, and metrics() shows
    what waits.
    """
    producer = make_producer()
    entered, go_on = threading.Event(), threading.Event()
    outcomes = Outcomes()

    def slow(metadata, error):
        entered.set()
        assert go_on.wait(20)

    producer.send(ProducerRecord("t", bytearray(b"x")), slow)
    assert entered.wait(10)
    for number in range(100):
        producer.send(ProducerRecord("t", bytearray(b"x")), outcomes.expect(number))
    with pytest.raises(KafkaTimeoutError), within(0.2):
        producer.flush(0.2)
    metrics = producer.metrics()
    assert metrics.outstanding == 101
    assert metrics.pinned_messages == 101
    assert not outcomes.reports
    go_on.set()
    producer.flush(10)
    outcomes.check(range(100))
    assert not outcomes.errors


@pytest.mark.parametrize("manual", [False, True])
def test_fault_40_no_broker_at_the_start(quiet, manual):
    heard = []
    with within(0):
        producer = quiet(
            {"bootstrap.servers": closed_port(), "message.timeout.ms": 1000},
            **{"error_cb": heard.append, "enable.manual.events.poll": manual},
        )
    sending = Sending(producer)
    with within(0):
        sending.send(100)
    with within(1):
        producer.flush()
    assert sending.check() == [ErrorCode["MSG_TIMED_OUT"]] * 100
    assert {error.name for error in heard} & {"ALL_BROKERS_DOWN", "TRANSPORT"}
    with pytest.raises(KafkaTimeoutError), within(0.2):
        producer.fetch_broker_metadata(timeout=0.2)
    with within(0):
        producer.close()
