"""Which server a connector reads, and what its tables lack."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, NamedTuple

import psycopg

from cdc.database import TABLES
from cdc.errors import CdcError

__all__ = ["AHEAD_MS", "EPOCH", "FULL", "Server", "epoch_of", "identities", "is_another", "look"]

EPOCH = "transforms.epoch.static.value"
"""The connector's setting that holds the epoch."""
AHEAD_MS = 10 * 60_000
"""How far an epoch begins in the future. What the connector sent before it wrote epochs counts by the minute of its
commit, and some of that is sent while `register` is at work, by the database's clock: it must be older than all that
comes after it, or those rows would never change again."""
FULL = "ALTER TABLE public.{} REPLICA IDENTITY FULL"

# The timeline is the beginning of a WAL file's name; pg_control_checkpoint() knows a new one only after a checkpoint.
_IDENTITY = """
SELECT (SELECT system_identifier FROM pg_control_system()),
       ('x' || left(pg_walfile_name(pg_current_wal_lsn()), 8))::bit(32)::int
"""
_IDENTITIES = """
SELECT relname, relreplident = 'f' FROM pg_class
WHERE relnamespace = 'public'::regnamespace AND relkind IN ('r', 'p') AND relname = ANY(%s)
ORDER BY relname
"""


class Server(NamedTuple):
    """Of one log, in which positions can be compared. A restored or a promoted server begins a new timeline."""

    system: int
    timeline: int

    def __str__(self) -> str:
        return f"{self.system}/{self.timeline}"


def look(connection: psycopg.Connection[Any]) -> Server:
    """Raises: CdcError."""
    try:
        ((system, timeline),) = connection.execute(_IDENTITY).fetchall()
    except psycopg.Error as error:
        raise CdcError(" ".join(str(error).split())) from error
    return Server(system, timeline)


def identities(connection: psycopg.Connection[Any]) -> dict[str, bool]:
    """Whether each captured table that there is has REPLICA IDENTITY FULL. Raises: CdcError."""
    try:
        return dict(connection.execute(_IDENTITIES, [list(TABLES)]).fetchall())
    except psycopg.Error as error:
        raise CdcError(" ".join(str(error).split())) from error


def epoch_of(server: Server | None, registered: Mapping[str, str], now_ms: int) -> str:
    """What orders this server's changes among those of others: `<ms>/<system identifier>/<timeline>`, with the time
    when it was first registered, and AHEAD_MS.

    The same server keeps its epoch; so does one that could not be looked at.

    Args:
      registered: the connector's configuration so far; empty when there is none.
    """
    before = registered.get(EPOCH, "")
    began, _, whose = before.partition("/")
    if before and (server is None or whose == str(server)):
        return before
    return f"{max(now_ms + AHEAD_MS, int(began or 0) + 1)}/{server or 'unknown'}"


def is_another(registered: Mapping[str, str], config: Mapping[str, str]) -> bool:
    """Whether a connector that read one server is to read another, whose positions mean something else."""
    before, now = (each.get(EPOCH, "").partition("/")[2] for each in (registered, config))
    return before not in ("", "unknown") and before != now
