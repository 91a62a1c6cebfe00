"""One broker of a KafkaCluster: a Java process, its files, and the signals it gets."""

from __future__ import annotations

import os
import signal
import subprocess
import threading
from collections.abc import Mapping, Sequence
from pathlib import Path

from ._cluster_guard import Guard
from ._faults import BrokerStateError
from ._stopping import stop_process
from .cluster_artifacts import Installation

# A broker that shuts down in order hands its partitions over first.
_STOP_TIMEOUT = 60.0
_LAST_LINES = 25


class Node:
    """A broker's process, which can be started more than once on the same data. Methods are
    thread-safe.
    """

    def __init__(
        self,
        number: int,
        folder: Path,
        settings: Mapping[str, str],
        installation: Installation,
        options: Sequence[str],
        guard: Guard,
    ) -> None:
        self.number = number
        self.folder = folder
        self.data = folder / "data"
        self.log = folder / "broker.log"
        self.properties = folder / "node.properties"
        self.properties.write_text(
            "".join(f"{name}={_escaped(value)}\n" for name, value in settings.items())
        )
        self._command = installation.command(options, "kafka.Kafka", str(self.properties))
        self._guard = guard
        self._process: subprocess.Popen[bytes] | None = None
        self._paused = False
        self._lock = threading.RLock()

    @property
    def state(self) -> str:
        """ "running", "paused" or "stopped"."""
        with self._lock:
            if self._process is None or self._process.poll() is not None:
                return "stopped"
            return "paused" if self._paused else "running"

    @property
    def wanted(self) -> bool:
        """Whether it was started and nobody here has ended it: it runs, or has ended by itself."""
        with self._lock:
            return self._process is not None

    @property
    def pid(self) -> int:
        with self._lock:
            return self._must_run().pid

    def _must_run(self) -> subprocess.Popen[bytes]:
        if self._process is None:
            raise BrokerStateError(f"broker {self.number} does not run")
        if self._process.poll() is not None:
            raise BrokerStateError(f"broker {self.number} has ended by itself{self.last_words()}")
        return self._process

    def start(self) -> None:
        """Start the process; it does not answer yet."""
        with self._lock:
            if self.state != "stopped":
                raise BrokerStateError(f"broker {self.number} runs already")
            self._ended()
            # Not in the terminal's group: Ctrl-C is for the tests, not for their brokers.
            with open(self.log, "ab") as log:
                self._process = subprocess.Popen(
                    self._command,
                    cwd=self.folder,
                    stdin=subprocess.DEVNULL,
                    stdout=log,
                    stderr=log,
                    start_new_session=True,
                )
            self._paused = False
            self._guard.watch(self._process.pid)

    def terminate(self) -> None:
        """Ask it to shut down in order, with SIGTERM; a paused one is resumed for it."""
        with self._lock:
            process = self._must_run()
            process.terminate()
            if self._paused:
                self.resume()

    def wait(self, timeout: float = _STOP_TIMEOUT) -> None:
        """Wait until it has ended; past the timeout, SIGKILL."""
        process = self._process
        if process is None:
            return
        try:
            process.wait(timeout)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()
        with self._lock:
            if self._process is process:
                self._ended()

    def kill(self) -> None:
        """SIGKILL, and gone when this returns."""
        with self._lock:
            process = self._must_run()
            process.kill()
            process.wait()
            self._ended()

    def pause(self) -> None:
        """SIGSTOP; a paused one is let be."""
        with self._lock:
            stop_process(self._must_run().pid)
            self._paused = True

    def resume(self) -> None:
        """SIGCONT; a running one is let be."""
        with self._lock:
            os.kill(self._must_run().pid, signal.SIGCONT)
            self._paused = False

    def end(self) -> None:
        """As `kill`, whatever state it is in."""
        with self._lock:
            if self._process is not None:
                self._process.kill()
                self._process.wait()
                self._ended()

    def _ended(self) -> None:
        if self._process is not None:
            self._guard.forget(self._process.pid)
            self._process = None

    def last_words(self) -> str:
        """The end of its log, for an error's message."""
        try:
            lines = self.log.read_text(errors="replace").splitlines()[-_LAST_LINES:]
        except OSError:
            return ""
        return "; its log ends with:\n" + "\n".join(lines) if lines else ""


def _escaped(value: str) -> str:
    """A value as a properties file wants it."""
    return value.replace("\\", "\\\\").replace("\n", "\\n")
