#!/usr/bin/env python3
"""The suite under the tools that see what no assertion sees: `make sanitize`, or a part of it with
`make sanitize PART=asan`.

    asan       AddressSanitizer and UndefinedBehaviorSanitizer: the suite, and each allocation
    failing in its turn tsan       ThreadSanitizer: the tests in which threads meet
    valgrind   memcheck: the leak tests, shortened, and the references of every public call
    oom        of asan, only the allocations that fail
    ci         what every change must pass: of asan the part that is quick, about five minutes

Arguments behind the part go to pytest in place of the tests named here: `make sanitize PART=tsan
ARGS="tests/embedded -k close"`.

Each is a debug build (KAFKA_EXT_DEBUG=1: invariants on, pooled memory guarded) in a copy of the
sources of its own, build/sanitize/<tool>, with a librdkafka that is built with the same sanitizer;
the normal build is not touched. A report of a tool fails the run, in whichever process it was: they
go to files, which are looked for at the end. docs/memory-safety.md says more.
"""

from __future__ import annotations

import argparse
import os
import platform
import shutil
import subprocess
import sys
from dataclasses import dataclass, field
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
BUILD = ROOT / "build/sanitize"
SUPPRESSIONS = Path(__file__).resolve().parent / "suppressions"
COPIED = ("kafka_ext", "include", "tests", "examples", "benchmarks", "docs", "wheels")
FILES = (
    "setup.py",
    "pyproject.toml",
    "README.md",
    "LICENSE",
    "CHANGELOG.md",
    "MANIFEST.in",
    "Makefile",
)

# What measures memory is marked so, since a sanitizer changes that; these build or check other
# things than the extension.
NOT_SANITIZED = (
    "tests/memory/test_fuzz_arrow.py",
    "tests/unit/test_benchmarks.py",
    "tests/unit/test_cimport.py",
    "tests/unit/test_api_reference.py",
    "tests/unit/test_names.py",
)
QUICK = (
    "tests/unit/test_errors.py",
    "tests/unit/test_records.py",
    "tests/embedded/test_batch.py",
    "tests/embedded/test_batch_faults.py",
    "tests/embedded/test_pins.py",
    "tests/embedded/test_lifetime.py",
    "tests/memory/test_references.py",
    "tests/memory/test_invariants.py",
    "tests/memory/test_allocation_failure.py",
)
THREADED = (
    "tests/embedded/test_faults_threads.py",
    "tests/embedded/test_random_lives.py",
    "tests/embedded/test_lifetime.py",
    "tests/embedded/test_callbacks.py",
    "tests/embedded/test_batch.py",
    "tests/embedded/test_batch_faults.py",
    "tests/embedded/test_pins.py",
    "tests/embedded/test_queue_full.py",
    "tests/embedded/test_transactions.py",
    "tests/embedded/test_aio.py",
    "tests/embedded/test_aio_callbacks.py",
    "tests/embedded/test_recoverable.py",
    "tests/embedded/test_sink.py",
)


@dataclass
class Tool:
    name: str
    tests: tuple[str, ...]
    sanitize: str = ""
    libraries: tuple[str, ...] = ()
    environment: dict[str, str] = field(default_factory=dict)
    wrapper: tuple[str, ...] = ()
    ignored: tuple[str, ...] = ()
    arguments: tuple[str, ...] = ()
    timeout: int = 900  # seconds, for a test

    @property
    def folder(self) -> Path:
        return BUILD / self.name

    @property
    def reports(self) -> Path:
        return self.folder / "reports"


def tool_of(part: str) -> Tool:
    if part in ("asan", "oom", "ci"):
        tests = {
            "asan": ("tests/unit", "tests/embedded", "tests/memory"),
            "oom": ("tests/memory/test_allocation_failure.py",),
            "ci": QUICK,
        }
        tool = Tool(
            "asan",
            tests[part],
            sanitize="address,undefined",
            libraries=("libasan.so", "libubsan.so"),
            ignored=NOT_SANITIZED,
        )
        # A fork takes along the locks of this sanitizer's malloc as they are just then (gcc's has no
        # handler for forks): a child whose parent has threads may wait for one that nobody holds.
        tool.arguments = ("-m", "not measures and not forks", "-n", str(os.cpu_count()))
        tool.timeout = 300 if part == "ci" else tool.timeout
        tool.environment = {
            # Leaks are valgrind's part: the interpreter does not free everything at its exit, and
            # cannot be told from us in this way.
            "ASAN_OPTIONS": (
                f"detect_leaks=0:abort_on_error=1:detect_stack_use_after_return=1:log_path={tool.reports}/asan"
            ),
            "UBSAN_OPTIONS": (
                f"halt_on_error=1:abort_on_error=1:print_stacktrace=1:log_path={tool.reports}/ubsan"
            ),
        }
        return tool
    if part == "tsan":
        tool = Tool("tsan", THREADED, sanitize="thread", libraries=("libtsan.so",))
        tool.environment = {
            "TSAN_OPTIONS": (
                f"halt_on_error=0:exitcode=0:second_deadlock_stack=1:die_after_fork=0:suppressions={SUPPRESSIONS}/tsan.txt"
                f":log_path={tool.reports}/tsan"
            ),
        }
        # It does not follow a child of a process with threads into threads of the child's own.
        tool.arguments = ("-m", "not forks")
        # With addresses as random as Linux now makes them, this compiler's ThreadSanitizer finds
        # its own taken.
        tool.wrapper = ("setarch", platform.machine(), "-R")
        return tool
    tool = Tool(
        "valgrind",
        (
            "tests/memory/test_leaks.py",
            "tests/memory/test_references.py",
            "tests/memory/test_every_call.py",
        ),
    )
    checked = (
        "valgrind",
        "--quiet",
        "--leak-check=full",
        "--show-leak-kinds=definite",
        "--errors-for-leak-kinds=definite",
        "--num-callers=30",
        "--child-silent-after-fork=yes",
        f"--suppressions={SUPPRESSIONS}/valgrind.txt",
        f"--log-file={tool.reports}/valgrind.%p",
    )
    tool.environment = {"KAFKA_EXT_TEST_RUNNER": " ".join(checked), "KAFKA_EXT_TEST_SCALE": "0.002"}
    tool.wrapper = checked
    return tool


def copy(tool: Tool) -> None:
    """The sources, as they are now; files that did not change keep their times, so that little is
    compiled again.
    """

    def newer(source: str, target: str) -> None:
        old = Path(target)
        if not old.is_file() or old.read_bytes() != Path(source).read_bytes():
            shutil.copy(source, target)

    ignored = shutil.ignore_patterns("__pycache__", "*.so", "_build", "sanitize.py")
    for name in COPIED:
        target = tool.folder / name
        if target.is_dir():
            for path in target.rglob("*"):
                if (
                    path.is_file()
                    and path.suffix not in (".so", ".pyc")
                    and not (ROOT / path.relative_to(tool.folder)).is_file()
                ):
                    path.unlink()
        shutil.copytree(
            ROOT / name, target, ignore=ignored, copy_function=newer, dirs_exist_ok=True
        )
    for name in FILES:
        newer(str(ROOT / name), str(tool.folder / name))
    shutil.rmtree(tool.reports, ignore_errors=True)
    tool.reports.mkdir(parents=True)


def build(tool: Tool) -> None:
    environment = {
        **os.environ,
        "KAFKA_EXT_DEBUG": "1",
        "KAFKA_EXT_SANITIZE": tool.sanitize,
        "KAFKA_EXT_ALLOCATOR": "system",
    }
    script = [sys.executable, str(ROOT / "wheels/librdkafka.py")]
    subprocess.run(script, env=environment, check=True)
    prefix = subprocess.run(
        [*script, "--where"], env=environment, check=True, capture_output=True, text=True
    ).stdout.strip()
    environment["KAFKA_EXT_LIBRDKAFKA"] = prefix
    log = tool.folder / "build.log"
    print(f"[sanitize] compiling in {tool.folder}", flush=True)
    with log.open("w") as file:
        command = [sys.executable, "setup.py", "--quiet", "build_ext", "--inplace"]
        if subprocess.run(
            command, cwd=tool.folder, env=environment, stdout=file, stderr=subprocess.STDOUT
        ).returncode:
            sys.exit(f"[sanitize] it does not compile:\n{log.read_text()[-5000:]}")


def library(name: str) -> str:
    """Where the compiler keeps a sanitizer's library: the interpreter is not built with one, so it
    has to be loaded first.
    """
    compiler = os.environ.get("CC", "cc").split()
    path = subprocess.run(
        [*compiler, f"-print-file-name={name}"], check=True, capture_output=True, text=True
    ).stdout.strip()
    if not Path(path).is_file():
        sys.exit(
            f"[sanitize] {compiler[0]} has no {name}: install its sanitizers (gcc has them; clang's"
            " are in a package of their own)"
        )
    return path


CHECK = """
from kafka_ext import _rdkafka
assert _rdkafka.__file__.startswith({folder!r}), _rdkafka.__file__
assert _rdkafka.build_info()["debug"], "not a debug build"
"""


def test(tool: Tool, arguments: list[str]) -> int:
    environment = {
        **os.environ,
        **tool.environment,
        "PYTHONPATH": str(tool.folder),
        # Python's own allocator would hide from the tools what happens in its pools.
        "PYTHONMALLOC": "malloc",
        "PYTHONDONTWRITEBYTECODE": "1",
        # The tests that allow for a slow machine shall do so.
        "KAFKA_EXT_TEST_PATIENCE": "20",
    }
    if tool.libraries:
        environment["LD_PRELOAD"] = " ".join(library(name) for name in tool.libraries)
    subprocess.run(
        [*tool.wrapper, sys.executable, "-c", CHECK.format(folder=str(tool.folder))],
        env=environment,
        cwd=tool.folder,
        check=True,
    )
    ignored = [argument for name in tool.ignored for argument in ("--ignore", name)]
    chosen = arguments or [*tool.tests, *ignored, *tool.arguments]
    command = [
        *tool.wrapper,
        sys.executable,
        "-m",
        "pytest",
        "-q",
        "-p",
        "no:cacheprovider",
        "-o",
        f"timeout={tool.timeout}",
    ]
    command += chosen
    return subprocess.run(command, env=environment, cwd=tool.folder).returncode


def found(tool: Tool) -> int:
    """Print what the tool has reported; how many reports."""
    reports = [path for path in sorted(tool.reports.iterdir()) if path.stat().st_size]
    for path in reports[:5]:
        print(f"\n=== {path}\n{path.read_text(errors='replace')[:8000]}")
    if reports:
        print(
            f"\n[sanitize] {tool.name}: reports of {len(reports)} processes are in {tool.reports}"
        )
    return len(reports)


def main() -> int:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument(
        "part", choices=["all", "asan", "tsan", "valgrind", "oom", "ci"], nargs="?", default="all"
    )
    arguments, rest = parser.parse_known_args()
    failed = []
    for part in ("asan", "tsan", "valgrind") if arguments.part == "all" else (arguments.part,):
        tool = tool_of(part)
        for program in {name for name in tool.wrapper[:1] if not shutil.which(name)}:
            sys.exit(
                f"[sanitize] {program} is missing: install it (Debian and Ubuntu: apt-get install"
                f" {program})"
            )
        copy(tool)
        build(tool)
        status = test(tool, rest)
        if found(tool) or status:
            failed.append(part)
    print(f"[sanitize] {'failed: ' + ', '.join(failed) if failed else 'nothing found'}")
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main())
