"""A test that hangs ends its run, whatever it hangs in."""

import os
import subprocess
import sys
import textwrap
from pathlib import Path

import pytest

TESTS = Path(__file__).resolve().parents[1]

HANGING_FIXTURE = """
        @pytest.fixture
        def fixture():
            yield
            try:
                threading.Event().wait()
            finally:
                threading.Event().wait()
"""

HANGING = {
    # pytest-timeout's signal arrives, and its exception is followed by another wait.
    "twice": (
        """
        def test_hangs():
            try:
                threading.Event().wait()
            finally:
                threading.Event().wait()
    """
    ),
    # A main thread that does not look at signals, and has the GIL.
    "in C": (
        """
        def test_hangs():
            signal.pthread_sigmask(signal.SIG_BLOCK, [signal.SIGALRM])  # it would interrupt the sleep, if not Python
            ctypes.PyDLL(None).sleep(60)
    """
    ),
    "in a fixture's end": (
        f"""{HANGING_FIXTURE}
        def test_hangs(fixture):
            pass
    """
    ),
    "behind a failure": (
        f"""{HANGING_FIXTURE}
        def test_hangs(fixture):
            assert False
    """
    ),
    "at the exit": (
        """
        def test_hangs():
            threading.Thread(target=threading.Event().wait).start()
    """
    ),
}


QUIET = """
        def test_one():
            time.sleep(0.5)

        def test_two():
            time.sleep(0.5)
"""


def start(folder, source, grace, *arguments):
    (folder / "conftest.py").write_text(
        "import watchdog\n\ndef pytest_configure(config):\n    watchdog.pytest_configure(config)\n"
    )
    (folder / "test_it.py").write_text(
        "import ctypes, signal, threading, time\nimport pytest\n" + textwrap.dedent(source)
    )
    (folder / "pytest.ini").write_text("[pytest]\n")
    command = [
        sys.executable,
        "-m",
        "pytest",
        "-p",
        "no:cacheprovider",
        "-p",
        "no:kafka_ext",
        "-p",
        "no:asyncio",
        "--timeout",
        "1",
        *arguments,
        "test_it.py",
    ]
    environment = os.environ | {"PYTHONPATH": str(TESTS), "KAFKA_EXT_TEST_GRACE": str(grace)}
    return subprocess.Popen(
        command,
        cwd=folder,
        env=environment,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )


@pytest.fixture
def run(tmp_path):
    """Runs `source` as tests in a process of its own; that process and what it complained of."""
    processes = []

    def run(source, grace, *arguments):
        processes.append(start(tmp_path, source, grace, *arguments))
        return processes[0], processes[0].communicate(timeout=90)[1]

    yield run
    for process in processes:
        process.kill()
        process.communicate()


@pytest.mark.parametrize("where", HANGING)
def test_what_hangs_ends_the_run(run, where):
    process, complained = run(HANGING[where], 1)
    assert process.returncode == 1
    assert "Timeout (0:00:0" in complained  # faulthandler's, with the stacks behind it
    assert "most recent call first" in complained


@pytest.mark.parametrize(
    ("grace", "timeout"), [(60, 30), (-0.9, 0)], ids=["nowhere", "in a debugger"]
)
def test_what_does_not_hang_is_let_be(run, grace, timeout):
    process, complained = run(QUIET, grace, "--timeout", str(timeout))
    assert (process.returncode, complained) == (0, "")
