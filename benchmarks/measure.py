"""The measured process: `python -m benchmarks.measure CLIENT-MODULE JOB BOOTSTRAP-SERVERS` prints
one line of JSON.
"""

from __future__ import annotations

import gc
import importlib
import json
import statistics
import sys
import time
from collections.abc import Iterable
from dataclasses import asdict
from itertools import chain, islice, repeat
from pathlib import Path
from typing import Any

from . import loop
from .job import BURST, FIRST, SEND_TIME, WARM_UP, Job, Measured


def make_values(count: int, size: int) -> list[bytes]:
    """`count` distinct objects of `size` bytes, each with its number in it."""
    return [b"%020d" % i + bytes(size - 20) for i in range(count)]


def in_turn(values: list[Any], count: int) -> Iterable[Any]:
    """`count` of `values`, one after the other and again from the first. Not itertools.cycle: it
    keeps what it has been through in a list of its own, and each collection while the clock runs
    would walk that.
    """
    return islice(chain.from_iterable(repeat(values)), count)


def batches(values: list[bytes], size: int) -> list[list[bytes]]:
    if size > len(values):
        return [list(in_turn(values, size))]
    return [values[i : i + size] for i in range(0, len(values), size)]


def memory_kib(line: str) -> int:
    """VmRSS or VmHWM of this process. getrusage's ru_maxrss will not do: over fork and exec it
    keeps the peak of the parent.
    """
    status = Path("/proc/self/status").read_text(encoding="ascii")
    return int(status.split(f"{line}:")[1].split()[0])


def measure_first(client: Any, job: Job, bootstrap_servers: str) -> Measured:
    settings = job.librdkafka(bootstrap_servers)
    value = make_values(1, job.size)[0]
    deliver = client.FIRST[job.way]
    deliver(settings, value)  # imports
    start, cpu = time.perf_counter(), time.process_time()
    times = [deliver(settings, value) for _ in range(job.count)]
    return Measured(
        seconds=time.perf_counter() - start,
        cpu_seconds=time.process_time() - cpu,
        peak_kib=memory_kib("VmHWM"),
        reported=job.count,
        failed=0,
        version=client.VERSION,
        first_ms=statistics.median(times) * 1000,
    )


def measure(module: str, job: Job, bootstrap_servers: str) -> Measured:
    client = importlib.import_module(module)
    if job.way.startswith(FIRST):
        return measure_first(client, job, bootstrap_servers)
    values: list[Any] = make_values(job.distinct, job.size)
    warm_up: Iterable[Any] = in_turn(values, min(WARM_UP, job.count))
    count = job.count
    settings = job.librdkafka(bootstrap_servers)
    if job.way == SEND_TIME:
        burst = client.send_time(settings)

        def send_all(values: Iterable[bytes]) -> int:
            some = list(values)
            times.extend(burst(some[i : i + BURST]) / BURST for i in range(0, len(some), BURST))
            return len(some)
    else:
        send_all = client.WAYS[job.way](settings)
    if job.batch:
        # Whoever sends batches has them: only what a client wants otherwise is made while the clock
        # runs.
        make = client.BATCHES[job.way]
        warm_up = [make(list(warm_up))]
        values = [make(some) for some in batches(values, job.batch)]
        count //= job.batch
    times: list[float] = []

    send_all(warm_up)  # connects, fetches metadata and a producer id
    times.clear()
    gc.collect()
    # a million values are this program's, not the client's: no collection shall walk their list
    gc.freeze()
    before = memory_kib("VmRSS")
    start, cpu = time.perf_counter(), time.process_time()
    delivered = send_all(in_turn(values, count))
    seconds, cpu_seconds = time.perf_counter() - start, time.process_time() - cpu
    return Measured(
        seconds=seconds,
        cpu_seconds=cpu_seconds,
        peak_kib=memory_kib("VmHWM"),
        reported=job.count,
        failed=job.count - delivered,
        version=client.VERSION,
        before_kib=before,
        loop_delay_ms=statistics.quantiles(loop.delays, n=100)[98] * 1000
        if len(loop.delays) > 1
        else None,
        send_ns=statistics.median(times) if times else None,
    )


if __name__ == "__main__":
    _, module, job, servers = sys.argv
    print(json.dumps(asdict(measure(module, Job.from_json(job), servers))), flush=True)
