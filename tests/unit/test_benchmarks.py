"""The benchmarks' own arithmetic. What they measure is not tested here."""

from __future__ import annotations

import json
from array import array
from dataclasses import replace

import pytest

from benchmarks import instructions, readme
from benchmarks.cases import CASES, OVERVIEW, Case
from benchmarks.compare import Outcome
from benchmarks.job import Job, Measured
from benchmarks.latency import load
from benchmarks.latency.report import Report as LatencyReport
from benchmarks.report import Report
from benchmarks.run import missing


def measured(seconds: float, peak_kib: int = 1024) -> Measured:
    return Measured(
        seconds=seconds,
        cpu_seconds=seconds,
        peak_kib=peak_kib,
        reported=100,
        failed=0,
        version="x 1",
    )


OURS = Job("kafka_ext", "callback", 100, 100)
THEIRS = Job("C", "produce", 100, 100)


def test_a_ratio_is_the_median_of_the_pairs_ratios() -> None:
    case = Case("n", "t", OURS, THEIRS, "rate", at_least=3.0)
    outcome = Outcome(case, [measured(s) for s in (1, 2, 4)], [measured(s) for s in (2, 12, 16)])
    assert outcome.ratios == [2, 6, 4]
    assert outcome.ratio == 4
    assert outcome.figures == (50, 100 / 12)
    assert outcome.reached


@pytest.mark.parametrize(("peak", "reached"), [(204, True), (206, False)])
def test_memory_must_be_at_most_a_share(peak: int, reached: bool) -> None:
    case = Case("n", "t", OURS, THEIRS, "peak memory", at_most=0.2)
    assert Outcome(case, [measured(1, peak)], [measured(1, 1024)]).reached is reached


@pytest.mark.parametrize(
    ("ours", "told", "reached"),
    [(26.0, "+20.0 ms", True), (26.1, "+20.1 ms", False), (4.0, "-2.0 ms", True)],
)
def test_a_first_delivery_may_take_so_much_longer(ours: float, told: str, reached: bool) -> None:
    case = Case("n", "t", OURS, THEIRS, "first delivery", at_most=20)
    outcome = Outcome(
        case, [replace(measured(1), first_ms=ours)], [replace(measured(1), first_ms=6.0)]
    )
    assert (case.told(outcome.ratio), outcome.reached) == (told, reached)


def test_callgrind_costs_are_a_functions_own() -> None:
    text = "\n".join(
        [
            "events: Ir",
            "ob=(1) /x/_rdkafka.so",
            "fn=(1) send",
            "16 40",
            "+3 2",
            "cob=(2) /lib/libc.so",
            "cfn=(2) memcpy",
            "calls=3 0",
            "17 900",  # the call's inclusive cost, which is memcpy's
            "* 1",
            "",
            "ob=(2)",
            "fn=(2)",
            "0 300",
            "totals: 343",
        ]
    )
    assert instructions.parse(text) == {
        ("/x/_rdkafka.so", "send"): 43,
        ("/lib/libc.so", "memcpy"): 300,
    }


@pytest.mark.parametrize(
    ("symbol", "name"),
    [
        ("__pyx_f_9kafka_ext_8_rdkafka_8Producer__send", "Producer._send"),
        ("__pyx_f_9kafka_ext_8_rdkafka_report.isra.0", "report"),
        (
            "__pyx_pw_9kafka_ext_8_rdkafka_14ProducerRecord_1__init__",
            "ProducerRecord.__init__ (from Python)",
        ),
        ("__pyx_tp_dealloc_9kafka_ext_8_rdkafka_ProducerRecord", "ProducerRecord (tp_dealloc)"),
        ("kx_pool_take.part.0.constprop.1'2", "kx_pool_take"),
    ],
)
def test_symbols_are_told_by_the_names_in_the_source(symbol: str, name: str) -> None:
    assert instructions._readable(symbol) == name


def test_the_report_says_what_was_missed_and_json_keeps_every_run() -> None:
    case = Case("n", "a title", OURS, THEIRS, "rate", at_least=3.0)
    report = Report(
        [Outcome(case, [measured(1), measured(1)], [measured(2), measured(2)])],
        {OURS: [measured(1)]},
        notes=["a note"],
    )
    text = report.to_text()
    assert "not reached" in text
    assert "a note" in text
    assert max(map(len, text.splitlines())) < 170
    document = json.loads(report.to_json())
    assert document["cases"][0]["ratios"] == [2, 2]
    assert [len(job["runs"]) for job in document["jobs"]] == [1, 2]


def test_a_job_crosses_the_process_border_whole() -> None:
    job = CASES[-1].ours
    assert Job.from_json(job.to_json()) == job


def test_a_peer_that_is_not_installed_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    assert "aiokafka" in (missing(next(job for job in OVERVIEW if job.client == "aiokafka")) or "")
    assert missing(THEIRS) is None


def test_a_percentile_is_the_smallest_that_this_share_does_not_exceed() -> None:
    found = dict(
        zip(
            load.PERCENTILES,
            load.percentiles(array("q", [n * 1000 for n in range(1000, 0, -1)])),
            strict=True,
        )
    )
    assert (found[0.0], found[50.0], found[99.0], found[99.9], found[100.0]) == (
        1,
        500,
        990,
        999,
        1000,
    )


def test_latency_is_compared_with_c_in_the_same_round() -> None:
    report = LatencyReport()
    for ours, c in ((100.0, 100.0), (900.0, 300.0), (240.0, 200.0)):
        report.add(load.LOADS[0], "kafka_ext", [ours] * len(load.PERCENTILES))
        report.add(load.LOADS[0], "C", [c] * len(load.PERCENTILES))
    assert report.ratio("light", "kafka_ext", 99.0) == 1.2
    assert "1.20 at p50, 1.20 at p99: reached" in report.to_text()
    assert json.loads(report.to_json())["microseconds"]["light"]["C"][1][0] == 300


def test_each_turn_of_a_load_is_due_on_its_own() -> None:
    assert list(load.waits(load.Load("n", "t", turns=3, interval_us=2, at_once=1), 5)) == [
        5,
        2005,
        4005,
    ]


def test_the_pages_show_the_figures_that_were_measured() -> None:
    """`python -m benchmarks.readme` writes them."""
    for page, text in readme.pages().items():
        assert page.read_text("utf-8") == text
