"""The little of Kafka's protocol that the embedded broker speaks to itself, over a plain socket.

librdkafka's mock cluster says neither which broker leads a partition nor lets an injected error be
taken back. Both can be had by asking it as a client would: for metadata, and for the requests that
use an error up.
"""

from __future__ import annotations

import socket
import struct
from collections.abc import Iterator
from contextlib import contextmanager

PRODUCE = 0
METADATA = 3
_JOIN_GROUP = 11
_CONSUMER_GROUP_HEARTBEAT = 68

# A version of each request that a mock broker can fail, and a body that it can read: nulls, zeros
# and empty arrays, which is what a run of zero bytes is. Joining a group takes one protocol, and a
# consumer group heartbeat (empty) strings: librdkafka asserts on them.
FAILABLE = {
    0: 3,
    1: 4,
    2: 1,
    8: 2,
    9: 1,
    10: 0,
    11: 0,
    12: 0,
    13: 0,
    14: 0,
    18: 0,
    22: 0,
    23: 2,
    24: 0,
    25: 0,
    26: 0,
    28: 0,
    68: 1,
    71: 0,
}
_EMPTY = bytes(96)
_BODIES = {
    _JOIN_GROUP: bytes(10) + b"\0\0\0\1" + _EMPTY,
    _CONSUMER_GROUP_HEARTBEAT: b"\0\1\1" + _EMPTY,
}


@contextmanager
def _connection(port: int, timeout: float) -> Iterator[socket.socket]:
    with socket.create_connection(("127.0.0.1", port), timeout) as connection:
        yield connection


def _request(api_key: int, version: int, body: bytes) -> bytes:
    # Correlation id 1 and no client id; flexible versions have tags after it, of which the body's
    # first zero byte is "none".
    header = struct.pack(">hhih", api_key, version, 1, -1)
    return struct.pack(">i", len(header) + len(body)) + header + body


def use_up(port: int, api_key: int, count: int) -> None:
    """Send `count` requests that say nothing and want no answer: each takes one injected error
    away.
    """
    with _connection(port, 5.0) as connection:
        try:
            connection.sendall(
                _request(api_key, FAILABLE[api_key], _BODIES.get(api_key, _EMPTY)) * count
            )
            connection.shutdown(socket.SHUT_WR)
            connection.settimeout(0.05)
            while connection.recv(65536):
                pass
        except OSError:
            # an error that closes the connection has done just that, one that delays the answer is
            # not waited for
            pass


class _Answer:
    """Reads an answer's fields one after the other."""

    def __init__(self, data: bytes) -> None:
        self.data = data
        self.at = 0

    def _number(self, layout: str) -> int:
        (number,) = struct.unpack_from(layout, self.data, self.at)
        self.at += struct.calcsize(layout)
        return int(number)

    def int8(self) -> int:
        return self._number(">b")

    def int16(self) -> int:
        return self._number(">h")

    def int32(self) -> int:
        return self._number(">i")

    def text(self) -> str:
        size = self.int16()
        if size < 0:
            return ""
        self.at += size
        return self.data[self.at - size : self.at].decode()


def leaders(port: int, timeout: float) -> dict[str, dict[int, tuple[int, list[int]]]]:
    """Every topic's partitions, as `{topic: {partition: (leader, replicas)}}`. Asking for all
    topics makes none.
    """
    with _connection(port, timeout) as connection:
        connection.sendall(_request(METADATA, 1, struct.pack(">i", -1)))
        with connection.makefile("rb") as stream:
            (size,) = struct.unpack(">i", stream.read(4))
            answer = _Answer(stream.read(size))
    answer.int32()  # correlation id
    for _ in range(answer.int32()):  # brokers: id, host, port, rack
        answer.int32(), answer.text(), answer.int32(), answer.text()
    answer.int32()  # controller
    topics: dict[str, dict[int, tuple[int, list[int]]]] = {}
    for _ in range(answer.int32()):
        answer.int16()  # error
        partitions = topics.setdefault(answer.text(), {})
        answer.int8()  # internal
        for _ in range(answer.int32()):
            answer.int16()  # error
            partition, leader = answer.int32(), answer.int32()
            replicas = [answer.int32() for _ in range(answer.int32())]
            for _ in range(answer.int32()):  # in sync
                answer.int32()
            partitions[partition] = (leader, replicas)
    return topics
