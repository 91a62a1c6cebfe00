"""What the fault and memory tests share: programs of their own processes, counted buffers, one
report each.
"""

import contextlib
import functools
import os
import random
import re
import shlex
import signal
import socket
import struct
import subprocess
import sys
import textwrap
import threading
import time
from contextlib import contextmanager
from pathlib import Path

import kafka_ext

# "Every public call within its timeout plus 250 ms" is the promise; a loaded machine with two
# cores gets more in a test. Under a sanitizer everything is several times slower, and
# tests/memory/sanitize.py says so.
PATIENCE = float(os.environ.get("KAFKA_EXT_TEST_PATIENCE", "2.0"))

# What the programs of run_program are run by (valgrind, for one), and with what part of their usual
# load.
RUNNER = shlex.split(os.environ.get("KAFKA_EXT_TEST_RUNNER", ""))
SCALE = float(os.environ.get("KAFKA_EXT_TEST_SCALE", "1"))

PACKAGE = str(Path(kafka_ext.__file__).resolve().parents[1])

# For tests of the pytest plugin: a fixture with which a producer seems to leave seven messages
# behind.
LEAK = """
import kafka_ext._rdkafka as inside

@pytest.fixture
def leak(monkeypatch):
    counted = inside.live_objects
    calls = []

    def counting():
        calls.append(1)
        return counted() if len(calls) == 1 else counted() | {"messages": counted()["messages"] + 7}

    monkeypatch.setattr(inside, "live_objects", counting)
"""

PREAMBLE = """
import gc, os, signal, sys, threading, time, warnings
from kafka_ext import *
from kafka_ext import _rdkafka

QUICK = {"test.mock.num.brokers": 1, "enable.idempotence": False, "linger.ms": 0}
UNREACHABLE = {"bootstrap.servers": "127.0.0.1:1", "log_level": 0, "error_cb": lambda error: None, "enable.idempotence": False}
"""


def close_shared_producers():
    """Those of this process' KafkaSinks, of tests before this one too."""
    from kafka_ext import _shared_producers

    for made in list(_shared_producers._producers.values()):
        if made.current is not None:
            made.current.close(0)
    _shared_producers._producers.clear()


def run_program(*sources, arguments=(), timeout=60, check=True, flags=()):
    """Run Python `sources`, with this package imported, in a process of its own; its
    CompletedProcess. A hang is a failure.
    """
    environment = dict(os.environ)
    environment["PYTHONPATH"] = os.pathsep.join(
        filter(None, [PACKAGE, environment.get("PYTHONPATH")])
    )
    done = subprocess.run(
        [
            *RUNNER,
            sys.executable,
            "-X",
            "faulthandler",
            *flags,
            "-c",
            "\n".join([PREAMBLE, *map(textwrap.dedent, sources)]),
            *map(str, arguments),
        ],
        capture_output=True,
        text=True,
        timeout=timeout * (10 if RUNNER else 1) + PATIENCE,
        env=environment,
    )
    if check:
        assert done.returncode == 0, f"exit status {done.returncode}\n{done.stdout}\n{done.stderr}"
    return done


@functools.cache
def closed_port():
    """The address of a port where nobody listens, nor will: another test's broker could else."""
    probe = socket.socket()
    probe.bind(("127.0.0.1", 0))
    port = probe.getsockname()[1]
    probe.detach()  # bound for as long as this process lives
    return f"127.0.0.1:{port}"


def free_port():
    """A port for a server: none that the system gives to whoever asks for any, before it starts."""
    while True:
        port = random.randrange(20_000, 32_000)
        with socket.socket() as probe, contextlib.suppress(OSError):
            probe.bind(("127.0.0.1", port))
            return port


def is_pinned(value):
    """Whether a bytearray's buffer is exported to anybody: CPython refuses to resize it then."""
    try:
        value.append(0)
    except BufferError:
        return True
    del value[-1]
    return False


class Throttling:
    """Stands between a client and the mock broker, which never throttles, and writes throttle times
    into its Produce answers.
    """

    def __init__(self, port, milliseconds):
        self.broker_port, self.milliseconds = port, milliseconds
        self.listener = socket.create_server(("127.0.0.1", 0))
        self.port = self.listener.getsockname()[1]
        self.sockets = [self.listener]
        self.threads = []
        self.start(self.accept)

    def start(self, target, *args):
        thread = threading.Thread(target=target, args=args, daemon=True)
        self.threads.append(thread)
        thread.start()

    def accept(self):
        while True:
            try:
                client, _ = self.listener.accept()
            except OSError:
                return
            broker = socket.create_connection(("127.0.0.1", self.broker_port))
            self.sockets += [client, broker]
            requests = {}  # correlation id -> (api key, version)
            self.start(
                self.forward, client, broker, lambda frame, seen=requests: self.request(frame, seen)
            )
            self.start(
                self.forward,
                broker,
                client,
                lambda frame, seen=requests: self.response(frame, seen),
            )

    def forward(self, source, target, change):
        try:
            with source.makefile("rb") as stream:
                while len(size := stream.read(4)) == 4:
                    target.sendall(size + change(stream.read(*struct.unpack(">i", size))))
        except OSError:
            pass

    def request(self, frame, requests):
        key, version, correlation = struct.unpack_from(">hhi", frame)
        requests[correlation] = (key, version)
        return frame

    def response(self, frame, requests):
        key, version = requests.pop(struct.unpack_from(">i", frame)[0])
        if key == 3:  # Metadata: the broker is here
            return frame.replace(struct.pack(">i", self.broker_port), struct.pack(">i", self.port))
        if key == 0:  # Produce: the throttle time is last, but for the tags from version 9 on
            tags = b"\0" if version >= 9 else b""
            assert frame.endswith(bytes(4) + tags)
            return frame[: len(frame) - 4 - len(tags)] + struct.pack(">i", self.milliseconds) + tags
        return frame

    def close(self):
        for each in self.sockets:
            try:
                each.shutdown(socket.SHUT_RDWR)
            except OSError:
                pass
            each.close()
        for thread in self.threads:
            thread.join(10)


class Outcomes:
    """Delivery callbacks that know which record they belong to, and that notice a second report."""

    def __init__(self):
        self.reports = {}
        self.extra = []

    def expect(self, name):
        def on_delivery(metadata, error):
            if name in self.reports:
                self.extra.append((name, error))
            self.reports[name] = (metadata, error)

        return on_delivery

    def wait(self, count, timeout=10.0):
        wait_until(lambda: len(self.reports) >= count, timeout)

    def check(self, names):
        """Exactly one report for each of `names`, and none for anybody else."""
        assert not self.extra
        assert set(self.reports) == set(names)

    @property
    def errors(self):
        return [error for _, error in self.reports.values() if error is not None]


@contextmanager
def within(seconds):
    """A block that must not take longer than `seconds`, give or take PATIENCE; one that hangs is
    ended by pytest-timeout.
    """
    started = time.monotonic()
    yield
    took = time.monotonic() - started
    assert took <= seconds + PATIENCE, f"took {took:.2f} s, not {seconds} s"


def interrupt_after(seconds, signum=signal.SIGINT):
    """Send this process a signal in a while: what Ctrl-C does."""
    timer = threading.Timer(seconds, os.kill, (os.getpid(), signum))
    timer.daemon = True
    timer.start()
    return timer


def wait_until(condition, timeout=10.0):
    deadline = time.monotonic() + timeout
    while not condition() and time.monotonic() < deadline:
        time.sleep(0.005)
    assert condition()


def shown(value):
    """`value` in a test's name: its repr, without the address that differs between processes
    (pytest-xdist compares names).
    """
    return re.sub(r" at 0x[0-9a-f]+", "", repr(value))
