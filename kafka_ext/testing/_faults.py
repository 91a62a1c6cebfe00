"""What can be named when faults are injected, and what is raised when a broker cannot do what it is
told.
"""

from __future__ import annotations

from enum import IntEnum

from kafka_ext._rdkafka import ErrorCode, KafkaError, KafkaException


class ApiKey(IntEnum):
    """The requests of the Kafka protocol that an embedded broker answers. Source:
    rdkafka_mock_handlers.c.
    """

    PRODUCE = 0
    FETCH = 1
    LIST_OFFSETS = 2
    METADATA = 3
    OFFSET_COMMIT = 8
    OFFSET_FETCH = 9
    FIND_COORDINATOR = 10
    JOIN_GROUP = 11
    HEARTBEAT = 12
    LEAVE_GROUP = 13
    SYNC_GROUP = 14
    API_VERSIONS = 18
    INIT_PRODUCER_ID = 22
    OFFSET_FOR_LEADER_EPOCH = 23
    ADD_PARTITIONS_TO_TXN = 24
    ADD_OFFSETS_TO_TXN = 25
    END_TXN = 26
    TXN_OFFSET_COMMIT = 28
    CONSUMER_GROUP_HEARTBEAT = 68
    GET_TELEMETRY_SUBSCRIPTIONS = 71


class BrokerStateError(KafkaException, RuntimeError):
    """A broker cannot do this as it is: closed, killed, paused, or not in a process of its own."""

    __module__ = "kafka_ext.testing"

    def __init__(self, error: KafkaError | str) -> None:
        super().__init__(
            error if isinstance(error, KafkaError) else KafkaError(ErrorCode["STATE"], error)
        )
