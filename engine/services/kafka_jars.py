"""Java, and the jars of Apache Kafka, which Maven fetches once per version."""

from __future__ import annotations

import contextlib
import fcntl
import os
import re
import shutil
import subprocess
import tempfile
from collections.abc import Iterator
from functools import lru_cache
from pathlib import Path

from engine.services.errors import ServiceError

JAVA_VERSION_MIN = 17
MAVEN_ATTEMPTS = 3
MAVEN_SECONDS = 300.0
OWN_ADDRESS = "or give the address of your own Kafka (--kafka)"

POM = """\
<project xmlns="http://maven.apache.org/POM/4.0.0">
  <modelVersion>4.0.0</modelVersion>
  <groupId>local</groupId><artifactId>kafka</artifactId><version>1</version><packaging>pom</packaging>
  <dependencies>
    <dependency>
      <groupId>org.apache.kafka</groupId><artifactId>kafka_2.13</artifactId><version>{version}</version>
    </dependency>
    <dependency>
      <groupId>org.slf4j</groupId><artifactId>slf4j-simple</artifactId><version>1.7.36</version>
    </dependency>
  </dependencies>
</project>
"""


@lru_cache(maxsize=1)
def java() -> str:
    """The path of a Java of 17 or newer. Raises ServiceError."""
    home = os.environ.get("JAVA_HOME")
    found = (shutil.which("java", path=f"{home}/bin") if home else None) or shutil.which("java")
    if found is None:
        raise ServiceError(
            f"Apache Kafka needs Java {JAVA_VERSION_MIN} or newer, and there is no java on the PATH. "
            f"Install a JDK (Debian: apt install openjdk-17-jdk-headless), {OWN_ADDRESS}."
        )
    said = subprocess.run([found, "-version"], capture_output=True, text=True, check=False).stderr
    version = re.search(r'version "(\d+)', said)
    if version is None or int(version[1]) < JAVA_VERSION_MIN:
        raise ServiceError(
            f"Apache Kafka needs Java {JAVA_VERSION_MIN} or newer, and {found} says: "
            f"{(said.splitlines() or ['nothing'])[0]}. Set JAVA_HOME to a newer one, {OWN_ADDRESS}."
        )
    return found


def java_tool(name: str) -> str:
    """The path of a tool of the JDK, such as keytool. Raises ServiceError."""
    beside = Path(java()).resolve().with_name(name)
    found = str(beside) if beside.exists() else shutil.which(name)
    if found is None:
        raise ServiceError(f"There is no {name} beside {java()}. Install a JDK, not only parts of it.")
    return found


def class_path(version: str) -> str:
    """The class path of this version of Kafka, from Maven's repository; fetched the first time.

    Raises ServiceError where neither an earlier answer nor Maven is there, or Maven fails every time.
    """
    remembered = _cache_folder() / f"kafka-{version}.classpath"
    with _alone(remembered.parent):
        jars = _recall(remembered)
        if not jars:
            jars = _ask_maven(version)
            scratch = remembered.with_suffix(f".{os.getpid()}")
            scratch.write_text(jars)
            scratch.replace(remembered)
    return jars


def _recall(remembered: Path) -> str:
    """What Maven answered before, as long as all of it is still there."""
    try:
        jars = remembered.read_text().strip()
    except OSError:
        return ""
    return jars if all(Path(jar).exists() for jar in jars.split(os.pathsep)) else ""


@contextlib.contextmanager
def _alone(folder: Path) -> Iterator[None]:
    """One process at a time: Maven's repository is not made for several that fetch the same."""
    try:
        folder.mkdir(parents=True, exist_ok=True)
        lock = (folder / "lock").open("w")
    except OSError as error:
        raise ServiceError(
            f"The class path of Kafka cannot be kept in {folder}: {error}. "
            "Set XDG_CACHE_HOME to a folder of your own."
        ) from error
    with lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        yield


def _cache_folder() -> Path:
    base = os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache"
    return Path(base) / "pointsman"


def _ask_maven(version: str) -> str:
    maven = shutil.which("mvn")
    if maven is None:
        raise ServiceError(
            f"Apache Kafka {version} is fetched by Maven the first time, and there is no mvn on the PATH. "
            f"Install it (Debian: apt install maven), {OWN_ADDRESS}."
        )
    said = ""
    for _ in range(MAVEN_ATTEMPTS):
        with tempfile.TemporaryDirectory(prefix="pointsman-maven-") as scratch:
            answer = Path(scratch, "classpath")
            Path(scratch, "pom.xml").write_text(POM.format(version=version))
            try:
                done = subprocess.run(
                    [maven, "-q", "-B", "dependency:build-classpath", f"-Dmdep.outputFile={answer}"],
                    cwd=scratch,
                    capture_output=True,
                    text=True,
                    timeout=MAVEN_SECONDS,
                    check=False,
                )
            except subprocess.TimeoutExpired:
                said = f"no answer within {MAVEN_SECONDS:.0f} s"
                continue
            if done.returncode == 0 and answer.exists():
                return answer.read_text().strip()
            said = "\n".join((done.stdout + done.stderr).strip().splitlines()[:5])
    raise ServiceError(
        f"Maven could not fetch Apache Kafka {version}, tried {MAVEN_ATTEMPTS} times. It said:\n{said}\n"
        f"Look at the network and at Maven's settings, {OWN_ADDRESS}."
    )
