"""How the extension's sources hang together: one declaration each, and no order among the files."""

import random
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

CHECKOUT = Path(__file__).resolve().parents[2]
CORE = CHECKOUT / "kafka_ext/core"
if not CORE.is_dir():
    pytest.skip("the extension's sources are not here", allow_module_level=True)

SOURCES = sorted(CORE.rglob("*.pyx"))
LAYOUTS = sorted(CORE.rglob("*.pxd"))
INCLUDE = re.compile(r'^include "(core/.*\.pyx)"$', re.MULTILINE)


def cythonize(package, tmp_path):
    """Run Cython, and no C compiler, on `package`/_rdkafka.pyx."""
    command = [
        sys.executable,
        "-m",
        "cython",
        "-3",
        "-I",
        CHECKOUT / "include",
        "-I",
        package,
        package / "_rdkafka.pyx",
    ]
    return subprocess.run(
        [*command, "-o", tmp_path / "out.c"], capture_output=True, text=True, timeout=280
    )


def copied(tmp_path):
    package = tmp_path / "kafka_ext"
    shutil.copytree(CORE, package / "core")
    for name in ("__init__.py", "_rdkafka.pxd", "_rdkafka.pyx"):
        shutil.copy(CHECKOUT / "kafka_ext" / name, package)
    return package


@pytest.mark.slow(5)
def test_the_order_of_the_files_means_nothing(tmp_path):
    pytest.importorskip("Cython")
    package = copied(tmp_path)
    main = package / "_rdkafka.pyx"
    text = main.read_text(encoding="utf-8")
    names = INCLUDE.findall(text)
    assert sorted(names) == [str(path.relative_to(CORE.parent)) for path in SOURCES]
    shuffled = random.Random(12).sample(names, len(names))
    lines = "\n".join(f'include "{name}"' for name in shuffled)
    main.write_text(INCLUDE.sub("", text) + "\n" + lines + "\n", encoding="utf-8")
    done = cythonize(package, tmp_path)
    assert done.returncode == 0, f"{shuffled}\n{done.stderr}"


def test_a_client_knows_neither_producer_nor_consumer(tmp_path):
    pytest.importorskip("Cython")
    package = copied(tmp_path)
    includes = "\n".join(
        f'include "{path.relative_to(CORE.parent)}"'
        for path in sorted((CORE / "client").glob("*.pyx"))
    )
    (package / "_rdkafka.pyx").write_text(
        f"# cython: language_level=3\ncimport cython\n{includes}\n", encoding="utf-8"
    )
    (package / "_rdkafka.pxd").write_text(
        'cimport cython\ninclude "core/client/client.pxd"\n', encoding="utf-8"
    )
    done = cythonize(package, tmp_path)
    assert done.returncode == 0, done.stderr


def test_c_is_declared_once_and_in_a_pxd():
    for path in SOURCES:
        assert "cdef extern" not in path.read_text(encoding="utf-8"), path
    declared = {}
    for path in LAYOUTS:
        external = False
        for line in path.read_text(encoding="utf-8").splitlines():
            if line and not line[0].isspace():
                external = line.startswith("cdef extern")
            found = re.match(r"    [\w *]*?(\w+)\((?!\*)", line)
            if external and found:
                assert found[1] not in declared, f"{found[1]}: {declared[found[1]]} and {path}"
                declared[found[1]] = path
    assert len(declared) > 80


def test_c_never_calls_up():
    for path in SOURCES:
        assert not re.search(
            r"^\s*(import|from) +(kafka_ext\b|\.)", path.read_text(encoding="utf-8"), re.MULTILINE
        ), path
