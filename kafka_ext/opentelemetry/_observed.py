"""`metrics()` of all producers, as observable instruments: read when the metrics are collected, and
not before.
"""

from __future__ import annotations

import os
import weakref
from collections.abc import Iterable, Iterator, Mapping
from typing import TYPE_CHECKING, Any, ClassVar

from opentelemetry.metrics import CallbackOptions, Observation

from .. import _lifecycle
from .._rdkafka import KafkaException, Monitor, ProducerClient
from ..metrics import ProducerMetrics, added, together
from . import _attributes as attributes

if TYPE_CHECKING:
    from opentelemetry.metrics import Meter

# By the name behind `kafka_ext.producer.`: the field of ProducerMetrics, unit, description.
COUNTERS = {
    "accepted.messages": (
        "sent",
        "{message}",
        "Records that were accepted, in batches and one by one.",
    ),
    "accepted.bytes": ("sent_bytes", "By", "The bytes of their values."),
    "delivered.messages": ("delivered", "{message}", "Records reported as delivered."),
    "failed.messages": ("failures", "{message}", "Records reported as failed, by error.type."),
    "failed.bytes": ("failed_bytes", "By", "The bytes of their values."),
    "refused.messages": ("refusals", "{message}", "Records that were not accepted, by error.type."),
    "errors": ("errors", "{error}", "What librdkafka told of itself, by error.type."),
    "callback.errors": ("callback_errors", "{error}", "Exceptions that callbacks raised."),
    "blocked.time": ("blocked_seconds", "s", "How long sends have waited for room in the queue."),
    "batches": ("batches", "{batch}", "Batches that were taken."),
}
NOW = {
    "outstanding.messages": ("outstanding", "{message}", "Records without a report."),
    "pinned.messages": ("pinned_messages", "{message}", "Records whose value is kept in place."),
    "pinned.bytes": ("pinned_bytes", "By", "The bytes of those values."),
    "pending.batches": ("pending_batches", "{batch}", "Batches without all reports."),
    "waiting.events": (
        "waiting_events",
        "{event}",
        "What waits for callbacks, or for poll_events.",
    ),
}

_Key = tuple[tuple[str, str | int], ...]


class _Watched:
    """A producer's C side, which this does not keep, and the counts it had when they were last
    read.
    """

    __slots__ = ("handle", "key", "last")

    def __init__(self, handle: ProducerClient, key: _Key) -> None:
        self.handle = weakref.ref(handle)
        self.key = key
        self.last = ProducerMetrics()

    def read(self) -> bool:
        """False when there will be nothing new: the producer is gone, or is the parent's of this
        process.
        """
        handle = self.handle()
        if handle is None or handle.forked:
            return False
        self.last = ProducerMetrics(*handle.counters())
        return True


class Observed:
    """The producers that are counted, while they are instrumented."""

    _now: ClassVar[Observed | None] = None

    def __init__(self, provider: Any) -> None:
        self._provider = provider
        self._lock = Monitor()
        self._watched: list[_Watched] = []
        self._past: dict[_Key, ProducerMetrics] = {}  # of producers that are gone

    @classmethod
    def begin(cls, meter: Meter, provider: Any) -> Observed:
        """Count what is there and what comes. An instrument cannot be taken back, so it asks who
        counts now.
        """
        observed = cls._now = cls(provider)
        for handle in list(_lifecycle._open):
            observed.watch(handle)
        for name, (field, unit, description) in COUNTERS.items():
            meter.create_observable_counter(
                f"kafka_ext.producer.{name}", [_Callback(provider, field)], unit, description
            )
        for name, (field, unit, description) in NOW.items():
            meter.create_observable_up_down_counter(
                f"kafka_ext.producer.{name}", [_Callback(provider, field)], unit, description
            )
        return observed

    @classmethod
    def end(cls) -> None:
        cls._now = None

    def watch(self, handle: ProducerClient) -> None:
        try:
            key = tuple(attributes.of_client(handle).items())
        except KafkaException:
            return  # closed, or the parent's
        with self._lock:
            self._forget_what_is_gone()
            self._watched.append(_Watched(handle, key))

    def read(self, handle: ProducerClient | None) -> None:
        """A producer was closed: these are its last counts."""
        with self._lock:
            for watched in self._watched:
                if handle is not None and watched.handle() is handle:
                    watched.read()

    def _forget_what_is_gone(self) -> None:
        left = []
        for watched in self._watched:
            if watched.read():
                left.append(watched)
            elif watched.handle() is None:
                self._past[watched.key] = added(
                    watched.last, self._past.get(watched.key, ProducerMetrics())
                )  # nothing of it is "now"
        self._watched = left

    def totals(self) -> list[tuple[_Key, ProducerMetrics]]:
        """By the attributes of their producers; several with the same ones are counted together."""
        with self._lock:
            self._forget_what_is_gone()
            totals = dict(self._past)
            for watched in self._watched:
                totals[watched.key] = together(
                    totals.get(watched.key, ProducerMetrics()), watched.last
                )
            return list(totals.items())


class _Callback:
    """An instrument's: one field of ProducerMetrics."""

    def __init__(self, provider: Any, field: str) -> None:
        self._provider = provider
        self._field = field

    def __call__(self, options: CallbackOptions) -> Iterable[Observation]:
        observed = Observed._now
        if observed is None or observed._provider is not self._provider:
            return []  # uninstrumented, or instrumented anew for another provider
        return self._observe(observed)

    def _observe(self, observed: Observed) -> Iterator[Observation]:
        for key, metrics in observed.totals():
            value = getattr(metrics, self._field)
            if isinstance(value, Mapping):
                for code, count in value.items():
                    yield Observation(
                        count,
                        {**dict(key), attributes.ERROR_TYPE: getattr(code, "name", f"ERR_{code}")},
                    )
            else:
                yield Observation(value, dict(key))


def _after_fork_in_child() -> None:
    if Observed._now is not None:
        Observed._now._lock = Monitor()  # a thread that is not here any more may have had it
        Observed._now._past.clear()  # the parent's, which tells of them itself


os.register_at_fork(after_in_child=_after_fork_in_child)
