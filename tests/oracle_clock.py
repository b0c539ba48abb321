"""A partition's clock, written from the semantics: one record at a time, sharing no code with `transforms`."""

from __future__ import annotations

NOT_YET_MS = -(1 << 62)
"""The clock before it goes."""

Record = tuple[int, str | None]
"""Timestamp and key."""


def plain_clock(records: list[Record], disorder_ms: int, alone_after: int) -> list[int]:
    """The clock after each record, one record at a time."""
    reached, alone = NOT_YET_MS, alone_after
    runs: list[Record] = []  # the last record of each
    found = []
    for i, (time, key) in enumerate(records):
        new = key is None or not runs or runs[-1][1] != key
        if not new:
            runs[-1] = time, key
        else:
            runs.append((time, key))
        last = runs[-3:]
        three = len(last) == 3 and (last[0][1] is None or last[0][1] != last[2][1])
        alone = 0 if three and new else alone + 1
        agreed = min(t for t, _ in last) if three else NOT_YET_MS
        if alone >= alone_after and i >= 2:
            agreed = min(t for t, _ in records[i - 2 : i + 1])
        if agreed > NOT_YET_MS:
            reached = max(reached, time if time <= agreed + disorder_ms else agreed)
        found.append(reached)
    return found
