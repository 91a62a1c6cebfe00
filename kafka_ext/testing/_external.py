"""A real cluster where tests expect an EmbeddedBroker."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Mapping
from types import TracebackType
from typing import Any, NoReturn

from kafka_ext._annotations import Self
from kafka_ext._rdkafka import (
    ClusterClient,
    ConsumedMessage,
    ErrorCode,
    KafkaException,
    TopicReader,
    check_topic_name,
)

from ._broker import _assert_delivered, _checked_topics, _integer, client_config
from ._faults import BrokerStateError
from ._readback import read_topic


class ExternalCluster:
    """A cluster that runs elsewhere, with EmbeddedBroker's interface: what
    `--kafka-bootstrap-servers` makes of `kafka_broker`.

    Reading back covers what was written since this object was made: topics of a real cluster
    outlive the tests. Faults cannot be injected, and the methods that would do so raise.

    Args:
        bootstrap_servers (str): where it is.
        brokers (int): how many brokers it must have at least.
        topics (Mapping[str, int] | None): topics that must be there, with at least that many
            partitions; missing ones are made, with up to three replicas. By default "orders" with
            4.
        config (Mapping[str, str] | None): more properties for all clients, for a cluster that wants
            TLS or SASL.
        timeout (float): seconds to wait for the cluster to answer.
        on_fault (Callable[[str], object] | None): called with the name of the method when a fault
            is asked for, before that raises.

    Raises:
        TypeError: an argument is of the wrong type.
        ValueError: an argument is out of range.
        BrokerStateError: the cluster has fewer brokers or partitions.
        KafkaTimeoutError: no answer in time.
        KafkaException: a topic cannot be made.
    """

    def __init__(
        self,
        bootstrap_servers: str,
        brokers: int = 1,
        topics: Mapping[str, int] | None = None,
        *,
        config: Mapping[str, str] | None = None,
        timeout: float = 30.0,
        on_fault: Callable[[str], object] | None = None,
    ) -> None:
        brokers = _integer("brokers", brokers, 1, 100)
        wanted = {"orders": 4} if topics is None else _checked_topics(topics)
        self._bootstrap_servers = bootstrap_servers
        self._config = dict(config or {})
        self._on_fault = on_fault
        self._closed = False
        with ClusterClient(bootstrap_servers, self._config) as client:
            self._brokers = client.broker_ids(timeout)
            if len(self._brokers) < brokers:
                raise BrokerStateError(
                    f"the cluster at {bootstrap_servers} has {len(self._brokers)} brokers, not"
                    f" {brokers}"
                )
            there = client.topics(timeout)
            for name, partitions in wanted.items():
                if name not in there:
                    client.create_topic(name, partitions, min(3, len(self._brokers)), timeout)
                    there[name] = partitions
                elif there[name] < partitions:
                    raise BrokerStateError(
                        f"topic {name!r} at {bootstrap_servers} has {there[name]} partitions, not"
                        f" {partitions}"
                    )
            ends = client.end_offsets(
                [(name, p) for name, count in there.items() for p in range(count)], timeout
            )
        self._start: dict[str, dict[int, int]] = {}
        for (name, partition), offset in ends.items():
            self._start.setdefault(name, {})[partition] = offset

    def close(self) -> None:
        """Nothing of the cluster's: it goes on. Idempotent."""
        self._closed = True

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        value: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self.close()

    def __repr__(self) -> str:
        return f"<ExternalCluster {self._bootstrap_servers}>"

    @property
    def closed(self) -> bool:
        """Whether `close` was called."""
        return self._closed

    @property
    def brokers(self) -> int:
        """How many brokers it has."""
        return len(self._brokers)

    @property
    def isolation(self) -> str:
        """How it is kept apart, "external"."""
        return "external"

    @property
    def bootstrap_servers(self) -> str:
        """Where clients find it, as it was given."""
        return self._bootstrap_servers

    def config(self, **overrides: Any) -> dict[str, Any]:
        """As EmbeddedBroker.config."""
        return client_config(
            {"bootstrap.servers": self._bootstrap_servers, **self._config}, overrides
        )

    def create_topic(self, name: str, partitions: int = 1, replication_factor: int = 1) -> None:
        """As EmbeddedBroker.create_topic; returns when the topic can be used. Source:
        rd_kafka_CreateTopics().
        """
        name = check_topic_name(name)
        partitions = _integer("partitions", partitions, 1, 10_000)
        replication_factor = _integer(
            "replication_factor", replication_factor, 1, len(self._brokers)
        )
        with ClusterClient(self._bootstrap_servers, self._config) as client:
            client.create_topic(name, partitions, replication_factor)
            give_up = time.monotonic() + 30
            while True:  # the controller's word reaches the other brokers a little later
                try:
                    client.partition_count(name, 30.0)
                    return
                except KafkaException as error:
                    if (
                        error.error != ErrorCode["UNKNOWN_TOPIC_OR_PART"]
                        or time.monotonic() > give_up
                    ):
                        raise
                time.sleep(0.05)

    def messages(
        self, topic: str, count: int | None = None, timeout: float | None = 10.0
    ) -> list[ConsumedMessage]:
        """As EmbeddedBroker.messages, from where the topic ended when this object was made."""
        start = self._start.get(topic)
        return read_topic(
            self._bootstrap_servers, topic, count, timeout, config=self._config, start=start
        )

    def reader(self, topic: str, *, timeout: float | None = 10.0) -> TopicReader:
        """As EmbeddedBroker.reader, from where the topic ended when this object was made."""
        return TopicReader(
            self._bootstrap_servers,
            topic,
            self._config,
            start=self._start.get(topic),
            timeout=timeout,
        )

    def assert_delivered(
        self,
        topic: str,
        values: Iterable[Any],
        *,
        exactly_once: bool = False,
        ordered: bool = False,
        timeout: float = 0.0,
    ) -> None:
        """As EmbeddedBroker.assert_delivered, of what was written since this object was made."""
        _assert_delivered(
            self, topic, values, exactly_once=exactly_once, ordered=ordered, timeout=timeout
        )

    def unused_faults(self) -> list[str]:
        """None, ever."""
        return []

    def clear_faults(self) -> None:
        """Nothing to do."""

    def _unavailable(self, call: str) -> NoReturn:
        if self._on_fault is not None:
            self._on_fault(call)
        raise BrokerStateError(
            f"{call}() needs an embedded broker, and {self._bootstrap_servers} is a real cluster"
        )

    def fail_requests(self, *args: Any, **kwargs: Any) -> NoReturn:
        """Raises BrokerStateError, like every fault."""
        self._unavailable("fail_requests")

    def round_trip_time(self, *args: Any, **kwargs: Any) -> NoReturn:
        """Raises BrokerStateError, like every fault."""
        self._unavailable("round_trip_time")

    def stop_broker(self, *args: Any, **kwargs: Any) -> NoReturn:
        """Raises BrokerStateError, like every fault."""
        self._unavailable("stop_broker")

    def start_broker(self, *args: Any, **kwargs: Any) -> NoReturn:
        """Raises BrokerStateError, like every fault."""
        self._unavailable("start_broker")

    def move_leader(self, *args: Any, **kwargs: Any) -> NoReturn:
        """Raises BrokerStateError, like every fault."""
        self._unavailable("move_leader")

    def fail_topic(self, *args: Any, **kwargs: Any) -> NoReturn:
        """Raises BrokerStateError, like every fault."""
        self._unavailable("fail_topic")

    def lose_acks(self, *args: Any, **kwargs: Any) -> NoReturn:
        """Raises BrokerStateError, like every fault."""
        self._unavailable("lose_acks")

    def kill(self) -> NoReturn:
        """Raises BrokerStateError, like every fault."""
        self._unavailable("kill")

    def pause(self) -> NoReturn:
        """Raises BrokerStateError, like every fault."""
        self._unavailable("pause")

    def resume(self) -> NoReturn:
        """Raises BrokerStateError, like every fault."""
        self._unavailable("resume")

    def restart(self) -> NoReturn:
        """Raises BrokerStateError, like every fault."""
        self._unavailable("restart")
