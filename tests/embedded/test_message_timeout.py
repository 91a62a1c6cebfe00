"""message.timeout.ms is kept at default settings, however a broker goes
(wheels/patches/0010-message-timeout.patch).
"""

from __future__ import annotations

import asyncio
import contextlib
import select
import socket
import time
from collections.abc import Iterator
from typing import Any

import pytest
from faultlib import PATIENCE, closed_port, wait_until

from kafka_ext import ErrorCode, KafkaProducer, ProducerRecord, _rdkafka
from kafka_ext.aio import AsyncKafkaProducer
from kafka_ext.testing import ApiKey, EmbeddedBroker

pytestmark = pytest.mark.slow(6)

# After the broker is gone, librdkafka's waits for the next connection end after about 0.5, 1.1,
# 2.2, 4.6 and 10 s: this is early in the last, so what wakes up only then is 5 s late.
TIMEOUT = 5.0
# A second is promised, and it takes 0.1 s on an idle machine; a busy one has 20,000 callbacks to
# call.
LATE = 1.0 + PATIENCE
MANY = 10_000

SETTINGS: dict[str, Any] = {"message.timeout.ms": int(TIMEOUT * 1000), "log_level": 0}


@contextlib.contextmanager
def producing(config: dict[str, Any], **settings: Any) -> Iterator[KafkaProducer]:
    producer = KafkaProducer(config, error_cb=lambda error: None, **settings)
    try:
        yield producer
    finally:
        producer.close(0)


class Waiting:
    """Records that wait for the same thing: when each was sent, and when each was reported, in
    order.
    """

    def __init__(self, producer: KafkaProducer, topic: str, count: int) -> None:
        self.count = count
        self.order: list[int] = []
        self.late: list[float] = []
        self.codes: set[int] = set()
        for number in range(count):
            producer.send(ProducerRecord(topic, b"x"), self._reporter(number, time.monotonic()))

    def _reporter(self, number: int, sent: float) -> Any:
        def on_delivery(metadata: Any, error: Any) -> None:
            self.late.append(time.monotonic() - sent - TIMEOUT)
            self.order.append(number)
            self.codes.add(0 if error is None else error.code)

        return on_delivery

    def check(self) -> None:
        wait_until(lambda: len(self.order) == self.count, 4 * TIMEOUT)
        assert self.codes == {ErrorCode.MSG_TIMED_OUT}
        assert self.order == sorted(self.order)
        assert min(self.late) >= -0.1
        assert max(self.late) <= LATE


@pytest.mark.found(10)
@pytest.mark.parametrize("fault", ["kill", "pause", "stop"])
def test_records_for_a_broker_that_is_gone(fault: str) -> None:
    with (
        EmbeddedBroker(topics={"orders": 1}, isolation="process") as broker,
        contextlib.ExitStack() as stack,
    ):
        producers = [
            stack.enter_context(
                producing(broker.config(**SETTINGS), **{"enable.idempotence": idempotence})
            )
            for idempotence in (True, True, False, False)
        ]
        for producer in producers:
            for _ in range(1000):
                producer.send(ProducerRecord("orders", b"before"))
            producer.flush(30)
        stack.callback(broker.resume if fault == "pause" else lambda: None)
        if fault == "stop":
            broker.stop_broker(1)
        else:
            getattr(broker, fault)()
        waiting = [
            Waiting(producer, "orders", count)
            for producer, count in zip(producers, [1, MANY] * 2, strict=True)
        ]
        for some in waiting:
            some.check()


@pytest.mark.found(10)
@pytest.mark.parametrize("idempotence", [True, False])
def test_a_batch_and_asyncio_for_a_broker_that_is_gone(idempotence: bool) -> None:
    async def late() -> float:
        config = broker.config(**SETTINGS) | {
            "enable.idempotence": idempotence,
            "error_cb": lambda error: None,
        }
        producer = AsyncKafkaProducer(config)
        await producer.send_and_wait(ProducerRecord("orders", b"before"))
        broker.kill()
        futures = [await producer.send(ProducerRecord("orders", b"x")) for _ in range(100)]
        batch = await producer.send_batch("orders", [b"x"] * MANY)
        sent = time.monotonic()
        outcomes = await asyncio.gather(*futures, batch, return_exceptions=True)
        took = time.monotonic() - sent
        assert {outcome.error.code for outcome in outcomes[:-1]} == {ErrorCode.MSG_TIMED_OUT}  # type: ignore[union-attr]
        assert batch.failed == MANY
        await producer.aclose(0)
        return took - TIMEOUT

    with EmbeddedBroker(topics={"orders": 1}, isolation="process") as broker:
        assert asyncio.run(late()) <= LATE


@pytest.mark.found(10)
def test_records_of_a_topic_that_is_not_known_yet() -> None:
    with (
        EmbeddedBroker(
            topics={"orders": 1}, isolation="process", auto_create_topics=False
        ) as broker,
        contextlib.ExitStack() as stack,
    ):
        waiting: list[Waiting] = []
        for idempotence in (True, False):
            settings = {"enable.idempotence": idempotence}
            alone = {"bootstrap.servers": closed_port(), **SETTINGS}
            waiting += [
                Waiting(stack.enter_context(producing(alone, **settings)), "orders", count)
                for count in (1, MANY)
            ]
            producer = stack.enter_context(producing(broker.config(**SETTINGS), **settings))
            producer.sync_send(ProducerRecord("orders", b"before"), timeout=10)
            waiting.append(Waiting(producer, "another", 1))
        broker.kill()
        for some in waiting:
            some.check()


@pytest.mark.skipif(
    "timeout-doubles" not in _rdkafka.build_info()["patches"],
    reason="this librdkafka sees to each record by itself",
)
def test_a_batch_that_may_be_in_the_log_times_out_whole() -> None:
    """Its broker could know it again as a whole only (docs/chaos.md)."""
    reported: dict[str, float] = {}

    def reporter(name: str) -> Any:
        return lambda metadata, error: reported.__setitem__(name, time.monotonic())

    with EmbeddedBroker(topics={"orders": 1}) as broker:
        linger = 2.5
        settings = SETTINGS | {"linger.ms": linger * 1000, "enable.idempotence": True}
        with producing(broker.config(**settings)) as producer:
            producer.send(ProducerRecord("orders", b"before"))
            producer.flush(30)
            broker.fail_requests(ApiKey.PRODUCE, [ErrorCode.REQUEST_TIMED_OUT] * 1000)
            sent = time.monotonic()
            producer.send(ProducerRecord("orders", b"old"), reporter("old"))
            time.sleep(linger / 2)
            producer.send(ProducerRecord("orders", b"young"), reporter("young"))
            wait_until(lambda: len(reported) == 2, 4 * TIMEOUT)
    assert 0 <= reported["old"] - sent - TIMEOUT <= LATE
    assert 0 <= reported["young"] - reported["old"] < linger / 4


class Counting:
    """Listens at an address, accepts and closes, and counts that."""

    def __init__(self, address: str) -> None:
        host, _, port = address.rpartition(":")
        self._listener = socket.create_server((host, int(port)))
        self._listener.setblocking(False)
        self.count = 0

    def until(self, condition: Any, timeout: float) -> None:
        deadline = time.monotonic() + timeout
        while not condition() and time.monotonic() < deadline:
            if select.select([self._listener], [], [], 0.05)[0]:
                self._listener.accept()[0].close()
                self.count += 1
        assert condition()

    def close(self) -> None:
        self._listener.close()


@pytest.mark.parametrize("idempotence", [True, False])
def test_a_dead_broker_is_not_hammered(idempotence: bool) -> None:
    """The scan for timeouts wakes a broker's thread, and makes it neither connect nor spin."""
    wakeups: list[int] = []

    def on_statistics(statistics: dict[str, Any]) -> None:
        wakeups.append(
            sum(one["wakeups"] for one in statistics["brokers"].values() if one["nodeid"] == 1)
        )

    settings = {"enable.idempotence": idempotence, "statistics.interval.ms": 500}
    with (
        EmbeddedBroker(topics={"orders": 1}, isolation="process") as broker,
        producing(broker.config(**SETTINGS), stats_cb=on_statistics, **settings) as producer,
    ):
        producer.sync_send(ProducerRecord("orders", b"before"), timeout=10)
        broker.kill()
        listener = Counting(broker.bootstrap_servers)
        waiting = Waiting(producer, "orders", MANY)
        listener.until(lambda: len(waiting.order) == MANY, 4 * TIMEOUT)
        waiting.check()
        waits = len(wakeups)
        listener.until(lambda: len(wakeups) > waits + 4, 30)
        listener.close()
    # reconnect.backoff.ms doubles from 100 ms: seven in 5 s, one or two of the rest.
    assert listener.count <= 12
    # Two seconds with nothing to do but to wait for the next connection.
    assert wakeups[waits + 4] - wakeups[waits] <= 20
