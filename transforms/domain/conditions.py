"""Conditions on one order, as data, and compiled to one Python expression for each.

A condition is about one order alone, so it may say `not`: whatever it says, a further order changes nothing of it.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any, Final
from zoneinfo import ZoneInfo

from schemas.currencies import decimal, number_of
from schemas.times import END_MS
from transforms.domain.fraud_orders import CURRENCY_SHIFT, EXTRA, FIRST_ORDER, STATUS_BITS, STATUSES, Order, fields_of
from transforms.domain.rule_text import Amounts

__all__ = [
    "HOUR",
    "All",
    "AnyItem",
    "AnyOf",
    "Compared",
    "Condition",
    "Not",
    "OneOf",
    "fields",
    "floors",
    "matcher",
    "meets",
    "value_of",
]

HOUR: Final = "hour in "
"""And the zone: the field of the hour of a shop's day."""
_SIGNS: Final = {"above": ">", "at_least": ">=", "below": "<", "at_most": "<="}
_NEVER: Final = {">": 1 << 63, ">=": 1 << 63, "<": -1, "<=": -1}  # no amount is on that side
_MOST_SHOWN = 3  # values of a set, in a description
_TWO_DAYS_MS = 172_800_000

# An order `o` is described in `fraud_orders`.
_PLACES: Final = {
    "order_id": "o[1]",
    "order_status": f"(o[2] & {STATUS_BITS})",
    "is_first_order": f"(o[2] & {FIRST_ORDER} != 0)",
    "currency": f"(o[2] >> {CURRENCY_SHIFT})",
    "total_amount": "o[3]",
    "shipping_region": "o[4]",
}


@dataclass(frozen=True)
class OneOf:
    """A field has one of these values: texts, codes of currencies, names of statuses, whole numbers, or a flag."""

    field: str
    values: tuple[Any, ...]

    def __str__(self) -> str:
        if isinstance(self.values[0], bool):
            return self.field if self.values[0] else f"not {self.field}"
        shown = [str(value) for value in self.values[:_MOST_SHOWN]]
        more = len(self.values) - _MOST_SHOWN
        return f"{self.field} {' or '.join(shown)}" + (f" or {more} more" if more > 0 else "")


@dataclass(frozen=True)
class Compared:
    """A field is above, at_least, below or at_most a number; or an amount in the order's currency, for one that is
    among these. No other currency's amount compares."""

    field: str
    sign: str
    bound: int | Amounts

    def __str__(self) -> str:
        bound = self.bound
        shown = str(bound) if isinstance(bound, int) else " or ".join(f"{decimal(minor, c)} {c}" for c, minor in bound)
        return f"{self.field} {self.sign.replace('_', ' ')} {shown}"


@dataclass(frozen=True)
class AnyItem:
    """One item of the order meets the condition, whose fields are those of items."""

    of: Condition

    def __str__(self) -> str:
        return f"an item with {self.of}"


@dataclass(frozen=True)
class All:
    parts: tuple[Condition, ...]

    def __str__(self) -> str:
        return " and ".join(map(str, self.parts))


@dataclass(frozen=True)
class AnyOf:
    parts: tuple[Condition, ...]

    def __str__(self) -> str:
        return f"({' or '.join(map(str, self.parts))})"


@dataclass(frozen=True)
class Not:
    of: Condition

    def __str__(self) -> str:
        return f"not ({self.of})"


Condition = OneOf | Compared | AnyItem | All | AnyOf | Not


def fields(condition: Condition) -> Iterator[str]:
    """Those that it looks at."""
    match condition:
        case OneOf() | Compared():
            yield condition.field
        case AnyItem() | Not():
            yield from fields(condition.of)
        case _:
            for part in condition.parts:
                yield from fields(part)


def meets(condition: Condition, status: int) -> bool | None:
    """Whether orders of this status meet it; None: it depends on more."""
    match condition:
        case OneOf(field="order_status"):
            return STATUSES[status] in condition.values
        case All():
            parts = [meets(part, status) for part in condition.parts]
            return False if False in parts else None if None in parts else True
        case AnyOf():
            parts = [meets(part, status) for part in condition.parts]
            return True if True in parts else None if None in parts else False
        case Not():
            inner = meets(condition.of, status)
            return None if inner is None else not inner
        case _:
            return None


def floors(condition: Condition, status: int) -> dict[str, int] | None:
    """By currency: orders of this status at or below this total do not meet it, nor do those in other currencies;
    None: any may."""
    if meets(condition, status) is False:
        return {}
    match condition:
        case Compared(field="total_amount", bound=tuple() as bound):
            less = {"above": 0, "at_least": 1}.get(condition.sign)
            return {code: -1 if less is None else minor - less for code, minor in bound}
        case OneOf(field="currency"):
            return dict.fromkeys(condition.values, -1)
        case All():
            met = [of for part in condition.parts if (of := floors(part, status)) is not None]
            if not met:
                return None
            return {code: max(of[code] for of in met) for code in met[0] if all(code in of for of in met)}
        case AnyOf():
            least: dict[str, int] = {}
            for part in condition.parts:
                if (of := floors(part, status)) is None:
                    return None
                for code, minor in of.items():
                    least[code] = min(minor, least.get(code, minor))
            return least
        case _:
            return None


def matcher(condition: Condition, bits: int, *more: str) -> Callable[[Order], bool]:
    """Which orders meet a condition, and have the fields that it and the rule look at.

    Args:
      bits: the fields of `EXTRA` that orders are kept with.
      more: fields that the rule needs beside those of the condition.
    """
    source = _Source(bits)
    needed = sorted({*fields(condition), *more} & {*EXTRA})
    there = [f"{source.place(field)} is not None" for field in needed]
    made: Callable[[Order], bool] = source.function(" and ".join([*there, source.of(condition)]))
    return made


def value_of(field: str, bits: int) -> Callable[[Order], Any]:
    """A field of an order. One of items is the values of all of them."""
    source = _Source(bits)
    return source.function(source.place(field))


class _Source:
    """Python of conditions. Values of a file are constants beside it, never part of its text."""

    def __init__(self, bits: int):
        self._fields = fields_of(bits)
        self._constants: dict[str, Any] = {}

    def function(self, expression: str) -> Callable[[Order], Any]:
        made: Callable[[Order], Any] = eval(f"lambda o: {expression}", self._constants)  # noqa: S307 - only our text
        return made

    def place(self, field: str) -> str:
        if field.startswith(HOUR):
            return f"{self._constant(_hour_in(field.removeprefix(HOUR)))}(o[0])"
        return _PLACES.get(field) or f"o[5][{1 + self._fields.index(field)}]"

    def of(self, condition: Condition, places: dict[str, str] | None = None) -> str:
        """
        Args:
          places: where the fields of items are.
        """
        match condition:
            case OneOf():
                place = places[condition.field] if places else self.place(condition.field)
                return self._one_of(place, condition)
            case Compared():
                place = places[condition.field] if places else self.place(condition.field)
                return self._compared(place, condition)
            case AnyItem():
                names = sorted(set(fields(condition.of)))
                inner = {name: f"i{number}" for number, name in enumerate(names)}
                items = ", ".join(map(self.place, names))
                each = ", ".join(inner.values())
                return f"any({self.of(condition.of, inner)} for {each}, in zip({items}))"
            case Not():
                return f"(not {self.of(condition.of, places)})"
            case All():
                return f"({' and '.join(self.of(part, places) for part in condition.parts)})"
            case AnyOf():
                return f"({' or '.join(self.of(part, places) for part in condition.parts)})"

    def _one_of(self, place: str, condition: OneOf) -> str:
        if condition.field == "order_status":
            values = frozenset(map(STATUSES.index, condition.values))
        elif condition.field == "currency":
            values = frozenset(map(number_of, condition.values))
        else:
            values = frozenset(condition.values)
        if len(values) == 1:
            return f"({place} == {self._constant(next(iter(values)))})"
        return f"({place} in {self._constant(values)})"

    def _compared(self, place: str, condition: Compared) -> str:
        sign = _SIGNS[condition.sign]
        if isinstance(condition.bound, int):
            return f"({place} {sign} {condition.bound})"
        bounds = self._constant({number_of(code): minor for code, minor in condition.bound})
        return f"({place} {sign} {bounds}.get({_PLACES['currency']}, {_NEVER[sign]}))"

    def _constant(self, value: Any) -> str:
        name = f"k{len(self._constants)}"
        self._constants[name] = value
        return name


def _hour_in(zone: str) -> Callable[[int], int]:
    info = UTC if zone == "UTC" else ZoneInfo(zone)  # a small image may lack data of zones
    last_ms = END_MS - _TWO_DAYS_MS

    def hour(at_ms: int) -> int:
        # A zone's clock may show the year 10000, which no datetime can hold; two days before, it shows the same hour.
        return datetime.fromtimestamp((at_ms if at_ms < last_ms else at_ms - _TWO_DAYS_MS) // 1000, info).hour

    return hour
