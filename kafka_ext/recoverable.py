"""RecoverableProducer: goes on after a fatal error, with a new producer in the place of the one
that can do nothing more.
"""

from __future__ import annotations

import atexit
import itertools
import logging
import sys
import time
import warnings
import weakref
from collections.abc import Callable, Mapping
from concurrent.futures import Future
from types import SimpleNamespace, TracebackType
from typing import TYPE_CHECKING, Any, Literal

from . import _lifecycle, _rdkafka
from ._annotations import Self
from ._futures import DeliveryFuture
from ._rdkafka import (
    ActionWhileQueueIsFull,
    BatchDelivery,
    ErrorCode,
    KafkaError,
    KafkaException,
    KafkaTimeoutError,
    ProducerClosedError,
    ProducerForkedError,
    ProducerRecord,
    QueueFullError,
    RecordMetadata,
    SendOption,
)
from .metadata import BrokerMetadata
from .metrics import ProducerMetrics, added
from .producer import DeliveryCallback, KafkaProducer
from .properties import MANUAL_POLL, SERIALIZERS, Properties, invalid, resolve

if TYPE_CHECKING:
    from ._rdkafka import _Content
    from .serialization import Serialize

_log = logging.getLogger("kafka_ext")

# Waits are cut into slices: signals get through, and whoever closes is noticed.
_SLICE = 0.1
# Between a recovery and the next one that comes at once, doubled each time.
_FIRST_PAUSE, _LONGEST_PAUSE = 0.1, 5.0

_PURGED = (ErrorCode["PURGE_QUEUE"], ErrorCode["PURGE_INFLIGHT"])


class _Sent:
    """A record until its outcome: the delivery callback that the producer of the day has for it."""

    __slots__ = (
        "__weakref__",
        "error",
        "metadata",
        "number",
        "on_delivery",
        "owner",
        "pin",
        "record",
        "until",
    )

    def __init__(
        self,
        owner: RecoverableProducer,
        record: ProducerRecord,
        on_delivery: DeliveryCallback | None,
        number: int,
        until: float,
    ) -> None:
        self.owner = owner
        self.record = record
        self.on_delivery = on_delivery
        self.number = number
        self.until = until
        self.pin: memoryview | None = None
        self.metadata: RecordMetadata | None = None
        self.error: KafkaError | None = None

    def __call__(self, metadata: RecordMetadata, error: KafkaError | None) -> None:
        self.owner._reported(self, metadata, error)

    def keep(self, metadata: RecordMetadata, error: KafkaError) -> None:
        """Get ready to be sent again, to the same partition. The value stays pinned meanwhile."""
        self.metadata, self.error = metadata, error
        if metadata.partition is not None:
            self.record.partition = metadata.partition
        value: Any = self.record.value
        if self.pin is None and value is not None and not isinstance(value, (bytes, str)):
            try:
                self.pin = memoryview(value)
            except TypeError:
                pass  # a tensor: nobody can resize its memory


class RecoverableProducer:
    """A KafkaProducer that goes on after a fatal error: another takes its place, and what was not
    answered is sent again or reported.

    A fatal error means that idempotence could not be kept up: the broker has lost the producer's
    state, or a sequence of records has a hole. The producer that meets it can do nothing more
    (rd_kafka_fatal_error). This one closes it, makes a new one from the same properties, and lets
    calls that came meanwhile wait.

    Args:
        properties: as KafkaProducer. `transactional.id` and `enable.manual.events.poll` are
            refused.
        on_fatal: what becomes of the records that the broken producer had no answer for. "resend":
            they are sent again, in the order of their `send`, before anything newer, each to the
            partition it was for and with the time of its `send`; their callbacks come with the
            final outcome. "report": their callbacks get the fatal error (or PURGE_QUEUE,
            PURGE_INFLIGHT), and `persisted_status` says what is known.
        on_recovery: called as `on_recovery(error, resent)` after each recovery, with the fatal
            KafkaError and the number of records sent again, by a thread made for it. It may send;
            it must not wait for long.
        answer_timeout: seconds to wait for answers to what is in flight when a fatal error comes.
            What has none by then is taken as unanswered: more time makes fewer duplicates.
        keywords: as KafkaProducer.

    Raises: as KafkaProducer; ValueError for another `on_fatal`.

    **A re-send can make duplicates.** A record that the broker had stored and whose acknowledgement
    was lost is stored a second time, and the new producer, which has another identity, is not
    recognised. Its copies may stand behind records that were sent after it. With "report" you
    decide yourself, by `persisted_status`. What a record was refused for besides (too large, no
    rights, its `message.timeout.ms`) is reported in both ways. A record is sent again for as long
    as `message.timeout.ms` after its `send`.

    Every send that returned calls back exactly once. Callbacks run in the events thread of the
    producer of the day, one after the other. During a recovery `send` waits as if the queue were
    full; what may not wait gets QUEUE_FULL. Interceptors see each attempt, serializers only the
    first. Thread-safe. Close it, or use it as a context manager.
    """

    def __init__(
        self,
        properties: Mapping[str, Any] | None = None,
        /,
        *,
        on_fatal: Literal["resend", "report"] = "resend",
        on_recovery: Callable[[KafkaError, int], object] | None = None,
        answer_timeout: float = 5.0,
        **keywords: Any,
    ) -> None:
        if on_fatal not in ("resend", "report"):
            raise ValueError(f"on_fatal must be 'resend' or 'report', not {on_fatal!r}")
        if on_recovery is not None and not callable(on_recovery):
            raise TypeError(
                f"on_recovery must be callable or None, not {type(on_recovery).__name__}"
            )
        if on_recovery is not None:
            _rdkafka.check_callback(on_recovery, "on_recovery")
        _rdkafka.deadline(answer_timeout)  # raises for nonsense
        self._properties = Properties(properties, **keywords)
        settings = resolve(self._properties)
        if settings.manual:
            raise invalid(
                MANUAL_POLL,
                f"property {MANUAL_POLL!r} cannot be set: a recovery needs the events served while"
                " it waits for them",
            )
        if "transactional.id" in settings.librdkafka:
            raise invalid(
                "transactional.id",
                "property 'transactional.id' cannot be set: a transaction cannot be sent again by"
                " somebody else. Close the producer, make another, init_transactions(), and do the"
                " transaction again",
            )
        self._settings = self._properties.copy()
        self._serializers = settings.serializers
        for name in SERIALIZERS:  # a record is serialized once, however often it is sent
            self._settings.pop(name, None)
        self._settings["error_cb"] = _weakly(self, self._properties.get("error_cb"))
        self._resends = on_fatal == "resend"
        self._on_recovery = on_recovery
        self._answer_timeout = answer_timeout
        self._changed = _rdkafka.Monitor()  # guards what follows, and tells of its changes
        self._newest = KafkaProducer(self._settings)  # the one whose reports come
        self._open_to_all: KafkaProducer | None = (
            self._newest
        )  # the same, or None: a recovery is going on
        self._recovery: _rdkafka.Thread | None = None
        self._fatal: KafkaError | None = None
        self._unanswered: list[_Sent] = []  # to be sent again
        self._outstanding = (
            0  # accepted, and its callback not returned from; counted with "resend" only
        )
        self._purging = False
        self._closing = False
        self._hurry = False  # a close elsewhere has run out of time
        self._giving_up = False  # nothing is sent again any more
        self._closed = False
        self._one_closes = _rdkafka.Monitor()
        self._numbers = itertools.count()
        self._recoveries = 0
        self._past = ProducerMetrics()  # of the producers that were replaced
        timeout_ms = int(self._newest.get_property("message.timeout.ms") or 0)
        self._lifetime = timeout_ms / 1000 if timeout_ms else float("inf")
        _all.add(self)

    # ------------------------------------------------------------------ sending

    def send(
        self,
        record: ProducerRecord,
        on_delivery: DeliveryCallback | None = None,
        *,
        option: SendOption = SendOption.NO_COPY_RECORD_VALUE,
        action: ActionWhileQueueIsFull = ActionWhileQueueIsFull.BLOCK,
        timeout: float | None = None,
    ) -> None:
        """As `KafkaProducer.send`. With "resend" the value stays pinned until the final outcome;
        TO_COPY_RECORD_VALUE copies it here.
        """
        if not isinstance(record, ProducerRecord):
            raise _rdkafka.no_record("send", record)
        if not isinstance(option, SendOption):
            raise TypeError(f"option must be a SendOption, not {option!r}")
        if on_delivery is not None and not callable(on_delivery):
            raise TypeError(
                f"on_delivery must be callable or None, not {type(on_delivery).__name__}"
            )
        if on_delivery is not None:
            _rdkafka.check_callback(on_delivery, "on_delivery")
        until = _rdkafka.deadline(timeout)
        callback = on_delivery
        if self._serializers is not None:
            record = _serialized(record, *self._serializers)
        if self._resends:
            record = _frozen(record, option is SendOption.TO_COPY_RECORD_VALUE)
            option = SendOption.NO_COPY_RECORD_VALUE
            callback = _Sent(
                self, record, on_delivery, next(self._numbers), time.monotonic() + self._lifetime
            )
            self._count(1)
        accepted = False
        try:
            while not accepted:
                producer = self._ready(until, action is ActionWhileQueueIsFull.BLOCK)
                try:
                    producer.send(
                        record,
                        callback,
                        option=option,
                        action=action,
                        timeout=_rdkafka.seconds_until(until),
                    )
                    accepted = True
                except ProducerForkedError:
                    raise
                except KafkaException as exc:
                    self._raise_unless_recovering(producer, exc)
        finally:
            if not accepted and self._resends:
                self._count(-1)

    def try_send(
        self,
        record: ProducerRecord,
        on_delivery: DeliveryCallback | None = None,
        *,
        option: SendOption = SendOption.NO_COPY_RECORD_VALUE,
    ) -> KafkaError | None:
        """As `KafkaProducer.try_send`. During a recovery it returns QUEUE_FULL."""
        if not isinstance(record, ProducerRecord):
            raise _rdkafka.no_record("try_send", record)
        try:
            self.send(record, on_delivery, option=option, action=ActionWhileQueueIsFull.NO_BLOCK)
        except ProducerForkedError:
            raise
        except KafkaException as exc:
            return exc.error
        return None

    def send_future(
        self,
        record: ProducerRecord,
        *,
        option: SendOption = SendOption.NO_COPY_RECORD_VALUE,
        action: ActionWhileQueueIsFull = ActionWhileQueueIsFull.BLOCK,
        timeout: float | None = None,
    ) -> Future[RecordMetadata]:
        """As `KafkaProducer.send_future`; the future has the final outcome."""
        if not isinstance(record, ProducerRecord):
            raise _rdkafka.no_record("send_future", record)
        future = DeliveryFuture(self._check_may_wait)

        def on_delivery(metadata: RecordMetadata, error: KafkaError | None) -> None:
            if error is None:
                future.set_result(metadata)
            else:
                future.set_exception(_rdkafka.exception_for(error))

        self.send(record, on_delivery, option=option, action=action, timeout=timeout)
        return future

    def sync_send(self, record: ProducerRecord, timeout: float | None = None) -> RecordMetadata:
        """As `KafkaProducer.sync_send`: the final outcome, recoveries included."""
        if not isinstance(record, ProducerRecord):
            raise _rdkafka.no_record("sync_send", record)
        self._check_may_wait("sync_send")
        until = _rdkafka.deadline(timeout)
        reports: list[tuple[RecordMetadata, KafkaError | None]] = []
        reported = _rdkafka.Event()

        def on_delivery(metadata: RecordMetadata, error: KafkaError | None) -> None:
            reports.append((metadata, error))
            reported.set()

        # Told once the callback is gone, and with it what it kept pinned: the value is the caller's
        # again when this returns.
        released = _rdkafka.Event()
        gone = weakref.ref(on_delivery, released.set)
        self.send(record, on_delivery, timeout=timeout)
        del on_delivery
        if not reported.wait(_rdkafka.seconds_until(until)):
            text = (
                f"no report within {timeout} s; the record stays enqueued and may still be"
                f" delivered{self._newest.handle.cause}"
            )
            raise KafkaTimeoutError(KafkaError(ErrorCode["TIMED_OUT"], text))
        metadata, error = reports[0]
        released.wait(1.0)  # in vain where an interceptor keeps the callback
        del gone
        if error is not None:
            raise _rdkafka.exception_for(error)
        return metadata

    def send_batch(
        self, topic: str, values: Any, *, timeout: float | None = None, **arguments: Any
    ) -> BatchDelivery:
        """As `KafkaProducer.send_batch`, with "report" only: `errors()` has what a fatal error has
        failed.

        Raises:
            KafkaException: with "resend", for a batch keeps no record that could be sent again:
                `send` them, or wait for the batch, and send again what its `errors()` name.
        """
        return self._batch(KafkaProducer.send_batch, topic, values, timeout=timeout, **arguments)

    def send_table(
        self, table: Any, *, timeout: float | None = None, **arguments: Any
    ) -> BatchDelivery:
        """As `KafkaProducer.send_table`, with "report" only; see `send_batch`."""
        return self._batch(KafkaProducer.send_table, table, timeout=timeout, **arguments)

    def _batch(
        self,
        send: Callable[..., BatchDelivery],
        *values: Any,
        timeout: float | None,
        **arguments: Any,
    ) -> BatchDelivery:
        if self._serializers is not None:
            text = (
                "value_serializer and key_serializer see records one by one, and a batch has none:"
                " send() records"
            )
            raise KafkaException(KafkaError(ErrorCode["NOT_IMPLEMENTED"], text))
        if self._resends:
            raise KafkaException(
                KafkaError(
                    ErrorCode["NOT_IMPLEMENTED"],
                    "on_fatal='resend' sends records one by one, and a batch keeps none: send()"
                    " them, or use on_fatal='report'",
                )
            )
        until = _rdkafka.deadline(timeout)
        may_wait = (
            arguments.get("action", ActionWhileQueueIsFull.BLOCK) is ActionWhileQueueIsFull.BLOCK
        )
        while True:
            producer = self._ready(until, may_wait)
            try:
                return send(producer, *values, timeout=_rdkafka.seconds_until(until), **arguments)
            except ProducerClosedError as exc:
                self._raise_unless_recovering(producer, exc)

    # ------------------------------------------------------------------ which producer

    def _ready(self, until: int, may_wait: bool) -> KafkaProducer:
        """The producer that takes records now, waiting for the end of a recovery where that is
        allowed.
        """
        producer = self._open_to_all
        if producer is not None and not self._closing:
            return producer
        self._check_forked()
        may_wait = may_wait and not _rdkafka.in_callback()
        with self._changed:
            while True:
                if self._closing:
                    raise ProducerClosedError(
                        KafkaError(ErrorCode["STATE"], "the producer is closed")
                    )
                if self._open_to_all is not None:
                    return self._open_to_all
                if not may_wait:
                    text = (
                        f"the producer is being replaced after a fatal error ({self._fatal}); try"
                        " again"
                    )
                    raise QueueFullError(KafkaError(ErrorCode["QUEUE_FULL"], text))
                left = _rdkafka.seconds_until(until)
                if left == 0.0:
                    text = (
                        "the producer was not replaced in time after a fatal error"
                        f" ({self._fatal}); the record was not enqueued"
                    )
                    raise KafkaTimeoutError(KafkaError(ErrorCode["TIMED_OUT"], text))
                self._changed.wait(_SLICE if left is None else min(left, _SLICE))

    def _raise_unless_recovering(self, producer: KafkaProducer, exc: KafkaException) -> None:
        """A call that failed because its producer has ended is tried again with the next one; all
        else is the caller's.
        """
        if exc.error.is_fatal:
            self._recover(producer, exc.error)
        elif not isinstance(exc, ProducerClosedError) or self._open_to_all is producer:
            raise exc
        if self._closing or self._giving_up:
            raise exc

    def _check_forked(self) -> None:
        handle = self._newest.handle
        if handle.forked:
            handle.check_usable()  # raises; the lock may be one that nobody here lets go

    def _check_may_wait(self, call: str) -> None:
        self._check_forked()
        self._newest.handle.check_not_in_callback(call)

    # ------------------------------------------------------------------ reports

    def _count(self, change: int) -> None:
        with self._changed:
            self._outstanding += change
            if not self._outstanding:
                self._changed.notify_all()

    def _reported(self, sent: _Sent, metadata: RecordMetadata, error: KafkaError | None) -> None:
        """What the producer of the day says of a record: final, or a reason to send it again.
        Called in its events thread.
        """
        if error is not None and self._is_to_be_sent_again(sent, error):
            sent.keep(metadata, error)
            with self._changed:
                self._unanswered.append(sent)
            self._recover(self._newest, error)
            return
        self._finish(sent, metadata, error)

    def _is_to_be_sent_again(self, sent: _Sent, error: KafkaError) -> bool:
        if self._giving_up or time.monotonic() >= sent.until:
            return False
        if self._purging and error in _PURGED:
            return False
        if error.is_fatal:
            return True
        # librdkafka purges what it had not sent yet, and what was in flight is failed by its own
        # code or by the close() of a recovery.
        fatal = self._newest.handle.fatal_error()
        return fatal is not None and (error == fatal or error in _PURGED)

    def _finish(self, sent: _Sent, metadata: RecordMetadata, error: KafkaError | None) -> None:
        try:
            if sent.on_delivery is not None:
                sent.on_delivery(metadata, error)
            elif error is not None:
                _log.warning(
                    "1 record to %s not delivered, and no callback to tell: %s",
                    metadata.topic,
                    error,
                )
        finally:
            if sent.pin is not None:
                sent.pin.release()
            self._count(-1)

    def _finish_here(self, sent: _Sent, error: KafkaError | None) -> None:
        """Outside of an events thread: what the callback raises goes where it would have gone
        there.
        """
        assert sent.metadata is not None
        try:
            self._finish(sent, sent.metadata, error)
        except BaseException as exc:  # noqa: BLE001 - nobody is to lose his own report by it
            _unraisable(exc, sent.on_delivery)

    # ------------------------------------------------------------------ recovering

    def _recover(self, producer: KafkaProducer, error: KafkaError) -> None:
        """Begin a recovery, unless it has begun. Does not wait."""
        with self._changed:
            if producer is not self._newest or self._recovery is not None or self._giving_up:
                return
            self._fatal = producer.handle.fatal_error() or error
            self._open_to_all = None
            # In a thread of its own: close() would wait for itself in the events thread that has
            # brought the news.
            try:
                self._recovery = _rdkafka.new_thread("kafka_ext recovery", self._run)
                self._recovery.start()
                return
            except Exception as exc:  # noqa: BLE001 - the process may have no more threads, or no more memory
                _log.error(
                    "no recovery from %s: %s; what was not delivered is reported so",
                    self._fatal,
                    exc,
                )
                self._recovery = None
                self._giving_up = True
                self._open_to_all = producer  # which refuses all from now on, and says why
                self._changed.notify_all()
                left, self._unanswered = self._unanswered, []
        for sent in left:
            self._finish_here(sent, sent.error)
        producer.purge()  # what a fatal error has stopped waits in there else

    def _run(self) -> None:
        with self._changed:
            if self._recovery is None:
                return  # start() raised though this thread runs: it had no memory to wait for it
        fatal = self._fatal
        pause = _FIRST_PAUSE
        while (resent := self._replace()) is None:
            with self._changed:
                self._changed.wait_for(lambda: self._giving_up, pause)
            pause = min(pause * 2, _LONGEST_PAUSE)
        with self._changed:
            self._purging = False
            self._fatal = None
            self._recovery = None
            self._recoveries += 1
            self._open_to_all = self._newest
            self._changed.notify_all()
        if self._giving_up or fatal is None:
            return
        _log.warning(
            "the producer was replaced after a fatal error, and %d records were sent again: %s",
            resent,
            fatal,
        )
        again = self._newest.handle.fatal_error()
        if again is not None:
            self._recover(self._newest, again)  # it came while this recovery was going on
        if self._on_recovery is not None:
            try:
                self._on_recovery(fatal, resent)
            except BaseException as exc:  # noqa: BLE001 - there is nobody above
                _unraisable(exc, self._on_recovery)

    def _replace(self) -> int | None:
        """A new producer in place of the newest, with what is to be sent again: how many, or None
        when that did not work.
        """
        old = self._newest
        # When this returns, each of its records has been reported: called back, or in _unanswered.
        old.close(self._answer_timeout)
        with self._changed:
            again = sorted(self._unanswered, key=lambda sent: sent.number)
            self._unanswered = []
        if not self._giving_up:
            try:
                new = KafkaProducer(self._settings)
            except Exception as exc:  # noqa: BLE001 - a certificate's file that is gone, no memory, no more threads
                _log.error(
                    "no producer could be made in place of the one with a fatal error; trying"
                    " again: %s",
                    exc,
                )
                new = old
            with self._changed:
                if new is not old:
                    self._past = added(self._past, old.metrics())
                    self._newest = new
        before = self._newest.metrics().sent
        for position, sent in enumerate(again):
            if not self._send_again(sent):
                with self._changed:
                    self._unanswered += again[position:]
                return None
        if self._newest is old and not self._giving_up:
            return None
        return self._newest.metrics().sent - before

    def _send_again(self, sent: _Sent) -> bool:
        """Whether that record is seen to: sent, or finished. False: there is no producer that could
        take it.
        """
        while True:
            if self._giving_up or time.monotonic() >= sent.until:
                self._finish_here(sent, sent.error)
                return True
            if self._purging:
                self._finish_here(sent, KafkaError(ErrorCode["PURGE_QUEUE"]))
                return True
            try:
                self._newest.send(sent.record, sent, timeout=_SLICE)
                return True
            except KafkaTimeoutError:
                continue  # no room: look whether there is still reason to go on
            except ProducerClosedError:
                return False  # none could be made
            except KafkaException as exc:
                if exc.error.is_fatal:
                    return False
                self._finish_here(sent, exc.error)
            except Exception as exc:  # noqa: BLE001 - a partitioner's
                self._finish_here(
                    sent, KafkaError(ErrorCode["FAIL"], f"{type(exc).__name__}: {exc}")
                )
            return True

    # ------------------------------------------------------------------ waiting, and the end

    def flush(self, timeout: float | None = None) -> None:
        """As `KafkaProducer.flush`; records that are sent again are waited for as well."""
        self._check_may_wait("flush")
        if self._closing:
            raise ProducerClosedError(KafkaError(ErrorCode["STATE"], "the producer is closed"))
        if not self._drain(_rdkafka.deadline(timeout)):
            text = f"records are still outstanding after {timeout} s{self._newest.handle.cause}"
            raise KafkaTimeoutError(KafkaError(ErrorCode["TIMED_OUT"], text))

    def _drain(self, until: int) -> bool:
        """Wait until all is reported, recoveries included; False when time runs out."""
        while True:
            left = _rdkafka.seconds_until(until)
            pause = _SLICE if left is None else min(left, _SLICE)
            producer = self._newest
            flushed = False
            if self._recovery is None:
                try:
                    producer.flush(pause)
                    flushed = True
                except (KafkaTimeoutError, ProducerClosedError):
                    pass
            with self._changed:
                quiet = (
                    flushed
                    and self._recovery is None
                    and producer is self._newest
                    and not self._outstanding
                )
                if quiet and (self._giving_up or producer.handle.fatal_error() is None):
                    return True
                if left == 0.0 or self._hurry:
                    return False
                if flushed or self._recovery is not None:
                    self._changed.wait(pause)

    def purge(self, *, in_queue: bool = True, in_flight: bool = True) -> None:
        """As `KafkaProducer.purge`; during a recovery, what was to be sent again fails with
        PURGE_QUEUE.
        """
        self._check_forked()
        with self._changed:
            if self._recovery is not None:
                self._purging = bool(in_queue)
                return
        self._newest.purge(in_queue=in_queue, in_flight=in_flight)

    def close(self, timeout: float | None = None) -> None:
        """As `KafkaProducer.close`: waits for reports, and for recoveries that this takes; past
        `timeout` nothing is sent again.
        """
        self._check_forked()
        if self._closed:
            return
        self._check_may_wait("close")
        until = _rdkafka.deadline(timeout)
        caller = _lifecycle.begin_closing(self._newest.handle)
        try:
            while not self._one_closes.acquire(timeout=_SLICE):
                if _rdkafka.seconds_until(until) == 0.0:
                    self._hurry = True  # the thread that closes may have more time than this one
            try:
                if not self._closed:
                    self._end(until)
            finally:
                self._one_closes.release()
        finally:
            if caller is not None:
                _lifecycle.end_closing(caller)

    def _end(self, until: int) -> None:
        with self._changed:
            self._closing = True
            self._changed.notify_all()
        self._drain(until)
        with self._changed:
            self._giving_up = True
            self._changed.notify_all()
            recovery = self._recovery
        if recovery is not None:
            self._newest.handle.hurry = True
            recovery.join()
        self._newest.close(_rdkafka.seconds_until(until) if not self._hurry else 0.0)
        for (
            sent
        ) in self._unanswered:  # by a fatal error that came after nothing was to be sent again
            self._finish_here(sent, sent.error)
        self._unanswered = []
        self._closed = True

    def __enter__(self) -> Self:
        self._check_forked()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        exc: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        if exc is not None and self._newest.handle.forked:
            return  # a child leaving by the block it was forked in
        self.close()

    # ------------------------------------------------------------------ what is known

    @property
    def handle(self) -> _rdkafka.Handle:
        """The C side of the producer of the day. Internal, but for tests of what must happen after
        a fatal error.
        """
        return self._newest.handle

    @property
    def recoveries(self) -> int:
        """How many times the producer has been replaced."""
        return self._recoveries

    def fatal_error(self) -> KafkaError | None:
        """The fatal error that a recovery is going on for, or None."""
        self._check_forked()
        return self._fatal

    def metrics(self) -> ProducerMetrics:
        """As `KafkaProducer.metrics`, over all producers there were: a record that was sent again
        has been sent twice and failed once.
        """
        self._check_forked()
        with self._changed:
            return added(self._past, self._newest.metrics())

    def fetch_broker_metadata(
        self, topic: str | None = None, timeout: float | None = 10.0
    ) -> BrokerMetadata:
        """As `KafkaProducer.fetch_broker_metadata`; during a recovery it waits for its end."""
        until = _rdkafka.deadline(timeout)
        return self._ready(until, True).fetch_broker_metadata(topic, _rdkafka.seconds_until(until))

    @property
    def properties(self) -> Properties:
        """The properties as given, as a copy; secrets are masked in its `repr`."""
        self._check_forked()
        return self._properties.copy()

    def get_property(self, name: str) -> str | None:
        """As `KafkaProducer.get_property`."""
        if name == "error_cb" or name in SERIALIZERS:
            value = self._properties.get(name)
            return None if value is None else repr(value)
        return self._ready(_rdkafka.deadline(None), True).get_property(name)

    def __repr__(self) -> str:
        state = (
            "closed" if self._closing else "recovering" if self._recovery is not None else "open"
        )
        return f"<RecoverableProducer {self._properties.get('bootstrap.servers', '')!r} {state}>"

    def __reduce__(self) -> Any:
        raise TypeError(
            "a RecoverableProducer cannot be pickled; a KafkaSink(properties, topic) can, and"
            " replaces its producer as well"
        )


def _weakly(
    owner: RecoverableProducer, error_cb: Callable[[KafkaError], object] | None
) -> Callable[[KafkaError], None]:
    """The error callback of each producer. It must not keep the owner: the events thread keeps the
    callback.
    """
    found = weakref.ref(owner)

    def on_error(error: KafkaError) -> None:
        owner = found()
        if error.is_fatal and owner is not None:
            owner._recover(owner._newest, error)
        if error_cb is not None:
            error_cb(error)
        else:
            _log.log(logging.ERROR if error.is_fatal else logging.WARNING, "%s", error)

    return on_error


def _frozen(record: ProducerRecord, copy_value: bool) -> ProducerRecord:
    """The record as it is now, to be sent again as it was, whatever its owner does with it and with
    its key and headers.
    """
    return ProducerRecord(
        record.topic,
        _copied("value", record.value) if copy_value else record.value,
        key=_copied("key", record.key),
        partition=record.partition,
        headers=None if record.headers is None else list(_rdkafka.header_pairs(record.headers)),
        timestamp=int(time.time() * 1000) if record.timestamp is None else record.timestamp,
        id=record.id,
    )


def _serialized(
    record: ProducerRecord, of_key: Serialize | None, of_value: Serialize | None
) -> ProducerRecord:
    return ProducerRecord(
        record.topic,
        (
            record.value
            if of_value is None or record.value is None
            else of_value(record.topic, record.value)
        ),
        key=(
            record.key if of_key is None or record.key is None else of_key(record.topic, record.key)
        ),
        partition=record.partition,
        headers=record.headers,
        timestamp=record.timestamp,
        id=record.id,
    )


def _copied(what: str, content: _Content) -> _Content:
    if content is None or isinstance(content, (bytes, str)):
        return content
    return _rdkafka.content_of(content, what)


def _unraisable(exc: BaseException, where: object) -> None:
    sys.unraisablehook(
        SimpleNamespace(
            exc_type=type(exc),
            exc_value=exc,
            exc_traceback=exc.__traceback__,
            err_msg=None,
            object=where,
        )
    )


_all: weakref.WeakSet[RecoverableProducer] = weakref.WeakSet()


def _at_exit() -> None:
    """Before _lifecycle.py closes the producers one by one: a recovery that is going on still sends
    what it has.
    """
    end = time.monotonic() + _lifecycle.EXIT_TIMEOUT
    for producer in list(_all):
        if producer._closed or producer._newest.handle.forked:
            continue
        try:
            warnings.warn(
                f"{producer!r} was not closed; what it was given is still delivered",
                ResourceWarning,
                stacklevel=1,
            )
        finally:
            producer.close(max(0.0, end - time.monotonic()))


atexit.register(_at_exit)
