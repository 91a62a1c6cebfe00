"""A process that can start no more threads: what needs one raises, and all stays usable."""

import asyncio
import gc
import threading
from contextlib import contextmanager

import pytest
from faultlib import closed_port, within

from kafka_ext import KafkaException, KafkaProducer, ProducerRecord, _rdkafka
from kafka_ext.aio import AsyncKafkaProducer
from kafka_ext.recoverable import RecoverableProducer
from kafka_ext.testing import EmbeddedBroker

NO_THREAD = "can't start new thread"


@contextmanager
def no_threads():
    """The system has no room for a stack of this size: no thread that Python makes is started."""
    before = threading.stack_size(1 << 46)
    try:
        yield
    finally:
        threading.stack_size(before)


@pytest.fixture
def broker():
    with EmbeddedBroker(topics={"orders": 1}) as broker:
        yield broker


def test_the_system_refuses_them():
    with no_threads(), pytest.raises(RuntimeError, match=NO_THREAD):
        threading.Thread(target=print).start()


def test_a_producer_is_not_made(broker):
    with no_threads(), pytest.raises(RuntimeError, match=NO_THREAD):
        KafkaProducer(broker.config())
    gc.collect()
    with KafkaProducer(broker.config()) as producer:
        producer.sync_send(ProducerRecord("orders", b"v"), 10)


def test_an_asyncio_producer_is_closed(broker):
    async def main():
        producer = AsyncKafkaProducer(broker.config())
        future = await producer.send(ProducerRecord("orders", b"v"))
        with no_threads():
            await producer.aclose()
        assert (await future).offset == 0
        assert producer.handle.closed
        await producer.aclose()

    asyncio.run(main())
    gc.collect()
    assert _rdkafka.own_threads() == 0


@pytest.mark.parametrize("loop_is_closed", [False, True], ids=["loop", "closed loop"])
def test_an_asyncio_producer_is_closed_in_its_time(loop_is_closed):
    nobody = {"bootstrap.servers": closed_port(), "error_cb": lambda error: None}

    async def send():
        producer = AsyncKafkaProducer(nobody, log_level=0, log_cb=lambda *log: None)
        made.append((producer, await producer.send(ProducerRecord("orders", b"v"))))
        if not loop_is_closed:
            await close()

    async def close():
        producer, future = made[0]
        with no_threads(), within(0.5):
            await producer.aclose(0.5)
        assert producer.handle.closed
        if not loop_is_closed:
            with pytest.raises(KafkaException) as failed:
                await future
            assert failed.value.error.name.startswith("PURGE")

    made = []
    asyncio.run(send())
    if loop_is_closed:
        asyncio.run(close())
    made.clear()
    gc.collect()
    assert _rdkafka.own_threads() == 0


def test_what_waits_in_a_thread_can_be_called_again(broker):
    async def main():
        async with AsyncKafkaProducer(broker.config(transactional_id="one")) as producer:
            await producer.init_transactions(30)
            await producer.begin_transaction()
            await producer.send(ProducerRecord("orders", b"v"))
            with no_threads():
                for call in (
                    producer.fetch_broker_metadata,
                    producer.commit_transaction,
                    lambda: producer.flush(10),
                ):
                    with pytest.raises(RuntimeError, match=NO_THREAD):
                        await call()
            await producer.flush(10)
            await producer.fetch_broker_metadata()
            await producer.commit_transaction(30)

    asyncio.run(main())
    assert len(broker.messages("orders", 1)) == 1


def test_a_synchronous_transaction_goes_on(broker):
    with KafkaProducer(broker.config(transactional_id="one")) as producer:
        producer.init_transactions(30)
        producer.begin_transaction()
        producer.send(ProducerRecord("orders", b"v"))
        with no_threads():
            for call in (
                producer.fetch_broker_metadata,
                producer.commit_transaction,
                producer.abort_transaction,
            ):
                with pytest.raises(RuntimeError, match=NO_THREAD):
                    call()
        producer.commit_transaction(30)
        with producer.transaction(30):
            producer.send(ProducerRecord("orders", b"v"))
    assert len(broker.messages("orders", 2)) == 2


def test_a_fault_that_needs_one_is_not_set(broker):
    with no_threads(), pytest.raises(RuntimeError, match=NO_THREAD):
        broker.lose_acks(1)
    assert broker.unused_faults() == []
    with KafkaProducer(broker.config()) as producer:
        broker.lose_acks(1)
        producer.sync_send(ProducerRecord("orders", b"v"), 30)


def test_no_recovery(broker):
    told = []
    with RecoverableProducer(
        broker.config(linger_ms=10_000), error_cb=lambda error: None, log_cb=lambda *line: None
    ) as producer:
        producer.send(ProducerRecord("orders", b"v"), lambda metadata, error: told.append(error))
        with no_threads():
            producer.handle.test_fatal_error(45, "for the test")
            producer.flush(30)
        assert len(told) == 1
        with pytest.raises(KafkaException) as refused:
            producer.send(ProducerRecord("orders", b"v"))
        assert refused.value.error.is_fatal
