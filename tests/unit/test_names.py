"""The names of tests are the same in every process, at every time: pytest-xdist runs nothing where
two of its processes disagree.
"""

import os
import subprocess
import sys
from pathlib import Path

import pytest

TESTS = Path(__file__).resolve().parents[1]


def _collected(seed):
    """The names, as a process finds them whose strings have other hashes. Each call is in another
    second, too.
    """
    command = [sys.executable, "-m", "pytest", "--collect-only", "-q", "-p", "no:cacheprovider"]
    command += [TESTS / "unit", TESTS / "embedded", TESTS / "memory"]
    # Without the variables by which pytest-xdist's processes know one another.
    environment = {
        name: value for name, value in os.environ.items() if not name.startswith("PYTEST_")
    }
    done = subprocess.run(
        command,
        cwd=TESTS.parent,
        env=environment | {"PYTHONHASHSEED": str(seed)},
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stdout[-5000:] + done.stderr
    return [line for line in done.stdout.splitlines() if "::" in line]


@pytest.mark.slow(10)
def test_two_processes_give_the_tests_the_same_names():
    first, second = _collected(1), _collected(2)
    assert len(first) > 1000
    assert first == second
