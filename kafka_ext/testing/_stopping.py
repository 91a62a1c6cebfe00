"""Stopping a process so that it has stopped."""

from __future__ import annotations

import os
import signal
import time

# A thread that waits for a disk stops when it has what it waits for; longer than this, in seconds,
# nobody waits for it.
_PATIENCE = 10.0


def stop_process(pid: int) -> None:
    """SIGSTOP a child of this process, and return when all its threads have stopped.

    The signal's sender does not wait for that by itself: a thread that was running then may answer
    another request. Without `os.waitid`, on macOS before Python 3.13, there is no telling when it
    has stopped.
    """
    os.kill(pid, signal.SIGSTOP)
    if not hasattr(os, "waitid"):
        return
    end = time.monotonic() + _PATIENCE
    # WNOWAIT: what has become of the process is its Popen's to collect.
    while (
        os.waitid(os.P_PID, pid, os.WSTOPPED | os.WEXITED | os.WNOWAIT | os.WNOHANG) is None
        and time.monotonic() < end
    ):
        time.sleep(0.0005)
