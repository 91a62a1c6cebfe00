"""What is right: what an argument means, what a call must do with it, and where a record must be
found.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from typing import Any

from kafka_ext import KafkaException, PersistedStatus


@dataclass(frozen=True)
class Refused:
    """The argument must be refused with a TypeError or ValueError that names it by one of these
    words.
    """

    names: tuple[str, ...] = ()


@dataclass
class Given:
    """An argument and what it means: bytes, None, a number, pairs…, or Refused."""

    what: str
    given: Any
    means: Any

    def __repr__(self) -> str:
        return f"<{self.what}: {self.given!r}>"


class Out:
    """A partition that no topic here has."""

    def __repr__(self) -> str:
        return "Out"


OUT = Out()


@dataclass
class Expected:
    """One record that was accepted: what must be read back."""

    topic: str
    value: bytes | None
    key: bytes | None = None
    partition: int | Out | None = None
    headers: list[tuple[str, bytes | None]] = field(default_factory=list)
    timestamp: int | None = None
    bare: bool = False  # no headers were given, not even none


@dataclass
class Period:
    """What can happen to the records that are sent between one flush and the next."""

    errors: set[str] = field(default_factory=set)  # names of what may be reported
    duplicates: bool = False
    ordered: bool = True


PURGED = {"PURGE_QUEUE", "PURGE_INFLIGHT"}


class Outcome:
    """A record that was accepted: what must arrive, and what was reported of it."""

    def __init__(self, expected: Expected, period: Period, errors: Iterable[str] = ()) -> None:
        self.expected, self.period = expected, period
        self.errors = {
            *errors,
            *["UNKNOWN_PARTITION"] * (expected.partition is OUT),
        }  # beside the period's
        self.must_fail = expected.partition is OUT
        self.reports = 0
        self.error: Any = None
        self.place: tuple[str, int | None, int | None] | None = None
        self.status: Any = None
        self.aborted = False
        self.in_doubt = False  # the call raised what may have been a refusal or a report
        self.record_id: Any = None

    def __repr__(self) -> str:
        return (
            f"<{self.place} {self.error} {self.status} after {self.reports}"
            f" reports{' (aborted)' * self.aborted}>"
        )

    def reported(self, metadata: Any, error: Any) -> None:
        """A delivery callback. Asserts nothing, for its exceptions go where nobody looks."""
        self.reports += 1
        self.error = error
        self.place = metadata.topic, metadata.partition, metadata.offset
        self.status = metadata.persisted_status
        self.record_id = metadata.record_id

    def delivered(self, metadata: Any) -> None:
        self.reported(metadata, None)

    def failed(self, exc: KafkaException) -> None:
        self.reports += 1
        self.error = exc.error

    def of_future(self, future: Any) -> None:
        exc = future.exception()
        if exc is None:
            self.delivered(future.result())
        else:
            self.failed(exc)

    def of_call(self, call: Callable[[], Any]) -> None:
        try:
            self.delivered(call())
        except KafkaException as exc:
            self.raised(exc)

    def raised(self, exc: KafkaException) -> None:
        """By a call that waits for the report: it may be that."""
        if exc.error.name not in self.errors | self.period.errors:
            raise exc
        self.in_doubt = True
        self.failed(exc)

    @property
    def may_be_there(self) -> bool:
        """It failed, and can have been stored."""
        return (
            self.error is not None
            and self.error.name in PURGED
            and self.status is not PersistedStatus.NOT
        )


def check_reports(outcomes: list[Outcome]) -> None:
    """One report each, of what can have happened."""
    for outcome in outcomes:
        assert outcome.reports == 1, f"{outcome.reports} reports: {outcome.expected}"
        if outcome.error is None:
            assert not outcome.must_fail, f"delivered: {outcome.expected}"
            # Only what an idempotent producer sends again can be delivered without an offset
            # (DUPLICATE_SEQUENCE_NUMBER, an implicit acknowledgement, the mock cluster's -1 for a
            # duplicate in a transaction), and no fault here makes one send again.
            assert outcome.place is not None
            assert outcome.place[2] is not None
            assert outcome.place[2] >= 0, outcome.place
            assert outcome.status in (None, PersistedStatus.DONE), outcome.status
        else:
            assert outcome.error.name in outcome.errors | outcome.period.errors, (
                f"{outcome.error!r}: {outcome.expected}"
            )


def check_arrived(
    outcomes: list[Outcome],
    arrived: dict[Any, Any],
    differ: Callable[[Expected, Any], str | None],
    committed: bool,
) -> None:
    """All that was delivered is where its report says, as it was meant, in order; and nothing else
    is there.

    With `committed`, `arrived` has no records of transactions that were aborted.
    """
    wanted: dict[Any, Outcome] = {}
    hidden = set()
    last: dict[Any, int] = {}
    for outcome in outcomes:
        place: Any = outcome.place
        if outcome.error is not None:
            continue
        assert place not in wanted, f"two records at {place}"
        assert place not in hidden, f"two records at {place}"
        if outcome.period.ordered:
            assert place[2] > last.get(place[:2], -1), (
                f"{place} is before one that was sent earlier"
            )
        last[place[:2]] = place[2]
        if outcome.aborted and committed:
            hidden.add(place)
        else:
            wanted[place] = outcome
    lost = wanted.keys() - arrived.keys()
    assert not lost, f"reported, and not there: {sorted(lost)}"
    assert not hidden & arrived.keys(), f"aborted, and there: {sorted(hidden & arrived.keys())}"
    for place, outcome in wanted.items():
        wrong = differ(outcome.expected, arrived[place])
        assert wrong is None, f"{place}: {wrong}"
    for place in arrived.keys() - wanted.keys():
        alike = [
            o
            for o in outcomes
            if o.expected.topic == place[0] and differ(o.expected, arrived[place]) is None
        ]
        possible = [
            o
            for o in alike
            if (o.may_be_there or o.period.duplicates) and not (o.aborted and committed)
        ]
        assert possible, f"{place} should not be there: {arrived[place]}, reported as {alike}"


def murmur2(data: bytes) -> int:
    """The Java client's hash of a key (org.apache.kafka.common.utils.Utils.murmur2), as the
    positive number it partitions by.
    """
    m, mask = 0x5BD1E995, 0xFFFFFFFF
    h = (0x9747B28C ^ len(data)) & mask
    whole = len(data) & ~3
    for at in range(0, whole, 4):
        k = int.from_bytes(data[at : at + 4], "little") * m & mask
        k = (k ^ k >> 24) * m & mask
        h = (h * m & mask) ^ k
    rest = data[whole:]
    if rest:
        h = (h ^ int.from_bytes(rest, "little")) * m & mask
    h = (h ^ h >> 13) * m & mask
    return (h ^ h >> 15) & 0x7FFFFFFF


def difference(expected: Expected, message: Any, partitions: int, started: int) -> str | None:
    """What is not as it must be of a message that was read back; None when all is."""
    wrong = []
    if message.value != expected.value:
        wrong.append(f"value {message.value!r}, not {expected.value!r}")
    if message.key != expected.key:
        wrong.append(f"key {message.key!r}, not {expected.key!r}")
    if [tuple(pair) for pair in message.headers or ()] != expected.headers:
        wrong.append(f"headers {message.headers!r}, not {expected.headers!r}")
    partition = expected.partition
    if partition is None and expected.key is not None:
        partition = murmur2(expected.key) % partitions
    if partition is not None and message.partition != partition:
        wrong.append(f"partition {message.partition}, not {partition}")
    if expected.timestamp is None:
        if not started - 60_000 < message.timestamp < started + 3_600_000:
            wrong.append(f"timestamp {message.timestamp}, not now")
    elif message.timestamp != expected.timestamp:
        wrong.append(f"timestamp {message.timestamp}, not {expected.timestamp}")
    return "; ".join(wrong) or None
