"""Celery with the prefork pool: each worker process makes a producer of its own.

    KAFKA=localhost:9092 celery -A celery_app worker --concurrency 4

Needs celery, and a broker for it (CELERY_BROKER).
"""

from __future__ import annotations

import os
from typing import Any

from celery import Celery
from celery.signals import worker_process_init, worker_process_shutdown

from kafka_ext import KafkaProducer, ProducerRecord

app = Celery("shop", broker=os.environ.get("CELERY_BROKER", "amqp://"))

producer: KafkaProducer


@worker_process_init.connect
def make_producer(**_: Any) -> None:
    """In each process of the pool, after the fork."""
    global producer
    producer = KafkaProducer(bootstrap_servers=os.environ["KAFKA"])


@worker_process_shutdown.connect
def close_producer(**_: Any) -> None:
    producer.close(30)


@app.task(acks_late=True)
def order(item: str, customer: str) -> None:
    # Acknowledged late, and only when Kafka has it: a worker that dies in between loses no order.
    producer.sync_send(ProducerRecord("orders", f"{os.getpid()} {item}", key=customer), timeout=60)
