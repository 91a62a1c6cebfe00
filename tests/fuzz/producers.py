"""Every kind of producer under the same calls, and what its own code makes of a record."""

from __future__ import annotations

import asyncio
import copy
import dataclasses
import threading
from typing import Any

from kafka_ext import KafkaException, KafkaProducer, ProducerRecord, QueueFullError, SendOption
from kafka_ext._rdkafka import content_of
from kafka_ext.aio import AsyncKafkaProducer
from kafka_ext.recoverable import RecoverableProducer

from .model import Expected, Outcome

RECOVERABLE = {"recoverable": "resend", "reporting": "report"}  # and what it does at a fatal error
FACES = ("threaded", "manual", "asyncio", *RECOVERABLE)
EXTRAS = ("none", "interceptors", "serializers", "partitioner")
KINDS = [(face, extra) for face in FACES for extra in EXTRAS] + [
    (face, "transactional") for face in FACES[:3]
] * 3
SEEN = ("seen", b"1")
SENDS = ("send", "try_send", "sync_send", "send_future")


class Interceptor:
    """Reads all there is to read, and adds a header where there are none. Each record it sees must
    be acknowledged once.
    """

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self.unacknowledged = 0

    def _count(self, change: int) -> None:
        with self._lock:
            self.unacknowledged += change

    def on_send(self, record: ProducerRecord) -> ProducerRecord:
        self._count(1)
        if record.headers is not None:
            for pair in record.headers if isinstance(record.headers, (list, tuple)) else ():
                repr(pair)
            return record
        changed: Any = copy.copy(record)
        changed.headers = [SEEN]
        return changed

    def on_acknowledgement(self, metadata: Any, error: Any) -> None:
        self._count(-1)


def _serialize(content: Any) -> bytes:
    return b"s:" + (content_of(content, "value or key") or b"")


def _partition(key: bytes | None, count: int) -> int:
    return len(key or b"") % count


class Driver:
    """A producer of one kind. What its calls raise, it raises; a coroutine is run to its end, in a
    loop of its own.
    """

    def __init__(self, face: str, extra: str, config: dict[str, Any]) -> None:
        self.face, self.extra = face, extra
        self.interceptor = Interceptor()
        if extra == "interceptors":
            config["interceptors"] = [self.interceptor]
        elif extra == "serializers":
            config.update(key_serializer=_serialize, value_serializer=_serialize)
        elif extra == "partitioner":
            config["partitioner"] = lambda topic, key, count: _partition(
                content_of(key, "key"), count
            )
        if face == "manual":
            config["enable.manual.events.poll"] = True
        self.loop = asyncio.new_event_loop() if face == "asyncio" else None
        self.producer: Any
        if self.loop is not None:
            self.producer = self._run(self._make(config))
        elif face in RECOVERABLE:
            self.producer = RecoverableProducer(config, on_fatal=RECOVERABLE[face])  # type: ignore[arg-type]
        else:
            self.producer = KafkaProducer(config)

    @property
    def takes_batches(self) -> bool:
        return self.face != "recoverable" and self.extra not in ("interceptors", "serializers")

    async def _make(self, config: dict[str, Any]) -> AsyncKafkaProducer:
        return AsyncKafkaProducer(config)

    def _run(self, call: Any) -> Any:
        return call if self.loop is None else self.loop.run_until_complete(call)

    def meant(self, expected: Expected, partitions: int) -> Expected:
        """What arrives of a record that means `expected`."""
        if self.extra == "interceptors" and expected.bare:
            return dataclasses.replace(expected, headers=[SEEN])
        if self.extra == "serializers":
            value, key = (
                None if content is None else b"s:" + content
                for content in (expected.value, expected.key)
            )
            return dataclasses.replace(expected, value=value, key=key)
        if self.extra == "partitioner" and expected.partition is None:
            return dataclasses.replace(expected, partition=_partition(expected.key, partitions))
        return expected

    # ------------------------------------------------------------------ calls

    def send(
        self, record: Any, way: str, option: SendOption, patience: float, outcome: Outcome
    ) -> None:
        """Send by one of the ways. An error that the call itself returns is raised; `sync_send`'s
        is the record's outcome.
        """
        if self.loop is not None:
            self.loop.run_until_complete(self._send_async(record, way, option, outcome))
        elif way == "try_send":
            error = self.producer.try_send(record, outcome.reported, option=option)
            if error is not None:
                raise QueueFullError(error) if error.name == "QUEUE_FULL" else KafkaException(error)
        elif way == "sync_send":
            outcome.of_call(lambda: self.producer.sync_send(record, patience))
        elif way == "send_future":
            self.producer.send_future(record, option=option).add_done_callback(outcome.of_future)
        else:
            self.producer.send(record, outcome.reported, option=option)

    async def _send_async(
        self, record: Any, way: str, option: SendOption, outcome: Outcome
    ) -> None:
        if way == "sync_send":
            try:
                outcome.delivered(await self.producer.send_and_wait(record, option=option))
            except KafkaException as exc:
                outcome.raised(exc)
        else:
            (await self.producer.send(record, option=option)).add_done_callback(outcome.of_future)

    def send_batch(self, *arguments: Any, **keywords: Any) -> Any:
        return self._run(self.producer.send_batch(*arguments, **keywords))

    def send_table(self, *arguments: Any, **keywords: Any) -> Any:
        return self._run(self.producer.send_table(*arguments, **keywords))

    def flush(self, timeout: float) -> None:
        self._run(self.producer.flush(timeout))
        self.turn()

    def turn(self) -> None:
        """Let callbacks of futures run."""
        if self.loop is not None:
            self.loop.run_until_complete(asyncio.sleep(0))

    def purge(self, **which: bool) -> None:
        async def purge() -> None:
            self.producer.purge(**which)

        self.producer.purge(**which) if self.loop is None else self._run(purge())

    def close(self, timeout: float | None) -> None:
        self._run(self.producer.close(timeout))
        self.turn()

    def end(self) -> None:
        if self.loop is not None:
            self.loop.close()

    def transaction(self, call: str, *timeout: float) -> None:
        """`call` is one of "init_transactions", "begin_transaction"…"""
        self._run(getattr(self.producer, call)(*timeout))
        self.turn()
