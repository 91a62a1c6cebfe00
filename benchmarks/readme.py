"""Puts measured figures into docs/performance.md and README.md, between their marks.

    make bench ARGS="--output benchmarks/results/calls --case callback-100 ..."
    python -m benchmarks.readme

The figures are those of benchmarks/results/*/results.json. Nothing between the marks is written by
hand, so that no figure is one that nobody measured; tests/unit/test_benchmarks.py compares them.
"""

from __future__ import annotations

import json
import re
from datetime import datetime
from pathlib import Path
from typing import Any

from .report import UNITS

ROOT = Path(__file__).resolve().parents[1]
RESULTS = ROOT / "benchmarks" / "results"
README = ROOT / "README.md"
PERFORMANCE = ROOT / "docs" / "performance.md"

# README's three ratios, by the name of the case in benchmarks/results/calls.
RATIOS = {
    "callback-100": (
        "With a callback for each record: **{:.1f} times** the rate of confluent-kafka."
    ),
    "asyncio-100": (
        "With asyncio and a future for each record: **{:.1f} times** the rate of confluent-kafka."
    ),
    "no-callback-100": (
        "Without callbacks: **{:.2f} times** the rate of a C program with the same librdkafka."
    ),
}


def load(name: str) -> dict[str, Any]:
    results: dict[str, Any] = json.loads((RESULTS / name / "results.json").read_text("utf-8"))
    return results


def figure(value: float, of: str) -> str:
    unit, scale = UNITS[of]
    digits = f"{value / scale:.3g}" if of == "rate" else f"{value / scale:.0f}"
    return f"{digits}&nbsp;{unit}"  # a narrow column must not part them


def table(name: str) -> list[str]:
    """What is compared with what, misses included, and how it was measured."""
    results = load(name)
    lines = [
        "| case | kafka_ext | compared with | | ratio | lowest to highest | wanted |",
        "|---|--:|---|--:|--:|--:|---|",
    ]
    for case in results["cases"]:
        ours, theirs = (figure(value, case["figure"]) for value in case["figures"])
        compared = "{:+.0f} B" if case["figure"] == "memory a message" else "{:.2f}"
        lowest, highest = (compared.format(of(case["ratios"])) for of in (min, max))
        wanted = case["wanted"] if case["reached"] else f"{case['wanted']}: **missed**"
        cells = (case["title"], ours, case["against"], theirs, f"**{case['compared']}**")
        lines.append(f"| {' | '.join(cells)} | {lowest} to {highest} | {wanted} |")
    return [*lines, "", circumstances(name, results)]


def circumstances(name: str, results: dict[str, Any]) -> str:
    machine = results["machine"]
    pairs = min(len(case["ratios"]) for case in results["cases"])
    return (
        f"Measured on {day(results)} at commit `{results['commit'] or 'unknown'}`, {pairs} pairs of"
        f" runs each. {machine['cpu']}, {machine['cores']} cores, {machine['python']};"
        f" {', '.join(results['versions'])}. [Every"
        f" run](../benchmarks/results/{name}/results.json)."
    )


def day(results: dict[str, Any]) -> str:
    started = datetime.fromisoformat(results["started"])
    return f"{started.day} {started:%B %Y}"


def ratios() -> list[str]:
    results = load("calls")
    measured = {case["name"]: case["ratio"] for case in results["cases"]}
    lines = [f"- {text.format(measured[name])}" for name, text in RATIOS.items()]
    cores = results["machine"]["cores"]
    return [
        *lines,
        "",
        f"Records of 100 bytes, all on one machine with {cores} cores, {day(results)}.",
    ]


def filled(page: Path, blocks: dict[str, list[str]]) -> str:
    """The page's text with each block between its marks."""
    text = page.read_text("utf-8")
    for name, lines in blocks.items():
        begin, end = (f"<!-- benchmark:{name}:{mark} -->\n" for mark in ("begin", "end"))
        block = "".join(f"{line}\n" for line in (begin.rstrip(), "", *lines, "", end.rstrip()))
        between = re.compile(f"{re.escape(begin)}.*?{re.escape(end)}", re.DOTALL)
        text, found = between.subn(lambda _, block=block: block, text)
        if found != 1:
            raise SystemExit(
                f"{page}: the marks of benchmark:{name} are there {found} times, not once"
            )
    return text


def pages() -> dict[Path, str]:
    """What the pages must say."""
    return {
        README: filled(README, {"ratios": ratios()}),
        PERFORMANCE: filled(PERFORMANCE, {name: table(name) for name in ("calls", "batches")}),
    }


if __name__ == "__main__":
    for path, text in pages().items():
        path.write_text(text, "utf-8")
