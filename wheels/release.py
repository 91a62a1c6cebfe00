#!/usr/bin/env python3
"""What a tag has to be before anything is published: v and the package's version, on main, with an
entry in the changelog.

python wheels/release.py v0.1.0
"""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

CHECKOUT = Path(__file__).resolve().parent.parent


def complaints(tag: str, checkout: Path) -> list[str]:
    """Why this commit is not that release; empty when it is."""

    def lines(name: str) -> list[str]:
        return (checkout / name).read_text(encoding="utf-8").splitlines()

    version = tag.removeprefix("v")
    found = [] if tag == f"v{version}" else [f"the tag {tag} does not begin with v"]
    for name, line in (
        ("pyproject.toml", f'version = "{version}"'),
        ("kafka_ext/__init__.py", f'__version__ = "{version}"'),
    ):
        if line not in lines(name):
            found.append(f"{name} has no line {line}")
    if not any(
        line.startswith("## ") and version in line.split() for line in lines("CHANGELOG.md")
    ):
        found.append(f"CHANGELOG.md has no section {version}")
    if subprocess.run(
        ["git", "merge-base", "--is-ancestor", "HEAD", "origin/main"],
        cwd=checkout,
        capture_output=True,
    ).returncode:
        found.append("the commit is not on main")
    return found


if __name__ == "__main__":
    (tag,) = sys.argv[1:]
    if found := complaints(tag, CHECKOUT):
        sys.exit("\n".join(["not a release:", *found]))
    print(f"{tag} is a release")
