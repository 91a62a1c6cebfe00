"""Brokers do not outlive the process that started them, however it ends: a small process of its own
sees to it.

PR_SET_PDEATHSIG would not do: it fires when the thread that started a broker ends, and fault
injection starts brokers from threads.
"""

from __future__ import annotations

import os
import subprocess
import sys
import threading
from pathlib import Path

from ._faults import BrokerStateError

# What the guard runs, in an interpreter with nothing loaded: pids come in, "+1" and "-1"; when
# nothing can come any more, or the parent has gone (its forked children may hold the pipe), the
# processes are killed and their data is removed, but not their logs.
_PROGRAM = """
import os, select, shutil, signal, sys
parent, folder = int(sys.argv[1]), sys.argv[2]
signal.signal(signal.SIGINT, signal.SIG_IGN)
watched, buffered = {}, b""
def send_kill(pid, handle):
    try:
        if handle is None:
            os.kill(pid, signal.SIGKILL)
        else:
            signal.pidfd_send_signal(handle, signal.SIGKILL)
    except ProcessLookupError:
        pass
while os.getppid() == parent:
    if not select.select([0], [], [], 1.0)[0]:
        continue
    read = os.read(0, 4096)
    if not read:
        break
    *lines, buffered = (buffered + read).split(b"\\n")
    for line in lines:
        pid = int(line[1:])
        if line[:1] == b"+":
            try:
                watched[pid] = os.pidfd_open(pid)  # so that a pid used again is not mistaken for it
            except (AttributeError, OSError):
                watched[pid] = None
        else:
            handle = watched.pop(pid, None)
            if handle is not None:
                os.close(handle)
for pid, handle in watched.items():
    send_kill(pid, handle)
if watched:
    for name in os.listdir(folder):
        shutil.rmtree(os.path.join(folder, name, "data"), ignore_errors=True)
"""


class Guard:
    """Kills the processes it watches when this one has ended. `folder` has those processes'
    folders.
    """

    def __init__(self, folder: Path) -> None:
        if not sys.executable:
            raise BrokerStateError(
                "a KafkaCluster needs sys.executable to guard its brokers with, and it is empty"
            )
        self._lock = threading.Lock()
        self._process = subprocess.Popen(
            [sys.executable, "-I", "-S", "-c", _PROGRAM, str(os.getpid()), str(folder)],
            stdin=subprocess.PIPE,
            bufsize=0,
            start_new_session=True,
        )

    def watch(self, pid: int) -> None:
        self._tell(b"+%d\n" % pid)

    def forget(self, pid: int) -> None:
        self._tell(b"-%d\n" % pid)

    def _tell(self, line: bytes) -> None:
        assert self._process.stdin is not None
        with self._lock:
            try:
                self._process.stdin.write(line)
            except BrokenPipeError:
                raise BrokerStateError(
                    "the process that guards the brokers has ended: who killed it?"
                ) from None

    def close(self) -> None:
        """End it; what it watches must have been forgotten before."""
        assert self._process.stdin is not None
        self._process.stdin.close()
        self._process.kill()
        self._process.wait()
