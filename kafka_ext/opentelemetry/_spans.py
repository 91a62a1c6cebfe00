"""A span for each send, ended by its report; its context in the record's headers; and how long all
that took.
"""

from __future__ import annotations

import logging
import time
import weakref
from collections import Counter
from collections.abc import Callable, Mapping
from contextlib import AbstractContextManager
from types import TracebackType
from typing import TYPE_CHECKING, Any

from opentelemetry import context, propagate
from opentelemetry.instrumentation.utils import is_instrumentation_enabled
from opentelemetry.propagators.textmap import Setter
from opentelemetry.trace import SpanKind, Status, StatusCode, Tracer, set_span_in_context, use_span

from .. import logging as kafka_logging
from .._rdkafka import BatchDelivery, KafkaError, KafkaException, ProducerRecord, RecordMetadata
from . import _attributes as attributes
from ._attributes import Destination

if TYPE_CHECKING:
    from asyncio import Future

    from opentelemetry.metrics import Histogram, Meter
    from opentelemetry.trace import Span

_log = logging.getLogger("kafka_ext")

# Seconds, as the conventions have them.
_BUCKETS = (0.005, 0.01, 0.025, 0.05, 0.075, 0.1, 0.25, 0.5, 0.75, 1.0, 2.5, 5.0, 7.5, 10.0)

_Pairs = list[tuple[str, Any]]


class _HeaderSetter(Setter[_Pairs]):
    def set(self, carrier: _Pairs, key: str, value: str) -> None:
        carrier.append((key, value.encode()))


_SETTER = _HeaderSetter()


class Spans:
    """What the instrumented methods use."""

    def __init__(
        self,
        tracer: Tracer,
        meter: Meter,
        hook: Callable[[Span, ProducerRecord], object] | None,
        batch_headers: bool,
    ) -> None:
        self._tracer = tracer
        self._hook = hook
        self.batch_headers = batch_headers
        self._clients: weakref.WeakKeyDictionary[
            Any, tuple[dict[str, str | int], dict[str, Destination]]
        ] = weakref.WeakKeyDictionary()
        self.duration = _histogram(
            meter,
            "messaging.client.operation.duration",
            "s",
            "From a send to the report of what became of it, or to its refusal.",
        )
        self.sent = meter.create_counter(
            "messaging.client.sent.messages",
            "{message}",
            "Records that were sent and reported, as delivered or with error.type as failed.",
        )

    def _destination(self, producer: Any, topic: str) -> Destination | None:
        """None for a producer that can do nothing: the call itself says so."""
        try:
            client, topics = self._clients[producer]
        except KeyError:
            try:
                client, topics = self._clients[producer] = attributes.of_client(producer.handle), {}
            except KafkaException:
                return None
        destination = topics.get(topic)
        if destination is None:
            destination = Destination(client, topic)
            if len(topics) < 10_000:
                topics[topic] = destination
        return destination

    def _span(self, destination: Destination) -> Span:
        return self._tracer.start_span(
            destination.name, kind=SpanKind.PRODUCER, attributes=destination.span
        )

    def begin(
        self, producer: Any, record: Any, on_delivery: Any, *, current: bool = True
    ) -> Sending | None:
        """A send begins. None: it is not to be seen, or its arguments are such that it raises for
        them.
        """
        if not is_instrumentation_enabled() or getattr(kafka_logging._here, "emitting", False):
            # a KafkaHandler's records tell of what happens; their sending is not part of it
            return None
        if not isinstance(record, ProducerRecord) or not (
            on_delivery is None or callable(on_delivery)
        ):
            return None
        destination = self._destination(producer, record.topic)
        if destination is None:
            return None
        span = self._span(destination)
        try:
            if span.is_recording():
                _describe(span, record)
                if self._hook is not None:
                    self._hook(span, record)
            return Sending(
                self, destination, span, _with_context(record, span), on_delivery, current
            )
        except BaseException:
            span.end()
            raise

    def begin_batch(
        self, producer: Any, topic: Any, *, current: bool = True
    ) -> SendingBatch | None:
        if not is_instrumentation_enabled() or not isinstance(topic, str):
            return None
        destination = self._destination(producer, topic)
        return (
            None
            if destination is None
            else SendingBatch(self, destination, self._span(destination), current)
        )


class _Operation:
    """A send from its call to its end. As a context manager it is the call: what that raises ends
    it.
    """

    __slots__ = ("_context", "_current", "_destination", "_span", "_spans", "_started")

    def __init__(self, spans: Spans, destination: Destination, span: Span, current: bool) -> None:
        self._spans = spans
        self._destination = destination
        self._span = span
        self._context = context.get_current()  # the caller's
        # Not while a coroutine waits: whoever drives it may do so in one context and then in
        # another.
        self._current: AbstractContextManager[Any] | None = (
            use_span(span, end_on_exit=False, record_exception=False, set_status_on_exception=False)
            if current
            else None
        )
        self._started = time.perf_counter()

    def __enter__(self) -> None:
        if self._current is not None:
            self._current.__enter__()

    def __exit__(
        self,
        kind: type[BaseException] | None,
        exc: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        if self._current is not None:
            self._current.__exit__(None, None, None)
            self._current = None
        if exc is not None:
            self._raised(exc)

    def _raised(self, exc: BaseException) -> None:
        kind = exc.error.name if isinstance(exc, KafkaException) else type(exc).__qualname__
        self._span.record_exception(exc)
        self._failed(kind, str(exc))
        self._end(kind)

    def _failed(self, kind: str, text: str) -> None:
        if self._span.is_recording():
            self._span.set_attribute(attributes.ERROR_TYPE, kind)
            self._span.set_status(Status(StatusCode.ERROR, text))

    def _end(self, kind: str | None) -> None:
        self._span.end()
        self._spans.duration.record(time.perf_counter() - self._started, self._labels(kind))

    def _labels(self, kind: str | None) -> Mapping[str, Any]:
        labels = self._destination.metric
        return labels if kind is None else {**labels, attributes.ERROR_TYPE: kind}


class Sending(_Operation):
    """The send of a record, and its delivery callback."""

    __slots__ = ("__weakref__", "_on_delivery", "record")

    def __init__(
        self,
        spans: Spans,
        destination: Destination,
        span: Span,
        record: ProducerRecord,
        on_delivery: Any,
        current: bool,
    ) -> None:
        super().__init__(spans, destination, span, current)
        self.record: ProducerRecord | None = record
        self._on_delivery = on_delivery

    def __exit__(
        self,
        kind: type[BaseException] | None,
        exc: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self.record = None  # from here on the producer has it
        super().__exit__(kind, exc, traceback)

    def refused(self, error: KafkaError) -> None:
        """It was not enqueued, and nobody is called back."""
        self._failed(error.name, str(error))
        self._end(error.name)

    def __call__(self, metadata: RecordMetadata, error: KafkaError | None) -> None:
        """Reported. Whatever becomes of the span, the caller's own callback is called, in the
        context of the send.
        """
        try:
            self._reported(metadata, error)
        finally:
            on_delivery = self._on_delivery
            if on_delivery is None:
                if error is not None:
                    _log.warning(
                        "1 record to %s not delivered, and no callback to tell: %s",
                        metadata.topic,
                        error,
                    )
            elif self._context:
                token = context.attach(self._context)
                try:
                    on_delivery(metadata, error)
                finally:
                    context.detach(token)
            else:
                on_delivery(metadata, error)

    def done(self, future: Future[RecordMetadata]) -> None:
        """Reported to the future of an AsyncKafkaProducer; or that was cancelled, and nobody will
        know.
        """
        if future.cancelled():
            self._reported(None, None)
            return
        # Not by exception(): that would count as somebody's having looked at it, and asyncio would
        # not tell of a failure nobody saw.
        exc = future._exception if hasattr(future, "_exception") else future.exception()
        if exc is None:
            self._reported(future.result(), None)
        elif isinstance(exc, KafkaException):
            self._reported(None, exc.error)
        else:
            self._raised(exc)

    def _reported(self, metadata: RecordMetadata | None, error: KafkaError | None) -> None:
        span = self._span
        if metadata is not None and span.is_recording():
            if metadata.partition is not None:
                span.set_attribute(attributes.DESTINATION_PARTITION, str(metadata.partition))
            if metadata.offset is not None:
                span.set_attribute(attributes.OFFSET, metadata.offset)
        kind = None
        if error is not None:
            kind = error.name
            self._failed(kind, str(error))
        # First the count: who waits for the span may look at it.
        self._spans.sent.add(1, self._labels(kind))
        self._end(kind)


class SendingBatch(_Operation):
    """The sending of a batch or a table: one span for all of it."""

    __slots__ = ()

    def with_headers(self, options: dict[str, Any]) -> dict[str, Any]:
        """`send_batch`'s keyword arguments, with the context among the headers."""
        if not self._spans.batch_headers:
            return options
        carrier = _injected(self._span)
        if not carrier:
            return options
        headers = _merged_batch(options.get("headers"), carrier)
        return options if headers is None else {**options, "headers": headers}

    def sent(self, batch: BatchDelivery) -> None:
        """It ends when everything has been reported."""
        batch._observe(self._reported)

    def _raised(self, exc: BaseException) -> None:
        batch = getattr(exc, "batch", None)
        if batch is None:
            super()._raised(exc)
        else:  # interrupted: what it had enqueued is on its way
            self._span.record_exception(exc)
            self.sent(batch)

    def _reported(self, batch: BatchDelivery) -> None:
        failures = Counter(error.name for _, error in batch.errors()) if batch.failed else Counter()
        kind = None
        if self._span.is_recording():
            self._span.set_attribute(attributes.BATCH_MESSAGE_COUNT, len(batch))
        if failures:
            ((kind, _),) = failures.most_common(1)
            self._failed(
                kind,
                f"{batch.failed} of {len(batch)} records were not delivered: {', '.join(failures)}",
            )
        delivered = len(batch) - sum(failures.values())
        if delivered:
            self._spans.sent.add(delivered, self._labels(None))
        for name, count in failures.items():
            self._spans.sent.add(count, self._labels(name))
        self._end(kind)


def _histogram(meter: Meter, name: str, unit: str, description: str) -> Histogram:
    try:
        return meter.create_histogram(
            name, unit, description, explicit_bucket_boundaries_advisory=_BUCKETS
        )
    except TypeError:  # opentelemetry-api before 1.30
        return meter.create_histogram(name, unit, description)


def _describe(span: Span, record: ProducerRecord) -> None:
    key = attributes.key_text(record.key)
    if key is not None:
        span.set_attribute(attributes.MESSAGE_KEY, key)
    if record.partition is not None:
        span.set_attribute(attributes.DESTINATION_PARTITION, str(record.partition))
    if record.value is None:
        span.set_attribute(attributes.MESSAGE_TOMBSTONE, True)


def _injected(span: Span) -> _Pairs:
    """The headers that carry the span's context, by whatever propagators the program has."""
    carrier: _Pairs = []
    propagate.inject(carrier, set_span_in_context(span), _SETTER)
    return carrier


def _with_context(record: ProducerRecord, span: Span) -> ProducerRecord:
    """Another record with the span's context in its headers; its owner may send `record` again, or
    look at it.
    """
    carrier = _injected(span)
    if not carrier:
        return record
    headers = _merged(record.headers, carrier)
    if headers is None:
        return record
    return ProducerRecord(
        record.topic,
        record.value,
        key=record.key,
        partition=record.partition,
        headers=headers,
        timestamp=record.timestamp,
        id=record.id,
    )


def _merged(headers: Any, carrier: _Pairs) -> _Pairs | None:
    """`headers` with those of `carrier`, each in place of one of its name (a record may be passed
    on); None: the send raises for them.
    """
    try:
        pairs = list(headers.items() if isinstance(headers, Mapping) else headers or ())
    except TypeError:
        return None
    names = {name for name, _ in carrier}
    return [
        pair
        for pair in pairs
        if not (isinstance(pair, (tuple, list)) and pair and pair[0] in names)
    ] + carrier


def _merged_batch(headers: Any, carrier: _Pairs) -> Any:
    """The same for `send_batch`: one list for all records, or one for each."""
    if headers is None or isinstance(headers, Mapping):
        return _merged(headers, carrier)
    if isinstance(headers, (str, bytes, bytearray)):
        return None
    try:
        rows = list(headers)
    except TypeError:
        return None
    if all(isinstance(row, tuple) and len(row) == 2 and isinstance(row[0], str) for row in rows):
        return _merged(rows, carrier)
    read: dict[int, _Pairs | None] = {}  # an iterator in several rows gives its pairs once
    for row in rows:
        if id(row) not in read:
            read[id(row)] = _merged(row, carrier)
    merged = [read[id(row)] for row in rows]
    return None if any(row is None for row in merged) else merged
