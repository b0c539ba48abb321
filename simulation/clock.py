"""The simulated clock, which stands still unless somebody waits or works."""

from __future__ import annotations

__all__ = ["START_MS", "Clock"]

START_MS = 1_600_000_000_000
"""2020-09-13. Long ago, as the store's scripts ask the real clock what is from the future."""


class Clock:
    """Takes the place of the module `time` in what is simulated."""

    def __init__(self, now_ms: int = START_MS):
        self._ns = now_ms * 1_000_000

    @property
    def now_ms(self) -> int:
        return self._ns // 1_000_000

    def time(self) -> float:
        return self._ns / 1e9

    def time_ns(self) -> int:
        return self._ns

    def monotonic(self) -> float:
        return self.time() - START_MS / 1000

    def monotonic_ns(self) -> int:
        return self._ns - START_MS * 1_000_000

    def sleep(self, seconds: float) -> None:
        self._ns += max(0, round(seconds * 1e9))
