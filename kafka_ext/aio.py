"""asyncio: a producer that an event loop serves, without a thread of its own.

    from kafka_ext import AsyncKafkaProducer, ProducerRecord

    async with AsyncKafkaProducer(bootstrap_servers="localhost:9092") as producer:
        future = await producer.send(ProducerRecord("orders", b"a value"))     # over when it is
        enqueued metadata = await future                                                # over when
        it is delivered

librdkafka's queue of events writes to a pipe when it stops being empty
(rd_kafka_queue_io_event_enable); the loop reads the pipe and answers all that waits in one pass, on
its own thread: futures are resolved directly, callbacks called. Works with asyncio's loops and
uvloop.
"""

from __future__ import annotations

import asyncio
import inspect
import os
import threading
import warnings
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping, Sequence
from contextlib import asynccontextmanager
from types import TracebackType
from typing import Any, ClassVar, NoReturn, TypeVar

from . import _lifecycle, _rdkafka
from ._annotations import Self
from ._client import Client, checked_metadata, metadata_failure
from ._rdkafka import (
    AsyncProducer,
    BatchDelivery,
    ErrorCode,
    KafkaError,
    KafkaException,
    KafkaTimeoutError,
    ProducerClient,
    ProducerRecord,
    RecordMetadata,
    SendOption,
)
from .metadata import BrokerMetadata
from .properties import MANUAL_POLL, OWN_NAMES, Properties, invalid, resolve
from .transactions import group_of, offset_rows

__all__ = ["AsyncKafkaProducer"]

T = TypeVar("T")

# librdkafka disregards linger.ms only while rd_kafka_flush() waits, which would block the loop:
# with a longer linger than this, in seconds, a flush has it wait for a millisecond of each such
# interval.
LINGER_WORTH_A_NUDGE = 0.02

# rd_kafka_init_transactions() waits so long, in milliseconds, on the loop's thread, each time it is
# asked: too short for others to notice. (It can be taken up again at any moment: nothing but the
# producer id answers its first step, and the second has no timeout; 2.15.1.)
INIT_SLICE_MS = 2


class AsyncKafkaProducer(AsyncProducer, Client):
    """Writes records to Kafka from an event loop. One is enough for a loop; any number of its tasks
    can use it.

    Args:
        properties: as `KafkaProducer`'s. `enable.manual.events.poll` has no meaning here and is
            refused.
        keywords: the same with underscores for dots: `linger_ms=5`. They go before `properties`.

    Raises:
        RuntimeError: made outside of a running event loop.
        InvalidConfigError: a property is unknown, misspelt, out of range or contradicts another; it
            is named.
        TypeError: a property's value is of the wrong type.

    It belongs to the event loop it was made in, and everything happens on that loop's thread: the
    callbacks in the properties (which may be coroutine functions here), interceptors, and futures
    getting their results. What a callback raises goes to the loop's exception handler.

    `async with` closes it, and so delivers everything, also when the block raises. One that is only
    dropped still delivers what it was given, by a thread that is started for that, and warns
    (ResourceWarning). Calls of librdkafka's that can be neither sliced nor taken up again
    (`fetch_broker_metadata`, `commit_transaction`, `abort_transaction`,
    `send_offsets_to_transaction`, the end of a closed producer) run in a thread that lives as long
    as the call. So are timeouts counted: no clock of the loop's has a say in them.
    """

    _unpicklable = (
        "an AsyncKafkaProducer cannot be pickled: it is connections and a loop. Make one in each"
        " process, from its properties"
    )

    def __init__(self, properties: Mapping[str, Any] | None = None, /, **keywords: Any) -> None:
        self._properties = Properties(properties, **keywords)
        try:
            loop = asyncio.get_running_loop()
        except RuntimeError:
            raise RuntimeError(
                "an AsyncKafkaProducer is made inside a running event loop: in a coroutine, not"
                " before it"
            ) from None
        if MANUAL_POLL in self._properties:
            raise invalid(
                MANUAL_POLL,
                f"property {MANUAL_POLL!r} cannot be set: an AsyncKafkaProducer's events are served"
                " by its loop",
            )
        settings = resolve(self._properties, coroutines=True)
        self._loop_ = loop
        self._closer: asyncio.Task[None] | None = None
        self._closes: asyncio.Future[None] = loop.create_future()  # done once a close has begun
        callbacks: dict[str, Callable[..., Any]] = dict(
            settings.callbacks
        )  # the handle asks librdkafka for what these need
        self._one_closes = _rdkafka.Monitor()  # where its loop is closed
        handle = ProducerClient(settings.librdkafka, callbacks, True, OWN_NAMES)
        for name, callback in settings.callbacks.items():
            callbacks[name] = _OnLoop(loop, handle, name, callback)
        try:
            _lifecycle.start(handle)
            self._server = _Server(handle, loop)
        except BaseException:  # no descriptors left, a loop that cannot watch any
            _lifecycle.close(handle, 0.0)
            raise
        self._open(
            handle, settings.partitioner, settings.interceptors or None, loop, settings.serializers
        )

    # ------------------------------------------------------------------ sending

    async def send_and_wait(
        self,
        record: ProducerRecord,
        *misplaced: NoReturn,
        option: SendOption = SendOption.NO_COPY_RECORD_VALUE,
    ) -> RecordMetadata:
        """Send a record and wait for its report; what became of it.

        Raises:
            KafkaException: it was not delivered, and `error` says why. Besides, whatever `send`
                raises.

        Cancelled once the record is enqueued, it takes nothing back: the record stays on its way,
        and may be delivered.
        """
        if misplaced or not isinstance(record, ProducerRecord):
            raise _rdkafka.no_record("send_and_wait", record, misplaced)
        return await (await self.send(record, option=option))

    async def send_batch(
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
    ) -> BatchDelivery:
        """Send a column of values: `batch = await producer.send_batch(…)` is over when all is
        enqueued, `await batch` when all is reported.

        Arguments as `KafkaProducer.send_batch`, which says what `values` can be. While the queue is
        full the task is suspended, in its turn among all who send; every few thousand messages it
        lets others have theirs. `on_delivery(batch)` is called on the loop's thread; it may be a
        coroutine function.

        Returns:
            BatchDelivery: what becomes of it. Each message is either enqueued or in its `errors()`
                by index.

        Raises: what `KafkaProducer.send_batch` raises. Cancelled, what is not enqueued yet fails
        with INTR, and `batch` of the CancelledError is what was sent.
        """
        self._usable()
        return await _rdkafka.loop_send_batch(
            self,
            topic,
            values,
            keys,
            partitions,
            timestamps,
            headers,
            ids,
            self._awaiting(on_delivery),
            option,
        )

    async def send_table(
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
    ) -> BatchDelivery:
        """Send the rows of a table, each a message. Arguments as `KafkaProducer.send_table`; all
        else as `send_batch`.

        A stream is read chunk by chunk, on the loop's thread: what makes the chunks should have
        them ready.
        """
        self._usable()
        return await _rdkafka.loop_send_table(
            self,
            table,
            topic,
            value,
            key,
            partition,
            timestamp,
            headers,
            self._awaiting(on_delivery),
            option,
        )

    def _awaiting(
        self, on_delivery: Callable[[BatchDelivery], object] | None
    ) -> Callable[[BatchDelivery], object] | None:
        """A batch's callback; a coroutine function becomes a task when it is called."""
        try:
            if on_delivery is not None and _rdkafka.check_callback(
                on_delivery, "on_delivery", coroutines=True
            ):
                return _OnLoop(self._loop_, self.handle, "on_delivery", on_delivery)
        except BaseException as exc:
            self._not_sent(None, exc)
            raise
        return on_delivery

    # ------------------------------------------------------------------ waiting, giving up, ending

    async def flush(self, timeout: float | None = None) -> None:
        """Send all that waits, without regard to `linger.ms`, and wait until every record and batch
        has been reported.

        What other tasks send meanwhile is waited for as well. Futures have their results when it
        returns; what waits for them runs in the loop's next turn.

        Raises:
            KafkaTimeoutError: records are still outstanding after `timeout` seconds; they stay
                enqueued.
            ProducerClosedError: the producer is closed, or being closed.
        """
        self._usable()
        deadline = _rdkafka.deadline(timeout)
        with _rdkafka.LoopAlarm(self._loop_, _rdkafka.seconds_until(deadline)) as over:
            over.add_done_callback(lambda _: self._server.waiters.wake())
            delivered = await self._server.drained(deadline)
        if not delivered:
            outstanding = self.handle.outstanding
            text = (
                f"{outstanding} records are still outstanding after {timeout} s{self.handle.cause}"
            )
            raise KafkaTimeoutError(KafkaError(ErrorCode["TIMED_OUT"], text))

    def purge(self, *, in_queue: bool = True, in_flight: bool = True) -> None:
        """Fail records at once: those waiting here (PURGE_QUEUE), those sent but not answered
        (PURGE_INFLIGHT; they may be persisted).

        Their futures get the exception soon; this does not wait for it. Source: rd_kafka_purge().
        """
        self._usable()
        self.handle.purge(bool(in_queue), bool(in_flight))

    async def aclose(self, timeout: float | None = None) -> None:
        """Take no new records, wait up to `timeout` seconds for every report, purge what is left,
        and free everything.

        When it returns every future has its result and every buffer has been released. Sends that
        wait for room raise ProducerClosedError. Idempotent; several tasks can wait for it, and the
        shortest `timeout` holds. Cancelled, the closing goes on by itself. Once its event loop is
        closed, it can be closed in any other: `asyncio.run(producer.aclose())`.

        Raises:
            ProducerForkedError: made before a fork.
            RuntimeError: awaited in another event loop than the producer's, which is not closed.
        """
        handle = self._handle_or_none()
        if handle is None or handle.closed:
            return
        if handle.forked:
            handle.check_usable()
        _rdkafka.deadline(timeout)  # refuses nonsense
        if self._loop_.is_closed():
            self._server.stop()
            closed_there = _rdkafka.LoopOutcome(asyncio.get_running_loop())
            try:
                _rdkafka.Thread(
                    "kafka_ext call", _call, (closed_there, lambda: self._close_here(timeout))
                ).start()
            except Exception:  # noqa: BLE001 - no more threads, or no more memory: then here
                self._close_here(timeout)
                return
            await closed_there.future
            return
        self._check_loop()
        if self._closer is None or self._closer.cancelled():
            self._closer = self._loop_.create_task(self._close())
        closed = _rdkafka.Event()
        if timeout is not None:
            try:
                # Not by the loop's clock, which tests like to stop. The thread ends with the call.
                _rdkafka.Thread(
                    "kafka_ext call", self._server.purge_after, (closed, timeout)
                ).start()
            except Exception:  # noqa: BLE001 - no more threads, or no more memory
                self._loop_.call_later(timeout, self._server.purge_after, closed, 0.0)
        try:
            await asyncio.shield(self._closer)
        finally:
            closed.set()

    async def close(self, timeout: float | None = None) -> None:
        """The same as `aclose`."""
        await self.aclose(timeout)

    def _close_here(self, timeout: float | None) -> None:
        """On any thread: nobody's loop serves any more."""
        with self._one_closes:
            if not self.handle.closed:
                _lifecycle.close(self.handle, timeout)

    async def _close(self) -> None:
        handle = self.handle
        handle.begin_close()
        if not self._closes.done():
            self._closes.set_result(None)
        self._server.waiters.wake()
        await self._server.drained(-1)
        self._server.stop()
        # librdkafka joins its threads here, which may take as long as a connection attempt does.
        destroyed = _rdkafka.LoopOutcome(self._loop_)
        try:
            # Not threading's: when its start() raises, the thread may run nevertheless.
            _rdkafka.Thread("kafka_ext call", _call, (destroyed, handle.destroy)).start()
        except Exception:  # noqa: BLE001 - no more threads, or no more memory: then here, while the loop waits
            handle.destroy()
            return
        await destroyed.future

    async def __aenter__(self) -> Self:
        self._usable()
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        exc: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        if exc is not None and self.handle.forked:
            # a child leaving by the block it was forked in (sys.exit, say): that is what its parent
            # shall see
            return
        await self.aclose()

    def __del__(self) -> None:
        handle = self._handle_or_none()
        if handle is None or handle.forked or handle.closed:
            return
        try:
            message = f"{self!r} was not closed; what it was given is still being delivered"
            warnings.warn(message, ResourceWarning, stacklevel=2, source=self)
        finally:
            # Also where warnings are errors. The loop may never run again, so from here on it is a
            # thread that serves.
            _lifecycle.abandon(handle)
            self._server.stop()

    # ------------------------------------------------------------------ transactions

    async def init_transactions(self, timeout: float | None = None) -> None:
        """Get ready for transactions: once, before the first. Fences older producers of the same
        `transactional.id`.

        Raises:
            KafkaTimeoutError: not done within `timeout` seconds; call it again to go on.
            KafkaException: there is no `transactional.id`, or the coordinator refuses.

        Source: rd_kafka_init_transactions().
        """
        deadline = _rdkafka.deadline(timeout)
        pause = 0.002
        refused = ""
        while True:
            self._usable()
            # librdkafka goes on with it in the background: it is asked again and again, hardly
            # waiting.
            error = _rdkafka.init_transactions_slice(self.handle, INIT_SLICE_MS)
            if error is None:
                return
            # What it says of a coordinator that is not there yet is what it would say at the end of
            # a longer timeout.
            timed_out = error.code == ErrorCode["TIMED_OUT"]
            if not error.is_retriable or error.is_fatal or _rdkafka.seconds_until(deadline) == 0.0:
                if timed_out and refused:
                    error = KafkaError(error.code, error.message + refused, is_retriable=True)
                raise _rdkafka.exception_for(error)
            if not timed_out:
                refused = _rdkafka.last_refusal(error)
            await _rdkafka.loop_sleep(self._loop_, pause)
            pause = min(pause * 2, 0.05)

    async def begin_transaction(self) -> None:
        """Begin a transaction: what is sent from here on, by any task, belongs to it.

        Waits for an abort that goes on because the task that asked for it was cancelled.

        Raises:
            KafkaException: `init_transactions` has not been called, a transaction is open, or the
                producer has been fenced.

        Source: rd_kafka_begin_transaction().
        """
        self._usable()
        if _rdkafka.abort_under_way(self.handle):
            await self._end_transaction(False, _rdkafka.deadline(None))
            self._usable()
        _rdkafka.begin_transaction(self.handle)

    async def commit_transaction(self, timeout: float | None = None) -> None:
        """Wait for every record's report and commit. Cancelled, librdkafka goes on with it: call it
        again to see the end.

        Raises:
            KafkaTimeoutError: not done within `timeout` seconds; call it again to go on.
            KafkaException: `error.transaction_requires_abort`: abort and begin anew;
                `error.is_fatal`: close the producer; CONFLICT: an `abort_transaction` that ran out
                of time is under way; call that again.

        Source: rd_kafka_commit_transaction().
        """
        self._usable()
        await self._end_transaction(True, _rdkafka.deadline(timeout))

    async def abort_transaction(self, timeout: float | None = None) -> None:
        """Drop the transaction; its records that are still here fail with PURGE_QUEUE. Cancelled,
        librdkafka goes on with it.

        Raises as `commit_transaction`; CONFLICT where it is a commit that is under way. Source:
        rd_kafka_abort_transaction().
        """
        self._usable()
        await self._end_transaction(False, _rdkafka.deadline(timeout))

    async def _end_transaction(self, commits: bool, deadline: int) -> None:
        outcome = _rdkafka.LoopOutcome(self._loop_)
        ending = _rdkafka.start_ending(self.handle, commits, outcome)
        try:
            if ending.outcome is None:
                await self._wait(outcome.future, deadline)
        finally:
            ending.leave(outcome)
        ending.take()

    async def send_offsets_to_transaction(
        self, offsets: Any, group_metadata: Any, timeout: float | None = None
    ) -> None:
        """Commit a consumer's offsets with the transaction. Arguments as
        `KafkaProducer.send_offsets_to_transaction`.

        Raises as `commit_transaction`. Source: rd_kafka_send_offsets_to_transaction().
        """
        self._usable()
        group = group_of(group_metadata)
        rows = offset_rows(offsets)
        deadline = _rdkafka.deadline(timeout)
        while _rdkafka.offsets_on_their_way(self.handle):  # those of a task that was cancelled
            if _rdkafka.seconds_until(deadline) == 0.0:
                raise _rdkafka.offsets_under_way()
            await _rdkafka.loop_sleep(self._loop_, 0.05)
        self._usable()
        outcome = _rdkafka.LoopOutcome(self._loop_)
        _rdkafka.start_send_offsets(self.handle, outcome, rows, group, deadline)
        await self._wait(outcome.future)
        outcome.future.result()

    async def _wait(self, future: asyncio.Future[Any], deadline: int = -1) -> None:
        """Wait for a future, until `deadline`, but no longer than the producer is open."""
        with _rdkafka.LoopAlarm(self._loop_, _rdkafka.seconds_until(deadline)) as over:
            await asyncio.wait({future, self._closes, over}, return_when=asyncio.FIRST_COMPLETED)
        if not future.done():
            self._usable()

    @asynccontextmanager
    async def transaction(self, timeout: float | None = None) -> AsyncIterator[AsyncKafkaProducer]:
        """`async with producer.transaction():` begins, and commits at the end of the block, or
        aborts when the block or the commit raises.

        A commit that only timed out, or was cancelled, is not aborted: call `commit_transaction`
        again to go on with it.

        Args:
            timeout (float | None): seconds for the commit, and as many again for an abort; None for
                no limit.

        Raises: what the block raised, after the abort; else as `begin_transaction` and
            `commit_transaction`.
        """
        await self.begin_transaction()
        try:
            yield self
        except BaseException as exc:
            await self._abort_after(exc, timeout)
            raise
        try:
            await self.commit_transaction(timeout)
        except KafkaException as exc:
            if exc.error.transaction_requires_abort:
                await self._abort_after(exc, timeout)
            raise

    async def _abort_after(self, exc: BaseException, timeout: float | None) -> None:
        """Abort; when that fails as well, the block's own exception is the one to see, with this
        one in its context.
        """
        try:
            await self.abort_transaction(timeout)
        except KafkaException as failure:
            if exc.__context__ is None:
                exc.__context__ = failure

    # ------------------------------------------------------------------ what is known

    async def fetch_broker_metadata(
        self, topic: str | None = None, timeout: float | None = 10.0
    ) -> BrokerMetadata:
        """Ask a broker for the cluster's brokers and for one topic's partitions, or all topics'
        with None.

        Raises:
            KafkaTimeoutError: no broker answered within `timeout` seconds.
            KafkaException: the topic does not exist, or may not be seen.

        Source: rd_kafka_metadata().
        """
        self._usable()
        if topic is not None and not isinstance(topic, str):
            raise TypeError(f"topic must be a str or None, not {type(topic).__name__}")
        try:
            outcome = _rdkafka.LoopOutcome(self._loop_)
            told = _rdkafka.start_fetch_metadata(self.handle, outcome, topic, timeout)
            try:
                await self._wait(outcome.future)
            finally:
                told.given_up = True
            found = outcome.future.result()
        except KafkaException as exc:
            raise metadata_failure(exc, timeout, self.handle) from exc
        return checked_metadata(found, topic)

    def _usable(self) -> None:
        self.handle.check_usable()
        self._check_loop()


class _Server:
    """What the loop calls when librdkafka has something to say, and those who wait for what comes
    of it. Does not keep the producer.
    """

    def __init__(self, handle: ProducerClient, loop: asyncio.AbstractEventLoop) -> None:
        self._handle = handle
        self._loop = loop
        self._reads, self._writes = os.pipe()
        os.set_blocking(self._reads, False)
        os.set_blocking(self._writes, False)
        self._open = True
        linger = float(handle.get_property("queue.buffering.max.ms") or 0) / 1000
        self._nudge = linger > LINGER_WORTH_A_NUDGE
        try:
            loop.add_reader(self._reads, self._serve)
        except BaseException:
            self._close_pipe()
            raise
        self.waiters = _rdkafka.attach_loop(handle, loop, self._writes)
        os.write(
            self._writes, b"1"
        )  # what waits already will wake nobody: librdkafka writes when the queue stops being empty

    def _serve(self) -> None:
        handle = self._handle
        if not self._open or handle.forked:
            return
        try:
            os.read(self._reads, 4096)
        except BlockingIOError:
            pass
        more = _rdkafka.serve_on_loop(handle)
        if more:
            os.write(self._writes, b"1")  # in the loop's next turn; others have theirs first
        self.waiters.wake()
        for exc in handle.take_raised():
            if isinstance(exc, (SystemExit, KeyboardInterrupt)):
                raise exc
            self._loop.call_exception_handler(
                {"message": "a callback of an AsyncKafkaProducer raised", "exception": exc}
            )

    def purge_after(self, closed: _rdkafka.Event, seconds: float) -> None:
        """In a thread of its own: unless it is `closed` by then, what has no report fails."""
        if closed.wait(seconds):
            return
        self._handle.out_of_time = True
        try:
            self._loop.call_soon_threadsafe(self.waiters.wake)
        except RuntimeError:
            pass  # the loop is closed, and who closes the producer anew has a time of his own

    async def drained(self, deadline: int) -> bool:
        """Until everything has been reported (True), or `deadline` is over. When a close is out of time,
        what is left is purged.
        """
        handle = self._handle
        closing = handle.closing
        while not handle.all_reported:
            if handle.closing and not closing:
                # close() has begun elsewhere: that sees to the reports, within its own time
                handle.check_usable()
            if closing and handle.out_of_time:
                handle.purge_rest()
            left = _rdkafka.seconds_until(deadline)
            if left == 0.0:
                return False
            if self._nudge:
                handle.drain_now()
            waiter = self.waiters.served()
            # In any case once in a while: purging may have to be repeated, and a nudge come too
            # early.
            slice_ = LINGER_WORTH_A_NUDGE if self._nudge else 0.25
            await asyncio.wait({waiter}, timeout=slice_ if left is None else min(left, slice_))
            waiter.cancel()
        return True

    def stop(self) -> None:
        """Let go of the loop and of the pipe. Called on any thread, for a producer is collected on
        any.
        """
        if not self._open:
            return
        self._open = False
        _rdkafka.detach_loop(self._handle)
        try:
            if threading.get_ident() == self._handle.loop_thread_id:
                self._let_go()
            else:
                self._loop.call_soon_threadsafe(self._let_go)
        except RuntimeError:  # closed, and has forgotten its descriptors
            self._close_pipe()

    def _let_go(self) -> None:
        if not self._loop.is_closed():
            self._loop.remove_reader(self._reads)
        self._close_pipe()

    def _close_pipe(self) -> None:
        os.close(self._reads)
        os.close(self._writes)


class _OnLoop:
    """A callback in the properties, or a batch's, called on the loop's thread; a coroutine function
    becomes a task.
    """

    _tasks: ClassVar[set[asyncio.Task[None]]] = set()

    def __init__(
        self,
        loop: asyncio.AbstractEventLoop,
        handle: ProducerClient,
        name: str,
        callback: Callable[..., Any],
    ) -> None:
        self._loop = loop
        self._handle = handle
        self._name = name
        self._callback = callback

    def __call__(self, *arguments: Any) -> Any:
        if (
            threading.get_ident() != self._handle.loop_thread_id
        ):  # the producer was dropped, or is at its end
            try:
                self._loop.call_soon_threadsafe(self, *arguments)
            except RuntimeError:
                pass  # the loop is closed
            return None
        result = self._callback(*arguments)
        if not inspect.isawaitable(result):
            return result
        task = self._loop.create_task(self._finish(result))
        self._tasks.add(task)  # the loop itself keeps none
        task.add_done_callback(self._tasks.discard)
        return None

    async def _finish(self, result: Awaitable[Any]) -> None:
        try:
            outcome = await result
            if self._name == "oauthbearer_token_refresh_cb" and not self._handle.closed:
                _rdkafka.set_token(self._handle, outcome)
        except Exception as exc:  # noqa: BLE001 - whatever a user's coroutine raises
            if self._name == "oauthbearer_token_refresh_cb" and not self._handle.closed:
                _rdkafka.refuse_token(self._handle, exc)
            message = f"{self._name} of an AsyncKafkaProducer raised"
            self._loop.call_exception_handler({"message": message, "exception": exc})


def _call(tell: Callable[[tuple[bool, Any]], object], function: Callable[[], object]) -> None:
    try:
        outcome: tuple[bool, Any] = (False, function())
    except BaseException as exc:  # noqa: BLE001 - it is raised where the result is awaited
        outcome = (True, exc)
    tell(outcome)
