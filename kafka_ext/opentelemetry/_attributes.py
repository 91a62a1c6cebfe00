"""What spans and metrics say of a producer and of where it sends to, by the semantic conventions
for messaging.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from .._rdkafka import ProducerClient

BATCH_MESSAGE_COUNT = "messaging.batch.message_count"
CLIENT_ID = "messaging.client.id"
DESTINATION_NAME = "messaging.destination.name"
DESTINATION_PARTITION = "messaging.destination.partition.id"
ERROR_TYPE = "error.type"
MESSAGE_KEY = "messaging.kafka.message.key"
MESSAGE_TOMBSTONE = "messaging.kafka.message.tombstone"
OFFSET = "messaging.kafka.offset"
OPERATION_NAME = "messaging.operation.name"
OPERATION_TYPE = "messaging.operation.type"
SERVER_ADDRESS = "server.address"
SERVER_PORT = "server.port"
SYSTEM = "messaging.system"


def of_servers(servers: str | None) -> dict[str, str | int]:
    """`bootstrap.servers`: one server's address and port, or the whole list as the address, since
    none of them stands for the cluster.
    """
    listed = [
        server.strip().split("://")[-1].rpartition("@")[2]
        for server in (servers or "").split(",")
        if server.strip()
    ]
    if not listed:
        return {}
    if len(listed) > 1:
        return {SERVER_ADDRESS: ",".join(listed)}
    host, _, port = listed[0].rpartition(":")
    if (
        not host or not port.isdigit()
    ):  # no port: all of it is the host, which may be an IPv6 address in brackets
        host, port = listed[0], "9092"
    return {SERVER_ADDRESS: host.strip("[]"), SERVER_PORT: int(port)}


def of_client(handle: ProducerClient) -> dict[str, str | int]:
    """A producer's. Raises ProducerClosedError, ProducerForkedError."""
    return {
        SYSTEM: "kafka",
        CLIENT_ID: handle.get_property("client.id") or "",
        **of_servers(handle.get_property("bootstrap.servers")),
    }


class Destination:
    """A topic as one producer sends to it: all that is the same for each record."""

    __slots__ = ("metric", "name", "span")

    def __init__(self, client: Mapping[str, str | int], topic: str) -> None:
        self.name = f"send {topic}"
        self.span: dict[str, Any] = {
            **client,
            OPERATION_NAME: "send",
            OPERATION_TYPE: "send",
            DESTINATION_NAME: topic,
        }
        self.metric = {name: value for name, value in self.span.items() if name != CLIENT_ID}


def key_text(key: object) -> str | None:
    """A key as text; None for one that has no text of its own."""
    if isinstance(key, str):
        return key
    if isinstance(key, (bytes, bytearray, memoryview)):
        try:
            return bytes(key).decode()
        except UnicodeDecodeError:
            return None
    if isinstance(key, int) and not isinstance(key, bool):
        return str(key)  # for a key_serializer
    return None
