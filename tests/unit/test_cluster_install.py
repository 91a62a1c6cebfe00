"""What KafkaCluster says where it cannot run: what is missing, and how to get it. Nothing here
starts Java.
"""

import os
import re
import subprocess
import sys

import pytest

from kafka_ext.testing import BrokerStateError, KafkaCluster, KafkaInstallError, Listener
from kafka_ext.testing import cluster_artifacts as artifacts


@pytest.fixture
def programs(tmp_path, monkeypatch):
    """A PATH with nothing on it but what is put there: `programs(java="...")` makes
    shell scripts.
    """
    folder = tmp_path / "bin"
    folder.mkdir()
    monkeypatch.setenv("PATH", str(folder))
    monkeypatch.delenv("JAVA_HOME", raising=False)
    monkeypatch.setenv("KAFKA_EXT_CACHE", str(tmp_path / "cache"))

    def make(**scripts):
        for name, script in scripts.items():
            program = folder / name
            program.write_text(f"#!/bin/sh\n{script}\n")
            program.chmod(0o755)

    return make


JAVA_17 = "echo 'openjdk version \"17.0.15\" 2025-04-15' >&2"


def test_java_is_missing(programs):
    with pytest.raises(KafkaInstallError, match="Java is missing") as raised:
        KafkaCluster()
    assert isinstance(raised.value, BrokerStateError)
    assert "apt-get install openjdk-17-jre-headless" in str(raised.value)
    assert "JAVA_HOME" in str(raised.value)


@pytest.mark.parametrize("version", ["1.8.0_412", "11.0.23"])
def test_java_is_too_old(programs, version):
    programs(java=f"echo 'openjdk version \"{version}\"' >&2")
    with pytest.raises(KafkaInstallError, match=r"is Java (8|11), and Apache Kafka needs 17"):
        KafkaCluster()


def test_java_does_not_run(programs):
    programs(java="exit 1")
    with pytest.raises(KafkaInstallError, match="Java does not run"):
        KafkaCluster()


def test_maven_is_missing(programs):
    programs(java=JAVA_17)
    with pytest.raises(KafkaInstallError, match="Maven is missing") as raised:
        KafkaCluster()
    assert "apt-get install maven" in str(raised.value)


def test_maven_fails_and_its_last_words_are_told(programs, tmp_path):
    programs(java=JAVA_17, mvn="echo 'cannot reach the repository'; exit 1")
    with pytest.raises(
        KafkaInstallError,
        match=r"(?s)Maven could not get Apache Kafka .*cannot reach the repository",
    ):
        KafkaCluster()
    assert [
        entry.name for entry in (tmp_path / "cache").iterdir() if not entry.name.endswith(".lock")
    ] == []


def test_what_maven_has_brought_is_kept(programs, tmp_path):
    programs(
        java=JAVA_17,
        mvn=(
            'for a; do case "$a" in -DoutputDirectory=*) d=${a#*=};; esac; done; /bin/mkdir "$d";'
            ' echo > "$d/a.jar"'
        ),
    )
    first = artifacts.installation("4.1.1")
    programs(mvn="exit 1")
    assert artifacts.installation("4.1.1") == first
    assert sorted(path.name for path in first.folder.iterdir()) == ["a.jar", "log4j2.properties"]


def test_the_command_that_prepares_it_exits_non_zero(tmp_path):
    environment = {**os.environ, "PATH": str(tmp_path), "KAFKA_EXT_CACHE": str(tmp_path)}
    environment.pop("JAVA_HOME", None)
    done = subprocess.run(
        [sys.executable, "-m", "kafka_ext.testing.cluster_artifacts"],
        env=environment,
        capture_output=True,
        text=True,
    )
    assert done.returncode == 1
    assert re.match(r"\[kafka\] error: Java is missing", done.stderr)


@pytest.mark.parametrize(
    ("arguments", "error"),
    [
        ({"brokers": 0}, ValueError),
        ({"brokers": "3"}, TypeError),
        ({"topics": {"bad name": 1}}, ValueError),
        ({"brokers": 1, "replication_factor": 2}, ValueError),
        ({"listeners": {}}, ValueError),
        ({"listeners": {"INTERNAL": Listener()}}, ValueError),
        ({"listeners": {"CLIENT": "PLAINTEXT"}}, TypeError),
        ({"advertised": {2: ("127.0.0.1", 1)}}, ValueError),
        ({"heap_mb": 1}, ValueError),
        ({"keep_logs": 1}, TypeError),
        ({"timeout": -1}, ValueError),
        ({"version": "4; rm"}, ValueError),
    ],
)
def test_arguments_are_checked_before_anything_starts(programs, arguments, error):
    with pytest.raises(error):
        KafkaCluster(**arguments)


@pytest.mark.parametrize(
    "arguments",
    [
        {"protocol": "TLS"},
        {"mechanisms": ("GSSAPI",)},
        {"mechanisms": "PLAIN"},
        {"mechanisms": ()},
        {"client_certificate": "yes"},
    ],
)
def test_a_listener_is_checked(arguments):
    with pytest.raises(ValueError, match=next(iter(arguments))):
        Listener(**arguments)
