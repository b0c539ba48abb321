"""The peers as commands."""

from __future__ import annotations

import hashlib
import importlib.util
import json
import shutil
import sys
from collections.abc import Callable
from pathlib import Path

from bench.measure import CommandFailed, Result, measure
from stack.artefacts import cached
from stack.artefacts import run as run_logged
from stack.console import SILENT, Console
from stack.java import java

__all__ = ["PEERS", "PeerMissing", "flink_jar", "prepare", "run"]

PEERS = ("plain-python", "bytewax", "flink-java")
_FLINK_HEAP = "1g"
_FLINK_PROJECT = Path(__file__).parent / "peers" / "flink"


class PeerMissing(Exception):
    """A peer cannot run on this machine; the message says what to install."""


def prepare(peer: str, console: Console = SILENT) -> None:
    """Builds what a peer runs from, so that building is not measured.

    Raises:
      PeerMissing, StackError.
    """
    if peer == "bytewax" and importlib.util.find_spec("bytewax") is None:
        raise PeerMissing("bytewax is not installed: pip install -e '.[bench]'")
    if peer == "flink-java":
        flink_jar(console)


def flink_jar(console: Console = SILENT) -> Path:
    """The Java peer's jar; built by Maven when its project has changed."""
    sources = [_FLINK_PROJECT / "pom.xml", *sorted(p for p in (_FLINK_PROJECT / "src").rglob("*") if p.is_file())]
    digest = hashlib.sha256()
    for path in sources:
        digest.update(f"{path.relative_to(_FLINK_PROJECT)}\0".encode() + path.read_bytes())

    def build(work: Path, log: Path) -> Path:
        java()
        if not shutil.which("mvn"):
            raise PeerMissing("Maven not found, and the Java peer is yet to be built: install Maven 3.6.3 or newer")
        project = work / "flink"
        shutil.copytree(_FLINK_PROJECT, project, ignore=shutil.ignore_patterns("target"))
        run_logged("flink-peer", ["mvn", "--batch-mode", "--file", str(project / "pom.xml"), "package"], log, console)
        return project / "target" / "dist"

    return cached("flink-peer", digest.hexdigest()[:12], build, console) / "flink-peer.jar"


def run(
    peer: str,
    workload: str,
    kafka: str,
    registry: str,
    topic: str,
    folder: Path,
    *,
    timeout_s: float = 600,
    working: Callable[[float], None] = lambda _: None,
) -> Result:
    """Drains the topic with a peer.

    Args:
      folder: empty; for its alerts, its log and its state.

    Raises:
      CommandFailed.
    """
    alerts = folder / "alerts.txt"
    flags = ["--kafka", kafka, "--registry", registry, "--topic", topic, "--workload", workload]
    command = [*_command(peer, folder), *flags, "--alerts", str(alerts)]
    usage = measure(command, folder / "log.txt", timeout_s=timeout_s, working=working)
    try:
        told = json.loads(usage.output.splitlines()[-1])
    except (IndexError, ValueError) as e:
        raise CommandFailed(f"{peer} printed no line of JSON (log: {folder / 'log.txt'})") from e
    return Result(
        name=peer,
        workload=workload,
        events=told["events"],
        seconds=usage.seconds,
        read_seconds=told["read_seconds"],
        cpu_seconds=usage.cpu_seconds,
        peak_mb=usage.peak_mb,
        alerts=tuple(alerts.read_text(encoding="utf-8").splitlines()),
    )


def _command(peer: str, folder: Path) -> list[str]:
    if peer == "plain-python":
        return [sys.executable, "-m", "bench.peers.plain_python"]
    if peer == "bytewax":
        return [sys.executable, "-m", "bench.peers.bytewax_flow"]
    if peer == "flink-java":
        return [java(), f"-Xmx{_FLINK_HEAP}", "-jar", str(flink_jar()), "--folder", str(folder)]
    raise ValueError(f"no peer is called {peer!r}; there are {', '.join(PEERS)}")
