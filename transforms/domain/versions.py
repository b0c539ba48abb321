"""Versions of corrected rows: which of two is newer, and how large a number may be."""

from __future__ import annotations

from typing import Final

from schemas.events import Pane

__all__ = ["MAX_LONG", "version"]

MAX_LONG: Final = (1 << 63) - 1
"""The largest number that a sink's 64 bits hold; sums stop there."""

_RANK: dict[Pane, int] = {"EARLY": 0, "ON_TIME": 1, "LATE": 2}


def version(events: int, pane: Pane) -> int:
    """Of a row: one that knows more events is newer, and of the same events the later pane is.

    A function of what the row says: so whoever reads the input again gives a result the version it had, and what was
    known better before a failure is not replaced by what is known less well after it.
    """
    return 4 * events + _RANK[pane]
