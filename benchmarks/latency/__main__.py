"""The command line: rounds, in which each client has its turn at each load."""

from __future__ import annotations

import argparse
import importlib.util
import subprocess
import sys
import tempfile
import time
from array import array
from dataclasses import replace
from pathlib import Path

from kafka_ext import _rdkafka
from kafka_ext.testing import EmbeddedBroker

from .. import native
from ..run import PYTHON_CLIENTS, JobError
from .load import CLIENTS, LOADS, PARTITIONS, SETTINGS, SIZE, TOPIC, WARM_UP, Load, percentiles
from .report import Report, draw

QUICK = 0.05


def command(client: str, load: Load, servers: str, target: Path) -> list[str]:
    module = CLIENTS[client]
    if module is not None:
        return [
            sys.executable,
            "-m",
            "benchmarks.latency.measure",
            *module,
            load.to_json(),
            servers,
            str(target),
        ]
    numbers = (SIZE, load.turns, load.interval_us, load.at_once, int(load.busy), WARM_UP)
    settings = [
        f"{name}={value}" for name, value in {"bootstrap.servers": servers, **SETTINGS}.items()
    ]
    return [str(native.program("latency")), TOPIC, *map(str, numbers), str(target), *settings]


def run(client: str, load: Load, servers: str) -> list[float]:
    """PERCENTILES in microseconds, out of a process of its own."""
    with tempfile.TemporaryDirectory() as folder:
        target = Path(folder, "latencies")
        process = subprocess.run(
            command(client, load, servers, target),
            cwd=native.REPOSITORY,
            capture_output=True,
            text=True,
            timeout=300,
        )
        if process.returncode:
            raise JobError(
                f"{load.name}, {client}: exit status {process.returncode}\n{process.stderr}"
            )
        latencies = array("q")
        latencies.frombytes(target.read_bytes())
    if len(latencies) != load.count:
        raise JobError(f"{load.name}, {client}: {len(latencies)} of {load.count} reported")
    return percentiles(latencies)


def attempt(client: str, load: Load, servers: str) -> list[float] | JobError:
    try:
        return run(client, load, servers)
    except JobError as error:
        return error


def versions() -> list[str]:
    """Of all clients: what they say of themselves, without being measured."""
    modules = ["benchmarks.clients.ours"]
    if importlib.util.find_spec("confluent_kafka"):
        modules.append("benchmarks.clients.confluent")
    return [
        *(importlib.import_module(module).VERSION for module in modules),
        f"C: librdkafka {_rdkafka.version()[1]}",
    ]


def parser() -> argparse.ArgumentParser:
    result = argparse.ArgumentParser(prog="python -m benchmarks.latency", description=__doc__)
    result.add_argument(
        "--load",
        action="append",
        choices=[load.name for load in LOADS],
        help="only this; may be given again",
    )
    result.add_argument(
        "--client", action="append", choices=list(CLIENTS), help="only this; may be given again"
    )
    result.add_argument("--rounds", type=int, default=3, metavar="N", help="(%(default)s)")
    result.add_argument(
        "--quick",
        action="store_true",
        help="one round of a twentieth: shows that it works, not how fast it is",
    )
    result.add_argument(
        "--output",
        type=Path,
        default=native.BUILD / "latency-results",
        metavar="FOLDER",
        help="for results.json, results.txt and latency.png (%(default)s)",
    )
    return result


def main() -> int:
    arguments = parser().parse_args()
    began = time.monotonic()
    failed = False

    def tell(line: str) -> None:
        print(f"[{time.monotonic() - began:4.0f} s] {line}", file=sys.stderr, flush=True)

    report = Report(versions=versions())
    clients = [client for client in CLIENTS if not arguments.client or client in arguments.client]
    if "confluent-kafka" in clients and not importlib.util.find_spec(
        PYTHON_CLIENTS["confluent-kafka"][1]
    ):
        clients.remove("confluent-kafka")
        report.notes.append("confluent-kafka is not installed (the extra kafka-ext[bench] has it)")
        tell(report.notes[-1])
    loads = [load for load in LOADS if not arguments.load or load.name in arguments.load]
    if arguments.quick:
        loads = [replace(load, turns=max(1, round(load.turns * QUICK))) for load in loads]
    if "C" in clients:
        native.program("latency")
    with EmbeddedBroker(topics={TOPIC: PARTITIONS}, isolation="process") as broker:
        for number in range(1, (1 if arguments.quick else arguments.rounds) + 1):
            for load in loads:
                for client in list(clients):
                    figures = attempt(client, load, broker.bootstrap_servers)
                    if isinstance(figures, JobError):
                        failed = True
                        clients.remove(client)
                        report.drop(client)  # its rounds would no longer be those of the others
                        report.notes.append(str(figures))
                        tell(str(figures))
                    else:
                        report.add(load, client, figures)
                tell(f"round {number}, {load.title}")
    print(report.to_text(), end="")
    arguments.output.mkdir(parents=True, exist_ok=True)
    (arguments.output / "results.json").write_text(report.to_json(), encoding="utf-8")
    (arguments.output / "results.txt").write_text(report.to_text(), encoding="utf-8")
    if report.rounds and importlib.util.find_spec("matplotlib"):
        draw(report, arguments.output / "latency.png")
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main())
