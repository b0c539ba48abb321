"""The kinds of rules that version 2 of the rules file has, as data, and how they are read.

Every kind is monotone: one more order can complete a pattern, and never undo one. What could not be is refused here,
with that reason.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Final

from transforms.domain.condition_text import Conditions
from transforms.domain.conditions import All, Condition, OneOf, fields
from transforms.domain.rule_text import RuleError, amounts, only, risk_score, span_ms, whole

__all__ = [
    "KINDS",
    "MAX_ORDERS_PER_USER",
    "NO_KINDS",
    "Change",
    "Count",
    "Distinct",
    "First",
    "Pattern",
    "Sequence",
    "Sum",
    "read",
]

MAX_ORDERS_PER_USER: Final = 1_000
"""Bound of a user's state unless a job says otherwise: the newest are kept. No pattern can have more."""
_MOST_STEPS = 10

_ONE_VALUE: Final = ("session_id", "payment_method", "shipping_region", "currency")
_VALUES: Final = (*_ONE_VALUE, "items.product_id", "items.category")
_SUMMED: Final = ("total_amount", "subtotal", "discount", "shipping")


@dataclass(frozen=True)
class _OfOneWhere:
    name: str
    risk_score: float
    where: Condition

    @property
    def conditions(self) -> tuple[Condition, ...]:
        return (self.where,)

    @property
    def fields(self) -> set[str]:
        return {*fields(self.where)}


@dataclass(frozen=True)
class Count(_OfOneWhere):
    """At least `at_least` orders within `span_ms`; a span of 0 for one order alone."""

    at_least: int
    span_ms: int


@dataclass(frozen=True)
class Sum(_OfOneWhere):
    """Orders within `span_ms` whose amounts `of`, in one currency, are above an amount together."""

    of: str
    currency: str
    above_minor: int
    span_ms: int

    @property
    def fields(self) -> set[str]:
        return {*fields(self.where), self.of}


@dataclass(frozen=True)
class Distinct(_OfOneWhere):
    """Orders within `span_ms` that have at least `at_least` values of a field between them."""

    of: str
    at_least: int
    span_ms: int

    @property
    def fields(self) -> set[str]:
        return {*fields(self.where), self.of}


@dataclass(frozen=True)
class Change(_OfOneWhere):
    """An order with another value of a field than an earlier one at most `span_ms` before."""

    of: str
    span_ms: int

    @property
    def fields(self) -> set[str]:
        return {*fields(self.where), self.of}


@dataclass(frozen=True)
class First(_OfOneWhere):
    """A user's first order, if it meets a condition (`where` has both)."""

    span_ms: int = 0


@dataclass(frozen=True)
class Sequence:
    """An order for each step, one after the other, all within `span_ms`."""

    name: str
    risk_score: float
    steps: tuple[Condition, ...]
    span_ms: int

    @property
    def conditions(self) -> tuple[Condition, ...]:
        return self.steps

    @property
    def fields(self) -> set[str]:
        return {field for step in self.steps for field in fields(step)}


Pattern = Count | Sum | Distinct | Change | First | Sequence


def read(name: str, said: dict[str, Any], currency: str, zone: str) -> Pattern:
    """A rule of one of `KINDS`.

    Raises:
      RuleError: naming the rule and the reason.
    """
    known, make = KINDS[said["kind"]]
    for field, why in _NOT_MONOTONE.items():
        if field in said:
            raise RuleError(
                f"{name}: {field}: {why}; rules are monotone, so that alerts do not depend on arrival order"
            )
    only(said, {*known, "kind", "risk_score", "by"}, name)
    by = said.get("by", "user_id")
    if by not in ("user_id", ["user_id"]):
        raise RuleError(f"{name}: by {by!r}: orders are kept by user, so that a rule can only be by user_id")
    return make(name, risk_score(name, said), said, Conditions(name, currency, zone))


_FEWER = "another order would undo the alert"
_NOT_MONOTONE: Final = {
    **dict.fromkeys(("at_most", "below", "exactly", "fewer_than", "less_than", "unless", "without", "not"), _FEWER),
}
NO_KINDS: Final = {
    **dict.fromkeys(("average", "median", "ratio", "share", "trend"), "another order can move it either way"),
    **dict.fromkeys(("absence", "fewer", "last", "latest", "missing", "none", "silence"), _FEWER),
}
"""Kinds that cannot be, and why."""


def _count(name: str, score: float, said: dict[str, Any], conditions: Conditions) -> Pattern:
    where = conditions.where(said.get("where"))
    at_least = whole(f"{name}: at_least", said.get("at_least"), 1, MAX_ORDERS_PER_USER)
    if at_least > 1:
        return Count(name, score, where, at_least, span_ms(name, said))
    if "within" in said:
        raise RuleError(f"{name}: within says nothing where at_least is 1")
    return Count(name, score, where, 1, 0)


def _sum(name: str, score: float, said: dict[str, Any], conditions: Conditions) -> Pattern:
    where, of = conditions.where(said.get("where")), _field(name, said.get("of", "total_amount"), _SUMMED)
    bounds = amounts(f"{name}: above", said.get("above"), conditions.currency)
    if len(bounds) > 1:
        codes = ", ".join(code for code, _ in bounds)
        raise RuleError(f"{name}: above names {codes}; a sum is in one currency, as nothing is converted")
    ((code, minor),) = bounds
    return Sum(name, score, All((OneOf("currency", (code,)), where)), of, code, minor, span_ms(name, said))


def _distinct(name: str, score: float, said: dict[str, Any], conditions: Conditions) -> Pattern:
    where, of = conditions.where(said.get("where")), _field(name, said.get("of"), _VALUES)
    at_least = whole(f"{name}: at_least", said.get("at_least"), 2, MAX_ORDERS_PER_USER)
    return Distinct(name, score, where, of, at_least, span_ms(name, said))


def _change(name: str, score: float, said: dict[str, Any], conditions: Conditions) -> Pattern:
    where, of = conditions.where(said.get("where")), _field(name, said.get("of"), _ONE_VALUE)
    return Change(name, score, where, of, span_ms(name, said))


def _first(name: str, score: float, said: dict[str, Any], conditions: Conditions) -> Pattern:
    return First(name, score, All((OneOf("is_first_order", (True,)), conditions.where(said.get("where")))))


def _sequence(name: str, score: float, said: dict[str, Any], conditions: Conditions) -> Pattern:
    steps = said.get("steps")
    if not isinstance(steps, list) or not 2 <= len(steps) <= _MOST_STEPS:
        raise RuleError(f"{name}: steps: a list of 2 to {_MOST_STEPS} conditions is needed")
    return Sequence(name, score, tuple(conditions.where(step or {}) for step in steps), span_ms(name, said))


def _field(name: str, of: Any, known: tuple[str, ...]) -> str:
    if of not in known:
        raise RuleError(f"{name}: of {of!r} is not one of {', '.join(known)}")
    return str(of)


KINDS: Final[dict[str, tuple[set[str], Callable[[str, float, dict[str, Any], Conditions], Pattern]]]] = {
    "count": ({"where", "at_least", "within"}, _count),
    "sum": ({"where", "of", "above", "within"}, _sum),
    "distinct": ({"where", "of", "at_least", "within"}, _distinct),
    "change": ({"where", "of", "within"}, _change),
    "first": ({"where"}, _first),
    "sequence": ({"steps", "within"}, _sequence),
}
