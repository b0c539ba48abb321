"""The fraud rules as data, parsed from the YAML file and validated."""

from __future__ import annotations

from dataclasses import dataclass, field
from importlib.resources import files  # not paths: Spark imports us from a zip
from typing import Any, Final

from schemas import currencies
from schemas.times import time_zone
from transforms.domain import fraud_patterns
from transforms.domain.conditions import All, AnyOf, Compared, Condition, OneOf, floors, meets
from transforms.domain.fraud_orders import CREATED, STATUSES, bits_of
from transforms.domain.fraud_patterns import KINDS, MAX_ORDERS_PER_USER, NO_KINDS, Pattern
from transforms.domain.rule_text import Amounts, RuleError, amounts, only, risk_score, span_ms, whole, yaml_of

__all__ = [
    "MAX_ORDERS_PER_USER",
    "STATUSES",
    "Amounts",
    "Burst",
    "Decisions",
    "FirstOrder",
    "LocationChange",
    "Rule",
    "RuleError",
    "Rules",
    "default_rules",
    "parse_rules",
]


@dataclass(frozen=True)
class Burst:
    """At least `orders` orders of one status, each above `above_minor` in its currency if given, within `span_ms`."""

    name: str
    risk_score: float
    orders: int
    span_ms: int
    status: int = CREATED
    above_minor: Amounts | None = None

    @property
    def conditions(self) -> tuple[Condition, ...]:
        of_status = OneOf("order_status", (STATUSES[self.status],))
        return (_above(of_status, self.above_minor) if self.above_minor is not None else of_status,)


@dataclass(frozen=True)
class FirstOrder:
    """A user's first order, above an amount in its currency."""

    name: str
    risk_score: float
    above_minor: Amounts

    @property
    def conditions(self) -> tuple[Condition, ...]:
        return (_above(OneOf("is_first_order", (True,)), self.above_minor, _ONLY_CREATED),)

    @property
    def span_ms(self) -> int:
        return 0


@dataclass(frozen=True)
class LocationChange:
    """A CREATED order from another region than an earlier one at most `span_ms` before."""

    name: str
    risk_score: float
    span_ms: int

    @property
    def conditions(self) -> tuple[Condition, ...]:
        return (_ONLY_CREATED,)


_ONLY_CREATED: Final = OneOf("order_status", ("CREATED",))


def _above(condition: Condition, above_minor: Amounts, *more: Condition) -> Condition:
    return All((condition, *more, Compared("total_amount", "above", above_minor)))


Rule = Burst | FirstOrder | LocationChange | Pattern


@dataclass(frozen=True)
class Decisions:
    """From which score on an order that is not placed yet is reviewed or blocked. Jobs do not look at it."""

    review: float = 0.6
    block: float = 0.9

    def __post_init__(self) -> None:
        for name, score in (("review", self.review), ("block", self.block)):
            if isinstance(score, bool) or not isinstance(score, int | float) or not 0 <= score <= 1:
                raise RuleError(f"decisions: {name} {score!r} is not a number from 0 to 1")
        if self.review > self.block:
            raise RuleError(f"decisions: review {self.review} is above block {self.block}")


@dataclass(frozen=True)
class Rules:
    """A validated rule set.

    Attributes:
      currency: of amounts for which no other is said.
      decisions: no part of what alerts depend on, and so of the repr, which the daily batch knows rules by.
    """

    currency: str
    rules: tuple[Rule, ...]
    decisions: Decisions = field(default=Decisions(), repr=False)

    def __post_init__(self) -> None:
        if not self.rules:
            raise RuleError("rules: at least one rule is needed")

    def touching(self, status: int) -> list[Rule]:
        """The rules that an order of this status can matter to."""
        return [r for r in self.rules if any(meets(c, status) is not False for c in r.conditions)]

    def span_ms(self, status: int) -> int | None:
        """For how long before and after an order another one of this status can matter; None: never."""
        return max((r.span_ms for r in self.touching(status)), default=None)

    def least_minor(self, status: int) -> dict[str, int] | None:
        """By currency: orders of this status at or below this amount touch no rule, and those in others touch none;
        None: every order of this status may."""
        return floors(AnyOf(tuple(c for rule in self.rules for c in rule.conditions)), status)

    @property
    def exact(self) -> Condition | None:
        """What every order meets that touches a rule, where that says more than `least_minor`: with a rule of
        version 2. An order that meets it not is not kept."""
        if not any(isinstance(rule, Pattern) for rule in self.rules):
            return None
        return AnyOf(tuple(c for rule in self.rules for c in rule.conditions))

    @property
    def bits(self) -> int:
        """The fields that orders are kept with beside those that every rule looks at; see `fraud_orders`."""
        return bits_of(name for rule in self.rules if isinstance(rule, Pattern) for name in rule.fields)


def default_rules() -> Rules:
    """The rules that the package ships."""
    return parse_rules(files("transforms.domain").joinpath("fraud_rules.yaml").read_text(encoding="utf-8"))


def parse_rules(text: str) -> Rules:
    """Reads and validates a rules file.

    Raises:
      RuleError: naming the rule and the reason.
    """
    document = yaml_of(text)
    if not isinstance(document, dict):
        raise RuleError("a mapping with version, currency and rules is needed")
    version = document.get("version")
    if isinstance(version, bool) or version not in (1, 2):
        only(document, _FILE[2], "the file")
        raise RuleError(f"version: {version!r} is not known; this release reads versions 1 and 2")
    only(document, _FILE[version], "the file")
    try:
        currency = currencies.currency(document.get("currency"))
    except ValueError as e:
        raise RuleError(f"currency: {e}") from None
    try:
        zone = time_zone(_text(document.get("time_zone", "UTC")))
    except ValueError as e:
        raise RuleError(f"time_zone: {e}") from None
    rules = document.get("rules")
    if not isinstance(rules, dict):
        raise RuleError("rules: a mapping from rule name to rule is needed")
    read = tuple(_rule(str(name), said, currency, zone, version) for name, said in rules.items())
    return Rules(currency, read, _decisions(document.get("decisions", {})))


_FILE: Final = {
    1: {"version", "currency", "decisions", "rules"},
    2: {"version", "currency", "time_zone", "decisions", "rules"},
}
_OLDER: Final = {
    "burst": {"orders", "within", "status", "above"},
    "first_order": {"above"},
    "location_change": {"within"},
}


def _text(value: Any) -> str:
    if not isinstance(value, str):
        raise ValueError(f"{value!r} is not a time zone such as UTC or Europe/Istanbul")
    return value


def _decisions(fields: Any) -> Decisions:
    if not isinstance(fields, dict):
        raise RuleError("decisions: a mapping with review and block is needed")
    only(fields, {"review", "block"}, "decisions")
    return Decisions(**fields)


def _rule(name: str, fields: Any, currency: str, zone: str, version: int) -> Rule:
    if not isinstance(fields, dict):
        raise RuleError(f"{name}: a mapping is needed")
    kind = fields.get("kind")
    kinds = _OLDER if version == 1 else {**_OLDER, **KINDS}
    if not isinstance(kind, str) or kind not in kinds:
        if version > 1 and isinstance(kind, str) and kind in NO_KINDS:
            raise RuleError(f"{name}: {kind} cannot be a rule: {NO_KINDS[kind]}, and rules are monotone")
        raise RuleError(f"{name}: kind {kind!r} is not one of {', '.join(kinds)}")
    if kind in KINDS:
        return fraud_patterns.read(name, fields, currency, zone)
    only(fields, _OLDER[kind] | {"kind", "risk_score"}, name)
    score = risk_score(name, fields)
    if kind == "first_order":
        return FirstOrder(name, score, amounts(f"{name}: above", fields.get("above"), currency))
    if kind == "location_change":
        return LocationChange(name, score, span_ms(name, fields))
    orders, status = whole(f"{name}: orders", fields.get("orders"), 2), fields.get("status", "CREATED")
    if status not in STATUSES:
        raise RuleError(f"{name}: status {status!r} is not one of {', '.join(STATUSES)}")
    above = amounts(f"{name}: above", fields["above"], currency) if "above" in fields else None
    return Burst(name, score, orders, span_ms(name, fields), STATUSES.index(status), above)
