"""interceptors=[...]: on_send and on_acknowledgement."""

import pytest

from kafka_ext import (
    ErrorCode,
    KafkaException,
    PersistedStatus,
    ProducerRecord,
    QueueFullError,
    _rdkafka,
)

STUCK = {
    "bootstrap.servers": "127.0.0.1:1",
    "test.mock.num.brokers": ...,
    "queue.buffering.max.messages": 1,
}


class Interceptor:
    def __init__(self, name, log):
        self.name, self.log = name, log

    def on_send(self, record):
        self.log.append((self.name, "send", record.value))
        return record

    def on_acknowledgement(self, metadata, error):
        self.log.append((self.name, "acknowledged", error))


@pytest.fixture
def log():
    return []


def test_each_is_called_in_order_and_before_the_records_own_callback(make_producer, log):
    producer = make_producer(interceptors=[Interceptor("first", log), Interceptor("second", log)])
    producer.send(ProducerRecord("t", b"v"), lambda metadata, error: log.append("callback"))
    producer.flush(10)
    assert log == [
        ("first", "send", b"v"),
        ("second", "send", b"v"),
        ("first", "acknowledged", None),
        ("second", "acknowledged", None),
        "callback",
    ]


def test_a_record_can_be_replaced(make_producer, log):
    class Stamp(Interceptor):
        def on_send(self, record):
            return ProducerRecord("elsewhere", b"replaced", headers={"stamp": b"1"}, id=record.id)

    producer = make_producer(interceptors=[Stamp("stamp", log), Interceptor("after", log)])
    metadata = producer.sync_send(ProducerRecord("t", b"v", id=5), timeout=10)
    assert (metadata.topic, metadata.value_size, metadata.headers, metadata.record_id) == (
        "elsewhere",
        8,
        [("stamp", b"1")],
        5,
    )
    assert log[0] == ("after", "send", b"replaced")


def test_one_that_raises_is_reported_and_passed_over(make_producer, log, unraisable):
    class Raising(Interceptor):
        def on_send(self, record):
            raise ValueError("on_send")

        def on_acknowledgement(self, metadata, error):
            raise ValueError("on_acknowledgement")

    producer = make_producer(interceptors=[Raising("raising", log), Interceptor("after", log)])
    assert producer.sync_send(ProducerRecord("t", b"v"), timeout=10).offset == 0
    assert log == [("after", "send", b"v"), ("after", "acknowledged", None)]
    assert [str(exc) for exc, _ in unraisable] == ["on_send", "on_acknowledgement"]


@pytest.mark.parametrize("returned", [None, b"v", "t"])
def test_one_that_returns_no_record_is_passed_over(make_producer, log, unraisable, returned):
    class Forgetful(Interceptor):
        def on_send(self, record):
            return returned

    producer = make_producer(interceptors=[Forgetful("forgetful", log)])
    assert producer.sync_send(ProducerRecord("t", b"v"), timeout=10).value_size == 1
    assert [type(exc) for exc, _ in unraisable] == [TypeError]


def test_a_refused_send_is_acknowledged_too(make_producer, log):
    seen = []

    class Keeping(Interceptor):
        def on_acknowledgement(self, metadata, error):
            seen.append((metadata, error))

    producer = make_producer(
        STUCK, interceptors=[Keeping("keeping", log)], **{"enable.manual.events.poll": True}
    )
    producer.send(ProducerRecord("t", b"v"))
    value = bytearray(b"w")
    with pytest.raises(QueueFullError):
        producer.send(
            ProducerRecord("t", value, id=7),
            lambda *_: pytest.fail("a refused send calls nobody back"),
        )
    assert producer.try_send(ProducerRecord("t", value, id=8)) == ErrorCode.QUEUE_FULL
    with pytest.raises(TypeError):
        producer.send(ProducerRecord("t", 5, id=9))
    with pytest.raises(ValueError):
        producer.send(ProducerRecord("no topic", b"", id=10))
    assert [(metadata.record_id, error.code) for metadata, error in seen] == [
        (7, ErrorCode.QUEUE_FULL),
        (8, ErrorCode.QUEUE_FULL),
        (9, ErrorCode.INVALID_ARG),
        (10, ErrorCode.TOPIC_EXCEPTION),
    ]
    assert all(
        metadata.offset is None and metadata.persisted_status is PersistedStatus.NOT
        for metadata, _ in seen
    )
    value.append(1)


def test_each_record_is_acknowledged_once_whatever_becomes_of_it(make_producer, log):
    producer = make_producer(
        STUCK | {"queue.buffering.max.messages": 100}, interceptors=[Interceptor("one", log)]
    )
    for _ in range(50):
        producer.send(ProducerRecord("t", b"v"))
    producer.close(0)
    assert [entry[1:] for entry in log if entry[1] == "acknowledged"] == [
        ("acknowledged", ErrorCode.PURGE_QUEUE)
    ] * 50
    assert producer.metrics().failed == 50


def test_a_failure_nobody_but_interceptors_hears_is_still_logged(make_producer, log, caplog):
    producer = make_producer(STUCK, interceptors=[Interceptor("one", log)])
    producer.send(ProducerRecord("orders", b"v"))
    producer.close(0)
    assert [
        record
        for record in caplog.records
        if "orders" in record.getMessage() and record.levelname == "WARNING"
    ]


def test_they_are_let_go_of_with_the_producer(make_producer, log):
    producer = make_producer(interceptors=(Interceptor("one", log),))
    producer.sync_send(ProducerRecord("t", b"v"), timeout=10)
    producer.close()
    assert _rdkafka.live_objects()["messages"] == 0
    with pytest.raises(KafkaException):
        producer.send(ProducerRecord("t", b"v"))
    assert len([entry for entry in log if entry[1] == "send"]) == 1
