#!/usr/bin/env python3
"""Build what librdkafka needs, static, into build/libraries/: OpenSSL, a curl that only speaks
HTTP, zstd and zlib.

A wheel has to bring them: the machine it is installed on may have none, or others. Each comes from
pinned sources (sources.py), and none of them is patched. A second call is instant. librdkafka.py
calls this under KAFKA_EXT_LIBRARIES=pinned.
"""

from __future__ import annotations

import hashlib
import json
import os
import shlex
import shutil
import sys
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import needs
from console import BuildError, jobs, run, say, step
from sources import Project, obtain

HERE = Path(__file__).resolve().parent
BUILD = HERE.parent / "build"

OPENSSL = Project(
    name="openssl",
    version="3.5.7",
    url="https://github.com/openssl/openssl/releases/download/openssl-3.5.7/openssl-3.5.7.tar.gz",
    # Upstream's release archive, which is Debian's .orig archive as well.
    sha256=("a8c0d28a529ca480f9f36cf5792e2cd21984552a3c8e4aa11a24aa31aeac98e8",),
    suites={"Debian": ("trixie", "testing", "sid"), "Ubuntu": ("devel", "resolute")},
)

CURL = Project(
    name="curl",
    version="8.22.0",
    url="https://curl.se/download/curl-8.22.0.tar.gz",
    sha256=(
        "d54dd598bf05927a726deb38df31c6a255ba83ff1de57c5d1464dac3ed8f44a1",
    ),  # upstream's, and Debian's
    suites={"Debian": ("testing", "sid", "trixie"), "Ubuntu": ("devel", "resolute")},
)

ZSTD = Project(
    name="zstd",
    version="1.5.7",
    url="https://github.com/facebook/zstd/releases/download/v1.5.7/zstd-1.5.7.tar.gz",
    sha256=(
        "eb33e51f49a15e023950cd7825ca74a4a2b43db8354825ac24fc1b7ee09e6fa3",  # upstream's
        # Debian's, without some documentation
        "0c092ef267edce57ba7f3f2645c861f72eaf5e76273c6c3632869423464b90a5",
    ),
    suites={"Debian": ("trixie", "testing", "sid"), "Ubuntu": ("devel", "resolute")},
    package="libzstd",
)

ZLIB = Project(
    name="zlib",
    version="1.3.2",
    url="https://github.com/madler/zlib/releases/download/v1.3.2/zlib-1.3.2.tar.gz",
    sha256=(
        "bb329a0a2cd0274d05519d61c667c062e06990d72e125ee2dfa8de64f0119d16",  # upstream's
        # Debian's, without some of contrib/
        "7b6903eb019983987b7112eccf90f1703f1c6c0e0cede36564bf611d19ca579d",
    ),
    suites={"Debian": ("sid", "testing", "trixie"), "Ubuntu": ("devel", "resolute")},
)

# What no broker and no token endpoint has been seen to ask for, and what reads files or loads
# modules at a path of the build machine.
OPENSSL_WITHOUT = """
    shared module dso engine apps docs tests comp dtls quic srp srtp ct cms ts cmp rfc3779 idea seed camellia aria bf cast mdc2 rmd160
    whirlpool sm2 sm3 sm4 gost ec2m slh-dsa siphash ssl3 ui-console
""".split()

# Nothing is loaded from /etc/ssl/openssl.cnf: it is written for the system's OpenSSL, may be
# another release's, and names modules that are not here. And nothing is torn down by exit():
# librdkafka's threads may still be sending.
OPENSSL_WITHOUT += ["autoload-config", "atexit"]

CURL_OPTIONS = """
    --disable-shared --enable-static --with-pic --disable-dependency-tracking --disable-symbol-hiding
    --disable-ares --disable-aws --disable-dict --disable-docs --disable-doh --disable-file --disable-ftp --disable-gopher --disable-hsts
    --disable-imap --disable-ipfs --disable-kerberos-auth --disable-ldap --disable-ldaps --disable-libcurl-option --disable-manual
    --disable-mqtt --disable-negotiate-auth --disable-netrc --disable-ntlm --disable-pop3 --disable-rtsp --disable-smb --disable-smtp
    --disable-telnet --disable-tftp --disable-unix-sockets --disable-websockets --disable-alt-svc --disable-httpsrr
    --disable-openssl-auto-load-config --enable-threaded-resolver
    --without-brotli --without-ca-bundle --without-ca-path --without-gssapi --without-libgsasl --without-libidn2 --without-libpsl
    --without-libssh2 --without-nghttp2 --without-zlib --without-zstd
""".split()


# A section a function, so that the linker leaves out what nobody calls.
SECTIONS = ("-ffunction-sections", "-fdata-sections")


def environment(optimization: str) -> dict[str, str]:
    """-Os for what computes in assembly or not at all, -O3 for what compresses; hidden, as all of a
    wheel is.
    """
    given = shlex.split(os.environ.get("CFLAGS", ""))
    flags = [optimization, "-g0", "-fPIC", "-fvisibility=hidden", *SECTIONS, *given]
    return {**os.environ, "CC": shlex.join(needs.compiler()), "CFLAGS": shlex.join(flags)}


def _openssl(source: Path, prefix: Path, log: Path) -> None:
    without = [f"no-{feature}" for feature in OPENSSL_WITHOUT]
    # Where a distribution's certificates are looked for is librdkafka's to find out; this is for
    # what it does not know.
    where = [f"--prefix={prefix}", "--libdir=lib", "--openssldir=/etc/ssl"]
    run(["./Configure", *where, *without], cwd=source, env=environment("-Os"), log=log)
    run(["make", "-s", f"-j{jobs()}", "build_libs"], cwd=source, log=log)
    run(["make", "-s", "install_dev"], cwd=source, log=log)


def _curl(source: Path, prefix: Path, log: Path) -> None:
    where = [f"--prefix={prefix}", f"--libdir={prefix / 'lib'}", f"--with-openssl={prefix}"]
    variables = environment("-Os")
    # The OpenSSL beside it and no other: neither what pkg-config knows nor what is in the system's
    # folders.
    variables["PKG_CONFIG"] = "false"
    run(["./configure", *where, *CURL_OPTIONS], cwd=source, env=variables, log=log)
    run(["make", f"-j{jobs()}", "-C", "lib", "install"], cwd=source, log=log)
    run(["make", "-C", "include", "install"], cwd=source, log=log)


def _zstd(source: Path, prefix: Path, log: Path) -> None:
    # Its multi-threaded compressor, dictionary builder and formats of before 2017 are not used.
    options = [
        "ZSTD_LEGACY_SUPPORT=0",
        "ZSTD_LIB_DICTBUILDER=0",
        "ZSTD_LIB_DEPRECATED=0",
        f"PREFIX={prefix}",
    ]
    run(
        ["make", f"-j{jobs()}", "-C", "lib", *options, "install-static", "install-includes"],
        cwd=source,
        env=environment("-O3"),
        log=log,
    )


def _zlib(source: Path, prefix: Path, log: Path) -> None:
    run(
        ["./configure", "--static", f"--prefix={prefix}"],
        cwd=source,
        env=environment("-O3"),
        log=log,
    )
    run(["make", f"-j{jobs()}", "libz.a"], cwd=source, log=log)
    for name in ("zlib.h", "zconf.h"):
        shutil.copy(source / name, prefix / "include")
    shutil.copy(source / "libz.a", prefix / "lib")


@dataclass(frozen=True)
class Library:
    project: Project
    archives: tuple[str, ...]  # what it makes, in the order the linker wants
    spdx: str
    licence: str  # in its sources
    build: Callable[[Path, Path, Path], None]  # sources, prefix, log


# curl needs OpenSSL, so that is built first; for the linker it is the other way round: ARCHIVES.
LIBRARIES = (
    Library(ZLIB, ("libz.a",), "Zlib", "LICENSE", _zlib),
    Library(ZSTD, ("libzstd.a",), "BSD-3-Clause", "LICENSE", _zstd),
    Library(OPENSSL, ("libssl.a", "libcrypto.a"), "Apache-2.0", "LICENSE.txt", _openssl),
    Library(CURL, ("libcurl.a",), "curl", "COPYING", _curl),
)
# What a linked-in curl asks macOS for: its proxies and its resolver.
FRAMEWORKS = (
    "-framework CoreFoundation -framework SystemConfiguration".split()
    if sys.platform == "darwin"
    else []
)
ARCHIVES = tuple(name for library in reversed(LIBRARIES) for name in library.archives)


@dataclass(frozen=True)
class Libraries:
    """A prefix with all of them."""

    prefix: Path
    components: list[dict[str, object]]  # what is in it, for the bill of materials

    @property
    def archives(self) -> list[Path]:
        return [self.prefix / "lib" / name for name in ARCHIVES]


def _options() -> dict[str, object]:
    names = ("CPPFLAGS", "CFLAGS", "LDFLAGS", "MACOSX_DEPLOYMENT_TARGET")
    return {
        "compiler": shlex.join(needs.compiler()),
        "flags": {name: os.environ.get(name, "") for name in names},
        "script": hashlib.sha256(Path(__file__).read_bytes()).hexdigest(),
        "machine": needs.machine(),
    }


def build(cache: Path) -> Libraries:
    """Whoever calls this holds the lock of librdkafka.py, or is alone."""
    prefix = BUILD / "libraries"
    info = prefix / "build-info.json"
    options = _options()
    if info.is_file():
        known = json.loads(info.read_text(encoding="utf-8"))
        if known["options"] == options:
            return Libraries(prefix, known["components"])
    needs.ensure(needs.LIBRARIES)
    work, log = BUILD / "libraries-work", BUILD / f"{prefix.name}.log"
    log.unlink(missing_ok=True)
    shutil.rmtree(prefix, ignore_errors=True)
    for folder in ("include", "lib", "licenses"):
        (prefix / folder).mkdir(parents=True)
    components = []
    for library in LIBRARIES:
        project = library.project
        found = obtain(project, cache, work, only_pinned=True)
        source = found.folder
        with step(f"{project.name} ({found.origin})"):
            library.build(source, prefix, log)
        for name in library.archives:
            if not (prefix / "lib" / name).is_file():
                raise BuildError(f"{project.name} made no {name}; see {log}")
        shutil.copy(source / library.licence, prefix / f"licenses/{project.name}.txt")
        components.append(
            {
                "name": project.name,
                "version": project.version,
                "licence": library.spdx,
                "url": project.url,
                "sha256": found.sha256,
                "origin": found.origin,
                "pinned": found.pinned,
            }
        )
    shutil.rmtree(work)
    info.write_text(
        json.dumps({"options": options, "components": components}, indent=2) + "\n",
        encoding="utf-8",
    )
    made = ", ".join(f"{part['name']} {part['version']}" for part in components)
    say(f"{made} are in {prefix}")
    return Libraries(prefix, components)


if __name__ == "__main__":
    try:
        build(BUILD / "cache")
    except BuildError as error:
        sys.exit(f"[librdkafka] error: {error}")
