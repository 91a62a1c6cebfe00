"""confluent-kafka, used the way that was fastest here: poll(0) every 1000 messages, and poll()
whenever the queue is full.
"""

from __future__ import annotations

import asyncio
import atexit
import time
from collections.abc import Iterable, Sequence
from itertools import islice
from typing import Any

import confluent_kafka
from confluent_kafka import Producer

from ..job import FIRST as FIRST_DELIVERY
from ..job import FIRST_PLAIN, TOPIC
from ..loop import drive
from . import Burst, Sender

VERSION = (
    f"confluent-kafka {confluent_kafka.__version__} (librdkafka {confluent_kafka.libversion()[0]})"
)
POLL_EVERY = 1000


def callback(settings: dict[str, str]) -> Sender:
    """produce() with on_delivery."""
    producer = Producer(settings)

    def send_all(values: Iterable[bytes]) -> int:
        delivered = 0

        def on_delivery(error: Any, message: Any) -> None:
            nonlocal delivered
            if error is None:
                delivered += 1

        produce = producer.produce
        rest = iter(values)
        while some := list(islice(rest, POLL_EVERY)):
            for value in some:
                while True:
                    try:
                        produce(TOPIC, value, on_delivery=on_delivery)
                        break
                    except BufferError:
                        producer.poll(0.1)
            producer.poll(0)
        producer.flush()
        return delivered

    return send_all


def callback_poll_each(settings: dict[str, str]) -> Sender:
    """produce() with on_delivery, and poll(0) after each message."""
    producer = Producer(settings)

    def send_all(values: Iterable[bytes]) -> int:
        delivered = 0

        def on_delivery(error: Any, message: Any) -> None:
            nonlocal delivered
            if error is None:
                delivered += 1

        produce = producer.produce
        poll = producer.poll
        for value in values:
            while True:
                try:
                    produce(TOPIC, value, on_delivery=on_delivery)
                    break
                except BufferError:
                    poll(0.1)
            poll(0)
        producer.flush()
        return delivered

    return send_all


def _outcome(producer: Producer, sent: int) -> int:
    """Nobody is told of a delivery, nor of a failure: what is left to check is that nothing
    remains.
    """
    return sent - producer.flush()


def no_callback(settings: dict[str, str]) -> Sender:
    """produce() without on_delivery."""
    producer = Producer(settings)

    def send_all(values: Iterable[bytes]) -> int:
        sent = 0
        produce = producer.produce
        rest = iter(values)
        while some := list(islice(rest, POLL_EVERY)):
            for value in some:
                while True:
                    try:
                        produce(TOPIC, value)
                        break
                    except BufferError:
                        producer.poll(0.1)
            sent += len(some)
            producer.poll(0)
        return _outcome(producer, sent)

    return send_all


def batch(settings: dict[str, str]) -> Sender:
    """produce_batch() with lists of values, without callbacks. It wants a dict for each message,
    and writes into them.
    """
    producer = Producer(settings)

    def send_all(lists: Iterable[list[bytes]]) -> int:
        sent = 0
        for values in lists:
            sent += len(values)
            messages = [{"value": value} for value in values]
            while producer.produce_batch(TOPIC, messages) < len(messages):
                messages = [message for message in messages if "_error" in message]
                for message in messages:
                    del message["_error"]
                producer.poll(0.1)
            producer.poll(0)
        return _outcome(producer, sent)

    return send_all


def send_time(settings: dict[str, str]) -> Burst:
    """The calls of produce alone."""
    producer = Producer(settings)

    def burst(values: Sequence[bytes]) -> int:
        produce = producer.produce
        start = time.perf_counter_ns()
        for value in values:
            produce(TOPIC, value)
        nanoseconds = time.perf_counter_ns() - start
        producer.flush()
        return nanoseconds

    return burst


def asyncio_future(settings: dict[str, str]) -> Sender:
    """AIOProducer, with its own defaults: batches of 1000 handed to four threads."""
    from confluent_kafka.aio import AIOProducer

    loop = asyncio.new_event_loop()

    async def start() -> AIOProducer:
        return AIOProducer(dict(settings))

    producer = loop.run_until_complete(start())
    atexit.register(lambda: loop.run_until_complete(producer.close()))

    async def send_some(values: Sequence[bytes]) -> list[asyncio.Future[Any]]:
        produce = producer.produce
        return [await produce(TOPIC, value) for value in values]

    return lambda values: loop.run_until_complete(drive(send_some, producer.flush, values))


def first_delivery(settings: dict[str, str], value: bytes) -> float:
    """Seconds from a producer's constructor to its first report."""
    reported = 0.0

    def on_delivery(error: Any, message: Any) -> None:
        nonlocal reported
        assert error is None
        reported = time.perf_counter()

    start = time.perf_counter()
    producer = Producer(settings)
    producer.produce(TOPIC, value, on_delivery=on_delivery)
    while not reported:
        producer.poll(1)
    producer.flush()
    return reported - start


FIRST = {FIRST_DELIVERY: first_delivery, FIRST_PLAIN: first_delivery}

WAYS = {
    "asyncio": asyncio_future,
    "callback": callback,
    "callback-poll-each": callback_poll_each,
    "no-callback": no_callback,
    "batch": batch,
}
BATCHES = {"batch": list}
