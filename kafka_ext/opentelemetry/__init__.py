"""OpenTelemetry for producers: `pip install "kafka-ext[opentelemetry]"`, and once in the program

    from kafka_ext.opentelemetry import KafkaExtInstrumentor

    KafkaExtInstrumentor().instrument()

or the command `opentelemetry-instrument`, which finds it by itself. From then on each send of a
`KafkaProducer` or `AsyncKafkaProducer` is a span whose context travels in the record's headers, and
there are metrics. Names and attributes are those of OpenTelemetry's semantic conventions for
messaging (1.30 and newer, still in development there). Without it, and after `uninstrument`,
producers are what they were: it takes the place of their methods, and a program that does not call
it pays nothing.
"""

from __future__ import annotations

import functools
from abc import ABCMeta
from collections.abc import Callable, Collection
from typing import TYPE_CHECKING, Any, ClassVar

try:
    from opentelemetry.instrumentation.instrumentor import BaseInstrumentor  # type: ignore[attr-defined]  # its module is not typed
except ImportError as _missing:
    raise ImportError(
        "kafka_ext.opentelemetry needs opentelemetry-instrumentation: pip install"
        ' "kafka-ext[opentelemetry]"'
    ) from _missing

from .. import __version__
from .._rdkafka import BatchDelivery, KafkaError, ProducerRecord
from ..producer import KafkaProducer
from ._observed import Observed
from ._spans import Spans

if TYPE_CHECKING:
    from asyncio import Future

    from .._rdkafka import RecordMetadata

__all__ = ["KafkaExtInstrumentor"]


class KafkaExtInstrumentor(BaseInstrumentor, metaclass=ABCMeta):  # type: ignore[misc]  # its own metaclass, which mypy cannot see
    """Instruments all producers of the process, those that are there already among them. There is
    one of it, however often it is made.

    `instrument()` takes, all by keyword:

    - `tracer_provider`, `meter_provider`: in place of the global ones.
    - `produce_hook`: called as `produce_hook(span, record)` before a record is sent, with a span
      that records, to give it more attributes. What it raises comes out of `send`, and nothing is
      sent.
    - `batch_headers` (True): put a batch's context into the headers of each of its records.
      Without, `send_batch` is as fast as ever (librdkafka's way for whole batches knows no
      headers), and consumers cannot tell what a record belongs to.

    `uninstrument()` puts the producers' own methods back. Sends on their way end their spans as
    ever.
    """

    _patches: ClassVar[list[tuple[type, str, Any]]] = []

    def instrumentation_dependencies(self) -> Collection[str]:
        """What is instrumented: this package."""
        return ["kafka-ext >= 0.1.0"]

    def _instrument(self, **options: Any) -> None:
        from opentelemetry.metrics import get_meter
        from opentelemetry.trace import get_tracer

        from ..aio import AsyncKafkaProducer

        meter_provider = options.get("meter_provider")
        tracer = get_tracer("kafka_ext", __version__, options.get("tracer_provider"))
        meter = get_meter("kafka_ext", __version__, meter_provider)
        hook = options.get("produce_hook")
        if hook is not None and not callable(hook):
            raise TypeError(f"produce_hook must be callable or None, not {type(hook).__name__}")
        spans = Spans(tracer, meter, hook, bool(options.get("batch_headers", True)))
        observed = Observed.begin(meter, meter_provider)
        for cls, methods in (
            (KafkaProducer, _methods(spans, observed)),
            (AsyncKafkaProducer, _async_methods(spans, observed)),
        ):
            for name, make in methods.items():
                self._patch(cls, name, make)

    def _patch(self, cls: type, name: str, make: Callable[[Any], Any]) -> None:
        original = getattr(cls, name)
        self._patches.append((cls, name, vars(cls).get(name)))
        setattr(cls, name, functools.wraps(original)(make(original)))

    def _uninstrument(self, **options: Any) -> None:
        for cls, name, own in reversed(self._patches):
            if own is None:
                delattr(cls, name)  # it is a base class's
            else:
                setattr(cls, name, own)
        self._patches.clear()
        Observed.end()


def _observing_init(observed: Observed) -> Callable[[Any], Any]:
    def make(original: Any) -> Any:
        def __init__(self: Any, *arguments: Any, **keywords: Any) -> None:  # noqa: N807 - it takes the place of one
            original(self, *arguments, **keywords)
            observed.watch(self.handle)

        return __init__

    return make


def _methods(spans: Spans, observed: Observed) -> dict[str, Callable[[Any], Any]]:
    """What takes the place of KafkaProducer's methods: by name, what makes it of the original."""

    def send(original: Any) -> Any:
        def send(
            self: KafkaProducer, record: ProducerRecord, on_delivery: Any = None, **options: Any
        ) -> None:
            sending = spans.begin(self, record, on_delivery)
            if sending is None:
                original(self, record, on_delivery, **options)
                return
            with sending:
                original(self, sending.record, sending, **options)

        return send

    def try_send(original: Any) -> Any:
        def try_send(
            self: KafkaProducer, record: ProducerRecord, on_delivery: Any = None, **options: Any
        ) -> KafkaError | None:
            sending = spans.begin(self, record, on_delivery)
            if sending is None:
                error: KafkaError | None = original(self, record, on_delivery, **options)
                return error
            with sending:
                error = original(self, sending.record, sending, **options)
                if error is not None:
                    sending.refused(error)
            return error

        return try_send

    def send_batch(original: Any) -> Any:
        def send_batch(
            self: KafkaProducer, topic: str, values: Any, **options: Any
        ) -> BatchDelivery:
            sending = spans.begin_batch(self, topic)
            if sending is None:
                batch: BatchDelivery = original(self, topic, values, **options)
                return batch
            with sending:
                batch = original(self, topic, values, **sending.with_headers(options))
                sending.sent(batch)
            return batch

        return send_batch

    def send_table(original: Any) -> Any:
        def send_table(
            self: KafkaProducer, table: Any, *, topic: str, **options: Any
        ) -> BatchDelivery:
            sending = spans.begin_batch(self, topic)
            if sending is None:
                batch: BatchDelivery = original(self, table, topic=topic, **options)
                return batch
            with sending:
                batch = original(self, table, topic=topic, **options)
                sending.sent(batch)
            return batch

        return send_table

    def close(original: Any) -> Any:
        def close(self: KafkaProducer, timeout: float | None = None) -> None:
            try:
                original(self, timeout)
            finally:
                observed.read(self._handle_or_none())

        return close

    return {
        "__init__": _observing_init(observed),
        "send": send,
        "try_send": try_send,
        "send_batch": send_batch,
        "send_table": send_table,
        "close": close,
    }


def _async_methods(spans: Spans, observed: Observed) -> dict[str, Callable[[Any], Any]]:
    """The same for AsyncKafkaProducer."""

    def send(original: Any) -> Any:
        async def send(self: Any, record: ProducerRecord, **options: Any) -> Future[RecordMetadata]:
            sending = spans.begin(self, record, None, current=False)
            if sending is None:
                future: Future[RecordMetadata] = await original(self, record, **options)
                return future
            with sending:
                future = await original(self, sending.record, **options)
                future.add_done_callback(sending.done)
            return future

        return send

    def send_nowait(original: Any) -> Any:
        def send_nowait(
            self: Any, record: ProducerRecord, **options: Any
        ) -> Future[RecordMetadata]:
            sending = spans.begin(self, record, None)
            if sending is None:
                future: Future[RecordMetadata] = original(self, record, **options)
                return future
            with sending:
                future = original(self, sending.record, **options)
                future.add_done_callback(sending.done)
            return future

        return send_nowait

    def send_batch(original: Any) -> Any:
        async def send_batch(self: Any, topic: str, values: Any, **options: Any) -> BatchDelivery:
            sending = spans.begin_batch(self, topic, current=False)
            if sending is None:
                batch: BatchDelivery = await original(self, topic, values, **options)
                return batch
            with sending:
                batch = await original(self, topic, values, **sending.with_headers(options))
                sending.sent(batch)
            return batch

        return send_batch

    def send_table(original: Any) -> Any:
        async def send_table(self: Any, table: Any, *, topic: str, **options: Any) -> BatchDelivery:
            sending = spans.begin_batch(self, topic, current=False)
            if sending is None:
                batch: BatchDelivery = await original(self, table, topic=topic, **options)
                return batch
            with sending:
                batch = await original(self, table, topic=topic, **options)
                sending.sent(batch)
            return batch

        return send_table

    def aclose(original: Any) -> Any:
        async def aclose(self: Any, timeout: float | None = None) -> None:
            try:
                await original(self, timeout)
            finally:
                observed.read(self._handle_or_none())

        return aclose

    return {
        "__init__": _observing_init(observed),
        "send": send,
        "send_nowait": send_nowait,
        "send_batch": send_batch,
        "send_table": send_table,
        "aclose": aclose,
    }
