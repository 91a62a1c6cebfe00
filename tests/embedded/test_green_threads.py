"""gevent and eventlet: `monkey.patch_all()` before or after the import changes nothing that a
caller relies on.
"""

from __future__ import annotations

import importlib.util
import json
import os
import signal
import subprocess
import sys
import textwrap
import threading
import time
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
from faultlib import free_port

from kafka_ext.testing import EmbeddedBroker

pytestmark = pytest.mark.found(16)

_PATCH = {
    "gevent": "from gevent import monkey; monkey.patch_all()",
    "eventlet": (
        "import warnings; warnings.simplefilter('ignore'); import eventlet; eventlet.monkey_patch()"
    ),
}
# An import that has nothing to do with the package: what is patched before and what after is all
# that differs.
_PROGRAM = """
import sys, threading, time
{before}
from kafka_ext import KafkaProducer, KafkaTimeoutError, ProducerRecord
{after}

servers = sys.argv[1]
ticks = 0
ended = []


def tick():
    global ticks
    while not ended:
        ticks += 1
        time.sleep(0.001)


def others_run(what):
    '''Call it, and check that other green threads ran while it waited: how often, a busy machine decides.'''
    began = ticks
    result = what()
    assert ticks > began + 1, ticks - began
    return result


def run(target):
    thread = threading.Thread(target=target)
    thread.start()
    return thread


ticker = run(tick)
{body}
ended.append(True)
ticker.join()
print("passed")
"""


def _needs(library: str) -> None:
    if importlib.util.find_spec(library) is None:
        pytest.skip(f"{library} is not installed")


def _start(library: str, when: str, body: str, *arguments: str) -> subprocess.Popen[str]:
    _needs(library)
    patch = _PATCH[library]
    before, after = (patch, "") if when == "before" else ("", patch)
    program = _PROGRAM.format(before=before, after=after, body=textwrap.dedent(body))
    return subprocess.Popen(
        [sys.executable, "-c", program, *arguments],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        bufsize=1,
    )


def _ends_well(process: subprocess.Popen[str]) -> None:
    assert process.stdout is not None
    assert process.stderr is not None
    hangs = False
    try:
        process.wait(timeout=60)
    except subprocess.TimeoutExpired:
        process.kill()
        hangs = True
    # Not communicate(): it does not know of lines that a readline() has taken along.
    with process:
        out, err = process.stdout.read(), process.stderr.read()
    assert not hangs, f"it hung, after {out!r}\n{err}"
    assert (process.returncode, out.strip().splitlines()[-1:]) == (0, ["passed"]), err


@pytest.fixture
def slow_broker() -> Iterator[EmbeddedBroker]:
    with EmbeddedBroker(topics={"t": 1}, isolation="process") as broker:
        broker.round_trip_time(0.06)
        yield broker


_BODIES = {
    "sending": (
        """
        def on_delivery(metadata, error):
            assert threading.get_ident() != main, "in a thread of its own"
            reports.append(error)


        main, reports = threading.get_ident(), []
        with KafkaProducer(bootstrap_servers=servers, linger_ms=20) as producer:
            producer.send(ProducerRecord("t", b"1"), on_delivery)
            others_run(lambda: producer.flush(30))
            assert reports == [None]
            assert others_run(lambda: producer.sync_send(ProducerRecord("t", b"2"), 30)).offset is not None
            assert others_run(producer.send_future(ProducerRecord("t", b"3")).result).offset is not None
            others_run(producer.send_batch("t", [b"4"] * 100).wait)
            others_run(lambda: producer.fetch_broker_metadata("t"))
            senders = [run(lambda: producer.sync_send(ProducerRecord("t", b"5"), 30)) for _ in range(20)]
            others_run(lambda: [sender.join() for sender in senders])
            assert producer.metrics().delivered == 123
            producer.send(ProducerRecord("t", b"6"))
            others_run(producer.close)
    """
    ),
    "a full queue": (
        """
        with KafkaProducer(bootstrap_servers=servers, queue_buffering_max_messages=1) as producer:
            producer.send(ProducerRecord("t", b"1"))
            others_run(lambda: producer.send(ProducerRecord("t", b"2"), timeout=30))
            try:
                others_run(lambda: producer.send(ProducerRecord("t", b"3"), timeout=0.05))
            except KafkaTimeoutError:
                pass
    """
    ),
    "closing twice at once": (
        """
        producer = KafkaProducer(bootstrap_servers=servers)
        producer.send(ProducerRecord("t", b"1"))
        closing = [run(producer.close) for _ in range(3)]
        others_run(lambda: [thread.join() for thread in closing])
        assert producer.metrics().delivered == 1
    """
    ),
    "manual polling": (
        """
        reports = []
        with KafkaProducer(bootstrap_servers=servers, enable_manual_events_poll=True) as producer:
            producer.send(ProducerRecord("t", b"1"), lambda metadata, error: reports.append(error))
            while not reports:
                producer.poll_events(0.2)
            others_run(lambda: producer.poll_events(0.2))
            others_run(lambda: producer.sync_send(ProducerRecord("t", b"2"), 30))
    """
    ),
    "transactions": (
        """
        with KafkaProducer(bootstrap_servers=servers, transactional_id="x") as producer:
            producer.init_transactions(30)
            for end in (producer.commit_transaction, producer.abort_transaction):
                producer.begin_transaction()
                producer.sync_send(ProducerRecord("t", b"1"), 30)
                others_run(lambda: end(30))
    """
    ),
    "recoverable": (
        """
        from kafka_ext.recoverable import RecoverableProducer

        with RecoverableProducer(bootstrap_servers=servers, on_fatal="resend") as producer:
            others_run(lambda: producer.sync_send(ProducerRecord("t", b"1"), 30))
            others_run(producer.send_future(ProducerRecord("t", b"2")).result)
            producer.send(ProducerRecord("t", b"3"))
            others_run(lambda: producer.flush(30))
    """
    ),
    "never closed": (
        """
        import warnings

        warnings.simplefilter("ignore", ResourceWarning)
        left = KafkaProducer(bootstrap_servers=servers, linger_ms=50)
        left.send(ProducerRecord("t", b"1"))
        dropped = KafkaProducer(bootstrap_servers=servers, linger_ms=50)
        dropped.send(ProducerRecord("t", b"2"))
        del dropped
    """
    ),
    "a sink and a handler": (
        """
        import logging
        from kafka_ext import KafkaSink
        from kafka_ext.logging import KafkaHandler

        others_run(lambda: KafkaSink({"bootstrap.servers": servers}, "t").write([b"1", b"2"]))
        handler = KafkaHandler("t", {"bootstrap.servers": servers})
        logging.getLogger("app").addHandler(handler)
        logging.getLogger("app").warning("3")
        others_run(handler.flush)
        handler.close()
        assert (handler.dropped, handler.failed) == (0, 0)
    """
    ),
}


@pytest.mark.parametrize("when", ["before", "after"])
@pytest.mark.parametrize("library", list(_PATCH))
@pytest.mark.parametrize("what", list(_BODIES))
def test_patched(what: str, library: str, when: str, slow_broker: EmbeddedBroker) -> None:
    _ends_well(_start(library, when, _BODIES[what], slow_broker.bootstrap_servers))
    if what == "never closed":
        assert {message.value for message in slow_broker.messages("t", 2)} == {b"1", b"2"}


@pytest.mark.parametrize("when", ["before", "after"])
@pytest.mark.parametrize("library", list(_PATCH))
def test_the_embedded_broker_in_a_patched_process(library: str, when: str) -> None:
    body = """
        from kafka_ext.testing import EmbeddedBroker

        for isolation in ("thread", "process"):
            with EmbeddedBroker(topics={"t": 1}, isolation=isolation) as broker, KafkaProducer(broker.config()) as producer:
                producer.sync_send(ProducerRecord("t", b"1"), 30)
                broker.lose_acks(1)
                producer.sync_send(ProducerRecord("t", b"2"), 30)
                assert {message.value for message in broker.messages("t", 2)} == {b"1", b"2"}
    """
    _ends_well(_start(library, when, body, ""))


@pytest.mark.parametrize("when", ["before", "after"])
@pytest.mark.parametrize("library", list(_PATCH))
@pytest.mark.parametrize(
    "wait", ["flush(60)", "close(60)", "sync_send(ProducerRecord('t', b'2'), 60)"]
)
def test_sigint_ends_a_wait(wait: str, library: str, when: str) -> None:
    body = f"""
        import signal

        def interrupt(number, frame):
            global waiting
            if waiting:  # once: a signal that comes sooner or later changes nothing
                waiting = False
                raise KeyboardInterrupt

        waiting = False
        signal.signal(signal.SIGINT, interrupt)
        ended.append(True)
        ticker.join()  # an exception in a green thread of `threading` would stay there
        producer = KafkaProducer(bootstrap_servers="127.0.0.1:1", log_cb=lambda *_: None, error_cb=lambda _: None)
        producer.send(ProducerRecord("t", b"1"))
        print("waiting", flush=True)
        try:
            waiting = True
            producer.{wait}
        except KeyboardInterrupt:
            print("interrupted", flush=True)
        producer.close(0)
    """
    process = _start(library, when, body, "")
    assert process.stdout is not None
    stop = threading.Event()

    def interrupt() -> None:
        deadline = time.monotonic() + 30
        while not stop.wait(0.1) and time.monotonic() < deadline:
            process.send_signal(signal.SIGINT)
        if not stop.is_set():
            process.kill()

    sender = threading.Thread(target=interrupt)
    try:
        assert process.stdout.readline() == "waiting\n"
        sender.start()
        assert process.stdout.readline() == "interrupted\n", "Ctrl-C was swallowed"
    finally:
        stop.set()
        if sender.ident is not None:
            sender.join()
    _ends_well(process)


# ---------------------------------------------------------------------- servers


@contextmanager
def _running(
    arguments: list[str], log: Path, environment: dict[str, str], directory: Path
) -> Iterator[subprocess.Popen[bytes]]:
    with log.open("wb") as out:
        process = subprocess.Popen(
            [sys.executable, "-m", *arguments],
            stdout=out,
            stderr=out,
            env={**os.environ, **environment},
            cwd=directory,
        )
    try:
        yield process
        process.terminate()
        assert process.wait(30) in (0, -signal.SIGTERM), log.read_text()
    finally:
        if process.poll() is None:
            process.kill()
            process.wait()


def _repository() -> str:
    return str(Path(__file__).resolve().parents[2])


_WSGI = """
import json, os

from kafka_ext import KafkaProducer, ProducerRecord

producer = None


def application(environ, start_response):
    global producer
    if producer is None:
        producer = KafkaProducer(bootstrap_servers=os.environ["SERVERS"])
    metadata = producer.sync_send(ProducerRecord("t", environ["PATH_INFO"]), 30)
    start_response("200 OK", [("Content-Type", "application/json")])
    return [json.dumps([metadata.partition, metadata.offset]).encode()]
"""


@pytest.mark.slow(4)
@pytest.mark.parametrize("options", [[], ["--preload"]], ids=["", "preload"])
@pytest.mark.parametrize("library", ["gevent"])
def test_gunicorn(
    library: str, options: list[str], tmp_path: Path, slow_broker: EmbeddedBroker
) -> None:
    _needs("gunicorn")
    _needs(library)
    (tmp_path / "app.py").write_text(_WSGI)
    port, log = free_port(), tmp_path / "log"
    arguments = [
        "gunicorn",
        "-k",
        library,
        "-w",
        "1",
        "-b",
        f"127.0.0.1:{port}",
        "--graceful-timeout",
        "5",
        *options,
        "app:application",
    ]
    environment = {
        "SERVERS": slow_broker.bootstrap_servers,
        "PYTHONPATH": f"{_repository()}{os.pathsep}{tmp_path}",
    }
    with _running(arguments, log, environment, tmp_path) as process:
        deadline = time.monotonic() + 60
        offsets = []
        for number in range(5):
            while True:
                try:
                    with urllib.request.urlopen(
                        f"http://127.0.0.1:{port}/{number}", timeout=30
                    ) as answer:
                        offsets.append(json.loads(answer.read()))
                    break
                except OSError:
                    assert process.poll() is None, log.read_text()
                    assert time.monotonic() < deadline, log.read_text()
                    time.sleep(0.05)
    assert offsets == [[0, number] for number in range(5)], log.read_text()


_TASKS = """
import os

from celery import Celery
from kafka_ext import KafkaProducer, ProducerRecord

folder = os.environ["FOLDER"]
app = Celery("tasks", broker="filesystem://", backend="file://" + folder + "/results")
app.conf.broker_transport_options = {
    "data_folder_in": folder + "/queue", "data_folder_out": folder + "/queue", "control_folder": folder + "/control"}
app.conf.broker_connection_retry_on_startup = True
producer = None


@app.task
def produce(text):
    global producer
    if producer is None:
        producer = KafkaProducer(bootstrap_servers=os.environ["SERVERS"])
    return producer.sync_send(ProducerRecord("t", text), 30).offset
"""


@pytest.mark.slow(6)
@pytest.mark.parametrize("library", list(_PATCH))
def test_celery(library: str, tmp_path: Path, slow_broker: EmbeddedBroker) -> None:
    _needs("celery")
    _needs(library)
    (tmp_path / "tasks.py").write_text(_TASKS)
    for folder in ("queue", "control", "results"):
        (tmp_path / folder).mkdir()
    environment = {
        "SERVERS": slow_broker.bootstrap_servers,
        "FOLDER": str(tmp_path),
        "PYTHONPATH": f"{_repository()}{os.pathsep}{tmp_path}",
        "PYTHONWARNINGS": "ignore",
    }
    log = tmp_path / "log"
    arguments = [
        "celery",
        "-A",
        "tasks",
        "worker",
        "-P",
        library,
        "-c",
        "4",
        "--without-gossip",
        "--without-mingle",
        "-l",
        "info",
    ]
    client = (
        "import tasks; print([r.get(timeout=60) for r in [tasks.produce.delay(str(i)) for i in"
        " range(5)]])"
    )
    with _running(arguments, log, environment, tmp_path):
        asked = subprocess.run(
            [sys.executable, "-c", client],
            env={**os.environ, **environment},
            cwd=tmp_path,
            capture_output=True,
            text=True,
            timeout=90,
        )
    assert asked.returncode == 0, asked.stderr + log.read_text()
    assert sorted(json.loads(asked.stdout)) == [0, 1, 2, 3, 4]
