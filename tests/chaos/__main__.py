"""python -m tests.chaos [--short] [--faults 50] [--records 20000000] [--seed 1] [--output
build/chaos]
"""

from __future__ import annotations

import argparse
import sys
import time
from collections.abc import Sequence
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from tests.soak.verdict import MIB, windows

from . import report
from .campaign import Plan, run

# What the allocator keeps of a queue that was once full is no leak; a byte for each of twenty
# million records is 19 MiB.
GROWTH = 12 * MIB
# A shorter run, in seconds, cannot tell the one from the other: in it the queue fills for the first
# time.
SHORTEST = 300
# What may be found by the campaign of this name.
ALLOWED: dict[str, set[str]] = {
    "safe": set(),
    "timeouts": set(),
    "unsafe": {"lost", "duplicated", "reordered", "misplaced"},
}
# What the unsafe one must find, each by a fault of its own: else the campaign is blind in that eye.
SEEN = {
    "lost": "kill_leader_ahead",
    "duplicated": "lose_responses",
    "reordered": "corrupt_requests",
}
_LONG = {"faults": 52, "records": 20_000_000, "rate": 40_000.0}
_SHORT = {"faults": 9, "records": 1_000_000, "rate": 15_000.0}
# Records are given up before the brokers are back: each must be reported as failed.
_TIMEOUTS: dict[str, Any] = {
    "faults": 4,
    "records": 300_000,
    "rate": 15_000.0,
    "message_timeout": 8.0,
    "blackout": (8.0, 11.0),
}
# The unsafe one only has to show that the campaign can see what it looks for.
_UNSAFE = {"faults": 7, "records": 300_000, "rate": 15_000.0}
_UNSAFE_SHORT = {"faults": 3, "records": 100_000, "rate": 15_000.0}


def arguments(given: Sequence[str] | None = None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        prog="python -m tests.chaos", description=sys.modules["tests.chaos"].__doc__
    )
    parser.add_argument("--short", action="store_true", help="a few minutes, as CI does it")
    parser.add_argument(
        "--faults",
        type=int,
        help=f"how many (default: {_LONG['faults']}; short: {_SHORT['faults']})",
    )
    parser.add_argument(
        "--records",
        type=int,
        help=f"at least so many (default: {_LONG['records']:,}; short: {_SHORT['records']:,})",
    )
    parser.add_argument(
        "--rate",
        type=float,
        help=(
            f"records a second, at most (default: {_LONG['rate']:,.0f}; short:"
            f" {_SHORT['rate']:,.0f})"
        ),
    )
    parser.add_argument(
        "--seed",
        type=int,
        default=1,
        help="of the faults: which, when and to whom (default: %(default)s)",
    )
    parser.add_argument(
        "--kinds",
        help="exactly these faults, separated by commas: to look at one, or to repeat some",
    )
    parser.add_argument(
        "--only", choices=["safe", "timeouts", "unsafe"], help="one of the campaigns"
    )
    parser.add_argument(
        "--output",
        type=Path,
        default=Path("build/chaos"),
        help="where the report goes (default: %(default)s)",
    )
    return parser.parse_args(given)


def plans(options: argparse.Namespace) -> list[Plan]:
    safe: dict[str, Any] = dict(_SHORT if options.short else _LONG)
    safe |= {name: value for name in safe if (value := getattr(options, name)) is not None}
    unsafe: dict[str, Any] = _UNSAFE_SHORT if options.short else _UNSAFE
    if options.kinds is not None:
        safe["kinds"] = unsafe["kinds"] = tuple(options.kinds.split(","))
    all_ = [
        Plan("safe", **safe, seed=options.seed, safe=True),
        Plan("timeouts", **_TIMEOUTS, seed=options.seed, safe=True),
        Plan("unsafe", **unsafe, seed=options.seed, safe=False),
    ]
    # The short form leaves out what takes long and shows a limit.
    wanted = (
        (options.only,)
        if options.only
        else ("safe", "unsafe")
        if options.short
        else ("safe", "timeouts", "unsafe")
    )
    return [plan for plan in all_ if plan.name in wanted]


def judge(result: dict[str, Any]) -> list[str]:
    """What is not as it must be, in words."""
    plan, senders, found, anomalies = (
        result["plan"],
        result["senders"],
        result["findings"],
        result["anomalies"],
    )
    wrong = [f"{plan['name']}: {text}" for text in senders["wrong"]]
    seen = anomalies.keys() & ALLOWED[plan["name"]]
    if forbidden := {
        name: count for name, count in anomalies.items() if name not in ALLOWED[plan["name"]]
    }:
        wrong += [
            f"{plan['name']}: {count:,} records {name.replace('_', ' ')}"
            for name, count in forbidden.items()
        ]
        wrong += found["examples"]
    if plan["name"] == "unsafe":
        suffered = {fault["kind"] for fault in result["faults"]}
        blind = [
            f"{name}, in spite of {fault}"
            for name, fault in SEEN.items()
            if fault in suffered and name not in seen
        ]
        wrong += [
            f"unsafe: nothing was {text}: the campaign cannot see what it looks for"
            for text in blind
        ]
    if plan["name"] == "timeouts" and not senders["failed"]:
        wrong.append("timeouts: nothing has failed: the campaign shows nothing")
    if found["acknowledged"] != senders["delivered"] or found["failed"] != senders["failed"]:
        wrong.append(
            f"{plan['name']}: the callbacks' counts are not the metrics': {found['acknowledged']:,}"
            f" and {senders['delivered']:,}"
        )
    before, after = windows(senders["samples"], "rss")
    if senders["samples"][-1]["t"] < SHORTEST:
        return wrong
    if after - before > GROWTH:
        wrong.append(
            f"{plan['name']}: the senders' memory has grown from {before / MIB:.1f} to"
            f" {after / MIB:.1f} MiB after the warm-up"
        )
    return wrong


def main() -> int:
    options = arguments()
    if find_spec("matplotlib") is None:  # known now, and not after an hour
        sys.exit("the report has pictures, which take matplotlib: pip install matplotlib")
    began = time.monotonic()

    def say(text: str) -> None:
        print(f"{time.monotonic() - began:7.1f} s  {text}", flush=True)

    results: list[dict[str, Any]] = []
    wrong: list[str] = []
    text = ""
    for plan in plans(options):
        results.append(run(plan, options.output / plan.name, say))
        wrong += judge(results[-1])
        text = report.write(
            results, wrong, options.output
        )  # after each: the next one may be interrupted
    print(text)
    return 1 if wrong else 0


if __name__ == "__main__":
    sys.exit(main())
