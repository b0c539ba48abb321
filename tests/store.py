"""Writes to the online store without a pipeline around them."""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial
from typing import Any

from schemas import currencies
from schemas.events import FraudAlert, RevenueWindow, UserSession
from schemas.store_keys import PREFIX
from transforms.io import redis as writers
from transforms.sharded_rows import encode_rows

Order = tuple[str, str, int, int, str, bool, list[Any], str]
"""A row of `transforms.revenue`."""
Write = FraudAlert | UserSession | RevenueWindow | Order

_TABLES = {
    FraudAlert: partial(writers._alerts, currencies.DEFAULT),
    UserSession: partial(writers._sessions, currencies.DEFAULT),
    RevenueWindow: writers._revenue,
    tuple: partial(writers._orders, currencies.DEFAULT),
}


def order(
    order_id: str,
    at: int,
    amount: int = 100,
    user: str = "u-1",
    currency: str = currencies.DEFAULT,
    region: str = "Izmir",
) -> Order:
    return user, order_id, at, amount, region, False, [], currency


def opened(url: str, kind: type, prefix: str = PREFIX) -> writers.WriteRowsFn:
    """A writer of one kind of rows."""
    fn = writers.WriteRowsFn(url, _TABLES[kind], prefix=prefix)
    fn.setup()
    return fn


def write_bundle(fn: writers.WriteRowsFn, rows: Sequence[Write]) -> None:
    """What Beam does with a bundle."""
    fn.start_bundle()
    if isinstance(rows[0], tuple):
        fn.process((7, encode_rows(list(rows))))
    else:
        for row in rows:
            fn.process(row)
    fn.finish_bundle()


def write(url: str, rows: Sequence[Write], prefix: str = PREFIX) -> None:
    """What Beam does with a bundle of one writer; the rows are of one kind."""
    fn = opened(url, type(rows[0]), prefix)
    write_bundle(fn, rows)
    fn.teardown()
