"""The API reference is complete. `make docs` asks Sphinx itself (docs/check_reference.py); here is
what can be known without building.
"""

from __future__ import annotations

import ast
import importlib.util
import inspect
from pathlib import Path

import pytest

import kafka_ext

DOCS = Path(__file__).resolve().parents[2] / "docs"


def load(name):
    spec = importlib.util.spec_from_file_location(name, DOCS / f"{name}.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


check_reference = load("check_reference")
stub_signatures = load("stub_signatures")


def test_every_public_name_is_in_the_reference():
    page = (DOCS / "api.md").read_text(encoding="utf-8").split()
    listed = {word.removesuffix("()") for word in page if word.startswith("kafka_ext.")}
    assert {f"kafka_ext.{name}" for name in kafka_ext.__all__} <= listed


def test_what_is_asked_for_are_names_and_methods():
    """The check that conf.py makes would notice: with nothing documented, everything is missing."""
    missing = check_reference.missing(set(), kafka_ext)
    for name in (
        "KafkaProducer",
        "KafkaProducer.send",
        "KafkaProducer.transaction",
        "Properties.put",
        "ErrorCode",
        "get_include",
    ):
        assert f"kafka_ext.{name}" in missing
    assert check_reference.missing(set(missing), kafka_ext) == []


@pytest.mark.parametrize("name", sorted(check_reference.public_names(kafka_ext)))
def test_public_name_has_a_docstring_of_its_own(name):
    thing = kafka_ext
    for part in name.split(".")[1:]:
        thing = getattr(thing, part)
    if not isinstance(thing, str):  # __version__
        assert inspect.getdoc(thing)


def test_stub_signatures_are_read():
    functions = stub_signatures.read()
    arguments, returned = stub_signatures.signature_of(
        functions["Producer.send"], kafka_ext.KafkaProducer.send
    )
    assert arguments.startswith("(record: ProducerRecord, on_delivery: Callable[")
    assert "option: SendOption=SendOption.NO_COPY_RECORD_VALUE" in arguments
    assert returned == "None"
    ast.parse(f"def f{arguments}: pass")
