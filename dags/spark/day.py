"""The day to compute: its bounds, and its form in paths, SQL and names."""

from __future__ import annotations

from datetime import UTC, date, datetime, timedelta
from typing import NamedTuple

__all__ = ["HOUR_MS", "Day"]

HOUR_MS = 3_600_000


class Day(NamedTuple):
    """A day of event time, UTC."""

    date: date

    @classmethod
    def of(cls, text: str) -> Day:
        """Raises: ValueError: it is not YYYY-MM-DD."""
        return cls(date.fromisoformat(text))

    @property
    def start_ms(self) -> int:
        return int(datetime(*self.date.timetuple()[:3], tzinfo=UTC).timestamp()) * 1000

    @property
    def end_ms(self) -> int:
        return self.start_ms + 24 * HOUR_MS

    @property
    def branch(self) -> str:
        """Of the tables, where the day waits until it is published."""
        return f"audit_{self.date:%Y%m%d}"

    def before(self, days: int) -> Day:
        return Day(self.date - timedelta(days=days))

    def holds(self, column: str) -> str:
        """SQL of Spark and BigQuery: whether a timestamp lies in it. Iceberg takes or leaves whole files by it."""
        tomorrow = self.before(-1)
        return f"{column} >= timestamp '{self} 00:00:00Z' AND {column} < timestamp '{tomorrow} 00:00:00Z'"

    def __str__(self) -> str:
        return self.date.isoformat()
