"""Where the build's C sources come from: what is not what is pinned ends the build, and nothing
else is compiled.

Real archives, and programs called npm and apt-get that hand them out; no network.
"""

import hashlib
import io
import json
import os
import shutil
import subprocess
import sys
import tarfile
from dataclasses import replace
from pathlib import Path

import pytest

CHECKOUT = Path(__file__).resolve().parents[2]
WHEELS = CHECKOUT / "wheels"
if not (WHEELS / "sources.py").is_file():
    pytest.skip("the build's scripts are not here", allow_module_level=True)

FILES = {
    "configure": b"#!/bin/sh\n",
    "src/a.c": b"int a;\n",
    "src/deep/b.c": b"int b;\n",
    "LICENSE": b"free\n",
}
UNPINNED = {"README": b"read me\n", "examples/e.c": b"int e;\n", "src/.gitignore": b"*.o\n"}


@pytest.fixture
def sources(monkeypatch):
    """wheels/sources.py, and no trace of that folder's modules afterwards."""
    monkeypatch.syspath_prepend(str(WHEELS))
    yield pytest.importorskip("sources")
    for name, module in list(sys.modules.items()):
        if Path(getattr(module, "__file__", None) or "/").parent == WHEELS:
            del sys.modules[name]


def archive(path, top="it-1.0", files=FILES, links=()):
    path.parent.mkdir(parents=True, exist_ok=True)
    with tarfile.open(path, "w:gz") as tar:
        for name, content in files.items():
            member = tarfile.TarInfo(f"{top}/{name}")
            member.size, member.mode = len(content), 0o755
            tar.addfile(member, io.BytesIO(content))
        for name, target in links:
            member = tarfile.TarInfo(f"{top}/{name}")
            member.type, member.linkname = tarfile.SYMTYPE, target
            tar.addfile(member)
    return path


def sha256(path):
    return hashlib.sha256(path.read_bytes()).hexdigest()


@pytest.fixture
def project(sources, tmp_path):
    """Pinned by content, and to be had from no place until a test puts it there."""
    listing = "".join(
        f"{hashlib.sha256(FILES[name]).hexdigest()}  {name}\n" for name in sorted(FILES)
    )
    return sources.Project(
        name="it",
        version="1.0",
        url=(tmp_path / "upstream/it-1.0.tar.gz").as_uri(),
        suites={"Debian": ("sid",), "Ubuntu": ("devel",)},
        content=hashlib.sha256(listing.encode()).hexdigest(),
        files=("configure*", "src/*", "LICENSE*"),
    )


@pytest.fixture(autouse=True)
def programs(tmp_path, monkeypatch):
    """A folder that is all of PATH: no test reaches the machine's npm or apt."""
    folder = tmp_path / "bin"
    folder.mkdir()
    monkeypatch.setenv("PATH", str(folder))
    return folder


def program(folder, name, text):
    (folder / name).write_text(f"#!/bin/sh\nPATH=/usr/bin:/bin\n{text}")
    (folder / name).chmod(0o755)


def distribution(folder, tmp_path, version, orig):
    """apt of a Debian that has one source package."""
    uri = f"'http://mirror/{orig.name}' {orig.name} {orig.stat().st_size} SHA256:{sha256(orig)}"
    program(
        folder,
        "apt-get",
        f"""echo "$@" >> {tmp_path}/apt.log
case "$*" in
    *indextargets*) echo "Debian http://mirror" ;;
    *--print-uris*) echo "{uri}" ;;
    *--download-only*) cp {orig} . ;;
esac
""",
    )
    program(folder, "apt-cache", f'echo "Version: {version}"\n')


def obtain(sources, project, tmp_path, **options):
    return sources.obtain(
        project, tmp_path / "cache", tmp_path / "work", **{"only_pinned": False, **options}
    )


def test_only_what_the_pin_covers_is_unpacked(sources, project, tmp_path):
    archive(tmp_path / "upstream/it-1.0.tar.gz", files=FILES | UNPINNED)
    found = obtain(sources, project, tmp_path)
    assert found.pinned
    unpacked = {
        path.relative_to(found.folder).as_posix()
        for path in found.folder.rglob("*")
        if path.is_file()
    }
    assert unpacked == set(FILES)


@pytest.mark.found(31)
@pytest.mark.parametrize(
    "files",
    [
        FILES | {"src/a.c": b"int evil;\n"},
        FILES | {"src/more.c": b"int evil;\n"},
        {"src/a.c": FILES["src/a.c"]},
        None,
    ],
    ids=["changed", "added", "missing", "no archive"],
)
def test_another_content_ends_the_build_and_no_other_place_is_asked(
    sources, project, tmp_path, programs, files, capsys
):
    path = tmp_path / "upstream/it-1.0.tar.gz"
    if files is None:
        path.parent.mkdir()
        path.write_bytes(b"<html>a proxy's page</html>")
    else:
        archive(path, files=files)
    distribution(programs, tmp_path, "1.1-1", archive(tmp_path / "it_1.1.orig.tar.gz", "it-1.1"))
    with pytest.raises(sources.BuildError, match=r"is not the pinned it 1\.0") as caught:
        obtain(sources, replace(project, oldest="0.9"), tmp_path)
    assert not isinstance(caught.value, sources.UnavailableError)
    assert not (tmp_path / "apt.log").exists()
    assert "warning" not in "".join(capsys.readouterr())
    # Out of the way, so that the next build does not find it, and there to be looked at.
    assert [file.name for file in (tmp_path / "cache").glob("it*")] == ["it-1.0.tar.gz.rejected"]


@pytest.mark.found(31)
def test_another_archive_ends_the_build_where_archives_are_pinned(sources, project, tmp_path):
    path = archive(tmp_path / "upstream/it-1.0.tar.gz")
    by_archive = replace(project, content="", files=("*",), sha256=("0" * 64,))
    with pytest.raises(sources.BuildError, match="is not the pinned"):
        obtain(sources, by_archive, tmp_path)
    assert not (tmp_path / "work").exists(), "unpacked before it was verified"
    assert obtain(sources, replace(by_archive, sha256=(sha256(path),)), tmp_path).pinned


@pytest.mark.found(31)
def test_what_was_downloaded_before_is_verified_as_well(sources, project, tmp_path):
    archive(tmp_path / "cache/it-1.0.tar.gz", files=FILES | {"src/a.c": b"int evil;\n"})
    with pytest.raises(sources.BuildError, match="is not the pinned"):
        obtain(sources, project, tmp_path)


@pytest.mark.found(31)
@pytest.mark.parametrize("name", ["src/a.c", "src/link"])
def test_links_are_no_content(sources, project, tmp_path, name):
    archive(
        tmp_path / "upstream/it-1.0.tar.gz",
        files={k: v for k, v in FILES.items() if k != name},
        links=[(name, "/etc/passwd")],
    )
    with pytest.raises(sources.BuildError, match="not a plain file"):
        obtain(sources, project, tmp_path)


@pytest.mark.parametrize("good", [True, False], ids=["pinned", "other"])
def test_npm_is_asked_where_upstream_cannot_be_reached(sources, project, tmp_path, programs, good):
    packed = archive(
        tmp_path / "npm/at-it-2.0.tgz",
        "package/deps/it",
        FILES if good else FILES | {"src/a.c": b"evil"},
    )
    npm = sources.Npm(
        package="@at/it", version="2.0", folder="package/deps/it", sha256=sha256(packed)
    )
    program(programs, "npm", f'echo "$@" > {tmp_path}/npm.log; cp {packed} .\n')
    project = replace(project, npm=npm)
    if good:
        found = obtain(sources, project, tmp_path)
        assert (found.pinned, found.origin) == (True, "at-it-2.0.tgz")
        asked = (tmp_path / "npm.log").read_text()
        assert "pack" in asked
        assert "--ignore-scripts" in asked
        assert "@at/it@2.0" in asked
    with pytest.raises(sources.BuildError, match="is not the pinned"):
        obtain(
            sources,
            replace(project, npm=replace(npm, sha256="0" * 64)) if good else project,
            tmp_path,
        )


@pytest.mark.found(31)
@pytest.mark.parametrize(
    "files", [FILES, FILES | {"src/a.c": b"int evil;\n"}], ids=["pinned", "other"]
)
def test_the_distributions_archive_is_pinned_too(sources, project, tmp_path, programs, files):
    """apt has checked it against an index that is signed; that says who made it, not
    what is in it.
    """
    distribution(
        programs, tmp_path, "1.0+dfsg-1", archive(tmp_path / "it_1.0+dfsg.orig.tar.gz", files=files)
    )
    if files is FILES:
        assert obtain(sources, project, tmp_path).pinned
        return
    with pytest.raises(sources.BuildError, match="is not the pinned"):
        obtain(sources, project, tmp_path)


@pytest.mark.found(31)
@pytest.mark.parametrize(
    "version", ["1.0~rc1-1", "1.0+git20240101-1", "1.0~beta", "1.0rc1-1", "1.0.post1-1"]
)
def test_what_leads_to_a_release_or_follows_it_is_not_that_release(
    sources, project, tmp_path, programs, version
):
    distribution(
        programs,
        tmp_path,
        version,
        archive(tmp_path / f"it_{version.rpartition('-')[0] or version}.orig.tar.gz"),
    )
    with pytest.raises(sources.UnavailableError, match="the distribution does not have it"):
        obtain(sources, replace(project, oldest="0.9"), tmp_path)


@pytest.mark.parametrize(
    ("version", "release"),
    [
        ("2.14.2-1", "2.14.2"),
        ("1:2.0.9+ds-2", "2.0.9"),
        ("1:1.3.dfsg+really1.3.2-4", "1.3.2"),
        ("3.5.7-1~deb13u2", "3.5.7"),
        ("1.5.7+dfsg-4build1", "1.5.7"),
        ("8.14.1-2+deb13u5", "8.14.1"),
        ("1.0", "1.0"),
        ("1.0~rc1", ""),
        ("1.0~rc1-1", ""),
        ("1.0+git20240101.abc", ""),
        ("1.0+really0.9~rc1-1", ""),
        ("", ""),
    ],
)
def test_the_release_that_a_package_names(sources, version, release):
    assert sources.release(version) == release


@pytest.mark.found(31)
def test_another_release_is_named_in_a_warning_and_never_enters_a_wheel(
    sources, project, tmp_path, programs, capsys
):
    distribution(programs, tmp_path, "1.1-1", archive(tmp_path / "it_1.1.orig.tar.gz", "it-1.1"))
    lenient = replace(project, oldest="0.9")
    found = obtain(sources, lenient, tmp_path)
    assert not found.pinned
    assert found.origin == "Debian source package it 1.1-1 (sid)"
    assert (
        "Another release is taken: Debian source package it 1.1-1 (sid)" in capsys.readouterr().err
    )
    with pytest.raises(sources.BuildError, match="cannot be had"):
        obtain(sources, lenient, tmp_path, only_pinned=True)
    with pytest.raises(sources.BuildError, match="cannot be had"):
        obtain(sources, project, tmp_path)
    with pytest.raises(sources.BuildError, match="cannot be had"):
        obtain(sources, replace(project, oldest="1.2"), tmp_path)


@pytest.mark.found(31)
def test_an_archive_that_the_user_names_is_trusted_but_for_a_wheel(
    sources, project, tmp_path, capsys
):
    def given(path, **options):
        return sources.from_file(
            project, path, tmp_path / "work", **{"only_pinned": False, **options}
        )

    pinned, other = (
        archive(tmp_path / "mine.tar.gz"),
        archive(tmp_path / "other.tar.gz", files=FILES | {"src/a.c": b"int mine;\n"}),
    )
    assert given(pinned, only_pinned=True).pinned
    assert capsys.readouterr().err == ""
    assert not given(other).pinned
    assert f"{other} is not the pinned it 1.0" in capsys.readouterr().err
    with pytest.raises(sources.BuildError, match="Nothing else may be in a wheel"):
        given(other, only_pinned=True)


def test_the_bill_of_materials_is_of_its_schema_and_the_same_every_time(sources):
    pytest.importorskip("cyclonedx")
    repair = pytest.importorskip("repair")
    from cyclonedx.schema import SchemaVersion
    from cyclonedx.validation.json import JsonStrictValidator

    component = {
        "licence": "MIT",
        "sha256": "0" * 64,
        "origin": "a mirror",
        "url": "https://example.org/a.tar.gz",
    }
    components = [{"name": name, "version": "1.0", **component} for name in repair.CPE]
    bill = repair.bill_of_materials("1.2.3", components)
    assert bill == repair.bill_of_materials("1.2.3", components)
    assert bill != repair.bill_of_materials("1.2.4", components)
    assert JsonStrictValidator(SchemaVersion.V1_6).validate_str(bill) is None
    # So that the line above means something.
    assert JsonStrictValidator(SchemaVersion.V1_6).validate_str(
        bill.replace('"required"', '"needed"')
    )


@pytest.mark.found(31)
def test_a_wheel_is_not_repaired_when_something_in_it_is_not_pinned(sources, tmp_path):
    repair = pytest.importorskip("repair")
    part = {
        "name": "librdkafka",
        "version": "2.14.2",
        "origin": "Debian source package librdkafka 2.14.2-1 (sid)",
        "pinned": False,
    }
    (tmp_path / "build-info.json").write_text(
        json.dumps({"archives": ["libz.a"], "components": [part]})
    )
    with pytest.raises(sources.BuildError, match="not the pinned release"):
        repair.made_of(tmp_path)


@pytest.mark.found(31)
def test_everything_in_a_wheel_is_pinned_and_has_no_substitute(sources):
    librdkafka, libraries, allocator = (
        pytest.importorskip(name) for name in ("librdkafka", "libraries", "allocator")
    )
    others = [allocator.MIMALLOC, *(library.project for library in libraries.LIBRARIES)]
    for project in (librdkafka.LIBRDKAFKA, *others):
        pins = [*project.sha256, *filter(None, [project.content])]
        assert pins, project.name
        assert all(len(pin) == 64 for pin in pins)
    assert [project.name for project in others if project.oldest] == []


@pytest.mark.found(31)
def test_the_checksum_that_the_user_gives_is_held_against_whatever_is_found(tmp_path):
    shutil.copytree(WHEELS, tmp_path / "wheels", ignore=shutil.ignore_patterns("__pycache__"))
    cached = [path for path in (CHECKOUT / "build/cache").glob("*rdkafka*.t*gz*") if path.is_file()]
    cached += (CHECKOUT / "build/cache").glob("confluentinc-*.tgz")
    if not cached:
        pytest.skip("build/cache has no archive of librdkafka")
    (tmp_path / "build/cache").mkdir(parents=True)
    for path in cached:
        shutil.copy(path, tmp_path / "build/cache")
    environment = {
        **os.environ,
        "PATH": "/usr/bin:/bin",
        "KAFKA_EXT_LIBRDKAFKA_SHA256": "0" * 64,
        "KAFKA_EXT_ALLOCATOR": "system",
    }
    done = subprocess.run(
        [sys.executable, tmp_path / "wheels/librdkafka.py"],
        env=environment,
        capture_output=True,
        text=True,
    )
    assert done.returncode == 1, done.stdout
    assert "KAFKA_EXT_LIBRDKAFKA_SHA256 is 000" in done.stderr


@pytest.mark.parametrize("name", ["malloc", "strdup", "asprintf"])
def test_memory_that_would_cross_ends_the_build(sources, tmp_path, monkeypatch, name):
    """`malloc` and `strdup` where allocator.h was not included, `asprintf` in any case."""
    allocator = pytest.importorskip("allocator")
    monkeypatch.setenv("PATH", "/usr/bin:/bin")
    if any(shutil.which(program) is None for program in ("gcc", "ar", "nm")):
        pytest.skip("no compiler")
    source, archive = tmp_path / "it.c", tmp_path / "it.a"
    source.write_text(f"void {name}(void); void it(void) {{ {name}(); }}\n")
    command = ["gcc", "-fno-builtin", "-c", source, "-o", tmp_path / "it.o"]
    subprocess.run(command, check=True)
    subprocess.run(["ar", "rcs", archive, tmp_path / "it.o"], check=True)
    with pytest.raises(sources.BuildError, match=f"uses {name}, whose memory belongs"):
        allocator.add(tmp_path, archive, tmp_path / "log")


@pytest.mark.found(31)
@pytest.mark.parametrize(
    ("command", "installs"),
    [
        ("setup.py build_ext", False),
        ("wheels/librdkafka.py", False),
        ("wheels/libraries.py", False),
        ("wheels/needs.py", True),
    ],
)
def test_only_make_installs_system_packages(tmp_path, programs, command, installs):
    """pip calls setup.py, which calls librdkafka.py; the Makefile calls needs.py."""
    if "setup.py" in command:
        pytest.importorskip("setuptools")
        shutil.copy(CHECKOUT / "setup.py", tmp_path)
    shutil.copytree(WHEELS, tmp_path / "wheels", ignore=shutil.ignore_patterns("__pycache__"))
    program(programs, "apt-get", f'echo "$@" >> {tmp_path}/apt.log\n')
    environment = {
        name: value for name, value in os.environ.items() if not name.startswith("KAFKA_EXT_")
    }
    environment["CC"] = str(programs / "no-compiler")
    words = [sys.executable, *command.split()]
    done = subprocess.run(words, cwd=tmp_path, env=environment, capture_output=True, text=True)
    assert done.returncode == 1
    assert "a C compiler" in done.stderr
    installed = (tmp_path / "apt.log").exists()
    assert installed == (installs and os.geteuid() == 0)
    if not installs:
        assert "install with: " in done.stderr
        assert "apt-get install --no-install-recommends -y" in done.stderr
