"""What the fault campaign and the soak judge by: each thing that can be wrong is found, and nothing where all is right."""

from __future__ import annotations

import pytest

np = pytest.importorskip("numpy")

from tests.chaos import checker, faults, records  # noqa: E402 - they need numpy
from tests.chaos.outcomes import DELIVERED, FAILED_NOT, FAILED_POSSIBLY, NO_OFFSET, REFUSED, SENT  # noqa: E402 - they need numpy
from tests.soak import verdict  # noqa: E402 - they need numpy
from tests.soak.accounts import RING, Account  # noqa: E402 - they need numpy

PARTITIONS = 2
COUNT = 10
SECOND = 1  # a stream, not the first


class Log:
    """What a partitioned topic holds of two streams, both sent in full; the tests change it, and what was reported of it."""

    def __init__(self, monkeypatch):
        monkeypatch.setattr(checker, "read", lambda config, topic, partition: self.read(partition))
        self.values = [
            [record for stream in range(2) for record in records.make(stream, 0, COUNT, PARTITIONS)[p::PARTITIONS]] for p in range(2)
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
        return checker.check({}, "topic", PARTITIONS, list(zip(self.states, self.offsets, strict=True)))


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


# ---------------------------------------------------------------------- the soak's


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
    assert any("memory" in text for text in verdict.judge(samples(lambda t: 100 * verdict.MIB + t * 100_000)))
    assert verdict.slope(samples(lambda t: t * 1000), "rss") == pytest.approx(1000)


def test_threads_that_pile_up_are_found():
    grown = [sample | {"threads": 10 + number // 5} for number, sample in enumerate(samples(lambda t: 0))]
    assert any("threads" in text for text in verdict.judge(grown))


def test_too_short_a_run_says_so():
    assert "too few" in verdict.judge(samples(lambda t: 0)[:5])[0]
