"""What arrives is what was meant, or the call says what is wrong: str subclasses, arrays of
pointers, padded strings, iterators.
"""

import asyncio
import ctypes
import enum
import functools
import logging
import threading

import numpy as np
import pytest

from kafka_ext import InvalidRecordError, KafkaException, KafkaProducer, ProducerRecord, Properties
from kafka_ext.aio import AsyncKafkaProducer
from kafka_ext.logging import KafkaHandler
from kafka_ext.recoverable import RecoverableProducer
from kafka_ext.sink import KafkaSink
from kafka_ext.testing import EmbeddedBroker
from kafka_ext.transactions import ConsumerGroupMetadata

pa = pytest.importorskip("pyarrow")


class Name(str, enum.Enum):
    """Prints as "Name.ORDERS" (on most versions of Python), and hashes as "ORDERS" does."""

    ORDERS = "orders"
    OTHER = "other"
    LINGER = "linger.ms"
    ONE = "1"


class Loud(str):
    """Says something else wherever it is asked."""

    __slots__ = ()

    def __str__(self):
        return "LOUD"

    def __format__(self, spec):
        return "LOUD"

    def encode(self, *arguments):
        return b"LOUD"

    def __hash__(self):
        return 7

    def __eq__(self, other):
        return self is other


SUBCLASSES = [Name.ORDERS, Loud("orders")]


@pytest.fixture
def broker():
    with EmbeddedBroker(topics={"orders": 1, "other": 1}) as broker:
        yield broker


@pytest.fixture
def producer(broker):
    with KafkaProducer(broker.config()) as producer:
        yield producer


def topics(producer):
    return sorted(producer.fetch_broker_metadata().topics)


# ---------------------------------------------------------------------- str subclasses


@pytest.mark.found(6)
@pytest.mark.parametrize("topic", SUBCLASSES, ids=["Enum", "own methods"])
class TestTopics:
    def test_every_send(self, broker, producer, topic):
        assert producer.sync_send(ProducerRecord(topic, b"0"), 10).topic == "orders"
        producer.send(ProducerRecord(topic, b"1"))
        assert producer.try_send(ProducerRecord(topic, b"2")) is None
        assert producer.send_future(ProducerRecord(topic, b"3")).result(10).topic == "orders"
        batch = producer.send_batch(topic, [b"4"])
        assert type(batch.topic) is str
        table = producer.send_table(pa.table({"v": [b"5"]}), topic=topic, value="v")
        assert batch.wait(10)
        assert table.wait(10)
        producer.flush(10)
        assert sorted(message.value for message in broker.messages("orders")) == [
            b"%d" % n for n in range(6)
        ]
        assert topics(producer) == ["orders", "other"]

    def test_a_record_that_is_changed_keeps_plain_characters(self, topic):
        record = ProducerRecord("x")
        record.topic = topic
        assert type(record.topic) is str
        assert record.topic == "orders"

    def test_one_handle_for_all(self, producer, topic):
        from kafka_ext import _rdkafka

        for _ in range(20):
            producer.send(ProducerRecord(topic, b""))
            producer.send(ProducerRecord("orders", b""))
        producer.flush(10)
        assert _rdkafka.live_objects()["topics"] == 1

    def test_asyncio(self, broker, topic):
        async def main():
            async with AsyncKafkaProducer(broker.config()) as producer:
                await producer.send_and_wait(ProducerRecord(topic, b"1"))
                await (await producer.send_batch(topic, [b"2"]))
                await (await producer.send_table(pa.table({"v": [b"3"]}), topic=topic, value="v"))
                assert (await producer.fetch_broker_metadata(topic)).topics.keys() == {"orders"}

        asyncio.run(main())
        assert sorted(message.value for message in broker.messages("orders")) == [b"1", b"2", b"3"]

    def test_the_producers_built_on_it(self, broker, topic):
        with RecoverableProducer(broker.config()) as producer:
            producer.send(
                ProducerRecord(topic, b"recoverable", key=topic, headers=[(topic, topic)])
            )
            producer.flush(10)
        with KafkaSink(broker.config(), topic) as sink:
            assert sink.topic == "orders"
            sink.write([b"sink"])
        handler = KafkaHandler(topic, broker.config())
        handler.setFormatter(logging.Formatter("%(message)s"))
        handler.handle(logging.makeLogRecord({"msg": "handler"}))
        handler.close()
        assert sorted(message.value for message in broker.messages("orders")) == [
            b"handler",
            b"recoverable",
            b"sink",
        ]

    def test_the_broker(self, broker, topic):
        with EmbeddedBroker(topics={topic: 3}) as other, KafkaProducer(other.config()) as producer:
            assert len(producer.fetch_broker_metadata(topic).topics["orders"].partitions) == 3
        broker.assert_delivered(topic, [])
        with pytest.raises(KafkaException, match="orders"):
            broker.create_topic(topic)
        assert broker.messages(topic) == []
        with broker.reader(topic) as reader:
            assert reader.topic == "orders"

    def test_a_transactions_offsets(self, broker, topic):
        with KafkaProducer(broker.config(transactional_id="t")) as producer:
            producer.init_transactions(10)
            with producer.transaction():
                producer.send(ProducerRecord(topic, b"v"))
                group = ConsumerGroupMetadata(topic, member_id=Loud(""))
                producer.send_offsets_to_transaction({(topic, 0): 5}, group, timeout=10)
                producer.send_offsets_to_transaction({(topic, 0): 5}, topic, timeout=10)
            assert topics(producer) == ["orders", "other"]


@pytest.mark.found(6)
@pytest.mark.parametrize("text", SUBCLASSES, ids=["Enum", "own methods"])
def test_contents_are_its_characters(broker, producer, text):
    sent = ProducerRecord("orders", text, key=text, headers={text: text})
    producer.sync_send(sent, 10)
    assert producer.send_batch("orders", [text], keys=text, headers=[(text, text)]).wait(10)
    assert producer.send_batch("orders", [text], keys=[text]).wait(10)
    table = pa.table({"orders": [b"orders"]})
    assert producer.send_table(table, topic="orders", value=text, key=text, headers=[text]).wait(10)
    for message in broker.messages("orders", 4):
        assert (message.value, message.key) == (b"orders", b"orders")
        assert list(message.headers or [("orders", b"orders")]) == [("orders", b"orders")]


@pytest.mark.found(6)
def test_a_configuration_takes_what_a_str_enum_stands_for(broker):
    class Acks(str, enum.Enum):
        ALL = "all"

    class Number(int, enum.Enum):
        SEVEN = 7

    settings = {
        Name.LINGER: Name.ONE,
        "acks": Acks.ALL,
        Loud("batch.size"): Loud("1000"),
        "queue.buffering.max.messages": Number.SEVEN,
    }
    with KafkaProducer(broker.config()) as before:
        given = dict(before.properties) | settings
    with KafkaProducer(given) as producer:
        assert producer.get_property(Name.LINGER) == "1"
        assert producer.get_property("acks") == "-1"
        assert producer.get_property(Loud("batch.size")) == "1000"
        assert producer.get_property("queue.buffering.max.messages") == "7"
    assert Properties({Name.LINGER: Name.ONE})["linger.ms"] == "1"
    assert type(Properties({"acks": Acks.ALL})["acks"]) is str


# ---------------------------------------------------------------------- pointers


class Record(ctypes.Structure):
    _fields_ = [("number", ctypes.c_int), ("text", ctypes.c_char_p)]


POINTERS = {
    "objects": lambda: np.array(["x"], dtype=object),
    "one object": lambda: np.array("x", dtype=object),
    "rows of objects": lambda: np.array([[b"a", b"b"]], dtype=object),
    "a field of objects": lambda: np.zeros(1, dtype=[("n", "i8"), ("o", "O")]),
    "a scalar with a field of objects": lambda: np.zeros(1, dtype=[("n", "i8"), ("o", "O")])[0],
    "StringDType": lambda: np.array(["a" * 40], dtype=np.dtypes.StringDType()),
    "void *": lambda: (ctypes.c_void_p * 1)(),
    "char *": lambda: (ctypes.c_char_p * 1)(),
    "wchar_t *": lambda: (ctypes.c_wchar_p * 1)(),
    "py_object": lambda: (ctypes.py_object * 1)("x"),
    "pointers": lambda: (ctypes.POINTER(ctypes.c_int) * 1)(),
    "functions": lambda: (ctypes.CFUNCTYPE(None) * 1)(),
    "a structure with a char *": lambda: Record(),
}
REFUSED = (TypeError, InvalidRecordError)


@pytest.mark.found(7)
@pytest.mark.parametrize("make", POINTERS.values(), ids=POINTERS)
def test_pointers_are_never_sent(broker, producer, make):
    pointers = make()
    records = {
        "value": ProducerRecord("orders", pointers),
        "key": ProducerRecord("orders", b"", key=pointers),
        "headers": ProducerRecord("orders", b"", headers=[("name", pointers)]),
    }
    with (
        RecoverableProducer(broker.config()) as recoverable,
        KafkaSink(broker.config(), "orders") as sink,
    ):
        for part, record in records.items():
            for refuse in (
                producer.send,
                producer.sync_send,
                producer.send_future,
                recoverable.send,
                lambda record: sink.write([record]),
            ):
                with pytest.raises(REFUSED, match=f"{part.removesuffix('s')}.*(pointers|gives no)"):
                    refuse(record)
    column = (
        {"keys": [pointers]},
        {"keys": pointers},
        {"headers": [("name", pointers)]},
        {"headers": [[("name", pointers)]]},
    )
    column += {"partitions": pointers}, {"timestamps": pointers}
    for keywords in column:
        with pytest.raises(REFUSED, match=next(iter(keywords))):
            producer.send_batch("orders", [b"v"], **keywords)
    for values in ([pointers], pointers):
        with pytest.raises(REFUSED, match="values"):
            producer.send_batch("orders", values)
    producer.flush(10)
    assert broker.messages("orders") == []


@pytest.mark.found(7)
def test_pointers_in_a_tensor_are_never_sent(producer):
    class Tensor:
        def __init__(self, array):
            self.array = array

        def __dlpack__(self, **_):
            return self.array.__dlpack__()

        def __dlpack_device__(self):
            return self.array.__dlpack_device__()

    with pytest.raises(
        TypeError, match="value must be a buffer of plain data, not a Tensor that holds one number"
    ):
        producer.send(ProducerRecord("orders", Tensor(np.array(5))))


@pytest.mark.found(7)
def test_polars_objects(broker, producer):
    import uuid

    pl = pytest.importorskip("polars")
    objects = pl.Series("o", [uuid.uuid4(), uuid.uuid4()], dtype=pl.Object)
    frame = pl.DataFrame({"o": objects, "v": [b"1", b"2"]})
    for refuse in (
        lambda: producer.send_batch("orders", objects),
        lambda: producer.send_batch("orders", [b"1", b"2"], keys=objects),
        lambda: producer.send_table(frame, topic="orders", value="o"),
        lambda: producer.send_table(frame, topic="orders", value="v", key="o"),
        lambda: producer.send_table(frame, topic="orders", value="v", headers=["o"]),
    ):
        with pytest.raises(
            TypeError, match="a Polars Object column holds addresses of Python objects; cast it"
        ):
            refuse()
    with (
        KafkaSink(broker.config(), "orders", value="o") as sink,
        pytest.raises(TypeError, match="Polars Object"),
    ):
        sink.write_table(frame)
    assert producer.send_table(frame, topic="orders", value="v").wait(10)
    assert [message.value for message in broker.messages("orders", 2)] == [b"1", b"2"]


# ---------------------------------------------------------------------- other data than meant


@pytest.mark.found(8)
def test_one_byte_strings_are_keys_one_each(broker, producer):
    values = [b"1", b"2", b"3"]
    assert producer.send_batch("orders", values, keys=np.array([b"a", b"b", b"c"])).wait(10)
    assert producer.send_batch(
        "orders", np.array(values), keys=np.array([b"aa", b"bb", b"cc"])
    ).wait(10)
    messages = broker.messages("orders", 6)
    assert [message.key for message in messages] == [b"a", b"b", b"c", b"aa", b"bb", b"cc"]
    assert [message.value for message in messages] == values * 2


@pytest.mark.found(8)
@pytest.mark.parametrize(
    "form",
    [bytes, np.frombuffer, memoryview, bytearray],
    ids=["bytes", "array", "memoryview", "bytearray"],
)
def test_one_key_for_all(broker, producer, form):
    key = np.frombuffer(b"key", "u1") if form is np.frombuffer else form(b"key")
    assert producer.send_batch("orders", [b""] * 2, keys=key).wait(10)
    assert [message.key for message in broker.messages("orders", 2)] == [b"key"] * 2


@pytest.mark.found(8)
@pytest.mark.parametrize("kind", ["u1", "i1"])
@pytest.mark.parametrize("wrap", [lambda array: array, memoryview], ids=["array", "memoryview"])
def test_one_key_or_one_each_is_asked(producer, kind, wrap):
    with pytest.raises(
        TypeError,
        match=r"keys: an array of 3 one-byte items for 3 values could be one key or a key for each",
    ):
        producer.send_batch("orders", [b"1", b"2", b"3"], keys=wrap(np.arange(3, dtype=kind)))


@pytest.mark.found(8)
@pytest.mark.parametrize(
    "keys",
    [
        np.zeros(3, bool),
        np.zeros(3, "i4"),
        np.array(5),
        np.array([5], "M8[s]"),
        np.datetime64(5, "s"),
    ],
    ids=range(5),
)
def test_numbers_are_no_keys(producer, keys):
    with pytest.raises(REFUSED, match="keys"):
        producer.send_batch("orders", [b"1", b"2", b"3"], keys=keys)


@pytest.mark.found(8)
@pytest.mark.parametrize(
    "padded",
    [
        np.array([b"a", b"bc"]),
        np.array([b"ab", b"cd\0"], "S3"),
        np.array([[b"a", b"bc"]]),
        np.zeros(2, "S1"),
    ],
)
def test_padded_strings(producer, padded):
    with pytest.raises(
        InvalidRecordError, match=r"values: item . ends in NUL, which is padding or content"
    ):
        producer.send_batch("orders", padded)
    with pytest.raises(InvalidRecordError, match=r"keys: item . ends in NUL"):
        producer.send_batch("orders", [b""] * len(padded), keys=padded)
    with pytest.raises(
        InvalidRecordError, match=r"value: item . of this numpy.ndarray of strings ends in NUL"
    ):
        producer.send(ProducerRecord("orders", padded))
    with pytest.raises(InvalidRecordError, match=r"key: item . of"):
        producer.send(ProducerRecord("orders", key=padded))


NUMBERS = [
    np.int64(5),
    np.float32(5),
    np.bool_(True),
    np.array(5),
    np.datetime64("2026-01-01"),
    np.timedelta64(5, "s"),
    ctypes.c_int(5),
]


@pytest.mark.found(8)
@pytest.mark.parametrize("number", NUMBERS, ids=lambda number: type(number).__name__)
def test_a_number_of_numpys_is_a_number(broker, producer, number):
    says = "must be a buffer .*, a str or None, not one number"
    with RecoverableProducer(broker.config()) as recoverable:
        for send in (producer.send, producer.try_send, producer.sync_send, recoverable.send):
            with pytest.raises(TypeError, match=f"value {says}"):
                send(ProducerRecord("orders", number))
            with pytest.raises(TypeError, match=f"key {says}"):
                send(ProducerRecord("orders", key=number))
            with pytest.raises(TypeError, match=f"a.* value {says}"):
                send(ProducerRecord("orders", headers=[("n", number)]))
    with pytest.raises(TypeError, match="item 1 of values must"):
        producer.send_batch("orders", [b"", number])
    with pytest.raises(TypeError, match="values must"):
        producer.send_batch("orders", number)


@pytest.mark.found(8)
def test_what_is_bytes_stays_bytes(broker, producer):
    sent = [
        np.bytes_(b"bytes"),
        np.str_("text"),
        np.array([1, 2], "<u2"),
        np.array(b"ab"),
        np.void(b"void"),
        np.array([b"ab", b"cd"]),
    ]
    sent.append(np.array(["1970-01-02"], "M8[D]"))
    for value in sent:
        producer.send(ProducerRecord("orders", value))
    producer.flush(10)
    arrived = [message.value for message in broker.messages("orders")]
    assert arrived == [
        b"bytes",
        b"text",
        b"\1\0\2\0",
        b"ab",
        b"void",
        b"abcd",
        (1).to_bytes(8, "little"),
    ]


@pytest.mark.found(8)
@pytest.mark.parametrize(
    "text",
    [
        np.array(["a", "b"]),
        np.array("ab"),
        (ctypes.c_wchar * 2)("a", "b"),
        np.array([["a"], ["b"]]),
    ],
    ids=range(4),
)
def test_text_is_never_sent_as_four_bytes_a_character(producer, text):
    with pytest.raises(TypeError, match=r"value must be bytes or a str; .*encode it first"):
        producer.send(ProducerRecord("orders", text))
    with pytest.raises(TypeError, match="values must"):
        producer.send_batch("orders", text)


@pytest.mark.found(8, 24)
@pytest.mark.parametrize(
    "time",
    [np.datetime64(5, "s"), np.array(5, "M8[s]"), np.array([5] * 8, "M8[s]")],
    ids=["scalar", "0-d", "array"],
)
def test_numpys_times_have_no_zone(producer, time):
    with pytest.raises(
        TypeError, match="timestamps: datetime64 has no time zone; if it is UTC give astype"
    ):
        producer.send_batch("orders", [b""] * 8, timestamps=time)
    with pytest.raises(TypeError, match="timestamp must be an int"):
        ProducerRecord("orders", timestamp=time)
    with pytest.raises(TypeError, match="partitions must be an int"):
        producer.send_batch("orders", [b""] * 8, partitions=time)


@pytest.mark.found(8)
@pytest.mark.parametrize("partition", [1.0, "1", np.array([1]), np.float64(1), b"\1"], ids=repr)
def test_what_is_no_int_is_no_partition(partition):
    with pytest.raises(TypeError, match="partition must be an int or None"):
        ProducerRecord("orders", partition=partition)
    with pytest.raises(TypeError, match="timestamp must be an int"):
        ProducerRecord("orders", timestamp=partition)


# ---------------------------------------------------------------------- headers that can be read
# only once


def pairs():
    yield "a", b"1"
    yield "b", None


ITERATORS = {
    "generator": pairs,
    "zip": lambda: zip("ab", [b"1", None], strict=True),
    "map": lambda: map(tuple, [("a", b"1"), ("b", None)]),
}
BOTH = [("a", b"1"), ("b", None)]


@pytest.mark.found(9)
@pytest.mark.parametrize("make", ITERATORS.values(), ids=ITERATORS)
def test_headers_from_an_iterator_are_read_once(broker, make):
    class Looks:
        def on_send(self, record):
            assert list(record.headers) == BOTH
            return record

        def on_acknowledgement(self, metadata, error):
            pass

    for extra in ({}, {"interceptors": [Looks()]}):
        with KafkaProducer(broker.config(**extra)) as producer:
            record = ProducerRecord("orders", b"v", headers=make())
            for _ in range(2):
                assert producer.sync_send(record, 10).headers == BOTH
            record.headers = make()
            producer.sync_send(record, 10)
    with RecoverableProducer(broker.config()) as producer:
        record = ProducerRecord("orders", b"v", headers=make())
        producer.send(record)
        producer.send(record)
        producer.flush(10)
    with KafkaSink(broker.config(), "orders") as sink:
        sink.write([ProducerRecord("orders", b"v", headers=make())])
    with KafkaProducer(broker.config()) as producer:
        assert producer.send_batch("orders", [b"v", b"v"], headers=make()).wait(10)
        assert producer.send_batch("orders", [b"v", b"v"], headers=iter([make(), make()])).wait(10)
    assert [list(message.headers) for message in broker.messages("orders")] == [BOTH] * 13


@pytest.mark.found(9)
def test_an_iterator_at_two_rows_of_a_batch(broker, producer):
    """The second row had no headers, in silence."""
    one, other = iter([("a", b"1"), ("b", None)]), ((name, b"2") for name in "cd")
    assert producer.send_batch(
        "orders", [b"0", b"1", b"2", b"3", b"4"], headers=[one, other, one, None, other]
    ).wait(10)
    first, second = [("a", b"1"), ("b", None)], [("c", b"2"), ("d", b"2")]
    headers = {message.value: message.headers for message in broker.messages("orders", 5)}
    assert headers == {b"0": first, b"1": second, b"2": first, b"3": [], b"4": second}


@pytest.mark.found(9)
def test_headers_from_an_iterator_and_a_full_queue(broker):
    async def main():
        async with AsyncKafkaProducer(
            broker.config(queue_buffering_max_messages=1, linger_ms=20)
        ) as producer:
            futures = [
                await producer.send(ProducerRecord("orders", b"v", headers=pairs()))
                for _ in range(5)
            ]
            await asyncio.gather(*futures)

    asyncio.run(main())
    with KafkaProducer(broker.config(queue_buffering_max_messages=1, linger_ms=20)) as producer:
        for _ in range(5):
            producer.send(ProducerRecord("orders", b"v", headers=pairs()))
        producer.flush(10)
    assert [list(message.headers) for message in broker.messages("orders")] == [BOTH] * 10


# ---------------------------------------------------------------------- callbacks that never run


async def coroutine_function(*arguments):
    raise AssertionError


def generator_function(*arguments):
    yield


async def async_generator_function(*arguments):
    yield


class Called:
    async def __call__(self, *arguments):
        raise AssertionError

    async def method(self, *arguments):
        raise AssertionError

    @classmethod
    async def class_method(cls, *arguments):
        raise AssertionError


NEVER_RUN = {
    "coroutine function": coroutine_function,
    "generator function": generator_function,
    "asynchronous generator function": async_generator_function,
    "bound method": Called().method,
    "class method": Called.class_method,
    "object": Called(),
    "partial": functools.partial(coroutine_function, 1),
    "partial of a partial of a method": functools.partial(functools.partial(Called().method, 1), 2),
    "partial of an object": functools.partial(Called()),
}


@pytest.mark.found(11)
@pytest.mark.parametrize("callback", NEVER_RUN.values(), ids=NEVER_RUN)
def test_a_callback_that_would_never_run_is_refused(broker, producer, callback):
    says = "is a (coroutine|generator) function"
    record = ProducerRecord("orders", b"v")
    table = pa.table({"v": [b"v"]})
    with RecoverableProducer(broker.config()) as recoverable:
        for refuse in (
            lambda: producer.send(record, callback),
            lambda: producer.send(record, on_delivery=callback),
            lambda: producer.try_send(record, callback),
            lambda: producer.send_batch("orders", [b"v"], on_delivery=callback),
            lambda: producer.send_table(table, topic="orders", value="v", on_delivery=callback),
            lambda: recoverable.send(record, callback),
        ):
            with pytest.raises(TypeError, match=f"on_delivery {says}"):
                refuse()
    batch = producer.send_batch("orders", [b"v"])
    with pytest.raises(TypeError, match=f"callback {says}"):
        batch.add_done_callback(callback)
    assert batch.wait(10)
    assert len(broker.messages("orders")) == 1
    for name in (
        "error_cb",
        "stats_cb",
        "throttle_cb",
        "log_cb",
        "oauthbearer_token_refresh_cb",
        "partitioner",
        "value_serializer",
    ):
        with pytest.raises(TypeError, match=f"{name} {says}"):
            KafkaProducer(broker.config(), **{name: callback})
    with pytest.raises(TypeError, match=f"on_recovery {says}"):
        RecoverableProducer(broker.config(), on_recovery=callback)
    with pytest.raises(TypeError, match=f"key {says}"):
        KafkaHandler("orders", broker.config(), key=callback)


@pytest.mark.found(11)
def test_interceptors_and_serializers_with_coroutine_methods(broker):
    class Interceptor:
        def on_send(self, record):
            return record

        async def on_acknowledgement(self, metadata, error):
            raise AssertionError

    class Serializer:
        async def serialize(self, topic, data):
            raise AssertionError

    with pytest.raises(
        TypeError, match="interceptors: on_acknowledgement of Interceptor is a coroutine function"
    ):
        KafkaProducer(broker.config(), interceptors=[Interceptor()])
    with pytest.raises(TypeError, match="key_serializer: serialize is a coroutine function"):
        KafkaProducer(broker.config(), key_serializer=Serializer())


@pytest.mark.found(11)
@pytest.mark.parametrize(
    "wrap",
    [lambda f: f, functools.partial, lambda f: type("C", (), {"__call__": f})()],
    ids=["function", "partial", "object"],
)
def test_asyncio_awaits_a_coroutine_function(broker, wrap):
    told = []

    async def on_delivery(*batch):
        await asyncio.sleep(0)
        told.append(batch[-1])

    async def main():
        async with AsyncKafkaProducer(broker.config()) as producer:
            batch = await producer.send_batch("orders", [b"v"], on_delivery=wrap(on_delivery))
            table = await producer.send_table(
                pa.table({"v": [b"v"]}), topic="orders", value="v", on_delivery=wrap(on_delivery)
            )
            await batch
            await table
            for _ in range(1000):
                if len(told) == 2:
                    break
                await asyncio.sleep(0.01)
            assert set(told) == {batch, table}
            with pytest.raises(TypeError, match="on_delivery is a generator function"):
                await producer.send_batch("orders", [b"v"], on_delivery=generator_function)

    asyncio.run(main())


@pytest.mark.found(11)
def test_what_runs_is_called(producer):
    told = threading.Semaphore(0)

    class Callable:
        def __call__(self, metadata, error):
            told.release()

        def method(self, metadata, error):
            told.release()

    for callback in (
        lambda metadata, error: told.release(),
        Callable(),
        Callable().method,
        functools.partial(lambda one, metadata, error: told.release(), 1),
        functools.partial(Callable()),
    ):
        producer.send(ProducerRecord("orders", b"v"), callback)
        assert told.acquire(timeout=10)
    producer.sync_send(ProducerRecord("orders", b"v"), 10)


# ---------------------------------------------------------------------- columns of nulls


@pytest.mark.found(24)
@pytest.mark.parametrize("chunks", [1, 2], ids=["array", "chunks"])
def test_columns_without_a_number(broker, producer, chunks):
    nulls = pa.chunked_array([pa.nulls(4)] * chunks)
    assert producer.send_batch(
        "orders", [b"v"] * 4 * chunks, partitions=nulls, timestamps=nulls, keys=nulls
    ).wait(10)
    table = pa.table({"v": [b"v"] * 4 * chunks, "n": nulls})
    batch = producer.send_table(
        table, topic="orders", value="v", key="n", partition="n", timestamp="n", headers=["n"]
    )
    assert batch.wait(10)
    assert not batch.failed
    messages = broker.messages("orders")
    assert len(messages) == 8 * chunks
    assert all(
        message.timestamp > 1_600_000_000_000 and message.key is None for message in messages
    )
    with pytest.raises(ValueError, match="partitions has 4 items, values has 3"):
        producer.send_batch("orders", [b"v"] * 3, partitions=pa.nulls(4))


@pytest.mark.found(24)
def test_columns_without_a_number_and_a_partitioner(broker):
    with KafkaProducer(
        broker.config(), partitioner=lambda topic, key, count: count - 1
    ) as producer:
        assert producer.send_batch("orders", [b"v"] * 4, partitions=pa.nulls(4)).wait(10)
    assert len(broker.messages("orders")) == 4


@pytest.mark.found(24)
def test_times_in_a_list_of_timestamps(producer):
    import datetime

    pd = pytest.importorskip("pandas")
    for time, says in (
        (pd.NaT, "timestamps is NaT, which is no time"),
        (datetime.datetime(2026, 1, 1), "timestamps 2026-01-01 00:00:00 has no time zone"),
        (pd.Timestamp("2026-01-01"), "timestamps 2026-01-01 00:00:00 has no time zone"),
    ):
        with pytest.raises(ValueError, match=says):
            producer.send_batch("orders", [b"1", b"2"], timestamps=time)
        with pytest.raises(ValueError, match=says.replace("timestamps", "item 1 of timestamps")):
            producer.send_batch("orders", [b"1", b"2"], timestamps=[1, time])


# ---------------------------------------------------------------------- what a mask or a null says
# is not there

ROWS = np.ma.array([[1, 2], [3, 4]], mask=[[False, True], [False, False]], dtype="u1")
MASKED = {
    "array": ROWS,
    "row": ROWS[1],
    "no mask": np.ma.array([[1, 2], [3, 4]], dtype="u1"),
    "record": np.ma.array([(1, 2)], mask=[(0, 1)], dtype=[("a", "u1"), ("b", "u1")])[0],
    "numbers": np.ma.array([1, 2], mask=[False, True]),
}


@pytest.mark.found(8)
@pytest.mark.parametrize("masked", MASKED.values(), ids=MASKED)
def test_masked_arrays_are_refused(broker, producer, masked):
    """What was under the mask was sent."""
    calls = {
        "value": lambda: producer.send(ProducerRecord("orders", masked)),
        "key": lambda: producer.try_send(ProducerRecord("orders", b"v", key=masked)),
        "headers: a value": lambda: producer.sync_send(
            ProducerRecord("orders", b"v", headers=[("h", masked)]), 10
        ),
        "values": lambda: producer.send_batch("orders", masked),
        "item 1 of values": lambda: producer.send_batch("orders", [b"v", masked]),
        "keys": lambda: producer.send_batch("orders", [b"1", b"2"], keys=masked),
        "partitions": lambda: producer.send_batch("orders", [b"1", b"2"], partitions=masked),
        "timestamps": lambda: producer.send_batch("orders", [b"1", b"2"], timestamps=masked),
    }
    for what, call in calls.items():
        with pytest.raises(
            TypeError, match=rf"{what}: a masked array .* filled\(\.\.\.\) .* pyarrow\.array"
        ):
            call()
    assert producer.metrics().sent == 0
    assert producer.sync_send(ProducerRecord("orders", masked.filled(0)), 10).value_size


@pytest.mark.found(8)
def test_what_is_missing_in_a_column_is_a_null(broker, producer):
    pd = pytest.importorskip("pandas")
    pl = pytest.importorskip("polars")
    columns = [
        pa.array(np.ma.array([b"a", b"b"], mask=[False, True], dtype=object)),
        pd.Series(["a", None], dtype="string"),
        pd.Series(["a", None], dtype="str"),
        pd.Series(["a", None], dtype=object),
        pd.Series([b"a", pd.NA], dtype=object),
        pl.Series(["a", None]),
        pl.Series([b"a", None]),
        pd.Series(["a", None], dtype="category"),
    ]
    for column in columns:
        assert producer.send_batch("orders", column, keys=column, partitions=[0, 0]).wait(10)
    for message, value in zip(
        broker.messages("orders", 2 * len(columns)), [b"a", None] * len(columns), strict=True
    ):
        assert (message.key, message.value) == (value, value)
    for missing in (pd.NA, pd.NaT, float("nan"), np.datetime64("NaT")):
        with pytest.raises(TypeError, match="item 1 of values must be"):
            producer.send_batch("orders", [b"a", missing])
        with pytest.raises(TypeError, match="item 1 of keys must be"):
            producer.send_batch("orders", [b"a", b"b"], keys=[b"a", missing])
        with pytest.raises(TypeError, match="partitions must be ints; item 1 is"):
            producer.send_batch("orders", [b"a", b"b"], partitions=[0, missing])
    numbers = [pd.Series([0, None], dtype="Int64"), pl.Series([0, None]), pa.array([0, None])]
    assert all(
        producer.send_batch("orders", [b"a", b"b"], partitions=column).wait(10)
        for column in numbers
    )


# ---------------------------------------------------------------------- BufferError


@pytest.mark.found(27)
@pytest.mark.parametrize(
    "where", ["value", "key", "headers", "values", "keys", "partitions", "timestamps"]
)
@pytest.mark.parametrize(
    "memory", [np.arange(8)[::2], memoryview(b"abcdefgh")[::2]], ids=["NumPy", "memoryview"]
)
def test_memory_that_cannot_be_had_is_no_full_queue(broker, producer, where, memory):
    """`except BufferError: wait; try again` must not go on for ever."""
    if where in ("value", "key", "headers"):
        record = ProducerRecord(
            "orders", **{where: [("name", memory)] if where == "headers" else memory}
        )
        sends = [producer.send, producer.sync_send, producer.send_future]
    else:
        record = {"values": [b""] * 4, where: memory}
        sends = [lambda columns: producer.send_batch("orders", **columns)]
    for send in sends:
        with pytest.raises(
            InvalidRecordError, match=f"{where.removesuffix('s')}.*gives no C-contiguous buffer"
        ) as caught:
            send(record)
        assert isinstance(caught.value, ValueError)
        assert not isinstance(caught.value, BufferError)


@pytest.mark.found(27)
def test_memory_that_cannot_be_had_and_asyncio(broker):
    async def main():
        async with AsyncKafkaProducer(broker.config()) as producer:
            with pytest.raises(InvalidRecordError):
                await producer.send(ProducerRecord("orders", memoryview(b"abcd")[::2]))
            with pytest.raises(InvalidRecordError):
                await producer.send_batch("orders", [memoryview(b"abcd")[::2]])

    asyncio.run(main())


# ---------------------------------------------------------------------- memory that says something
# else than when it was checked


@pytest.mark.found(30)
def test_offsets_beyond_a_buffer_that_pyarrow_knows(producer):
    offsets = np.array([0, 8], "i4")
    array = pa.Array.from_buffers(
        pa.binary(), 1, [None, pa.py_buffer(offsets), pa.py_buffer(bytearray(8))]
    )
    table = pa.table({"v": array})
    offsets[1] = 4096
    with pytest.raises(ValueError, match=r"values: malformed Arrow array: .*4096"):
        producer.send_batch("orders", array)
    with pytest.raises(ValueError, match=r"keys: malformed Arrow array: .*4096"):
        producer.send_batch("orders", [b""], keys=array)
    with pytest.raises(ValueError, match=r"table: malformed Arrow array: .*4096"):
        producer.send_table(table, topic="orders", value="v")


def changing(kind):
    """An Arrow array of 40 messages, and what makes the twentieth lead elsewhere."""
    data = bytearray(b"0123456789abcdef" * 40)
    if kind == "views":
        views = np.zeros(40, [("size", "i4"), ("prefix", "S4"), ("buffer", "i4"), ("offset", "i4")])
        views["size"], views["offset"] = 16, np.arange(40) * 16
        array = pa.Array.from_buffers(
            pa.binary_view(), 40, [None, pa.py_buffer(views), pa.py_buffer(data)]
        )
        return array, lambda: views["size"].__setitem__(20, 1 << 20)
    if kind == "dictionary":
        codes = np.zeros(40, "i4")
        codes_array = pa.Array.from_buffers(pa.int32(), 40, [None, pa.py_buffer(codes)])
        array = pa.DictionaryArray.from_arrays(codes_array, pa.array([b"0123456789abcdef"]))
        return array, lambda: codes.__setitem__(20, 1 << 20)
    offsets = (np.arange(41) * 16).astype("i4" if kind == "binary" else "i8")
    array = pa.Array.from_buffers(
        pa.binary() if kind == "binary" else pa.large_binary(),
        40,
        [None, pa.py_buffer(offsets), pa.py_buffer(data)],
    )
    return array, lambda: offsets.__setitem__(21, 1 << 20)


@pytest.mark.found(30)
@pytest.mark.parametrize("role", ["values", "keys", "headers"])
@pytest.mark.parametrize("kind", ["binary", "large binary", "views", "dictionary"])
def test_memory_that_changes_while_the_call_waits(broker, kind, role):
    """The queue has room for ten; the rest is read again later, and the callback of the first one
    writes to the column.
    """
    array, change = changing(kind)
    changed = threading.Event()

    def on_delivery(metadata, error):
        change()
        changed.set()

    with KafkaProducer(
        broker.config(queue_buffering_max_messages=10, linger_ms=50, enable_idempotence=False)
    ) as producer:
        producer.send(ProducerRecord("orders", b"first"), on_delivery)
        if role == "headers":
            table = pa.table({"v": [b"v"] * 40, "h": array})
            batch = producer.send_table(table, topic="orders", value="v", headers=["h"], timeout=20)
        elif role == "keys":
            batch = producer.send_batch("orders", [b"v"] * 40, keys=array, timeout=20)
        else:
            batch = producer.send_batch("orders", array, timeout=20)
        assert changed.is_set()
        assert batch.wait(20)
        assert {index for index, error in batch.errors()} <= {20, 21}
        assert 20 in {index for index, error in batch.errors()}
        assert "INVALID_ARG" in repr(batch.errors()[0][1])
    for message in broker.messages("orders"):
        for content in (message.value, message.key, *(value for _, value in message.headers or ())):
            assert content in (None, b"first", b"v", b"0123456789abcdef")


@pytest.mark.found(30)
def test_partitions_and_timestamps_that_change_while_the_call_waits(broker):
    for name, number in (("partitions", 1 << 33), ("partitions", -7), ("timestamps", -7)):
        column = np.ones(40, "i8") * (name == "timestamps")
        with KafkaProducer(
            broker.config(queue_buffering_max_messages=10, linger_ms=50, enable_idempotence=False)
        ) as producer:
            producer.send(
                ProducerRecord("other", b"first"),
                lambda metadata, error: column.__setitem__(20, number),  # noqa: B023
            )
            batch = producer.send_batch("other", [b"v"] * 40, **{name: column}, timeout=20)
            assert batch.wait(20)
            assert [index for index, error in batch.errors()] == [20]


# ---------------------------------------------------------------------- what the fuzzer found


@pytest.mark.found(27)
def test_a_lone_surrogate_in_a_headers_name_is_named(producer):
    with pytest.raises(
        InvalidRecordError, match="headers: a name: a str with a lone surrogate"
    ) as caught:
        producer.send(ProducerRecord("orders", headers=[("a\ud800", b"")]))
    assert not isinstance(caught.value, UnicodeError)


@pytest.mark.found(8)
@pytest.mark.parametrize(
    "column", [pa.array([b"a"]), pa.array([1.5, None])], ids=["bytes", "numbers"]
)
def test_an_arrow_column_is_no_value(producer, column):
    for part in ("value", "key"):
        with pytest.raises(REFUSED, match=f"{part} must be a buffer .*, not pyarrow"):
            producer.send(ProducerRecord("orders", **{part: column}))
