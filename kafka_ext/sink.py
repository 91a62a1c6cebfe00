"""KafkaSink: writing to Kafka from tasks that run in many processes, and on many machines (Dask,
Ray, Spark, multiprocessing).
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterable, Mapping, Sequence
from itertools import islice
from types import TracebackType
from typing import Any

from . import _rdkafka, _shared_producers
from ._annotations import Self
from ._rdkafka import (
    BatchDelivery,
    ErrorCode,
    KafkaError,
    KafkaException,
    KafkaTimeoutError,
    ProducerRecord,
)
from .metrics import ProducerMetrics
from .producer import KafkaProducer

__all__ = ["DeliveryError", "KafkaSink"]

# Rows are sent as batches of so many: nothing of Python's is left of each but the reading of it.
_ROWS = 4096

_PURGED = (ErrorCode["PURGE_QUEUE"], ErrorCode["PURGE_INFLIGHT"])


class DeliveryError(KafkaException):
    """Part of what a KafkaSink was given was not delivered. Picklable, so that it gets from the
    worker to whoever waits for the task.

    Attributes:
        error (KafkaError): the first failure's.
        failures (list[tuple[int, KafkaError]]): what was not delivered, by its index among all that
            the call was given, in order.
        total (int): how many there were in all; those not in `failures` were delivered.
    """

    def __init__(self, failures: list[tuple[int, KafkaError]], total: int) -> None:
        index, first = failures[0]
        super().__init__(
            KafkaError(
                first.code,
                f"{len(failures)} of {total} records were not delivered; the first, at index"
                f" {index}: {first.message}",
                is_fatal=first.is_fatal,
                is_retriable=first.is_retriable,
            )
        )
        self.failures = failures
        self.total = total

    def __reduce__(self) -> tuple[Any, ...]:
        return type(self), (self.failures, self.total), vars(self)


class KafkaSink:
    """Where tasks write to: picklable, and each call returns only when everything is delivered, so
    that a finished task means delivered.

    A producer cannot travel between processes; this can. Whichever process writes first makes a
    producer then, and all sinks of that process with equal properties share it. It lives until the
    process ends, or `close`.

    Args:
        properties: as KafkaProducer takes them; or a callable without arguments that returns them,
            called in the process that writes, so that secrets need not be in what is sent around.
            Callbacks must be picklable by whatever sends the sink.
        topic: where to, unless a ProducerRecord among the rows says otherwise.
        value: the column of tables, or the field of rows, that is the value. Without it a row is
            the value.
        key: the column or field that is the key.
        partition: the column or field of integers that is the partition.
        timestamp: the column or field that is the timestamp: milliseconds since the epoch,
            datetimes, or an Arrow timestamp.
        headers: the columns or fields that become headers of their own name.

    Raises:
        InvalidConfigError: the properties contradict each other, or have `transactional.id` or
            `enable.manual.events.poll`, which a shared producer cannot have. Names and values that
            only librdkafka knows are checked by the first write.
        TypeError: an argument is of the wrong type.

    At least once: a task that failed, or whose worker died, and is run again, writes again what it
    had written already. Within one call, records of one partition keep their order, and are written
    once (idempotence). When a call of another task has met a fatal error, the next call gets a new
    producer. Thread-safe. After a fork the child has a producer of its own.
    """

    def __init__(
        self,
        properties: _shared_producers.PropertiesSource,
        topic: str,
        *,
        value: str | None = None,
        key: str | None = None,
        partition: str | None = None,
        timestamp: str | None = None,
        headers: Sequence[str] = (),
    ) -> None:
        if not callable(properties) and not isinstance(properties, Mapping):
            raise TypeError(
                "properties must be a mapping, or a callable that returns one, not"
                f" {type(properties).__name__}"
            )
        if not isinstance(topic, str):
            raise TypeError(f"topic must be a str, not {type(topic).__name__}")
        topic = _rdkafka.check_topic_name(topic)
        for role, name in (
            ("value", value),
            ("key", key),
            ("partition", partition),
            ("timestamp", timestamp),
        ):
            if name is not None and not isinstance(name, str):
                raise TypeError(
                    f"{role} must be the name of a column or field, not {type(name).__name__}"
                )
        if isinstance(headers, str) or not all(isinstance(name, str) for name in headers):
            raise TypeError("headers must be a sequence of names of columns or fields")
        if value is None and not (
            key is None and partition is None and timestamp is None and not headers
        ):
            raise TypeError("value must be named as well: without it a row as a whole is the value")
        self._recipe = _shared_producers.Recipe(properties)
        self._topic = topic
        self._value, self._key, self._partition, self._timestamp = value, key, partition, timestamp
        self._headers = tuple(headers)

    @property
    def topic(self) -> str:
        """Where it writes to."""
        return self._topic

    # ------------------------------------------------------------------ writing

    def write(self, rows: Iterable[Any], *, timeout: float | None = None) -> int:
        """Write rows, and return when each of them is delivered.

        Args:
            rows: any iterable, read as it is sent. A row is a ProducerRecord; or, where the sink
                names a value, anything that has its fields by name: a mapping, a Spark Row, a named
                tuple, an object; or else a value as `ProducerRecord.value`.
            timeout: seconds for the whole call; None for as long as `message.timeout.ms` lets each
                record take.

        Returns:
            How many there were.

        Raises:
            DeliveryError: some were not delivered; it says which, and why. The others were.
            KafkaTimeoutError: some have no report within `timeout`; they may be delivered yet.
            KafkaException: called inside a callback of the same producer, where it would wait for
                that callback.
            TypeError: a row is not of these types. What was sent before it has been waited for, as
                with whatever `rows` raises.
        """
        if isinstance(rows, (str, bytes, bytearray, memoryview, ProducerRecord)):
            raise TypeError(
                f"rows must be many rows, not {type(rows).__name__}: a single one goes into a list"
            )
        records = map(self._record_of, rows)

        def send(writing: _Writing) -> None:
            if writing.one_by_one:
                for record in records:
                    writing.send(record)
            else:
                while chunk := list(islice(records, _ROWS)):
                    self._write_chunk(writing, chunk)

        return self._deliver(send, timeout)

    def write_batch(
        self,
        values: Any,
        *,
        keys: Any = None,
        partitions: Any = None,
        timestamps: Any = None,
        headers: Any = None,
        timeout: float | None = None,
    ) -> int:
        """Write a column of values (a list, a NumPy array, an Arrow array…), and return when each
        of them is delivered.

        The arguments are those of `KafkaProducer.send_batch`; returns and raises as `write`.
        """
        return self._deliver(
            lambda writing: writing.add(
                writing.producer.send_batch,
                self._topic,
                values,
                keys=keys,
                partitions=partitions,
                timestamps=timestamps,
                headers=headers,
            ),
            timeout,
        )

    def write_table(self, table: Any, *, timeout: float | None = None) -> int:
        """Write the rows of a table, by the columns that the sink names, and return when each of
        them is delivered.

        Args:
            table: what `KafkaProducer.send_table` takes: a pyarrow Table, RecordBatch or
                RecordBatchReader, a pandas or Polars DataFrame, a DuckDB relation.
            timeout: as `write`.

        It returns and raises as `write`; ValueError for a column that the table does not have.
        """
        value = self._value
        if value is None:
            raise TypeError(
                "this sink names no column for the values: KafkaSink(properties, topic,"
                " value='column')"
            )
        return self._deliver(
            lambda writing: writing.add(
                writing.producer.send_table,
                table,
                topic=self._topic,
                value=value,
                key=self._key,
                partition=self._partition,
                timestamp=self._timestamp,
                headers=self._headers,
            ),
            timeout,
        )

    def _deliver(self, send: Callable[[_Writing], object], timeout: float | None) -> int:
        """Let `send` send, and wait until all is delivered; how many records there were."""
        until = _rdkafka.deadline(timeout)
        use = object()
        shared = _shared_producers.producer_for(self._recipe)
        try:
            while (producer := shared.enter(until, use)) is None:
                shared = shared.next()
            producer.handle.check_not_in_callback("write")
            writing = _Writing(producer, until)
            try:
                send(writing)
            except Exception:
                # Whoever sees it may run the task again: nothing of this one is still on its way
                # then.
                writing.wait()
                raise
            writing.finish()
            return writing.total
        finally:
            # First of all, and here: Ctrl-C may come at the beginning of any method, and close()
            # waits for all uses.
            shared.uses.pop(use, None)
            shared.end_unused()
            if shared.current is None:
                shared.forget_unmade()

    def _record_of(self, row: Any) -> ProducerRecord:
        if isinstance(row, ProducerRecord):
            return row
        if self._value is None:
            return ProducerRecord(self._topic, row)
        return ProducerRecord(
            self._topic,
            _field(row, self._value),
            key=None if self._key is None else _field(row, self._key),
            partition=None if self._partition is None else _field(row, self._partition),
            timestamp=None if self._timestamp is None else _field(row, self._timestamp),
            headers=[(name, _field(row, name)) for name in self._headers] or None,
        )

    def _write_chunk(self, writing: _Writing, records: list[ProducerRecord]) -> None:
        """Send records as batches, one for each stretch that goes to the same topic."""
        start = 0
        for end in range(1, len(records) + 1):
            if end < len(records) and records[end].topic == records[start].topic:
                continue
            part = records[start:end]
            start = end
            columns: dict[str, list[Any]] = {
                "keys": [record.key for record in part],
                "partitions": [record.partition for record in part],
                "timestamps": [record.timestamp for record in part],
                "headers": [record.headers for record in part],
            }
            given = {
                name: column
                for name, column in columns.items()
                if any(item is not None for item in column)
            }
            writing.add(
                writing.producer.send_batch,
                part[0].topic,
                [record.value for record in part],
                **given,
            )

    # ------------------------------------------------------------------ life

    def metrics(self) -> ProducerMetrics:
        """The counters of this process's producer, which all its sinks with equal properties share;
        all zero before the first write.

        Over all producers there were in this process, where a fatal error has had one take
        another's place. After `close` they begin anew.
        """
        return _shared_producers.metrics(self._recipe)

    def close(self) -> None:
        """Close this process's producer, once the calls of other threads that write with it are
        through. Idempotent. In the midst of a call of this thread (in a signal handler, say) it does
        not wait: the producer ends after that call.

        Raises:
            KafkaException: called inside a callback of that producer.

        Not needed at the end of a task, nor of the process. A later call makes a new producer.
        """
        _shared_producers.close(self._recipe)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        exc: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self.close()

    def _settings(self) -> tuple[Any, ...]:
        return (
            self._recipe,
            self._topic,
            self._value,
            self._key,
            self._partition,
            self._timestamp,
            self._headers,
        )

    def __eq__(self, other: object) -> bool:
        return isinstance(other, KafkaSink) and self._settings() == other._settings()

    def __hash__(self) -> int:
        return hash(self._settings())

    def __repr__(self) -> str:
        return f"KafkaSink({self._recipe!r}, {self._topic!r})"


def _field(row: Any, name: str) -> Any:
    try:
        return row[name]
    except (KeyError, IndexError, ValueError):
        raise KeyError(f"a row has no field {name!r}: {type(row).__name__}") from None
    except TypeError:
        pass  # it has no fields by name in this way: a named tuple, an object
    try:
        return getattr(row, name)
    except AttributeError:
        raise TypeError(
            f"a row must have a field {name!r} (a mapping, a named tuple, an object), not be a"
            f" {type(row).__name__}"
        ) from None


def _heard(batch: BatchDelivery) -> None:
    """Whose failures `write` raises need no line in the log."""


class _Writing:
    """What one call has sent, and what became of it."""

    def __init__(self, producer: KafkaProducer, until: int) -> None:
        self.total = 0
        # Interceptors and serializers see records one by one, and a batch has none.
        self.one_by_one = any(
            name in producer.properties
            for name in ("interceptors", "value_serializer", "key_serializer")
        )
        self.producer = producer
        self._until = until
        self._failures: list[tuple[int, KafkaError]] = []
        self._batches: deque[tuple[int, BatchDelivery]] = deque()
        # A set and no count: a send may be interrupted when its record is in already, and another
        # may end twice.
        self._unanswered: set[int] = set()
        self._answered = _rdkafka.Monitor()

    def add(self, send: Callable[..., BatchDelivery], *arguments: Any, **keywords: Any) -> None:
        """Send a batch by this method of the producer's, and keep it until it is reported."""
        try:
            batch = send(*arguments, on_delivery=_heard, timeout=self._left(), **keywords)
        except BaseException as exc:
            sent = getattr(exc, "batch", None)
            if sent is not None:
                self._keep(sent)
            raise
        self._keep(batch)
        while self._batches and self._batches[0][1].done():
            self._take_first()

    def _keep(self, batch: BatchDelivery) -> None:
        self._batches.append((self.total, batch))
        self.total += len(batch)

    def _take_first(self) -> None:
        start, batch = self._batches.popleft()
        self._failures += [(start + index, error) for index, error in batch.errors()]

    def send(self, record: ProducerRecord) -> None:
        """Send one record."""
        index = self.total
        self._unanswered.add(index)
        try:
            self.producer.send(
                record, lambda metadata, error: self._answer(index, error), timeout=self._left()
            )
        except KafkaException as exc:
            self._answer(index, exc.error)  # as in a batch: it is told with the others, which go on
        except BaseException:
            self._answer(index, None)
            raise
        self.total += 1

    def _answer(self, index: int, error: KafkaError | None) -> None:
        with self._answered:
            if error is not None:
                self._failures.append((index, error))
            self._unanswered.discard(index)
            if not self._unanswered:
                self._answered.notify_all()

    def wait(self) -> None:
        """Until everything sent has been reported."""
        while self._batches:
            self._batches[0][1].wait(self._left())
            self._take_first()
        with self._answered:
            while self._unanswered:
                left = self._left()
                if left == 0.0:
                    cause = self.producer.handle.cause
                    raise KafkaTimeoutError(
                        KafkaError(
                            ErrorCode["TIMED_OUT"],
                            f"{len(self._unanswered)} records have no report in time{cause}",
                        )
                    )
                self._answered.wait(3600.0 if left is None else left)

    def finish(self) -> None:
        """Wait, and raise for what was not delivered."""
        self.wait()
        if self._failures:
            # Nobody but a fatal error purges here, so that is what those failed for which
            # librdkafka had not sent yet.
            fatal = self.producer.fatal_error()
            failures = [
                (index, fatal if fatal is not None and error in _PURGED else error)
                for index, error in self._failures
            ]
            raise DeliveryError(sorted(failures, key=lambda failure: failure[0]), self.total)

    def _left(self) -> float | None:
        return _rdkafka.seconds_until(self._until)
