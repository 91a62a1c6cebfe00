"""What a process uses, sampled by a thread: resident memory, threads, descriptors, CPU, and
whatever else is asked for.
"""

from __future__ import annotations

import json
import os
import threading
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from typing_extensions import Self

_PAGE = os.sysconf("SC_PAGE_SIZE")
_TICK = os.sysconf("SC_CLK_TCK")


def resident(pid: int | str = "self") -> int:
    """Bytes of memory that a process has resident, or 0 where it is gone."""
    try:
        return int(Path(f"/proc/{pid}/statm").read_text().split()[1]) * _PAGE
    except (FileNotFoundError, ProcessLookupError):
        return 0


def cpu_seconds(pid: int | str = "self") -> float:
    """CPU time that a process has used so far, all its threads together, or 0 where it is gone."""
    try:
        fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    except (FileNotFoundError, ProcessLookupError):
        return 0.0
    return (int(fields[11]) + int(fields[12])) / _TICK


def threads() -> int:
    return len(os.listdir("/proc/self/task"))


def descriptors() -> int:
    return len(os.listdir("/proc/self/fd")) - 1  # one is the listing's own


class Watch:
    """Takes a sample every `interval` seconds and appends it to `file`.

    So nothing of it stays in the memory that is watched, and a run that is killed can be plotted.
    `more()` gives what else belongs into a sample. Samples have "t", seconds since the watch was
    made.
    """

    def __init__(self, interval: float, file: Path, more: Callable[[], Mapping[str, Any]]) -> None:
        self.start = time.monotonic()
        self._interval = interval
        self._file = file
        self._file.write_text("")
        self._writing = threading.Lock()
        self._more = more
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._run, name="watch", daemon=True)

    def now(self) -> float:
        return time.monotonic() - self.start

    def sample(self) -> dict[str, Any]:
        return {
            "t": round(self.now(), 3),
            "rss": resident(),
            "threads": threads(),
            "descriptors": descriptors(),
            "cpu": cpu_seconds(),
            **self._more(),
        }

    def take(self) -> None:
        """A sample now."""
        line = json.dumps(self.sample()) + "\n"
        with self._writing, open(self._file, "a", encoding="ascii") as file:
            file.write(line)

    @property
    def samples(self) -> list[dict[str, Any]]:
        """All that were taken so far, from the file."""
        with open(self._file, encoding="ascii") as file:
            return [json.loads(line) for line in file]

    def _run(self) -> None:
        while not self._stop.wait(self._interval):
            self.take()

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(self, *exc_info: object) -> None:
        self._stop.set()
        self._thread.join(60)
