"""A minute of the boundary's fuzzer (tests/fuzz), and that it finds what is wrong; `make fuzz`
looks longer.

The seeds are the same each time, so that this fails for what was changed and not by chance.
KAFKA_EXT_FUZZ_SEED has others.
"""

import os
import subprocess
import sys
from pathlib import Path

import pytest

pytest.importorskip("numpy")
pytest.importorskip("pandas")
pytest.importorskip("polars")
pytest.importorskip("pyarrow")

pytestmark = pytest.mark.slow(8)

ROOT = Path(__file__).resolve().parents[2]
MINUTES = 0.7
EXAMPLES = 20


@pytest.mark.slow(45)
@pytest.mark.timeout(420)
def test_what_arrives_is_what_was_meant():
    # In a process of its own: when a call hangs, it prints all stacks and the seed, and ends.
    command = [
        sys.executable,
        "-m",
        "tests.fuzz",
        "--minutes",
        str(MINUTES),
        "--examples",
        str(EXAMPLES),
    ]
    command += ["--seed", os.environ.get("KAFKA_EXT_FUZZ_SEED", "1")]
    done = subprocess.run(
        command,
        cwd=ROOT,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        timeout=400,
        check=False,
    )
    assert done.returncode == 0, done.stdout
    assert "nothing found" in done.stdout
    print(done.stdout.splitlines()[-1])


def _sabotages():
    from tests.fuzz.sabotage import SABOTAGES

    return SABOTAGES


@pytest.mark.parametrize("name", sorted(_sabotages()))
def test_the_fuzzer_finds(name, monkeypatch):
    """With a producer that does one thing wrong it must fail: else it proves nothing when it does
    not.
    """
    from tests.fuzz import machine, producers

    monkeypatch.setattr(producers, "KafkaProducer", _sabotages()[name])
    monkeypatch.setattr(machine, "PATIENCE", 1.0)  # what is lost is waited for
    with pytest.raises((AssertionError, ExceptionGroup)):
        machine.run(1, 200)


def test_the_fuzzer_finds_a_setting_that_is_forgotten(monkeypatch):
    from tests.fuzz import configurations, sabotage

    monkeypatch.setattr(configurations, "KafkaProducer", sabotage.ForgetsASetting)
    with pytest.raises(AssertionError, match=r"batch\.size"):
        configurations.run(1, 300)


def test_an_example_that_was_given_up_leaves_no_fault_behind():
    """Hypothesis gives up every fourth example half-way. What it broke, the next one would have
    found.
    """
    from tests.fuzz import machine

    try:
        broker = machine.cluster.get()
        broker.lose_acks(1)
        machine.Boundary()
        assert machine.cluster.broker is broker
        assert broker.unused_faults() == []
    finally:
        machine.cluster.close()
