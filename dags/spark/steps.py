"""The stream's rules, applied to records sorted by user and time. Plain iterators, no Spark.

Each step goes through its records once and holds what its rule needs, never a user's whole day: a bot with a million
clicks takes time, and no more memory than anybody else.
"""

from __future__ import annotations

from collections.abc import Iterator
from itertools import groupby
from operator import itemgetter
from types import SimpleNamespace
from typing import Any

from msgspec.structs import astuple

from schemas.currencies import number_of
from schemas.events import Pane
from transforms.domain.conditions import matcher
from transforms.domain.fraud import Detector
from transforms.domain.fraud_orders import (
    STATUSES,
    Order,
    UserOrders,
    extra_of,
    order_flags,
    prune,
    record_fields,
)
from transforms.domain.fraud_rules import Rules
from transforms.domain.revenue import MINUTE_MS, Minute, add_up, category_totals, revenue_rows
from transforms.domain.seen import Seen
from transforms.domain.sessions import (
    KINDS,
    PURCHASE,
    Burst,
    add_click,
    decode_burst,
    encode_burst,
    session_of,
)
from transforms.domain.versions import MAX_LONG
from transforms.domain.visits import WHOLE, cut_before

__all__ = ["Rows", "add_minutes", "aggregate_sessions", "detect_fraud", "spans_ms", "sum_up_minutes"]

Rows = Iterator[tuple[Any, ...]]

# For how long, in event time, an id is known. The archive has no repeats but those that came over two partitions, and
# a repeat has the time of what it repeats: those two are neighbours here.
_REPEATS_MS = 600_000


def spans_ms(rules: Rules) -> list[int]:
    """For how long an order of each status can matter."""
    return [rules.span_ms(status) or 0 for status in range(len(STATUSES))]


def detect_fraud(orders: Rows, rules: Rules, start_ms: int) -> Rows:
    """Orders that a rule looks at, by user and time → rows of fraud_alerts of those from `start_ms` on.

    Args:
      orders: user_id, event_time in ms, order_id, status, is first order, currency, amount, region, and the
        `record_fields` of what else the rules need, items as dicts.
    """
    detector, spans, exact = Detector(rules), spans_ms(rules), rules.exact
    touches = matcher(exact, rules.bits) if exact is not None else None
    names, extra = record_fields(rules.bits), extra_of(rules.bits)
    for user_id, of_user in groupby(orders, itemgetter(0)):
        known: UserOrders = []
        for _, at_ms, order_id, status, is_first, currency, amount_minor, region, *more in of_user:
            prune(known, [at_ms - span_ms for span_ms in spans])
            flags = order_flags(STATUSES.index(status), is_first, number_of(currency))
            order: Order = (at_ms, order_id, flags, amount_minor, region)
            if rules.bits:
                order = (*order, extra(_record(user_id, dict(zip(names, more, strict=True)))))
            if touches is not None and not touches(order):
                continue
            if detector.add(known, order):
                # Detected at the time of its order: the one time that is the same in every run.
                for alert in detector.completed(user_id, known, order, at_ms):
                    if alert.event_time >= start_ms:
                        yield *astuple(alert), alert.event_time


def _record(user_id: str, fields: dict[str, Any]) -> SimpleNamespace:
    """So much of an order as rules look at."""
    items = [SimpleNamespace(**item) for item in fields.pop("items", ())]
    return SimpleNamespace(user_id=user_id, items=items, **fields)


def aggregate_sessions(clicks: Rows, gap_ms: int, max_ms: int, start_ms: int, end_ms: int, over_ms: int) -> Rows:
    """Clicks by user and time → rows of user_sessions of those that start in that time.

    A session whose last click is of `over_ms` or later may not be over: its pane is EARLY.

    Args:
      clicks: user_id, event_time in ms, event_id, type, device, region, category, price, quantity.
    """
    for user_id, of_user in groupby(clicks, itemgetter(0)):
        for burst in _sessions(of_user, gap_ms, max_ms):
            if start_ms <= burst.start_ms < end_ms:
                pane: Pane = "EARLY" if burst.end_ms >= over_ms else "ON_TIME"
                yield astuple(session_of(user_id, [decode_burst(encode_burst(0, burst))], pane))


def _sessions(clicks: Rows, gap_ms: int, max_ms: int) -> Iterator[Burst]:
    """Of one user."""
    repeats = _Repeats()
    open_: list[Burst] = []
    run_ms, cut_ms = 0, WHOLE
    for user_id, at_ms, event_id, event_type, device, region, category, price_minor, quantity in clicks:
        if not repeats.is_new(event_id, at_ms):
            continue
        if open_ and at_ms - open_[0].end_ms >= gap_ms:
            yield open_.pop()
        if not open_:
            run_ms, cut_ms = at_ms, WHOLE
        elif (part := cut_before(run_ms, at_ms, max_ms)) != cut_ms:
            yield open_.pop()
            cut_ms = part
        kind = KINDS.get(event_type, len(KINDS))
        revenue = min((price_minor or 0) * (quantity or 1), MAX_LONG) if kind == PURCHASE else 0
        add_click(open_, (user_id, event_id, at_ms, kind, device, region, category, revenue), gap_ms)
    yield from open_


def sum_up_minutes(orders: Rows) -> Rows:
    """CREATED orders of some users by time → (start of the minute, currency, *Figures), each figure of these once.

    Args:
      orders: user_id, event_time in ms, order_id, amount, region, is first order, currency, categories and totals of
        its items.
    """
    repeats = _Repeats()
    for minute, of_minute in groupby(orders, lambda order: order[1] // MINUTE_MS):
        sums: dict[str, Minute] = {}
        for user_id, at_ms, order_id, amount_minor, region, is_first, currency, categories, totals in of_minute:
            # A user's repeats: which other users are here is as Spark divides them.
            if repeats.is_new(f"{len(user_id)}:{user_id}{order_id}", at_ms):
                items = category_totals(zip(categories, totals, strict=True))
                order = (user_id, order_id, at_ms, amount_minor, region, is_first, items, currency)
                sums.setdefault(currency, Minute()).add(order)
        for currency, of_currency in sums.items():
            for figures in of_currency.take():
                yield minute * MINUTE_MS, currency, *figures


def add_minutes(parts: Rows) -> Rows:
    """What `sum_up_minutes` says of all users, by minute and currency → rows of real_time_revenue."""
    for (start_ms, currency), of_minute in groupby(parts, itemgetter(0, 1)):
        figures = add_up([[part[2:] for part in of_minute]])
        yield from map(astuple, revenue_rows(figures, start_ms, currency, "ON_TIME"))


class _Repeats:
    """`Seen` of records that come by time: what no repeat can be near any more is forgotten."""

    def __init__(self) -> None:
        self._seen = Seen()
        self._minute = 0

    def is_new(self, id_: str, at_ms: int) -> bool:
        if at_ms // MINUTE_MS != self._minute:
            self._minute = at_ms // MINUTE_MS
            self._seen.expire(at_ms - _REPEATS_MS)
        return self._seen.add(id_, at_ms)
