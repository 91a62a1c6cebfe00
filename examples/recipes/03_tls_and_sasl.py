"""Why does the TLS handshake fail, and what must I set for TLS and SASL?

    python examples/recipes/03_tls_and_sasl.py

Its brokers speak TLS by a listener (tls_listener.py) in front of an embedded broker, with
certificates made by trustme (pip install 'kafka-ext[testing]').
"""

from __future__ import annotations

import tempfile
from pathlib import Path
from typing import Any

from tls_listener import TlsListener

from kafka_ext import ErrorCode, KafkaError, KafkaException, KafkaProducer, ProducerRecord
from kafka_ext.testing import CertificateAuthority, EmbeddedBroker


def tls(bootstrap_servers: str, authority: Path | None = None) -> dict[str, Any]:
    """TLS, without a password."""
    config: dict[str, Any] = {"bootstrap.servers": bootstrap_servers, "security.protocol": "ssl"}
    # Whom to believe that a broker is who it says. Without it, those whom this machine
    # believes (ca-certificates); of a company's own authority nobody's machine knows.
    if authority is not None:
        config["ssl.ca.location"] = str(authority)
    return config


def sasl(bootstrap_servers: str, user: str, password: str) -> dict[str, Any]:
    """TLS, and a password: what most hosted clusters want."""
    return {
        "bootstrap.servers": bootstrap_servers,
        "security.protocol": "sasl_ssl",
        # PLAIN for most hosted clusters, SCRAM-SHA-256 and OAUTHBEARER for others
        "sasl.mechanism": "SCRAM-SHA-512",
        "sasl.username": user,
        "sasl.password": password,
    }


def why_not(config: dict[str, Any]) -> str | None:
    """What keeps a producer with these settings from the cluster; None when nothing does."""
    met: list[KafkaError] = []
    with KafkaProducer(config | {"error_cb": met.append}) as producer:
        try:
            producer.fetch_broker_metadata(timeout=1.0)
        except KafkaException as exc:
            # The first says why; ALL_BROKERS_DOWN is what follows from it.
            why = next((error for error in met if error != ErrorCode.ALL_BROKERS_DOWN), exc.error)
            return f"{why.name}: {why.message}"
    return None


def main(folder: Path) -> None:
    authority = CertificateAuthority(folder)
    right = authority.issue("right", ["127.0.0.1"])
    wrong = authority.issue("wrong", ["kafka.example"])
    with (
        EmbeddedBroker() as broker,
        TlsListener(broker, right) as listener,
        TlsListener(broker, wrong) as misnamed,
    ):
        with KafkaProducer(tls(listener.bootstrap_servers, authority.certificate)) as producer:
            metadata = producer.sync_send(ProducerRecord("orders", b"by TLS"), timeout=30)
        print("delivered to partition", metadata.partition)
        broker.assert_delivered("orders", [b"by TLS"], exactly_once=True)

        # Nobody said who to believe.
        unknown = why_not(tls(listener.bootstrap_servers))
        assert unknown is not None
        print(unknown)
        assert "certificate verify failed" in unknown

        # The certificate is for another name than the one in bootstrap.servers (or in
        # advertised.listeners).
        name = why_not(tls(misnamed.bootstrap_servers, authority.certificate))
        assert name is not None
        print(name)
        assert "certificate verify failed" in name

        # Passwords are in no printed configuration.
        config = sasl(listener.bootstrap_servers, "ada", "a secret")
        with KafkaProducer(config, log_cb=lambda *line: None) as producer:
            assert "a secret" not in repr(producer.properties)


if __name__ == "__main__":
    with tempfile.TemporaryDirectory() as folder:
        main(Path(folder))
