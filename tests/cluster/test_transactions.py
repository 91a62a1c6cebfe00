"""Transactions on a real broker: what is visible when, who is fenced, and a consumer's offsets."""

import asyncio
import time

import pytest
from confluent_kafka import Consumer
from confluent_kafka import TopicPartition as ConfluentPartition
from faultlib import Outcomes

from kafka_ext import (
    ConsumerGroupMetadata,
    ErrorCode,
    KafkaException,
    KafkaTimeoutError,
    ProducerRecord,
    TopicPartition,
)
from kafka_ext.aio import AsyncKafkaProducer


@pytest.fixture
def topic(single, new_topic):
    return new_topic(single, 2)


@pytest.fixture
def transactional(single, connect, topic):
    def make(**settings):
        producer = connect(single.config(**{"transactional_id": f"of-{topic}"} | settings))
        producer.init_transactions(30)
        return producer

    return make


def values(single, topic, isolation_level="read_committed"):
    return sorted(
        message.value for message in single.messages(topic, isolation_level=isolation_level)
    )


def test_a_transaction_is_visible_when_it_is_committed_and_not_before(single, transactional, topic):
    producer = transactional()
    with producer.transaction(timeout=30):
        for number in range(10):
            producer.send(ProducerRecord(topic, b"%d" % number, partition=number % 2))
        producer.flush(10)  # all of it is in the log now
        assert len(values(single, topic, "read_uncommitted")) == 10
        assert values(single, topic) == []
    assert values(single, topic) == [b"%d" % number for number in range(10)]


def test_an_aborted_transaction_is_never_visible(single, transactional, topic):
    producer = transactional()
    outcomes = Outcomes()

    def transact():
        with producer.transaction(timeout=30):
            producer.send(
                ProducerRecord(topic, b"aborted", partition=0), outcomes.expect("flushed")
            )
            producer.flush(10)
            raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        transact()
    outcomes.check(["flushed"])
    assert outcomes.errors == []  # it was delivered: whether it counts is the transaction's matter
    with producer.transaction(timeout=30):
        producer.send(ProducerRecord(topic, b"committed", partition=0))
    assert values(single, topic) == [b"committed"]
    assert values(single, topic, "read_uncommitted") == [b"aborted", b"committed"]


def test_a_transaction_over_several_topics_and_many_batches(
    single, transactional, topic, new_topic
):
    other = new_topic(single, 3)
    producer = transactional(batch_num_messages=100)
    for round_ in range(5):
        producer.begin_transaction()
        for number in range(1000):
            producer.send(ProducerRecord((topic, other)[number % 2], b"%d-%d" % (round_, number)))
        if round_ % 2:
            producer.abort_transaction(30)
        else:
            producer.commit_transaction(30)
    found = values(single, topic) + values(single, other)
    assert sorted(found) == sorted(
        b"%d-%d" % (round_, number) for round_ in (0, 2, 4) for number in range(1000)
    )


def test_fault_14_a_zombie_is_fenced_and_its_successor_takes_over(single, transactional, topic):
    zombie = transactional()
    zombie.begin_transaction()
    zombie.send(ProducerRecord(topic, b"left open"))
    zombie.flush(10)
    successor = transactional()  # which aborts what the zombie has left
    with successor.transaction(timeout=30):
        successor.send(ProducerRecord(topic, b"successor's"))
    outcomes = Outcomes()
    zombie.send(ProducerRecord(topic, b"too late"), outcomes.expect("late"))
    with pytest.raises(KafkaException) as raised:
        zombie.commit_transaction(30)
    assert raised.value.error.is_fatal
    assert raised.value.error in (
        ErrorCode["FENCED"],
        ErrorCode["PRODUCER_FENCED"],
        ErrorCode["INVALID_PRODUCER_EPOCH"],
    )
    with pytest.raises(KafkaException) as raised:
        zombie.send(ProducerRecord(topic, b"never"))
    assert raised.value.error.is_fatal
    zombie.close(10)
    outcomes.check(["late"])
    assert len(outcomes.errors) == 1
    assert values(single, topic) == [b"successor's"]
    with successor.transaction(timeout=30):  # unaffected by the zombie's try
        successor.send(ProducerRecord(topic, b"more"))
    assert values(single, topic) == [b"more", b"successor's"]


def test_a_transaction_that_takes_too_long_is_aborted_by_the_broker(single, transactional, topic):
    producer = transactional(transaction_timeout_ms=1000, message_timeout_ms=1000)
    producer.begin_transaction()
    producer.send(ProducerRecord(topic, b"too slow"))
    producer.flush(10)
    give_up = time.monotonic() + 30
    while True:  # the coordinator looks every so often; when it has, others read on
        with (
            transactional(transactional_id=f"other-{topic}") as other,
            other.transaction(timeout=30),
        ):
            other.send(ProducerRecord(topic, b"other", partition=0))
            other.send(ProducerRecord(topic, b"other", partition=1))
        if (
            len(single.messages(topic))
            == len(single.messages(topic, isolation_level="read_uncommitted")) - 1
        ):
            break
        assert time.monotonic() < give_up
        time.sleep(0.5)
    with pytest.raises(KafkaException) as raised:
        producer.commit_transaction(30)
    assert raised.value.error.is_fatal or raised.value.error.transaction_requires_abort
    assert b"too slow" not in values(single, topic)


def test_calls_out_of_order_are_refused_and_harm_nothing(single, connect, transactional, topic):
    plain = connect(single.config())
    with pytest.raises(KafkaException):
        plain.init_transactions(10)
    producer = transactional()
    for call in (producer.commit_transaction, producer.abort_transaction):
        with pytest.raises(KafkaException) as raised:
            call(10)
        assert raised.value.error == ErrorCode["STATE"]
    with pytest.raises(KafkaException) as raised:
        producer.send(ProducerRecord(topic, b"outside"))
    assert raised.value.error == ErrorCode["STATE"]
    with producer.transaction(timeout=30):
        producer.send(ProducerRecord(topic, b"inside"))
    assert values(single, topic) == [b"inside"]


# ---------------------------------------------------------------------- what ends it, and what is
# in it


@pytest.mark.found(3)
@pytest.mark.parametrize("given_up", ["commit_transaction", "abort_transaction"])
@pytest.mark.parametrize("end", ["commit_transaction", "abort_transaction"])
def test_what_was_given_up_before_the_first_transaction_does_not_end_it(
    single, connect, topic, given_up, end
):
    producer = connect(single.config(transactional_id=f"of-{topic}"))
    with pytest.raises(KafkaTimeoutError):
        producer.init_transactions(0)
    with pytest.raises(KafkaException) as raised:
        getattr(producer, given_up)(0.2)
    assert raised.value.error == ErrorCode["STATE"]
    producer.init_transactions(30)
    producer.begin_transaction()
    producer.sync_send(ProducerRecord(topic, b"first"))
    producer.sync_send(ProducerRecord(topic, b"second"))
    assert values(single, topic) == []
    getattr(producer, end)()  # with no limit
    assert values(single, topic) == ([b"first", b"second"] if end == "commit_transaction" else [])


@pytest.mark.found(3)
def test_a_commit_that_ran_out_of_time_is_taken_up_again_and_ends_no_other(
    single, transactional, topic
):
    producer = transactional()
    for number in range(5):
        producer.begin_transaction()
        producer.send(ProducerRecord(topic, b"committed %d" % number))
        with pytest.raises(KafkaTimeoutError):
            producer.commit_transaction(0)
        with pytest.raises(KafkaException) as raised:
            producer.begin_transaction()
        assert raised.value.error == ErrorCode["CONFLICT"]
        producer.commit_transaction()
        producer.begin_transaction()
        producer.sync_send(ProducerRecord(topic, b"aborted"))
        producer.abort_transaction(30)
    assert values(single, topic) == [b"committed %d" % number for number in range(5)]


@pytest.mark.found(4)
@pytest.mark.parametrize("send", ["send_batch", "try_send"])
def test_a_transaction_that_lacks_a_record_is_not_committed(single, transactional, topic, send):
    producer = transactional(message_max_bytes=1000)

    def transact():
        with producer.transaction(30):
            producer.sync_send(ProducerRecord(topic, b"written"))
            if send == "send_batch":
                producer.send_batch(topic, [b"a", b"x" * 5000, b"c"])
            else:
                assert producer.try_send(ProducerRecord(topic, b"x" * 5000)) is not None

    with pytest.raises(KafkaException) as raised:
        transact()
    assert raised.value.error.transaction_requires_abort
    with producer.transaction(30):
        producer.send_batch(topic, [b"next"])
    assert values(single, topic) == [b"next"]


@pytest.mark.found(5)
def test_what_asyncio_sends_during_a_commit_is_not_in_the_transaction(single, topic):
    async def main():
        async with AsyncKafkaProducer(single.config(transactional_id=f"of-{topic}")) as producer:
            await producer.init_transactions(30)
            for _ in range(5):
                await producer.begin_transaction()
                await producer.send(ProducerRecord(topic, b"in time"))
                commit = asyncio.ensure_future(producer.commit_transaction(30))
                await asyncio.sleep(0)
                with pytest.raises(KafkaException, match="commit_transaction is under way"):
                    await producer.send(ProducerRecord(topic, b"late"))
                await commit

    asyncio.run(main())
    assert values(single, topic, "read_uncommitted") == [b"in time"] * 5


@pytest.mark.found(26)
def test_confluent_kafkas_group_metadata_and_unread_partitions_are_taken_as_they_are(
    single, consumer, connect, transactional, topic, new_topic
):
    source = new_topic(single, 2)
    with connect(single.config()) as feeder:
        feeder.send(ProducerRecord(source, b"v", partition=0))
    consumer.subscribe([source])
    read(consumer, 1)
    producer = transactional()
    with producer.transaction(30):
        producer.send(ProducerRecord(topic, b"done"))
        positions = consumer.position(consumer.assignment())
        assert -1001 in {partition.offset for partition in positions}
        producer.send_offsets_to_transaction(
            positions, consumer.consumer_group_metadata(), timeout=30
        )
    assert committed(consumer, source) == [1]


# ---------------------------------------------------------------------- a consumer's offsets


@pytest.fixture
def consumer(single, topic, new_topic):
    """A consumer of confluent-kafka's in a group of its own, on a topic with ten records."""
    consumer = Consumer(
        single.config(
            group_id=f"group-of-{topic}",
            auto_offset_reset="earliest",
            enable_auto_commit=False,
            isolation_level="read_committed",
        )
    )
    yield consumer
    consumer.close()


def committed(consumer, topic):
    return [
        partition.offset
        for partition in consumer.committed([ConfluentPartition(topic, 0)], timeout=10)
    ]


def read(consumer, count):
    messages = []
    give_up = time.monotonic() + 30
    while len(messages) < count:
        assert time.monotonic() < give_up
        messages += [
            message
            for message in consumer.consume(count - len(messages), 1)
            if message.error() is None
        ]
    return messages


def test_offsets_are_committed_with_the_transaction_and_not_with_an_aborted_one(
    single, connect, consumer, transactional, topic, new_topic
):
    source = new_topic(single)
    with connect(single.config()) as feeder:
        for number in range(10):
            feeder.send(ProducerRecord(source, b"%d" % number))
    consumer.subscribe([source])
    producer = transactional()
    group = ConsumerGroupMetadata(f"group-of-{topic}")

    first = read(consumer, 4)
    producer.begin_transaction()
    for message in first:
        producer.send(ProducerRecord(topic, b"aborted " + message.value()))
    producer.send_offsets_to_transaction(
        {TopicPartition(source, 0): first[-1].offset() + 1}, group, timeout=30
    )
    producer.abort_transaction(30)
    assert committed(consumer, source) == [-1001]

    with producer.transaction(timeout=30):
        for message in first:
            producer.send(ProducerRecord(topic, b"done " + message.value()))
        producer.send_offsets_to_transaction(
            {TopicPartition(source, 0): first[-1].offset() + 1}, group, timeout=30
        )
    assert committed(consumer, source) == [4]
    assert values(single, topic) == [b"done %d" % number for number in range(4)]


def test_whoever_takes_over_the_group_goes_on_where_the_transactions_were(
    single, connect, transactional, topic, new_topic
):
    source = new_topic(single)
    with connect(single.config()) as feeder:
        for number in range(10):
            feeder.send(ProducerRecord(source, b"%d" % number))
    group = f"group-of-{topic}"
    for count in (4, 6):
        consumer = Consumer(
            single.config(group_id=group, auto_offset_reset="earliest", enable_auto_commit=False)
        )
        consumer.subscribe([source])
        producer = transactional()
        messages = read(consumer, count)
        with producer.transaction(timeout=30):
            for message in messages:
                producer.send(ProducerRecord(topic, message.value(), partition=0))
            producer.send_offsets_to_transaction(
                {TopicPartition(source, 0): messages[-1].offset() + 1}, group, timeout=30
            )
        consumer.close()
        producer.close(10)
    single.assert_delivered(
        topic, [b"%d" % number for number in range(10)], exactly_once=True, ordered=True
    )


def test_a_member_that_the_group_has_replaced_cannot_commit_its_offsets(
    single, consumer, connect, transactional, topic, new_topic
):
    source = new_topic(single)
    with connect(single.config()) as feeder:
        feeder.send(ProducerRecord(source, b"v"))
    consumer.subscribe([source])
    read(consumer, 1)
    producer = transactional()
    producer.begin_transaction()
    producer.send(ProducerRecord(topic, b"zombie's"))
    zombie = ConsumerGroupMetadata(
        f"group-of-{topic}", generation_id=99, member_id=consumer.memberid()
    )
    with pytest.raises(KafkaException) as raised:
        producer.send_offsets_to_transaction({TopicPartition(source, 0): 1}, zombie, timeout=30)
    assert raised.value.error.transaction_requires_abort
    producer.abort_transaction(30)
    assert committed(consumer, source) == [-1001]
    assert values(single, topic) == []


@pytest.mark.found(1)
def test_the_transaction_after_a_timeout_without_a_leader_can_be_committed(
    trio, connect, new_topic
):
    """The record's sequence number is used, and no broker will ever get it."""
    topic = new_topic(trio, replicas={0: [2]})
    producer = connect(
        trio.config(**{"transactional.id": f"of-{topic}", "message.timeout.ms": 5000})
    )
    producer.init_transactions(30)
    reports = []

    def transact(value):
        producer.begin_transaction()
        producer.send(
            ProducerRecord(topic, value, partition=0),
            lambda metadata, error: reports.append(error and error.code),
        )
        producer.commit_transaction(30)

    transact(b"before")
    producer.begin_transaction()
    producer.send(ProducerRecord(topic, b"aborted", partition=0))
    producer.flush(20)
    trio.stop(2)
    producer.send(
        ProducerRecord(topic, b"lost", partition=0),
        lambda metadata, error: reports.append(error and error.code),
    )
    with pytest.raises(KafkaException):
        producer.commit_transaction(30)
    assert reports == [None, ErrorCode.MSG_TIMED_OUT]
    trio.start(2)
    trio.wait_until_ready()
    producer.abort_transaction(30)
    transact(b"after")
    assert reports[2:] == [None]
    assert [message.value for message in trio.messages(topic)] == [b"before", b"after"]
