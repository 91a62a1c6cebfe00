"""`kafka-ext produce` beside `kcat -P -l`: a file of lines to one broker, in interleaved pairs.
`python -m benchmarks.kcat`.

Whole commands are measured, as a shell would: starting, connecting and the last report are in it.
Both are given the same properties, and what arrived is counted after each run.
"""

from __future__ import annotations

import argparse
import os
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from kafka_ext._rdkafka import ClusterClient
from kafka_ext.testing import EmbeddedBroker

from .job import LIBRDKAFKA, PARTITIONS

LINES = 2_000_000
SIZE = 100
PAIRS = 5
# How often the peak is looked at. It only grows, so that no more than its last moment can be
# missed.
_LOOK = 0.02


def write_lines(path: Path, count: int) -> None:
    """`count` distinct lines of SIZE bytes, with their ends."""
    with path.open("wb") as file:
        for start in range(0, count, 10_000):
            file.writelines(
                b"%020d%s\n" % (n, b"x" * (SIZE - 21))
                for n in range(start, min(start + 10_000, count))
            )


def run(command: list[str]) -> tuple[float, int]:
    """Seconds, and the peak of its resident memory in KiB."""
    began = time.perf_counter()
    process = subprocess.Popen(
        command, stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE
    )
    peak = 0
    while True:
        # Not getrusage: over fork and exec its ru_maxrss keeps the peak of the parent.
        status = Path(f"/proc/{process.pid}/status").read_text(encoding="ascii")
        if "VmHWM:" in status:  # one that has ended has no memory any more
            peak = max(peak, int(status.split("VmHWM:")[1].split()[0]))
        try:
            process.wait(_LOOK)
            break
        except subprocess.TimeoutExpired:
            pass
    seconds = time.perf_counter() - began
    assert process.stderr is not None
    with process.stderr as stderr:
        said = stderr.read().decode(errors="replace")
    if process.returncode:
        raise SystemExit(f"{' '.join(command)}: exit status {process.returncode}\n{said}")
    return seconds, peak


def arrived(servers: str, topic: str) -> int:
    """How many records a topic was sent: the broker drops old ones, but counts on."""
    with ClusterClient(servers) as client:
        return sum(
            client.end_offsets([(topic, partition) for partition in range(PARTITIONS)]).values()
        )


def commands(servers: str, topic: str, path: Path) -> dict[str, list[str]]:
    properties = [word for name, value in LIBRDKAFKA.items() for word in ("-X", f"{name}={value}")]
    return {
        "kafka-ext": [
            sys.executable,
            "-m",
            "kafka_ext",
            "produce",
            topic,
            "-b",
            servers,
            *properties,
            "-f",
            "lines",
            "--quiet",
            str(path),
        ],
        "kcat": ["kcat", "-P", "-q", "-b", servers, "-t", topic, *properties, "-l", str(path)],
    }


def main() -> int:
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks.kcat",
        description=__doc__.partition("\n")[0] if __doc__ else None,
    )
    parser.add_argument(
        "--lines", type=int, default=LINES, metavar="N", help="in the file (%(default)s)"
    )
    parser.add_argument(
        "--pairs", type=int, default=PAIRS, metavar="N", help="of runs (%(default)s)"
    )
    arguments = parser.parse_args()
    if shutil.which("kcat") is None or not Path("/proc/self/status").exists():
        print("skipped: it needs kcat (apt-get install kcat) and Linux' /proc")
        return 0
    print(
        f"{arguments.lines:,} lines of {SIZE} B, {PARTITIONS} partitions,"
        f" {', '.join(f'{n}={v}' for n, v in LIBRDKAFKA.items())}"
    )
    print(f"{os.cpu_count()} cores, load {os.getloadavg()[0]:.1f} at the beginning", flush=True)
    seconds: dict[str, list[float]] = {"kafka-ext": [], "kcat": []}
    peaks: dict[str, list[int]] = {"kafka-ext": [], "kcat": []}
    with tempfile.TemporaryDirectory() as folder, EmbeddedBroker(isolation="process") as broker:
        path = Path(folder, "lines")
        write_lines(path, arguments.lines)
        for pair in range(arguments.pairs):
            # Who goes first alternates, so that a drift of the machine favours neither.
            for name in list(seconds) if pair % 2 == 0 else reversed(seconds):
                topic = f"{name}-{pair}"
                broker.create_topic(topic, PARTITIONS)
                took, peak = run(commands(broker.bootstrap_servers, topic, path)[name])
                if (found := arrived(broker.bootstrap_servers, topic)) != arguments.lines:
                    raise SystemExit(f"{name}: {found:,} of {arguments.lines:,} records arrived")
                seconds[name].append(took)
                peaks[name].append(peak)
                print(
                    f"pair {pair + 1} {name:9} {took:7.2f} s  {arguments.lines / took:11,.0f}"
                    f" records/s  peak {peak / 1024:6.0f} MiB",
                    flush=True,
                )
    ratios = [
        theirs / ours for theirs, ours in zip(seconds["kcat"], seconds["kafka-ext"], strict=True)
    ]
    memory = [theirs / ours for theirs, ours in zip(peaks["kcat"], peaks["kafka-ext"], strict=True)]
    print(
        f"kafka-ext is {statistics.median(ratios):.2f} x as fast (median of {len(ratios)} pairs,"
        f" {min(ratios):.2f} to {max(ratios):.2f})"
    )
    print(
        f"kcat's peak is {statistics.median(memory):.2f} x kafka-ext's; load"
        f" {os.getloadavg()[0]:.1f} at the end"
    )
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
