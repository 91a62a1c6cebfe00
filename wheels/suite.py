#!/usr/bin/env python3
"""Run the whole test suite against an installed package, in an environment and a folder that hold nothing else of this checkout.

    python3.13 wheels/suite.py --package wheelhouse/kafka_ext-….whl             the wheel, under the interpreter this is called with
    python3.13 wheels/suite.py --package . [-- pytest arguments]                built from the checkout, by that interpreter's compiler

It needs Python with pip and venv and nothing else, so that wheels/root.py can take it into a root that has nothing else. The other
packages that tests use are installed where they can be had as wheels, and named where not: their tests are skipped then.
"""

from __future__ import annotations

import argparse
import os
import shutil
import subprocess
import sys
from pathlib import Path

CHECKOUT = Path(__file__).resolve().parent.parent

# What the tests read, beside themselves.
LAID_OUT = ("tests", "benchmarks", "docs", "examples", "include", "README.md", "CHANGELOG.md", "pyproject.toml")

NEEDED = ("pytest>=8", "pytest-timeout>=2.3", "pytest-rerunfailures>=15", "hypothesis>=6.100", "pytest-benchmark>=5", "rich", "sybil>=9")
WANTED = ("numpy>=1.26", "pyarrow>=17", "pandas>=2.2", "polars>=1.10", "duckdb>=1.1", "confluent-kafka>=2.6")


def lay_out(folder: Path) -> None:
    """Copy what the tests need and git knows: whatever else lies about in a checkout could hide that a wheel lacks it."""
    listed = subprocess.run(["git", "ls-files", "-z", *LAID_OUT], cwd=CHECKOUT, capture_output=True, check=True).stdout.decode()
    for name in filter(None, listed.split("\0")):
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        shutil.copy(CHECKOUT / name, folder / name)


def install(python: Path, package: str) -> None:
    pip = [str(python), "-m", "pip", "--disable-pip-version-check", "--quiet", "--no-cache-dir", "install"]
    # No compiler is asked for: what a test is compared with comes as a wheel, or not at all.
    subprocess.run([*pip, "--only-binary", ":all:", *NEEDED], check=True)
    if subprocess.run([*pip, "--only-binary", ":all:", *WANTED], capture_output=True).returncode:
        without = [name for name in WANTED if subprocess.run([*pip, "--only-binary", ":all:", name], capture_output=True).returncode]
        print(f"[suite] no wheels for this interpreter of: {', '.join(without)}", flush=True)
    subprocess.run([*pip, "--force-reinstall", "--no-deps", package], check=True)


def run(python: Path, tests: Path, arguments: list[str]) -> int:
    where = "import kafka_ext._rdkafka as built, sys; print(sys.version.split()[0], built.__file__)"
    asked = subprocess.run([python, "-c", where], cwd=tests, capture_output=True, text=True, check=True).stdout.strip()
    print(f"[suite] {asked}", flush=True)
    if "site-packages" not in asked:
        sys.exit(f"[suite] error: that is not the installed package: {asked}")
    # As `python -m`, for the tests that import benchmarks/ from this folder; there is no kafka_ext in it.
    return subprocess.run(
        [python, "-m", "pytest", "--reruns", "2", "--rerun-except", "from pytest-timeout", "-p", "no:cacheprovider", *arguments], cwd=tests
    ).returncode


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--package", required=True, help="a wheel, an sdist or a checkout")
    parser.add_argument("--work", type=Path, help="a folder for the environment and the tests; emptied first (default: in build/)")
    parser.add_argument("--tests", type=Path, help="where the tests are, when they have been laid out already")
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
