"""How the build scripts speak: one line a step, one line an error, and never a Python traceback for
a missing package.
"""

from __future__ import annotations

import os
import shlex
import subprocess
import sys
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path


class BuildError(Exception):
    """The build cannot go on; the message tells the user what to do about it."""


def say(message: str) -> None:
    print(f"[librdkafka] {message}", flush=True)


def warn(message: str) -> None:
    print(f"[librdkafka] warning: {message}", file=sys.stderr, flush=True)


@contextmanager
def step(name: str) -> Iterator[None]:
    start = time.monotonic()
    yield
    say(f"{name}: {time.monotonic() - start:.1f} s")


def jobs() -> int:
    """How many compilers may run at a time."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def run(
    command: Sequence[str | Path],
    *,
    cwd: Path | None = None,
    env: Mapping[str, str] | None = None,
    log: Path | None = None,
) -> str:
    """Run a command and return what it printed; when it fails, show the end of that and where the
    rest is.
    """
    words = [str(word) for word in command]
    try:
        done = subprocess.run(
            words,
            cwd=cwd,
            env=env,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            errors="replace",
        )
    except FileNotFoundError:
        raise BuildError(
            f"{words[0]} is not installed, and is needed to run: {shlex.join(words)}"
        ) from None
    if log is not None:
        log.parent.mkdir(parents=True, exist_ok=True)
        with log.open("a", encoding="utf-8") as out:
            out.write(f"$ {shlex.join(words)}\n{done.stdout}\n")
    if done.returncode:
        tail = "\n".join(done.stdout.splitlines()[-30:])
        whole = f" (the whole log is in {log})" if log is not None else ""
        raise BuildError(
            f"{shlex.join(words)}\nended with status {done.returncode}{whole}:\n{tail}"
        )
    return done.stdout
