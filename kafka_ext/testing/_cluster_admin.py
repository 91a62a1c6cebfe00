"""What a test cluster is asked and told: topics, leaders, rights and quotas. Each function is one
request to one broker.
"""

from __future__ import annotations

import uuid
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

from kafka_ext._rdkafka import ErrorCode, KafkaError

from ._cluster_wire import array, ask, boolean, float64, int8, int16, int32, int64, struct_, text

_METADATA, _CREATE_TOPICS, _DELETE_TOPICS, _INIT_PRODUCER_ID, _CREATE_ACLS, _ELECT_LEADERS = (
    3,
    19,
    20,
    22,
    30,
    43,
)
(
    _INCREMENTAL_ALTER_CONFIGS,
    _ALTER_PARTITION_REASSIGNMENTS,
    _ALTER_CLIENT_QUOTAS,
    _DESCRIBE_QUORUM,
) = 44, 45, 49, 55

_TOPIC = 2  # ConfigResource.Type, and ResourceType too
_LITERAL = 3  # PatternType
_SET, _DELETE = 0, 1  # AlterConfigOp.OpType
_PREFERRED = 0  # ElectionType
RESOURCES = {"topic": 2, "group": 3, "cluster": 4, "transactional_id": 5}  # ResourceType
OPERATIONS = {  # AclOperation
    "all": 2,
    "read": 3,
    "write": 4,
    "create": 5,
    "delete": 6,
    "alter": 7,
    "describe": 8,
    "cluster_action": 9,
    "describe_configs": 10,
    "alter_configs": 11,
    "idempotent_write": 12,
}
_DENY, _ALLOW = 2, 3  # AclPermissionType
_NO_ERROR = 0


@dataclass(frozen=True)
class PartitionState:
    """How a partition of a KafkaCluster stands, as one broker knows it.

    Attributes:
        leader: the id of the broker that leads it, or None while there is none.
        replicas: the ids of the brokers that have it, the preferred leader first.
        in_sync: those of them that are in sync, the leader among them.
        leader_epoch: goes up with each new leader.
    """

    leader: int | None
    replicas: tuple[int, ...]
    in_sync: tuple[int, ...]
    leader_epoch: int


@dataclass(frozen=True)
class ClusterState:
    """What a broker knows: the brokers that live, and the topics that were asked for."""

    brokers: frozenset[int]
    topics: Mapping[str, Mapping[int, PartitionState]]


class Refused(Exception):  # noqa: N818 - becomes the exception of the error
    """A broker answered, and with an error."""

    def __init__(self, code: int, what: str, reason: str | None) -> None:
        self.error = KafkaError(code, f"{what}: {reason or KafkaError(code).message}")
        super().__init__(self.error)


def _check(code: int, what: str, reason: str | None = None) -> None:
    if code != _NO_ERROR:
        raise Refused(code, what, reason)


def describe(port: int, topics: Iterable[str] | None, timeout: float) -> ClusterState:
    """The living brokers, and the topics of these names (those that exist) or all (None). Source:
    MetadataRequest.
    """
    wanted = None if topics is None else [struct_(bytes(16), text(name)) for name in topics]
    partition = ("h", "i", "i", "i", ["i"], ["i"], ["i"])
    layout = ("i", [("i", "s", "i", "s")], "s", "i", [("h", "s", "u", "b", [partition], "i")])
    body = struct_(array(wanted), boolean(False), boolean(False))
    _, brokers, _, _, found = ask(port, _METADATA, 12, body, layout, timeout)
    return ClusterState(
        frozenset(broker for broker, *_ in brokers),
        {
            name: {
                index: PartitionState(
                    leader if leader >= 0 else None, tuple(replicas), tuple(in_sync), epoch
                )
                for _, index, leader, epoch, replicas, in_sync, _ in partitions
            }
            for code, name, _, _, partitions, _ in found
            if code == _NO_ERROR
        },
    )


def controller(port: int, timeout: float) -> int | None:
    """The broker that leads the controllers' quorum, or None while there is none. Source:
    DescribeQuorumRequest.
    """
    body = struct_(array([struct_(text("__cluster_metadata"), array([struct_(int32(0))]))]))
    replicas = [("i", "q")]
    code, topics = ask(
        port,
        _DESCRIBE_QUORUM,
        0,
        body,
        ("h", [("s", [("i", "h", "i", "i", "q", replicas, replicas)])]),
        timeout,
    )
    if code != _NO_ERROR:
        return None
    ((_, ((_, code, leader, *_),)),) = topics
    return int(leader) if code == _NO_ERROR and leader >= 0 else None


def init_producer_id(port: int, timeout: float) -> None:
    """Have the broker give a producer id, which it can only once the controller has given it some.
    Source: InitProducerIdRequest.
    """
    body = struct_(text(None), int32(0), int64(-1), int16(-1))
    _, code, *_ = ask(port, _INIT_PRODUCER_ID, 4, body, ("i", "h", "q", "h"), timeout)
    _check(code, "giving out a producer id")


def create_topic(
    port: int,
    name: str,
    partitions: int,
    replicas: int,
    config: Mapping[str, str],
    assignment: Mapping[int, Sequence[int]],
    timeout: float,
) -> None:
    """Make a topic, with the replicas of `assignment` if there are some. Source:
    CreateTopicsRequest.
    """
    topic = struct_(
        text(name),
        int32(-1 if assignment else partitions),
        int16(-1 if assignment else replicas),
        array(
            struct_(int32(index), array(int32(broker) for broker in brokers))
            for index, brokers in assignment.items()
        ),
        array(struct_(text(key), text(value)) for key, value in config.items()),
    )
    layout = ("i", [("s", "u", "h", "s", "i", "h", [("s", "s", "b", "b", "b")])])
    _, results = ask(
        port,
        _CREATE_TOPICS,
        7,
        struct_(array([topic]), _milliseconds(timeout), boolean(False)),
        layout,
        timeout,
    )
    for _, _, code, reason, *_ in results:
        _check(code, f"making topic {name!r}", reason)


def delete_topic(port: int, name: str, timeout: float) -> None:
    """Source: DeleteTopicsRequest."""
    body = struct_(array([struct_(text(name), bytes(16))]), _milliseconds(timeout))
    _, results = ask(port, _DELETE_TOPICS, 6, body, ("i", [("s", "u", "h", "s")]), timeout)
    for _, _, code, reason in results:
        _check(code, f"deleting topic {name!r}", reason)


def set_topic_config(
    port: int, name: str, config: Mapping[str, str | None], timeout: float
) -> None:
    """Set a topic's settings; None takes one back. Source: IncrementalAlterConfigsRequest."""
    changes = array(
        struct_(text(key), int8(_DELETE if value is None else _SET), text(value))
        for key, value in config.items()
    )
    body = struct_(array([struct_(int8(_TOPIC), text(name), changes)]), boolean(False))
    _, results = ask(
        port, _INCREMENTAL_ALTER_CONFIGS, 1, body, ("i", [("h", "s", "b", "s")]), timeout
    )
    for code, reason, *_ in results:
        _check(code, f"configuring topic {name!r}", reason)


def reassign(
    port: int, topic: str, partition: int, replicas: Sequence[int], timeout: float
) -> None:
    """Give a partition these replicas, in this order. Source:
    AlterPartitionReassignmentsRequest.
    """
    of_partition = struct_(int32(partition), array(int32(broker) for broker in replicas))
    body = struct_(_milliseconds(timeout), array([struct_(text(topic), array([of_partition]))]))
    layout = ("i", "h", "s", [("s", [("i", "h", "s")])])
    _, code, reason, results = ask(port, _ALTER_PARTITION_REASSIGNMENTS, 0, body, layout, timeout)
    what = f"reassigning {topic}-{partition}"
    _check(code, what, reason)
    for _, of_topic in results:
        for _, code, reason in of_topic:
            _check(code, what, reason)


def elect_preferred(port: int, topic: str, partition: int, timeout: float) -> None:
    """Make the first replica the leader, if it can be. Source: ElectLeadersRequest."""
    body = struct_(
        int8(_PREFERRED),
        array([struct_(text(topic), array([int32(partition)]))]),
        _milliseconds(timeout),
    )
    _, code, results = ask(
        port, _ELECT_LEADERS, 2, body, ("i", "h", [("s", [("i", "h", "s")])]), timeout
    )
    what = f"electing the leader of {topic}-{partition}"
    _check(code, what)
    for _, of_topic in results:
        for _, code, reason in of_topic:
            if code != ErrorCode["ELECTION_NOT_NEEDED"]:  # it is what it should be
                _check(code, what, reason)


def create_acl(
    port: int, principal: str, operation: str, resource: str, name: str, allow: bool, timeout: float
) -> None:
    """Source: CreateAclsRequest."""
    acl = struct_(
        int8(RESOURCES[resource]),
        text(name),
        int8(_LITERAL),
        text(principal),
        text("*"),
        int8(OPERATIONS[operation]),
        int8(_ALLOW if allow else _DENY),
    )
    _, results = ask(port, _CREATE_ACLS, 3, struct_(array([acl])), ("i", [("h", "s")]), timeout)
    for code, reason in results:
        _check(code, f"giving {principal} rights on {resource} {name!r}", reason)


def set_quota(
    port: int, entity: Mapping[str, str | None], quotas: Mapping[str, float | None], timeout: float
) -> None:
    """Set the quotas of an entity, None in place of a name meaning all without their own; None as a
    quota takes it back.

    Source: AlterClientQuotasRequest.
    """
    of = array(struct_(text(kind), text(name)) for kind, name in entity.items())
    changes = array(
        struct_(text(key), float64(value or 0.0), boolean(value is None))
        for key, value in quotas.items()
    )
    body = struct_(array([struct_(of, changes)]), boolean(False))
    _, results = ask(
        port, _ALTER_CLIENT_QUOTAS, 1, body, ("i", [("h", "s", [("s", "s")])]), timeout
    )
    for code, reason, _ in results:
        _check(code, f"setting a quota of {dict(entity)}", reason)


def _milliseconds(seconds: float) -> bytes:
    return int32(int(seconds * 1000))


def new_cluster_id() -> str:
    """A cluster id as Kafka makes it: a UUID in URL-safe base 64."""
    from base64 import urlsafe_b64encode

    while True:
        made = urlsafe_b64encode(uuid.uuid4().bytes).rstrip(b"=").decode()
        if not made.startswith("-"):  # which a command line would take for an option
            return made
