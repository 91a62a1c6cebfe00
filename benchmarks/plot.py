"""The figures as a picture, for the README."""

from __future__ import annotations

from pathlib import Path
from statistics import median
from typing import Any

from .job import SEND_TIME, Job, Measured
from .report import Report

COLOURS = {
    "kafka_ext": "#0b7285",
    "confluent-kafka": "#e8590c",
    "aiokafka": "#f59f00",
    "kafka-python": "#fcc419",
    "C": "#868e96",
}
# What is drawn, by client and way, and what it is called there.
THROUGHPUT = {
    ("kafka_ext", "callback"): "kafka_ext, a callback each",
    ("confluent-kafka", "callback"): "confluent-kafka, a callback each",
    ("aiokafka", "callback"): "aiokafka, a callback each",
    ("kafka-python", "callback"): "kafka-python, a callback each",
    ("kafka_ext", "no-callback"): "kafka_ext, no callback",
    ("confluent-kafka", "no-callback"): "confluent-kafka, no callback",
    ("C", "produce"): "C, rd_kafka_produce",
    ("kafka_ext", "batch"): "kafka_ext, send_batch",
    ("confluent-kafka", "batch"): "confluent-kafka, produce_batch",
    ("C", "batch"): "C, rd_kafka_produce_batch",
}
MEMORY = {
    ("kafka_ext", "no-callback"): "kafka_ext, not copied",
    ("kafka_ext", "copy"): "kafka_ext, copied",
    ("confluent-kafka", "no-callback"): "confluent-kafka (it always copies)",
}


# Batches of 1000: what is drawn, by client and way, for each size of values.
BATCHES = {
    ("kafka_ext", "batch"): "kafka_ext, lists",
    ("C", "batch"): "C, the same objects",
    ("confluent-kafka", "batch"): "confluent-kafka, lists",
    ("kafka_ext", "column"): "kafka_ext, Arrow",
    ("C", "column"): "C, the same columns",
}
BATCH_SIZES = {100: "100 B", 1000: "1 kB", 10_000: "10 kB"}


def draw(report: Report, target: Path) -> None:
    import matplotlib as mpl

    mpl.use("Agg")
    import matplotlib.pyplot as plt

    jobs = {job: runs for job, runs in report.jobs.items() if runs}
    rows_100, rows_10k = (_throughput(jobs, size) for size in (100, 10_000))
    heights = {"height_ratios": [max(len(rows_100), 2), 3.5]}
    figure, axes = plt.subplots(2, 2, figsize=(12, 6.8), layout="constrained", gridspec_kw=heights)
    _bars(axes[0, 0], "100 B values: millions of messages a second", rows_100)
    _bars(axes[0, 1], "10 kB values: millions of messages a second", rows_10k)
    _bars(axes[1, 0], "Peak memory while sending 10 kB values, MiB", _memory(jobs))
    _points(axes[1, 1], "Caller's time in one send, microseconds (logarithmic)", _send_time(jobs))
    m = report.machine
    figure.supxlabel(
        "Median of the runs, lines from the lowest to the highest. linger 5 ms, acks=all,"
        " idempotent, not compressed, 4 partitions;\nbroker: librdkafka's mock cluster in its own"
        f" process on the same machine ({m['cpu']}, {m['cores']} cores, {m['python']}). Longer is"
        " better above, shorter below.",
        fontsize=8,
    )
    figure.savefig(target, dpi=130)
    plt.close(figure)


def draw_batches(report: Report, target: Path) -> None:
    import matplotlib as mpl

    mpl.use("Agg")
    import matplotlib.pyplot as plt

    jobs = {job: runs for job, runs in report.jobs.items() if runs and job.batch == 1000}
    figure, axes = plt.subplots(1, len(BATCH_SIZES), figsize=(12, 3), layout="constrained")
    for axis, (size, label) in zip(axes, BATCH_SIZES.items(), strict=True):
        _bars(axis, f"{label} values, batches of 1000: M/s", _throughput(jobs, size, BATCHES))
    m = report.machine
    figure.supxlabel(
        "Millions of messages a second; median of the runs, lines from the lowest to the highest."
        " Distinct memory, laid out alike for C.\nlinger 5 ms, acks=all, idempotent, 4 partitions;"
        f" librdkafka's mock cluster in its own process ({m['cpu']}, {m['cores']} cores).",
        fontsize=8,
    )
    figure.savefig(target, dpi=130)
    plt.close(figure)


Row = tuple[str, str, list[float]]  # label, client, a figure a run


def _throughput(
    jobs: dict[Job, list[Measured]], size: int, drawn: dict[tuple[str, str], str] = THROUGHPUT
) -> list[Row]:
    found = {
        (job.client, job.way): (job, runs)
        for job, runs in jobs.items()
        if job.size == size and not job.hot and not job.held and job.batch in (0, 1000)
    }
    return [
        (label, key[0], [found[key][0].count / run.seconds / 1e6 for run in found[key][1]])
        for key, label in drawn.items()
        if key in found
    ]


def _memory(jobs: dict[Job, list[Measured]]) -> list[Row]:
    found = {
        (job.client, job.way): runs for job, runs in jobs.items() if job.size == 10_000 and job.hot
    }
    return [
        (label, key[0], [run.peak_kib / 1024 for run in found[key]])
        for key, label in MEMORY.items()
        if key in found
    ]


def _send_time(jobs: dict[Job, list[Measured]]) -> list[Row]:
    found = {(job.client, job.size): runs for job, runs in jobs.items() if job.way == SEND_TIME}
    return [
        (f"{client}, {label}", client, [(run.send_ns or 0) / 1000 for run in found[client, size]])
        for client in ("kafka_ext", "confluent-kafka")
        for size, label in ((100, "100 B"), (1_000_000, "1 MB"))
        if (client, size) in found
    ]


def _bars(axis: Any, title: str, rows: list[Row]) -> None:
    for i, (_, client, values) in enumerate(rows):
        axis.barh(i, median(values), color=COLOURS[client], height=0.7)
    _finish(axis, title, rows)
    if rows:
        axis.set_xlim(0, max(max(values) for _, _, values in rows) * 1.15)


def _points(axis: Any, title: str, rows: list[Row]) -> None:
    """Points and not bars: a logarithmic axis has no zero for a bar to begin at."""
    for i, (_, client, values) in enumerate(rows):
        axis.plot(median(values), i, "o", color=COLOURS[client], markersize=8)
    _finish(axis, title, rows)
    axis.set_xscale("log")
    axis.xaxis.set_major_formatter("{x:,g}")
    axis.margins(x=0.12, y=0.2)


def _finish(axis: Any, title: str, rows: list[Row]) -> None:
    for i, (_, _, values) in enumerate(rows):
        axis.plot([min(values), max(values)], [i, i], color="black", linewidth=1)
        text = f"{float(f'{median(values):.3g}'):,g}"  # three digits, and never an exponent
        axis.annotate(
            text,
            (max(values), i),
            xytext=(7, 0),
            textcoords="offset points",
            va="center",
            fontsize=8,
        )
    axis.set_title(title, fontsize=10, loc="left")
    axis.spines[["top", "right"]].set_visible(False)
    axis.grid(axis="x", alpha=0.3)
    axis.set_axisbelow(True)
    axis.set_yticks(range(len(rows)), [label for label, _, _ in rows], fontsize=8)
    axis.invert_yaxis()
    axis.tick_params(axis="x", labelsize=8)
