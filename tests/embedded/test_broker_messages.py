"""Reading back: messages(), reader(), and what they do when records are gone or never come."""

from __future__ import annotations

import os
import pickle
import signal
import threading
import time
from collections.abc import Iterator
from typing import Any

import pytest

from kafka_ext import ErrorCode, KafkaException, KafkaProducer, KafkaTimeoutError, ProducerRecord
from kafka_ext._rdkafka import live_testing_objects
from kafka_ext.testing import ConsumedMessage, EmbeddedBroker, RetentionLost, TopicReader


@pytest.fixture
def broker() -> Iterator[EmbeddedBroker]:
    with EmbeddedBroker(topics={"orders": 4, "one": 1}) as broker:
        yield broker


@pytest.fixture
def producer(broker: EmbeddedBroker) -> Iterator[KafkaProducer]:
    with KafkaProducer(broker.config(linger_ms=0)) as producer:
        yield producer


def test_an_empty_topic_has_no_messages(broker: EmbeddedBroker) -> None:
    assert broker.messages("orders") == []


def test_everything_of_a_record_comes_back(broker: EmbeddedBroker, producer: KafkaProducer) -> None:
    headers = [
        ("trace", b"1"),
        ("trace", b"2"),
        ("none", None),
        ("empty", b""),
        ("ümlaut", b"\0\xff"),
    ]
    record = ProducerRecord(
        "orders", b"value", key=b"key", partition=2, headers=headers, timestamp=1_700_000_000_123
    )
    metadata = producer.sync_send(record, timeout=30)
    (message,) = broker.messages("orders")
    assert message.topic == "orders"
    assert message.partition == 2
    assert message.offset == metadata.offset == 0
    assert message.key == b"key"
    assert message.value == b"value"
    assert message.headers == headers
    assert message.timestamp == 1_700_000_000_123


def test_no_headers_are_an_empty_list(broker: EmbeddedBroker, producer: KafkaProducer) -> None:
    producer.sync_send(ProducerRecord("orders", b"a"), timeout=30)
    (message,) = broker.messages("orders")
    assert message.headers == []


def test_none_is_not_empty(broker: EmbeddedBroker, producer: KafkaProducer) -> None:
    for key, value in ((None, None), (b"", b""), (b"k", None), (None, b"v")):
        producer.sync_send(ProducerRecord("one", value, key=key), timeout=30)
    assert [(m.key, m.value) for m in broker.messages("one")] == [
        (None, None),
        (b"", b""),
        (b"k", None),
        (None, b"v"),
    ]


def test_a_timestamp_of_now_is_now(broker: EmbeddedBroker, producer: KafkaProducer) -> None:
    before = time.time() * 1000 - 1000
    producer.sync_send(ProducerRecord("one", b"a"), timeout=30)
    (message,) = broker.messages("one")
    assert message.timestamp is not None
    assert before < message.timestamp < time.time() * 1000 + 1000


def test_partition_by_partition_each_in_offset_order(
    broker: EmbeddedBroker, producer: KafkaProducer
) -> None:
    for n in range(400):
        producer.send(ProducerRecord("orders", str(n), partition=(n * 7) % 4))
    producer.flush(timeout=30)
    messages = broker.messages("orders")
    assert [m.partition for m in messages] == sorted(m.partition for m in messages)
    for partition in range(4):
        values = [int(m.value or b"") for m in messages if m.partition == partition]
        assert values == [n for n in range(400) if (n * 7) % 4 == partition]
        assert [m.offset for m in messages if m.partition == partition] == list(range(100))


@pytest.mark.parametrize("compression", ["none", "gzip", "snappy", "lz4", "zstd"])
def test_compressed_batches_come_back(broker: EmbeddedBroker, compression: str) -> None:
    values = [f"value {n}".encode() * 20 for n in range(500)]
    with KafkaProducer(broker.config(compression_type=compression, linger_ms=50)) as producer:
        for value in values:
            producer.send(ProducerRecord("one", value))
    assert [m.value for m in broker.messages("one")] == values


def test_large_values_come_back(broker: EmbeddedBroker) -> None:
    values = [bytes([n]) * 900_000 for n in range(4)]
    with KafkaProducer(broker.config()) as producer:
        for value in values:
            producer.send(ProducerRecord("one", value))
    assert [m.value for m in broker.messages("one")] == values


def test_reading_is_repeatable(broker: EmbeddedBroker, producer: KafkaProducer) -> None:
    producer.sync_send(ProducerRecord("orders", b"a"), timeout=30)
    assert broker.messages("orders") == broker.messages("orders")


def test_what_was_acknowledged_is_read_at_once(
    broker: EmbeddedBroker, producer: KafkaProducer
) -> None:
    for n in range(1, 21):
        producer.sync_send(ProducerRecord("orders", b"a"), timeout=30)
        assert len(broker.messages("orders")) == n


def test_count_waits_for_that_many(broker: EmbeddedBroker, producer: KafkaProducer) -> None:
    def send() -> None:
        for _ in range(5):
            time.sleep(0.05)
            producer.send(ProducerRecord("orders", b"a"))

    thread = threading.Thread(target=send)
    thread.start()
    messages = broker.messages("orders", 5, timeout=30)
    thread.join()
    assert len(messages) == 5


def test_count_returns_what_is_there_beyond_it(
    broker: EmbeddedBroker, producer: KafkaProducer
) -> None:
    for _ in range(5):
        producer.sync_send(ProducerRecord("orders", b"a"), timeout=30)
    assert len(broker.messages("orders", count=2)) == 5
    assert len(broker.messages("orders", count=0)) == 5


def test_count_of_a_topic_that_comes_later(broker: EmbeddedBroker, producer: KafkaProducer) -> None:
    timer = threading.Timer(0.2, lambda: producer.send(ProducerRecord("later", b"a")))
    timer.start()
    assert len(broker.messages("later", 1, timeout=30)) == 1
    timer.join()


def test_too_few_in_time_is_a_timeout_that_says_how_many(
    broker: EmbeddedBroker, producer: KafkaProducer
) -> None:
    producer.sync_send(ProducerRecord("orders", b"a"), timeout=30)
    with pytest.raises(KafkaTimeoutError, match=r"1 of 3 messages in 'orders'"):
        broker.messages("orders", 3, timeout=0.3)
    with pytest.raises(TimeoutError, match=r"0 of 1 messages in 'never'"):
        broker.messages("never", 1, timeout=0.3)


def test_an_answer_that_does_not_come_is_a_timeout(broker: EmbeddedBroker) -> None:
    broker.round_trip_time(60)
    started = time.monotonic()
    with pytest.raises(KafkaTimeoutError):
        broker.messages("orders", timeout=0.5)
    assert time.monotonic() - started < 10
    broker.round_trip_time(0)
    assert broker.messages("orders") == []


def test_a_slow_broker_is_waited_for(broker: EmbeddedBroker, producer: KafkaProducer) -> None:
    producer.sync_send(ProducerRecord("orders", b"a"), timeout=30)
    broker.round_trip_time(0.3)
    assert len(broker.messages("orders", timeout=30)) == 1


def test_waiting_lets_go_of_the_gil(broker: EmbeddedBroker) -> None:
    ticks = 0
    done = threading.Event()

    def tick() -> None:
        nonlocal ticks
        while not done.is_set():
            ticks += 1
            time.sleep(0.001)

    thread = threading.Thread(target=tick)
    thread.start()
    with pytest.raises(KafkaTimeoutError):
        broker.messages("orders", 1, timeout=0.5)
    done.set()
    thread.join()
    assert ticks > 50


@pytest.mark.parametrize("reachable", [True, False])
def test_ctrl_c_interrupts(broker: EmbeddedBroker, reachable: bool) -> None:
    before = live_testing_objects()
    if not reachable:
        broker.round_trip_time(3600)
    timer = threading.Timer(0.3, os.kill, (os.getpid(), signal.SIGINT))
    timer.start()
    started = time.monotonic()
    with pytest.raises(KeyboardInterrupt):
        broker.messages("orders", 1, timeout=60)
    assert time.monotonic() - started < 5
    timer.join()
    broker.round_trip_time(0)
    assert broker.messages("orders") == []
    while live_testing_objects() != before:  # what could not be interrupted ends by itself
        assert time.monotonic() - started < 60
        time.sleep(0.01)


def test_retention_is_not_passed_over_in_silence(broker: EmbeddedBroker) -> None:
    with KafkaProducer(broker.config(linger_ms=5)) as producer:
        for _ in range(12_000):
            producer.send(ProducerRecord("one", b"x" * 1000))
    with pytest.raises(RetentionLost, match="one-0: offset 0 is gone") as caught:
        broker.messages("one")
    lost = caught.value
    assert isinstance(lost, KafkaException)
    assert (lost.topic, lost.partition, lost.offset) == ("one", 0, 0)
    assert lost.first_available is not None
    assert 0 < lost.first_available < 12_000
    assert "5 MiB" in str(lost)
    with pytest.raises(RetentionLost):
        broker.messages("one", 12_000, timeout=5)
    with pytest.raises(RetentionLost):
        broker.assert_delivered("one", [])


def test_a_batch_larger_than_the_retention_is_not_passed_over_either(
    broker: EmbeddedBroker,
) -> None:
    with KafkaProducer(broker.config(message_max_bytes=20_000_000)) as producer:
        for size in (1000, 6_000_000, 6_000_000):
            producer.sync_send(ProducerRecord("one", b"x" * size), timeout=30)
    with pytest.raises(RetentionLost):
        broker.messages("one")


def test_the_rest_of_a_topic_that_lost_some_can_be_read(broker: EmbeddedBroker) -> None:
    with KafkaProducer(broker.config(linger_ms=5)) as producer:
        for n in range(12_000):
            producer.send(ProducerRecord("one", str(n).ljust(1000)))
    with pytest.raises(RetentionLost) as caught:
        broker.messages("one")
    first = caught.value.first_available
    assert first is not None
    with TopicReader(broker.bootstrap_servers, "one", start={0: first}) as reader:
        messages = reader.read_to_end()
    assert [int(m.value or b"") for m in messages] == list(range(first, 12_000))


def test_retention_lost_survives_pickling(broker: EmbeddedBroker) -> None:
    with KafkaProducer(broker.config(linger_ms=5)) as producer:
        for _ in range(12_000):
            producer.send(ProducerRecord("one", b"x" * 1000))
    with pytest.raises(RetentionLost) as caught:
        broker.messages("one")
    copy = pickle.loads(pickle.dumps(caught.value))
    assert (copy.error, copy.topic, copy.partition, copy.first_available) == (
        caught.value.error,
        "one",
        0,
        caught.value.first_available,
    )


# ---------------------------------------------------------------------- reader


def test_a_reader_goes_on_where_it_was(broker: EmbeddedBroker, producer: KafkaProducer) -> None:
    with broker.reader("one") as reader:
        assert reader.topic == "one"
        assert reader.read_to_end() == []
        for n in range(10):
            producer.sync_send(ProducerRecord("one", str(n)), timeout=30)
        assert [m.value for m in reader.read(4, timeout=30)] == [b"0", b"1", b"2", b"3"]
        assert reader.positions == {0: 4}
        assert [m.offset for m in reader.read_to_end()] == [4, 5, 6, 7, 8, 9]
        assert reader.read(1, timeout=0) == []
        assert reader.read(1, timeout=0.1) == []
        producer.sync_send(ProducerRecord("one", b"10"), timeout=30)
        assert [m.value for m in reader.read(1, timeout=30)] == [b"10"]


def test_a_reader_can_start_anywhere(broker: EmbeddedBroker, producer: KafkaProducer) -> None:
    for n in range(8):
        producer.sync_send(ProducerRecord("orders", str(n), partition=n % 2), timeout=30)
    with TopicReader(broker.bootstrap_servers, "orders", start={0: 3, 1: 1}) as reader:
        assert sorted((m.partition, m.offset) for m in reader.read_to_end()) == [
            (0, 3),
            (1, 1),
            (1, 2),
            (1, 3),
        ]


def test_a_topic_larger_than_what_is_kept_can_be_read_as_it_is_written() -> None:
    sent = 60_000
    with (
        EmbeddedBroker(topics={"big": 4}) as broker,
        broker.reader("big") as reader,
        KafkaProducer(broker.config(linger_ms=5)) as producer,
    ):
        received: list[ConsumedMessage] = []
        value = b"x" * 1000  # 60 MB through 20 MiB
        for n in range(sent):
            producer.send(ProducerRecord("big", value, partition=n % 4))
            if n % 2000 == 1999:
                producer.flush(timeout=60)
                received += reader.read(2000, timeout=60)
        received += reader.read_to_end()
    assert len(received) == sent
    for partition in range(4):
        assert [m.offset for m in received if m.partition == partition] == list(range(sent // 4))


def test_reader_refuses(broker: EmbeddedBroker) -> None:
    servers = broker.bootstrap_servers
    untyped: Any = TopicReader
    with pytest.raises(KafkaException) as caught:
        broker.reader("not-there")
    assert caught.value.error == ErrorCode.UNKNOWN_TOPIC_OR_PART
    for arguments, named in (
        ((servers, "orders", {"no.such.property": "1"}), "no.such.property"),
        ((servers, "orders", {"fetch.wait.max.ms": "soon"}), "fetch.wait.max.ms"),
    ):
        with pytest.raises(ValueError, match=named):
            TopicReader(*arguments)
    for start in ({4: 0}, {-1: 0}, {0: -1}):
        with pytest.raises(ValueError, match="start"):
            TopicReader(servers, "orders", start=start)
    for bad, named in (
        (lambda: untyped(None, "orders"), "bootstrap_servers"),
        (lambda: untyped(servers, None), "topic"),
        (lambda: untyped(servers, "orders", "x"), "config"),
        (lambda: untyped(servers, "orders", {"a": 1}), "config"),
        (lambda: untyped(servers, "orders", start=[0]), "start"),
    ):
        with pytest.raises(TypeError, match=named):
            bad()  # type: ignore[no-untyped-call]
    with broker.reader("orders") as reader:
        with pytest.raises(ValueError, match="max_messages"):
            reader.read(-1)
        with pytest.raises(ValueError, match="never end"):
            reader.read(timeout=None)
        with pytest.raises(TypeError, match="timeout"):
            reader.read(1, "soon")  # type: ignore[arg-type]


def test_a_closed_reader_says_so(broker: EmbeddedBroker) -> None:
    reader = broker.reader("orders")
    assert "orders" in repr(reader)
    reader.close()
    reader.close()
    assert "closed" in repr(reader)
    assert reader.positions == {}
    with pytest.raises(KafkaException, match="closed"):
        reader.read(1)


def test_closing_a_reader_ends_the_read_of_another_thread(broker: EmbeddedBroker) -> None:
    reader = broker.reader("orders")
    outcome: list[BaseException] = []

    def read() -> None:
        try:
            reader.read(1, timeout=60)
        except KafkaException as error:
            outcome.append(error)

    thread = threading.Thread(target=read)
    thread.start()
    time.sleep(0.2)
    started = time.monotonic()
    reader.close()
    thread.join()
    assert time.monotonic() - started < 5
    assert len(outcome) == 1


@pytest.mark.filterwarnings(
    "ignore:.*fork:DeprecationWarning"
)  # forking with threads is what this is about
def test_a_forked_child_refuses_a_reader_at_once(broker: EmbeddedBroker) -> None:
    with broker.reader("orders") as reader:
        thread = threading.Thread(
            target=lambda: reader.read(1, timeout=2)
        )  # holds the reader's lock while we fork
        thread.start()
        time.sleep(0.2)
        child = os.fork()
        if child == 0:
            status = 1
            try:
                try:
                    reader.read(1, timeout=60)
                except KafkaException as error:
                    status = 0 if "fork" in str(error) else 2
                assert reader.positions == {}
                reader.close()
            finally:
                os._exit(status)
        _, wait_status = os.waitpid(child, 0)
        thread.join()
    assert os.waitstatus_to_exitcode(wait_status) == 0


def test_a_reader_dropped_unclosed_warns(broker: EmbeddedBroker) -> None:
    before = live_testing_objects()
    reader = broker.reader("orders")
    with pytest.warns(ResourceWarning, match="unclosed <TopicReader of 'orders'>"):
        del reader
    assert live_testing_objects() == before


# ---------------------------------------------------------------------- ConsumedMessage


def test_consumed_message() -> None:
    message = ConsumedMessage("t", 1, 2, b"k", b"v", [("h", None)], 5)
    assert message == ConsumedMessage("t", 1, 2, b"k", b"v", [("h", None)], 5)
    assert message != ConsumedMessage("t", 1, 2, b"k", None, [("h", None)], 5)
    assert message != "t"
    assert hash(message) == hash(ConsumedMessage("t", 1, 2, b"k", b"v", [("h", None)], 5))
    assert pickle.loads(pickle.dumps(message)) == message
    assert (
        repr(message)
        == "<ConsumedMessage t-1@2 key=b'k' value=b'v' headers=[('h', None)] timestamp=5>"
    )
    assert ConsumedMessage("t", 0, 0).timestamp is None
    assert ConsumedMessage("t", 0, 0).headers == []
    with pytest.raises(AttributeError):
        message.value = b"other"  # type: ignore[misc]
    with pytest.raises(TypeError, match="value"):
        ConsumedMessage("t", 0, 0, None, "text")  # type: ignore[arg-type]
