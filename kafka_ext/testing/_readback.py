"""What is in a topic, and how it differs from what should be."""

from __future__ import annotations

import time
from bisect import bisect_right
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from operator import attrgetter
from typing import Any

from kafka_ext._rdkafka import (
    ConsumedMessage,
    ErrorCode,
    KafkaError,
    KafkaException,
    KafkaTimeoutError,
    TopicReader,
    check_topic_name,
    content_of,
)

# How many values of a kind an explanation shows.
_EXAMPLES = 5
_UNKNOWN = ErrorCode["UNKNOWN_TOPIC_OR_PART"]


def checked_seconds(name: str, value: object, *, none_is_for_ever: bool = False) -> float | None:
    """`value` as a number of seconds, 0 or more."""
    if value is None and none_is_for_ever:
        return None
    if isinstance(value, bool) or not isinstance(value, (int, float)):
        raise TypeError(
            f"{name} must be a number of seconds{' or None' if none_is_for_ever else ''}, not"
            f" {type(value).__name__}"
        )
    if not 0 <= value < float("inf"):
        raise ValueError(f"{name} must be 0 or more seconds, not {value!r}")
    return float(value)


def read_topic(
    bootstrap_servers: str,
    topic: str,
    count: int | None,
    timeout: float | None,
    *,
    config: Mapping[str, str] | None = None,
    start: Mapping[int, int] | None = None,
    may_be_absent: bool = True,
) -> list[ConsumedMessage]:
    """`EmbeddedBroker.messages`, of any cluster. `start` is the first offset of a partition that
    counts.
    """
    topic = check_topic_name(topic)
    if count is not None and (isinstance(count, bool) or not isinstance(count, int)):
        raise TypeError(f"count must be an int or None, not {type(count).__name__}")
    if count is not None and count < 0:
        raise ValueError(f"count must be 0 or more, not {count}")
    timeout = checked_seconds("timeout", timeout, none_is_for_ever=True)
    deadline = None if timeout is None else time.monotonic() + timeout

    def left() -> float | None:
        return None if deadline is None else max(deadline - time.monotonic(), 0.0)

    absent = False
    while True:
        try:
            reader = TopicReader(bootstrap_servers, topic, config, start=start, timeout=left())
            break
        except KafkaException as error:
            if absent and isinstance(error, KafkaTimeoutError):
                raise _too_few(topic, 0, count, timeout) from None
            if error.error != _UNKNOWN:
                raise
            absent = True
            if not count:
                if may_be_absent:
                    return []  # a topic nobody has asked for yet has no messages
                raise
            if deadline is not None and time.monotonic() >= deadline:
                raise _too_few(topic, 0, count, timeout) from None
        time.sleep(0.02)
    with reader:
        messages = reader.read(count, left()) if count else []
        if count and len(messages) < count:
            raise _too_few(topic, len(messages), count, timeout)
        messages += reader.read_to_end(timeout)
    return sorted(
        messages, key=attrgetter("partition")
    )  # stable: each partition stays in offset order


def _too_few(topic: str, found: int, count: int | None, timeout: float | None) -> KafkaTimeoutError:
    return KafkaTimeoutError(
        KafkaError(
            ErrorCode["TIMED_OUT"], f"{found} of {count} messages in {topic!r} after {timeout} s"
        )
    )


# ---------------------------------------------------------------------- comparing


def as_bytes(value: Any) -> bytes | None:
    """What a record with this value has on the wire."""
    return content_of(value, "values: each")


def _shown(value: bytes | None) -> str:
    text = repr(value)
    return text if len(text) <= 60 else f"{text[:45]}… ({len(value or b'')} bytes)"


def _examples(kind: str, shown: Sequence[str], shown_count: int, total: int) -> str:
    more = f", and {total - shown_count} more" if total > shown_count else ""
    return f"  {kind}: {total} ({', '.join(shown)}{more})"


def _counted(kind: str, values: Mapping[bytes | None, int]) -> list[str]:
    if not values:
        return []
    some = list(values.items())[:_EXAMPLES]
    shown = [f"{_shown(value)} x{n}" if n > 1 else _shown(value) for value, n in some]
    return [_examples(kind, shown, sum(n for _, n in some), sum(values.values()))]


def _out_of_order(
    messages: Iterable[ConsumedMessage], expected: Sequence[bytes | None], duplicates: bool
) -> list[str]:
    """The messages that come, in their partition, after one that should have come later.

    A partition in order is a subsequence of `expected`, and taking the earliest place left for each
    message finds out. Where there are duplicates, only the first of each value counts: which of
    several is the duplicate cannot be known.
    """
    places: dict[bytes | None, list[int]] = {}
    for index, value in enumerate(expected):
        places.setdefault(value, []).append(index)
    last: dict[int, int] = {}
    seen: set[tuple[int, bytes | None]] = set()
    wrong = []
    for message in messages:
        key = (message.partition, message.value)
        if message.value not in places or (duplicates and key in seen):
            continue
        seen.add(key)
        of_value = places[message.value]
        next_place = bisect_right(of_value, last.get(message.partition, -1))
        if next_place < len(of_value):
            last[message.partition] = of_value[next_place]
        else:
            wrong.append(
                f"{_shown(message.value)} at {message.topic}-{message.partition}@{message.offset}"
            )
    return (
        [_examples("reordered", wrong[:_EXAMPLES], len(wrong[:_EXAMPLES]), len(wrong))]
        if wrong
        else []
    )


def difference(
    topic: str,
    messages: Sequence[ConsumedMessage],
    values: Iterable[Any],
    *,
    exactly_once: bool,
    ordered: bool,
) -> str | None:
    """What distinguishes `messages` from `values`, in words; None when nothing does."""
    expected = [as_bytes(value) for value in values]
    wanted = Counter(expected)
    found = Counter(message.value for message in messages)
    missing = {value: n - found[value] for value, n in wanted.items() if found[value] < n}
    unexpected = {value: n for value, n in found.items() if value not in wanted}
    duplicated = {
        value: n - wanted[value]
        for value, n in found.items()
        if value in wanted and n > wanted[value]
    }
    lines = _counted("missing", missing)
    if exactly_once:
        lines += _counted("duplicated", duplicated)
    lines += _counted("unexpected", unexpected)
    if ordered:
        lines += _out_of_order(messages, expected, bool(duplicated))
    if not lines:
        return None
    head = (
        f"topic {topic!r} holds {len(messages)} message{'' if len(messages) == 1 else 's'} where"
        f" {len(expected)} were expected"
    )
    if duplicated and not exactly_once:
        lines.append(
            f"  ({sum(duplicated.values())} duplicates, which at-least-once delivery allows)"
        )
    return "\n".join([head, *lines])
