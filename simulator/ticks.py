"""Event time: when each event happens, by rate and by hour of the day."""

from __future__ import annotations

from typing import Final

from simulator.config import Config

__all__ = ["HOUR_MS", "Ticks", "hour_factor", "start_for"]

HOUR_MS: Final = 3_600_000
_UTC_OFFSET_HOURS: Final = 3  # Türkiye, all year
_ROUNDING_MS: Final = 1e-6  # what summing up steps may be wrong by

# Traffic by local hour, relative to the mean of the day: low at five in the morning, high at nine in the evening.
_BY_HOUR: Final = (9, 6, 4, 3, 2.5, 2.5, 4, 7, 11, 14, 16, 17, 18, 17, 16, 16, 17, 18, 20, 23, 25, 25, 20, 14)
_MEAN: Final = sum(_BY_HOUR) / 24


def hour_factor(time_ms: float) -> float:
    """Traffic of that hour relative to the day's mean."""
    return _BY_HOUR[int(time_ms // HOUR_MS + _UTC_OFFSET_HOURS) % 24] / _MEAN


class Ticks:
    """Hands out event times, one per event, until the events or the duration are used up or `stop` is called."""

    def __init__(self, config: Config):
        self._config = config
        self._start = config.start_ms
        self._span = float("inf") if config.duration_ms is None else config.duration_ms
        self._limit = float("inf") if config.events is None else config.events
        self._offset = 0.0  # from the start: adding small steps to an epoch time would lose fractions
        self._hour_end = float("inf")
        self._step = 1000 / config.rate
        if config.rhythm:
            self._step /= hour_factor(self._start)
            self._hour_end = HOUR_MS - self._start % HOUR_MS
        self.count = 0

    def stop(self) -> None:
        self._limit = 0

    def next(self) -> int | None:
        """The next event time in ms; never smaller than the one before; None at the end."""
        offset = self._offset
        if self.count >= self._limit or offset >= self._span - _ROUNDING_MS:
            return None
        self.count += 1
        self._offset = offset + self._step
        while self._offset >= self._hour_end:
            self._enter_hour()
        return self._start + int(offset)

    def _enter_hour(self) -> None:
        missing = (self._offset - self._hour_end) / self._step
        self._step = 1000 / self._config.rate / hour_factor(self._start + self._hour_end)
        self._offset = self._hour_end + missing * self._step
        self._hour_end += HOUR_MS


def start_for(events: int, rate: float, end_ms: int) -> int:
    """Where `events` events in day rhythm have to start to end just before `end_ms`."""
    left = float(events)
    time = float(end_ms)
    while True:
        hour_start = (time - 1) // HOUR_MS * HOUR_MS
        per_ms = rate * hour_factor(hour_start) / 1000
        if per_ms * (time - hour_start) >= left:
            return int(time - left / per_ms) - 1
        left -= per_ms * (time - hour_start)
        time = hour_start
