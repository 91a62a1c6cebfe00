"""What a cluster says of itself: the result of `KafkaProducer.fetch_broker_metadata`."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from ._rdkafka import KafkaError


@dataclass(frozen=True)
class BrokerNode:
    """A broker: its id, and where clients reach it."""

    id: int
    host: str
    port: int


@dataclass(frozen=True)
class PartitionMetadata:
    """A partition: its leader's broker id (None: it has none now), its replicas, and those of them
    that are in sync.
    """

    id: int
    leader: int | None
    replicas: tuple[int, ...]
    in_sync_replicas: tuple[int, ...]
    error: KafkaError | None = None


@dataclass(frozen=True)
class TopicMetadata:
    """A topic and its partitions by id; `error` says why they are not known."""

    name: str
    partitions: dict[int, PartitionMetadata]
    error: KafkaError | None = None


@dataclass(frozen=True)
class BrokerMetadata:
    """A cluster at one moment: brokers by id, topics by name. Source: rd_kafka_metadata()."""

    cluster_id: str | None
    controller_id: int | None
    brokers: dict[int, BrokerNode]
    topics: dict[str, TopicMetadata]


def _error(code: int) -> KafkaError | None:
    return KafkaError(code) if code else None


def from_tuples(raw: tuple[Any, ...]) -> BrokerMetadata:
    """Name what the extension returns as plain tuples."""
    cluster_id, controller, _, brokers, topics = raw
    return BrokerMetadata(
        cluster_id,
        controller,
        {broker_id: BrokerNode(broker_id, host, port) for broker_id, host, port in brokers},
        {
            name: TopicMetadata(
                name,
                {
                    number: PartitionMetadata(
                        number, None if leader < 0 else leader, replicas, in_sync, _error(err)
                    )
                    for number, leader, replicas, in_sync, err in partitions
                },
                _error(error),
            )
            for name, partitions, error in topics
        },
    )
