"""A property's value is taken as a whole or refused, with the property's name and what it takes."""

import enum
import os
import pathlib
import subprocess
import sys

import pytest

from kafka_ext import InvalidConfigError, KafkaProducer, KafkaSink, Properties
from kafka_ext.testing import EmbeddedBroker
from kafka_ext.testing._broker import TopicReader

BROKER = {"bootstrap.servers": "localhost:1"}

pytestmark = pytest.mark.found(23)


@pytest.mark.parametrize(
    "name", ["sasl.password", "ssl.key.password", "sasl.username", "client.id", "transactional.id"]
)
def test_white_space_at_the_beginning_is_not_left_out(name):
    """librdkafka drops it, so that a password was another one."""
    with pytest.raises(InvalidConfigError, match="white space") as caught:
        KafkaProducer(BROKER, **{name.replace(".", "_"): " \tsecret"})
    assert caught.value.property == name
    assert "secret" not in str(caught.value)
    with KafkaProducer(
        BROKER | {name: "within it and behind it "}, log_level=0, log_cb=lambda *line: None
    ) as producer:
        assert producer.get_property(name) == "within it and behind it "


def test_white_space_is_no_transactional_id():
    with pytest.raises(InvalidConfigError, match="empty: leave it out"):
        KafkaProducer(BROKER, transactional_id=" \t")


def test_white_space_around_servers_and_before_pem_means_nothing():
    with KafkaProducer(
        {"bootstrap.servers": "\n localhost:1"}, ssl_ca_pem="\n  text", log_cb=lambda *line: None
    ) as producer:
        assert producer.get_property("ssl.ca.pem") == "text"


def test_javas_login_is_answered_with_the_names_here():
    with pytest.raises(InvalidConfigError, match=r"'sasl\.username' and 'sasl\.password'"):
        KafkaProducer(BROKER, sasl_jaas_config="PlainLoginModule required;")


@pytest.mark.parametrize("name", ["linger.ms\0x", "linger.ms\udc00"])
def test_a_name_is_not_cut(name):
    with (
        KafkaProducer(BROKER, log_cb=lambda *line: None) as producer,
        pytest.raises(InvalidConfigError) as caught,
    ):
        producer.get_property(name)
    assert caught.value.property == name


@pytest.mark.parametrize(
    ("name", "value", "takes"),
    [
        ("message.timeout.ms", "10s", "a whole number of milliseconds from 0 to 2147483647"),
        ("message.timeout.ms", "1_000_000", "a whole number of milliseconds"),
        ("message.timeout.ms", 10.5, "a whole number"),
        ("message.timeout.ms", "0x10", "a whole number"),
        ("message.timeout.ms", "010", "a whole number"),
        ("message.timeout.ms", " ", "a whole number"),
        ("message.timeout.ms", "", "a whole number"),
        ("message.timeout.ms", "²", "a whole number"),
        ("message.timeout.ms", "٣", "a whole number"),
        ("message.timeout.ms", "9" * 5000, "a whole number"),
        ("message.timeout.ms", True, "a whole number"),
        ("batch.size", "16k", "a whole number from 1 to 2147483647"),
        ("queue.buffering.max.kbytes", "1e6", "a whole number of KiB"),
        ("retries", "²", "a whole number"),
        ("max.in.flight", "five", "a whole number"),
        ("linger.ms", "5ms", "a number of milliseconds from 0 to 900000"),
        ("linger.ms", float("nan"), "a number of milliseconds"),
        ("linger.ms", float("inf"), "a number of milliseconds"),
        ("linger.ms", "0,5", "a number of milliseconds"),
        ("linger.ms", "-inf", "a number of milliseconds"),
        ("acks", "0,all", "0, 1 and all"),
        ("acks", "2", "0, 1 and all"),
        ("acks", "1.0", "0, 1 and all"),
        ("request.required.acks", 3, "0, 1 and all"),
        ("compression.type", "", "one of none, gzip, snappy, lz4, zstd"),
        ("compression.type", "gzip,lz4", "one of none, gzip, snappy, lz4, zstd"),
        ("socket.keepalive.enable", "yes", "true or false"),
        ("transactional.id", "", "leave it out"),
        ("bootstrap.servers", "a:1;b:2", "commas separate servers"),
        ("bootstrap.servers", "a:1 b:2", "commas separate servers"),
        ("bootstrap.servers", "http://h:9092", "write host:port"),
        ("bootstrap.servers", "SSL://h:9092", "security.protocol"),
        ("bootstrap.servers", "h:9092/path", "not host:port"),
        ("bootstrap.servers", "localhost:²", "not host:port"),
        ("bootstrap.servers", "localhost:0", "from 1 to 65535"),
        ("bootstrap.servers", ("localhost", 29092), "write 'localhost:29092'"),
        ("bootstrap.servers", "2001:db8::1", "in brackets"),
        ("bootstrap.servers", "2001:db8::beef", "in brackets"),
        ("bootstrap.servers", "::1:9092", "in brackets"),
        ("bootstrap.servers", "fe80::1%eth0", "in brackets"),
        ("metadata.broker.list", "a:1;b:2", "commas separate servers"),
    ],
    ids=lambda value: repr(value)[:30],
)
def test_is_refused_with_what_it_takes(name, value, takes):
    with pytest.raises(InvalidConfigError) as caught:
        KafkaProducer(BROKER | {name: value})
    assert caught.value.property == name
    assert repr(name) in str(caught.value)
    assert takes in str(caught.value)
    assert len(str(caught.value)) < 400
    assert caught.value.__context__ is None


def test_a_list_of_pairs_says_what_an_item_is():
    with pytest.raises(TypeError, match=r"bootstrap\.servers.*'localhost:9092'.*tuple"):
        KafkaProducer(bootstrap_servers=[("localhost", 29092)])


@pytest.mark.parametrize(
    ("name", "value", "in_force"),
    [
        ("message.timeout.ms", 5000.0, "5000"),
        ("message.timeout.ms", " 5000 ", "5000"),
        ("linger.ms", 0.5, "0.5"),
        ("linger.ms", "1e2", "100"),
        ("linger.ms", ".5", "0.5"),
        ("acks", " all ", "-1"),
        ("acks", "ALL", "-1"),
        ("acks", -1, "-1"),
        ("compression.type", "LZ4", "lz4"),
        ("client.id", "10s", "10s"),
        ("enable.idempotence", "true", "true"),
        (
            "bootstrap.servers",
            "[::1]:9092,[::1],h,h.example:1, plaintext://h:2",
            "[::1]:9092,[::1],h,h.example:1, plaintext://h:2",
        ),
    ],
    ids=lambda value: repr(value)[:30],
)
def test_is_taken_as_a_whole(name, value, in_force):
    with KafkaProducer(BROKER | {name: value}) as producer:
        assert producer.get_property(name) == in_force
        assert producer.get_property("enable.idempotence") == "true"
        producer.close(0)


def test_numpy_numbers_and_paths_are_values():
    np = pytest.importorskip("numpy")
    given = {
        "message.timeout.ms": np.int64(5000),
        "linger.ms": np.float32(0.5),
        "enable.idempotence": np.bool_(False),
        "retries": np.array(3),
        "ssl.ca.location": pathlib.Path("/a/b"),
    }
    assert dict(Properties(given)) == {
        "message.timeout.ms": "5000",
        "linger.ms": "0.5",
        "enable.idempotence": "false",
        "retries": "3",
        "ssl.ca.location": "/a/b",
    }
    with pytest.raises(TypeError, match=r"retries.*ndarray"):
        Properties({"retries": np.array([3])})


def test_enumerations_are_what_they_are_equal_to():
    class Text(str, enum.Enum):
        NAME = "linger.ms"
        CODEC = "lz4"

    class Number(enum.IntEnum):
        FIVE = 5

    with KafkaProducer(
        BROKER | {Text.NAME: Number.FIVE, "compression.type": Text.CODEC}
    ) as producer:
        assert producer.get_property("linger.ms") == "5"
        assert producer.get_property("compression.type") == "lz4"
        assert {type(name) for name in producer.properties} == {str}
        producer.close(0)


@pytest.mark.parametrize(
    ("name", "value", "hint"),
    [
        ("value.serializer", str.encode, "'value_serializer'"),
        ("key.serializer", str.encode, "'key_serializer'"),
        ("key.deserializer", str.encode, "'key_serializer'"),
        ("value.deserializer", bytes.decode, "'value_serializer'"),
        ("logger", object(), "log_cb"),
        ("on_delivery", print, "send(record, on_delivery)"),
        ("default.topic.config", {"acks": 1}, "by their names"),
        ("buffer.memory", 1 << 25, "'queue.buffering.max.kbytes'"),
        ("max.block.ms", 1000, "timeout"),
        ("sasl_plain_password", "hunter22", "'sasl.password'"),
        ("ssl_cafile", "/ca.pem", "'ssl.ca.location'"),
    ],
)
def test_another_clients_name_is_answered_with_the_right_one(name, value, hint):
    for arguments, keywords in (
        ([BROKER | {name: value}], {}),
        ([BROKER], {name.replace(".", "_"): value}),
    ):
        if keywords and name.endswith("serializer") and not name.endswith("deserializer"):
            continue  # with an underscore, it is the right one
        with pytest.raises(InvalidConfigError) as caught:
            KafkaProducer(*arguments, **keywords)
        assert hint in str(caught.value)
        assert "hunter22" not in str(caught.value)


def test_every_way_in_checks_the_same():
    sink = KafkaSink(BROKER | {"message.timeout.ms": "10s"}, "t")
    with pytest.raises(InvalidConfigError, match="10s"):
        sink.write([b"x"])
    with EmbeddedBroker(topics={"t": 1}) as broker, pytest.raises(InvalidConfigError, match="10s"):
        TopicReader(broker.bootstrap_servers, "t", {"socket.timeout.ms": "10s"})


def test_numbers_do_not_depend_on_the_locale(tmp_path):
    """Under de_DE, C's strtod() reads "0.5" as 0."""
    made = subprocess.run(
        ["localedef", "-i", "de_DE", "-f", "UTF-8", tmp_path / "de_DE.UTF-8"],
        capture_output=True,
        check=False,
    )
    if not (tmp_path / "de_DE.UTF-8").exists():
        pytest.skip(f"no locale could be made: {made.stderr[-200:]}")
    program = (
        "import locale, kafka_ext; locale.setlocale(locale.LC_NUMERIC, 'de_DE.UTF-8');"
        "producer = kafka_ext.KafkaProducer(bootstrap_servers='localhost:1', linger_ms=0.5);"
        "print(producer.get_property('linger.ms')); producer.close(0)"
    )
    environment = os.environ | {"LOCPATH": str(tmp_path)}
    done = subprocess.run(
        [sys.executable, "-c", program], env=environment, capture_output=True, text=True, check=True
    )
    assert done.stdout.strip().replace(",", ".") == "0.5"


ALIASES = [
    ("bootstrap.servers", "localhost:1", "metadata.broker.list", "localhost:2"),
    ("acks", "all", "request.required.acks", "1"),
    ("linger.ms", "5", "queue.buffering.max.ms", "6"),
    ("retries", "5", "message.send.max.retries", "6"),
    ("compression.type", "gzip", "compression.codec", "lz4"),
    ("delivery.timeout.ms", "5000", "message.timeout.ms", "6000"),
    ("max.in.flight", "5", "max.in.flight.requests.per.connection", "4"),
]


@pytest.mark.parametrize(
    ("name", "value", "alias", "other"), ALIASES, ids=[alias[0] for alias in ALIASES]
)
def test_two_names_of_one_setting(name, value, alias, other):
    """The one that was given last won."""
    for given in ({name: value, alias: other}, {alias: other, name: value}):
        with pytest.raises(InvalidConfigError) as caught:
            KafkaProducer({**BROKER, **given} if name != "bootstrap.servers" else given)
        assert caught.value.property in (name, alias)
        assert f"'{name}'" in str(caught.value)
        assert f"'{alias}'" in str(caught.value)
        assert "give one of them" in str(caught.value)
    with KafkaProducer(
        {**BROKER, name: value, alias: value}, log_level=0, log_cb=lambda *line: None
    ) as producer:
        assert producer.get_property(alias) is not None


def test_two_spellings_of_all():
    with KafkaProducer(
        BROKER, acks="all", request_required_acks=-1, log_level=0, log_cb=lambda *line: None
    ) as producer:
        assert producer.get_property("acks") == "-1"
