"""Feast's Python feature server, in an environment of its own under .stack: its requirements and ours do not agree."""

from __future__ import annotations

import os
import subprocess
from collections.abc import Sequence
from pathlib import Path

from bench.contestants import PeerMissing
from stack.environment import python_of
from stack.errors import StackError

__all__ = ["FIELDS", "install", "prepare", "serve_command"]

_PEERS = Path(__file__).parent / "peers"
_HOME = Path(__file__).resolve().parent.parent / ".stack" / "feast"
FIELDS = (
    *("last_seen", "orders_1h", "spend_1h", "orders_24h", "spend_24h", "last_order_at", "last_session"),
    *("alerts", "last_alert_type", "last_alert_at"),
)


def install() -> Path:
    """The Python of Feast's environment, which is made anew when its requirements changed: a minute, 1.5 GB.

    Raises:
      PeerMissing: it cannot be installed.
    """
    try:
        return python_of(_HOME, _PEERS / "feast.txt")
    except StackError as e:
        raise PeerMissing(f"{e}; leave it out with --without_feast") from e


def prepare(python: Path, folder: Path, redis: str, rows: Sequence[bytes]) -> None:
    """A feature repository in the folder, and the rows (JSON objects) in the online store, host:port,db=n."""
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "rows.jsonl").write_bytes(b"\n".join(rows))
    command = [python, _PEERS / "feast_repo.py", folder, redis, folder / "rows.jsonl"]
    with (folder / "prepare.log").open("wb") as log:
        if subprocess.run(command, stdout=log, stderr=log, env=_environment(), check=False).returncode:
            raise PeerMissing(f"Feast's online store cannot be filled (log: {folder / 'prepare.log'})")


def serve_command(python: Path, folder: Path, port: int, workers: int) -> list[str]:
    feast = python.parent / "feast"
    flags = ["--host", "127.0.0.1", "--port", str(port), "--workers", str(workers), "--no-access-log"]
    return [str(feast), "-c", str(folder), "serve", *flags]


def _environment() -> dict[str, str]:
    return {**os.environ, "FEAST_USAGE": "False"}
