"""docs/faults.md names the tests of every fault, and they are there."""

import ast
import re
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
PAGE = (ROOT / "docs" / "faults.md").read_text()
NAMED = re.findall(r"`(\w+/\w+\.py)::(\w+)`", PAGE)


@pytest.mark.parametrize("file", sorted({file for file, _ in NAMED}))
def test_every_test_that_is_named_exists(file):
    there = {
        node.name
        for node in ast.walk(ast.parse((ROOT / "tests" / file).read_text()))
        if isinstance(node, ast.FunctionDef)
    }
    assert {name for of, name in NAMED if of == file} <= there


def test_every_fault_has_a_row_and_every_row_a_test():
    rows = re.findall(r"^\| (\d+) \|.*\| (.*) \|$", PAGE, re.MULTILINE)
    assert sorted(int(number) for number, _ in rows) == list(
        range(1, 42)
    )  # forty of the list, and one that was added
    assert [
        number for number, shown in rows if not re.search(r"`\w+/\w+\.py::test_\w+`", shown)
    ] == []


def test_every_promise_has_a_test():
    promises = [
        line
        for line in PAGE.partition("## Promises")[2].partition("\n## ")[0].splitlines()
        if line.startswith("| ")
    ][1:]
    assert len(promises) >= 8
    assert all(re.search(r"`\w+/\w+\.py::test_\w+`", line) for line in promises)


def test_what_it_names_is_written_as_the_test_can_find_it():
    assert len(NAMED) == PAGE.count("::test_")
