"""The life of an AsyncKafkaProducer where things go wrong around it: its loop, its clock, its
constructor, signals.
"""

from __future__ import annotations

import asyncio
import os
import threading

import pytest
from faultlib import within

from kafka_ext import ErrorCode, KafkaException, ProducerRecord, _rdkafka
from kafka_ext.aio import AsyncKafkaProducer
from kafka_ext.testing import EmbeddedBroker

pytestmark = [pytest.mark.found(18), pytest.mark.timeout(30)]

MOCK = {"test.mock.num.brokers": 1, "enable.idempotence": False, "linger.ms": 0}
UNREACHABLE = {
    "bootstrap.servers": "127.0.0.1:1",
    "log_level": 0,
    "error_cb": lambda error: None,
    "enable.idempotence": False,
}


def interrupted_once(loop, monkeypatch):
    """The loop's next call_soon() for a task that waits is interrupted before it has
    done anything.
    """
    original = type(loop).call_soon
    raised = []

    def call_soon(callback, *arguments, context=None):
        if arguments and asyncio.isfuture(arguments[0]) and not raised:
            raised.append(True)
            raise KeyboardInterrupt
        return original(loop, callback, *arguments, context=context)

    monkeypatch.setattr(loop, "call_soon", call_soon, raising=False)
    return raised


@pytest.mark.parametrize("what", ["record", "batch"])
def test_an_interrupt_while_futures_are_resolved_loses_no_wake_up(monkeypatch, what):
    loop = asyncio.new_event_loop()

    async def make():
        return AsyncKafkaProducer(MOCK)

    producer = loop.run_until_complete(make())

    async def send():
        if what == "record":
            return await (await producer.send(ProducerRecord("t", b"v")))
        return await (await producer.send_batch("t", [b"v"]))

    task = loop.create_task(send())
    raised = interrupted_once(loop, monkeypatch)
    with pytest.raises(KeyboardInterrupt):
        loop.run_until_complete(task)
    assert raised
    assert loop.run_until_complete(asyncio.wait_for(task, 10)) is not None
    loop.run_until_complete(producer.aclose())
    loop.close()


def test_a_constructor_that_fails_half_way_leaves_nothing(monkeypatch):
    async def make():
        loop = asyncio.get_running_loop()
        monkeypatch.setattr(loop, "add_reader", refuses, raising=False)
        with pytest.raises(NotImplementedError):
            AsyncKafkaProducer(MOCK)

    def refuses(*arguments):
        raise NotImplementedError

    asyncio.run(make())  # once, so that what asyncio itself keeps is there
    descriptors, threads = (
        len(os.listdir("/proc/self/fd")) if os.path.exists("/proc/self/fd") else 0,
        threading.active_count(),
    )
    asyncio.run(make())
    assert _rdkafka.live_objects()["handles"] == 0
    assert threading.active_count() == threads
    if descriptors:
        assert len(os.listdir("/proc/self/fd")) <= descriptors


def test_closed_in_another_loop_once_its_own_is_closed():
    async def make():
        producer = AsyncKafkaProducer(UNREACHABLE)
        return producer, await producer.send(ProducerRecord("t", b"v"))

    producer, future = asyncio.run(make())
    with within(1):
        asyncio.run(producer.aclose(timeout=0.2))
    asyncio.run(producer.aclose())
    with pytest.raises(KafkaException):
        future.result()
    assert producer.handle.closed


def test_aclose_keeps_its_timeout_under_a_frozen_clock(monkeypatch):
    async def run():
        loop = asyncio.get_running_loop()
        producer = AsyncKafkaProducer(UNREACHABLE)
        future = await producer.send(ProducerRecord("t", b"v"))
        now = loop.time()
        monkeypatch.setattr(loop, "time", lambda: now, raising=False)
        with within(1):
            await producer.aclose(timeout=0.3)
        assert future.exception() is not None

    asyncio.run(run())


@pytest.mark.parametrize(
    "call", ["flush", "init_transactions", "commit_transaction", "abort_transaction"]
)
def test_calls_keep_their_timeout_under_a_frozen_clock(monkeypatch, call):
    async def run():
        loop = asyncio.get_running_loop()
        with EmbeddedBroker() as broker:
            settings = UNREACHABLE | {"enable.idempotence": True, "transactional.id": "one"}
            producer = AsyncKafkaProducer(settings | broker.config())
            if call != "init_transactions":
                await producer.init_transactions(20)
                await producer.begin_transaction()
                await (await producer.send(ProducerRecord("t", b"v")))
            broker.round_trip_time(2.0)
            if call != "init_transactions":
                await producer.send(ProducerRecord("t", b"v"))
            now = loop.time()
            monkeypatch.setattr(loop, "time", lambda: now, raising=False)
            with within(1), pytest.raises(KafkaException) as caught:
                await getattr(producer, call)(timeout=0.3)
            assert caught.value.error.code == ErrorCode.TIMED_OUT
            await producer.aclose(timeout=0)

    asyncio.run(run())
