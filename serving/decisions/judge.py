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
from transforms.domain.fraud import Detector, Order, UserOrders, order_flags
from transforms.domain.fraud_rules import CREATED, Burst, Decisions, LocationChange, Rule

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
        self.version = rule_set.version
        self._thresholds = rule_set.rules.decisions
        self._detector = Detector(rule_set.rules)
        # What an order that is CREATED can complete, and needs earlier orders for; and how far back.
        self._reach_ms = {rule: span for rule in rule_set.rules.rules if (span := _span_ms(rule)) is not None}
        self._longest_ms = max(self._reach_ms.values(), default=0)

    def judge(self, order: OrderEvent, stored: Stored) -> Verdict:
        """
        Args:
          stored: of that user. The order itself may be among them, when it has been placed meanwhile: it is left out.
        """
        new = _own(order)
        known, without_region_ms = self._near(new, stored)
        orders: UserOrders = sorted([*known, new])
        alerts = self._detector.completed(order.user_id, orders, new, detected_at_ms=0)
        alerts.sort(key=lambda alert: (-alert.risk_score, alert.alert_type, alert.event_time))
        score = alerts[0].risk_score if alerts else 0.0
        found = {alert.alert_type for alert in alerts}
        unsure = [
            Unsure(rule.name, why)
            for rule in self._reach_ms
            if rule.name not in found and (why := self._missing(rule, new, stored, without_region_ms))
        ]
        return Verdict(decision(score, self._thresholds), score, alerts, unsure)

    def _near(self, new: Order, stored: Stored) -> tuple[list[Order], list[int]]:
        """Those that can form a pattern with the new one; and the event times of those whose region is not known.

        Such a region is taken for the new order's: so it completes no pattern. Of an order_id that came twice, the
        newest counts, as in the user's features.
        """
        found: dict[str, Order] = {}
        without_region_ms = []
        for member, score in reversed(stored):
            at_ms = int(score)
            kept = kept_order(member) if abs(at_ms - new[0]) <= self._longest_ms else None
            if kept is None or kept.order_id == new[1] or kept.order_id in found:
                continue
            if kept.region is None:
                without_region_ms.append(at_ms)
            flags = order_flags(CREATED, 0, _number(kept.currency))
            region = new[4] if kept.region is None else kept.region
            found[kept.order_id] = at_ms, kept.order_id, flags, kept.amount_minor, region
        return list(found.values()), without_region_ms

    def _missing(self, rule: Rule, new: Order, stored: Stored, without_region_ms: list[int]) -> str | None:
        """What the store may lack of a rule's pattern; None: nothing that it has been sent."""
        span_ms = self._reach_ms[rule]
        newest_ms = max(new[0], int(stored[-1][1]) if stored else 0)
        if new[0] - span_ms < newest_ms - DAY_MS:
            return f"it looks back {span_ms / 3_600_000:g} h, and the store keeps the orders of 24 h before the newest"
        if len(stored) >= ORDERS_PER_USER and new[0] - span_ms <= int(stored[0][1]):
            return f"the store keeps the newest {ORDERS_PER_USER:,} orders of a user, and this one has as many"
        if isinstance(rule, LocationChange) and any(abs(at_ms - new[0]) <= span_ms for at_ms in without_region_ms):
            return "an earlier release stored orders without their regions"
        return None


def _span_ms(rule: Rule) -> int | None:
    if isinstance(rule, LocationChange) or (isinstance(rule, Burst) and rule.status == CREATED):
        return rule.span_ms
    return None


def _own(order: OrderEvent) -> Order:
    flags = order_flags(CREATED, int(order.is_first_order), _number(order.currency))
    region = kept_region(order.shipping_region)
    return order.event_time, order.order_id, flags, order.total_amount_minor, region
