"""EmbeddedBroker: its life, its topics, and what it refuses."""

from __future__ import annotations

import gc
import os
import socket
import struct
import threading
import time
from contextlib import AbstractContextManager
from typing import Any

import pytest

from kafka_ext import ErrorCode, KafkaException, KafkaProducer, ProducerRecord
from kafka_ext._rdkafka import build_info, live_testing_objects
from kafka_ext.testing import ApiKey, BrokerStateError, EmbeddedBroker


def test_runs_from_its_constructor_on_and_needs_no_with() -> None:
    broker = EmbeddedBroker()
    with KafkaProducer(broker.config()) as producer:
        producer.sync_send(ProducerRecord("orders", b"a"), timeout=30)
    assert [message.value for message in broker.messages("orders")] == [b"a"]
    broker.close()


def test_is_a_context_manager_and_closes_at_its_end() -> None:
    with EmbeddedBroker() as broker:
        assert not broker.closed
    assert broker.closed


def test_close_is_idempotent() -> None:
    broker = EmbeddedBroker()
    broker.close()
    broker.close()
    with broker_is_closed():
        broker.__enter__()


def broker_is_closed() -> AbstractContextManager[object]:
    return pytest.raises(BrokerStateError, match="closed")


def test_every_method_of_a_closed_broker_says_so() -> None:
    broker = EmbeddedBroker()
    broker.close()
    for call in (
        lambda: broker.create_topic("a"),
        lambda: broker.messages("orders"),
        lambda: broker.reader("orders"),
        lambda: broker.assert_delivered("orders", []),
        lambda: broker.fail_requests(ApiKey.PRODUCE, [ErrorCode.INVALID_MSG]),
        lambda: broker.round_trip_time(0.1),
        lambda: broker.stop_broker(1),
        lambda: broker.start_broker(1),
        lambda: broker.move_leader("orders", 0, 1),
        lambda: broker.fail_topic("orders", ErrorCode.INVALID_MSG),
        lambda: broker.lose_acks(1),
        lambda: broker.unused_faults(),
        lambda: broker.kill(),
        lambda: broker.pid,
    ):
        with broker_is_closed():
            call()


def test_dropping_it_unclosed_warns_and_closes_it() -> None:
    before = live_testing_objects()
    broker = EmbeddedBroker()
    with pytest.warns(ResourceWarning, match="unclosed <EmbeddedBroker 127.0.0.1:"):
        del broker
    assert live_testing_objects() == before


def test_a_constructor_that_raises_leaves_nothing_and_warns_of_nothing() -> None:
    before = live_testing_objects()
    with pytest.raises(ValueError, match="brokers"):
        EmbeddedBroker(0)
    gc.collect()  # warnings are errors here
    assert live_testing_objects() == before


def test_bootstrap_servers_lists_every_broker_on_loopback() -> None:
    with EmbeddedBroker(brokers=3) as broker:
        addresses = broker.bootstrap_servers.split(",")
        assert len(set(addresses)) == 3
        assert all(address.startswith("127.0.0.1:") for address in addresses)
        with KafkaProducer(broker.config()) as producer:
            nodes = producer.fetch_broker_metadata(timeout=30).brokers
    assert sorted(nodes) == [1, 2, 3]
    assert {f"{node.host}:{node.port}" for node in nodes.values()} == set(addresses)


def test_config_is_for_any_client() -> None:
    with EmbeddedBroker() as broker:
        assert broker.config() == {"bootstrap.servers": broker.bootstrap_servers}
        settings = broker.config(
            linger_ms=5, enable_idempotence=False, acks=1, **{"client.id": "me"}
        )
        assert settings == {
            "bootstrap.servers": broker.bootstrap_servers,
            "linger.ms": "5",
            "enable.idempotence": "false",
            "acks": "1",
            "client.id": "me",
        }
        assert broker.config() is not broker.config()
        assert (
            broker.config(bootstrap_servers="elsewhere:9092")["bootstrap.servers"]
            == "elsewhere:9092"
        )
        with pytest.raises(TypeError, match=r"linger\.ms"):
            broker.config(linger_ms=object())


def partition_counts(broker: EmbeddedBroker) -> dict[str, int]:
    with KafkaProducer(broker.config()) as producer:
        return {
            name: len(topic.partitions)
            for name, topic in producer.fetch_broker_metadata(timeout=30).topics.items()
        }


def test_topics_are_made_with_their_partitions() -> None:
    with EmbeddedBroker(topics={"orders": 4, "audit": 1}) as broker:
        assert partition_counts(broker) == {"orders": 4, "audit": 1}
    with EmbeddedBroker(1, {"a": 2}) as broker:
        assert partition_counts(broker) == {"a": 2}


def test_what_is_there_by_default_is_there_before_anybody_asks() -> None:
    with EmbeddedBroker(brokers=3) as broker:
        broker.move_leader("orders", 3, 2)
        with pytest.raises(KafkaException) as caught:
            broker.create_topic("orders", 1)
        assert caught.value.error == ErrorCode.TOPIC_ALREADY_EXISTS
        with KafkaProducer(broker.config()) as producer:
            assert list(producer.fetch_broker_metadata().topics) == ["orders"]
            assert (
                producer.sync_send(
                    ProducerRecord("orders", b"a", partition=3), timeout=30
                ).broker_id
                == 2
            )


def test_by_default_there_is_orders_with_four_partitions() -> None:
    with EmbeddedBroker(auto_create_topics=False) as broker:
        assert partition_counts(broker) == {"orders": 4}
    with EmbeddedBroker() as broker, KafkaProducer(broker.config()) as producer:
        producer.sync_send(ProducerRecord("orders", b"a"), timeout=30)
        assert partition_counts(broker) == {"orders": 4}


def test_create_topic() -> None:
    with EmbeddedBroker(brokers=2, topics={}) as broker:
        broker.create_topic("one")
        broker.create_topic("three", 3, 2)
        broker.create_topic("named", partitions=2, replication_factor=1)
        assert partition_counts(broker) == {"one": 1, "three": 3, "named": 2}
        with pytest.raises(KafkaException, match="exists already") as caught:
            broker.create_topic("one")
        assert caught.value.error == ErrorCode.TOPIC_ALREADY_EXISTS


def test_topics_are_made_when_they_are_asked_for() -> None:
    with EmbeddedBroker(topics={}) as broker:
        assert broker.messages("unheard.of") == []
        with KafkaProducer(broker.config()) as producer:
            producer.sync_send(ProducerRecord("unheard.of", b"a"), timeout=30)
        assert len(broker.messages("unheard.of")) == 1


def test_topics_are_not_made_without_auto_create() -> None:
    with EmbeddedBroker(auto_create_topics=False, topics={"there": 1}) as broker:
        with KafkaProducer(broker.config(message_timeout_ms=3000)) as producer:
            producer.sync_send(ProducerRecord("there", b"a"), timeout=30)
            with pytest.raises(KafkaException) as caught:
                producer.sync_send(ProducerRecord("not-there", b"a"), timeout=30)
        assert caught.value.error in (
            ErrorCode.UNKNOWN_TOPIC,
            ErrorCode.UNKNOWN_TOPIC_OR_PART,
            ErrorCode.MSG_TIMED_OUT,
        )
        with pytest.raises(KafkaException) as caught:
            broker.messages("not-there")
        assert caught.value.error == ErrorCode.UNKNOWN_TOPIC_OR_PART
        assert partition_counts(broker) == {"there": 1}


def test_starts_and_stops_in_milliseconds() -> None:
    times = []
    for _ in range(20):
        started = time.perf_counter()
        EmbeddedBroker().close()
        times.append(time.perf_counter() - started)
    # About 2 ms; ten times as much, and the machine being busy, must not fail this.
    assert sorted(times)[len(times) // 2] < 0.25


def descriptors() -> int:
    return len(os.listdir("/dev/fd"))


def native_threads() -> int:
    try:
        return len(os.listdir("/proc/self/task"))
    except FileNotFoundError:
        return threading.active_count()


@pytest.mark.slow(5)
def test_a_thousand_lives_leave_nothing_behind() -> None:
    EmbeddedBroker().close()
    before = descriptors(), native_threads(), live_testing_objects()
    for cycle in range(1000):
        with EmbeddedBroker(topics={"orders": 2}) as broker:
            if cycle % 100 == 0:
                broker.lose_acks(1)
                assert broker.messages("orders") == []
    assert (descriptors(), native_threads(), live_testing_objects()) == before


def test_many_brokers() -> None:
    with EmbeddedBroker(brokers=100) as broker:
        assert len(broker.bootstrap_servers.split(",")) == 100


def test_too_few_descriptors_raise_instead_of_ending_the_process() -> None:
    resource = pytest.importorskip("resource")
    limits = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (descriptors() + 20, limits[1]))
    try:
        with pytest.raises(OSError, match="file descriptors"):
            EmbeddedBroker(brokers=10)
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, limits)


def test_two_brokers_know_nothing_of_each_other() -> None:
    with EmbeddedBroker() as one, EmbeddedBroker() as other:
        with KafkaProducer(one.config()) as producer:
            producer.sync_send(ProducerRecord("orders", b"a"), timeout=30)
        assert len(one.messages("orders")) == 1
        assert other.messages("orders") == []


def test_threads_share_one_broker() -> None:
    errors: list[BaseException] = []

    def work(broker: EmbeddedBroker, name: str) -> None:
        try:
            broker.create_topic(name, 2)
            with KafkaProducer(broker.config(linger_ms=0)) as producer:
                for _ in range(5):
                    producer.sync_send(ProducerRecord(name, name), timeout=30)
            broker.assert_delivered(name, [name] * 5, exactly_once=True)
        except BaseException as error:  # noqa: BLE001 - shown in the main thread
            errors.append(error)

    with EmbeddedBroker() as broker:
        threads = [threading.Thread(target=work, args=(broker, f"topic-{i}")) for i in range(6)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
    assert errors == []


def test_closing_while_others_use_it_raises_there_and_nothing_worse() -> None:
    for _ in range(20):
        broker = EmbeddedBroker()
        surprises: list[BaseException] = []
        started = threading.Barrier(4)

        def use(
            broker: EmbeddedBroker = broker,
            surprises: list[BaseException] = surprises,
            started: threading.Barrier = started,
        ) -> None:
            started.wait()
            try:
                for n in range(10_000):
                    broker.fail_requests(ApiKey.FETCH, [0])
                    broker.create_topic(f"{threading.get_ident()}-{n}")
            except KafkaException:
                pass
            except BaseException as error:  # noqa: BLE001 - shown in the main thread
                surprises.append(error)

        threads = [threading.Thread(target=use) for _ in range(3)]
        for thread in threads:
            thread.start()
        started.wait()
        time.sleep(0.005)
        broker.close()
        for thread in threads:
            thread.join()
        assert surprises == []


@pytest.mark.filterwarnings(
    "ignore:.*fork:DeprecationWarning"
)  # forking with threads is what this is about
def test_a_forked_child_refuses_it_and_leaves_the_parents_alone() -> None:
    with EmbeddedBroker() as broker:
        child = os.fork()
        if child == 0:
            status = 1
            try:
                try:
                    broker.messages("orders")
                except BrokerStateError as error:
                    status = 0 if "fork" in str(error) else 2
                broker.close()
                del broker
                gc.collect()
            finally:
                os._exit(status)
        _, wait_status = os.waitpid(child, 0)
        assert os.waitstatus_to_exitcode(wait_status) == 0
        assert broker.messages("orders") == []


BAD_NAMES = ["", ".", "..", "a b", "a/b", "ä", "a\0b", "x" * 250]


@pytest.mark.parametrize(
    ("arguments", "named"),
    [
        ({"brokers": 0}, "brokers"),
        ({"brokers": -1}, "brokers"),
        ({"brokers": 101}, "brokers"),
        ({"topics": {"a": 0}}, "topics"),
        ({"topics": {"a": -1}}, "topics"),
        ({"topics": {"a": 10_001}}, "topics"),
        *[({"topics": {name: 1}}, "topic") for name in BAD_NAMES],
        ({"isolation": "container"}, "isolation"),
    ],
)
def test_constructor_refuses_values(arguments: dict[str, object], named: str) -> None:
    with pytest.raises(ValueError, match=named):
        EmbeddedBroker(**arguments)  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("arguments", "named"),
    [
        ({"brokers": "1"}, "brokers"),
        ({"brokers": 1.0}, "brokers"),
        ({"brokers": True}, "brokers"),
        ({"brokers": None}, "brokers"),
        ({"topics": ["a"]}, "topics"),
        ({"topics": "a"}, "topics"),
        ({"topics": {"a": "1"}}, "topics"),
        ({"topics": {1: 1}}, "topic"),
        ({"auto_create_topics": "no"}, "auto_create_topics"),
        ({"isolation": None}, "isolation"),
        ({"partitions": 4}, "partitions"),
    ],
)
def test_constructor_refuses_types(arguments: dict[str, object], named: str) -> None:
    with pytest.raises(TypeError, match=named):
        EmbeddedBroker(**arguments)  # type: ignore[arg-type]


@pytest.mark.parametrize("name", BAD_NAMES)
def test_bad_topic_names_are_refused_everywhere(name: str) -> None:
    with EmbeddedBroker() as broker:
        for call in (
            lambda: broker.create_topic(name),
            lambda: broker.messages(name),
            lambda: broker.reader(name),
            lambda: broker.assert_delivered(name, []),
            lambda: broker.move_leader(name, 0, 1),
            lambda: broker.fail_topic(name, ErrorCode.INVALID_MSG),
        ):
            with pytest.raises(ValueError, match="topic"):
                call()


def test_methods_refuse_types() -> None:
    broker: Any
    with EmbeddedBroker() as broker:
        for call, named in (
            (lambda: broker.create_topic(b"a"), "topic"),
            (lambda: broker.create_topic("a", "1"), "partitions"),
            (lambda: broker.create_topic("a", 1, None), "replication_factor"),
            (lambda: broker.messages(None), "topic"),
            (lambda: broker.messages("orders", "1"), "count"),
            (lambda: broker.messages("orders", True), "count"),
            (lambda: broker.messages("orders", timeout="1"), "timeout"),
            (lambda: broker.assert_delivered("orders", b"one"), "values"),
            (lambda: broker.assert_delivered("orders", "one"), "values"),
            (lambda: broker.assert_delivered("orders", 1), "values"),
            (lambda: broker.assert_delivered("orders", [1]), "values"),
            (lambda: broker.assert_delivered("orders", [], exactly_once=1), "exactly_once"),
            (lambda: broker.assert_delivered("orders", [], ordered="yes"), "ordered"),
            (lambda: broker.fail_requests("PRODUCE", [1]), "api_key"),
            (lambda: broker.fail_requests(ApiKey.PRODUCE, 1), "errors"),
            (lambda: broker.fail_requests(ApiKey.PRODUCE, ErrorCode.INVALID_MSG), "errors"),
            (lambda: broker.fail_requests(ApiKey.PRODUCE, "INVALID_MSG"), "errors"),
            (lambda: broker.fail_requests(ApiKey.PRODUCE, ["INVALID_MSG"]), "errors"),
            (lambda: broker.fail_requests(ApiKey.PRODUCE, [1], "1"), "broker_id"),
            (lambda: broker.round_trip_time("1"), "seconds"),
            (lambda: broker.round_trip_time(None), "seconds"),
            (lambda: broker.round_trip_time(1, 1.0), "broker_id"),
            (lambda: broker.stop_broker(None), "broker_id"),
            (lambda: broker.start_broker("1"), "broker_id"),
            (lambda: broker.move_leader("orders", "0", 1), "partition"),
            (lambda: broker.move_leader("orders", 0, None), "broker_id"),
            (lambda: broker.fail_topic("orders", "no"), "error"),
            (lambda: broker.lose_acks(1.5), "count"),
            (lambda: broker.lose_acks(True), "count"),
        ):
            with pytest.raises(TypeError, match=named):
                call()  # type: ignore[no-untyped-call]
        assert broker.unused_faults() == []


def test_methods_refuse_values() -> None:
    with EmbeddedBroker(brokers=2) as broker:
        for call, named in (
            (lambda: broker.create_topic("a", 0), "partitions"),
            (lambda: broker.create_topic("a", -1), "partitions"),
            (lambda: broker.create_topic("a", 1, 0), "replication_factor"),
            (lambda: broker.create_topic("a", 1, 3), "replication_factor"),
            (lambda: broker.messages("orders", -1), "count"),
            (lambda: broker.messages("orders", timeout=-1), "timeout"),
            (lambda: broker.messages("orders", timeout=float("nan")), "timeout"),
            (lambda: broker.fail_requests(ApiKey.PRODUCE, []), "errors"),
            (lambda: broker.fail_requests(ApiKey.PRODUCE, [ErrorCode.QUEUE_FULL]), "QUEUE_FULL"),
            (lambda: broker.fail_requests(ApiKey.PRODUCE, [40_000]), "40000"),
            (lambda: broker.fail_requests(ApiKey.METADATA, [1]), "fail_topic"),
            (lambda: broker.fail_requests(19, [1]), "kind 19"),
            (lambda: broker.fail_requests(ApiKey.PRODUCE, [1], 3), "broker_id"),
            (lambda: broker.fail_requests(ApiKey.PRODUCE, [1], 0), "broker_id"),
            (lambda: broker.round_trip_time(-1), "seconds"),
            (lambda: broker.round_trip_time(float("inf")), "seconds"),
            (lambda: broker.round_trip_time(3601), "seconds"),
            (lambda: broker.round_trip_time(1, 3), "broker_id"),
            (lambda: broker.stop_broker(0), "broker_id"),
            (lambda: broker.stop_broker(3), "brokers 1 to 2, and no 3"),
            (lambda: broker.start_broker(-1), "broker_id"),
            (lambda: broker.move_leader("orders", -1, 1), "partition"),
            (lambda: broker.move_leader("orders", 0, 3), "broker_id"),
            (lambda: broker.move_leader("orders", 0, -1), "without a leader"),
            (lambda: broker.fail_topic("orders", ErrorCode.QUEUE_FULL), "error"),
            (lambda: broker.lose_acks(0), "count"),
            (lambda: broker.lose_acks(-1), "count"),
        ):
            with pytest.raises(ValueError, match=named):
                call()
        assert broker.unused_faults() == []


def test_what_needs_a_process_says_so_in_a_thread() -> None:
    with EmbeddedBroker() as broker:
        assert broker.isolation == "thread"
        assert broker.pid == os.getpid()
        for call in (broker.kill, broker.pause, broker.resume, broker.restart):
            with pytest.raises(BrokerStateError, match="isolation='process'"):
                call()
        with pytest.raises(RuntimeError):
            broker.kill()


@pytest.mark.skipif(
    "mock-producer-ids" not in build_info()["patches"],
    reason="this librdkafka draws them, and some twice",
)
def test_producer_ids_are_unique() -> None:
    """A transactional producer with another one's id is refused as that one's (wheels/patches)."""
    count = 5000
    no_client_id, no_transactional_id, timeout = -1, -1, 60_000
    request = struct.pack(
        ">hhihhi", ApiKey.INIT_PRODUCER_ID, 0, 0, no_client_id, no_transactional_id, timeout
    )
    answer = struct.Struct(">iiihqh")  # size, correlation id, throttle time, error, id, epoch
    with EmbeddedBroker() as broker:
        host, port = broker.bootstrap_servers.split(":")
        with socket.create_connection((host, int(port)), timeout=30) as connection:
            connection.sendall((struct.pack(">i", len(request)) + request) * count)
            with connection.makefile("rb") as answers:
                read = answers.read(answer.size * count)
    ids = [producer_id for *_, error, producer_id, epoch in answer.iter_unpack(read) if not error]
    assert len(ids) == len(set(ids)) == count
