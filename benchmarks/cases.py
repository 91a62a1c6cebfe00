"""What is compared with what, and how far it must get."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from .job import Job, Measured


@dataclass(frozen=True)
class Case:
    """A row of the table: two jobs, and the ratio of a figure of theirs. Ratios are of a pair of runs, one right after the other."""

    name: str
    title: str
    ours: Job
    against: Job
    figure: Literal["rate", "peak memory", "time in send"]
    at_least: float | None = None
    at_most: float | None = None

    def of(self, job: Job, measured: Measured) -> float:
        """The figure: messages a second, MiB or nanoseconds."""
        if self.figure == "rate":
            return job.count / measured.seconds
        if self.figure == "peak memory":
            return measured.peak_kib / 1024
        assert measured.send_ns is not None
        return measured.send_ns

    def reached(self, ratio: float) -> bool:
        return ratio >= self.at_least if self.at_least is not None else ratio <= (self.at_most or 0.0)

    @property
    def wanted(self) -> str:
        return f"at least {self.at_least:g}" if self.at_least is not None else f"at most {self.at_most:g}"


CASES = (
    Case(
        name="callback-100",
        title="a callback each, 100 B",
        ours=Job("kafka_ext", "callback", 1_000_000, 100),
        against=Job("confluent-kafka", "callback", 1_000_000, 100),
        figure="rate",
        at_least=3.0,
    ),
    Case(
        name="callback-10k",
        title="a callback each, 10 kB",
        ours=Job("kafka_ext", "callback", 200_000, 10_000),
        against=Job("confluent-kafka", "callback", 200_000, 10_000),
        figure="rate",
        at_least=2.0,
    ),
    Case(
        name="no-callback-100",
        title="no callback, 100 B",
        ours=Job("kafka_ext", "no-callback", 2_000_000, 100),
        against=Job("C", "produce", 2_000_000, 100),
        figure="rate",
        at_least=0.8,
    ),
)
