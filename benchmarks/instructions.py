"""Instructions a message, counted by callgrind, and where they go.

Two runs that differ only in their number of messages are counted whole; what one has more than the
other, divided by the messages it has more, is the price of a message. Starting up, connecting and
importing cancel out, and nothing has to be switched on or off in between.
"""

from __future__ import annotations

import re
import shutil
import subprocess
import sys
import tempfile
from collections import Counter
from dataclasses import dataclass, replace
from pathlib import Path

from . import native
from .job import Job
from .run import PYTHON_CLIENTS, JobError

# Few values, so that making them does not count either.
JOB = Job("kafka_ext", "callback", 5_000, 100, hot=1000)
LONGER = 25_000

EXTENSION = "kafka_ext/_rdkafka"
OURS, LIBRDKAFKA, PYTHON, SYSTEM = (
    "kafka_ext",
    "librdkafka and its allocator",
    "CPython",
    "system libraries",
)


@dataclass(frozen=True)
class Instructions:
    """Instructions a message: by whose code they are of, and our own by function."""

    by_owner: dict[str, float]
    ours: dict[str, float]
    messages: int


def missing() -> str | None:
    return None if shutil.which("valgrind") else "valgrind is not installed"


def count(bootstrap_servers: str) -> Instructions:
    with tempfile.TemporaryDirectory() as folder:
        short = _callgrind(JOB, bootstrap_servers, Path(folder, "short"))
        long = _callgrind(replace(JOB, count=LONGER), bootstrap_servers, Path(folder, "long"))
    messages = LONGER - JOB.count
    theirs = _functions_of_librdkafka()
    by_owner = dict.fromkeys((OURS, LIBRDKAFKA, PYTHON, SYSTEM), 0.0)
    ours: dict[str, float] = {}
    for (library, function), cost in long.items():
        a_message = (cost - short[library, function]) / messages
        owner = _owner(library, function, theirs)
        by_owner[owner] += a_message
        if owner == OURS:
            ours[_readable(function)] = ours.get(_readable(function), 0.0) + a_message
    return Instructions(by_owner, dict(sorted(ours.items(), key=lambda item: -item[1])), messages)


def _callgrind(job: Job, bootstrap_servers: str, out: Path) -> Counter[tuple[str, str]]:
    """Each function's own instructions, by (library, function), of all threads."""
    measured = [
        sys.executable,
        "-m",
        "benchmarks.measure",
        PYTHON_CLIENTS[job.client][0],
        job.to_json(),
        bootstrap_servers,
    ]
    command = ["valgrind", "--tool=callgrind", f"--callgrind-out-file={out}", *measured]
    process = subprocess.run(
        command, cwd=native.REPOSITORY, capture_output=True, text=True, timeout=300
    )
    if process.returncode:
        raise JobError(f"callgrind: exit status {process.returncode}\n{process.stderr}")
    return parse(out.read_text(encoding="utf-8", errors="replace"))


def parse(text: str) -> Counter[tuple[str, str]]:
    """Own costs out of a callgrind file. Names are given once, `(7) name`, and by their number from
    then on.
    """
    names: dict[str, dict[str, str]] = {"ob": {}, "fn": {}}
    current = {"ob": "", "fn": ""}
    costs: Counter[tuple[str, str]] = Counter()
    called = False
    for line in text.splitlines():
        if line.startswith(("ob=", "fn=")):
            kind, number, name = line[:2], *_numbered(line[3:])
            current[kind] = names[kind][number] = name or names[kind][number]
        elif line.startswith(("cob=", "cfn=")):
            number, name = _numbered(line[4:])
            if name:
                names[line[1:3]][number] = name
        elif line.startswith("calls="):
            called = (
                True  # the next line is what the call cost inside: the callee has it as its own
            )
        elif line[:1] in "+-*0123456789" and line[:1]:
            if not called:
                costs[current["ob"], current["fn"]] += int(line.split()[1])
            called = False
    return costs


def _numbered(text: str) -> tuple[str, str]:
    number, _, name = text.partition(" ")
    return number, name


def _plain(function: str) -> str:
    """Without what callgrind adds for recursion and gcc for its copies of a function."""
    return re.sub(r"('\d+)$|(\.(isra|constprop|part|cold)(\.\d+)?)+", "", function)


def _functions_of_librdkafka() -> set[str]:
    archive = native.librdkafka() / "lib" / "librdkafka.a"
    listed = subprocess.run(
        ["nm", "--defined-only", "-f", "posix", str(archive)],
        check=True,
        capture_output=True,
        text=True,
    )
    return {_plain(line.split()[0]) for line in listed.stdout.splitlines() if " t " in line.lower()}


def _owner(library: str, function: str, theirs: set[str]) -> str:
    if EXTENSION in library:
        return LIBRDKAFKA if _plain(function) in theirs else OURS
    return PYTHON if "python" in Path(library).name else SYSTEM


def _readable(function: str) -> str:
    """`Producer._send` instead of `__pyx_f_9kafka_ext_8_rdkafka_8Producer__send`."""
    function = _plain(function)
    found = re.fullmatch(r"__pyx_(f|pw|pf|tp_\w+?)_9kafka_ext_8_rdkafka_(\w+)", function)
    if not found:
        return function
    kind, rest = found.groups()
    name = ""
    while length := re.match(
        r"\d+", rest
    ):  # the classes, each with its length before it; then `_` and the function
        start, end = length.end(), length.end() + int(length.group())
        name += rest[start:end] + "."
        rest = rest[end:]
    rest = rest.removeprefix("_") if name else rest
    if kind in ("pw", "pf"):
        rest = re.sub(r"^\d+", "", rest)  # the number Cython gives to wrappers
    return (name + rest).rstrip(".") + {"pw": " (from Python)", "f": "", "pf": ""}.get(
        kind, f" ({kind})"
    )
