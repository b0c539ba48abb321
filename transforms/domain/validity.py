"""Which decoded orders and clicks are valid: the business rules, one record at a time.

Source of the rules: docs/semantics.md, "Valid records". `valid_columns` has them for whole columns.
"""

from __future__ import annotations

import re
from typing import Any

from schemas.currencies import EXPONENTS
from schemas.events import ClickstreamEvent, OrderEvent
from schemas.ids import is_id, wrong_with
from schemas.times import END_MS, START_MS

__all__ = [
    "FUTURE_MS",
    "InvalidRecordError",
    "check_click",
    "check_not_ahead",
    "check_order",
    "wrong_in_fields",
    "wrong_with_time",
]

FUTURE_MS = 3_600_000
"""An event may be stamped this much later than its record before it is called wrong."""

_HALF_CENTURY_MS = 2_524_608_000_000  # 2050-01-01
_AMOUNTS = ("subtotal_minor", "discount_minor", "shipping_minor", "total_amount_minor")
_CURRENCY = re.compile(r"[A-Z]{3}", re.ASCII)


class InvalidRecordError(ValueError):
    """A decoded record breaks a rule; the message names field and value."""


def check_order(order: OrderEvent, record_time_ms: int) -> None:
    """Raises: InvalidRecordError, which names all that is wrong."""
    if _is_good_order(order, record_time_ms):
        return
    faults = [f"{name} {wrong}" for name in ("order_id", "user_id") if (wrong := wrong_with(getattr(order, name)))]
    faults += [f"{name} is negative: {amount}" for name in _AMOUNTS if (amount := getattr(order, name)) < 0]
    if not _CURRENCY.fullmatch(order.currency):
        faults.append(f"currency is not three capital letters: {order.currency!r}")
    for item in order.items:
        if item.quantity < 1:
            faults.append(f"quantity is below 1: {item.quantity}")
        if item.unit_price_minor < 0 or item.total_price_minor < 0:
            faults.append(f"price of {item.product_id} is negative")
    _raise(faults, order.event_time, record_time_ms)


def wrong_in_fields(fields: Any, record_time_ms: int) -> list[str]:
    """What breaks a rule in what is no whole record, field by field, so that nothing has to be mended twice."""
    if not isinstance(fields, dict):
        return []
    faults = []
    for name, value in fields.items():
        if name in ("order_id", "event_id", "user_id") and isinstance(value, str) and (wrong := wrong_with(value)):
            faults.append(f"{name} {wrong}")
        elif name in _AMOUNTS and type(value) is int and value < 0:
            faults.append(f"{name} is negative: {value}")
        elif name == "currency" and isinstance(value, str) and not _CURRENCY.fullmatch(value):
            faults.append(f"currency is not three capital letters: {value!r}")
        elif name == "event_time" and type(value) is int and (wrong := wrong_with_time(value, record_time_ms)):
            faults.append(wrong)
    return faults


def _is_good_order(order: OrderEvent, record_time_ms: int) -> bool:
    """Whether nothing is wrong, in a quarter of the time that it takes to say what is."""
    if not (
        is_id(order.order_id)
        and is_id(order.user_id)
        and order.subtotal_minor >= 0
        and order.discount_minor >= 0
        and order.shipping_minor >= 0
        and order.total_amount_minor >= 0
        and (order.currency in EXPONENTS or _CURRENCY.fullmatch(order.currency))
        and START_MS <= order.event_time <= record_time_ms + FUTURE_MS
        and order.event_time < END_MS
    ):
        return False
    for item in order.items:
        if item.quantity < 1 or item.unit_price_minor < 0 or item.total_price_minor < 0:
            return False
    return True


def check_click(click: ClickstreamEvent, record_time_ms: int) -> None:
    """Raises: InvalidRecordError, which names all that is wrong."""
    faults = [f"{name} {wrong}" for name in ("event_id", "user_id") if (wrong := wrong_with(getattr(click, name)))]
    if click.price_minor is not None and click.price_minor < 0:
        faults.append(f"price_minor is negative: {click.price_minor}")
    if click.quantity is not None and click.quantity < 1:
        faults.append(f"quantity is below 1: {click.quantity}")
    _raise(faults, click.event_time, record_time_ms)


def _raise(faults: list[str], event_time_ms: int, record_time_ms: int) -> None:
    wrong = wrong_with_time(event_time_ms, record_time_ms)
    if wrong:
        faults.append(wrong)
    if faults:
        raise InvalidRecordError("; ".join(faults))


def wrong_with_time(event_time_ms: int, record_time_ms: int) -> str | None:
    """What is wrong with an event time; a number in another unit is the usual cause, so the likely one is named."""
    if START_MS <= event_time_ms <= min(record_time_ms + FUTURE_MS, END_MS - 1):
        return None
    unit = _unit(event_time_ms)
    if event_time_ms < START_MS:
        return f"event_time {event_time_ms} is before the year 2000{unit}"
    if event_time_ms >= END_MS:
        return f"event_time {event_time_ms} is after the year 9999{unit}"
    return f"event_time {event_time_ms} is more than 1 h after its record's {record_time_ms}{unit}"


def _unit(event_time_ms: int) -> str:
    """The unit in which the number is a time of this half century."""
    for unit, ms in (("seconds", 1000.0), ("microseconds", 1e-3), ("nanoseconds", 1e-6)):
        if START_MS <= event_time_ms * ms < _HALF_CENTURY_MS:
            return f": {unit}? Milliseconds since 1970 are wanted"
    return ""


def check_not_ahead(event_time_ms: int, limit_ms: int) -> None:
    """Raises: InvalidRecordError."""
    if event_time_ms > limit_ms:
        raise InvalidRecordError(
            f"event_time {event_time_ms} is from the future: its partition's clock allows none after {limit_ms}"
        )
