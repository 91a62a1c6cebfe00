"""What CI may do, and what has to be so before anything is published (row 32 of what was found)."""

import json
import re
import subprocess
import sys
from pathlib import Path

import pytest

CHECKOUT = Path(__file__).resolve().parents[2]
WORKFLOWS = CHECKOUT / ".github/workflows"
if not WORKFLOWS.is_dir():
    pytest.skip("the workflows are not here", allow_module_level=True)

pytestmark = pytest.mark.found(32)

TEXTS = {path.name: path.read_text(encoding="utf-8") for path in sorted(WORKFLOWS.glob("*.yml"))}
PYPROJECT = (CHECKOUT / "pyproject.toml").read_text(encoding="utf-8")


def jobs(text):
    """`{name: text}` of the jobs of a workflow."""
    _, _, after = text.partition("\njobs:\n")
    parts = re.split(r"^  ([a-z]+):\n", after, flags=re.MULTILINE)
    return dict(zip(parts[1::2], parts[2::2], strict=True))


@pytest.mark.parametrize("name", TEXTS)
def test_actions_are_pinned_by_commit_and_say_which_version(name):
    for used in re.findall(r"uses: (.+)", TEXTS[name]):
        assert used.startswith("./") or re.fullmatch(
            r"[\w.-]+/[\w.-]+@[0-9a-f]{40} # v\d+(\.\d+)+", used
        ), used


@pytest.mark.parametrize("name", TEXTS)
def test_nothing_is_permitted_but_what_a_job_asks_for(name):
    assert "\npermissions: {}\n" in TEXTS[name]
    for job, text in jobs(TEXTS[name]).items():
        permissions = (
            re.search(r"^    permissions:\n((?:      .+\n)+)", text, re.MULTILINE)[1]
            .split("#")[0]
            .split()
        )
        assert permissions == (
            ["id-token:", "write"] if job == "publish" else ["contents:", "read"]
        ), job
        assert text.count("actions/checkout@") == text.count("persist-credentials: false"), job


def test_nothing_is_published_but_what_passed_everything():
    wheels = jobs(TEXTS["wheels.yml"])
    needs = re.search(r"needs: \[(.+)\]", wheels["publish"])[1].split(", ")
    assert set(needs) == set(wheels) - {"publish"}
    assert "./.github/workflows/ci.yml" in wheels["ci"]
    assert "workflow_call:" in TEXTS["ci.yml"]
    assert 'wheels/release.py "$GITHUB_REF_NAME"' in wheels["release"]
    assert "fetch-depth: 0" in wheels["release"]


def requirements(name):
    """`{package: number of hashes}` of a file of requirements; fails where one is not pinned."""
    text = (CHECKOUT / f"wheels/requirements/{name}.txt").read_text(encoding="utf-8")
    entries = re.split(r"\n(?=\S)", text.replace("\\\n", " "))
    names = {
        re.match(r"([\w.-]+)==\S+", entry)[1].lower(): entry.count("--hash=sha256:")
        for entry in entries
        if entry.strip()
    }
    assert all(names.values()), names
    return names


def test_what_published_wheels_are_built_with_is_pinned_by_hash():
    requires = json.loads(re.search(r"^requires = (\[.+\])$", PYPROJECT, re.MULTILINE)[1])
    assert {re.match(r"[\w-]+", name)[0].lower() for name in requires} <= set(requirements("build"))
    assert "cibuildwheel" in requirements("tools")
    settings = PYPROJECT.partition("[tool.cibuildwheel]")[2]
    assert '"--no-isolation"' in settings
    published = settings + "".join(
        jobs(TEXTS["wheels.yml"])[name].partition("upload-artifact")[0]
        for name in ("sdist", "wheels")
    )
    installs = re.findall(r"pip install .*", published)
    assert len(installs) == 4
    assert all("--require-hashes -r" in install for install in installs)


def test_zizmor_finds_nothing():
    zizmor = Path(sys.executable).with_name("zizmor")
    if not zizmor.exists():
        pytest.skip("zizmor is not installed: make lint")
    done = subprocess.run(
        [zizmor, "--offline", "--quiet", CHECKOUT / ".github"], capture_output=True, text=True
    )
    assert done.returncode == 0, done.stdout


@pytest.fixture
def release(tmp_path, monkeypatch):
    """`complaints(tag)` of a checkout of version 0.1.0, and what runs git in it."""

    def git(*words):
        identity = [
            "-c",
            "user.name=n",
            "-c",
            "user.email=e@example.org",
            "-c",
            "commit.gpgsign=false",
        ]
        subprocess.run(["git", *identity, *words], cwd=tmp_path, check=True, capture_output=True)

    (tmp_path / "pyproject.toml").write_text('[project]\nversion = "0.1.0"\n')
    (tmp_path / "kafka_ext").mkdir()
    (tmp_path / "kafka_ext/__init__.py").write_text('__version__ = "0.1.0"\n')
    (tmp_path / "CHANGELOG.md").write_text("# Changelog\n\n## 0.1.0 (29 November 2026)\n")
    git("init", "--quiet")
    git("add", ".")
    git("commit", "--quiet", "-m", "all")
    git("update-ref", "refs/remotes/origin/main", "HEAD")
    monkeypatch.syspath_prepend(str(CHECKOUT / "wheels"))
    module = pytest.importorskip("release")
    yield lambda tag: module.complaints(tag, tmp_path), git
    sys.modules.pop("release", None)


def test_a_tag_is_exactly_the_version(release):
    complaints, _ = release
    assert complaints("v0.1.0") == []
    for tag in ("v0x1y0", "v0.1.0.", "v0.1", "v0.1.0rc1", "0.1.0", "vv0.1.0", "v.*", "v"):
        assert complaints(tag), tag


def test_a_tag_is_on_main(release):
    complaints, git = release
    git("commit", "--quiet", "--allow-empty", "-m", "beside it")
    assert complaints("v0.1.0") == ["the commit is not on main"]
