"""The wall clock may be set at any moment: no wait of this package goes by it."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys

import pytest
from faultlib import run_program

from kafka_ext._rdkafka import build_info

# CLOCK_REALTIME and what else tells the wall time, an hour ahead of what the kernel goes by. To who
# reckons a deadline with it, that is a clock that is set back by an hour while he waits.
SHIM = """
#define _GNU_SOURCE
#include <sys/syscall.h>
#include <sys/time.h>
#include <time.h>
#include <unistd.h>

int clock_gettime(clockid_t id, struct timespec *now)
{
    const int result = (int)syscall(SYS_clock_gettime, id, now);
    if (id == CLOCK_REALTIME)
        now->tv_sec += 3600;
    return result;
}

int gettimeofday(struct timeval *now, void *zone)
{
    struct timespec precise;
    (void)zone;
    clock_gettime(CLOCK_REALTIME, &precise);
    now->tv_sec = precise.tv_sec;
    now->tv_usec = precise.tv_nsec / 1000;
    return 0;
}

time_t time(time_t *where)
{
    struct timespec now;
    clock_gettime(CLOCK_REALTIME, &now);
    if (where)
        *where = now.tv_sec;
    return now.tv_sec;
}
"""

pytestmark = [
    pytest.mark.found(15),
    pytest.mark.skipif(
        not sys.platform.startswith("linux"),
        reason="LD_PRELOAD, and a kernel that tells its own time",
    ),
    pytest.mark.skipif(
        "monotonic-waits" not in build_info()["patches"],
        reason="librdkafka itself waits by the wall clock",
    ),
    pytest.mark.skipif(shutil.which("cc") is None, reason="needs a C compiler"),
]

FULL = """
producer = KafkaProducer({**UNREACHABLE, "queue.buffering.max.messages": 1})
producer.send(ProducerRecord("t", b"fills it"))
"""

WAITS = {
    "send": FULL + "wait = lambda: producer.send(ProducerRecord('t', b'x'), timeout=0.3)",
    "sync_send": FULL + "wait = lambda: producer.sync_send(ProducerRecord('t', b'x'), timeout=0.3)",
    "send_batch": FULL + "wait = lambda: producer.send_batch('t', [b'x'], timeout=0.3)",
    "flush": FULL + "wait = lambda: producer.flush(0.3)",
    "batch.wait": FULL
    + "batch = producer.send_batch('t', [b'x'] * 3, timeout=0)\nwait = lambda: batch.wait(0.3)",
    "future": FULL.replace(": 1", ": 9")
    + "future = producer.send_future(ProducerRecord('t', b'x'))\nwait = lambda: future.result(0.3)",
    "poll_events": """
producer = KafkaProducer({**UNREACHABLE, "enable.manual.events.poll": True})
producer.send(ProducerRecord("t", b"x"))
wait = lambda: producer.poll_events(0.3)
""",
    "metadata": FULL + "wait = lambda: producer.fetch_broker_metadata(timeout=0.3)",
    "partitioner": """
producer = KafkaProducer({**UNREACHABLE, "partitioner": lambda topic, key, count: 0})
wait = lambda: producer.send(ProducerRecord("t", b"x"), timeout=0.3)
""",
    "close": FULL + "wait = lambda: producer.close(0.3)",
}

PROGRAM = """
started = time.monotonic()
try:
    wait()
except Exception as exc:
    pass
took = time.monotonic() - started
assert took < 5, f"took {took:.1f} s"
producer.close(0)
assert time.monotonic() - started < 10
print("ended")
"""


@pytest.fixture(scope="module")
def shim(tmp_path_factory):
    """A library that makes the wall clock be wrong."""
    where = tmp_path_factory.mktemp("clock")
    (where / "clock.c").write_text(SHIM)
    library = where / "clock.so"
    subprocess.run(["cc", "-shared", "-fPIC", "-o", library, where / "clock.c"], check=True)
    return library


@pytest.mark.timeout(60)
@pytest.mark.parametrize("name", WAITS)
def test_a_wait_ends_while_the_clock_is_set_back(shim, monkeypatch, name):
    monkeypatch.setenv("LD_PRELOAD", f"{shim} {os.environ.get('LD_PRELOAD', '')}".strip())
    assert run_program(WAITS[name], PROGRAM, timeout=15).stdout == "ended\n"
