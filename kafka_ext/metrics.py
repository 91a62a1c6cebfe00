"""Counters of a producer: the result of `KafkaProducer.metrics`."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from typing import Any


@dataclass(frozen=True)
class ProducerMetrics:
    """A producer's counters at one moment, all since it was made unless they say "now".

    Attributes:
        sent: records that `send` accepted.
        sent_bytes: the bytes of their values.
        delivered: records reported as delivered.
        failed: records reported as failed, for whatever reason.
        pinned_messages: records whose value is kept in place now, because librdkafka was not given a copy.
        pinned_bytes: the bytes of those values.
        outstanding: records whose report has not been served to its end now.
        callback_errors: exceptions that callbacks raised.
        blocked_seconds: seconds that `send` calls have waited for room in the queue, all threads together.
        statistics_json: the newest statistics as librdkafka gave them; None until `statistics.interval.ms` is set and over.
    """

    sent: int
    sent_bytes: int
    delivered: int
    failed: int
    pinned_messages: int
    pinned_bytes: int
    outstanding: int
    callback_errors: int
    blocked_seconds: float
    statistics_json: bytes | None

    @cached_property
    def statistics(self) -> dict[str, Any] | None:
        """The newest statistics, parsed (librdkafka's STATISTICS.md), or None while there are none."""
        if self.statistics_json is None:
            return None
        from json import loads

        parsed: dict[str, Any] = loads(self.statistics_json)
        return parsed
