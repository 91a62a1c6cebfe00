"""What a machine must have to build kafka_ext, how to tell, and which packages bring it.

Scripts that find something missing print the one command that installs it. Only run as a program,
by the Makefile, does this install it itself, as root on Debian and Ubuntu: what `make build` needs
for the interpreter it runs under, and with the arguments `kafka` and `wheel` what Apache Kafka and
the libraries in a wheel need.
"""

from __future__ import annotations

import importlib.util
import os
import platform
import re
import shlex
import shutil
import subprocess
import sys
import sysconfig
import tempfile
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from pathlib import Path

from console import BuildError, say


@dataclass(frozen=True)
class Need:
    """One thing a build needs: what it is, how to tell whether it is there, and the packages that
    bring it.
    """

    name: str
    present: Callable[[], bool]
    packages: dict[str, tuple[str, ...]]  # by package manager


def machine() -> str:
    """Where what is compiled here can be linked: a folder may be mounted in a container with
    another C library.
    """
    try:
        library = os.confstr("CS_GNU_LIBC_VERSION")
    except (AttributeError, OSError, ValueError):
        library = None
    return f"{sys.platform} {platform.machine()} {library or 'another C library'}"


def compiler() -> list[str]:
    return shlex.split(os.environ.get("CC", "")) or ["gcc" if shutil.which("gcc") else "cc"]


def _compiles(program: str) -> bool:
    """Whether the compiler takes the program: truer than looking for files, since it knows all
    include paths.
    """
    with tempfile.TemporaryDirectory() as folder:
        source = Path(folder, "probe.c")
        source.write_text(program)
        flags = shlex.split(os.environ.get("CPPFLAGS", "")) + shlex.split(
            os.environ.get("CFLAGS", "")
        )
        try:
            command = [*compiler(), *flags, "-c", str(source), "-o", str(Path(folder, "probe.o"))]
            return subprocess.run(command, capture_output=True).returncode == 0
        except FileNotFoundError:
            return False


def _runs(command: list[str]) -> bool:
    return (
        shutil.which(command[0]) is not None
        and subprocess.run(command, capture_output=True).returncode == 0
    )


def _header(name: str) -> Callable[[], bool]:
    return lambda: _compiles(f"#include <stddef.h>\n#include <stdio.h>\n#include <{name}>\n")


def _python_headers() -> bool:
    return Path(sysconfig.get_path("include"), "Python.h").is_file()


def _python_package(part: str) -> tuple[str, ...]:
    # Debian's own interpreter is completed by its default packages, one beside it by its versioned
    # ones.
    version = f"{sys.version_info.major}.{sys.version_info.minor}"
    default = os.path.realpath("/usr/bin/python3").endswith(f"python{version}")
    return (f"python3-{part}",) if default else (f"python{version}-{part}",)


TOOLS = (
    Need(
        "a C compiler",
        lambda: _compiles("#include <stdlib.h>\nint main(void) { return 0; }\n"),
        {
            "apt": ("gcc", "libc6-dev"),
            "dnf": ("gcc",),
            "apk": ("build-base", "linux-headers"),
            "brew": (),
        },
    ),
    Need(
        "make",
        lambda: shutil.which("make") is not None,
        {"apt": ("make",), "dnf": ("make",), "apk": ("make",), "brew": ("make",)},
    ),
    Need(
        "bash",
        lambda: shutil.which("bash") is not None,
        {"apt": ("bash",), "dnf": ("bash",), "apk": ("bash",), "brew": ("bash",)},
    ),
    Need(
        "patch",
        lambda: shutil.which("patch") is not None,
        {"apt": ("patch",), "dnf": ("patch",), "apk": ("patch",), "brew": ()},
    ),
)

SYSTEM_LIBRARIES = (
    Need(
        "OpenSSL's headers",
        _header("openssl/ssl.h"),
        {
            "apt": ("libssl-dev",),
            "dnf": ("openssl-devel",),
            "apk": ("openssl-dev",),
            "brew": ("openssl@3",),
        },
    ),
    Need(
        "curl's headers",
        _header("curl/curl.h"),
        {
            "apt": ("libcurl4-openssl-dev",),
            "dnf": ("libcurl-devel",),
            "apk": ("curl-dev",),
            "brew": ("curl",),
        },
    ),
    Need(
        "zstd's headers",
        _header("zstd.h"),
        {
            "apt": ("libzstd-dev",),
            "dnf": ("libzstd-devel",),
            "apk": ("zstd-dev",),
            "brew": ("zstd",),
        },
    ),
    Need(
        "zlib's headers",
        _header("zlib.h"),
        {"apt": ("zlib1g-dev",), "dnf": ("zlib-devel",), "apk": ("zlib-dev",), "brew": ("zlib",)},
    ),
)

LIBRDKAFKA = TOOLS + SYSTEM_LIBRARIES

# For wheels/libraries.py, which builds them instead. The modules are what OpenSSL's Configure uses
# and a minimal perl lacks.
LIBRARIES = (
    *TOOLS,
    Need(
        "perl with its modules",
        lambda: _runs(
            [
                "perl",
                "-MIPC::Cmd",
                "-MFile::Compare",
                "-MFile::Copy",
                "-MPod::Usage",
                "-MData::Dumper",
                "-e",
                "1",
            ]
        ),
        {
            "apt": ("perl",),
            "dnf": ("perl-core", "perl-IPC-Cmd"),
            "apk": ("perl",),
            "brew": ("perl",),
        },
    ),
)

PYTHON = (
    Need(
        "Python's headers",
        _python_headers,
        {
            "apt": _python_package("dev"),
            "dnf": ("python3-devel",),
            "apk": ("python3-dev",),
            "brew": ("python",),
        },
    ),
    Need(
        "Python's venv module",
        lambda: all(importlib.util.find_spec(name) for name in ("venv", "ensurepip")),
        {
            "apt": _python_package("venv"),
            "dnf": ("python3",),
            "apk": ("python3",),
            "brew": ("python",),
        },
    ),
)


def _java_package() -> str:
    # Debian's default is new enough, and 17 is not in all of its releases; Ubuntu's default may be
    # 11, but it has 17.
    try:
        ubuntu = "\nID=ubuntu" in "\n" + Path("/etc/os-release").read_text()
    except OSError:
        ubuntu = False
    return "openjdk-17-jre-headless" if ubuntu else "default-jre-headless"


def _java() -> bool:
    """Whether there is a Java that Apache Kafka's brokers run on: 17 or newer."""
    home = os.environ.get("JAVA_HOME")
    java = os.path.join(home, "bin", "java") if home else shutil.which("java")
    try:
        words = subprocess.run([java or "java", "-version"], capture_output=True, text=True).stderr
    except OSError:
        return False
    found = re.search(r'version "(\d+)', words)
    return found is not None and int(found[1]) >= 17


# What runs Apache Kafka for `make test-cluster`.
KAFKA = (
    Need(
        "Java 17",
        _java,
        {
            "apt": (_java_package(),),
            "dnf": ("java-17-openjdk-headless",),
            "apk": ("openjdk17-jre-headless",),
            "brew": ("openjdk@17",),
        },
    ),
    Need(
        "Maven",
        lambda: shutil.which("mvn") is not None,
        {"apt": ("maven",), "dnf": ("maven",), "apk": ("maven",), "brew": ("maven",)},
    ),
)

INSTALL = {
    "apt": "apt-get install --no-install-recommends -y",
    "dnf": "dnf install -y",
    "apk": "apk add",
    "brew": "brew install",
}


def package_manager() -> str | None:
    commands = {"apt-get": "apt", "dnf": "dnf", "apk": "apk", "brew": "brew"}
    return next((manager for command, manager in commands.items() if shutil.which(command)), None)


def _install_by_apt(packages: list[str]) -> None:
    say(f"installing {' '.join(packages)} with apt-get")
    environment = {**os.environ, "DEBIAN_FRONTEND": "noninteractive"}
    command = [*INSTALL["apt"].split(), *packages]
    # A machine that has its package lists needs no update; a fresh container has none, and an old
    # list names files that are gone.
    if subprocess.run(command, env=environment, capture_output=True).returncode == 0:
        return
    subprocess.run(["apt-get", "update", "-qq"], env=environment, capture_output=True)
    second = subprocess.run(
        [*command, "-qq"],
        env=environment,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    )
    if second.returncode:
        tail = "\n".join(second.stdout.splitlines()[-10:])
        raise BuildError(
            f"apt-get could not install what is missing:\n{tail}\nInstall it by hand:"
            f" {shlex.join(command)}"
        )


def ensure(needs: Iterable[Need], *, install: bool = False) -> None:
    """Return when everything is there, after installing it if asked and root; raise BuildError with
    the command to run otherwise.
    """
    needs = tuple(needs)
    missing = [need for need in needs if not need.present()]
    if not missing:
        return
    manager = package_manager()
    names = ", ".join(need.name for need in missing)
    if manager is None:
        raise BuildError(
            f"missing: {names}; install them with this machine's package manager and run this again"
        )
    packages = sorted({package for need in missing for package in need.packages[manager]})
    if install and manager == "apt" and os.geteuid() == 0:
        _install_by_apt(packages)
        missing = [need for need in needs if not need.present()]
        if not missing:
            return
        raise BuildError(
            f"still missing after installing {' '.join(packages)}:"
            f" {', '.join(need.name for need in missing)}"
        )
    root = "" if manager == "brew" or os.geteuid() == 0 else "sudo "
    raise BuildError(
        f"missing: {names}; install with: {root}{INSTALL[manager]} {' '.join(packages)}"
    )


def main(arguments: list[str]) -> None:
    if sys.version_info < (3, 10):
        found = f"{sys.executable} is {sys.version.split()[0]}"
        sys.exit(
            f"[librdkafka] error: Python 3.10 or newer is needed, {found}; name another: make"
            " PYTHON=python3.12"
        )
    sets = {(): LIBRDKAFKA + PYTHON, ("kafka",): KAFKA, ("wheel",): LIBRARIES}
    try:
        ensure(sets[tuple(arguments)], install=True)
    except BuildError as error:
        sys.exit(f"[librdkafka] error: {error}")


if __name__ == "__main__":
    main(sys.argv[1:])
