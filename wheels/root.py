#!/usr/bin/env python3
"""Test the wheel where nothing helps it: in a fresh minimal Debian with Python and pip, and no
compiler, OpenSSL's headers or checkout.

    python wheels/root.py trixie [-- pytest arguments]

As root, on Debian or Ubuntu. debootstrap makes the system once and keeps it in build/roots/; each
run has a copy of its own. The wheel for its Python is taken from wheelhouse/. When there is none,
one is made from the sdist in a second copy, with a compiler and Python's headers.
"""

from __future__ import annotations

import argparse
import os
import shutil
import subprocess
import sys
import time
from pathlib import Path

from console import BuildError, run
from sources import Apt
from suite import CHECKOUT, lay_out

BUILD = CHECKOUT / "build"
WHEELHOUSE = CHECKOUT / "wheelhouse"

# In mount and process namespaces of its own: what is mounted and started in there ends with the
# command.
ENTER = r"""
set -eu
root=$1; shift
mount --make-rprivate /
mount -t proc proc "$root/proc"
mount --rbind /sys "$root/sys"
mount --rbind /dev "$root/dev"
# Not exec: the shell stays, as the init that takes orphans in and reaps them; in another session than theirs, as a real init is, else the
# kernel does not take a stopped process whose parent has died for an orphan, and never wakes it.
status=0
setsid --wait chroot "$root" "$@" || status=$?
exit $status
"""


def say(message: str) -> None:
    print(f"[root] {message}", flush=True)


class Root:
    """A Debian in a folder."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    def call(self, *command: str | Path, **variables: str) -> int:
        """Run a command in there, with the network this machine has, and return its status."""
        inside = {
            name: value
            for name, value in os.environ.items()
            if name.startswith(("PIP_", "http", "HTTP", "no_proxy", "KAFKA_EXT_"))
        }
        inside.pop("PIP_FIND_LINKS", None)  # a folder of this machine
        inside |= {
            "PATH": "/usr/sbin:/usr/bin:/sbin:/bin",
            "HOME": "/root",
            "LANG": "C.UTF-8",
            "DEBIAN_FRONTEND": "noninteractive",
        }
        certificates = Path("/etc/ssl/certs/ca-certificates.crt")
        if certificates.is_file():
            # For pip alone: the tests are to find a root without any.
            shutil.copy(certificates, self.folder / "root/certificates.pem")
            inside["PIP_CERT"] = "/root/certificates.pem"
        enter = [
            "unshare",
            "--mount",
            "--pid",
            "--fork",
            "--kill-child",
            "sh",
            "-c",
            ENTER,
            "enter",
            str(self.folder),
        ]
        return subprocess.run([*enter, *map(str, command)], env={**inside, **variables}).returncode

    def check_call(self, *command: str | Path, **variables: str) -> None:
        status = self.call(*command, **variables)
        if status:
            raise BuildError(
                f"{' '.join(map(str, command))} ended with status {status} in {self.folder}"
            )

    def output(self, *command: str) -> str:
        return run(["chroot", self.folder, *command]).strip()


def fresh(suite: str, name: str, architecture: str | None = None) -> Root:
    """A copy of the suite's minimal system, made the first time it is asked for; of another
    architecture, by Debian's name, if given.
    """
    system = suite if architecture is None else f"{suite}-{architecture}"
    kept = BUILD / "roots" / system
    if not (kept / ".complete").is_file():
        mirror = Apt(BUILD / "cache/apt").mirror()
        if mirror is None or shutil.which("debootstrap") is None:
            raise BuildError(
                "this takes Debian or Ubuntu, and debootstrap: apt-get install debootstrap"
            )
        shutil.rmtree(kept, ignore_errors=True)
        kept.parent.mkdir(parents=True, exist_ok=True)
        say(f"debootstrap {system} …")
        options = [] if architecture is None else [f"--arch={architecture}"]
        run(
            [
                "debootstrap",
                *options,
                "--variant=minbase",
                "--include=python3,python3-pip,python3-venv",
                suite,
                kept,
                mirror[1],
            ]
        )
        (kept / ".complete").touch()
    copy = BUILD / "roots" / f"{system}-{name}"
    shutil.rmtree(copy, ignore_errors=True)
    run(["cp", "-a", "--reflink=auto", kept, copy])
    for file in ("/etc/resolv.conf", "/etc/hosts"):
        shutil.copy(file, copy / file[1:])
    if Path("/etc/pip.conf").is_file():
        shutil.copy("/etc/pip.conf", copy / "etc/pip.conf")
    return Root(copy)


def wheel_for(root: Root, suite: str) -> Path:
    """The wheel in wheelhouse/ for the root's Python, made when it is not there."""
    tag = root.output("python3", "-c", "import sys; print('cp%d%d' % sys.version_info[:2])")
    found = sorted(WHEELHOUSE.glob(f"kafka_ext-*-{tag}-{tag}-*linux*.whl"))
    if found:
        return found[-1]
    say(f"wheelhouse/ has no wheel for {tag}: building one in a {suite} with a compiler")
    (sdist,) = (CHECKOUT / "dist").glob("kafka_ext-*.tar.gz")
    prefix = BUILD / "librdkafka-pinned"
    builder = fresh(suite, "builder")
    # As in sources.py: a mirror may be a snapshot, whose index says when it should have been
    # renewed.
    builder.check_call("apt-get", "update", "-qq", "-o", "Acquire::Check-Valid-Until=false")
    builder.check_call(
        "apt-get", "install", "-qq", "--no-install-recommends", "gcc", "libc6-dev", "python3-dev"
    )
    shutil.copytree(prefix, builder.folder / "librdkafka")
    shutil.copy(sdist, builder.folder)
    builder.check_call("python3", "-m", "venv", "/builder")
    pip = (
        "/builder/bin/python",
        "-m",
        "pip",
        "--quiet",
        "wheel",
        "--no-deps",
        "--wheel-dir",
        "/made",
    )
    builder.check_call(*pip, f"/{sdist.name}", KAFKA_EXT_LIBRDKAFKA="/librdkafka")
    (made,) = (builder.folder / "made").glob("*.whl")
    run(
        [
            sys.executable,
            Path(__file__).with_name("repair.py"),
            "--prefix",
            prefix,
            made,
            WHEELHOUSE,
        ]
    )
    shutil.rmtree(builder.folder)
    return sorted(WHEELHOUSE.glob(f"kafka_ext-*-{tag}-{tag}-*linux*.whl"))[-1]


def main() -> int:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("suite", help="a release of Debian: bookworm, trixie, sid")
    parser.add_argument("pytest", nargs="*", help="further arguments for pytest, after --")
    arguments = parser.parse_args()
    if os.geteuid():
        sys.exit("[root] error: debootstrap and chroot take root")
    began = time.monotonic()
    try:
        root = fresh(arguments.suite, "test")
        wheel = wheel_for(root, arguments.suite)
        say(
            f"{wheel.name} in {arguments.suite}, Python"
            f" {root.output('python3', '-c', 'import sys; print(sys.version.split()[0])')}"
        )
        lay_out(root.folder / "work/tests")
        for file in (wheel, Path(__file__).with_name("suite.py")):
            shutil.copy(file, root.folder / "work")
        command = [
            "python3",
            "/work/suite.py",
            "--package",
            f"/work/{wheel.name}",
            "--work",
            "/work/here",
            "--tests",
            "/work/tests",
        ]
        status = root.call(*command, "--", *arguments.pytest)
    except BuildError as error:
        print(f"[root] error: {error}", file=sys.stderr)
        return 1
    say(
        f"{arguments.suite}: {'passed' if status == 0 else 'FAILED'} after"
        f" {time.monotonic() - began:.0f} s"
    )
    if status == 0:
        shutil.rmtree(root.folder)
    return status


if __name__ == "__main__":
    sys.exit(main())
