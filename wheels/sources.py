"""Where the C sources come from, and why what arrived can be trusted.

Each project is pinned: by the sha256 of archives known to hold the release, or by the sha256 of its
content, the files that are configured and compiled. Looked for in this order:

1. an archive of the pinned release that was downloaded before;
2. the upstream release archive;
3. where it is there, npm: a package that carries the same sources;
4. on Debian and Ubuntu the distribution's own source package, by apt, from the mirror the machine
   is set up with. A sources list, lists and caches of our own are used: the system's apt is never
   touched.

A place that cannot be reached is passed over. A place that answers with something else than what is
pinned ends the build: that is an attack or a mistake, and no reason to look elsewhere. When no
place has the pinned release, librdkafka may be another release that the distribution has, which is
named in a warning and in `build_info()`; a wheel is never made of one.

No Debian patch is applied: what is compiled is the upstream release.

The content's pin covers every file that is unpacked, and is made by hand in an unpacked release
with

    find $(ls -d PATTERNS) -type f ! -name '.*' | LC_ALL=C sort | xargs sha256sum | sha256sum
"""

from __future__ import annotations

import fnmatch
import hashlib
import http.client
import os
import re
import shutil
import subprocess
import tarfile
import urllib.request
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path, PurePosixPath

from console import BuildError, say, warn

KEYRINGS = {
    "Debian": Path("/usr/share/keyrings/debian-archive-keyring.gpg"),
    "Ubuntu": Path("/usr/share/keyrings/ubuntu-archive-keyring.gpg"),
}
COMPONENTS = {"Debian": "main", "Ubuntu": "main universe"}

Version = tuple[int, ...]


class UnavailableError(BuildError):
    """This place does not have it, or cannot be reached: another may be asked."""


def parse_version(text: str) -> Version:
    """(2, 14, 2) of 2.14.2; empty when it is not a release's number."""
    return tuple(map(int, text.split("."))) if re.fullmatch(r"\d+(\.\d+)*", text) else ()


def release(package_version: str) -> str:
    """The upstream release that a distribution's version names: 2.14.2 of 2.14.2-1, 2.0.9 of
    1:2.0.9+ds-2, 1.3.2 of 1:1.3.dfsg+really1.3.2-4. Empty for what is no release: 1.0~rc1,
    1.0+git2024.
    """
    upstream = package_version.partition(":")[2] or package_version
    upstream = upstream.rpartition("-")[0] or upstream
    upstream = upstream.rpartition("+really")[2]
    # Repacked without files that are not free, or not used.
    upstream = re.sub(r"[+.](dfsg|ds)[\d.]*$", "", upstream)
    return upstream if parse_version(upstream) else ""


@dataclass(frozen=True)
class Npm:
    """A package of npm that carries a project's sources in one of its folders."""

    package: str
    version: str
    folder: str
    sha256: str

    @property
    def file(self) -> str:
        return f"{self.package.lstrip('@').replace('/', '-')}-{self.version}.tgz"


@dataclass(frozen=True)
class Project:
    """A C project: the release that is pinned, and every place it can be had from."""

    name: str
    version: str
    url: str  # upstream's archive of the pinned release
    suites: dict[str, tuple[str, ...]]  # the distribution's suites, most likely first
    sha256: tuple[str, ...] = ()  # of archives known to hold the pinned release
    content: str = ""  # of the pinned release's files
    files: tuple[str, ...] = ("*",)  # which those are; nothing else is unpacked
    npm: Npm | None = None
    oldest: str = ""  # of the other releases that will do in a pinch; none when empty
    package: str = ""  # the distribution's source package, where that is called otherwise

    @property
    def source_package(self) -> str:
        return self.package or self.name


@dataclass(frozen=True)
class Sources:
    """A release, unpacked."""

    folder: Path
    archive: Path
    origin: str
    pinned: bool

    @property
    def sha256(self) -> str:
        return sha256(self.archive)


def sha256(path: Path) -> str:
    digest = hashlib.sha256()
    with path.open("rb") as file:
        while block := file.read(1 << 20):
            digest.update(block)
    return digest.hexdigest()


def content_sha256(folder: Path) -> str:
    """Of the names and the contents of all files in a folder."""
    names = sorted(
        path.relative_to(folder).as_posix() for path in folder.rglob("*") if path.is_file()
    )
    listing = "".join(f"{sha256(folder / name)}  {name}\n" for name in names)
    return hashlib.sha256(listing.encode()).hexdigest()


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
            # A mirror that is a frozen snapshot has indexes past their date. They say who made them
            # as well as on the first day, and which release is wanted is pinned by us, not by them.
            *("-o", "Acquire::Check-Valid-Until=false"),
        ]
        if os.geteuid() == 0:
            # The build folder may be closed to apt's own user, and these are plain downloads into
            # it.
            self.options += ["-o", "APT::Sandbox::User=root"]
        self.complaint = ""  # apt's last word when it failed
        self.private = [
            "-o",
            f"Dir::Etc::SourceList={self.sources}",
            "-o",
            "Dir::Etc::SourceParts=-",
        ]

    def __call__(
        self, *words: str, tool: str = "apt-get", private: bool = True, cwd: Path | None = None
    ) -> str | None:
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
        self.complaint = next(
            (line for line in done.stderr.splitlines() if line.startswith("E:")),
            "E: no reason given",
        )[3:]
        return None

    def mirror(self) -> tuple[str, str] | None:
        """(distribution, site) that this machine takes its packages from; None when it is neither
        Debian nor Ubuntu.
        """
        targets = ("indextargets", "--format", "$(ORIGIN) $(SITE)", "Created-By: Packages")
        system = subprocess.run(["apt-get", *targets], capture_output=True, text=True).stdout
        if not system.strip():
            # A fresh container has no lists, and without them apt does not know a mirror's origin:
            # fetch them, for us alone.
            self("update", private=False)
            system = self(*targets, private=False) or ""
        for line in system.splitlines():
            origin, _, site = line.partition(" ")
            if origin in KEYRINGS and "security" not in site:
                return origin, site
        return None

    def use(self, origin: str, site: str, suite: str) -> bool:
        """Look at one suite and at no other; False when the mirror does not carry it, or cannot be
        reached.
        """
        signed = f" [signed-by={KEYRINGS[origin]}]" if KEYRINGS[origin].is_file() else ""
        self.sources.write_text(f"deb-src{signed} {site} {suite} {COMPONENTS[origin]}\n")
        return self("update") is not None

    def versions(self, package: str) -> list[str]:
        shown = self("showsrc", "--only-source", package, tool="apt-cache") or ""
        return re.findall(r"^Version: (\S+)$", shown, re.MULTILINE)

    def original(self, package: str, version: str, into: Path) -> Path | None:
        """The .orig tarball of a source package, downloaded unless it is there, and checked against
        the signed index.
        """
        wanted = f"{package}={version}"
        printed = self("source", "-qq", "--print-uris", "--tar-only", wanted) or ""
        found = re.search(
            r"^'\S+' (\S+\.orig\.tar\.\S+) \d+ SHA256:([0-9a-f]{64})$", printed, re.MULTILINE
        )
        if found is None:
            return None
        path, expected = into / found.group(1), found.group(2)
        if not (path.is_file() and sha256(path) == expected):
            path.unlink(missing_ok=True)
            if (
                self("source", "-qq", "--download-only", "--tar-only", wanted, cwd=into) is None
                or not path.is_file()
            ):
                return None
        if sha256(path) != expected:
            path.unlink()
            raise BuildError(
                f"{path.name} is not what the signed index of the distribution promises; it has"
                " been deleted"
            )
        return path


class Distribution:
    """What this machine's distribution has of a project, in the suites that may have the pinned
    release.
    """

    def __init__(self, project: Project, cache: Path) -> None:
        self.project = project
        self.cache = cache
        self.found: dict[
            str, tuple[str, str]
        ] = {}  # by release: the first suite that has it, and its whole version there
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
                self.found.setdefault(release(version), (suite, version))
            if project.version in self.found:
                break

    def archive(self, wanted: str) -> tuple[Path, str]:
        """The archive of a release, and where it comes from."""
        if self.mirror is None or wanted not in self.found:
            reasons = "; ".join(["the distribution does not have it", *self.complaints])
            raise UnavailableError(f"{self.project.name} {wanted}: {reasons}")
        suite, version = self.found[wanted]
        self.apt.use(*self.mirror, suite)
        path = self.apt.original(self.project.source_package, version, self.cache)
        if path is None:
            raise UnavailableError(f"{self.project.name} {wanted}: {suite}: {self.apt.complaint}")
        return (
            path,
            f"{self.mirror[0]} source package {self.project.source_package} {version} ({suite})",
        )

    def pinned(self) -> Path:
        return self.archive(self.project.version)[0]

    def newest(self) -> tuple[Path, str]:
        """Of the other releases that will do."""
        oldest = parse_version(self.project.oldest)
        usable = [other for other in self.found if oldest and parse_version(other) >= oldest]
        return self.archive(max(usable, key=parse_version, default=self.project.version))


def obtain(project: Project, cache: Path, work: Path, *, only_pinned: bool) -> Sources:
    """The pinned release, unpacked in `work`. Raises BuildError when what arrives is not what is
    pinned, and UnavailableError when it cannot be had; then, unless `only_pinned`, another release
    is taken with a warning.
    """
    cache.mkdir(parents=True, exist_ok=True)
    distribution: list[Distribution] = []  # asked once, and not before the others were

    def packaged() -> Path:
        distribution.append(Distribution(project, cache))
        return distribution[0].pinned()

    reasons = []
    places: tuple[Callable[[], Path], ...] = (
        lambda: _downloaded(project, cache),
        lambda: _upstream(project, cache),
        lambda: _by_npm(project, cache),
        packaged,
    )
    for place in places:
        try:
            path = place()
        except UnavailableError as error:
            reasons.append(str(error))
            continue
        return _verified(project, path, work)
    without = f"{project.name} {project.version} cannot be had: {'; '.join(filter(None, reasons))}"
    if only_pinned or not project.oldest:
        raise UnavailableError(without)
    try:
        path, origin = distribution[0].newest()
    except UnavailableError:
        raise UnavailableError(without) from None
    warn(f"{without}. Another release is taken: {origin}")
    return Sources(unpack(path, work, project), path, origin, pinned=False)


def from_file(project: Project, path: Path, work: Path, *, only_pinned: bool) -> Sources:
    """An archive that the user names. Naming it is trusting it, but for a wheel; what is not pinned
    is said.
    """
    folder = unpack(path, work, project)
    wrong = _wrong_archive(project, path) or _wrong_content(project, folder)
    if wrong:
        differs = f"{path} is not the pinned {project.name} {project.version}: {wrong}"
        if only_pinned:
            raise BuildError(f"{differs}. Nothing else may be in a wheel")
        warn(differs)
    return Sources(folder, path.resolve(), f"archive {path.name}", pinned=not wrong)


def _downloaded(project: Project, cache: Path) -> Path:
    """What was downloaded before."""
    names = [
        f"{project.name}-{project.version}.tar.gz",
        *([project.npm.file] if project.npm else []),
    ]
    packages = [
        path.name
        for path in sorted(cache.glob(f"{project.source_package}_*.orig.tar.*"))
        if release(path.name.partition("_")[2].partition(".orig.")[0]) == project.version
        and path.suffix != ".rejected"
    ]
    for name in (*names, *packages):
        if (cache / name).is_file():
            return cache / name
    raise UnavailableError("")


def _upstream(project: Project, cache: Path) -> Path:
    """The upstream release archive."""
    path = cache / f"{project.name}-{project.version}.tar.gz"
    part = path.with_suffix(".part")
    say(f"downloading {project.url}")
    try:
        with urllib.request.urlopen(project.url, timeout=30) as response, part.open("wb") as out:
            shutil.copyfileobj(response, out)
    except (OSError, http.client.HTTPException) as error:
        raise UnavailableError(f"{project.url} cannot be downloaded ({error})") from None
    part.replace(path)
    return path


def _by_npm(project: Project, cache: Path) -> Path:
    """The package of npm that carries it; npm only downloads it, and runs nothing of it."""
    package = project.npm
    if package is None or shutil.which("npm") is None:
        raise UnavailableError("npm, which has it as well, is not installed" if package else "")
    name = f"{package.package}@{package.version}"
    say(f"downloading {name} with npm")
    options = [
        "--ignore-scripts",
        "--silent",
        "--fetch-retries=1",
        "--fetch-timeout=30000",
        f"--cache={cache / 'npm'}",
    ]
    done = subprocess.run(
        ["npm", "pack", *options, f"--pack-destination={cache}", name],
        cwd=cache,
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
    )
    path = cache / package.file
    if done.returncode or not path.is_file():
        raise UnavailableError(f"npm cannot download {name} (status {done.returncode})")
    return path


def _verified(project: Project, path: Path, work: Path) -> Sources:
    wrong = _wrong_archive(project, path)
    if not wrong:
        try:
            folder = unpack(path, work, project)
        except BuildError as error:
            wrong = str(error)
        else:
            wrong = _wrong_content(project, folder)
    if wrong:
        rejected = path.replace(path.with_name(f"{path.name}.rejected"))
        raise BuildError(
            f"{path} is not the pinned {project.name} {project.version}: {wrong}. It is kept, as"
            f" {rejected.name}"
        )
    return Sources(folder, path, path.name, pinned=True)


def _wrong_archive(project: Project, path: Path) -> str:
    """What is wrong with an archive as a file; empty when it is as pinned, or only its
    content is.
    """
    npm = project.npm
    expected = (npm.sha256,) if npm is not None and path.name == npm.file else project.sha256
    actual = sha256(path)
    return (
        f"its sha256 is {actual}, expected {' or '.join(expected)}"
        if expected and actual not in expected
        else ""
    )


def _wrong_content(project: Project, folder: Path) -> str:
    """The same of what was unpacked."""
    if not project.content:
        return ""
    actual = content_sha256(folder)
    return (
        f"the sha256 of its content is {actual}, expected {project.content}"
        if actual != project.content
        else ""
    )


def unpack(archive: Path, into: Path, project: Project) -> Path:
    """Unpack a project's files, and no others, into an empty folder; return the folder that has
    them.
    """
    shutil.rmtree(into, ignore_errors=True)
    into.mkdir(parents=True)
    try:
        with tarfile.open(archive) as tar:
            members = tar.getmembers()
            top = _top(members, project)
            wanted = list(_wanted(members, top, project))
            if hasattr(tarfile, "data_filter"):
                tar.extractall(into, members=wanted, filter="data")
            else:  # Python releases from before the filters were brought back
                tar.extractall(into, members=wanted)
    except (tarfile.TarError, EOFError, OSError, ValueError) as error:
        raise BuildError(f"{archive} cannot be unpacked: {error}") from None
    if not wanted:
        raise BuildError(f"{archive} has nothing of {project.name} in it")
    return into / top


def _top(members: list[tarfile.TarInfo], project: Project) -> str:
    """The folder of the archive that is the project's."""
    if project.npm is not None and any(
        member.name.startswith(f"{project.npm.folder}/") for member in members
    ):
        return project.npm.folder
    tops = {PurePosixPath(member.name).parts[0] for member in members}
    if len(tops) != 1:
        raise ValueError(f"it should hold one folder, it holds {len(tops)} entries")
    return tops.pop()


def _wanted(
    members: list[tarfile.TarInfo], top: str, project: Project
) -> Iterator[tarfile.TarInfo]:
    for member in members:
        name = member.name.removeprefix(f"{top}/")
        if name == member.name or not any(
            fnmatch.fnmatchcase(name, pattern) for pattern in project.files
        ):
            continue
        hidden = PurePosixPath(name).name.startswith(
            "."
        )  # git's and editors'; upstream's archive has some, and copies have not
        if project.content and (hidden or member.isdir()):
            continue
        if ".." in PurePosixPath(name).parts or (project.content and not member.isfile()):
            raise ValueError(f"{member.name} is not a plain file in it")
        yield member
