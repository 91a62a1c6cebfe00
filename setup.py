"""The extension: finds librdkafka, cythonizes; nothing else. What does not depend on the machine is
in pyproject.toml.

Settings, from the environment:

    KAFKA_EXT_LIBRDKAFKA   bundled (the default): the pinned librdkafka, linked static, built by
                           wheels/librdkafka.py when it is not there
                           system: the shared library that pkg-config finds
                           /a/prefix: the library installed there
    KAFKA_EXT_DEBUG=1      no optimization, assertions on, and the invariants of the debug build
    KAFKA_EXT_SANITIZE     address,undefined or thread: compile and link with -fsanitize=…
"""

from __future__ import annotations

import json
import os
import re
import shutil
import subprocess
import sys
import sysconfig
from dataclasses import dataclass, field
from pathlib import Path

from setuptools import Extension, setup
from setuptools.command.build_ext import build_ext
from setuptools.command.build_py import build_py

HERE = Path(__file__).resolve().parent
OLDEST = (2, 13, 2)
WHY_NOT_OLDER = (
    "the consumer needs it, before 2.5 a retried idempotent batch may not be the same batch, and"
    " before 2.12 a record with headers to a partition that does not exist is a double free"
)


@dataclass
class Librdkafka:
    """How to compile and link against one librdkafka, and how to describe it to those who ask."""

    linkage: str
    allocator: str = "system"
    sources: str = ""  # what ours was compiled from
    patches: list[str] = field(default_factory=list)  # wheels/patches/
    pinned: list[str] = field(
        default_factory=list
    )  # "openssl 3.5.7" and the like, when they are linked in too
    include_dirs: list[str] = field(default_factory=list)
    compile_args: list[str] = field(default_factory=list)
    objects: list[str] = field(default_factory=list)
    link_args: list[str] = field(default_factory=list)
    runtime_dirs: list[str] = field(default_factory=list)
    prefix: Path | None = None  # set when it is ours: its headers and licences are shipped


def stop(message: str) -> None:
    sys.exit(f"kafka-ext: error: {message}")


def find_librdkafka() -> Librdkafka:
    choice = os.environ.get("KAFKA_EXT_LIBRDKAFKA", "").strip() or "bundled"
    if choice == "bundled":
        return bundled()
    if choice == "system":
        return shared(None)
    if not Path(choice).is_dir():
        stop(
            f"KAFKA_EXT_LIBRDKAFKA is {choice!r}; it takes bundled, system, or a folder that"
            " librdkafka is installed in"
        )
    prefix = Path(choice).resolve()
    return static(prefix) if (prefix / "build-info.json").is_file() else shared(prefix)


def bundled() -> Librdkafka:
    """Ours: built by the same script that wheels, CI and the C baseline use; instant when it is
    there.
    """
    script = [sys.executable, str(HERE / "wheels/librdkafka.py")]
    if subprocess.run(script).returncode:
        stop(
            "librdkafka could not be built, see above; KAFKA_EXT_LIBRDKAFKA=system links the"
            " system's instead (2.13.2 or newer)"
        )
    where = subprocess.run([*script, "--where"], check=True, capture_output=True, text=True)
    return static(Path(where.stdout.strip()))


def static(prefix: Path) -> Librdkafka:
    """A prefix that wheels/librdkafka.py made."""
    info = json.loads((prefix / "build-info.json").read_text(encoding="utf-8"))
    return Librdkafka(
        linkage="bundled static",
        allocator=info["allocator"],
        sources=(
            info["origin"]
            if info["pinned"]
            else f"{info['origin']}, which is not the pinned release"
        ),
        patches=info["patches"],
        include_dirs=[str(prefix / "include")],
        # The archives by their paths: no search order can put others in their place.
        objects=[str(prefix / "lib" / name) for name in ("librdkafka.a", *info["archives"])],
        link_args=info["libraries"],
        # librdkafka and its allocator come first there, and are named elsewhere.
        pinned=[
            f"{part['name']} {part['version']}"
            for part in info["components"]
            if info["archives"] and not part["inside"]
        ],
        prefix=prefix,
    )


def shared(prefix: Path | None) -> Librdkafka:
    """The system's librdkafka, or the one in a prefix, as pkg-config describes it."""
    environment = dict(os.environ)
    where = "on this system"
    if prefix is not None:
        where = f"in {prefix}"
        folders = [str(prefix / folder / "pkgconfig") for folder in ("lib", "lib64", "share")]
        environment["PKG_CONFIG_PATH"] = os.pathsep.join(
            [*folders, environment.get("PKG_CONFIG_PATH", "")]
        )
    pkg_config = shutil.which(os.environ.get("PKG_CONFIG", "pkg-config"))
    if pkg_config is None:
        stop(
            "pkg-config is needed to find librdkafka (apt-get install pkg-config); the default,"
            " KAFKA_EXT_LIBRDKAFKA=bundled, does without"
        )

    def ask(question: str) -> str:
        answer = subprocess.run(
            [str(pkg_config), question, "rdkafka"], env=environment, capture_output=True, text=True
        )
        if answer.returncode:
            stop(
                f"pkg-config finds no librdkafka {where}; install its development package, or leave"
                " KAFKA_EXT_LIBRDKAFKA unset"
            )
        return answer.stdout.strip()

    version = ask("--modversion")
    number = tuple(int(part) for part in re.findall(r"\d+", version)[:3])
    if number < OLDEST:
        stop(
            f"librdkafka {version} {where} is too old, 2.13.2 or newer is needed: {WHY_NOT_OLDER}. "
            "Leave KAFKA_EXT_LIBRDKAFKA unset to build a current one"
        )
    links = ask("--libs").split()
    # A library outside the system's folders is not found at run time unless its folder is written
    # into the extension.
    runtime = [] if prefix is None else [flag[2:] for flag in links if flag.startswith("-L")]
    return Librdkafka(
        linkage=f"{'system' if prefix is None else prefix} shared",
        compile_args=ask("--cflags").split(),
        link_args=links,
        runtime_dirs=runtime,
    )


class BuildExtension(build_ext):
    """Looks for librdkafka and runs Cython when something is compiled, not when metadata or an
    sdist is asked for.
    """

    def run(self) -> None:
        header = Path(sysconfig.get_path("include"), "Python.h")
        if not header.is_file():
            how = "on Debian and Ubuntu: apt-get install python3-dev"
            stop(f"Python's headers are missing, there is no {header}; {how}")
        (extension,) = self.extensions
        self.complete(extension, find_librdkafka())
        super().run()

    def complete(self, extension: Extension, librdkafka: Librdkafka) -> None:
        from Cython.Build import cythonize

        debug = os.environ.get("KAFKA_EXT_DEBUG", "") not in ("", "0")
        sanitize = os.environ.get("KAFKA_EXT_SANITIZE", "").strip()
        optimization = ["-O0", "-g", "-UNDEBUG"] if debug else ["-O1" if sanitize else "-O3"]
        sanitizer = [f"-fsanitize={sanitize}", "-fno-omit-frame-pointer", "-g"] if sanitize else []
        extension.include_dirs += ["include", *librdkafka.include_dirs]
        extension.extra_objects += librdkafka.objects
        extension.extra_compile_args += [
            *librdkafka.compile_args,
            *optimization,
            *sanitizer,
            "-fvisibility=hidden",
        ]
        extension.extra_link_args += [*librdkafka.link_args, *sanitizer]
        if sys.platform == "linux":
            # Nothing of a static library may be seen from outside: another module may have loaded
            # another librdkafka.
            exports = Path("build/exports.map")
            exports.parent.mkdir(exist_ok=True)
            exports.write_text("{ global: PyInit__rdkafka; local: *; };\n", encoding="utf-8")
            extension.extra_link_args[:0] = [
                f"-Wl,--version-script={exports}",
                "-Wl,--as-needed",
                "-Wl,--gc-sections",
            ]
        elif sys.platform == "darwin":
            extension.extra_link_args[:0] = [
                "-Wl,-exported_symbol,_PyInit__rdkafka",
                "-Wl,-dead_strip",
            ]
        extension.runtime_library_dirs += librdkafka.runtime_dirs
        extension.define_macros += [
            ("KAFKA_EXT_LINKAGE", f'"{librdkafka.linkage}"'),
            ("KAFKA_EXT_ALLOCATOR", f'"{librdkafka.allocator}"'),
        ]
        if librdkafka.pinned:
            extension.define_macros.append(
                ("KAFKA_EXT_LIBRARIES", f'"{",".join(librdkafka.pinned)}"')
            )
        if librdkafka.sources:
            extension.define_macros.append(("KAFKA_EXT_SOURCES", json.dumps(librdkafka.sources)))
        if librdkafka.patches:
            extension.define_macros.append(
                ("KAFKA_EXT_PATCHES", f'"{",".join(librdkafka.patches)}"')
            )
        if debug:
            extension.define_macros.append(("KAFKA_EXT_DEBUG", "1"))
        extension.depends += [
            str(path.relative_to(HERE)) for path in sorted(HERE.glob("include/**/*.[ph]*"))
        ]
        extension.depends += [
            str(path.relative_to(HERE)) for path in sorted(HERE.glob("kafka_ext/**/*.p[xy][dx]"))
        ]
        extension.depends += [self.options_stamp(extension), *librdkafka.objects]
        (cythonized,) = cythonize(  # type: ignore[no-untyped-call]
            [extension],
            include_path=["include", "kafka_ext"],
            build_dir="build/cython",
            force=self.force,
            quiet=not self.verbose,
        )
        extension.sources = cythonized.sources

    def options_stamp(self, extension: Extension) -> str:
        """A file that changes when the options do: setuptools only compares times of files, and
        would take a debug build for a release.
        """
        compiling = (sys.version, extension.define_macros, extension.extra_compile_args)
        linking = (extension.extra_link_args, extension.runtime_library_dirs)
        options = repr((compiling, linking))
        stamp = Path("build/extension-options.txt")
        stamp.parent.mkdir(exist_ok=True)
        if not stamp.is_file() or stamp.read_text(encoding="utf-8") != options:
            stamp.write_text(options, encoding="utf-8")
        return str(stamp)


class BuildPython(build_py):
    """Ships what others need to compile against kafka_ext, and the licences of what is linked in,
    inside the package.
    """

    def shipped(self) -> list[tuple[Path, Path]]:
        package = Path(self.build_lib, "kafka_ext")
        files = [
            (path, package / path.relative_to(HERE))
            for path in sorted(HERE.glob("include/**/*.[ph]*"))
        ]
        if self.librdkafka is not None and self.librdkafka.prefix is not None:
            prefix = self.librdkafka.prefix
            files += [
                (path, package / path.relative_to(prefix))
                for path in sorted(prefix.glob("include/librdkafka/*.h"))
            ]
            files += [
                (path, package / path.relative_to(prefix))
                for path in sorted(prefix.glob("licenses/*"))
            ]
        return files

    librdkafka: Librdkafka | None = None

    def run(self) -> None:
        super().run()
        if self.editable_mode:
            return
        self.librdkafka = find_librdkafka()
        for source, target in self.shipped():
            self.mkpath(str(target.parent))
            self.copy_file(str(source), str(target))

    def get_outputs(self, include_bytecode: bool = True) -> list[str]:
        return [
            *super().get_outputs(include_bytecode),
            *(str(target) for _, target in self.shipped()),
        ]


setup(
    ext_modules=[Extension("kafka_ext._rdkafka", sources=["kafka_ext/_rdkafka.pyx"])],
    cmdclass={"build_ext": BuildExtension, "build_py": BuildPython},
)
