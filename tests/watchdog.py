"""Ends a run in which pytest-timeout cannot: nothing hangs for ever, and what hung is known by the
stacks of all threads.

pytest-timeout raises in the main thread, by a signal, once for each test. It can do nothing for a
main thread that is in C and does not look at signals, nor for a second wait behind the first
(`join` in an `__exit__`), nor when the interpreter waits for threads at its exit.
"""

from __future__ import annotations

import faulthandler
import os

import pytest

# Seconds beyond a test's timeout, for each of setup, call and teardown: it comes only after
# pytest-timeout has had its turn.
GRACE = float(os.environ.get("KAFKA_EXT_TEST_GRACE", "60"))


class Watchdog:
    """A plugin. The watching is a thread of faulthandler's in C, which needs neither the GIL nor a
    main thread that listens.
    """

    def __init__(self, config: pytest.Config) -> None:
        self._timeout = float(config.getoption("timeout") or config.getini("timeout") or 0)
        # pytest has not begun to capture: later on file descriptor 2 is a file that is lost with
        # the process.
        self._stderr = os.dup(2)

    def _arm(self, timeout: float) -> None:
        if self._timeout:  # 0 is for a debugger
            faulthandler.dump_traceback_later(timeout + GRACE, exit=True, file=self._stderr)

    def _arm_for(self, item: pytest.Item) -> None:
        marker = item.get_closest_marker("timeout")
        self._arm(float(marker.args[0]) if marker is not None and marker.args else self._timeout)

    # One for each phase, since pytest disarms it where a test fails, and a rerun has all of them
    # again.

    @pytest.hookimpl(tryfirst=True)
    def pytest_runtest_setup(self, item: pytest.Item) -> None:
        self._arm_for(item)

    @pytest.hookimpl(tryfirst=True)
    def pytest_runtest_call(self, item: pytest.Item) -> None:
        self._arm_for(item)

    @pytest.hookimpl(tryfirst=True)
    def pytest_runtest_teardown(self, item: pytest.Item) -> None:
        self._arm_for(item)

    @pytest.hookimpl(trylast=True)
    def pytest_sessionfinish(self) -> None:
        self._arm(self._timeout)  # for the summary, and until the interpreter has ended


def pytest_configure(config: pytest.Config) -> None:
    """What a conftest.py calls."""
    config.pluginmanager.register(Watchdog(config), "kafka-ext-watchdog")
