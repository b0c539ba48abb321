"""The day to compute: its bounds, and its form in paths, SQL and names."""

from __future__ import annotations

from datetime import UTC, date, datetime, timedelta
from typing import NamedTuple

from schemas.times import starts_ms

__all__ = ["DAY_MS", "HOUR_MS", "Day", "within"]

HOUR_MS = 3_600_000
DAY_MS = 24 * HOUR_MS


class Day(NamedTuple):
    """A day of event time where the shop is: of 24 hours, or 23 or 25 where its clocks change."""

    date: date
    zone: str = "UTC"

    @classmethod
    def of(cls, text: str) -> Day:
        """Raises: ValueError: it is not YYYY-MM-DD."""
        return cls(date.fromisoformat(text))

    @property
    def start_ms(self) -> int:
        return starts_ms(self.date, self.zone)

    @property
    def end_ms(self) -> int:
        return starts_ms(self.date + timedelta(days=1), self.zone)

    @property
    def utc_days(self) -> range:
        """The days of UTC that it touches, as numbers since 1970: partitions and accounts are by those."""
        return range(self.start_ms // DAY_MS, -(-self.end_ms // DAY_MS))

    @property
    def branch(self) -> str:
        """Of the tables, where the day waits until it is published."""
        return f"audit_{self.date:%Y%m%d}"

    def before(self, days: int) -> Day:
        return self._replace(date=self.date - timedelta(days=days))

    def holds(self, column: str) -> str:
        """SQL of Spark and BigQuery: whether a timestamp lies in it."""
        return within(column, self.start_ms, self.end_ms)

    def touches(self, column: str) -> str:
        """The same of the days of UTC that it touches. Iceberg takes or leaves whole partitions by it."""
        return within(column, self.utc_days.start * DAY_MS, self.utc_days.stop * DAY_MS)

    def __str__(self) -> str:
        return self.date.isoformat()


def within(column: str, start_ms: int, end_ms: int) -> str:
    """SQL of Spark and BigQuery."""
    start, end = (f"{datetime.fromtimestamp(ms // 1000, UTC):%Y-%m-%d %H:%M:%S}Z" for ms in (start_ms, end_ms))
    return f"{column} >= timestamp '{start}' AND {column} < timestamp '{end}'"
