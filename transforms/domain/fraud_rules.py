"""The fraud rules as data, parsed from the YAML file and validated."""

from __future__ import annotations

from dataclasses import dataclass
from importlib.resources import files  # not paths: Spark imports us from a zip
from typing import Any, get_args

import yaml

from schemas import currencies
from schemas.events import OrderStatus
from transforms.domain.durations import parse_duration_ms

__all__ = [
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
]

STATUSES: tuple[str, ...] = get_args(OrderStatus)
CREATED = STATUSES.index("CREATED")

Amounts = tuple[tuple[str, int], ...]
"""Currency and minor units, in the order of the currencies."""


class RuleError(ValueError):
    """A rules file that cannot be used; the message names the rule and the reason."""


@dataclass(frozen=True)
class Burst:
    """At least `orders` orders of one status, each above `above_minor` in its currency if given, within `span_ms`."""

    name: str
    risk_score: float
    orders: int
    span_ms: int
    status: int = CREATED
    above_minor: Amounts | None = None


@dataclass(frozen=True)
class FirstOrder:
    """A user's first order, above an amount in its currency."""

    name: str
    risk_score: float
    above_minor: Amounts


@dataclass(frozen=True)
class LocationChange:
    """A CREATED order from another region than an earlier one at most `span_ms` before."""

    name: str
    risk_score: float
    span_ms: int


Rule = Burst | FirstOrder | LocationChange


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
    """

    currency: str
    rules: tuple[Rule, ...]
    decisions: Decisions = Decisions()

    def __post_init__(self) -> None:
        if not self.rules:
            raise RuleError("rules: at least one rule is needed")

    def span_ms(self, status: int) -> int | None:
        """For how long before and after an order another one of this status can matter; None: never."""
        spans = [r.span_ms for r in self.rules if isinstance(r, Burst) and r.status == status]
        spans += [r.span_ms for r in self.rules if isinstance(r, LocationChange) and status == CREATED]
        spans += [0 for r in self.rules if isinstance(r, FirstOrder) and status == CREATED]
        return max(spans, default=None)

    def least_minor(self, status: int) -> dict[str, int] | None:
        """By currency: orders of this status at or below this amount touch no rule, and those in others touch none;
        None: every order of this status does."""
        floors: dict[str, int] = {}
        for rule in self.rules:
            if isinstance(rule, LocationChange):
                above: Amounts | None = None if status == CREATED else ()
            elif isinstance(rule, Burst):
                above = rule.above_minor if status == rule.status else ()
            else:
                above = rule.above_minor if status == CREATED else ()
            if above is None:
                return None
            for code, minor in above:
                floors[code] = min(minor, floors.get(code, minor))
        return floors


def default_rules() -> Rules:
    """The rules that the package ships."""
    return parse_rules(files("transforms.domain").joinpath("fraud_rules.yaml").read_text(encoding="utf-8"))


def parse_rules(text: str) -> Rules:
    """Reads and validates a rules file.

    Raises:
      RuleError: naming the rule and the reason.
    """
    try:
        document = yaml.load(text, _StrictLoader)  # noqa: S506 - derived from SafeLoader
    except yaml.YAMLError as e:
        raise RuleError(f"not YAML: {' '.join(str(e).split())}") from e
    if not isinstance(document, dict):
        raise RuleError("a mapping with version, currency and rules is needed")
    _only(document, {"version", "currency", "rules", "decisions"}, "the file")
    if document.get("version") != 1:
        raise RuleError(f"version: {document.get('version')!r} is not known; this release reads version 1")
    try:
        currency = currencies.currency(document.get("currency"))
    except ValueError as e:
        raise RuleError(f"currency: {e}") from None
    rules = document.get("rules")
    if not isinstance(rules, dict):
        raise RuleError("rules: a mapping from rule name to rule is needed")
    found = tuple(_rule(str(name), fields, currency) for name, fields in rules.items())
    return Rules(currency, found, _decisions(document.get("decisions", {})))


def _decisions(fields: Any) -> Decisions:
    if not isinstance(fields, dict):
        raise RuleError("decisions: a mapping with review and block is needed")
    _only(fields, {"review", "block"}, "decisions")
    return Decisions(**fields)


class _StrictLoader(yaml.SafeLoader):
    """YAML lets a later key of the same name win; here one rule would silently disappear."""

    def construct_mapping(self, node: yaml.MappingNode, deep: bool = False) -> dict[Any, Any]:
        names = [key.value for key, _ in node.value]
        for name in names:
            if names.count(name) > 1:
                raise RuleError(f"{name}: is defined twice")
        return super().construct_mapping(node, deep)


_FIELDS = {
    "burst": {"orders", "within", "status", "above"},
    "first_order": {"above"},
    "location_change": {"within"},
}


def _rule(name: str, fields: Any, currency: str) -> Rule:
    if not isinstance(fields, dict):
        raise RuleError(f"{name}: a mapping is needed")
    kind = fields.get("kind")
    if not isinstance(kind, str) or kind not in _FIELDS:
        raise RuleError(f"{name}: kind {kind!r} is not one of {', '.join(_FIELDS)}")
    _only(fields, _FIELDS[kind] | {"kind", "risk_score"}, name)
    score = fields.get("risk_score")
    if isinstance(score, bool) or not isinstance(score, int | float) or not 0 <= score <= 1:
        raise RuleError(f"{name}: risk_score {score!r} is not a number from 0 to 1")
    if kind == "first_order":
        return FirstOrder(name, float(score), _amounts(name, fields.get("above"), currency))
    if kind == "location_change":
        return LocationChange(name, float(score), _span(name, fields))
    orders, status = fields.get("orders"), fields.get("status", "CREATED")
    if isinstance(orders, bool) or not isinstance(orders, int) or orders < 2:
        raise RuleError(f"{name}: orders {orders!r} is not a whole number of at least 2")
    if status not in STATUSES:
        raise RuleError(f"{name}: status {status!r} is not one of {', '.join(STATUSES)}")
    above = _amounts(name, fields["above"], currency) if "above" in fields else None
    return Burst(name, float(score), orders, _span(name, fields), STATUSES.index(status), above)


def _only(fields: dict[str, Any], known: set[str], where: str) -> None:
    unknown = sorted(str(key) for key in fields if key not in known)
    if unknown:
        raise RuleError(f"{where}: unknown field {unknown[0]!r}; known are {', '.join(sorted(known))}")


def _span(name: str, fields: dict[str, Any]) -> int:
    try:
        span_ms = parse_duration_ms(str(fields.get("within")))
    except ValueError as e:
        raise RuleError(f"{name}: within {e}") from e
    if span_ms <= 0:
        raise RuleError(f"{name}: within must be above 0")
    return span_ms


def _amounts(name: str, above: Any, currency: str) -> Amounts:
    """A plain amount is in the default currency; a mapping has one for each of its currencies."""
    amounts = above if isinstance(above, dict) else {currency: above}
    if not amounts:
        raise RuleError(f"{name}: above names no currency")
    try:
        return tuple(sorted((code, currencies.minor(amount, code)) for code, amount in amounts.items()))
    except ValueError as e:
        raise RuleError(f"{name}: above {e}") from None
