"""assert_delivered: what it accepts, and how it explains what it does not."""

from __future__ import annotations

import threading
from collections.abc import Iterable, Iterator, Sequence

import pytest
from hypothesis import given
from hypothesis import strategies as st

from kafka_ext import KafkaProducer, ProducerRecord
from kafka_ext.testing import ConsumedMessage, EmbeddedBroker
from kafka_ext.testing._readback import difference


def in_partition(values: Iterable[bytes | None], partition: int = 0) -> list[ConsumedMessage]:
    return [
        ConsumedMessage("t", partition, offset, None, value) for offset, value in enumerate(values)
    ]


def explain(
    messages: Sequence[ConsumedMessage],
    values: Iterable[object],
    *,
    exactly_once: bool = False,
    ordered: bool = False,
) -> str:
    return difference("t", messages, values, exactly_once=exactly_once, ordered=ordered) or ""


@given(st.lists(st.one_of(st.none(), st.binary(max_size=2))), st.integers(1, 4), st.booleans())
def test_what_was_sent_is_delivered(
    values: list[bytes | None], partitions: int, ordered: bool
) -> None:
    messages = [m for p in range(partitions) for m in in_partition(values[p::partitions], p)]
    assert explain(messages, values, exactly_once=True, ordered=ordered) == ""


@given(st.lists(st.binary(min_size=1, max_size=2), min_size=1), st.data())
def test_a_missing_value_is_always_found(values: list[bytes], data: st.DataObject) -> None:
    gone = data.draw(st.integers(0, len(values) - 1))
    messages = in_partition(values[:gone] + values[gone + 1 :])
    assert "missing: 1" in explain(messages, values)


@given(st.lists(st.binary(min_size=1, max_size=2), min_size=1), st.data())
def test_a_duplicate_matters_exactly_once(values: list[bytes], data: st.DataObject) -> None:
    messages = in_partition([*values, data.draw(st.sampled_from(values))])
    assert explain(messages, values) == ""
    assert explain(messages, values, ordered=True) == ""
    assert "duplicated: 1" in explain(messages, values, exactly_once=True)


@given(
    st.lists(st.integers(0, 255).map(lambda n: bytes([n])), min_size=2, unique=True).flatmap(
        lambda v: st.tuples(st.just(v), st.permutations(v))
    )
)
def test_another_order_matters_when_ordered(both: tuple[list[bytes], list[bytes]]) -> None:
    values, shuffled = both
    messages = in_partition(shuffled)
    assert explain(messages, values, exactly_once=True) == ""
    explained = explain(messages, values, exactly_once=True, ordered=True)
    assert ("reordered" in explained) == (values != shuffled)


def test_the_explanation_counts_and_shows_a_few_of_each() -> None:
    values = [str(n).encode() for n in range(100)]
    messages = in_partition([b"x", *values[10:], *values[10:13], b"y"])
    assert (
        explain(messages, values, exactly_once=True, ordered=True)
        == "topic 't' holds 95 messages where 100 were expected\n"
        "  missing: 10 (b'0', b'1', b'2', b'3', b'4', and 5 more)\n"
        "  duplicated: 3 (b'10', b'11', b'12')\n"
        "  unexpected: 2 (b'x', b'y')"
    )


def test_duplicates_that_are_allowed_are_still_mentioned() -> None:
    explained = explain(in_partition([b"a", b"a", b"a"]), [b"a", b"b"])
    assert (
        explained
        == "topic 't' holds 3 messages where 2 were expected\n  missing: 1 (b'b')\n  (2 duplicates,"
        " which at-least-once delivery allows)"
    )


def test_repeats_are_counted() -> None:
    assert "missing: 2 (b'a' x2)" in explain(in_partition([b"a"]), [b"a"] * 3)
    assert "duplicated: 2 (None x2)" in explain(in_partition([None] * 3), [None], exactly_once=True)


def test_a_reordered_message_says_where_it_is() -> None:
    explained = explain(in_partition([b"b", b"a"], 3), [b"a", b"b"], ordered=True)
    assert (
        explained
        == "topic 't' holds 2 messages where 2 were expected\n  reordered: 1 (b'a' at t-3@1)"
    )


def test_order_is_that_of_each_partition() -> None:
    messages = in_partition([b"2", b"4"], 0) + in_partition([b"1", b"3"], 1)
    assert explain(messages, [b"1", b"2", b"3", b"4"], ordered=True, exactly_once=True) == ""


def test_long_values_are_shortened() -> None:
    assert "(1000 bytes)" in explain([], [b"x" * 1000])


def test_values_are_compared_as_they_go_over_the_wire() -> None:
    messages = in_partition(["ä".encode(), b"b", b"c", None, b""])
    assert (
        explain(
            messages,
            ["ä", bytearray(b"b"), memoryview(b"c"), None, ""],
            exactly_once=True,
            ordered=True,
        )
        == ""
    )


# ---------------------------------------------------------------------- of a broker


@pytest.fixture
def broker() -> Iterator[EmbeddedBroker]:
    with EmbeddedBroker() as broker:
        yield broker


def test_passes_for_what_was_sent(broker: EmbeddedBroker) -> None:
    values = ["a", b"b", None, b""]
    with KafkaProducer(broker.config()) as producer:
        for value in values:
            producer.send(ProducerRecord("orders", value, key=b"the same partition"))
    broker.assert_delivered("orders", values)
    broker.assert_delivered("orders", iter(values), exactly_once=True, ordered=True)
    broker.assert_delivered("nothing.here", [])


def test_raises_an_assertion_error_that_explains(broker: EmbeddedBroker) -> None:
    with KafkaProducer(broker.config()) as producer:
        producer.send(ProducerRecord("orders", b"a"))
    with pytest.raises(AssertionError, match=r"missing: 1 \(b'b'\)"):
        broker.assert_delivered("orders", [b"a", b"b"])
    with pytest.raises(AssertionError, match=r"unexpected: 1 \(b'a'\)"):
        broker.assert_delivered("orders", [])


def test_can_wait(broker: EmbeddedBroker) -> None:
    with KafkaProducer(broker.config()) as producer:
        timer = threading.Timer(0.2, lambda: producer.send(ProducerRecord("orders", b"a")))
        timer.start()
        broker.assert_delivered("orders", [b"a"], timeout=30)
        timer.join()
        with pytest.raises(AssertionError, match="missing: 1"):
            broker.assert_delivered("orders", [b"a", b"b"], timeout=0.2)
