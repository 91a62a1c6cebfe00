"""The Python code in README.md and docs/*.md runs. Its files share a namespace from top to bottom,
as a reader's session would.
"""

from __future__ import annotations

import importlib.util
import re
from contextlib import suppress
from pathlib import Path
from unittest import SkipTest

import pytest
from sybil import Sybil
from sybil.parsers.myst import PythonCodeBlockParser, SkipParser

from kafka_ext.testing import EmbeddedBroker

ROOT = Path(__file__).resolve().parents[2]
README = ROOT / "README.md"
PAGES = [README, *sorted(ROOT.glob("docs/*.md"))]
PAGES_OUTSIDE_DOCS = [
    ROOT / f"{name}.md" for name in ("README", "CHANGELOG", "CONTRIBUTING", "SECURITY")
]
SYBIL = Sybil(parsers=[PythonCodeBlockParser(), SkipParser()])


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_code_in(page, capsys):
    with EmbeddedBroker() as broker:
        document = SYBIL.parse(page)
        # What the pages take for granted: somewhere to send to.
        document.namespace["bootstrap_servers"] = broker.bootstrap_servers
        document.namespace["installed"] = lambda module: (
            importlib.util.find_spec(module) is not None
        )
        for example in document.examples():
            with suppress(
                SkipTest
            ):  # another client's code, which runs where that client is (make bench installs them)
                example.evaluate()


def test_the_ten_lines_of_the_readme_print_what_it_shows(capsys):
    for example in SYBIL.parse(README).examples():
        example.evaluate()
    shown = re.search(r"^```text\n(.*?)^```$", README.read_text("utf-8"), re.DOTALL | re.MULTILINE)
    assert capsys.readouterr().out == shown[1]


@pytest.mark.skipif(not (ROOT / "SECURITY.md").exists(), reason="this is not the whole checkout")
@pytest.mark.parametrize("page", PAGES_OUTSIDE_DOCS, ids=lambda page: page.name)
def test_links_lead_somewhere(page):
    """Sphinx checks those within docs/."""
    links = re.findall(r"\]\(([^)\s]+)\)|(?:src|srcset)=\"([^\"]+)\"", page.read_text("utf-8"))
    targets = [target for pair in links for target in pair if target and "://" not in target]
    missing = [
        target for target in targets if not (page.parent / target.partition("#")[0]).exists()
    ]
    assert not missing


def test_the_pictures_for_light_and_dark_differ_in_colours_only():
    light, dark = (
        re.sub(r"#[0-9a-f]{6}", "", (ROOT / "docs" / "_static" / name).read_text("utf-8"))
        for name in ("record.svg", "record-dark.svg")
    )
    assert light == dark
