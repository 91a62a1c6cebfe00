"""ProducerRecord: what it takes and gives back."""

import datetime
import pickle

import pytest

from kafka_ext import (
    ActionWhileQueueIsFull,
    PersistedStatus,
    ProducerRecord,
    SendOption,
    TimestampType,
)


def test_everything_but_the_topic_has_a_default():
    record = ProducerRecord("t")
    assert (
        record.topic,
        record.value,
        record.key,
        record.partition,
        record.headers,
        record.timestamp,
        record.id,
    ) == ("t", *[None] * 6)


def test_keeps_what_it_is_given():
    value, headers, record_id = bytearray(b"v"), [("a", b"1")], object()
    record = ProducerRecord(
        "t", value, key="k", partition=3, headers=headers, timestamp=1234, id=record_id
    )
    assert record.value is value
    assert record.headers is headers
    assert record.id is record_id
    assert (record.key, record.partition, record.timestamp) == ("k", 3, 1234)


def test_every_attribute_can_be_set_again():
    record = ProducerRecord("t", b"v", partition=3, timestamp=1)
    record.topic, record.value, record.key, record.partition = "u", None, b"k", None
    record.headers, record.timestamp, record.id = {}, None, 7
    assert (
        record.topic,
        record.value,
        record.key,
        record.partition,
        record.headers,
        record.timestamp,
        record.id,
    ) == (
        "u",
        None,
        b"k",
        None,
        {},
        None,
        7,
    )


def test_a_datetime_is_milliseconds_since_the_epoch():
    aware = datetime.datetime(2026, 1, 1, 0, 0, 0, 123999, tzinfo=datetime.timezone.utc)
    assert ProducerRecord("t", timestamp=aware).timestamp == 1767225600123
    elsewhere = aware.astimezone(datetime.timezone(datetime.timedelta(hours=5, minutes=30)))
    assert ProducerRecord("t", timestamp=elsewhere).timestamp == 1767225600123


@pytest.mark.found(24)
@pytest.mark.parametrize(
    "time", [datetime.datetime(2026, 1, 1, 2), datetime.datetime.min, datetime.datetime.max]
)
def test_a_naive_datetime_is_refused(time):
    with pytest.raises(
        ValueError,
        match=r"timestamp .* has no time zone: give it one, astimezone\(\) for local time",
    ):
        ProducerRecord("t", timestamp=time)


@pytest.mark.found(24)
@pytest.mark.parametrize("zone", [-14, -1, 0, 1, 14])
@pytest.mark.parametrize("time", [datetime.datetime.min, datetime.datetime.max])
def test_a_datetime_at_the_ends_of_the_calendar_names_the_argument(time, zone):
    time = time.replace(tzinfo=datetime.timezone(datetime.timedelta(hours=zone)))
    if time.year == 9999 and zone >= 0:
        assert ProducerRecord("t", timestamp=time).timestamp > 250_000_000_000_000
        return
    with pytest.raises(ValueError, match="timestamp"):
        ProducerRecord("t", timestamp=time)


@pytest.mark.found(24)
def test_pandas_times():
    pd = pytest.importorskip("pandas")
    record = ProducerRecord("t", timestamp=pd.Timestamp("2026-01-01", tz="UTC"))
    assert (record.timestamp, type(record.timestamp)) == (1767225600000, int)
    with pytest.raises(ValueError, match="timestamp is NaT, which is no time; None means now"):
        record.timestamp = pd.NaT
    with pytest.raises(
        ValueError, match=r"timestamp 2026-01-01 00:00:00 has no time zone: .*tz_localize"
    ):
        record.timestamp = pd.Timestamp("2026-01-01")
    assert record.timestamp == 1767225600000


def test_the_largest_partition_and_timestamp():
    record = ProducerRecord("t", partition=2**31 - 1, timestamp=2**63 - 1)
    assert (record.partition, record.timestamp) == (2**31 - 1, 2**63 - 1)


def test_repr_shortens_what_is_long():
    text = repr(ProducerRecord("t", b"x" * 1000, key=b"k", id=5))
    assert text.startswith("ProducerRecord('t', b'xxx")
    assert "key=b'k', id=5" in text
    assert len(text) < 200


def test_pickles():
    record = pickle.loads(
        pickle.dumps(
            ProducerRecord(
                "t", b"v", key=b"k", partition=1, headers=[("a", None)], timestamp=5, id=6
            )
        )
    )
    assert (
        record.topic,
        record.value,
        record.key,
        record.partition,
        record.headers,
        record.timestamp,
        record.id,
    ) == (
        "t",
        b"v",
        b"k",
        1,
        [("a", None)],
        5,
        6,
    )


def test_the_words():
    assert [status.name for status in PersistedStatus] == ["NOT", "POSSIBLY", "DONE"]
    assert [option.name for option in SendOption] == [
        "NO_COPY_RECORD_VALUE",
        "TO_COPY_RECORD_VALUE",
    ]
    assert [action.name for action in ActionWhileQueueIsFull] == ["BLOCK", "NO_BLOCK"]
    assert str(TimestampType.CREATE_TIME) == "CreateTime"
