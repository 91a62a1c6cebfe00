"""Who sends, how, and what comes of it. It crosses a process border as JSON."""

from __future__ import annotations

import json
from array import array
from dataclasses import asdict, dataclass

from ..job import LIBRDKAFKA

TOPIC = "latency"
SIZE = 100
WARM_UP = 200

# One partition: there, reports come in the order of the sends, so the n-th callback belongs to the
# n-th send.
PARTITIONS = 1

SETTINGS = {**LIBRDKAFKA, "linger.ms": "0"}


@dataclass(frozen=True)
class Load:
    """`at_once` records every `interval_us`, on a schedule that a late send does not shift, `turns`
    times.
    """

    name: str
    title: str
    turns: int
    interval_us: int
    at_once: int
    busy: bool = False  # between its sends the sending thread computes, where it else sleeps

    @property
    def count(self) -> int:
        return self.turns * self.at_once

    def to_json(self) -> str:
        return json.dumps(asdict(self))

    @classmethod
    def from_json(cls, text: str) -> Load:
        return cls(**json.loads(text))


LOADS = (
    Load("light", "light: 1,000 a second", turns=4000, interval_us=1000, at_once=1),
    Load(
        "busy",
        "light, and the sender computes in between",
        turns=4000,
        interval_us=1000,
        at_once=1,
        busy=True,
    ),
    Load("heavy", "heavy: 250,000 a second", turns=2000, interval_us=1000, at_once=250),
    Load("burst", "bursts of 5,000, five a second", turns=20, interval_us=200_000, at_once=5000),
)

# What is measured, by the name the figures have. The module with its class, None:
# benchmarks/c/latency.c.
CLIENTS = {
    "kafka_ext": ("benchmarks.latency.ours", "EventsThread"),
    "kafka_ext, polled": ("benchmarks.latency.ours", "Polled"),
    "confluent-kafka": ("benchmarks.latency.confluent", "PollingThread"),
    "C": None,
}

# Where a distribution is looked at: each percent, and ever closer to the end.
PERCENTILES = (
    *map(float, range(100)),
    *(99 + i / 10 for i in range(1, 10)),
    *(99.9 + i / 100 for i in range(1, 10)),
    100.0,
)


def percentiles(latencies: array[int]) -> list[float]:
    """Microseconds at PERCENTILES, of nanoseconds: the smallest that this share of the records does
    not exceed.
    """
    ordered = sorted(latencies)
    return [ordered[max(0, -int(-len(ordered) * p // 100) - 1)] / 1000 for p in PERCENTILES]


def waits(load: Load, start: int) -> list[int]:
    """When each turn is due, in nanoseconds of the clock of `start`."""
    return [start + turn * load.interval_us * 1000 for turn in range(load.turns)]
