"""What the campaigns have shown: a page, the figures as JSON, and a picture of each
one's course.
"""

from __future__ import annotations

import json
from collections import Counter, defaultdict
from collections.abc import Sequence
from itertools import pairwise
from pathlib import Path
from typing import Any

from tests.soak.verdict import MIB, windows

from .checker import Findings
from .faults import KILLS

COLOURS = {
    "kill": "#c92a2a",
    "pause": "#e8590c",
    "restart": "#f59f00",
    "move": "#2b8a3e",
    "network": "#1864ab",
    "blackout": "#212529",
}


def family(kind: str) -> str:
    """The kinds that are drawn alike."""
    if kind in KILLS:
        return "kill"
    first = kind.split("_")[0]
    return first if first in COLOURS else "network"


def rates(samples: Sequence[dict[str, Any]], field: str) -> list[float]:
    """What was added to a field each second, between each two samples."""
    return [(b[field] - a[field]) / (b["clock"] - a["clock"]) for a, b in pairwise(samples)]


def write(results: Sequence[dict[str, Any]], wrong: Sequence[str], folder: Path) -> str:
    """Write `report.md`, `report.json` and a picture a campaign into `folder`; the page's text."""
    text = "# Chaos\n\n" + (
        "Everything is as it must be.\n"
        if not wrong
        else "**Not as it must be:**\n\n- " + "\n- ".join(wrong) + "\n"
    )
    for result in results:
        text += page(result)
        draw(result, folder / f"chaos-{result['plan']['name']}.png")
    (folder / "report.md").write_text(text, encoding="utf-8")
    slim = [
        {**result, "senders": {k: v for k, v in result["senders"].items() if k != "samples"}}
        for result in results
    ]
    (folder / "report.json").write_text(
        json.dumps({"wrong": list(wrong), "campaigns": slim}, indent=1)
    )
    return text


def page(result: dict[str, Any]) -> str:
    plan, senders, found, samples = (
        result["plan"],
        result["senders"],
        result["findings"],
        result["senders"]["samples"],
    )
    seconds = samples[-1]["clock"] - samples[0]["clock"]
    before, after = windows(samples, "rss")
    text = (
        f"\n## {plan['name']}: "
        + ("acks=all, idempotent" if plan["safe"] else "acks=1, without idempotence")
        + "\n\n"
    )
    text += (
        f"Seed {plan['seed']}. In {seconds / 60:.1f} minutes {senders['sent']:,} records were sent "
    )
    text += f"({senders['sent'] / seconds:,.0f} a second), {senders['reported']:,} called back: "
    text += f"{senders['delivered']:,} as delivered, {senders['failed']:,} as failed"
    if senders["errors"]:
        text += f" ({', '.join(f'{count:,} of {name}' for name, count in sorted(senders['errors'].items()))})"
    text += (
        f". {len(result['faults'])} faults, {result['kills']} of them a killed leader. Read back:"
        f" {found['consumed']:,}.\n\n"
    )
    text += "| | records |\n|---|--:|\n"
    for name in Findings.ANOMALIES:
        text += f"| {name.replace('_', ' ')} | {found[name]:,} |\n"
    text += (
        f"| failed, possibly persisted | {found['possibly']:,} |\n| … of these in the topic |"
        f" {found['possibly_there']:,} |\n"
    )
    text += f"| … and there more than once | {found['failed_doubled']:,} |\n"
    text += (
        f"| acknowledged, the broker knew no offset any more | {found['without_offset']:,} |\n\n"
    )
    text += (
        "Memory of the senders, medians of the first and of the last fifth after the warm-up:"
        f" {before / MIB:.1f} and "
    )
    text += (
        f"{after / MIB:.1f} MiB; the most {max(sample['rss'] for sample in samples) / MIB:.1f} MiB,"
        " and the most in flight "
    )
    text += f"{max(sample['outstanding'] for sample in samples):,}.\n\n"
    text += faults_table(result["faults"])
    for example in found["examples"]:
        text += f"\n- {example}"
    return text + "\n"


def faults_table(faults: Sequence[dict[str, Any]]) -> str:
    kinds = Counter(fault["kind"] for fault in faults)
    cut: dict[str, int] = defaultdict(int)
    for fault in faults:
        cut[fault["kind"]] += sum(fault["counts"].values())
    text = "| fault | how often | requests cut, without an answer, or changed |\n|---|--:|--:|\n"
    for kind, count in kinds.most_common():
        text += f"| {kind.replace('_', ' ')} | {count} | {cut[kind] or ''} |\n"
    return text


def draw(result: dict[str, Any], target: Path) -> None:
    import matplotlib as mpl

    mpl.use("Agg")
    import matplotlib.pyplot as plt

    samples = result["senders"]["samples"]
    zero = samples[0]["clock"]
    minutes = [(sample["clock"] - zero) / 60 for sample in samples]
    figure, axes = plt.subplots(
        4, 1, figsize=(13, 9), sharex=True, layout="constrained", height_ratios=[3, 2, 2, 2.6]
    )
    axes[0].plot(minutes[1:], rates(samples, "sent"), linewidth=0.8, label="sent", color="#adb5bd")
    axes[0].plot(
        minutes[1:], rates(samples, "reported"), linewidth=0.8, label="called back", color="#0b7285"
    )
    _finish(axes[0], "records a second")
    axes[1].plot(
        minutes,
        [sample["outstanding"] for sample in samples],
        linewidth=0.8,
        label="sent and not called back yet",
        color="#0b7285",
    )
    _finish(axes[1], "in flight")
    axes[2].plot(
        minutes,
        [sample["rss"] / MIB for sample in samples],
        linewidth=1,
        label="the sending process",
        color="#5f3dc4",
    )
    _finish(axes[2], "resident memory, MiB")
    kinds = sorted(
        {fault["kind"] for fault in result["faults"]}, key=lambda kind: (family(kind), kind)
    )
    for fault in result["faults"]:
        colour = COLOURS[family(fault["kind"])]
        at, length = (fault["began"] - zero) / 60, (fault["ended"] - fault["began"]) / 60
        axes[3].barh(kinds.index(fault["kind"]), length, left=at, height=0.7, color=colour)
        for axis in axes[:3]:
            axis.axvline(at, color=colour, linewidth=0.5, alpha=0.6)
    axes[3].set_yticks(range(len(kinds)), [kind.replace("_", " ") for kind in kinds], fontsize=8)
    axes[3].set_title("faults, for as long as each lasted", fontsize=10, loc="left")
    axes[3].set_xlabel("minutes")
    axes[3].spines[["top", "right"]].set_visible(False)
    figure.savefig(target, dpi=110)
    plt.close(figure)


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
        ncols=3,
    )
