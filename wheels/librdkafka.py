#!/usr/bin/env python3
"""Build the pinned librdkafka, static, into build/librdkafka/: include/, lib/librdkafka.a,
lib/pkgconfig/ and build-info.json.

Wheels, source installs, CI and the C benchmark baseline all use this. A second call with the same
options is instant. Settings:

    KAFKA_EXT_LIBRDKAFKA_ARCHIVE   a local release archive to build instead of the pinned release
    KAFKA_EXT_LIBRDKAFKA_SHA256    what the archive must hash to, that one or the one that is found
    KAFKA_EXT_MIMALLOC_ARCHIVE     a local archive of the pinned mimalloc, for a build offline
    KAFKA_EXT_ALLOCATOR            mimalloc (the default where it can be had) inside librdkafka, or
                                   system
    KAFKA_EXT_LIBRARIES            system (the default): OpenSSL, curl, zstd and zlib are the
                                   machine's shared libraries
                                   pinned: they are built from pinned sources (libraries.py) and
                                   linked in, as wheels need it
    KAFKA_EXT_SANITIZE             compile librdkafka with -fsanitize=… too (address,undefined or
                                   thread)
    CC, CFLAGS, CPPFLAGS, LDFLAGS  as usual
"""

from __future__ import annotations

import argparse
import hashlib
import json
import os
import re
import shlex
import shutil
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path

import allocator
import libraries
import needs
import patches
from console import BuildError, jobs, run, say, step, warn
from libraries import Libraries
from sources import (
    Npm,
    Project,
    Sources,
    UnavailableError,
    from_file,
    obtain,
    parse_version,
    sha256,
)

HERE = Path(__file__).resolve().parent
BUILD = HERE.parent / "build"

LIBRDKAFKA = Project(
    name="librdkafka",
    version="2.15.1",
    oldest="2.13.2",  # include/kafka_ext/version_guard.h says why
    url="https://github.com/confluentinc/librdkafka/archive/refs/tags/v2.15.1.tar.gz",
    # All that is configured and compiled, and the licences. One pin for upstream's archive, npm's
    # copy and the distribution's. It was taken from npm's copy. That npm's copies are upstream's
    # tags was seen on the release
    # before: kafka-javascript 1.10.0 and the tag v2.15.0 have the same content by this measure
    # (85a23614532d50f86bf4e0a74ad2af2b25501dabbff11c77fc74a22ff5a5e8fd), and the 551 lines of src/
    # that changed in 1.10.1 are what upstream's changelog of 2.15.1 lists.
    content="81b1ffa2849be4781af526ace648e63468e3285409c86a86bad0abe6bba883bd",
    files=("configure*", "lds-gen.py", "LICENSE*", "mklove/*", "src/*"),
    npm=Npm(
        package="@confluentinc/kafka-javascript",
        version="1.10.1",
        folder="package/deps/librdkafka",
        sha256="ada7d703bb1d3237e2292bfabf438d663b6160c9f1ac2a2406b5dc4257c81b66",
    ),
    suites={
        "Debian": ("sid", "testing", "stable-backports", "stable"),
        "Ubuntu": ("devel", "resolute", "questing"),
    },
)

CONFIGURE = (
    "--no-download",  # never fetch parts of the build system
    "--disable-gssapi",  # cyrus-sasl would be one more library for a mechanism few producers use
    "--disable-lz4-ext",  # librdkafka's own lz4: one shared library less
    "--disable-debug-symbols",
    # C11's threads wait by the wall clock (patches/0009-monotonic-waits.patch), and the sanitizers
    # do not see their thrd_create().
    "--disable-c11threads",
    "--enable-ssl",
    "--enable-curl",  # OIDC
    "--enable-zstd",
    "--enable-zlib",
)

# As `builtin.features` spells them; one that is missing fails the build, not the user's first
# connection.
FEATURES = (
    "ssl",
    "sasl_plain",
    "sasl_scram",
    "sasl_oauthbearer",
    "oidc",
    "gzip",
    "snappy",
    "lz4",
    "zstd",
)


@dataclass(frozen=True)
class Options:
    """All that decides what comes out; a build made with the same options by the same scripts is
    kept.
    """

    version: str
    allocator: str
    libraries: str
    sanitize: str
    archive: str
    archive_sha256: str
    mimalloc_archive: str
    sha256: str
    compiler: str
    machine: str
    flags: str
    scripts: str

    @staticmethod
    def from_environment() -> Options:
        def setting(name: str) -> str:
            return os.environ.get(name, "").strip()

        sanitize = setting("KAFKA_EXT_SANITIZE")
        # The sanitizers know the system's malloc; another one would hide from them what they look
        # for.
        chosen = setting("KAFKA_EXT_ALLOCATOR") or ("system" if sanitize else "mimalloc")
        if chosen not in ("mimalloc", "system"):
            raise BuildError(f"KAFKA_EXT_ALLOCATOR is {chosen!r}; it takes mimalloc or system")
        linked = setting("KAFKA_EXT_LIBRARIES") or "system"
        if linked not in ("pinned", "system"):
            raise BuildError(f"KAFKA_EXT_LIBRARIES is {linked!r}; it takes system or pinned")
        archive, mimalloc_archive = (
            setting("KAFKA_EXT_LIBRDKAFKA_ARCHIVE"),
            setting("KAFKA_EXT_MIMALLOC_ARCHIVE"),
        )
        for path in filter(None, (archive, mimalloc_archive)):
            if not Path(path).expanduser().is_file():
                raise BuildError(
                    f"{path} is not a file; KAFKA_EXT_LIBRDKAFKA_ARCHIVE and"
                    " KAFKA_EXT_MIMALLOC_ARCHIVE name release archives"
                )
        # The other scripts decide how sources and tools are found, not what is made of them.
        deciding = [
            "librdkafka.py",
            "allocator.py",
            "allocator.h",
            "patches.py",
            *(["libraries.py"] if linked == "pinned" else []),
        ]
        paths = [*(HERE / name for name in deciding), *patches.files()]
        scripts = hashlib.sha256(b"".join(path.name.encode() + path.read_bytes() for path in paths))
        return Options(
            version=LIBRDKAFKA.version,
            allocator=chosen,
            libraries=linked,
            sanitize=sanitize,
            archive=archive,
            archive_sha256=sha256(Path(archive).expanduser()) if archive else "",
            mimalloc_archive=mimalloc_archive,
            sha256=setting("KAFKA_EXT_LIBRDKAFKA_SHA256").lower(),
            compiler=shlex.join(needs.compiler()),
            machine=needs.machine(),
            flags=" ".join(f"{name}={setting(name)}" for name in ("CPPFLAGS", "CFLAGS", "LDFLAGS")),
            scripts=scripts.hexdigest(),
        )

    @property
    def for_wheel(self) -> bool:
        """Whether it is for others: nothing that is not pinned may be in it."""
        return self.libraries == "pinned"

    @property
    def prefix(self) -> Path:
        """Builds that are not the default live beside it, so that going back and forth rebuilds
        nothing.
        """
        system = ["system"] if self.allocator == "system" else []
        pinned = ["pinned"] if self.libraries == "pinned" else []
        return BUILD / "-".join(
            ["librdkafka", *pinned, *system, *filter(None, self.sanitize.split(","))]
        )


@contextmanager
def locked(path: Path) -> Iterator[None]:
    """One build at a time in a checkout: `make` in two terminals, or pip beside make, must not meet
    in one folder.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("w") as file:
        try:
            import fcntl
        except ImportError:  # not a POSIX system; the compiler will say more than we could
            yield
            return
        fcntl.flock(file, fcntl.LOCK_EX)
        yield


def obtain_librdkafka(options: Options, work: Path, cache: Path) -> Sources:
    try:
        if options.archive:
            found = from_file(
                LIBRDKAFKA, Path(options.archive).expanduser(), work, only_pinned=options.for_wheel
            )
        else:
            found = obtain(LIBRDKAFKA, cache, work, only_pinned=options.for_wheel)
    except UnavailableError as error:
        other_way = (
            f"Or download librdkafka {LIBRDKAFKA.version} elsewhere and name the archive in"
            " KAFKA_EXT_LIBRDKAFKA_ARCHIVE."
        )
        raise BuildError(f"{error}\n{other_way}") from None
    if options.sha256 and found.sha256 != options.sha256:
        raise BuildError(
            f"{found.archive} has sha256 {found.sha256}, and KAFKA_EXT_LIBRDKAFKA_SHA256 is"
            f" {options.sha256}"
        )
    return found


def obtain_mimalloc(options: Options, work: Path, cache: Path) -> Sources | None:
    """Not having mimalloc makes a slower library, not a wrong one: it is said, and the build goes
    on with the system's malloc.
    """
    if options.allocator != "mimalloc":
        return None
    if options.mimalloc_archive:
        return from_file(
            allocator.MIMALLOC, Path(options.mimalloc_archive).expanduser(), work, only_pinned=True
        )
    reason = "" if sys.platform == "linux" else f"mimalloc is not tried on {sys.platform}"
    if not reason:
        try:
            found = obtain(allocator.MIMALLOC, cache, work, only_pinned=True)
        except UnavailableError as error:
            if options.for_wheel:
                raise
            reason = str(error)
        else:
            say(f"sources: {found.origin}")
            return found
    warn(f"librdkafka keeps the system's malloc: {reason}")
    return None


def source_version(source: Path) -> str:
    """What the header says, whatever the archive was called."""
    header = source / "src/rdkafka.h"
    found = header.is_file() and re.search(
        r"#define RD_KAFKA_VERSION\s+0x([0-9a-fA-F]{8})", header.read_text(encoding="utf-8")
    )
    if not found:
        raise BuildError(
            f"{source.name} is not librdkafka's source: it has no src/rdkafka.h that names a"
            " version"
        )
    number = int(found.group(1), 16)
    return f"{number >> 24 & 0xFF}.{number >> 16 & 0xFF}.{number >> 8 & 0xFF}"


def link_against(pinned: Libraries) -> dict[str, str]:
    """What tells configure to take these libraries, and no others that the machine may have."""
    # By mklove's names for them; each with what it needs itself. pkg-config would find the
    # machine's.
    needed = {
        "zlib": "libz.a",
        "libzstd": "libzstd.a",
        "libcrypto": "libcrypto.a",
        "libssl": "libssl.a libcrypto.a",
    }
    needed["libcurl"] = f"libcurl.a {needed['libssl']}"
    found = {
        f"STATIC_LIB_{name}": " ".join(str(pinned.prefix / "lib" / file) for file in files.split())
        for name, files in needed.items()
    }
    found["STATIC_LIB_libcurl"] = " ".join([found["STATIC_LIB_libcurl"], *libraries.FRAMEWORKS])
    # A linked-in OpenSSL does not know where this machine's CA certificates are: librdkafka looks
    # for them itself when told so.
    known = f"-I{pinned.prefix / 'include'} -DWITH_STATIC_LIB_libcrypto=1"
    return {
        **found,
        "PKG_CONFIG": "false",
        "CPPFLAGS": f"{known} {os.environ.get('CPPFLAGS', '')}".strip(),
    }


def compile_static(
    source: Path, options: Options, pinned: Libraries | None, mimalloc: Sources | None, log: Path
) -> list[str]:
    """Compile src/librdkafka.a and return the libraries of the machine that whoever links it must
    add.
    """
    # -fvisibility=hidden: linked into an extension, librdkafka must never meet another copy loaded
    # by another module. Compiled for a sanitizer, -O3 takes three times as long, and nobody
    # measures how fast that is.
    optimization = "-O1" if options.sanitize else "-O3"
    flags = [
        optimization,
        "-g1",
        "-fPIC",
        "-fvisibility=hidden",
        *shlex.split(os.environ.get("CFLAGS", "")),
    ]
    if pinned is not None:
        flags += libraries.SECTIONS
    if options.sanitize:
        flags += [f"-fsanitize={options.sanitize}", "-fno-omit-frame-pointer"]
        if "undefined" in options.sanitize:
            # Its variable-length integers shift negative numbers to the left, which compilers
            # define and the standard does not.
            flags.append("-fno-sanitize=shift")
    compiler = shlex.join(needs.compiler())
    # No C++ is compiled, but configure wants a compiler for it: the C compiler will do, and spares
    # the machine g++.
    environment = {**os.environ, "CC": compiler, "CXX": compiler, "CFLAGS": " ".join(flags)}
    if pinned is not None:
        environment.update(link_against(pinned))
    with step("configured"):
        run(["./configure", *CONFIGURE], cwd=source, env=environment, log=log)
    # configure has written the flags down, and make would take the environment's a second time.
    del environment["CFLAGS"]
    if mimalloc is not None:
        # Not for configure, whose programs are linked without it.
        known = environment.get("CPPFLAGS", "")
        environment["CPPFLAGS"] = f"{known} {allocator.compile_with(mimalloc.folder)}".strip()
    with step("compiled"):
        run(
            ["make", f"-j{jobs()}", "-C", "src", "librdkafka.a"],
            cwd=source,
            env=environment,
            log=log,
        )
        if mimalloc is not None:
            allocator.add(mimalloc.folder, source / "src/librdkafka.a", log)
    config = (source / "Makefile.config").read_text(encoding="utf-8")
    found = re.search(r"^MKL_DYNAMIC_LIBS=\s*(.*)$", config, re.MULTILINE)
    words = found.group(1).split() if found else []
    return [
        *dict.fromkeys(word for word in words if word.startswith("-l")),
        *(libraries.FRAMEWORKS if pinned is not None else []),
    ]


def install(
    source: Path,
    prefix: Path,
    version: str,
    linked: list[str],
    allocated_by: str,
    pinned: Libraries | None,
) -> list[str]:
    """Lay out the prefix, and return the names of the archives in it that are linked after
    librdkafka's.
    """
    for folder in ("include/librdkafka", "lib/pkgconfig", "licenses"):
        (prefix / folder).mkdir(parents=True)
    for header in ("rdkafka.h", "rdkafka_mock.h"):
        shutil.copy(source / "src" / header, prefix / "include/librdkafka")
    shutil.copy(source / "src/librdkafka.a", prefix / "lib")
    # LICENSES.txt has those of all that librdkafka has taken in.
    shutil.copy(source / "LICENSES.txt", prefix / "licenses/librdkafka.txt")
    archives = []
    if pinned is not None:
        # With it, so that the prefix is whole wherever it is copied to.
        for archive in pinned.archives:
            shutil.copy(archive, prefix / "lib")
            archives.append(archive.name)
        for licence in (pinned.prefix / "licenses").iterdir():
            shutil.copy(licence, prefix / "licenses")
    beside = "".join(f" ${{prefix}}/lib/{name}" for name in archives)
    (prefix / "lib/pkgconfig/rdkafka.pc").write_text(
        # The prefix is relative to this file, so that the folder may be moved or copied.
        "prefix=${pcfiledir}/../..\n"
        "\n"
        "Name: librdkafka\n"
        "Description: The Apache Kafka C library, static\n"
        f"Version: {version}\n"
        "Cflags: -I${prefix}/include\n"
        # There is no shared library here to prefer, so what a static link needs is always wanted.
        f"Libs: -L${{prefix}}/lib -lrdkafka{beside} {' '.join(linked)}\n"
    )
    return archives


# Loaded late, as Python loads an extension: some of what can go wrong only goes wrong then.
LIBRARY = r"""
#include <librdkafka/rdkafka.h>
#include <stdio.h>

#ifdef MIMALLOC
_Bool mi_is_in_heap_region(const void *memory);
#else
#define mi_is_in_heap_region(memory) 0
#endif

__attribute__((visibility("default"))) int check(void) {
        char features[512];
        size_t size           = sizeof(features);
        void *memory          = rd_kafka_mem_malloc(NULL, 1000);
        const char *allocator = mi_is_in_heap_region(memory) ? "mimalloc" : "system";
        rd_kafka_conf_t *conf = rd_kafka_conf_new();
        if (rd_kafka_conf_get(conf, "builtin.features", features, &size) != RD_KAFKA_CONF_OK)
                return 1;
        printf("%s %s %s\n", rd_kafka_version_str(), allocator, features);
        rd_kafka_conf_destroy(conf);
        rd_kafka_mem_free(NULL, memory);
        return 0;
}
"""

PROGRAM = r"""
#include <dlfcn.h>
#include <stdio.h>

int main(int argc, char **argv) {
        void *library      = argc == 2 ? dlopen(argv[1], RTLD_NOW | RTLD_LOCAL) : NULL;
        int (*check)(void) = library ? (int (*)(void))dlsym(library, "check") : NULL;
        if (!check) {
                fprintf(stderr, "%s\n", dlerror());
                return 1;
        }
        return check();
}
"""


def check(
    prefix: Path, work: Path, options: Options, linked: list[str], allocated_by: str, log: Path
) -> list[str]:
    """Link a library with what was built, load and run it, and return the features it found; fail
    when one that is required is missing.
    """
    library, program = work / "check.so", work / "check"
    (work / "library.c").write_text(LIBRARY)
    (work / "program.c").write_text(PROGRAM)
    compiler = needs.compiler()
    extra = [f"-fsanitize={options.sanitize}"] if options.sanitize else []
    linker = [*shlex.split(os.environ.get("LDFLAGS", "")), *linked]
    define = [] if allocated_by == "system" else ["-DMIMALLOC"]
    flags = [*extra, *define, "-shared", "-fPIC", "-fvisibility=hidden", f"-I{prefix / 'include'}"]
    run(
        [
            *compiler,
            *flags,
            work / "library.c",
            prefix / "lib/librdkafka.a",
            "-o",
            library,
            *linker,
        ],
        log=log,
    )
    run([*compiler, *extra, work / "program.c", "-o", program, "-ldl"], log=log)
    version, used, features = run([program, library], log=log).split()
    if used != allocated_by.split()[0]:
        raise BuildError(
            f"librdkafka should use {allocated_by}, and uses {used}; KAFKA_EXT_ALLOCATOR=system"
            " does without"
        )
    found = features.split(",")
    missing = [feature for feature in FEATURES if feature not in found]
    if missing:
        raise BuildError(
            f"librdkafka {version} has no {', '.join(missing)}, only {features}; what configure"
            f" found is in {log}"
        )
    return found


def components(
    version: str, found: Sources, mimalloc: Sources | None, pinned: Libraries | None
) -> list[dict[str, object]]:
    """What the prefix is made of, for a wheel's bill of materials: inside librdkafka.a, or beside
    it.
    """

    def inside(project: Project, version: str, licence: str, found: Sources) -> dict[str, object]:
        named = {"name": project.name, "version": version, "licence": licence, "url": project.url}
        return {
            **named,
            "sha256": found.sha256,
            "origin": found.origin,
            "pinned": found.pinned,
            "inside": True,
        }

    made_of = [inside(LIBRDKAFKA, version, "BSD-2-Clause", found)]
    if mimalloc is not None:
        made_of.append(inside(allocator.MIMALLOC, allocator.MIMALLOC.version, "MIT", mimalloc))
    return [
        *made_of,
        *(
            {**component, "inside": False}
            for component in (pinned.components if pinned is not None else [])
        ),
    ]


def build(options: Options) -> Path:
    prefix = options.prefix
    info = prefix / "build-info.json"
    # From the first look on nobody else may be building: who waited finds the work done.
    with locked(BUILD / ".librdkafka.lock"):
        if info.is_file() and json.loads(info.read_text()).get("options") == asdict(options):
            say(f"{prefix} is up to date")
            return prefix
        needs.ensure(needs.TOOLS if options.libraries == "pinned" else needs.LIBRDKAFKA)
        pinned = libraries.build(BUILD / "cache") if options.libraries == "pinned" else None
        work = BUILD / "librdkafka-work"
        log = BUILD / f"{prefix.name}.log"
        log.unlink(missing_ok=True)
        found = obtain_librdkafka(options, work, BUILD / "cache")
        say(f"sources: {found.origin}")
        source = found.folder
        version = source_version(source)
        if parse_version(version) < parse_version(LIBRDKAFKA.oldest):
            raise BuildError(
                f"{found.archive.name} is librdkafka {version}; kafka_ext needs {LIBRDKAFKA.oldest}"
                " or newer"
            )
        mimalloc = obtain_mimalloc(options, BUILD / "mimalloc-work", BUILD / "cache")
        mended = patches.apply(source, log, pinned=version == LIBRDKAFKA.version)
        if mimalloc is not None and allocator.NEEDS_PATCH not in mended:
            warn("librdkafka keeps the system's malloc: it would give curl's memory to mimalloc")
            mimalloc = None
        linked = compile_static(source, options, pinned, mimalloc, log)
        allocated_by = (
            f"mimalloc {allocator.MIMALLOC.version}" if mimalloc is not None else "system"
        )
        # Installed beside the place and moved there when it is known to be good: a prefix that is
        # there is a prefix that works.
        fresh = work / "prefix"
        archives = install(source, fresh, version, linked, allocated_by, pinned)
        if mimalloc is not None:
            shutil.copy(mimalloc.folder / "LICENSE", fresh / "licenses/mimalloc.txt")
        features = check(
            fresh,
            work,
            options,
            [*(str(fresh / "lib" / name) for name in archives), *linked],
            allocated_by,
            log,
        )
        (fresh / info.name).write_text(
            json.dumps(
                {
                    "version": version,
                    "allocator": allocated_by,
                    "patches": mended,
                    "features": features,
                    "archives": archives,
                    "libraries": linked,
                    "origin": found.origin,
                    "pinned": found.pinned,
                    "components": components(version, found, mimalloc, pinned),
                    "options": asdict(options),
                },
                indent=2,
            )
            + "\n"
        )
        if prefix.is_symlink():
            prefix.unlink()  # somebody else's: it stays as it is
        shutil.rmtree(prefix, ignore_errors=True)
        fresh.rename(prefix)
        shutil.rmtree(work)
        shutil.rmtree(BUILD / "mimalloc-work", ignore_errors=True)
        say(
            f"librdkafka {version} is in {prefix} (allocator: {allocated_by};"
            f" {', '.join(features)})"
        )
    return prefix


def main() -> int:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument(
        "--where",
        action="store_true",
        help="print the prefix these settings build into, and build nothing",
    )
    arguments = parser.parse_args()
    try:
        options = Options.from_environment()
        if arguments.where:
            print(options.prefix)
        else:
            build(options)
    except BuildError as error:
        print(f"[librdkafka] error: {error}", file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
