"""Remembers ids for as long as a repeat would not be late."""

from __future__ import annotations

from collections.abc import Iterable

__all__ = ["BUCKET_MS", "Seen"]

BUCKET_MS = 60_000


class Seen:
    """Ids with an event time, forgotten a minute of event time at a time.

    An id is known by itself: repeats are recognised whatever event time they carry.
    """

    __slots__ = ("_by_minute", "_ids")

    def __init__(self) -> None:
        self._ids: set[str] = set()
        self._by_minute: dict[int, list[str]] = {}

    def add(self, id_: str, event_time_ms: int) -> bool:
        """Whether the id is new."""
        if id_ in self._ids:
            return False
        self._ids.add(id_)
        minute = event_time_ms // BUCKET_MS
        if minute in self._by_minute:
            self._by_minute[minute].append(id_)
        else:
            self._by_minute[minute] = [id_]
        return True

    def expire(self, before_ms: int) -> None:
        """Forgets the minutes that end by then."""
        for minute in [m for m in self._by_minute if (m + 1) * BUCKET_MS <= before_ms]:
            self._ids.difference_update(self._by_minute.pop(minute))

    def expires_ms(self) -> int | None:
        """When the earliest minute ends; None when there is none."""
        return (min(self._by_minute) + 1) * BUCKET_MS if self._by_minute else None

    def items(self) -> list[tuple[int, list[str]]]:
        """(minute, ids), for a snapshot."""
        return list(self._by_minute.items())

    def restore(self, items: Iterable[tuple[int, list[str]]]) -> None:
        for minute, ids in items:
            self._by_minute[minute] = list(ids)
            self._ids.update(ids)

    def __len__(self) -> int:
        return len(self._ids)
