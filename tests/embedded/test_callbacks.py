"""Delivery callbacks: exactly once, what they are told, what they may call, and what happens when
they raise.
"""

import functools
import logging
import sys
import threading
import time

import pytest

from kafka_ext import (
    ErrorCode,
    KafkaError,
    KafkaException,
    KafkaProducer,
    KafkaTimeoutError,
    PersistedStatus,
    ProducerRecord,
    RecordMetadata,
    TimestampType,
)

STUCK = {"bootstrap.servers": "127.0.0.1:1", "test.mock.num.brokers": ...}
BOTH_MODES = pytest.mark.parametrize("manual", [False, True], ids=["thread", "manual"])


def mode(manual):
    return {"enable.manual.events.poll": manual}


class TestExactlyOnce:
    @BOTH_MODES
    def test_delivered(self, make_producer, reports, manual):
        producer = make_producer(mode(manual))
        for number in range(1000):
            producer.send(ProducerRecord("t", b"%d" % number, id=number), reports)
        producer.flush(30)
        assert sorted(reports.ids) == list(range(1000))
        assert reports.errors == [None] * 1000
        producer.close()
        assert len(reports) == 1000

    @BOTH_MODES
    def test_timed_out(self, make_producer, reports, manual):
        producer = make_producer(STUCK | mode(manual), message_timeout_ms=100)
        for number in range(100):
            producer.send(ProducerRecord("t", b"v", id=number), reports)
        producer.flush(30)
        producer.close()
        assert sorted(reports.ids) == list(range(100))
        assert set(reports.errors) == {ErrorCode.MSG_TIMED_OUT}

    @BOTH_MODES
    def test_purged(self, make_producer, reports, manual):
        producer = make_producer(STUCK | mode(manual))
        for number in range(100):
            producer.send(ProducerRecord("t", b"v", id=number), reports)
        producer.purge()
        producer.flush(30)
        producer.purge()
        producer.close()
        assert sorted(reports.ids) == list(range(100))
        assert set(reports.errors) == {ErrorCode.PURGE_QUEUE}

    @BOTH_MODES
    def test_closed(self, make_producer, reports, manual):
        producer = make_producer(mode(manual) | {"linger.ms": 60000})
        for number in range(100):
            producer.send(ProducerRecord("t", b"v", id=number), reports)
        producer.close()
        assert sorted(reports.ids) == list(range(100))
        assert reports.errors == [None] * 100

    @BOTH_MODES
    def test_purged_in_flight(self, make_producer, reports, manual):
        """A broker that is slow to answer: the request is out when it is purged, and may be
        persisted.
        """
        producer = make_producer(mode(manual) | {"test.mock.broker.rtt": 300})
        producer.send(ProducerRecord("t", b"v", id=1), reports)
        deadline = time.monotonic() + 30
        while not reports and time.monotonic() < deadline:
            producer.purge(in_queue=False)
            if manual:
                producer.poll_events(0.05)
            else:
                time.sleep(0.05)
        assert reports.errors == [ErrorCode.PURGE_INFLIGHT]
        assert reports[0][0].persisted_status is PersistedStatus.POSSIBLY
        producer.close()
        assert len(reports) == 1

    def test_from_many_threads(self, producer, reports):
        def send(first):
            for number in range(first, first + 500):
                producer.send(ProducerRecord("t", b"%d" % number, id=number), reports)

        threads = [threading.Thread(target=send, args=(first,)) for first in range(0, 4000, 500)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        producer.flush(30)
        assert sorted(reports.ids) == list(range(4000))

    def test_close_races_send(self, make_producer, reports):
        """Each send either raises or calls back."""
        for _ in range(10):
            producer = make_producer()
            accepted, barrier = [], threading.Barrier(5)

            def send(thread, producer=producer, accepted=accepted, barrier=barrier):
                barrier.wait()
                for number in range(1000):
                    try:
                        producer.send(ProducerRecord("t", b"v", id=(thread, number)), reports)
                    except KafkaException:
                        return
                    accepted.append((thread, number))

            threads = [threading.Thread(target=send, args=(thread,)) for thread in range(4)]
            for thread in threads:
                thread.start()
            barrier.wait()
            time.sleep(0.002)
            producer.close()
            for thread in threads:
                thread.join()
            assert sorted(reports.ids) == sorted(accepted)
            reports.clear()

    def test_the_same_record_twice(self, producer, reports):
        record = ProducerRecord("t", b"v", id="same")
        producer.send(record, reports)
        producer.send(record, reports)
        producer.flush(10)
        assert reports.ids == ["same", "same"]
        assert reports[0][0] is not reports[1][0]


class TestAnyCallable:
    def test_methods_partials_classes_and_builtins(self, producer):
        seen = []

        class Callable:
            def __call__(self, metadata, error):
                seen.append("object")

            def method(self, metadata, error):
                seen.append("method")

        class Made:
            def __init__(self, metadata, error):
                seen.append("class")

        def more(extra, metadata, error):
            seen.append(extra)

        for callback in (
            Callable(),
            Callable().method,
            Made,
            functools.partial(more, "partial"),
            lambda *_: seen.append("lambda"),
            print,
        ):
            producer.send(ProducerRecord("t", b""), callback)
        producer.flush(10)
        assert sorted(seen) == ["class", "lambda", "method", "object", "partial"]

    def test_one_that_takes_too_few_arguments_raises_like_any_other(self, producer, unraisable):
        producer.send(ProducerRecord("t", b""), lambda: None)
        producer.flush(10)
        assert [type(exc) for exc, _ in unraisable] == [TypeError]


class TestWhatItIsTold:
    @BOTH_MODES
    @pytest.mark.found(28)
    def test_success(self, make_producer, reports, manual):
        producer = make_producer(mode(manual))
        record = ProducerRecord(
            "t", b"value", key=b"key", partition=2, headers=[("a", b"1"), ("a", None)], id=7
        )
        producer.send(record, reports)
        producer.flush(10)
        metadata, error = reports[0]
        assert error is None
        assert isinstance(metadata, RecordMetadata)
        assert (metadata.topic, metadata.partition, metadata.offset, metadata.record_id) == (
            "t",
            2,
            0,
            7,
        )
        assert (metadata.key_size, metadata.value_size) == (3, 5)
        assert metadata.headers == [("a", b"1"), ("a", None)]
        assert metadata.persisted_status is PersistedStatus.DONE
        assert metadata.broker_id == 1
        assert 0 <= metadata.latency < 30
        # The mock broker says that it appended at 1234, in 1970, which is no time.
        assert metadata.timestamp is None
        assert metadata.timestamp_type is TimestampType.NOT_AVAILABLE
        assert str(metadata) == "t-2@0:id[7],Persisted"

    def test_failure(self, make_producer, reports):
        producer = make_producer(STUCK)
        producer.send(
            ProducerRecord(
                "t", b"value", key=b"key", headers={"a": b"1"}, timestamp=1767225600123, id=7
            ),
            reports,
        )
        producer.purge()
        producer.flush(10)
        metadata, error = reports[0]
        assert isinstance(error, KafkaError)
        assert error == ErrorCode.PURGE_QUEUE
        assert error.message
        assert (metadata.topic, metadata.partition, metadata.offset, metadata.record_id) == (
            "t",
            None,
            None,
            7,
        )
        assert (metadata.key_size, metadata.value_size) == (3, 5)
        assert metadata.headers == [("a", b"1")]
        assert metadata.persisted_status is PersistedStatus.NOT
        assert metadata.broker_id is None
        assert (metadata.timestamp, metadata.timestamp_type) == (None, TimestampType.NOT_AVAILABLE)
        assert str(metadata) == "t-NA@NA:id[7],NotPersisted"
        assert repr(metadata) == f"<RecordMetadata {metadata}>"

    def test_nothing_but_the_sending_is_known_with_acks_0(self, make_producer):
        """No broker answers, so the timestamp is the record's own, and whether it is there is not
        known.
        """
        producer = make_producer({"acks": 0})
        metadata = producer.sync_send(
            ProducerRecord("t", b"value", partition=1, timestamp=1767225600123, id=7), timeout=10
        )
        assert metadata.offset is None
        assert (metadata.timestamp, metadata.timestamp_type) == (
            1767225600123,
            TimestampType.CREATE_TIME,
        )
        assert metadata.persisted_status is PersistedStatus.POSSIBLY
        assert (
            str(metadata) == "t-1@NA:id[7],CreateTime[2026-01-01T00:00:00.123Z],PossiblyPersisted"
        )

    def test_a_timestamp_no_calendar_has_can_be_printed(self, make_producer):
        producer = make_producer({"acks": 0})
        metadata = producer.sync_send(
            ProducerRecord("t", b"", partition=1, timestamp=2**63 - 1), timeout=10
        )
        assert metadata.timestamp == 2**63 - 1
        assert str(metadata) == f"t-1@NA,CreateTime[{2**63 - 1}],PossiblyPersisted"

    def test_without_an_id_or_headers(self, producer):
        metadata = producer.sync_send(ProducerRecord("t", None), timeout=10)
        assert metadata.record_id is None
        assert metadata.headers is None
        assert (metadata.key_size, metadata.value_size) == (0, 0)
        assert ":id[" not in str(metadata)

    def test_ids_of_any_type_come_back_themselves(self, producer, reports):
        ids = [
            0,
            -1,
            2**100,
            "text",
            b"bytes",
            ("a", 1),
            [1, 2],
            {"a": 1},
            object(),
            False,
            1.5,
            print,
            type,
        ]
        for record_id in ids:
            producer.send(ProducerRecord("t", b"", id=record_id, partition=0), reports)
        producer.flush(10)
        assert all(given is got for given, got in zip(ids, reports.ids, strict=True))

    def test_metadata_stays_valid_when_kept_and_is_not_shared(self, producer):
        kept = []
        for number in range(300):
            producer.send(
                ProducerRecord("t", bytes(number), partition=0, id=number),
                lambda metadata, error: kept.append(metadata),
            )
        producer.flush(10)
        producer.close()
        assert [metadata.value_size for metadata in kept] == list(range(300))
        assert [metadata.offset for metadata in kept] == list(range(300))
        assert len({id(metadata) for metadata in kept}) == 300

    def test_metadata_cannot_be_made_or_written(self, producer):
        with pytest.raises(TypeError):
            RecordMetadata()
        metadata = producer.sync_send(ProducerRecord("t", b""), timeout=10)
        with pytest.raises(AttributeError):
            metadata.offset = 5

    def test_runs_in_the_events_thread(self, producer):
        idents = []
        for _ in range(20):
            producer.send(ProducerRecord("t", b""), lambda *_: idents.append(threading.get_ident()))
        producer.flush(10)
        assert len(set(idents)) == 1
        assert idents[0] != threading.get_ident()

    @pytest.mark.parametrize("serve", ["poll_events", "flush", "sync_send", "close"])
    def test_runs_in_the_thread_that_serves(self, manual, serve):
        idents = []
        manual.send(
            ProducerRecord("t", b"", partition=0), lambda *_: idents.append(threading.get_ident())
        )
        time.sleep(0.3)
        assert idents == []  # nobody else serves
        if serve == "poll_events":
            manual.poll_events(10)
        elif serve == "sync_send":
            manual.sync_send(ProducerRecord("t", b"", partition=0), timeout=10)
        else:
            getattr(manual, serve)()
        assert idents == [threading.get_ident()]


class TestNobodyListens:
    def test_a_failure_is_counted_and_logged(self, make_producer, caplog):
        producer = make_producer(STUCK)
        with caplog.at_level(logging.WARNING, "kafka_ext"):
            for _ in range(5):
                producer.send(ProducerRecord("orders", b"v"))
            producer.purge()
            producer.flush(10)
        assert producer.metrics().failed == 5
        logged = [record for record in caplog.records if "orders" in record.getMessage()]
        assert logged
        assert all(record.levelno == logging.WARNING for record in logged)
        assert "PURGE_QUEUE" in logged[0].getMessage()
        assert sum(int(record.getMessage().split()[1]) for record in logged) == 5

    def test_a_success_is_silent(self, producer, caplog):
        producer.send(ProducerRecord("orders", b"v"))
        producer.flush(10)
        assert not [record for record in caplog.records if "orders" in record.getMessage()]
        assert producer.metrics().delivered == 1


class TestRaising:
    def test_in_the_events_thread_it_goes_to_the_hook(self, producer, unraisable):
        def raising(metadata, error):
            raise ValueError(metadata.record_id)

        for number in range(1000):
            producer.send(ProducerRecord("t", b"", partition=0, id=number), raising)
        producer.flush(30)
        assert [exc.args[0] for exc, _ in unraisable] == list(range(1000))
        assert all(obj is raising for _, obj in unraisable)
        assert unraisable[0][0].__traceback__ is not None
        metrics = producer.metrics()
        assert (metrics.callback_errors, metrics.delivered) == (1000, 1000)

    def test_in_the_events_thread_even_a_system_exit_ends_nothing(
        self, producer, reports, unraisable
    ):
        producer.send(ProducerRecord("t", b""), lambda *_: sys.exit(3))
        producer.flush(10)
        producer.send(ProducerRecord("t", b""), reports)
        producer.flush(10)
        assert reports.errors == [None]
        assert [type(exc) for exc, _ in unraisable] == [SystemExit]

    @pytest.mark.parametrize("serve", ["poll_events", "flush", "close"])
    def test_manual_polling_raises_one_as_it_is(self, manual, reports, serve):
        failure = ValueError("from the callback")

        def raising(metadata, error):
            raise failure

        def serve_all():
            for _ in range(
                100 if serve == "poll_events" else 1
            ):  # a call may have served logs alone
                getattr(manual, serve)(10)

        manual.send(ProducerRecord("t", b"", partition=0), raising)
        manual.send(ProducerRecord("t", b"", partition=0), reports)
        with pytest.raises(ValueError, match="from the callback") as caught:
            serve_all()
        assert caught.value is failure
        manual.close()
        assert reports.errors == [None]

    @pytest.mark.skipif(sys.version_info < (3, 11), reason="no ExceptionGroup")
    def test_manual_polling_raises_several_as_a_group(self, make_producer, reports):
        producer = make_producer(mode(True) | {"linger.ms": 100})

        def raising(metadata, error):
            raise ValueError(metadata.record_id)

        for number in range(3):
            producer.send(ProducerRecord("t", b"", partition=0, id=number), raising)
        producer.send(ProducerRecord("t", b"", partition=0), reports)
        with pytest.raises(ExceptionGroup) as caught:
            producer.flush(10)
        assert [exc.args[0] for exc in caught.value.exceptions] == [0, 1, 2]
        assert reports.errors == [None]
        assert producer.metrics().callback_errors == 3
        producer.flush(10)  # they are raised once

    def test_manual_polling_sync_send_raises_it_too(self, manual):
        def raising(metadata, error):
            raise ValueError("from another record")

        manual.send(ProducerRecord("t", b"", partition=0), raising)
        with pytest.raises(ValueError, match="from another record"):
            manual.sync_send(ProducerRecord("t", b"", partition=0), timeout=10)

    def test_keyboard_interrupt_goes_first(self, make_producer):
        producer = make_producer(mode(True) | {"linger.ms": 100})
        for exception in (ValueError, KeyboardInterrupt):

            def raising(metadata, error, exception=exception):
                raise exception

            producer.send(ProducerRecord("t", b"", partition=0), raising)
        with pytest.raises(KeyboardInterrupt):
            producer.flush(10)


class TestCallsInside:
    """send, try_send, send_future and purge work; flush, sync_send, close and poll_events raise at
    once instead of hanging.
    """

    def inside(self, producer, call):
        """The result of `call(metadata)` in a delivery callback: a value, or the exception."""
        outcome = []

        def on_delivery(metadata, error):
            try:
                outcome.append(call(metadata))
            except Exception as exc:  # noqa: BLE001 - it is what is looked at
                outcome.append(exc)

        producer.send(ProducerRecord("t", b"outer"), on_delivery)
        producer.flush(10)
        assert len(outcome) == 1
        return outcome[0]

    @BOTH_MODES
    def test_send(self, make_producer, reports, manual):
        producer = make_producer(mode(manual))
        assert (
            self.inside(
                producer, lambda _: producer.send(ProducerRecord("t", b"inner", id=1), reports)
            )
            is None
        )
        producer.flush(10)
        assert (reports.ids, reports.errors) == ([1], [None])

    @BOTH_MODES
    def test_try_send(self, make_producer, reports, manual):
        producer = make_producer(mode(manual))
        assert (
            self.inside(
                producer, lambda _: producer.try_send(ProducerRecord("t", b"inner", id=1), reports)
            )
            is None
        )
        producer.flush(10)
        assert (reports.ids, reports.errors) == ([1], [None])

    @BOTH_MODES
    def test_send_future(self, make_producer, manual):
        producer = make_producer(mode(manual))
        future = self.inside(
            producer, lambda _: producer.send_future(ProducerRecord("t", b"inner", id=1))
        )
        producer.flush(10)
        assert future.result(10).record_id == 1

    @BOTH_MODES
    def test_purge(self, make_producer, manual):
        producer = make_producer(mode(manual))
        assert self.inside(producer, lambda _: producer.purge()) is None

    @BOTH_MODES
    def test_metrics_and_properties(self, make_producer, manual):
        producer = make_producer(mode(manual))
        assert self.inside(producer, lambda _: producer.metrics().sent) == 1
        assert self.inside(producer, lambda _: producer.get_property("linger.ms")) == "0"

    @BOTH_MODES
    def test_fetch_broker_metadata(self, make_producer, manual):
        """It waits for a broker, not for callbacks."""
        producer = make_producer(mode(manual))
        assert set(self.inside(producer, lambda _: producer.fetch_broker_metadata().brokers)) == {1}

    @BOTH_MODES
    @pytest.mark.parametrize(
        ("name", "call"),
        [
            ("flush", lambda producer: producer.flush()),
            ("flush", lambda producer: producer.flush(0)),
            ("sync_send", lambda producer: producer.sync_send(ProducerRecord("t", b""))),
            ("close", lambda producer: producer.close()),
            ("close", lambda producer: producer.__exit__(None, None, None)),
            ("poll_events", lambda producer: producer.poll_events()),
            ("init_transactions", lambda producer: producer.init_transactions()),
            ("commit_transaction", lambda producer: producer.commit_transaction()),
            ("abort_transaction", lambda producer: producer.abort_transaction()),
        ],
    )
    def test_what_would_wait_raises_at_once(self, make_producer, manual, name, call):
        producer = make_producer(mode(manual))
        started = time.monotonic()
        raised = self.inside(producer, lambda _: call(producer))
        assert isinstance(raised, KafkaException)
        assert raised.error == ErrorCode.STATE
        assert name in str(raised)
        assert time.monotonic() - started < 8
        assert producer.metrics().sent == 1
        assert (
            producer.sync_send(ProducerRecord("t", b"still works"), timeout=10).offset is not None
        )

    def test_with_another_producer_everything_works(self, make_producer):
        producer, other = make_producer(), make_producer()

        def call(metadata):
            offset = other.sync_send(ProducerRecord("t", b"", partition=0), timeout=10).offset
            other.flush(10)
            other.close(10)
            return offset

        assert self.inside(producer, call) == 0

    def test_in_a_futures_callback_too(self, make_producer):
        producer = make_producer({"linger.ms": 50})
        raised = []

        def done(future):
            try:
                producer.flush()
            except KafkaException as exc:
                raised.append(exc.error.code)

        producer.send_future(ProducerRecord("t", b"")).add_done_callback(done)
        producer.flush(10)
        assert raised == [ErrorCode.STATE]

    @BOTH_MODES
    def test_a_chain_of_sends_from_callbacks(self, make_producer, manual):
        producer = make_producer(mode(manual))
        seen = []

        def on_delivery(metadata, error):
            seen.append(metadata.record_id)
            if metadata.record_id < 50:
                producer.send(ProducerRecord("t", b"", id=metadata.record_id + 1), on_delivery)

        producer.send(ProducerRecord("t", b"", id=0), on_delivery)
        producer.flush(30)  # waits for what callbacks send as well
        assert seen == list(range(51))

    @BOTH_MODES
    def test_sending_while_closing_is_refused(self, make_producer, manual):
        producer = make_producer(mode(manual) | {"linger.ms": 60000})
        answers = []

        def on_delivery(metadata, error):
            answers.append(producer.try_send(ProducerRecord("t", b"")))

        producer.send(ProducerRecord("t", b""), on_delivery)
        producer.close()
        assert answers == [ErrorCode.STATE]


class TestFutures:
    def test_success(self, make_producer):
        producer = make_producer()
        future = producer.send_future(ProducerRecord("t", b"v", id=5))
        assert future.result(10).record_id == 5

    def test_failure(self, make_producer):
        producer = make_producer(STUCK)
        future = producer.send_future(ProducerRecord("t", b"v"))
        producer.purge()
        with pytest.raises(KafkaException) as caught:
            future.result(10)
        assert caught.value.error == ErrorCode.PURGE_QUEUE
        assert future.exception(0) is caught.value

    def test_cannot_be_cancelled_for_the_record_cannot_be_called_back(self, make_producer):
        producer = make_producer(STUCK)
        future = producer.send_future(ProducerRecord("t", b"v"))
        assert not future.cancel()
        producer.close(0)
        assert isinstance(future.exception(0), KafkaException)


class TestSyncSend:
    @BOTH_MODES
    def test_returns_what_became_of_it(self, make_producer, manual):
        producer = make_producer(mode(manual))
        assert [
            producer.sync_send(ProducerRecord("t", b"v", partition=1), timeout=10).offset
            for _ in range(3)
        ] == [0, 1, 2]

    @BOTH_MODES
    def test_raises_what_it_failed_of(self, make_producer, manual):
        producer = make_producer(mode(manual))
        with pytest.raises(KafkaException) as caught:
            producer.sync_send(ProducerRecord("t", b"v", partition=999), timeout=10)
        assert caught.value.error == ErrorCode.UNKNOWN_PARTITION

    @BOTH_MODES
    def test_runs_out_of_time_and_keeps_the_record(self, make_producer, manual):
        producer = make_producer(STUCK | mode(manual))
        with pytest.raises(KafkaTimeoutError):
            producer.sync_send(ProducerRecord("t", b"v"), timeout=0.1)
        assert producer.metrics().outstanding == 1
        producer.close(0)
        assert producer.metrics().failed == 1

    @BOTH_MODES
    def test_another_thread_closes_meanwhile(self, make_producer, manual):
        producer = make_producer(STUCK | mode(manual))
        raised = []

        def send():
            try:
                producer.sync_send(ProducerRecord("t", b"v"))
            except KafkaException as exc:
                raised.append(exc.error.code)

        thread = threading.Thread(target=send)
        thread.start()
        while not producer.metrics().sent:
            time.sleep(0.01)
        producer.close(0)
        thread.join(10)
        assert raised == [ErrorCode.PURGE_QUEUE]


def test_a_signal_while_the_error_of_a_report_is_made_loses_no_report(monkeypatch):
    """Under manual polling signal handlers run in the serving thread, also where this package's own
    Python runs between callbacks.
    """
    told = []
    with KafkaProducer(
        {"bootstrap.servers": "127.0.0.1:1", "enable.manual.events.poll": True, "log_level": 0}
    ) as producer:
        for n in range(3):
            producer.send(
                ProducerRecord("t", bytearray(b"x"), id=n),
                lambda metadata, error: told.append((metadata.record_id, error)),
            )
        producer.purge()
        interrupts = iter([False, True, False])
        made = KafkaError.__init__

        def interrupted(self, *arguments, **keywords):
            made(self, *arguments, **keywords)
            if arguments[0] == ErrorCode.PURGE_QUEUE and next(interrupts):
                raise KeyboardInterrupt

        with monkeypatch.context() as patch:
            patch.setattr(KafkaError, "__init__", interrupted)
            with pytest.raises(KeyboardInterrupt):
                producer.poll_events(1)
        assert told == [(n, ErrorCode.PURGE_QUEUE) for n in range(3)]
        assert producer.metrics().pinned_messages == 0
