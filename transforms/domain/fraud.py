"""Which orders complete a fraud pattern. Pure: no clock, no Beam; tested by properties.

A user's orders are thought of as sorted by (event_time, order_id). An order completes a pattern when the pattern holds
among the orders up to it. Every rule is monotone: one more order can complete patterns, never undo one. So orders may
arrive in any order, each alert is given out as soon as its pattern is complete in what has arrived, exactly once, and
the set of alerts in the end does not depend on the order of arrival.
"""

from __future__ import annotations

import hashlib
from bisect import bisect_left
from collections.abc import Callable, Iterator
from functools import partial
from typing import Any

from schemas.currencies import code_of, decimal, number_of
from schemas.events import FraudAlert
from transforms.domain.fraud_finding import compiled
from transforms.domain.fraud_orders import (
    CREATED,
    CURRENCY_SHIFT,
    FIRST_ORDER,
    STATUS_BITS,
    STATUSES,
    Order,
    UserOrders,
    order_flags,
    prune,
    renewed,
)
from transforms.domain.fraud_patterns import Count, Distinct, First, Pattern, Sum
from transforms.domain.fraud_rules import (
    MAX_ORDERS_PER_USER,
    Amounts,
    Burst,
    FirstOrder,
    LocationChange,
    Rule,
    Rules,
)
from transforms.domain.rule_text import span_text

__all__ = ["FIRST_ORDER", "Detector", "Order", "UserOrders", "alert_id", "order_flags", "prune", "renewed"]

_NEVER = 1 << 63  # more than any amount
_Find = Callable[[UserOrders, int], Iterator[tuple[Any, int]]]
_Tell = Callable[[str, UserOrders, Any, int, int], FraudAlert]
"""User, orders, what its `_Find` yielded (the pattern's oldest order, or all of them, and the last), the time now."""


def alert_id(rule: str, user_id: str, order_id: str) -> str:
    """The same alert has the same id wherever and however often it is found (first 128 bits of SHA-256)."""
    return hashlib.sha256(f"{rule}\x00{user_id}\x00{order_id}".encode()).hexdigest()[:32]


class Detector:
    """Applies a rule set to one user's orders, one arrival at a time.

    Args:
      rules: the rule set.
      max_orders_per_user: bound of a user's state. A user beyond it (a bot) loses the oldest orders.
      bits: the fields that orders are kept with; None: those that these rules need.
    """

    def __init__(self, rules: Rules, max_orders_per_user: int = MAX_ORDERS_PER_USER, bits: int | None = None):
        self._max_orders = max_orders_per_user
        # Farther apart than this, orders have nothing to do with each other.
        self._reach_ms = max(rule.span_ms for rule in rules.rules)
        made = {rule: _compiled(rule, rules.bits if bits is None else bits) for rule in rules.rules}
        touching = [rules.touching(status) for status in range(len(STATUSES))]
        self._by_status = [[made[r] for r in of_status] for of_status in touching]
        self._alone = [[made[r] for r in of_status if _may_be_alone(r)] for of_status in touching]

    def add(self, orders: UserOrders, order: Order) -> bool:
        """Inserts an arrival into the user's sorted orders, in place. False: a repeat, nothing was done.

        A repeat is the same order_id in the same status.
        """
        order_id, status = order[1], order[2] & STATUS_BITS
        for known in orders:
            if known[1] == order_id and known[2] & STATUS_BITS == status:
                return False
        if not orders or orders[-1] < order:
            orders.append(order)
        else:
            orders.insert(bisect_left(orders, order), order)
        if len(orders) > self._max_orders:
            del orders[0]
        return True

    def completed(self, user_id: str, orders: UserOrders, order: Order, detected_at_ms: int) -> list[FraudAlert]:
        """The alerts that this order, just added, completes: its own, and those of orders after it."""
        rules = self._by_status[order[2] & STATUS_BITS]
        at = len(orders) - 1
        if orders[at] is not order:
            at = bisect_left(orders, order)
            if orders[at] is not order:
                return []  # the user is beyond the bound, and this is the order that was let go
        elif at == 0 or orders[at - 1][0] < order[0] - self._reach_ms:
            rules = self._alone[order[2] & STATUS_BITS]
        return [
            tell(user_id, orders, first, last, detected_at_ms)
            for tell, find in rules
            for first, last in find(orders, at)
        ]


def _may_be_alone(rule: Rule) -> bool:
    """Whether one order can be a pattern."""
    match rule:
        case FirstOrder() | First() | Sum():
            return True
        case Count():
            return rule.at_least == 1
        case Distinct():
            return rule.of.startswith("items.")
    return False


def _compiled(rule: Rule, bits: int) -> tuple[_Tell, _Find]:
    match rule:
        case Burst():
            matches = _matcher(rule)
            return partial(_burst_alert, rule, matches), _burst(rule, matches)
        case FirstOrder():
            return partial(_first_order_alert, rule), _first_order(rule)
        case LocationChange():
            return partial(_location_alert, rule), _location_change(rule)
    find, text = compiled(rule, bits)
    return partial(_pattern_alert, rule, text), find


# Each `find` gets a user's sorted orders and where the new one stands, and yields (first, last) for each pattern that
# is newly complete: `last` is the completing order, `first` the oldest order of the pattern.


def _burst(rule: Burst, matches: Callable[[Order], bool]) -> _Find:
    need, span_ms = rule.orders, rule.span_ms

    def find(orders: UserOrders, at: int) -> Iterator[tuple[int, int]]:
        new = orders[at]
        if not matches(new):
            return
        floor = new[0] - span_ms
        before = []  # matching orders of the span before, newest first
        for i in range(at - 1, -1, -1):
            if orders[i][0] < floor:
                break
            if matches(orders[i]):
                before.append(i)
        if len(before) + 1 >= need:
            yield before[need - 2], at
        if at == len(orders) - 1:
            return
        # The new order can complete the pattern of a later one: that had exactly one order too few until now.
        window = [*reversed(before), at]
        for i in range(at + 1, len(orders)):
            later = orders[i]
            if later[0] - new[0] > span_ms:
                break
            if matches(later):
                window.append(i)
                while orders[window[0]][0] < later[0] - span_ms:
                    window.pop(0)
                if len(window) == need:
                    yield window[0], i

    return find


def _matcher(rule: Burst) -> Callable[[Order], bool]:
    """Which orders a burst counts. One in a currency without an amount has none that is too high."""
    want = rule.status
    if rule.above_minor is None:
        return lambda o: o[2] & STATUS_BITS == want
    above = _by_number(rule.above_minor)

    def matches(o: Order) -> bool:
        return o[2] & STATUS_BITS == want and o[3] > above.get(o[2] >> CURRENCY_SHIFT, _NEVER)

    return matches


def _by_number(amounts: Amounts) -> dict[int, int]:
    return {number_of(code): minor for code, minor in amounts}


def _first_order(rule: FirstOrder) -> _Find:
    above = _by_number(rule.above_minor)

    def find(orders: UserOrders, at: int) -> Iterator[tuple[int, int]]:
        order = orders[at]
        flags = order[2]
        if flags & FIRST_ORDER and order[3] > above.get(flags >> CURRENCY_SHIFT, _NEVER):
            yield at, at

    return find


def _location_change(rule: LocationChange) -> _Find:
    span_ms = rule.span_ms

    def another_region_before(orders: UserOrders, at: int, but: int) -> int | None:
        time, region = orders[at][0], orders[at][4]
        for i in range(at - 1, -1, -1):
            o = orders[i]
            if time - o[0] > span_ms:
                return None
            if o[2] & STATUS_BITS == CREATED and o[4] != region and i != but:
                return i
        return None

    def find(orders: UserOrders, at: int) -> Iterator[tuple[int, int]]:
        first = another_region_before(orders, at, but=-1)
        if first is not None:
            yield first, at
        new = orders[at]
        for i in range(at + 1, len(orders)):
            later = orders[i]
            if later[0] - new[0] > span_ms:
                break
            affected = later[2] & STATUS_BITS == CREATED and later[4] != new[4]
            if affected and another_region_before(orders, i, but=at) is None:
                yield at, i

    return find


def _burst_alert(
    rule: Burst, matches: Callable[[Order], bool], user_id: str, orders: UserOrders, first: int, last: int, now_ms: int
) -> FraudAlert:
    pattern = [o for o in orders[first : last + 1] if matches(o)]
    above = _above(rule.above_minor, {o[2] >> CURRENCY_SHIFT for o in pattern}) if rule.above_minor else ""
    text = f"{rule.orders} {STATUSES[rule.status]} orders{above} within {span_text(rule.span_ms)}"
    return _alert(rule, user_id, orders[last], [o[1] for o in pattern], text, now_ms)


def _first_order_alert(
    rule: FirstOrder, user_id: str, orders: UserOrders, _: int, last: int, now_ms: int
) -> FraudAlert:
    order = orders[last]
    number = order[2] >> CURRENCY_SHIFT
    currency = code_of(number)
    text = f"first order of {decimal(order[3], currency)} {currency},{_above(rule.above_minor, {number})}"
    return _alert(rule, user_id, order, [order[1]], text, now_ms)


def _location_alert(
    rule: LocationChange, user_id: str, orders: UserOrders, first: int, last: int, now_ms: int
) -> FraudAlert:
    order, before = orders[last], orders[first]
    text = f"order from {order[4]} within {span_text(rule.span_ms)} of one from {before[4]}"
    return _alert(rule, user_id, order, [before[1], order[1]], text, now_ms)


def _pattern_alert(
    rule: Pattern,
    text: Callable[[list[Order]], str],
    user_id: str,
    orders: UserOrders,
    places: list[int],
    last: int,
    now_ms: int,
) -> FraudAlert:
    pattern = [orders[i] for i in places]
    return _alert(rule, user_id, orders[last], [o[1] for o in pattern], text(pattern), now_ms)


def _alert(rule: Rule, user_id: str, order: Order, related: list[str], text: str, detected_at_ms: int) -> FraudAlert:
    return FraudAlert(
        alert_id=alert_id(rule.name, user_id, order[1]),
        user_id=user_id,
        order_id=order[1],
        alert_type=rule.name,
        risk_score=rule.risk_score,
        description=text,
        amount_minor=order[3],
        event_time=order[0],
        detected_at=detected_at_ms,
        related_events=related,
        currency=code_of(order[2] >> CURRENCY_SHIFT),
    )


def _above(amounts: Amounts, numbers: set[int]) -> str:
    """The amounts of those currencies that are in a pattern."""
    those = [f"{decimal(minor, code)} {code}" for code, minor in amounts if number_of(code) in numbers]
    return f" above {' or '.join(those)}"
