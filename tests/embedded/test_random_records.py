"""Records, faults and close timing at random: what is read back is what was sent, each record is
reported once, every pin is let go.

KAFKA_EXT_HYPOTHESIS=thorough looks ten times as long; the default profile, "ci", is for every
change.
"""

import array
import gc
import itertools
import os
import re
import tempfile
import time
import warnings
from mmap import mmap

import pytest
from faultlib import Outcomes, closed_port, is_pinned, wait_until
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from kafka_ext import (
    ErrorCode,
    InvalidConfigError,
    KafkaException,
    KafkaProducer,
    ProducerRecord,
    QueueFullError,
    SendOption,
)
from kafka_ext.testing import ApiKey, EmbeddedBroker

pytestmark = pytest.mark.slow(5)

EXAMPLES = {"ci": 1, "thorough": 10}[os.environ.get("KAFKA_EXT_HYPOTHESIS", "ci")]
COMMON = {
    "deadline": None,  # brokers and the other processes of this machine take what time they take
    "print_blob": True,
    "suppress_health_check": [HealthCheck.function_scoped_fixture, HealthCheck.too_slow],
}
numbers = itertools.count()

# ---------------------------------------------------------------------- what can be sent


def in_mmap(content):
    """`mmap` cannot be empty, so one byte is added in front, and a view leaves it out."""
    with tempfile.TemporaryFile() as file:
        file.write(b"-" + content)
        file.flush()
        return memoryview(mmap(file.fileno(), len(content) + 1))[1:]


BUFFERS = {
    "bytes": bytes,
    "bytearray": bytearray,
    "memoryview": lambda content: memoryview(bytearray(b"<" + content + b">"))[1:-1],
    "array": lambda content: array.array("B", content),
    "mmap": in_mmap,
}
contents = st.one_of(
    st.binary(max_size=300),
    st.builds(
        lambda byte, size: byte * size, st.binary(min_size=1, max_size=1), st.integers(0, 70_000)
    ),
)
texts = st.text(st.characters(exclude_categories=("Cs",)), max_size=50)
payloads = st.one_of(
    st.none(),
    texts,
    st.builds(
        lambda kind, content: BUFFERS[kind](content), st.sampled_from(sorted(BUFFERS)), contents
    ),
)
small = st.one_of(st.none(), texts, st.binary(max_size=40), st.binary(max_size=40).map(bytearray))
names = st.text(st.characters(exclude_categories=("Cs",), exclude_characters="\0"), max_size=20)
records = st.fixed_dictionaries(
    {
        "value": payloads,
        "key": small,
        "headers": st.one_of(st.none(), st.lists(st.tuples(names, small), max_size=5)),
        "partition": st.one_of(st.none(), st.integers(0, 3)),
        "timestamp": st.one_of(st.none(), st.integers(1, 2**62)),
    }
)


def plain(value):
    """What a reader sees of what was sent."""
    return value.encode() if isinstance(value, str) else value if value is None else bytes(value)


@pytest.fixture(scope="module")
def broker():
    with EmbeddedBroker() as broker:
        yield broker


@pytest.fixture(scope="module")
def producer(broker):
    with KafkaProducer(broker.config(enable_idempotence=False, linger_ms=2)) as producer:
        yield producer


@pytest.fixture(autouse=True)
def nothing_left_behind():
    """Instead of the one for all tests: this module keeps a producer, and looks itself."""


@settings(max_examples=100 * EXAMPLES, **COMMON)
@given(sent=st.lists(st.tuples(records, st.sampled_from(SendOption), st.booleans()), max_size=8))
def test_what_is_read_back_is_what_was_sent(broker, producer, sent):
    topic = f"topic-{next(numbers)}"
    broker.create_topic(topic, 4)
    outcomes = Outcomes()
    expected = {}
    for number, (fields, option, heard) in enumerate(sent):
        producer.send(
            ProducerRecord(topic, id=number, **fields),
            outcomes.expect(number) if heard else None,
            option=option,
        )
        expected[number] = (
            plain(fields["key"]),
            plain(fields["value"]),
            [(name, plain(value)) for name, value in fields["headers"] or ()],
        )
    producer.flush(20)
    outcomes.check([number for number, (_, _, heard) in enumerate(sent) if heard])
    assert producer.metrics().pinned_messages == 0
    messages = broker.messages(topic)
    assert sorted(map(repr, expected.values())) == sorted(
        repr((m.key, m.value, m.headers or [])) for m in messages
    )
    where = {(message.partition, message.offset): message for message in messages}
    for number, (metadata, error) in outcomes.reports.items():
        assert error is None
        message = where.pop((metadata.partition, metadata.offset))
        assert (message.key, message.value, message.headers or []) == expected[number]
        fields = sent[number][0]
        assert fields["partition"] in (None, metadata.partition)
        assert fields["timestamp"] in (None, message.timestamp)
        assert metadata.record_id == number
        assert metadata.value_size == len(expected[number][1] or b"")
        assert metadata.key_size == len(expected[number][0] or b"")


# ---------------------------------------------------------------------- faults and ends

PASSING = [
    "NO_ERROR",
    "NOT_LEADER_FOR_PARTITION",
    "NOT_ENOUGH_REPLICAS",
    "REQUEST_TIMED_OUT",
    "TRANSPORT",
]
LASTING = ["MSG_SIZE_TOO_LARGE", "TOPIC_AUTHORIZATION_FAILED", "INVALID_REQUIRED_ACKS"]
schedules = st.fixed_dictionaries(
    {
        "manual": st.booleans(),
        "linger": st.sampled_from([0, 1, 20]),
        "queue": st.sampled_from([5, 1000]),
        "bursts": st.lists(st.integers(1, 40), min_size=1, max_size=4),
        "errors": st.lists(
            st.sampled_from(PASSING + LASTING).map(ErrorCode.__getitem__), max_size=5
        ),
        "lost": st.integers(0, 2),
        "delay": st.sampled_from([0, 0.005, 0.05]),
        "purge": st.booleans(),
        "pause": st.sampled_from([0, 0.002, 0.02]),
        "end": st.sampled_from(["close", "close now", "close soon", "drop"]),
    }
)


@pytest.mark.slow(15)
@settings(max_examples=80 * EXAMPLES, **COMMON)
@given(schedule=schedules)
def test_one_report_each_whatever_happens(schedule):
    with EmbeddedBroker(topics={"orders": 2}) as broker:
        producer = KafkaProducer(
            broker.config(
                enable_idempotence=False,
                linger_ms=schedule["linger"],
                queue_buffering_max_messages=schedule["queue"],
                retry_backoff_ms=1,
                retry_backoff_max_ms=10,
                reconnect_backoff_ms=1,
                reconnect_backoff_max_ms=10,
                error_cb=lambda error: None,
            ),
            **{"enable.manual.events.poll": schedule["manual"], "log_level": 0},
        )
        if schedule["errors"]:
            broker.fail_requests(ApiKey.PRODUCE, schedule["errors"])
        if schedule["lost"]:
            broker.lose_acks(schedule["lost"])
        broker.round_trip_time(schedule["delay"])
        outcomes = Outcomes()
        accepted, values = [], []
        for burst in schedule["bursts"]:
            for _ in range(burst):
                values.append(bytearray(b"%d" % len(values)))
                number = len(values) - 1
                try:
                    producer.send(
                        ProducerRecord("orders", values[-1], partition=number % 2),
                        outcomes.expect(number),
                    )
                    accepted.append(number)
                except QueueFullError:
                    assert schedule["manual"]
                    assert not is_pinned(values[-1])
                    producer.poll_events(0)
                except KafkaException as error:
                    assert error.error == ErrorCode["TOPIC_AUTHORIZATION_FAILED"]  # noqa: PT017
                    assert not is_pinned(values[-1])
            time.sleep(schedule["pause"])
        if schedule["purge"]:
            producer.purge()
        if schedule["end"] == "drop":
            with warnings.catch_warnings():
                warnings.simplefilter("ignore", ResourceWarning)
                del producer
                gc.collect()
            outcomes.wait(len(accepted), 30)
        else:
            producer.close({"close": None, "close now": 0, "close soon": 0.01}[schedule["end"]])
        outcomes.check(accepted)
        wait_until(lambda: not any(map(is_pinned, values)))
        # What was reported as delivered is there. (What was reported as failed may be there as
        # well.)
        delivered = {
            b"%d" % number for number, (_, error) in outcomes.reports.items() if error is None
        }
        broker.round_trip_time(0)
        assert delivered <= {message.value for message in broker.messages("orders")}


# ---------------------------------------------------------------------- bad input


@pytest.fixture(scope="module")
def nowhere():
    producer = KafkaProducer(
        {
            "bootstrap.servers": closed_port(),
            "log_level": 0,
            "error_cb": lambda error: None,
            "enable.idempotence": False,
        }
    )
    yield producer
    producer.close(0)


@settings(max_examples=200 * EXAMPLES, **COMMON)
@given(topic=st.one_of(st.text(max_size=20), st.text("abc._-", min_size=1, max_size=260)))
def test_fault_34_any_topic_name(nowhere, topic):
    value = bytearray(b"x")
    good = re.fullmatch(r"[a-zA-Z0-9._-]{1,249}", topic) is not None and topic not in (".", "..")
    if good:
        nowhere.send(ProducerRecord(topic, value))
        nowhere.purge()
        nowhere.flush(20)
    else:
        with pytest.raises(ValueError):
            nowhere.send(ProducerRecord(topic, value), pytest.fail)
    assert not is_pinned(value)


anything = st.one_of(
    st.none(), st.booleans(), st.integers(), st.floats(), st.text(max_size=5), st.binary(max_size=5), st.lists(st.integers(), max_size=3),
    st.tuples(st.text(max_size=3), st.binary(max_size=3)), st.builds(object), st.just(print),
)  # fmt: skip


@settings(max_examples=300 * EXAMPLES, **COMMON)
@given(
    fields=st.dictionaries(
        st.sampled_from(["key", "value", "headers", "partition", "timestamp", "id"]),
        st.one_of(anything, st.lists(anything, max_size=2)),
        max_size=4,
    ),
    on_delivery=anything,
    option=st.one_of(st.sampled_from(SendOption), anything),
    timeout=anything,
)
def test_fault_33_any_argument(nowhere, fields, on_delivery, option, timeout):
    """A clear exception, or a report; the producer goes on."""
    before = nowhere.metrics()
    value = bytearray(b"x")
    try:
        record = ProducerRecord("t", **{"value": value} | fields)
        nowhere.send(
            record, None if on_delivery is print else on_delivery, option=option, timeout=timeout
        )
        sent = 1
    except (TypeError, ValueError, BufferError, KafkaException):
        sent = 0
        assert not is_pinned(value)
    assert nowhere.metrics().sent == before.sent + sent
    nowhere.purge()
    nowhere.flush(20)
    assert not is_pinned(value)
    assert nowhere.metrics().pinned_messages == 0


# No property here runs a program, opens a file or loads a library.
PROPERTIES = ["linger.ms", "acks", "batch.size", "compression.codec", "enable.idempotence", "max.in.flight", "retries", "client.id",
              "message.max.bytes", "queue.buffering.max.messages", "security.protocol", "sasl.mechanisms", "transactional.id",
              "bootstrap.servers", "partitioner", "enable.manual.events.poll", "error_cb", "statistics.interval.ms"]  # fmt: skip


@settings(max_examples=100 * EXAMPLES, **COMMON)
@given(
    properties=st.dictionaries(
        st.one_of(st.sampled_from(PROPERTIES), st.text(max_size=12)),
        st.one_of(anything, st.integers(-5, 10).map(str)),
        max_size=4,
    )
)
def test_fault_17_any_configuration(properties):
    """Raised by the constructor, or a producer that works; never both, and nothing is left."""
    settings = {
        "bootstrap.servers": "127.0.0.1:1",
        "log_level": "0",
        "error_cb": lambda error: None,
    } | properties
    if settings["error_cb"] is print:
        del settings["error_cb"]
    try:
        producer = KafkaProducer(settings)
    except (InvalidConfigError, TypeError, ValueError):
        return
    producer.close(0)
