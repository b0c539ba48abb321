"""The Java that the services run on."""

import functools
import os
import re
import shutil
import subprocess
from pathlib import Path

from stack.errors import StackError

__all__ = ["ADD_OPENS", "OLDEST_JAVA", "java", "jvm"]

OLDEST_JAVA = 17
_REMEDY = f"install a JDK {OLDEST_JAVA} or newer and put java on the PATH, or set JAVA_HOME"
_PACKAGES = ("util", "lang", "time", "io", "nio", "util.concurrent", "lang.invoke", "math", "net", "text")

ADD_OPENS = [f"--add-opens=java.base/java.{package}=ALL-UNNAMED" for package in _PACKAGES]
"""Without these Beam jobs fail or hang in Kryo on Java 17."""


def java() -> str:
    """The java command, JAVA_HOME's before the PATH's (as Beam does).

    Raises:
        StackError: there is none, or it is too old.
    """
    home = os.environ.get("JAVA_HOME")
    command = shutil.which("java", path=str(Path(home) / "bin")) if home else shutil.which("java")
    if not command:
        raise StackError(f"Java not found{f' in JAVA_HOME={home}' if home else ''}: {_REMEDY}")
    version = _version(command)
    if version is None:
        raise StackError(f"{command} does not run: {_REMEDY}")
    if version < OLDEST_JAVA:
        raise StackError(f"{command} is Java {version}: {_REMEDY}")
    return command


def jvm(heap: str, *, quick_start: bool = True) -> list[str]:
    """A java command line up to its class path.

    Args:
        heap: as in -Xmx.
        quick_start: compile little and collect serially: up sooner and smaller, but slower under steady load.
    """
    tuning = ["-XX:+UseSerialGC", "-XX:TieredStopAtLevel=1"] if quick_start else ["-XX:+UseParallelGC"]
    return [java(), f"-Xmx{heap}", *tuning, "-XX:-UsePerfData", "-Djava.awt.headless=true"]


@functools.cache
def _version(command: str) -> int | None:
    """The major version; None when the command fails, like macOS's placeholder for a Java that is not installed."""
    try:
        shown = subprocess.run([command, "-version"], capture_output=True, text=True, timeout=30)
    except (OSError, subprocess.TimeoutExpired):
        return None
    match = re.search(r'version "(?:1\.)?(\d+)', shown.stderr + shown.stdout)
    return int(match.group(1)) if match and shown.returncode == 0 else None
