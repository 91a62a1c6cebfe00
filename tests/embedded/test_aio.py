"""AsyncKafkaProducer, on every loop it is said to work on."""

import asyncio
import gc
import inspect
import os
import pickle
import threading
import time
import tracemalloc
import warnings
import weakref

import pytest
from faultlib import run_program

from kafka_ext import (
    ErrorCode,
    InvalidConfigError,
    InvalidRecordError,
    KafkaException,
    KafkaTimeoutError,
    OAuthBearerToken,
    ProducerClosedError,
    ProducerRecord,
    QueueFullError,
    SendOption,
    _rdkafka,
)
from kafka_ext.aio import AsyncKafkaProducer
from kafka_ext.testing import EmbeddedBroker

anyio = pytest.importorskip("anyio")

MOCK = {"test.mock.num.brokers": 1, "enable.idempotence": False, "linger.ms": 0}
NOBODY_THERE = {
    "bootstrap.servers": "127.0.0.1:1",
    "log_level": 0,
    "error_cb": lambda error: None,
    "enable.idempotence": False,
}


def by_asyncio(function):
    return asyncio.run(function())


def by_uvloop(function):
    uvloop = pytest.importorskip("uvloop")
    loop = uvloop.new_event_loop()
    try:
        return loop.run_until_complete(function())
    finally:
        loop.run_until_complete(loop.shutdown_asyncgens())
        loop.close()


def by_anyio(function):
    return anyio.run(function, backend="asyncio")


def by_anyio_on_uvloop(function):
    pytest.importorskip("uvloop")
    return anyio.run(function, backend="asyncio", backend_options={"use_uvloop": True})


@pytest.fixture(
    params=[by_asyncio, by_uvloop, by_anyio, by_anyio_on_uvloop],
    ids=["asyncio", "uvloop", "anyio", "anyio-uvloop"],
)
def run(request):
    """Runs a coroutine function to its end on one of the loops."""
    return request.param


def started_threads():
    return {thread.name for thread in threading.enumerate() if thread.name.startswith("kafka_ext")}


# ---------------------------------------------------------------------- sending


def test_each_future_is_as_new_as_one_that_the_loop_makes(run, kafka_broker):
    """include/kafka_ext/future.h makes them without their constructor."""

    async def main():
        loop = asyncio.get_running_loop()
        wanted = loop.create_future()
        async with AsyncKafkaProducer(kafka_broker.config(), linger_ms=50) as producer:
            futures = [await producer.send(ProducerRecord("orders", b"value")) for _ in range(600)]
            shown = (
                "_state",
                "_callbacks",
                "_result",
                "_exception",
                "_log_traceback",
                "_asyncio_future_blocking",
                "_source_traceback",
            )
            for future in futures:
                assert type(future) is type(wanted)
                assert future.get_loop() is loop
                assert [getattr(future, name) for name in shown] == [
                    getattr(wanted, name) for name in shown
                ]
                assert not future.done()
            futures[0].note = weakref.ref(
                futures[0]
            )  # has a place for attributes, and for weak references
            called = []
            futures[1].add_done_callback(called.append)
            assert futures[2].cancel()
            with pytest.raises(asyncio.InvalidStateError):
                futures[3].result()
            await asyncio.wait(futures)
            assert called == [futures[1]]
            assert futures[0].note() is futures[0]
            assert futures[2].cancelled()
            assert all(
                future.result().latency >= 0 for future in futures if future is not futures[2]
            )
            with pytest.raises(asyncio.InvalidStateError):
                futures[4].set_result(None)

    run(main)


def test_a_future_that_only_refers_to_itself_is_collected(run, kafka_broker):
    """Out of the collector's sight while the record is in flight, it is in it again afterwards."""

    async def main():
        async with AsyncKafkaProducer(kafka_broker.config()) as producer:
            futures = [
                await producer.send(ProducerRecord("orders", b"value", id=[i])) for i in range(300)
            ]
            cancelled = await producer.send(ProducerRecord("orders", b"value"))
            cancelled.cancel()
            gone = []
            for i, future in enumerate(futures):
                assert (await future).record_id == [i]
                future.itself = future
                gone.append(weakref.ref(future))
            await producer.flush()
            cancelled.itself = cancelled
            gone.append(weakref.ref(cancelled))
            futures.clear()
            del future, cancelled
            await asyncio.sleep(
                0
            )  # the loop's callback at hand is the one of the future that was waited for last
            gc.collect()
            assert [reference() for reference in gone] == [None] * 301

    run(main)


def test_a_future_made_while_the_loop_debugs_says_where(run, kafka_broker):
    """Also where debugging begins and ends meanwhile, within 256 futures."""

    async def main():
        loop = asyncio.get_running_loop()
        async with AsyncKafkaProducer(kafka_broker.config()) as producer:

            async def told(count):
                futures = [
                    await producer.send(ProducerRecord("orders", b"value")) for _ in range(count)
                ]
                await asyncio.gather(*futures)
                return [future._source_traceback is not None for future in futures]

            assert not any(await told(10))
            loop.set_debug(True)
            assert all((await told(300))[257:])
            loop.set_debug(False)
            assert not any((await told(300))[257:])

    run(main)


def test_a_future_after_back_pressure_and_its_metadata(run, kafka_broker):
    async def main():
        async with AsyncKafkaProducer(kafka_broker.config()) as producer:
            future = await producer.send(
                ProducerRecord(
                    "orders", b"value", key=b"k", headers=[("h", b"1")], id=7, partition=0
                )
            )
            assert isinstance(future, asyncio.Future)
            metadata = await future
            assert (metadata.topic, metadata.partition, metadata.offset, metadata.record_id) == (
                "orders",
                0,
                0,
                7,
            )
            assert (metadata.key_size, metadata.value_size, metadata.headers) == (
                1,
                5,
                [("h", b"1")],
            )
            assert (
                await producer.send_and_wait(ProducerRecord("orders", "text", partition=0))
            ).offset == 1
            assert not started_threads(), "the loop alone serves"

    run(main)
    assert [message.value for message in kafka_broker.messages("orders", count=2)] == [
        b"value",
        b"text",
    ]


def test_leaving_the_block_delivers_everything(run, kafka_broker):
    async def main():
        async with AsyncKafkaProducer(kafka_broker.config(linger_ms=200)) as producer:
            futures = [
                await producer.send(ProducerRecord("orders", b"%d" % n, partition=0))
                for n in range(3000)
            ]
        assert all(future.done() for future in futures)
        assert [future.result().offset for future in futures] == list(range(3000))

    run(main)
    kafka_broker.assert_delivered(
        "orders", [b"%d" % n for n in range(3000)], exactly_once=True, ordered=True
    )


def test_also_when_the_block_raises(run, kafka_broker):
    async def main():
        with pytest.raises(ZeroDivisionError):
            async with AsyncKafkaProducer(kafka_broker.config()) as producer:
                future = await producer.send(ProducerRecord("orders", b"v"))
                raise ZeroDivisionError
        assert future.result().offset == 0

    run(main)


def test_send_is_a_coroutine_to_those_who_ask(run):
    async def main():
        async with AsyncKafkaProducer(MOCK) as producer:
            sending = producer.send(ProducerRecord("t", b"v"))
            assert inspect.isawaitable(sending)
            assert asyncio.iscoroutine(sending)
            await (await sending)
            with pytest.raises(RuntimeError, match="twice"):
                await sending
            await (await asyncio.create_task(producer.send(ProducerRecord("t", b"v"))))
            futures = await asyncio.gather(
                *[producer.send(ProducerRecord("t", b"v")) for _ in range(5)]
            )
            await asyncio.gather(*futures)
            await (await asyncio.wait_for(producer.send(ProducerRecord("t", b"v")), 10))
            assert producer.metrics().delivered == 8

    run(main)


def test_a_send_that_is_not_awaited_sends_nothing_and_warns():
    async def main():
        async with AsyncKafkaProducer(MOCK) as producer:
            with pytest.warns(RuntimeWarning, match="never awaited"):
                producer.send(ProducerRecord("t", b"v"))
            closed = producer.send(ProducerRecord("t", b"v"))
            closed.close()
            thrown = producer.send(ProducerRecord("t", b"v"))
            with pytest.raises(KeyError, match="k"):
                thrown.throw(KeyError("k"))
            assert producer.metrics().sent == 0

    asyncio.run(main())


def test_a_loop_of_sends_lets_others_have_their_turns(run):
    async def main():
        turns = 0

        async def other():
            nonlocal turns
            while True:
                turns += 1
                await asyncio.sleep(0)

        async with AsyncKafkaProducer(MOCK) as producer:
            task = asyncio.create_task(other())
            for _ in range(5120):
                await producer.send(ProducerRecord("t", b"v"))
            assert turns >= 15
            task.cancel()

    run(main)


def test_what_is_wrong_is_raised_and_pins_nothing(run):
    async def main():
        async with AsyncKafkaProducer(MOCK | {"message.max.bytes": 1000}) as producer:
            with pytest.raises(TypeError):
                producer.send("not a record")
            with pytest.raises(TypeError, match="option"):
                producer.send(ProducerRecord("t"), option=1)
            with pytest.raises(TypeError, match="value"):
                await producer.send(ProducerRecord("t", 5))
            with pytest.raises(InvalidRecordError, match="contiguous"):
                await producer.send(ProducerRecord("t", memoryview(b"abcdef")[::2]))
            with pytest.raises(InvalidRecordError):
                await producer.send(ProducerRecord("a topic", b"v"))
            buffer = bytearray(5000)
            with pytest.raises(KafkaException) as caught:
                await producer.send(ProducerRecord("t", buffer))
            assert caught.value.error.code == ErrorCode.MSG_SIZE_TOO_LARGE
            buffer.append(1)
            assert producer.metrics().sent == 0

    run(main)


def test_a_value_is_pinned_until_its_future_has_a_result(run):
    async def main():
        async with AsyncKafkaProducer(MOCK | {"linger.ms": 50}) as producer:
            buffer = bytearray(b"value")
            future = await producer.send(ProducerRecord("t", buffer))
            with pytest.raises(BufferError):
                buffer.append(1)
            await future
            buffer.append(1)
            await producer.send(ProducerRecord("t", buffer), option=SendOption.TO_COPY_RECORD_VALUE)
            buffer.append(1)

    run(main)


def test_a_failed_delivery_is_the_futures_exception(run):
    async def main():
        async with AsyncKafkaProducer(NOBODY_THERE, message_timeout_ms=50) as producer:
            future = await producer.send(ProducerRecord("t", b"v"))
            with pytest.raises(KafkaException) as caught:
                await future
            assert caught.value.error.code == ErrorCode.MSG_TIMED_OUT
            with pytest.raises(KafkaException):
                await producer.send_and_wait(ProducerRecord("t", b"v"))
            assert producer.metrics().failed == 2

    run(main)


def test_failures_nobody_can_see_are_logged(caplog):
    async def main():
        async with AsyncKafkaProducer(NOBODY_THERE, message_timeout_ms=50) as producer:
            await producer.send(ProducerRecord("t", b"v"))  # the future is dropped
            cancelled = await producer.send(ProducerRecord("t", b"v"))
            cancelled.cancel()
            await producer.flush(10)
            assert producer.metrics().failed == 2

    with caplog.at_level("WARNING", logger="kafka_ext"):
        asyncio.run(main())
    if _rdkafka.build_info()["free_threaded"]:
        # There nobody can tell that a future is held by nobody else: it gets its exception, and
        # asyncio logs the one never looked at.
        assert "1 record to t not delivered" in caplog.text
        assert caplog.text.count("Future exception was never retrieved") == 1
    else:
        assert "2 records to t not delivered" in caplog.text


# ---------------------------------------------------------------------- back-pressure and
# cancelling


def test_a_full_queue_suspends_and_keeps_the_order(run, kafka_broker):
    async def main():
        async with AsyncKafkaProducer(
            kafka_broker.config(queue_buffering_max_messages=50, linger_ms=1)
        ) as producer:
            sent = []

            async def send(n):
                future = await producer.send(ProducerRecord("orders", b"%d" % n, partition=0))
                sent.append(n)
                return future

            futures = await asyncio.gather(*[send(n) for n in range(1000)])
            assert sent == list(range(1000))
            assert [(await future).offset for future in futures] == list(range(1000))
            assert producer.metrics().blocked_seconds > 0

    run(main)
    kafka_broker.assert_delivered(
        "orders", [b"%d" % n for n in range(1000)], exactly_once=True, ordered=True
    )


def test_send_nowait_raises_instead(run):
    async def main():
        async with AsyncKafkaProducer(
            NOBODY_THERE, queue_buffering_max_messages=2, message_timeout_ms=300
        ) as producer:
            futures = [producer.send_nowait(ProducerRecord("t", b"v")) for _ in range(2)]
            with pytest.raises(QueueFullError):
                producer.send_nowait(ProducerRecord("t", b"v"))
            waits = asyncio.create_task(producer.send(ProducerRecord("t", b"v")))
            await asyncio.wait(futures)
            with pytest.raises(KafkaException):
                await (await waits)
            assert (await producer.send(ProducerRecord("t", b"v"))).cancel()

    run(main)


def test_a_cancelled_wait_for_room_has_sent_nothing_and_holds_up_nobody(run):
    async def main():
        async with AsyncKafkaProducer(
            NOBODY_THERE, queue_buffering_max_messages=1, message_timeout_ms=500
        ) as producer:
            buffer = bytearray(b"v")
            first = await producer.send(ProducerRecord("t", b"v"))
            waits = [
                asyncio.create_task(producer.send(ProducerRecord("t", buffer))) for _ in range(3)
            ]
            behind = asyncio.create_task(producer.send(ProducerRecord("t", b"v")))
            await asyncio.sleep(0.02)
            assert not any(task.done() for task in [*waits, behind])
            for task in waits:
                task.cancel()
            await asyncio.wait(waits)
            assert all(task.cancelled() for task in waits)
            buffer.append(1)
            assert producer.metrics().sent == 1
            assert isinstance((await asyncio.wait({first}))[0].pop().exception(), KafkaException)
            second = await behind
            with pytest.raises(KafkaException):
                await second
            assert producer.metrics().sent == 2

    run(main)


def test_a_cancelled_future_is_still_reported_and_released(run, kafka_broker):
    async def main():
        async with AsyncKafkaProducer(kafka_broker.config(linger_ms=50)) as producer:
            buffer = bytearray(b"v")
            future = await producer.send(ProducerRecord("orders", buffer))
            future.cancel()
            waits = asyncio.create_task(producer.send_and_wait(ProducerRecord("orders", b"w")))
            await asyncio.sleep(0)
            waits.cancel()
            await asyncio.wait({waits})
            await producer.flush()
            buffer.append(1)
            assert producer.metrics().delivered == 2

    run(main)
    assert len(kafka_broker.messages("orders", count=2)) == 2


# ---------------------------------------------------------------------- batches


def test_an_event_that_uses_up_a_turn_is_not_the_last():
    # librdkafka writes no further byte until a poll has found its queue empty. A turn that ended
    # with its budget has made no such poll; when it was the last, a loaded machine lost the
    # wake-up of what came next.
    budget = 1024  # LOOP_MESSAGES
    count = 4 * budget

    async def main():
        with EmbeddedBroker(topics={"t": 1}) as broker:
            config = broker.config(linger_ms=500)
            async with AsyncKafkaProducer(config) as producer:
                await producer.send_and_wait(ProducerRecord("t", b"connected"))
                batch = await producer.send_batch("t", [b"v"] * count)
                # The loop stands still until all reports are in.
                broker.messages("t", count + 1)
                time.sleep(0.3)  # noqa: ASYNC251 - the loop is not to run
                assert batch.pending == count
                turns = [_rdkafka.serve_on_loop(producer.handle) for _ in range(5)]
                assert batch.pending == 0
                assert turns == [True] * 4 + [False]

    asyncio.run(main())


def test_a_batch_can_be_awaited(run, kafka_broker):
    async def main():
        async with AsyncKafkaProducer(kafka_broker.config()) as producer:
            told = []
            batch = await producer.send_batch(
                "orders", [b"%d" % n for n in range(20000)], partitions=0, on_delivery=told.append
            )
            assert await batch is batch
            assert (batch.pending, batch.failed, told) == (0, 0, [batch])
            assert list(batch.offsets) == list(range(20000))
            with pytest.raises(TypeError):
                await producer.send_batch("orders", b"not a list")

    run(main)


def test_a_batch_waits_for_room_and_keeps_its_order(run, kafka_broker):
    async def main():
        async with AsyncKafkaProducer(
            kafka_broker.config(queue_buffering_max_messages=500)
        ) as producer:
            batches = [
                asyncio.create_task(
                    producer.send_batch("orders", [b"%d" % n for n in range(5000)], partitions=0)
                )
                for _ in range(2)
            ]
            behind = asyncio.create_task(
                producer.send_and_wait(ProducerRecord("orders", b"last", partition=0))
            )
            for task in batches:
                batch = await (await task)
                assert batch.errors() == []
            assert (await behind).offset == 10000

    run(main)
    expected = [b"%d" % n for n in range(5000)]
    kafka_broker.assert_delivered(
        "orders", [*expected, *expected, b"last"], exactly_once=True, ordered=True
    )


def test_a_cancelled_batch_knows_what_became_of_each(run):
    async def main():
        async with AsyncKafkaProducer(
            NOBODY_THERE, queue_buffering_max_messages=10, message_timeout_ms=5_000
        ) as producer:
            values = [bytearray(b"v") for _ in range(100)]
            task = asyncio.create_task(producer.send_batch("t", values))
            while producer.metrics().sent < 10:
                await asyncio.sleep(0)
            await asyncio.sleep(0.01)
            assert not task.done()  # it waits for room
            task.cancel()
            with pytest.raises(asyncio.CancelledError) as caught:
                await task
            # Python 3.10: a task's cancellation is another exception than the one that came out of
            # its coroutine, which is its context.
            carrier = caught.value if hasattr(caught.value, "batch") else caught.value.__context__
            batch = carrier.batch
            assert len(batch) == 100
            assert batch.pending == 10  # cancelling has taken nothing back
            assert [code_of(batch, index) for index in range(10, 100)] == [ErrorCode.INTR] * 90
            with pytest.raises(BufferError):
                values[9].append(1)  # one that is on its way stays pinned
            producer.purge()
            assert await batch is batch
            assert [code_of(batch, index) for index in range(10)] == [ErrorCode.PURGE_QUEUE] * 10
            for value in values:
                value.append(1)
            assert producer.metrics().pinned_messages == 0

    run(main)


def code_of(batch, index):
    return next(error.code for at, error in batch.errors() if at == index)


def test_closing_under_a_batch_that_waits_fails_its_rest(run):
    async def main():
        producer = AsyncKafkaProducer(NOBODY_THERE, queue_buffering_max_messages=10)
        task = asyncio.create_task(producer.send_batch("t", [b"v"] * 100))
        await asyncio.sleep(0.02)
        await producer.aclose(0.05)
        batch = await (await task)
        assert len(batch.errors()) == 100

    run(main)


def test_a_table(run, kafka_broker):
    pa = pytest.importorskip("pyarrow")

    async def main():
        async with AsyncKafkaProducer(
            kafka_broker.config(queue_buffering_max_messages=100)
        ) as producer:
            table = pa.table({"v": [f"{n}" for n in range(1000)], "p": [0] * 1000})
            batch = await (
                await producer.send_table(table, topic="orders", value="v", partition="p")
            )
            assert batch.errors() == []
            assert list(batch.offsets) == list(range(1000))

    run(main)


def test_wait_on_the_loops_own_thread_says_what_to_do(run):
    async def main():
        async with AsyncKafkaProducer(MOCK | {"linger.ms": 100}) as producer:
            batch = await producer.send_batch("t", [b"v"])
            with pytest.raises(KafkaException, match="await"):
                batch.wait()
            assert await asyncio.to_thread(batch.wait, 10)

    run(main)


# ---------------------------------------------------------------------- flush, purge, close


def test_flush_does_not_wait_for_linger(run):
    async def main():
        async with AsyncKafkaProducer(MOCK | {"linger.ms": 60000}) as producer:
            future = await producer.send(ProducerRecord("t", b"v"))
            await producer.flush(30)
            assert future.done()

    run(main)


def test_flush_in_time_or_a_timeout(run):
    async def main():
        async with AsyncKafkaProducer(NOBODY_THERE, message_timeout_ms=500) as producer:
            await producer.flush(0)
            future = await producer.send(ProducerRecord("t", b"v"))
            with pytest.raises(KafkaTimeoutError, match="1 records"):
                await producer.flush(0.02)
            producer.purge()
            with pytest.raises(KafkaException) as caught:
                await future
            assert caught.value.error.code == ErrorCode.PURGE_QUEUE

    run(main)


def test_close_past_its_timeout_purges(run):
    async def main():
        producer = AsyncKafkaProducer(NOBODY_THERE, queue_buffering_max_messages=2)
        futures = [await producer.send(ProducerRecord("t", b"v")) for _ in range(2)]
        waits = asyncio.create_task(producer.send(ProducerRecord("t", b"v")))
        await asyncio.sleep(0)
        slow, fast = (
            asyncio.create_task(producer.aclose()),
            asyncio.create_task(producer.close(0.05)),
        )
        await asyncio.gather(slow, fast)
        assert {future.exception().error.code for future in futures} == {ErrorCode.PURGE_QUEUE}
        with pytest.raises(ProducerClosedError):
            await waits
        await producer.aclose()
        for call in (
            producer.send(ProducerRecord("t", b"v")),
            producer.flush(),
            producer.send_batch("t", [b"v"]),
            producer.__aenter__(),
        ):
            with pytest.raises(ProducerClosedError):
                await call
        assert "closed" in repr(producer)

    run(main)


def test_a_cancelled_close_goes_on(run):
    async def main():
        producer = AsyncKafkaProducer(NOBODY_THERE, message_timeout_ms=300)
        future = await producer.send(ProducerRecord("t", b"v"))
        closing = asyncio.create_task(producer.aclose())
        await asyncio.sleep(0.02)
        closing.cancel()
        await asyncio.wait({closing})
        assert closing.cancelled()
        await producer.aclose()
        assert isinstance(future.exception(), KafkaException)

    run(main)


def test_dropped_it_still_delivers(kafka_broker):
    async def main():
        producer = AsyncKafkaProducer(kafka_broker.config(linger_ms=100))
        buffer = bytearray(b"v")
        future = await producer.send(ProducerRecord("orders", buffer))
        with pytest.warns(ResourceWarning, match="not closed"):
            del producer
            gc.collect()
        assert (await asyncio.wait_for(future, 20)).offset == 0
        for _ in range(1000):
            try:
                buffer.append(1)
                break
            except BufferError:
                await asyncio.sleep(0.01)

    asyncio.run(main())


def test_the_loop_ends_with_messages_in_flight(kafka_broker):
    futures = []

    async def main():
        producer = AsyncKafkaProducer(kafka_broker.config(linger_ms=300))
        futures.append(await producer.send(ProducerRecord("orders", b"v")))
        return producer

    producer = asyncio.run(main())
    with pytest.warns(ResourceWarning, match="not closed"):
        del producer
        gc.collect()
    assert [message.value for message in kafka_broker.messages("orders", count=1)] == [b"v"]
    end = time.monotonic() + 20
    while not futures[0].done() and time.monotonic() < end:
        time.sleep(0.01)
    assert futures[0].result().offset == 0


def test_left_open_at_exit_it_delivers(kafka_broker):
    done = run_program(
        """
        import asyncio
        from kafka_ext.aio import AsyncKafkaProducer
        async def main():
            global producer
            producer = AsyncKafkaProducer(bootstrap_servers=sys.argv[1], linger_ms=500)
            await producer.send(ProducerRecord("orders", b"v"))
        asyncio.run(main())
        """,
        arguments=[kafka_broker.bootstrap_servers],
    )
    assert "not closed" not in done.stdout
    assert [message.value for message in kafka_broker.messages("orders", count=1)] == [b"v"]


# ---------------------------------------------------------------------- where it is used


def test_outside_of_its_loop_it_says_so(run):
    async def main():
        async with AsyncKafkaProducer(MOCK) as producer:

            async def elsewhere():
                with pytest.raises(RuntimeError, match="another event loop"):
                    await producer.send(ProducerRecord("t", b"v"))
                with pytest.raises(RuntimeError, match="another event loop"):
                    await producer.flush()

            def no_loop():
                with pytest.raises(RuntimeError, match="outside of any event loop"):
                    producer.send_nowait(ProducerRecord("t", b"v"))

            await asyncio.to_thread(asyncio.run, elsewhere())
            await asyncio.to_thread(no_loop)
            assert producer.metrics().sent == 0

    run(main)
    with pytest.raises(RuntimeError, match="inside a running event loop"):
        AsyncKafkaProducer(MOCK)


def test_in_a_later_loop_of_the_same_thread_it_says_so():
    producers = []

    async def first():
        producers.append(AsyncKafkaProducer(MOCK))
        await producers[0].send_and_wait(ProducerRecord("t", b"v"))

    async def second():
        with pytest.raises(RuntimeError, match="another event loop"):
            await producers[0].send(ProducerRecord("t", b"v"))

    asyncio.run(first())
    asyncio.run(second())
    with pytest.warns(ResourceWarning):
        producers.clear()
        gc.collect()


def test_a_forked_childs_copy_is_dead(kafka_broker):
    done = run_program(
        """
        import asyncio
        from kafka_ext.aio import AsyncKafkaProducer
        async def main():
            async with AsyncKafkaProducer(bootstrap_servers=sys.argv[1]) as producer:
                await producer.send(ProducerRecord("orders", b"1"))
                child = os.fork()
                if child == 0:
                    seen = []
                    for call in (producer.send(ProducerRecord("orders", b"2")), producer.flush(), producer.aclose()):
                        try:
                            await call
                        except ProducerForkedError:
                            seen.append(1)
                    os._exit(0 if len(seen) == 3 else 1)
                status = await asyncio.to_thread(os.waitpid, child, 0)
                print("child", status[1])
                await producer.send_and_wait(ProducerRecord("orders", b"3"))
        asyncio.run(main())
        """,
        arguments=[kafka_broker.bootstrap_servers],
    )
    assert "child 0" in done.stdout
    assert sorted(message.value for message in kafka_broker.messages("orders", count=2)) == [
        b"1",
        b"3",
    ]


def test_configuration(run):
    async def main():
        with pytest.raises(InvalidConfigError, match="linger"):
            AsyncKafkaProducer(MOCK | {"lingr.ms": 1})
        with pytest.raises(InvalidConfigError, match="loop"):
            AsyncKafkaProducer(MOCK | {"enable.manual.events.poll": True})
        async with AsyncKafkaProducer(MOCK, linger_ms=7) as producer:
            assert producer.get_property("linger.ms") == "7"
            assert producer.properties["linger.ms"] == "7"
            with pytest.raises(TypeError, match="pickle"):
                pickle.dumps(producer)
            assert producer.fatal_error() is None
            assert "open" in repr(producer)

    run(main)


def test_broker_metadata(run, kafka_broker):
    async def main():
        kafka_broker.create_topic("wide", 3)
        async with AsyncKafkaProducer(kafka_broker.config()) as producer:
            metadata = await producer.fetch_broker_metadata("wide")
            assert len(metadata.topics["wide"].partitions) == 3
        async with AsyncKafkaProducer(NOBODY_THERE) as producer:
            with pytest.raises(KafkaTimeoutError, match="no broker"):
                await producer.fetch_broker_metadata("wide", 0.05)

    run(main)


# ---------------------------------------------------------------------- callbacks, interceptors,
# partitioners


def test_callbacks_run_on_the_loops_thread_and_may_be_coroutines(run):
    seen = []

    async def main():
        here = threading.get_ident()

        async def stats_cb(statistics):
            await asyncio.sleep(0)
            seen.append(("stats", threading.get_ident() == here, statistics["type"]))

        def log_cb(level, facility, message):
            seen.append(("log", threading.get_ident() == here, facility))

        def error_cb(error):
            seen.append(("error", threading.get_ident() == here, error.name))

        properties = {
            "bootstrap.servers": "127.0.0.1:1",
            "statistics.interval.ms": 10,
            "debug": "conf",
            "enable.idempotence": False,
        }
        async with AsyncKafkaProducer(
            properties, stats_cb=stats_cb, log_cb=log_cb, error_cb=error_cb
        ):
            end = time.monotonic() + 20
            while {kind for kind, _, _ in seen} < {
                "stats",
                "log",
                "error",
            } and time.monotonic() < end:
                await asyncio.sleep(0.01)

    run(main)
    assert {kind for kind, _, _ in seen} == {"stats", "log", "error"}
    assert all(on_loop for _, on_loop, _ in seen)


def test_what_a_callback_raises_goes_to_the_loops_exception_handler(run):
    async def main():
        handled = []
        asyncio.get_running_loop().set_exception_handler(
            lambda loop, context: handled.append(context)
        )

        async def stats_cb(statistics):
            raise LookupError("a coroutine's")

        def log_cb(level, facility, message):
            raise ArithmeticError("a function's")

        properties = MOCK | {"statistics.interval.ms": 10, "debug": "conf"}
        async with AsyncKafkaProducer(properties, stats_cb=stats_cb, log_cb=log_cb) as producer:
            await producer.send_and_wait(ProducerRecord("t", b"v"))
            end = time.monotonic() + 20
            while {type(c["exception"]) for c in handled} < {
                LookupError,
                ArithmeticError,
            } and time.monotonic() < end:
                await asyncio.sleep(0.01)
        assert {type(context["exception"]) for context in handled} == {LookupError, ArithmeticError}

    run(main)


@pytest.mark.parametrize("works", [True, False])
def test_a_coroutine_may_fetch_the_token(works):
    errors = []

    async def main():
        asked = asyncio.Event()
        loop = asyncio.get_running_loop()
        loop.set_exception_handler(lambda loop, context: errors.append(str(context["exception"])))

        async def refresh(config):
            await asyncio.sleep(0.01)
            asked.set()
            if not works:
                raise LookupError("no token today")
            return OAuthBearerToken("token", int(time.time() * 1000) + 600_000, "me")

        oauth = {"security.protocol": "sasl_plaintext", "sasl.mechanisms": "OAUTHBEARER"}
        told = []
        async with AsyncKafkaProducer(
            NOBODY_THERE | oauth, oauthbearer_token_refresh_cb=refresh, error_cb=told.append
        ):
            await asyncio.wait_for(asked.wait(), 20)
            end = time.monotonic() + 20
            while (
                not works
                and not any("no token today" in error.message for error in told)
                and time.monotonic() < end
            ):
                await asyncio.sleep(0.01)
        return told

    told = asyncio.run(main())
    assert any("no token today" in error.message for error in told) is not works
    assert errors == ([] if works else ["no token today"])


def test_interceptors_see_each_record_once(run):
    class Interceptor:
        def __init__(self):
            self.sent, self.acknowledged = [], []

        def on_send(self, record):
            self.sent.append(record.id)
            return ProducerRecord(record.topic, b"other", id=record.id)

        def on_acknowledgement(self, metadata, error):
            self.acknowledged.append(
                (metadata.record_id, metadata.value_size, None if error is None else error.name)
            )

    async def main():
        interceptor = Interceptor()
        async with AsyncKafkaProducer(
            MOCK | {"queue.buffering.max.messages": 2}, interceptors=[interceptor]
        ) as producer:
            futures = await asyncio.gather(
                *[producer.send(ProducerRecord("t", b"v", id=n)) for n in range(20)]
            )
            assert [(await future).value_size for future in futures] == [5] * 20
            await producer.send(ProducerRecord("t", b"v", id=20))
            with pytest.raises(InvalidRecordError):
                await producer.send(ProducerRecord("no topic", b"v", id=21))
            with pytest.raises(KafkaException, match="interceptors"):
                await producer.send_batch("t", [b"v"])
        assert interceptor.sent == list(range(22))
        assert sorted(interceptor.acknowledged) == [(n, 5, None) for n in range(21)] + [
            (21, 0, "TOPIC_EXCEPTION")
        ]

    run(main)


def test_a_partitioner_written_in_python(run, kafka_broker):
    async def main():
        kafka_broker.create_topic("wide", 4)
        config = kafka_broker.config(partitioner=lambda topic, key, count: int(key) % count)
        async with AsyncKafkaProducer(config) as producer:
            futures = [
                await producer.send(ProducerRecord("wide", b"v", key=b"%d" % n)) for n in range(8)
            ]
            assert [(await future).partition for future in futures] == [0, 1, 2, 3] * 2
            batch = await (
                await producer.send_batch("wide", [b"v"] * 4, keys=[b"3", b"2", b"1", b"0"])
            )
            assert list(batch.partitions) == [3, 2, 1, 0]
            kafka_broker.create_topic("new", 4)
            batch = await (
                await producer.send_batch(
                    "new", [b"v"] * 2, keys=[b"3", b"2"], partitions=[None, 0]
                )
            )
            assert list(batch.partitions) == [3, 0]

    run(main)


# ---------------------------------------------------------------------- transactions


def test_transactions(run, kafka_broker):
    async def main():
        async with AsyncKafkaProducer(kafka_broker.config(transactional_id="one")) as producer:
            await producer.init_transactions(30)
            async with producer.transaction():
                future = await producer.send(ProducerRecord("orders", b"kept"))
            assert future.result().offset is not None
            with pytest.raises(ZeroDivisionError):
                async with producer.transaction():
                    await producer.send(ProducerRecord("orders", b"dropped"))
                    raise ZeroDivisionError
            await producer.begin_transaction()
            await producer.send_offsets_to_transaction({("orders", 0): 1}, "group", 30)
            await producer.commit_transaction(30)
            await producer.begin_transaction()
            with pytest.raises(KafkaException):
                await producer.begin_transaction()
            await producer.abort_transaction(30)

    run(main)


def test_transactions_do_not_block_the_loop(run):
    """Each call needs an answer that the broker only gives once the loop has gone round: one that
    blocked it would wait for ever.
    """

    async def main():
        with EmbeddedBroker(topics={"orders": 4}, isolation="process") as broker:

            async def with_the_broker_paused(call):
                blocked = []

                def give_up():
                    blocked.append(call.__name__)
                    broker.resume()

                watchdog = threading.Timer(10, give_up)
                broker.pause()
                watchdog.start()
                try:
                    task = asyncio.ensure_future(call)
                    for _ in range(20):
                        await asyncio.sleep(0.005)
                    assert not blocked, f"{blocked[0]} has kept the loop for itself"
                    assert not task.done()
                    broker.resume()
                    await task
                finally:
                    watchdog.cancel()
                    broker.resume()

            async with AsyncKafkaProducer(broker.config(transactional_id="one")) as producer:
                await with_the_broker_paused(producer.init_transactions(30))
                await producer.begin_transaction()
                await producer.send(ProducerRecord("orders", b"v"))
                await with_the_broker_paused(
                    producer.send_offsets_to_transaction({("orders", 0): 1}, "group", 30)
                )
                await with_the_broker_paused(producer.commit_transaction(30))
                await producer.begin_transaction()
                await producer.send_and_wait(ProducerRecord("orders", b"v"))
                await with_the_broker_paused(producer.abort_transaction(30))

    run(main)


def test_an_abort_waits_for_a_main_thread_of_librdkafkas_that_is_late(run):
    """As with KafkaProducer (test_transactions.py)."""

    async def main():
        with EmbeddedBroker(topics={"orders": 1, "wide": 10_000}) as broker:
            config = broker.config(transactional_id="one", **{"statistics.interval.ms": 1})
            async with AsyncKafkaProducer(config) as producer:
                await producer.fetch_broker_metadata("wide")
                await producer.init_transactions(30)
                for _ in range(10):
                    await producer.begin_transaction()
                    future = await producer.send(ProducerRecord("orders", b"aborted"))
                    await producer.abort_transaction(30)
                    assert future.exception() or future.result()
                async with producer.transaction(30):
                    await producer.send(ProducerRecord("orders", b"committed"))

    run(main)


@pytest.mark.parametrize(("ends", "other"), [("commit", "abort"), ("abort", "commit")])
def test_what_is_ended_one_way_is_not_ended_the_other(run, ends, other):
    async def main():
        with EmbeddedBroker(topics={"orders": 1}) as broker:
            async with AsyncKafkaProducer(broker.config(transactional_id="one")) as producer:
                end, end_otherwise = (
                    getattr(producer, f"{ends}_transaction"),
                    getattr(producer, f"{other}_transaction"),
                )
                await producer.init_transactions(30)
                await producer.begin_transaction()
                await producer.send_and_wait(ProducerRecord("orders", b"first"))
                broker.round_trip_time(1.0)
                with pytest.raises(KafkaTimeoutError, match=ends):
                    await end(0.05)
                with pytest.raises(
                    KafkaException, match=f"{ends}_transaction is under way"
                ) as caught:
                    await end_otherwise(0.05)
                assert caught.value.error == ErrorCode.CONFLICT
                broker.round_trip_time(0)
                await end(30)
                async with producer.transaction(30):
                    await producer.send_and_wait(ProducerRecord("orders", b"second"))

    run(main)


def test_a_transaction_in_a_scope_that_is_cancelled_is_aborted_and_the_next_can_begin(
    run, kafka_broker
):
    """anyio cancels whatever a cancelled scope awaits, the abort included, which goes
    on by itself.
    """

    async def main():
        async with AsyncKafkaProducer(kafka_broker.config(transactional_id="one")) as producer:
            await producer.init_transactions(30)
            for _ in range(3):
                with anyio.move_on_after(0.01):
                    async with producer.transaction():
                        future = await producer.send(ProducerRecord("orders", b"dropped"))
                        await anyio.sleep(30)
                async with producer.transaction():
                    await producer.send_and_wait(ProducerRecord("orders", b"kept"))
                assert future.done()
            assert future.exception() is None or future.exception().error == ErrorCode.PURGE_QUEUE

    run(main)


def test_transactions_without_a_coordinator_time_out(run):
    async def main():
        async with AsyncKafkaProducer(
            {"bootstrap.servers": "127.0.0.1:1", "log_level": 0, "error_cb": print},
            transactional_id="x",
        ) as producer:
            with pytest.raises(KafkaException) as caught:
                await producer.init_transactions(0.3)
            assert caught.value.error.is_retriable
        async with AsyncKafkaProducer(MOCK) as producer:
            with pytest.raises(KafkaException, match="transactional"):
                await producer.init_transactions(1)

    run(main)


# ---------------------------------------------------------------------- what stays


def test_nothing_is_left_of_many_sends(run):
    """Descriptors, tasks, memory."""

    async def cycle(count):
        async with AsyncKafkaProducer(MOCK) as producer:
            for _ in range(count):
                await producer.send(ProducerRecord("t", bytearray(100)))
            await producer.flush()

    def traced():
        gc.collect()
        return tracemalloc.get_traced_memory()[0]

    async def main():
        await cycle(1000)
        descriptors = len(os.listdir("/proc/self/fd"))
        tracemalloc.start()
        try:
            await cycle(1000)
            before = traced()
            await cycle(20000)
            # The thread that destroyed the client may still be about to let go of it.
            end = time.monotonic() + 10
            while (grown := traced() - before) >= 20000 and time.monotonic() < end:
                await asyncio.sleep(0.01)
            assert grown < 20000
        finally:
            tracemalloc.stop()
        assert len(os.listdir("/proc/self/fd")) <= descriptors
        assert len(asyncio.all_tasks()) == 1

    if not os.path.isdir("/proc/self/fd"):
        pytest.skip("needs /proc")
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        run(main)
