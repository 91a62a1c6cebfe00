"""Reads everything back with another client, and holds it against what the callbacks have said."""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import asdict, dataclass, field
from typing import Any

import numpy as np

from . import records
from .outcomes import DELIVERED, FAILED_NOT, FAILED_POSSIBLY, NO_OFFSET, REFUSED, SENT, UNSENT

_PATIENCE = 60.0
_EXAMPLES = 5  # in a line
_TOLD = 4  # lines of a kind


@dataclass
class Findings:
    """What is in the topic against what was reported. The anomalies of a safe
    producer's are all 0.
    """

    consumed: int = 0
    acknowledged: int = 0
    lost: int = 0  # acknowledged, and not there
    duplicated: int = 0  # there more than once
    reordered: int = 0  # behind a record of the same stream and partition that was sent later
    corrupt: int = 0  # not what was sent, or not where
    never_sent: int = 0  # there, and was not sent, or its send was refused
    failed_but_there: int = 0  # reported as failed and certainly not persisted, and there
    misplaced: int = 0  # acknowledged with an offset where another record is
    unreported: int = 0  # sent, and no callback
    failed: int = 0
    possibly: int = 0  # reported as failed and possibly persisted: allowed to be there or not
    possibly_there: int = 0
    failed_doubled: int = 0  # reported as failed, and there more than once
    without_offset: int = 0  # acknowledged without an offset: the broker knew only that it had them
    examples: list[str] = field(default_factory=list)

    ANOMALIES = (
        "lost",
        "duplicated",
        "reordered",
        "corrupt",
        "never_sent",
        "failed_but_there",
        "misplaced",
        "unreported",
    )

    def anomalies(self) -> dict[str, int]:
        return {name: getattr(self, name) for name in self.ANOMALIES if getattr(self, name)}

    def as_json(self) -> dict[str, Any]:
        return asdict(self)

    def add(self, name: str, count: int, example: str) -> None:
        if count:
            setattr(self, name, getattr(self, name) + int(count))
            if sum(text.startswith(name) for text in self.examples) < _TOLD:
                self.examples.append(f"{name}: {int(count):,}, {example}")


def read(config: dict[str, Any], topic: str, partition: int) -> tuple[np.ndarray, np.ndarray, int]:
    """All of a partition: its records, their offsets, and how many had not the size of a record."""
    from confluent_kafka import Consumer, TopicPartition

    settings = {
        "group.id": "checker",
        "enable.auto.commit": False,
        "auto.offset.reset": "error",
        "queued.max.messages.kbytes": 65_536,
    }
    consumer = Consumer(
        {**config, **settings, "fetch.message.max.bytes": 8 << 20, "check.crcs": True}
    )
    try:
        where = TopicPartition(topic, partition, 0)
        low, high = consumer.get_watermark_offsets(where, timeout=_PATIENCE)
        if low != 0:
            raise RuntimeError(f"{topic}-{partition} begins at {low}")
        consumer.assign([where])
        values, offsets, misshapen = [], [], 0
        next_offset, end = 0, time.monotonic() + _PATIENCE
        while next_offset < high:
            for message in consumer.consume(100_000, timeout=1.0):
                if message.error() is not None:
                    raise RuntimeError(f"{topic}-{partition}: {message.error()}")
                value = message.value() or b""
                if len(value) == records.SIZE:
                    values.append(value)
                    offsets.append(message.offset())
                else:
                    misshapen += 1
                next_offset, end = message.offset() + 1, time.monotonic() + _PATIENCE
            if time.monotonic() > end:
                raise RuntimeError(
                    f"{topic}-{partition} cannot be read beyond {next_offset} of {high}"
                )
        return (
            np.frombuffer(b"".join(values), records.LAYOUT),
            np.array(offsets, np.int64),
            misshapen,
        )
    finally:
        consumer.close()


def check(
    config: dict[str, Any],
    topic: str,
    partitions: int,
    outcomes: Sequence[tuple[np.ndarray, np.ndarray]],
) -> Findings:
    """Read the topic and compare. `outcomes` are each stream's `(states, offsets)` by number."""
    found = Findings()
    for partition in range(partitions):
        log, offsets, misshapen = read(config, topic, partition)
        found.consumed += len(log) + misshapen
        found.add("corrupt", misshapen, f"{topic}-{partition}: of another size")
        good = (
            records.whole(log) & (log["partition"] == partition) & (log["stream"] < len(outcomes))
        )
        found.add(
            "corrupt",
            (~good).sum(),
            f"{topic}-{partition} at {offsets[~good][:_EXAMPLES].tolist()}",
        )
        for stream, (states, reported) in enumerate(outcomes):
            mine = good & (log["stream"] == stream)
            _compare(
                found,
                f"stream {stream} in partition {partition}",
                log["number"][mine],
                offsets[mine],
                states,
                reported,
                partition,
                partitions,
            )
    return found


def _compare(
    found: Findings,
    where: str,
    numbers: np.ndarray,
    offsets: np.ndarray,
    states: np.ndarray,
    reported: np.ndarray,
    partition: int,
    partitions: int,
) -> None:
    """One stream in one partition: `numbers` as they are in the log, and what was reported of the
    stream.
    """
    sent = np.arange(partition, len(states), partitions)
    known = numbers < len(states)
    found.add("never_sent", (~known).sum(), f"{where}: {numbers[~known][:_EXAMPLES].tolist()}")
    numbers, offsets = numbers[known], offsets[known]

    # The first of each, in the order of the log; the others are duplicates.
    unique, first = np.unique(numbers, return_index=True)
    again = np.ones(len(numbers), bool)
    again[first] = False
    doubled = again & (states[numbers] != FAILED_POSSIBLY)
    found.add(
        "duplicated",
        doubled.sum(),
        f"{where}: {numbers[doubled][:_EXAMPLES].tolist()} at"
        f" {offsets[doubled][:_EXAMPLES].tolist()}",
    )
    found.failed_doubled += int((again & ~doubled).sum())
    order = numbers[np.sort(first)].astype(np.int64)
    late = np.zeros(len(order), bool)
    late[1:] = order[1:] < np.maximum.accumulate(order)[:-1]
    found.add("reordered", late.sum(), f"{where}: {order[late][:_EXAMPLES].tolist()}")

    there = np.zeros(len(states), bool)
    there[unique] = True
    state, is_there = states[sent], there[sent]
    acknowledged = state == DELIVERED
    found.acknowledged += int(acknowledged.sum())
    lost = acknowledged & ~is_there
    found.add(
        "lost",
        lost.sum(),
        f"{where}: {sent[lost][:_EXAMPLES].tolist()} reported at"
        f" {reported[sent[lost]][:_EXAMPLES].tolist()}",
    )
    ghosts = np.isin(state, (UNSENT, REFUSED)) & is_there
    found.add("never_sent", ghosts.sum(), f"{where}: {sent[ghosts][:_EXAMPLES].tolist()}")
    denied = (state == FAILED_NOT) & is_there
    found.add("failed_but_there", denied.sum(), f"{where}: {sent[denied][:_EXAMPLES].tolist()}")
    silent = state == SENT
    found.add("unreported", silent.sum(), f"{where}: {sent[silent][:_EXAMPLES].tolist()}")
    possibly = state == FAILED_POSSIBLY
    found.failed += int((possibly | (state == FAILED_NOT)).sum())
    found.possibly += int(possibly.sum())
    found.possibly_there += int((possibly & is_there).sum())

    # An acknowledged record is at the offset that its callback has told, the first of it or a
    # duplicate.
    placed = (states[numbers] == DELIVERED) & (reported[numbers] != NO_OFFSET)
    right = np.zeros(len(states), bool)
    right[numbers[placed & (reported[numbers] == offsets)]] = True
    claimed = acknowledged & (reported[sent] != NO_OFFSET) & is_there
    wrong = claimed & ~right[sent]
    found.add(
        "misplaced",
        wrong.sum(),
        f"{where}: {sent[wrong][:_EXAMPLES].tolist()} reported at"
        f" {reported[sent[wrong]][:_EXAMPLES].tolist()}",
    )
    found.without_offset += int((acknowledged & (reported[sent] == NO_OFFSET)).sum())
