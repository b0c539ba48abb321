"""A user's stored orders and a new one, judged by the rules of the fraud job. Pure: no store, no clock.

The new order is put among those that the store has, and `transforms.domain.fraud` says which patterns become complete:
its own, and, when it is older than some of them, theirs. Every rule is monotone, so what is found here is found by the
stream too, whatever the store has not seen yet; what may be missing is said.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import lru_cache
from typing import NamedTuple

from schemas.currencies import number_of
from schemas.events import FraudAlert, OrderEvent
from schemas.features import DAY_MS, ORDERS_PER_USER, kept_order, kept_region
from serving.decisions.ruleset import RuleSet
from transforms.domain.conditions import meets
from transforms.domain.fraud import Detector
from transforms.domain.fraud_orders import CREATED, EXTRA, STATUSES, Order, extra_of, fields_of, order_flags
from transforms.domain.fraud_patterns import Pattern
from transforms.domain.fraud_rules import Burst, Decisions, LocationChange, Rule, Rules

__all__ = ["Judge", "Stored", "Unsure", "Verdict", "decision"]

_number = lru_cache(1_000)(number_of)

Stored = Sequence[tuple[bytes, float]]
"""Members of sf:orders:user:{user_id} and their event times in ms, oldest first."""


class Unsure(NamedTuple):
    """A rule that found nothing, where the store may lack what would complete its pattern."""

    rule: str
    why: str


class Verdict(NamedTuple):
    """
    Attributes:
      decision: allow, review or block.
      score: the highest of the patterns'; 0 without any.
      alerts: what the fraud job would report when this order came, the riskiest first.
    """

    decision: str
    score: float
    alerts: list[FraudAlert]
    unsure: list[Unsure]


def decision(score: float, thresholds: Decisions) -> str:
    """A score that is exactly a threshold has reached it."""
    if score >= thresholds.block:
        return "block"
    return "review" if score >= thresholds.review else "allow"


class Judge:
    """Applies a rule set to orders that are not placed yet: CREATED ones."""

    def __init__(self, rule_set: RuleSet):
        rules = rule_set.rules
        self.version = rule_set.version
        self._thresholds = rules.decisions
        of_all: list[Rule] = [rule for rule in rules.rules if not isinstance(rule, Pattern)]
        patterns = [rule for rule in rules.rules if isinstance(rule, Pattern)]
        alone = [rule for rule in patterns if "is_first_order" in rule.fields]  # which is not stored
        by_place = [rule for rule in patterns if "shipping_region" in rule.fields and rule not in alone]
        of_all += [rule for rule in patterns if rule not in alone and rule not in by_place]
        self._of_all, self._by_place, self._alone = (_Part(rules, of) for of in (of_all, by_place, alone))
        # What an order that is CREATED can complete, and needs earlier orders for; and how far back.
        self._reach_ms = {rule: span for rule in rules.rules if (span := _span_ms(rule)) is not None}
        self._longest_ms = max(self._reach_ms.values(), default=0)

    def judge(self, order: OrderEvent, stored: Stored) -> Verdict:
        """
        Args:
          stored: of that user. The order itself may be among them, when it has been placed meanwhile: it is left out.
        """
        known, without_region = self._near(order, stored)
        alerts = self._of_all.alerts(order, [*known, *without_region])
        alerts += self._by_place.alerts(order, known)
        alerts += self._alone.alerts(order, [])
        alerts.sort(key=lambda alert: (-alert.risk_score, alert.alert_type, alert.event_time))
        score = alerts[0].risk_score if alerts else 0.0
        found = {alert.alert_type for alert in alerts}
        without_region_ms = [at_ms for at_ms, *_ in without_region]
        unsure = [
            Unsure(rule.name, why)
            for rule in self._reach_ms
            if rule.name not in found and (why := self._missing(rule, order.event_time, stored, without_region_ms))
        ]
        return Verdict(decision(score, self._thresholds), score, alerts, unsure)

    def _near(self, new: OrderEvent, stored: Stored) -> tuple[list[Order], list[Order]]:
        """Those that can form a pattern with the new one; and those of them whose region is not known.

        Such a region is taken for the new order's: so a change of place is none. Of an order_id that came twice, the
        newest counts, as in the user's features.
        """
        found: dict[str, Order] = {}
        without_region: dict[str, Order] = {}
        for member, score in reversed(stored):
            at_ms = int(score)
            kept = kept_order(member) if abs(at_ms - new.event_time) <= self._longest_ms else None
            if kept is None or kept.order_id == new.order_id:
                continue
            if kept.order_id in found or kept.order_id in without_region:
                continue
            flags = order_flags(CREATED, 0, _number(kept.currency))
            if kept.region is None:
                region = kept_region(new.shipping_region)
                without_region[kept.order_id] = at_ms, kept.order_id, flags, kept.amount_minor, region
            else:
                found[kept.order_id] = at_ms, kept.order_id, flags, kept.amount_minor, kept.region
        return list(found.values()), list(without_region.values())

    def _missing(self, rule: Rule, at_ms: int, stored: Stored, without_region_ms: list[int]) -> str | None:
        """What the store may lack of a rule's pattern; None: nothing that it has been sent."""
        span_ms = self._reach_ms[rule]
        newest_ms = max(at_ms, int(stored[-1][1]) if stored else 0)
        if at_ms - span_ms < newest_ms - DAY_MS:
            return f"it looks back {span_ms / 3_600_000:g} h, and the store keeps the orders of 24 h before the newest"
        if len(stored) >= ORDERS_PER_USER and at_ms - span_ms <= int(stored[0][1]):
            return f"the store keeps the newest {ORDERS_PER_USER:,} orders of a user, and this one has as many"
        if isinstance(rule, Pattern):
            if lacking := sorted(rule.fields & _NOT_STORED):
                return f"the store keeps no {', '.join(lacking)} of orders"
            if any(meets(c, status) is not False for c in rule.conditions for status in _OTHERS):
                return "the store keeps orders that are CREATED, and no others"
        by_place = isinstance(rule, LocationChange) or (isinstance(rule, Pattern) and "shipping_region" in rule.fields)
        if by_place and any(abs(of_ms - at_ms) <= span_ms for of_ms in without_region_ms):
            return "an earlier release stored orders without their regions"
        return None


_NOT_STORED = frozenset(EXTRA) - {"user_id"} | {"is_first_order"}
_OTHERS = [status for status in range(len(STATUSES)) if status != CREATED]


class _Part:
    """Some of the rules, for which the same stored orders count.

    A stored order has no fields beside those that all rules look at. Where a rule does, it meets no condition on them.
    """

    def __init__(self, whole: Rules, rules: Sequence[Rule]):
        some = Rules(whole.currency, tuple(rules)) if rules else None
        self._detector = None if some is None else Detector(some)
        self._bits = 0 if some is None else some.bits
        self._fields, self._extra_of = fields_of(self._bits), extra_of(self._bits)

    def alerts(self, order: OrderEvent, stored: Sequence[Order]) -> list[FraudAlert]:
        if self._detector is None:
            return []
        core = _own(order)
        new: Order = core
        if self._bits:
            new = (*core, self._extra_of(order))
            values = [order.user_id if field == "user_id" else None for field in self._fields]
            stored = [(*each, (self._bits, *values)) for each in stored]
        return self._detector.completed(order.user_id, sorted([*stored, new]), new, detected_at_ms=0)


def _span_ms(rule: Rule) -> int | None:
    if isinstance(rule, Burst):
        return rule.span_ms if rule.status == CREATED else None
    if isinstance(rule, Pattern):
        may = any(meets(condition, CREATED) is not False for condition in rule.conditions)
        return rule.span_ms if may and rule.span_ms else None
    return rule.span_ms if isinstance(rule, LocationChange) else None


def _own(order: OrderEvent) -> tuple[int, str, int, int, str]:
    flags = order_flags(CREATED, int(order.is_first_order), _number(order.currency))
    region = kept_region(order.shipping_region)
    return order.event_time, order.order_id, flags, order.total_amount_minor, region
