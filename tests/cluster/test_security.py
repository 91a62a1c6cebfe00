"""TLS and SASL, what goes wrong with them and whether the error event says so, and quotas."""

import base64
import json
import threading
import time

import pytest
from faultlib import Outcomes, wait_until
from proxy import ByteProxy

from kafka_ext import (
    ErrorCode,
    InvalidConfigError,
    OAuthBearerToken,
    PersistedStatus,
    ProducerRecord,
)
from kafka_ext.testing import CertificateAuthority

SASL = ["PLAIN", "SCRAM-SHA-256", "SCRAM-SHA-512"]


@pytest.fixture(scope="module")
def topic(single):
    single.create_topic("of-security")
    for user in ("ada", "bob", "carl", "CN=client"):
        single.allow(user, "write", "topic", "of-security")
    return "of-security"


def token(subject, seconds=3600):
    """A token that the broker believes, for nobody signs it."""
    now = time.time()
    parts = ({"alg": "none"}, {"sub": subject, "iat": now, "exp": now + seconds})
    text = (
        ".".join(
            base64.urlsafe_b64encode(json.dumps(part).encode()).rstrip(b"=").decode()
            for part in parts
        )
        + "."
    )
    return OAuthBearerToken(text, int((now + seconds) * 1000), subject)


@pytest.fixture
def delivers(connect, topic):
    def check(config, **settings):
        metadata = connect(config, **settings).sync_send(ProducerRecord(topic, b"v"), timeout=10)
        assert metadata.persisted_status == PersistedStatus.DONE

    return check


@pytest.fixture
def fails(connect, topic):
    """Send a record that cannot arrive: the message of the first error that is of this code and has
    these words.
    """

    def check(config, code, words="", **settings):
        heard = []
        producer = connect(
            config, **{"error_cb": heard.append, "message.timeout.ms": 1500} | settings
        )
        outcomes = Outcomes()
        producer.send(ProducerRecord(topic, b"v"), outcomes.expect("it"))
        wait_until(lambda: any(error == code and words in error.message for error in heard))
        outcomes.wait(1)
        outcomes.check(["it"])
        assert outcomes.errors == [ErrorCode["MSG_TIMED_OUT"]]
        assert outcomes.reports["it"][0].persisted_status == PersistedStatus.NOT
        return next(error.message for error in heard if error == code and words in error.message)

    return check


# ---------------------------------------------------------------------- TLS


def test_tls_with_verification(single, delivers):
    config = single.config(listener="TLS")
    assert config["ssl.ca.location"] == str(single.certificates.authority.certificate)
    delivers(config)


def test_fault_16_tls_unknown_authority(single, fails, tmp_path):
    other = CertificateAuthority(tmp_path)
    message = fails(
        single.config(listener="TLS", ssl_ca_location=str(other.certificate)), ErrorCode["SSL"]
    )
    assert "certificate verify failed" in message
    assert "ssl.ca.location" in message


def test_fault_16_tls_wrong_host_name(single, fails, delivers):
    """The certificate is good, but for 127.0.0.1 and localhost."""
    with ByteProxy(single.address(1, "TLS"), host="127.0.0.2") as elsewhere:
        config = single.config(
            listener="TLS", bootstrap_servers=f"127.0.0.2:{elsewhere.address[1]}"
        )
        message = fails(config, ErrorCode["SSL"])
        assert "certificate" in message
        delivers(config | {"ssl.endpoint.identification.algorithm": "none"})


def test_fault_16_tls_client_certificate_required(single, fails, delivers):
    config = single.config(listener="MUTUAL")
    delivers(config)
    without = {
        name: value
        for name, value in config.items()
        if name not in ("ssl.certificate.location", "ssl.key.location")
    }
    assert "alert" in fails(without, ErrorCode["TRANSPORT"])


def test_fault_16_tls_client_certificate_of_an_unknown_authority(single, fails, tmp_path):
    stranger = CertificateAuthority(tmp_path).issue("client")
    config = single.config(
        listener="MUTUAL",
        ssl_certificate_location=str(stranger.certificate),
        ssl_key_location=str(stranger.key),
    )
    assert "alert" in fails(config, ErrorCode["TRANSPORT"])


def test_fault_16_tls_to_a_listener_without(single, fails):
    """librdkafka does not ask where the broker hangs up between the client's first write and read;
    another try does.
    """
    config = single.config(listener="TLS", bootstrap_servers=single.servers("PLAIN"))
    fails(config, ErrorCode["TRANSPORT"], "connecting to a PLAINTEXT broker listener?")


def test_fault_16_no_tls_to_a_listener_with(single, fails):
    """The cause is known only to the broker's log; the client hears that nobody answers."""
    assert "brokers are down" in fails(
        single.config(bootstrap_servers=single.servers("TLS")), ErrorCode["ALL_BROKERS_DOWN"]
    )


def test_fault_16_tls_files_that_are_not_there_are_refused_by_the_constructor(single, connect):
    with pytest.raises(InvalidConfigError, match=r"ssl\.ca\.location"):
        connect(single.config(listener="TLS", ssl_ca_location="/does/not/exist.pem"))


# ---------------------------------------------------------------------- SASL


@pytest.mark.parametrize("mechanism", SASL)
@pytest.mark.parametrize("listener", ["SASL", "SASLTLS"])
@pytest.mark.parametrize("user", ["ada", "bob"])
def test_sasl_with_a_password(single, delivers, listener, mechanism, user):
    delivers(single.config(listener=listener, mechanism=mechanism, user=user))


@pytest.mark.parametrize("mechanism", SASL)
def test_fault_16_sasl_wrong_password(single, fails, mechanism):
    message = fails(
        single.config(listener="SASL", mechanism=mechanism, sasl_password="not it"),
        ErrorCode["AUTHENTICATION"],
    )
    assert "Authentication failed" in message


def test_fault_16_sasl_mechanism_that_librdkafka_does_not_have(single, connect):
    with pytest.raises(InvalidConfigError, match="GSSAPI"):
        connect(single.config(listener="SASL", sasl_mechanisms="GSSAPI"))


def test_sasl_oauthbearer_asks_the_callback_and_again_before_the_token_ends(
    single, delivers, connect, topic
):
    asked = threading.Semaphore(0)

    def refresh(config):
        asked.release()
        return token("carl", seconds=3)

    config = single.config(listener="SASL", mechanism="OAUTHBEARER")
    producer = connect(config, oauthbearer_token_refresh_cb=refresh)
    producer.sync_send(ProducerRecord(topic, b"v"), timeout=10)
    assert asked.acquire(timeout=1)
    assert asked.acquire(timeout=10)  # at 80 % of its life
    producer.sync_send(ProducerRecord(topic, b"v"), timeout=10)


def test_sasl_oauthbearer_under_manual_polling(single, connect, topic):
    producer = connect(
        single.config(
            listener="SASL",
            mechanism="OAUTHBEARER",
            oauthbearer_token_refresh_cb=lambda config: token("carl"),
        ),
        **{"enable.manual.events.poll": True},
    )
    assert producer.sync_send(ProducerRecord(topic, b"v"), timeout=10).offset is not None


def test_fault_16_sasl_oauthbearer_token_that_the_broker_refuses(single, fails):
    expired = OAuthBearerToken(
        token("carl", seconds=-100).value, int((time.time() + 3600) * 1000), "carl"
    )
    config = single.config(
        listener="SASL",
        mechanism="OAUTHBEARER",
        oauthbearer_token_refresh_cb=lambda config: expired,
    )
    assert "invalid_token" in fails(config, ErrorCode["AUTHENTICATION"])


def test_fault_16_sasl_oauthbearer_callback_raises(single, fails, unraisable):
    def refresh(config):
        raise ZeroDivisionError("no token today")

    config = single.config(
        listener="SASL", mechanism="OAUTHBEARER", oauthbearer_token_refresh_cb=refresh
    )
    assert "no token today" in fails(config, ErrorCode["AUTHENTICATION"])
    assert type(unraisable[0][0]) is ZeroDivisionError


# ---------------------------------------------------------------------- quotas


def test_a_quota_slows_down_and_throttle_cb_hears_of_it(single, connect, topic):
    # The broker looks at the last eleven seconds: it takes 220 kB at once before it minds.
    single.set_quota({"producer_byte_rate": 20_000}, client_id="throttled")
    throttled = []
    producer = connect(
        single.config(
            client_id="throttled",
            batch_size=20_000,
            throttle_cb=lambda *event: throttled.append(event),
        )
    )
    outcomes = Outcomes()
    for number in range(40):
        producer.send(ProducerRecord(topic, bytes(10_000)), outcomes.expect(number))
        if throttled:
            break
        time.sleep(0.05)
    producer.flush(60)
    wait_until(lambda: bool(throttled))
    assert outcomes.errors == []
    assert {(type(name), broker) for name, broker, _ in throttled} == {(str, 1)}
    assert max(seconds for *_, seconds in throttled) > 0
