"""The command line of the benchmarks."""

from __future__ import annotations

import argparse
import sys
import time
from collections.abc import Callable
from importlib.util import find_spec
from pathlib import Path

from . import broker, instructions, native, plot
from .cases import CASES, OVERVIEW
from .compare import compare, rounds, shorter
from .report import Report
from .run import JobError, missing

QUICK = 0.1
OVERVIEW_ROUNDS = 3


def parser() -> argparse.ArgumentParser:
    names = [case.name for case in CASES]
    result = argparse.ArgumentParser(
        prog="python -m benchmarks",
        description=(
            "kafka_ext beside confluent-kafka, aiokafka, kafka-python and plain C, on one broker"
            " that it starts itself."
        ),
        epilog="The exit status says whether everything could be measured, not how fast it was.",
    )
    result.add_argument("--list", action="store_true", help="what can be measured, and end")
    result.add_argument(
        "--case",
        action="append",
        metavar="NAME",
        choices=[*names, "overview", "instructions"],
        help="only this; may be given again",
    )
    result.add_argument(
        "--quick",
        action="store_true",
        help="a tenth of the messages, one pair: shows that it works, not how fast it is",
    )
    result.add_argument(
        "--pairs",
        type=int,
        metavar="N",
        help="pairs of runs, of whose ratios the median is taken (5; quick: 1)",
    )
    result.add_argument(
        "--output",
        type=Path,
        default=native.BUILD,
        metavar="FOLDER",
        help="for results.json, results.txt and results.png (%(default)s)",
    )
    return result


def show_list() -> None:
    for case in CASES:
        print(
            f"{case.name:16} {case.title}: {case.figure}, against {case.against.name}; wanted"
            f" {case.wanted}"
        )
    print(f"{'overview':16} {len(OVERVIEW)} ways of sending, each in {OVERVIEW_ROUNDS} rounds:")
    for job in OVERVIEW:
        print(f"{'':16}   {job.name}")
    print(f"{'instructions':16} instructions a message in our own code, by callgrind")


def main() -> int:
    arguments = parser().parse_args()
    if arguments.list:
        show_list()
        return 0
    scale = QUICK if arguments.quick else 1.0
    pairs = arguments.pairs or (1 if arguments.quick else 5)
    began = time.monotonic()
    report = Report()
    failed = False

    def tell(line: str) -> None:
        print(f"[{time.monotonic() - began:4.0f} s] {line}", file=sys.stderr, flush=True)

    def wanted(name: str) -> bool:
        return not arguments.case or name in arguments.case

    def note(line: str) -> None:
        report.notes.append(line)
        tell(line)

    with broker.running() as servers:
        for case in CASES:
            if not wanted(case.name):
                continue
            if why := missing(case.ours) or missing(case.against):
                note(f"{case.name}: skipped, {why}")
                continue
            try:
                report.outcomes.append(compare(case, servers, pairs, scale, tell))
            except JobError as error:
                failed = True
                note(f"{case.name}: failed, {error}")
        if wanted("instructions"):
            if why := instructions.missing():
                note(f"instructions: skipped, {why}")
            else:
                tell("instructions: two runs under callgrind")
                try:
                    report.instructions = instructions.count(servers)
                except JobError as error:
                    failed = True
                    note(f"instructions: failed, {error}")
        if wanted("overview"):
            for why in sorted({why for job in OVERVIEW if (why := missing(job))}):
                note(f"overview: skipped, {why}")
            # What the cases have measured already is not measured again.
            jobs = [shorter(job, scale) for job in OVERVIEW if not missing(job)]
            known = {job: runs for job, runs in report.jobs.items() if job in jobs}
            others = rounds(
                [job for job in jobs if job not in known],
                servers,
                1 if arguments.quick else OVERVIEW_ROUNDS,
                tell,
            )
            report.overview = {job: (known | others)[job] for job in jobs if job in known | others}
            failed |= len(report.overview) < len(jobs)

    print(report.to_text(), end="")
    save(report, arguments.output, tell)
    return 1 if failed else 0


def save(report: Report, folder: Path, tell: Callable[[str], None]) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "results.json").write_text(report.to_json() + "\n", encoding="utf-8")
    (folder / "results.txt").write_text(report.to_text(), encoding="utf-8")
    drawn = {
        "results.png": (plot.draw, report.overview),
        "batches.png": (plot.draw_batches, any(job.batch == 1000 for job in report.jobs)),
    }
    for name, (draw, there) in drawn.items():
        if there and find_spec("matplotlib"):
            draw(report, folder / name)
        elif there:
            tell(f"no {name}: matplotlib is not installed (the extra kafka-ext[bench] has it)")


if __name__ == "__main__":
    sys.exit(main())
