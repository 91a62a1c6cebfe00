"""Producers with one thing wrong each, as a mistake in the library could make it: the fuzzer must
find every one (its own test).
"""

from __future__ import annotations

import copy
from typing import Any, ClassVar

from kafka_ext import KafkaException, KafkaProducer, ProducerRecord
from kafka_ext._rdkafka import content_of


class _Sabotaged(KafkaProducer):
    """Changes a copy of each record on its way in. sync_send and send_future come by `send` as
    well.
    """

    def _changed(self, record: ProducerRecord) -> ProducerRecord:
        changed = copy.copy(record)
        self.change(changed)
        return changed

    def change(self, record: Any) -> None:
        raise NotImplementedError

    def send(self, record: Any, *arguments: Any, **keywords: Any) -> None:
        super().send(self._changed(record), *arguments, **keywords)

    def try_send(self, record: Any, *arguments: Any, **keywords: Any) -> Any:
        return super().try_send(self._changed(record), *arguments, **keywords)


class LosesAHeader(_Sabotaged):
    def change(self, record: Any) -> None:
        if isinstance(record.headers, (list, tuple)):
            record.headers = record.headers[:-1]


class SwapsKeyAndValue(_Sabotaged):
    def change(self, record: Any) -> None:
        record.key, record.value = record.value, record.key


class TakesEmptyForNone(_Sabotaged):
    def change(self, record: Any) -> None:
        if isinstance(record.value, (bytes, str)) and not len(record.value):
            record.value = None


class SendsStr(_Sabotaged):
    """What the text of an object is, where it has no bytes: 5 becomes "5"."""

    def change(self, record: Any) -> None:
        try:
            content_of(record.value, "value")
        except (TypeError, ValueError):
            record.value = str(record.value)


class ForgetsThePartition(_Sabotaged):
    def change(self, record: Any) -> None:
        record.partition = None


class SendsTwice(KafkaProducer):
    def send(self, record: Any, *arguments: Any, **keywords: Any) -> None:
        KafkaProducer.send(self, record, *arguments, **keywords)
        KafkaProducer.try_send(self, record)


class LosesARecord(KafkaProducer):
    def send(self, record: Any, *arguments: Any, **keywords: Any) -> None:
        if record.key != b"":
            KafkaProducer.send(self, record, *arguments, **keywords)


class CommitsInPart(KafkaProducer):
    """As if a record that was refused did not count."""

    def commit_transaction(self, timeout: float | None = None) -> None:
        try:
            super().commit_transaction(timeout)
        except KafkaException:
            self.abort_transaction(timeout)


class KeepsAPin(_Sabotaged):
    pins: ClassVar[list[Any]] = []

    def change(self, record: Any) -> None:
        if isinstance(record.value, bytearray):
            self.pins.append(memoryview(record.value))


class LosesARow(KafkaProducer):
    def send_batch(self, topic: str, values: Any, **keywords: Any) -> Any:
        if isinstance(values, (list, tuple)):
            values = [*values[:-1], values[0]]
        return super().send_batch(topic, values, **keywords)


class ForgetsASetting(KafkaProducer):
    def __init__(self, properties: Any = None, /, **keywords: Any) -> None:
        super().__init__(
            {name: value for name, value in properties.items() if name != "batch.size"}, **keywords
        )


SABOTAGES = {
    kind.__name__: kind
    for kind in (
        LosesAHeader,
        SwapsKeyAndValue,
        TakesEmptyForNone,
        SendsStr,
        ForgetsThePartition,
        SendsTwice,
        LosesARecord,
        LosesARow,
        CommitsInPart,
        KeepsAPin,
    )
}
