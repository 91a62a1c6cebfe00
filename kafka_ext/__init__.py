"""The fastest and safest way for a Python program to write to Kafka: librdkafka, directly, without
copies.

    from kafka_ext import KafkaProducer, ProducerRecord

    with KafkaProducer(bootstrap_servers="localhost:9092") as producer:
        producer.send(ProducerRecord("orders", b"a value", key=b"a key"))

Every name below is public. `kafka_ext.testing` has a broker for tests inside the process,
`kafka-ext` is the command line.
"""

import os as _os
from typing import TYPE_CHECKING
from typing import Any as _Any

if TYPE_CHECKING:
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
    from .aio import AsyncKafkaProducer
    from .interceptors import ProducerInterceptor
    from .metadata import BrokerMetadata, BrokerNode, PartitionMetadata, TopicMetadata
    from .metrics import ProducerMetrics
    from .producer import KafkaProducer
    from .properties import Properties
    from .serialization import Serializer
    from .sink import DeliveryError, KafkaSink
    from .tokens import OAuthBearerToken
    from .transactions import ConsumerGroupMetadata, TopicPartition

__version__ = "0.1.0"

__all__ = [
    "ActionWhileQueueIsFull",
    "AsyncKafkaProducer",
    "BatchDelivery",
    "BrokerMetadata",
    "BrokerNode",
    "ConsumerGroupMetadata",
    "DeliveryError",
    "ErrorCode",
    "InvalidConfigError",
    "InvalidRecordError",
    "KafkaError",
    "KafkaException",
    "KafkaProducer",
    "KafkaSink",
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
    "Serializer",
    "TimestampType",
    "TopicMetadata",
    "TopicPartition",
    "__version__",
    "get_include",
]


# Each name is loaded at its first use. pytest imports this package in every environment that has
# its plugin, and a run that sends nothing should not pay for librdkafka, nor a program without an
# event loop for asyncio.
_WHERE = {
    "ActionWhileQueueIsFull": "._rdkafka",
    "BatchDelivery": "._rdkafka",
    "ErrorCode": "._rdkafka",
    "InvalidConfigError": "._rdkafka",
    "InvalidRecordError": "._rdkafka",
    "KafkaError": "._rdkafka",
    "KafkaException": "._rdkafka",
    "KafkaTimeoutError": "._rdkafka",
    "PersistedStatus": "._rdkafka",
    "ProducerClosedError": "._rdkafka",
    "ProducerForkedError": "._rdkafka",
    "ProducerRecord": "._rdkafka",
    "QueueFullError": "._rdkafka",
    "RecordMetadata": "._rdkafka",
    "SendOption": "._rdkafka",
    "TimestampType": "._rdkafka",
    "AsyncKafkaProducer": ".aio",
    "ProducerInterceptor": ".interceptors",
    "BrokerMetadata": ".metadata",
    "BrokerNode": ".metadata",
    "PartitionMetadata": ".metadata",
    "TopicMetadata": ".metadata",
    "ProducerMetrics": ".metrics",
    "KafkaProducer": ".producer",
    "Properties": ".properties",
    "Serializer": ".serialization",
    "DeliveryError": ".sink",
    "KafkaSink": ".sink",
    "OAuthBearerToken": ".tokens",
    "ConsumerGroupMetadata": ".transactions",
    "TopicPartition": ".transactions",
}


def __getattr__(name: str) -> _Any:
    if name not in _WHERE:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    from importlib import import_module

    try:
        module = import_module(_WHERE[name], __name__)
    except ModuleNotFoundError as error:
        if error.name != f"{__name__}._rdkafka":
            raise
        raise ImportError(
            f"kafka_ext was imported from {_os.path.dirname(__file__)}, where its extension is not built. "
            "If that is a checkout, run Python in another folder, or `make build` there.",
            name=error.name,
        ) from None
    value = globals()[name] = getattr(module, name)
    return value


def __dir__() -> list[str]:
    """What is for users. Helpers, and modules that happen to be loaded, are not."""
    return sorted(__all__)


def get_include() -> str:
    """The folder with this package's `.pxd` and C headers, for extensions that cimport them."""
    here = _os.path.dirname(__file__)
    installed = _os.path.join(here, "include")
    return (
        installed if _os.path.isdir(installed) else _os.path.join(_os.path.dirname(here), "include")
    )
