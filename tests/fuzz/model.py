"""What is right: what an argument means, what a call must do with it, and where a record must be found."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any


@dataclass(frozen=True)
class Refused:
    """The argument must be refused with a TypeError or ValueError that names it by one of these words."""

    names: tuple[str, ...] = ()


@dataclass
class Given:
    """An argument and what it means: bytes, None, a number, pairs…, or Refused."""

    what: str
    given: Any
    means: Any

    def __repr__(self) -> str:
        return f"<{self.what}: {self.given!r}>"


class Out:
    """A partition that no topic here has."""

    def __repr__(self) -> str:
        return "Out"


OUT = Out()


@dataclass
class Expected:
    """One record that was accepted: what must be read back."""

    topic: str
    value: bytes | None
    key: bytes | None = None
    partition: int | Out | None = None
    headers: list[tuple[str, bytes | None]] = field(default_factory=list)
    timestamp: int | None = None


def murmur2(data: bytes) -> int:
    """The Java client's hash of a key (org.apache.kafka.common.utils.Utils.murmur2), as the positive number it partitions by."""
    m, mask = 0x5BD1E995, 0xFFFFFFFF
    h = (0x9747B28C ^ len(data)) & mask
    whole = len(data) & ~3
    for at in range(0, whole, 4):
        k = int.from_bytes(data[at : at + 4], "little") * m & mask
        k = (k ^ k >> 24) * m & mask
        h = (h * m & mask) ^ k
    rest = data[whole:]
    if rest:
        h = (h ^ int.from_bytes(rest, "little")) * m & mask
    h = (h ^ h >> 13) * m & mask
    return (h ^ h >> 15) & 0x7FFFFFFF


def difference(expected: Expected, message: Any, partitions: int, started: int) -> str | None:
    """What is not as it must be of a message that was read back; None when all is."""
    wrong = []
    if message.value != expected.value:
        wrong.append(f"value {message.value!r}, not {expected.value!r}")
    if message.key != expected.key:
        wrong.append(f"key {message.key!r}, not {expected.key!r}")
    if [tuple(pair) for pair in message.headers or ()] != expected.headers:
        wrong.append(f"headers {message.headers!r}, not {expected.headers!r}")
    partition = expected.partition
    if partition is None and expected.key is not None:
        partition = murmur2(expected.key) % partitions
    if partition is not None and message.partition != partition:
        wrong.append(f"partition {message.partition}, not {partition}")
    if expected.timestamp is None:
        if not started - 60_000 < message.timestamp < started + 3_600_000:
            wrong.append(f"timestamp {message.timestamp}, not now")
    elif message.timestamp != expected.timestamp:
        wrong.append(f"timestamp {message.timestamp}, not {expected.timestamp}")
    return "; ".join(wrong) or None
