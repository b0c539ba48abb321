"""The benchmark's clicks: a deterministic set of ClickstreamEvents in visits, and the Kafka topic that holds it.

A million clicks of 100,000 users, each of whom comes once or twice and clicks about ten times, half a minute apart: so
sessions, as in a real shop, are short bursts, and the gap of half an hour closes them while the data goes on.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Final

import numpy as np

from bench import topics
from bench.orders import ARRIVAL_SPREAD_MS, FIRST_EVENT_MS
from schemas.codec import encode, parse_schema
from schemas.events import ClickstreamEvent, EventType, avro_schema

__all__ = ["ClickSpec", "fill", "generate"]

_TYPES: Final[tuple[EventType, ...]] = (
    *("PAGE_VIEW", "PRODUCT_VIEW", "SEARCH", "ADD_TO_CART", "REMOVE_FROM_CART", "CHECKOUT_START", "PURCHASE"),
)
_SHARES: Final = (0.32, 0.38, 0.12, 0.09, 0.02, 0.04, 0.03)
_CATEGORIES: Final = ("electronics", "fashion", "home", "books", "toys", "sports", "beauty", "grocery")
_DEVICES: Final = ("mobile", "desktop", "tablet")
_REGIONS: Final = ("TR-34", "TR-06", "TR-35", "TR-16", "TR-07")
_PER_VISIT: Final = 10
_BETWEEN_S: Final = 30


@dataclass(frozen=True)
class ClickSpec:
    """What to generate.

    Attributes:
      clicks: number of records.
      users: number of users.
      rate: clicks per second of event time.
    """

    clicks: int = 1_000_000
    users: int = 100_000
    rate: int = 500
    seed: int = 1

    def __post_init__(self) -> None:
        if min(self.clicks, self.users, self.rate) < 1:
            raise ValueError("clicks, users and rate must be positive")

    @property
    def topic(self) -> str:
        """A topic name of its own, so that a topic can be reused exactly when it holds this data set."""
        return f"bench.clicks.{self.clicks}.{self.users}.{self.rate}.{self.seed}"


def generate(spec: ClickSpec) -> Iterator[ClickstreamEvent]:
    """The clicks in order of arrival: up to 2 s out of the order of their times."""
    rng = np.random.default_rng(spec.seed)
    n = spec.clicks
    visits = -(-n // _PER_VISIT)
    size = rng.geometric(1 / _PER_VISIT, visits)
    visit = np.repeat(np.arange(visits), size)[:n]
    visit = np.concatenate([visit, rng.integers(0, visits, n - len(visit))])
    visit.sort()
    first = np.concatenate([[0], np.flatnonzero(np.diff(visit)) + 1])
    begin_ms = np.sort(rng.random(len(first))) * n / spec.rate * 1000
    gaps_ms = rng.exponential(_BETWEEN_S * 1000, n)
    gaps_ms[first] = 0
    since = np.cumsum(gaps_ms)
    index = np.repeat(np.arange(len(first)), np.diff(np.concatenate([first, [n]])))
    time_ms = (FIRST_EVENT_MS + begin_ms[index] + since - since[first][index]).astype(np.int64)
    user = rng.integers(0, spec.users, len(first))[index]
    kind = rng.choice(len(_TYPES), n, p=_SHARES)
    product = rng.integers(0, 500, n)
    device = rng.integers(0, len(_DEVICES), len(first))[index]
    order = np.argsort(time_ms + rng.random(n) * ARRIVAL_SPREAD_MS, kind="stable")
    columns = (order, user[order], index[order], kind[order], product[order], time_ms[order], device[order])
    for i, u, v, k, p, t, d in zip(*(column.tolist() for column in columns), strict=True):
        event_type = _TYPES[k]
        shown = event_type not in ("PAGE_VIEW", "SEARCH", "CHECKOUT_START")
        yield ClickstreamEvent(
            event_id=f"c-{i:09d}",
            user_id=f"u-{u:06d}",
            session_id=f"s-{v:08d}",
            event_type=event_type,
            product_id=f"p-{p:04d}" if shown else None,
            category=_CATEGORIES[p % len(_CATEGORIES)] if shown else None,
            price_minor=1_900 + 157 * p if shown else None,
            quantity=1 + p % 3 if event_type in ("ADD_TO_CART", "PURCHASE") else None,
            event_time=t,
            device_type=_DEVICES[d],
            geo_region=_REGIONS[u % len(_REGIONS)],
            page_url=f"/products/p-{p:04d}" if shown else "/",
            referrer=None,
        )


def fill(kafka: str, registry: str, spec: ClickSpec, say: Callable[[str], None] = lambda _: None) -> str:
    """Makes sure that a topic holds exactly the data set; returns its name. A topic that already does is kept."""

    def messages(writer_id: int) -> Iterator[topics.Message]:
        parsed = parse_schema(avro_schema("ClickstreamEvent"))
        for click in generate(spec):
            yield click.user_id.encode(), encode(click, writer_id, parsed), click.event_time

    return topics.fill(kafka, registry, spec.topic, "ClickstreamEvent", spec.clicks, messages, say)
