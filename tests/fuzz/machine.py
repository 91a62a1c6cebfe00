"""Random sequences of calls on every kind of producer, each call with what must come of it, and all
that arrived read back.
"""

from __future__ import annotations

import gc
import itertools
import re
import sys
import time
from collections import Counter, deque
from collections.abc import Callable
from typing import Any

import pyarrow as pa
from hypothesis import HealthCheck, Phase, note, seed, settings
from hypothesis import strategies as st
from hypothesis.stateful import (
    RuleBasedStateMachine,
    initialize,
    precondition,
    rule,
    run_state_machine_as_test,
)

from kafka_ext import (
    ErrorCode,
    KafkaException,
    ProducerClosedError,
    ProducerRecord,
    QueueFullError,
    SendOption,
    _rdkafka,
)
from kafka_ext.testing import ApiKey, EmbeddedBroker, KafkaCluster

from . import strategies as some
from .model import (
    PURGED,
    Expected,
    Given,
    Outcome,
    Period,
    Refused,
    check_arrived,
    check_reports,
    difference,
)
from .producers import FACES, KINDS, SENDS, Driver

COPY = SendOption.TO_COPY_RECORD_VALUE
NO_COPY = SendOption.NO_COPY_RECORD_VALUE
PARTS = ("topic", "value", "key", "partition", "headers", "timestamp")
EXAMPLES_A_BROKER = 50
PATIENCE = 30.0
RETRIED = ("TRANSPORT", "NOT_LEADER_FOR_PARTITION", "REQUEST_TIMED_OUT")
_numbers = itertools.count()


class _Cluster:
    """A broker for some examples: each makes topics, which stay. With `real`, one of
    Apache Kafka.
    """

    def __init__(self) -> None:
        self.broker: EmbeddedBroker | KafkaCluster | None = None
        self.used = self.examples = 0
        self.real = False

    def get(self) -> Any:
        self.used += 1
        self.examples += 1
        if self.broker is None or (self.used > EXAMPLES_A_BROKER and not self.real):
            self.close()
            self.broker = KafkaCluster() if self.real else EmbeddedBroker(topics={})
            self.used = 1
        return self.broker

    def close(self) -> None:
        if self.broker is not None:
            self.broker.close()
            self.broker = None


cluster = _Cluster()
unraisable: list[str] = []


def _alive() -> Counter[str]:
    return Counter(
        {
            name: count
            for name, count in _rdkafka.live_objects().items()
            if name in ("handles", "topics", "messages")
        }
    )


def _is_pinned(content: bytearray) -> bool:
    try:
        content.append(0)
    except BufferError:
        return True
    return False


class Record:
    """The arguments of a record, and the record once it could be made."""

    def __init__(self, parts: dict[str, Given]) -> None:
        self.parts = parts
        self.record: Any = None

    def __repr__(self) -> str:
        return f"Record({self.parts})"

    def refusals(self) -> dict[str, Refused]:
        return {
            name: part.means for name, part in self.parts.items() if isinstance(part.means, Refused)
        }

    def expected(self) -> Expected:
        means = {
            name: self.parts[name].means
            for name in ("topic", "value", "key", "partition", "headers", "timestamp")
        }
        return Expected(**means, bare=self.parts["headers"].given is None)

    def make(self) -> None:
        given = {name: part.given for name, part in self.parts.items()}
        self.record = ProducerRecord(given.pop("topic"), given.pop("value"), **given)


class Boundary(RuleBasedStateMachine):
    """Producers one after the other, two topics, and what must be in them."""

    def __init__(self) -> None:
        super().__init__()
        self.started = int(time.time() * 1000)
        self.broker = cluster.get()
        if not cluster.real:
            # hypothesis gives up some examples half-way: theirs are still there
            self._clear_faults()
        self.topics = [f"fuzz-{next(_numbers)}" for _ in range(2)]
        # A real broker takes any time only when it is told to.
        times = (
            {"config": {"message.timestamp.after.max.ms": str(2**63 - 1), "retention.ms": "-1"}}
            if cluster.real
            else {}
        )
        for topic in self.topics:
            self.broker.create_topic(topic, some.PARTITIONS, **times)
            if cluster.real:
                # Metadata names the leader of a new partition before it leads. A request that it
                # refuses until then (NOT_LEADER_FOR_PARTITION) and the next one change places
                # without idempotence. Reading waits for all leaders.
                assert not self.broker.messages(topic, timeout=PATIENCE)
        self.alive = _alive()
        some.made.clear()
        unraisable.clear()
        self.records: list[Record] = []
        self.outcomes: list[Outcome] = []
        self.batches: list[tuple[Any, list[Outcome]]] = []
        self.period = Period()
        self.driver: Any = None
        self.log: deque[Any] = deque(
            maxlen=50
        )  # of librdkafka and of what was done, since some findings need their moment

    @initialize(
        kind=st.sampled_from(KINDS),
        linger=st.sampled_from([0, 0, 1, 5]),
        idempotent=st.booleans(),
        room=st.sampled_from([100_000, 100_000, 100_000, 3]),
    )
    def open(self, kind: tuple[str, str], linger: int, idempotent: bool, room: int) -> None:
        self.kind = kind
        self.config = {
            "linger.ms": linger,
            "queue.buffering.max.messages": room,
            "enable.idempotence": idempotent or kind[1] == "transactional",
        }
        self._open()

    def _open(self) -> None:
        config = self.broker.config(**self.config)
        config |= {
            "topic.metadata.refresh.interval.ms": "-1",
            "retry.backoff.ms": "1",
            "retry.backoff.max.ms": "10",
        }
        config |= {
            "reconnect.backoff.ms": "1",
            "reconnect.backoff.max.ms": "10",
            "log_cb": self._log,
        }
        if self.kind[1] == "transactional":
            config["transactional.id"] = f"fuzz-{next(_numbers)}"
        self._log("open", *self.kind, self.config)
        self.driver = Driver(*self.kind, config)
        self.begun = False
        self.transaction: list[Outcome] = []
        self.missed: list[Any] = []  # the records that it lacks
        self.is_incomplete = False  # and that cannot be mended
        if self.kind[1] == "transactional":
            self.driver.transaction("init_transactions", PATIENCE)
            self._begin()

    def _log(self, *line: object) -> None:
        self.log.append((f"{time.monotonic():.3f}", *line))

    # ------------------------------------------------------------------ records

    def _draw_record(self, data: st.DataObject, bad: str | None) -> Record:
        draw = data.draw
        return Record(
            {
                "topic": draw(some.topics(self.topics, bad == "topic")),
                "value": draw(some.contents(bad == "value", ("value",))),
                "key": draw(some.contents(bad == "key", ("key",))),
                "partition": draw(some.partitions(bad == "partition")),
                "headers": draw(some.headers(bad == "headers")),
                "timestamp": draw(some.timestamps(bad == "timestamp")),
            }
        )

    @rule(
        data=st.data(),
        bad=st.sampled_from([None] * 3 + [*PARTS]),
        way=st.sampled_from(SENDS),
        copy=st.booleans(),
    )
    def send(self, data: st.DataObject, bad: str | None, way: str, copy: bool) -> None:
        """Send a new record, in one of the ways there are."""
        record = self._draw_record(data, bad)
        self._send(record, way, copy)
        if (
            not record.refusals()
        ):  # whether it found room, which is a matter of time: hypothesis must see the same again
            self.records.append(record)

    @rule(
        data=st.data(),
        ways=st.lists(st.sampled_from(["send", "try_send", "send_future"]), min_size=2, max_size=4),
    )
    def send_some(self, data: st.DataObject, ways: list[str]) -> None:
        """Send several that are right, one behind the other."""
        for way in ways:
            record = self._draw_record(data, None)
            self._send(record, way, False)
            self.records.append(record)

    @precondition(lambda self: self.records)
    @rule(data=st.data(), way=st.sampled_from(SENDS), copy=st.booleans())
    def send_again(self, data: st.DataObject, way: str, copy: bool) -> None:
        """The same object once more: it means what it meant, headers from an iterator included."""
        self._send(data.draw(st.sampled_from(self.records)), way, copy)

    @precondition(lambda self: self.records)
    @rule(data=st.data(), refused=st.booleans(), name=st.sampled_from(PARTS))
    def change(self, data: st.DataObject, refused: bool, name: str) -> None:
        """Set an attribute of a record. What is refused at once leaves the record as it was."""
        record = data.draw(st.sampled_from(self.records))
        strategies = {
            "topic": some.topics(self.topics, refused),
            "partition": some.partitions(refused),
            "headers": some.headers(False),
            "timestamp": some.timestamps(refused),
        }
        part = data.draw(strategies.get(name, some.contents(False)))
        refusal = self._refusal(lambda: setattr(record.record, name, part.given))
        if refusal is None:
            record.parts[name] = part
        else:
            self._must_be_named(
                refusal, {name: part.means} if isinstance(part.means, Refused) else {}
            )

    @rule(content=some.binary, way=st.sampled_from(SENDS))
    def send_and_write(self, content: bytes, way: str) -> None:
        """A value that was copied is what it was, whatever is written into its memory."""
        buffer = bytearray(content)
        parts = {
            name: Given("None", None, [] if name == "headers" else None)
            for name in ("key", "partition", "headers", "timestamp")
        }
        value = Given("bytearray", buffer, content)
        self._send(
            Record(
                {"topic": Given("str", self.topics[0], self.topics[0]), "value": value, **parts}
            ),
            way,
            True,
        )
        buffer[:] = b"!" * len(buffer)

    def _send(self, record: Record, way: str, copy: bool) -> None:
        """Send, and see to it that what could not be sent is what the model says."""
        refusals = record.refusals()
        if record.record is None:
            refusal = self._refusal(record.make)
            if refusal is not None:
                self._must_be_named(refusal, refusals)
                return
        expected = (
            Expected("", None)
            if refusals
            else self.driver.meant(record.expected(), some.PARTITIONS)
        )
        outcome = Outcome(expected, self.period)
        record.record.id = len(self.outcomes)
        refusal = self._refusal(
            lambda: self.driver.send(
                record.record, way, COPY if copy else NO_COPY, PATIENCE, outcome
            )
        )
        if refusal is None:
            assert not refusals, f"sent: {record.parts}"
            assert not self._is_outside(), f"sent outside of a transaction: {record.parts}"
            self.outcomes.append(outcome)
            self.transaction.append(outcome)
            if outcome.in_doubt:
                self.is_incomplete = True
            self.missed = [other for other in self.missed if other is not record.record]
            return
        self.missed.append(record.record)
        if (
            isinstance(refusal, KafkaException)
            and refusal.error == ErrorCode.WAIT_CACHE
            and self.driver.extra == "partitioner"
        ):
            # try_send does not wait for the number of partitions, which comes before all else
            return
        if isinstance(refusal, KafkaException) and not refusals:
            if self._is_outside() and refusal.error == ErrorCode.STATE:
                return
            if refusal.error == ErrorCode.QUEUE_FULL and self._may_be_full():
                if self.driver.face == "manual":
                    self._settle()
                return
            if refusal.error == ErrorCode.UNKNOWN_PARTITION and outcome.must_fail:
                return
            if refusal.error.transaction_requires_abort and self._may_have_failed():
                return
        if (
            refusals
            and self._is_outside()
            and isinstance(refusal, KafkaException)
            and refusal.error == ErrorCode.STATE
        ):
            return
        self._must_be_named(refusal, refusals)

    def _is_outside(self) -> bool:
        return self.driver.extra == "transactional" and not self.begun

    def _may_have_failed(self) -> bool:
        """librdkafka refuses what is sent in a transaction of which a record was not delivered."""
        return self.begun and any(
            outcome.error is not None or outcome.must_fail or outcome.period.errors
            for outcome in self.transaction
        )

    # ------------------------------------------------------------------ columns

    @precondition(lambda self: self.driver.takes_batches)
    @rule(
        data=st.data(),
        n=st.integers(1, 5),
        bad=st.sampled_from([None] * 5 + ["topic", *some.COLUMNS]),
        copy=st.booleans(),
    )
    def send_batch(self, data: st.DataObject, n: int, bad: str | None, copy: bool) -> None:
        """Send columns in all their forms."""
        draw = data.draw
        parts = {
            "topic": draw(some.topics(self.topics, bad == "topic")),
            "values": draw(some.columns(n, "values", bad == "values")),
            "keys": draw(some.columns(n, "keys", bad == "keys", key=True)),
            "partitions": draw(some.partition_columns(n, bad == "partitions")),
            "timestamps": draw(some.timestamp_columns(n, bad == "timestamps")),
            "headers": draw(some.header_columns(n, bad == "headers")),
        }
        given = {name: part.given for name, part in parts.items()}
        topic, values = given.pop("topic"), given.pop("values")
        self._batch(
            parts,
            n,
            lambda: self.driver.send_batch(
                topic, values, option=COPY if copy else NO_COPY, **given
            ),
        )

    @precondition(lambda self: self.driver.takes_batches)
    @rule(data=st.data(), n=st.integers(1, 5), copy=st.booleans())
    def send_table(self, data: st.DataObject, n: int, copy: bool) -> None:
        """Send a table, whole or in chunks."""
        draw = data.draw
        topic = draw(some.topics(self.topics, False))

        def column(part: Any) -> Any:
            return pa.array(part) if not isinstance(part, (pa.Array, pa.ChunkedArray)) else part

        def is_arrow(part: Given) -> bool:
            return isinstance(part.given, (pa.Array, pa.ChunkedArray))

        values = draw(some.columns(n, "value", False).filter(is_arrow))
        keys = draw(some.columns(n, "key", False).filter(is_arrow))
        header = draw(some.columns(n, "header", False).filter(is_arrow))
        partitions = draw(some.partition_columns(n, False, arrow_only=True))
        timestamps = draw(some.timestamp_columns(n, False, arrow_only=True))
        arrays = {"v": values.given, "k": keys.given, "h": header.given}
        names: dict[str, Any] = {
            "value": some.as_enum("v"),
            "key": "k",
            "headers": [some.Loud("h")],
        }
        for role, part in (("partition", partitions), ("timestamp", timestamps)):
            if part.given is not None:
                arrays[role] = part.given
                names[role] = role
        table = pa.table(arrays)
        parts = {
            "topic": topic,
            "values": values,
            "keys": keys,
            "partitions": partitions,
            "timestamps": timestamps,
            "headers": Given("column", None, [[("h", row)] for row in header.means]),
        }

        self._batch(
            parts,
            n,
            lambda: self.driver.send_table(
                table, topic=topic.given, option=COPY if copy else NO_COPY, **names
            ),
        )

    def _batch(self, parts: dict[str, Given], n: int, call: Callable[[], Any]) -> None:
        refusals = {
            name: part.means for name, part in parts.items() if isinstance(part.means, Refused)
        }
        sent: list[Any] = []
        refusal = self._refusal(lambda: sent.append(call()))
        if refusal is not None:
            self.is_incomplete = True
            if not (
                self._is_outside()
                and isinstance(refusal, KafkaException)
                and refusal.error == ErrorCode.STATE
            ):
                self._must_be_named(refusal, refusals)
            return
        assert not refusals, f"sent: {parts}"
        assert len(sent[0]) == n, (len(sent[0]), parts)
        columns = [
            parts[name].means for name in ("values", "keys", "partitions", "headers", "timestamps")
        ]
        errors = ["QUEUE_FULL"] * self._may_be_full() + ["STATE"] * (
            self._is_outside() or self._may_have_failed()
        )
        rows = []
        for row in zip(*columns, strict=True):
            rows.append(
                Outcome(
                    self.driver.meant(Expected(parts["topic"].means, *row), some.PARTITIONS),
                    self.period,
                    errors,
                )
            )
            rows[-1].must_fail |= self._is_outside()
        self.outcomes += rows
        self.transaction += rows
        self.is_incomplete |= sent[0].failed > 0
        self.batches.append((sent[0], rows))

    # ------------------------------------------------------------------ refusals

    def _refusal(self, call: Callable[[], object]) -> Exception | None:
        try:
            call()
        except (TypeError, ValueError, KafkaException) as exc:
            raised = exc
        else:
            return None
        note(f"  refused: {type(raised).__name__}: {raised}")
        assert not isinstance(raised, UnicodeError), "a UnicodeError, which names no argument"
        assert isinstance(raised, QueueFullError) or not isinstance(raised, BufferError)
        return raised

    def _must_be_named(self, refusal: Exception, refusals: dict[str, Refused]) -> None:
        names = [name for refused in refusals.values() for name in refused.names]
        assert refusals, f"refused, and nothing is wrong with it: {refusal!r}"
        assert re.search("|".join(names), str(refusal)), f"names none of {names}: {refusal!r}"

    def _may_be_full(self) -> bool:
        return self.config["queue.buffering.max.messages"] < 100

    # ------------------------------------------------------------------ transactions

    @precondition(lambda self: self._is_outside())
    @rule()
    def begin(self) -> None:
        self._begin()

    def _begin(self) -> None:
        self.driver.transaction("begin_transaction")
        self.begun, self.transaction, self.missed, self.is_incomplete = True, [], [], False

    @precondition(lambda self: self.begun)
    @rule(commits=st.sampled_from([True, True, False]), begins=st.sampled_from([True, True, False]))
    def end(self, commits: bool, begins: bool) -> None:
        if not (commits and self._commit()):
            self._abort()
        if begins:
            self._begin()

    def _commit(self) -> bool:
        """It succeeds when all was sent and delivered, and only then; else it says that it has to
        be aborted.
        """
        refusal = self._refusal(lambda: self.driver.transaction("commit_transaction", PATIENCE))
        lacks = self.is_incomplete or bool(self.missed)
        if refusal is None or not lacks:  # else it may have raised at once
            self._wait_for_reports()
        wrong = lacks or any(outcome.error is not None for outcome in self.transaction)
        if refusal is None:
            # What a call raised that waits for its report may have been a refusal, and the record
            # sent again.
            assert not wrong or any(outcome.in_doubt for outcome in self.transaction), (
                f"committed without {self.missed or 'some'}"
            )
            self.begun = False
            return True
        assert wrong, f"not committed: {refusal!r}"
        assert isinstance(refusal, KafkaException)
        assert refusal.error.transaction_requires_abort, refusal
        return False

    def _abort(self) -> None:
        self.period.errors |= PURGED
        self.driver.transaction("abort_transaction", PATIENCE)
        self._wait_for_reports()
        self._forget_transaction()
        self._end_period()

    def _forget_transaction(self) -> None:
        for outcome in self.transaction if self.begun else ():
            outcome.aborted = True
        self.begun = False

    # ------------------------------------------------------------------ faults

    @precondition(lambda self: not cluster.real)
    @rule(
        fault=st.sampled_from(["slow", "INVALID_MSG", "lost answer", *RETRIED]),
        seconds=st.sampled_from([0.01, 0.03]),
    )
    def fail(self, fault: str, seconds: float) -> None:
        """Until the next flush: answers are late, one is lost, or the next request is refused.

        An idempotent producer then relies on a broker that looks at sequence numbers, as the mock
        cluster does not: tests/chaos.
        """
        self._log("fail", fault)
        if fault == "slow":
            self.broker.round_trip_time(seconds)
        elif not self.config["enable.idempotence"]:
            if fault == "lost answer":
                self.broker.lose_acks(1)
            else:
                self.broker.fail_requests(ApiKey.PRODUCE, [ErrorCode[fault]])
            self.period.errors |= {fault} - {"lost answer", *RETRIED}
            self.period.ordered = False
            self.period.duplicates |= fault in ("lost answer", "TRANSPORT")

    # ------------------------------------------------------------------ reports, and what arrived

    @rule(
        how=st.sampled_from(["flush", "flush", "purge", "close", "close at once"]),
        which=st.sampled_from([1, 2, 3]),
        face=st.sampled_from(FACES),
    )
    def settle(self, how: str, which: int, face: str) -> None:
        """Have all reported: flush, purge, or close and go on with another producer."""
        self._log(how, which)
        if how == "flush":
            self._flush()
        elif how == "purge":
            self.period.errors |= PURGED
            self.driver.purge(in_queue=bool(which & 1), in_flight=bool(which & 2))
        else:
            if self.begun and cluster.real:
                self._abort()  # else readers of what is committed wait for transaction.timeout.ms
            self._close(0.0 if how == "close at once" else None)
            if (face, self.kind[1]) in KINDS:
                self.kind = face, self.kind[1]
            self._open()

    def _flush(self) -> None:
        self._settle()
        self._end_period()

    def _end_period(self) -> None:
        if not cluster.real:
            self._clear_faults()
        purged = PURGED & self.period.errors
        # What was purged leaves a hole in the sequence numbers, and with it what is sent later in
        # the same transaction fails.
        after = Period(purged if self.begun else set())
        if purged:  # a request in flight that was purged may break its connection later
            after.duplicates, after.ordered = self.period.duplicates, self.period.ordered
        self.period = after

    def _clear_faults(self) -> None:
        self.broker.clear_faults()
        self.broker.round_trip_time(0)

    def _settle(self) -> None:
        self.driver.flush(PATIENCE)
        self._wait_for_reports()

    def _wait_for_reports(self) -> None:
        """A future's callbacks, and a batch's, run just after flush may have returned."""
        until = time.monotonic() + PATIENCE
        while True:
            for batch, rows in self.batches:
                if batch.pending == 0:
                    self._take_reports(batch, rows)
            self.batches = [(batch, rows) for batch, rows in self.batches if batch.pending]
            if all(outcome.reports for outcome in self.outcomes) or time.monotonic() > until:
                break
            self.driver.turn()
            time.sleep(0.001)
        check_reports(self.outcomes)

    def _take_reports(self, batch: Any, rows: list[Outcome]) -> None:
        errors = dict(batch.errors())
        for i, outcome in enumerate(rows):
            outcome.reports += 1
            outcome.error = errors.get(i)
            outcome.place = outcome.expected.topic, batch.partitions[i], batch.offsets[i]

    def _close(self, timeout: float | None) -> None:
        if timeout is not None:
            self.period.errors |= PURGED
        driver, self.driver = self.driver, None
        try:
            driver.close(timeout)
            self.driver = driver
            self._wait_for_reports()
            self._forget_transaction()
            late = Outcome(Expected("", None), self.period)
            closed = self._refusal(
                lambda: driver.send(ProducerRecord(self.topics[0]), "send", COPY, PATIENCE, late)
            )
            assert isinstance(closed, ProducerClosedError), closed
            assert driver.interceptor.unacknowledged == 0, (
                f"{driver.interceptor.unacknowledged} records not acknowledged"
            )
        finally:
            driver.end()
        self._end_period()

    def teardown(self) -> None:
        if self.driver is None:
            return
        failure = sys.exc_info()[0]
        if failure is not None:  # what comes now would hide it
            if not failure.__module__.startswith("hypothesis"):
                print(*self.log, sep="\n", file=sys.stderr)
            self.driver.close(0.0)
            self.driver.end()
            return
        try:
            self._flush()
            if self.begun:
                self._abort()
            self._verify()
        except BaseException:
            print(*self.log, sep="\n", file=sys.stderr)
            self.driver.close(0.0)
            self.driver.end()
            raise
        self._close(PATIENCE)
        self._check_released()
        assert not unraisable, unraisable

    def _verify(self) -> None:
        arrived = {}
        for topic in self.topics:
            count = sum(
                outcome.error is None and outcome.place is not None and outcome.place[0] == topic
                for outcome in self.outcomes
                if not (outcome.aborted and cluster.real)
            )
            arrived.update(
                {
                    (topic, message.partition, message.offset): message
                    for message in self.broker.messages(topic, count, PATIENCE)
                }
            )

        def differ(expected: Expected, message: Any) -> str | None:
            return difference(expected, message, some.PARTITIONS, self.started)

        check_arrived(self.outcomes, arrived, differ, cluster.real)

    def _check_released(self) -> None:
        """Nothing is pinned any more, and nothing lives that belonged to a producer."""
        assert not [content for content in some.made if _is_pinned(content)], (
            "a value is still pinned"
        )
        until = time.monotonic() + PATIENCE
        while (left := _alive() - self.alive) and time.monotonic() < until:
            gc.collect()
        assert not left, f"left behind: {left}"


def run(number: int, examples: int, shrink: bool = False, steps: int = 30) -> int:
    """Run `examples` random sequences that follow from the seed `number`, and return how many there
    were.

    Raises what it found; with `shrink`, by the shortest sequence that hypothesis comes upon in its
    time.
    """
    factory = seed(number)(type("Boundary", (Boundary,), {"TestCase": None}))
    options = settings(
        max_examples=examples,
        stateful_step_count=steps,
        phases=[Phase.generate, Phase.shrink] if shrink else [Phase.generate],
        deadline=None,
        database=None,
        print_blob=False,
        report_multiple_bugs=False,
        suppress_health_check=list(HealthCheck),
    )
    before = cluster.examples
    hook, sys.unraisablehook = (
        sys.unraisablehook,
        lambda args: unraisable.append(f"{args.exc_value!r} in {args.object!r}"),
    )
    try:
        run_state_machine_as_test(factory, settings=options)
    finally:
        sys.unraisablehook = hook
        if not cluster.real:
            cluster.close()
    return cluster.examples - before
