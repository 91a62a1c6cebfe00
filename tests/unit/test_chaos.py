"""What the fault campaign and the soak judge by: each thing that can be wrong is found, and nothing
where all is right.
"""

from __future__ import annotations

import sys

import pytest

np = pytest.importorskip("numpy")

from kafka_ext.testing import ConsumedMessage  # noqa: E402 - they need numpy
from tests.chaos import checker, faults, records  # noqa: E402 - they need numpy
from tests.chaos.__main__ import SEEN, judge  # noqa: E402 - they need numpy
from tests.chaos.outcomes import (  # noqa: E402
    DELIVERED,
    FAILED_NOT,
    FAILED_POSSIBLY,
    NO_OFFSET,
    REFUSED,
    SENT,
)
from tests.chaos.watch import resident  # noqa: E402 - they need numpy
from tests.soak import memory, verdict  # noqa: E402 - they need numpy
from tests.soak.accounts import RING, Account  # noqa: E402 - they need numpy

PARTITIONS = 2
COUNT = 10
SECOND = 1  # a stream, not the first


class Log:
    """What a partitioned topic holds of two streams, both sent in full; the tests change it, and
    what was reported of it.
    """

    def __init__(self, monkeypatch):
        monkeypatch.setattr(checker, "read", lambda config, topic, partition: self.read(partition))
        self.values = [
            [
                record
                for stream in range(2)
                for record in records.make(stream, 0, COUNT, PARTITIONS)[p::PARTITIONS]
            ]
            for p in range(2)
        ]
        self.misshapen = 0
        self.states = [np.full(COUNT, DELIVERED, np.uint8) for _ in range(2)]
        self.offsets = [np.full(COUNT, NO_OFFSET, np.int32) for _ in range(2)]
        for log in self.values:
            for offset, record in enumerate(log):
                self.offsets[record["stream"]][record["number"]] = offset

    def read(self, partition):
        log = np.array(self.values[partition], records.LAYOUT)
        return log, np.arange(len(log)), self.misshapen

    def check(self):
        return checker.check(
            {}, "topic", PARTITIONS, list(zip(self.states, self.offsets, strict=True))
        )


@pytest.fixture
def log(monkeypatch):
    return Log(monkeypatch)


def test_where_all_is_right_nothing_is_found(log):
    found = log.check()
    assert found.anomalies() == {}
    assert (found.consumed, found.acknowledged, found.failed) == (20, 20, 0)


def test_a_lost_record_is_found(log):
    gone = log.values[1].pop()  # the last: the offsets of the others stay
    assert log.check().anomalies() == {"lost": 1}
    assert str(gone["number"]) in log.check().examples[0]


def test_a_doubled_record_is_found_and_a_duplicate_is_not_taken_for_disorder(log):
    log.values[0].append(log.values[0][0])
    assert log.check().anomalies() == {"duplicated": 1}


def test_records_in_the_wrong_order_are_found(log):
    log.values[0][2], log.values[0][3] = log.values[0][3], log.values[0][2]
    assert log.check().anomalies() == {"reordered": 1, "misplaced": 2}


@pytest.mark.parametrize("field", ["number", "checksum", "filler", "stream", "partition"])
def test_a_changed_record_is_found(log, field):
    log.values[0][4] = log.values[0][4].copy()
    log.values[0][4][field] ^= 1
    assert log.check().anomalies() == {"corrupt": 1, "lost": 1}


def test_a_record_of_another_size_is_found(log):
    log.misshapen = 1
    assert log.check().anomalies() == {"corrupt": 2}  # one in each partition


def test_a_record_in_the_wrong_partition_is_found(log):
    log.values[1].append(log.values[0].pop())
    assert log.check().anomalies() == {"corrupt": 1, "lost": 1}


def test_records_that_were_never_sent_or_refused_and_are_there_are_found(log):
    log.states[SECOND][-1] = REFUSED
    log.values[0].append(records.make(SECOND, COUNT + 2, 1, PARTITIONS)[0])
    assert log.check().anomalies() == {"never_sent": 2}


def test_a_record_without_a_callback_is_found(log):
    log.states[SECOND][3] = SENT
    assert log.check().anomalies() == {"unreported": 1}


def test_a_failed_record_may_be_there_or_not_as_its_status_says(log):
    log.states[SECOND][COUNT - 1] = FAILED_POSSIBLY
    log.states[SECOND][COUNT - 2] = FAILED_POSSIBLY
    log.values[0].pop()
    found = log.check()
    assert found.anomalies() == {}
    assert (found.failed, found.possibly, found.possibly_there) == (2, 2, 1)
    log.states[SECOND][COUNT - 1] = FAILED_NOT
    assert log.check().anomalies() == {"failed_but_there": 1}


def test_a_wrong_offset_is_found(log):
    log.offsets[SECOND][2] += 1
    assert log.check().anomalies() == {"misplaced": 1}


@pytest.mark.parametrize("count", [1, 9, 50, 52, 200])
def test_a_plan_has_as_many_faults_as_asked_for_and_two_fifths_kill_a_leader(count):
    chosen = faults.plan(faults.MIX, count, seed=3)
    assert len(chosen) == count
    assert chosen == faults.plan(faults.MIX, count, seed=3)
    assert set(chosen) <= set(faults.MIX)
    if count >= 50:
        assert set(chosen) == set(faults.MIX)
        assert sum(kind in faults.KILLS for kind in chosen) >= 0.4 * count


def unsafe(*kinds, **anomalies):
    """What is not as it must be, of a campaign without protection that had these faults and found
    this.
    """
    senders = {"wrong": [], "failed": 0, "delivered": 10, "samples": [{"t": 1.0, "rss": 1}] * 10}
    findings = {"acknowledged": 10, "failed": 0, "examples": []}
    return judge(
        {
            "plan": {"name": "unsafe"},
            "senders": senders,
            "findings": findings,
            "anomalies": anomalies,
            "faults": [{"kind": kind} for kind in kinds],
        }
    )


def test_a_campaign_without_protection_must_see_what_each_fault_does():
    faults = ("kill_leader_ahead", "lose_responses", "corrupt_requests", "pause_leader")
    assert unsafe(*faults, lost=1, duplicated=1, reordered=1) == []
    assert [text.split(",")[0] for text in unsafe(*faults, lost=1, duplicated=1)] == [
        "unsafe: nothing was reordered"
    ]
    assert len(unsafe(*faults)) == 3
    assert unsafe("pause_leader") == []
    assert len(unsafe(*faults, lost=1, duplicated=1, reordered=1, corrupt=1)) == 1


@pytest.mark.parametrize("count", [3, 7])
def test_a_plan_without_protection_has_all_that_must_be_seen(count):
    assert set(SEEN.values()) <= set(faults.plan(faults.UNSAFE_MIX, count, seed=1))


# ---------------------------------------------------------------------- the soak's


def test_what_is_there_twice_behind_a_cut_is_counted_and_what_is_out_of_order_is_wrong():
    pytest.importorskip("pyarrow")
    from tests.soak.loads import Cut

    load = Cut(None, 1.0)

    def read(*numbers):
        load._compare(
            [
                ConsumedMessage(load.topic, number % 2, 0, value=number.to_bytes(8, "big"))
                for number in numbers
            ]
        )

    read(0, 1, 2, 3, 0, 2, 1, 3, 4)
    assert (load.there, load.doubled, load.account.wrong) == (5, 4, [])
    read(8, 6)
    assert ["6 is in partition 0 behind 8" in text for text in load.account.wrong] == [True]
    load._compare(
        [ConsumedMessage(load.topic, 0, 0, value=(RING * 3 + 4).to_bytes(8, "big"))]
    )  # the same slot of the ring, rounds later
    assert (load.there, load.doubled) == (8, 4)
    assert len(load.account.check()) == 1


def test_an_account_notices_reports_that_are_missing_or_too_many():
    account = Account("a load")
    first, second = account.take(), account.take()
    account.report(first, None)
    account.report(first, None)
    assert ["twice" in text for text in account.wrong] == [True]
    account.refuse(second)
    third = account.take()
    assert (account.sent, account.refused) == (2, 1)
    assert any("never reported" in text for text in account.check())
    account.report(third, "an error")
    assert account.failed == 1


def test_an_account_notices_a_report_that_has_not_come_for_a_whole_round():
    account = Account("a load")
    account.take()
    for _ in range(RING - 1):
        account.report(account.take(), None)
    assert account.wrong == []
    account.take()
    assert any("whole round" in text for text in account.wrong)


def samples(rss, **fields):
    fields = {"threads": 10, "descriptors": 10, "handles": 3, "topics": 3, "batches": 0} | fields
    return [{"t": float(t), "rss": rss(t), **fields} for t in range(300)]


def test_a_leak_is_found_and_a_warm_up_is_none():
    assert verdict.judge(samples(lambda t: 100 * verdict.MIB + min(t, 50) * verdict.MIB)) == []
    assert any(
        "memory" in text
        for text in verdict.judge(samples(lambda t: 100 * verdict.MIB + t * 100_000))
    )
    assert verdict.slope(samples(lambda t: t * 1000), "rss") == pytest.approx(1000)


def test_threads_that_pile_up_are_found():
    grown = [
        sample | {"threads": 10 + number // 5} for number, sample in enumerate(samples(lambda t: 0))
    ]
    assert any("threads" in text for text in verdict.judge(grown))


def test_too_short_a_run_says_so():
    assert "too few" in verdict.judge(samples(lambda t: 0)[:5])[0]


SMAPS = """\
56428a18c000-56428a718000 rw-p 00000000 00:00 0                          [heap]
Rss:                5528 kB
Pss:                5528 kB
24001000000-24005000000 rw-p 00000000 00:00 0
Rss:                 100 kB
7f54fc000000-7f54fc200000 rw-p 00000000 00:00 0
Rss:                  40 kB
7f54fc200000-7f5500000000 ---p 00000000 00:00 0
Rss:                   0 kB
7f5503cfc000-7f5503cfd000 ---p 00000000 00:00 0
Rss:                   0 kB
7f5503cfd000-7f55044fd000 rw-p 00000000 00:00 0
Rss:                  12 kB
7f5505000000-7f5505800000 rw-p 00000000 00:00 0
Rss:                1000 kB
7f5507000000-7f5507100000 r-xp 00000000 fe:00 4711                       /usr/lib/a library.so (deleted)
Rss:                 700 kB
7ffd12000000-7ffd12021000 rw-p 00000000 00:00 0                          [stack]
Rss:                   4 kB
"""


def test_memory_is_told_apart_by_its_mappings():
    kib = memory.owners(SMAPS.splitlines())
    assert {owner: size // 1024 for owner, size in kib.items()} == {
        "mimalloc": 100,
        "glibc": 5568,
        "stacks": 16,
        "files": 700,
        "other": 1000,
    }


@pytest.mark.skipif(sys.platform != "linux", reason="reads /proc")
def test_all_of_it_has_an_owner():
    sample = memory.sample()
    assert sum(sample[f"memory_{owner}"] for owner in memory.OWNERS) == pytest.approx(
        resident(), rel=0.1
    )
