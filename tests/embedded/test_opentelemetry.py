"""kafka_ext.opentelemetry: spans, their context in the headers, and metrics, through the real SDK
and a real broker.
"""

from __future__ import annotations

import asyncio
import gc
import logging
import threading
import time
import weakref

import pytest
from faultlib import close_shared_producers, run_program, wait_until

pytest.importorskip("opentelemetry.sdk")
from opentelemetry import baggage, context, propagate, trace
from opentelemetry.instrumentation.utils import suppress_instrumentation
from opentelemetry.sdk.metrics import MeterProvider
from opentelemetry.sdk.metrics.export import InMemoryMetricReader
from opentelemetry.sdk.trace import SpanProcessor, TracerProvider
from opentelemetry.sdk.trace.export import SimpleSpanProcessor
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter
from opentelemetry.sdk.trace.sampling import ALWAYS_OFF
from opentelemetry.trace import SpanKind, StatusCode

from kafka_ext import (
    ActionWhileQueueIsFull,
    ErrorCode,
    KafkaException,
    KafkaProducer,
    KafkaSink,
    ProducerRecord,
    QueueFullError,
    _rdkafka,
    _shared_producers,
)
from kafka_ext.aio import AsyncKafkaProducer
from kafka_ext.logging import KafkaHandler
from kafka_ext.opentelemetry import KafkaExtInstrumentor
from kafka_ext.opentelemetry._attributes import of_servers
from kafka_ext.recoverable import RecoverableProducer
from kafka_ext.testing import EmbeddedBroker

STUCK = {
    "bootstrap.servers": "127.0.0.1:1",
    "test.mock.num.brokers": ...,
    "log_level": 0,
    "error_cb": lambda error: None,
}
ONE = STUCK | {"queue.buffering.max.messages": 1}


@pytest.fixture(scope="module")
def broker():
    with EmbeddedBroker(topics={"orders": 1, "other": 1}) as broker:
        yield broker


class Telemetry:
    """What was exported."""

    def __init__(self):
        self.exporter = InMemorySpanExporter()
        self.reader = InMemoryMetricReader()
        self.tracer_provider = TracerProvider()
        self.tracer_provider.add_span_processor(SimpleSpanProcessor(self.exporter))
        self.meter_provider = MeterProvider([self.reader])
        self.tracer = self.tracer_provider.get_tracer("test")

    def instrument(self, **options):
        KafkaExtInstrumentor().instrument(
            tracer_provider=self.tracer_provider, meter_provider=self.meter_provider, **options
        )

    def spans(self, count=None):
        if count is not None:
            wait_until(lambda: len(self.exporter.get_finished_spans()) >= count)
        spans = self.exporter.get_finished_spans()
        assert count is None or len(spans) == count
        return spans

    def span(self):
        (span,) = self.spans(1)
        return span

    def points(self, name):
        """The data points of a metric."""
        data = self.reader.get_metrics_data()
        for resource in data.resource_metrics if data else ():
            for scope in resource.scope_metrics:
                for metric in scope.metrics:
                    if metric.name == name:
                        return list(metric.data.data_points)
        return []

    def value(self, name, **labels):
        """The sum over the data points that have these attributes (`error_type="…"`)."""
        wanted = {label.replace("_", "."): value for label, value in labels.items()}
        return sum(
            point.value
            for point in self.points(name)
            if wanted.items() <= dict(point.attributes).items()
        )


@pytest.fixture
def telemetry():
    made = Telemetry()
    yield made
    if KafkaExtInstrumentor().is_instrumented_by_opentelemetry:
        KafkaExtInstrumentor().uninstrument()
    made.meter_provider.shutdown()


@pytest.fixture
def instrumented(telemetry):
    telemetry.instrument()
    return telemetry


@pytest.fixture
def producer(instrumented, broker, make_producer):
    return make_producer(broker.config() | {"test.mock.num.brokers": ..., "client.id": "shop"})


def parent_of(headers):
    """Whom a consumer takes for the sender's span, by the headers it reads."""
    carrier = {name: value.decode() for name, value in headers}
    found = trace.get_current_span(propagate.extract(carrier)).get_span_context()
    assert found.is_remote
    return trace.SpanContext(
        found.trace_id, found.span_id, False, found.trace_flags, found.trace_state
    )


def attributes(broker, **more):
    host, port = broker.bootstrap_servers.split(":")
    return {
        "messaging.system": "kafka",
        "messaging.client.id": "shop",
        "messaging.operation.name": "send",
        "messaging.operation.type": "send",
        "messaging.destination.name": "orders",
        "server.address": host,
        "server.port": int(port),
        **more,
    }


# ---------------------------------------------------------------------- spans


class TestSpans:
    def test_of_a_delivered_record(self, broker, instrumented, producer):
        with instrumented.tracer.start_as_current_span("request") as request:
            metadata = producer.sync_send(ProducerRecord("orders", b"v", key=b"a key"), 10)
        sent, outer = instrumented.spans(2)
        assert outer.name == "request"
        assert (sent.name, sent.kind, sent.status.status_code) == (
            "send orders",
            SpanKind.PRODUCER,
            StatusCode.UNSET,
        )
        assert sent.parent.span_id == request.get_span_context().span_id
        assert sent.context.trace_id == request.get_span_context().trace_id
        assert dict(sent.attributes) == attributes(
            broker,
            **{
                "messaging.kafka.message.key": "a key",
                "messaging.destination.partition.id": "0",
                "messaging.kafka.offset": metadata.offset,
            },
        )
        assert sent.instrumentation_scope.name == "kafka_ext"

    def test_the_context_travels_in_the_headers(self, broker, instrumented, producer):
        offset = producer.sync_send(
            ProducerRecord("orders", b"v", headers=[("app", b"1"), ("app", b"2")]), 10
        ).offset
        (message,) = (message for message in broker.messages("orders") if message.offset == offset)
        assert [header for header in message.headers if header[0] == "app"] == [
            ("app", b"1"),
            ("app", b"2"),
        ]
        assert (
            parent_of(header for header in message.headers if header[0] != "app")
            == instrumented.span().context
        )

    def test_baggage_travels_as_well(self, broker, producer):
        token = context.attach(baggage.set_baggage("tenant", "acme"))
        try:
            offset = producer.sync_send(ProducerRecord("orders", b"v"), 10).offset
        finally:
            context.detach(token)
        (message,) = (message for message in broker.messages("orders") if message.offset == offset)
        assert dict(message.headers)["baggage"] == b"tenant=acme"

    def test_a_context_that_came_with_the_headers_is_replaced(self, instrumented, producer):
        """A record that is passed on as it was read."""
        old = ("traceparent", b"00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01")
        for headers in (
            [old, ("app", b"1")],
            {"traceparent": old[1], "app": b"1"},
            [list(old), ["app", b"1"]],
        ):
            metadata = producer.sync_send(ProducerRecord("orders", b"v", headers=headers), 10)
            assert sorted(name for name, _ in metadata.headers) == ["app", "traceparent"]
            assert (
                parent_of([header for header in metadata.headers if header[0] != "app"])
                == instrumented.spans()[-1].context
            )

    def test_the_callers_record_is_not_changed(self, producer):
        headers = [("app", b"1")]
        record = ProducerRecord("orders", b"v", headers=headers)
        for _ in range(2):
            assert len(producer.sync_send(record, 10).headers) == 2
        assert record.headers is headers
        assert headers == [("app", b"1")]

    @pytest.mark.parametrize(
        ("record", "expected"),
        [
            (ProducerRecord("orders", b"v"), {}),
            (
                ProducerRecord("orders", None, key="text"),
                {"messaging.kafka.message.key": "text", "messaging.kafka.message.tombstone": True},
            ),
            (
                ProducerRecord("orders", b"v", key=bytearray("gr\u00fc\u00df".encode())),
                {"messaging.kafka.message.key": "gr\u00fc\u00df"},
            ),
            (ProducerRecord("orders", b"v", key=b"\xff\x00"), {}),  # it has no text
            (ProducerRecord("orders", b"v", key=b""), {"messaging.kafka.message.key": ""}),
        ],
    )
    def test_keys_and_tombstones(self, broker, instrumented, producer, record, expected):
        metadata = producer.sync_send(record, 10)
        report = {
            "messaging.destination.partition.id": "0",
            "messaging.kafka.offset": metadata.offset,
        }
        assert dict(instrumented.span().attributes) == attributes(broker, **report, **expected)

    def test_all_of_a_record_arrives(self, producer):
        record = ProducerRecord(
            "orders", b"12345", key=b"k", partition=0, timestamp=1_000_000, id="an id"
        )
        metadata = producer.sync_send(record, 10)
        assert (metadata.key_size, metadata.value_size, metadata.partition, metadata.record_id) == (
            1,
            5,
            0,
            "an id",
        )

    @pytest.mark.parametrize("send", ["send", "try_send", "send_future", "sync_send"])
    def test_each_way_to_send_makes_one(self, instrumented, producer, send):
        getattr(producer, send)(ProducerRecord("orders", b"v"))
        producer.flush(10)
        assert instrumented.span().name == "send orders"

    def test_it_lasts_until_the_report(self, instrumented, make_producer, reports):
        producer = make_producer({"enable.manual.events.poll": True})
        producer.send(ProducerRecord("t", b"v"), reports)
        wait_until(lambda: producer.metrics().waiting_events)
        assert instrumented.spans() == ()
        reported = time.time_ns()
        producer.flush(10)
        assert instrumented.span().end_time >= reported
        (point,) = instrumented.points("messaging.client.operation.duration")
        assert point.count == 1
        assert point.sum == pytest.approx(
            (instrumented.span().end_time - instrumented.span().start_time) / 1e9, abs=0.05
        )

    def test_a_callback_runs_in_the_context_of_its_send(self, instrumented, producer):
        seen = []
        with instrumented.tracer.start_as_current_span("request") as request:
            producer.send(
                ProducerRecord("orders", b"v"),
                lambda *report: seen.append(trace.get_current_span()),
            )
        producer.flush(10)
        assert seen == [request]

    def test_serializers_run_inside_of_it(self, instrumented, make_producer):
        inner = []

        def serialize(value):
            inner.append(trace.get_current_span().get_span_context())
            return value.encode()

        producer = make_producer(value_serializer=serialize, key_serializer=lambda key: b"%d" % key)
        producer.sync_send(ProducerRecord("t", "v", key=5), 10)
        assert inner == [instrumented.span().context]
        assert instrumented.span().attributes["messaging.kafka.message.key"] == "5"
        assert trace.get_current_span() is trace.INVALID_SPAN

    def test_interceptors_see_the_context(self, producer, instrumented, make_producer):
        seen = []

        class Interceptor:
            def on_send(self, record):
                seen.append(dict(record.headers))
                return record

            def on_acknowledgement(self, metadata, error):
                pass

        make_producer(interceptors=[Interceptor()]).sync_send(ProducerRecord("t", b"v"), 10)
        assert parent_of(seen[0].items()) == instrumented.span().context

    def test_spans_of_threads_have_their_own_parents(self, instrumented, producer):
        def work(number):
            with instrumented.tracer.start_as_current_span(f"request {number}"):
                for _ in range(20):
                    producer.send(ProducerRecord("orders", b"v"))

        threads = [threading.Thread(target=work, args=(number,)) for number in range(4)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        producer.flush(10)
        spans = instrumented.spans(84)
        requests = {span.context.span_id for span in spans if span.name.startswith("request")}
        parents = [span.parent.span_id for span in spans if span.name == "send orders"]
        assert sorted(parents) == sorted(list(requests) * 20)

    def test_a_span_that_is_not_sampled_still_has_its_context_passed_on(
        self, telemetry, broker, make_producer
    ):
        provider = TracerProvider(sampler=ALWAYS_OFF)
        KafkaExtInstrumentor().instrument(
            tracer_provider=provider, meter_provider=telemetry.meter_provider
        )
        metadata = make_producer().sync_send(ProducerRecord("t", b"v"), 10)
        assert not parent_of(metadata.headers).trace_flags.sampled
        assert telemetry.value("messaging.client.sent.messages") == 1


# ---------------------------------------------------------------------- failures


class TestFailures:
    def failed(self, span, kind):
        assert (span.status.status_code, span.attributes["error.type"]) == (StatusCode.ERROR, kind)
        assert "messaging.kafka.offset" not in span.attributes

    def test_a_record_that_is_not_delivered(self, instrumented, make_producer, reports):
        producer = make_producer(STUCK)
        producer.send(ProducerRecord("t", b"v"), reports)
        producer.purge()
        producer.flush(10)
        assert reports.errors == [ErrorCode.PURGE_QUEUE]
        self.failed(instrumented.span(), "PURGE_QUEUE")
        assert instrumented.span().status.description.startswith("PURGE_QUEUE: ")
        assert instrumented.value("messaging.client.sent.messages", error_type="PURGE_QUEUE") == 1
        (point,) = instrumented.points("messaging.client.operation.duration")
        assert point.attributes["error.type"] == "PURGE_QUEUE"

    def test_one_that_nobody_listens_to_is_logged_as_ever(
        self, instrumented, make_producer, caplog
    ):
        producer = make_producer(STUCK)
        producer.send(ProducerRecord("t", b"v"))
        producer.purge()
        producer.flush(10)
        assert "1 record to t not delivered, and no callback to tell: PURGE_QUEUE" in caplog.text

    def test_one_that_is_refused(self, instrumented, make_producer):
        producer = make_producer(ONE)
        producer.send(ProducerRecord("t", b"v"), lambda *report: None)
        with pytest.raises(QueueFullError):
            producer.send(ProducerRecord("t", b"v"), action=ActionWhileQueueIsFull.NO_BLOCK)
        assert producer.try_send(ProducerRecord("t", b"v")) == ErrorCode.QUEUE_FULL
        first, second = instrumented.spans(2)
        self.failed(first, "QUEUE_FULL")
        self.failed(second, "QUEUE_FULL")
        assert [event.name for event in first.events] == ["exception"]
        assert instrumented.value("messaging.client.sent.messages") == 0  # they never were
        producer.purge()

    def test_a_wrong_record(self, instrumented, producer):
        with pytest.raises(TypeError):
            producer.send(ProducerRecord("orders", object()))
        self.failed(instrumented.span(), "TypeError")

    @pytest.mark.parametrize(
        "call",
        [
            lambda p: p.send(5),
            lambda p: p.send(ProducerRecord("orders", b"v"), 5),
            lambda p: p.send(ProducerRecord("orders", b"v"), nonsense=1),
            lambda p: p.send(ProducerRecord("orders", b"v", headers=5)),
            lambda p: p.send(),
            lambda p: p.send_batch(5, [b"v"]),
            lambda p: p.send_batch("orders", [b"v"], headers=5),
            lambda p: p.send_batch("orders", [b"v"], headers=[5]),
            lambda p: p.send_batch("orders", [b"v"], headers="text"),
            lambda p: p.send_table([], topic="orders", value="v"),
        ],
    )
    def test_wrong_arguments_raise_as_ever(self, producer, instrumented, call):
        with pytest.raises(TypeError):
            call(producer)
        KafkaExtInstrumentor().uninstrument()
        with pytest.raises(TypeError):
            call(producer)

    def test_a_closed_producer(self, instrumented, producer):
        producer.close()
        with pytest.raises(KafkaException):
            producer.send(ProducerRecord("orders", b"v"))
        assert producer.metrics().sent == 0

    def test_a_hook_that_raises_keeps_the_record_from_being_sent(self, telemetry, make_producer):
        def hook(span, record):
            raise ZeroDivisionError

        telemetry.instrument(produce_hook=hook)
        producer = make_producer()
        with pytest.raises(ZeroDivisionError):
            producer.send(ProducerRecord("t", b"v"))
        assert producer.metrics().sent == 0
        assert telemetry.span().name == "send t"

    def test_a_span_processor_that_raises_costs_nobody_his_callback(
        self, telemetry, make_producer, reports, unraisable
    ):
        class Raising(SpanProcessor):
            def on_end(self, span):
                raise ZeroDivisionError

        telemetry.tracer_provider.add_span_processor(Raising())
        telemetry.instrument()
        producer = make_producer()
        producer.send(ProducerRecord("t", b"v"), reports)
        producer.flush(10)
        assert reports.errors == [None]
        assert [type(exc) for exc, _ in unraisable] == [ZeroDivisionError]
        assert producer.metrics().callback_errors == 1

    def test_a_callback_that_raises(self, instrumented, make_producer, unraisable):
        def on_delivery(metadata, error):
            raise ZeroDivisionError

        producer = make_producer()
        producer.send(ProducerRecord("t", b"v"), on_delivery)
        producer.flush(10)
        assert [type(exc) for exc, _ in unraisable] == [ZeroDivisionError]
        assert instrumented.span().status.status_code is StatusCode.UNSET

    def test_values_are_let_go(self, make_producer, instrumented):
        value = bytearray(b"v")
        producer = make_producer()
        producer.sync_send(ProducerRecord("t", value), 10)
        value.append(1)  # BufferError while it is pinned
        callback = weakref.ref(made := lambda *report: None)
        producer.send(ProducerRecord("t", value), made)
        del made
        producer.flush(10)
        gc.collect()
        assert callback() is None


# ---------------------------------------------------------------------- batches


class TestBatches:
    def test_one_span_for_all(self, broker, instrumented, producer):
        topic = "batched"
        broker.create_topic(topic)
        with instrumented.tracer.start_as_current_span("request") as request:
            producer.send_batch(topic, [b"1", b"2", b"3"]).wait(10)
        sent = next(span for span in instrumented.spans(2) if span.name == "send batched")
        assert sent.attributes["messaging.batch.message_count"] == 3
        assert (sent.kind, sent.status.status_code) == (SpanKind.PRODUCER, StatusCode.UNSET)
        assert sent.parent.span_id == request.get_span_context().span_id
        assert [parent_of(message.headers) for message in broker.messages(topic, 3)] == [
            sent.context
        ] * 3
        assert instrumented.value("messaging.client.sent.messages") == 3
        (point,) = instrumented.points("messaging.client.operation.duration")
        assert point.count == 1

    @pytest.mark.parametrize(
        "headers",
        [
            [("app", b"1")],
            {"app": b"1"},
            [[("app", b"1")], [("app", b"1")]],
            [{"app": b"1"}, (("app", b"1"),)],
        ],
        ids=["one list", "one mapping", "a list each", "mixed"],
    )
    def test_it_has_the_callers_headers_too(self, broker, instrumented, producer, headers):
        topic = f"batched-{time.monotonic_ns()}"
        broker.create_topic(topic)
        producer.send_batch(topic, [b"1", b"2"], headers=headers).wait(10)
        for message in broker.messages(topic, 2):
            assert dict(message.headers)["app"] == b"1"
            assert parent_of(message.headers[1:]) == instrumented.span().context

    def test_it_has_the_headers_of_an_iterator_at_two_rows(self, broker, instrumented, producer):
        topic = f"batched-{time.monotonic_ns()}"
        broker.create_topic(topic)
        headers = iter([("app", b"1")])
        producer.send_batch(topic, [b"1", b"2"], headers=[headers, headers]).wait(10)
        assert [message.headers[0] for message in broker.messages(topic, 2)] == [("app", b"1")] * 2

    def test_none_in_headers_where_that_is_not_wanted(
        self, telemetry, producer_without_batch_headers, broker
    ):
        topic = "batched-without"
        broker.create_topic(topic)
        producer_without_batch_headers.send_batch(topic, [b"1"]).wait(10)
        (message,) = broker.messages(topic, 1)
        assert not message.headers
        assert telemetry.span().name == f"send {topic}"

    @pytest.fixture
    def producer_without_batch_headers(self, telemetry, broker, make_producer):
        telemetry.instrument(batch_headers=False)
        return make_producer(broker.config() | {"test.mock.num.brokers": ...})

    def test_a_table(self, broker, instrumented, producer):
        pyarrow = pytest.importorskip("pyarrow")
        producer.send_table(pyarrow.table({"v": ["1", "2"]}), topic="other", value="v").wait(10)
        assert instrumented.span().attributes["messaging.batch.message_count"] == 2
        assert instrumented.span().name == "send other"

    def test_failures(self, instrumented, make_producer, caplog):
        producer = make_producer(STUCK | {"queue.buffering.max.messages": 3})
        batch = producer.send_batch("t", [b"v"] * 4, action=ActionWhileQueueIsFull.NO_BLOCK)
        producer.purge()
        batch.wait(10)
        span = instrumented.span()
        assert (span.status.status_code, span.attributes["error.type"]) == (
            StatusCode.ERROR,
            "PURGE_QUEUE",
        )
        assert span.status.description.startswith("4 of 4 records were not delivered: ")
        assert instrumented.value("messaging.client.sent.messages", error_type="PURGE_QUEUE") == 3
        assert instrumented.value("messaging.client.sent.messages", error_type="QUEUE_FULL") == 1
        assert (
            "4 of 4 records of a batch to t not delivered, and no callback to tell" in caplog.text
        )

    def test_failures_that_somebody_hears_of_are_not_logged(
        self, instrumented, make_producer, caplog
    ):
        producer = make_producer(STUCK)
        heard = []
        batch = producer.send_batch("t", [b"v"])
        batch.add_done_callback(heard.append)
        producer.purge()
        batch.wait(10)
        wait_until(lambda: heard)
        assert "no callback to tell" not in caplog.text

    def test_one_that_raises(self, instrumented, producer):
        with pytest.raises(TypeError):
            producer.send_batch("orders", [b"v", object()])
        assert instrumented.span().attributes["error.type"] == "TypeError"

    def test_an_empty_one(self, instrumented, producer):
        producer.send_batch("orders", []).wait(10)
        assert instrumented.span().attributes["messaging.batch.message_count"] == 0

    def test_an_interrupted_one_ends_with_its_last_report(self, instrumented, producer):
        pyarrow = pytest.importorskip("pyarrow")

        def chunks():
            yield pyarrow.record_batch({"v": ["1", "2"]})
            raise ZeroDivisionError

        reader = pyarrow.RecordBatchReader.from_batches(
            pyarrow.schema({"v": pyarrow.string()}), chunks()
        )
        with pytest.raises(Exception) as caught:
            producer.send_table(reader, topic="orders", value="v")
        caught.value.batch.wait(10)
        span = instrumented.span()
        assert span.attributes["messaging.batch.message_count"] == 2
        assert [event.name for event in span.events] == ["exception"]

    def test_a_sink_writes_with_spans(self, broker, instrumented):
        close_shared_producers()
        sink = KafkaSink(broker.config(enable_idempotence=False), "other")
        sink.write([b"1", b"2"])
        assert instrumented.span().attributes["messaging.batch.message_count"] == 2
        sink.close()
        assert not _shared_producers._producers


# ---------------------------------------------------------------------- asyncio


class TestAsync:
    def run(self, broker, use, **more):
        async def main():
            async with AsyncKafkaProducer(
                broker.config(enable_idempotence=False, client_id="shop", **more)
            ) as producer:
                await use(producer)

        asyncio.run(main())

    def test_a_delivered_record(self, broker, instrumented):
        async def use(producer):
            with instrumented.tracer.start_as_current_span("request"):
                future = await producer.send(
                    ProducerRecord("orders", b"v", key="k", headers=[("app", b"1")])
                )
                self.metadata = await future

        self.run(broker, use)
        sent, outer = sorted(instrumented.spans(2), key=lambda span: span.name == "request")
        assert dict(sent.attributes) == attributes(
            broker,
            **{
                "messaging.kafka.message.key": "k",
                "messaging.destination.partition.id": "0",
                "messaging.kafka.offset": self.metadata.offset,
            },
        )
        assert sent.parent.span_id == outer.context.span_id
        assert parent_of(self.metadata.headers[1:]) == sent.context
        assert instrumented.value("messaging.client.sent.messages") == 1

    def test_each_way_to_send_makes_one(self, broker, instrumented):
        async def use(producer):
            await producer.send(ProducerRecord("orders", b"v"))  # whose future nobody keeps
            await producer.send_and_wait(ProducerRecord("orders", b"v"))
            await producer.send_nowait(ProducerRecord("orders", b"v"))
            await (await producer.send_batch("other", [b"1", b"2"]))
            await asyncio.gather(
                *[producer.send_and_wait(ProducerRecord("orders", b"v")) for _ in range(10)]
            )

        self.run(broker, use)
        spans = instrumented.spans(14)
        assert [span.name for span in spans].count("send other") == 1
        assert all(span.status.status_code is StatusCode.UNSET for span in spans)
        assert instrumented.value("messaging.client.sent.messages") == 15

    def test_a_table(self, broker, instrumented):
        pyarrow = pytest.importorskip("pyarrow")

        async def use(producer):
            await (await producer.send_table(pyarrow.table({"v": ["1"]}), topic="other", value="v"))

        self.run(broker, use)
        assert instrumented.span().attributes["messaging.batch.message_count"] == 1

    def test_failures(self, instrumented):
        async def main():
            given = {name: value for name, value in ONE.items() if value is not ...}
            async with AsyncKafkaProducer(given, enable_idempotence=False) as producer:
                first = await producer.send(ProducerRecord("t", b"v"))
                with pytest.raises(QueueFullError):
                    producer.send_nowait(ProducerRecord("t", b"v"))
                waiting = asyncio.create_task(producer.send(ProducerRecord("t", b"v")))
                await asyncio.sleep(0.01)
                waiting.cancel()
                await asyncio.wait([waiting])
                assert waiting.cancelled()
                producer.purge()
                with pytest.raises(KafkaException):
                    await first
                with pytest.raises(KafkaException):
                    await producer.send(ProducerRecord("t", bytes(2_000_000)))

        asyncio.run(main())
        kinds = [span.attributes["error.type"] for span in instrumented.spans(4)]
        assert sorted(kinds) == [
            "CancelledError",
            "MSG_SIZE_TOO_LARGE",
            "PURGE_QUEUE",
            "QUEUE_FULL",
        ]
        assert instrumented.value("messaging.client.sent.messages") == 1

    def test_each_way_to_send_ends_its_span_when_it_fails(self, instrumented):
        async def main():
            given = {name: value for name, value in STUCK.items() if value is not ...}
            async with AsyncKafkaProducer(given, enable_idempotence=False) as producer:
                heard = []
                waiting = asyncio.create_task(producer.send_and_wait(ProducerRecord("t", b"v")))
                cancelled = asyncio.create_task(producer.send_and_wait(ProducerRecord("t", b"v")))
                sent = [
                    await producer.send(ProducerRecord("t", b"v")),
                    producer.send_nowait(ProducerRecord("t", b"v")),
                ]
                batch = await producer.send_batch("t", [b"1", b"2"], on_delivery=heard.append)
                await asyncio.sleep(0)  # both tasks have enqueued and wait
                assert producer.metrics().outstanding == 6
                cancelled.cancel()
                await asyncio.wait([cancelled])
                producer.purge()
                outcomes = await asyncio.gather(waiting, *sent, return_exceptions=True)
                assert [outcome.error.name for outcome in outcomes] == ["PURGE_QUEUE"] * 3
                await batch
                assert heard == [batch]
                assert batch.failed == 2

        asyncio.run(main())
        spans = instrumented.spans(5)
        kinds = [span.attributes.get("error.type") for span in spans]
        assert sorted(kinds, key=str) == [
            None,
            *["PURGE_QUEUE"] * 4,
        ]  # nobody knows what became of the one that was cancelled
        assert [span.attributes.get("messaging.batch.message_count") for span in spans].count(
            2
        ) == 1

    def test_a_cancelled_future_ends_its_span(self, instrumented):
        async def main():
            given = {name: value for name, value in STUCK.items() if value is not ...}
            async with AsyncKafkaProducer(given, enable_idempotence=False) as producer:
                (await producer.send(ProducerRecord("t", b"v"))).cancel()
                await asyncio.sleep(0)
                await asyncio.sleep(0)
                assert len(instrumented.spans()) == 1
                producer.purge()

        asyncio.run(main())
        assert instrumented.span().status.status_code is StatusCode.UNSET

    def test_a_failure_nobody_looked_at_is_still_told_by_asyncio(self, instrumented):
        told = []

        async def main():
            asyncio.get_running_loop().set_exception_handler(
                lambda loop, what: told.append(what["message"])
            )
            given = {name: value for name, value in STUCK.items() if value is not ...}
            async with AsyncKafkaProducer(given, enable_idempotence=False) as producer:
                await producer.send(ProducerRecord("t", b"v"))
                producer.purge()
                await producer.flush(10)
                await asyncio.sleep(0)
                gc.collect()

        asyncio.run(main())
        assert told == ["Future exception was never retrieved"]


# ---------------------------------------------------------------------- metrics


class TestMetrics:
    def test_by_the_conventions(self, broker, instrumented, producer):
        for topic in ("orders", "orders", "other"):
            producer.send(ProducerRecord(topic, b"v"))
        producer.flush(10)
        (orders, other) = sorted(
            instrumented.points("messaging.client.sent.messages"),
            key=lambda point: point.attributes["messaging.destination.name"],
        )
        assert (orders.value, other.value) == (2, 1)
        expected = attributes(broker)
        del expected["messaging.client.id"]
        assert dict(orders.attributes) == expected
        (orders, other) = sorted(
            instrumented.points("messaging.client.operation.duration"),
            key=lambda point: point.attributes["messaging.destination.name"],
        )
        assert (orders.count, dict(orders.attributes)) == (2, expected)
        assert orders.explicit_bounds[0] == 0.005

    def test_those_of_the_producer_itself(self, broker, instrumented, producer):
        producer.send(ProducerRecord("orders", b"123"))
        producer.send_batch("orders", [b"1", b"2"], on_delivery=lambda batch: None).wait(10)
        producer.flush(10)
        name = "kafka_ext.producer."
        (point,) = instrumented.points(name + "accepted.messages")
        host, port = broker.bootstrap_servers.split(":")
        assert dict(point.attributes) == {
            "messaging.system": "kafka",
            "messaging.client.id": "shop",
            "server.address": host,
            "server.port": int(port),
        }
        assert point.value == 3
        for metric, value in {
            "accepted.bytes": 5,
            "delivered.messages": 3,
            "failed.bytes": 0,
            "callback.errors": 0,
            "blocked.time": 0,
            "batches": 1,
            "outstanding.messages": 0,
            "pinned.messages": 0,
            "pinned.bytes": 0,
            "pending.batches": 0,
        }.items():
            assert [point.value for point in instrumented.points(name + metric)] == [value], metric
        assert len(instrumented.points(name + "waiting.events")) == 1
        for metric in ("failed.messages", "refused.messages", "errors"):
            assert instrumented.points(name + metric) == [], metric

    def test_failures_by_their_kind(self, instrumented, make_producer):
        producer = make_producer(ONE)
        producer.try_send(ProducerRecord("t", b"v"))
        producer.try_send(ProducerRecord("t", b"v"))
        assert instrumented.value("kafka_ext.producer.outstanding.messages") == 1
        assert instrumented.value("kafka_ext.producer.pinned.bytes") == 1
        producer.purge()
        producer.flush(10)
        assert (
            instrumented.value("kafka_ext.producer.failed.messages", error_type="PURGE_QUEUE") == 1
        )
        assert (
            instrumented.value("kafka_ext.producer.refused.messages", error_type="QUEUE_FULL") == 1
        )
        assert instrumented.value("kafka_ext.producer.outstanding.messages") == 0

    def test_counts_never_go_down(self, broker, instrumented, make_producer):
        """Producers of the same client.id come and go, and are one series."""

        def accepted():
            return instrumented.value(
                "kafka_ext.producer.accepted.messages", messaging_client_id="series"
            )

        for number in range(1, 4):
            with KafkaProducer(
                broker.config(enable_idempotence=False, client_id="series")
            ) as producer:
                producer.sync_send(ProducerRecord("orders", b"v"), 10)
                assert accepted() == number
            assert accepted() == number
            del producer
            gc.collect()
            assert accepted() == number
        with KafkaProducer(broker.config(enable_idempotence=False, client_id="series")) as other:
            other.sync_send(
                ProducerRecord("orders", b"v"), 10
            )  # closed and gone before anybody looks
        del other
        gc.collect()
        assert accepted() == 4
        both = [make_producer(client_id="series"), make_producer(client_id="series")]
        for producer in both:
            producer.sync_send(ProducerRecord("t", b"v"), 10)
        assert instrumented.value("kafka_ext.producer.accepted.messages") == 6

    def test_producers_from_before_are_counted_from_their_beginning(self, telemetry, make_producer):
        producer = make_producer()
        producer.sync_send(ProducerRecord("t", b"v"), 10)
        telemetry.instrument()
        assert telemetry.value("kafka_ext.producer.delivered.messages") == 1
        producer.sync_send(ProducerRecord("t", b"v"), 10)
        assert telemetry.value("kafka_ext.producer.delivered.messages") == 2
        assert telemetry.span().name == "send t"

    def test_a_dropped_producer_is_not_kept(self, instrumented, broker):
        producer = KafkaProducer(broker.config(enable_idempotence=False))
        producer.sync_send(ProducerRecord("orders", b"v"), 10)
        gone = weakref.ref(producer)
        handle = weakref.ref(producer.handle)
        with pytest.warns(ResourceWarning):
            del producer
        assert gone() is None
        wait_until(lambda: handle() is None)

    def test_of_an_asyncio_producer(self, broker, instrumented):
        async def main():
            async with AsyncKafkaProducer(broker.config(enable_idempotence=False)) as producer:
                await producer.send_and_wait(ProducerRecord("orders", b"v"))
            return weakref.ref(producer.handle)

        asyncio.run(main())
        gc.collect()
        assert instrumented.value("kafka_ext.producer.delivered.messages") == 1

    def test_a_recoverable_producer_has_both_of_its_producers(self, broker, instrumented):
        properties = broker.config(
            linger_ms=60_000, error_cb=lambda error: None, log_cb=lambda *log: None
        )
        with RecoverableProducer(properties, on_fatal="resend") as producer:
            producer.send(ProducerRecord("orders", b"v"), lambda *report: None)
            producer._newest.handle.test_fatal_error(
                ErrorCode.OUT_OF_ORDER_SEQUENCE_NUMBER, "for the test"
            )
            producer.flush(10)
        spans = instrumented.spans(2)
        assert [span.status.status_code for span in spans] == [StatusCode.ERROR, StatusCode.UNSET]
        assert instrumented.value("kafka_ext.producer.accepted.messages") == 2


# ---------------------------------------------------------------------- on and off


class TestInstrumentor:
    def test_without_it_the_methods_are_what_they_were(self, telemetry, make_producer):
        def methods():
            return [dict(vars(cls)) for cls in (KafkaProducer, AsyncKafkaProducer)]

        before = methods()
        assert KafkaProducer.send is _rdkafka.Producer.send
        assert "send" not in vars(KafkaProducer)
        telemetry.instrument()
        assert methods() != before
        assert KafkaProducer.send.__doc__ == _rdkafka.Producer.send.__doc__
        KafkaExtInstrumentor().uninstrument()
        assert methods() == before
        producer = make_producer()
        assert producer.sync_send(ProducerRecord("t", b"v"), 10).headers is None
        assert telemetry.spans() == ()
        assert telemetry.points("kafka_ext.producer.accepted.messages") == []

    def test_it_can_be_instrumented_anew(self, telemetry, make_producer):
        for number in range(1, 3):
            telemetry.instrument()
            with make_producer() as producer:
                producer.sync_send(ProducerRecord("t", b"v"), 10)
                assert telemetry.value("kafka_ext.producer.accepted.messages") == 1
            telemetry.spans(number)
            KafkaExtInstrumentor().uninstrument()

    def test_what_was_on_its_way_still_ends(self, telemetry, make_producer):
        telemetry.instrument()
        producer = make_producer({"enable.manual.events.poll": True})
        producer.send(ProducerRecord("t", b"v"))
        KafkaExtInstrumentor().uninstrument()
        producer.flush(10)
        assert telemetry.span().name == "send t"

    def test_a_hook_adds_attributes(self, telemetry, make_producer):
        telemetry.instrument(
            produce_hook=lambda span, record: span.set_attribute("size", len(record.value))
        )
        make_producer().sync_send(ProducerRecord("t", b"12345"), 10)
        assert telemetry.span().attributes["size"] == 5

    def test_a_hook_that_is_none(self, telemetry):
        with pytest.raises(TypeError, match="produce_hook must be callable"):
            telemetry.instrument(produce_hook=5)
        assert KafkaProducer.send is _rdkafka.Producer.send

    def test_suppressed(self, instrumented, producer):
        with suppress_instrumentation():
            assert producer.sync_send(ProducerRecord("orders", b"v"), 10).headers is None
            producer.send_batch("orders", [b"v"]).wait(10)
        assert instrumented.spans() == ()

    def test_log_records_are_no_spans(self, broker, instrumented):
        handler = KafkaHandler("logs", broker.config(enable_idempotence=False))
        logger = logging.getLogger("shop")
        logger.addHandler(handler)
        try:
            logger.warning("out of paper")
        finally:
            logger.removeHandler(handler)
            handler.close()
        assert len(broker.messages("logs", 1)) == 1
        assert instrumented.spans() == ()

    def test_opentelemetry_instrument_finds_it(self):
        from importlib.metadata import entry_points

        (found,) = entry_points(group="opentelemetry_instrumentor", name="kafka_ext")
        assert found.load() is KafkaExtInstrumentor
        assert KafkaExtInstrumentor()._check_dependency_conflicts() is None

    def test_without_the_extra_its_name_is_said(self):
        done = run_program("""
            sys.modules["opentelemetry"] = None
            try:
                import kafka_ext.opentelemetry
            except ImportError as exc:
                print(exc)
        """)
        assert 'pip install "kafka-ext[opentelemetry]"' in done.stdout

    def test_with_the_api_alone_it_does_nothing(self):
        """No SDK: spans are not recorded, and no header is made up."""
        done = run_program("""
            from kafka_ext.opentelemetry import KafkaExtInstrumentor
            KafkaExtInstrumentor().instrument()
            with KafkaProducer(QUICK) as producer:
                print(producer.sync_send(ProducerRecord("t", b"v"), 10).headers)
        """)
        assert done.stdout.split() == ["None"]

    def test_a_forked_child_counts_for_itself(self, broker):
        done = run_program(
            """
            from opentelemetry.sdk.metrics import MeterProvider
            from opentelemetry.sdk.metrics.export import InMemoryMetricReader
            from kafka_ext.opentelemetry import KafkaExtInstrumentor
            from kafka_ext.opentelemetry._observed import Observed

            KafkaExtInstrumentor().instrument(meter_provider=MeterProvider())
            properties = {"bootstrap.servers": sys.argv[1], "enable.idempotence": False}
            with KafkaProducer(properties) as gone:
                gone.sync_send(ProducerRecord("orders", b"v"), 10)
            del gone
            parents = KafkaProducer(properties)
            parents.sync_send(ProducerRecord("orders", b"v"), 10)
            print([metrics.sent for _, metrics in Observed._now.totals()], flush=True)
            child = os.fork()
            if not child:
                with KafkaProducer(properties) as own:
                    own.sync_send(ProducerRecord("orders", b"v"), 10)
                    print([metrics.sent for _, metrics in Observed._now.totals()], flush=True)
                os._exit(0)
            os.waitpid(child, 0)
            parents.close()
            print([metrics.sent for _, metrics in Observed._now.totals()], flush=True)
            """,
            arguments=[broker.bootstrap_servers],
        )
        assert done.stdout.split("\n")[:3] == ["[2]", "[1]", "[2]"]


@pytest.mark.parametrize(
    ("servers", "expected"),
    [
        ("h:1", {"server.address": "h", "server.port": 1}),
        ("h", {"server.address": "h", "server.port": 9092}),
        ("SASL_SSL://h:1", {"server.address": "h", "server.port": 1}),
        ("[::1]:5", {"server.address": "::1", "server.port": 5}),
        ("[::1]", {"server.address": "::1", "server.port": 9092}),
        ("a:1, b:2", {"server.address": "a:1,b:2"}),
        ("", {}),
        (None, {}),
    ],
)
def test_what_is_said_of_servers(servers, expected):
    assert of_servers(servers) == expected
