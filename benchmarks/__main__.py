"""The command line of the benchmarks."""

from __future__ import annotations

import argparse
import sys

from . import broker
from .cases import CASES
from .compare import Outcome, compare
from .run import missing

UNITS = {"rate": ("M/s", 1e6), "peak memory": ("MiB", 1.0), "time in send": ("ns", 1.0)}


def tell(line: str) -> None:
    print(line, file=sys.stderr, flush=True)


def show(outcome: Outcome) -> str:
    case = outcome.case
    unit, scale = UNITS[case.figure]
    ours, against = (figure / scale for figure in outcome.figures)
    cpu = " against ".join(f"{ns:.0f}" for ns in outcome.cpu_ns)
    ratios = " ".join(f"{ratio:.2f}" for ratio in outcome.ratios)
    return (
        f"{case.title}: {ours:.3g} {unit}, {case.against.client} {case.against.way} {against:.3g} {unit}: "
        f"{outcome.ratio:.2f} ({ratios}), wanted {case.wanted}: {'reached' if outcome.reached else 'not reached'}"
        f" (processor time a message, all threads: {cpu} ns)"
    )


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m benchmarks", description="kafka_ext beside other clients and plain C")
    parser.add_argument("--list", action="store_true", help="name the cases and end")
    parser.add_argument("--case", action="append", choices=[case.name for case in CASES], help="only this one; may be repeated")
    parser.add_argument("--quick", action="store_true", help="one pair of a fifth of the messages: to see that it works, not how fast")
    parser.add_argument("--pairs", type=int, help="how many pairs of runs the median is taken of (default 5)")
    arguments = parser.parse_args()
    if arguments.list:
        for case in CASES:
            print(f"{case.name:20} {case.title}, against {case.against.client} {case.against.way}: {case.figure} {case.wanted}")
        return 0
    pairs = arguments.pairs or (1 if arguments.quick else 5)
    with broker.running() as servers:
        for case in CASES:
            if arguments.case and case.name not in arguments.case:
                continue
            why = missing(case.ours) or missing(case.against)
            if why:
                print(f"{case.title}: skipped, {why}")
                continue
            print(show(compare(case, servers, pairs, 0.2 if arguments.quick else 1.0, tell)), flush=True)
    return 0


if __name__ == "__main__":
    sys.exit(main())
