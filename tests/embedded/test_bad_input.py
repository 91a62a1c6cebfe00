"""Bad input: a clear exception before anything is enqueued; nothing leaked, nothing pinned, the
producer usable afterwards.
"""

import array
import datetime
import decimal
import itertools
import re

import numpy as np
import pytest
from faultlib import shown

from kafka_ext import (
    ErrorCode,
    InvalidRecordError,
    KafkaException,
    KafkaProducer,
    ProducerRecord,
    _rdkafka,
)


class Unbuffered:
    """What is neither a buffer nor a str, but would like to be."""

    def __bytes__(self):
        return b"bytes"

    def __str__(self):
        return "str"


class OnAnotherDevice:
    """Looks like a GPU tensor to DLPack."""

    def __dlpack_device__(self):
        return (2, 0)

    def __dlpack__(self):
        raise AssertionError("not to be asked for")


class DeviceRaises(OnAnotherDevice):
    def __dlpack_device__(self):
        raise RuntimeError("no device")


def _pinned_and_live(producer):
    live = _rdkafka.live_objects()
    metrics = producer.metrics()
    return (
        metrics.sent,
        metrics.pinned_messages,
        metrics.pinned_bytes,
        metrics.outstanding,
        live["messages"],
    )


@pytest.fixture(params=["thread", "manual"])
def checked(request, make_producer):
    """A producer that must be as it was after the test: nothing enqueued, nothing kept, and
    working.
    """
    producer = make_producer({"enable.manual.events.poll": request.param == "manual"})
    yield producer
    assert _pinned_and_live(producer) == (0, 0, 0, 0, 0)
    assert producer.sync_send(ProducerRecord("t", b"still works"), timeout=10).offset is not None


def never(metadata, error):
    raise AssertionError("a refused send calls nobody back")


def _all_ways_to_send(producer):
    return [
        lambda record: producer.send(record, never),
        lambda record: producer.send(record),
        lambda record: producer.try_send(record, never),
        lambda record: producer.sync_send(record, timeout=10),
        lambda record: producer.send_future(record),
    ]


def _refused(producer, record, says):
    """An InvalidRecordError, which try_send returns; never a BufferError, which is a full queue."""
    for send in (
        producer.send,
        producer.send_future,
        lambda record: producer.sync_send(record, timeout=10),
    ):
        with pytest.raises(InvalidRecordError, match=says) as caught:
            send(record)
        assert isinstance(caught.value, ValueError)
        assert not isinstance(caught.value, BufferError)
    error = producer.try_send(record, never)
    assert error == ErrorCode.INVALID_ARG
    assert re.search(says, error.message)


WRONG_VALUES = [
    5,
    1.5,
    True,
    object(),
    [],
    ["a"],
    {},
    {"a": 1},
    {1},
    ...,
    Unbuffered(),
    decimal.Decimal(1),
    datetime.timedelta(1),
    b"".join,
]


class TestRecord:
    @pytest.mark.parametrize("topic", [None, 5, b"bytes", ["t"], object()], ids=shown)
    def test_a_topic_that_is_no_str(self, topic):
        with pytest.raises(TypeError, match="topic"):
            ProducerRecord(topic, b"")
        record = ProducerRecord("t")
        with pytest.raises(TypeError, match="topic"):
            record.topic = topic
        assert record.topic == "t"

    @pytest.mark.parametrize("partition", ["0", 0.0, b"0", [0], object()], ids=shown)
    def test_a_partition_that_is_no_int(self, partition):
        with pytest.raises(TypeError, match="partition"):
            ProducerRecord("t", b"", partition=partition)

    @pytest.mark.parametrize("partition", [-1, -2, -(2**31), 2**31, 2**63, 2**200])
    def test_a_partition_out_of_range(self, partition):
        with pytest.raises(InvalidRecordError, match="partition"):
            ProducerRecord("t", b"", partition=partition)
        with pytest.raises(ValueError, match="partition"):
            ProducerRecord("t").partition = partition

    @pytest.mark.parametrize(
        "timestamp", ["now", 1.5, b"", datetime.date(2026, 1, 1), datetime.timedelta(1)], ids=repr
    )
    def test_a_timestamp_of_a_wrong_type(self, timestamp):
        with pytest.raises(TypeError, match="timestamp"):
            ProducerRecord("t", b"", timestamp=timestamp)

    @pytest.mark.parametrize(
        "timestamp",
        [-1, 0, 2**63, datetime.datetime(1960, 1, 1, tzinfo=datetime.timezone.utc)],
        ids=repr,
    )
    def test_a_timestamp_out_of_range(self, timestamp):
        with pytest.raises(InvalidRecordError, match="timestamp"):
            ProducerRecord("t", b"", timestamp=timestamp)

    def test_positional_arguments_end_with_the_value(self):
        with pytest.raises(TypeError):
            ProducerRecord("t", b"value", b"key")

    def test_an_unknown_argument(self):
        with pytest.raises(TypeError, match="kee"):
            ProducerRecord("t", b"value", kee=b"key")


class TestTypes:
    def test_a_value_that_is_no_buffer(self, checked):
        for send, value in itertools.product(_all_ways_to_send(checked), WRONG_VALUES):
            with pytest.raises(TypeError, match=r"^value must be"):
                send(ProducerRecord("t", value))

    def test_a_key_that_is_no_buffer(self, checked):
        value = bytearray(b"not pinned")
        for send, key in itertools.product(_all_ways_to_send(checked), WRONG_VALUES):
            with pytest.raises(TypeError, match=r"^key must be"):
                send(ProducerRecord("t", value, key=key))
        value.append(1)

    def test_a_headers_value_that_is_no_buffer(self, checked):
        value = bytearray(b"not pinned")
        for send, header in itertools.product(_all_ways_to_send(checked), WRONG_VALUES):
            with pytest.raises(TypeError, match=r"^headers: a value must be"):
                send(ProducerRecord("t", value, headers=[("good", b"1"), ("bad", header)]))
        value.append(1)

    def test_a_headers_name_that_is_no_str(self, checked):
        for send, name in itertools.product(_all_ways_to_send(checked), [5, b"name", None, ("a",)]):
            with pytest.raises(TypeError, match=r"^headers: a name must be a str"):
                send(ProducerRecord("t", b"", headers=[(name, b"")]))

    def test_headers_that_are_not_pairs(self, checked):
        value = bytearray(b"not pinned")
        wrong = [
            5,
            "ab",
            b"ab",
            bytearray(b"ab"),
            [5],
            ["ab"],
            [b"ab"],
            [("a",)],
            [("a", b"1", b"2")],
            [None],
            [{"a": b"1"}],
            object(),
            ("a", b"1"),
        ]
        for send, headers in itertools.product(_all_ways_to_send(checked), wrong):
            with pytest.raises(TypeError, match=r"^headers must be"):
                send(ProducerRecord("t", value, headers=headers))
        value.append(1)

    def test_headers_whose_iteration_raises(self, checked):
        def headers():
            yield ("a", b"1")
            raise RuntimeError("no more")

        with pytest.raises(RuntimeError, match="no more"):
            checked.send(ProducerRecord("t", bytearray(b"v"), headers=headers()), never)

    def test_a_callback_that_is_not_callable(self, checked):
        for send, callback in itertools.product(
            (checked.send, checked.try_send), [5, "print", b"", [], object()]
        ):
            with pytest.raises(TypeError, match="on_delivery"):
                send(ProducerRecord("t", b""), callback)

    def test_a_record_that_is_none(self, checked):
        for send, record in itertools.product(
            _all_ways_to_send(checked), [None, b"value", "t", ("t", b"value"), object()]
        ):
            with pytest.raises(TypeError, match="record"):
                send(record)

    def test_an_option_that_is_no_send_option(self, checked):
        for send, option in itertools.product(
            (checked.send, checked.try_send, checked.send_future), [None, 5, "copy", True]
        ):
            with pytest.raises(TypeError, match="option"):
                send(ProducerRecord("t", b""), option=option)

    def test_an_action_that_is_none(self, checked):
        for send, action in itertools.product(
            (checked.send, checked.send_future), [None, 5, "block", False]
        ):
            with pytest.raises(TypeError, match="action"):
                send(ProducerRecord("t", b""), action=action)

    def calls_with_a_timeout(self, producer):
        return [
            lambda timeout: producer.send(ProducerRecord("t", b""), timeout=timeout),
            lambda timeout: producer.sync_send(ProducerRecord("t", b""), timeout=timeout),
            lambda timeout: producer.send_future(ProducerRecord("t", b""), timeout=timeout),
            producer.flush,
            producer.close,
            lambda timeout: producer.fetch_broker_metadata(timeout=timeout),
        ]

    def test_a_timeout_that_is_no_number(self, checked):
        for call, timeout in itertools.product(
            self.calls_with_a_timeout(checked), ["1", b"1", [], object()]
        ):
            with pytest.raises(TypeError, match="timeout"):
                call(timeout)

    def test_a_timeout_out_of_range(self, checked):
        for call, timeout in itertools.product(
            self.calls_with_a_timeout(checked), [-1, -0.001, float("nan"), float("-inf")]
        ):
            with pytest.raises(ValueError, match="timeout"):
                call(timeout)

    def test_a_metadata_topic_that_is_no_str(self, checked):
        with pytest.raises(TypeError, match="topic"):
            checked.fetch_broker_metadata(b"t")


class TestMemory:
    @pytest.mark.parametrize(
        "strided",
        [
            memoryview(b"abcdef")[::2],
            memoryview(b"abcdef")[::-1],
            np.arange(12).reshape(3, 4)[:, 1],
            np.arange(12).reshape(3, 4).T,
            np.asfortranarray(np.arange(12).reshape(3, 4)),
            memoryview(array.array("i", range(9)))[::3],
        ],
        ids=[
            "every second byte",
            "backwards",
            "a column",
            "transposed",
            "Fortran order",
            "every third int",
        ],
    )
    @pytest.mark.parametrize("part", ["value", "key", "headers"])
    def test_a_non_contiguous_buffer(self, checked, strided, part):
        value = bytearray(b"not pinned")
        record = ProducerRecord("t", value)
        setattr(record, part, [("name", strided)] if part == "headers" else strided)
        _refused(checked, record, "contiguous")
        value.append(1)

    def test_a_released_memoryview(self, checked):
        view = memoryview(b"abc")
        view.release()
        _refused(checked, ProducerRecord("t", view), "released")

    @pytest.mark.parametrize("part", ["value", "key", "headers"])
    def test_a_str_with_a_lone_surrogate(self, checked, part):
        record = ProducerRecord("t", bytearray(b"v"))
        setattr(record, part, [("name", "a\ud800")] if part == "headers" else "a\ud800")
        _refused(checked, record, f"{part}: .*surrogates not allowed")

    def test_a_tensor_on_another_device(self, checked):
        _refused(checked, ProducerRecord("t", OnAnotherDevice()), "CPU")

    def test_a_tensor_whose_device_raises(self, checked):
        with pytest.raises(RuntimeError, match="no device"):
            checked.send(ProducerRecord("t", DeviceRaises()), never)

    def test_a_record_too_large_for_the_client(self, checked):
        limit = int(checked.get_property("message.max.bytes"))
        value = bytearray(limit + 1)
        with pytest.raises(KafkaException) as caught:
            checked.send(ProducerRecord("t", value), never)
        assert caught.value.error == ErrorCode.MSG_SIZE_TOO_LARGE
        assert checked.try_send(ProducerRecord("t", value), never) == ErrorCode.MSG_SIZE_TOO_LARGE
        with pytest.raises(KafkaException):
            checked.send_future(ProducerRecord("t", value))
        value.append(1)


class TestNames:
    BAD_TOPICS = (
        "",
        ".",
        "..",
        "a" * 250,
        "a\0b",
        "\0",
        "with space",
        "slash/",
        "ümlaut",
        "a\n",
        "a\ud800",
        "{}",
    )

    def test_a_topic_no_broker_would_take(self, checked):
        value = bytearray(b"not pinned")
        for send, topic in itertools.product(
            (checked.send, checked.sync_send, checked.send_future), self.BAD_TOPICS
        ):
            with pytest.raises(InvalidRecordError, match="topic") as caught:
                send(ProducerRecord(topic, value))
            assert isinstance(caught.value, ValueError)
        for topic in self.BAD_TOPICS:
            assert (
                checked.try_send(ProducerRecord(topic, value), never) == ErrorCode.TOPIC_EXCEPTION
            )
        value.append(1)

    def test_a_topic_at_the_edge_of_the_rule_is_taken(self, producer):
        for topic in ("a" * 249, "A-z_0.9", "...", "_"):
            assert producer.sync_send(ProducerRecord(topic, b""), timeout=10).topic == topic

    def test_a_nul_in_a_headers_name(self, checked):
        for send in (checked.send, checked.sync_send, checked.send_future):
            with pytest.raises(ValueError, match="NUL"):
                send(ProducerRecord("t", bytearray(b"v"), headers=[("a\0b", b"")]))
        assert (
            checked.try_send(ProducerRecord("t", b"", headers={"\0": b""})) == ErrorCode.INVALID_ARG
        )


class TestOnlyTheClusterKnows:
    def test_a_partition_that_does_not_exist_is_raised_or_reported_never_both(
        self, producer, reports
    ):
        """Before the topic's metadata is known it is reported; afterwards librdkafka refuses it at
        once. The first send is a race.
        """
        raised = producer.try_send(ProducerRecord("t", bytearray(b"v"), partition=999), reports)
        producer.flush(10)
        assert [raised, *reports.errors] in (
            [None, ErrorCode.UNKNOWN_PARTITION],
            [ErrorCode.UNKNOWN_PARTITION],
        )
        reported = len(reports)
        with pytest.raises(KafkaException) as caught:
            producer.send(ProducerRecord("t", bytearray(b"v"), partition=999), never)
        assert caught.value.error == ErrorCode.UNKNOWN_PARTITION
        assert (
            producer.try_send(ProducerRecord("t", b"v", partition=999), never)
            == ErrorCode.UNKNOWN_PARTITION
        )
        assert producer.sync_send(ProducerRecord("t", b"v", partition=0), timeout=10).partition == 0
        assert len(reports) == reported

    def test_a_partition_that_does_not_exist_with_headers(self, producer, reports):
        """Before librdkafka 2.12 this was a double free."""
        producer.sync_send(ProducerRecord("t", b"v"), timeout=10)
        for _ in range(3):
            with pytest.raises(KafkaException):
                producer.send(
                    ProducerRecord("t", bytearray(b"v"), partition=999, headers=[("a", b"b")]),
                    never,
                )

    def test_a_broker_address_that_does_not_resolve_is_an_error_event_and_a_report_in_time(
        self, reports
    ):
        errors = []
        settings = {
            "bootstrap.servers": "no.such.host.invalid:9092",
            "enable.idempotence": False,
            "message.timeout.ms": 500,
        }
        with KafkaProducer(settings, error_cb=errors.append) as producer:
            value = bytearray(b"pinned until its report")
            producer.send(ProducerRecord("t", value, id=1), reports)
            producer.flush(30)
            assert reports.errors == [ErrorCode.MSG_TIMED_OUT]
            assert reports.ids == [1]
            value.append(1)
            assert ErrorCode.RESOLVE in errors
            assert producer.metrics().failed == 1

    def test_a_broker_that_is_not_there(self, reports):
        with KafkaProducer(
            {
                "bootstrap.servers": "127.0.0.1:1",
                "enable.idempotence": False,
                "message.timeout.ms": 500,
            }
        ) as producer:
            with pytest.raises(KafkaException) as caught:
                producer.sync_send(ProducerRecord("t", b"v"), timeout=30)
            assert caught.value.error == ErrorCode.MSG_TIMED_OUT
