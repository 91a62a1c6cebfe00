"""What a running KafkaCluster can be asked and told: topics, leaders, rights, quotas."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import TypeVar

from kafka_ext._rdkafka import (
    ErrorCode,
    KafkaError,
    KafkaException,
    KafkaTimeoutError,
    check_topic_name,
)

from . import _cluster_admin as admin
from ._broker import _integer
from ._cluster_admin import PartitionState
from ._cluster_node import Node
from ._faults import BrokerStateError
from ._readback import checked_seconds

T = TypeVar("T")

# How long one request of ours may take, and how often what it says is asked for again.
REQUEST_TIMEOUT = 5.0
_PAUSE = 0.05
_NO_CONTROLLER = (
    ErrorCode["NOT_CONTROLLER"],
    ErrorCode["REQUEST_TIMED_OUT"],
    ErrorCode["BROKER_NOT_AVAILABLE"],
)


class ClusterRequests:
    """The part of KafkaCluster that talks to the brokers, by a listener of their own that asks
    nobody who he is.
    """

    _nodes: dict[int, Node]
    _ports: dict[int, dict[str, int]]
    _replication_factor: int

    def _running(self) -> None:
        """Raise unless the cluster can be used."""
        raise NotImplementedError

    @property
    def brokers(self) -> int:
        """How many brokers it has; their ids are 1 to this."""
        return len(self._nodes)

    def _broker_id(self, broker_id: object) -> int:
        if isinstance(broker_id, bool) or not hasattr(broker_id, "__index__"):
            raise TypeError(f"broker_id must be an int, not {type(broker_id).__name__}")
        number = int(broker_id.__index__())
        if number not in self._nodes:
            brokers = "is broker 1" if self.brokers == 1 else f"are the brokers 1 to {self.brokers}"
            raise ValueError(f"broker_id: there {brokers}, and no {number}")
        return number

    def _wait(self, condition: Callable[[], bool], timeout: float | None, what: str) -> None:
        """Until `condition` holds; brokers that do not answer, or not yet as they should, are asked
        again.
        """
        deadline = time.monotonic() + (checked_seconds("timeout", timeout) or 0.0)
        while True:
            problem = ""
            try:
                if condition():
                    return
            except admin.Refused as refused:
                problem = f": {refused.error.message}"
            except OSError as error:
                problem = f": {error}"
            if time.monotonic() >= deadline:
                raise KafkaTimeoutError(
                    KafkaError(
                        ErrorCode["TIMED_OUT"], f"waited {timeout:g} s for {what}, in vain{problem}"
                    )
                )
            time.sleep(_PAUSE)

    def _tell(self, request: Callable[[int], T], timeout: float = 30.0) -> T:
        """Have `request` made with the port of a running broker, the next one's when it does not
        answer.

        Raises:
            KafkaException: the answer is an error.
            BrokerStateError: no broker runs.
            KafkaTimeoutError: no broker answers in time.
        """
        self._running()
        deadline = time.monotonic() + timeout
        while True:
            running = [number for number, node in self._nodes.items() if node.state == "running"]
            if not running:
                raise BrokerStateError("no broker of the cluster runs")
            for number in running:
                answer, error = self._try(request, number)
                if error is None:
                    return answer  # type: ignore[return-value]  # there is one where there is no error
            if time.monotonic() >= deadline:
                raise KafkaTimeoutError(
                    KafkaError(ErrorCode["TIMED_OUT"], f"no broker answers: {error}")
                )
            time.sleep(_PAUSE)

    def _try(self, request: Callable[[int], T], number: int) -> tuple[T | None, Exception | None]:
        """The answer of this broker, or why another one is worth asking."""
        try:
            return request(self._ports[number]["INTERNAL"]), None
        except OSError as error:
            return None, error
        except admin.Refused as refused:
            # There is no controller for the moment, or it is not the one that the broker believes
            # in.
            if refused.error.code not in _NO_CONTROLLER:
                raise KafkaException(refused.error) from None
            return None, refused

    def create_topic(
        self,
        name: str,
        partitions: int = 1,
        replication_factor: int | None = None,
        config: Mapping[str, str] | None = None,
        *,
        replicas: Mapping[int, Sequence[int]] | None = None,
        timeout: float = 30.0,
    ) -> None:
        """Make a topic; returns when all running brokers know it, and its partitions have leaders.

        Args:
            name (str): its name.
            partitions (int): how many.
            replication_factor (int | None): how many replicas of each; by default the cluster's.
            config (Mapping[str, str] | None): its settings: {"min.insync.replicas": "1"}, …
            replicas (Mapping[int, Sequence[int]] | None): which brokers have each partition, the
                preferred leader first, in place of `partitions` and `replication_factor`.
            timeout (float): seconds to wait.

        Raises:
            TypeError: an argument is of the wrong type.
            ValueError: the name breaks Kafka's rule, or a number is out of range.
            KafkaException: it exists already (TOPIC_ALREADY_EXISTS), a setting is refused
                (INVALID_CONFIG)…
            BrokerStateError: no broker runs.
            KafkaTimeoutError: not done in time.
        """
        name = check_topic_name(name)
        partitions = len(replicas) if replicas else _integer("partitions", partitions, 1, 10_000)
        factor = self._replication_factor
        if replication_factor is not None:
            factor = _integer("replication_factor", replication_factor, 1, self.brokers)
        self._tell(
            lambda port: admin.create_topic(
                port, name, partitions, factor, config or {}, replicas or {}, REQUEST_TIMEOUT
            ),
            timeout,
        )

        def there() -> bool:
            for number, node in self._nodes.items():
                if node.state == "running":
                    found = admin.describe(
                        self._ports[number]["INTERNAL"], [name], REQUEST_TIMEOUT
                    ).topics.get(name, {})
                    if len(found) < partitions or any(
                        partition.leader is None for partition in found.values()
                    ):
                        return False
            return True

        self._wait(there, timeout, f"the topic {name!r}")

    def create_topics(
        self,
        names: Iterable[str],
        partitions: int = 1,
        replication_factor: int | None = None,
        config: Mapping[str, str] | None = None,
    ) -> None:
        """Make several topics that are alike, as `create_topic`."""
        for name in names:
            self.create_topic(name, partitions, replication_factor, config)

    def delete_topic(self, name: str) -> None:
        """Delete a topic, with all that is in it.

        Raises:
            KafkaException: there is none (UNKNOWN_TOPIC_OR_PART).
        """
        name = check_topic_name(name)
        self._tell(lambda port: admin.delete_topic(port, name, REQUEST_TIMEOUT))

    def set_topic_config(self, name: str, config: Mapping[str, str | None]) -> None:
        """Change a topic's settings, None taking one back to the brokers' own.

        Raises:
            KafkaException: there is no such topic (UNKNOWN_TOPIC_OR_PART), or no such setting
                (INVALID_CONFIG).
        """
        self._tell(lambda port: admin.set_topic_config(port, name, config, REQUEST_TIMEOUT))

    def partitions(self, topic: str) -> dict[int, PartitionState]:
        """How a topic's partitions stand: leader, replicas, those in sync; as a running broker
        knows it.

        Raises:
            KafkaException: there is no such topic (UNKNOWN_TOPIC_OR_PART).
        """
        topic = check_topic_name(topic)
        found = self._tell(lambda port: admin.describe(port, [topic], REQUEST_TIMEOUT)).topics.get(
            topic
        )
        if found is None:
            raise KafkaException(
                KafkaError(ErrorCode["UNKNOWN_TOPIC_OR_PART"], f"there is no topic {topic!r}")
            )
        return dict(sorted(found.items()))

    def leader(self, topic: str, partition: int = 0) -> int | None:
        """The broker that leads a partition, or None while there is none.

        Raises:
            KafkaException: there is no such topic (UNKNOWN_TOPIC_OR_PART) or partition
                (UNKNOWN_PARTITION).
        """
        found = self.partitions(topic)
        if partition not in found:
            raise KafkaException(
                KafkaError(
                    ErrorCode["UNKNOWN_PARTITION"],
                    f"topic {topic!r} has the partitions 0 to {len(found) - 1}",
                )
            )
        return found[partition].leader

    def controller(self) -> int | None:
        """The broker that leads the controllers' quorum, or None while there is none."""
        return self._tell(lambda port: admin.controller(port, REQUEST_TIMEOUT))

    def move_leader(
        self, topic: str, partition: int, broker_id: int, *, timeout: float = 30.0
    ) -> None:
        """Have a partition led by this broker, one of its replicas; returns when it is.

        Raises:
            ValueError: the broker has no replica of the partition.
            KafkaException: there is no such topic or partition, or the broker is not in sync
                (PREFERRED_LEADER_NOT_AVAILABLE).
            KafkaTimeoutError: not done in time.
        """
        number = self._broker_id(broker_id)
        if self.leader(topic, partition) == number:
            return
        replicas = self.partitions(topic)[partition].replicas
        if number not in replicas:
            raise ValueError(
                f"broker_id: {topic}-{partition} is on the brokers {', '.join(map(str, replicas))},"
                f" not on {number}"
            )
        # Kafka elects the preferred leader, which is the first replica.
        order = [number, *(broker for broker in replicas if broker != number)]
        self._tell(
            lambda port: admin.reassign(port, topic, partition, order, REQUEST_TIMEOUT), timeout
        )
        self._tell(
            lambda port: admin.elect_preferred(port, topic, partition, REQUEST_TIMEOUT), timeout
        )
        self._wait(
            lambda: self.leader(topic, partition) == number,
            timeout,
            f"broker {number} to lead {topic}-{partition}",
        )

    def wait_in_sync(self, topic: str, *, timeout: float = 60.0) -> None:
        """Wait until every replica of a topic is in sync again, as after a broker has come back.

        Raises:
            KafkaTimeoutError: not in time.
        """
        self._wait(
            lambda: all(len(p.in_sync) == len(p.replicas) for p in self.partitions(topic).values()),
            timeout,
            f"all replicas of {topic!r} in sync",
        )

    def allow(
        self, user: str, operation: str, resource: str, name: str, *, deny: bool = False
    ) -> None:
        """Let a user do something, of a cluster with `acls`: `allow("ada", "write", "topic",
        "orders")`.

        Args:
            user (str): who: one of `users`, an OAUTHBEARER token's subject, or a certificate's
                distinguished name ("CN=client").
            operation (str): "all", "read", "write", "create", "delete", "alter", "describe",
                "cluster_action", "describe_configs", "alter_configs" or "idempotent_write". Who may
                write may also describe.
            resource (str): "topic", "group", "cluster" (whose name is "kafka-cluster") or
                "transactional_id".
            name (str): the name of that, or "*" for all.
            deny (bool): forbid it, which goes before what is allowed.

        Raises:
            ValueError: there is no such operation or resource.
            KafkaException: the cluster has no ACLs (SECURITY_DISABLED).

        Brokers learn of it within milliseconds, not necessarily before this returns.
        """
        if operation not in admin.OPERATIONS:
            raise ValueError(
                f"operation must be one of {', '.join(admin.OPERATIONS)}, not {operation!r}"
            )
        if resource not in admin.RESOURCES:
            raise ValueError(
                f"resource must be one of {', '.join(admin.RESOURCES)}, not {resource!r}"
            )
        self._tell(
            lambda port: admin.create_acl(
                port, f"User:{user}", operation, resource, name, not deny, REQUEST_TIMEOUT
            )
        )

    def set_quota(
        self,
        quotas: Mapping[str, float | None],
        *,
        user: str | None = None,
        client_id: str | None = None,
    ) -> None:
        """Limit what clients may do: `set_quota({"producer_byte_rate": 100_000})`.

        Args:
            quotas (Mapping[str, float | None]): "producer_byte_rate", "consumer_byte_rate",
                "request_percentage", "controller_mutation_rate"; None takes one back.
            user (str | None): whom, and
            client_id (str | None): which of their clients; neither means all clients.

        Raises:
            KafkaException: there is no such quota (INVALID_REQUEST).
        """
        entity: dict[str, str | None] = {}
        if user is not None:
            entity["user"] = user
        if client_id is not None or user is None:
            entity["client-id"] = client_id
        self._tell(lambda port: admin.set_quota(port, entity, quotas, REQUEST_TIMEOUT))
