"""What a buggy program makes many of stays bounded: exceptions of callbacks, topic handles."""

import sys

import pytest

from kafka_ext import ProducerRecord

MANY = 5_000
KEPT = 1_000


def raising(metadata, error):
    raise ValueError(metadata.offset)


def leaves(exc):
    members = getattr(exc, "exceptions", None)
    if members is None:  # Python 3.10 has no groups: a chain of contexts
        chain = []
        while exc is not None:
            chain.append(exc)
            exc = exc.__context__
        return chain
    return list(members)


@pytest.mark.found(39)
def test_a_serving_call_raises_at_most_a_thousand_exceptions(manual, caplog):
    for _ in range(MANY):
        manual.send(ProducerRecord("t", b"x"), raising)
    with pytest.raises(Exception) as caught:
        manual.flush(30)
    raised = leaves(caught.value)
    assert 0 < len(raised) <= KEPT
    assert all(type(exc) is ValueError for exc in raised)
    assert manual.metrics().callback_errors == MANY
    more = f"{MANY - KEPT} more callbacks raised"
    assert more in caplog.text
    if sys.version_info >= (3, 11):
        assert more in raised[-1].__notes__[0]
    manual.flush(1)  # nothing is left to raise


@pytest.mark.found(39)
def test_an_interruption_is_raised_whatever_came_before_it(manual):
    def interrupted(metadata, error):
        raise KeyboardInterrupt if metadata.record_id == MANY - 1 else ValueError

    for number in range(MANY):
        manual.send(ProducerRecord("t", b"x", id=number, partition=0), interrupted)
    with pytest.raises(KeyboardInterrupt):
        manual.flush(30)


@pytest.mark.found(39)
def test_an_events_thread_shows_a_thousand_exceptions_a_second(make_producer, unraisable, caplog):
    producer = make_producer({"linger.ms": 50})
    for _ in range(MANY):
        producer.send(ProducerRecord("t", b"x"), raising)
    producer.flush(30)
    producer.close()  # says what was left out
    assert producer.metrics().callback_errors == MANY
    shown = len(unraisable)
    assert KEPT <= shown < MANY
    told = [
        int(record.message.split()[0])
        for record in caplog.records
        if "more callbacks raised" in record.message
    ]
    assert shown + sum(told) == MANY
