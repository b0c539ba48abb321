"""What a compiled mapping calls: a value of somebody's message as one of ours. Each raises `Fault` with the reason."""

from __future__ import annotations

import hashlib
import re
from datetime import UTC, datetime, timedelta
from decimal import ROUND_HALF_UP, Decimal
from typing import Any, Final
from zoneinfo import ZoneInfo

from schemas.currencies import EXPONENTS
from schemas.times import START_MS

__all__ = [
    "UNITS",
    "Fault",
    "any_of",
    "flag",
    "hashed",
    "minor",
    "money",
    "number_at",
    "pick",
    "same",
    "text",
    "time_ms",
    "whole",
]

UNITS: Final = {"s": 1_000_000_000, "ms": 1_000_000, "us": 1_000, "ns": 1}
_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
_MILLISECOND = timedelta(milliseconds=1)
_MOST = (1 << 63) - 1
_MOST_CHARS = 10_000
# Not all that Decimal takes: no 1e999, no NaN, no digits of other scripts.
_NUMBER = re.compile(r"-?[0-9]{1,19}(\.[0-9]{1,18})?", re.ASCII)
_USUAL = re.compile(r"([0-9]{1,12})(?:\.([0-9]{1,4}))?", re.ASCII)
_FLOAT = re.compile(r"-?[0-9]+(\.[0-9]+)?([eE][+-]?[0-9]{1,2})?", re.ASCII)
_ISO = re.compile(
    r"(\d{4}-\d\d-\d\d)[T ](\d\d:\d\d(?::\d\d)?)(?:[.,](\d{1,9}))?\s?(Z|z|UTC|[+-](?:[01]\d|2[0-3])(?::?[0-5]\d)?)?",
    re.ASCII,
)
_PLAUSIBLE = (START_MS // 1000, 4_102_444_800)  # 2000 to 2100, in seconds


class Fault(ValueError):
    """A value that is not what it should be."""


def _short(value: Any) -> str:
    return repr(value)[:80]


def text(value: Any) -> str:
    if type(value) is str:
        return value
    if type(value) is int:
        return str(value)
    if type(value) is float and value.is_integer() and abs(value) < 1 << 53:
        return str(int(value))  # ids that a spreadsheet or JavaScript made floats
    raise Fault(f"{_short(value)} is not text")


def whole(value: Any) -> int:
    if type(value) is int:
        found = value
    elif type(value) is float and value.is_integer():
        found = int(value)
    elif type(value) is str and _NUMBER.fullmatch(value) and Decimal(value) == int(Decimal(value)):
        found = int(Decimal(value))
    else:
        raise Fault(f"{_short(value)} is not a whole number")
    if not -(1 << 31) <= found < 1 << 31:
        raise Fault(f"{_short(value)} is too large")
    return found


def flag(value: Any) -> bool:
    if type(value) is bool:
        return value
    if value in (0, 1, "true", "false", "0", "1"):
        return value in (1, "true", "1")
    raise Fault(f"{_short(value)} is neither true nor false")


def decimal(value: Any) -> Decimal:
    """As its text says: a float as the shortest decimal that is it."""
    if type(value) is int:
        if abs(value) <= _MOST:
            return Decimal(value)
    elif type(value) is float:
        if _FLOAT.fullmatch(shown := repr(value)) and abs(value) < 1e18:
            return Decimal(shown)
    elif type(value) is str and _NUMBER.fullmatch(value):
        return Decimal(value)
    raise Fault(f"{_short(value)} is not an amount")


def exponent(currency: Any) -> int:
    if currency == "":
        return 2  # that it is missing is said already
    if currency is None:
        raise Fault("there is no currency, so an amount cannot be read")
    digits = EXPONENTS.get(currency) if type(currency) is str else None
    if digits is None:
        raise Fault(f"{_short(currency)} is not a currency of ISO 4217, so an amount in it cannot be read")
    return digits


def money(value: Any, currency: Any) -> int:
    """Main units as minor units. Finer than those is rounded, half away from zero."""
    digits = exponent(currency)
    if type(value) is str or type(value) is float:  # almost all: no Decimal is needed to add zeros
        found = _USUAL.fullmatch(value if type(value) is str else repr(value))
        if found and len(fraction := found[2] or "") <= digits:
            return int(found[1] + fraction.ljust(digits, "0"))
    return _scaled(decimal(value), digits)


def _scaled(amount: Decimal, digits: int) -> int:
    found = int(amount.scaleb(digits).to_integral_value(ROUND_HALF_UP))
    if abs(found) > _MOST:
        raise Fault(f"{amount} is too large")
    return found


def minor(value: Any) -> int:
    """An amount that is in minor units already."""
    amount = decimal(value)
    if amount != int(amount):
        raise Fault(f"{_short(value)} is not a whole number of minor units")
    return _scaled(amount, 0)


def time_ms(value: Any, unit: str, zone: ZoneInfo | None) -> int:
    """Epoch milliseconds of a number (or its digits) or of an ISO 8601 text.

    Args:
      unit: of numbers; auto: the one in which it is a time of this century.
      zone: of a text that has none.
    """
    if type(value) is str:
        found = _ISO.fullmatch(value)
        if found:
            return _of_iso(found, zone)
    if unit == "iso":
        raise Fault(f"{_short(value)} is not a time of ISO 8601")
    try:
        number = decimal(value)
    except Fault:
        raise Fault(f"{_short(value)} is neither a time of ISO 8601, with the clock, nor a number since 1970") from None
    if unit == "auto":
        fits = [u for u, ns in UNITS.items() if _PLAUSIBLE[0] <= number * ns / UNITS["s"] < _PLAUSIBLE[1]]
        if not fits:
            raise Fault(f"{_short(value)} is no time of this century in s, ms, us or ns")
        unit = fits[0]
    found_ms = int(number * UNITS[unit] // UNITS["ms"])
    if abs(found_ms) > _MOST:
        raise Fault(f"{_short(value)} is too large")
    return found_ms


def _of_iso(found: re.Match[str], zone: ZoneInfo | None) -> int:
    day, clock, fraction, offset = found.groups()
    try:
        if offset is None:
            if zone is None:
                raise Fault(f"{_short(found[0])} has no time zone, and the mapping gives none")
            at = datetime.fromisoformat(f"{day}T{clock}").replace(tzinfo=zone)
        else:
            at = datetime.fromisoformat(f"{day}T{clock}{'+00:00' if offset in ('Z', 'z', 'UTC') else offset}")
        return (at - _EPOCH) // _MILLISECOND + int(f"{fraction or '0':0<3}"[:3])
    except (ValueError, OverflowError) as e:
        raise e if isinstance(e, Fault) else Fault(f"{_short(found[0])} is not a time: {e}") from None


def hashed(*values: Any) -> str:
    """The same id for the same values. Not secret: whoever knows a value can hash it, too."""
    joined = "\0".join(text(value) if value is not None else "" for value in values)
    return hashlib.sha256(joined.encode(errors="surrogatepass")).hexdigest()[:32]


def pick(items: Any, key: str, wanted: str) -> Any:
    """Of an array of objects, the first whose `key` is `wanted`."""
    if isinstance(items, list):
        for item in items:
            if isinstance(item, dict) and item.get(key) == wanted:
                return item
    return None


def number_at(items: Any, at: int) -> Any:
    return items[at] if isinstance(items, list) and -len(items) <= at < len(items) else None


def any_of(fields: Any) -> Any:
    """Of an object of which one field is filled, that one's value."""
    if isinstance(fields, dict):
        for value in fields.values():
            if value is not None:
                return value
    return None


def same(value: Any, wanted: frozenset[Any]) -> bool:
    return type(value) in (str, int, float, bool) and (type(value) is bool, value) in wanted
