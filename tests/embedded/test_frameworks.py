"""The examples for web and task frameworks, under the real ones: their own workers, their own
forks.
"""

from __future__ import annotations

import asyncio
import http.client
import importlib.util
import os
import re
import signal
import subprocess
import sys
import time
from contextlib import contextmanager
from pathlib import Path

import pytest
from faultlib import free_port

from kafka_ext.testing import ApiKey, EmbeddedBroker

EXAMPLES = Path(__file__).resolve().parents[2] / "examples" / "frameworks"


@pytest.fixture
def broker():
    with EmbeddedBroker(topics={"orders": 1}) as broker:
        yield broker


def load(name):
    spec = importlib.util.spec_from_file_location(name, EXAMPLES / f"{name}.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


# ---------------------------------------------------------------------- FastAPI


@pytest.mark.filterwarnings("ignore::DeprecationWarning")
def test_fastapi(broker, monkeypatch):
    pytest.importorskip("fastapi")
    httpx = pytest.importorskip("httpx")
    monkeypatch.setenv("KAFKA", broker.bootstrap_servers)
    app = load("fastapi_app").app

    async def main():
        client = httpx.AsyncClient(transport=httpx.ASGITransport(app), base_url="http://test")
        async with app.router.lifespan_context(app), client:
            answers = await asyncio.gather(
                *(client.post("/orders/ada", content=b"%d" % number) for number in range(50))
            )
            assert {answer.status_code for answer in answers} == {200}
            assert sorted(answer.json()["offset"] for answer in answers) == list(range(50))
            broker.fail_requests(ApiKey.PRODUCE, [29])
            refused = await client.post("/orders/ada", content=b"refused")
            assert refused.status_code == 502
            assert "TOPIC_AUTHORIZATION_FAILED" in refused.json()["detail"]
        assert app.state.producer.handle.closed

    asyncio.run(main())
    assert {message.key for message in broker.messages("orders")} == {b"ada"}
    assert sorted(int(message.value) for message in broker.messages("orders")) == list(range(50))


# ---------------------------------------------------------------------- gunicorn


@contextmanager
def gunicorn(broker, application, *arguments, folder=EXAMPLES):
    """Real workers, forked from a master that has imported the application (--preload); posts to
    it.
    """
    pytest.importorskip("gunicorn")
    address = f"127.0.0.1:{free_port()}"
    command = [
        sys.executable,
        "-m",
        "gunicorn",
        "--preload",
        "--workers",
        "2",
        "--bind",
        address,
        *arguments,
        application,
    ]
    environment = os.environ | {"KAFKA": broker.bootstrap_servers}
    server = subprocess.Popen(
        command,
        cwd=folder,
        env=environment,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    )

    def post(body):
        deadline = time.monotonic() + 30
        while True:
            connection = http.client.HTTPConnection(address, timeout=20)
            try:
                connection.request("POST", "/", body)
                answer = connection.getresponse()
                return answer.status, answer.read().decode()
            except OSError:
                assert server.poll() is None
                if time.monotonic() > deadline:
                    raise
                time.sleep(0.1)
            finally:
                connection.close()

    try:
        yield server, post
    finally:
        if server.poll() is None:
            server.terminate()
        server.output = server.communicate(timeout=60)[0]


def test_gunicorn_with_a_producer_in_each_worker(broker):
    with gunicorn(broker, "wsgi_app:application", "--config", "python:wsgi_app") as (server, post):
        answers = [post(b"%d" % number) for number in range(30)]
    assert {status for status, _ in answers} == {200}
    workers = {answer.split()[0] for _, answer in answers}
    assert str(server.pid) not in workers
    assert server.returncode == 0, server.output
    assert "Traceback" not in server.output
    assert sorted(int(message.value) for message in broker.messages("orders")) == list(range(30))


def test_gunicorn_delivers_at_a_workers_end_what_was_only_sent(broker, tmp_path):
    """By the exit hook: what a request has sent without waiting for it is not lost."""
    (tmp_path / "app.py").write_text(
        (EXAMPLES / "wsgi_app.py")
        .read_text()
        .replace(
            'metadata = producer.sync_send(ProducerRecord("orders", body), timeout=10)',
            'producer.send(ProducerRecord("orders", body))',
        )
        .replace("{metadata.partition}@{metadata.offset}", "sent")
        .replace(
            'KafkaProducer(bootstrap_servers=os.environ["KAFKA"])',
            'KafkaProducer(bootstrap_servers=os.environ["KAFKA"], linger_ms=60_000)',
        )
    )
    with gunicorn(broker, "app:application", "--config", "python:app", folder=tmp_path) as (
        server,
        post,
    ):
        assert {post(b"%d" % number)[0] for number in range(10)} == {200}
        assert broker.messages("orders") == []
    assert server.returncode == 0, server.output
    assert sorted(int(message.value) for message in broker.messages("orders", count=10)) == list(
        range(10)
    )


def test_gunicorn_with_a_producer_made_before_the_fork(broker, tmp_path):
    """The mistake: each request is told so, the workers live on and end, and the master's producer
    is untouched.
    """
    source = (EXAMPLES / "wsgi_app.py").read_text()
    source = re.sub(r"def post_fork.*?\n\n\n", "", source, flags=re.DOTALL)
    source = re.sub(r"def worker_exit.*?\n\n\n", "", source, flags=re.DOTALL)
    (tmp_path / "app.py").write_text(
        source.replace(
            "producer: KafkaProducer\n",
            'producer = KafkaProducer(bootstrap_servers=os.environ["KAFKA"])\n',
        )
        + """

def on_exit(server: Any) -> None:
    producer.sync_send(ProducerRecord("orders", "the master"), timeout=10)
    producer.close()
"""
    )
    with gunicorn(broker, "app:application", "--config", "python:app", folder=tmp_path) as (
        server,
        post,
    ):
        for number in range(10):
            status, answer = post(b"%d" % number)
            assert status == 502
            assert "ProducerForkedError" in answer
            assert "make one in this process" in answer
    assert server.returncode == 0, server.output
    assert [message.value for message in broker.messages("orders")] == [b"the master"]


# ---------------------------------------------------------------------- Celery


@pytest.mark.slow(8)
def test_celery(broker, tmp_path, monkeypatch):
    pytest.importorskip("celery")
    for name in ("messages", "done", "control"):
        (tmp_path / name).mkdir()
    # The example as it is; what carries the tasks is files, for a test has no RabbitMQ.
    (tmp_path / "celery_app.py").write_text(
        (EXAMPLES / "celery_app.py").read_text()
        + f"""

app.conf.broker_transport_options = {{
    "data_folder_in": "{tmp_path}/messages", "data_folder_out": "{tmp_path}/messages",
    "processed_folder": "{tmp_path}/done", "control_folder": "{tmp_path}/control",
}}
"""
    )
    environment = os.environ | {"KAFKA": broker.bootstrap_servers, "CELERY_BROKER": "filesystem://"}
    send = (
        "from celery_app import order\nfor number in range(20): order.delay(f'item {number}',"
        " 'ada')"
    )
    subprocess.run(
        [sys.executable, "-c", send], cwd=tmp_path, env=environment, check=True, timeout=60
    )
    command = [
        sys.executable,
        "-m",
        "celery",
        "-A",
        "celery_app",
        "worker",
        "--pool",
        "prefork",
        "--concurrency",
        "2",
        "--loglevel",
        "INFO",
    ]
    worker = subprocess.Popen(
        command,
        cwd=tmp_path,
        env=environment,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    )
    try:
        messages = broker.messages("orders", count=20, timeout=60)
    finally:
        worker.send_signal(signal.SIGTERM)
        output = worker.communicate(timeout=60)[0]
    assert worker.returncode == 0, output
    pids, items = zip(*(message.value.decode().split(" ", 1) for message in messages), strict=True)
    assert sorted(items) == sorted(f"item {number}" for number in range(20))
    assert str(worker.pid) not in pids
    assert "Traceback" not in output
