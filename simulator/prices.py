"""Prices of the catalogue, which are in lira, in the currencies that a shop sells in."""

from __future__ import annotations

import zlib
from collections.abc import Sequence
from decimal import Decimal
from typing import Final

import msgspec

from schemas.currencies import DEFAULT, exponent
from schemas.events import OrderItem

__all__ = ["Prices"]

# Main units for a lira, roughly and for good: equal flags give equal events. Others are taken one for one.
_RATES: Final = {"EUR": "0.02", "GBP": "0.017", "JPY": "3.6", "KWD": "0.007", "SAR": "0.09", "USD": "0.024"}


class Prices:
    """Every user pays in one of these currencies, always the same one."""

    def __init__(self, currencies: Sequence[str]):
        self._currencies = currencies

    def currency_of(self, user_id: str) -> str:
        return self._currencies[zlib.crc32(user_id.encode()) % len(self._currencies)]

    def amount(self, lira_minor: int, currency: str) -> int:
        """In minor units of the currency; something that costs anything costs at least one."""
        if currency == DEFAULT or not lira_minor:
            return lira_minor
        main = Decimal(lira_minor).scaleb(-exponent(DEFAULT)) * Decimal(_RATES.get(currency, "1"))
        return max(1, round(main.scaleb(exponent(currency))))

    def lines(self, lines: list[OrderItem], currency: str) -> list[OrderItem]:
        if currency == DEFAULT:
            return lines
        return [self._line(line, self.amount(line.unit_price_minor, currency)) for line in lines]

    def _line(self, line: OrderItem, unit_minor: int) -> OrderItem:
        total_minor = line.quantity * unit_minor
        return msgspec.structs.replace(line, unit_price_minor=unit_minor, total_price_minor=total_minor)
