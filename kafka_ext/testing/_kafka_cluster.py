"""KafkaCluster: real Apache Kafka for tests, on loopback ports, without containers."""

from __future__ import annotations

import os
import shutil
import socket
import tempfile
import threading
import warnings
from collections.abc import Iterable, Mapping
from pathlib import Path
from random import SystemRandom
from types import TracebackType
from typing import Any, SupportsIndex

from kafka_ext._annotations import Self
from kafka_ext._rdkafka import ConsumedMessage, KafkaException, TopicReader

from . import _cluster_admin as admin
from ._broker import _assert_delivered, _checked_topics, _flag, _integer, client_config
from ._cluster_guard import Guard
from ._cluster_node import Node
from ._cluster_requests import REQUEST_TIMEOUT, ClusterRequests
from ._cluster_security import Certificates, Listener, client_settings
from ._cluster_settings import OWN_LISTENERS, cluster_settings, format_storage, node_settings
from ._faults import BrokerStateError
from ._readback import checked_seconds, read_topic
from .cluster_artifacts import KAFKA_VERSION, installation

_MAX_BROKERS = 5
# Below the range that Linux takes ports of outgoing connections from: a client that tries to reach
# a broker which is down could otherwise be given that very port, and connect to itself.
_PORTS = range(12_000, 32_000)
# Compiled quickly rather than well: brokers are ready sooner, and the tests' cores are few. Nor are
# there threads for collecting.
_JVM = (
    "-XX:TieredStopAtLevel=1",
    "-XX:+UseSerialGC",
    "-XX:+ExitOnOutOfMemoryError",
    "-Djava.awt.headless=true",
)


class KafkaCluster(ClusterRequests):
    """A cluster of real Apache Kafka (KRaft) on loopback ports, for tests: what the embedded broker
    cannot show, this does.

    Needs Java 17; Maven gets Kafka's jars (43 MB) from Maven Central the first time, later the
    cache is used (`KAFKA_EXT_CACHE`, by default `~/.cache/kafka_ext`). Each broker is a process of
    its own, of half a GB, and is a controller as well. A cluster is ready some seconds after it was
    asked for; use one for many tests, each with topics of its own.

    Args:
        brokers (int): how many, 1 to 5. Their ids start at 1.
        topics (Mapping[str, int] | None): topics to make, and their numbers of partitions.
        replication_factor (int | None): replicas of a topic that is made without saying how many;
            by default 3, or as many as there are brokers.
        min_insync_replicas (int | None): the brokers' `min.insync.replicas`; by default 2 with
            three brokers or more, otherwise 1.
        settings (Mapping[str, str] | None): more of the brokers' settings, as in server.properties,
            or others.
        listeners (Mapping[str, Listener] | None): how clients connect, by names (letters and
            digits); the first is the default of `config`. By default there is "CLIENT", which is
            PLAINTEXT.
        users (Mapping[str, str] | None): names and passwords, for SASL.
        acls (bool): who has authenticated may do only what `allow` has allowed. Clients of a
            listener without authentication may do everything, as the cluster's own requests do.
        advertised (Mapping[int, tuple[str, int]] | None): by broker id, the host and port at which
            clients of the first listener are told to find the broker, and do by
            `bootstrap_servers`, in place of its own `address`: a proxy's.
        heap_mb (int): each broker's Java heap, in MiB.
        version (str): of Apache Kafka.
        directory (str | os.PathLike | None): where the brokers' data and logs go, in a new folder;
            by default where temporary files do.
        keep_logs (bool): keep the brokers' logs when it is closed. They are kept without, when it
            does not start or when its `with` block raises; `logs` says where.
        timeout (float): seconds to wait for it to be ready.

    Raises:
        TypeError: an argument is of the wrong type.
        ValueError: an argument is out of range.
        KafkaInstallError: Java, Maven or (for TLS) trustme is missing, or Kafka's jars cannot be
            had; says what to do.
        BrokerStateError: a broker ends while it starts; has the end of its log.
        KafkaTimeoutError: it is not ready in time.

    It runs from here on. `close` it, or use it as a context manager. If this process ends without,
    the brokers are killed. Methods are thread-safe, but what a broker is told by two threads at
    once comes in no certain order. Linux and macOS.
    """

    def __init__(
        self,
        brokers: int = 1,
        topics: Mapping[str, int] | None = None,
        *,
        replication_factor: int | None = None,
        min_insync_replicas: int | None = None,
        settings: Mapping[str, str] | None = None,
        listeners: Mapping[str, Listener] | None = None,
        users: Mapping[str, str] | None = None,
        acls: bool = False,
        advertised: Mapping[int, tuple[str, int]] | None = None,
        heap_mb: int = 512,
        version: str = KAFKA_VERSION,
        directory: str | os.PathLike[str] | None = None,
        keep_logs: bool = False,
        timeout: float = 120.0,
    ) -> None:
        self._nodes: dict[int, Node] = {}
        self._guard: Guard | None = None
        self._folder: Path | None = None
        self._owner = os.getpid()
        self._closed = False
        self._life = threading.Lock()
        brokers = _integer("brokers", brokers, 1, _MAX_BROKERS)
        wanted = _checked_topics({} if topics is None else topics)
        self._replication_factor = (
            min(3, brokers)
            if replication_factor is None
            else _integer("replication_factor", replication_factor, 1, brokers)
        )
        in_sync = (
            (2 if brokers >= 3 else 1)
            if min_insync_replicas is None
            else _integer("min_insync_replicas", min_insync_replicas, 1, brokers)
        )
        self._listeners = _checked_listeners(listeners)
        self._users = dict(users or {})
        heap_mb = _integer("heap_mb", heap_mb, 128, 65_536)
        self.keep_logs = _flag("keep_logs", keep_logs)
        checked_seconds("timeout", timeout)
        self._advertised = {
            _integer("advertised: a broker id", key, 1, brokers): address
            for key, address in (advertised or {}).items()
        }
        kafka = installation(version)
        try:
            self._folder = Path(
                tempfile.mkdtemp(prefix="kafka-cluster-", dir=directory)
            ).resolve()  # the tools run elsewhere
            self._certificates = None
            if any(listener.tls for listener in self._listeners.values()):
                (self._folder / "certificates").mkdir()
                self._certificates = Certificates(self._folder / "certificates")
            names = [*self._listeners, *OWN_LISTENERS]
            ports = iter(_free_ports(brokers * len(names)))
            self._ports = {
                broker: {name: next(ports) for name in names} for broker in range(1, brokers + 1)
            }
            self._guard = Guard(self._folder)
            options = [f"-Xms{min(heap_mb, 256)}m", f"-Xmx{heap_mb}m", *_JVM]
            of_all = cluster_settings(
                self._ports,
                self._listeners,
                self._users,
                self._certificates,
                replication_factor=self._replication_factor,
                in_sync=in_sync,
                acls=_flag("acls", acls),
            )
            first = next(iter(self._listeners))
            for broker, of_broker in self._ports.items():
                folder = self._folder / f"broker-{broker}"
                folder.mkdir()
                elsewhere = {first: self._advertised[broker]} if broker in self._advertised else {}
                own = node_settings(broker, of_broker, elsewhere, folder)
                self._nodes[broker] = Node(
                    broker,
                    folder,
                    {**own, **of_all, **(settings or {})},
                    kafka,
                    options,
                    self._guard,
                )
            format_storage(
                kafka, options, list(self._nodes.values()), self._listeners, self._users, timeout
            )
            self.start(timeout=timeout)
            for name, partitions in wanted.items():
                self.create_topic(name, partitions)
        except BaseException as error:
            self.keep_logs = self.keep_logs or isinstance(error, (KafkaException, OSError))
            self.close()
            raise

    # ------------------------------------------------------------------ life

    def close(self) -> None:
        """Kill the brokers and remove what they have written. Idempotent, and fast in
        every state.
        """
        with self._life:
            self._closed = True
            if self._owner != os.getpid():
                return  # a forked child's copy: the brokers are the parent's
            for node in self._nodes.values():
                node.end()
            if self._guard is not None:
                self._guard.close()
                self._guard = None
            if self._folder is not None and self._folder.is_dir():
                for node in self._nodes.values():
                    shutil.rmtree(node.data, ignore_errors=True)
                if not self.keep_logs:
                    shutil.rmtree(self._folder, ignore_errors=True)

    def __enter__(self) -> Self:
        self._running()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        value: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        if value is not None and not self._closed:
            self.keep_logs = True
            if hasattr(value, "add_note"):  # from Python 3.11 on
                value.add_note(f"the brokers' logs are in {self.logs}")
        self.close()

    def __del__(self) -> None:
        if getattr(self, "_guard", None) is not None and self._owner == os.getpid():
            warnings.warn(f"unclosed {self!r}", ResourceWarning, source=self, stacklevel=2)
            self.close()

    def __reduce_ex__(self, protocol: SupportsIndex) -> Any:
        raise TypeError(
            "a KafkaCluster cannot be copied or pickled: pass on its bootstrap_servers, or config()"
        )

    def __repr__(self) -> str:
        if self._closed:
            return "<KafkaCluster closed>"
        return (
            f"<KafkaCluster {self.bootstrap_servers}"
            f" {' '.join(f'{broker}:{self.state(broker)}' for broker in self._nodes)}>"
        )

    def _running(self) -> None:
        if self._closed:
            raise BrokerStateError("the cluster is closed")
        if self._owner != os.getpid():
            raise BrokerStateError(
                "this cluster was made before fork() and belongs to the parent; make one in this"
                " process"
            )

    @property
    def closed(self) -> bool:
        """Whether `close` was called."""
        return self._closed

    @property
    def logs(self) -> Path:
        """The folder that has the brokers' logs, `broker-1/broker.log` and so on."""
        assert self._folder is not None
        return self._folder

    @property
    def certificates(self) -> Certificates:
        """The certificates of its listeners with TLS.

        Raises:
            BrokerStateError: it has none.
        """
        if self._certificates is None:
            raise BrokerStateError("the cluster has no listener with TLS, and so no certificates")
        return self._certificates

    # ------------------------------------------------------------------ clients

    @property
    def bootstrap_servers(self) -> str:
        """The brokers' addresses for clients of the first listener, host and port each, separated
        by commas; proxies' if there are.
        """
        return self.servers(next(iter(self._listeners)))

    def servers(self, listener: str) -> str:
        """The brokers' addresses for clients of this listener, as `bootstrap_servers`."""
        name = self._listener(listener)
        first = name == next(iter(self._listeners))
        own = {broker: ("127.0.0.1", ports[name]) for broker, ports in self._ports.items()}
        return ",".join(
            "{}:{}".format(*((first and self._advertised.get(broker)) or own[broker]))
            for broker in own
        )

    def address(self, broker_id: int, listener: str | None = None) -> tuple[str, int]:
        """The host and port where the broker itself listens, which is not where clients are sent if
        there is a proxy.
        """
        return "127.0.0.1", self._ports[self._broker_id(broker_id)][self._listener(listener)]

    def config(
        self,
        *,
        listener: str | None = None,
        mechanism: str | None = None,
        user: str | None = None,
        **overrides: Any,
    ) -> dict[str, Any]:
        """Properties for a client of this cluster, as librdkafka names them: a new dict.

        Args:
            listener (str | None): the name of the listener to use; by default the first.
            mechanism (str | None): the SASL mechanism; by default the listener's first.
            user (str | None): who to be; by default the first of the users.
            overrides: more properties, or others: `config(linger_ms=5)` has "linger.ms": "5". Names
                with dots go in by `**{...}`. Callbacks (`error_cb` …) stay what they are.

        A client of a TLS listener checks the brokers' certificates, and has one of its own where
        one is required.

        Raises:
            TypeError: a value is of a type that no property has.
            ValueError: there is no such listener, mechanism or user.
        """
        name = self._listener(listener)
        base = {"bootstrap.servers": self.servers(name)}
        base |= client_settings(
            self._listeners[name], mechanism, user, self._users, self._certificates
        )
        return client_config(base, overrides)

    def _listener(self, name: str | None) -> str:
        if name is None:
            return next(iter(self._listeners))
        if name not in self._listeners:
            raise ValueError(
                f"listener: the cluster has {', '.join(self._listeners)}, not {name!r}"
            )
        return name

    # ------------------------------------------------------------------ brokers

    def _node(self, broker_id: int) -> Node:
        self._running()
        return self._nodes[self._broker_id(broker_id)]

    def _those(self, broker_id: int | None, *states: str) -> list[Node]:
        """One broker, or all that are in one of these states."""
        self._running()
        if broker_id is not None:
            return [self._node(broker_id)]
        return [node for node in self._nodes.values() if node.state in states]

    def state(self, broker_id: int) -> str:
        """What a broker's process is doing: "running", "paused" or "stopped"."""
        return self._node(broker_id).state

    def pid(self, broker_id: int) -> int:
        """A broker's process.

        Raises:
            BrokerStateError: it does not run.
        """
        return self._node(broker_id).pid

    def start(
        self, broker_id: int | None = None, *, wait: bool = True, timeout: float = 120.0
    ) -> None:
        """Start a broker that was stopped or killed, or all of those (None), on the data they had
        and at their old addresses.

        Args:
            broker_id (int | None): which.
            wait (bool): until all running brokers know of all running ones. More than half of all
                must run for that.
            timeout (float): seconds to wait.

        Raises:
            BrokerStateError: the broker runs, or ends while it starts; has the end of its log.
            KafkaTimeoutError: not ready in time.
        """
        for node in self._those(broker_id, "stopped"):
            node.start()
        if wait:
            self.wait_until_ready(timeout)

    def stop(self, broker_id: int | None = None) -> None:
        """Shut a broker down in order (SIGTERM), or all that run (None): it hands its partitions
        over first. Waits for it to end.

        Raises:
            BrokerStateError: it does not run.
        """
        nodes = self._those(broker_id, "running", "paused")
        for node in nodes:
            node.terminate()
        # The last ones have no quorum left to say goodbye to, and would wait for it.
        patience = 60.0 if broker_id is not None or self.brokers == 1 else 10.0
        for node in nodes:
            node.wait(patience)

    def kill(self, broker_id: int | None = None) -> None:
        """End a broker with SIGKILL, or all that run (None). What it has written stays.

        Raises:
            BrokerStateError: it does not run.
        """
        for node in self._those(broker_id, "running", "paused"):
            node.kill()

    def pause(self, broker_id: int | None = None) -> None:
        """Stop a broker's process with SIGSTOP, or all that run (None): connections stay open and
        nothing answers.

        Raises:
            BrokerStateError: it does not run.
        """
        for node in self._those(broker_id, "running"):
            node.pause()

    def resume(self, broker_id: int | None = None) -> None:
        """Let a paused broker go on, or all of those (None), with SIGCONT.

        Raises:
            BrokerStateError: it does not run.
        """
        for node in self._those(broker_id, "paused"):
            node.resume()

    def restart(
        self, broker_id: int | None = None, *, wait: bool = True, timeout: float = 120.0
    ) -> None:
        """Stop a broker, or all (None), unless it is stopped, and start it again. The arguments are
        those of `start`.
        """
        nodes = self._those(broker_id, "running", "paused", "stopped")
        running = [node for node in nodes if node.state != "stopped"]
        if broker_id is None:
            self.stop()
        else:
            for node in running:
                self.stop(node.number)
        for node in nodes:
            self.start(node.number, wait=False)
        if wait:
            self.wait_until_ready(timeout)

    def wait_until_ready(self, timeout: float = 120.0) -> None:
        """Wait until every running broker knows of every running one, can give out producer ids,
        and knows a leader of every partition of which one has a replica in sync.

        Raises:
            BrokerStateError: a broker has ended by itself; has the end of its log.
            KafkaTimeoutError: not ready in time.
        """
        expected = {
            number for number, node in self._nodes.items() if node.wanted and node.state != "paused"
        }

        def ready() -> bool:
            for number in expected:
                _ = self._nodes[number].pid  # raises if it has ended
                state = admin.describe(self._ports[number]["INTERNAL"], None, REQUEST_TIMEOUT)
                partitions = [
                    partition for topic in state.topics.values() for partition in topic.values()
                ]
                if not expected <= state.brokers or any(
                    p.leader is None and expected.intersection(p.in_sync) for p in partitions
                ):
                    return False
                admin.init_producer_id(self._ports[number]["INTERNAL"], REQUEST_TIMEOUT)
            return True

        self._wait(ready, timeout, f"the brokers {sorted(expected)} being ready")

    # ------------------------------------------------------------------ reading back

    def _reading(self, isolation_level: str) -> tuple[str, dict[str, str]]:
        """Where to read, and how: by the brokers' own listener, whatever those of the clients ask
        for.
        """
        if isolation_level not in ("read_committed", "read_uncommitted"):
            raise ValueError(
                "isolation_level must be 'read_committed' or 'read_uncommitted', not"
                f" {isolation_level!r}"
            )
        self._running()
        servers = ",".join(f"127.0.0.1:{ports['INTERNAL']}" for ports in self._ports.values())
        return servers, {"isolation.level": isolation_level}

    def messages(
        self,
        topic: str,
        count: int | None = None,
        timeout: float | None = 10.0,
        *,
        isolation_level: str = "read_committed",
    ) -> list[ConsumedMessage]:
        """All that is in `topic`: partition by partition, each in offset order.

        Args:
            topic (str): what to read.
            count (int | None): wait until at least this many are there; None does not wait. All are
                returned, more than `count` too.
            timeout (float | None): seconds to wait for `count`, and for a broker that does not
                answer; None for as long as it takes.
            isolation_level (str): "read_uncommitted" for the records of transactions that are open
                or were aborted as well.

        Raises:
            RetentionLost: records have been deleted, by retention or compaction's tombstones.
            KafkaTimeoutError: fewer than `count` came in time, or a broker does not answer.
            KafkaException: there is no such topic (UNKNOWN_TOPIC_OR_PART).
            BrokerStateError: the cluster is closed.
        """
        servers, config = self._reading(isolation_level)
        return read_topic(servers, topic, count, timeout, config=config, may_be_absent=False)

    def reader(
        self, topic: str, *, timeout: float | None = 10.0, isolation_level: str = "read_committed"
    ) -> TopicReader:
        """A TopicReader of `topic`, which goes on where it was: for topics that are too large to
        read at once. `close` it.

        Raises:
            KafkaException: there is no such topic (UNKNOWN_TOPIC_OR_PART).
            KafkaTimeoutError: no answer within `timeout` seconds.
        """
        servers, config = self._reading(isolation_level)
        return TopicReader(servers, topic, config, timeout=timeout)

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
        else; as EmbeddedBroker.assert_delivered.
        """
        _assert_delivered(
            self, topic, values, exactly_once=exactly_once, ordered=ordered, timeout=timeout
        )


def _checked_listeners(listeners: Mapping[str, Listener] | None) -> dict[str, Listener]:
    if listeners is None:
        return {"CLIENT": Listener()}
    if not isinstance(listeners, Mapping):
        raise TypeError(
            f"listeners must be a mapping of names to Listeners, not {type(listeners).__name__}"
        )
    if not listeners:
        raise ValueError("listeners must have at least one")
    for name, listener in listeners.items():
        if not isinstance(listener, Listener):
            raise TypeError(
                f"listeners: {name!r} must be a Listener, not {type(listener).__name__}"
            )
        if not name.isalnum() or not name.isupper() or name in OWN_LISTENERS:
            raise ValueError(
                "listeners: a name is of capital letters and digits, and none of"
                f" {', '.join(OWN_LISTENERS)}; not {name!r}"
            )
    return dict(listeners)


def _free_ports(count: int) -> list[int]:
    """Ports on loopback that nobody listens to; they are not reserved."""
    found: list[int] = []
    random = SystemRandom()
    while len(found) < count:
        port = random.choice(_PORTS)
        if port in found:
            continue
        with socket.socket() as probe:
            try:
                probe.bind(("127.0.0.1", port))
            except OSError:
                continue
        found.append(port)
    return found
