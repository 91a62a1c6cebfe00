"""Pairs of runs, A B A B …, and the median of their ratios."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass, replace
from statistics import median

from .cases import Case
from .job import Job, Measured
from .run import JobError, run


@dataclass(frozen=True)
class Outcome:
    """A case, and what came of its pairs."""

    case: Case
    ours: list[Measured]
    against: list[Measured]

    @property
    def ratios(self) -> list[float]:
        return [self.case.compared(a, b) for a, b in zip(self.ours, self.against, strict=True)]

    @property
    def ratio(self) -> float:
        return median(self.ratios)

    @property
    def figures(self) -> tuple[float, float]:
        """The medians of both sides."""
        case = self.case
        return median(case.of(case.ours, a) for a in self.ours), median(
            case.of(case.against, b) for b in self.against
        )

    @property
    def cpu_ns(self) -> tuple[float, float]:
        """Processor time a message, the medians of both sides: it shows less of what else the
        machine does.
        """
        case = self.case
        return (
            median(a.cpu_seconds for a in self.ours) * 1e9 / case.ours.count,
            median(b.cpu_seconds for b in self.against) * 1e9 / case.against.count,
        )

    @property
    def reached(self) -> bool:
        return self.case.reached(self.ratio)


def shorter(job: Job, scale: float) -> Job:
    count = max(1, round(job.count * scale))
    if job.batch == job.count:
        return replace(job, count=count, batch=count)
    return replace(job, count=max(1, count // job.batch) * job.batch if job.batch else count)


def compare(
    case: Case, bootstrap_servers: str, pairs: int, scale: float, tell: Callable[[str], None]
) -> Outcome:
    case = replace(case, ours=shorter(case.ours, scale), against=shorter(case.against, scale))
    outcome = Outcome(case, [], [])
    for _ in range(pairs):
        outcome.ours.append(run(case.ours, bootstrap_servers))
        outcome.against.append(run(case.against, bootstrap_servers))
        tell(f"{case.name}: pair {len(outcome.ours)} of {pairs}, ratio {outcome.ratios[-1]:.2f}")
    return outcome


def rounds(
    jobs: Iterable[Job], bootstrap_servers: str, count: int, tell: Callable[[str], None]
) -> dict[Job, list[Measured]]:
    """`count` times each of the jobs, in turn; without those that fail, after saying so."""
    measured: dict[Job, list[Measured]] = {job: [] for job in jobs}
    for number in range(1, count + 1):
        for job in list(measured):
            try:
                figures = run(job, bootstrap_servers)
            except JobError as error:
                del measured[job]
                tell(f"overview: failed, {error}")
                continue
            measured[job].append(figures)
            tell(f"overview: round {number} of {count}, {job.name}")
    return measured
