"""Records, reports, batches and exceptions as objects: pickled, copied, compared, inspected."""

from __future__ import annotations

import copy
import importlib
import inspect
import multiprocessing
import pickle
import sys
import typing
import warnings

import pytest

import kafka_ext
from kafka_ext import (
    ErrorCode,
    InvalidConfigError,
    KafkaError,
    KafkaException,
    KafkaProducer,
    ProducerRecord,
    QueueFullError,
)
from kafka_ext.sink import DeliveryError
from kafka_ext.testing import EmbeddedBroker, RetentionLost

pytestmark = pytest.mark.found(28)

ERROR = KafkaError(ErrorCode.QUEUE_FULL, "full")


def again(thing):
    return pickle.loads(pickle.dumps(thing))


WAYS = pytest.mark.parametrize(
    "way", [again, copy.copy, copy.deepcopy], ids=["pickle", "copy", "deepcopy"]
)


# ---------------------------------------------------------------------- reports


@WAYS
def test_a_report_is_the_same_afterwards(producer, way):
    record = ProducerRecord(
        "t", b"value", key=b"key", headers=[("h", b"1"), ("n", None)], id={"order": 5}
    )
    metadata = producer.sync_send(record)
    found = way(metadata)
    assert found == metadata
    assert hash(found) == hash(metadata)
    names = [name for name, value in inspect.getmembers(type(metadata)) if not name.startswith("_")]
    assert {name: getattr(found, name) for name in names} == {
        name: getattr(metadata, name) for name in names
    }
    assert str(found) == str(metadata)
    assert found != producer.sync_send(record)
    assert found != "a report"


@WAYS
def test_a_report_in_its_callback(producer, way):
    found = []
    producer.send(
        ProducerRecord("t", b"value", headers={"h": memoryview(b"1")}),
        lambda metadata, error: found.append(way(metadata)),
    )
    producer.flush(10)
    assert (found[0].offset, found[0].value_size) == (0, 5)
    assert [(name, bytes(value)) for name, value in found[0].headers] == [("h", b"1")]


def send_one(servers):
    with KafkaProducer(bootstrap_servers=servers, enable_idempotence=False) as producer:
        batch = producer.send_batch("t", [b"y"])
        batch.wait(10)
        return producer.sync_send(ProducerRecord("t", b"x")), batch


def test_a_task_of_a_pool_returns_its_report():
    with (
        EmbeddedBroker(topics={"t": 1}) as broker,
        multiprocessing.get_context("spawn").Pool(1) as pool,
    ):
        metadata, batch = pool.apply(send_one, (broker.bootstrap_servers,))
        assert (metadata.topic, metadata.partition, metadata.offset) == ("t", 0, 1)
        assert list(batch.offsets) == [0]


@WAYS
def test_a_batch_once_it_is_done(make_producer, way):
    producer = make_producer({"message.max.bytes": 1000})
    batch = producer.send_batch(
        "t",
        [b"a", b"x" * 5000, b"c"],
        ids=["1", "2", "3"],
        partitions=0,
        on_delivery=lambda batch: None,
    )
    batch.wait(10)
    found = way(batch)
    assert len(found) == 3
    assert found.done()
    assert found.wait(0)
    assert (found.pending, found.failed, found.topic, found.ids) == (0, 1, "t", ["1", "2", "3"])
    assert found.errors() == batch.errors()
    assert [error.message for _, error in found.errors()] == [
        error.message for _, error in batch.errors()
    ]
    assert list(found.offsets) == list(batch.offsets)
    assert list(found.partitions) == list(batch.partitions)
    assert repr(found) == repr(batch)
    with pytest.raises(KafkaException):
        found.raise_for_errors()
    called = []
    found.add_done_callback(called.append)
    assert called == [found]
    assert way(found).errors() == batch.errors()


def test_a_batch_that_is_not_done_says_so(make_producer):
    producer = make_producer({"linger.ms": 60_000})
    batch = producer.send_batch("t", [b"a"])
    for way in (again, copy.copy, copy.deepcopy):
        with pytest.raises(TypeError, match="done"):
            way(batch)
    producer.flush(10)


@WAYS
def test_a_batch_of_nothing(producer, way):
    batch = producer.send_batch("t", [])
    batch.wait(10)
    assert len(way(batch)) == 0
    assert list(way(batch).offsets) == []


# ---------------------------------------------------------------------- records


class Order(ProducerRecord):
    def __init__(self, number):
        super().__init__(
            "orders",
            b"%d" % number,
            key="k",
            headers={"a": b"b"},
            partition=1,
            timestamp=5,
            id=number,
        )
        self.number = number
        self.lines = [1, 2]


class Slotted(ProducerRecord):
    __slots__ = ("number",)


@WAYS
def test_a_subclass_keeps_what_it_has_added(way):
    found = way(Order(7))
    assert type(found) is Order
    assert (found.number, found.lines) == (7, [1, 2])
    assert found == Order(7)
    slotted = Slotted("t", b"x")
    slotted.number = 3
    assert way(slotted).number == 3


def test_records_are_equal_by_their_content():
    def make(**changes):
        fields = {
            "topic": "t",
            "value": b"v",
            "key": "k",
            "partition": 1,
            "headers": [("a", b"b")],
            "timestamp": 5,
            "id": 3,
        }
        return ProducerRecord(**(fields | changes))

    assert make() == make()
    assert make() == make(value=bytearray(b"v"))
    for name, value in {
        "topic": "u", "value": b"w", "key": None, "partition": None, "headers": None, "timestamp": 6, "id": None,
    }.items():  # fmt: skip
        assert make() != make(**{name: value})
    assert make() != "t"
    with pytest.raises(TypeError, match="unhashable"):
        hash(make())


def test_records_of_arrays_are_compared_by_their_bytes():
    np = pytest.importorskip("numpy")
    assert ProducerRecord("t", np.arange(3)) == ProducerRecord("t", np.arange(3))
    assert ProducerRecord("t", np.arange(3)) != ProducerRecord("t", np.arange(4))
    assert ProducerRecord("t", np.arange(3)) != ProducerRecord("t", None)


# ---------------------------------------------------------------------- exceptions


@WAYS
@pytest.mark.parametrize(
    "exc",
    [
        KafkaException(ERROR),
        QueueFullError(ERROR),
        InvalidConfigError(ERROR, "linger.ms"),
        DeliveryError([(1, ERROR)], 2),
        RetentionLost(ERROR, "t", 0, 5, 7),
    ],
    ids=lambda exc: type(exc).__name__,
)
def test_exceptions_keep_their_notes(exc, way):
    exc.__notes__ = ["while sending order 5"]
    exc.added = 5
    found = way(exc)
    assert type(found) is type(exc)
    assert found.__notes__ == exc.__notes__
    assert vars(found) == vars(exc)
    assert str(found) == str(exc)
    assert repr(found) == repr(exc)


def test_an_exception_leaves_its_batch_behind(producer):
    exc = KafkaException(ERROR)
    exc.batch = producer.send_batch("t", [b"x"])
    assert not hasattr(again(exc), "batch")
    producer.flush(10)


# ---------------------------------------------------------------------- inspection

MODULES = [
    "",
    ".aio",
    ".logging",
    ".recoverable",
    ".sink",
    ".metrics",
    ".statistics",
    ".testing",
    ".registry",
    ".opentelemetry",
]


def public():
    """Every public class and function, and the methods that the package itself defines."""
    found = {}
    for name in MODULES:
        try:
            module = importlib.import_module(f"kafka_ext{name}")
        except ImportError:
            continue
        for attribute in getattr(
            module, "__all__", [name for name in vars(module) if not name.startswith("_")]
        ):
            thing = getattr(module, attribute)
            if not callable(thing) or not getattr(thing, "__module__", "").startswith("kafka_ext"):
                continue
            found[f"{module.__name__}.{attribute}"] = thing
            for kind in getattr(thing, "__mro__", ()):
                if kind.__module__.startswith("kafka_ext"):
                    for key, value in vars(kind).items():
                        function = getattr(thing, key)
                        if (
                            callable(value)
                            and callable(function)
                            and (not key.startswith("_") or key in ("__enter__", "__aenter__"))
                        ):
                            found[f"{module.__name__}.{attribute}.{key}"] = function
    return found


def test_every_public_callable_can_be_inspected():
    callables = public()
    assert len(callables) > 100
    for name, thing in callables.items():
        typing.get_type_hints(thing)
        assert inspect.signature(thing) is not None, name
        assert not (inspect.getdoc(thing) or "").startswith(f"{name.rpartition('.')[2]}("), name


def test_the_signature_of_a_record():
    parameters = (
        "topic, value=None, *, key=None, partition=None, headers=None, timestamp=None, id=None"
    )
    assert str(inspect.signature(ProducerRecord)) == f"({parameters})"
    assert inspect.getdoc(ProducerRecord).startswith("A record to send")
    assert (
        typing.get_type_hints(KafkaProducer.send_future)["return"].__origin__.__name__ == "Future"
    )
    assert typing.get_type_hints(KafkaProducer.metrics)["return"] is kafka_ext.ProducerMetrics
    if sys.version_info >= (3, 11):
        assert typing.get_type_hints(KafkaProducer.__enter__)["return"] is typing.Self


# ---------------------------------------------------------------------- readers


def test_a_reader_that_was_read_before_is_warned_of(producer):
    pa = pytest.importorskip("pyarrow")
    table = pa.table({"v": [b"a", b"b"]})
    reader = table.to_reader()
    assert len(producer.send_table(reader, topic="t", value="v")) == 2
    with pytest.warns(
        RuntimeWarning,
        match=r"RecordBatchReader gave nothing: it is empty, or has been read before",
    ):
        assert len(producer.send_table(reader, topic="t", value="v")) == 0
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert (
            len(producer.send_table(table.slice(0, 0), topic="t", value="v")) == 0
        )  # a table is what it is
        assert len(producer.send_table(table, topic="t", value="v")) == 2
    producer.flush(10)
