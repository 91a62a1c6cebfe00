"""What a soak has shown: a page, and a picture of its course."""

from __future__ import annotations

from collections import Counter
from pathlib import Path
from typing import Any

from . import memory
from .verdict import MIB, WARM_UP, slope, windows

HEAD = """# A soak of {minutes:.1f} minutes

{verdict}

{total:,} messages were sent, {rate:,.0f} a second; {delivered:,} were reported as delivered and {failed:,} as failed,
{refused:,} sends were refused; {faults} faults: {kinds}. The process used {cpu:.2f} cores, the broker's {broker_cpu:.2f}.

| load | sent | delivered | failed | refused | there twice | anomalies |
|---|--:|--:|--:|--:|--:|--:|
"""

MIDDLE = """
After the warm-up (the first {warm_up:.0%}), medians of the first and of the last fifth of the rest:

| | then | at the end |
|---|--:|--:|
"""


def write(result: dict[str, Any], folder: Path) -> str:
    """Write `report.md` and `soak.png` into `folder`; the page's text."""
    text = page(result)
    (folder / "report.md").write_text(text, encoding="utf-8")
    draw(result, folder / "soak.png")
    return text


def page(result: dict[str, Any]) -> str:
    loads, samples = result["loads"], result["samples"]
    total = {
        field: sum(load[field] for load in loads.values())
        for field in ("sent", "delivered", "failed", "refused")
    }
    wrong = result["wrong"]
    first, last = samples[0], samples[-1]
    elapsed = last["t"] - first["t"]
    text = HEAD.format(
        minutes=result["seconds"] / 60,
        verdict=(
            "Every count is right, and nothing has grown."
            if not wrong
            else "**Not as it must be:**\n\n- " + "\n- ".join(wrong)
        ),
        total=total["sent"],
        rate=total["sent"] / result["seconds"],
        delivered=total["delivered"],
        failed=total["failed"],
        refused=total["refused"],
        faults=len(result["faults"]),
        kinds=", ".join(
            f"{count} {kind}"
            for kind, count in sorted(Counter(kind for _, kind in result["faults"]).items())
        )
        or "none",
        cpu=(last["cpu"] - first["cpu"]) / elapsed,
        broker_cpu=(last["broker_cpu"] - first["broker_cpu"]) / elapsed,
    )
    for name, load in loads.items():
        figures = (
            f"{load[field]:,}"
            for field in ("sent", "delivered", "failed", "refused", "doubled", "anomalies")
        )
        text += f"| {name} | {' | '.join(figures)} |\n"
    text += MIDDLE.format(warm_up=WARM_UP)
    for field, title, unit in (
        ("rss", "memory, MiB", MIB),
        ("memory_mimalloc", "… librdkafka's allocator", MIB),
        ("memory_glibc", "… glibc's heaps", MIB),
        ("malloc_used", "… used of these and of large blocks, as glibc counts", MIB),
        ("memory_stacks", "… threads' stacks", MIB),
        ("memory_files", "… files and libraries", MIB),
        ("memory_other", "… the rest: Python's arenas, large blocks", MIB),
        ("python_blocks", "blocks of Python's, thousands", 1000),
        ("threads", "threads", 1),
        ("descriptors", "descriptors", 1),
        ("handles", "handles", 1),
        ("messages", "messages held", 1),
        ("pinned_bytes", "pinned, MiB", MIB),
    ):
        if field not in samples[0]:
            continue
        before, after = windows(samples, field)
        text += f"| {title} | {before / unit:,.1f} | {after / unit:,.1f} |\n"
    text += (
        f"\nMemory grows by {slope(samples, 'rss') * 3600 / MIB:+.2f} MiB an hour (Theil-Sen, after"
        " the warm-up).\n"
    )
    return text


def draw(result: dict[str, Any], target: Path) -> None:
    import matplotlib as mpl

    mpl.use("Agg")
    import matplotlib.pyplot as plt

    samples = result["samples"]
    minutes = [sample["t"] / 60 for sample in samples]
    figure, axes = plt.subplots(5, 1, figsize=(11, 11), sharex=True, layout="constrained")

    sent = [sum(load["sent"] for load in sample["loads"].values()) for sample in samples]
    reported = [
        sum(load["delivered"] + load["failed"] for load in sample["loads"].values())
        for sample in samples
    ]
    for values, label, style in ((sent, "sent", "-"), (reported, "reported", ":")):
        rates = [
            (b - a) / (y["t"] - x["t"])
            for a, b, x, y in zip(values, values[1:], samples, samples[1:], strict=False)
        ]
        axes[0].plot(minutes[1:], rates, style, linewidth=1, label=label)
    _finish(axes[0], "messages a second")
    axes[1].plot(
        minutes,
        [sample["rss"] / MIB for sample in samples],
        label="this process",
        color="black",
        linewidth=1,
    )
    for owner in memory.OWNERS if "memory_glibc" in samples[0] else ():
        axes[1].plot(
            minutes,
            [sample[f"memory_{owner}"] / MIB for sample in samples],
            linewidth=0.8,
            label=owner,
        )
    axes[1].axvspan(0, WARM_UP * minutes[-1], color="#f1f3f5", label="warm-up")
    _finish(axes[1], "resident memory, MiB")
    for field in ("threads", "descriptors"):
        axes[2].plot(minutes, [sample[field] for sample in samples], linewidth=1, label=field)
    _finish(axes[2], "threads and descriptors")
    for field, label in (
        ("outstanding", "outstanding"),
        ("pinned_messages", "pinned"),
        ("messages", "structs of pinned messages"),
    ):
        axes[3].plot(minutes, [sample[field] for sample in samples], linewidth=1, label=label)
    _finish(axes[3], "messages on their way")
    kinds = sorted({kind for _, kind in result["faults"]})
    for row, kind in enumerate(kinds):
        at = [t / 60 for t, what in result["faults"] if what == kind]
        axes[4].plot(at, [row] * len(at), "|", markersize=10)
    axes[4].set_yticks(range(len(kinds)), [kind.replace("_", " ") for kind in kinds])
    axes[4].set_ylim(-0.7, len(kinds) - 0.3)
    axes[4].set_title("faults", fontsize=10, loc="left")
    axes[4].set_xlabel("minutes")
    figure.savefig(target, dpi=110)


def _finish(axis: Any, title: str) -> None:
    axis.set_title(title, fontsize=10, loc="left")
    axis.set_ylim(bottom=0)
    axis.grid(alpha=0.3)
    axis.spines[["top", "right"]].set_visible(False)
    axis.yaxis.set_major_formatter("{x:,.0f}")
    # Beside the title, where no line is.
    axis.legend(
        fontsize=8,
        loc="lower right",
        bbox_to_anchor=(1, 1),
        borderaxespad=0.2,
        frameon=False,
        ncols=8,
    )
