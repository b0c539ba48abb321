"""Child processes that are stopped, with their descendants, when their parent ends."""

import contextlib
import os
import signal
import sys
import time
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path

from stack.errors import StackError
from stack.process import Process

__all__ = ["Children", "memory_bytes"]

_ROOT = Path(__file__).parent.parent
_GRACE_S = {signal.SIGINT: 15.0, signal.SIGTERM: 5.0, signal.SIGKILL: 5.0}


class Children:
    """Python modules as processes, each a process group with all that it starts.

    Args:
        home: has their pid files, and their logs in `logs`.
    """

    def __init__(self, home: Path, names: Iterable[str]):
        self.names = tuple(names)
        self._home = home
        self._processes = {name: Process(home / f"{name}.pid") for name in self.names}
        self._groups: dict[str, int] = {}

    def start(self, name: str, module: str, flags: Sequence[str]) -> None:
        self.log(name).unlink(missing_ok=True)
        command = [sys.executable, "-m", module, *flags]
        self._processes[name].start(command, {"PYTHONUNBUFFERED": "1"}, _ROOT, self.log(name))
        self._groups[name] = self._processes[name].pid() or 0

    def log(self, name: str) -> Path:
        return self._home / "logs" / f"{name}.log"

    def pid(self, name: str) -> int | None:
        """That of the process, which is also that of its group; None when it is gone."""
        return self._processes[name].pid()

    def require(self, *names: str) -> None:
        """Raises: StackError, when one of them is gone."""
        for name in names:
            if not self.pid(name):
                lines = [line for line in self.log(name).read_text(errors="replace").splitlines() if line.strip()]
                reason = lines[-1].strip()[:300] if lines else "it said nothing"
                raise StackError(f"{name} ended unexpectedly: {reason} (log: {self.log(name)})")

    def stop(self, *names: str) -> None:
        """Ends them (default: all) and everything they started: asks first, then insists."""
        groups = {group for name in names or self.names if (group := self._group(name))}
        for number, grace_s in _GRACE_S.items():
            for group in groups:
                with contextlib.suppress(ProcessLookupError, PermissionError):
                    os.killpg(group, number)
            deadline = time.monotonic() + grace_s
            while groups and time.monotonic() < deadline:
                time.sleep(0.05)
                groups = {group for group in groups if _lives(group)}

    def _group(self, name: str) -> int:
        return self._groups.pop(name, 0) or self.pid(name) or 0


def memory_bytes(group: int, command: str | None = None) -> int:
    """Memory of a process group: what its processes have for themselves, and their part of what they share (PSS).

    Zero where the system does not say (/proc is Linux's).

    Args:
        command: of its processes only those of that name.
    """
    total = 0
    for pid, member_of, name in _processes_by_name():
        if member_of == group and command in (None, name):
            with contextlib.suppress(OSError, StopIteration):
                lines = Path(f"/proc/{pid}/smaps_rollup").read_text().splitlines()
                total += 1024 * int(next(line for line in lines if line.startswith("Pss:")).split()[1])
    return total


def _lives(group: int) -> bool:
    """Whether a process of the group runs; one that nobody has waited for yet does not."""
    with contextlib.suppress(ChildProcessError):
        os.waitpid(-group, os.WNOHANG)
    try:
        os.killpg(group, 0)
    except (ProcessLookupError, PermissionError):
        return False
    processes = _processes()
    return not processes or any(member_of == group and state not in "ZX" for _, member_of, state in processes)


def _processes_by_name() -> Iterator[tuple[int, int, str]]:
    for pid, group, _ in _processes():
        with contextlib.suppress(OSError):
            yield pid, group, Path(f"/proc/{pid}/comm").read_text().strip()


def _processes() -> list[tuple[int, int, str]]:
    """Pid, group and state of all; empty where there is no /proc."""
    found = []
    for path in Path("/proc").glob("[0-9]*/stat"):
        with contextlib.suppress(OSError):
            state, _, group, *_ = path.read_text().rpartition(")")[2].split()
            found.append((int(path.parent.name), int(group), state))
    return found
