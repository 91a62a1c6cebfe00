"""The schema registry's wire format, against a stand-in that speaks its HTTP API, and read by
another client's deserializers.
"""

from __future__ import annotations

import io
import json
import os
import pickle
import socket
import subprocess
import sys
import threading

import pytest
import registrylib

from kafka_ext import KafkaProducer, KafkaSink, ProducerRecord
from kafka_ext.testing import EmbeddedBroker

fastavro = pytest.importorskip("fastavro")
pytest.importorskip("httpx")

from kafka_ext.registry import (  # noqa: E402
    AvroSerializer,
    JsonSchemaSerializer,
    ProtobufSerializer,
    RegistryError,
    SchemaRegistry,
)

# confluent-kafka's client does not close all of its connections, and says so in whichever test
# comes after.
pytestmark = [
    pytest.mark.filterwarnings("ignore:unclosed <socket:ResourceWarning"),
    pytest.mark.filterwarnings(
        "ignore:.*unclosed <socket.*:pytest.PytestUnraisableExceptionWarning"
    ),
    pytest.mark.filterwarnings(
        "ignore:Exception ignored in. <socket:pytest.PytestUnraisableExceptionWarning"
    ),
]

ORDER = {
    "type": "record",
    "name": "Order",
    "namespace": "shop",
    "fields": [{"name": "item", "type": "string"}, {"name": "count", "type": "int", "default": 1}],
}
JSON_ORDER = {
    "title": "Order",
    "type": "object",
    "properties": {"item": {"type": "string"}},
    "required": ["item"],
}


@pytest.fixture
def server():
    with registrylib.running() as server:
        yield server


@pytest.fixture
def registry(server):
    registry = SchemaRegistry(server.url)
    yield registry
    registry.close()


@pytest.fixture
def broker():
    with EmbeddedBroker(topics={"orders": 1}) as broker:
        yield broker


@pytest.fixture
def reading(server):
    """confluent-kafka's client of the same registry."""
    module = pytest.importorskip("confluent_kafka.schema_registry")
    client = module.SchemaRegistryClient({"url": server.url})
    yield client
    client._rest_client.session.close()


def context(field="value"):
    from confluent_kafka.serialization import MessageField, SerializationContext

    return SerializationContext(
        "orders", MessageField.KEY if field == "key" else MessageField.VALUE
    )


# ---------------------------------------------------------------------- Avro


def test_avro(broker, server, registry):
    with KafkaProducer(
        broker.config(enable_idempotence=False, linger_ms=0),
        value_serializer=AvroSerializer(registry, ORDER),
        key_serializer=AvroSerializer(registry, '"string"', is_key=True),
    ) as producer:
        for number in range(3):
            producer.send(ProducerRecord("orders", {"item": "book", "count": number}, key="ada"))
    messages = broker.messages("orders", count=3)
    for number, message in enumerate(messages):
        assert message.value[:1] == b"\0"
        schema = server.schemas[int.from_bytes(message.value[1:5], "big") - 1]
        assert json.loads(schema[1]) == ORDER
        read = fastavro.schemaless_reader(
            io.BytesIO(message.value[5:]), fastavro.parse_schema(ORDER)
        )
        assert read == {"item": "book", "count": number}
    assert set(server.subjects) == {"orders-key", "orders-value"}
    assert sorted(server.asked) == [
        "POST /subjects/orders-key/versions",
        "POST /subjects/orders-value/versions",
    ]  # once each


def test_avro_is_read_by_confluents_deserializer(registry, reading):
    avro = pytest.importorskip("confluent_kafka.schema_registry.avro")
    value = AvroSerializer(registry, json.dumps(ORDER)).serialize("orders", {"item": "book"})
    assert avro.AvroDeserializer(reading)(value, context()) == {"item": "book", "count": 1}


def test_what_does_not_fit_the_schema_is_raised_by_send(broker, registry):
    with KafkaProducer(
        broker.config(enable_idempotence=False), value_serializer=AvroSerializer(registry, ORDER)
    ) as producer:
        with pytest.raises((ValueError, TypeError, KeyError)):
            producer.send(ProducerRecord("orders", {"count": 5}))
        assert producer.metrics().sent == 0


def test_the_newest_schema_of_the_subject(server, registry):
    server.add("orders-value", "AVRO", '"int"')
    server.add("orders-value", "AVRO", json.dumps(ORDER))
    serializer = AvroSerializer(registry)
    assert serializer.serialize("orders", {"item": "a"}) == serializer.serialize(
        "orders", {"item": "a"}
    )
    assert serializer.serialize("orders", {"item": "a"})[:5] == b"\0\0\0\0\2"
    assert server.asked == ["GET /subjects/orders-value/versions/latest"]
    with pytest.raises(RegistryError, match="Subject 'other-value' not found") as caught:
        serializer.serialize("other", {})
    assert (caught.value.status, caught.value.code) == (404, 40401)


def test_subjects(server, registry):
    AvroSerializer(registry, ORDER, subject="fixed").prepare("orders")
    AvroSerializer(registry, ORDER, subject=lambda topic, name: f"{topic}/{name}").prepare("orders")
    AvroSerializer(registry, ORDER, is_key=True).prepare("orders")
    assert set(server.subjects) == {"fixed", "orders/shop.Order", "orders-key"}
    assert len(server.schemas) == 1


def test_without_registering(server, registry):
    serializer = AvroSerializer(registry, ORDER, auto_register=False)
    with pytest.raises(RegistryError) as caught:
        serializer.serialize("orders", {"item": "a"})
    assert caught.value.code == 40401
    server.add("orders-value", "AVRO", json.dumps(ORDER))
    assert (
        serializer.serialize("orders", {"item": "a"})[:5] == b"\0\0\0\0\1"
    )  # it asks again after a failure
    assert "POST /subjects/orders-value/versions" not in server.asked


def test_to_avro(registry):
    serializer = AvroSerializer(
        registry, ORDER, to_avro=lambda order: {"item": order[0], "count": order[1]}
    )
    assert serializer.serialize("orders", ("a", 5)) == b"\0\0\0\0\1\2a\n"


# ---------------------------------------------------------------------- JSON Schema


def test_json_schema(server, registry, reading):
    value = JsonSchemaSerializer(registry, JSON_ORDER).serialize("orders", {"item": "Bücher"})
    assert value == b"\0\0\0\0\1" + '{"item":"Bücher"}'.encode()
    assert server.schemas[0][0] == "JSON"
    deserializers = pytest.importorskip("confluent_kafka.schema_registry.json_schema")
    read = deserializers.JSONDeserializer(json.dumps(JSON_ORDER), schema_registry_client=reading)
    assert read(value, context()) == {"item": "Bücher"}


def test_json_schema_validates_when_asked(registry):
    jsonschema = pytest.importorskip("jsonschema")
    loose = JsonSchemaSerializer(registry, JSON_ORDER)
    assert loose.serialize("orders", {"item": 5}).endswith(b'{"item":5}')
    strict = pickle.loads(
        pickle.dumps(JsonSchemaSerializer(registry, json.dumps(JSON_ORDER), validate=True))
    )
    assert strict.serialize("orders", {"item": "a"}).endswith(b'{"item":"a"}')
    with pytest.raises(jsonschema.ValidationError):
        strict.serialize("orders", {"item": 5})
    with pytest.raises(jsonschema.SchemaError):
        JsonSchemaSerializer(registry, {"type": "nonsense"}, validate=True)


# ---------------------------------------------------------------------- Protobuf


@pytest.fixture(scope="module")
def messages():
    """Message classes of two files, one importing the other, with a message inside a message."""
    pytest.importorskip("google.protobuf")
    from google.protobuf import descriptor_pb2, descriptor_pool, message_factory, timestamp_pb2

    pool = descriptor_pool.DescriptorPool()
    pool.AddSerializedFile(timestamp_pb2.DESCRIPTOR.serialized_pb)
    money = descriptor_pb2.FileDescriptorProto(
        name="shop/money.proto", package="shop", syntax="proto3"
    )
    amount = money.message_type.add(name="Amount")
    amount.field.add(name="cents", number=1, type=3, label=1)
    pool.Add(money)
    shop = descriptor_pb2.FileDescriptorProto(
        name="shop/order.proto",
        package="shop",
        syntax="proto3",
        dependency=["shop/money.proto", "google/protobuf/timestamp.proto"],
    )
    order = shop.message_type.add(name="Order")
    order.field.add(name="item", number=1, type=9, label=1)
    order.field.add(name="price", number=2, type=11, type_name=".shop.Amount", label=1)
    order.field.add(name="at", number=3, type=11, type_name=".google.protobuf.Timestamp", label=1)
    other = shop.message_type.add(name="Other")
    for name in ("First", "Second"):
        other.nested_type.add(name=name).field.add(name="text", number=1, type=9, label=1)
    pool.Add(shop)

    def message_class(name):
        return message_factory.GetMessageClass(pool.FindMessageTypeByName(name))

    return {
        name: message_class(f"shop.{name}") for name in ("Order", "Other", "Other.Second", "Amount")
    }


def test_protobuf(server, registry, messages):
    serializer = ProtobufSerializer(registry, messages["Order"])
    order = messages["Order"](item="book", price=messages["Amount"](cents=5))
    value = serializer.serialize("orders", order)
    assert value == b"\0\0\0\0\2\0" + order.SerializeToString()
    assert list(server.subjects) == ["shop/money.proto", "orders-value"]
    assert json.loads(server.schemas[1][2]) == [
        {"name": "shop/money.proto", "subject": "shop/money.proto", "version": 1}
    ]
    assert serializer.serialize("orders", order) == value
    with pytest.raises(TypeError, match=r"shop\.Order"):
        serializer.serialize("orders", messages["Amount"]())
    with pytest.raises(TypeError, match="message_type"):
        ProtobufSerializer(registry, dict)


@pytest.mark.parametrize(
    ("name", "index"), [("Order", b"\0"), ("Other", b"\2\2"), ("Other.Second", b"\4\2\2")]
)
def test_protobuf_says_which_message_it_is(registry, messages, name, index):
    value = ProtobufSerializer(registry, messages[name]).serialize("orders", messages[name]())
    assert value[5:] == index


@pytest.mark.parametrize("name", ["Order", "Other.Second"])
def test_protobuf_is_read_by_confluents_deserializer(registry, reading, messages, name):
    protobuf = pytest.importorskip("confluent_kafka.schema_registry.protobuf")
    field = {"Order": "item", "Other.Second": "text"}[name]
    value = ProtobufSerializer(registry, messages[name]).serialize(
        "orders", messages[name](**{field: "book"})
    )
    read = protobuf.ProtobufDeserializer(messages[name], {"use.deprecated.format": False}, reading)(
        value, context()
    )
    assert getattr(read, field) == "book"


# ---------------------------------------------------------------------- the registry


def test_a_refusal_says_why(server, registry):
    server.refuse = (409, 409, "Schema being registered is incompatible with an earlier schema")
    with pytest.raises(RegistryError, match="incompatible") as caught:
        AvroSerializer(registry, ORDER).prepare("orders")
    assert (caught.value.status, caught.value.code) == (409, 409)
    assert len(server.asked) == 1  # that is an answer: asking again would not help
    again = pickle.loads(pickle.dumps(caught.value))
    assert (str(again), again.status, again.code) == (str(caught.value), 409, 409)


def test_a_registry_that_is_ill_is_asked_again(server, registry):
    server.failures = [(500, 50001, "Error in the backend data store")] * 2
    assert registry.register("orders-value", '"int"') == 1
    assert len(server.asked) == 3
    server.failures = [(503, 50003, "no leader")] * 9
    with pytest.raises(RegistryError, match="no leader") as caught:
        registry.register("other-value", '"int"')
    assert caught.value.status == 503
    assert len(server.asked) == 7


def test_a_registry_that_is_not_there():
    with socket.socket() as closed:
        closed.bind(("127.0.0.1", 0))
        registry = SchemaRegistry(f"http://127.0.0.1:{closed.getsockname()[1]}", timeout=1)
        with pytest.raises(RegistryError, match="did not answer") as caught:
            registry.register("orders-value", '"int"')
    assert caught.value.status is None
    registry.close()


def test_something_else_than_a_registry(server, registry):
    with pytest.raises(RegistryError, match="404"):
        registry._ask("GET", "/nonsense")


def test_authentication(server):
    server.auth = ("ada", "secret")
    registry = SchemaRegistry(server.url, auth=("ada", "secret"))
    assert registry.register("orders-value", '"int"') == 1
    registry.close()
    stranger = SchemaRegistry(server.url)
    with pytest.raises(RegistryError, match="Unauthorized"):
        stranger.register("orders-value", '"int"')
    stranger.close()
    assert "secret" not in repr(registry)


def test_many_threads_ask_little(server, registry):
    serializer = AvroSerializer(registry, ORDER)
    results = []
    threads = [
        threading.Thread(
            target=lambda: results.append(serializer.serialize("orders", {"item": "a"}))
        )
        for _ in range(16)
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(results) == 16
    assert len(set(results)) == 1
    assert len(server.schemas) == 1


def test_after_a_fork(server, registry):
    serializer = AvroSerializer(registry, ORDER)
    serializer.prepare("orders")
    child = os.fork()
    if not child:
        os._exit(0 if serializer.serialize("other", {"item": "a"})[:5] == b"\0\0\0\0\1" else 1)
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0
    assert serializer.serialize("third", {"item": "a"})
    assert set(server.subjects) == {"orders-value", "other-value", "third-value"}


def test_a_sink_takes_its_registry_with_it(broker, server, registry):
    sink = KafkaSink(
        broker.config(enable_idempotence=False)
        | {"value_serializer": AvroSerializer(registry, ORDER)},
        "orders",
    )
    program = (
        "import pickle, sys; print(pickle.load(sys.stdin.buffer).write([{'item': 'a'}, {'item':"
        " 'b', 'count': 2}]))"
    )
    done = subprocess.run(
        [sys.executable, "-c", program], input=pickle.dumps(sink), capture_output=True, timeout=60
    )
    assert done.stdout.strip() == b"2", done.stderr
    assert [message.value[5:] for message in broker.messages("orders")] == [b"\2a\2", b"\2b\4"]


def test_arguments(registry):
    with pytest.raises(TypeError, match="url"):
        SchemaRegistry(5)
    with pytest.raises(TypeError, match="registry must be"):
        AvroSerializer("http://localhost", ORDER)
    with pytest.raises(TypeError, match="subject"):
        AvroSerializer(registry, ORDER, subject=5)
    with pytest.raises(fastavro.schema.UnknownType):
        AvroSerializer(registry, {"type": "nonsense"})


def test_the_extra_is_named_where_it_is_missing():
    program = """
import sys
sys.modules["httpx"] = None
from kafka_ext.registry import SchemaRegistry
try:
    SchemaRegistry("http://localhost")
except ImportError as exc:
    print(exc)
"""
    done = subprocess.run(
        [sys.executable, "-c", program], capture_output=True, text=True, timeout=60
    )
    assert 'pip install "kafka-ext[registry]"' in done.stdout, done.stderr
