"""The import of Arrow columns, with valid and malformed structures, under AddressSanitizer
(fuzz_arrow.c).
"""

import os
import shutil
import subprocess
import sysconfig
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
SANITIZERS = ["-g", "-O1", "-fsanitize=address,undefined", "-fno-sanitize-recover=all"]


@pytest.fixture(scope="module")
def fuzzer(tmp_path_factory):
    compiler = shutil.which(os.environ.get("CC", "cc"))
    if compiler is None:
        pytest.skip("needs a C compiler")
    program = tmp_path_factory.mktemp("fuzz") / "fuzz_arrow"
    includes = ["-I", str(ROOT / "include"), "-I", sysconfig.get_path("include")]
    built = subprocess.run(
        [
            compiler,
            *SANITIZERS,
            "-Wno-unused-function",
            *includes,
            str(ROOT / "tests/memory/fuzz_arrow.c"),
            "-o",
            str(program),
        ],
        capture_output=True,
        text=True,
    )
    if "cannot find" in built.stderr and "san" in built.stderr:
        pytest.skip("the compiler has no sanitizers")
    assert built.returncode == 0, built.stderr
    return program


@pytest.mark.parametrize(
    "seed", [1, int.from_bytes(os.urandom(3), "big")], ids=["fixed seed", "random seed"]
)
def test_malformed_arrow_structures_are_refused_before_they_are_read(fuzzer, seed):
    done = subprocess.run(
        [str(fuzzer), str(seed), "50000"], capture_output=True, text=True, timeout=240
    )
    assert done.returncode == 0, f"seed {seed}\n{done.stdout}\n{done.stderr[:4000]}"
    assert done.stdout.startswith("50000 arrays: ")
