"""Mending a librdkafka before it is built: what does not fit is said, and nothing is changed by halves."""

import sys
from pathlib import Path

import pytest

WHEELS = Path(__file__).resolve().parents[2] / "wheels"
if not (WHEELS / "patches.py").is_file():
    pytest.skip("the build's scripts are not here", allow_module_level=True)

CALL = '                rd_kafka_idemp_drain_epoch_bump(\n                    rk,  perr->err,\n  "skipped sequence numbers");\n'


@pytest.fixture
def patches(monkeypatch):
    monkeypatch.syspath_prepend(str(WHEELS))
    module = pytest.importorskip("patches")
    yield module
    for name in ("patches", "console"):
        sys.modules.pop(name, None)


@pytest.fixture
def source(tmp_path):
    (tmp_path / "src").mkdir()
    return tmp_path


def test_white_space_does_not_count(patches, source):
    file = source / "src/rdkafka_request.c"
    file.write_text(f"before\n{CALL}after\n")
    assert patches.apply(source, pinned=True) == ["librdkafka-4953"]
    assert "".join(file.read_text().split()) == "beforeafter"


@pytest.mark.parametrize("text", ["nothing of it", CALL + CALL, CALL.replace("skipped", "other")], ids=["none", "twice", "other"])
def test_what_does_not_fit_stops_the_pinned_build_and_leaves_another_version_alone(patches, source, text, capsys):
    file = source / "src/rdkafka_request.c"
    file.write_text(text)
    with pytest.raises(patches.BuildError, match="librdkafka-4953 does not fit"):
        patches.apply(source, pinned=True)
    assert patches.apply(source, pinned=False) == []
    assert file.read_text() == text
    assert "librdkafka-4953 is not applied" in "".join(capsys.readouterr())
