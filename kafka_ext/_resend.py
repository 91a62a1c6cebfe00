"""What RecoverableProducer keeps of a record, so that it can be sent again."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from . import _rdkafka
from ._rdkafka import KafkaError, ProducerRecord, RecordMetadata

if TYPE_CHECKING:
    from ._rdkafka import _Content
    from .producer import DeliveryCallback
    from .serialization import Serialize


class Sent:
    """A record until its final outcome. It is the delivery callback of each attempt.

    Args:
        report: called with this, the metadata and the error of each attempt.
        record: as it was when `send` was called, see `frozen`.
        on_delivery: the callback for the final outcome.
        number: ascending in the order of the sends.
        until: when to stop sending it again, on the clock of time.monotonic().
    """

    __slots__ = (
        "__weakref__",
        "called",
        "error",
        "metadata",
        "number",
        "on_delivery",
        "pin",
        "record",
        "report",
        "until",
    )

    def __init__(
        self,
        report: Callable[[Sent, RecordMetadata, KafkaError | None], None],
        record: ProducerRecord,
        on_delivery: DeliveryCallback | None,
        number: int,
        until: float,
    ) -> None:
        self.report = report
        self.record = record
        self.on_delivery = on_delivery
        self.number = number
        self.until = until
        self.pin: memoryview | None = None
        self.called = False  # the callback for the final outcome
        self.metadata: RecordMetadata | None = None
        self.error: KafkaError | None = None

    def __call__(self, metadata: RecordMetadata, error: KafkaError | None) -> None:
        self.report(self, metadata, error)

    def keep(self, metadata: RecordMetadata, error: KafkaError) -> None:
        """Get ready to be sent again, to the same partition. The value stays pinned meanwhile."""
        self.metadata, self.error = metadata, error
        if metadata.partition is not None:
            self.record.partition = metadata.partition
        value: Any = self.record.value
        if self.pin is None and value is not None and not isinstance(value, (bytes, str)):
            try:
                self.pin = memoryview(value)
            except Exception:  # noqa: BLE001 - a tensor, or an array of a type that no
                pass  # memoryview knows: nobody can resize its memory

    def release(self) -> None:
        """Let go of the value."""
        if self.pin is not None:
            self.pin.release()


def frozen(record: ProducerRecord, copy_value: bool) -> ProducerRecord:
    """The record as it is now, whatever its owner does with it, its key and headers later."""
    now = int(time.time() * 1000)
    return ProducerRecord(
        record.topic,
        _copied("value", record.value) if copy_value else record.value,
        key=_copied("key", record.key),
        partition=record.partition,
        headers=None if record.headers is None else list(_rdkafka.header_pairs(record.headers)),
        timestamp=now if record.timestamp is None else record.timestamp,
        id=record.id,
    )


def serialized(
    record: ProducerRecord, of_key: Serialize | None, of_value: Serialize | None
) -> ProducerRecord:
    """The record with what the serializers make of its key and value."""
    key, value = record.key, record.value
    return ProducerRecord(
        record.topic,
        value if of_value is None or value is None else of_value(record.topic, value),
        key=key if of_key is None or key is None else of_key(record.topic, key),
        partition=record.partition,
        headers=record.headers,
        timestamp=record.timestamp,
        id=record.id,
    )


def _copied(what: str, content: _Content) -> _Content:
    if content is None or isinstance(content, (bytes, str)):
        return content
    return _rdkafka.content_of(content, what)
