"""The percentiles as a table, as JSON, and as curves."""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import asdict, dataclass, field
from pathlib import Path
from statistics import median

from ..plot import COLOURS
from ..report import Circumstances, table
from .load import CLIENTS, LOADS, PERCENTILES, SETTINGS, SIZE, Load

SHOWN = (50.0, 99.0, 99.9)
# The bar: ours at light load, at so many times C at most.
BAR = ("light", "kafka_ext", 1.2, (50.0, 99.0))
LINES = {"kafka_ext": "-", "kafka_ext, polled": "--", "confluent-kafka": "-", "C": "-"}


@dataclass
class Report(Circumstances):
    """All of one run: of each load and client, the PERCENTILES of each round in microseconds."""

    rounds: dict[str, dict[str, list[list[float]]]] = field(default_factory=dict)
    versions: list[str] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)

    def add(self, load: Load, client: str, latencies: list[float]) -> None:
        self.rounds.setdefault(load.name, {}).setdefault(client, []).append(latencies)

    def drop(self, client: str) -> None:
        for clients in self.rounds.values():
            clients.pop(client, None)

    def at(self, load: str, client: str, percentile: float) -> float:
        """The median of the rounds."""
        index = PERCENTILES.index(percentile)
        return median(run[index] for run in self.rounds[load][client])

    def ratio(self, load: str, client: str, percentile: float) -> float | None:
        """How many times C's, the median of the rounds' own ratios."""
        index = PERCENTILES.index(percentile)
        of_c = self.rounds[load].get("C")
        if not of_c:
            return None
        return median(
            ours[index] / c[index] for ours, c in zip(self.rounds[load][client], of_c, strict=True)
        )

    def to_json(self) -> str:
        document = {
            **self.circumstances(),
            "versions": self.versions,
            "settings": SETTINGS,
            "loads": [asdict(load) for load in LOADS if load.name in self.rounds],
            "percentiles": PERCENTILES,
            "microseconds": self.rounds,
            "notes": self.notes,
        }
        return (
            json.dumps(document, indent=None).replace('"microseconds"', '\n"microseconds"') + "\n"
        )

    def to_text(self) -> str:
        return "\n".join(self._text()) + "\n"

    def _text(self) -> Iterator[str]:
        yield "Microseconds from send to callback, and how many times C's they are"
        for load in LOADS:
            if load.name not in self.rounds:
                continue
            heads = (load.title, *(text for p in SHOWN for text in (f"p{p:g}", "")))
            yield ""
            yield from table(
                heads,
                (
                    self._row(load.name, client)
                    for client in CLIENTS
                    if client in self.rounds[load.name]
                ),
            )
        load_name, client, most, where = BAR
        if client in self.rounds.get(load_name, {}) and "C" in self.rounds[load_name]:
            ratios = {p: self.ratio(load_name, client, p) or 0.0 for p in where}
            told = ", ".join(f"{ratio:.2f} at p{p:g}" for p, ratio in ratios.items())
            reached = "reached" if max(ratios.values()) <= most else "not reached"
            yield ""
            yield f"Wanted at light load: at most {most:g} times C. {told}: {reached}."
        yield ""
        yield from self.notes
        yield from self._how()

    def _row(self, load: str, client: str) -> tuple[str, ...]:
        cells = [client]
        for p in SHOWN:
            ratio = self.ratio(load, client, p)
            cells += [
                f"{self.at(load, client, p):,.0f}",
                "" if client == "C" or ratio is None else f"x {ratio:.2f}",
            ]
        return tuple(cells)

    def _how(self) -> Iterator[str]:
        rounds = max(
            (len(runs) for clients in self.rounds.values() for runs in clients.values()), default=0
        )
        settings = ", ".join(f"{name}={value}" for name, value in SETTINGS.items())
        yield from self.told(
            "; ".join(self.versions) + ".",
            "One broker for all, librdkafka's mock cluster in a process of its own on the same"
            f" machine; one partition, {SIZE} B, {settings}.",
            "The monotonic clock is read right before the call that sends and first thing in the"
            " callback, in C as in Python. Sends are on a schedule that a late one does not shift."
            " kafka_ext calls back by its events thread or, polled, by the sender; confluent-kafka"
            " and C by a thread that waits in poll().",
            f"{rounds} rounds, in which each client has its turn in a process of its own; figures"
            " are the medians of the rounds, ratios the medians of the rounds' ratios.",
        )


def draw(report: Report, target: Path) -> None:
    """A panel a load; the axis of the percentiles gives each further nine the same room."""
    import matplotlib as mpl

    mpl.use("Agg")
    import matplotlib.pyplot as plt

    loads = [load for load in LOADS if load.name in report.rounds]
    figure, axes = plt.subplots(
        1, len(loads), figsize=(4 * len(loads), 3.8), layout="constrained", squeeze=False
    )
    shown = [i for i, p in enumerate(PERCENTILES) if 10 <= p < 100]
    nines = [_nines(PERCENTILES[i]) for i in shown]
    for axis, load in zip(axes[0], loads, strict=True):
        for client in CLIENTS:
            runs = report.rounds[load.name].get(client)
            if not runs:
                continue
            colour = COLOURS[client.split(",")[0]]
            axis.plot(
                nines,
                [median(run[i] for run in runs) for i in shown],
                LINES[client],
                color=colour,
                label=client,
                linewidth=1.5,
            )
            columns = [[run[i] for run in runs] for i in shown]
            axis.fill_between(
                nines,
                [min(column) for column in columns],
                [max(column) for column in columns],
                color=colour,
                alpha=0.12,
                linewidth=0,
            )
        axis.set_yscale("log")
        axis.yaxis.set_major_formatter(
            lambda us, _: f"{us:,.0f} µs" if us < 1000 else f"{us / 1000:,g} ms"
        )
        axis.yaxis.set_minor_formatter("")
        ticks = (50.0, 90.0, 99.0, 99.9, 99.99)
        axis.set_xticks([_nines(p) for p in ticks], [f"p{p:g}" for p in ticks], fontsize=8)
        axis.tick_params(axis="y", labelsize=8)
        axis.set_title(load.title, fontsize=10, loc="left")
        axis.spines[["top", "right"]].set_visible(False)
        axis.grid(alpha=0.3, which="both")
    axes[0, 0].legend(fontsize=8, frameon=False)
    m = report.machine
    figure.supxlabel(
        "From send to callback; the median of the rounds, shaded from the lowest to the highest."
        " linger 0, acks=all, 100 B, one partition;\nlibrdkafka's mock cluster in its own process"
        f" on the same machine ({m['cpu']}, {m['cores']} cores, {m['python']}).",
        fontsize=8,
    )
    figure.savefig(target, dpi=130)
    plt.close(figure)


def _nines(percentile: float) -> float:
    """0.3 for the median, 1 for p90, 2 for p99, 3 for p99.9."""
    from math import log10

    return -log10(1 - percentile / 100)
