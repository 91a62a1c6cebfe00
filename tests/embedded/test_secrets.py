"""Secrets come out nowhere: not in a repr, an exception, a log line at debug=all, a metric, a span,
or a message of the command line.
"""

from __future__ import annotations

import logging
import os
import pathlib
import subprocess
import sys
import time
import traceback
import warnings

import pytest
from faultlib import shown

from kafka_ext import (
    InvalidConfigError,
    KafkaException,
    KafkaProducer,
    KafkaSink,
    OAuthBearerToken,
    ProducerRecord,
    Properties,
)
from kafka_ext._rdkafka import redact, secrets_of
from kafka_ext.aio import AsyncKafkaProducer
from kafka_ext.logging import KafkaHandler
from kafka_ext.recoverable import RecoverableProducer
from kafka_ext.testing import EmbeddedBroker

SECRET = "hUnter2-Gehe1m"
LONG = SECRET * 400
BROKER = {"bootstrap.servers": "localhost:1"}
PEM = (
    f"-----BEGIN PRIVATE KEY-----\n{SECRET}{SECRET}{SECRET}\n{SECRET}\n-----END PRIVATE KEY-----\n"
)

# Every property that holds a secret, with a value that librdkafka takes.
HOLDING = {
    "sasl.password": SECRET,
    "ssl.key.password": SECRET,
    "ssl.key.pem": PEM,
    "ssl.keystore.password": SECRET,
    "sasl.oauthbearer.client.secret": SECRET,
    "sasl.oauthbearer.config": f"principal=me extension_a={SECRET}",
    "sasl.oauthbearer.extensions": f"a={SECRET},b={SECRET}{SECRET}",
    "sasl.oauthbearer.token.endpoint.url": f"https://me:{SECRET}@127.0.0.1:1/token?client_secret={SECRET}",
    "sasl.oauthbearer.assertion.private.key.passphrase": SECRET,
    "sasl.kerberos.kinit.cmd": f"echo {SECRET} | kinit me",
}
# And what other clients, or a later librdkafka, call them.
OTHERS = {
    "basic.auth.user.info": f"me:{SECRET}",
    "basic.auth.credentials": f"me:{SECRET}",
    "sasl.jaas.config": f'required username="me" password="{SECRET}";',
    "ssl_key": SECRET,
    "ssl.truststore.password": SECRET,
    "some.api.token": SECRET,
    "some.credential": SECRET,
    "proxy.url": f"http://me:{SECRET}@proxy:3128/",
}


def texts_of(exc):
    """All that an exception says of itself, of those behind it, and of what they hold."""
    seen = set()
    todo = [exc]
    while todo:
        exc = todo.pop()
        if exc is None or id(exc) in seen:
            continue
        seen.add(id(exc))
        yield from (str(exc), repr(exc), repr(exc.args), repr(vars(exc)))
        yield repr(getattr(exc, "object", None))
        yield "".join(traceback.format_exception(exc))
        todo += [exc.__cause__, exc.__context__, *getattr(exc, "exceptions", ())]


def assert_silent(*texts):
    for text in texts:
        assert "Gehe1m" not in text
        assert "hUnter2" not in text


@pytest.mark.found(36)
@pytest.mark.parametrize("name", sorted(HOLDING | OTHERS))
def test_masked_in_every_repr(name):
    value = (HOLDING | OTHERS)[name]
    properties = Properties(BROKER | {name: value})
    assert_silent(repr(properties), str(properties), f"{properties}", repr(properties.copy()))
    assert name in repr(properties)
    if name != "sasl.jaas.config":  # which no producer takes
        assert_silent(repr(KafkaSink(properties, "t")))


@pytest.mark.found(36)
def test_masked_in_the_reprs_of_whatever_has_them():
    properties = BROKER | HOLDING
    with KafkaProducer(properties) as producer:
        assert_silent(
            repr(producer),
            repr(producer.properties),
            repr(producer.metrics()),
            repr(producer._properties),
        )
        assert producer.get_property("sasl.password") == SECRET  # asked for by name
        producer.close(0)
    recoverable = RecoverableProducer(properties)
    assert_silent(repr(recoverable), repr(recoverable.properties))
    recoverable.close(0)
    handler = KafkaHandler("logs", properties)
    assert_silent(repr(handler), repr(vars(handler)))
    handler.close()
    assert_silent(repr(OAuthBearerToken(SECRET, 0, "me", {"a": SECRET})))
    assert_silent(repr(KafkaSink(lambda secret=SECRET: BROKER, "t")))


@pytest.mark.found(36)
def test_masked_in_the_repr_of_an_asyncio_producer():
    import asyncio

    async def main():
        producer = AsyncKafkaProducer(BROKER | HOLDING)
        assert_silent(repr(producer), repr(producer.properties))
        await producer.close(0)

    asyncio.run(main())


@pytest.mark.found(35)
@pytest.mark.parametrize(
    "value",
    [
        SECRET.encode() + b"\xff",
        SECRET + "\ud800",
        SECRET + "\0",
        LONG.encode() + b"\xff",
        LONG + "\udcff",
    ],
    ids=range(5),
)
@pytest.mark.parametrize(
    "name",
    ["sasl.password", "ssl.key.pem", "sasl.oauthbearer.config", "sasl.username", "client.id"],
)
def test_text_that_is_none_is_refused_without_saying_it(name, value):
    for make in (
        KafkaProducer,
        RecoverableProducer,
        lambda settings: KafkaSink(settings, "t").write([b"x"]),
    ):
        with pytest.raises(InvalidConfigError) as caught:
            make(BROKER | {name: value})
        assert caught.value.property == name
        assert caught.value.__context__ is None
        assert_silent(*texts_of(caught.value))


@pytest.mark.found(36)
@pytest.mark.parametrize(
    "wrong",
    [
        {"linger.ms": "soon"},
        {"no.such.property": "1"},
        {"security.protocol": "ssl", "ssl.key.pem": PEM, "ssl.certificate.pem": PEM},
        {"security.protocol": "ssl", "ssl.key.pem": SECRET},
        {"security.protocol": "ssl", "ssl.ca.pem": SECRET},
        {"security.protocol": "ssl", "ssl.ca.location": "/nonexistent"},
        {"security.protocol": "sasl_ssl", "sasl.mechanism": f"://me:{SECRET}@host"},
        {
            "sasl.mechanism": "OAUTHBEARER",
            "sasl.oauthbearer.method": "oidc",
            "sasl.oauthbearer.token.endpoint.url": f"me:{SECRET}",
        },
        {"bootstrap.servers": f"http://me:{SECRET}@host:9092"},
        {"bootstrap.servers": f"PLAINTEXT://me:{SECRET}@host:9092"},
        {"bootstrap.servers": f"me:{SECRET}@host:9092"},
        {"bootstrap.servers": f"host:9092, me:{SECRET}@host:9092"},
        {"ssl_key": SECRET},
        {"sasl.jaas.config": f'password="{SECRET}";'},
        {"basic.auth.user.info": f"me:{SECRET}"},
        {"ssl.key.password": [SECRET, object()]},
        {"ssl.key.password": {SECRET: 1}},
        {"partitioner": f"ssl://me:{SECRET}@host"},
    ],
    ids=shown,
)
def test_errors_of_a_configuration_do_not_repeat_them(wrong):
    with pytest.raises((InvalidConfigError, TypeError)) as caught:
        KafkaProducer(
            BROKER | {name: HOLDING[name] for name in ("sasl.password", "ssl.key.password")} | wrong
        ).close(0)
    assert_silent(*texts_of(caught.value))


ROUNDS = {
    "plain": {
        "security.protocol": "sasl_plaintext",
        "sasl.mechanism": "PLAIN",
        "sasl.username": "me",
        "sasl.password": SECRET,
    },
    "scram": {
        "security.protocol": "sasl_plaintext",
        "sasl.mechanism": "SCRAM-SHA-256",
        "sasl.username": "me",
        "sasl.password": SECRET,
    },
    "unsecured": {
        "security.protocol": "sasl_plaintext",
        "sasl.mechanism": "OAUTHBEARER",
        "enable.sasl.oauthbearer.unsecure.jwt": "true",
        "sasl.oauthbearer.config": f"principal=me extension_a={SECRET}",
    },
    "bad config": {
        "security.protocol": "sasl_plaintext",
        "sasl.mechanism": "OAUTHBEARER",
        "enable.sasl.oauthbearer.unsecure.jwt": "true",
        "sasl.oauthbearer.config": f"principal=me pass {SECRET}",
    },
    "bad extension": {
        "security.protocol": "sasl_plaintext",
        "sasl.mechanism": "OAUTHBEARER",
        "enable.sasl.oauthbearer.unsecure.jwt": "true",
        "sasl.oauthbearer.config": f"principal=me extension_a={SECRET}\x7f",
    },
    "oidc": {
        "security.protocol": "sasl_plaintext",
        "sasl.mechanism": "OAUTHBEARER",
        "sasl.oauthbearer.method": "oidc",
        "sasl.oauthbearer.client.id": "me",
        "sasl.oauthbearer.client.secret": SECRET,
        "sasl.oauthbearer.extensions": f"a={SECRET},b={SECRET}\x7f",
        "sasl.oauthbearer.token.endpoint.url": f"http://me:{SECRET}@127.0.0.1:1/token?client_secret={SECRET}",
    },
    "long": {
        "security.protocol": "sasl_plaintext",
        "sasl.mechanism": "PLAIN",
        "sasl.username": "me",
        "sasl.password": LONG,
    },
}


@pytest.mark.found(36)
@pytest.mark.parametrize("round_", sorted(ROUNDS))
def test_no_log_line_has_them(round_, caplog, unraisable):
    """With debug=all librdkafka logs its whole configuration, and each step of SASL."""
    said = []
    caplog.set_level(logging.DEBUG)
    with EmbeddedBroker(topics={"t": 1}) as broker:
        settings = {
            "bootstrap.servers": broker.bootstrap_servers,
            "debug": "all",
            "log_level": "7",
        } | ROUNDS[round_]
        callbacks = {
            "error_cb": lambda error: said.append(str(error)),
            "log_cb": lambda level, facility, message: said.append(message),
        }
        for more in (callbacks, {}):
            with KafkaProducer(settings, **more, statistics_interval_ms=100) as producer:
                with pytest.raises(KafkaException) as caught:
                    producer.sync_send(ProducerRecord("t", b"x"), timeout=1.0)
                said += texts_of(caught.value)
                said.append(repr(producer.metrics()))
                producer.close(0)
    assert unraisable == []
    assert any("sasl.mechanism" in text for text in said), "debug=all has logged the configuration"
    assert_silent(*said, caplog.text)


@pytest.mark.found(35)
@pytest.mark.parametrize(
    "token",
    [
        OAuthBearerToken(SECRET + "\ud800", 0),
        OAuthBearerToken(SECRET + "\0", 0),
        OAuthBearerToken(SECRET, 0, "me", {"a": SECRET + "\udcff"}),
        OAuthBearerToken(SECRET, 2**62, "me", {f"a {SECRET}": SECRET}),
        OAuthBearerToken(SECRET, 2**62, "me", {"a": SECRET + "\x7f"}),
        OAuthBearerToken(SECRET, 0, "me", {"a": SECRET}),
    ],
    ids=range(6),
)
def test_a_token_that_is_refused_is_not_repeated(token, unraisable, caplog):
    said = []
    settings = BROKER | {
        "security.protocol": "sasl_plaintext",
        "sasl.mechanism": "OAUTHBEARER",
        "debug": "all",
    }
    with KafkaProducer(
        settings,
        oauthbearer_token_refresh_cb=lambda config: token,
        error_cb=lambda error: said.append(str(error)),
    ) as producer:
        deadline = time.monotonic() + 10
        while not unraisable and time.monotonic() < deadline:
            time.sleep(0.01)
        producer.close(0)
    assert unraisable
    assert isinstance(unraisable[0][0], ValueError)
    assert_silent(*(text for exc, _ in unraisable for text in texts_of(exc)), *said, caplog.text)


@pytest.mark.found(36)
def test_no_span_and_no_metric_has_them():
    pytest.importorskip("opentelemetry.sdk")
    from kafka_ext.opentelemetry._attributes import of_servers

    assert_silent(
        repr(of_servers(f"plaintext://me:{SECRET}@host:9092")),
        repr(of_servers(f"me:{SECRET}@a:1,me:{SECRET}@b:2")),
    )


@pytest.mark.found(36)
def test_users_and_passwords_are_masked_without_a_scheme_too():
    for url in (f"me:{SECRET}@host:9092/path", f"host:1,me:{SECRET}@host:2", f":{SECRET}@host"):
        properties = Properties({"sasl.oauthbearer.token.endpoint.url": url})
        assert_silent(repr(properties))
        assert "***@host" in repr(properties)
        assert SECRET in secrets_of(properties)
    for plain in (
        "host:9092,other:9092",
        "kafka/host@REALM",
        "me@example.com",
        "http://host:9092/a@b",
    ):
        assert plain in repr(Properties({"bootstrap.servers": plain}))


@pytest.mark.found(36)
def test_redaction_leaves_the_rest():
    secrets = secrets_of(
        {"sasl.password": SECRET, "ssl.key.password": "abc", "client.id": "visible"}
    )
    assert (
        redact(f"a {SECRET} b visible abc", secrets) == "a *** b visible abc"
    )  # three letters are no secret
    assert (
        redact(f"a {LONG[:200]}", secrets_of({"sasl.password": LONG})) == "a ***"
    )  # cut by librdkafka's buffer
    assert (
        redact("Invalid sasl.oauthbearer.config: must not be empty", ())
        == "Invalid sasl.oauthbearer.config: must not be empty"
    )


# ---------------------------------------------------------------------- the command line


def command(*words, **keywords):
    done = subprocess.run(
        [sys.executable, "-m", "kafka_ext", *map(str, words)],
        input="",
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
        **keywords,
    )
    assert_silent(done.stdout, done.stderr)
    return done


@pytest.mark.found(34)
@pytest.mark.parametrize(
    "line",
    [
        f"sasl.password: {SECRET}",
        f"sasl.password: {SECRET}=",
        f"sasl.password {SECRET}",
        f"export PASSWORD={SECRET}",
        f"MIIEvQ{SECRET}==",
        f"{SECRET}",
        f"={SECRET}",
        f"sasl.password={SECRET}\udcff",
        f"linger.mss={SECRET}",
        f"log_cb={SECRET}",
        f"sasl.mechanism=OAUTHBEARER\nsecurity.protocol=ssl\nssl.key.pem={SECRET}",
    ],
)
def test_the_command_line_repeats_no_line_of_a_configuration(tmp_path, line):
    path = tmp_path / "producer.properties"
    path.write_bytes(
        f"# comment\nbootstrap.servers=localhost:1\n{line}\n".encode(errors="surrogateescape")
    )
    path.chmod(0o600)
    done = command("produce", "t", "--config", path)
    assert done.returncode == 2
    if "=" not in line.strip("=") or ":" in line or " " in line:
        assert f"{path}, line 3" in done.stderr


@pytest.mark.found(34)
def test_the_command_line_repeats_no_argument_that_may_be_a_secret():
    for words in (
        ["-X", f"sasl.password:{SECRET}"],
        [f"-Ysasl.password={SECRET}"],
        [f"--propertie=sasl.password={SECRET}"],
    ):
        assert command("produce", "t", "-b", "localhost:1", *words).returncode == 2


@pytest.mark.found(34)
def test_a_configuration_that_everybody_can_read_is_warned_of(tmp_path):
    path = tmp_path / "producer.properties"
    with EmbeddedBroker(topics={"t": 1}) as broker:
        for secret, mode, warned in (
            (True, 0o644, True),
            (True, 0o640, False),
            (False, 0o644, False),
        ):
            path.write_text("linger.ms=0\n" + (f"sasl.password={SECRET}\n" if secret else ""))
            path.chmod(mode)
            done = command("produce", "t", "-b", broker.bootstrap_servers, "--config", path)
            assert done.returncode == 0
            assert ("can be read by every user" in done.stderr) is warned


# ---------------------------------------------------------------------- certificates


@pytest.fixture
def environment(monkeypatch):
    monkeypatch.delenv("SSL_CERT_FILE", raising=False)
    monkeypatch.delenv("SSL_CERT_DIR", raising=False)
    return monkeypatch


@pytest.mark.found(37)
@pytest.mark.parametrize("protocol", ["ssl", "SASL_SSL"])
@pytest.mark.parametrize(
    ("variable", "value"),
    [
        ("SSL_CERT_FILE", "/nonexistent/ca.pem"),
        ("SSL_CERT_FILE", "/tmp"),
        ("SSL_CERT_DIR", "/nonexistent"),
        ("SSL_CERT_DIR", os.pathsep.join(["/nonexistent", "/neither"])),
    ],
)
def test_authorities_that_are_not_there_are_not_replaced_by_the_systems(
    environment, protocol, variable, value
):
    environment.setenv(variable, value)
    with pytest.raises(InvalidConfigError, match=f"{variable}.*ssl.ca.location") as caught:
        KafkaProducer(
            BROKER,
            security_protocol=protocol,
            sasl_mechanism="PLAIN",
            sasl_username="a",
            sasl_password="b",
        )
    assert caught.value.property == "ssl.ca.location"
    KafkaProducer(BROKER).close(0)  # without TLS they do not matter


@pytest.mark.found(37)
def test_folders_of_authorities_are_split(environment, tmp_path):
    for name in ("a", "b"):
        (tmp_path / name).mkdir()
    environment.setenv("SSL_CERT_DIR", os.pathsep.join(["/nonexistent", str(tmp_path / "a")]))
    KafkaProducer(BROKER, security_protocol="ssl").close(0)
    authority = next((path for path in pathlib.Path("/etc/ssl/certs").glob("*.0")), None)
    if authority is None:
        pytest.skip("this machine has no folder of hashed certificates")
    (tmp_path / "b" / authority.name).write_text(authority.read_text())
    environment.setenv("SSL_CERT_DIR", os.pathsep.join([str(tmp_path / "a"), str(tmp_path / "b")]))
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        KafkaProducer(BROKER, security_protocol="ssl").close(0)
