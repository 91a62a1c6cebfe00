"""Sentences of the documentation that no other file shows: signatures, threads, what
interceptors cost, warnings at exit.
"""

import inspect
import sys
import time
import tracemalloc
from concurrent.futures import Future

import pytest
from faultlib import Outcomes, run_program
from test_faults_threads import join, run_in_threads

from kafka_ext import ErrorCode, KafkaException, KafkaProducer, PersistedStatus, ProducerRecord
from kafka_ext.testing import EmbeddedBroker

BOTH_MODES = pytest.mark.parametrize("manual", [False, True])
STUCK = {
    "bootstrap.servers": "127.0.0.1:1",
    "test.mock.num.brokers": ...,
    "error_cb": lambda error: None,
    "log_level": 0,
}


# ---------------------------------------------------------------------- names


@pytest.mark.parametrize(
    ("method", "arguments"),
    [
        ("send", "record on_delivery=None *option *action *timeout=None"),
        ("try_send", "record on_delivery=None *option"),
        ("sync_send", "record timeout=None"),
        ("send_future", "record *option *action *timeout=None"),
        ("poll_events", "timeout=0.0"),
        ("flush", "timeout=None"),
        ("purge", "*in_queue=True *in_flight=True"),
        ("close", "timeout=None"),
        ("fetch_broker_metadata", "topic=None timeout=10.0"),
        ("get_property", "name"),
        ("metrics", ""),
    ],
)
def test_methods_take_what_the_contract_says(method, arguments):
    """A star: by keyword only."""
    parameters = list(inspect.signature(getattr(KafkaProducer, method)).parameters.values())[1:]
    given = []
    for parameter in parameters:
        default = (
            ""
            if parameter.name in ("option", "action") or parameter.default is parameter.empty
            else f"={parameter.default}"
        )
        given.append("*" * (parameter.kind is parameter.KEYWORD_ONLY) + parameter.name + default)
    assert " ".join(given) == arguments


def test_what_methods_return(make_producer, reports):
    producer = make_producer({"linger.ms": 60_000})
    record = ProducerRecord("t", b"v")
    assert producer.send(record, reports) is None
    assert producer.try_send(record) is None
    assert isinstance(producer.send_future(record), Future)
    assert producer.purge(in_queue=False, in_flight=False) is None
    assert producer.flush(10) is None
    assert producer.close() is None


# ---------------------------------------------------------------------- sending


def test_try_send_returns_whatever_keeps_a_record_from_being_enqueued(make_producer):
    producer = make_producer({"message.max.bytes": 1000})
    for record, code in (
        (ProducerRecord("t", bytes(1000)), ErrorCode.MSG_SIZE_TOO_LARGE),
        (ProducerRecord("t", b"", headers={"large": bytes(1000)}), ErrorCode.MSG_SIZE_TOO_LARGE),
        (ProducerRecord("no such topic", b""), ErrorCode.TOPIC_EXCEPTION),
        (ProducerRecord("t", b"", headers={"\0": b""}), ErrorCode.INVALID_ARG),
    ):
        assert producer.try_send(record, pytest.fail) == code
    assert producer.metrics().sent == 0


@pytest.mark.parametrize("value", ["a" * 900_000, "é" * 450_000], ids=["ASCII", "UTF-8"])
def test_a_str_is_sent_without_an_extra_copy(make_producer, value):
    """Of ASCII its own memory is sent; else its UTF-8, which CPython makes once and
    keeps with it.
    """
    producer = make_producer({"linger.ms": 60_000, "queue.buffering.max.kbytes": 100_000})
    producer.send(ProducerRecord("t", value))
    tracemalloc.start()
    try:
        for _ in range(20):
            producer.send(ProducerRecord("t", value))
        _, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert producer.metrics().pinned_bytes == 21 * 900_000
    assert peak < 100_000
    producer.purge()
    producer.flush(10)


def test_an_arrow_buffer_is_a_value_a_key_and_a_header(make_producer):
    pyarrow = pytest.importorskip("pyarrow")
    with EmbeddedBroker(topics={"one": 1}) as broker:
        producer = make_producer({"test.mock.num.brokers": ...} | broker.config())
        buffer = pyarrow.py_buffer(b"an Arrow buffer")
        producer.sync_send(
            ProducerRecord("one", buffer, key=buffer.slice(3, 5), headers={"h": buffer}), timeout=10
        )
        (message,) = broker.messages("one")
        assert (message.value, message.key, message.headers) == (
            b"an Arrow buffer",
            b"Arrow",
            [("h", b"an Arrow buffer")],
        )


@BOTH_MODES
def test_purge_in_flight_leaves_alone_what_waits(make_producer, reports, manual):
    with EmbeddedBroker(topics={"one": 1}) as broker:
        producer = make_producer(
            {
                "test.mock.num.brokers": ...,
                "max.in.flight": 1,
                "batch.num.messages": 1,
                "enable.manual.events.poll": manual,
            }
            | broker.config()
        )
        producer.sync_send(ProducerRecord("one", b"warm"), timeout=10)
        broker.round_trip_time(3.0)
        outcomes = Outcomes()
        for name in ("on its way", "waits"):
            producer.send(ProducerRecord("one", name), outcomes.expect(name))

        deadline = time.monotonic() + 20
        while not outcomes.reports and time.monotonic() < deadline:
            producer.purge(in_queue=False)
            # Long enough for the report to come before the next purge, which would meet the other
            # record, on its way by then.
            until = time.monotonic() + 1
            while not outcomes.reports and time.monotonic() < until:
                if manual:
                    producer.poll_events(0.01)
                else:
                    time.sleep(0.01)
        assert set(outcomes.reports) == {"on its way"}
        broker.round_trip_time(0)
        metadata, error = outcomes.reports["on its way"]
        assert (error, metadata.persisted_status) == (
            ErrorCode.PURGE_INFLIGHT,
            PersistedStatus.POSSIBLY,
        )
        producer.flush(20)
        outcomes.check({"on its way", "waits"})
        assert outcomes.reports["waits"][1] is None


# ---------------------------------------------------------------------- every method is thread-safe


@BOTH_MODES
def test_every_method_from_many_threads_at_once(broker, manual):
    reports, lost = [], []
    producer = KafkaProducer(
        broker.config(enable_idempotence=False),
        **{"enable.manual.events.poll": manual, "statistics.interval.ms": 5},
    )
    allowed = {None, ErrorCode["PURGE_QUEUE"], ErrorCode["PURGE_INFLIGHT"]}

    def send():
        producer.send(
            ProducerRecord("orders", bytearray(b"x"), headers={"h": b"v"}),
            lambda metadata, error: reports.append(error),
        )

    def try_send():
        refused = producer.try_send(
            ProducerRecord("orders", b"x"), lambda metadata, error: reports.append(error)
        )
        if refused is not None:
            lost.append(refused)

    def sync_send():
        try:
            assert producer.sync_send(ProducerRecord("orders", b"x"), timeout=30).topic == "orders"
            reports.append(None)
        except KafkaException as exc:
            reports.append(exc.error)

    def poll():
        if manual:
            assert producer.poll_events(0.001) >= 0
        else:
            with pytest.raises(KafkaException):
                producer.poll_events()

    def counts():
        metrics = producer.metrics()
        assert metrics.sent >= 0
        assert metrics.outstanding >= 0
        assert metrics.statistics is None or metrics.statistics["type"] == "producer"

    calls = [
        send, try_send, sync_send, poll, counts,
        lambda: producer.flush(30),
        producer.purge,
        lambda: producer.fetch_broker_metadata("orders").topics["orders"].partitions[3],
        lambda: producer.fetch_broker_metadata().brokers[1],
        lambda: producer.get_property("linger.ms"),
        lambda: producer.properties["bootstrap.servers"],
        lambda: producer.fatal_error(),
        lambda: repr(producer),
    ]  # fmt: skip

    def work(i):
        for turn in range(8 * len(calls)):
            calls[(turn + i) % len(calls)]()

    threads, raised = run_in_threads(8, work)
    join(threads)
    producer.close()
    assert not raised
    assert not lost
    assert len(reports) == 8 * 8 * 3
    assert set(reports) <= allowed
    assert (producer.metrics().outstanding, producer.metrics().pinned_messages) == (0, 0)


@BOTH_MODES
def test_every_method_while_another_thread_closes(broker, manual):
    for _ in range(5):
        producer = KafkaProducer(
            broker.config(enable_idempotence=False), **{"enable.manual.events.poll": manual}
        )
        reports, accepted = [], []

        def send(producer=producer, reports=reports, accepted=accepted):
            producer.send(
                ProducerRecord("orders", bytearray(b"x")),
                lambda metadata, error: reports.append(error),
            )
            accepted.append(1)

        calls = [
            send,
            lambda producer=producer: producer.flush(30),
            producer.purge,
            producer.fetch_broker_metadata,
            lambda producer=producer: producer.get_property("linger.ms"),
            producer.fatal_error,
            producer.metrics,
            lambda producer=producer: producer.sync_send(
                ProducerRecord("orders", b"x"), timeout=30
            ),
        ]

        def work(i, producer=producer, calls=calls):
            for turn in range(40):
                if i == 7 and turn == 5:
                    producer.close()
                try:
                    calls[(turn + i) % len(calls)]()
                except KafkaException:
                    pass  # closed, purged: what matters is that it ends

        threads, raised = run_in_threads(8, work)
        join(threads)
        assert not raised
        assert len(reports) == len(accepted)
        assert producer.metrics().outstanding == 0


@BOTH_MODES
def test_transactions_from_many_threads_at_once(broker, manual):
    """Most calls come at a wrong moment and are refused; none hangs or crashes, and the producer
    can go on.
    """
    producer = KafkaProducer(
        broker.config(transactional_id="threads"), **{"enable.manual.events.poll": manual}
    )
    reports, accepted, committed, fatal = [], [], [], []
    threads, raised = run_in_threads(4, lambda i: producer.init_transactions(30))
    join(threads)
    assert all(isinstance(exc, KafkaException) for exc in raised)

    def send():
        producer.send(
            ProducerRecord("orders", bytearray(b"x")), lambda metadata, error: reports.append(error)
        )
        accepted.append(1)

    def commit():
        producer.commit_transaction(30)
        committed.append(1)

    calls = [
        producer.begin_transaction,
        send,
        send,
        commit,
        producer.begin_transaction,
        lambda: producer.send_offsets_to_transaction({("orders", 0): 1}, "group", 30),
        send,
        lambda: producer.abort_transaction(30),
    ]

    def work(i):
        for turn in range(5 * len(calls)):
            try:
                calls[(turn + i * 3) % len(calls)]()
            except KafkaException as exc:  # noqa: PERF203 each of them is a case
                if exc.error.is_fatal:
                    fatal.append(exc.error)

    threads, raised = run_in_threads(6, work)
    join(threads)
    assert not raised
    assert not fatal
    assert committed
    try:
        producer.abort_transaction(30)
    except KafkaException:
        pass  # none was open
    before = len(reports)
    with producer.transaction(30):
        send()
    assert reports[before:] == [None]
    producer.close()
    assert len(reports) == len(accepted)


@pytest.fixture
def broker():
    with EmbeddedBroker(topics={"orders": 4}) as broker:
        yield broker


# ---------------------------------------------------------------------- interceptors


def allocations_of_sends(producer, count):
    """How many more objects of Python's there are after `count` sends whose reports
    have not come.
    """

    def on_delivery(metadata, error):
        pass

    record = ProducerRecord("t", b"v")
    for _ in range(100):
        producer.send(record, on_delivery)
    before = sys.getallocatedblocks()
    for _ in range(count):
        producer.send(record, on_delivery)
    return sys.getallocatedblocks() - before


@pytest.mark.parametrize("properties", [{}, {"interceptors": []}, {"interceptors": None}])
@pytest.mark.measures
def test_interceptors_cost_nothing_where_there_are_none(make_producer, properties):
    """No object for a record's acknowledgement, as there is with one."""

    class Interceptor:
        def on_send(self, record):
            return record

        def on_acknowledgement(self, metadata, error):
            pass

    assert allocations_of_sends(make_producer(STUCK | properties), 2000) < 200
    assert allocations_of_sends(make_producer(STUCK, interceptors=[Interceptor()]), 2000) > 1800


# ---------------------------------------------------------------------- the end


@BOTH_MODES
def test_a_producer_left_open_at_exit_warns_once(manual):
    """It delivers all the same, also where warnings are errors."""
    for flags in (["-W", "always"], ["-W", "error"]):
        done = run_program(
            f"""
            producer = KafkaProducer(QUICK, **{{"enable.manual.events.poll": {manual}}})
            producer.send(ProducerRecord("t", b"v"), lambda metadata, error: print("delivered", error))
            closed = KafkaProducer(QUICK)
            closed.close()
            """,
            flags=flags,
        )
        assert done.stdout == "delivered None\n"
        assert done.stderr.count("ResourceWarning") == 1
        assert "was not closed" in done.stderr


def test_a_producer_left_open_at_exit_is_silent_by_default():
    done = run_program("producer = KafkaProducer(QUICK)")
    assert done.stderr == ""
