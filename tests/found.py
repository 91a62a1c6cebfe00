"""Replay every defect that strangers found in this package: `python -m tests.found [pytest's
arguments]`.

Each test that keeps such a defect away is marked `@pytest.mark.found(row)`, `row` being its number
in the list below. This runs them all, those on real Apache Kafka included, says how many tests
stand for each row, and fails when a row has none or a test fails or is skipped.
"""

from __future__ import annotations

import collections
import json
import os
import subprocess
import sys
import tempfile
from pathlib import Path

import pytest

HERE = Path(__file__).resolve().parent

ROWS = {
    1: "records sent after purge() are lost",
    2: "an abort is fatal",
    3: "a commit that was given up commits the next transaction",
    4: "a block that lost a record commits",
    5: "an asyncio send joins a transaction that is ending",
    6: "the wrong topic, by a str subclass",
    7: "addresses sent as values",
    8: "other data than meant",
    9: "headers from an iterator vanish",
    10: "message.timeout.ms is overrun",
    11: "a coroutine function as on_delivery never runs",
    12: "KafkaHandler drops log records",
    13: "close(timeout) waits for user code inside a send",
    14: "finalizers that send deadlock",
    15: "waits on the wall clock",
    16: "gevent and eventlet",
    17: "a future waited for in a callback",
    18: "AsyncKafkaProducer loses KeyboardInterrupt, leaks, cannot be closed",
    19: "lose_acks() closes duplicates of every descriptor",
    20: "EmbeddedBroker aborts the process",
    21: "calls go on after another thread's close",
    22: "batch callbacks come last batch first",
    23: "configuration is read by prefix",
    24: "times: NaT, naive, out of range, all-null columns",
    25: "first contact: wrong arguments, floods, causes not said",
    26: "offsets of -1001, group metadata",
    27: "BufferError is two things",
    28: "objects: pickle, copy, equality, signatures",
    29: "the command line: no address, compressed input, ASCII",
    30: "memory read past a column",
    31: "a wrong checksum falls back",
    32: "workflows that are not pinned",
    33: "credentials in a registry's URL",
    34: "the command line repeats secrets",
    35: "secrets in UnicodeErrors",
    36: "secrets not masked",
    37: "SSL_CERT_FILE that names nothing is passed over",
    38: "a hostile registry",
    39: "unbounded exceptions and topics",
}


# the file in which a run of pytest leaves them, a line of JSON for each test
OUTCOMES = "KAFKA_EXT_FOUND_OUTCOMES"


# What follows is a pytest plugin, of xdist's workers too: they know the marks, and reports bring
# the rows to whoever counts.


def pytest_itemcollected(item: pytest.Item) -> None:
    rows = [row for marker in item.iter_markers("found") for row in marker.args]
    item.user_properties.append(("found", rows))


def pytest_runtest_logreport(report: pytest.TestReport) -> None:
    if "PYTEST_XDIST_WORKER" not in os.environ and (
        report.when == "call" or report.outcome != "passed"
    ):
        with open(os.environ[OUTCOMES], "a", encoding="utf-8") as file:
            print(json.dumps([dict(report.user_properties)["found"], report.outcome]), file=file)


def run(folder: Path, arguments: list[str], outcomes: dict[int, collections.Counter[str]]) -> int:
    """Run a folder's marked tests in a process of their own, for files in several folders have the
    same names.
    """
    with tempfile.NamedTemporaryFile("r", encoding="utf-8") as file:
        command = [
            sys.executable,
            "-m",
            "pytest",
            str(folder),
            "-m",
            "found",
            "-p",
            "tests.found",
            *arguments,
        ]
        status = subprocess.run(
            command, cwd=HERE.parent, env={**os.environ, OUTCOMES: file.name}, check=False
        ).returncode
        for rows, outcome in map(json.loads, file):
            for row in rows:
                outcomes[row][outcome] += 1
    return 0 if status == pytest.ExitCode.NO_TESTS_COLLECTED else status


def main(arguments: list[str]) -> int:
    outcomes: dict[int, collections.Counter[str]] = {row: collections.Counter() for row in ROWS}
    status = max(
        [
            run(HERE / name, arguments, outcomes)
            for name in ("unit", "embedded", "memory", "cluster")
        ]
    )
    missing = []
    print("\nrow  tests  what was found")
    for row, what in ROWS.items():
        note = ", ".join(
            f"{count} {name}" for name, count in outcomes[row].items() if name != "passed"
        )
        if not outcomes[row]["passed"] or note:
            missing.append(row)
        print(f"{row:3}  {outcomes[row]['passed']:5}  {what}{f' ({note})' if note else ''}")
    if missing:
        print(f"not shown: {', '.join(map(str, missing))}")
    return status or bool(missing)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
