#!/usr/bin/env python3
"""The table of wheels in docs/installation.md: what `cibuildwheel --print-build-identifiers` says,
asked for each platform.

python wheels/matrix.py --write     put it there
python wheels/matrix.py --check     fail when it is not what is there
"""

from __future__ import annotations

import argparse
import re
import sys
from pathlib import Path

from console import BuildError, run

CHECKOUT = Path(__file__).resolve().parent.parent
PAGE = CHECKOUT / "docs/installation.md"
PLATFORMS = {"linux": ("x86_64", "aarch64"), "macos": ("x86_64", "arm64")}
BEGIN, END = "<!-- wheels:begin -->", "<!-- wheels:end -->"
NAMES = {
    "manylinux": "Linux, glibc 2.28 or newer",
    "musllinux": "Linux, musl 1.2 or newer",
    "macosx": "macOS 11 or newer",
}


def identifiers() -> list[str]:
    """As in cp314t-manylinux_x86_64, in cibuildwheel's order."""
    found: list[str] = []
    for platform, archs in PLATFORMS.items():
        for arch in archs:
            asked = [
                sys.executable,
                "-m",
                "cibuildwheel",
                "--platform",
                platform,
                "--archs",
                arch,
                "--print-build-identifiers",
            ]
            found += run(asked, cwd=CHECKOUT).split()
    return found


def table(wheels: list[str]) -> str:
    pythons = sorted(
        {wheel.partition("-")[0] for wheel in wheels},
        key=lambda tag: (int(tag[2:].rstrip("t")), tag),
    )
    platforms = list(dict.fromkeys(wheel.partition("-")[2] for wheel in wheels))

    def version(tag: str) -> str:
        return f"{tag[2]}.{tag[3:]}"

    lines = [f"| | {' | '.join(map(version, pythons))} |", f"|---|{':-:|' * len(pythons)}"]
    for platform in platforms:
        kind, _, arch = platform.partition("_")
        cells = ["yes" if f"{python}-{platform}" in wheels else "" for python in pythons]
        lines.append(f"| {NAMES[kind]}, {arch.replace('_', '-')} | {' | '.join(cells)} |")
    return "\n".join(lines)


def main() -> int:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    what = parser.add_mutually_exclusive_group(required=True)
    what.add_argument("--write", action="store_true")
    what.add_argument("--check", action="store_true")
    arguments = parser.parse_args()
    try:
        wheels = identifiers()
    except BuildError as error:
        print(error, file=sys.stderr)
        return 1
    text = PAGE.read_text(encoding="utf-8")
    fresh = re.sub(f"{BEGIN}.*{END}", f"{BEGIN}\n{table(wheels)}\n{END}", text, flags=re.DOTALL)
    if BEGIN not in text:
        print(f"{PAGE} has no {BEGIN}", file=sys.stderr)
        return 1
    if arguments.write:
        PAGE.write_text(fresh, encoding="utf-8")
    elif fresh != text:
        print(
            f"the table in {PAGE} is not what cibuildwheel builds: python wheels/matrix.py --write",
            file=sys.stderr,
        )
        return 1
    print(f"{len(wheels)} wheels, as docs/installation.md says")
    return 0


if __name__ == "__main__":
    sys.exit(main())
