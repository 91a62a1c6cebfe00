"""Reference counts before and after, on every way a record can go: value, key, headers, callback,
id and topic.
"""

import gc
import sys
import weakref

import pytest
from faultlib import closed_port

from kafka_ext import (
    ActionWhileQueueIsFull,
    ErrorCode,
    KafkaException,
    KafkaProducer,
    ProducerRecord,
    QueueFullError,
    SendOption,
    _rdkafka,
)
from kafka_ext.testing import ApiKey, EmbeddedBroker


class Thing:
    """Something with no meaning to the producer, whose end can be seen."""


class Callback:
    def __init__(self):
        self.reports = 0

    def __call__(self, metadata, error):
        self.reports += 1


class Parts:
    """The objects of one record, and their reference counts."""

    def __init__(self, value):
        self.value = value
        self.key = b"".join([b"a", b"key"])
        self.name = "".join(["a", "name"])
        self.content = bytearray(b"content")
        self.headers = [(self.name, self.content)]
        self.callback = Callback()
        self.id = Thing()
        self.topic = "".join(["top", "ic"])

    def record(self, **fields):
        return ProducerRecord(
            self.topic, self.value, key=self.key, headers=self.headers, id=self.id, **fields
        )

    def counts(self):
        gc.collect()
        return {name: sys.getrefcount(part) for name, part in vars(self).items()}


VALUES = {
    "bytes": lambda: b"".join([b"a", b"value"]),
    "str": lambda: "".join(["a", "value"]),
    "str beyond ASCII": lambda: "".join(["ä", "value"]),
    "bytearray": lambda: bytearray(b"value"),
    "memoryview": lambda: memoryview(bytearray(b"value")),
}


@pytest.fixture(params=sorted(VALUES))
def parts(request):
    return Parts(VALUES[request.param]())


@pytest.fixture(params=list(SendOption))
def option(request):
    return request.param


@pytest.fixture
def broker():
    with EmbeddedBroker(topics={"topic": 1, "other": 1}) as broker:
        yield broker


def make(config, **settings):
    return KafkaProducer(
        {"enable.idempotence": False, "log_level": 0, "error_cb": lambda error: None} | config,
        **settings,
    )


def check(parts, before, reports, extra_topic):
    """Everything as it was. The producer keeps a topic's name: as key, in its handle and in one
    spare metadata, however many records.
    """
    after = parts.counts()
    assert 0 <= after.pop("topic") - before.pop("topic") <= extra_topic
    assert after == before
    assert parts.callback.reports == reports


@pytest.mark.parametrize("manual", [False, True])
def test_delivered(broker, parts, option, manual):
    with make(broker.config(), **{"enable.manual.events.poll": manual}) as producer:
        before = parts.counts()
        for _ in range(10):
            producer.send(parts.record(), parts.callback, option=option)
        producer.flush(20)
        check(parts, dict(before), 10, 3)
    check(parts, before, 10, 0)


def test_delivered_with_nobody_to_tell(broker, parts, option):
    with make(broker.config()) as producer:
        before = parts.counts()
        for _ in range(10):
            producer.send(ProducerRecord(parts.topic, parts.value), option=option)
        producer.flush(20)
        check(parts, dict(before), 0, 3)
    check(parts, before, 0, 0)


def test_failed(broker, parts, option):
    with make(broker.config(linger_ms=50)) as producer:
        producer.sync_send(ProducerRecord("other", b""), timeout=20)
        before = parts.counts()
        # One for each record, however many requests they come in.
        broker.fail_requests(ApiKey.PRODUCE, [ErrorCode["MSG_SIZE_TOO_LARGE"]] * 10)
        for _ in range(10):
            producer.send(parts.record(), parts.callback, option=option)
        producer.flush(20)
        assert producer.metrics().failed == 10
        check(parts, dict(before), 10, 3)
    check(parts, before, 10, 0)


def test_purged(parts, option):
    with make({"bootstrap.servers": closed_port()}) as producer:
        before = parts.counts()
        for _ in range(10):
            producer.send(parts.record(), parts.callback, option=option)
        producer.purge()
        producer.flush(20)
        check(parts, dict(before), 10, 3)
    check(parts, before, 10, 0)


def test_refused_by_a_full_queue(parts, option):
    producer = make({"bootstrap.servers": closed_port(), "queue.buffering.max.messages": 1})
    producer.send(ProducerRecord("other"))
    before = parts.counts()
    for _ in range(10):
        with pytest.raises(QueueFullError):
            producer.send(
                parts.record(),
                parts.callback,
                option=option,
                action=ActionWhileQueueIsFull.NO_BLOCK,
            )
        assert producer.try_send(parts.record(), parts.callback, option=option) is not None
    check(parts, dict(before), 0, 3)
    producer.close(0)
    check(parts, before, 0, 0)


def test_refused_as_too_large(parts, option):
    producer = make({"bootstrap.servers": closed_port(), "message.max.bytes": 1000})
    large = bytearray(2000)
    before = parts.counts()
    for _ in range(10):
        with pytest.raises(KafkaException):
            producer.send(
                ProducerRecord(
                    parts.topic, large, key=parts.key, headers=parts.headers, id=parts.id
                ),
                parts.callback,
                option=option,
            )
    large.append(0)
    check(parts, dict(before), 0, 3)
    producer.close(0)
    check(parts, before, 0, 0)


def test_closed_with_records_in_the_queue(parts, option):
    producer = make({"bootstrap.servers": closed_port()})
    before = parts.counts()
    for _ in range(10):
        producer.send(parts.record(), parts.callback, option=option)
    producer.close(0)
    check(parts, before, 10, 0)


def test_send_future_and_sync_send(broker, parts):
    with make(broker.config()) as producer:
        before = parts.counts()
        producer.send_future(parts.record()).result(20)
        producer.sync_send(parts.record(), 20)
        producer.flush(20)
        check(parts, dict(before), 0, 3)
    check(parts, before, 0, 0)


def test_what_only_the_record_kept_ends_with_its_report(broker):
    """Nothing of it lives on in the producer: neither in a pool nor in metadata made ready for the
    next report.
    """
    with make(broker.config()) as producer:
        ends = []
        for _ in range(10):
            thing, callback = Thing(), Callback()
            ends += [weakref.ref(thing), weakref.ref(callback)]
            producer.send(
                ProducerRecord("topic", bytearray(b"x"), id=thing, headers=[("a", b"b")]), callback
            )
        del thing, callback
        producer.flush(20)
        assert [end() for end in ends] == [None] * 20


def test_metadata_that_is_kept_keeps_the_id_and_nothing_else(broker):
    kept = []
    with make(broker.config()) as producer:
        thing, value = Thing(), bytearray(b"x")
        end = weakref.ref(thing)
        producer.send(
            ProducerRecord("topic", value, id=thing), lambda metadata, error: kept.append(metadata)
        )
        producer.flush(20)
        value.append(0)
        del thing
        assert kept[0].record_id is end()
    assert kept[0].offset == 0
    kept.clear()
    assert end() is None


def test_the_callbacks_of_the_properties_go_with_the_producer(broker):
    callback = Callback()
    end = weakref.ref(callback)
    producer = make(broker.config(), error_cb=callback, stats_cb=callback, log_cb=callback)
    del callback
    producer.close()
    assert producer.metrics().sent == 0
    del producer
    gc.collect()
    assert end() is None


def test_live_objects_counts_what_lives(broker):
    def live():
        return {name: _rdkafka.live_objects()[name] for name in ("handles", "topics", "messages")}

    assert live() == {"handles": 0, "topics": 0, "messages": 0}
    producer = make({"bootstrap.servers": closed_port()})
    for _ in range(5):
        producer.send(ProducerRecord("topic", b"x"))
    producer.send(ProducerRecord("other", bytearray(b"x")), Callback())
    assert live() == {"handles": 1, "topics": 2, "messages": 6}
    producer.close(0)
    assert live() == {"handles": 0, "topics": 0, "messages": 0}
