"""The invariants of a debug build, each broken on purpose in a process of its own: what they are
worth is that they are seen.
"""

import os
import shutil
import subprocess
import sys
import sysconfig
from pathlib import Path

import pytest

from kafka_ext import _rdkafka

ROOT = Path(__file__).resolve().parents[2]
LIBRDKAFKA = ROOT / "build/librdkafka/include"

MISUSES = {
    "released_twice": "a message released twice",
    "not_a_message": "the release of what is not a message",
    "more_released_than_made": "more messages released than made",
    "pool_with_messages": "a pool goes with messages in use",
    "pool_with_pins": "a pool goes with values pinned",
    "answered_twice": "a message of a batch answered twice",
    "answer_out_of_range": "an answer for a message that its batch does not have",
    "more_answers": "more answers than a batch has messages",
    "batch_unanswered": "a batch finished with messages unanswered",
    "batch_removed_twice": "a batch removed twice",
    "parts_in_flight": "a producer goes with batches in flight",
}


@pytest.fixture(scope="module")
def compiled(tmp_path_factory):
    """invariants.c as a shared library, which finds Python's functions in the interpreter that
    loads it.
    """
    compiler = shutil.which(os.environ.get("CC", "cc"))
    if compiler is None or not LIBRDKAFKA.is_dir():
        pytest.skip("needs a C compiler and the bundled librdkafka's headers")

    def build(name, *flags):
        library = tmp_path_factory.mktemp("invariants") / f"{name}.so"
        includes = [
            "-I",
            str(ROOT / "include"),
            "-I",
            str(LIBRDKAFKA),
            "-I",
            sysconfig.get_path("include"),
        ]
        source = str(ROOT / "tests/memory/invariants.c")
        # Optimized as little as drops what is not used, and with it librdkafka's functions, which
        # are not linked.
        command = [
            compiler,
            "-g",
            "-O1",
            "-fPIC",
            "-shared",
            "-Wno-unused-function",
            *flags,
            *includes,
            source,
            "-o",
            str(library),
        ]
        built = subprocess.run(command, capture_output=True, text=True)
        if "cannot find" in built.stderr and "san" in built.stderr:
            pytest.skip("the compiler has no sanitizers")
        assert built.returncode == 0, built.stderr
        return library

    return build


def run(library, misuse, **environment):
    program = (
        "import ctypes, sys; getattr(ctypes.PyDLL(sys.argv[1]), sys.argv[2])(); print('unnoticed')"
    )
    command = [sys.executable, "-c", program, str(library), misuse]
    return subprocess.run(
        command, capture_output=True, text=True, timeout=120, env={**os.environ, **environment}
    )


@pytest.fixture(scope="module")
def plain(compiled):
    return compiled("plain", "-DKAFKA_EXT_DEBUG")


@pytest.mark.parametrize("misuse", MISUSES)
def test_what_must_not_happen_aborts_with_its_name(plain, misuse):
    done = run(plain, misuse)
    assert "unnoticed" not in done.stdout
    assert done.returncode < 0
    assert f"kafka_ext: invariant broken: {MISUSES[misuse]}" in done.stderr


def test_the_proper_use_breaks_none(plain):
    assert run(plain, "proper_use").stdout == "unnoticed\n"


@pytest.mark.skipif(
    "libasan" in os.environ.get("LD_PRELOAD", ""), reason="loads the sanitizer itself"
)
@pytest.mark.parametrize("misuse", ["used_after_release", "released_twice"])
def test_address_sanitizer_sees_a_message_that_is_back_in_its_pool(compiled, misuse):
    """A struct of the pool is never given to free(): without the poison its use after the callback
    would be seen by nobody.
    """
    library = compiled("sanitized", "-DKAFKA_EXT_DEBUG", "-fsanitize=address")
    compiler = shutil.which(os.environ.get("CC", "cc"))
    runtime = subprocess.run(
        [compiler, "-print-file-name=libasan.so"], capture_output=True, text=True
    ).stdout.strip()
    if not os.path.isfile(runtime):
        pytest.skip("the compiler's AddressSanitizer is no shared library")
    done = run(library, misuse, LD_PRELOAD=runtime, ASAN_OPTIONS="detect_leaks=0")
    assert "unnoticed" not in done.stdout
    assert "AddressSanitizer: use-after-poison" in done.stderr


def test_a_release_build_lets_no_allocation_fail():
    if _rdkafka.build_info()["debug"]:
        pytest.skip("this is a debug build")
    with pytest.raises(RuntimeError, match="KAFKA_EXT_DEBUG=1"):
        _rdkafka.fail_allocations(0)
    assert _rdkafka.allocations_failed() == (0, 0)
