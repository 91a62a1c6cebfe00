"""A Kafka broker for tests, inside the process: no containers, no ports to choose, milliseconds to
start.

    from kafka_ext import KafkaProducer, ProducerRecord
    from kafka_ext.testing import EmbeddedBroker

    with EmbeddedBroker(topics={"orders": 4}) as broker:
        with KafkaProducer(broker.config()) as producer:
            producer.send(ProducerRecord("orders", b"a value"))
        broker.assert_delivered("orders", [b"a value"], exactly_once=True)

With pytest nothing needs to be set up: installing kafka-ext registers the fixtures `kafka_broker`,
`kafka_broker_session` and `kafka_producer`, see `kafka_ext.testing.plugin`.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from kafka_ext._rdkafka import ConsumedMessage, RetentionLost, TopicReader

    from ._broker import EmbeddedBroker
    from ._cluster_admin import PartitionState
    from ._cluster_security import Certificate, CertificateAuthority, Certificates, Listener
    from ._external import ExternalCluster
    from ._faults import ApiKey, BrokerStateError
    from ._kafka_cluster import KafkaCluster
    from .cluster_artifacts import KafkaInstallError

__all__ = [
    "ApiKey",
    "BrokerStateError",
    "Certificate",
    "CertificateAuthority",
    "Certificates",
    "ConsumedMessage",
    "EmbeddedBroker",
    "ExternalCluster",
    "KafkaCluster",
    "KafkaInstallError",
    "Listener",
    "PartitionState",
    "RetentionLost",
    "TopicReader",
]

# pytest imports this package, for the plugin in it, in every run of an environment that has
# kafka-ext; the extension is loaded when something of it is used.
_WHERE = {
    "ApiKey": "kafka_ext.testing._faults",
    "BrokerStateError": "kafka_ext.testing._faults",
    "Certificate": "kafka_ext.testing._cluster_security",
    "CertificateAuthority": "kafka_ext.testing._cluster_security",
    "Certificates": "kafka_ext.testing._cluster_security",
    "ConsumedMessage": "kafka_ext._rdkafka",
    "EmbeddedBroker": "kafka_ext.testing._broker",
    "ExternalCluster": "kafka_ext.testing._external",
    "KafkaCluster": "kafka_ext.testing._kafka_cluster",
    "KafkaInstallError": "kafka_ext.testing.cluster_artifacts",
    "Listener": "kafka_ext.testing._cluster_security",
    "PartitionState": "kafka_ext.testing._cluster_admin",
    "RetentionLost": "kafka_ext._rdkafka",
    "TopicReader": "kafka_ext._rdkafka",
}


def __getattr__(name: str) -> Any:
    if name not in _WHERE:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    from importlib import import_module

    value = globals()[name] = getattr(import_module(_WHERE[name]), name)
    return value


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
