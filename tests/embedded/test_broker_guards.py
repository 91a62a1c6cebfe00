"""What a broker inside the test's process must not do to it."""

from __future__ import annotations

import copy
import fcntl
import pickle
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from faultlib import run_program

from kafka_ext import KafkaException, KafkaProducer, ProducerRecord, _rdkafka
from kafka_ext.testing import EmbeddedBroker, KafkaCluster

_TRY_LOCK = """
import fcntl, sys

with open(sys.argv[1], "r+b") as file:
    try:
        fcntl.lockf(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError:
        print("locked")
"""


@pytest.mark.found(19)
def test_lost_acks_leave_the_locks_of_the_process_alone(tmp_path: Path) -> None:
    path = tmp_path / "file"
    path.write_bytes(b"x")
    with (
        EmbeddedBroker() as broker,
        KafkaProducer(broker.config()) as producer,
        path.open("r+b") as file,
    ):
        fcntl.lockf(file, fcntl.LOCK_EX)
        broker.lose_acks(1)
        producer.sync_send(ProducerRecord("orders", b"value"), 60)
        tried = subprocess.run(
            [sys.executable, "-c", _TRY_LOCK, path], capture_output=True, text=True, check=True
        )
        assert tried.stdout == "locked\n"


@pytest.mark.found(20)
@pytest.mark.parametrize("take", [copy.copy, copy.deepcopy, pickle.dumps])
@pytest.mark.parametrize("isolation", ["thread", "process"])
def test_a_broker_is_not_copied(take: Callable[[Any], Any], isolation: Any) -> None:
    with EmbeddedBroker(isolation=isolation) as broker:
        with pytest.raises(TypeError, match="cannot be copied or pickled"):
            take(broker)
        with KafkaProducer(broker.config()) as producer:
            producer.sync_send(ProducerRecord("orders", b"value"), 60)


@pytest.mark.found(20)
@pytest.mark.parametrize("take", [copy.copy, copy.deepcopy, pickle.dumps])
@pytest.mark.parametrize(
    "make",
    [lambda: KafkaCluster.__new__(KafkaCluster), lambda: _rdkafka.MockCluster(1)],
    ids=["KafkaCluster", "MockCluster"],
)
def test_nor_is_what_else_owns_brokers(take: Callable[[Any], Any], make: Callable[[], Any]) -> None:
    with pytest.raises(TypeError, match="cannot"):
        take(make())


@pytest.mark.found(20)
@pytest.mark.skipif(
    "mock-descriptors" not in _rdkafka.build_info()["patches"],
    reason="this librdkafka ends the process",
)
def test_no_descriptors_left_do_not_end_the_process() -> None:
    """In a process of its own: with a limit of three there is none for what is opened
    from then on.
    """
    run_program("""
        import resource, socket
        from kafka_ext.testing import EmbeddedBroker

        soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
        with EmbeddedBroker(topics={"orders": 1}) as broker, KafkaProducer(broker.config(), error_cb=lambda error: None) as producer:
            producer.sync_send(ProducerRecord("orders", b"before"), 30)
            client = socket.socket()
            host, port = broker.bootstrap_servers.split(":")

            resource.setrlimit(resource.RLIMIT_NOFILE, (3, hard))
            client.connect((host, int(port)))       # nobody accepts it
            producer.sync_send(ProducerRecord("orders", b"there already"), 30)
            broker.stop_broker(1)
            try:
                broker.start_broker(1)
            except KafkaException as exc:
                assert "rd_kafka_mock_broker_set_up" in str(exc), exc
            else:
                raise AssertionError("it has started without a descriptor")

            resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))
            client.close()
            broker.start_broker(1)
            producer.sync_send(ProducerRecord("orders", b"after"), 30)
            assert [message.value for message in broker.messages("orders", 3)] == [b"before", b"there already", b"after"]
        """)


@pytest.mark.slow(9)
@pytest.mark.found(20)
def test_a_message_over_256_mib_does_not_end_the_process() -> None:
    config = {
        "message_max_bytes": 1_000_000_000,
        "message_timeout_ms": 8000,
        # The small record's time must not be over before the next connection is tried.
        "reconnect_backoff_max_ms": 500,
        "error_cb": lambda error: None,
    }
    with EmbeddedBroker() as broker, KafkaProducer(broker.config(**config)) as producer:
        with pytest.raises(KafkaException):
            producer.sync_send(ProducerRecord("orders", bytes(257 << 20)), 60)
        producer.sync_send(ProducerRecord("orders", b"value"), 60)
