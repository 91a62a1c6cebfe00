"""Events that are not delivery reports: errors, statistics, logs, throttling, token refreshes."""

import logging
import threading
import time

import pytest
from faultlib import Throttling

from kafka_ext import ErrorCode, KafkaError, KafkaException, OAuthBearerToken, ProducerRecord

NOBODY_THERE = {"bootstrap.servers": "127.0.0.1:1", "test.mock.num.brokers": ...}
OAUTH = {"security.protocol": "SASL_PLAINTEXT", "sasl.mechanisms": "OAUTHBEARER"}


def wait_for(condition, producer=None, timeout=10.0):
    """Until `condition()`; with a producer, by polling it."""
    deadline = time.monotonic() + timeout
    while not condition() and time.monotonic() < deadline:
        if producer is None:
            time.sleep(0.01)
        else:
            producer.poll_events(0.05)
    assert condition()


class TestPollEvents:
    def drain(self, producer):
        """Serve what librdkafka logs about its mock cluster: logs are events too."""
        while producer.poll_events(0.2):
            pass

    def test_raises_on_a_producer_with_an_events_thread(self, producer):
        with pytest.raises(KafkaException, match=r"enable\.manual\.events\.poll") as caught:
            producer.poll_events()
        assert caught.value.error == ErrorCode.STATE

    def test_counts_the_events_served(self, manual, reports):
        self.drain(manual)
        for _ in range(5):
            manual.send(ProducerRecord("t", b"", partition=0), reports)
        served = 0
        while len(reports) < 5:
            served += manual.poll_events(10)
        assert served == 5

    def test_waits_for_the_first_and_no_longer_than_its_timeout(self, manual):
        self.drain(manual)
        started = time.monotonic()
        assert manual.poll_events(0.2) == 0
        assert 0.19 <= time.monotonic() - started < 5

    def test_none_waits_for_as_long_as_it_takes(self, make_producer, reports):
        producer = make_producer({"enable.manual.events.poll": True, "linger.ms": 300})
        self.drain(producer)
        producer.send(ProducerRecord("t", b""), reports)
        assert producer.poll_events(None) == 1
        assert reports.errors == [None]

    def test_threads_of_a_manual_producer(self, manual):
        """No thread of Python's is there to serve."""
        assert not [thread for thread in threading.enumerate() if thread.name == "kafka_ext events"]

    def test_one_events_thread_a_producer(self, make_producer):
        make_producer(), make_producer()
        assert (
            len([thread for thread in threading.enumerate() if thread.name == "kafka_ext events"])
            == 2
        )


class TestErrors:
    @pytest.mark.parametrize("manual", [False, True])
    def test_error_cb(self, make_producer, manual):
        errors = []
        producer = make_producer(
            NOBODY_THERE, error_cb=errors.append, **{"enable.manual.events.poll": manual}
        )
        wait_for(lambda: ErrorCode.ALL_BROKERS_DOWN in errors, producer if manual else None)
        assert all(type(error) is KafkaError and error.message for error in errors)

    def test_without_one_they_are_logged(self, make_producer, caplog):
        with caplog.at_level(logging.WARNING, "kafka_ext"):
            make_producer(NOBODY_THERE)
            wait_for(
                lambda: any(
                    "kafka_ext: TRANSPORT: " in record.getMessage() for record in caplog.records
                )
            )

    def test_a_fatal_error_is_sticky_and_close_still_works(self, make_producer, reports):
        errors = []
        producer = make_producer({"enable.idempotence": True}, error_cb=errors.append)
        producer.handle.test_fatal_error(ErrorCode.OUT_OF_ORDER_SEQUENCE_NUMBER, "for the test")
        wait_for(lambda: errors)
        assert errors[0].is_fatal
        assert errors[0] == ErrorCode.OUT_OF_ORDER_SEQUENCE_NUMBER
        for _ in range(2):
            value = bytearray(b"v")
            with pytest.raises(KafkaException) as caught:
                producer.send(ProducerRecord("t", value), reports)
            assert caught.value.error.is_fatal
            assert caught.value.error == ErrorCode.OUT_OF_ORDER_SEQUENCE_NUMBER
            value.append(1)
        assert producer.try_send(ProducerRecord("t", b"")).is_fatal
        assert producer.fatal_error().is_fatal
        producer.close(5)
        assert reports == []


class TestStatistics:
    @pytest.mark.parametrize("manual", [False, True])
    def test_stats_cb(self, make_producer, manual):
        stats = []
        producer = make_producer(
            {"statistics.interval.ms": 100, "client.id": "counted"},
            stats_cb=stats.append,
            **{"enable.manual.events.poll": manual},
        )
        wait_for(lambda: stats, producer if manual else None)
        assert isinstance(stats[0], dict)
        assert stats[0]["client_id"] == "counted"
        assert producer.metrics().statistics["client_id"] == "counted"

    def test_metrics_have_them_without_a_callback(self, make_producer):
        producer = make_producer({"statistics.interval.ms": 100})
        wait_for(lambda: producer.metrics().statistics)
        assert producer.metrics().statistics["type"] == "producer"
        assert b'"type"' in producer.metrics().statistics_json

    def test_off_by_default(self, producer):
        assert producer.metrics().statistics is None

    def test_one_that_raises_is_called_again(self, make_producer, unraisable):
        calls = []

        def stats_cb(stats):
            calls.append(stats)
            raise ValueError("from stats_cb")

        producer = make_producer({"statistics.interval.ms": 100}, stats_cb=stats_cb)
        wait_for(lambda: len(calls) >= 2)
        producer.close()
        assert {str(exc) for exc, _ in unraisable} == {"from stats_cb"}
        assert producer.metrics().callback_errors == len(calls)

    def test_one_that_raises_under_manual_polling(self, make_producer):
        def stats_cb(stats):
            raise ValueError("from stats_cb")

        producer = make_producer(
            {"statistics.interval.ms": 100, "enable.manual.events.poll": True}, stats_cb=stats_cb
        )
        with pytest.raises(ValueError, match="from stats_cb"):
            wait_for(lambda: False, producer)


class TestLogs:
    def test_log_cb(self, make_producer):
        lines = []
        producer = make_producer(
            {"debug": "topic"},
            log_cb=lambda level, facility, message: lines.append((level, facility, message)),
        )
        producer.sync_send(ProducerRecord("a-topic-to-log", b""), timeout=10)
        wait_for(lambda: any("a-topic-to-log" in message for _, _, message in lines))
        assert all(type(level) is int and 0 <= level <= 7 for level, _, _ in lines)
        assert all(type(facility) is str and facility.isupper() for _, facility, _ in lines)

    def test_without_one_they_go_to_logging_at_the_matching_level(self, make_producer, caplog):
        with caplog.at_level(logging.DEBUG, "kafka_ext"):
            producer = make_producer({"debug": "topic"})
            producer.sync_send(ProducerRecord("a-topic-to-log", b""), timeout=10)
            wait_for(
                lambda: any("a-topic-to-log" in record.getMessage() for record in caplog.records)
            )
        assert {record.name for record in caplog.records} == {"kafka_ext"}
        assert {
            record.levelno for record in caplog.records if "a-topic-to-log" in record.getMessage()
        } == {logging.DEBUG}

    def test_a_failure_to_connect_is_an_error(self, make_producer, caplog):
        with caplog.at_level(logging.DEBUG, "kafka_ext"):
            make_producer(NOBODY_THERE)
            wait_for(
                lambda: any(
                    record.levelno == logging.ERROR and "TRANSPORT" in record.getMessage()
                    for record in caplog.records
                )
            )

    def test_under_manual_polling_they_are_served_by_the_caller(self, make_producer):
        idents = []
        settings = {"debug": "topic", "enable.manual.events.poll": True}
        producer = make_producer(settings, log_cb=lambda *_: idents.append(threading.get_ident()))
        producer.send(ProducerRecord("t", b""))
        producer.flush(10)
        assert set(idents) == {threading.get_ident()}

    def test_one_that_raises_loses_no_report(self, make_producer, reports, unraisable):
        def log_cb(level, facility, message):
            raise ValueError("from log_cb")

        producer = make_producer({"debug": "topic"}, log_cb=log_cb)
        for _ in range(100):
            producer.send(ProducerRecord("t", b""), reports)
        producer.flush(10)
        assert reports.errors == [None] * 100
        assert {str(exc) for exc, _ in unraisable} == {"from log_cb"}


class TestTokenRefresh:
    @pytest.mark.parametrize("manual", [False, True])
    def test_is_called_with_the_configured_string(self, make_producer, manual):
        configs = []

        def refresh(config):
            configs.append(config)
            return OAuthBearerToken(
                "token", int(time.time() * 1000) + 3_600_000, "principal", {"extension": "value"}
            )

        producer = make_producer(
            NOBODY_THERE
            | OAUTH
            | {"sasl.oauthbearer.config": "principal=me", "enable.manual.events.poll": manual},
            oauthbearer_token_refresh_cb=refresh,
        )
        wait_for(lambda: configs, producer if manual else None)
        assert configs == ["principal=me"]

    def test_without_a_configured_string_it_is_empty(self, make_producer):
        configs = []

        def refresh(config):
            configs.append(config)
            return OAuthBearerToken("token", int(time.time() * 1000) + 3_600_000)

        make_producer(NOBODY_THERE | OAUTH, oauthbearer_token_refresh_cb=refresh)
        wait_for(lambda: configs)
        assert configs == [""]

    @pytest.mark.parametrize(
        "returned",
        [
            None,
            "token",
            OAuthBearerToken("token", 1),
            OAuthBearerToken("token", 2**50, "p", {"1": "bad name"}),
        ],
        ids=["None", "a str", "expired", "a bad extension"],
    )
    def test_what_is_no_token_is_an_error_and_told_to_librdkafka(
        self, make_producer, unraisable, returned
    ):
        errors = []
        make_producer(
            NOBODY_THERE | OAUTH,
            oauthbearer_token_refresh_cb=lambda config: returned,
            error_cb=errors.append,
        )
        wait_for(lambda: unraisable and ErrorCode.AUTHENTICATION in errors)

    def test_one_that_raises(self, make_producer, unraisable):
        def refresh(config):
            raise ValueError("no token today")

        errors = []
        producer = make_producer(
            NOBODY_THERE | OAUTH, oauthbearer_token_refresh_cb=refresh, error_cb=errors.append
        )
        wait_for(lambda: ErrorCode.AUTHENTICATION in errors)
        assert "no token today" in errors[errors.index(ErrorCode.AUTHENTICATION)].message
        assert [str(exc) for exc, _ in unraisable] == ["no token today"]
        assert producer.metrics().callback_errors == 1

    def test_the_token_is_no_part_of_its_repr(self):
        assert "hunter2" not in repr(OAuthBearerToken("hunter2", 1))


class TestThrottling:
    @pytest.mark.parametrize("manual", [False, True])
    def test_throttle_cb(self, make_producer, manual):
        broker = make_producer().fetch_broker_metadata().brokers[1]
        throttling = Throttling(broker.port, 250)
        calls = []
        try:
            producer = make_producer(
                {
                    "test.mock.num.brokers": ...,
                    "bootstrap.servers": f"127.0.0.1:{throttling.port}",
                    "enable.manual.events.poll": manual,
                },
                throttle_cb=lambda *args: calls.append(args),
            )
            producer.sync_send(ProducerRecord("t", b""), timeout=10)
            wait_for(lambda: calls, producer if manual else None)
            producer.close()
        finally:
            throttling.close()
        assert calls[0] == (f"127.0.0.1:{throttling.port}", 1, 0.25)
