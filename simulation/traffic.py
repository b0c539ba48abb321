"""What is sent in a run: events of a few users, with repeats, late ones, some out of order, and some of no use."""

from __future__ import annotations

import itertools
import random
import zlib
from collections.abc import Callable
from typing import Any, NamedTuple

from simulation.clock import START_MS
from simulation.log import BAD
from tests.build import HIGH, LOW, MINUTE, SECOND, UNKNOWN_ID, click, item, order, payload

__all__ = ["Burst", "Event", "clicks", "orders"]

_SPAN_MS = 50 * MINUTE  # less than --max_ahead: no event is from the future that is not meant to be
_BEFORE_MS = 20 * MINUTE
_Y2035 = 2_051_222_400_000
_BAD_KINDS = ("garbage", "unknown schema", "no id", "negative", "ahead of its record", "wrong clock")


class Event(NamedTuple):
    """
    Attributes:
      time_ms: the record's timestamp.
      what: the event, or BAD.
      partition: chooses the partition.
    """

    time_ms: int
    key: bytes | None
    value: bytes
    what: Any
    partition: int


class Burst(NamedTuple):
    """Events that are sent at once, as the run's action `at`."""

    at: int
    events: list[Event]


def orders(chances: random.Random, number: int, actions: int, lateness_ms: int) -> list[Burst]:
    return _bursts(chances, number, actions, lateness_ms, _order)


def clicks(chances: random.Random, number: int, actions: int, lateness_ms: int) -> list[Burst]:
    return _bursts(chances, number, actions, lateness_ms, _click)


def _bursts(
    chances: random.Random, number: int, actions: int, lateness_ms: int, make: Callable[..., Any]
) -> list[Burst]:
    users = [f"u-{i}" for i in range(chances.randint(3, 6))]
    events: list[Event] = []
    made: list[Any] = []
    now_ms = START_MS
    pace = chances.choice((5 * SECOND, 20 * SECOND, 60 * SECOND))
    wrong_clocks = 0
    for i in range(number):
        now_ms = min(now_ms + chances.choice((0, 1, SECOND, chances.randint(0, 2 * pace))), START_MS + _SPAN_MS)
        at_ms, user, lot = now_ms, chances.choice(users), chances.random()
        if lot < 0.10:
            at_ms -= chances.randint(0, 9 * SECOND)
        elif lot < 0.18:
            at_ms -= chances.randint(0, lateness_ms)
        elif lot < 0.24:
            at_ms -= lateness_ms + chances.randint(0, 4 * MINUTE)
        at_ms = max(at_ms, START_MS - _BEFORE_MS)
        if made and 0.24 <= lot < 0.34:
            event = chances.choice(made[-25:])
        else:
            event = make(chances, f"{i:03}", user, at_ms)
            made.append(event)
        key, what = event.user_id.encode(), event
        time_ms, value = event.event_time, payload(event)
        if 0.34 <= lot < 0.42:
            kind = chances.choice(_BAD_KINDS if wrong_clocks < 2 else _BAD_KINDS[:-1])
            wrong_clocks += kind == "wrong clock"
            what, value, time_ms = BAD, *_spoilt(kind, event, time_ms)
        elif lot > 0.97:
            key = None
        partition = zlib.crc32(event.user_id.encode())
        if make is _order and chances.random() < 0.05:
            partition = chances.randrange(9)
        events.append(Event(time_ms, key, value, what, partition))
    return _cut(chances, events, actions)


def _cut(chances: random.Random, events: list[Event], actions: int) -> list[Burst]:
    count = chances.randint(2, 8)
    cuts = sorted(chances.randrange(len(events) + 1) for _ in range(count - 1))
    ats = sorted(chances.randrange(actions * 3 // 4) for _ in range(count))
    bounds = [0, *cuts, len(events)]
    parts = [events[a:b] for a, b in itertools.pairwise(bounds)]
    return [Burst(at, part) for at, part in zip([0, *ats[1:]], parts, strict=True) if part]


def _spoilt(kind: str, event: Any, time_ms: int) -> tuple[bytes, int]:
    """A payload that no job can use, and the record's timestamp."""
    is_order = hasattr(event, "order_id")
    match kind:
        case "garbage":
            return b"\0\0\0\0\1garbage", time_ms
        case "unknown schema":
            return payload(event, UNKNOWN_ID), time_ms
        case "no id":
            return payload(_but(event, user_id="")), time_ms
        case "negative":
            return payload(_but(event, **({"total_amount_minor": -1} if is_order else {"price_minor": -1}))), time_ms
        case "ahead of its record":
            return payload(_but(event, event_time=time_ms + 2 * 60 * MINUTE)), time_ms
    return payload(_but(event, event_time=_Y2035)), _Y2035


def _but(event: Any, **changes: Any) -> Any:
    return type(event)(**({name: getattr(event, name) for name in event.__struct_fields__} | changes))


def _order(chances: random.Random, number: str, user: str, at_ms: int) -> Any:
    return order(
        f"o-{number}",
        user=user,
        at=at_ms,
        amount=chances.choice((LOW, HIGH - 1, HIGH, HIGH)),
        status=chances.choice(("CREATED",) * 7 + ("CANCELLED",) * 3 + ("CONFIRMED",)),
        region=chances.choice(("Istanbul", "Istanbul", "Izmir")),
        is_first_order=chances.random() < 0.1,
        items=[item(category=chances.choice(("kitchen", "toys")))],
    )


def _click(chances: random.Random, number: str, user: str, at_ms: int) -> Any:
    kind = chances.choice(("PAGE_VIEW", "PRODUCT_VIEW", "ADD_TO_CART", "PURCHASE"))
    return click(
        f"c-{number}",
        user=user,
        at=at_ms,
        event_type=kind,
        price_minor=chances.choice((None, 700, 1_300)),
        quantity=chances.choice((None, 1, 2)),
        category=chances.choice((None, "kitchen", "toys")),
        device_type=chances.choice(("mobile", "web")),
        geo_region=chances.choice(("Izmir", "Istanbul")),
    )
