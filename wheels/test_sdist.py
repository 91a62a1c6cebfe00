"""The sdist holds what git has, nothing less and nothing more, and builds where there is no
network.

`make test-sdist` runs this, in a checkout with git.
"""

from __future__ import annotations

import json
import os
import re
import shutil
import subprocess
import sys
import tarfile
from pathlib import Path

import pytest

CHECKOUT = Path(__file__).resolve().parent.parent
# What setuptools adds for installers.
GENERATED = {"PKG-INFO", "setup.cfg"}
PROJECT = (CHECKOUT / "pyproject.toml").read_text(encoding="utf-8")
VERSION = re.search(r'^version = "(.+)"$', PROJECT, re.MULTILINE).group(1)
REQUIRES = json.loads(re.search(r"^requires = (\[.+\])$", PROJECT, re.MULTILINE).group(1))


@pytest.fixture(scope="module")
def sdist(tmp_path_factory):
    folder = tmp_path_factory.mktemp("sdist")
    subprocess.run(
        [sys.executable, "-m", "build", "--sdist", "--outdir", folder, CHECKOUT],
        check=True,
        capture_output=True,
    )
    (archive,) = folder.iterdir()
    assert archive.name == f"kafka_ext-{VERSION}.tar.gz"
    return archive


def test_it_contains_exactly_what_git_has(sdist):
    top = f"kafka_ext-{VERSION}/"
    with tarfile.open(sdist) as tar:
        inside = {
            member.name.removeprefix(top): tar.extractfile(member).read()
            for member in tar
            if member.isfile()
        }
    listed = subprocess.run(
        ["git", "ls-files", "-z"], cwd=CHECKOUT, capture_output=True, check=True
    ).stdout.decode()
    known = set(filter(None, listed.split("\0")))
    assert {
        name for name in inside if not name.startswith("kafka_ext.egg-info/")
    } - GENERATED == known
    assert [name for name in known if inside[name] != (CHECKOUT / name).read_bytes()] == []


@pytest.mark.timeout(900)
def test_it_builds_in_isolation_without_a_network(sdist, tmp_path):
    """Given an archive of librdkafka, and the build's requirements in a folder: pip's isolated
    environment is made from that.
    """
    if subprocess.run(["unshare", "-rn", "true"], capture_output=True).returncode:
        pytest.skip("this machine does not let us have a network namespace")
    cache = CHECKOUT / "build/cache"
    archives = [
        *cache.glob("librdkafka-*.tar.gz"),
        *cache.glob("confluentinc-kafka-javascript-*.tgz"),
    ]
    if not archives:
        pytest.skip("build/cache has no archive of librdkafka: make librdkafka downloads one")
    pip = [sys.executable, "-m", "pip", "--disable-pip-version-check"]
    subprocess.run(
        [*pip, "download", "--quiet", "--dest", tmp_path / "requires", *REQUIRES], check=True
    )
    environment = {
        name: value
        for name, value in os.environ.items()
        if not name.startswith(("KAFKA_EXT_", "PIP_"))
    }
    offline = [
        "--no-index",
        "--find-links",
        tmp_path / "requires",
        "--no-deps",
        "--wheel-dir",
        tmp_path / "made",
    ]
    built = subprocess.run(
        ["unshare", "-rn", *pip, "wheel", *offline, sdist],
        env={
            **environment,
            "KAFKA_EXT_LIBRDKAFKA_ARCHIVE": str(archives[-1]),
            "PIP_CONFIG_FILE": os.devnull,
        },
        cwd=tmp_path,
        capture_output=True,
        text=True,
    )
    assert built.returncode == 0, built.stdout[-3000:] + built.stderr[-3000:]
    (wheel,) = (tmp_path / "made").iterdir()
    target = tmp_path / "installed"
    subprocess.run(
        [*pip, "install", "--quiet", "--no-index", "--no-deps", "--target", target, wheel],
        check=True,
    )
    asked = [
        sys.executable,
        "-c",
        "import kafka_ext._rdkafka as built; print(built.__file__, built.build_info()['linkage'])",
    ]
    answer = subprocess.run(
        asked,
        cwd="/",
        env={**environment, "PYTHONPATH": str(target)},
        capture_output=True,
        text=True,
        check=True,
    )
    assert answer.stdout.startswith(str(target))
    assert answer.stdout.strip().endswith("bundled static")
    shutil.rmtree(tmp_path / "made")
