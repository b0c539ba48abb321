from __future__ import annotations

from datetime import UTC, date, datetime, timedelta

import pytest
from hypothesis import given
from hypothesis import strategies as st

from schemas.times import starts_ms, time_zone

HOUR = 3_600_000
ZONES = st.sampled_from(
    ["UTC", "Europe/Istanbul", "America/New_York", "Asia/Kolkata", "America/Havana", "Pacific/Apia"]
)


def hours(day: date, zone: str) -> float:
    return (starts_ms(day + timedelta(days=1), zone) - starts_ms(day, zone)) / HOUR


@pytest.mark.parametrize(
    ("day", "zone", "length"),
    [
        (date(2026, 3, 8), "America/New_York", 23),
        (date(2026, 11, 1), "America/New_York", 25),
        (date(2026, 11, 2), "America/New_York", 24),
        (date(2026, 3, 29), "Europe/Istanbul", 24),  # which keeps its summer time since 2016
        (date(2015, 3, 29), "Europe/Istanbul", 23),
        (date(2015, 11, 8), "Europe/Istanbul", 25),
        (date(2018, 11, 4), "America/Sao_Paulo", 23),  # whose midnight did not come
        (date(2026, 11, 1), "America/Havana", 25),  # whose midnight comes twice
        (date(2011, 12, 30), "Pacific/Apia", 0),  # which did not come
        (date(2026, 3, 29), "UTC", 24),
    ],
)
def test_a_day_has_as_many_hours_as_the_clocks_there_say(day: date, zone: str, length: int) -> None:
    assert hours(day, zone) == length


def test_a_day_begins_at_midnight_there() -> None:
    assert datetime.fromtimestamp(starts_ms(date(2026, 11, 22), "Europe/Istanbul") / 1000, UTC).hour == 21
    assert starts_ms(date(2026, 11, 22), "UTC") == 1_795_305_600_000


@given(st.dates(date(1990, 1, 1), date(2037, 1, 1)), ZONES)
def test_days_follow_each_other_without_a_gap_and_none_is_longer_than_25_hours(day: date, zone: str) -> None:
    assert 0 <= hours(day, zone) <= 25


@pytest.mark.parametrize("text", ["", "Istanbul", "Europe/Constantinople", "../etc/passwd", "UTC+3", "Europe"])
def test_what_is_no_zone_is_refused(text: str) -> None:
    with pytest.raises(ValueError, match="is not a time zone such as UTC or Europe/Istanbul"):
        time_zone(text)
