"""Patching librdkafka before it is built: a patch says why, applies exactly or ends the build, and
is shipped.
"""

import shutil
import sys
from pathlib import Path

import pytest

WHEELS = Path(__file__).resolve().parents[2] / "wheels"
if not (WHEELS / "patches.py").is_file() or shutil.which("patch") is None:
    pytest.skip("the build's scripts, or patch, are not here", allow_module_level=True)

PATCH = """Say b

Without it: a is said.
Tests: none

--- a/src/it.c
+++ b/src/it.c
@@ -1,3 +1,3 @@
 one
-a
+b
 three
"""


@pytest.fixture
def patches(monkeypatch):
    """wheels/patches.py, and no trace of that folder's modules afterwards."""
    monkeypatch.syspath_prepend(str(WHEELS))
    yield pytest.importorskip("patches")
    for name, module in list(sys.modules.items()):
        if Path(getattr(module, "__file__", None) or "/").parent == WHEELS:
            del sys.modules[name]


@pytest.fixture
def one(patches, monkeypatch, tmp_path):
    """A folder of patches with one in it, and a source with what it changes."""
    monkeypatch.setattr(patches, "FOLDER", tmp_path / "patches")
    patches.FOLDER.mkdir()
    (patches.FOLDER / "0001-say-b.patch").write_text(PATCH)
    file = tmp_path / "source/src/it.c"
    file.parent.mkdir(parents=True)
    file.write_text("one\na\nthree\n")
    return file


def test_each_patch_of_ours_says_why_and_what_shows_it(patches):
    assert patches.files(), "none: then this module can go"
    names = [patches.name(patch) for patch in patches.files()]
    assert len(set(names)) == len(names)
    for patch in patches.files():
        header = patch.read_text().partition("\n--- a/")[0]
        assert "\nWithout it: " in header, patch.name
        assert "\nTests: " in header, patch.name


def test_a_patch_is_applied_and_named(patches, one, tmp_path):
    assert patches.apply(tmp_path / "source", tmp_path / "log", pinned=True) == ["say-b"]
    assert one.read_text() == "one\nb\nthree\n"


@pytest.mark.parametrize(
    "text",
    ["nothing of it\n", "one\nb\nthree\n", "one\na\nother\n"],
    ids=["none", "there already", "other context"],
)
def test_what_does_not_apply_stops_the_pinned_build_and_leaves_another_release_alone(
    patches, one, tmp_path, text, capsys
):
    one.write_text(text)
    with pytest.raises(patches.BuildError, match=r"0001-say-b\.patch does not apply"):
        patches.apply(tmp_path / "source", tmp_path / "log", pinned=True)
    assert patches.apply(tmp_path / "source", tmp_path / "log", pinned=False) == []
    assert one.read_text() == text
    assert "say-b is not applied" in "".join(capsys.readouterr())


def test_another_patch_is_another_build(patches, one, monkeypatch):
    librdkafka = pytest.importorskip("librdkafka")
    before = librdkafka.Options.from_environment()
    (patches.FOLDER / "0001-say-b.patch").write_text(PATCH.replace("+b", "+c"))
    changed = librdkafka.Options.from_environment()
    (patches.FOLDER / "0002-other.patch").write_text(PATCH)
    added = librdkafka.Options.from_environment()
    assert len({before.scripts, changed.scripts, added.scripts}) == 3
