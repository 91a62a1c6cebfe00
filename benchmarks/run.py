"""A job in a fresh process of its own, so that neither memory nor anything else is left over from
the one before.
"""

from __future__ import annotations

import importlib.util
import subprocess
import sys

from . import native
from .job import TOPIC, WARM_UP, Job, Measured

# The module with the client's `WAYS`, and the package that it needs.
PYTHON_CLIENTS = {
    "kafka_ext": ("benchmarks.clients.ours", "kafka_ext"),
    "confluent-kafka": ("benchmarks.clients.confluent", "confluent_kafka"),
    "aiokafka": ("benchmarks.clients.aio", "aiokafka"),
    "kafka-python": ("benchmarks.clients.kafkapython", "kafka"),
}
# How benchmarks/c/baseline.c is called: by which of librdkafka's functions, how it takes reports,
# how the values lie in memory.
C_WAYS = {
    "produce": ("produce", "thread", "bytes"),
    "produce-inline": ("produce", "inline", "bytes"),
    "copy": ("copy", "thread", "bytes"),
    "batch": ("batch", "thread", "bytes"),
    "column": ("batch", "thread", "arrow"),
}


class JobError(Exception):
    """A job that did not run to its end, or lost messages: no figure can come of it."""


def missing(job: Job) -> str | None:
    """Why a job cannot run here, None when it can."""
    if job.client == "C" or importlib.util.find_spec(PYTHON_CLIENTS[job.client][1]):
        return None
    return f"{job.client} is not installed (the extra kafka-ext[bench] has it)"


def run(job: Job, bootstrap_servers: str) -> Measured:
    if job.client == "C":
        settings = [f"{name}={value}" for name, value in job.librdkafka(bootstrap_servers).items()]
        numbers = [
            str(number) for number in (job.count, job.size, job.distinct, job.batch, WARM_UP)
        ]
        command = [str(native.program("baseline")), *C_WAYS[job.way], TOPIC, *numbers, *settings]
    else:
        command = [
            sys.executable,
            "-m",
            "benchmarks.measure",
            PYTHON_CLIENTS[job.client][0],
            job.to_json(),
            bootstrap_servers,
        ]
    process = subprocess.run(
        command, cwd=native.REPOSITORY, capture_output=True, text=True, timeout=300
    )
    if process.returncode:
        raise JobError(f"{job.name}: exit status {process.returncode}\n{process.stderr}")
    measured = Measured.from_json(process.stdout)
    if measured.failed or measured.reported != job.count:
        raise JobError(
            f"{job.name}: {measured.reported} of {job.count} reported, {measured.failed} of them"
            f" failed\n{process.stderr}"
        )
    return measured
