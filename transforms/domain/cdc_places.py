"""Which of two changes is newer: a change's position according to Debezium, as text that sorts like positions."""

from __future__ import annotations

from collections.abc import Callable
from typing import Final

import msgspec

from schemas.times import END_MS

__all__ = ["SPAN_MS", "place", "version"]

SPAN_MS: Final = 60_000
"""Changes that name no server are of the minute in which they were committed."""

_END_LSN: Final = 1 << 63
_sequence: Callable[[str], tuple[str | None, str | None]] = msgspec.json.Decoder(tuple[str | None, str | None]).decode


def version(epoch: str | None, committed_ms: int, commit: int, lsn: int) -> str:
    """44 hexadecimal digits: 12 for the server, 16 for the last commit, 16 for the change itself.

    A place counts only within the log of one server. Servers are ordered by when each was first captured, which
    `python -m cdc register` has put into every record: `<ms>/<system identifier>/<timeline>`. A record without it may
    come from any server; there the time of commit decides, but only from one span to the next: within a span, clocks
    may disagree and snapshots lag, and a log does not. Both numbers are milliseconds since 1970, so records with and
    without an epoch have one order.

    Versions written before there were epochs are shorter, and older than any written since: they begin with a log
    position, whose first 12 digits stay below those of a time for the first 100,000 TB.

    Raises: ValueError.
    """
    began = committed_ms - committed_ms % SPAN_MS
    if epoch is not None:
        text = epoch.partition("/")[0]
        if not (text.isascii() and text.isdigit() and len(text) < 16 and 0 < int(text) < END_MS):
            raise ValueError("epoch does not begin with a time in ms")
        began = int(text)
    return f"{began:012x}{commit:016x}{lsn:016x}"


def place(lsn: int | None, sequence: str | None) -> tuple[int, int]:
    """Where a change stands in its server's log: the last commit before it in the order of commits, then its own place.

    A place in the log alone would do for changes of one row, as a row's lock puts them in order. It does not for rows
    that snapshots read: a transaction may have written its change before the place at which the snapshot read, and
    committed after. Debezium says both in `sequence`: but no commit before it has seen one, and for rows read by an
    incremental snapshot nothing but that.

    Raises: ValueError.
    """
    try:
        said = _sequence(sequence) if sequence else (None, None)
        commit, own = (None if text is None else int(text) for text in said)
    except (msgspec.DecodeError, ValueError):
        raise ValueError("source.sequence is not an array of two positions") from None
    if lsn is None:
        lsn = own
    if lsn is None:
        raise ValueError("source has neither lsn nor sequence")
    if commit is None:
        commit = lsn
    if not 0 <= commit < _END_LSN or not 0 <= lsn < _END_LSN:
        raise ValueError("source.sequence is out of range")
    return commit, lsn
