"""examples/demo.py, small: that it passes, and above all that it fails when something is not as it
should be.
"""

import subprocess
import sys
from pathlib import Path

import pytest

from kafka_ext.testing import ConsumedMessage

EXAMPLES = Path(__file__).resolve().parents[2] / "examples"


@pytest.fixture
def demo(monkeypatch):
    monkeypatch.syspath_prepend(str(EXAMPLES))
    import demo

    return demo


def test_it_verifies_what_it_sent():
    done = subprocess.run(
        [
            sys.executable,
            "-W",
            "error",
            EXAMPLES / "demo.py",
            "--records",
            "20000",
            "--partitions",
            "2",
        ],
        capture_output=True,
        timeout=120,
        check=False,
    )
    assert done.returncode == 0, done.stderr.decode()
    text = done.stdout.decode()
    assert "verified     every record" in text
    assert int(text.split()[1].replace(",", "")) >= 20000


def test_no_two_records_are_the_same(demo):
    values = [value for _, some in demo.inputs(5000) for value in some]
    assert len(set(values)) == len(values) >= 5000


def test_too_little_source_is_read_again_under_another_name(demo, monkeypatch, tmp_path):
    (tmp_path / "a.py").write_text("x\ny\n")
    (tmp_path / "b.py").write_text("")
    monkeypatch.setattr(
        demo,
        "source_files",
        lambda: [("a", tmp_path / "a.py"), ("b", tmp_path / "b.py"), ("c", tmp_path / "gone")],
    )
    values = [value for _, some in demo.inputs(5) for value in some]
    assert values == [b"a:1:x", b"a:2:y", b"2:a:1:x", b"2:a:2:y", b"3:a:1:x", b"3:a:2:y"]
    monkeypatch.setattr(demo, "source_files", list)
    with pytest.raises(demo.VerificationError, match="no source file"):
        list(demo.inputs(5))


class Told:
    """Stands in for a RecordMetadata."""

    def __init__(self, record_id, partition, offset):
        self.record_id, self.partition, self.offset = record_id, partition, offset


@pytest.fixture
def books(demo):
    """Three records, of which the first two have been called back and read."""
    books = demo.Books(2)
    for number, partition in enumerate((0, 1, 0)):
        assert books.sending(partition, b"k", b"v%d" % number) == number
    books.on_delivery(Told(0, 0, 0), None)
    books.on_delivery(Told(1, 1, 0), None)
    books.check_read(ConsumedMessage("t", 0, 0, b"k", b"v0"))
    books.check_read(ConsumedMessage("t", 1, 0, b"k", b"v1"))
    return books


def test_books_that_balance(books):
    books.on_delivery(Told(2, 0, 1), None)
    books.check_read(ConsumedMessage("t", 0, 1, b"k", b"v2"))
    books.check_end()
    assert books.unread_bytes == [0, 0]


@pytest.mark.parametrize(
    ("partition", "offset", "key", "value"),
    [
        (0, 1, b"k", b"other"),
        (0, 1, b"other", b"v2"),
        (0, 1, b"k", None),
        (0, 2, b"k", b"v2"),
        (0, 0, b"k", b"v0"),
        (1, 1, b"k", b"v2"),
    ],
)
def test_a_record_that_is_not_the_one_that_was_sent(demo, books, partition, offset, key, value):
    with pytest.raises(demo.VerificationError):
        books.check_read(ConsumedMessage("t", partition, offset, key, value))


@pytest.mark.parametrize(
    "report",
    [
        (Told(2, 0, 5), None),  # a wrong offset
        (Told(2, 1, 1), None),  # a wrong partition
        (Told(2, 0, None), None),
        (Told(2, 0, 1), "an error"),
        (Told(1, 1, 0), None),  # one that has been called back already
        None,  # none at all
    ],
)
def test_a_callback_that_does_not_tell_the_truth(demo, books, report):
    if report is not None:
        books.on_delivery(*report)
    books.check_read(ConsumedMessage("t", 0, 1, b"k", b"v2"))
    with pytest.raises(demo.VerificationError):
        books.check_end()


def test_a_record_that_was_not_read(demo, books):
    books.on_delivery(Told(2, 0, 1), None)
    with pytest.raises(demo.VerificationError, match="3 sent, 3 called back, 2 read"):
        books.check_end()
