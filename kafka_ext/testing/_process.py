"""The near side of a mock cluster in a process of its own."""

from __future__ import annotations

import json
import os
import selectors
import signal
import subprocess
import sys
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, NoReturn

from kafka_ext._rdkafka import ErrorCode, KafkaError, KafkaException, Monitor

from ._faults import BrokerStateError
from ._stopping import stop_process

# Starting takes a tenth of a second; a machine that needs this long is not going to make it.
_START_TIMEOUT = 30.0
_CALL_TIMEOUT = 30.0
_RESTARTS = 10
_TOPIC_ALREADY_EXISTS = ErrorCode["TOPIC_ALREADY_EXISTS"]

# The child must find this very package, wherever this process got it from; the working directory
# may have another of that name.
_BOOT = (
    "import sys; sys.path = [sys.argv[1], *filter(None, sys.path)]; from kafka_ext.testing._server"
    " import run; run(sys.argv[2])"
)


def _raise(described: Mapping[str, Any]) -> NoReturn:
    code, message = described["code"], described["message"]
    if described["kind"] == "KafkaException":
        raise KafkaException(KafkaError(code, message))
    if described["kind"] == "OSError":
        raise OSError(code, message)
    if described["kind"] == "ValueError":
        raise ValueError(message)
    raise RuntimeError(f"in the broker's process: {message}")


def _readable(descriptor: int, timeout: float) -> bool:
    with selectors.DefaultSelector() as waiter:  # eventlet takes poll() away
        waiter.register(descriptor, selectors.EVENT_READ)
        return bool(waiter.select(timeout))


class ProcessCluster:
    """As `Cluster`, in a child process, which can be killed and paused."""

    def __init__(self, brokers: int, topics: Mapping[str, int], ports: Sequence[int] = ()) -> None:
        self._settings: dict[str, Any] = {
            "brokers": brokers,
            "topics": dict(topics),
            "ports": list(ports),
            "parent": os.getpid(),
        }
        self._lock = Monitor()
        self._state = "killed"
        self._owner = os.getpid()
        self._start()

    def _start(self) -> None:
        if not sys.executable:
            raise BrokerStateError(
                "isolation='process' needs sys.executable to run the broker with, and it is empty"
            )
        self._process = subprocess.Popen(
            [
                sys.executable,
                "-c",
                _BOOT,
                str(Path(__file__).resolve().parents[2]),
                json.dumps(self._settings),
            ],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            bufsize=0,
        )
        self._buffered = b""
        self._last_id = 0
        self._state = "running"
        try:
            self.ports: list[int] = self._result(0, _START_TIMEOUT)
        except BaseException:
            self._end()
            self._state = "killed"
            raise

    @property
    def bootstrap_servers(self) -> str:
        return ",".join(f"127.0.0.1:{port}" for port in self.ports)

    @property
    def pid(self) -> int:
        return self._process.pid

    @property
    def state(self) -> str:
        return self._state

    def call(self, method: str, *arguments: Any) -> Any:
        """Have the cluster's `method` called over there, and return or raise what it returned or
        raised.
        """
        with self._lock:
            self._check()
            self._last_id += 1
            command = {"id": self._last_id, "method": method, "arguments": arguments}
            rest = json.dumps(command).encode() + b"\n"
            assert self._process.stdin is not None
            try:
                while rest:
                    rest = rest[os.write(self._process.stdin.fileno(), rest) :]
            except BrokenPipeError:
                self._died()
            return self._result(self._last_id, _CALL_TIMEOUT)

    def _check(self) -> None:
        if self._owner != os.getpid():
            raise BrokerStateError(
                "this broker was made before fork() and belongs to the parent; make one in this"
                " process"
            )
        if self._state == "paused":
            raise BrokerStateError("the broker is paused, and listens to nothing until resume()")
        if self._state == "killed":
            raise BrokerStateError("the broker was killed; restart() starts it again, empty")
        if self._state == "closed":
            raise BrokerStateError("the broker is closed")

    def _result(self, number: int, timeout: float) -> Any:
        """Wait for the answer to command `number`; earlier ones belong to calls that were
        interrupted.
        """
        assert self._process.stdout is not None
        descriptor = self._process.stdout.fileno()
        deadline = time.monotonic() + timeout
        while True:
            line, newline, rest = self._buffered.partition(b"\n")
            if newline:
                self._buffered = rest
                answer = json.loads(line)
                if answer["id"] != number:
                    continue
                if "error" in answer:
                    _raise(answer["error"])
                return answer["result"]
            left = deadline - time.monotonic()
            if left <= 0:
                raise BrokerStateError(f"the broker's process {self.pid} does not answer")
            if _readable(descriptor, min(left, 0.1)):
                read = os.read(descriptor, 65536)
                if not read:
                    self._died()
                self._buffered += read

    def _died(self) -> NoReturn:
        status = self._process.wait()
        self._end()
        self._state = "killed"
        how = f"by {signal.Signals(-status).name}" if status < 0 else f"with status {status}"
        raise BrokerStateError(f"the broker's process {self.pid} has ended {how}")

    # ------------------------------------------------------------------ what only a process can
    # suffer

    def kill(self) -> None:
        with self._lock:
            if self._state not in ("running", "paused"):
                self._check()
            self._end()
            self._state = "killed"

    def pause(self) -> None:
        with self._lock:
            if self._state != "paused":
                self._check()
                stop_process(self.pid)
                self._state = "paused"

    def resume(self) -> None:
        with self._lock:
            if self._state == "paused":
                os.kill(self.pid, signal.SIGCONT)
                self._state = "running"
            else:
                self._check()

    def restart(self) -> None:
        with self._lock:
            if self._state in ("running", "paused"):
                self.kill()
            elif self._state != "killed":
                self._check()
            self._settings["ports"] = list(self.ports)
            for left in reversed(range(_RESTARTS)):
                try:
                    self._start()
                    break
                except KafkaException as exc:
                    # A client that waited for these ports has asked for a topic before it was made,
                    # and so made it with another number of partitions.
                    if exc.error != _TOPIC_ALREADY_EXISTS or not left:
                        raise

    def close(self) -> None:
        if self._owner != os.getpid():
            return  # a forked child's copy: the process is the parent's
        with self._lock:
            if self._state != "closed":
                self._end()
                self._state = "closed"

    def _end(self) -> None:
        """SIGKILL: a process that may be stopped, and has nothing to lose, needs no other end."""
        self._process.kill()
        self._process.wait()
        for stream in (self._process.stdin, self._process.stdout):
            assert stream is not None
            stream.close()
