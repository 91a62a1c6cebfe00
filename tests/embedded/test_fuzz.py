"""A minute of the boundary's fuzzer (tests/fuzz); `make fuzz` looks longer."""

import os
import time

import pytest

pytest.importorskip("numpy")
pytest.importorskip("pandas")
pytest.importorskip("polars")
pytest.importorskip("pyarrow")

BUDGET = 45.0
EXAMPLES = 10


@pytest.mark.slow
def test_what_arrives_is_what_was_meant():
    from tests.fuzz.machine import run

    end = time.monotonic() + BUDGET
    number = int.from_bytes(os.urandom(3), "big")
    while time.monotonic() < end:
        try:
            run(number, EXAMPLES)
        except Exception:
            print(f"Again: python -m tests.fuzz --minutes 0 --seed {number} --examples {EXAMPLES}")
            raise
        number += 1
