"""KafkaError, ErrorCode and the exceptions."""

import pickle
import re
from enum import IntEnum
from pathlib import Path

import pytest

import kafka_ext
from kafka_ext import (
    ErrorCode,
    InvalidConfigError,
    InvalidRecordError,
    KafkaError,
    KafkaException,
    KafkaTimeoutError,
    ProducerClosedError,
    ProducerForkedError,
    QueueFullError,
)

EXCEPTIONS = {
    KafkaException: Exception,
    QueueFullError: BufferError,
    KafkaTimeoutError: TimeoutError,
    InvalidConfigError: ValueError,
    InvalidRecordError: ValueError,
    ProducerClosedError: KafkaException,
    ProducerForkedError: KafkaException,
}


def _codes_of_the_header():
    """Names and numbers as the header of the bundled librdkafka spells them: another witness than
    rd_kafka_get_err_descs().
    """
    header = Path(__file__).parents[2] / "build/librdkafka/include/librdkafka/rdkafka.h"
    if not header.is_file():
        pytest.skip("librdkafka is not the bundled one")
    found = re.findall(r"^\s*RD_KAFKA_RESP_ERR_(\w+) = (-?\d+)", header.read_text(), re.MULTILINE)
    assert len(found) > 100
    return {name: int(number) for name, number in found}


class TestErrorCode:
    def test_is_made_of_what_librdkafka_lists(self):
        of_header = _codes_of_the_header()
        for name, number in of_header.items():
            if name in (
                "_BEGIN",
                "_END",
                "END_ALL",
            ):  # marks the ends of the local codes: not errors
                continue
            assert ErrorCode[name.removeprefix("_")] == number

    def test_is_an_int_enum_with_negative_local_codes(self):
        assert issubclass(ErrorCode, IntEnum)
        assert ErrorCode.QUEUE_FULL == -184
        assert ErrorCode.MSG_TIMED_OUT == -192
        assert ErrorCode.MSG_SIZE_TOO_LARGE == 10
        assert ErrorCode.NO_ERROR == 0

    def test_no_two_names_share_a_code(self):
        assert all(name == code.name for name, code in ErrorCode.__members__.items())

    def test_no_name_starts_with_an_underscore(self):
        assert not [name for name in ErrorCode.__members__ if name.startswith("_")]

    def test_pickles(self):
        assert pickle.loads(pickle.dumps(ErrorCode.QUEUE_FULL)) is ErrorCode.QUEUE_FULL


class TestKafkaError:
    def test_has_a_code_a_name_and_a_message(self):
        error = KafkaError(ErrorCode.QUEUE_FULL)
        assert error.code is ErrorCode.QUEUE_FULL
        assert error.name == "QUEUE_FULL"
        assert error.message == "Local: Queue full"
        assert str(error) == "QUEUE_FULL: Local: Queue full"

    def test_takes_a_plain_number(self):
        assert KafkaError(-184).code is ErrorCode.QUEUE_FULL

    def test_keeps_a_number_librdkafka_does_not_know(self):
        error = KafkaError(31234)
        assert error.code == 31234
        assert error.name == "ERR_31234"
        assert "31234" in error.message

    @pytest.mark.parametrize("code", ["QUEUE_FULL", None, -184.0])
    def test_takes_nothing_else(self, code):
        with pytest.raises(TypeError, match="code must be"):
            KafkaError(code)

    def test_a_message_of_its_own_wins(self):
        assert KafkaError(ErrorCode.QUEUE_FULL, "no room").message == "no room"

    def test_equals_another_of_the_same_code_and_the_code(self):
        error = KafkaError(ErrorCode.QUEUE_FULL, "one")
        assert error == KafkaError(ErrorCode.QUEUE_FULL, "another", is_fatal=True)
        assert error == ErrorCode.QUEUE_FULL
        assert ErrorCode.QUEUE_FULL == error  # noqa: SIM300 - this way round, too
        assert error != KafkaError(ErrorCode.MSG_TIMED_OUT, "one")
        assert error != ErrorCode.MSG_TIMED_OUT
        assert error != "QUEUE_FULL"
        assert error is not None

    def test_hashes_as_its_code(self):
        assert {KafkaError(ErrorCode.QUEUE_FULL): 1}[ErrorCode.QUEUE_FULL] == 1
        assert (
            len(
                {
                    KafkaError(ErrorCode.QUEUE_FULL, "a"),
                    KafkaError(ErrorCode.QUEUE_FULL, "b"),
                    ErrorCode.QUEUE_FULL,
                }
            )
            == 1
        )

    @pytest.mark.parametrize("protocol", range(pickle.HIGHEST_PROTOCOL + 1))
    def test_pickles_with_all_it_knows(self, protocol):
        error = KafkaError(
            ErrorCode.FENCED,
            "gone",
            is_fatal=True,
            is_retriable=True,
            transaction_requires_abort=True,
        )
        copy = pickle.loads(pickle.dumps(error, protocol))
        assert copy == error
        assert (
            copy.message,
            copy.is_fatal,
            copy.is_retriable,
            copy.transaction_requires_abort,
        ) == ("gone", True, True, True)

    def test_flags_are_false_unless_said_otherwise(self):
        error = KafkaError(ErrorCode.TOPIC_AUTHORIZATION_FAILED)
        assert (error.is_fatal, error.is_retriable, error.transaction_requires_abort) == (
            False,
            False,
            False,
        )

    @pytest.mark.parametrize(
        "name", ["QUEUE_FULL", "LEADER_NOT_AVAILABLE", "NOT_ENOUGH_REPLICAS", "TIMED_OUT"]
    )
    def test_what_may_succeed_later_is_retriable(self, name):
        assert KafkaError(ErrorCode[name]).is_retriable

    def test_what_is_fatal_is_not_retriable(self):
        assert not KafkaError(ErrorCode.QUEUE_FULL, is_fatal=True).is_retriable

    def test_repr_says_all(self):
        text = repr(KafkaError(ErrorCode.FENCED, "gone", is_fatal=True))
        assert text == "KafkaError(FENCED, 'gone', is_fatal=True)"

    def test_is_always_true_so_that_if_error_works(self):
        assert KafkaError(ErrorCode.NO_ERROR)

    def test_its_attributes_cannot_be_set(self):
        with pytest.raises(AttributeError):
            KafkaError(ErrorCode.QUEUE_FULL).code = 1


class TestExceptions:
    @pytest.mark.parametrize("cls", EXCEPTIONS)
    def test_each_is_a_kafka_exception_and_what_people_would_catch(self, cls):
        assert issubclass(cls, KafkaException)
        assert issubclass(cls, EXCEPTIONS[cls])

    @pytest.mark.parametrize("cls", EXCEPTIONS)
    def test_each_carries_its_error(self, cls):
        error = KafkaError(ErrorCode.QUEUE_FULL, "no room")
        raised = cls(error)
        assert raised.error is error
        assert str(raised) == "QUEUE_FULL: no room"

    @pytest.mark.parametrize("cls", EXCEPTIONS)
    def test_each_pickles(self, cls):
        copy = pickle.loads(pickle.dumps(cls(KafkaError(ErrorCode.QUEUE_FULL, "no room"))))
        assert type(copy) is cls
        assert copy.error == ErrorCode.QUEUE_FULL
        assert copy.error.message == "no room"

    def test_a_config_error_names_its_property_also_when_pickled(self):
        raised = InvalidConfigError(KafkaError(ErrorCode.INVALID_ARG, "what"), "linger.ms")
        assert pickle.loads(pickle.dumps(raised)).property == "linger.ms"

    def test_only_an_error_makes_an_exception(self):
        with pytest.raises(TypeError, match="KafkaError"):
            KafkaException("text")


def test_everything_named_in_the_contract_is_importable():
    for name in (
        "Properties KafkaProducer ProducerRecord RecordMetadata PersistedStatus KafkaError"
        " ErrorCode KafkaException SendOption ActionWhileQueueIsFull BrokerMetadata QueueFullError"
        " KafkaTimeoutError InvalidConfigError ProducerClosedError ProducerForkedError"
        " OAuthBearerToken ProducerMetrics TimestampType"
    ).split():
        assert getattr(kafka_ext, name).__name__ == name
        assert name in kafka_ext.__all__
    for name in kafka_ext.__all__:
        assert hasattr(kafka_ext, name)
