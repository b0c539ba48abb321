"""Fraud rules that change while orders flow: every order is judged by the version in force at its own event time.

Pure, like `transforms.domain.fraud`, whose detectors do the finding. Time is cut into periods, one per activation. An
alert counts if the version that found it is the one in force when its order, the one that completes the pattern,
happened.

What a version sees of the past: orders that mattered to the version in force at their own time, with the fields that
this one needed, for as long as the versions in force since then look back. So an order is forgotten at the end of the
longest span of the versions in force while it is kept, and a version that takes effect after that does not see it, even
if memory still holds it: what is seen must not depend on when memory is freed.
"""

from __future__ import annotations

from bisect import bisect_right
from functools import lru_cache

from schemas.events import FraudAlert
from transforms.domain.fraud import Detector
from transforms.domain.fraud_orders import STATUS_BITS, STATUSES, Order, UserOrders
from transforms.domain.fraud_rules import MAX_ORDERS_PER_USER, RuleError, Rules, parse_rules
from transforms.domain.rule_history import RuleHistory, Version

__all__ = ["DetectorOverTime", "RulesInForce"]

_ALWAYS = -(1 << 63)


@lru_cache(256)
def _parsed(text: str) -> Rules:
    return parse_rules(text)


def _read(version: Version) -> Rules:
    try:
        return _parsed(version.text)
    except RuleError as e:  # it was read when it was put: by a newer release
        raise RuleError(f"version {version.number} of the rules: {e}") from None


class RulesInForce:
    """A history as rules.

    Attributes:
      from_ms: when each period begins; the first has no beginning.
      rules: of each period.
      bits: the fields that any of them needs of orders; see `fraud_orders`.

    Raises: RuleError: this release cannot read a version that was activated.
    """

    def __init__(self, base: Rules, history: RuleHistory):
        """
        Args:
          base: version 0, which holds before the first activation.
        """
        begins = {_ALWAYS: 0} | {each.effective_from_ms: each.version for each in history.activations}
        self.from_ms, numbers = [*begins], [*begins.values()]
        read = {n: _read(history.versions[n]) if n else base for n in {*numbers}}
        self.rules = [read[n] for n in numbers]
        self.bits = 0
        for rules in read.values():
            self.bits |= rules.bits
        spans = {n: [rules.span_ms(s) or 0 for s in range(len(STATUSES))] for n, rules in read.items()}
        self._spans = [spans[n] for n in numbers]

    def period(self, event_time_ms: int) -> int:
        """Which one it is in."""
        return bisect_right(self.from_ms, event_time_ms) - 1

    def kept_until_ms(self, order: Order) -> int:
        """The last event time at which an order can complete a pattern with this one.

        An activation that nobody knows yet only matters if it takes effect by then. So what has been found to be over
        for everything known stays so.
        """
        at_ms, status = order[0], order[2] & STATUS_BITS
        first = self.period(at_ms)
        until_ms = at_ms + self._spans[first][status]
        for period in range(first + 1, len(self.from_ms)):
            if self.from_ms[period] > until_ms:
                break
            until_ms = max(until_ms, at_ms + self._spans[period][status])
        return until_ms


class DetectorOverTime:
    """A `Detector` for rules that change.

    Args:
      in_force: the rules, whose orders all have the fields that `in_force.bits` says.
    """

    def __init__(self, in_force: RulesInForce, max_orders_per_user: int = MAX_ORDERS_PER_USER):
        self._in_force, self._max_orders = in_force, max_orders_per_user
        self._made: dict[int, Detector] = {}
        self.add = self._detector(len(in_force.rules) - 1).add  # which is the same for all rules

    def completed(self, user_id: str, orders: UserOrders, order: Order, detected_at_ms: int) -> list[FraudAlert]:
        """See `Detector.completed`."""
        in_force = self._in_force
        first, last = in_force.period(order[0]), in_force.period(orders[-1][0])
        found: list[FraudAlert] = []
        until_ms = in_force.kept_until_ms(order) if last > first else 0
        for period in range(first, last + 1):
            begin_ms = in_force.from_ms[period]
            if period > first and until_ms < begin_ms:
                break
            seen = self._seen(orders, begin_ms)
            alerts = self._detector(period).completed(user_id, seen, order, detected_at_ms)
            if last > first:
                alerts = [alert for alert in alerts if in_force.period(alert.event_time) == period]
            found += alerts
        return found

    def _detector(self, period: int) -> Detector:
        """Made when it is needed: a history may be long, and of most of it nothing is judged any more."""
        rules = self._in_force.rules[period]
        if id(rules) not in self._made:
            self._made[id(rules)] = Detector(rules, self._max_orders, self._in_force.bits)
        return self._made[id(rules)]

    def _seen(self, orders: UserOrders, begin_ms: int) -> UserOrders:
        """What a period that begins then sees."""
        if orders[0][0] >= begin_ms:
            return orders
        kept_until_ms = self._in_force.kept_until_ms
        return [o for o in orders if o[0] >= begin_ms or kept_until_ms(o) >= begin_ms]
