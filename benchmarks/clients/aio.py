"""aiokafka."""

from __future__ import annotations

import asyncio
import atexit
from collections.abc import Iterable, Sequence
from typing import Any

import aiokafka
from aiokafka import AIOKafkaProducer

from ..job import BATCH_SIZE, TOPIC
from ..loop import drive
from . import Sender

VERSION = f"aiokafka {aiokafka.__version__}"


def _start(loop: asyncio.AbstractEventLoop, settings: dict[str, str]) -> AIOKafkaProducer:
    async def start() -> AIOKafkaProducer:
        producer = AIOKafkaProducer(
            bootstrap_servers=settings["bootstrap.servers"],
            linger_ms=int(settings["linger.ms"]),
            acks=settings["acks"],
            enable_idempotence=settings["enable.idempotence"] == "true",
            max_batch_size=BATCH_SIZE,
        )
        await producer.start()
        return producer

    producer = loop.run_until_complete(start())
    atexit.register(lambda: loop.run_until_complete(producer.stop()))
    return producer


def asyncio_future(settings: dict[str, str]) -> Sender:
    """await send(), and the future that it gives."""
    loop = asyncio.new_event_loop()
    producer = _start(loop, settings)

    async def send_some(values: Sequence[bytes]) -> list[asyncio.Future[Any]]:
        send = producer.send
        return [await send(TOPIC, value) for value in values]

    return lambda values: loop.run_until_complete(drive(send_some, producer.flush, values))


def callback(settings: dict[str, str]) -> Sender:
    """await send(), and a callback on the future that it gives."""
    loop = asyncio.new_event_loop()
    producer = _start(loop, settings)

    async def send_all(values: Iterable[bytes]) -> int:
        delivered = 0

        def on_delivery(future: asyncio.Future[object]) -> None:
            nonlocal delivered
            if future.exception() is None:
                delivered += 1

        for value in values:
            (await producer.send(TOPIC, value)).add_done_callback(on_delivery)
        await producer.flush()
        await asyncio.sleep(0)  # the last callbacks are scheduled by now, not called
        return delivered

    return lambda values: loop.run_until_complete(send_all(values))


WAYS = {"asyncio": asyncio_future, "callback": callback}
