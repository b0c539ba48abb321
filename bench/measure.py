"""Runs a command and measures it from outside, the same way for every contestant: wall time, CPU and memory of its
whole process tree."""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

__all__ = ["CommandFailed", "Result", "Usage", "measure"]

_SAMPLE_S = 0.25
_PROC = Path("/proc")
_CHECKOUT = Path(__file__).resolve().parent.parent


class CommandFailed(Exception):
    """The command ended with an error, or not in time; the message is one line."""


@dataclass(frozen=True)
class Usage:
    """What a command took.

    Attributes:
      seconds: from its start to its end.
      cpu_seconds: of all its processes.
      peak_mb: largest sum of the memory of its processes that were alive together, sampled; pages that several share
        count once (PSS), as forked workers share most of theirs.
      output: what it wrote to standard output.
    """

    seconds: float
    cpu_seconds: float
    peak_mb: float
    output: str


@dataclass(frozen=True)
class Result:
    """A contestant's run.

    Attributes:
      read_seconds: from the first record read to the last result, where the contestant can tell.
      alerts: sorted, distinct, each `RULE user order`.
    """

    name: str
    workload: str
    events: int
    seconds: float
    read_seconds: float | None
    cpu_seconds: float
    peak_mb: float
    alerts: tuple[str, ...]


def measure(
    command: Sequence[str],
    log: Path,
    *,
    timeout_s: float,
    working: Callable[[float], None] = lambda _: None,
) -> Usage:
    """Runs a command to its end, in the checkout's folder, so that `python -m` finds it.

    Args:
      log: receives its standard error.
      timeout_s: it is killed then.
      working: called with the elapsed seconds now and then.

    Raises:
      CommandFailed.
    """
    started = time.monotonic()
    output = log.with_suffix(".out")
    with log.open("wb") as errors, output.open("wb") as out:
        process = subprocess.Popen(
            command,
            stdin=subprocess.DEVNULL,
            stdout=out,
            stderr=errors,
            cwd=_CHECKOUT,
            start_new_session=True,
        )
    tree = _Tree(process.pid)
    try:
        while (usage := tree.ended(process)) is None:
            tree.sample()
            elapsed = time.monotonic() - started
            if elapsed > timeout_s:
                raise CommandFailed(f"not done after {timeout_s:.0f} s (log: {log})")
            working(elapsed)
            time.sleep(_SAMPLE_S)
        seconds = time.monotonic() - started
    finally:
        tree.kill(process)
    if process.returncode != 0:
        raise CommandFailed(f"exit status {process.returncode}: {_last_line(log)} (log: {log})")
    return Usage(seconds, max(usage, tree.cpu_seconds), tree.peak_mb, output.read_text(encoding="utf-8"))


class _Tree:
    """A process and all that descend from it, also those whose parent is gone."""

    def __init__(self, root: int):
        self._root = root
        self._members: dict[int, int] = {}  # pid → its start time, which tells it from a later process of that number
        self._cpu: dict[tuple[int, int], float] = {}
        self.peak_mb = 0.0

    @property
    def cpu_seconds(self) -> float:
        return sum(self._cpu.values())

    def sample(self) -> None:
        ticks = os.sysconf("SC_CLK_TCK")
        used_kb = 0
        for pid, (started, cpu_ticks) in self._alive().items():
            self._members[pid] = started
            self._cpu[pid, started] = cpu_ticks / ticks
            used_kb += _pss_kb(pid)
        self.peak_mb = max(self.peak_mb, used_kb / 1024)

    def ended(self, process: subprocess.Popen[bytes]) -> float | None:
        """CPU seconds of the process and of the children it waited for, once it has ended.

        They are exact, where samples miss a process's last moments; samples know children that nobody waited for.
        """
        pid, status, usage = os.wait4(process.pid, os.WNOHANG)
        if pid == 0:
            return None
        process.returncode = os.waitstatus_to_exitcode(status)
        return usage.ru_utime + usage.ru_stime

    def kill(self, process: subprocess.Popen[bytes]) -> None:
        """Ends what is left of the tree."""
        left = set(self._alive()) if _PROC.is_dir() else set()
        if process.returncode is None:
            left.add(process.pid)
        for pid in left:
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)
        if process.returncode is None:
            process.wait()

    def _alive(self) -> dict[int, tuple[int, int]]:
        """pid → (start time, CPU ticks) of the members alive now."""
        found: dict[int, tuple[int, int]] = {}
        parents: dict[int, int] = {}
        for folder in _PROC.glob("[0-9]*"):
            with contextlib.suppress(OSError):
                fields = (folder / "stat").read_text().rpartition(")")[2].split()
                pid = int(folder.name)
                parents[pid] = int(fields[1])
                found[pid] = (int(fields[19]), int(fields[11]) + int(fields[12]))
        members = {pid for pid, seen in found.items() if self._members.get(pid) == seen[0] or pid == self._root}
        grown = True
        while grown:
            children = {pid for pid, parent in parents.items() if parent in members} - members
            members |= children
            grown = bool(children)
        return {pid: found[pid] for pid in members}


def _pss_kb(pid: int) -> int:
    with contextlib.suppress(OSError):
        for line in (_PROC / str(pid) / "smaps_rollup").read_text().splitlines():
            if line.startswith("Pss:"):
                return int(line.split()[1])
    return 0


def _last_line(log: Path) -> str:
    lines = [line for line in log.read_text(errors="replace").splitlines() if line.strip()]
    return lines[-1].strip()[:200] if lines else "it said nothing"
