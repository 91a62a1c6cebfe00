"""Logging to Kafka: a handler that never blocks and never recurses, and a formatter that makes
JSON.
"""

from __future__ import annotations

import json
import logging
import math
import re
import threading
from collections.abc import Callable, Mapping, Sequence
from datetime import datetime, timezone
from functools import partial
from typing import Any, TypeAlias

from ._rdkafka import (
    KafkaError,
    KafkaException,
    Monitor,
    ProducerRecord,
    RecordMetadata,
    check_callback,
    check_topic_name,
)
from ._replacement import NOW, Replaceable, abandon, register
from .producer import KafkaProducer
from .properties import Properties

__all__ = ["JsonFormatter", "KafkaHandler"]

# What is taken from a log record: an attribute's name, or a function of the record.
Part: TypeAlias = str | Callable[[logging.LogRecord], Any]

_log = logging.getLogger("kafka_ext")
_here = threading.local()
_DEEPEST = 100
_MOST_BITS = 10_000  # sys.set_int_max_str_digits() lets an int be written down that has no more
_SURROGATE = re.compile("[\ud800-\udfff]")

# Every attribute that logging itself gives a record; all others came by `extra=`.
_ATTRIBUTES = frozenset(vars(logging.makeLogRecord({}))) | {"message", "asctime", "taskName"}


class KafkaHandler(logging.Handler):
    """Sends log records to a topic. It never blocks the program that logs, and counts what it had
    to drop.

    Args:
        topic: where to.
        properties: those of a KafkaProducer that this handler makes, and closes. It makes another
            after a fatal error, and in a process forked from this one.
        producer: in place of `properties`: one that others use as well. It is flushed by this
            handler, and not closed. After a fork what is logged in the child is dropped, for a
            producer does not survive one. After a fatal error what is logged is dropped, unless it
            is a RecoverableProducer.
        key: a log record's attribute (`"name"`), or a function of the log record, that gives the
            message's key. A str, bytes or None is taken as it is, the rest as text.
        headers: names of attributes that become headers of their own name; or a mapping of header
            names to attributes or functions. What is None, or not there, makes no header.
        level: as every handler.
        flush_timeout: seconds that `flush` and `close` wait for what is on its way.

    Raises:
        TypeError: an argument is of the wrong type, or there is not one of `properties` and
            `producer`.
        InvalidConfigError: as KafkaProducer, at once and not with the first record.

    The value is what the formatter makes (JsonFormatter makes JSON), the timestamp the log record's
    own.

    - **It does not block.** A record that finds the queue full is dropped and counted (`dropped`),
      as is one that comes after `close`. A record that was sent and could not be delivered is
      counted in `failed`. `close` logs a warning when there were any. The handler takes no lock
      while it sends.
    - **It does not recurse.** Records of the logger "kafka_ext" and those below it are passed over:
      they tell of producers, and sending them would make more of them. Give that logger another
      handler. What is logged while a record is being formatted for this handler is dropped.
    - **At exit** all handlers deliver what they have, within `flush_timeout`.
    """

    def __init__(
        self,
        topic: str,
        properties: Mapping[str, Any] | None = None,
        *,
        producer: KafkaProducer | None = None,
        key: Part | None = None,
        headers: Sequence[str] | Mapping[str, Part] = (),
        level: int | str = logging.NOTSET,
        flush_timeout: float = 5.0,
    ) -> None:
        # until the constructor is through: logging.shutdown() closes all that Handler.__init__ has
        # seen
        self._ready = False
        self._flush_timeout = flush_timeout
        super().__init__(level)
        if not isinstance(topic, str):
            raise TypeError(f"topic must be a str, not {type(topic).__name__}")
        topic = check_topic_name(topic)
        if (properties is None) == (producer is None):
            raise TypeError(
                "give either properties, for a producer of the handler's own, or a producer"
            )
        if producer is not None and not isinstance(producer, KafkaProducer):
            raise TypeError(f"producer must be a KafkaProducer, not {type(producer).__name__}")
        if key is not None:
            _check_part("key", key)
        if isinstance(headers, str):
            raise TypeError(
                "headers must be a sequence of attributes' names or a mapping, not a str"
            )
        self._headers: list[tuple[str, Part]] = list(
            headers.items() if isinstance(headers, Mapping) else ((name, name) for name in headers)
        )
        for name, part in self._headers:
            _check_part(f"headers: {name!r}", part)
        self._topic = topic
        self._key = key
        self._counting = (
            Monitor()
        )  # a signal handler, or a finalizer, may log in the midst of counting
        self._dropped = 0
        self._failed = 0
        self._over = False
        self._given = producer
        self._own = Replaceable(
            partial(KafkaProducer, None if properties is None else Properties(properties)), abandon
        )
        if producer is None:
            self._own.get(NOW)
        self._ready = True
        register(self)

    @property
    def _producer(self) -> KafkaProducer | None:
        """None in a forked child that has logged nothing yet."""
        return self._own.current if self._given is None else self._given

    @property
    def dropped(self) -> int:
        """Records that were not sent, for want of room in the queue, after `close`, unfit for the
        topic, in a child without a producer.
        """
        return self._dropped

    @property
    def failed(self) -> int:
        """Records that were sent and not delivered."""
        return self._failed

    def handle(self, record: logging.LogRecord) -> Any:
        """As every handler, but without its lock: threads do not wait for one another."""
        if f"{record.name}.".startswith("kafka_ext."):
            return False
        kept: Any = self.filter(record)
        if isinstance(kept, logging.LogRecord):  # from Python 3.12 on a filter may give another one
            record = kept
        if kept:
            self.emit(record)
        return kept

    def emit(self, record: logging.LogRecord) -> None:
        """Send a log record. Raises nothing, as every handler: errors go to `handleError`."""
        if getattr(_here, "emitting", False):
            # logged by a formatter, a function that gives the key, a signal handler in the midst of
            # this
            self._drop()
            return
        _here.emitting = True
        try:
            if self._over:
                self._drop()
                return
            producer = self._producer if self._given is not None else self._own.get(NOW)
            if producer is None:  # it was closed, or the next one is not made yet
                self._drop()
                return
            error = producer.try_send(
                ProducerRecord(
                    self._topic,
                    self._formatted(record),
                    key=None if self._key is None else _taken(record, self._key),
                    headers=self._headers_of(record),
                    timestamp=int(record.created * 1000),
                ),
                self._on_delivery,
            )
            if error is not None:
                self._drop()
        except KafkaException:
            self._drop()
        except Exception:  # noqa: BLE001 - a formatter's; the program that logs is not to stop for it
            self._drop()
            self.handleError(record)
        finally:
            _here.emitting = False

    def _formatted(self, record: logging.LogRecord) -> str:
        """What the formatter makes; where it raises, the message as far as it goes, and the error
        goes to `handleError`.
        """
        try:
            return _sendable(self.format(record))
        except Exception:  # noqa: BLE001 - a formatter's, or an argument's str()
            self.handleError(record)
            return _sendable(f"{record.levelname} {record.name}: {_message(record)}")

    def _headers_of(self, record: logging.LogRecord) -> list[tuple[str, Any]] | None:
        headers = [(name, _taken(record, part)) for name, part in self._headers]
        return [(name, value) for name, value in headers if value is not None] or None

    def _drop(self) -> None:
        with self._counting:
            self._dropped += 1

    def _on_delivery(self, metadata: RecordMetadata, error: KafkaError | None) -> None:
        if error is not None:
            with self._counting:
                self._failed += 1

    def flush(self) -> None:
        """Wait for what is on its way, up to `flush_timeout` seconds. Raises nothing; what takes
        longer stays on its way.
        """
        self._flush(self._flush_timeout)

    def _flush(self, timeout: float) -> None:
        if not self._ready or self._over:
            return
        producer = self._producer
        try:
            if producer is not None and not producer.handle.forked:
                producer.flush(timeout)
        except KafkaException:
            # the time was up; or this is a callback, where nothing can be waited for; or it is
            # closed elsewhere
            pass

    def close(self) -> None:
        """Send no more, and wait up to `flush_timeout` seconds for what is on its way; the rest is
        counted as failed. Idempotent.
        """
        self._close(self._flush_timeout)
        super().close()

    def _close(self, timeout: float) -> None:
        if not self._ready:
            return
        if self._given is not None:
            self._flush(timeout)
        was_over, self._over = self._over, True
        with self._own.changed:
            self._own.closing = True
        producer = self._producer  # no other one comes from here on
        if was_over or producer is None or producer.handle.forked:
            return
        if self._given is None:
            try:
                producer.close(timeout)
            except KafkaException:
                abandon(producer)  # inside one of its callbacks
        if self._dropped or self._failed:
            _log.warning(
                "of the log records for %s, %d were dropped and %d not delivered",
                self._topic,
                self._dropped,
                self._failed,
            )

    # Last of all: what closes the others may log.
    _exit_turn = 2

    def _end_at_exit(self, seconds: float) -> None:
        self._close(max(0.0, self._flush_timeout - seconds))

    def _forget_parent(self) -> None:
        global _here
        _here = threading.local()  # a thread may have been forked in the midst of emit()
        self._counting = Monitor()
        if self._given is None:
            self._dropped = self._failed = 0
            self._own.forget()

    def __repr__(self) -> str:
        return f"<KafkaHandler {self._topic!r} ({logging.getLevelName(self.level)})>"


def _check_part(what: str, part: Any) -> None:
    if not isinstance(part, str) and not callable(part):
        raise TypeError(
            f"{what} must be the name of a log record's attribute or a function of the log record,"
            f" not {type(part).__name__}"
        )
    if not isinstance(part, str):
        check_callback(part, what)


def _taken(record: logging.LogRecord, part: Part) -> str | bytes | None:
    value = getattr(record, part, None) if isinstance(part, str) else part(record)
    return value if value is None or isinstance(value, bytes) else _sendable(_text(value))


def _sendable(text: str) -> str:
    """Lone surrogates, as file names and broken input have them, as the escapes that Python prints:
    UTF-8 has none.
    """
    try:
        text.encode()
    except UnicodeEncodeError:
        return text.encode("utf-8", "backslashreplace").decode()
    return text


def _text(value: object) -> str:
    """`str(value)`, or where that raises, what kind of thing it is: the record is not to be lost
    for it.
    """
    try:
        return str(value)
    except Exception as exc:  # noqa: BLE001 - whatever it is, it was raised by the program's own object
        return f"<{type(value).__name__}: its str() raised {type(exc).__name__}>"


class JsonFormatter(logging.Formatter):
    """A log record as one JSON object: time (ISO 8601, UTC), level, logger, message, all of
    `extra`, and exception and stack if any.

    Args:
        attributes: more of a log record's attributes, such as `["process", "threadName",
            "lineno"]`.
        static: what every object has besides, such as `{"service": "shop"}`.

    Every record becomes JSON. What JSON does not know becomes text (`str`), as do keys, NaN and
    infinities; a lone surrogate becomes its escape. What contains itself, or is nested deeper than
    100 levels, has "..." there. Where an object's `str` raises, its type is named.
    """

    def __init__(
        self, attributes: Sequence[str] = (), static: Mapping[str, Any] | None = None
    ) -> None:
        super().__init__()
        if isinstance(attributes, str):
            raise TypeError("attributes must be a sequence of names, not a str")
        self._attributes = tuple(attributes)
        self._static = dict(static or {})

    def format(self, record: logging.LogRecord) -> str:
        """The record as JSON, on one line."""
        document: dict[str, Any] = {
            "time": (
                datetime.fromtimestamp(record.created, timezone.utc)
                .isoformat(timespec="milliseconds")
                .replace("+00:00", "Z")
            ),
            "level": record.levelname,
            "logger": record.name,
            "message": _message(record),
            **self._static,
        }
        document.update((name, getattr(record, name, None)) for name in self._attributes)
        document.update(
            (name, value) for name, value in vars(record).items() if name not in _ATTRIBUTES
        )
        if record.exc_info:
            document["exception"] = self.formatException(record.exc_info)
        if record.stack_info:
            document["stack"] = self.formatStack(record.stack_info)
        return _json(document)


def _message(record: logging.LogRecord) -> str:
    try:
        return record.getMessage()
    except Exception as exc:  # noqa: BLE001 - an argument's str(), or arguments that do not fit
        return f"{_text(record.msg)} <its arguments cannot be formatted: {type(exc).__name__}>"


def _json(document: dict[str, Any]) -> str:
    try:
        return _sendable_json(
            json.dumps(document, default=str, ensure_ascii=False, allow_nan=False)
        )
    except Exception:  # noqa: BLE001 - a key, a cycle, a NaN, an object whose str() raises
        return _sendable_json(json.dumps(_plain(document, ()), ensure_ascii=False, allow_nan=False))


def _sendable_json(text: str) -> str:
    # As `_sendable`, with the backslash as JSON writes it: \\ud800 alone is an escape of JSON's own
    # that only Python reads.
    return (
        text if text.isascii() else _SURROGATE.sub(lambda found: f"\\\\u{ord(found[0]):04x}", text)
    )


def _plain(value: Any, within: tuple[int, ...]) -> Any:
    """`value` of nothing but what JSON has."""
    if value is None or isinstance(value, (bool, str)):
        return value if value is None or type(value) in (bool, str) else _text(value)
    if isinstance(value, int):
        return int(value) if value.bit_length() < _MOST_BITS else hex(value)
    if isinstance(value, float):
        return float(value) if math.isfinite(value) else str(float(value))
    if not isinstance(value, (Mapping, list, tuple)):
        return _text(value)
    if id(value) in within or len(within) >= _DEEPEST:
        return "..."
    within = (*within, id(value))
    try:
        if isinstance(value, Mapping):
            return {_text(key): _plain(item, within) for key, item in list(value.items())}
        return [_plain(item, within) for item in list(value)]
    except Exception:  # noqa: BLE001 - a mapping of the program's own
        return _text(value)
