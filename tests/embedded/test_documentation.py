"""The Python code in README.md and docs/*.md runs. Its files share a namespace from top to bottom, as a reader's session would."""

from __future__ import annotations

import importlib.util
from contextlib import suppress
from pathlib import Path
from unittest import SkipTest

import pytest
from sybil import Sybil
from sybil.parsers.myst import PythonCodeBlockParser, SkipParser

from kafka_ext.testing import EmbeddedBroker

ROOT = Path(__file__).resolve().parents[2]
PAGES = [ROOT / "README.md", *sorted(ROOT.glob("docs/*.md"))]
SYBIL = Sybil(parsers=[PythonCodeBlockParser(), SkipParser()])


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_code_in(page, capsys):
    with EmbeddedBroker() as broker:
        document = SYBIL.parse(page)
        # What the pages take for granted: somewhere to send to.
        document.namespace["bootstrap_servers"] = broker.bootstrap_servers
        document.namespace["installed"] = lambda module: importlib.util.find_spec(module) is not None
        for example in document.examples():
            with suppress(SkipTest):  # another client's code, which runs where that client is (make bench installs them)
                example.evaluate()


def test_the_quick_start_prints_what_it_promises(capsys):
    for example in SYBIL.parse(ROOT / "README.md").examples():
        example.evaluate()
    printed = capsys.readouterr().out
    assert printed.count("delivered: greetings-") == 3
    assert "not delivered" not in printed
    assert "at offset" in printed
