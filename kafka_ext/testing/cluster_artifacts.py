"""Apache Kafka itself: where Java is, and its jars, which Maven gets once and which stay in a
cache.
"""

from __future__ import annotations

import fcntl
import hashlib
import os
import re
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from ._faults import BrokerStateError

KAFKA_VERSION = "4.4.0"

# What kafka.tools.StorageTool and kafka.Kafka need: the brokers' modules come with the one
# artifact, a logging binding does not (its SLF4J is 1.7, for which log4j has a binding of its own).
_POM = """\
<project xmlns="http://maven.apache.org/POM/4.0.0">
  <modelVersion>4.0.0</modelVersion>
  <groupId>kafka-ext</groupId>
  <artifactId>cluster</artifactId>
  <version>1</version>
  <dependencyManagement>
    <dependencies>
      <dependency>
        <groupId>org.apache.logging.log4j</groupId>
        <artifactId>log4j-bom</artifactId>
        <version>2.24.3</version>
        <type>pom</type>
        <scope>import</scope>
      </dependency>
    </dependencies>
  </dependencyManagement>
  <dependencies>
    <dependency>
      <groupId>org.apache.kafka</groupId>
      <artifactId>kafka_2.13</artifactId>
      <version>{version}</version>
    </dependency>
    <dependency>
      <groupId>org.apache.logging.log4j</groupId>
      <artifactId>log4j-slf4j-impl</artifactId>
    </dependency>
    <dependency>
      <groupId>org.apache.logging.log4j</groupId>
      <artifactId>log4j-core</artifactId>
    </dependency>
  </dependencies>
</project>
"""

# Without the dump of every setting, which each component repeats.
_LOGGING = """\
rootLogger.level=info
rootLogger.appenderRef.out.ref=out
appender.out.type=Console
appender.out.name=out
appender.out.layout.type=PatternLayout
appender.out.layout.pattern=%d{yyyy-MM-dd HH:mm:ss.SSS} %-5p %c{1}: %m%n
logger.config.name=org.apache.kafka.common.config
logger.config.level=warn
"""

_JAVA = 17
_MAVEN_TIMEOUT = 900.0
# The last lines of a tool that failed are where it says why.
_LAST_LINES = 15


class KafkaInstallError(BrokerStateError):
    """Apache Kafka cannot be run here: Java, Maven or another program is missing. The message says
    which, and how to get it.
    """

    __module__ = "kafka_ext.testing"


@dataclass(frozen=True)
class Installation:
    """An Apache Kafka that can be run: `java` and the jars it wants, in a folder with its logging
    settings.
    """

    java: str
    folder: Path
    version: str

    def command(self, options: Sequence[str], main: str, *arguments: str) -> list[str]:
        """`main` of Kafka's, run with `arguments`."""
        return [
            self.java,
            *options,
            f"-Dlog4j2.configurationFile={self.folder / 'log4j2.properties'}",
            "-cp",
            str(self.folder / "*"),
            main,
            *arguments,
        ]


def how_to_install(what: str, debian: str, others: str) -> str:
    """`what` is missing, and what to do about it."""
    return f"{what}. On Debian and Ubuntu: apt-get install {debian}; elsewhere: {others}"


def cache_folder() -> Path:
    """Where downloads stay: `KAFKA_EXT_CACHE`, or `kafka_ext` in the user's cache folder."""
    given = os.environ.get("KAFKA_EXT_CACHE")
    if given:
        return Path(given)
    return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache", "kafka_ext")


def find_java() -> str:
    """A Java that runs Kafka's brokers: that of JAVA_HOME, or the one on the PATH.

    Raises:
        KafkaInstallError: there is none, or it is too old.
    """
    home = os.environ.get("JAVA_HOME")
    java = str(Path(home, "bin", "java")) if home else shutil.which("java")
    advice = (
        f"openjdk-{_JAVA}-jre-headless (or default-jre-headless)",
        f"a Java runtime {_JAVA} or newer on the PATH, or named by JAVA_HOME",
    )
    if java is None:
        raise KafkaInstallError(
            how_to_install("Java is missing, which Apache Kafka runs on", *advice)
        )
    try:
        answer = subprocess.run(
            [java, "-version"], capture_output=True, text=True, timeout=60, check=True
        ).stderr
    except (OSError, subprocess.SubprocessError) as error:
        raise KafkaInstallError(how_to_install(f"Java does not run ({error})", *advice)) from None
    found = re.search(r'version "(?:1\.)?(\d+)', answer)
    if found is not None and int(found[1]) < _JAVA:
        raise KafkaInstallError(
            how_to_install(f"{java} is Java {found[1]}, and Apache Kafka needs {_JAVA}", *advice)
        )
    return java


def installation(version: str = KAFKA_VERSION) -> Installation:
    """Apache Kafka of this version, its jars got from Maven Central if they are not in the cache.

    Raises:
        KafkaInstallError: Java is missing, or Maven is and the jars are not in the cache, or they
            cannot be had.
    """
    if not re.fullmatch(r"\d+\.\d+\.\d+", version):
        raise ValueError(
            f"version must be one of Apache Kafka's, as in {KAFKA_VERSION!r}, not {version!r}"
        )
    java = find_java()
    pom = _POM.format(version=version)
    # What is asked for is in the name, so that another pom of a later release of ours does not find
    # this one's jars.
    mark = hashlib.sha256((pom + _LOGGING).encode()).hexdigest()[:8]
    folder = cache_folder() / f"kafka-{version}-{mark}"
    if not folder.is_dir():
        with locked(folder):
            if not folder.is_dir():
                _download(pom, folder, version)
    return Installation(java, folder, version)


@contextmanager
def locked(folder: Path) -> Iterator[None]:
    """Only one process at a time makes `folder`."""
    folder.parent.mkdir(parents=True, exist_ok=True)
    with open(folder.with_name(folder.name + ".lock"), "w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        yield


def _download(pom: str, folder: Path, version: str) -> None:
    maven = shutil.which("mvn")
    if maven is None:
        raise KafkaInstallError(
            how_to_install(
                f"Maven is missing, which gets Apache Kafka {version} (once; it is kept in"
                f" {folder.parent})",
                "maven",
                "Apache Maven 3.6 or newer, `mvn` on the PATH",
            )
        )
    # In the same file system, so that a finished folder appears at once, and never a part of one.
    with tempfile.TemporaryDirectory(dir=folder.parent) as made:
        Path(made, "pom.xml").write_text(pom)
        jars = Path(made, "jars")
        run_tool(
            [
                maven,
                "-B",
                "-q",
                "dependency:copy-dependencies",
                "-DincludeScope=runtime",
                f"-DoutputDirectory={jars}",
            ],
            f"Maven could not get Apache Kafka {version}",
            cwd=made,
            timeout=_MAVEN_TIMEOUT,
        )
        (jars / "log4j2.properties").write_text(_LOGGING)
        jars.rename(folder)


def run_tool(command: Sequence[str], failure: str, *, cwd: str | Path, timeout: float) -> None:
    """Run a program to its end; KafkaInstallError with its last words when that is not
    a good one.
    """
    try:
        done = subprocess.run(
            command,
            cwd=cwd,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            timeout=timeout,
        )
    except subprocess.TimeoutExpired:
        raise KafkaInstallError(f"{failure}: not done in {timeout:g} s") from None
    if done.returncode:
        words = "\n".join(done.stdout.decode(errors="replace").strip().splitlines()[-_LAST_LINES:])
        raise KafkaInstallError(f"{failure}:\n{words}")


def main(arguments: Sequence[str]) -> None:
    """`python -m kafka_ext.testing.cluster_artifacts [VERSION]`: get what a cluster needs, or say
    what is missing.
    """
    try:
        kafka = installation(*arguments[:1])
    except KafkaInstallError as error:
        sys.exit(f"[kafka] error: {error.error.message}")
    print(f"[kafka] Apache Kafka {kafka.version} is in {kafka.folder}")


if __name__ == "__main__":
    main(sys.argv[1:])
