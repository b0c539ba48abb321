"""Times as every sink can write them: milliseconds since 1970, UTC, up to the end of the year 9999.

RFC 3339 and BigQuery's TIMESTAMP end there, and no window can begin after it. A later time from a producer or a
database is either rejected (an event's own time) or clamped (a descriptive column, such as when a product was updated).
"""

from __future__ import annotations

import re
from datetime import UTC, date, datetime, timedelta, tzinfo
from typing import Final
from zoneinfo import ZoneInfo, ZoneInfoNotFoundError

__all__ = ["END_MS", "LAST_MS", "START_MS", "clamp_ms", "ms_of_text", "starts_ms", "time_zone"]

START_MS: Final = 946_684_800_000
"""2000-01-01: no event is older, and milliseconds mistaken for another unit are."""
END_MS: Final = 253_402_300_800_000
"""The year 10000."""
LAST_MS: Final = END_MS - 1

_EPOCH: Final = datetime(1970, 1, 1, tzinfo=UTC)
_ENDLESS: Final = {"infinity": LAST_MS, "-infinity": 0}
# As Java writes them: five digits or more with a plus, years before Christ with a minus.
_FAR: Final = re.compile(r"([+-])\d{4,9}-\d\d-\d\dT\d\d:\d\d(:\d\d(\.\d{1,9})?)?(Z|[+-]\d\d:\d\d(:\d\d)?)?", re.ASCII)


def clamp_ms(ms: int) -> int:
    """The nearest time that can be written everywhere."""
    return min(max(ms, 0), LAST_MS)


def ms_of_text(text: str) -> int:
    """ISO 8601 as PostgreSQL and Debezium write it, clamped; without a zone it is UTC.

    Raises: ValueError, which does not show the text.
    """
    if text in _ENDLESS:
        return _ENDLESS[text]
    if far := _FAR.fullmatch(text):
        return LAST_MS if far[1] == "+" else 0
    try:
        time = datetime.fromisoformat(text)
    except ValueError:
        raise ValueError("is not an ISO 8601 time") from None
    # Not astimezone: near the year 9999 or 1 it may leave what datetime can hold.
    since = time.replace(tzinfo=None) - _EPOCH.replace(tzinfo=None) - (time.utcoffset() or timedelta(0))
    return clamp_ms(since // timedelta(milliseconds=1))


def time_zone(text: str) -> str:
    """A zone's IANA name. Raises: ValueError."""
    try:
        _zone(text)
    except (ZoneInfoNotFoundError, ValueError, OSError):
        raise ValueError(f"{text!r} is not a time zone such as UTC or Europe/Istanbul") from None
    return text


def starts_ms(day: date, zone: str) -> int:
    """When a day begins there: where clocks are put forward at midnight, at the first instant that there is; where
    midnight comes twice, at the first."""
    return int(datetime(day.year, day.month, day.day, tzinfo=_zone(zone)).timestamp()) * 1000


def _zone(name: str) -> tzinfo:
    """UTC needs no data of zones, which a small image may lack."""
    return UTC if name == "UTC" else ZoneInfo(name)
