"""KafkaSink: what travels to tasks in other processes, and whose calls return when everything is
delivered.
"""

from __future__ import annotations

import gc
import multiprocessing
import os
import pickle
import signal
import subprocess
import sys
import threading
from typing import NamedTuple

import numpy as np
import pyarrow as pa
import pytest
from faultlib import close_shared_producers, run_program, wait_until

from kafka_ext import (
    DeliveryError,
    ErrorCode,
    InvalidConfigError,
    KafkaError,
    KafkaSink,
    KafkaTimeoutError,
    ProducerForkedError,
    ProducerRecord,
    _shared_producers,
)
from kafka_ext.testing import ApiKey, EmbeddedBroker


@pytest.fixture
def broker():
    close_shared_producers()
    with EmbeddedBroker(topics={"orders": 2, "other": 1}) as broker:
        yield broker
        close_shared_producers()


@pytest.fixture
def properties(broker):
    return broker.config(enable_idempotence=False)


@pytest.fixture
def sink(properties):
    return KafkaSink(properties, "orders")


def values(broker, topic="orders"):
    return sorted(message.value for message in broker.messages(topic))


class Callback:
    """Pickled by value: each time it arrives it is another object."""

    def __call__(self, error):
        pass


def make_properties():
    return {"bootstrap.servers": os.environ["SINK_TEST_SERVERS"], "enable.idempotence": False}


# ---------------------------------------------------------------------- what it takes


def test_rows_that_are_values_or_records(broker, sink):
    rows = [
        b"bytes",
        "text",
        bytearray(b"array"),
        ProducerRecord("other", b"record", key=b"k", headers={"h": b"1"}, timestamp=1234567),
    ]
    assert sink.write(iter(rows)) == 4
    assert values(broker) == [b"array", b"bytes", b"text"]
    (message,) = broker.messages("other")
    assert (message.key, message.value, message.headers, message.timestamp) == (
        b"k",
        b"record",
        [("h", b"1")],
        1234567,
    )


def test_a_null_row_is_a_tombstone(broker, properties):
    KafkaSink(properties, "other", value="v", key="k").write([{"v": None, "k": "gone"}])
    (message,) = broker.messages("other")
    assert (message.key, message.value) == (b"gone", None)


class Row(NamedTuple):
    v: str
    k: str | None
    p: int


class Order:
    def __init__(self, v, k, p):
        self.v, self.k, self.p = v, k, p


@pytest.mark.parametrize("make", [lambda v, k, p: {"v": v, "k": k, "p": p}, Row, Order])
def test_rows_with_fields_by_name(broker, properties, make):
    sink = KafkaSink(properties, "orders", value="v", key="k", partition="p", headers=["k"])
    assert sink.write([make("a", "x", 1), make("b", None, 0)]) == 2
    found = {
        (m.partition, m.value, m.key, tuple(m.headers or ())) for m in broker.messages("orders")
    }
    assert found == {(1, b"a", b"x", (("k", b"x"),)), (0, b"b", None, (("k", None),))}


def test_many_rows_keep_their_order_in_a_partition(broker, properties):
    sink = KafkaSink(properties | {"enable.idempotence": True}, "orders", value="v", key="k")
    rows = ({"v": f"{number}", "k": f"{number % 7}"} for number in range(30_000))
    assert sink.write(rows) == 30_000
    last = {}
    count = 0
    for message in broker.messages("orders", count=30_000):
        assert int(message.value) > last.get(message.key, -1)
        last[message.key] = int(message.value)
        count += 1
    assert count == 30_000
    assert len(last) == 7


def test_batches_and_tables(broker, properties):
    sink = KafkaSink(properties, "orders", value="v", key="k", timestamp="t", headers=["h"])
    assert sink.write_batch([b"1", b"2"], keys="same", partitions=1) == 2
    assert sink.write_batch(np.full((3, 1), ord("n"), "u1")) == 3
    table = pa.table(
        {"v": ["a", None], "k": ["x", "y"], "t": [1000, None], "h": ["1", "2"], "unused": [1, 2]}
    )
    assert sink.write_table(table) == 2
    assert sink.write_table(table.to_batches()[0]) == 2
    assert (
        sink.write_table(pa.RecordBatchReader.from_batches(table.schema, table.to_batches() * 3))
        == 6
    )
    assert len(broker.messages("orders")) == 15
    assert sum(message.value is None for message in broker.messages("orders")) == 5


def test_nothing_to_write(sink):
    assert sink.write([]) == 0
    assert sink.write_batch([]) == 0


def test_interceptors_and_partitioners_see_each_record(broker, properties):
    seen = []

    class Interceptor:
        def on_send(self, record):
            seen.append(record.value)
            return record

        def on_acknowledgement(self, metadata, error):
            seen.append(error)

    sink = KafkaSink(
        properties | {"interceptors": [Interceptor()], "partitioner": lambda topic, key, count: 1},
        "orders",
    )
    assert sink.write([b"a", b"b"]) == 2
    assert sorted(map(str, seen)) == ["None", "None", "b'a'", "b'b'"]
    assert {message.partition for message in broker.messages("orders")} == {1}
    with pytest.raises(DeliveryError) as caught:
        sink.write([b"c", bytes(2_000_000), b"d"])
    assert [index for index, _ in caught.value.failures] == [1]
    sink.close()


# ---------------------------------------------------------------------- what fails


def test_what_failed_is_named_and_the_rest_delivered(broker, sink, caplog):
    with pytest.raises(DeliveryError) as caught:
        sink.write([b"a", bytes(2_000_000), b"c", bytes(2_000_000)])
    error = caught.value
    assert [(index, error.code) for index, error in error.failures] == [
        (1, ErrorCode.MSG_SIZE_TOO_LARGE),
        (3, ErrorCode.MSG_SIZE_TOO_LARGE),
    ]
    assert (error.total, error.error) == (4, ErrorCode.MSG_SIZE_TOO_LARGE)
    assert "2 of 4 records were not delivered; the first, at index 1" in str(error)
    assert values(broker) == [b"a", b"c"]
    assert not caplog.records  # the exception has said it


def test_the_index_counts_over_all_that_was_given(broker, sink, monkeypatch):
    monkeypatch.setattr("kafka_ext.sink._ROWS", 3)
    rows = [b"%d" % number for number in range(10)]
    rows[7] = bytes(2_000_000)
    with pytest.raises(DeliveryError) as caught:
        sink.write(rows)
    assert [index for index, _ in caught.value.failures] == [7]


def test_a_delivery_error_survives_pickling():
    error = pickle.loads(
        pickle.dumps(DeliveryError([(3, KafkaError(ErrorCode.MSG_TIMED_OUT, "late"))], 7))
    )
    assert error.failures == [(3, ErrorCode.MSG_TIMED_OUT)]
    assert error.total == 7
    assert error.error.is_retriable
    assert str(error).endswith("1 of 7 records were not delivered; the first, at index 3: late")


def test_a_broker_that_refuses(broker, sink):
    broker.fail_requests(ApiKey.PRODUCE, [ErrorCode.TOPIC_AUTHORIZATION_FAILED])
    with pytest.raises(DeliveryError) as caught:
        sink.write([b"a"])
    assert caught.value.failures == [(0, ErrorCode.TOPIC_AUTHORIZATION_FAILED)]


def test_a_cluster_that_is_not_there(properties):
    with EmbeddedBroker() as gone:
        sink = KafkaSink(
            gone.config(message_timeout_ms=300, log_level=0, error_cb=Callback()), "orders"
        )
    with pytest.raises(DeliveryError) as caught:
        sink.write([b"a", b"b"])
    assert caught.value.failures == [(0, ErrorCode.MSG_TIMED_OUT), (1, ErrorCode.MSG_TIMED_OUT)]
    with pytest.raises(KafkaTimeoutError, match=r"2 of 2 records have no report"):
        sink.write([b"a", b"b"], timeout=0.01)
    sink.close()


def test_rows_that_raise_are_waited_for_first(broker, sink):
    def rows():
        for number in range(5000):
            yield b"%d" % number
        raise LookupError("no more")

    with pytest.raises(LookupError):
        sink.write(rows())
    assert (
        len(broker.messages("orders")) == 4096
    )  # whole chunks; the task has failed, but nothing of it comes later


def test_a_table_that_fails_midway_is_waited_for_first(broker, properties):
    schema = pa.schema([("v", pa.string())])

    def batches():
        yield pa.record_batch([["a", "b"]], schema)
        raise LookupError("no more")

    with pytest.raises((LookupError, ValueError, OSError)):
        KafkaSink(properties, "orders", value="v").write_table(
            pa.RecordBatchReader.from_batches(schema, batches())
        )
    assert values(broker) == [b"a", b"b"]


def test_rows_of_wrong_types(sink, properties):
    with pytest.raises(TypeError, match="item 1 of values must be"):
        sink.write([b"a", 5])
    named = KafkaSink(properties, "orders", value="v")
    with pytest.raises(TypeError, match="a row must have a field 'v'"):
        named.write([object()])
    with pytest.raises(KeyError, match="no field 'v'"):
        named.write([{"w": 1}])
    with pytest.raises(TypeError, match="names no column for the values"):
        sink.write_table(pa.table({"v": ["a"]}))
    with pytest.raises(ValueError, match="no column 'v'"):
        named.write_table(pa.table({"w": ["a"]}))


@pytest.mark.parametrize("one_by_one", [False, True])
def test_after_a_fatal_error_the_next_call_has_a_new_producer(broker, properties, one_by_one):
    more = {"partitioner": lambda topic, key, count: 0, "interceptors": []} if one_by_one else {}
    sink = KafkaSink(
        properties | {"enable.idempotence": True, "error_cb": lambda error: None} | more, "orders"
    )
    sink.write([b"before"])
    (made,) = _shared_producers._producers.values()
    first = made.current

    def rows():
        yield b"lost"
        first.handle.test_fatal_error(ErrorCode.OUT_OF_ORDER_SEQUENCE_NUMBER, "for the test")
        yield b"lost too"

    with pytest.raises(DeliveryError) as caught:
        sink.write(rows())
    assert caught.value.error.is_fatal
    assert caught.value.total == 2
    assert sink.write([b"after"]) == 1
    assert made.current is not first
    assert first.handle.closed
    assert {b"before", b"after"} <= set(values(broker))
    sink.close()


# ---------------------------------------------------------------------- what cannot be


def test_a_producer_cannot_be_pickled_and_says_what_can(make_producer):
    with pytest.raises(TypeError, match=r"KafkaSink\(properties, topic\)"):
        pickle.dumps(make_producer())


@pytest.mark.parametrize(
    ("arguments", "error", "match"),
    [
        ((5, "t"), TypeError, "properties must be a mapping"),
        (({"bootstrap.servers": "a:1"}, 5), TypeError, "topic must be a str"),
        (({"bootstrap.servers": "a:1"}, "a/b"), ValueError, "topic"),
        (({}, "t"), InvalidConfigError, "bootstrap.servers"),
        (
            ({"bootstrap.servers": "a:1", "transactional.id": "x"}, "t"),
            InvalidConfigError,
            "transactional.id",
        ),
        (
            ({"bootstrap.servers": "a:1", "enable.manual.events.poll": True}, "t"),
            InvalidConfigError,
            "manual",
        ),
    ],
)
def test_arguments(arguments, error, match):
    with pytest.raises(error, match=match):
        KafkaSink(*arguments)


@pytest.mark.parametrize(
    "columns", [{"value": 5}, {"headers": "h"}, {"key": "k"}, {"value": "v", "headers": [1]}]
)
def test_columns_that_are_none(properties, columns):
    with pytest.raises(TypeError):
        KafkaSink(properties, "orders", **columns)


def test_what_only_librdkafka_knows_is_checked_by_the_first_write(properties):
    sink = KafkaSink(properties | {"linger.mss": 5}, "orders")
    with pytest.raises(InvalidConfigError, match=r"linger\.ms"):
        sink.write([b"a"])
    with pytest.raises(TypeError, match="must return a mapping"):
        KafkaSink(lambda: 5, "orders").write([b"a"])


# ---------------------------------------------------------------------- one producer a process


def test_equal_sinks_share_a_producer(properties, sink):
    other_topic = KafkaSink(dict(reversed(properties.items())), "other", value="v")
    sink.write([b"a"])
    other_topic.write([{"v": b"a"}])
    pickle.loads(pickle.dumps(sink)).write([b"a"])
    assert len(_shared_producers._producers) == 1
    assert sink == KafkaSink(properties, "orders") != other_topic
    assert len({sink, KafkaSink(properties, "orders"), pickle.loads(pickle.dumps(sink))}) == 1
    KafkaSink(properties | {"linger.ms": 1}, "orders").write([b"a"])
    assert len(_shared_producers._producers) == 2


def test_with_callbacks_it_is_still_one_producer_however_often_it_arrives(properties):
    sent = pickle.dumps(KafkaSink(properties | {"error_cb": Callback()}, "orders"))
    for _ in range(3):
        arrived = pickle.loads(sent)
        arrived.write([b"a"])
        again = pickle.dumps(arrived)  # handed on
        del arrived
        gc.collect()
        pickle.loads(again).write([b"a"])
    assert len(_shared_producers._producers) == 1


def test_a_list_of_the_same_interceptors_is_the_same(properties):
    class Interceptor:
        def on_send(self, record):
            return record

        def on_acknowledgement(self, metadata, error):
            pass

    one = Interceptor()
    assert KafkaSink(properties | {"interceptors": [one]}, "orders") == KafkaSink(
        properties | {"interceptors": [one]}, "orders"
    )
    assert KafkaSink(properties | {"interceptors": [one]}, "orders") != KafkaSink(
        properties | {"interceptors": [Interceptor()]}, "orders"
    )


def test_properties_from_a_callable_are_asked_for_where_they_are_used(broker, monkeypatch):
    sink = KafkaSink(make_properties, "orders")
    sent = pickle.dumps(sink)
    assert broker.bootstrap_servers.encode() not in sent
    monkeypatch.setenv("SINK_TEST_SERVERS", broker.bootstrap_servers)
    assert pickle.loads(sent).write([b"a"]) == 1
    assert sink.write([b"b"]) == 1
    assert len(_shared_producers._producers) == 1


def test_many_threads(broker, sink):
    errors = []

    def work(number):
        try:
            for _ in range(20):
                assert sink.write([b"%d" % number] * 10) == 10
        except BaseException as error:  # noqa: BLE001
            errors.append(error)

    threads = [threading.Thread(target=work, args=(number,)) for number in range(8)]
    for thread in threads:
        thread.start()
    for _ in range(20):
        sink.close()  # takes the producer from under nobody
    for thread in threads:
        thread.join()
    assert not errors
    assert len(broker.messages("orders")) == 8 * 20 * 10


def test_close_waits_for_those_who_write_and_can_be_done_again(broker, properties):
    broker.round_trip_time(0.3)
    sink = KafkaSink(properties, "orders")
    written = []
    thread = threading.Thread(target=lambda: written.append(sink.write([b"a"])))
    thread.start()
    wait_until(lambda: any(made.uses for made in _shared_producers._producers.values()))
    (made,) = _shared_producers._producers.values()
    sink.close()
    assert made.current.handle.closed
    thread.join()
    assert written == [1]
    sink.close()
    broker.round_trip_time(0)
    with sink:
        assert sink.write([b"b"]) == 1
    assert not _shared_producers._producers


# ---------------------------------------------------------------------- processes


def write_in_child(sink, number):
    return os.getpid(), sink.write([b"%d" % number])


@pytest.mark.parametrize("method", ["spawn", "fork", "forkserver"])
@pytest.mark.filterwarnings("ignore:.*multi-threaded, use of fork:DeprecationWarning")
def test_multiprocessing(broker, sink, method):
    sink.write([b"parent"])
    with multiprocessing.get_context(method).Pool(2) as pool:
        done = pool.starmap(write_in_child, [(sink, number) for number in range(10)])
    assert os.getpid() not in {pid for pid, _ in done}
    assert sink.write([b"parent"]) == 1  # untouched by all this
    assert values(broker) == sorted([b"%d" % number for number in range(10)] + [b"parent"] * 2)


def test_a_fork_in_the_middle_of_a_write(broker, properties):
    sink = KafkaSink(properties, "orders")

    def rows():
        yield b"a"
        child = os.fork()
        if not child:
            status = 1
            try:
                status = KafkaSink(properties, "orders").write([b"child"]) - 1
            finally:
                os._exit(status)
        assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0
        yield b"b"

    assert sink.write(rows()) == 2
    assert values(broker) == [b"a", b"b", b"child"]


def test_a_child_that_goes_on_with_its_parents_call_is_told(broker, properties):
    sink = KafkaSink(properties, "orders")

    def rows():
        yield b"a"
        if not os.fork():
            forked.append(True)
        yield b"b"

    forked = []
    try:
        sink.write(rows())
    except BaseException as error:  # noqa: BLE001
        os._exit(0 if forked and isinstance(error, ProducerForkedError) else 1)
    assert not forked
    assert os.waitstatus_to_exitcode(os.wait()[1]) == 0


def test_the_interpreters_end_with_nothing_closed(broker):
    """No ResourceWarning (it would be an error here), and nothing hangs."""
    done = run_program(
        f"""
        sink = KafkaSink({broker.config(enable_idempotence=False)!r}, "orders")
        print(sink.write([b"a"]))
        def late():
            try:
                while True:
                    sink.write([b"late"])
            except ProducerClosedError:
                pass  # the end has come
        threading.Thread(target=late, daemon=True).start()
        time.sleep(0.1)
        """,
        flags=["-W", "error"],
    )
    assert done.stdout.strip() == "1"
    assert done.stderr == ""


WORKER = """
import sys
from kafka_ext import KafkaSink
import pickle
sink = pickle.load(sys.stdin.buffer)
for task in range(1_000_000):
    sink.write(f"{task}-{row}" for row in range(100))
    print(task, flush=True)
"""


def test_a_worker_killed_in_mid_task_loses_nothing_it_had_reported_as_done(broker, properties):
    worker = subprocess.Popen(
        [sys.executable, "-c", WORKER], stdin=subprocess.PIPE, stdout=subprocess.PIPE
    )
    worker.stdin.write(pickle.dumps(KafkaSink(properties, "orders")))
    worker.stdin.close()
    done = [worker.stdout.readline() for _ in range(50)]
    worker.send_signal(signal.SIGKILL)
    done += worker.stdout.readlines()
    worker.stdout.close()
    assert worker.wait() == -signal.SIGKILL
    found = set(values(broker))
    for task in map(int, done):
        assert {f"{task}-{row}".encode() for row in range(100)} <= found
