"""Where the C sources come from, and why what arrived can be trusted.

An archive on this machine that the user names comes before everything. Else, in this order:

1. what was downloaded before, if it is one of the archives whose sha256 is pinned;
2. on Debian and Ubuntu the distribution's own source package, by apt, from the mirror the machine is already set up with. apt
   checks it against the suite's signed index. A sources list, lists and caches of our own are used: the system's apt is never touched;
3. the upstream release archive, checked against the sha256 pinned here;
4. with a warning, the newest release the distribution has that will do.

No Debian patch is applied: what is compiled is the upstream release.
"""

from __future__ import annotations

import hashlib
import os
import re
import shutil
import subprocess
import tarfile
import urllib.request
from dataclasses import dataclass
from pathlib import Path

from console import BuildError, say, warn

KEYRINGS = {
    "Debian": Path("/usr/share/keyrings/debian-archive-keyring.gpg"),
    "Ubuntu": Path("/usr/share/keyrings/ubuntu-archive-keyring.gpg"),
}
COMPONENTS = {"Debian": "main", "Ubuntu": "main universe"}

Version = tuple[int, ...]


def parse_version(text: str) -> Version:
    """The upstream part of a version: 2.14.2 of 2.14.2-1, 2.0.9 of 1:2.0.9+ds-2, 1.3.2 of 1:1.3.dfsg+really1.3.2-4."""
    found = re.match(r"(?:\d+:)?(?:.*\+really)?(\d+(?:\.\d+)*)", text)
    return tuple(int(part) for part in found.group(1).split(".")) if found else ()


@dataclass(frozen=True)
class Project:
    """A C project: the release that is pinned, and every place it can be had from."""

    name: str
    version: str
    oldest: str  # when the distribution does not have the pinned release: the oldest that will do,
    before: str  # and the first that will not
    url: str  # upstream's archive of the pinned release
    sha256: tuple[str, ...]  # of archives of the pinned release known to hold exactly the tagged tree
    suites: dict[str, tuple[str, ...]]  # the distribution's suites, most likely first
    package: str = ""  # the distribution's source package, where that is called otherwise

    @property
    def source_package(self) -> str:
        return self.package or self.name


@dataclass(frozen=True)
class Archive:
    path: Path
    origin: str


def sha256(path: Path) -> str:
    digest = hashlib.sha256()
    with path.open("rb") as file:
        while block := file.read(1 << 20):
            digest.update(block)
    return digest.hexdigest()


class Apt:
    """The machine's apt with a sources list and state folders of our own."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.lists = folder / "lists"
        self.sources = folder / "sources.list"
        for needed in (self.lists / "partial", folder / "cache/archives/partial"):
            needed.mkdir(parents=True, exist_ok=True)
        self.options = [
            *("-o", f"Dir::State::Lists={self.lists}"),
            *("-o", f"Dir::Cache={folder / 'cache'}"),
            *("-o", "Acquire::Languages=none"),
            *("-o", "Acquire::Retries=2"),
            # A mirror that is a frozen snapshot has indexes past their date. They say who made them as well as on the first day, and which
            # release is wanted is pinned by us, not by them.
            *("-o", "Acquire::Check-Valid-Until=false"),
        ]
        if os.geteuid() == 0:
            # The build folder may be closed to apt's own user, and these are plain downloads into it.
            self.options += ["-o", "APT::Sandbox::User=root"]
        self.complaint = ""  # apt's last word when it failed
        self.private = ["-o", f"Dir::Etc::SourceList={self.sources}", "-o", "Dir::Etc::SourceParts=-"]

    def __call__(self, *words: str, tool: str = "apt-get", private: bool = True, cwd: Path | None = None) -> str | None:
        """What the command printed, or None when it failed."""
        command = [tool, *self.options, *(self.private if private else ()), *words]
        done = subprocess.run(
            command,
            cwd=cwd or self.folder,
            env={**os.environ, "LC_ALL": "C"},
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
        )
        if done.returncode == 0:
            return done.stdout
        self.complaint = next((line for line in done.stderr.splitlines() if line.startswith("E:")), "E: no reason given")[3:]
        return None

    def mirror(self) -> tuple[str, str] | None:
        """(distribution, site) that this machine takes its packages from; None when it is neither Debian nor Ubuntu."""
        targets = ("indextargets", "--format", "$(ORIGIN) $(SITE)", "Created-By: Packages")
        system = subprocess.run(["apt-get", *targets], capture_output=True, text=True).stdout
        if not system.strip():
            # A fresh container has no lists, and without them apt does not know a mirror's origin: fetch them, for us alone.
            self("update", private=False)
            system = self(*targets, private=False) or ""
        for line in system.splitlines():
            origin, _, site = line.partition(" ")
            if origin in KEYRINGS and "security" not in site:
                return origin, site
        return None

    def use(self, origin: str, site: str, suite: str) -> bool:
        """Look at one suite and at no other; False when the mirror does not carry it, or cannot be reached."""
        signed = f" [signed-by={KEYRINGS[origin]}]" if KEYRINGS[origin].is_file() else ""
        self.sources.write_text(f"deb-src{signed} {site} {suite} {COMPONENTS[origin]}\n")
        return self("update") is not None

    def versions(self, package: str) -> list[str]:
        shown = self("showsrc", "--only-source", package, tool="apt-cache") or ""
        return re.findall(r"^Version: (\S+)$", shown, re.MULTILINE)

    def original(self, package: str, version: str, into: Path) -> Path | None:
        """The .orig tarball of a source package, downloaded unless it is there, and checked against the signed index."""
        wanted = f"{package}={version}"
        printed = self("source", "-qq", "--print-uris", "--tar-only", wanted) or ""
        found = re.search(r"^'\S+' (\S+\.orig\.tar\.\S+) \d+ SHA256:([0-9a-f]{64})$", printed, re.MULTILINE)
        if found is None:
            return None
        path, expected = into / found.group(1), found.group(2)
        if not (path.is_file() and sha256(path) == expected):
            path.unlink(missing_ok=True)
            if self("source", "-qq", "--download-only", "--tar-only", wanted, cwd=into) is None or not path.is_file():
                return None
        if sha256(path) != expected:
            path.unlink()
            raise BuildError(f"{path.name} is not what the signed index of the distribution promises; it has been deleted")
        return path


class Distribution:
    """What this machine's distribution has of a project, in the suites that may have the pinned release."""

    def __init__(self, project: Project, cache: Path) -> None:
        self.project = project
        self.cache = cache
        self.found: dict[Version, tuple[str, str]] = {}  # by release: the first suite that has it, and its whole version there
        self.complaints: list[str] = []
        self.mirror: tuple[str, str] | None = None
        if shutil.which("apt-get") is None:
            return
        self.apt = Apt(cache / "apt")
        self.mirror = self.apt.mirror()
        if self.mirror is None:
            return
        for suite in project.suites[self.mirror[0]]:
            if not self.apt.use(*self.mirror, suite):
                self.complaints.append(f"{suite}: {self.apt.complaint}")
                continue
            for version in self.apt.versions(project.source_package):
                self.found.setdefault(parse_version(version), (suite, version))
            if parse_version(project.version) in self.found:
                break

    def archive(self, release: Version) -> Archive | None:
        if self.mirror is None or release not in self.found:
            return None
        suite, version = self.found[release]
        self.apt.use(*self.mirror, suite)
        path = self.apt.original(self.project.source_package, version, self.cache)
        if path is None:
            self.complaints.append(f"{suite}: {self.apt.complaint}")
            return None
        return Archive(path, f"{self.mirror[0]} source package {self.project.source_package} {version} ({suite})")

    def pinned(self) -> Archive | None:
        return self.archive(parse_version(self.project.version))

    def newest(self) -> Archive | None:
        oldest, before = parse_version(self.project.oldest), parse_version(self.project.before)
        usable = sorted((release for release in self.found if oldest <= release < before), reverse=True)
        return next(filter(None, map(self.archive, usable)), None)


def obtain(project: Project, cache: Path, expected: str | None = None) -> Archive:
    """The pinned release, or with a warning another that will do; raises BuildError when neither can be had."""
    cache.mkdir(parents=True, exist_ok=True)
    for name in dict.fromkeys((project.name, project.source_package)):
        for path in sorted(cache.glob(f"{name}[-_]*.tar.*")):
            if sha256(path) in project.sha256:
                return Archive(path, f"{path.name}, downloaded before")
    distribution = Distribution(project, cache)
    pinned = distribution.pinned()
    if pinned is not None:
        return pinned
    try:
        return from_upstream(project, cache, expected)
    except BuildError as error:
        other = distribution.newest()
        if other is None:
            raise BuildError("\n".join([*distribution.complaints, str(error)])) from None
        reasons = "; ".join([*distribution.complaints, str(error)])
        warn(f"{project.name} {project.version} cannot be had, neither from this machine's mirror nor from upstream ({reasons})")
        return other


def from_upstream(project: Project, cache: Path, expected: str | None = None) -> Archive:
    """The upstream release archive of the pinned version; raises BuildError when it cannot be had or is not what was pinned."""
    accepted = (expected,) if expected else project.sha256
    path = cache / f"{project.name}-{project.version}.tar.gz"
    if not (path.is_file() and sha256(path) in accepted):
        say(f"downloading {project.url}")
        part = path.with_suffix(".part")
        try:
            with urllib.request.urlopen(project.url, timeout=30) as response, part.open("wb") as out:
                shutil.copyfileobj(response, out)
        except OSError as error:
            raise BuildError(f"cannot download {project.url} ({error})") from None
        part.replace(path)
    _check(path, accepted)
    return Archive(path, f"upstream release {project.version}")


def from_file(path: Path, expected: str | None = None) -> Archive:
    """An archive the user named. Naming it is trusting it, so its checksum is only held against one they gave as well."""
    if expected:
        _check(path, (expected,))
    return Archive(path.resolve(), f"archive {path.name}")


def _check(path: Path, accepted: tuple[str, ...]) -> None:
    actual = sha256(path)
    if actual not in accepted:
        raise BuildError(f"{path} has sha256 {actual}, expected {' or '.join(accepted)}; delete it, and check where it came from")


def unpack(archive: Path, into: Path) -> Path:
    """Unpack into an empty folder and return the archive's one top folder."""
    shutil.rmtree(into, ignore_errors=True)
    into.mkdir(parents=True)
    try:
        with tarfile.open(archive) as tar:
            if hasattr(tarfile, "data_filter"):
                tar.extractall(into, filter="data")
            else:  # Python releases from before the filters were brought back; the archive's checksum was verified
                tar.extractall(into)
    except (tarfile.TarError, OSError) as error:
        raise BuildError(f"{archive} cannot be unpacked: {error}") from None
    tops = list(into.iterdir())
    if len(tops) != 1:
        raise BuildError(f"{archive} should hold one folder, it holds {len(tops)} entries")
    return tops[0]
