"""Other clients, in this process and in others, can talk to an EmbeddedBroker."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import textwrap
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

import kafka_ext
from kafka_ext import KafkaProducer, ProducerRecord
from kafka_ext.testing import EmbeddedBroker


@pytest.fixture(params=["thread", "process"])
def broker(request: pytest.FixtureRequest) -> Iterator[EmbeddedBroker]:
    with EmbeddedBroker(topics={"orders": 2}, isolation=request.param) as broker:
        yield broker


def test_kafka_ext_in_another_process(broker: EmbeddedBroker) -> None:
    source = """
        import sys
        from kafka_ext import KafkaProducer, ProducerRecord
        with KafkaProducer(bootstrap_servers=sys.argv[1]) as producer:
            for n in range(100):
                producer.send(ProducerRecord("orders", str(n)))
    """
    environment = {**os.environ, "PYTHONPATH": str(Path(kafka_ext.__file__).parents[1])}
    subprocess.run(
        [sys.executable, "-c", textwrap.dedent(source), broker.bootstrap_servers],
        env=environment,
        check=True,
        timeout=120,
    )
    broker.assert_delivered("orders", [str(n) for n in range(100)], exactly_once=True, ordered=True)


# ---------------------------------------------------------------------- confluent-kafka


@pytest.fixture
def confluent() -> Any:
    return pytest.importorskip("confluent_kafka", reason="confluent-kafka is not installed")


def test_confluent_kafka_produces(broker: EmbeddedBroker, confluent: Any) -> None:
    errors = []
    producer = confluent.Producer(broker.config(linger_ms=1))
    for n in range(100):
        producer.produce(
            "orders",
            str(n),
            key=str(n),
            headers=[("n", str(n))],
            on_delivery=lambda error, message: errors.append(error),
        )
    assert producer.flush(60) == 0
    assert errors == [None] * 100
    broker.assert_delivered("orders", [str(n) for n in range(100)], exactly_once=True, ordered=True)
    assert all(message.headers == [("n", message.value)] for message in broker.messages("orders"))


def test_confluent_kafka_consumes_in_a_group(broker: EmbeddedBroker, confluent: Any) -> None:
    with KafkaProducer(broker.config()) as producer:
        for n in range(100):
            producer.send(ProducerRecord("orders", str(n)))
    consumer = confluent.Consumer(broker.config(group_id="readers", auto_offset_reset="earliest"))
    consumer.subscribe(["orders"])
    values: list[bytes | None] = []
    deadline = time.monotonic() + 60
    while len(values) < 100 and time.monotonic() < deadline:
        message = consumer.poll(0.2)
        if message is not None:
            assert message.error() is None
            values.append(message.value())
    consumer.close()
    assert sorted(value or b"" for value in values) == sorted(str(n).encode() for n in range(100))


def test_confluent_kafka_is_not_given_topics_without_auto_create(confluent: Any) -> None:
    with EmbeddedBroker(auto_create_topics=False) as broker:
        errors = []
        producer = confluent.Producer(broker.config(message_timeout_ms=2000))
        producer.produce(
            "unheard.of", b"a", on_delivery=lambda error, message: errors.append(error)
        )
        assert producer.flush(60) == 0
        assert len(errors) == 1
        assert (
            errors[0] is not None
        )  # and not compared with it: confluent-kafka's comparison breaks the interpreter's state


# ---------------------------------------------------------------------- kcat


@pytest.fixture
def kcat() -> str:
    found = shutil.which("kcat") or shutil.which("kafkacat")
    if found is None:
        pytest.skip("kcat is not installed")
    return found


def test_kcat_produces_and_consumes(broker: EmbeddedBroker, kcat: str) -> None:
    lines = [f"line {n}" for n in range(50)]
    subprocess.run(
        [kcat, "-P", "-b", broker.bootstrap_servers, "-t", "orders", "-p", "0"],
        input="\n".join(lines) + "\n",
        text=True,
        check=True,
        timeout=60,
    )
    broker.assert_delivered("orders", lines, exactly_once=True, ordered=True)
    read = subprocess.run(
        [kcat, "-C", "-b", broker.bootstrap_servers, "-t", "orders", "-o", "beginning", "-e", "-q"],
        capture_output=True,
        text=True,
        check=True,
        timeout=60,
    )
    assert read.stdout.splitlines() == lines


def test_kcat_lists_the_cluster(kcat: str) -> None:
    with EmbeddedBroker(brokers=3, topics={"orders": 6}) as broker:
        listed = subprocess.run(
            [kcat, "-L", "-b", broker.bootstrap_servers],
            capture_output=True,
            text=True,
            check=True,
            timeout=60,
        ).stdout
    assert "3 brokers" in listed
    assert 'topic "orders" with 6 partitions' in listed
