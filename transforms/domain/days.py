"""Days where the shop is, of many times at once."""

from __future__ import annotations

from datetime import date

import numpy as np

from schemas.columns import Ints
from schemas.times import starts_ms

__all__ = ["Days"]

_DAY_MS = 86_400_000
_FIRST = date(1970, 1, 1).toordinal()


class Days:
    """Days of a time zone, as numbers: 1 is the first of January of the year 1."""

    def __init__(self, zone: str):
        self._zone = zone
        self._starts: dict[int, int] = {}

    def numbers(self, times_ms: Ints) -> Ints:
        """[n] the day of each time."""
        utc: Ints = times_ms // _DAY_MS + _FIRST
        if self._zone == "UTC" or not len(utc):
            return utc
        first, last = int(utc.min()) - 1, int(utc.max()) + 1  # no zone is a whole day away
        starts = [self._start_ms(number) for number in range(first, last + 1)]
        found: Ints = first - 1 + np.searchsorted(starts, times_ms, side="right")
        return found

    def of(self, time_ms: int) -> str:
        return self.name(int(self.numbers(np.array([time_ms]))[0]))

    @staticmethod
    def name(number: int) -> str:
        return date.fromordinal(number).isoformat()

    def _start_ms(self, number: int) -> int:
        if number not in self._starts:
            self._starts[number] = starts_ms(date.fromordinal(number), self._zone)
        return self._starts[number]
