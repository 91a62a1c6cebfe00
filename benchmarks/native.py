"""The C programs of benchmarks/c, built against the librdkafka that the extension links."""

from __future__ import annotations

import functools
import json
import os
import shlex
import subprocess
import sys
from pathlib import Path

HERE = Path(__file__).resolve().parent
REPOSITORY = HERE.parent
BUILD = REPOSITORY / "build" / "benchmarks"


@functools.cache
def librdkafka() -> Path:
    """The prefix of the bundled librdkafka, built first where it is not there yet."""
    script = [sys.executable, str(REPOSITORY / "wheels" / "librdkafka.py")]
    subprocess.run(script, check=True, stdout=subprocess.DEVNULL)
    where = subprocess.run([*script, "--where"], check=True, capture_output=True, text=True)
    return Path(where.stdout.strip())


@functools.cache
def program(name: str) -> Path:
    """The program made of c/NAME.c; compiled when it is older than its source or librdkafka."""
    prefix = librdkafka()
    archive = prefix / "lib" / "librdkafka.a"
    source, target = HERE / "c" / f"{name}.c", BUILD / name
    if target.exists() and target.stat().st_mtime > max(
        source.stat().st_mtime, archive.stat().st_mtime
    ):
        return target
    libraries = json.loads((prefix / "build-info.json").read_text(encoding="utf-8"))["libraries"]
    BUILD.mkdir(parents=True, exist_ok=True)
    compiler = shlex.split(os.environ.get("CC", "cc"))
    # -isystem: the header's own warnings are not ours.
    flags = ["-O3", "-Wall", "-Wextra", "-Werror", "-isystem", str(prefix / "include")]
    subprocess.run(
        [*compiler, *flags, str(source), str(archive), *libraries, "-o", str(target)], check=True
    )
    return target
