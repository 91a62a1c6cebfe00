"""Sequence numbers of what is gone, and aborts of transactions with nothing in them
(wheels/patches), on the mock cluster.

It looks at the sequence numbers of transactions alone, and at no transaction's state: what a real
broker does is in cluster/test_sequence.py and cluster/test_abort_rounds.py.
"""

import time

import pytest
from faultlib import Outcomes, wait_until, within

from kafka_ext import (
    ConsumerGroupMetadata,
    ErrorCode,
    KafkaException,
    ProducerRecord,
    TopicPartition,
    _rdkafka,
)
from kafka_ext.testing import ApiKey, EmbeddedBroker

if "txn-abort-nothing" not in _rdkafka.build_info()["patches"]:
    pytest.skip("this librdkafka is not mended (wheels/patches)", allow_module_level=True)

SOON = 10


@pytest.fixture
def broker():
    with EmbeddedBroker(topics={"orders": 1}) as broker:
        yield broker


@pytest.fixture
def producer(broker, make_producer):
    config = broker.config(transactional_id="one")
    producer = make_producer(config | {"test.mock.num.brokers": ..., "enable.idempotence": ...})
    producer.init_transactions(30)
    transact(producer)
    return producer


def transact(producer):
    outcomes = Outcomes()
    with producer.transaction(timeout=SOON):
        producer.send(ProducerRecord("orders", b"committed", partition=0), outcomes.expect("it"))
    outcomes.check(["it"])
    assert outcomes.errors == []


@pytest.mark.found(1)
def test_the_transaction_after_a_purge_can_be_committed(broker, producer):
    producer.begin_transaction()
    outcomes = Outcomes()
    broker.round_trip_time(0.3)
    for number in range(10):
        producer.send(ProducerRecord("orders", b"purged", partition=0), outcomes.expect(number))
        time.sleep(0.01)
    producer.purge(in_flight=False)
    broker.round_trip_time(0)
    with pytest.raises(KafkaException) as raised:
        producer.commit_transaction(SOON)
    assert raised.value.error.transaction_requires_abort
    producer.abort_transaction(SOON)
    outcomes.check(range(10))
    assert ErrorCode["PURGE_QUEUE"] in outcomes.errors
    transact(producer)


@pytest.mark.found(2)
@pytest.mark.parametrize(
    "error", ["NOT_LEADER_FOR_PARTITION", "NOT_ENOUGH_REPLICAS", "REQUEST_TIMED_OUT"]
)
def test_an_abort_does_not_wait_for_what_it_will_not_send_again(broker, producer, error):
    """A request in flight fails for the time being while the abort waits for it."""
    producer.begin_transaction()
    outcomes = Outcomes()
    producer.send(ProducerRecord("orders", b"before", partition=0), outcomes.expect("before"))
    producer.flush(SOON)
    broker.round_trip_time(0.5)
    broker.fail_requests(ApiKey.PRODUCE, [ErrorCode[error]])
    producer.send(ProducerRecord("orders", b"aborted", partition=0), outcomes.expect("aborted"))
    time.sleep(0.2)
    with within(0.5 + 0.5 + 0.5):  # the answer, EndTxn, InitProducerId
        producer.abort_transaction(SOON)
    outcomes.check(["before", "aborted"])
    assert outcomes.errors == [ErrorCode["PURGE_INFLIGHT"]]
    broker.round_trip_time(0)
    transact(producer)


def unused(broker, api_key):
    return any(f"ApiKey.{api_key.name})" in fault for fault in broker.unused_faults())


def nothing_to_end(broker):
    """An EndTxn is answered as Kafka answers one that has nothing to end. On its own
    that is fatal.
    """
    broker.fail_requests(ApiKey.END_TXN, [ErrorCode["INVALID_TXN_STATE"]])


@pytest.mark.found(2)
@pytest.mark.parametrize("delay", [0.0, 0.2], ids=["at once", "answer on its way"])
@pytest.mark.parametrize(
    "error", ["CONCURRENT_TRANSACTIONS", "COORDINATOR_LOAD_IN_PROGRESS", "UNKNOWN_TOPIC_OR_PART"]
)
def test_an_abort_of_what_was_refused_ends_nothing(broker, producer, error, delay):
    broker.fail_requests(ApiKey.ADD_PARTITIONS_TO_TXN, [ErrorCode[error]] * 100)  # tried again, too
    nothing_to_end(broker)
    producer.begin_transaction()
    broker.round_trip_time(delay)
    producer.send(ProducerRecord("orders", b"aborted", partition=0), lambda metadata, error: None)
    wait_until(lambda: not any("100 of 100" in fault for fault in broker.unused_faults()))
    if not delay:
        time.sleep(0.01)  # answered
    producer.abort_transaction(SOON)
    assert unused(broker, ApiKey.END_TXN)
    broker.clear_faults()
    broker.round_trip_time(0)
    transact(producer)


@pytest.mark.found(2)
@pytest.mark.parametrize(
    "error", ["NOT_COORDINATOR", "COORDINATOR_NOT_AVAILABLE", "REQUEST_TIMED_OUT"]
)
def test_an_abort_that_cannot_know_whether_there_is_something_is_not_fatal(broker, producer, error):
    broker.fail_requests(ApiKey.ADD_PARTITIONS_TO_TXN, [ErrorCode[error]])
    nothing_to_end(broker)
    producer.begin_transaction()
    producer.send(ProducerRecord("orders", b"aborted", partition=0), lambda metadata, error: None)
    wait_until(lambda: not unused(broker, ApiKey.ADD_PARTITIONS_TO_TXN))
    time.sleep(0.01)
    producer.abort_transaction(SOON)
    assert broker.unused_faults() == []
    transact(producer)


@pytest.mark.found(2)
@pytest.mark.parametrize("error", ["CONCURRENT_TRANSACTIONS", "COORDINATOR_NOT_AVAILABLE"])
def test_an_abort_after_offsets_that_were_refused_is_not_fatal(broker, producer, error):
    broker.fail_requests(ApiKey.ADD_OFFSETS_TO_TXN, [ErrorCode[error]] * 100)
    nothing_to_end(broker)
    producer.begin_transaction()
    with pytest.raises(KafkaException) as raised:
        producer.send_offsets_to_transaction(
            {TopicPartition("orders", 0): 1}, ConsumerGroupMetadata("group"), timeout=1
        )
    assert not raised.value.error.is_fatal
    producer.abort_transaction(SOON)
    broker.clear_faults()
    transact(producer)


def test_a_busy_coordinator_is_not_hammered(broker, make_producer):
    """The end of the transaction before may take long, where a partition of it has no leader."""
    many = 1000
    broker.fail_requests(ApiKey.INIT_PRODUCER_ID, [ErrorCode["CONCURRENT_TRANSACTIONS"]] * many)
    config = broker.config(transactional_id="busy")
    producer = make_producer(config | {"test.mock.num.brokers": ..., "enable.idempotence": ...})
    with pytest.raises(KafkaException):
        producer.init_transactions(2)
    (left,) = [fault for fault in broker.unused_faults() if "INIT_PRODUCER_ID" in fault]
    asked = many - int(left.split(": ")[1].split(" of ")[0])
    assert 2 <= asked <= 20  # it was 100
    broker.clear_faults()
    producer.init_transactions(30)
    transact(producer)
