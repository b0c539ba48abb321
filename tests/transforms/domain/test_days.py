from __future__ import annotations

from datetime import UTC, datetime
from zoneinfo import ZoneInfo

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from schemas.times import END_MS, START_MS
from transforms.domain.days import Days

ZONES = ("UTC", "Europe/Istanbul", "America/Sao_Paulo", "Pacific/Kiritimati", "Pacific/Pago_Pago", "Asia/Kathmandu")


@given(
    st.lists(st.integers(START_MS, START_MS + 40 * 365 * 86_400_000), min_size=1, max_size=5), st.sampled_from(ZONES)
)
def test_days_are_those_of_the_zone(times: list[int], zone: str) -> None:
    days = Days(zone)
    expected = [datetime.fromtimestamp(ms / 1000, ZoneInfo(zone)).date() for ms in times]
    assert [days.name(n) for n in days.numbers(np.array(times)).tolist()] == [d.isoformat() for d in expected]
    assert days.of(times[0]) == expected[0].isoformat()


@pytest.mark.parametrize(("ms", "day"), [(-1, "2026-03-28"), (0, "2026-03-29"), (82_799_999, "2026-03-29")])
def test_a_day_of_23_hours_ends_where_the_next_begins(ms: int, day: str) -> None:
    midnight = int(datetime(2026, 3, 28, 23, tzinfo=UTC).timestamp()) * 1000  # in Berlin
    assert Days("Europe/Berlin").of(midnight + ms) == day
    assert Days("Europe/Berlin").of(midnight + 82_800_000) == "2026-03-30"


def test_no_time_has_no_day_and_the_last_has() -> None:
    assert Days("Europe/Istanbul").numbers(np.zeros(0, np.int64)).tolist() == []
    assert Days("UTC").of(END_MS - 1) == "9999-12-31"
