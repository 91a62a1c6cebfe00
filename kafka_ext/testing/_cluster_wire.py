"""Kafka's protocol as far as a test cluster's own requests need it: flexible versions, over a plain
socket.

librdkafka knows no request for moving a partition or for a quota, and what it knows goes by its own
rules for retrying. These requests are few and small, and go to listeners of the cluster's own that
have neither TLS nor SASL. Source: the message definitions in Apache Kafka's
clients/src/main/resources/common/message.
"""

from __future__ import annotations

import socket
import struct
from collections.abc import Iterable
from typing import Any

_NO_TAGS = b"\0"


def int8(number: int) -> bytes:
    return struct.pack(">b", number)


def int16(number: int) -> bytes:
    return struct.pack(">h", number)


def int32(number: int) -> bytes:
    return struct.pack(">i", number)


def int64(number: int) -> bytes:
    return struct.pack(">q", number)


def float64(number: float) -> bytes:
    return struct.pack(">d", number)


def boolean(value: bool) -> bytes:
    return b"\1" if value else b"\0"


def _unsigned(number: int) -> bytes:
    """A varint."""
    parts = bytearray()
    while number > 0x7F:
        parts.append(number & 0x7F | 0x80)
        number >>= 7
    parts.append(number)
    return bytes(parts)


def text(value: str | None) -> bytes:
    """A compact string, or null."""
    if value is None:
        return b"\0"
    data = value.encode()
    return _unsigned(len(data) + 1) + data


def array(items: Iterable[bytes] | None) -> bytes:
    """A compact array of what is encoded already, or null."""
    if items is None:
        return b"\0"
    parts = list(items)
    return _unsigned(len(parts) + 1) + b"".join(parts)


def struct_(*fields: bytes) -> bytes:
    """Fields, and no tagged ones."""
    return b"".join(fields) + _NO_TAGS


# What an answer is made of: a letter for a field of that type, a tuple for a structure (tagged
# fields follow), a list with one of those for an array.
Layout = str | tuple[Any, ...] | list[Any]

_NUMBERS = {"b": ">b", "h": ">h", "i": ">i", "q": ">q"}  # int8, int16, int32, int64
_UUID = "u"
_TEXT = "s"


class _Answer:
    """Reads an answer's fields one after the other."""

    def __init__(self, data: bytes) -> None:
        self._data = data
        self._at = 0

    def read(self, layout: Layout) -> Any:
        if isinstance(layout, tuple):
            fields = tuple(self.read(field) for field in layout)
            self.tags()
            return fields
        if isinstance(layout, list):
            return [self.read(layout[0]) for _ in range(self._unsigned() - 1)]  # -1: null
        if layout == _UUID:
            return self._take(16)
        if layout == _TEXT:
            size = self._unsigned() - 1
            return None if size < 0 else self._take(size).decode()
        (number,) = struct.unpack(_NUMBERS[layout], self._take(struct.calcsize(_NUMBERS[layout])))
        return number

    def _take(self, size: int) -> bytes:
        self._at += size
        return self._data[self._at - size : self._at]

    def _unsigned(self) -> int:
        number = shift = 0
        while True:
            (part,) = self._take(1)
            number |= (part & 0x7F) << shift
            if part < 0x80:
                return number
            shift += 7

    def tags(self) -> None:
        """Skip the tagged fields."""
        for _ in range(self._unsigned()):
            self._unsigned()
            self._take(self._unsigned())


def ask(
    port: int, api_key: int, version: int, body: bytes, answer: tuple[Any, ...], timeout: float
) -> tuple[Any, ...]:
    """Send one request to the broker behind `port` and wait for its answer, which has this layout.

    Raises:
        OSError: no connection, or no answer in time.
    """
    client = b"kafka_ext.testing"
    # The client id of a request header never is a compact string (header version 2).
    header = struct.pack(">hhih", api_key, version, 1, len(client)) + client + _NO_TAGS
    with socket.create_connection(("127.0.0.1", port), timeout) as connection:
        connection.sendall(struct.pack(">i", len(header) + len(body)) + header + body)
        with connection.makefile("rb") as stream:
            (size,) = struct.unpack(">i", _exactly(stream.read(4), 4))
            reader = _Answer(_exactly(stream.read(size), size))
    reader.read(("i",))  # the header: a correlation id
    fields: tuple[Any, ...] = reader.read(answer)
    return fields


def _exactly(data: bytes, size: int) -> bytes:
    if len(data) < size:
        raise ConnectionResetError("the broker closed the connection without an answer")
    return data
