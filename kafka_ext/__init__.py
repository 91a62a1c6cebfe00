"""The fastest and safest way for a Python program to write to Kafka: librdkafka, directly, without copies.

    from kafka_ext import KafkaProducer, ProducerRecord

    with KafkaProducer(bootstrap_servers="localhost:9092") as producer:
        producer.send(ProducerRecord("orders", b"a value", key=b"a key"))

Every name below is public. `kafka_ext.testing` has a broker for tests inside the process, `kafka-ext` is the command line.
"""

import os as _os

from ._rdkafka import (
    ActionWhileQueueIsFull,
    BatchDelivery,
    ErrorCode,
    InvalidConfigError,
    InvalidRecordError,
    KafkaError,
    KafkaException,
    KafkaTimeoutError,
    PersistedStatus,
    ProducerClosedError,
    ProducerForkedError,
    ProducerRecord,
    QueueFullError,
    RecordMetadata,
    SendOption,
    TimestampType,
)
from .interceptors import ProducerInterceptor
from .metadata import BrokerMetadata, BrokerNode, PartitionMetadata, TopicMetadata
from .metrics import ProducerMetrics
from .producer import KafkaProducer
from .properties import OAuthBearerToken, Properties
from .transactions import ConsumerGroupMetadata, TopicPartition

__version__ = "0.1.0"

__all__ = [
    "ActionWhileQueueIsFull",
    "BatchDelivery",
    "BrokerMetadata",
    "BrokerNode",
    "ConsumerGroupMetadata",
    "ErrorCode",
    "InvalidConfigError",
    "InvalidRecordError",
    "KafkaError",
    "KafkaException",
    "KafkaProducer",
    "KafkaTimeoutError",
    "OAuthBearerToken",
    "PartitionMetadata",
    "PersistedStatus",
    "ProducerClosedError",
    "ProducerForkedError",
    "ProducerInterceptor",
    "ProducerMetrics",
    "ProducerRecord",
    "Properties",
    "QueueFullError",
    "RecordMetadata",
    "SendOption",
    "TimestampType",
    "TopicMetadata",
    "TopicPartition",
    "__version__",
    "get_include",
]


def get_include() -> str:
    """The folder with this package's `.pxd` and C headers, for extensions that cimport them."""
    here = _os.path.dirname(__file__)
    installed = _os.path.join(here, "include")
    return installed if _os.path.isdir(installed) else _os.path.join(_os.path.dirname(here), "include")
