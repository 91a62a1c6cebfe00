"""KafkaProducer: what a Python person sees. The hot path is in core/producer/producer.pyx; here is
all that may take its time.
"""

from __future__ import annotations

import warnings
import weakref
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from types import TracebackType
from typing import Any

from . import _annotations, _lifecycle, _rdkafka
from ._annotations import Self
from ._client import Client, checked_metadata, metadata_failure
from ._rdkafka import (
    ActionWhileQueueIsFull,
    BatchDelivery,
    ErrorCode,
    KafkaError,
    KafkaException,
    KafkaTimeoutError,
    Producer,
    ProducerClient,
    ProducerClosedError,
    ProducerRecord,
    RecordMetadata,
    SendOption,
)
from .properties import OWN_NAMES, Properties, resolve

DeliveryCallback = Callable[[RecordMetadata, "KafkaError | None"], object]


class KafkaProducer(Producer, Client):
    """Writes records to Kafka. Thread-safe; one is enough for a process.

    Args:
        properties: librdkafka's settings by name, and this package's own:
            `enable.manual.events.poll`, `partitioner` (a name or a callable), `interceptors`,
            `key_serializer`, `value_serializer`, `error_cb`, `stats_cb`, `throttle_cb`, `log_cb`,
            `oauthbearer_token_refresh_cb`.
        keywords: the same with underscores for dots: `linger_ms=5`. They go before `properties`.

    Raises:
        InvalidConfigError: a property is unknown, misspelt, out of range or contradicts another; it
            is named.
        TypeError: a property's value is of the wrong type.

    Safe by default: `acks=all` and `enable.idempotence=true`, unless your own settings contradict
    idempotence without naming it. Keys land where the Java client puts them
    (`partitioner=murmur2_random`). Every other default is librdkafka's (CONFIGURATION.md).

    Callbacks run in one events thread a producer. With `enable.manual.events.poll=true` there is
    none, and they run in whichever thread calls `poll_events`, `flush`, `sync_send` or `close`.

    Close it, or use it as a context manager. One that is only dropped still delivers what it was
    given, and warns (ResourceWarning).
    """

    _unpicklable = (
        "a KafkaProducer cannot be pickled: it is threads and connections. Send a"
        " KafkaSink(properties, topic) in its place, which makes one in each process, or make one"
        " there yourself"
    )

    def __init__(self, properties: Mapping[str, Any] | None = None, /, **keywords: Any) -> None:
        self._properties = Properties(properties, **keywords)
        self._closing = _rdkafka.Monitor()
        settings = resolve(self._properties)
        handle = ProducerClient(settings.librdkafka, settings.callbacks, settings.manual, OWN_NAMES)
        try:
            _lifecycle.start(handle)
        except BaseException:  # "can't start new thread", for one
            _lifecycle.close(handle, 0.0)
            raise
        self._open(
            handle, settings.partitioner, settings.interceptors or None, settings.serializers
        )

    # ------------------------------------------------------------------ sending

    def sync_send(self, record: ProducerRecord, timeout: float | None = None) -> RecordMetadata:
        """Send a record and wait for its report.

        Returns:
            What became of it.

        Raises:
            KafkaTimeoutError: no report within `timeout` seconds. The record is still on its way:
                it may be delivered yet.
            KafkaException: it was not delivered, and `error` says why; or this is inside a
                callback. Besides, whatever `send` raises.

        With manual polling it serves events on this thread, other records' callbacks among them.
        """
        if not isinstance(record, ProducerRecord):
            raise _rdkafka.no_record("sync_send", record)
        self._check_may_wait("sync_send")
        handle = self.handle
        deadline = _Deadline(timeout)
        report: list[Any] = [
            False,
            None,
            None,
        ]  # room made beforehand: taking a report must not need memory
        answered = _rdkafka.Event()

        def on_delivery(metadata: RecordMetadata, error: KafkaError | None) -> None:
            report[0], report[1], report[2] = True, metadata, error
            answered.set()

        # Told once the callback is gone, and with it what it kept pinned: the value is the caller's
        # again when this returns.
        released = _rdkafka.Event()
        gone = weakref.ref(on_delivery, released.set)
        self.send(record, on_delivery, timeout=timeout)
        del on_delivery
        while not report[0]:
            if gone() is None and not report[0]:
                raise MemoryError("there was no memory for the record's report")
            if handle.manual and not handle.closing:
                try:
                    self._poll(min(deadline.remaining(), 0.1))
                except ProducerClosedError:
                    pass  # another thread closes it, and serves this report as well
            else:
                answered.wait(min(deadline.remaining(), 1.0))
            if not report[0] and deadline.expired():
                raise KafkaTimeoutError(
                    KafkaError(
                        ErrorCode["TIMED_OUT"],
                        f"no report within {timeout} s; the record stays enqueued and may still be"
                        f" delivered{self.handle.cause}",
                    )
                )
        released.wait(1.0)  # in vain where an interceptor or a subclass keeps the callback
        del gone
        _, metadata, error = report
        if error is not None:
            raise _rdkafka.exception_for(error)
        return metadata  # type: ignore[no-any-return]

    def send_future(
        self,
        record: ProducerRecord,
        *,
        option: SendOption = SendOption.NO_COPY_RECORD_VALUE,
        action: ActionWhileQueueIsFull = ActionWhileQueueIsFull.BLOCK,
        timeout: float | None = None,
    ) -> _annotations.Future[RecordMetadata]:
        """As `send`, with the outcome as a future: a RecordMetadata, or a KafkaException.

        It cannot be cancelled, for the record cannot be called back. Its callbacks run where
        delivery callbacks do: in the events thread, or with manual polling in the thread that
        serves, without which the future is never done. In a callback of this producer `result()`
        and `exception()` of one that is not done raise a KafkaException: they would wait for
        themselves. So do `wait()` and `as_completed()` of concurrent.futures, with any timeout. The
        value is let go just after the future's callbacks: a moment after `result()` may have
        returned.

        Raises: whatever `send` raises; what happens after that is the future's.
        """
        if not isinstance(record, ProducerRecord):
            raise _rdkafka.no_record("send_future", record)
        from ._futures import DeliveryFuture

        future = DeliveryFuture(self._check_of_waits())
        self.send(record, _Outcome(future), option=option, action=action, timeout=timeout)
        return future

    def _check_may_wait(self, call: str) -> None:
        """Raise where `call` would wait for this producer in vain."""
        handle = self.handle
        handle.check_usable()
        handle.check_not_in_callback(call)

    def _check_of_waits(self) -> Callable[[str], object]:
        """What a future asks before it waits. It does not keep the producer."""
        return self.handle.check_not_in_callback

    # ------------------------------------------------------------------ batches and columns

    def send_batch(
        self,
        topic: str,
        values: Any,
        *,
        keys: Any = None,
        partitions: Any = None,
        timestamps: Any = None,
        headers: Any = None,
        ids: Sequence[Any] | None = None,
        on_delivery: Callable[[BatchDelivery], object] | None = None,
        option: SendOption = SendOption.NO_COPY_RECORD_VALUE,
        action: ActionWhileQueueIsFull = ActionWhileQueueIsFull.BLOCK,
        timeout: float | None = None,
    ) -> BatchDelivery:
        """Send a column of values in one call, without the GIL and without anything of Python's for
        each message.

        The column stays pinned until the last message of it has been reported, and is then let go
        once.

        Args:
            topic: where to.
            values: a list or tuple of what a record's value can be; an Arrow column (anything with
                `__arrow_c_array__` or `__arrow_c_stream__`) of binary, string, their large and view
                forms, fixed-size binary, or a dictionary of one of them, nulls becoming tombstones;
                or a C-contiguous buffer of two dimensions, or one of records, whose rows are the
                messages.
            keys: the same forms, or one key for all (a str, bytes or flat buffer of bytes). Copied
                within the call.
            partitions: one int, a sequence, an integer buffer or an Arrow column of integers.
                Without, or where one is None or null, the partitioner chooses.
            timestamps: the same, in milliseconds since the epoch, or datetimes, or an Arrow column
                of timestamps. Without, or where one is None or null, now.
            headers: one list of pairs (or mapping) for all, or a sequence of such lists.
            ids: anything, one for each; kept as `BatchDelivery.ids`.
            on_delivery: called once, as `on_delivery(batch)`, when every message has been reported:
                by the thread that serves events.
            option: TO_COPY_RECORD_VALUE copies the values within the call.
            action: as `send`.
            timeout: as `send`, for the whole call.

        Returns:
            What becomes of it. A message that could not be enqueued (no room within `timeout`, too
            large, unknown partition) is in its `errors()` by index; the call does not raise for it.

        Raises:
            TypeError: an argument is of the wrong type. Nothing has been enqueued, as with the next
                two.
            ValueError: an argument is out of range, or lengths differ; InvalidRecordError where
                memory is not C-contiguous, or where strings of a NumPy array end in NUL, their
                padding.
            ProducerClosedError: closed, or being closed.
            ProducerForkedError: made before a fork.
            KafkaException: the producer has interceptors or serializers, which see records one by
                one.

        What a signal handler raises while it waits (KeyboardInterrupt, say) has an attribute
        `batch`: all that was enqueued is in it.

        Source: rd_kafka_produce_batch(); with timestamps or headers, which that call drops,
            rd_kafka_produceva().
        """
        return _rdkafka.send_batch(
            self,
            topic,
            values,
            keys,
            partitions,
            timestamps,
            headers,
            ids,
            on_delivery,
            option,
            action,
            timeout,
        )

    def send_table(
        self,
        table: Any,
        *,
        topic: str,
        value: str,
        key: str | None = None,
        partition: str | None = None,
        timestamp: str | None = None,
        headers: Sequence[str] = (),
        on_delivery: Callable[[BatchDelivery], object] | None = None,
        option: SendOption = SendOption.NO_COPY_RECORD_VALUE,
        action: ActionWhileQueueIsFull = ActionWhileQueueIsFull.BLOCK,
        timeout: float | None = None,
    ) -> BatchDelivery:
        """Send the rows of a table, each a message, naming the columns that make it up.

        Args:
            table: anything with `__arrow_c_stream__` or `__arrow_c_array__` of structs: a pyarrow
                Table, RecordBatch or RecordBatchReader, a Polars or pandas DataFrame, a DuckDB
                relation. A stream is consumed chunk by chunk, each let go once it is reported, so
                that it may be larger than memory.
            topic: where to.
            value: the column with the values, of the types that `send_batch` takes.
            key: the column with the keys, of the same types.
            partition: a column of integers; a null lets the partitioner choose.
            timestamp: a column of integers (milliseconds since the epoch) or timestamps; a null
                means now.
            headers: columns that become headers of their own name.
            on_delivery: as `send_batch`.
            option: as `send_batch`.
            action: as `send_batch`.
            timeout: as `send_batch`.

        A reader that gives nothing is warned of (RuntimeWarning): one that was read before looks
        like an empty one.

        It returns and raises what `send_batch` does; ValueError also for a column that the table
        does not have. When a chunk turns out unusable, or the stream fails, what was enqueued
        before is in the exception's `batch` attribute.
        """
        return _rdkafka.send_table(
            self,
            table,
            topic,
            value,
            key,
            partition,
            timestamp,
            headers,
            on_delivery,
            option,
            action,
            timeout,
        )

    # ------------------------------------------------------------------ events

    def poll_events(self, timeout: float = 0.0) -> int:
        """Serve events on this thread: delivery callbacks, errors, statistics, logs, token
        refreshes.

        Waits up to `timeout` seconds (None: no limit) for the first, then serves all that are
        there.

        Returns:
            The number of events served, each record's report being one.

        Raises:
            KafkaException: the producer has an events thread (`enable.manual.events.poll` is not
                set), or this is inside a callback.
            Exception: whatever a callback raised, as it is. The events behind it have been served.
            ExceptionGroup: several callbacks raised (before Python 3.11: the first exception, the
                others in its `__context__`).

        Source: rd_kafka_queue_poll().
        """
        handle = self.handle
        handle.check_usable()
        if not handle.manual:
            raise KafkaException(
                KafkaError(
                    ErrorCode["STATE"],
                    "poll_events() is for producers with enable.manual.events.poll=true; this one"
                    " has an events thread",
                )
            )
        handle.check_not_in_callback("poll_events")
        return self._poll(timeout)

    def _poll(self, timeout: float | None) -> int:
        handle = self.handle
        served: int = handle.poll(timeout)
        _rdkafka.raise_together(handle.take_raised())
        return served

    def flush(self, timeout: float | None = None) -> None:
        """Send all that waits, without regard to `linger.ms`, and wait until every record has been
        reported.

        Records sent meanwhile by other threads are waited for as well. Under manual polling it
        serves the events itself.

        Raises:
            KafkaTimeoutError: records are still outstanding after `timeout` seconds; they stay
                enqueued.
            KafkaException: called inside a callback. Under manual polling also what the callbacks
                raised, as `poll_events`.

        Source: rd_kafka_flush().
        """
        self._check_may_wait("flush")
        handle = self.handle
        done = handle.flush(timeout)
        _rdkafka.raise_together(handle.take_raised())
        if not done:
            raise KafkaTimeoutError(
                KafkaError(
                    ErrorCode["TIMED_OUT"],
                    f"{handle.outstanding} records are still outstanding after {timeout}"
                    f" s{handle.cause}",
                )
            )

    def purge(self, *, in_queue: bool = True, in_flight: bool = True) -> None:
        """Fail records at once: those waiting here (PURGE_QUEUE), those sent but not answered
        (PURGE_INFLIGHT; they may be persisted).

        Their callbacks are called as always, where delivery callbacks are; this does not wait for
        them. Source: rd_kafka_purge().
        """
        self.handle.purge(bool(in_queue), bool(in_flight))

    # ------------------------------------------------------------------ the end

    def close(self, timeout: float | None = None) -> None:
        """Take no new records, wait up to `timeout` seconds for every report, purge what is left,
        and free everything.

        When it returns, every record sent has been called back and every buffer released.
        Idempotent. An interrupted close (Ctrl-C) can be called again.

        Raises:
            KafkaException: called inside a callback. Under manual polling also what the callbacks
                raised, once all is closed.
        """
        handle = self._handle_or_none()
        if handle is None:
            return
        if handle.forked:
            handle.check_usable()
        if handle.closed:
            return
        handle.check_not_in_callback("close")
        deadline = _Deadline(timeout)
        caller = _lifecycle.begin_closing(handle)
        try:
            while not self._closing.acquire(timeout=min(deadline.remaining(), 0.1)):
                if deadline.expired():
                    handle.out_of_time = (
                        True  # another thread closes, and may have more time than this one
                    )
            try:
                if not handle.closed:
                    _lifecycle.close(handle, deadline.left())
            finally:
                self._closing.release()
        finally:
            if caller is not None:
                _lifecycle.end_closing(caller)
        _rdkafka.raise_together(handle.take_raised())

    def __enter__(self) -> Self:
        self.handle.check_usable()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        exc: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        if exc is not None and self.handle.forked:
            # a child leaving by the block it was forked in (sys.exit, say): that is what its parent
            # shall see
            return
        self.close()

    def __del__(self) -> None:
        handle = self._handle_or_none()
        if handle is None or handle.forked or handle.closing or handle.abandoned:
            return
        try:
            message = f"{self!r} was not closed; what it was given is still being delivered"
            warnings.warn(message, ResourceWarning, stacklevel=2, source=self)
        finally:
            _lifecycle.abandon(handle)  # also where warnings are errors

    # ------------------------------------------------------------------ transactions

    def init_transactions(self, timeout: float | None = None) -> None:
        """Get ready for transactions: once, before the first. Fences older producers of the same
        `transactional.id`.

        Waits while the coordinator is not ready, or still aborts what the older producer has left
        open.

        Raises:
            KafkaTimeoutError: not done within `timeout` seconds; call it again to go on.
            KafkaException: there is no `transactional.id`, or the coordinator refuses: for good, or
                `error.is_retriable` and `timeout` is over.

        Source: rd_kafka_init_transactions().
        """
        self.handle.check_not_in_callback("init_transactions")
        _rdkafka.init_transactions(self.handle, timeout)

    def begin_transaction(self) -> None:
        """Begin a transaction: what is sent from here on, by any thread, belongs to it.

        Raises:
            KafkaException: `init_transactions` has not been called, a transaction is open, or the
                producer has been fenced.

        Source: rd_kafka_begin_transaction().
        """
        _rdkafka.begin_transaction(self.handle)

    def commit_transaction(self, timeout: float | None = None) -> None:
        """Wait for every record's report and commit.

        Only what is complete is committed: where a record was not delivered, or `send`, `try_send`,
        `send_batch` or `send_table` refused one, this raises INCONSISTENT, as the Java client does,
        and the transaction has to be aborted. A refused record counts no more once it, the same
        ProducerRecord, was sent again and taken.

        Raises:
            KafkaTimeoutError: not done within `timeout` seconds; call it again to go on.
            KafkaException: `error.transaction_requires_abort`: abort and begin anew;
                `error.is_fatal`: close the producer; CONFLICT: an `abort_transaction` that ran out
                of time is under way; call that again; STATE: it is another call's turn.

        Source: rd_kafka_commit_transaction().
        """
        self.handle.check_not_in_callback("commit_transaction")
        self._end_transaction(True, timeout)

    def abort_transaction(self, timeout: float | None = None) -> None:
        """Drop the transaction; its records that are still here fail with PURGE_QUEUE.

        Raises as `commit_transaction`; CONFLICT where it is a commit that is under way.

        Source: rd_kafka_abort_transaction().
        """
        self.handle.check_not_in_callback("abort_transaction")
        self._end_transaction(False, timeout)

    def _end_transaction(self, commits: bool, timeout: float | None) -> None:
        # librdkafka waits for the reports of what is in flight, but serves none: without an events
        # thread, this one does meanwhile. (Purging what is in flight instead would leave a hole in
        # the sequence numbers and fail the next transaction.)
        handle = self.handle
        _rdkafka.end_transaction(handle, commits, timeout)
        _rdkafka.raise_together(handle.take_raised())

    def send_offsets_to_transaction(
        self, offsets: Any, group_metadata: Any, timeout: float | None = None
    ) -> None:
        """Commit a consumer's offsets with the transaction.

        Args:
            offsets: the next offset to read, by (topic, partition), or objects with `topic`,
                `partition` and `offset`. Those that are none, such as the -1001 of a consumer's
                `position` that has read nothing yet, are passed over.
            group_metadata: a ConsumerGroupMetadata, a group id, or what confluent-kafka's
                `consumer_group_metadata()` gives.

        Raises as `commit_transaction`; ValueError for offsets or group metadata that no broker
        could take. Given up, because of a signal say, it goes on until `timeout`, or
        `transaction.timeout.ms`, is over; what ends the transaction waits for it.

        Source: rd_kafka_send_offsets_to_transaction().
        """
        self.handle.check_not_in_callback("send_offsets_to_transaction")
        from .transactions import group_of, offset_rows

        _rdkafka.send_offsets_to_transaction(
            self.handle, offset_rows(offsets), group_of(group_metadata), timeout
        )

    @contextmanager
    def transaction(self, timeout: float | None = None) -> Iterator[KafkaProducer]:
        """`with producer.transaction():` begins, and commits at the end of the block, or aborts
        when the block or the commit raises.

        A commit that only timed out is not aborted: call `commit_transaction` again to go on with
        it.

        Args:
            timeout (float | None): seconds for the commit, and as many again for an abort; None for
                no limit.

        Raises: what the block raised, after the abort; else as `begin_transaction` and
            `commit_transaction`.
        """
        self.begin_transaction()
        try:
            yield self
        except BaseException as exc:
            self._abort_after(exc, timeout)
            raise
        try:
            self.commit_transaction(timeout)
        except KafkaException as exc:
            if exc.error.transaction_requires_abort:
                self._abort_after(exc, timeout)
            raise

    def _abort_after(self, exc: BaseException, timeout: float | None) -> None:
        """Abort; when that fails as well, the block's own exception is the one to see, with this
        one in its context.
        """
        try:
            self.abort_transaction(timeout)
        except Exception as failure:  # noqa: BLE001 - also what callbacks raised under manual polling
            if exc.__context__ is None:
                exc.__context__ = failure

    # ------------------------------------------------------------------ what is known

    def fetch_broker_metadata(
        self, topic: str | None = None, timeout: float | None = 10.0
    ) -> _annotations.BrokerMetadata:
        """Ask a broker for the cluster's brokers and for one topic's partitions, or all topics'
        with None.

        Raises:
            KafkaTimeoutError: no broker answered within `timeout` seconds.
            KafkaException: the topic does not exist, or may not be seen.

        Source: rd_kafka_metadata().
        """
        if topic is not None and not isinstance(topic, str):
            raise TypeError(f"topic must be a str or None, not {type(topic).__name__}")
        try:
            found = _rdkafka.fetch_metadata(self.handle, topic, timeout)
        except KafkaException as exc:
            raise metadata_failure(exc, timeout, self.handle) from exc
        return checked_metadata(found, topic)


class _Outcome:
    """The delivery callback of `send_future`: the future is done once this goes, also where there
    was no memory to call it.
    """

    __slots__ = ("_future",)

    def __init__(self, future: _annotations.Future[RecordMetadata]) -> None:
        self._future = future

    def __call__(self, metadata: RecordMetadata, error: KafkaError | None) -> None:
        if error is None:
            self._future.set_result(metadata)
        else:
            self._future.set_exception(_rdkafka.exception_for(error))

    def __del__(self) -> None:
        for _ in range(20):
            try:
                if not self._future.done():
                    self._future.set_exception(
                        MemoryError("there was no memory for the record's report")
                    )
                return
            except MemoryError:  # noqa: PERF203 - the loop is for it
                _rdkafka.sleep(0.01)  # somebody waits for it, and nobody else will end that


class _Deadline:
    """A timeout in seconds, counted from now; None is no limit."""

    def __init__(self, timeout: float | None) -> None:
        self._until = _rdkafka.deadline(timeout)

    def left(self) -> float | None:
        return _rdkafka.seconds_until(self._until)

    def remaining(self) -> float:
        left = self.left()
        return 3600.0 if left is None else left

    def expired(self) -> bool:
        return self.left() == 0.0
