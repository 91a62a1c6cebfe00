"""What the engines' tests share: a broker, a way to run an example, and warnings that are the
engines' own affair.
"""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from kafka_ext import KafkaSink
from kafka_ext.testing import EmbeddedBroker

EXAMPLES = Path(__file__).resolve().parents[2] / "examples" / "engines"

os.environ["PYSPARK_PYTHON"] = sys.executable
# Nobody's usage is reported from a test.
os.environ["RAY_USAGE_STATS_ENABLED"] = "0"


def pytest_collection_modifyitems(items):
    for item in items:
        item.add_marker(pytest.mark.filterwarnings("ignore"))


@pytest.fixture
def broker():
    with EmbeddedBroker(topics={"orders": 4}) as broker:
        yield broker


@pytest.fixture
def sink(broker):
    return KafkaSink(broker.config(enable_idempotence=False), "orders", value="value")


@pytest.fixture
def run_example():
    def run(name):
        done = subprocess.run(
            [sys.executable, str(EXAMPLES / name)], capture_output=True, text=True, timeout=240
        )
        assert done.returncode == 0, f"{done.stdout}\n{done.stderr}"
        return done.stdout

    return run


@pytest.fixture
def stored(broker):
    """The values that are in the topic."""
    return lambda: [message.value.decode() for message in broker.messages("orders")]
