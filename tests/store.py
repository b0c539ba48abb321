"""Writes to the online store without a pipeline around them."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from schemas.events import FraudAlert, RevenueWindow, UserSession
from transforms.io import redis
from transforms.sharded_rows import encode_rows

Order = tuple[str, str, int, int, str, bool, list[Any]]
"""A row of `transforms.revenue`."""
Write = FraudAlert | UserSession | RevenueWindow | Order

_TABLES = {
    FraudAlert: redis._alerts,
    UserSession: redis._sessions,
    RevenueWindow: redis._revenue,
    tuple: redis._orders,
}


def order(order_id: str, at: int, amount: int = 100, user: str = "u-1") -> Order:
    return user, order_id, at, amount, "Izmir", False, []


def write(url: str, rows: Sequence[Write]) -> None:
    """What Beam does with a bundle of one writer; the rows are of one kind."""
    fn = redis.WriteRowsFn(url, _TABLES[type(rows[0])])
    fn.setup()
    fn.start_bundle()
    if isinstance(rows[0], tuple):
        fn.process((7, encode_rows(list(rows))))
    else:
        for row in rows:
            fn.process(row)
    fn.finish_bundle()
    fn.teardown()
