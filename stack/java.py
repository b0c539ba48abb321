"""Finds the Java that the services run on. `python -m stack.java` prints it, or one line that says what to install."""

import functools
import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

from stack.errors import StackError

__all__ = ["ADD_OPENS", "INSTALLED", "NEWEST_JAVA", "OLDEST_JAVA", "java", "java_home", "java_version", "jvm"]

OLDEST_JAVA, NEWEST_JAVA = 17, 25

INSTALLED = (
    "/usr/lib/jvm/*/bin/java",
    "/Library/Java/JavaVirtualMachines/*/Contents/Home/bin/java",
    "/opt/homebrew/opt/*/bin/java",
    "/usr/local/opt/*/bin/java",
)
"""Where Debian, Fedora, macOS and Homebrew install what need not be on the PATH."""

_PACKAGES = ("util", "lang", "time", "io", "nio", "util.concurrent", "lang.invoke", "math", "net", "text")

ADD_OPENS = [f"--add-opens=java.base/java.{package}=ALL-UNNAMED" for package in _PACKAGES]
"""Without these Beam jobs fail or hang in Kryo, on every Java since 16."""


def java() -> str:
    """The java command: JAVA_HOME's if that is set (as Beam does), else the first that fits, the PATH's first.

    Raises:
        StackError: none fits; the line says what to install, where it was looked for, and what was found.
    """
    home, refused = os.environ.get("JAVA_HOME"), []
    for command in [Path(home) / "bin" / "java"] if home else _commands():
        shown = _shown(str(command)) if command.exists() else ""
        version = _version(shown)
        if version and OLDEST_JAVA <= version <= NEWEST_JAVA:
            return str(command)
        if command.exists():
            refused.append(f"{command} {f'is Java {version}' if version else 'does not run'}")
    where = [f"in JAVA_HOME={home}"] if home else ["on the PATH", *(f"in {glob.split('/*')[0]}" for glob in INSTALLED)]
    raise StackError(
        f"Java {OLDEST_JAVA} to {NEWEST_JAVA} not found: install one (Debian 13: openjdk-21-jdk-headless, "
        "Fedora: java-21-openjdk-devel, Homebrew: openjdk@21) or set JAVA_HOME; looked " + "; ".join([*where, *refused])
    )


def java_home() -> str:
    """What JAVA_HOME has to be for programs that look for Java themselves: Maven, Spark, Beam's job server."""
    command = java()
    home = re.search(r"java\.home = (.+)", _shown(command))  # the command may be a shim
    return home[1].strip() if home else str(Path(command).resolve().parent.parent)


def java_version() -> int:
    """The major version of `java()`."""
    return _version(_shown(java())) or OLDEST_JAVA


def jvm(heap: str, *, quick_start: bool = True) -> list[str]:
    """A java command line up to its class path.

    Args:
        heap: as in -Xmx.
        quick_start: compile little and collect serially: up sooner and smaller, but slower under steady load.
    """
    tuning = ["-XX:+UseSerialGC", "-XX:TieredStopAtLevel=1"] if quick_start else ["-XX:+UseParallelGC"]
    return [java(), f"-Xmx{heap}", *tuning, "-XX:-UsePerfData", "-Djava.awt.headless=true"]


def _commands() -> list[Path]:
    on_path = shutil.which("java")
    installed = [path for glob in INSTALLED for path in sorted(Path("/").glob(glob[1:]))]
    return [Path(on_path), *installed] if on_path else installed


def _version(shown: str) -> int | None:
    match = re.search(r'version "(?:1\.)?(\d+)', shown)
    return int(match[1]) if match else None


@functools.cache
def _shown(command: str) -> str:
    """Version and home; empty when the command fails, like macOS's placeholder for a Java that is not installed."""
    try:
        done = subprocess.run(
            [command, "-XshowSettings:properties", "-version"], capture_output=True, text=True, timeout=30
        )
    except (OSError, subprocess.TimeoutExpired):
        return ""
    return done.stderr + done.stdout if done.returncode == 0 else ""


if __name__ == "__main__":
    try:
        print(java())
    except StackError as error:
        sys.exit(str(error))
