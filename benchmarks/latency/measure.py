"""The measured process of a Python client: `python -m benchmarks.latency.measure MODULE CLASS LOAD
SERVERS FILE`.

Writes each record's latency to FILE, as 64 bit integers of nanoseconds, in the order of the sends.
"""

from __future__ import annotations

import gc
import importlib
import sys
from array import array
from collections.abc import Callable
from pathlib import Path
from time import monotonic_ns, sleep
from typing import Any, Protocol

from .load import SETTINGS, SIZE, WARM_UP, Load, waits


class Client(Protocol):
    """One way to send and to be told."""

    error_at: int  # which of the two that it gives to callbacks is the error

    def __init__(
        self, settings: dict[str, str], on_delivery: Callable[[Any, Any], None]
    ) -> None: ...

    def send(self, value: bytes) -> None: ...

    def sleep(self, until: int) -> None:
        """Until then, in nanoseconds of the monotonic clock, there is nothing to do."""

    def compute(self, until: int) -> None:
        """Until then the thread computes, in Python and without a pause; a client that is polled,
        is polled once.
        """

    def finish(self) -> None:
        """Until all has been reported."""


def spin(until: int) -> None:
    """Python code that is never done with its GIL, as that of a program at work."""
    while monotonic_ns() < until:
        pass


class Unpolled:
    """What all have in common whom another thread calls back for."""

    producer: Any

    def sleep(self, until: int) -> None:
        sleep(max(0, until - monotonic_ns()) / 1e9)

    def compute(self, until: int) -> None:
        spin(until)

    def finish(self) -> None:
        self.producer.flush()


def measure(kind: type[Client], load: Load, servers: str) -> array[int]:
    sent: list[int] = []
    reported: list[int] = []
    failed: list[object] = []

    error_at = kind.error_at

    def on_delivery(*outcome: Any) -> None:
        reported.append(monotonic_ns())
        if outcome[error_at] is not None:
            failed.append(outcome[error_at])

    client = kind({"bootstrap.servers": servers, **SETTINGS}, on_delivery)
    value = bytes(SIZE)
    for _ in range(WARM_UP):
        client.send(value)
    client.finish()
    reported.clear()
    gc.collect()
    gc.freeze()
    send = client.send
    wait = client.compute if load.busy else client.sleep
    # All made before: what is done after a send, before the thread sleeps, may delay the thread it
    # has woken, on the same core.
    for due in waits(load, monotonic_ns() + 100_000_000):
        wait(due)
        for _ in range(load.at_once):
            sent.append(monotonic_ns())
            send(value)
    client.finish()
    if failed or len(reported) != len(sent):
        raise SystemExit(
            f"{len(sent)} sent, {len(reported)} reported, {len(failed)} of them failed:"
            f" {failed[:1]}"
        )
    return array("q", (b - a for a, b in zip(sent, reported, strict=True)))


if __name__ == "__main__":
    _, module, name, load, servers, target = sys.argv
    Path(target).write_bytes(
        measure(
            getattr(importlib.import_module(module), name), Load.from_json(load), servers
        ).tobytes()
    )
