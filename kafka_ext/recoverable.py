"""RecoverableProducer: a KafkaProducer that goes on after a fatal error."""

from __future__ import annotations

import itertools
import logging
import sys
import threading
import time
import warnings
import weakref
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from types import SimpleNamespace
from typing import Any, Literal, NoReturn

from . import _lifecycle, _rdkafka
from ._annotations import Self
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
from ._replacement import NEVER, SLICE, Replaceable, left_at_exit, register
from ._resend import Sent, frozen, serialized
from .metadata import BrokerMetadata
from .metrics import ProducerMetrics
from .producer import DeliveryCallback, KafkaProducer
from .properties import MANUAL_POLL, SERIALIZERS, Properties, invalid, resolve

__all__ = ["RecoverableProducer"]

_log = logging.getLogger("kafka_ext")

_PURGED = (ErrorCode["PURGE_QUEUE"], ErrorCode["PURGE_INFLIGHT"])

_NO_TRANSACTIONS = (
    "a RecoverableProducer has no transactions: another producer cannot go on with one. Use a "
    "KafkaProducer; after a fatal error close it, make another, and do the transaction again"
)


class RecoverableProducer(KafkaProducer):
    """A KafkaProducer that goes on after a fatal error, with a new producer inside.

    A fatal error means that idempotence could not be kept up: the broker has lost the producer's
    state, or a sequence of records has a hole. That producer can do nothing more
    (rd_kafka_fatal_error). This class closes it and makes a new one from the same properties.
    Calls that come meanwhile wait.

    Args:
        properties: as KafkaProducer. `transactional.id` and `enable.manual.events.poll` are
            refused.
        on_fatal: what happens to the records that the broken producer had no answer for.
            "report": their callbacks get the fatal error (or PURGE_QUEUE, PURGE_INFLIGHT), and
            `persisted_status` says what is known. "resend": they are sent again, in the order of
            their `send`, before anything newer, each to its partition and with the time of its
            `send`; their callbacks come with the final outcome. **This can make duplicates.**
        on_recovery: called as `on_recovery(error, resent)` after each recovery, with the fatal
            KafkaError and the number of records sent again, by a thread made for it. It may send;
            it must not wait for long.
        answer_timeout: seconds to wait for answers to what is in flight when a fatal error comes.
            What has none by then counts as unanswered: more time makes fewer duplicates.
        keywords: as KafkaProducer.

    Raises: as KafkaProducer; ValueError for another `on_fatal`.

    With "resend" a record whose acknowledgement was lost is stored a second time: the broker does
    not recognize the new producer. The copy may stand behind records that were sent after it.
    Other failures (too large, no rights, `message.timeout.ms`) are reported in both ways. A record
    is sent again for as long as `message.timeout.ms` after its `send`.

    Every send that returned calls back exactly once. Callbacks run in the events thread of the
    current producer. During a recovery `send` waits as if the queue were full, and calls that may
    not wait get QUEUE_FULL. Interceptors see each attempt, serializers only the first. There are no
    transactions. Thread-safe. Close it, or use it as a context manager.
    """

    _unpicklable = (
        "a RecoverableProducer cannot be pickled; a KafkaSink(properties, topic) can, and replaces"
        " its producer as well"
    )
    _recovery: _rdkafka.Thread | None = None
    _turn: object = None  # the recovery thread that there is to be
    _is_closing = False

    def __init__(
        self,
        properties: Mapping[str, Any] | None = None,
        /,
        *,
        on_fatal: Literal["report", "resend"] = "report",
        on_recovery: Callable[[KafkaError, int], object] | None = None,
        answer_timeout: float = 5.0,
        **keywords: Any,
    ) -> None:
        # Not KafkaProducer's: the producers that send are inside, and this one has no handle.
        if on_fatal not in ("report", "resend"):
            raise ValueError(f"on_fatal must be 'report' or 'resend', not {on_fatal!r}")
        if on_recovery is not None and not callable(on_recovery):
            raise TypeError(
                f"on_recovery must be callable or None, not {type(on_recovery).__name__}"
            )
        if on_recovery is not None:
            _rdkafka.check_callback(on_recovery, "on_recovery")
        _rdkafka.deadline(answer_timeout)  # raises for nonsense
        self._properties = Properties(properties, **keywords)
        self._serializers = _checked_serializers(self._properties)
        self._settings = self._properties.copy()  # those of each producer
        for name in SERIALIZERS:  # a record is serialized once, however often it is sent
            self._settings.pop(name, None)
        self._settings["error_cb"] = _weakly(self, self._properties.get("error_cb"))
        self._resends = on_fatal == "resend"
        self._on_recovery = on_recovery
        self._answer_timeout = answer_timeout
        self._producers = Replaceable(partial(KafkaProducer, self._settings))
        self._changed = self._producers.changed  # guards what follows as well
        self._open_to_all: KafkaProducer | None = None  # while a recovery is going on
        self._fatal: KafkaError | None = None
        self._unanswered: list[Sent] = []  # to be sent again
        # With "resend": accepted, callback not returned from. A set and no count: a send may be
        # interrupted (Ctrl-C) when its record is in already, and another may end twice.
        self._outstanding: set[Sent] = set()
        self._calling_back: list[int] = []  # threads in a callback, besides the events threads
        # What purge() has purged: the records before this number, by the error they fail with.
        self._purged = dict.fromkeys(_PURGED, 0)
        self._drain_now = False  # another thread's close() has run out of time
        self._giving_up = False  # nothing is sent again any more
        self._closed = False
        self._one_closes = _rdkafka.Monitor()
        self._numbers = itertools.count()
        self._recoveries = 0
        self._producers.get(NEVER)
        with self._changed:
            if self._recovery is None:  # its first producer may be broken already
                self._open_to_all = self._newest
        timeout_ms = int(self._newest.get_property("message.timeout.ms") or 0)
        self._lifetime = timeout_ms / 1000 if timeout_ms else float("inf")
        register(self)

    @property
    def _newest(self) -> KafkaProducer:
        """The producer whose reports come."""
        newest = self._producers.current
        assert newest is not None
        return newest

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
        """As `KafkaProducer.send`.

        With "resend" the value stays pinned until the final outcome; TO_COPY_RECORD_VALUE copies
        it here.
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
        sent: Sent | None = None
        if self._serializers is not None:
            record = serialized(record, *self._serializers)
        if self._resends:
            record = frozen(record, option is SendOption.TO_COPY_RECORD_VALUE)
            option = SendOption.NO_COPY_RECORD_VALUE
            give_up = time.monotonic() + self._lifetime
            sent = Sent(self._reported, record, on_delivery, next(self._numbers), give_up)
            callback = sent
        accepted = False
        try:
            if sent is not None:
                self._outstanding.add(sent)
            while not accepted:
                producer = self._ready(until, action is ActionWhileQueueIsFull.BLOCK)
                try:
                    left = _rdkafka.seconds_until(until)
                    producer.send(record, callback, option=option, action=action, timeout=left)
                    accepted = True
                except ProducerForkedError:
                    raise
                except KafkaException as exc:
                    self._raise_unless_recovering(producer, exc)
        finally:
            if sent is not None and not accepted:
                self._outstanding.discard(sent)
                self._notify_if_quiet()

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
        """As `KafkaProducer.send_batch`, with "report" only: `errors()` names what was lost.

        Raises:
            KafkaException: with "resend", because a batch keeps no records that could be sent
                again. `send` them one by one, or use "report" and send again what `errors()` names.
        """
        return self._batch(
            lambda producer, left: producer.send_batch(
                topic,
                values,
                keys=keys,
                partitions=partitions,
                timestamps=timestamps,
                headers=headers,
                ids=ids,
                on_delivery=on_delivery,
                option=option,
                action=action,
                timeout=left,
            ),
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
        """As `KafkaProducer.send_table`, with "report" only; see `send_batch`."""
        return self._batch(
            lambda producer, left: producer.send_table(
                table,
                topic=topic,
                value=value,
                key=key,
                partition=partition,
                timestamp=timestamp,
                headers=headers,
                on_delivery=on_delivery,
                option=option,
                action=action,
                timeout=left,
            ),
            action,
            timeout,
        )

    def _batch(
        self,
        send: Callable[[KafkaProducer, float | None], BatchDelivery],
        action: ActionWhileQueueIsFull,
        timeout: float | None,
    ) -> BatchDelivery:
        if self._serializers is not None:
            text = "value_serializer and key_serializer see records one by one: send() records"
            raise KafkaException(KafkaError(ErrorCode["NOT_IMPLEMENTED"], text))
        if self._resends:
            text = (
                "on_fatal='resend' sends records one by one, and a batch keeps none: send() them,"
                " or use on_fatal='report'"
            )
            raise KafkaException(KafkaError(ErrorCode["NOT_IMPLEMENTED"], text))
        until = _rdkafka.deadline(timeout)
        while True:
            producer = self._ready(until, action is ActionWhileQueueIsFull.BLOCK)
            try:
                return send(producer, _rdkafka.seconds_until(until))
            except ProducerClosedError as exc:
                self._raise_unless_recovering(producer, exc)

    # ------------------------------------------------------------------ which producer

    def _ready(self, until: int, may_wait: bool) -> KafkaProducer:
        """The producer that takes records now. Waits for the end of a recovery, if it may."""
        producer = self._open_to_all
        if producer is not None and not self._is_closing:
            return producer
        self._check_forked()
        may_wait = may_wait and not _rdkafka.in_callback() and not self._is_calling_back()
        with self._changed:
            while True:
                if self._is_closing:
                    raise ProducerClosedError(
                        KafkaError(ErrorCode["STATE"], "the producer is closed")
                    )
                if self._open_to_all is not None:
                    return self._open_to_all
                if not may_wait:
                    text = f"the producer is being replaced after a fatal error ({self._fatal})"
                    raise QueueFullError(KafkaError(ErrorCode["QUEUE_FULL"], f"{text}; try again"))
                left = _rdkafka.seconds_until(until)
                if left == 0.0:
                    text = (
                        "the producer was not replaced in time after a fatal error"
                        f" ({self._fatal}); the record was not enqueued"
                    )
                    raise KafkaTimeoutError(KafkaError(ErrorCode["TIMED_OUT"], text))
                self._changed.wait(SLICE if left is None else min(left, SLICE))

    def _raise_unless_recovering(self, producer: KafkaProducer, exc: KafkaException) -> None:
        """Raise, unless the call failed because its producer has ended: the next one takes it."""
        if exc.error.is_fatal:
            self._recover(producer, exc.error)
        elif not isinstance(exc, ProducerClosedError) or self._open_to_all is producer:
            raise exc
        if self._is_closing or self._giving_up:
            raise exc

    def _check_forked(self) -> None:
        handle = self._newest.handle
        if handle.forked:
            handle.check_usable()  # raises; a thread of the parent may have held the lock

    def _check_may_wait(self, call: str) -> None:
        self._check_forked()
        self._newest.handle.check_not_in_callback(call)
        if self._is_calling_back():
            text = f"{call}() inside a callback of the same producer would wait for that callback"
            raise KafkaException(KafkaError(ErrorCode["STATE"], f"{text}; call it outside"))

    def _is_calling_back(self) -> bool:
        return bool(self._calling_back) and threading.get_ident() in self._calling_back

    def _check_of_waits(self) -> Callable[[str], object]:
        return self._check_may_wait

    # ------------------------------------------------------------------ reports

    def _notify_if_quiet(self) -> None:
        if not self._outstanding:
            with self._changed:
                self._changed.notify_all()

    def _reported(self, sent: Sent, metadata: RecordMetadata, error: KafkaError | None) -> None:
        """The outcome of an attempt: the final one, or a reason to send the record again."""
        if error is not None and self._is_to_be_sent_again(sent, error):
            sent.keep(metadata, error)
            with self._changed:
                self._unanswered.append(sent)
            self._recover(self._newest, error)
            return
        self._finish(sent, metadata, error)

    def _is_to_be_sent_again(self, sent: Sent, error: KafkaError) -> bool:
        if self._giving_up or time.monotonic() >= sent.until:
            return False
        if sent.number < self._purged.get(error.code, 0):
            return False
        if error.is_fatal:
            return True
        # librdkafka purges what it had not sent yet. What was in flight fails with the error's own
        # code, or by the close() of a recovery.
        fatal = self._newest.handle.fatal_error()
        return fatal is not None and (error == fatal or error in _PURGED)

    def _finish(self, sent: Sent, metadata: RecordMetadata, error: KafkaError | None) -> None:
        try:
            if sent.called:
                return  # a close() that was interrupted is done again
            sent.called = True
            if sent.on_delivery is not None:
                sent.on_delivery(metadata, error)
            elif error is not None:
                text = "1 record to %s not delivered, and no callback to tell: %s"
                _log.warning(text, metadata.topic, error)
        finally:
            self._outstanding.discard(sent)
            sent.release()
            self._notify_if_quiet()

    def _finish_here(self, sent: Sent, error: KafkaError | None) -> None:
        """Outside of an events thread: exceptions of the callback go where they go there."""
        assert sent.metadata is not None
        me = threading.get_ident()
        self._calling_back.append(me)
        try:
            self._finish(sent, sent.metadata, error)
        except BaseException as exc:  # noqa: BLE001 - the other records need their reports
            _unraisable(exc, sent.on_delivery)
        finally:
            self._calling_back.remove(me)

    # ------------------------------------------------------------------ recovering

    def _recover(self, producer: KafkaProducer, error: KafkaError) -> None:
        """Begin a recovery, unless it has begun. Does not wait."""
        with self._changed:
            if producer is not self._newest or self._recovery is not None or self._giving_up:
                return
            turn = object()
            fatal = producer.handle.fatal_error() or error
            # In a thread of its own: in the events thread, close() would wait for itself.
            try:
                self._fatal, self._open_to_all, self._turn = fatal, None, turn
                self._recovery = _rdkafka.new_thread("kafka_ext recovery", self._run, turn)
                self._recovery.start()
                return
            except Exception as exc:  # noqa: BLE001 - no more threads, or no memory
                text = "no recovery from %s: %s; what was not delivered is reported so"
                _log.error(text, self._fatal, exc)
                self._recovery = self._turn = None
                self._giving_up = True
                self._open_to_all = producer  # which refuses all from now on, and says why
                self._changed.notify_all()
                left, self._unanswered = self._unanswered, []
            except BaseException:  # Ctrl-C: the next call, or the events thread, begins it anew
                self._recovery = self._turn = self._fatal = None
                self._open_to_all = producer
                raise
        for sent in left:
            self._finish_here(sent, sent.error)
        producer.purge()  # a fatal error leaves in the queue what was not sent yet

    def _run(self, turn: object) -> None:
        with self._changed:
            if self._turn is not turn:
                return  # start() was interrupted, or raised without the memory to wait for this
        fatal = self._fatal
        resent = None
        while resent is None:
            try:
                resent = self._replace()
            except BaseException as exc:  # noqa: BLE001, PERF203 - no memory, say: all calls wait
                _log.error("the recovery from %s failed: %r", fatal, exc)
                if self._giving_up:
                    break  # close() goes on from here
                _rdkafka.sleep(SLICE)
        with self._changed:
            self._fatal = None
            self._recovery = self._turn = None
            self._recoveries += 1
            self._open_to_all = self._newest
            self._changed.notify_all()
        if self._giving_up or fatal is None or resent is None:
            return
        text = "the producer was replaced after a fatal error, and %d records were sent again: %s"
        _log.warning(text, resent, fatal)
        again = self._newest.handle.fatal_error()
        if again is not None:
            self._recover(self._newest, again)  # it came while this recovery was going on
        if self._on_recovery is not None:
            try:
                self._on_recovery(fatal, resent)
            except BaseException as exc:  # noqa: BLE001 - there is no caller to raise it to
                _unraisable(exc, self._on_recovery)

    def _replace(self) -> int | None:
        """Replace the newest producer, and send again what had no answer.

        Returns:
            How many records were sent again. None: it did not work, and has to be done again.
        """
        old = self._newest
        # When this returns, each of its records was called back, or is in _unanswered.
        old.close(self._answer_timeout)
        try:
            self._producers.replace(old, given_up=lambda: self._giving_up)
        except Exception as exc:  # noqa: BLE001 - a certificate that is gone, no memory, no threads
            text = (
                "no producer could be made in place of the one with a fatal error; trying again: %s"
            )
            _log.error(text, exc)
        with self._changed:
            again = sorted(self._unanswered, key=lambda sent: sent.number)
            self._unanswered = []
        before = self._newest.metrics().sent
        done = 0
        try:
            while done < len(again) and self._send_again(again[done]):
                done += 1
        finally:
            with self._changed:
                self._unanswered += again[done:]
        if done < len(again):
            return None
        if self._newest is old and not self._giving_up:
            return None
        return self._newest.metrics().sent - before

    def _send_again(self, sent: Sent) -> bool:
        """Send the record, or finish it. False: no producer takes it."""
        while True:
            if self._giving_up or time.monotonic() >= sent.until:
                self._finish_here(sent, sent.error)
                return True
            if sent.number < self._purged[ErrorCode["PURGE_QUEUE"]]:
                self._finish_here(sent, KafkaError(ErrorCode["PURGE_QUEUE"]))
                return True
            try:
                self._newest.send(sent.record, sent, timeout=SLICE)
                return True
            except KafkaTimeoutError:
                continue  # no room: look whether there is still reason to go on
            except ProducerClosedError:
                return False  # none could be made
            except KafkaException as exc:
                if exc.error.is_fatal:
                    return False
                self._finish_here(sent, exc.error)
            except BaseException as exc:  # noqa: BLE001 - a partitioner's
                text = f"{type(exc).__name__}: {exc}"
                self._finish_here(sent, KafkaError(ErrorCode["FAIL"], text))
            return True

    # ------------------------------------------------------------------ waiting, and the end

    def poll_events(self, timeout: float = 0.0) -> int:
        """Raises a KafkaException: the events threads serve all events."""
        self._check_forked()
        text = "a RecoverableProducer serves its events itself; poll_events() is for manual polling"
        raise KafkaException(KafkaError(ErrorCode["STATE"], text))

    def flush(self, timeout: float | None = None) -> None:
        """As `KafkaProducer.flush`; records that are sent again are waited for as well."""
        self._check_may_wait("flush")
        if self._is_closing:
            raise ProducerClosedError(KafkaError(ErrorCode["STATE"], "the producer is closed"))
        if not self._drain(_rdkafka.deadline(timeout)):
            text = f"records are still outstanding after {timeout} s{self._newest.handle.cause}"
            raise KafkaTimeoutError(KafkaError(ErrorCode["TIMED_OUT"], text))

    def _drain(self, until: int) -> bool:
        """Wait until all is reported, recoveries included. False: time has run out."""
        while True:
            left = _rdkafka.seconds_until(until)
            pause = SLICE if left is None else min(left, SLICE)
            producer = self._newest
            flushed = False
            if self._recovery is None:
                try:
                    producer.flush(pause)
                    flushed = True
                except (KafkaTimeoutError, ProducerClosedError):
                    pass
            with self._changed:
                is_same = self._recovery is None and producer is self._newest
                is_quiet = flushed and is_same and not self._outstanding
                if is_quiet and (self._giving_up or producer.handle.fatal_error() is None):
                    return True
                if left == 0.0 or self._drain_now:
                    return False
                if flushed or self._recovery is not None:
                    self._changed.wait(pause)

    def purge(self, *, in_queue: bool = True, in_flight: bool = True) -> None:
        """As `KafkaProducer.purge`, for all that was sent before: none of it is sent again.

        What waits to be sent again fails with PURGE_QUEUE, by `in_queue`.
        """
        self._check_forked()
        # First: what fails by this is not to be sent again, where a fatal error has come already.
        for error, is_meant in zip(_PURGED, (in_queue, in_flight), strict=True):
            if is_meant:
                self._purged[error] = next(self._numbers)
        producer = self._newest
        try:
            producer.purge(in_queue=in_queue, in_flight=in_flight)
        except ProducerClosedError:
            if self._recovery is None and producer is self._newest:
                raise

    def close(self, timeout: float | None = None) -> None:
        """As `KafkaProducer.close`: waits for reports, and for the recoveries that this takes.

        After `timeout` seconds nothing is sent again.
        """
        self._check_forked()
        if self._closed:
            return
        self._check_may_wait("close")
        until = _rdkafka.deadline(timeout)
        caller = _lifecycle.begin_closing(self._newest.handle)
        try:
            while not self._one_closes.acquire(timeout=SLICE):
                if _rdkafka.seconds_until(until) == 0.0:
                    self._drain_now = True  # the thread that closes may have more time
            try:
                if not self._closed:
                    self._close_newest(until)
            finally:
                self._one_closes.release()
        finally:
            if caller is not None:
                _lifecycle.end_closing(caller)

    def _close_newest(self, until: int) -> None:
        with self._changed:
            self._is_closing = True
            self._changed.notify_all()
        self._drain(until)
        with self._changed:
            self._giving_up = True
            self._changed.notify_all()
            recovery = self._recovery
        if recovery is not None:
            self._newest.handle.out_of_time = True
            recovery.join()
        self._newest.close(0.0 if self._drain_now else _rdkafka.seconds_until(until))
        for sent in self._unanswered:  # by a fatal error after nothing was to be sent again
            self._finish_here(sent, sent.error)
        self._unanswered = []
        self._closed = True

    def __enter__(self) -> Self:
        self._check_forked()
        return self

    def __del__(self) -> None:
        """The producer inside delivers what it was given, and warns."""

    # At the interpreter's exit it is closed before sinks and log handlers.
    _exit_turn = 0

    def _end_at_exit(self, seconds: float) -> None:
        if self._closed or self._newest.handle.forked:
            return
        try:
            text = f"{self!r} was not closed; what it was given is still delivered"
            warnings.warn(text, ResourceWarning, stacklevel=1)
        finally:
            self.close(left_at_exit(seconds))

    def _forget_parent(self) -> None:
        """In a forked child each call raises ProducerForkedError."""

    # ------------------------------------------------------------------ transactions

    def _refuse_transaction(self) -> NoReturn:
        self._check_forked()
        raise KafkaException(KafkaError(ErrorCode["NOT_IMPLEMENTED"], _NO_TRANSACTIONS))

    def init_transactions(self, timeout: float | None = None) -> None:
        """Raises a KafkaException, as all calls of transactions do here: no other producer could
        go on with one.
        """
        self._refuse_transaction()

    def begin_transaction(self) -> None:
        """Raises a KafkaException, see `init_transactions`."""
        self._refuse_transaction()

    def commit_transaction(self, timeout: float | None = None) -> None:
        """Raises a KafkaException, see `init_transactions`."""
        self._refuse_transaction()

    def abort_transaction(self, timeout: float | None = None) -> None:
        """Raises a KafkaException, see `init_transactions`."""
        self._refuse_transaction()

    def send_offsets_to_transaction(
        self, offsets: Any, group_metadata: Any, timeout: float | None = None
    ) -> None:
        """Raises a KafkaException, see `init_transactions`."""
        self._refuse_transaction()

    # ------------------------------------------------------------------ what is known

    @property
    def handle(self) -> _rdkafka.ProducerClient:
        """The C side of the current producer. Internal, but for tests of fatal errors."""
        return self._newest.handle

    def _handle_or_none(self) -> _rdkafka.ProducerClient | None:
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
        """As `KafkaProducer.metrics`, over all producers there were.

        A record that was sent again has been sent twice and failed once.
        """
        self._check_forked()
        return self._producers.metrics()

    def fetch_broker_metadata(
        self, topic: str | None = None, timeout: float | None = 10.0
    ) -> BrokerMetadata:
        """As `KafkaProducer.fetch_broker_metadata`; during a recovery it waits for its end."""
        until = _rdkafka.deadline(timeout)
        producer = self._ready(until, True)
        return producer.fetch_broker_metadata(topic, _rdkafka.seconds_until(until))

    def get_property(self, name: str) -> str | None:
        """As `KafkaProducer.get_property`; during a recovery it waits for its end."""
        if name == "error_cb" or name in SERIALIZERS:
            value = self._properties.get(name)
            return None if value is None else repr(value)
        return self._ready(NEVER, True).get_property(name)

    def _state(self) -> str:
        if self._is_closing:
            return "closed"
        return "open" if self._recovery is None else "recovering"


def _checked_serializers(properties: Properties) -> Any:
    """The serializers in `properties`, once it is known that all of them can be had here."""
    settings = resolve(properties)
    if settings.manual:
        text = "a recovery needs the events served while it waits for them"
        raise invalid(MANUAL_POLL, f"property {MANUAL_POLL!r} cannot be set: {text}")
    if "transactional.id" in settings.librdkafka:
        text = f"property 'transactional.id' cannot be set: {_NO_TRANSACTIONS}"
        raise invalid("transactional.id", text)
    return settings.serializers


def _weakly(
    owner: RecoverableProducer, error_cb: Callable[[KafkaError], object] | None
) -> Callable[[KafkaError], None]:
    """The error callback of each producer. The events thread keeps it; it must not keep `owner`."""
    found = weakref.ref(owner)

    def on_error(error: KafkaError) -> None:
        owner = found()
        newest = None if owner is None else owner._producers.current
        if error.is_fatal and owner is not None and newest is not None:
            owner._recover(newest, error)
        if error_cb is not None:
            error_cb(error)
        else:
            _log.log(logging.ERROR if error.is_fatal else logging.WARNING, "%s", error)

    return on_error


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
