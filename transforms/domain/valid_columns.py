"""Which rows of columns are valid orders and clicks: the rules of `validity`, without a call per record.

The two forms must agree; a property test compares them.
"""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from schemas.columns import Bools, Columns, Ints
from schemas.ids import MAX_ID_CHARS, is_id
from schemas.times import END_MS, START_MS
from transforms.domain.validity import FUTURE_MS

__all__ = ["good_clicks", "good_orders"]

# Bytes that an id may not have, or that begin a control character of two bytes (U+0080 to U+009F).
_DOUBTFUL = np.isin(np.arange(256), [*range(0x20), 0x7F, 0xC2])


def good_orders(columns: Columns, record_times_ms: Ints) -> Bools:
    """[n] which records are decoded and valid."""
    ints = columns.ints
    good = columns.ok & _good_event_times(ints["event_time"], record_times_ms)
    for name in ("subtotal_minor", "discount_minor", "shipping_minor", "total_amount_minor"):
        good &= ints[name] >= 0
    for name in ("order_id", "user_id"):
        good &= _ids(columns, *columns.spans[name])
    good &= _capitals(columns, *columns.spans["currency"])
    if len(columns.rows["items"]):
        wrong = (
            (ints["items.quantity"] < 1) | (ints["items.unit_price_minor"] < 0) | (ints["items.total_price_minor"] < 0)
        )
        good[columns.rows["items"][wrong]] = False
    return good


def good_clicks(columns: Columns, record_times_ms: Ints) -> Bools:
    """[n] which records are decoded and valid."""
    ints = columns.ints
    good = columns.ok & _good_event_times(ints["event_time"], record_times_ms)
    good &= (ints["price_minor"] >= 0) & (ints["quantity"] >= ints["quantity?"])
    for name in ("event_id", "user_id"):
        good &= _ids(columns, *columns.spans[name])
    return good


def _good_event_times(event_times_ms: Ints, record_times_ms: Ints) -> Bools:
    latest = np.minimum(record_times_ms + FUTURE_MS, END_MS - 1)
    good: Bools = (event_times_ms >= START_MS) & (event_times_ms <= latest)
    return good


def _ids(columns: Columns, start: Ints, stop: Ints) -> Bools:
    """Which spans are ids. The bytes of all are looked at together; those in doubt are then read, each as text."""
    lengths = np.where(columns.ok, stop - start, 0)
    in_data = np.repeat(start - (np.cumsum(lengths) - lengths), lengths)
    in_data += np.arange(len(in_data))
    doubtful = _DOUBTFUL[np.frombuffer(columns.data, np.uint8)[in_data]]
    good: Bools = (lengths > 0) & (lengths <= MAX_ID_CHARS)
    good[np.repeat(np.arange(len(lengths)), lengths)[doubtful]] = False
    for i in np.nonzero(columns.ok & ~good)[0].tolist():
        good[i] = is_id(columns.data[start[i] : stop[i]].decode())
    return good


def _capitals(columns: Columns, start: Ints, stop: Ints) -> Bools:
    """Which spans are exactly three of A–Z."""
    data: npt.NDArray[np.uint8] = np.frombuffer(columns.data + b"\0\0\0", np.uint8)
    good: Bools = stop - start == 3
    for i in range(3):
        letter = data[np.minimum(start + i, len(data) - 1)]
        good &= (letter >= ord("A")) & (letter <= ord("Z"))
    return good
