"""What a new user meets first: a call as another client has it, and a broker that is not there."""

from __future__ import annotations

import asyncio
import logging
import re
import socket
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import pytest
from faultlib import closed_port

from kafka_ext import (
    ErrorCode,
    KafkaException,
    KafkaProducer,
    KafkaSink,
    KafkaTimeoutError,
    ProducerRecord,
)
from kafka_ext.aio import AsyncKafkaProducer
from kafka_ext.recoverable import RecoverableProducer
from kafka_ext.testing import EmbeddedBroker

pytestmark = pytest.mark.found(25)

Producer = KafkaProducer | RecoverableProducer


@pytest.fixture(params=[KafkaProducer, RecoverableProducer])
def producer(request: pytest.FixtureRequest, kafka_broker: EmbeddedBroker) -> Iterator[Producer]:
    with request.param(kafka_broker.config()) as producer:
        yield producer


@pytest.mark.parametrize(
    "arguments", [("topic", b"value"), ("topic",), (None,), ({"topic": "value"},)]
)
@pytest.mark.parametrize("call", ["send", "try_send", "sync_send", "send_future"])
def test_a_topic_and_a_value_in_place_of_a_record(
    producer: Producer, call: str, arguments: tuple[Any, ...]
) -> None:
    said = f'{call}(ProducerRecord("topic", b"value"))'
    if call == "send_future" and len(arguments) > 1:
        said = "send_future() takes 2 positional arguments"  # Python's own: it has no second one
    with pytest.raises(TypeError, match=re.escape(said)):
        getattr(producer, call)(*arguments)
    assert producer.metrics().sent == 0


@pytest.mark.parametrize("call", ["send", "send_nowait", "send_and_wait"])
@pytest.mark.anyio
async def test_a_topic_and_a_value_in_place_of_a_record_on_asyncio(
    kafka_broker: EmbeddedBroker, call: str
) -> None:
    async with AsyncKafkaProducer(kafka_broker.config()) as producer:
        for arguments in (("topic", b"value"), ("topic",), (None,)):
            with pytest.raises(
                TypeError, match=re.escape(f'{call}(ProducerRecord("topic", b"value"))')
            ):
                await getattr(producer, call)(*arguments)


def test_what_is_no_topic_for_a_batch(kafka_broker: EmbeddedBroker) -> None:
    with (
        KafkaProducer(kafka_broker.config()) as producer,
        pytest.raises(
            TypeError, match=r"topic must be a str, not list: send_batch\(topic, values\)"
        ),
    ):
        producer.send_batch([b"value"], "topic")  # type: ignore[arg-type]
    sink = KafkaSink(kafka_broker.config(), "orders")
    for rows in ("value", b"value", ProducerRecord("orders", b"value")):
        with pytest.raises(TypeError, match="rows must be many rows"):
            sink.write(rows)  # type: ignore[arg-type]
    assert not kafka_broker.messages("orders")


# ---------------------------------------------------------------------- brokers that are not there


def _unused_port() -> int:
    return int(closed_port().rpartition(":")[2])


@contextmanager
def _lines(caplog: pytest.LogCaptureFixture) -> Iterator[list[str]]:
    lines: list[str] = []
    with caplog.at_level(logging.DEBUG, "kafka_ext"):
        yield lines
        lines += [
            record.getMessage() for record in caplog.records if record.levelno >= logging.WARNING
        ]


def _eventually(condition: Callable[[], bool], seconds: float = 60) -> None:
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.02)


def test_one_line_for_a_broker_that_is_down(caplog: pytest.LogCaptureFixture) -> None:
    port = _unused_port()
    with _lines(caplog) as lines, KafkaProducer(bootstrap_servers=f"127.0.0.1:{port}") as producer:
        producer.send(ProducerRecord("orders", b"value"), lambda metadata, error: None)
        # librdkafka has told it more often, which a metric and DEBUG show.
        _eventually(lambda: producer.metrics().errors.get(ErrorCode["ALL_BROKERS_DOWN"], 0) >= 5)
        producer.close(0)
    assert len(lines) == 1, lines
    assert f"kafka_ext: TRANSPORT: 127.0.0.1:{port}: " in lines[0]
    assert "Connection refused; it goes on trying: check that" in lines[0]


def test_callbacks_are_told_everything(caplog: pytest.LogCaptureFixture) -> None:
    errors, logs = [], []
    with (
        _lines(caplog) as lines,
        KafkaProducer(
            bootstrap_servers=f"127.0.0.1:{_unused_port()}",
            error_cb=errors.append,
            log_cb=lambda *line: logs.append(line),
        ) as producer,
    ):
        producer.send(ProducerRecord("orders", b"value"), lambda metadata, error: None)
        _eventually(lambda: len(errors) >= 5 and len(logs) >= 1)
        producer.close(0)
    assert not lines


@pytest.mark.slow(5)
def test_a_port_that_accepts_and_says_nothing(caplog: pytest.LogCaptureFixture) -> None:
    with socket.socket() as listener, _lines(caplog) as lines:
        listener.bind(("127.0.0.1", 0))
        listener.listen()
        address = f"127.0.0.1:{listener.getsockname()[1]}"
        with KafkaProducer(bootstrap_servers=address) as producer:
            producer.send(ProducerRecord("orders", b"value"), lambda metadata, error: None)
            _eventually(
                lambda: any(
                    "nothing was acknowledged" in record.getMessage() for record in caplog.records
                )
            )
            producer.close(0)
    assert sum("nothing was acknowledged" in line for line in lines) == 1
    assert all(address in line for line in lines)


_CAUSE = (
    "last connection error: 127.0.0.1:{port}: Connect to ipv4#127.0.0.1:{port} failed: Connection"
    " refused"
)


def _wait_for_an_error(producer: Producer) -> None:
    _eventually(lambda: producer.metrics().errors.get(ErrorCode["TRANSPORT"], 0) > 0)


@pytest.mark.parametrize("kind", [KafkaProducer, RecoverableProducer])
def test_a_timeout_says_its_cause(kind: type[Producer]) -> None:
    port = _unused_port()
    cause = re.escape(_CAUSE.format(port=port))
    with kind(
        bootstrap_servers=f"127.0.0.1:{port}", error_cb=lambda error: None, message_timeout_ms=3000
    ) as producer:
        outcome = producer.send_future(ProducerRecord("orders", b"value"))
        _wait_for_an_error(producer)
        with pytest.raises(KafkaTimeoutError, match=cause):
            producer.flush(0.1)
        with pytest.raises(KafkaTimeoutError, match=cause):
            producer.sync_send(ProducerRecord("orders", b"value"), 0.1)
        with pytest.raises(KafkaTimeoutError, match=cause):
            producer.fetch_broker_metadata("orders", 0.1)
        with pytest.raises(
            KafkaException, match=f"MSG_TIMED_OUT: Local: Message timed out; {cause}"
        ):
            outcome.result(60)


def test_a_batch_and_a_full_queue_say_it_too() -> None:
    port = _unused_port()
    cause = re.escape(_CAUSE.format(port=port))
    with KafkaProducer(
        bootstrap_servers=f"127.0.0.1:{port}",
        error_cb=lambda error: None,
        queue_buffering_max_messages=2,
    ) as producer:
        _wait_for_an_error(producer)
        batch = producer.send_batch("orders", [b"1", b"2"])
        with pytest.raises(KafkaTimeoutError, match=cause):
            batch.wait(0.1)
        with pytest.raises(KafkaTimeoutError, match=cause):
            producer.send(
                ProducerRecord("orders", b"value"), lambda metadata, error: None, timeout=0.1
            )
        producer.purge()
        producer.flush(30)
        producer.close(0)


def test_the_calls_of_transactions_say_it_too() -> None:
    port = _unused_port()
    with KafkaProducer(
        bootstrap_servers=f"127.0.0.1:{port}", error_cb=lambda error: None, transactional_id="one"
    ) as producer:
        _wait_for_an_error(producer)
        with pytest.raises(KafkaException, match=re.escape(_CAUSE.format(port=port))) as caught:
            producer.init_transactions(0.1)
        assert caught.value.error.is_retriable
    with (
        EmbeddedBroker() as broker,
        KafkaProducer(
            broker.config(transactional_id="one"), error_cb=lambda error: None
        ) as producer,
    ):
        producer.init_transactions(30)
        producer.begin_transaction()
        broker.close()
        _wait_for_an_error(producer)
        with pytest.raises(KafkaException, match="last connection error: ") as caught:
            producer.send_offsets_to_transaction({("orders", 0): 1}, "group", 0.1)
        assert caught.value.error.is_retriable
        producer.send(ProducerRecord("orders", b"value"), lambda metadata, error: None)
        for _ in range(2):
            with pytest.raises(KafkaTimeoutError, match="last connection error: "):
                producer.commit_transaction(0.1)
        producer.close(0)


@pytest.mark.anyio
async def test_the_calls_of_asyncios_transactions_say_it_too() -> None:
    port = _unused_port()
    failed = asyncio.Event()
    producer = AsyncKafkaProducer(
        bootstrap_servers=f"127.0.0.1:{port}",
        error_cb=lambda error: failed.set(),
        transactional_id="one",
    )
    try:
        await asyncio.wait_for(failed.wait(), 20)
        with pytest.raises(KafkaException, match=re.escape(_CAUSE.format(port=port))):
            await producer.init_transactions(0.1)
    finally:
        await producer.aclose(0)


def test_a_slow_answer_about_the_cluster_is_waited_for(kafka_broker: EmbeddedBroker) -> None:
    """It was asked for again after one second and after two more, and each answer that came later
    was lost.
    """
    with KafkaProducer(kafka_broker.config()) as producer:
        # Connected, and with its producer id: nothing else waits for an answer below.
        producer.sync_send(ProducerRecord("orders", b"value"), 20)
        kafka_broker.round_trip_time(2.2)
        try:
            assert producer.fetch_broker_metadata(timeout=5.1).brokers
        finally:
            kafka_broker.round_trip_time(0)


@pytest.mark.slow(5)
def test_a_slow_broker_is_no_warning(caplog: pytest.LogCaptureFixture) -> None:
    with EmbeddedBroker() as broker, _lines(caplog) as lines:
        broker.round_trip_time(0.7)
        with KafkaProducer(broker.config()) as producer:
            producer.sync_send(ProducerRecord("orders", b"value"), 60)
    assert not [
        line
        for line in lines
        if "producer" in line.lower() and "nothing was acknowledged" not in line
    ]
    assert not [line for line in lines if "PID" in line]
