"""Conditions as a rules file says them (docs/semantics.md has every form).

    where:
      payment_method: [card, wallet]                # a value, or one of several
      total_amount: {above: 500.00, below: {TRY: 9000.00, EUR: 250.00}}
      hour: {below: 6}                              # of the shop's day, in the file's time zone
      items: {category: gift cards, quantity: {at_least: 3}}   # one item meets all of it
      any: [{shipping_region: Izmir}, {not: {currency: TRY}}]

All that stands side by side must hold.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping
from typing import Any, Final

from schemas import currencies
from transforms.domain.conditions import HOUR, All, AnyItem, AnyOf, Compared, Condition, Not, OneOf, fields
from transforms.domain.fraud_orders import STATUSES
from transforms.domain.rule_text import RuleError, amounts, whole

__all__ = ["TEXTS", "Conditions"]

TEXTS: Final = ("user_id", "order_id", "session_id", "payment_method", "shipping_region")
_MONEY: Final = ("total_amount", "subtotal", "discount", "shipping")
_ITEM_TEXTS: Final = ("product_id", "product_name", "category")
_ITEM_MONEY: Final = ("unit_price", "total_price")
_ORDER: Final = (*TEXTS, *_MONEY, "order_status", "currency", "is_first_order", "hour", "items")
_ITEM: Final = (*_ITEM_TEXTS, *_ITEM_MONEY, "quantity")
_JOINTS: Final = ("all", "any", "not")
_SIGNS: Final = ("above", "at_least", "below", "at_most")
# What is about several orders, and so no condition on one.
_PATTERNS: Final = ("average", "change", "count", "distinct", "first", "orders", "sequence", "sum", "within")
_MOST_QUANTITY = (1 << 31) - 1


class Conditions:
    """Reads the conditions of one rule.

    Args:
      rule: its name, which errors begin with.
      currency: of amounts that name none.
      zone: in which `hour` is.
    """

    def __init__(self, rule: str, currency: str, zone: str):
        self._rule, self._zone = rule, zone
        self.currency = currency

    def where(self, said: Any) -> Condition:
        """The orders that meet what is said. If it says nothing of `order_status`, those that are CREATED."""
        created = OneOf("order_status", ("CREATED",))
        if said is None:
            return created
        condition = self._all(said, _ORDER, "")
        return condition if "order_status" in fields(condition) else All((created, condition))

    def _refused(self, why: str) -> RuleError:
        return RuleError(f"{self._rule}: {why}")

    def _all(self, said: Any, known: Collection[str], prefix: str) -> Condition:
        """
        Args:
          prefix: `items.` inside of items.
        """
        if not isinstance(said, dict) or not said:
            raise self._refused(f"{prefix or 'where '}{said!r} is not a mapping from fields to what they must be")
        parts = tuple(self._part(str(name), test, known, prefix) for name, test in said.items())
        return parts[0] if len(parts) == 1 else All(parts)

    def _part(self, name: str, test: Any, known: Collection[str], prefix: str) -> Condition:
        if name == "not":
            return Not(self._all(test, known, prefix))
        if name in _JOINTS:
            if not isinstance(test, list) or not test:
                raise self._refused(f"{name}: a list of conditions is needed")
            parts = tuple(self._all(each, known, prefix) for each in test)
            return All(parts) if name == "all" else AnyOf(parts)
        if name in _PATTERNS:
            raise self._refused(
                f"{name}: a condition is about one order; what is about several cannot stand in one, as under `not` a "
                "further order would undo an alert (rules are monotone)"
            )
        if name not in known:
            listed = ", ".join([*sorted(known), *_JOINTS])
            raise self._refused(f"unknown field {prefix + name!r} in a condition; known are {listed}")
        if name == "items":
            return AnyItem(self._all(test, _ITEM, "items."))
        if name in (*_MONEY, *_ITEM_MONEY):
            return self._compared(prefix + name, name, test, is_money=True)
        if name == "hour":
            return self._number(HOUR + self._zone, name, test, 0, 23)
        if name == "quantity":
            return self._number(prefix + name, name, test, 1, _MOST_QUANTITY)
        return self._one_of(prefix + name, name, test)

    def _one_of(self, field: str, name: str, test: Any) -> Condition:
        if name == "is_first_order":
            if not isinstance(test, bool):
                raise self._refused(f"{name} {test!r} is neither true nor false")
            return OneOf(field, (test,))
        values = test if isinstance(test, list) else [test]
        if not values:
            raise self._refused(f"{field}: the list is empty; no order would meet it")
        for value in values:
            if not isinstance(value, str):
                raise self._refused(f"{field} {value!r} is not text; quote it if it is one")
            if name == "order_status" and value not in STATUSES:
                raise self._refused(f"{field} {value!r} is not one of {', '.join(STATUSES)}")
            if name == "currency":
                try:
                    currencies.currency(value)
                except ValueError as e:
                    raise self._refused(f"{field} {e}") from None
        return OneOf(field, tuple(sorted(set(values))))

    def _number(self, field: str, name: str, test: Any, least: int, most: int) -> Condition:
        if isinstance(test, dict):
            return self._compared(field, name, test, is_money=False, least=least, most=most)
        values = test if isinstance(test, list) else [test]
        if not values:
            raise self._refused(f"{name}: the list is empty; no order would meet it")
        return OneOf(field, tuple(sorted({whole(f"{self._rule}: {name}", value, least, most) for value in values})))

    def _compared(
        self, field: str, name: str, test: Any, *, is_money: bool, least: int = 0, most: int | None = None
    ) -> Condition:
        if not isinstance(test, Mapping) or not test or not test.keys() <= {*_SIGNS}:
            example = f"{{above: 500.00}}, or {', '.join(_SIGNS[1:])}"
            raise self._refused(f"{field} {test!r} is not a comparison such as {example}")
        parts = []
        for sign, bound in test.items():
            place = f"{self._rule}: {name} {sign}"
            value = amounts(place, bound, self.currency) if is_money else whole(place, bound, least, most)
            parts.append(Compared(field, sign, value))
        return parts[0] if len(parts) == 1 else All(tuple(parts))
