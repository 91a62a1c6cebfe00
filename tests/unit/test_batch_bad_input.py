"""Bad input to send_batch and send_table: what is raised, with nothing enqueued, nobody called,
nothing pinned and nothing left.
"""

import array
import ctypes
import sys

import numpy as np
import pytest

from kafka_ext import (
    ActionWhileQueueIsFull,
    InvalidRecordError,
    KafkaException,
    ProducerClosedError,
    _rdkafka,
)

pa = pytest.importorskip("pyarrow")


@pytest.fixture
def producer(make_producer):
    """Its callback must never be called, and it must stay empty and usable."""
    producer = make_producer(
        {
            "bootstrap.servers": "127.0.0.1:1",
            "test.mock.num.brokers": ...,
            "log_level": 0,
            "error_cb": lambda error: None,
        }
    )
    yield producer
    assert producer.metrics().sent == 0
    assert _rdkafka.live_objects()["batches"] == 0
    producer.flush(5)


def never(batch):
    raise AssertionError("called for a call that raised")


OBJECTS = np.array([[b"a", b"b"]], dtype=object)
TWO = [b"a", b"b"]
TABLE = pa.table({"v": ["a", "b"], "n": [1, 2], "f": [0.5, 1.5]})


@pytest.mark.parametrize(
    ("arguments", "error", "says"),
    [
        (
            (b"lone",),
            TypeError,
            "values must be many values; a lone bytes is one: put it in a list",
        ),
        (("lone",), TypeError, "values must be many values; a lone str"),
        ((bytearray(b"lone"),), TypeError, "values must be many values; a lone bytearray"),
        ((memoryview(b"lone"),), TypeError, "a flat buffer of bytes is one"),
        (
            (None,),
            TypeError,
            "values must be a list or tuple, an Arrow column .* or a buffer of rows, not NoneType",
        ),
        ((5,), TypeError, "not int"),
        (({b"a": b"b"},), TypeError, "not dict"),
        ((iter(TWO),), TypeError, "not list_iterator"),
        (([b"a", 1],), TypeError, "item 1 of values must be a buffer .*, not int"),
        ((["\ud800"],), InvalidRecordError, "item 0 of values: .*surrogates not allowed"),
        (
            ([memoryview(b"abcd")[::2]],),
            InvalidRecordError,
            "item 0 of values: memoryview gives no C-contiguous buffer",
        ),
        (
            (np.zeros((4, 4))[:, ::2],),
            InvalidRecordError,
            "values: numpy.ndarray gives no C-contiguous buffer",
        ),
        ((np.zeros(4),), TypeError, "1 dimension of 'd'"),
        ((np.zeros((2, 2, 2)),), TypeError, "3 dimensions of 'd'"),
        ((np.array(1),), TypeError, "0 dimensions"),
        ((OBJECTS,), TypeError, "holds pointers"),
        ((np.zeros(2, dtype=[("n", "i4"), ("o", object)]),), TypeError, "holds pointers"),
        (((ctypes.c_char_p * 2)(),), TypeError, "holds pointers"),
        ((np.array(["a", "b"]),), TypeError, "1 dimension of"),
        (
            (pa.array([1, 2]),),
            TypeError,
            (
                "values: an Arrow column of int64 cannot be sent as it is; cast it to binary or"
                " string first"
            ),
        ),
        ((pa.array([[1]]),), TypeError, "an Arrow column of list"),
        ((pa.array([0.5]),), TypeError, "an Arrow column of float64"),
        ((pa.array([True]),), TypeError, "an Arrow column of bool"),
        ((pa.array([1]).cast(pa.timestamp("ms")),), TypeError, "an Arrow column of timestamp"),
        ((pa.array([1, 1]).dictionary_encode(),), TypeError, "an Arrow column of int64"),
        ((TABLE,), TypeError, "an Arrow column of struct"),
    ],
    ids=lambda value: None,
)
def test_values(producer, arguments, error, says):
    with pytest.raises(error, match=says):
        producer.send_batch("t", *arguments, on_delivery=never)


@pytest.mark.parametrize(
    ("keywords", "error", "says"),
    [
        ({"keys": [b"a"]}, ValueError, "keys has 1 items, values has 2"),
        ({"keys": pa.array(["a", "b", "c"])}, ValueError, "keys has 3 items"),
        ({"keys": 5}, TypeError, "keys must be a list or tuple"),
        ({"keys": [b"a", 5]}, TypeError, "item 1 of keys must be a buffer"),
        ({"keys": pa.array([1, 2])}, TypeError, "keys: an Arrow column of int64"),
        ({"partitions": -1}, ValueError, "partitions must be from 0 to 2147483647, not -1"),
        ({"partitions": 2**31}, ValueError, "not 2147483648"),
        ({"partitions": [1]}, ValueError, "partitions has 1 items, values has 2"),
        ({"partitions": [1, -1]}, ValueError, "item 1 is -1"),
        ({"partitions": [0, 2**70]}, ValueError, f"item 1 is {2**70}"),
        ({"partitions": [None, -(2**63)]}, ValueError, "item 1 is -9223372036854775808"),
        ({"partitions": [-(2**63), 0]}, ValueError, "item 0 is -9223372036854775808"),
        ({"partitions": np.array([0, -1], "i2")}, ValueError, "item 1 is -1"),
        (
            {"partitions": np.array([0, 2**64 - 1], "u8")},
            ValueError,
            "partitions must be from 0 to 2147483647; item 1",
        ),
        ({"partitions": pa.array([0, -1])}, ValueError, "item 1 is -1"),
        ({"partitions": pa.chunked_array([[0], [-1]])}, ValueError, "item 1 is -1"),
        ({"partitions": ["a", "b"]}, TypeError, "partitions must be ints; item 0 is 'a'"),
        ({"partitions": [0.0, 1.0]}, TypeError, "partitions must be ints; item 0 is 0.0"),
        (
            {"partitions": 0.5},
            TypeError,
            "partitions must be an int, a sequence of ints or an integer buffer, not float",
        ),
        ({"partitions": "12"}, TypeError, "not str"),
        ({"partitions": b"\0\1"}, TypeError, "not bytes"),
        ({"partitions": {0, 1}}, TypeError, "not set"),
        ({"partitions": np.zeros(2)}, TypeError, "a buffer of ints in one dimension, not of 'd'"),
        ({"partitions": np.zeros((2, 1), "i4")}, TypeError, "in 2"),
        ({"partitions": np.array([0, 1], ">i4")}, TypeError, "not of '>i'"),
        (
            {"partitions": np.zeros(4, "i4")[::2]},
            InvalidRecordError,
            "partitions: numpy.ndarray gives no C-contiguous buffer",
        ),
        (
            {"partitions": pa.array(["a", "b"])},
            TypeError,
            "partitions: an Arrow column of u cannot|partitions: an Arrow column of string",
        ),
        ({"timestamps": 0}, ValueError, "timestamps must be from 1 to 9223372036854775807, not 0"),
        ({"timestamps": [1, -5]}, ValueError, "item 1 is -5"),
        ({"timestamps": [1]}, ValueError, "timestamps has 1 items"),
        (
            {"timestamps": pa.array([2**62, 1], pa.timestamp("s"))},
            ValueError,
            "timestamps must be from 1",
        ),
        (
            {"timestamps": pa.array([-1, 1], pa.timestamp("ns"))},
            ValueError,
            "timestamps must be from 1",
        ),
        ({"timestamps": array.array("d", [1, 2])}, TypeError, "not of 'd'"),
        ({"headers": 5}, TypeError, "headers must be"),
        ({"headers": "ab"}, TypeError, "headers must be"),
        ({"headers": {"a": 1}}, TypeError, "headers: a value must be a buffer"),
        ({"headers": [("a", 1)]}, TypeError, "headers: a value must be a buffer"),
        ({"headers": [("a\0", b"")]}, ValueError, "NUL"),
        ({"headers": [[]]}, ValueError, "headers has 1 items, values has 2"),
        ({"headers": [[], [("a", 1)]]}, TypeError, "headers: a value must be a buffer"),
        ({"headers": [[], 5]}, TypeError, "headers must be"),
        ({"headers": [[], [("a",)]]}, TypeError, "one of them is"),
        ({"ids": [1]}, ValueError, "ids has 1 items"),
        ({"ids": iter([1, 2])}, TypeError, "ids must be"),
        ({"option": 1}, TypeError, "option must be a SendOption"),
        ({"action": "block"}, TypeError, "action must be an ActionWhileQueueIsFull"),
        ({"timeout": "1"}, TypeError, "timeout must be a number"),
        ({"timeout": -1}, ValueError, "timeout must be 0 or more"),
    ],
    ids=lambda value: None,
)
def test_the_other_arguments(producer, keywords, error, says):
    values = [bytearray(b"a"), bytearray(b"b")]
    with pytest.raises(error, match=says):
        producer.send_batch("t", values, on_delivery=never, **keywords)
    values[0].append(0)  # BufferError, were it pinned


def test_topic_and_callback(producer):
    with pytest.raises(TypeError, match="topic must be a str"):
        producer.send_batch(b"t", TWO)
    with pytest.raises(ValueError, match="a topic's name is"):
        producer.send_batch("no spaces", TWO)
    with pytest.raises(TypeError, match="on_delivery must be callable"):
        producer.send_batch("t", TWO, on_delivery=5)


@pytest.mark.parametrize(
    ("arguments", "error", "says"),
    [
        ({"table": [1]}, TypeError, "table must have __arrow_c_stream__"),
        (
            {"table": pa.array(["a"])},
            TypeError,
            "table must be a table or struct array, not an Arrow column of",
        ),
        ({"value": "x"}, ValueError, "value: the table has no column 'x'; it has v, n, f"),
        ({"value": None}, TypeError, "value must be the name of a column"),
        ({"value": 0}, TypeError, "value must be the name of a column, not int"),
        (
            {"value": "n"},
            TypeError,
            (
                r"value \(n\): an Arrow column of int64 cannot be sent as it is; cast it to binary"
                r" or string first"
            ),
        ),
        ({"key": "f"}, TypeError, r"key \(f\): an Arrow column of float64"),
        (
            {"partition": "f"},
            TypeError,
            r"partition \(f\): an Arrow column of float64 .* cast it to int32 or int64",
        ),
        ({"partition": "v"}, TypeError, r"partition \(v\): an Arrow column of"),
        ({"timestamp": "f"}, TypeError, "cast it to int64 or a timestamp"),
        ({"headers": "v"}, TypeError, "headers must be a sequence of column names, not a str"),
        ({"headers": ["n"]}, TypeError, r"headers \(n\)"),
        ({"headers": ["x"]}, ValueError, "headers: the table has no column 'x'"),
        (
            {"table": pa.Table.from_arrays([["a"], ["b"]], names=["v", "v"])},
            ValueError,
            "the table has 2 columns 'v'",
        ),
    ],
    ids=lambda value: None,
)
def test_tables(producer, arguments, error, says):
    with pytest.raises(error, match=says):
        producer.send_table(
            **{"table": TABLE, "topic": "t", "value": "v", "on_delivery": never} | arguments
        )


@pytest.mark.found(24)
def test_what_a_column_of_numbers_can_be_cast_to(producer):
    days, words = pa.array([1, 2], pa.date32()), pa.array([1, 2]).dictionary_encode()
    for argument, wanted in (
        ("timestamps", "int64 or a timestamp"),
        ("partitions", "int32 or int64"),
    ):
        for column, kind in (
            (days, "date32"),
            (words, "dictionary"),
            (pa.chunked_array([days, days]), "date32"),
        ):
            with pytest.raises(
                TypeError,
                match=(
                    f"{argument}: an Arrow column of {kind} cannot be sent as it is; cast it to"
                    f" {wanted} first"
                ),
            ):
                producer.send_batch("t", [b"v"] * len(column), **{argument: column})


def test_rows_that_are_null_as_a_whole(producer):
    rows = pa.array([{"v": "a"}, None, {"v": "c"}, {"v": "d"}])
    for part in (rows, rows.slice(1), rows.slice(1, 1)):
        with pytest.raises(ValueError, match="a struct array with null rows cannot be sent"):
            producer.send_table(part, topic="t", value="v")


def test_interceptors_see_no_batches(make_producer):
    class Interceptor:
        def on_send(self, record):
            return record

        def on_acknowledgement(self, metadata, error):
            pass

    with pytest.raises(KafkaException, match="interceptors see records one by one"):
        make_producer({"interceptors": [Interceptor()]}).send_batch("t", TWO)


def test_closed(make_producer):
    producer = make_producer()
    producer.close()
    with pytest.raises(ProducerClosedError):
        producer.send_batch("t", TWO)
    with pytest.raises(ProducerClosedError):
        producer.send_table(TABLE, topic="t", value="v", action=ActionWhileQueueIsFull.NO_BLOCK)


# ---------------------------------------------------------------------- objects that lie about
# being Arrow


class Lies:
    """Speaks the protocol `name`, and gives `result`."""

    def __new__(cls, name, result):
        return object.__new__(type("Lies", (), {name: lambda self, requested_schema=None: result}))


@pytest.mark.parametrize(
    ("source", "error", "says"),
    [
        (Lies("__arrow_c_stream__", 5), TypeError, "gave no Arrow stream capsule"),
        (
            Lies("__arrow_c_stream__", pa.array(["a"]).__arrow_c_array__()[0]),
            TypeError,
            "gave no Arrow stream capsule",
        ),
        (Lies("__arrow_c_array__", (5, 5)), TypeError, "gave no pair of Arrow capsules"),
        (
            Lies("__arrow_c_array__", pa.array(["a"]).__arrow_c_array__()[::-1]),
            TypeError,
            "gave no pair of Arrow capsules",
        ),
        (Lies("__arrow_c_array__", (1, 2, 3)), ValueError, "unpack"),
    ],
    ids=lambda value: None,
)
def test_no_capsules(producer, source, error, says):
    with pytest.raises(error, match=says):
        producer.send_batch("t", source)


def test_capsules_that_were_consumed(producer):
    schema, column = pa.array(["a", "b"]).__arrow_c_array__()
    pa.Array._import_from_c_capsule(schema, column)
    with pytest.raises(ValueError, match="released before"):
        producer.send_batch("t", Lies("__arrow_c_array__", (schema, column)))
    stream = TABLE.__arrow_c_stream__()
    pa.RecordBatchReader._import_from_c_capsule(stream)
    with pytest.raises(ValueError, match="the Arrow stream was consumed before"):
        producer.send_table(Lies("__arrow_c_stream__", stream), topic="t", value="v")


def test_a_stream_exported_twice(producer):
    reader = pa.RecordBatchReader.from_batches(TABLE.schema, TABLE.to_batches())
    list(reader)
    with pytest.warns(RuntimeWarning, match="gave nothing"):
        batch = producer.send_table(reader, topic="t", value="v")
    batch.wait(10)
    assert len(batch) == 0


ArrowArray = type(
    "ArrowArray",
    (ctypes.Structure,),
    {
        "_fields_": [
            *[
                (name, ctypes.c_int64)
                for name in ("length", "null_count", "offset", "n_buffers", "n_children")
            ],
            *[
                (name, ctypes.c_void_p)
                for name in ("buffers", "children", "dictionary", "release", "private_data")
            ],
        ]
    },
)
_pointer_of = ctypes.pythonapi.PyCapsule_GetPointer
_pointer_of.restype, _pointer_of.argtypes = ctypes.c_void_p, [ctypes.py_object, ctypes.c_char_p]


def forged(column, **fields):
    """`column` as an Arrow array some of whose fields are not what they were; what they were must
    come back before it is released.
    """
    schema, capsule = column.__arrow_c_array__()
    array = ArrowArray.from_address(_pointer_of(capsule, b"arrow_array"))
    before = {name: getattr(array, name) for name in fields}
    for name, value in fields.items():
        setattr(array, name, value)
    return Lies("__arrow_c_array__", (schema, capsule)), lambda: [
        setattr(array, name, value) for name, value in before.items()
    ]


def with_offsets(code, sound, broken):
    """An Arrow array whose offsets were sound when pyarrow looked."""
    offsets = array.array(code, sound)
    kind = pa.binary() if code == "i" else pa.large_binary()
    column = pa.Array.from_buffers(kind, 2, [None, pa.py_buffer(offsets), pa.py_buffer(b"abcd")])
    offsets[:] = array.array(code, broken)
    return column


@pytest.mark.parametrize(
    ("column", "fields", "says"),
    [
        (pa.array(["a", "b"]), {"length": -1}, "a negative length or offset"),
        (pa.array(["a", "b"]), {"offset": -1}, "a negative length or offset"),
        (pa.array(["a", "b"]), {"offset": sys.maxsize}, "a length beyond all memory"),
        (pa.array(["a", "b"]), {"n_buffers": 1}, "too few buffers"),
        (pa.array(["a", "b"]), {"buffers": None}, "too few buffers"),
        (pa.array(["a", "b"]), {"null_count": 1}, "nulls without a validity bitmap"),
        (
            pa.array(["a", "b"]).dictionary_encode(),
            {"dictionary": None},
            "a dictionary without indices or values",
        ),
        (pa.array(["a", "b"]).dictionary_encode(), {"buffers": None}, "too few buffers"),
        (pa.array([b"a", b"b"], pa.binary_view()), {"n_buffers": 2}, "too few buffers"),
        (with_offsets("i", [0, 2, 4], [0, 4, 2]), {}, "go backwards"),
        (with_offsets("i", [0, 2, 4], [-4, 2, 4]), {}, "a negative offset"),
        (with_offsets("q", [0, 2, 4], [0, 4, 2]), {}, "go backwards"),
        (with_offsets("q", [0, 2, 4], [-(2**62), 2, 4]), {}, "a negative offset"),
    ],
    ids=lambda value: None,
)
def test_malformed_arrays(producer, column, fields, says):
    source, restore = forged(column, **fields)
    try:
        with pytest.raises(ValueError, match=f"values: malformed Arrow array: .*{says}"):
            producer.send_batch("t", source)
    finally:
        restore()


def test_malformed_tables(producer):
    for fields in (
        {"n_children": 1},
        {"children": None},
        {"length": -1},
        {"offset": sys.maxsize},
        {"length": 10**6},
    ):
        source, restore = forged(TABLE.to_batches()[0], **fields)
        try:
            with pytest.raises(ValueError, match="malformed Arrow array"):
                producer.send_table(source, topic="t", value="v")
        finally:
            restore()
