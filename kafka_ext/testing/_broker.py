"""EmbeddedBroker: a Kafka-protocol cluster for tests, inside this process or in one of its own."""

from __future__ import annotations

import os
import warnings
from collections.abc import Iterable, Mapping
from types import TracebackType
from typing import Any, Literal, SupportsIndex

from kafka_ext._annotations import Self
from kafka_ext._rdkafka import (
    ConsumedMessage,
    ErrorCode,
    KafkaError,
    KafkaException,
    TopicReader,
    check_topic_name,
)
from kafka_ext.properties import Properties

from . import _wire
from ._cluster import Cluster
from ._faults import ApiKey, BrokerStateError
from ._process import ProcessCluster
from ._readback import checked_seconds, difference, read_topic

_MAX_BROKERS = 100
_MAX_PARTITIONS = 10_000
_MAX_DELAY = 3600.0
_TRANSPORT = int(ErrorCode["TRANSPORT"])
# A system's librdkafka 2.15 gives the batches that end transactions no checksum (wheels/patches/
# mends the bundled one).
_READING = {"check.crcs": "false"}


def _integer(name: str, value: object, lowest: int, highest: int) -> int:
    if isinstance(value, bool) or not hasattr(value, "__index__"):
        raise TypeError(f"{name} must be an int, not {type(value).__name__}")
    number = int(value.__index__())
    if not lowest <= number <= highest:
        raise ValueError(f"{name} must be from {lowest} to {highest}, not {number}")
    return number


def _flag(name: str, value: object) -> bool:
    if not isinstance(value, bool):
        raise TypeError(f"{name} must be a bool, not {type(value).__name__}")
    return value


def _code(name: str, error: object) -> int:
    """An error as the code that goes over the wire."""
    if isinstance(error, KafkaError):
        error = error.code
    if isinstance(error, bool) or not isinstance(error, int):
        raise TypeError(
            f"{name} must be an ErrorCode, an int or a KafkaError, not {type(error).__name__}"
        )
    return int(error)


def _checked_topics(topics: object) -> dict[str, int]:
    if not isinstance(topics, Mapping):
        raise TypeError(
            "topics must be a mapping of names to numbers of partitions, not"
            f" {type(topics).__name__}"
        )
    checked = {}
    for name, partitions in topics.items():
        name = check_topic_name(name)
        checked[name] = _integer(
            f"topics: the partitions of {name!r}", partitions, 1, _MAX_PARTITIONS
        )
    return checked


def client_config(base: Mapping[str, str], overrides: Mapping[str, Any]) -> dict[str, Any]:
    """`base` with `overrides`, named and spelt as `Properties` does it."""
    settings = dict(base)
    settings.update(Properties(None, **overrides))
    return settings


class EmbeddedBroker:
    """A cluster of Kafka-protocol brokers on loopback ports, for tests: librdkafka's mock cluster.

    It answers what producers and consumers ask, transactions included, and keeps what they send in
    memory, 5 MiB or 100,000 batches a partition. It has no TLS, no SASL, no admin requests (make
    topics with `create_topic`), no replication, and it does not de-duplicate what an idempotent
    producer sends again; its answers have no timestamps (`RecordMetadata.timestamp` is None), its
    records do. Any client in any process on this machine can use it.

    Args:
        brokers (int): how many, 1 to 100. Their ids start at 1.
        topics (Mapping[str, int] | None): topics to make, and their numbers of partitions,
            replicated to up to three brokers. By default there is "orders" with 4.
        auto_create_topics (bool): a topic that a client asks for and that does not exist, is made
            with 4 partitions. False holds for clients that are configured with `config()`:
            librdkafka's mock cluster leaves it to the client.
        isolation (str): where it runs. "thread": one C thread of this process, which never takes
            the GIL; starts in milliseconds. "process": a process of its own, which can be killed
            and paused; starts in a tenth of a second, and ends when this process does, however it
            ends.

    Raises:
        TypeError: an argument is of the wrong type.
        ValueError: an argument is out of range; it is named.
        OSError: the process has not enough file descriptors left.
        BrokerStateError: the broker's process does not start.

    It runs from here on. `close` it, or use it as a context manager: dropping it unclosed closes it
    with a ResourceWarning. Methods are thread-safe. After `os.fork` the child's copy refuses
    everything. Source: rdkafka_mock.h.
    """

    def __init__(
        self,
        brokers: int = 1,
        topics: Mapping[str, int] | None = None,
        *,
        auto_create_topics: bool = True,
        isolation: Literal["thread", "process"] = "thread",
    ) -> None:
        self._cluster: Cluster | ProcessCluster | None = None
        self._owner = os.getpid()
        self._brokers = _integer("brokers", brokers, 1, _MAX_BROKERS)
        self._auto_create_topics = _flag("auto_create_topics", auto_create_topics)
        if not isinstance(isolation, str):
            raise TypeError(f"isolation must be a str, not {type(isolation).__name__}")
        if isolation not in ("thread", "process"):
            raise ValueError(f"isolation must be 'thread' or 'process', not {isolation!r}")
        self._isolation = isolation
        if topics is None:
            topics = {"orders": 4}
        self._cluster = (ProcessCluster if isolation == "process" else Cluster)(
            self._brokers, _checked_topics(topics)
        )
        self._bootstrap_servers = self._cluster.bootstrap_servers
        self._closed = False

    # ------------------------------------------------------------------ life

    def close(self) -> None:
        """Stop it. Clients see their connections close. Idempotent, and fast in every state."""
        cluster, self._cluster = self._cluster, None
        self._closed = True
        if cluster is not None:
            cluster.close()

    def __enter__(self) -> Self:
        self._running()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        value: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self.close()

    def __del__(self) -> None:
        if getattr(self, "_cluster", None) is not None and self._owner == os.getpid():
            warnings.warn(f"unclosed {self!r}", ResourceWarning, source=self, stacklevel=2)
            self.close()

    def __reduce_ex__(self, protocol: SupportsIndex) -> Any:
        raise TypeError(
            "an EmbeddedBroker cannot be copied or pickled: pass on its bootstrap_servers, or"
            " config()"
        )

    def __repr__(self) -> str:
        if self._cluster is None:
            return "<EmbeddedBroker closed>"
        return f"<EmbeddedBroker {self._bootstrap_servers} isolation={self._isolation!r}>"

    def _running(self) -> Cluster | ProcessCluster:
        if self._cluster is None:
            raise BrokerStateError("the broker is closed")
        if self._owner != os.getpid():
            raise BrokerStateError(
                "this broker was made before fork() and belongs to the parent; make one in this"
                " process"
            )
        return self._cluster

    @property
    def closed(self) -> bool:
        """Whether `close` was called."""
        return self._cluster is None

    @property
    def brokers(self) -> int:
        """How many brokers it has; their ids are 1 to this."""
        return self._brokers

    @property
    def isolation(self) -> str:
        """How it is kept apart, "thread" or "process"."""
        return self._isolation

    @property
    def pid(self) -> int:
        """The process it runs in."""
        cluster = self._running()
        return cluster.pid if isinstance(cluster, ProcessCluster) else os.getpid()

    # ------------------------------------------------------------------ clients

    @property
    def bootstrap_servers(self) -> str:
        """The brokers' addresses on loopback, host and port each, separated by commas. The same
        after `restart`.
        """
        return self._bootstrap_servers

    def config(self, **overrides: Any) -> dict[str, Any]:
        """Properties for a client of this broker, as librdkafka names them: a new dict of str to
        str.

        Args:
            overrides: more properties, or others: `config(linger_ms=5)` has "linger.ms": "5". Names
                with dots go in by `**{...}`. Callbacks (`error_cb` …) stay what they are.

        Raises:
            TypeError: a value is of a type that no property has.
        """
        base = {"bootstrap.servers": self._bootstrap_servers}
        if not self._auto_create_topics:
            base["allow.auto.create.topics"] = "false"
        return client_config(base, overrides)

    def create_topic(self, name: str, partitions: int = 1, replication_factor: int = 1) -> None:
        """Make a topic.

        Raises:
            TypeError: an argument is of the wrong type.
            ValueError: the name breaks Kafka's rule, or there would be fewer brokers than replicas,
                or no partition.
            KafkaException: it exists already (TOPIC_ALREADY_EXISTS).

        Source: rd_kafka_mock_topic_create().
        """
        name = check_topic_name(name)
        partitions = _integer("partitions", partitions, 1, _MAX_PARTITIONS)
        replication_factor = _integer("replication_factor", replication_factor, 1, self._brokers)
        self._running().call("create_topic", name, partitions, replication_factor)

    # ------------------------------------------------------------------ reading back

    def messages(
        self, topic: str, count: int | None = None, timeout: float | None = 10.0
    ) -> list[ConsumedMessage]:
        """All that is in `topic`: partition by partition, each in offset order.

        Args:
            topic (str): what to read.
            count (int | None): wait until at least this many are there; None does not wait. All are
                returned, more than `count` too.
            timeout (float | None): seconds to wait for `count`, and for a broker that does not
                answer; None for as long as it takes.

        Raises:
            RetentionLost: the cluster has dropped records: more than 5 MiB or 100,000 batches of a
                partition.
            KafkaTimeoutError: fewer than `count` came in time, or a broker does not answer.
            KafkaException: there is no such topic (UNKNOWN_TOPIC_OR_PART), unless topics are made
                when they are asked for.
            BrokerStateError: the broker is closed, or was killed.

        Waits without the GIL. To read as records come, use `reader`.
        """
        self._must_live()
        return read_topic(
            self._bootstrap_servers,
            topic,
            count,
            timeout,
            config=_READING,
            may_be_absent=self._auto_create_topics,
        )

    def reader(self, topic: str, *, timeout: float | None = 10.0) -> TopicReader:
        """A TopicReader of `topic`, which goes on where it was: for topics that outgrow what the
        broker keeps. `close` it.

        Raises:
            KafkaException: there is no such topic (UNKNOWN_TOPIC_OR_PART).
            KafkaTimeoutError: no answer within `timeout` seconds.
        """
        self._must_live()
        return TopicReader(self._bootstrap_servers, topic, _READING, timeout=timeout)

    def assert_delivered(
        self,
        topic: str,
        values: Iterable[Any],
        *,
        exactly_once: bool = False,
        ordered: bool = False,
        timeout: float = 0.0,
    ) -> None:
        """Raise AssertionError, with an explanation, unless `topic` holds `values` and nothing
        else.

        Args:
            topic (str): what to read.
            values: what was sent: bytes-like objects, str (compared as UTF-8) and None, in any
                order; a value that was sent twice is in it twice.
            exactly_once (bool): no value may be there more often than in `values`. Without it
                duplicates are allowed: the mock cluster does not de-duplicate, so a lost
                acknowledgement leaves some.
            ordered (bool): within each partition, values must come in the order they have in
                `values`; which partition they went to does not matter, nor do later duplicates.
            timeout (float): seconds to wait for as many messages as there are values; by default
                what is there must do, as it does once a flush has returned.

        Raises:
            AssertionError: says what is missing, duplicated, unexpected and reordered, how much of
                each, with a few examples.
            KafkaException: what `messages` raises.
        """
        self._must_live()
        _assert_delivered(
            self, topic, values, exactly_once=exactly_once, ordered=ordered, timeout=timeout
        )

    def _must_live(self) -> None:
        cluster = self._running()
        if isinstance(cluster, ProcessCluster) and cluster.state == "killed":
            raise BrokerStateError(
                "the broker was killed, and what it held is gone; restart() starts it again, empty"
            )

    # ------------------------------------------------------------------ faults

    def _broker_id(self, broker_id: object, *, none_is_all: bool = False) -> int | None:
        if broker_id is None and none_is_all:
            return None
        if isinstance(broker_id, bool) or not hasattr(broker_id, "__index__"):
            raise TypeError(
                f"broker_id must be an int{' or None' if none_is_all else ''}, not"
                f" {type(broker_id).__name__}"
            )
        number = int(broker_id.__index__())
        if not 1 <= number <= self._brokers:
            brokers = (
                "is broker 1" if self._brokers == 1 else f"are the brokers 1 to {self._brokers}"
            )
            raise ValueError(f"broker_id: there {brokers}, and no {number}")
        return number

    def fail_requests(
        self,
        api_key: ApiKey | int,
        errors: Iterable[ErrorCode | int | KafkaError],
        broker_id: int | None = None,
    ) -> None:
        """Answer the next requests of a kind with errors: the first with the first, and so on. What
        they ask for is not done.

        Args:
            api_key (ApiKey): the kind of request: `ApiKey.PRODUCE`, …
            errors: an ErrorCode, an int or a KafkaError for each request. `ErrorCode.TRANSPORT`
                closes the connection instead of answering, `ErrorCode.NO_ERROR` lets one request
                pass.
            broker_id (int | None): the broker that fails; None for whichever gets the next request.
                Errors for one broker go first.

        Raises:
            TypeError: an argument is of the wrong type.
            ValueError: an argument is out of range, or no broker could answer with such an error.
            BrokerStateError: the broker is closed, killed or paused.

        What no request has used by the end of a test fails that test, see `unused_faults`.
        Source: rd_kafka_mock_push_request_errors_array(),
        rd_kafka_mock_broker_push_request_error_rtts().
        """
        if isinstance(api_key, bool) or not isinstance(api_key, int):
            raise TypeError(f"api_key must be an ApiKey, not {type(api_key).__name__}")
        if api_key == ApiKey.METADATA:
            raise ValueError(
                "api_key: the mock cluster never fails a METADATA request; fail_topic() sets what"
                " it says of a topic"
            )
        if api_key not in _wire.FAILABLE:
            raise ValueError(
                f"api_key: the mock cluster does not answer requests of kind {int(api_key)}"
            )
        if isinstance(errors, (str, bytes, KafkaError, int)) or not isinstance(errors, Iterable):
            raise TypeError(f"errors must be a list of errors, not {type(errors).__name__}")
        codes = [_code("errors: each", error) for error in errors]
        if not codes:
            raise ValueError("errors must have at least one")
        for code in codes:
            if code != _TRANSPORT and not -1 <= code <= 32767:
                raise ValueError(
                    f"errors: {ErrorCode(code).name if code in set(ErrorCode) else code} is no"
                    " error that a broker answers with; ErrorCode.TRANSPORT closes the connection"
                )
        self._running().call(
            "fail_requests", int(api_key), codes, self._broker_id(broker_id, none_is_all=True)
        )

    def round_trip_time(self, seconds: float, broker_id: int | None = None) -> None:
        """Hold back every answer for this long.

        Args:
            seconds (float): 0 to 3600; 0 for none. It applies to answers that are being held back
                as well.
            broker_id (int | None): the broker to slow down; None for all.

        Raises:
            TypeError: an argument is of the wrong type.
            ValueError: an argument is out of range.
            BrokerStateError: the broker is closed, killed or paused.

        Source: rd_kafka_mock_broker_set_rtt().
        """
        checked = checked_seconds("seconds", seconds)
        assert checked is not None
        if checked > _MAX_DELAY:
            raise ValueError(f"seconds must be at most {_MAX_DELAY:.0f}, not {seconds!r}")
        self._running().call(
            "round_trip_time", round(checked * 1000), self._broker_id(broker_id, none_is_all=True)
        )

    def stop_broker(self, broker_id: int) -> None:
        """Close a broker's connections and refuse new ones; its partitions get leaders among the
        brokers that are up.

        Nothing it held is lost: the mock cluster's partitions belong to the cluster. Stopping a
        stopped broker does nothing.

        Raises:
            TypeError: an argument is of the wrong type.
            ValueError: there is no such broker.
            BrokerStateError: the broker is closed, killed or paused.

        Source: rd_kafka_mock_broker_set_down(), rd_kafka_mock_partition_set_leader().
        """
        self._running().call("stop_broker", self._broker_id(broker_id))

    def start_broker(self, broker_id: int) -> None:
        """Have a stopped broker accept connections again, under its old address. Leaders stay where
        they are. A running one is let be.

        Raises:
            TypeError: an argument is of the wrong type.
            ValueError: there is no such broker.
            BrokerStateError: the broker is closed, killed or paused.

        Source: rd_kafka_mock_broker_set_up().
        """
        self._running().call("start_broker", self._broker_id(broker_id))

    def move_leader(self, topic: str, partition: int, broker_id: int) -> None:
        """Make another broker the leader of a partition, a stopped one too: then the partition is
        out of reach.

        A partition cannot be left without a leader: producing to one would end the mock cluster's
        process. Inject `ErrorCode.LEADER_NOT_AVAILABLE` or `NOT_LEADER_FOR_PARTITION` instead.

        Raises:
            TypeError: an argument is of the wrong type.
            ValueError: an argument is out of range, or there is no such broker.
            KafkaException: there is no such partition (UNKNOWN_TOPIC_OR_PART).
            BrokerStateError: the broker is closed, killed or paused.

        Source: rd_kafka_mock_partition_set_leader().
        """
        topic = check_topic_name(topic)
        partition = _integer("partition", partition, 0, 2**31 - 1)
        if not isinstance(broker_id, bool) and broker_id == -1:
            raise ValueError(
                "broker_id: a partition cannot be left without a leader (the mock cluster crashes"
                " when somebody produces to it); inject ErrorCode.LEADER_NOT_AVAILABLE with"
                " fail_requests()"
            )
        self._running().call("move_leader", topic, partition, self._broker_id(broker_id))

    def fail_topic(self, topic: str, error: ErrorCode | int | KafkaError | None) -> None:
        """Set the error that metadata has for a topic from now on, such as
        `ErrorCode.TOPIC_AUTHORIZATION_FAILED`; None for none.

        Clients see it when they next ask for metadata. It does not keep those that know the topic
        from producing. A topic that does not exist is made.

        Raises:
            TypeError: an argument is of the wrong type.
            ValueError: an argument is out of range.
            BrokerStateError: the broker is closed, killed or paused.

        Source: rd_kafka_mock_topic_set_error().
        """
        topic = check_topic_name(topic)
        code = 0 if error is None else _code("error", error)
        if not -1 <= code <= 32767:
            raise ValueError(f"error: {code} is no error that a broker answers with")
        self._running().call("fail_topic", topic, code)

    def lose_acks(self, count: int) -> None:
        """Lose the acknowledgements of the next `count` produce requests: their records are stored,
        and the connection is cut.

        Answers that are on their way on the same broker's connections are lost with it, as they are
        on a real network, so that a client with several requests in flight can lose more than
        `count`. A client that sends again leaves duplicates: the mock cluster does not de-duplicate
        without a transactional.id. A request that the broker refuses counts as well, and nothing of
        it is stored: one to a broker that is not the leader any more, after `stop_broker` or
        `move_leader`.

        Raises:
            TypeError: an argument is of the wrong type.
            ValueError: `count` is not from 1 to 1,000,000.
            BrokerStateError: the broker is closed, killed or paused.

        What no request has used by the end of a test fails that test, see `unused_faults`.
        """
        self._running().call("lose_acks", _integer("count", count, 1, 1_000_000))

    def unused_faults(self) -> list[str]:
        """What `fail_requests` and `lose_acks` set up and no request has used yet, a line for each
        kind; empty when all was used.

        Raises:
            BrokerStateError: the broker is closed or paused. A killed one has none.
        """
        cluster = self._running()
        if isinstance(cluster, ProcessCluster) and cluster.state == "killed":
            return []
        unused: list[str] = cluster.call("unused_faults")
        return unused

    def clear_faults(self) -> None:
        """Take back what `fail_requests` and `lose_acks` set up and no request has used yet.

        Raises:
            BrokerStateError: the broker is closed, killed or paused.
        """
        self._running().call("clear_faults")

    # ------------------------------------------------------------------ faults of a process

    def _own_process(self, call: str) -> ProcessCluster:
        cluster = self._running()
        if not isinstance(cluster, ProcessCluster):
            raise BrokerStateError(
                f"{call}() needs a broker in a process of its own:"
                " EmbeddedBroker(isolation='process')"
            )
        return cluster

    def kill(self) -> None:
        """End the broker's process with SIGKILL. What it held is gone. Killing a killed one raises.

        Raises:
            BrokerStateError: the broker is in no process of its own, closed or killed.
        """
        self._own_process("kill").kill()

    def pause(self) -> None:
        """Stop the broker's process with SIGSTOP: its connections stay open and nothing answers. A
        paused one is let be.

        Raises:
            BrokerStateError: the broker is in no process of its own, closed or killed.
        """
        self._own_process("pause").pause()

    def resume(self) -> None:
        """Let a paused broker go on, with SIGCONT. A running one is let be.

        Raises:
            BrokerStateError: the broker is in no process of its own, closed or killed.
        """
        self._own_process("resume").resume()

    def restart(self) -> None:
        """Start a killed broker again, under its old addresses, with the topics it was made with,
        empty. One that runs is killed first.

        Raises:
            BrokerStateError: the broker is in no process of its own, or closed.
            OSError: somebody else has taken its port meanwhile.
        """
        self._own_process("restart").restart()


def _assert_delivered(
    broker: Any,
    topic: str,
    values: Iterable[Any],
    *,
    exactly_once: bool,
    ordered: bool,
    timeout: float,
) -> None:
    _flag("exactly_once", exactly_once)
    _flag("ordered", ordered)
    waits = checked_seconds("timeout", timeout)
    if isinstance(values, (str, bytes, bytearray, memoryview)) or not isinstance(values, Iterable):
        raise TypeError(f"values must be an iterable of values, not {type(values).__name__}")
    expected = list(values)
    if waits and expected:
        try:
            messages = broker.messages(topic, len(expected), waits)
        except KafkaException as error:
            if error.error != ErrorCode["TIMED_OUT"]:
                raise
            messages = broker.messages(topic)
    else:
        messages = broker.messages(topic)
    explanation = difference(topic, messages, expected, exactly_once=exactly_once, ordered=ordered)
    if explanation is not None:
        raise AssertionError(explanation)
