"""Puts what `make bench` measured into README.md and docs/performance.md, between their marks.

    python -m benchmarks.readme [FOLDER]        where results.json, results.txt and results.png are (build/benchmarks)

Nothing there is written by hand, so that no figure is one that nobody measured.
"""

from __future__ import annotations

import json
import re
import shutil
import sys
from pathlib import Path
from typing import Any

from .native import BUILD
from .report import UNITS

ROOT = Path(__file__).resolve().parents[1]
PICTURE = "docs/_static/benchmark.png"
MARKS = re.compile(r"(<!-- benchmark:begin -->\n).*?(<!-- benchmark:end -->)", re.DOTALL)
ALT = "Throughput, memory and time in send, of this package and others"


def figure(value: float, of: str) -> str:
    unit, scale = UNITS[of]
    return f"{value / scale:.3g} {unit}" if of == "rate" else f"{value / scale:.0f} {unit}"


def cases(results: dict[str, Any]) -> list[str]:
    """The table of what is compared with what, misses and all."""
    lines = ["| case | kafka_ext | against | | ratio | wanted |", "|---|--:|---|--:|--:|---|"]
    for case in results["cases"]:
        ours, against = (figure(value, case["figure"]) for value in case["figures"])
        wanted = case["wanted"] if case["reached"] else f"{case['wanted']}: **not reached**"
        lines.append(f"| {case['title']} | {ours} | {case['against']} | {against} | **{case['compared']}** | {wanted} |")
    return lines


def where(results: dict[str, Any]) -> str:
    machine = results["machine"]
    return (
        f"{machine['cpu']}, {machine['cores']} cores, {machine['python']}; linger 5 ms, acks all; the broker is librdkafka's mock "
        f"cluster in a process of its own on the same machine. Ratios are medians of pairs of runs. Measured {results['started'][:10]} at "
        f"`{results['commit'] or 'unknown'}`."
    )


def fill(page: Path, block: list[str]) -> None:
    text, found = MARKS.subn(lambda marks: marks[1] + "\n".join(block) + "\n" + marks[2], page.read_text(encoding="utf-8"))
    if found != 1:
        sys.exit(f"{page}: the marks of the benchmark's block are there {found} times, not once")
    page.write_text(text, encoding="utf-8")


def main(folder: Path) -> None:
    results = json.loads((folder / "results.json").read_text(encoding="utf-8"))
    table = cases(results)
    picture = (folder / "results.png").is_file()
    if picture:
        shutil.copyfile(folder / "results.png", ROOT / PICTURE)
    drawn = [f"![{ALT}]({PICTURE})", ""] if picture else []
    fill(ROOT / "README.md", [*drawn, *table, "", f"{where(results)} [How, and all the rest](docs/performance.md)"])
    drawn = [f"![{ALT}]({PICTURE.removeprefix('docs/')})", ""] if picture else []
    listing = ["```text", (folder / "results.txt").read_text(encoding="utf-8").rstrip(), "```"]
    fill(ROOT / "docs/performance.md", [*drawn, *table, "", where(results), "", *listing])


if __name__ == "__main__":
    main(Path(sys.argv[1]) if len(sys.argv) > 1 else BUILD)
