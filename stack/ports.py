"""Finds free ports, and who uses a port that is not free."""

import contextlib
import fcntl
import os
import re
import shutil
import socket
import subprocess
import tempfile
from pathlib import Path

__all__ = ["HOST", "answers", "holder", "is_free", "pick_free"]

HOST = "127.0.0.1"
_PICKED = range(20_000, 32_000)
"""Below the range that systems use for outgoing connections, which could take a port before its server does."""


def is_free(port: int) -> bool:
    if answers(port):  # macOS lets one bind beside a listener on 0.0.0.0
        return False
    with socket.socket() as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind((HOST, port))
        except OSError:
            return False
    return True


def answers(port: int) -> bool:
    with contextlib.suppress(OSError), socket.create_connection((HOST, port), timeout=0.5):
        return True
    return False


def pick_free() -> int:
    """A free port. All processes of a user take turns: none gets it again before 12,000 others were picked, as between
    the picking and a server's start lie seconds."""
    turn = Path(tempfile.gettempdir(), f"streamforge-ports-{os.getuid()}")
    with turn.open("a+") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        file.seek(0)
        last = file.read()
        at = int(last) - _PICKED.start + 1 if last.isdecimal() else 0
        port = next(port for n in range(len(_PICKED)) if is_free(port := _PICKED[(at + n) % len(_PICKED)]))
        file.truncate(0)
        file.write(str(port))
    return port


def holder(port: int) -> str:
    """' (pid 123, java)' for the process that listens on the port, '' if that cannot be seen."""
    pid = _pid_from_proc(port) or _pid_from_lsof(port)
    if not pid:
        return ""
    with contextlib.suppress(OSError):
        return f" (pid {pid}, {Path(f'/proc/{pid}/comm').read_text().strip()})"
    return f" (pid {pid})"


def _pid_from_proc(port: int) -> str | None:
    sockets = set()
    for table in ("/proc/net/tcp", "/proc/net/tcp6"):
        with contextlib.suppress(OSError):
            for row in Path(table).read_text().splitlines()[1:]:
                columns = row.split()
                if columns[3] == "0A" and int(columns[1].rpartition(":")[2], 16) == port:  # 0A: listening
                    sockets.add(f"socket:[{columns[9]}]")
    if sockets:
        for link in Path("/proc").glob("[0-9]*/fd/*"):
            with contextlib.suppress(OSError):
                if str(link.readlink()) in sockets:
                    return link.parts[2]
    return None


def _pid_from_lsof(port: int) -> str | None:
    if not shutil.which("lsof"):
        return None
    found = subprocess.run(["lsof", "-nP", "-t", f"-iTCP:{port}", "-sTCP:LISTEN"], capture_output=True, text=True)
    match = re.match(r"\d+", found.stdout)
    return match.group() if match else None
