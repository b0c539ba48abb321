"""Background processes that outlive their starter and are found again reliably by their pid file."""

import contextlib
import fcntl
import os
import signal
import subprocess
import time
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path

__all__ = ["Process", "exclusive"]

# The process writes its own pid before it becomes the service: a starter killed in between leaves nothing unknown.
_LAUNCH = 'echo $$ > "$0"; exec "$@"'


class Process:
    """One background process and its pid file.

    The process inherits an exclusive lock on the pid file and holds it, with its own children, until the last of them
    is gone. So "is it running" is "is the file locked", and a number reused by a stranger is never taken for ours.
    """

    def __init__(self, pid_file: Path) -> None:
        self._pid_file = pid_file
        self._child: subprocess.Popen[bytes] | None = None

    def start(self, command: Sequence[str], environment: Mapping[str, str], folder: Path, log: Path) -> bool:
        """Starts the command in a session of its own; False if it runs already (perhaps started by someone else)."""
        self._pid_file.parent.mkdir(parents=True, exist_ok=True)
        handle = os.open(self._pid_file, os.O_RDWR | os.O_CREAT, 0o644)
        try:
            if not _lock(handle, patience_s=0.5):
                return False
            os.ftruncate(handle, 0)
            with log.open("ab") as output:
                self._child = subprocess.Popen(
                    ["/bin/sh", "-c", _LAUNCH, str(self._pid_file.absolute()), *command],
                    stdin=subprocess.DEVNULL,
                    stdout=output,
                    stderr=output,
                    cwd=folder,
                    env={**os.environ, **environment},
                    pass_fds=(handle,),
                    start_new_session=True,
                )
        finally:
            os.close(handle)
        return True

    def pid(self) -> int | None:
        """The running process's pid; None when there is none."""
        if self._child:
            self._child.poll()
        deadline = time.monotonic() + 1
        while self._locked():
            with contextlib.suppress(OSError, ValueError):
                return int(self._pid_file.read_text())
            if time.monotonic() > deadline:
                return None
            time.sleep(0.01)
        return None

    def signal(self, number: int) -> None:
        """Signals the process and its children; does nothing when it is not running."""
        pid = self.pid()
        if pid:
            # PermissionError is macOS's answer for a group of which only a zombie is left.
            with contextlib.suppress(ProcessLookupError, PermissionError):
                os.killpg(pid, number)

    def wait(self, timeout_s: float) -> bool:
        """True once the process is gone, False if it still runs after the timeout."""
        deadline = time.monotonic() + timeout_s
        while self._locked():
            if time.monotonic() > deadline:
                return False
            time.sleep(0.02)
        if self._child:
            self._child.wait()
        return True

    def kill(self) -> None:
        self.signal(signal.SIGKILL)
        self.wait(10)

    def _locked(self) -> bool:
        try:
            handle = os.open(self._pid_file, os.O_RDONLY)
        except FileNotFoundError:
            return False
        try:
            # Shared, so that two who look at once do not take each other for the process.
            fcntl.flock(handle, fcntl.LOCK_SH | fcntl.LOCK_NB)
        except BlockingIOError:
            return True
        finally:
            os.close(handle)
        return False


@contextlib.contextmanager
def exclusive(path: Path) -> Iterator[None]:
    """Holds a lock on the file: one process at a time, freed by the kernel when its holder dies."""
    path.parent.mkdir(parents=True, exist_ok=True)
    handle = os.open(path, os.O_RDWR | os.O_CREAT, 0o644)
    try:
        fcntl.flock(handle, fcntl.LOCK_EX)
        yield
    finally:
        os.close(handle)


def _lock(handle: int, patience_s: float) -> bool:
    deadline = time.monotonic() + patience_s
    while True:
        try:
            fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            if time.monotonic() > deadline:
                return False
            time.sleep(0.02)
        else:
            return True
