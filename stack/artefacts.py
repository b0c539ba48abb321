"""The services' binaries: fetched or built once, in a cache shared by all stacks of a user."""

import hashlib
import os
import shutil
import subprocess
import tempfile
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

from stack.console import Console
from stack.errors import StackError
from stack.java import java_home
from stack.process import exclusive

__all__ = ["cache_folder", "cached", "maven", "run"]

_POMS = Path(__file__).parent / "maven"


def cache_folder() -> Path:
    return Path(os.environ.get("STREAMFORGE_CACHE") or Path.home() / ".cache" / "streamforge")


def maven(name: str, console: Console) -> Path:
    """The folder that stack/maven/NAME/pom.xml puts into its target/dist; built when that project changed."""
    source = _POMS / name
    key = _digest(source)

    def build(work: Path, log: Path) -> Path:
        # A copy, because the package's own folder may be read-only. The user's settings (mirrors, proxies) hold.
        shutil.copytree(source, work / name, ignore=shutil.ignore_patterns("target"))
        # --update-snapshots: also what a former try failed to get, which Maven else remembers for a day.
        options = ["--batch-mode", "--strict-checksums", "--update-snapshots", "--file", str(work / name / "pom.xml")]
        run(name, ["mvn", *options, "package"], log, console, {**os.environ, "JAVA_HOME": java_home()})
        return work / name / "target" / "dist"

    if not _home(name, key).is_dir():
        java_home()
        if not shutil.which("mvn"):
            raise StackError(f"Maven not found, and {name} is yet to be downloaded: install Maven 3.6.3 or newer")
    return cached(name, key, build, console)


def cached(name: str, key: str, make: Callable[[Path, Path], Path], console: Console) -> Path:
    """The cache's folder for this name and key, made if it is missing.

    It appears whole or not at all. One maker works at a time: Maven's local repository does not bear two.

    Args:
        make: called with an empty work folder and a log file; returns the folder to keep.
    """
    cache, home = cache_folder(), _home(name, key)
    if home.is_dir():
        return home
    with exclusive(cache / "lock"):
        if home.is_dir():
            return home
        for leftover in cache.glob(".work-*"):  # of a maker that was killed: it held the lock that we hold
            shutil.rmtree(leftover, ignore_errors=True)
        work = Path(tempfile.mkdtemp(prefix=".work-", dir=cache))
        log = cache / "logs" / f"{name}.log"
        log.parent.mkdir(exist_ok=True)
        started = time.monotonic()
        console.line(f"{name}: fetching (log: {log})")
        try:
            make(work, log).rename(home)
        finally:
            shutil.rmtree(work, ignore_errors=True)
        console.line(f"{name}: ready after {time.monotonic() - started:.0f} s")
    return home


def run(
    name: str, command: Sequence[str], log: Path, console: Console, environment: Mapping[str, str] | None = None
) -> None:
    """Runs a fetching command with its output in the log.

    Raises:
        StackError: it failed; the log's last line that tells of an error is quoted.
    """
    started = time.monotonic()
    with log.open("wb") as output:
        process = subprocess.Popen(
            command, stdin=subprocess.DEVNULL, stdout=output, stderr=subprocess.STDOUT, env=environment
        )
        try:
            while process.poll() is None:
                console.waiting(f"{name}: {time.monotonic() - started:.0f} s, {_downloads(log)} files downloaded")
                time.sleep(0.2)
        finally:
            process.kill()
            process.wait()
    if process.returncode:
        lines = log.read_text(errors="replace").splitlines()
        reason = next((line for line in lines if "ERROR" in line), lines[-1] if lines else "no output")
        raise StackError(f"{name} could not be fetched: {reason.strip()[:300]} (check the network; log: {log})")


def _home(name: str, key: str) -> Path:
    return cache_folder() / f"{name}-{key}"


def _downloads(log: Path) -> int:
    return log.read_bytes().count(b"Downloaded from")


def _digest(folder: Path) -> str:
    digest = hashlib.sha256()
    for path in sorted(path for path in folder.rglob("*") if path.is_file()):
        inside = path.relative_to(folder)
        if inside.parts[0] != "target":
            digest.update(f"{inside}\0".encode() + path.read_bytes() + b"\0")
    return digest.hexdigest()[:12]
