"""Finds free ports, and who uses a port that is not free."""

import contextlib
import random
import re
import shutil
import socket
import subprocess
from pathlib import Path

__all__ = ["HOST", "answers", "holder", "is_free", "pick_free"]

HOST = "127.0.0.1"


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


def pick_free(taken: set[int]) -> int:
    """A free port below the range that systems use for outgoing connections, which could take it before we do."""
    while True:
        port = random.randrange(20000, 32000)
        if port not in taken and is_free(port):
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
