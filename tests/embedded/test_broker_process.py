"""isolation="process": a broker that can be killed and paused, and that ends when its tests do."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import textwrap
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

import kafka_ext
from kafka_ext import (
    ErrorCode,
    KafkaError,
    KafkaException,
    KafkaProducer,
    KafkaTimeoutError,
    ProducerRecord,
)
from kafka_ext.testing import ApiKey, BrokerStateError, EmbeddedBroker


@pytest.fixture
def broker() -> Iterator[EmbeddedBroker]:
    with EmbeddedBroker(isolation="process") as broker:
        yield broker


def open_producer(broker: EmbeddedBroker, **settings: Any) -> KafkaProducer:
    quick = {
        "linger_ms": 0,
        "retry_backoff_ms": 10,
        "reconnect_backoff_ms": 10,
        "reconnect_backoff_max_ms": 100,
    }
    return KafkaProducer(
        broker.config(**{**quick, **settings}),
        error_cb=lambda error: None,
        log_cb=lambda *line: None,
    )


def gone(pid: int, within: float = 30.0) -> bool:
    """Whether the process ends in time; a zombie has."""
    deadline = time.monotonic() + within
    while time.monotonic() < deadline:
        try:
            state = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0]
        except FileNotFoundError:
            return True
        if state == "Z":
            return True
        time.sleep(0.02)
    return False


def test_runs_in_a_process_of_its_own(broker: EmbeddedBroker) -> None:
    assert broker.isolation == "process"
    assert broker.pid != os.getpid()
    with open_producer(broker) as producer:
        producer.sync_send(ProducerRecord("orders", b"a", headers=[("h", None)]), timeout=30)
    (message,) = broker.messages("orders")
    assert (message.value, message.headers) == (b"a", [("h", None)])


def thread_states(pid: int) -> set[str]:
    return {
        (task / "stat").read_text().rpartition(")")[2].split()[0]
        for task in Path(f"/proc/{pid}/task").iterdir()
    }


@pytest.mark.skipif(sys.platform != "linux", reason="reads /proc")
def test_a_paused_one_has_stopped(broker: EmbeddedBroker) -> None:
    """All its threads have, when `pause` returns: nothing is answered any more. A signal's sender
    does not wait for that by itself.
    """
    with open_producer(broker) as producer:
        for number in range(50):
            for _ in range(10):
                producer.send(ProducerRecord("orders", b"keeps it busy"))
            broker.pause()
            states = thread_states(broker.pid)
            broker.resume()
            assert states == {"T"}, number
    broker.pause()
    broker.pause()  # one that is paused already is not waited for


def test_starts_in_a_moment() -> None:
    started = time.monotonic()
    EmbeddedBroker(isolation="process").close()
    assert time.monotonic() - started < 10  # 0.1 s on an idle machine


def test_closing_ends_its_process_and_leaves_no_descriptor() -> None:
    EmbeddedBroker(isolation="process").close()
    before = len(os.listdir("/dev/fd"))
    for _ in range(5):
        broker = EmbeddedBroker(isolation="process")
        pid = broker.pid
        broker.close()
        broker.close()
        with pytest.raises(ProcessLookupError):
            os.kill(pid, 0)
    assert len(os.listdir("/dev/fd")) == before


def test_what_it_is_told_wrong_is_raised_here() -> None:
    with pytest.raises(ValueError, match="brokers"):
        EmbeddedBroker(0, isolation="process")
    with EmbeddedBroker(isolation="process", topics={"a": 1}) as broker:
        with pytest.raises(KafkaException) as caught:
            broker.create_topic("a")
        assert caught.value.error == ErrorCode.TOPIC_ALREADY_EXISTS
        with pytest.raises(KafkaException) as caught:
            broker.move_leader("b", 0, 1)
        assert caught.value.error == ErrorCode.UNKNOWN_TOPIC_OR_PART


def test_kill_fails_what_is_on_its_way_and_close_does_not_hang(broker: EmbeddedBroker) -> None:
    reports: list[KafkaError | None] = []
    with open_producer(broker, message_timeout_ms=2000) as producer:
        producer.sync_send(ProducerRecord("orders", b"a"), timeout=30)
        pid = broker.pid
        broker.kill()
        assert gone(pid)
        for _ in range(10):
            producer.send(
                ProducerRecord("orders", b"b"), lambda metadata, error: reports.append(error)
            )
        producer.flush(timeout=60)
    assert reports == [ErrorCode.MSG_TIMED_OUT] * 10
    for call in (
        lambda: broker.messages("orders"),
        lambda: broker.reader("orders"),
        lambda: broker.create_topic("a"),
        lambda: broker.lose_acks(1),
        lambda: broker.kill(),
        lambda: broker.pause(),
        lambda: broker.resume(),
    ):
        with pytest.raises(BrokerStateError, match="killed"):
            call()
    assert broker.unused_faults() == []
    started = time.monotonic()
    broker.close()
    assert time.monotonic() - started < 5


def test_killed_in_flush_each_record_is_reported_once(broker: EmbeddedBroker) -> None:
    reports: list[KafkaError | None] = []
    with open_producer(broker, message_timeout_ms=3000) as producer:
        producer.sync_send(ProducerRecord("orders", b"a"), timeout=30)
        timer = threading.Timer(0.05, broker.kill)
        timer.start()
        for _ in range(20_000):
            producer.send(
                ProducerRecord("orders", b"x" * 100), lambda metadata, error: reports.append(error)
            )
        producer.flush(timeout=60)
        timer.join()
    assert len(reports) == 20_000


def test_a_killed_broker_comes_back_where_it_was_and_empty() -> None:
    with (
        EmbeddedBroker(brokers=2, topics={"orders": 2}, isolation="process") as broker,
        open_producer(broker) as producer,
    ):
        servers = broker.bootstrap_servers
        for partition in range(2):
            producer.sync_send(ProducerRecord("orders", b"before", partition=partition), timeout=30)
        broker.kill()
        broker.restart()
        assert broker.bootstrap_servers == servers
        assert broker.messages("orders") == []
        for partition in range(2):
            producer.sync_send(ProducerRecord("orders", b"after", partition=partition), timeout=60)
        broker.assert_delivered("orders", [b"after"] * 2)
        # It is a broker like any other, its faults included.
        broker.lose_acks(1)
        broker.stop_broker(1)
        broker.start_broker(1)
        broker.clear_faults()
        producer.sync_send(ProducerRecord("orders", b"again", partition=0), timeout=60)
        broker.assert_delivered("orders", [b"after", b"after", b"again"])


def test_a_running_broker_can_be_restarted(broker: EmbeddedBroker) -> None:
    first = broker.pid
    broker.restart()
    assert broker.pid != first
    assert gone(first)
    broker.pause()
    broker.restart()
    assert broker.messages("orders") == []


def test_pause_makes_a_producer_wait_and_resume_lets_it_through(broker: EmbeddedBroker) -> None:
    with open_producer(broker) as producer:
        producer.sync_send(ProducerRecord("orders", b"a"), timeout=30)
        broker.pause()
        broker.pause()
        with pytest.raises(KafkaTimeoutError):
            producer.sync_send(ProducerRecord("orders", b"b"), timeout=0.5)
        with pytest.raises(KafkaTimeoutError):
            broker.messages("orders", timeout=0.5)
        for call in (
            lambda: broker.create_topic("a"),
            lambda: broker.lose_acks(1),
            lambda: broker.unused_faults(),
        ):
            with pytest.raises(BrokerStateError, match="paused"):
                call()
        broker.resume()
        broker.resume()
        producer.flush(timeout=60)
    broker.assert_delivered("orders", [b"a", b"b"])


def test_a_paused_broker_can_be_killed_and_closed() -> None:
    with EmbeddedBroker(isolation="process") as broker:
        broker.pause()
        broker.kill()
    with EmbeddedBroker(isolation="process") as broker:
        broker.pause()
        pid = broker.pid
    assert gone(pid)


def test_a_process_that_ended_by_itself_is_noticed(broker: EmbeddedBroker) -> None:
    os.kill(broker.pid, signal.SIGTERM)
    with pytest.raises(BrokerStateError, match="SIGTERM"):
        broker.create_topic("a")
    broker.restart()
    broker.create_topic("a")


def test_ctrl_c_while_waiting_for_an_answer_does_not_mix_up_the_next(
    broker: EmbeddedBroker,
) -> None:
    os.kill(broker.pid, signal.SIGSTOP)  # behind its back, so that calls wait
    timer = threading.Timer(0.2, os.kill, (os.getpid(), signal.SIGINT))
    timer.start()
    started = time.monotonic()
    with pytest.raises(KeyboardInterrupt):
        broker.fail_requests(ApiKey.PRODUCE, [ErrorCode.INVALID_MSG])
    assert time.monotonic() - started < 5
    timer.join()
    os.kill(broker.pid, signal.SIGCONT)
    assert broker.unused_faults() == ["fail_requests(ApiKey.PRODUCE): 1 of 1"]
    broker.clear_faults()


def test_threads_share_one(broker: EmbeddedBroker) -> None:
    errors: list[BaseException] = []

    def work(name: str) -> None:
        try:
            for n in range(20):
                broker.create_topic(f"{name}-{n}")
                broker.unused_faults()
        except BaseException as error:  # noqa: BLE001 - shown in the main thread
            errors.append(error)

    threads = [threading.Thread(target=work, args=(f"t{i}",)) for i in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert errors == []


def python(source: str, **arguments: Any) -> subprocess.Popen[str]:
    environment = {**os.environ, "PYTHONPATH": str(Path(kafka_ext.__file__).parents[1])}
    return subprocess.Popen(
        [sys.executable, "-c", textwrap.dedent(source)],
        stdout=subprocess.PIPE,
        text=True,
        env=environment,
        **arguments,
    )


@pytest.mark.parametrize("how", ["exit", "_exit", "SIGKILL", "SIGTERM", "exception"])
@pytest.mark.parametrize("paused", [False, True])
def test_it_dies_with_its_parent(how: str, paused: bool) -> None:
    parent = python(
        f"""
        import os, signal, sys, warnings
        from kafka_ext.testing import EmbeddedBroker
        broker = EmbeddedBroker(isolation="process")
        if {paused}:
            broker.pause()
        print(broker.pid, flush=True)
        sys.stdin.readline()
        how = {how!r}
        if how == "exit":
            sys.exit(0)
        if how == "_exit":
            os._exit(0)
        if how == "exception":
            raise SystemExit("the end")
        os.kill(os.getpid(), getattr(signal, how))
    """,
        stdin=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
    )
    with parent:
        assert parent.stdin is not None
        assert parent.stdout is not None
        pid = int(parent.stdout.readline())
        assert not gone(pid, within=0.1)
        parent.stdin.write("\n")
        parent.stdin.close()
        parent.wait(60)
    assert gone(pid)


def test_it_dies_with_its_parent_though_a_forked_child_holds_the_pipe() -> None:
    parent = python(
        """
        import os, time
        from kafka_ext.testing import EmbeddedBroker
        broker = EmbeddedBroker(isolation="process")
        if os.fork() == 0:
            os.close(1)
            time.sleep(20)
            os._exit(0)
        print(broker.pid, flush=True)
        os._exit(0)
    """,
        stderr=subprocess.DEVNULL,
    )
    with parent:
        assert parent.stdout is not None
        pid = int(parent.stdout.readline())
        parent.wait(60)
    assert gone(pid, within=15)


def test_ctrl_c_in_the_terminal_is_not_for_the_broker(broker: EmbeddedBroker) -> None:
    assert os.getpgid(broker.pid) == broker.pid
    os.kill(broker.pid, signal.SIGINT)
    assert broker.messages("orders") == []
    broker.create_topic("a")


def test_it_is_found_from_any_working_directory(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "kafka_ext").mkdir()
    (tmp_path / "kafka_ext" / "__init__.py").write_text("raise ImportError('the wrong one')")
    monkeypatch.chdir(tmp_path)
    EmbeddedBroker(isolation="process").close()


@pytest.mark.filterwarnings(
    "ignore:.*fork:DeprecationWarning"
)  # forking with threads is what this is about
def test_a_forked_child_refuses_it_and_leaves_the_process_alone(broker: EmbeddedBroker) -> None:
    child = os.fork()
    if child == 0:
        status = 1
        try:
            try:
                broker.create_topic("a")
            except BrokerStateError as error:
                status = 0 if "fork" in str(error) else 2
            broker.close()
        finally:
            os._exit(status)
    _, wait_status = os.waitpid(child, 0)
    assert os.waitstatus_to_exitcode(wait_status) == 0
    broker.create_topic("a")


def test_dropping_it_unclosed_warns_and_ends_the_process() -> None:
    broker = EmbeddedBroker(isolation="process")
    pid = broker.pid
    with pytest.warns(ResourceWarning, match="unclosed <EmbeddedBroker"):
        del broker
    assert gone(pid)
