"""Every kind of send, each as a load with its own topic, rate and account."""

from __future__ import annotations

import asyncio
import gc
import itertools
import threading
import time
import warnings
from collections import deque
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
import pyarrow as pa

from kafka_ext import (
    ActionWhileQueueIsFull,
    ErrorCode,
    KafkaException,
    KafkaProducer,
    PersistedStatus,
    ProducerRecord,
    QueueFullError,
    SendOption,
)
from kafka_ext.aio import AsyncKafkaProducer

from .accounts import RING, Account

if TYPE_CHECKING:
    from kafka_ext.testing import ConsumedMessage, TopicReader

# A load looks at the clock so often, in seconds, and sends what is due.
TICK = 0.025
# What is due after a wait longer than this, in seconds, is let go: a load that was held up does not
# make up for it.
LATE = 0.5
VALUE = bytes(range(100))
SETTLING = 60.0


class Load:
    """Sends `rate` messages a second to a topic of its own, from a thread of its own, between
    `start` and `stop`.
    """

    name = ""
    rate = 0.0
    partitions = 2

    def __init__(self, producer: Any, scale: float) -> None:
        self.producer = producer
        self.topic = f"soak-{self.name}"
        self.account = Account(self.name)
        self.rate = type(self).rate * scale
        self._halt = threading.Event()
        self._thread = threading.Thread(target=self._guarded, name=self.name, daemon=True)

    def start(self) -> None:
        self._thread.start()

    def stop(self) -> None:
        self._halt.set()

    def settle(self) -> None:
        """After `stop`: until every report has come."""
        self._thread.join(SETTLING)
        if self._thread.is_alive():
            self.account.anomaly("the load does not end")

    def _guarded(self) -> None:
        try:
            self.run()
        except BaseException as error:
            self.account.anomaly(f"the load has ended with {type(error).__name__}: {error}")
            raise

    def run(self) -> None:
        due_from, done = time.monotonic(), 0
        while not self._halt.wait(TICK):
            now = time.monotonic()
            due = int((now - due_from) * self.rate) - done
            if due > self.rate * LATE + 1:
                due_from, done = now, 0
            elif due > 0:
                self.burst(due)
                done += due

    def burst(self, count: int) -> None:
        raise NotImplementedError

    def send(self, record: ProducerRecord, **options: Any) -> None:
        """One record with a callback, on the account."""
        record.id = number = self.account.take()
        try:
            self.producer.send(record, self.on_delivery, **options)
        except BaseException:
            self.account.refuse(number)
            raise

    def on_delivery(self, metadata: Any, error: Any) -> None:
        self.account.report(metadata.record_id, error)


class Callbacks(Load):
    """A Python callback each; what a program does that cares."""

    name = "callbacks"
    rate = 12_000

    def burst(self, count: int) -> None:
        for number in range(count):
            self.send(ProducerRecord(self.topic, VALUE, key=b"%d" % (number % 100)))


class Silent(Load):
    """No callback: the topic's end offsets say what came of it."""

    name = "silent"
    rate = 12_000

    def burst(self, count: int) -> None:
        for _ in range(count):
            self.producer.send(ProducerRecord(self.topic, VALUE))
        self.account.batch(
            count, count, 0
        )  # none may fail; the end offsets and the producer's metrics are held against it


class Futures(Load):
    name = "futures"
    rate = 1_500

    def __init__(self, producer: Any, scale: float) -> None:
        super().__init__(producer, scale)
        self._open: deque[tuple[int, Any]] = deque()

    def burst(self, count: int) -> None:
        for _ in range(count):
            number = self.account.take()
            self._open.append(
                (number, self.producer.send_future(ProducerRecord(self.topic, VALUE, id=number)))
            )
        while self._open and self._open[0][1].done():
            self._collect(0)

    def _collect(self, timeout: float) -> None:
        number, future = self._open.popleft()
        error = future.exception(timeout)
        if error is None and future.result().record_id != number:
            self.account.anomaly(
                f"the future of {number} has the report of {future.result().record_id}"
            )
        self.account.report(number, error)

    def settle(self) -> None:
        super().settle()
        while self._open:
            self._collect(SETTLING)


class Batches(Load):
    """Lists, buffers of two dimensions and Arrow columns by turns; each is checked when it is
    reported.
    """

    name = "batches"
    rate = 12_000

    def __init__(self, producer: Any, scale: float) -> None:
        super().__init__(producer, scale)
        self._open = 0
        self._lock = threading.Lock()
        self._kinds = itertools.cycle([self.rows, self.listed, self.arrow, self.table])

    def listed(self, count: int, done: Callable[[Any], None]) -> Any:
        values = [b"%d" % number for number in range(count - 2)] + ["text", None]
        keys = [b"%d" % (number % 10) for number in range(count)]
        return self.producer.send_batch(
            self.topic,
            values,
            keys=keys,
            ids=range(count),
            headers=[("kind", b"list")],
            on_delivery=done,
        )

    def rows(self, count: int, done: Callable[[Any], None]) -> Any:
        values = np.zeros((count, 100), np.uint8)
        times = np.full(count, 1_700_000_000_000, np.int64)
        return self.producer.send_batch(
            self.topic,
            values,
            partitions=np.arange(count, dtype=np.int32) % 2,
            timestamps=times,
            on_delivery=done,
        )

    def arrow(self, count: int, done: Callable[[Any], None]) -> Any:
        values = pa.array(
            [b"%d" % number if number % 7 else None for number in range(count)], pa.binary()
        )
        return self.producer.send_batch(self.topic, values, keys="one for all", on_delivery=done)

    def table(self, count: int, done: Callable[[Any], None]) -> Any:
        half = count // 2
        value = pa.chunked_array([pa.array(["é" * 50] * half), pa.array(["b"] * (count - half))])
        table = pa.table({"value": value, "key": pa.array(range(count)).cast(pa.string())})
        return self.producer.send_table(
            table, topic=self.topic, value="value", key="key", headers=["key"], on_delivery=done
        )

    def burst(self, count: int) -> None:
        count = max(count, 4)
        calls: list[Any] = []

        def done(batch: Any) -> None:
            with self._lock:
                self._open -= 1
                calls.append(None)
                if len(calls) != 1:
                    self.account.anomaly("a batch's callback was called twice")
            if batch.pending or len(batch) != count or len(batch.errors()) != batch.failed:
                self.account.anomaly(f"a batch of {count} is called back as {batch!r}")
            offsets = np.asarray(batch.offsets)
            if batch.failed == 0 and (offsets < 0).any():
                self.account.anomaly(
                    f"a batch has delivered messages without offsets: {offsets[offsets < 0].size}"
                )
            self.account.batch(0, len(batch) - batch.failed, batch.failed)

        with self._lock:
            self._open += 1
        self.account.batch(count, 0, 0)
        next(self._kinds)(count, done)

    def settle(self) -> None:
        super().settle()
        end = time.monotonic() + SETTLING
        while self._open and time.monotonic() < end:
            time.sleep(0.01)
        if self._open:
            self.account.anomaly(f"{self._open} batches were never called back")


class Copies(Load):
    """One bytearray for all: copied, it is free again when `send` returns."""

    name = "copies"
    rate = 5_000

    def __init__(self, producer: Any, scale: float) -> None:
        super().__init__(producer, scale)
        self._buffer = bytearray(VALUE)

    def burst(self, count: int) -> None:
        for number in range(count):
            self._buffer[:8] = number.to_bytes(8, "big")
            self.send(
                ProducerRecord(self.topic, self._buffer), option=SendOption.TO_COPY_RECORD_VALUE
            )
            self._buffer.append(0)  # raises BufferError while it is pinned
            self._buffer.pop()


class Rich(Load):
    """Keys, headers, timestamps, and values that are pinned by their buffer: each bytearray must be
    free again at the end.
    """

    name = "rich"
    rate = 2_500

    def __init__(self, producer: Any, scale: float) -> None:
        super().__init__(producer, scale)
        self._values: deque[bytearray] = deque()

    def burst(self, count: int) -> None:
        for number in range(count):
            value = bytearray(VALUE)
            headers = [
                ("trace", b"%032d" % number),
                ("empty", b""),
                ("null", None),
                ("trace", "again"),
            ]
            self.send(
                ProducerRecord(
                    self.topic,
                    memoryview(value),
                    key=f"key {number % 50}",
                    headers=headers,
                    timestamp=1_700_000_000_000,
                )
            )
            self._values.append(value)
        while len(self._values) > 2_000 and self._free(self._values[0]):
            self._values.popleft()

    @staticmethod
    def _free(value: bytearray) -> bool:
        try:
            value.append(0)
        except BufferError:
            return False
        return True

    def settle(self) -> None:
        super().settle()
        end = time.monotonic() + SETTLING
        while self._values and time.monotonic() < end:
            if self._free(self._values[0]):
                self._values.popleft()
            else:
                time.sleep(0.01)
        if self._values:
            self.account.anomaly(f"{len(self._values)} values are still pinned")


class Sync(Load):
    name = "sync"
    rate = 10

    def burst(self, count: int) -> None:
        for _ in range(count):
            number = self.account.take()
            metadata = self.producer.sync_send(
                ProducerRecord(self.topic, VALUE, id=number), timeout=SETTLING
            )
            if metadata.persisted_status is not PersistedStatus.DONE:
                self.account.anomaly(f"sync_send returned {metadata}")
            self.account.report(number, None)


class Refused(Load):
    """Sends that raise: nothing may be pinned, and no callback may come."""

    name = "refused"
    rate = 400

    def burst(self, count: int) -> None:
        large = bytes(1_100_000)
        for number in range(count):
            bad: Any = (
                {"value": 5},
                {"value": memoryview(VALUE)[::2]},
                {"value": VALUE, "headers": [("na\0me", b"")]},
                {"value": VALUE, "key": 5},
                {"value": large},
                {"value": VALUE, "partition": 999},
            )[number % 6]
            try:
                self.send(ProducerRecord(self.topic, **bad))
            except (TypeError, BufferError, ValueError, KafkaException):
                continue
            self.account.anomaly(f"{str(bad)[:60]} was not refused")


class Failing(Load):
    """To a broker that answers with errors now and then, and not idempotent: every failure must be
    reported as one, batches' too.
    """

    name = "failing"
    rate = 3_000

    def __init__(self, producer: Any, scale: float) -> None:
        super().__init__(producer, scale)
        self._turn = 0

    def burst(self, count: int) -> None:
        self._turn += 1
        if self._turn % 2:
            for _ in range(count):
                try:
                    self.send(ProducerRecord(self.topic, VALUE))
                except KafkaException as error:
                    # Once a broker has said so, librdkafka refuses the topic's records itself,
                    # until the next metadata say otherwise.
                    if error.error != ErrorCode.TOPIC_AUTHORIZATION_FAILED:
                        raise
            return
        self.account.batch(count, 0, 0)
        self.producer.send_batch(self.topic, [VALUE] * count, on_delivery=self._done)

    def _done(self, batch: Any) -> None:
        if len(batch.errors()) != batch.failed:
            self.account.anomaly(f"{batch.failed} have failed, {len(batch.errors())} have errors")
        self.account.batch(0, len(batch) - batch.failed, batch.failed)


class Full(Load):
    """A queue that is too short, without waiting, and purged now and then."""

    name = "full"
    rate = 4_000

    def burst(self, count: int) -> None:
        for _ in range(count):
            try:
                self.send(ProducerRecord(self.topic, VALUE), action=ActionWhileQueueIsFull.NO_BLOCK)
            except QueueFullError:
                if self.account.refused % 5_000 == 0:
                    self.producer.purge(in_flight=False)


class Cut(Load):
    """To a broker whose connections are cut while answers are on their way, and read back as it
    goes.

    The mock cluster does not know a batch again: what it had stored without answering is there
    twice. So numbers are compared: each that was reported as delivered must be there, in order, and
    what is there again is counted.
    """

    name = "cut"
    rate = 1_000

    def __init__(self, producer: Any, scale: float) -> None:
        super().__init__(producer, scale)
        self.doubled = 0
        self.there = 0  # different ones
        self._seen = bytearray(
            RING
        )  # in which round of the ring, plus one: constant memory, as in the account
        self._sent = 0
        self._newest = [-1] * self.partitions
        self._reader: TopicReader | None = None

    def read_by(self, reader: TopicReader) -> None:
        self._reader = reader

    def burst(self, count: int) -> None:
        for number in range(self._sent, self._sent + count):
            self.send(
                ProducerRecord(
                    self.topic, number.to_bytes(8, "big"), partition=number % self.partitions
                )
            )
        self._sent += count
        assert self._reader is not None
        self._compare(self._reader.read(timeout=0))

    def settle(self) -> None:
        super().settle()
        if self._reader is not None:
            self._compare(self._reader.read_to_end(SETTLING))
        if self.there != self.account.delivered:
            self.account.anomaly(
                f"{self.account.delivered:,} were reported as delivered, and {self.there:,}"
                " different ones are there"
            )

    def _compare(self, messages: Sequence[ConsumedMessage]) -> None:
        for message in messages:
            number = int.from_bytes(message.value or b"", "big")
            turn = number // RING % 255 + 1
            if self._seen[number % RING] == turn:
                self.doubled += 1
                continue
            self._seen[number % RING] = turn
            self.there += 1
            if (
                number < self._newest[message.partition]
                or number % self.partitions != message.partition
            ):
                self.account.anomaly(
                    f"{number} is in partition {message.partition} behind"
                    f" {self._newest[message.partition]}"
                )
            self._newest[message.partition] = number


class Lives(Load):
    """Producers that are made, used and closed, or dropped without."""

    name = "lives"
    rate = 0.5

    def __init__(self, producer: Any, scale: float) -> None:
        super().__init__(producer, scale)
        self._turn = 0

    def burst(self, count: int) -> None:
        for _ in range(count):
            self._turn += 1
            mine = KafkaProducer(self.producer, linger_ms=2, enable_idempotence=False)
            for _ in range(100):
                number = self.account.take()
                mine.send(ProducerRecord(self.topic, VALUE, id=number), self.on_delivery)
            if self._turn % 3 == 0:
                with warnings.catch_warnings():
                    warnings.simplefilter("ignore", ResourceWarning)
                    del mine
                    gc.collect()
            elif self._turn % 3 == 1:
                mine.close()
            else:
                mine.close(0.0)

    def settle(self) -> None:
        super().settle()
        end = time.monotonic() + SETTLING  # those that were dropped deliver in their own time
        account = self.account
        while account.sent != account.delivered + account.failed and time.monotonic() < end:
            time.sleep(0.01)


class Asynchronous(Load):
    """An event loop of its own, with a producer that it serves."""

    name = "asyncio"
    rate = 2_500

    def run(self) -> None:
        asyncio.run(self._serve())

    async def _serve(self) -> None:
        settings: dict[str, Any] = self.producer
        async with AsyncKafkaProducer(settings, linger_ms=20) as mine:
            due_from, done = time.monotonic(), 0
            while not self._halt.is_set():
                await asyncio.sleep(TICK)
                due = int((time.monotonic() - due_from) * self.rate) - done
                if due > self.rate * LATE + 1:
                    due_from, done = time.monotonic(), 0
                    continue
                for _ in range(due):
                    number = self.account.take()
                    future = await mine.send(ProducerRecord(self.topic, VALUE, id=number))
                    future.add_done_callback(self._reported)
                done += due
                if due:
                    await self._batch(mine, due)
            await mine.flush()
            await asyncio.sleep(0)  # futures' callbacks are the loop's to call

    def _reported(self, future: Any) -> None:
        self.account.report(future.result().record_id, None)

    async def _batch(self, mine: AsyncKafkaProducer, count: int) -> None:
        batch = await mine.send_batch(self.topic, [VALUE] * count)
        self.account.batch(count, 0, 0)
        await batch
        self.account.batch(0, len(batch) - batch.failed, batch.failed)


# By the producer that they share: the idempotent one, one that meets errors, one whose connections
# are cut, one with a short queue; and those that make their own.
SHARED = (Callbacks, Silent, Futures, Batches, Copies, Rich, Sync, Refused)
OWN = (Lives, Asynchronous)
ALL = (*SHARED, Failing, Cut, Full, *OWN)
