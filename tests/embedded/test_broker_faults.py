"""Each fault, shown to happen to a producer that meets it."""

from __future__ import annotations

import threading
import time
from collections.abc import Iterator
from typing import Any

import pytest

from kafka_ext import (
    ErrorCode,
    KafkaError,
    KafkaException,
    KafkaProducer,
    KafkaTimeoutError,
    ProducerRecord,
)
from kafka_ext.testing import ApiKey, EmbeddedBroker

ISOLATIONS = ["thread", "process"]


@pytest.fixture(params=ISOLATIONS)
def broker(request: pytest.FixtureRequest) -> Iterator[EmbeddedBroker]:
    with EmbeddedBroker(isolation=request.param) as broker:
        yield broker


@pytest.fixture(params=ISOLATIONS)
def three(request: pytest.FixtureRequest) -> Iterator[EmbeddedBroker]:
    with EmbeddedBroker(brokers=3, topics={"orders": 6}, isolation=request.param) as broker:
        yield broker


def open_producer(broker: EmbeddedBroker, **settings: Any) -> KafkaProducer:
    """A producer that does not wait long before it tries again; not idempotent unless
    it says so.
    """
    quick: dict[str, Any] = {"linger_ms": 0, "retry_backoff_ms": 10, "retry_backoff_max_ms": 50}
    quick |= {"reconnect_backoff_ms": 10, "reconnect_backoff_max_ms": 100}
    if "transactional_id" not in settings:
        quick |= {"enable_idempotence": False, "acks": "all"}
    return KafkaProducer(
        broker.config(**{**quick, **settings}),
        error_cb=lambda error: None,
        log_cb=lambda *line: None,
    )


def leaders(producer: KafkaProducer, topic: str = "orders") -> dict[int, int | None]:
    partitions = producer.fetch_broker_metadata(topic, timeout=30).topics[topic].partitions
    return {partition.id: partition.leader for partition in partitions.values()}


def spread_leaders(broker: EmbeddedBroker, producer: KafkaProducer) -> None:
    """Partition 0 is led by broker 1, and so on; the producer knows, so that it will not ask
    another broker first.
    """
    for partition in range(3):
        broker.move_leader("orders", partition, partition + 1)
        producer.sync_send(ProducerRecord("orders", b"known", partition=partition), timeout=30)


def outcome(producer: KafkaProducer, partition: int | None = None) -> ErrorCode:
    try:
        producer.sync_send(ProducerRecord("orders", b"a", partition=partition), timeout=30)
    except KafkaException as error:
        return ErrorCode(error.error.code)
    return ErrorCode.NO_ERROR


def fails(producer: KafkaProducer, partition: int) -> bool:
    return outcome(producer, partition) == ErrorCode.MSG_SIZE_TOO_LARGE


# ---------------------------------------------------------------------- fail_requests


def test_a_permanent_error_fails_one_record_and_not_the_next(broker: EmbeddedBroker) -> None:
    with open_producer(broker) as producer:
        broker.fail_requests(ApiKey.PRODUCE, [ErrorCode.MSG_SIZE_TOO_LARGE])
        with pytest.raises(KafkaException) as caught:
            producer.sync_send(ProducerRecord("orders", b"a"), timeout=30)
        assert caught.value.error == ErrorCode.MSG_SIZE_TOO_LARGE
        assert broker.unused_faults() == []
        producer.sync_send(ProducerRecord("orders", b"b"), timeout=30)
    broker.assert_delivered("orders", [b"b"], exactly_once=True)


def test_retriable_errors_are_retried(broker: EmbeddedBroker) -> None:
    with open_producer(broker) as producer:
        broker.fail_requests(
            ApiKey.PRODUCE, [ErrorCode.NOT_ENOUGH_REPLICAS, ErrorCode.LEADER_NOT_AVAILABLE]
        )
        producer.sync_send(ProducerRecord("orders", b"a"), timeout=30)
    assert broker.unused_faults() == []
    broker.assert_delivered("orders", [b"a"], exactly_once=True)


def test_errors_may_be_codes_ints_or_kafka_errors(broker: EmbeddedBroker) -> None:
    with open_producer(broker) as producer:
        errors: list[ErrorCode | int | KafkaError] = [
            ErrorCode.NOT_ENOUGH_REPLICAS,
            int(ErrorCode.NOT_ENOUGH_REPLICAS),
            KafkaError(ErrorCode.NOT_ENOUGH_REPLICAS),
        ]
        broker.fail_requests(ApiKey.PRODUCE, iter(errors))
        assert broker.unused_faults() == ["fail_requests(ApiKey.PRODUCE): 3 of 3"]
        producer.sync_send(ProducerRecord("orders", b"a"), timeout=30)
    assert broker.unused_faults() == []


def test_errors_come_in_their_order_and_no_error_lets_one_pass(broker: EmbeddedBroker) -> None:
    with open_producer(broker) as producer:
        broker.fail_requests(ApiKey.PRODUCE, [ErrorCode.INVALID_MSG_SIZE, ErrorCode.NO_ERROR])
        broker.fail_requests(ApiKey.PRODUCE, [ErrorCode.MSG_SIZE_TOO_LARGE])
        outcomes = [outcome(producer) for _ in range(4)]
    assert outcomes == [
        ErrorCode.INVALID_MSG_SIZE,
        ErrorCode.NO_ERROR,
        ErrorCode.MSG_SIZE_TOO_LARGE,
        ErrorCode.NO_ERROR,
    ]


def test_transport_closes_the_connection(broker: EmbeddedBroker) -> None:
    seen: list[KafkaError] = []
    with KafkaProducer(
        broker.config(linger_ms=0, reconnect_backoff_ms=10), error_cb=seen.append
    ) as producer:
        producer.sync_send(ProducerRecord("orders", b"a"), timeout=30)
        broker.fail_requests(ApiKey.PRODUCE, [ErrorCode.TRANSPORT])
        producer.sync_send(ProducerRecord("orders", b"b"), timeout=30)
    assert ErrorCode.ALL_BROKERS_DOWN in seen or ErrorCode.TRANSPORT in seen
    broker.assert_delivered("orders", [b"a", b"b"], exactly_once=True)


def test_other_requests_can_fail_too(broker: EmbeddedBroker) -> None:
    broker.fail_requests(ApiKey.INIT_PRODUCER_ID, [ErrorCode.COORDINATOR_LOAD_IN_PROGRESS])
    broker.fail_requests(ApiKey.FETCH, [ErrorCode.KAFKA_STORAGE_ERROR])
    broker.fail_requests(ApiKey.LIST_OFFSETS, [ErrorCode.NOT_LEADER_FOR_PARTITION])
    with open_producer(broker, enable_idempotence=True) as producer:
        producer.sync_send(ProducerRecord("orders", b"a"), timeout=30)
    assert sorted(broker.unused_faults()) == [
        "fail_requests(ApiKey.FETCH): 1 of 1",
        "fail_requests(ApiKey.LIST_OFFSETS): 1 of 1",
    ]
    broker.assert_delivered("orders", [b"a"], exactly_once=True)
    assert broker.unused_faults() == []


def test_transactions_meet_their_errors(broker: EmbeddedBroker) -> None:
    with open_producer(broker, transactional_id="tx") as producer:
        producer.init_transactions(timeout=30)
        broker.fail_requests(ApiKey.ADD_PARTITIONS_TO_TXN, [ErrorCode.CONCURRENT_TRANSACTIONS])
        broker.fail_requests(ApiKey.END_TXN, [ErrorCode.COORDINATOR_LOAD_IN_PROGRESS])
        with producer.transaction():
            producer.send(ProducerRecord("orders", b"a"))
        assert broker.unused_faults() == []
    broker.assert_delivered("orders", [b"a"], exactly_once=True)


def test_errors_for_one_broker_are_that_brokers(three: EmbeddedBroker) -> None:
    with open_producer(three) as producer:
        spread_leaders(three, producer)
        three.fail_requests(ApiKey.PRODUCE, [ErrorCode.MSG_SIZE_TOO_LARGE], broker_id=2)
        for partition in (0, 2):
            producer.sync_send(ProducerRecord("orders", b"a", partition=partition), timeout=30)
        assert three.unused_faults() == ["fail_requests(ApiKey.PRODUCE): 1 of 1"]
        with pytest.raises(KafkaException) as caught:
            producer.sync_send(ProducerRecord("orders", b"b", partition=1), timeout=30)
        assert caught.value.error == ErrorCode.MSG_SIZE_TOO_LARGE
    assert three.unused_faults() == []


def test_errors_for_no_broker_in_particular_go_to_whichever_is_next(three: EmbeddedBroker) -> None:
    with open_producer(three) as producer:
        spread_leaders(three, producer)
        three.fail_requests(ApiKey.PRODUCE, [ErrorCode.MSG_SIZE_TOO_LARGE] * 2)
        assert [fails(producer, 0), fails(producer, 2)] == [True, True]
        assert three.unused_faults() == []
        assert [fails(producer, partition) for partition in (0, 1, 2)] == [False, False, False]
        three.fail_requests(ApiKey.PRODUCE, [ErrorCode.MSG_SIZE_TOO_LARGE] * 2)
        three.fail_requests(ApiKey.PRODUCE, [ErrorCode.MSG_SIZE_TOO_LARGE])
        assert fails(producer, 1)
        assert three.unused_faults() == ["fail_requests(ApiKey.PRODUCE): 2 of 3"]
        three.clear_faults()
        assert three.unused_faults() == []
        assert not fails(producer, 1)


def test_both_kinds_can_be_mixed(three: EmbeddedBroker) -> None:
    with open_producer(three) as producer:
        spread_leaders(three, producer)
        three.fail_requests(ApiKey.PRODUCE, [ErrorCode.MSG_SIZE_TOO_LARGE], broker_id=1)
        assert fails(producer, 0)
        # Broker 1 has had errors of its own, and the mock cluster would never show it the cluster's
        # any more.
        three.fail_requests(ApiKey.PRODUCE, [ErrorCode.MSG_SIZE_TOO_LARGE])
        assert fails(producer, 0)
        deadline = time.monotonic() + 10
        while three.unused_faults() and time.monotonic() < deadline:
            time.sleep(0.01)
        assert three.unused_faults() == []
        assert [fails(producer, partition) for partition in (0, 1, 2)] == [False, False, False]


@pytest.mark.parametrize("key", [key for key in ApiKey if key is not ApiKey.METADATA])
def test_every_kind_of_error_can_be_taken_back(broker: EmbeddedBroker, key: ApiKey) -> None:
    broker.fail_requests(
        key,
        [
            ErrorCode.TRANSPORT,
            ErrorCode.UNKNOWN,
            ErrorCode.NO_ERROR,
            ErrorCode.TRANSPORT,
            ErrorCode.INVALID_MSG,
        ],
    )
    assert broker.unused_faults() == [f"fail_requests(ApiKey.{key.name}): 5 of 5"]
    broker.clear_faults()
    assert broker.unused_faults() == []
    with open_producer(broker) as producer:
        producer.sync_send(ProducerRecord("orders", b"a"), timeout=30)
    broker.assert_delivered("orders", [b"a"], exactly_once=True)


def test_a_thousand_errors_can_be_taken_back(broker: EmbeddedBroker) -> None:
    with open_producer(broker, message_timeout_ms=2000) as producer:
        producer.sync_send(ProducerRecord("orders", b"a"), timeout=30)
        broker.fail_requests(ApiKey.PRODUCE, [ErrorCode.NOT_ENOUGH_REPLICAS] * 1000)
        with pytest.raises(KafkaException) as caught:
            producer.sync_send(ProducerRecord("orders", b"a"), timeout=30)
    assert caught.value.error == ErrorCode.MSG_TIMED_OUT
    (unused,) = broker.unused_faults()
    assert 0 < int(unused.split()[1]) < 1000
    broker.clear_faults()
    with open_producer(broker) as producer:
        producer.sync_send(ProducerRecord("orders", b"a"), timeout=30)


def test_a_stopped_brokers_errors_can_be_taken_back(three: EmbeddedBroker) -> None:
    three.fail_requests(ApiKey.PRODUCE, [ErrorCode.INVALID_MSG], broker_id=2)
    three.stop_broker(2)
    three.clear_faults()
    assert three.unused_faults() == []
    with open_producer(three) as producer:
        assert 2 not in producer.fetch_broker_metadata(timeout=30).brokers


# ---------------------------------------------------------------------- round_trip_time


def test_round_trip_time_delays_and_can_be_taken_back(broker: EmbeddedBroker) -> None:
    with open_producer(broker) as producer:
        producer.sync_send(ProducerRecord("orders", b"a"), timeout=30)
        broker.round_trip_time(0.5)
        started = time.monotonic()
        producer.sync_send(ProducerRecord("orders", b"b"), timeout=30)
        assert time.monotonic() - started >= 0.45
        broker.round_trip_time(60)
        with pytest.raises(KafkaTimeoutError):
            producer.sync_send(ProducerRecord("orders", b"c"), timeout=0.3)
        broker.round_trip_time(0)
        producer.flush(timeout=30)
    broker.assert_delivered("orders", [b"a", b"b", b"c"], exactly_once=True)


def test_round_trip_time_of_one_broker(three: EmbeddedBroker) -> None:
    with open_producer(three) as producer:
        spread_leaders(three, producer)
        three.round_trip_time(60, broker_id=3)
        for partition in range(2):
            producer.sync_send(ProducerRecord("orders", b"a", partition=partition), timeout=30)
        with pytest.raises(KafkaTimeoutError):
            producer.sync_send(ProducerRecord("orders", b"a", partition=2), timeout=0.3)
        three.round_trip_time(0)


# ---------------------------------------------------------------------- stop_broker, start_broker,
# move_leader


def test_stopping_a_broker_moves_its_traffic(three: EmbeddedBroker) -> None:
    values = [str(n) for n in range(300)]
    with open_producer(three) as producer:
        producer.sync_send(ProducerRecord("orders", values[0]), timeout=30)
        for value in values[1:100]:
            producer.send(ProducerRecord("orders", value))
        three.stop_broker(1)
        for value in values[100:200]:
            producer.send(ProducerRecord("orders", value))
        producer.flush(timeout=60)
        metadata = producer.fetch_broker_metadata(timeout=30)
        assert sorted(metadata.brokers) == [2, 3]
        assert set(leaders(producer).values()) <= {2, 3}
        three.start_broker(1)
        for value in values[200:]:
            producer.send(ProducerRecord("orders", value))
        producer.flush(timeout=60)
        assert sorted(producer.fetch_broker_metadata(timeout=30).brokers) == [1, 2, 3]
    three.assert_delivered("orders", values)


def test_stopping_and_starting_twice_is_harmless(three: EmbeddedBroker) -> None:
    three.start_broker(1)
    three.stop_broker(1)
    three.stop_broker(1)
    three.start_broker(1)
    three.start_broker(1)
    with open_producer(three) as producer:
        assert sorted(producer.fetch_broker_metadata(timeout=30).brokers) == [1, 2, 3]


def test_every_broker_can_be_stopped(three: EmbeddedBroker) -> None:
    with open_producer(three) as producer:
        producer.sync_send(ProducerRecord("orders", b"a"), timeout=30)
        for broker_id in (1, 2, 3):
            three.stop_broker(broker_id)
        with pytest.raises(KafkaTimeoutError):
            producer.sync_send(ProducerRecord("orders", b"b"), timeout=0.5)
        with pytest.raises(KafkaException, match="every broker is stopped"):
            three.move_leader("orders", 0, 1)
        with pytest.raises(KafkaTimeoutError):
            three.messages("orders", timeout=0.5)
        for broker_id in (1, 2, 3):
            three.start_broker(broker_id)
        producer.flush(timeout=60)
    three.assert_delivered("orders", [b"a", b"b"])


def test_the_only_broker_comes_back_where_it_was(broker: EmbeddedBroker) -> None:
    with open_producer(broker) as producer:
        producer.sync_send(ProducerRecord("orders", b"a"), timeout=30)
        for _ in range(5):
            broker.stop_broker(1)
            broker.start_broker(1)
        producer.sync_send(ProducerRecord("orders", b"b"), timeout=60)
    broker.assert_delivered("orders", [b"a", b"b"])


def test_moving_a_leader(three: EmbeddedBroker) -> None:
    with open_producer(three) as producer:
        for broker_id in (1, 2, 3, 1):
            three.move_leader("orders", 0, broker_id)
            assert leaders(producer)[0] == broker_id
            metadata = producer.sync_send(
                ProducerRecord("orders", str(broker_id), partition=0), timeout=30
            )
            assert metadata.broker_id == broker_id
    messages = three.messages("orders")
    assert [m.value for m in messages] == [b"1", b"2", b"3", b"1"]
    assert [m.offset for m in messages] == [0, 1, 2, 3]


def test_moving_a_leader_under_load_keeps_the_order(three: EmbeddedBroker) -> None:
    values = [str(n) for n in range(3000)]
    stop = threading.Event()

    def move() -> None:
        broker_id = 0
        while not stop.is_set():
            broker_id = broker_id % 3 + 1
            three.move_leader("orders", 0, broker_id)
            time.sleep(0.02)

    thread = threading.Thread(target=move)
    thread.start()
    with open_producer(three, enable_idempotence=True) as producer:
        for n, value in enumerate(values):
            producer.send(ProducerRecord("orders", value, partition=0))
            if n % 100 == 0:
                time.sleep(0.005)
        stop.set()
        thread.join()
        producer.flush(timeout=60)
    three.assert_delivered("orders", values, exactly_once=True, ordered=True)


def test_a_partition_led_by_a_stopped_broker_is_out_of_reach(three: EmbeddedBroker) -> None:
    with open_producer(three) as producer:
        three.stop_broker(3)
        three.move_leader("orders", 0, 3)
        with pytest.raises(KafkaTimeoutError):
            producer.sync_send(ProducerRecord("orders", b"a", partition=0), timeout=0.5)
        three.move_leader("orders", 0, 1)
        producer.flush(timeout=60)
    three.assert_delivered("orders", [b"a"], exactly_once=True)


def test_moving_the_leader_of_nothing_raises_and_makes_nothing(three: EmbeddedBroker) -> None:
    for topic, partition in (("nothing", 0), ("orders", 6)):
        with pytest.raises(KafkaException) as caught:
            three.move_leader(topic, partition, 1)
        assert caught.value.error == ErrorCode.UNKNOWN_TOPIC_OR_PART
    with open_producer(three) as producer:
        assert sorted(producer.fetch_broker_metadata(timeout=30).topics) == ["orders"]


# ---------------------------------------------------------------------- fail_topic


def test_fail_topic(broker: EmbeddedBroker) -> None:
    broker.fail_topic("secret", ErrorCode.TOPIC_AUTHORIZATION_FAILED)
    with open_producer(broker) as producer:
        with pytest.raises(KafkaException) as caught:
            producer.sync_send(ProducerRecord("secret", b"a"), timeout=30)
        assert caught.value.error == ErrorCode.TOPIC_AUTHORIZATION_FAILED
        producer.sync_send(ProducerRecord("orders", b"a"), timeout=30)
    with pytest.raises(KafkaException) as caught:
        broker.messages("secret")
    assert caught.value.error == ErrorCode.TOPIC_AUTHORIZATION_FAILED
    broker.fail_topic("secret", None)
    assert broker.messages("secret") == []
    with open_producer(broker) as producer:
        producer.sync_send(ProducerRecord("secret", b"a"), timeout=30)
    assert broker.unused_faults() == []


# ---------------------------------------------------------------------- lose_acks


@pytest.mark.parametrize("idempotent", [False, True])
@pytest.mark.parametrize("count", [1, 2, 4])
def test_lost_acknowledgements_leave_duplicates(
    broker: EmbeddedBroker, count: int, idempotent: bool
) -> None:
    with open_producer(broker, enable_idempotence=idempotent) as producer:
        producer.sync_send(ProducerRecord("orders", b"a"), timeout=30)
        broker.lose_acks(count)
        assert broker.unused_faults() == [f"lose_acks: {count} of {count}"]
        metadata = producer.sync_send(ProducerRecord("orders", b"b"), timeout=60)
        assert broker.unused_faults() == []
        producer.sync_send(ProducerRecord("orders", b"c"), timeout=30)
    # The record was stored each time; nobody told the producer.
    values = [m.value for m in broker.messages("orders")]
    assert (values.count(b"a"), values.count(b"b"), values.count(b"c")) == (1, count + 1, 1)
    assert metadata.offset == max(m.offset for m in broker.messages("orders") if m.value == b"b")
    broker.assert_delivered("orders", [b"a", b"b", b"c"])
    with pytest.raises(AssertionError, match=f"duplicated: {count}"):
        broker.assert_delivered("orders", [b"a", b"b", b"c"], exactly_once=True)


def test_lost_acknowledgements_of_a_transactional_producer_leave_none(
    broker: EmbeddedBroker,
) -> None:
    with open_producer(broker, transactional_id="tx") as producer:
        producer.init_transactions(timeout=30)
        broker.lose_acks(2)
        with producer.transaction():
            producer.send(ProducerRecord("orders", b"a"))
    assert broker.unused_faults() == []
    broker.assert_delivered("orders", [b"a"], exactly_once=True)


def test_a_lost_acknowledgement_without_retries_is_possibly_persisted(
    broker: EmbeddedBroker,
) -> None:
    outcomes: list[tuple[Any, KafkaError | None]] = []
    with open_producer(broker, retries=0) as producer:
        producer.sync_send(ProducerRecord("orders", b"a"), timeout=30)
        broker.lose_acks(1)
        producer.send(
            ProducerRecord("orders", b"b"),
            lambda metadata, error: outcomes.append((metadata, error)),
        )
        producer.flush(timeout=30)
    ((metadata, error),) = outcomes
    assert error is not None
    assert metadata.persisted_status.name == "POSSIBLY"
    broker.assert_delivered("orders", [b"a", b"b"], exactly_once=True)


def test_acknowledgements_are_lost_wherever_the_leader_is(three: EmbeddedBroker) -> None:
    with open_producer(three) as producer:
        for broker_id in (1, 2, 3):
            three.move_leader("orders", 0, broker_id)
            producer.sync_send(ProducerRecord("orders", b"known", partition=0), timeout=30)
            three.lose_acks(1)
            producer.sync_send(ProducerRecord("orders", str(broker_id), partition=0), timeout=60)
            deadline = time.monotonic() + 10
            while three.unused_faults() and time.monotonic() < deadline:
                time.sleep(0.01)
            assert three.unused_faults() == []
        # What was held ready at the other brokers was taken back there.
        for broker_id in (1, 2, 3):
            three.move_leader("orders", 1, broker_id)
            producer.sync_send(ProducerRecord("orders", b"once", partition=1), timeout=30)
    values = [m.value for m in three.messages("orders")]
    assert [values.count(value) for value in (b"1", b"2", b"3", b"once")] == [2, 2, 2, 3]


def test_lost_acknowledgements_wait_their_turn_behind_errors(broker: EmbeddedBroker) -> None:
    with open_producer(broker) as producer:
        broker.fail_requests(ApiKey.PRODUCE, [ErrorCode.NOT_ENOUGH_REPLICAS] * 2)
        broker.lose_acks(1)
        broker.fail_requests(ApiKey.PRODUCE, [ErrorCode.NOT_ENOUGH_REPLICAS])
        producer.sync_send(ProducerRecord("orders", b"a"), timeout=60)
    assert broker.unused_faults() == []
    assert [m.value for m in broker.messages("orders")] == [b"a", b"a"]


def test_lost_acknowledgements_can_be_taken_back(three: EmbeddedBroker) -> None:
    three.lose_acks(3)
    three.clear_faults()
    assert three.unused_faults() == []
    with open_producer(three) as producer:
        for partition in range(6):
            producer.sync_send(ProducerRecord("orders", b"a", partition=partition), timeout=30)
    three.assert_delivered("orders", [b"a"] * 6, exactly_once=True)


def test_nothing_is_lost_with_acknowledgements_under_load(broker: EmbeddedBroker) -> None:
    values = [str(n) for n in range(5000)]
    with open_producer(broker) as producer:
        for n, value in enumerate(values):
            producer.send(ProducerRecord("orders", value))
            if n % 1000 == 500:
                broker.lose_acks(1)
                time.sleep(0.02)
        producer.flush(timeout=60)
    broker.assert_delivered("orders", values)
