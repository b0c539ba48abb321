"""The sessions that a set of clicks must give, written from the semantics and sharing no code with `transforms`.

Plain and slow on purpose: a user's clicks sorted by time, cut where two are the gap or more apart, each piece looked at
as a whole.
"""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Iterable
from typing import NamedTuple

from schemas.events import ClickstreamEvent

LARGEST = 9_223_372_036_854_775_807


class Session(NamedTuple):
    session_start: int
    session_end: int
    duration_seconds: int
    page_views: int
    product_views: int
    add_to_carts: int
    purchases: int
    revenue_minor: int
    device_type: str
    geo_region: str
    primary_category: str | None
    clicks: int


def expected_sessions(
    clicks: Iterable[ClickstreamEvent], gap_ms: int = 30 * 60 * 1000, max_ms: int = 12 * 60 * 60 * 1000
) -> dict[str, Session]:
    """session_id → the final session of valid clicks that are not late; of a user's clicks with one event_id the first
    given counts."""
    once: dict[tuple[str, str], ClickstreamEvent] = {}
    for click in clicks:
        once.setdefault((click.user_id, click.event_id), click)
    of_user: dict[str, list[ClickstreamEvent]] = defaultdict(list)
    for click in once.values():
        of_user[click.user_id].append(click)
    sessions = {}
    for user, mine in of_user.items():
        mine.sort(key=lambda c: c.event_time)
        cuts, started, session = [], mine[0].event_time, 0
        for i in range(1, len(mine)):
            at = mine[i].event_time
            if at - mine[i - 1].event_time >= gap_ms:
                cuts.append(i)
                started, session = at, 0
                continue
            # A run that lasts: [start, start + max), up to the next multiple of max, and from multiple to multiple.
            ends = [started + max_ms]
            while ends[-1] <= at:
                ends.append((ends[-1] // max_ms + 1) * max_ms)
            if len(ends) - 1 > session:
                cuts.append(i)
                session = len(ends) - 1
        for begin, end in zip([0, *cuts], [*cuts, len(mine)], strict=True):
            sessions[f"{user}:{mine[begin].event_time}"] = _session(mine[begin:end])
    return sessions


def _session(clicks: list[ClickstreamEvent]) -> Session:
    types = Counter(click.event_type for click in clicks)
    revenue = 0
    for click in clicks:
        if click.event_type == "PURCHASE" and click.price_minor is not None:
            revenue += click.price_minor * (1 if click.quantity is None else click.quantity)
    start, end = clicks[0].event_time, clicks[-1].event_time
    return Session(
        session_start=start,
        session_end=end,
        duration_seconds=(end - start) // 1000,
        page_views=types["PAGE_VIEW"],
        product_views=types["PRODUCT_VIEW"],
        add_to_carts=types["ADD_TO_CART"],
        purchases=types["PURCHASE"],
        revenue_minor=min(revenue, LARGEST),
        device_type=_seen_most([click.device_type for click in clicks]) or "",
        geo_region=_seen_most([click.geo_region for click in clicks]) or "",
        primary_category=_seen_most([click.category for click in clicks if click.category is not None]),
        clicks=len(clicks),
    )


def _seen_most(texts: list[str]) -> str | None:
    if not texts:
        return None
    most = max(Counter(texts).values())
    return min(text for text in texts if texts.count(text) == most)
