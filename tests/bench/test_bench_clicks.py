"""The benchmark's clicks are what they say: the same every time, in visits, nearly in order."""

from __future__ import annotations

from collections import defaultdict

from bench.clicks import ClickSpec, generate
from bench.orders import ARRIVAL_SPREAD_MS

GAP_MS = 30 * 60_000


def test_the_clicks_are_many_short_visits_in_nearly_the_order_of_their_times() -> None:
    spec = ClickSpec(clicks=20_000, users=2_000, rate=100)
    clicks = list(generate(spec))
    assert clicks == list(generate(spec))
    assert len({c.event_id for c in clicks}) == spec.clicks
    newest = 0
    for click in clicks:
        assert click.event_time > newest - ARRIVAL_SPREAD_MS
        newest = max(newest, click.event_time)
    visits = defaultdict(list)
    for click in clicks:
        visits[click.session_id].append(click)
    assert 1_600 < len(visits) < 2_400
    assert all(len({(c.user_id, c.device_type) for c in of}) == 1 for of in visits.values())
    long = [of for of in visits.values() if max(c.event_time for c in of) - of[0].event_time > GAP_MS]
    assert len(long) < len(visits) // 20
