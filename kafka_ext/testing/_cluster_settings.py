"""What the brokers of a test cluster are configured with, and their data folders before they first
start.
"""

from __future__ import annotations

import shutil
from collections.abc import Mapping, Sequence
from pathlib import Path

from . import _cluster_admin as admin
from ._cluster_node import Node
from ._cluster_security import Certificates, Listener, broker_settings, scram_users
from .cluster_artifacts import Installation, run_tool

# The brokers' own: without authentication, and at their own addresses, whatever there is for
# clients.
OWN_LISTENERS = ("INTERNAL", "CONTROLLER")


def cluster_settings(
    ports: Mapping[int, Mapping[str, int]],
    listeners: Mapping[str, Listener],
    users: Mapping[str, str],
    certificates: Certificates | None,
    *,
    replication_factor: int,
    in_sync: int,
    acls: bool,
) -> dict[str, str]:
    """The settings that all brokers have. `ports` are each broker's, by the names of
    the listeners.
    """
    replicas = str(min(3, len(ports)))
    settings = {
        "process.roles": "broker,controller",
        "controller.quorum.voters": ",".join(
            f"{broker}@127.0.0.1:{of_broker['CONTROLLER']}" for broker, of_broker in ports.items()
        ),
        "controller.listener.names": "CONTROLLER",
        "inter.broker.listener.name": "INTERNAL",
        "listener.security.protocol.map": ",".join(
            [f"{name}:{listener.protocol}" for name, listener in listeners.items()]
            + [f"{name}:PLAINTEXT" for name in OWN_LISTENERS]
        ),
        # A topic exists because a test has made it, and has the leaders that a test or a fault has
        # given it.
        "auto.create.topics.enable": "false",
        "auto.leader.rebalance.enable": "false",
        "unclean.leader.election.enable": "false",
        "default.replication.factor": str(replication_factor),
        "min.insync.replicas": str(in_sync),
        "offsets.topic.replication.factor": replicas,
        "transaction.state.log.replication.factor": replicas,
        "transaction.state.log.min.isr": str(in_sync),
        "share.coordinator.state.topic.replication.factor": replicas,
        "share.coordinator.state.topic.min.isr": str(in_sync),
        # Made when the first group or transaction asks; the fewer, the sooner.
        "offsets.topic.num.partitions": "3",
        "transaction.state.log.num.partitions": "3",
        "share.coordinator.state.topic.num.partitions": "3",
        "group.initial.rebalance.delay.ms": "0",
        # A dead broker is noticed in seconds, not in nine.
        "broker.heartbeat.interval.ms": "500",
        "broker.session.timeout.ms": "3000",
        "log.cleaner.dedupe.buffer.size": "2097152",
    }
    for name, listener in listeners.items():
        settings |= broker_settings(name, listener, users, certificates)
    if acls:
        settings["authorizer.class.name"] = (
            "org.apache.kafka.metadata.authorizer.StandardAuthorizer"
        )
        settings["super.users"] = "User:ANONYMOUS"
    return settings


def node_settings(
    broker: int, ports: Mapping[str, int], advertised: Mapping[str, tuple[str, int]], folder: Path
) -> dict[str, str]:
    """The settings that only this broker has. `advertised` are the addresses of listeners that are
    not the broker's own.
    """
    addresses = {
        name: advertised.get(name, ("127.0.0.1", port))
        for name, port in ports.items()
        if name != "CONTROLLER"
    }
    return {
        "node.id": str(broker),
        "listeners": ",".join(f"{name}://127.0.0.1:{port}" for name, port in ports.items()),
        "advertised.listeners": ",".join(
            f"{name}://{host}:{port}" for name, (host, port) in addresses.items()
        ),
        "log.dirs": str(folder / "data"),
    }


def format_storage(
    kafka: Installation,
    options: Sequence[str],
    nodes: Sequence[Node],
    listeners: Mapping[str, Listener],
    users: Mapping[str, str],
    timeout: float,
) -> None:
    """Prepare the data folders. What the first one gets the others have copies of, each with a name
    of its own.
    """
    first, *others = nodes
    identity = ["-t", admin.new_cluster_id(), "-c", str(first.properties)]
    run_tool(
        kafka.command(
            options, "kafka.tools.StorageTool", "format", *identity, *scram_users(listeners, users)
        ),
        "Kafka's storage could not be formatted",
        cwd=first.folder,
        timeout=timeout,
    )
    meta = (first.data / "meta.properties").read_text()
    for node in others:
        shutil.copytree(first.data, node.data)
        lines = [
            line for line in meta.splitlines() if not line.startswith(("node.id=", "directory.id="))
        ]
        lines += [f"node.id={node.number}", f"directory.id={admin.new_cluster_id()}"]
        (node.data / "meta.properties").write_text("\n".join(lines) + "\n")
