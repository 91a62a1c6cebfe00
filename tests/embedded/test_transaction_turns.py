"""Whose turn it is among a transaction's calls; and none of them acts on a transaction that it was
not called for.
"""

import asyncio
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from types import SimpleNamespace

import pytest
from faultlib import closed_port, interrupt_after, wait_until, within

from kafka_ext import (
    ConsumerGroupMetadata,
    ErrorCode,
    KafkaException,
    KafkaProducer,
    KafkaTimeoutError,
    ProducerClosedError,
    ProducerRecord,
    TopicPartition,
)
from kafka_ext._rdkafka import own_threads
from kafka_ext.aio import AsyncKafkaProducer
from kafka_ext.testing import ApiKey, EmbeddedBroker

R = ProducerRecord


@pytest.fixture
def broker():
    with EmbeddedBroker(topics={"orders": 1}) as broker:
        yield broker


@pytest.fixture(params=[False, True], ids=["thread", "manual"])
def producer(request, broker):
    """A producer of transactions, not initialised."""
    with KafkaProducer(
        broker.config(transactional_id="one", **{"enable.manual.events.poll": request.param})
    ) as producer:
        yield producer


def refusal(call, *arguments):
    """The error that `call` raises at once."""
    with within(0), pytest.raises(KafkaException) as caught:
        call(*arguments)
    return caught.value.error


# ---------------------------------------------------------------------- what was given up


@pytest.mark.found(3)
@pytest.mark.parametrize("end", ["commit_transaction", "abort_transaction"])
@pytest.mark.parametrize("timeout", [0.2, None])
def test_nothing_ends_before_there_is_a_transaction(broker, producer, end, timeout):
    """It used to be tried again by a thread of its own, for as long as it took: until it could end
    the first transaction to come.
    """
    broker.round_trip_time(1.0)
    with pytest.raises(KafkaTimeoutError):
        producer.init_transactions(0.1)
    error = refusal(getattr(producer, end), timeout)
    assert error == ErrorCode.STATE
    assert not error.is_retriable
    assert "init_transactions() has not finished; call it again" in error.message
    assert own_threads() == 0
    broker.round_trip_time(0)
    producer.init_transactions(30)
    for other in ("abort_transaction", "commit_transaction"):
        producer.begin_transaction()
        producer.sync_send(R("orders", b"first"))
        producer.sync_send(R("orders", b"second"))
        getattr(producer, other)(30)


@pytest.mark.found(3)
@pytest.mark.parametrize("end", ["commit_transaction", "abort_transaction"])
def test_what_was_given_up_ends_no_later_transaction(broker, producer, end):
    producer.init_transactions(30)
    producer.begin_transaction()
    producer.sync_send(R("orders", b"first"))
    broker.round_trip_time(0.5)
    with pytest.raises(KafkaTimeoutError):
        getattr(producer, end)(0.05)
    error = refusal(producer.begin_transaction)
    assert error == ErrorCode.CONFLICT
    assert error.is_retriable
    assert f"{end} is under way; call that again" in error.message
    assert refusal(producer.send, R("orders", b"late")) == ErrorCode.STATE
    assert refusal(producer.init_transactions, 30) == ErrorCode.STATE
    assert (
        refusal(producer.send_offsets_to_transaction, {("orders", 0): 1}, "group", 30)
        == ErrorCode.CONFLICT
    )
    getattr(producer, end)(30)
    broker.round_trip_time(0)
    producer.begin_transaction()
    for number in range(10):
        producer.sync_send(R("orders", b"%d" % number))
    wait_until(lambda: own_threads() == 0)
    producer.commit_transaction(30)


@pytest.mark.found(3)
def test_a_commit_that_was_given_up_has_to_be_seen_to_its_end(broker, producer):
    """However soon it ended: whether the next transaction can begin does not depend on the time."""
    producer.init_transactions(30)
    producer.begin_transaction()
    producer.sync_send(R("orders", b"first"))
    broker.round_trip_time(0.3)
    with pytest.raises(KafkaTimeoutError):
        producer.commit_transaction(0.05)
    wait_until(lambda: own_threads() == 0)
    assert refusal(producer.begin_transaction) == ErrorCode.CONFLICT
    producer.commit_transaction(0)
    assert refusal(producer.commit_transaction, None) == ErrorCode.STATE
    producer.begin_transaction()
    producer.commit_transaction(30)


@pytest.mark.found(3)
def test_an_abort_that_has_ended_since_needs_no_second_call(broker, producer):
    producer.init_transactions(30)
    producer.begin_transaction()
    producer.sync_send(R("orders", b"first"))
    broker.round_trip_time(0.3)
    with pytest.raises(KafkaTimeoutError):
        producer.abort_transaction(0.05)
    wait_until(lambda: own_threads() == 0)
    producer.begin_transaction()
    broker.round_trip_time(0)
    producer.sync_send(R("orders", b"second"))
    producer.commit_transaction(30)


@pytest.mark.slow(6)
@pytest.mark.found(3)
@pytest.mark.parametrize("end", ["commit_transaction", "abort_transaction"])
def test_the_thread_of_what_nobody_waits_for_ends(broker, end):
    """Also where the coordinator never answers; and closing the producer does not wait for it."""
    with KafkaProducer(broker.config(transactional_id="one")) as producer:
        producer.init_transactions(30)
        producer.begin_transaction()
        producer.sync_send(R("orders", b"first"))
        broker.fail_requests(ApiKey.END_TXN, [ErrorCode.COORDINATOR_LOAD_IN_PROGRESS] * 10_000)
        with within(0.1), pytest.raises(KafkaTimeoutError):
            getattr(producer, end)(0.1)
        wait_until(lambda: own_threads() == 0)
        with within(0.1), pytest.raises(KafkaTimeoutError):
            getattr(producer, end)(0.1)
        broker.clear_faults()
        getattr(producer, end)(30)
        producer.begin_transaction()
        producer.sync_send(R("orders", b"second"))
        broker.fail_requests(ApiKey.END_TXN, [ErrorCode.COORDINATOR_LOAD_IN_PROGRESS] * 10_000)
        with pytest.raises(KafkaTimeoutError):
            getattr(producer, end)(0.1)
        with within(0.1):
            producer.close(0.1)
    broker.clear_faults()


@pytest.mark.found(3)
def test_two_threads_that_commit_see_the_same_end(broker, producer):
    producer.init_transactions(30)
    for _ in range(5):
        producer.begin_transaction()
        producer.sync_send(R("orders", b"v"))
        broker.round_trip_time(0.2)
        with ThreadPoolExecutor(4) as pool:
            commits = [pool.submit(producer.commit_transaction, 30) for _ in range(4)]
        failures = [commit.exception() for commit in commits if commit.exception()]
        broker.round_trip_time(0)
        # One that came after the others were through was told so.
        assert [exc for exc in failures if exc.error != ErrorCode.STATE] == []
        assert len(failures) < 4


@pytest.mark.found(3)
def test_what_ends_a_transaction_waits_for_offsets_that_were_given_up(broker):
    """A thread that still sends them would otherwise send them to the next transaction."""

    async def main():
        async with AsyncKafkaProducer(broker.config(transactional_id="one")) as producer:
            await producer.init_transactions(30)
            await producer.begin_transaction()
            broker.round_trip_time(0.5)
            task = asyncio.ensure_future(
                producer.send_offsets_to_transaction({("orders", 0): 1}, "group")
            )
            await asyncio.sleep(0)
            task.cancel()
            await asyncio.wait({task})
            with pytest.raises(KafkaTimeoutError, match="earlier offsets"):
                await producer.send_offsets_to_transaction({("orders", 0): 2}, "group", 0.05)
            with pytest.raises(KafkaTimeoutError):
                await producer.abort_transaction(0.05)
            broker.round_trip_time(0)
            await producer.abort_transaction(30)
            async with producer.transaction(30):
                await producer.send_and_wait(R("orders", b"v"))

    asyncio.run(main())


@pytest.mark.found(3)
def test_offsets_given_up_by_a_signal_are_waited_for(broker, producer):
    producer.init_transactions(30)
    producer.begin_transaction()
    broker.round_trip_time(0.5)
    timer = interrupt_after(0.1)
    with pytest.raises(KeyboardInterrupt):
        producer.send_offsets_to_transaction({("orders", 0): 1}, "group")
    timer.join()
    with pytest.raises(KafkaTimeoutError):
        producer.commit_transaction(0.05)
    broker.round_trip_time(0)
    producer.commit_transaction(30)
    wait_until(lambda: own_threads() == 0)


# ---------------------------------------------------------------------- a commit that is under way


@pytest.mark.found(5)
def test_asyncio_refuses_what_is_sent_while_a_commit_is_under_way(broker):
    async def main():
        async with AsyncKafkaProducer(
            broker.config(transactional_id="one", linger_ms=0)
        ) as producer:
            await producer.init_transactions(30)
            for end in (producer.commit_transaction, producer.abort_transaction):
                await producer.begin_transaction()
                broker.round_trip_time(0.2)
                future = await producer.send(R("orders", b"in time"))
                ending = asyncio.ensure_future(end(30))
                await asyncio.sleep(0)
                calls = (
                    lambda: producer.send(R("orders", b"late")),
                    lambda: producer.send_and_wait(R("orders", b"late")),
                    lambda: producer.send_batch("orders", [b"late"] * 10),
                )
                for late in calls:
                    with pytest.raises(KafkaException, match="is under way") as caught:
                        await late()
                    assert caught.value.error == ErrorCode.STATE
                with pytest.raises(KafkaException, match="is under way"):
                    producer.send_nowait(R("orders", b"late"))
                assert not ending.done()
                broker.round_trip_time(0)
                await ending
                assert future.done()
        return [message.value for message in broker.messages("orders")]

    assert b"late" not in asyncio.run(main())


@pytest.mark.found(5)
def test_a_commit_under_way_refuses_what_callbacks_and_threads_send(broker, producer):
    producer.init_transactions(30)
    producer.begin_transaction()
    outcomes = []

    def send_more(metadata, error):
        outcomes.append(producer.try_send(R("orders", b"late")))
        with pytest.raises(KafkaException) as caught:
            producer.send(R("orders", b"late"))
        outcomes.append(caught.value.error)
        with pytest.raises(KafkaException) as caught:
            producer.send_batch("orders", [b"late"])
        outcomes.append(caught.value.error)

    broker.round_trip_time(0.3)
    producer.send(R("orders", b"in time"), send_more)
    producer.commit_transaction(30)
    broker.round_trip_time(0)
    assert outcomes == [ErrorCode.STATE] * 3
    assert all("commit_transaction is under way" in error.message for error in outcomes)
    assert [message.value for message in broker.messages("orders")] == [b"in time"]


# ---------------------------------------------------------------------- closed by another thread


def closed_meanwhile(call, producer, after=0.3):
    """What `call` raises where another thread closes the producer, and within which time."""
    raised = []

    def run():
        try:
            call()
        except Exception as exc:  # noqa: BLE001 - it is looked at
            raised.append((exc, time.monotonic()))

    thread = threading.Thread(target=run)
    thread.start()
    time.sleep(after)  # long enough for it to wait, as a rule; it is right in any case
    assert thread.is_alive()
    closed = time.monotonic()
    producer.close(0)
    thread.join(10)
    assert not thread.is_alive(), "it goes on after the close"
    exc, ended = raised[0]
    assert ended - closed < 2.0
    return exc


@pytest.mark.found(21)
def test_fetching_metadata_ends_with_a_close_by_another_thread(make_producer):
    nobody_there = {
        "bootstrap.servers": closed_port(),
        "test.mock.num.brokers": ...,
        "log_level": 0,
        "error_cb": lambda error: None,
    }
    producer = make_producer(nobody_there)
    assert isinstance(
        closed_meanwhile(lambda: producer.fetch_broker_metadata(timeout=None), producer),
        ProducerClosedError,
    )


@pytest.mark.found(21)
@pytest.mark.parametrize(
    "call", ["commit_transaction", "abort_transaction", "send_offsets_to_transaction"]
)
def test_a_transactions_calls_end_with_a_close_by_another_thread(broker, call):
    with KafkaProducer(
        broker.config(
            transactional_id="one", **{"transaction.timeout.ms": 3000, "message.timeout.ms": 3000}
        )
    ) as producer:
        producer.init_transactions(30)
        producer.begin_transaction()
        producer.sync_send(R("orders", b"v"))
        failing = (
            ApiKey.ADD_OFFSETS_TO_TXN if call == "send_offsets_to_transaction" else ApiKey.END_TXN
        )
        broker.fail_requests(failing, [ErrorCode.COORDINATOR_LOAD_IN_PROGRESS] * 10_000)
        arguments = ({("orders", 0): 1}, "group") if call == "send_offsets_to_transaction" else ()
        exc = closed_meanwhile(lambda: getattr(producer, call)(*arguments, timeout=None), producer)
    assert isinstance(exc, ProducerClosedError)
    broker.clear_faults()
    wait_until(lambda: own_threads() == 0)


@pytest.mark.slow(6)
@pytest.mark.found(21)
def test_asyncio_calls_end_with_a_close_by_another_task(broker):
    settings = {"transaction.timeout.ms": 3000, "message.timeout.ms": 3000}

    async def closed_during(call, producer):
        task = asyncio.ensure_future(call)
        await asyncio.sleep(0.2)
        assert not task.done()
        started = time.monotonic()
        closing = asyncio.ensure_future(producer.close(0))
        with pytest.raises(ProducerClosedError):
            await task
        assert time.monotonic() - started < 2.0
        await closing

    async def main():
        for name in ("commit_transaction", "abort_transaction", "send_offsets_to_transaction"):
            producer = AsyncKafkaProducer(broker.config(transactional_id="one", **settings))
            await producer.init_transactions(30)
            await producer.begin_transaction()
            await producer.send_and_wait(R("orders", b"v"))
            failing = (
                ApiKey.ADD_OFFSETS_TO_TXN
                if name == "send_offsets_to_transaction"
                else ApiKey.END_TXN
            )
            broker.fail_requests(failing, [ErrorCode.COORDINATOR_LOAD_IN_PROGRESS] * 10_000)
            arguments = (
                ({("orders", 0): 1}, "group") if name == "send_offsets_to_transaction" else ()
            )
            await closed_during(getattr(producer, name)(*arguments), producer)
            broker.clear_faults()
            await asyncio.to_thread(wait_until, lambda: own_threads() == 0)
        producer = AsyncKafkaProducer(
            bootstrap_servers=closed_port(), log_level=0, error_cb=lambda error: None
        )
        await closed_during(producer.fetch_broker_metadata(timeout=None), producer)

    asyncio.run(main())


@pytest.mark.found(21)
def test_metadata_of_a_broker_that_comes_late_is_waited_for():
    """The first tries, of a second and of two, are over by then."""
    with (
        EmbeddedBroker(topics={"orders": 3}, isolation="process") as broker,
        KafkaProducer(broker.config()) as producer,
    ):
        producer.fetch_broker_metadata("orders")
        broker.pause()
        timer = threading.Timer(3.5, broker.resume)
        timer.start()
        try:
            assert (
                len(
                    producer.fetch_broker_metadata("orders", timeout=None)
                    .topics["orders"]
                    .partitions
                )
                == 3
            )
        finally:
            timer.join()


# ---------------------------------------------------------------------- offsets and groups


@pytest.mark.found(26)
def test_offsets_that_are_none_are_passed_over(producer):
    producer.init_transactions(30)
    unread = {
        ("orders", 0): -1001,
        TopicPartition("orders", 1): -1,
        ("orders", 2): -2,
        ("orders", 3): -1000,
        ("orders", 4): -2005,
    }
    with within(0):
        producer.send_offsets_to_transaction(
            unread, "group"
        )  # nothing is left, and nothing is asked of a broker
    with producer.transaction(30):
        with within(0):
            producer.send_offsets_to_transaction(unread, "group")
            producer.send_offsets_to_transaction({}, "group")
        producer.send_offsets_to_transaction(unread | {("orders", 0): 5}, "group", 30)
        with pytest.raises(ValueError, match="orders"):
            producer.send_offsets_to_transaction({("orders", 0): -5}, "group")


@pytest.mark.found(26)
@pytest.mark.parametrize(
    ("offsets", "kind", "text"),
    [
        ({("orders", 0): 5.7}, TypeError, "offset must be an int, not float"),
        ({("orders", 0.0): 5}, TypeError, "partition must be an int, not float"),
        ({("orders", "0"): 5}, TypeError, "partition must be an int, not str"),
        (
            {("orders", 0): SimpleNamespace(offset=5.0)},
            TypeError,
            "offset must be an int, not float",
        ),
        (
            [SimpleNamespace(topic="orders", partition=0, offset=5.7)],
            TypeError,
            "offset must be an int, not float",
        ),
        (
            [SimpleNamespace(topic="orders", partition=0, offset=5, leader_epoch=1.5)],
            TypeError,
            "leader_epoch must be an int",
        ),
        ({("orders", 0): 1 << 63}, ValueError, "offset of 0 or more"),
        ({("orders", 1 << 31): 5}, ValueError, "a partition"),
    ],
)
def test_offsets_that_are_no_whole_numbers_are_refused(offsets, kind, text):
    producer = KafkaProducer(bootstrap_servers=closed_port(), error_cb=lambda error: None)
    with producer, within(0), pytest.raises(kind, match=f"offsets: .*{text}"):
        producer.send_offsets_to_transaction(offsets, "group")


@pytest.mark.found(26)
@pytest.mark.parametrize(
    ("arguments", "kind", "text"),
    [
        (("g", 2, ""), ValueError, "needs the member_id"),
        (("g", 0), ValueError, "needs the member_id"),
        (("",), ValueError, "group_id"),
        ((b"g",), TypeError, "group_id must be a str, not bytes"),
        (("g", "2"), TypeError, "generation_id must be an int, not str"),
        (("g", 2, None), TypeError, "member_id must be a str, not NoneType"),
        (("g", 2, "m", 5), TypeError, "group_instance_id must be a str, not int"),
        (("g", 2**31, "m"), ValueError, "generation_id must be from 0 to 2147483647"),
        (("g", -2, "m"), ValueError, "generation_id must be from 0"),
        (("g\0h",), ValueError, "group_id .* NUL"),
        (("g\udc00",), ValueError, "group_id .* surrogate"),
        (("g", 2, "m\0"), ValueError, "member_id .* NUL"),
        (("g", 2, "m", "i\0"), ValueError, "group_instance_id .* NUL"),
    ],
)
def test_group_metadata_that_no_group_knows_is_refused(arguments, kind, text):
    with pytest.raises(kind, match=text):
        ConsumerGroupMetadata(*arguments)


@pytest.mark.found(26)
@pytest.mark.parametrize(
    ("offsets", "kind", "text"),
    [
        (
            {("orders\0", 0): 1},
            ValueError,
            "topic 'orders",
        ),  # the group's offsets of "orders" were set
        ({("", 0): 1}, ValueError, "topic ''"),
        ({("\udc00", 0): 1}, ValueError, "topic"),
        ({(b"orders", 0): 1}, TypeError, "a topic must be a str, not bytes"),
        ({"orders": 1}, TypeError, r"one of them is 'orders': 1"),
        ({("orders", 0): None}, TypeError, "offset must be an int, not NoneType"),
        ({("orders", 0, 5): 1}, TypeError, r"one of them is \('orders', 0, 5\): 1"),
        ({("orders", 2**31): 1}, ValueError, "2147483648"),
        ({("orders", 0): 2**63}, ValueError, "9223372036854775808"),
        ([("orders", 0, 1)], TypeError, r"a mapping .* one of them is \('orders', 0, 1\)"),
        (None, TypeError, "offsets must be a mapping .*, not NoneType"),
        (5, TypeError, "offsets must be a mapping .*, not int"),
    ],
)
def test_offsets_of_nothing_are_refused(producer, offsets, kind, text):
    producer.init_transactions(30)
    with producer.transaction(30), within(0), pytest.raises(kind, match=text):
        producer.send_offsets_to_transaction(offsets, "group", 30)


@pytest.mark.found(26)
def test_group_metadata_of_confluent_kafkas_is_taken_as_it_is(broker, producer):
    confluent_kafka = pytest.importorskip("confluent_kafka")
    consumer = confluent_kafka.Consumer(broker.config(group_id="group", log_level=0))
    try:
        metadata = consumer.consumer_group_metadata()
    finally:
        consumer.close()
    producer.init_transactions(30)
    with producer.transaction(30):
        producer.send_offsets_to_transaction({("orders", 0): 5}, metadata, 30)
        for wrong in (b"", b"group", metadata[:-1], b"x" + metadata):
            with within(0), pytest.raises(ValueError, match="group_metadata"):
                producer.send_offsets_to_transaction({("orders", 0): 5}, wrong, 30)


# ---------------------------------------------------------------------- which call comes next


@pytest.mark.found(25)
def test_misuse_names_the_next_call(broker, producer):
    for early in (
        producer.begin_transaction,
        producer.commit_transaction,
        producer.abort_transaction,
    ):
        assert "call init_transactions() first" in refusal(early).message
    assert "call init_transactions() first" in refusal(producer.send, R("orders", b"v")).message
    assert "call init_transactions() first" in producer.try_send(R("orders", b"v")).message
    assert (
        "call init_transactions() first"
        in refusal(producer.send_offsets_to_transaction, {("orders", 0): 1}, "g").message
    )
    producer.init_transactions(30)
    for early in (producer.commit_transaction, producer.abort_transaction):
        assert "no transaction is open; call begin_transaction() first" in refusal(early).message
    assert "call begin_transaction() first" in refusal(producer.send, R("orders", b"v")).message
    assert (
        "call begin_transaction() first" in refusal(producer.sync_send, R("orders", b"v")).message
    )
    assert (
        "call begin_transaction() first" in refusal(producer.send_batch, "orders", [b"v"]).message
    )
    assert "call begin_transaction()" in refusal(producer.init_transactions).message
    producer.begin_transaction()
    assert (
        "call commit_transaction() or abort_transaction() first"
        in refusal(producer.begin_transaction).message
    )
    assert (
        "call commit_transaction() or abort_transaction() first"
        in refusal(producer.init_transactions).message
    )
    broker.fail_requests(ApiKey.ADD_PARTITIONS_TO_TXN, [ErrorCode.TOPIC_AUTHORIZATION_FAILED])
    producer.send(R("orders", b"v"))
    error = refusal(producer.commit_transaction, 30)
    assert error.transaction_requires_abort
    assert error.message.endswith("call abort_transaction()")
    error = refusal(producer.send, R("orders", b"v"))
    assert error.transaction_requires_abort
    assert "call abort_transaction()" in error.message
    producer.abort_transaction(30)
    with producer.transaction(30):
        producer.send(R("orders", b"v"))
    producer.begin_transaction()
    producer.handle.test_fatal_error(ErrorCode.PRODUCER_FENCED, "another has taken over")
    for call in (producer.init_transactions, producer.begin_transaction):
        error = refusal(call)
        assert error.is_fatal
        assert error.message.endswith("close this producer and make another")
    error = refusal(producer.send, R("orders", b"v"))
    assert error.is_fatal
    assert error.message.endswith("close this producer and make another")


# ---------------------------------------------------------------------- what a timeout says


@contextmanager
def silence_after_refusals(broker):
    """The coordinator refuses, and then nothing is answered any more."""
    broker.fail_requests(ApiKey.INIT_PRODUCER_ID, [ErrorCode.CONCURRENT_TRANSACTIONS] * 50)

    def fall_silent():
        wait_until(lambda: int(broker.unused_faults()[0].split()[-3]) <= 40, 30)  # ": 40 of 50"
        broker.round_trip_time(60)

    silencer = threading.Thread(target=fall_silent)
    silencer.start()
    try:
        yield
    finally:
        silencer.join()
        broker.round_trip_time(0)
        broker.clear_faults()


REFUSED = "the last answer was CONCURRENT_TRANSACTIONS"


@pytest.mark.slow(6)
@pytest.mark.found(25)
def test_a_timeout_tells_the_refusal_before_it(broker, producer):
    with silence_after_refusals(broker), pytest.raises(KafkaTimeoutError, match=REFUSED):
        producer.init_transactions(6)
    producer.init_transactions(30)


@pytest.mark.slow(6)
@pytest.mark.found(25)
def test_a_timeout_tells_the_refusal_before_it_on_asyncio(broker, monkeypatch):
    monkeypatch.setattr(
        "kafka_ext.aio.INIT_SLICE_MS", 100
    )  # a refusal is heard by a call that waits: with 2 ms not by each

    async def main():
        async with AsyncKafkaProducer(broker.config(transactional_id="one")) as producer:
            with silence_after_refusals(broker), pytest.raises(KafkaTimeoutError, match=REFUSED):
                await producer.init_transactions(6)
            await producer.init_transactions(30)

    asyncio.run(main())
