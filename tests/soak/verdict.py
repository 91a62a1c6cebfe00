"""Whether a run was flat and every count right."""

from __future__ import annotations

from collections.abc import Sequence
from statistics import median
from typing import Any

MIB = 1 << 20
# Of this part of the run nothing is held against it: pools, arenas and queues find their size.
WARM_UP = 0.2
# Memory may grow so much after that, in bytes: what allocators and the interpreter do with
# fragments. The messages' own leaks are far
# larger: a byte for each message of half an hour at 50,000 a second is 86 MiB.
GROWTH = 12 * MIB
# Threads and descriptors differ by those of short-lived producers that happen to be there when a
# sample is taken.
SLACK = 24
FEWEST = 20


def windows(samples: Sequence[dict[str, Any]], field: str) -> tuple[float, float]:
    """The medians of a field in the first and the last fifth of what came after the warm-up."""
    counted = [sample[field] for sample in samples[int(len(samples) * WARM_UP) :]]
    fifth = max(1, len(counted) // 5)
    return median(counted[:fifth]), median(counted[-fifth:])


def slope(samples: Sequence[dict[str, Any]], field: str) -> float:
    """How fast a field grows after the warm-up, each second: the median of the slopes between
    samples half of the run apart (Theil-Sen).
    """
    counted = samples[int(len(samples) * WARM_UP) :]
    half = max(1, len(counted) // 2)
    return median(
        (b[field] - a[field]) / (b["t"] - a["t"])
        for a, b in zip(counted, counted[half:], strict=False)
    )


def judge(samples: Sequence[dict[str, Any]]) -> list[str]:
    """What is not as flat as it must be, in words; nothing where all is well."""
    if len(samples) < FEWEST:
        return [f"{len(samples)} samples are too few to tell whether memory grows"]
    wrong = []
    before, after = windows(samples, "rss")
    if after - before > GROWTH:
        wrong.append(
            f"memory has grown from {before / MIB:.1f} to {after / MIB:.1f} MiB after the warm-up,"
            f" by more than {GROWTH / MIB:.0f} MiB"
        )
    for field in ("threads", "descriptors", "handles", "topics", "batches"):
        before, after = windows(samples, field)
        if after - before > SLACK:
            wrong.append(
                f"{field} have become more after the warm-up: {before:g}, and {after:g} at the end"
            )
    return wrong
