"""What was measured, and where: as a table to read and as JSON to keep."""

from __future__ import annotations

import datetime
import json
import os
import platform
import subprocess
import textwrap
from collections.abc import Iterator
from dataclasses import asdict, dataclass, field
from pathlib import Path
from statistics import median
from typing import Any

from .compare import Outcome
from .instructions import OURS, Instructions
from .job import (
    BATCH_SIZE,
    BURST,
    LIBRDKAFKA,
    MOST_MEMORY,
    MOST_VALUES,
    PARTITIONS,
    SEND_TIME,
    WARM_UP,
    Job,
    Measured,
)

UNITS = {
    "rate": ("M/s", 1e6),
    "peak memory": ("MiB", 1.0),
    "time in send": ("ns", 1.0),
    "memory a message": ("B", 1.0),
    "loop delay": ("ms", 1.0),
    "processor time a message": ("ns", 1.0),
    "first delivery": ("ms", 1.0),
}
FUNCTIONS_SHOWN = 12


def machine() -> dict[str, Any]:
    cpu = next(
        (
            line.split(":")[1].strip()
            for line in _lines("/proc/cpuinfo")
            if line.startswith("model name")
        ),
        platform.processor(),
    )
    memory = next(
        (
            int(line.split()[1]) // 1024
            for line in _lines("/proc/meminfo")
            if line.startswith("MemTotal")
        ),
        None,
    )
    return {
        "cpu": cpu,
        "cores": os.cpu_count(),
        "memory_mib": memory,
        "system": platform.platform(),
        "python": f"{platform.python_implementation()} {platform.python_version()}",
    }


def _lines(path: str) -> list[str]:
    try:
        return Path(path).read_text(encoding="utf-8").splitlines()
    except OSError:
        return []


def commit() -> str:
    """The commit measured, with a `+` when files have changed since; empty outside a clone, and
    where there is no git.
    """
    try:
        git = subprocess.run(
            ["git", "describe", "--always", "--dirty=+"],
            cwd=Path(__file__).parent,
            capture_output=True,
            text=True,
        )
    except FileNotFoundError:
        return ""
    return git.stdout.strip() if git.returncode == 0 else ""


@dataclass(kw_only=True)
class Circumstances:
    """Where, when and of what a run was, noted as it begins."""

    machine: dict[str, Any] = field(default_factory=machine)
    commit: str = field(default_factory=commit)
    started: str = field(
        default_factory=lambda: datetime.datetime.now(datetime.timezone.utc).isoformat(
            timespec="seconds"
        )
    )
    load_before: float = field(default_factory=lambda: os.getloadavg()[0])

    def circumstances(self) -> dict[str, Any]:
        return {
            "started": self.started,
            "commit": self.commit,
            "machine": self.machine,
            "load_before": self.load_before,
        }

    def told(self, *paragraphs: str) -> Iterator[str]:
        """How it was measured: this, and what else there is to say."""
        named = "{cpu}, {cores} cores, {memory_mib} MiB; {system}; {python}".format(**self.machine)
        yield "How it was measured"
        for paragraph in (
            (
                f"{self.started}, commit {self.commit or 'unknown'}. {named}; load average before"
                f" it began: {self.load_before:.2f}."
            ),
            *paragraphs,
        ):
            yield from textwrap.wrap(
                paragraph, 110, initial_indent="  ", subsequent_indent="  ", break_on_hyphens=False
            )


@dataclass
class Report(Circumstances):
    """All of one run."""

    outcomes: list[Outcome] = field(default_factory=list)
    overview: dict[Job, list[Measured]] = field(default_factory=dict)
    instructions: Instructions | None = None
    notes: list[str] = field(default_factory=list)  # what was skipped or failed

    @property
    def jobs(self) -> dict[Job, list[Measured]]:
        """Every job with its runs, those of the cases too."""
        jobs = dict(self.overview)
        for outcome in self.outcomes:
            jobs.setdefault(outcome.case.ours, outcome.ours)
            jobs.setdefault(outcome.case.against, outcome.against)
        return jobs

    @property
    def versions(self) -> list[str]:
        return sorted({runs[0].version for runs in self.jobs.values()})

    def to_json(self) -> str:
        jobs = [
            {**asdict(job), "distinct": job.distinct, "runs": [asdict(run) for run in runs]}
            for job, runs in self.jobs.items()
        ]
        cases = [
            {
                "name": outcome.case.name,
                "title": outcome.case.title,
                "figure": outcome.case.figure,
                "against": f"{outcome.case.against.client} {outcome.case.against.way}",
                "figures": outcome.figures,
                "ratio": outcome.ratio,
                "compared": outcome.case.told(outcome.ratio),
                "ratios": outcome.ratios,
                "wanted": outcome.case.wanted,
                "reached": outcome.reached,
            }
            for outcome in self.outcomes
        ]
        document = {
            **self.circumstances(),
            "versions": self.versions,
            "settings": LIBRDKAFKA,
            "partitions": PARTITIONS,
            "cases": cases,
            "instructions": asdict(self.instructions) if self.instructions else None,
            "jobs": jobs,
            "notes": self.notes,
        }
        return json.dumps(document, indent=1)

    def to_text(self) -> str:
        return "\n".join(self._text()) + "\n"

    def _text(self) -> Iterator[str]:
        if self.outcomes:
            yield from table(
                ("", "", "kafka_ext", "against", "", "ratio", "lowest to highest", "wanted", ""),
                map(case_row, self.outcomes),
            )
            yield ""
        rates = {job: runs for job, runs in self.overview.items() if job.way != SEND_TIME}
        if rates:
            heads = (
                "from first send to last report",
                "",
                "M/s",
                "lowest to highest",
                "processor ns a message",
                "peak MiB",
            )
            yield from table(heads, (rate_row(job, runs) for job, runs in rates.items()))
            yield ""
        times = {job: runs for job, runs in self.overview.items() if job.way == SEND_TIME}
        if times:
            rows = (
                (job.client, sized(job), f"{median(run.send_ns or 0 for run in runs):.0f}")
                for job, runs in times.items()
            )
            yield from table(("caller's time in one send, no callback", "", "ns"), rows)
            yield ""
        if self.instructions:
            yield from self._instructions(self.instructions)
            yield ""
        yield from self.notes
        yield from self._how()

    def _instructions(self, counted: Instructions) -> Iterator[str]:
        total = sum(counted.by_owner.values())
        own = counted.by_owner[OURS]
        yield (
            f"{own:.0f} instructions a message in our own code, of {total:.0f} in all (callgrind, a"
            " callback each, 100 B):"
        )
        yield from table(
            ("", ""), ((owner, f"{cost:.0f}") for owner, cost in counted.by_owner.items())
        )
        yield "Our own, by function:"
        shown = [
            (function, f"{cost:.0f}")
            for function, cost in list(counted.ours.items())[:FUNCTIONS_SHOWN]
            if cost >= 0.5
        ]
        yield from table(("", ""), shown)

    def _how(self) -> Iterator[str]:
        settings = ", ".join(f"{name}={value}" for name, value in LIBRDKAFKA.items())
        yield from self.told(
            "; ".join(self.versions) + ".",
            "One broker for all, librdkafka's mock cluster in a process of its own on the same"
            f" machine; {PARTITIONS} partitions. {settings}; everything else as each client's"
            " default. The two that are not built on librdkafka are given the same by their own"
            f" names, and batches of {BATCH_SIZE >> 10} KiB instead of 16, which is faster for"
            " them.",
            "Each run is a process of its own, and its clock goes from the first send to the last"
            f" delivery report, after {WARM_UP} messages that connect and warm up. Ratios are the"
            " medians of those of pairs of runs, ours and the other's in turn. Other figures are"
            " medians.",
            f"Values are distinct objects, as many as messages up to {MOST_VALUES:,} or"
            f" {MOST_MEMORY >> 20} MiB and then in turn; where it says hot, a few are sent again"
            " and again. A callback is a plain Python function that counts.",
            "Peak memory is the whole process', interpreter and values included. For its case a"
            " hundred values are sent in turn, so that the queue is what is seen.",
            f"The caller's time is the median over bursts of {BURST} calls; the reports are awaited"
            " between them.",
            "A first delivery is the median over producers made one after the other, each from its"
            " constructor to the report of a record sent at once, linger and, where it is"
            " transactional, init_transactions included.",
        )


def case_row(outcome: Outcome) -> tuple[str, ...]:
    case = outcome.case
    unit, scale = UNITS[case.figure]
    ours, against = outcome.figures
    who = f"{case.against.client} {case.against.way}" + (
        "" if case.against.size == case.ours.size else f" {sized(case.against)}"
    )
    return (
        case.title,
        unit,
        f"{ours / scale:.3g}",
        f"{against / scale:.3g}",
        who,
        case.told(outcome.ratio),
        f"{case.told(min(outcome.ratios))} to {case.told(max(outcome.ratios))}",
        case.wanted,
        "reached" if outcome.reached else "not reached",
    )


def rate_row(job: Job, runs: list[Measured]) -> tuple[str, ...]:
    rates = [job.count / run.seconds / 1e6 for run in runs]
    return (
        f"{job.client} {job.way}",
        sized(job),
        f"{median(rates):.3g}",
        f"{min(rates):.3g} to {max(rates):.3g}",
        f"{median(run.cpu_seconds for run in runs) * 1e9 / job.count:.0f}",
        f"{max(run.peak_kib for run in runs) / 1024:.0f}",
    )


def sized(job: Job) -> str:
    size = {100: "100 B", 10_000: "10 kB", 1_000_000: "1 MB"}.get(job.size, f"{job.size} B")
    return f"{size} hot" if job.hot else size


def table(heads: tuple[str, ...], rows: Any) -> Iterator[str]:
    """Columns as wide as they need to be; those of numbers to the right."""
    cells = [tuple(str(cell) for cell in row) for row in rows]
    widths = [max(len(row[i]) for row in [heads, *cells]) for i in range(len(heads))]
    for row in [heads, *cells] if any(heads) else cells:
        line = "  ".join(
            cell.rjust(w) if _numeric(i, cells) else cell.ljust(w)
            for i, (cell, w) in enumerate(zip(row, widths, strict=True))
        )
        yield ("  " + line).rstrip()


def _numeric(column: int, rows: list[tuple[str, ...]]) -> bool:
    return all(row[column].replace(".", "", 1).isdigit() for row in rows)
