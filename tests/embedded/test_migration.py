"""docs/migration.md: each pair of programs, the other client's and ours, leaves the same records
behind and prints the same lines.
"""

from __future__ import annotations

import importlib.util
import subprocess
import sys
from pathlib import Path

import pytest

from kafka_ext.testing import EmbeddedBroker

FOLDER = Path(__file__).resolve().parents[2] / "examples" / "migration"

# By the client's name in the files: the module that it is.
CLIENTS = {"confluent": "confluent_kafka", "kafka_python": "kafka", "aiokafka": "aiokafka"}

# What each pair leaves in the topic (of three partitions) and prints; both are held against this,
# not only against each other.
EXPECTED = {
    "confluent_delivery": (6, "refused: MSG_SIZE_TOO_LARGE", "failed: Local: Unknown partition"),
    "confluent_queue_full": (1000, "1000 delivered"),
    "confluent_transactions": (3, "committed", "aborted: amount -6"),
    "kafka_python_futures": (6, "too large"),
    "aiokafka_send": (7, "too large"),
    "aiokafka_batch": (2000, "2000 delivered"),
    "aiokafka_transactions": (3, "committed", "aborted: amount -6"),
}


def names(kind):
    return {path.stem.removeprefix(f"{kind}_") for path in FOLDER.glob(f"{kind}_*.py")}


def client_of(name):
    return next(module for prefix, module in CLIENTS.items() if name.startswith(prefix))


def run(program, broker, topic):
    # What others' packages warn of is theirs.
    warnings = ["-W", "error"] if program.startswith("after") else []
    command = [sys.executable, *warnings, str(FOLDER / program), broker.bootstrap_servers, topic]
    done = subprocess.run(command, capture_output=True, text=True, timeout=120)
    assert done.returncode == 0, (
        f"{program} ended with {done.returncode}\n{done.stdout}\n{done.stderr}"
    )
    return done.stdout


def test_each_program_has_its_counterpart():
    assert names("before") == names("after") == set(EXPECTED)


def test_the_page_shows_every_program():
    page = (FOLDER.parents[1] / "docs" / "migration.md").read_text()
    assert [
        path.name
        for path in FOLDER.glob("*.py")
        if f"../examples/migration/{path.name}" not in page
    ] == []


@pytest.mark.parametrize("name", sorted(EXPECTED))
def test_before_and_after(name):
    module = client_of(name)
    if importlib.util.find_spec(module) is None:
        pytest.skip(f"{module} is not installed")
    count, *lines = EXPECTED[name]
    # Records of one topic each, so that neither program meets the other's.
    with EmbeddedBroker(topics={"before": 3, "after": 3}) as broker:
        printed, left = {}, {}
        for kind in ("before", "after"):
            printed[kind] = (
                run(f"{kind}_{name}.py", broker, kind).replace(kind, "the topic").splitlines()
            )
            left[kind] = [
                (message.partition, message.offset, message.key, message.value, message.headers)
                for message in broker.messages(kind, count)
            ]
            if name.endswith("transactions"):
                # The embedded broker does not mark what was aborted after it was written, as a real
                # one does for its readers. librdkafka takes back what it has not written yet;
                # aiokafka has written it.
                left[kind] = left[kind][:count]
    assert printed["after"] == printed["before"]
    assert left["after"] == left["before"]
    assert len(left["after"]) == count
    for line in lines:
        assert line in printed["after"]
