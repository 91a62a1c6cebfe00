"""Random sequences of calls on every kind of producer, each call with what must come of it, and all that arrived read back."""

from __future__ import annotations

import asyncio
import itertools
import re
import time
from collections.abc import Callable
from typing import Any

import pyarrow as pa
from hypothesis import HealthCheck, note, seed, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, precondition, rule, run_state_machine_as_test

from kafka_ext import ErrorCode, KafkaException, KafkaProducer, ProducerRecord, QueueFullError, SendOption
from kafka_ext._rdkafka import content_of
from kafka_ext.aio import AsyncKafkaProducer
from kafka_ext.recoverable import RecoverableProducer
from kafka_ext.testing import EmbeddedBroker

from . import strategies as some
from .model import OUT, Expected, Given, Refused, difference

COPY = SendOption.TO_COPY_RECORD_VALUE
NO_COPY = SendOption.NO_COPY_RECORD_VALUE
KINDS = ("threaded", "threaded", "manual", "asyncio", "recoverable", "interceptors", "serializers", "partitioner")
EXAMPLES_A_BROKER = 50
PATIENCE = 30.0
_numbers = itertools.count()


class Looks:
    """An interceptor that reads all there is to read, and changes nothing."""

    def on_send(self, record: ProducerRecord) -> ProducerRecord:
        if isinstance(record.headers, (list, tuple)):
            for pair in record.headers:
                repr(pair)
        return record

    def on_acknowledgement(self, metadata: Any, error: Any) -> None:
        pass


def _unchanged(content: Any) -> Any:
    return content


class _Cluster:
    """A broker for some examples: each makes topics, which stay."""

    def __init__(self) -> None:
        self.broker: EmbeddedBroker | None = None
        self.used = 0

    def get(self) -> EmbeddedBroker:
        self.used += 1
        if self.broker is None or self.used > EXAMPLES_A_BROKER:
            self.close()
            self.broker, self.used = EmbeddedBroker(topics={}), 1
        return self.broker

    def close(self) -> None:
        if self.broker is not None:
            self.broker.close()
            self.broker = None


cluster = _Cluster()


class Record:
    """The arguments of a record, and the record once it could be made."""

    def __init__(self, parts: dict[str, Given]) -> None:
        self.parts = parts
        self.record: ProducerRecord | None = None

    def refusals(self) -> dict[str, Refused]:
        return {name: part.means for name, part in self.parts.items() if isinstance(part.means, Refused)}

    def expected(self) -> Expected:
        means = {name: part.means for name, part in self.parts.items()}
        return Expected(means["topic"], means["value"], means["key"], means["partition"], means["headers"], means["timestamp"])

    def make(self) -> ProducerRecord:
        given = {name: part.given for name, part in self.parts.items()}
        return ProducerRecord(given.pop("topic"), given.pop("value"), **given)


SENDS = ("send", "try_send", "sync_send", "send_future")


class Boundary(RuleBasedStateMachine):
    """One producer, two topics, and what must be in them."""

    def __init__(self) -> None:
        super().__init__()
        self.started = int(time.time() * 1000)
        self.broker = cluster.get()
        self.topics = [f"fuzz-{next(_numbers)}" for _ in range(2)]
        for topic in self.topics:
            self.broker.create_topic(topic, some.PARTITIONS)
        self.records: list[Record] = []
        self.expected: dict[int, Expected] = {}  # by the record's id
        self.places: dict[int, tuple[int | None, int | None, Any]] = {}  # partition, offset, error
        self.batches: list[tuple[Any, list[Expected]]] = []
        self.loop: asyncio.AbstractEventLoop | None = None
        self.producer: Any = None

    @initialize(
        kind=st.sampled_from(KINDS),
        linger=st.sampled_from([0, 0, 1, 5]),
        idempotent=st.booleans(),
        room=st.sampled_from([100_000, 100_000, 100_000, 3]),
    )
    def open(self, kind: str, linger: int, idempotent: bool, room: int) -> None:
        config = self.broker.config(
            linger_ms=linger, enable_idempotence=idempotent, queue_buffering_max_messages=room, topic_metadata_refresh_interval_ms=-1
        )
        self.kind, self.room = kind, room
        if kind == "asyncio":
            self.loop = asyncio.new_event_loop()
            self.producer = self.loop.run_until_complete(self._open_async(config))
            return
        if kind == "interceptors":
            config["interceptors"] = [Looks()]
        elif kind == "serializers":
            config.update(key_serializer=_unchanged, value_serializer=_unchanged)
        elif kind == "partitioner":
            config["partitioner"] = lambda topic, key, count: len(content_of(key, "key") or b"") % count
        elif kind == "manual":
            config["enable.manual.events.poll"] = True
        self.producer = (RecoverableProducer if kind == "recoverable" else KafkaProducer)(config)

    async def _open_async(self, config: dict[str, Any]) -> AsyncKafkaProducer:
        return AsyncKafkaProducer(config)

    # ------------------------------------------------------------------ records

    @rule(data=st.data(), refused=st.sampled_from([False, False, True]), way=st.sampled_from(SENDS), copy=st.booleans())
    def send(self, data: st.DataObject, refused: bool, way: str, copy: bool) -> None:
        """Send a new record, in one of the ways there are."""
        parts = {
            "topic": data.draw(some.topics(self.topics, refused)),
            "value": data.draw(some.contents(refused, ("value",))),
            "key": data.draw(some.contents(refused, ("key",))),
            "partition": data.draw(some.partitions(refused)),
            "headers": data.draw(some.headers(refused)),
            "timestamp": data.draw(some.timestamps(refused)),
        }
        record = Record(parts)
        self._send(record, way, copy)
        if not record.refusals():  # whether it found room, which is a matter of time: hypothesis must see the same again
            self.records.append(record)

    @precondition(lambda self: self.records)
    @rule(data=st.data(), way=st.sampled_from(SENDS), copy=st.booleans())
    def send_again(self, data: st.DataObject, way: str, copy: bool) -> None:
        """The same object once more: it means what it meant, headers from an iterator included."""
        record = data.draw(st.sampled_from(self.records))
        self._send(record, way, copy)

    @precondition(lambda self: self.records)
    @rule(data=st.data(), refused=st.booleans(), name=st.sampled_from(["topic", "value", "key", "partition", "headers", "timestamp"]))
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
            self._must_be_named(refusal, {name: part.means} if isinstance(part.means, Refused) else {})

    @rule(content=some.binary, way=st.sampled_from(SENDS))
    def send_and_write(self, content: bytes, way: str) -> None:
        """A value that was copied is what it was, whatever is written into its memory."""
        buffer = bytearray(content)
        parts = {name: Given("None", None, [] if name == "headers" else None) for name in ("key", "partition", "headers", "timestamp")}
        value = Given("bytearray", buffer, content)
        self._send(Record({"topic": Given("str", self.topics[0], self.topics[0]), "value": value, **parts}), way, True)
        buffer[:] = b"!" * len(buffer)

    def _send(self, record: Record, way: str, copy: bool) -> bool:
        """Whether the record could be sent. What could not must be what the model says."""
        refusals = record.refusals()
        refusal = None
        if record.record is None:
            refusal = self._refusal(lambda: setattr(record, "record", record.make()))
        if refusal is None:
            assert record.record is not None
            number = len(self.expected) + 1_000_000 * len(self.batches)
            record.record.id = number
            self.expected[number] = record.expected() if not refusals else Expected("", None)
            refusal = self._refusal(lambda: self._call(record.record, number, way, COPY if copy else NO_COPY))
            if refusal is not None:
                del self.expected[number]
        if refusal is None:
            assert not refusals, f"sent: {record.parts}"
            return True
        if isinstance(refusal, KafkaException) and refusal.error == ErrorCode.QUEUE_FULL and self._may_be_full():
            self._serve()
            return False
        if self.kind == "partitioner" and isinstance(refusal, KafkaException) and refusal.error == ErrorCode.WAIT_CACHE:
            return False  # try_send does not wait for the number of partitions
        if not refusals and isinstance(refusal, KafkaException) and refusal.error == ErrorCode.UNKNOWN_PARTITION:
            assert record.parts["partition"].means is OUT, f"{refusal!r}: {record.parts}"
            return False
        self._must_be_named(refusal, refusals)
        return False

    def _call(self, record: Any, number: int, way: str, option: SendOption) -> None:
        """One send by its way; raises what it raises, or what it returns."""

        def told(metadata: Any, error: Any) -> None:
            assert number not in self.places, "reported twice"
            assert metadata.record_id == number
            self.places[number] = metadata.partition, metadata.offset, error

        if self.loop is not None:
            self.loop.run_until_complete(self._call_async(record, told, number, way, option))
        elif way == "send":
            self.producer.send(record, told, option=option)
        elif way == "try_send" and self.kind != "recoverable":
            error = self.producer.try_send(record, told, option=option)
            if error is not None:
                raise QueueFullError(error) if error == ErrorCode.QUEUE_FULL else KafkaException(error)
        elif way == "sync_send" and self.kind != "recoverable":
            try:
                metadata = self.producer.sync_send(record, PATIENCE)
            except KafkaException as exc:
                # Enqueued and then reported, or refused: for an unknown partition either is right.
                if exc.error != ErrorCode.UNKNOWN_PARTITION:
                    raise
                self.places[number] = None, None, exc.error
                return
            self.places[number] = metadata.partition, metadata.offset, None
        elif way == "send_future" and self.kind not in ("recoverable",):
            future = self.producer.send_future(record, option=option)
            future.add_done_callback(lambda done: self._told_by(done, number))
        else:
            self.producer.send(record, told, option=option)

    def _told_by(self, future: Any, number: int) -> None:
        if future.exception() is not None:
            self.places[number] = None, None, future.exception().error
        else:
            self.places[number] = future.result().partition, future.result().offset, None

    async def _call_async(self, record: Any, told: Callable[[Any, Any], None], number: int, way: str, option: SendOption) -> None:
        if way == "sync_send":
            future = asyncio.get_running_loop().create_future()
            try:
                future.set_result(await self.producer.send_and_wait(record, option=option))
            except KafkaException as exc:
                if exc.error != ErrorCode.UNKNOWN_PARTITION:
                    raise
                future.set_exception(exc)
            self._told_by(future, number)
        else:
            future = await self.producer.send(record, option=option)
            future.add_done_callback(lambda done: self._told_by(done, number))

    # ------------------------------------------------------------------ columns

    @precondition(lambda self: self.kind in ("threaded", "manual", "asyncio"))
    @rule(data=st.data(), n=st.integers(1, 5), refused=st.sampled_from([False, False, True]), copy=st.booleans())
    def send_batch(self, data: st.DataObject, n: int, refused: bool, copy: bool) -> None:
        """Send columns in all their forms."""
        draw = data.draw
        topic = draw(some.topics(self.topics, refused))
        values = draw(some.columns(n, "values", refused))
        keys = draw(some.columns(n, "keys", refused, key=True))
        partitions = draw(some.partition_columns(n, refused))
        timestamps = draw(some.timestamp_columns(n, refused))
        form = draw(st.sampled_from(["None", "same", "each"]))
        each: Any = None
        if form == "each":
            each = [draw(some.headers(refused)) for _ in range(n)]
            bad = any(isinstance(one.means, Refused) for one in each)
            headers = Given("each", [one.given for one in each], Refused(("header",)) if bad else [one.means for one in each])
        elif form == "same":
            # A sequence of lists is one for each message: only what cannot be taken for that.
            one = draw(some.headers(False).filter(lambda one: one.what in ("tuple", "generator", "dict", "mapping", "list")))
            headers = Given(f"same {one.what}", one.given, [one.means] * n)
        else:
            headers = Given("None", None, [[]] * n)
        parts = {"topic": topic, "values": values, "keys": keys, "partitions": partitions, "timestamps": timestamps, "headers": headers}
        self._batch(parts, n, lambda: self._send_columns(parts, COPY if copy else NO_COPY))

    def _send_columns(self, parts: dict[str, Given], option: SendOption) -> Any:
        given = {name: part.given for name, part in parts.items()}
        call = self.producer.send_batch(given.pop("topic"), given.pop("values"), option=option, **given)
        return call if self.loop is None else self.loop.run_until_complete(call)

    @precondition(lambda self: self.kind in ("threaded", "manual", "asyncio"))
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
        names: dict[str, Any] = {"value": some.as_enum("v"), "key": "k", "headers": [some.Loud("h")]}
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

        def call() -> Any:
            sent = self.producer.send_table(table, topic=topic.given, option=COPY if copy else NO_COPY, **names)
            return sent if self.loop is None else self.loop.run_until_complete(sent)

        self._batch(parts, n, call)

    def _batch(self, parts: dict[str, Given], n: int, call: Callable[[], Any]) -> None:
        refusals = {name: part.means for name, part in parts.items() if isinstance(part.means, Refused)}
        sent: list[Any] = []
        refusal = self._refusal(lambda: sent.append(call()))
        if refusal is not None:
            self._must_be_named(refusal, refusals)
            return
        assert not refusals, f"sent: {parts}"
        assert len(sent[0]) == n, (len(sent[0]), parts)
        means = {name: part.means for name, part in parts.items()}
        rows = [
            Expected(
                means["topic"], means["values"][i], means["keys"][i], means["partitions"][i], means["headers"][i], means["timestamps"][i]
            )
            for i in range(n)
        ]
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
        return self.room < 100

    # ------------------------------------------------------------------ reports, and what arrived

    @rule()
    def flush(self) -> None:
        """Have all reported."""
        if self.loop is not None:
            self.loop.run_until_complete(self.producer.flush())
            self.loop.run_until_complete(asyncio.sleep(0))
        else:
            self.producer.flush(PATIENCE)
        # A future's callbacks run just after flush may have returned.
        until = time.monotonic() + PATIENCE
        while self.expected.keys() - self.places.keys() and time.monotonic() < until:
            time.sleep(0.001)
        assert not self.expected.keys() - self.places.keys(), "sent, and not reported"

    def _serve(self) -> None:
        if self.kind == "manual":
            self.flush()

    def teardown(self) -> None:
        if self.producer is None:
            return
        try:
            self.flush()
            self._verify()
        finally:
            if self.loop is not None:
                self.loop.run_until_complete(self.producer.close())
                self.loop.close()
            else:
                self.producer.close(PATIENCE)

    def _verify(self) -> None:
        wanted: dict[tuple[str, int, int], Expected] = {}

        def place(expected: Expected, partition: int | None, offset: int | None, error: Any) -> None:
            if error is not None and expected.partition is OUT and error == ErrorCode.UNKNOWN_PARTITION:
                return
            if error is not None and error == ErrorCode.QUEUE_FULL and self._may_be_full():
                return
            assert error is None, f"{error!r}: {expected}"
            assert expected.partition is not OUT, f"a partition that does not exist: {expected}"
            assert partition is not None
            assert offset is not None
            assert (expected.topic, partition, offset) not in wanted, "two records in one place"
            wanted[expected.topic, partition, offset] = expected

        for number, expected in self.expected.items():
            place(expected, *self.places[number])
        for batch, rows in self.batches:
            assert batch.pending == 0
            errors = dict(batch.errors())
            for i, expected in enumerate(rows):
                place(expected, batch.partitions[i], batch.offsets[i], errors.get(i))
        arrived = {}
        for topic in self.topics:
            count = sum(1 for at in wanted if at[0] == topic)
            arrived.update({(topic, message.partition, message.offset): message for message in self.broker.messages(topic, count)})
        assert arrived.keys() == wanted.keys(), (sorted(arrived.keys() - wanted.keys()), sorted(wanted.keys() - arrived.keys()))
        for at, expected in wanted.items():
            if self.kind == "partitioner":
                expected = self._by_own_partitioner(expected)
            wrong = difference(expected, arrived[at], some.PARTITIONS, self.started)
            assert wrong is None, f"{at}: {wrong}"

    def _by_own_partitioner(self, expected: Expected) -> Expected:
        if expected.partition is None:
            expected.partition = len(expected.key or b"") % some.PARTITIONS
        return expected


def run(number: int, examples: int, steps: int = 12) -> None:
    """Run `examples` random sequences that follow from the seed `number`; raises what it found, shrunk, with how to do it again."""
    factory = seed(number)(type("Boundary", (Boundary,), {"TestCase": None}))
    options = settings(
        max_examples=examples,
        stateful_step_count=steps,
        deadline=None,
        database=None,
        print_blob=False,
        suppress_health_check=list(HealthCheck),
    )
    try:
        run_state_machine_as_test(factory, settings=options)
    finally:
        cluster.close()
