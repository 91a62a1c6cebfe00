"""A transaction is committed only when every record of it was enqueued and delivered."""

import asyncio

import pyarrow as pa
import pytest
from faultlib import wait_until

from kafka_ext import (
    ActionWhileQueueIsFull,
    ErrorCode,
    KafkaException,
    KafkaProducer,
    QueueFullError,
)
from kafka_ext import ProducerRecord as R
from kafka_ext.aio import AsyncKafkaProducer
from kafka_ext.testing import ApiKey, EmbeddedBroker

pytestmark = pytest.mark.found(4)

LARGE = b"x" * 5000


@pytest.fixture
def broker():
    with EmbeddedBroker(topics={"orders": 1}) as broker:
        yield broker


@pytest.fixture
def transactional(broker):
    """Makes producers that are ready for transactions."""
    made = []

    def make(**settings):
        settings = {
            "transactional_id": f"id-{len(made)}",
            "message_max_bytes": 1000,
            "linger_ms": 0,
        } | settings
        made.append(KafkaProducer(broker.config(**settings)))
        made[-1].init_transactions(30)
        return made[-1]

    yield make
    for producer in made:
        producer.close(1)


def refuse_commit(producer, count=1):
    with pytest.raises(KafkaException, match="call abort_transaction") as caught:
        producer.commit_transaction(30)
    assert caught.value.error == ErrorCode.INCONSISTENT
    assert caught.value.error.transaction_requires_abort
    if count:
        assert f"{count} records" in caught.value.error.message


SENDS = {
    "send": lambda producer, record: producer.send(record),
    "try_send": lambda producer, record: producer.try_send(record),
    "sync_send": lambda producer, record: producer.sync_send(record, 30),
    "send_future": lambda producer, record: producer.send_future(record),
}
BATCHES = {
    "send_batch": lambda producer: producer.send_batch("orders", [b"a", LARGE, b"c"]),
    "send_table": lambda producer: producer.send_table(
        pa.table({"v": [b"a", LARGE, b"c"]}), topic="orders", value="v"
    ),
    "send_batch with headers": lambda producer: producer.send_batch(
        "orders", [b"a", LARGE, b"c"], headers=[("h", b"v")]
    ),
    "a batch that is wrong as a whole": lambda producer: producer.send_batch("orders", [b"a", 5]),
    "a table that is wrong as a whole": lambda producer: producer.send_table(
        pa.table({"v": [1.5]}), topic="orders", value="v"
    ),
}
REFUSED = {
    "too large": lambda: R("orders", LARGE),
    "unknown partition": lambda: R("orders", b"v", partition=7),
    "no buffer": lambda: R("orders", 5),
    "no topic": lambda: R("a topic?", b"v"),
}


@pytest.mark.parametrize("send", SENDS)
@pytest.mark.parametrize("refused", REFUSED)
@pytest.mark.parametrize("manual", [False, True], ids=["thread", "manual"])
def test_a_record_that_was_refused_makes_the_commit_raise(
    broker, transactional, send, refused, manual
):
    producer = transactional(**{"enable.manual.events.poll": manual})
    producer.begin_transaction()
    producer.sync_send(R("orders", b"a"))  # so that the partitions are known
    try:
        error = SENDS[send](producer, REFUSED[refused]())
    except (KafkaException, TypeError) as exc:
        error = exc
    assert error is not None
    producer.send(R("orders", b"c"))
    refuse_commit(producer)
    refuse_commit(producer)  # however often
    producer.abort_transaction(30)
    with producer.transaction(30):
        producer.send(R("orders", b"next"))


@pytest.mark.parametrize("send", BATCHES)
def test_a_batch_of_which_something_was_refused_makes_the_commit_raise(transactional, send):
    producer = transactional()

    def transact():
        with producer.transaction(30):
            try:
                BATCHES[send](producer)
            except (ValueError, TypeError):
                pass

    with pytest.raises(KafkaException) as caught:
        transact()
    assert caught.value.error == ErrorCode.INCONSISTENT
    with producer.transaction(30):  # the block has aborted
        producer.send_batch("orders", [b"a", b"c"])


@pytest.mark.parametrize("manual", [False, True], ids=["thread", "manual"])
def test_a_record_for_which_there_was_no_room_counts_until_it_is_sent_again(
    broker, transactional, manual
):
    producer = transactional(
        **{"enable.manual.events.poll": manual, "queue.buffering.max.messages": 1}
    )
    arguments = {"action": ActionWhileQueueIsFull.NO_BLOCK}
    for again in (False, True):
        producer.begin_transaction()
        broker.round_trip_time(0.2)
        producer.send(R("orders", b"first"))
        late = R("orders", b"second")
        with pytest.raises(QueueFullError):
            producer.send(late, **arguments)
        assert producer.try_send(late) == ErrorCode.QUEUE_FULL
        broker.round_trip_time(0)
        producer.flush(30)
        if again:
            while True:
                try:
                    producer.send(late, **arguments)
                    break
                except BufferError:
                    producer.flush(30)
            producer.commit_transaction(30)
        else:
            producer.send(R("orders", b"another"))
            refuse_commit(producer)
            producer.abort_transaction(30)


def test_a_send_that_ran_out_of_time_makes_the_commit_raise(broker, transactional):
    producer = transactional(**{"queue.buffering.max.messages": 1})
    producer.begin_transaction()
    broker.round_trip_time(0.5)
    producer.send(R("orders", b"first"))
    with pytest.raises(TimeoutError):
        producer.send(R("orders", b"second"), timeout=0.05)
    batch = producer.send_batch("orders", [b"a", b"b", b"c"], timeout=0.01)
    broker.round_trip_time(0)
    refuse_commit(producer, 1 + batch.failed)
    producer.abort_transaction(30)
    producer.begin_transaction()
    producer.commit_transaction(30)


@pytest.mark.parametrize(
    "settings",
    [
        {"value_serializer": lambda value: 1 / 0},
        {"partitioner": lambda topic, key, count: 1 / 0},
        {
            "interceptors": [
                type(
                    "Replaces",
                    (),
                    {"on_send": lambda self, record: R("orders", 5), "on_acknowledgement": print},
                )()
            ]
        },
    ],
    ids=["serializer", "partitioner", "interceptor"],
)
def test_what_the_users_own_code_refuses_makes_the_commit_raise(transactional, settings):
    producer = transactional(**settings)
    producer.begin_transaction()
    with pytest.raises((ZeroDivisionError, TypeError)):
        producer.send(R("orders", b"v"))
    refuse_commit(producer)
    producer.abort_transaction(30)
    with producer.transaction(30):
        pass


def test_what_was_refused_outside_of_a_transaction_does_not_count(transactional):
    producer = transactional()
    for record in (R("orders", LARGE), R("orders", 5), R("orders", b"v")):
        with pytest.raises((KafkaException, TypeError)):
            producer.send(record)
    with pytest.raises(KafkaException):
        producer.send_batch("orders", [LARGE])
    with producer.transaction(30):
        producer.send(R("orders", b"v"))


@pytest.mark.parametrize("how", ["refused by the broker", "purged", "timed out"])
def test_a_record_that_was_not_delivered_makes_the_commit_raise(broker, transactional, how):
    producer = transactional(**{"message.timeout.ms": 500})
    producer.begin_transaction()
    producer.sync_send(R("orders", b"first"))
    outcomes = []
    if how == "refused by the broker":
        broker.fail_requests(ApiKey.PRODUCE, [ErrorCode.MSG_SIZE_TOO_LARGE])
    else:
        broker.round_trip_time(2.0)
    producer.send(R("orders", b"second"), lambda metadata, error: outcomes.append(error))
    if how == "purged":
        producer.purge()
    wait_until(lambda: outcomes)
    assert outcomes[0] is not None
    broker.round_trip_time(0)
    with pytest.raises(KafkaException, match="call abort_transaction") as caught:
        producer.commit_transaction(30)
    assert caught.value.error.transaction_requires_abort
    producer.abort_transaction(30)


def test_asyncio_commits_only_what_is_complete(broker):
    settings = {"transactional_id": "aio", "message_max_bytes": 1000, "linger_ms": 0}

    async def nowait(producer, value):
        producer.send_nowait(R("orders", value))

    ways = (
        lambda producer, value: producer.send(R("orders", value)),
        lambda producer, value: producer.send_and_wait(R("orders", value)),
        nowait,
        lambda producer, value: producer.send_batch("orders", [b"a", value, b"c"]),
        lambda producer, value: producer.send_table(
            pa.table({"v": [b"a", value]}), topic="orders", value="v"
        ),
    )

    async def main(**more):
        async with AsyncKafkaProducer(broker.config(**settings, **more)) as producer:
            await producer.init_transactions(30)
            for way in ways[: 3 if more else None]:
                for value in (LARGE, 5):
                    if value == 5 and way is ways[-1]:
                        continue
                    with pytest.raises(KafkaException) as caught:  # noqa: PT012 - the block is the test
                        async with producer.transaction(30):
                            try:
                                await way(producer, value)
                            except (KafkaException, TypeError, ZeroDivisionError):
                                pass
                    assert caught.value.error == ErrorCode.INCONSISTENT
                async with producer.transaction(30):
                    await way(producer, b"b")

    def serialize(value):
        return value if len(value) < 1000 else 1 / 0

    asyncio.run(main())
    asyncio.run(main(value_serializer=serialize))


def test_asyncio_counts_a_send_that_was_cancelled_while_it_waited_for_room(broker):
    async def main():
        config = broker.config(transactional_id="aio", **{"queue.buffering.max.messages": 1})
        async with AsyncKafkaProducer(config) as producer:
            await producer.init_transactions(30)
            for again in (False, True):
                await producer.begin_transaction()
                broker.round_trip_time(0.3)
                await producer.send(R("orders", b"first"))
                late = R("orders", b"second")
                with pytest.raises(asyncio.TimeoutError):
                    await asyncio.wait_for(producer.send(late), 0.05)
                with pytest.raises(QueueFullError):
                    producer.send_nowait(late)
                broker.round_trip_time(0)
                if again:
                    await producer.send(late)
                    await producer.commit_transaction(30)
                else:
                    with pytest.raises(KafkaException) as caught:
                        await producer.commit_transaction(30)
                    assert caught.value.error == ErrorCode.INCONSISTENT
                    await producer.abort_transaction(30)

    asyncio.run(main())
