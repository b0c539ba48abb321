"""Replication slots: how far behind each is, and how much WAL the server keeps for it.

A slot that nobody reads keeps WAL until the disk is full; docs/runbook.md says what to do.
"""

from __future__ import annotations

import socket
import time
from collections.abc import Callable, Mapping, Sequence
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any, NamedTuple

import psycopg

from cdc.errors import CdcError

__all__ = ["Slot", "drop_slot", "exposition", "read_slots", "serve", "table"]

# A slot that was lost has no restart_lsn: nothing is kept for it any more.
_QUERY = """
SELECT slot_name,
       coalesce(database, ''),
       active,
       coalesce(wal_status, ''),
       coalesce(pg_wal_lsn_diff(pg_current_wal_lsn(), coalesce(confirmed_flush_lsn, restart_lsn)), 0)::bigint,
       coalesce(pg_wal_lsn_diff(pg_current_wal_lsn(), restart_lsn), 0)::bigint
FROM pg_replication_slots
WHERE NOT temporary
ORDER BY slot_name
"""


class Slot(NamedTuple):
    name: str
    database: str
    active: bool
    wal_status: str
    """reserved, extended, unreserved; lost: WAL it needs is gone, and it can never be read again."""
    lag_bytes: int
    """WAL written by the server but not confirmed by the reader."""
    retained_bytes: int
    """WAL that the server must keep for it; more than the lag, as it reaches back to the oldest open transaction."""

    def trouble(self, max_lag_bytes: int) -> str:
        """What an operator should know, in a few words; '' when all is well."""
        if self.wal_status == "lost":
            return "lost: drop it and take a new snapshot"
        if not self.active:
            return f"nobody reads it, and it retains {megabytes(self.retained_bytes)} of WAL"
        if self.lag_bytes > max_lag_bytes:
            return f"behind by more than {megabytes(max_lag_bytes)}"
        return ""


def read_slots(connection: psycopg.Connection[Any]) -> list[Slot]:
    """Raises: CdcError."""
    try:
        return [Slot(*row) for row in connection.execute(_QUERY)]
    except psycopg.Error as error:
        raise CdcError(" ".join(str(error).split())) from error


def drop_slot(connection: psycopg.Connection[Any], name: str, timeout_s: float = 10) -> None:
    """Drops it, if it is there; waits a moment for a reader that is just going. Raises: CdcError."""
    deadline = time.monotonic() + timeout_s
    while True:
        try:
            connection.execute(
                "SELECT pg_drop_replication_slot(slot_name) FROM pg_replication_slots WHERE slot_name = %s", [name]
            )
        except psycopg.errors.ObjectInUse as error:
            if time.monotonic() > deadline:
                raise CdcError(f"slot {name} is being read: stop its reader first") from error
            time.sleep(0.1)
        except psycopg.Error as error:
            raise CdcError(" ".join(str(error).split())) from error
        else:
            return


def table(slots: Sequence[Slot], max_lag_bytes: int) -> str:
    """For a person."""
    if not slots:
        return "no replication slots"
    lines = [f"{'slot':<20} {'database':<12} {'active':<7} {'lag':>10} {'kept WAL':>10}  status"]
    lines += [
        f"{s.name:<20} {s.database:<12} {'yes' if s.active else 'no':<7} {megabytes(s.lag_bytes):>10}"
        f" {megabytes(s.retained_bytes):>10}  {s.trouble(max_lag_bytes) or 'well'}"
        for s in slots
    ]
    return "\n".join(lines)


def exposition(slots: Sequence[Slot], identities: Mapping[str, bool]) -> str:
    """For Prometheus, in its text format.

    Args:
      identities: whether each table has REPLICA IDENTITY FULL.
    """
    metrics = (
        ("lag_bytes", "WAL written by the server and not confirmed by the slot's reader.", lambda s: s.lag_bytes),
        ("retained_bytes", "WAL that the server keeps for the slot.", lambda s: s.retained_bytes),
        ("active", "1 while somebody reads the slot.", lambda s: int(s.active)),
        ("lost", "1 when the slot can never be read again.", lambda s: int(s.wal_status == "lost")),
    )
    lines = []
    for name, text, value in metrics:
        metric = f"streamforge_replication_slot_{name}"
        lines += [f"# HELP {metric} {text}", f"# TYPE {metric} gauge"]
        lines += [f'{metric}{{slot="{s.name}",database="{_escape(s.database)}"}} {value(s)}' for s in slots]
    metric = "streamforge_replica_identity_full"
    lines += [f"# HELP {metric} 1 when changes of the table carry the whole old row.", f"# TYPE {metric} gauge"]
    lines += [f'{metric}{{table="{table}"}} {int(full)}' for table, full in identities.items()]
    return "\n".join(lines) + "\n"


def serve(address: str, port: int, tell: Callable[[], str]) -> None:
    """Serves the metrics until it is stopped. When they cannot be read, a scrape is an error, and Prometheus misses
    them: old numbers would hide that nobody looks.

    Args:
      tell: asks the database; raises CdcError.
    """

    class _Scrape(BaseHTTPRequestHandler):
        timeout = 10  # a client that says nothing

        def do_GET(self) -> None:
            if self.path.partition("?")[0] != "/metrics":
                self._answer(404, "here is only GET /metrics\n")
                return
            try:
                self._answer(200, tell())
            except CdcError as error:
                self._answer(503, f"{error}\n")

        def _answer(self, status: int, text: str) -> None:
            body = text.encode()
            self.send_response(status)
            self.send_header("Content-Type", "text/plain; version=0.0.4; charset=utf-8")
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

        def log_message(self, *_: object) -> None:
            pass

    class _Server(ThreadingHTTPServer):
        address_family = socket.AF_INET6 if ":" in address else socket.AF_INET

    with _Server((address, port), _Scrape) as server:
        server.serve_forever()


def megabytes(count: int) -> str:
    return f"{count / 2**20:.1f} MB"


def _escape(text: str) -> str:
    return text.replace("\\", "\\\\").replace('"', '\\"').replace("\n", "\\n")
