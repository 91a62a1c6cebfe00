"""Counters of a producer: the result of `KafkaProducer.metrics`."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, fields, replace
from functools import cached_property
from typing import TYPE_CHECKING, Any

from ._rdkafka import ErrorCode

if TYPE_CHECKING:
    from .statistics import Statistics

# What one moment had. The others add up where one producer has taken the place of another.
MOMENTARY = frozenset(
    {
        "pinned_messages",
        "pinned_bytes",
        "outstanding",
        "pending_batches",
        "waiting_events",
        "statistics_json",
    }
)


@dataclass(frozen=True)
class ProducerMetrics:
    """A producer's counters at one moment, all since it was made unless they say "now". Records of
    batches are counted as any other.

    Attributes:
        sent (int): records that were accepted, by `send` and its like and in batches.
        sent_bytes (int): the bytes of their values.
        delivered (int): records reported as delivered.
        failed (int): records reported as failed, for whatever reason.
        pinned_messages (int): records on their way whose value is kept in place now, because
            librdkafka was not given a copy.
        pinned_bytes (int): the bytes of those values.
        outstanding (int): records whose report has not been served to its end now.
        callback_errors (int): exceptions that callbacks raised.
        blocked_seconds (float): seconds that sends have waited for room in the queue, all threads
            and tasks together.
        statistics_json (bytes | None): the newest statistics as librdkafka gave them; None until
            `statistics.interval.ms` is set and over.
        failed_bytes (int): the bytes of the failed records' values.
        failures (Mapping[ErrorCode, int]): the failed records by why they failed: an ErrorCode, or
            a plain int where the linked librdkafka has no name for what the broker said.
        refusals (Mapping[ErrorCode, int]): records that were not accepted, by why: `send` raised,
            `try_send` returned the error, or a batch has them in its `errors()`. QUEUE_FULL and
            TIMED_OUT found no room. Not among them are wrong arguments, and a producer that was
            closed before the call. None of these is in `sent`.
        errors (Mapping[ErrorCode, int]): what librdkafka told of itself (`error_cb`): brokers down,
            authentication failed.
        batches (int): batches that `send_batch` and `send_table` have taken whole.
        pending_batches (int): those of which some record is without a report now.
        waiting_events (int): what waits to be served now: by callbacks that take long, or under
            manual polling for `poll_events`. One event is an error, a log line, or the reports of
            all the records that were answered together.
    """

    sent: int = 0
    sent_bytes: int = 0
    delivered: int = 0
    failed: int = 0
    pinned_messages: int = 0
    pinned_bytes: int = 0
    outstanding: int = 0
    callback_errors: int = 0
    blocked_seconds: float = 0.0
    statistics_json: bytes | None = None
    failed_bytes: int = 0
    failures: Mapping[ErrorCode, int] = field(default_factory=dict, hash=False)
    refusals: Mapping[ErrorCode, int] = field(default_factory=dict, hash=False)
    errors: Mapping[ErrorCode, int] = field(default_factory=dict, hash=False)
    batches: int = 0
    pending_batches: int = 0
    waiting_events: int = 0

    @property
    def refused(self) -> int:
        """Records that were not accepted, whatever the reason; the sum of `refusals`."""
        return sum(self.refusals.values())

    @property
    def retries(self) -> int | None:
        """Requests that librdkafka has sent again, from the newest statistics; None while there are
        none. See `Statistics.retries`.
        """
        return None if self.statistics is None else self.statistics.retries

    @cached_property
    def statistics(self) -> Statistics | None:
        """The newest statistics, parsed when first asked for; None until `statistics.interval.ms`
        is set and over.
        """
        if self.statistics_json is None:
            return None
        from .statistics import Statistics

        return Statistics.parse(self.statistics_json)


def added(past: ProducerMetrics, now: ProducerMetrics) -> ProducerMetrics:
    """The counts of a producer and of those whose place it took: a sum, but for what says "now"."""
    return _sum(past, now, MOMENTARY)


def together(one: ProducerMetrics, other: ProducerMetrics) -> ProducerMetrics:
    """The counts of two producers that are there at the same time. The statistics cannot be added
    up.
    """
    return _sum(one, replace(other, statistics_json=None), frozenset({"statistics_json"}))


def _sum(
    first: ProducerMetrics, second: ProducerMetrics, only_second: frozenset[str]
) -> ProducerMetrics:
    values: dict[str, Any] = {}
    for each in fields(ProducerMetrics):
        before, value = getattr(first, each.name), getattr(second, each.name)
        if each.name in only_second:
            values[each.name] = value
        elif isinstance(value, Mapping):
            values[each.name] = {
                code: before.get(code, 0) + value.get(code, 0) for code in {**before, **value}
            }
        else:
            values[each.name] = before + value
    return ProducerMetrics(**values)
