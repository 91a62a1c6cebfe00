"""A WSGI application under gunicorn, whose workers are forked: each makes a producer of its own.

    KAFKA=localhost:9092 gunicorn --preload --workers 4 --config python:wsgi_app
    wsgi_app:application

The hooks below are gunicorn's configuration; here they stand beside the application.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable
from typing import Any

from kafka_ext import KafkaException, KafkaProducer, ProducerRecord

# With --preload this module is imported before the fork: no producer is made here. One that was
# would raise ProducerForkedError in every worker.
producer: KafkaProducer


def post_fork(server: Any, worker: Any) -> None:
    """In each worker, right after it was forked."""
    global producer
    producer = KafkaProducer(bootstrap_servers=os.environ["KAFKA"])


def worker_exit(server: Any, worker: Any) -> None:
    """In each worker, at its end: what it has sent is delivered."""
    producer.close(30)


def application(environ: dict[str, Any], start_response: Callable[..., Any]) -> Iterable[bytes]:
    body = environ["wsgi.input"].read(int(environ.get("CONTENT_LENGTH") or 0))
    try:
        metadata = producer.sync_send(ProducerRecord("orders", body), timeout=10)
    except KafkaException as exc:
        start_response("502 Bad Gateway", [("Content-Type", "text/plain")])
        return [f"{type(exc).__name__}: {exc}".encode()]
    start_response("200 OK", [("Content-Type", "text/plain")])
    return [f"{os.getpid()} {metadata.partition}@{metadata.offset}".encode()]
