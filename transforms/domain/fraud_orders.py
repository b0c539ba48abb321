"""What fraud rules keep of an order: a tuple of what almost every rule looks at, and the fields that only some do.

    (event_time_ms, order_id, flags, amount_minor, region)
    (event_time_ms, order_id, flags, amount_minor, region, (fields, value, …))

It sorts as the semantics want, and a hundred thousand users' worth of it is held in memory and in checkpoints. The last
element is there only when a rule of version 2 needs it. `fields` says which values follow, one bit for each of `EXTRA`,
so that a checkpoint is read by other rules than those that wrote it. A value is None in an order that was kept before
the rules needed it: it meets no condition on that field.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from operator import attrgetter
from typing import Any, Final, get_args

from schemas.currencies import number_of
from schemas.events import OrderStatus

__all__ = [
    "CREATED",
    "CURRENCY_SHIFT",
    "EXTRA",
    "FIRST_ORDER",
    "STATUSES",
    "STATUS_BITS",
    "Order",
    "UserOrders",
    "attribute",
    "bits_of",
    "extra_of",
    "fields_of",
    "fitted",
    "order_flags",
    "prune",
    "record_fields",
    "renewed",
]

STATUSES: tuple[str, ...] = get_args(OrderStatus)
CREATED = STATUSES.index("CREATED")

Order = tuple[int, str, int, int, str] | tuple[int, str, int, int, str, tuple[Any, ...]]
UserOrders = list[Order]  # sorted

# flags: the status in the low three bits, then whether it is a first order, then the number of the currency.
FIRST_ORDER: Final = 8
STATUS_BITS: Final = 7
CURRENCY_SHIFT: Final = 5
# Of releases that did not keep the currency: whether it was that of the rules.
_IN_RULES_CURRENCY = 16
_NO_CURRENCY = number_of("XXX")  # ISO 4217's; no rule has an amount in it

# The number of a field is part of checkpoints: new ones come last.
EXTRA: Final = (
    *("user_id", "session_id", "payment_method", "subtotal", "discount", "shipping"),
    *("items.product_id", "items.product_name", "items.category", "items.quantity", "items.unit_price"),
    "items.total_price",
)
_MONEY = {"subtotal", "discount", "shipping", "items.unit_price", "items.total_price"}


def order_flags(status: Any, is_first_order: Any, currency: Any) -> Any:
    """Status (0 to 5), first order (0 or 1) and number of the currency as one number; or whole columns of them."""
    return status | is_first_order * FIRST_ORDER | currency << CURRENCY_SHIFT


def renewed(order: Order, currency: str) -> Order:
    """An order of a checkpoint; `currency` is that of the rules."""
    flags = order[2]
    if flags >> CURRENCY_SHIFT:
        return order
    number = number_of(currency) if flags & _IN_RULES_CURRENCY else _NO_CURRENCY
    at_ms, order_id, _, amount_minor, region = order[:5]
    return at_ms, order_id, order_flags(flags & STATUS_BITS, (flags & FIRST_ORDER) >> 3, number), amount_minor, region


def bits_of(fields: Iterable[str]) -> int:
    """Those of the fields that are in `EXTRA`, a bit for each."""
    return sum(1 << EXTRA.index(field) for field in {*fields} & {*EXTRA})


def fields_of(bits: int) -> list[str]:
    """The inverse of `bits_of`, in the order of the values."""
    return [field for number, field in enumerate(EXTRA) if bits >> number & 1]


def attribute(field: str) -> str:
    """What the record, or its item, calls a field of `EXTRA`."""
    return field.removeprefix("items.") + ("_minor" if field in _MONEY else "")


def record_fields(bits: int) -> list[str]:
    """Fields of a record that `extra_of` reads; the user's id goes without saying."""
    names = {"items" if field.startswith("items.") else attribute(field) for field in fields_of(bits)}
    return sorted(names - {"user_id"})


def extra_of(bits: int) -> Callable[[Any], tuple[Any, ...]]:
    """What makes the last element of an order, out of its record."""
    getters = [_getter(field) for field in fields_of(bits)]
    return lambda record: (bits, *[get(record) for get in getters])


def _getter(field: str) -> Callable[[Any], Any]:
    get = attrgetter(attribute(field))
    return (lambda record: tuple([get(item) for item in record.items])) if field.startswith("items.") else get


def fitted(order: Order, bits: int) -> Order:
    """An order that may have been kept for other rules, with exactly the fields of these."""
    had: tuple[Any, ...] = order[5] if len(order) == 6 else (0,)
    if had[0] == bits:
        return order
    if not bits:
        return order[:5]
    values = dict(zip(fields_of(had[0]), had[1:], strict=True))
    return (*order[:5], (bits, *[values.get(field) for field in fields_of(bits)]))


def prune(orders: UserOrders, floors_ms: list[int]) -> None:
    """Forgets, in place, orders older than the floor of their status (event time, ms; one floor per status)."""
    orders[:] = [o for o in orders if o[0] >= floors_ms[o[2] & STATUS_BITS]]
