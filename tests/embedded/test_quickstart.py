"""The scenarios of modern-cpp-kafka's producer guide, each under its own name, in Python."""

import struct

import pytest

from kafka_ext import (
    ErrorCode,
    KafkaException,
    KafkaProducer,
    PersistedStatus,
    ProducerRecord,
    Properties,
    QueueFullError,
    SendOption,
)

STUCK = {"bootstrap.servers": "127.0.0.1:1", "test.mock.num.brokers": ...}


def test_async_producer_not_copy_payload():
    """Lines to a topic, each kept by the producer until its callback; no explicit close."""
    props = Properties({"test.mock.num.brokers": 1, "enable.idempotence": "true"})
    shown = []
    with KafkaProducer(props) as producer:
        for line in ["first", "second", ""]:

            def on_delivery(metadata, error, line=line):
                shown.append(
                    f"% Message delivered: {metadata}"
                    if error is None
                    else f"% Message delivery failed: {error.message}"
                )

            producer.send(ProducerRecord("lines", line.encode(), key=None), on_delivery)
            if not line:
                break
    assert len(shown) == 3
    assert all(
        text.startswith("% Message delivered: lines-") and text.endswith(",Persisted")
        for text in shown
    )


def test_the_result_can_only_be_got_from_the_delivery_callback(producer, reports):
    assert producer.send(ProducerRecord("t", b"v"), reports) is None
    producer.flush(10)
    assert reports.errors == [None]


def test_memory_of_the_key_is_free_after_send(make_producer):
    producer = make_producer({"linger.ms": 1000})
    key = bytearray(b"key")
    producer.send(ProducerRecord("t", b"v", key=key))
    key.extend(b" and more")


def test_memory_of_the_value_is_held_until_the_callback(make_producer):
    producer = make_producer({"linger.ms": 1000})
    line = bytearray(b"a line")
    producer.send(ProducerRecord("t", line))
    with pytest.raises(BufferError):
        line.clear()
    producer.flush(10)
    line.clear()


def test_to_copy_record_value(make_producer):
    producer = make_producer({"linger.ms": 1000})
    line = bytearray(b"a line")
    producer.send(ProducerRecord("t", line), option=SendOption.TO_COPY_RECORD_VALUE)
    line.clear()


def test_the_callback_is_triggered_anyway_before_close(make_producer, reports):
    producer = make_producer(STUCK)
    producer.send(ProducerRecord("t", b"v"), reports)
    producer.close(0.1)
    assert len(reports) == 1


def test_enable_manual_events_poll(make_producer):
    """The records to send are struck off a dict by their ids, in the callbacks, on this very
    thread.
    """
    producer = make_producer(
        Properties({"test.mock.num.brokers": 1}).put("enable.manual.events.poll", "true")
    )
    to_send = {number: (b"key-%d" % number, b"value-%d" % number) for number in range(100)}

    def acknowledged(metadata, error):
        if error is None:
            del to_send[metadata.record_id]

    for number, (key, value) in list(to_send.items()):
        assert (
            producer.try_send(
                ProducerRecord("t", value, key=key, partition=0, id=number), acknowledged
            )
            is None
        )
    assert len(to_send) == 100
    while to_send:
        assert producer.poll_events(10) > 0


def test_manual_polling_makes_send_an_unblocked_operation_even_if_the_queue_is_full(make_producer):
    producer = make_producer(
        STUCK | {"enable.manual.events.poll": True, "queue.buffering.max.messages": 1}
    )
    producer.send(ProducerRecord("t", b"v"))
    with pytest.raises(QueueFullError):
        producer.send(ProducerRecord("t", b"v"))
    assert producer.try_send(ProducerRecord("t", b"v")) == ErrorCode.QUEUE_FULL


def test_headers_in_producer_record(producer, reports):
    """One record, used again with other headers, key and value."""
    record = ProducerRecord("t", partition=1)
    for seqno in range(3):
        record.headers = [("session", "session-of-messages"), ("seqno", struct.pack("<I", seqno))]
        record.key = b"key-%d" % seqno
        record.value = b"value-%d" % seqno
        producer.send(record, reports)
    producer.flush(10)
    assert reports.errors == [None] * 3
    assert [metadata.headers[1] for metadata, _ in reports] == [
        ("seqno", struct.pack("<I", seqno)) for seqno in range(3)
    ]


def test_no_message_lost_acks_all_is_the_default(make_producer):
    assert make_producer({"enable.idempotence": ...}).get_property("acks") == "-1"


def test_ordering_within_one_partition(producer, reports):
    for number in range(500):
        producer.send(ProducerRecord("t", b"v", key=b"the same key", id=number), reports)
    producer.flush(10)
    assert reports.ids == list(range(500))
    assert [metadata.offset for metadata, _ in reports] == list(range(500))
    assert len({metadata.partition for metadata, _ in reports}) == 1


def test_idempotent_producer(make_producer, reports):
    producer = make_producer({"enable.idempotence": True})
    assert producer.get_property("enable.idempotence") == "true"
    producer.send(ProducerRecord("t", b"v"), reports)
    producer.flush(30)
    assert reports[0][0].persisted_status is PersistedStatus.DONE


class TestErrorHandling:
    def test_send_raises_a_kafka_exception(self, producer):
        producer.close()
        with pytest.raises(KafkaException):
            producer.send(ProducerRecord("t", b"v"))

    def test_unknown_partition(self, producer):
        with pytest.raises(KafkaException) as caught:
            producer.sync_send(ProducerRecord("t", b"v", partition=999), timeout=10)
        assert caught.value.error == ErrorCode.UNKNOWN_PARTITION

    def test_invalid_topic(self, producer):
        for topic in ("", "x" * 513):
            with pytest.raises(KafkaException):
                producer.send(ProducerRecord(topic, b"v"))

    def test_message_timed_out(self, make_producer):
        producer = make_producer(STUCK, message_timeout_ms=100)
        with pytest.raises(KafkaException) as caught:
            producer.sync_send(ProducerRecord("t", b"v"))
        assert caught.value.error == ErrorCode.MSG_TIMED_OUT

    def test_message_size(self, make_producer):
        producer = make_producer({"message.max.bytes": 1000})
        with pytest.raises(KafkaException) as caught:
            producer.send(ProducerRecord("t", bytes(1001)))
        assert caught.value.error == ErrorCode.MSG_SIZE_TOO_LARGE


class TestFrequentlyAskedQuestions:
    def test_sending_creates_the_topic(self, producer):
        producer.sync_send(ProducerRecord("made-by-sending", b"v"), timeout=10)
        assert "made-by-sending" in producer.fetch_broker_metadata().topics

    def test_larger_batches_and_linger(self, make_producer, reports):
        producer = make_producer({"batch.num.messages": 100, "linger.ms": 20})
        for _ in range(1000):
            producer.send(ProducerRecord("t", b"v"), reports)
        producer.flush(10)
        assert reports.errors == [None] * 1000
