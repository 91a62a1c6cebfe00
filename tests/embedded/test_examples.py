"""Each program in examples/ runs by itself and prints what it should: the documentation shows them,
so what it shows is tested.
"""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

EXAMPLES = Path(__file__).resolve().parents[2] / "examples"
RECIPES = sorted((EXAMPLES / "recipes").glob("[0-9]*.py"))

# A line of each one's output that only comes when all of it worked.
EXPECTED = {
    "asyncio_producer.py": "10000 in a batch, 0 failed",
    "batches.py": "10000 events, the last at offset 9999",
    "columns_duckdb.py": "100000 rows sent, 0 failed",
    "columns_numpy.py": "[25, 25] images in each partition",
    "columns_pandas.py": "2 rows of 16 bytes sent, 0 failed",
    "columns_polars.py": "4 words sent, 0 failed",
    "columns_pyarrow.py": "100000 lines sent, 0 failed",
    "callbacks.py": "% The last one is at offset",
    "custom_partitioner.py": "ada: 5 orders in 1 partition",
    "futures.py": "10 of 10 delivered",
    "headers_and_timestamps.py": "the tombstone has 0 bytes of value and 7 of key",
    "manual_polling.py": "0 messages left",
    "logging_to_kafka.py": "0 dropped, 0 failed\nout of paper\nand so does a dictionary",
    "prometheus_metrics.py": "kafka_producer_delivered_total 2000.0",
    "recoverable.py": "20 of 20 delivered, in order",
    "reliable_producer.py": "1000 delivered, 1 refused, 0 unknown",
    "schema_registry.py": "13 bytes at offset 0",
    "threads.py": "1000 sent, 1000 delivered, 0 failed",
    "tracing.py": "3 spans: ok, ok, ok",
    "transactions.py": "committed: 20",
    "zero_copy.py": "119 delivered, 0 failed, 0 bytes still pinned",
}


def run(*arguments: str) -> str:
    # DuckDB's import uses what CPython 3.14 deprecates.
    warnings = ["-W", "error", "-W", "ignore::DeprecationWarning:duckdb"]
    done = subprocess.run(
        [sys.executable, *warnings, *arguments],
        capture_output=True,
        text=True,
        timeout=120,
        cwd=EXAMPLES.parent,
    )
    assert done.returncode == 0, (
        f"{arguments} ended with {done.returncode}\n{done.stdout}\n{done.stderr}"
    )
    return done.stdout


def test_every_example_has_an_expectation():
    others = {
        "demo.py",
        "test_with_pytest.py",
        "test_with_pytest_asyncio.py",
    }  # a test of its own (make demo), and below
    assert {path.name for path in EXAMPLES.glob("*.py")} - others == set(EXPECTED)


@pytest.mark.parametrize("name", sorted(EXPECTED))
def test_example_with_a_broker_of_its_own(name):
    if name == "prometheus_metrics.py":
        pytest.importorskip("prometheus_client")
    if name.startswith("columns_"):  # named after the library it needs
        pytest.importorskip(name.removeprefix("columns_").removesuffix(".py"))
    assert EXPECTED[name] in run(str(EXAMPLES / name))


@pytest.mark.parametrize("recipe", RECIPES, ids=lambda recipe: recipe.stem)
def test_recipe(recipe):
    """Each asserts for itself what docs/recipes.md says of it."""
    if "tls" in recipe.stem:
        pytest.importorskip("trustme")
    if "processes" in recipe.stem and sys.platform != "linux":
        pytest.skip("forking with threads is Linux's")
    run(str(recipe))


def test_the_page_shows_every_recipe():
    page = (EXAMPLES.parent / "docs" / "recipes.md").read_text()
    assert len(RECIPES) == 10
    assert [
        recipe.name for recipe in RECIPES if f"../examples/recipes/{recipe.name}" not in page
    ] == []


def test_example_with_bootstrap_servers_as_argument(kafka_broker):
    """The other way to start each of them; one stands for all."""
    assert "10 of 10 delivered" in run(str(EXAMPLES / "futures.py"), kafka_broker.bootstrap_servers)
    assert len(kafka_broker.messages("orders", count=10)) == 10


def test_pytest_example():
    output = run(
        "-m", "pytest", "-q", "-p", "no:cacheprovider", str(EXAMPLES / "test_with_pytest.py")
    )
    assert "4 passed" in output


def test_pytest_asyncio_example():
    pytest.importorskip("pytest_asyncio")
    options = [
        "-q",
        "-p",
        "no:cacheprovider",
        "-o",
        "addopts=",
        "-o",
        "asyncio_default_fixture_loop_scope=function",
    ]
    assert "2 passed" in run(
        "-m", "pytest", *options, str(EXAMPLES / "test_with_pytest_asyncio.py")
    )
