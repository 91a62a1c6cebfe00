"""What watches memory is slow, all of it: most of these tests are programs of their own that do one
thing many times.
"""

from pathlib import Path

import pytest

HERE = Path(__file__).parent
SECONDS = 2  # of most of them; those that take longer say so


def pytest_collection_modifyitems(items):
    for item in items:
        if HERE in item.path.parents and item.get_closest_marker("slow") is None:
            item.add_marker(pytest.mark.slow(SECONDS))
