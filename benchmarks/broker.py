"""The broker all clients send to: librdkafka's mock cluster in a process of its own."""

from __future__ import annotations

import subprocess
from collections.abc import Iterator
from contextlib import contextmanager

from . import native
from .job import PARTITIONS, TOPIC


@contextmanager
def running() -> Iterator[str]:
    """Its bootstrap servers, while it runs."""
    # It ends with its standard input, so also when this process is killed.
    command = [str(native.program("broker")), TOPIC, str(PARTITIONS)]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True) as process:
        assert process.stdout is not None
        servers = process.stdout.readline().strip()
        if not servers:
            raise RuntimeError("the broker did not start")
        yield servers
