#!/usr/bin/env python3
"""Run the whole test suite against an installed package, in an environment and a folder that hold
nothing else of this checkout.

    python3.13 wheels/suite.py --package wheelhouse/kafka_ext-….whl             the wheel, under the
    interpreter this is called with python3.13 wheels/suite.py --package . [-- pytest arguments]
    built from the checkout, by that interpreter's compiler

It needs Python with pip and venv and nothing else, so that wheels/root.py can take it into a root
that has nothing else. The other packages that tests use are installed where they can be had as
wheels, and named where not: their tests are skipped then.
"""

from __future__ import annotations

import argparse
import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

CHECKOUT = Path(__file__).resolve().parent.parent

# What the tests read, beside themselves.
LAID_OUT = (
    "tests",
    "benchmarks",
    "docs",
    "examples",
    "include",
    "README.md",
    "CHANGELOG.md",
    "pyproject.toml",
)

# Without these no test runs. Of what else the extra `test` names, a package that has no wheel here
# is left out.
NEEDED = {
    "hypothesis",
    "pytest",
    "pytest-benchmark",
    "pytest-timeout",
    "pytest-xdist",
    "rich",
    "sybil",
}


def lay_out(folder: Path) -> None:
    """Copy what the tests need and git knows: whatever else lies about in a checkout could hide
    that a wheel lacks it.
    """
    listed = subprocess.run(
        ["git", "ls-files", "-z", *LAID_OUT], cwd=CHECKOUT, capture_output=True, check=True
    ).stdout.decode()
    for name in filter(None, listed.split("\0")):
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        shutil.copy(CHECKOUT / name, folder / name)


def wanted(python: Path) -> list[str]:
    """What the installed package's extra `test` asks for."""
    names = "from importlib.metadata import requires; print(*requires('kafka-ext'), sep='\\n')"
    listed = subprocess.run(
        [python, "-c", names], capture_output=True, text=True, check=True
    ).stdout.splitlines()
    split = [line.partition(";") for line in listed]
    return [
        requirement.strip()
        for requirement, _, marker in split
        if re.search(r"""extra == ["']test["']""", marker)
    ]


def install(python: Path, package: str) -> None:
    pip = [
        str(python),
        "-m",
        "pip",
        "--disable-pip-version-check",
        "--quiet",
        "--no-cache-dir",
        "install",
    ]
    # No compiler is asked for: what a test is compared with comes as a wheel, or not at all.
    binary = [*pip, "--only-binary", ":all:"]
    subprocess.run([*pip, "--no-deps", package], check=True)
    asked = wanted(python)
    subprocess.run(
        [*binary, *(name for name in asked if re.split(r"[\[<>=~!]", name)[0] in NEEDED)],
        check=True,
    )
    if subprocess.run([*binary, *asked], capture_output=True).returncode:
        without = []
        for name in asked:
            bare = re.sub(r"\[.*?\]", "", name)  # rather without its own extras than not at all
            if all(
                subprocess.run([*binary, spelled], capture_output=True).returncode
                for spelled in dict.fromkeys((name, bare))
            ):
                without.append(name)
        print(f"[suite] no wheels for this interpreter of: {', '.join(without)}", flush=True)


def run(python: Path, tests: Path, arguments: list[str]) -> int:
    where = "import kafka_ext._rdkafka as built, sys; print(sys.version.split()[0], built.__file__)"
    asked = subprocess.run(
        [python, "-c", where], cwd=tests, capture_output=True, text=True, check=True
    ).stdout.strip()
    print(f"[suite] {asked}", flush=True)
    if "site-packages" not in asked:
        sys.exit(f"[suite] error: that is not the installed package: {asked}")
    # As `python -m`, for the tests that import benchmarks/ from this folder; there is no kafka_ext
    # in it.
    return subprocess.run(
        [python, "-m", "pytest", "-p", "no:cacheprovider", *arguments], cwd=tests
    ).returncode


def main() -> int:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--package", required=True, help="a wheel, an sdist or a checkout")
    parser.add_argument(
        "--work",
        type=Path,
        help="a folder for the environment and the tests; emptied first (default: in build/)",
    )
    parser.add_argument(
        "--tests", type=Path, help="where the tests are, when they have been laid out already"
    )
    parser.add_argument("pytest", nargs="*", help="further arguments for pytest, after --")
    arguments = parser.parse_args()
    tag = f"{sys.version_info[0]}.{sys.version_info[1]}{getattr(sys, 'abiflags', '')}"
    work: Path = arguments.work or CHECKOUT / f"build/suite-{tag}"
    shutil.rmtree(work, ignore_errors=True)
    work.mkdir(parents=True)
    tests = arguments.tests
    if tests is None:
        tests = work / "tests"
        lay_out(tests)
    subprocess.run([sys.executable, "-m", "venv", work / "venv"], check=True)
    python = work / "venv/bin/python"
    package = str(Path(arguments.package).resolve())
    install(python, package)
    os.environ.pop("PYTHONPATH", None)
    return run(python, tests, arguments.pytest)


if __name__ == "__main__":
    sys.exit(main())
