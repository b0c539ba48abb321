"""What rules find in orders of the past, and what is counted of it. Pure.

Everything is counted by user, so the counts of users who were looked at apart add up. Amounts are counted by currency.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from heapq import nsmallest
from itertools import combinations
from typing import NamedTuple

import msgspec

from schemas.events import FraudAlert
from transforms.domain.fraud import Detector, UserOrders, prune
from transforms.domain.fraud_orders import STATUSES
from transforms.domain.fraud_rules import Rules

__all__ = [
    "ADDED",
    "KEPT",
    "NEW",
    "OLD",
    "REMOVED",
    "Counts",
    "Fraud",
    "Sample",
    "Tally",
    "alerts_of",
    "reach_ms",
    "tally",
]

Counts = Counter[tuple[str, ...]]
"""How many, or how many minor units, under names that go from the general to the particular."""

NEW, OLD = "rules", "against"
"""The set of rules that is tried, and the one that it is compared with."""
ADDED, REMOVED, KEPT = "added", "removed", "kept"
SAMPLES = 20

Found = dict[tuple[str, str], list[FraudAlert]]
"""The alerts of each order that has any, by user and order."""


class Fraud(NamedTuple):
    """An order that was fraud, as labels say, and that the archive has."""

    order_id: str
    at_ms: int
    amount_minor: int
    currency: str


class Sample(msgspec.Struct, frozen=True, order=True):
    """An order to look at.

    Attributes:
      key: those with the smallest are taken: a hash, so that they are of any user and day.
      rules: which alerted on it.
      fraud: whether labels say so; None when there are no labels.
    """

    key: str
    order_id: str
    user_id: str | None
    event_time: int
    amount_minor: int
    currency: str
    rules: list[str]
    fraud: bool | None


class Tally(msgspec.Struct):
    """What was found of some users. Sums of tallies do not depend on how users were divided among them."""

    counts: Counts = msgspec.field(default_factory=Counter)
    samples: dict[str, list[Sample]] = msgspec.field(default_factory=dict)

    def add(self, other: Tally) -> None:
        self.counts.update(other.counts)
        for kind, samples in other.samples.items():
            self.samples[kind] = nsmallest(SAMPLES, [*self.samples.get(kind, []), *samples])


def reach_ms(rules: Rules) -> int:
    """How long before an order another one can matter to it."""
    return max(_spans_ms(rules))


def _spans_ms(rules: Rules) -> list[int]:
    """For how long an order of each status can matter."""
    return [rules.span_ms(status) or 0 for status in range(len(STATUSES))]


def alerts_of(
    orders: Mapping[str, UserOrders], rules: Rules, max_orders_per_user: int, start_ms: int
) -> Iterator[FraudAlert]:
    """The alerts of orders from `start_ms` on. An alert is detected at the time of its order: a run has no other clock.

    Args:
      orders: of each user, in any order; repeats count once.
    """
    detector, reach = Detector(rules, max_orders_per_user), reach_ms(rules)
    spans_ms = _spans_ms(rules)
    for user_id, of_user in orders.items():
        known: UserOrders = []
        for order in sorted(of_user):
            at_ms = order[0]
            if known and known[-1][0] < at_ms - reach:
                known = []
            elif known and known[0][0] < at_ms - reach:
                prune(known, [at_ms - span_ms for span_ms in spans_ms])
            if detector.add(known, order):
                for alert in detector.completed(user_id, known, order, at_ms):
                    if alert.event_time >= start_ms:
                        yield alert


def tally(
    alerts: Sequence[FraudAlert],
    against: Sequence[FraudAlert] | None,
    frauds: Mapping[str, Fraud] | None,
    day_of: Callable[[int], str],
) -> Tally:
    """
    Args:
      against: what the other set of rules found of the same users.
      frauds: by order id; None without labels.
    """
    result = Tally()
    new = _by_order(alerts)
    _count_set(result.counts, NEW, new, frauds, day_of)
    if against is None:
        _sample(result, "flagged", new, frauds)
    else:
        old = _by_order(against)
        _count_set(result.counts, OLD, old, frauds, day_of)
        _count_changes(result, new, old, frauds, day_of)
    if frauds is not None:
        caught = {order_id for _, order_id in new}
        missed = [fraud for order_id, fraud in frauds.items() if order_id not in caught]
        samples = [Sample(f.order_id, f.order_id, None, f.at_ms, f.amount_minor, f.currency, [], True) for f in missed]
        result.samples["missed"] = nsmallest(SAMPLES, samples)
    return result


def _by_order(alerts: Iterable[FraudAlert]) -> Found:
    found: Found = {}
    for alert in sorted(alerts, key=lambda a: (a.event_time, a.order_id, a.alert_type)):
        found.setdefault((alert.user_id, alert.order_id), []).append(alert)
    return found


def _count_set(
    counts: Counts, name: str, found: Found, frauds: Mapping[str, Fraud] | None, day_of: Callable[[int], str]
) -> None:
    users: dict[str, set[str]] = {}
    for (user_id, order_id), alerts in found.items():
        fraud = frauds.get(order_id) if frauds else None
        rules = sorted({alert.alert_type for alert in alerts})
        counts[name, "alerts"] += len(alerts)
        _count_order(counts, (name,), alerts[0], fraud)
        users.setdefault("", set()).add(user_id)
        _count_order(counts, (name, "day", day_of(alerts[0].event_time)), alerts[0], fraud)
        for alert in alerts:
            counts[name, "rule", alert.alert_type, "alerts"] += 1
            counts[name, "day", day_of(alert.event_time), "rule", alert.alert_type] += 1
        for rule in rules:
            users.setdefault(rule, set()).add(user_id)
            first = next(alert for alert in alerts if alert.alert_type == rule)
            _count_order(counts, (name, "rule", rule), first, fraud)
        if len(rules) == 1:
            counts[name, "rule", rules[0], "alone"] += 1
        for pair in combinations(rules, 2):
            counts[name, "both", *pair] += 1
    for rule, of_rule in users.items():
        counts[name, *(("rule", rule) if rule else ()), "users"] += len(of_rule)


def _count_order(counts: Counts, under: tuple[str, ...], alert: FraudAlert, fraud: Fraud | None) -> None:
    counts[*under, "orders"] += 1
    counts[*under, "amount", alert.currency] += alert.amount_minor
    if fraud is not None:
        counts[*under, "frauds"] += 1
        counts[*under, "caught", fraud.currency] += fraud.amount_minor


def _count_changes(
    result: Tally, new: Found, old: Found, frauds: Mapping[str, Fraud] | None, day_of: Callable[[int], str]
) -> None:
    counts = result.counts
    ids = {alert.alert_id: alert for found in (old, new) for alerts in found.values() for alert in alerts}
    of_new, of_old = ({alert.alert_id for alerts in found.values() for alert in alerts} for found in (new, old))
    for id_, alert in ids.items():
        change = KEPT if id_ in of_new and id_ in of_old else ADDED if id_ in of_new else REMOVED
        counts["change", "rule", alert.alert_type, change] += 1
        counts["change", "alerts", change] += 1
    changed: dict[str, Found] = {ADDED: {}, REMOVED: {}}
    for key, alerts in (old | new).items():
        change = KEPT if key in new and key in old else ADDED if key in new else REMOVED
        fraud = frauds.get(key[1]) if frauds else None
        _count_order(counts, ("change", change), alerts[0], fraud)
        counts["change", "day", day_of(alerts[0].event_time), change] += 1
        if change != KEPT:
            changed[change][key] = alerts
    for change, found in changed.items():
        _sample(result, change, found, frauds)


def _sample(result: Tally, kind: str, found: Found, frauds: Mapping[str, Fraud] | None) -> None:
    samples = (
        Sample(
            min(alert.alert_id for alert in alerts),
            order_id,
            user_id,
            alerts[0].event_time,
            alerts[0].amount_minor,
            alerts[0].currency,
            sorted({alert.alert_type for alert in alerts}),
            None if frauds is None else order_id in frauds,
        )
        for (user_id, order_id), alerts in found.items()
    )
    result.samples[kind] = nsmallest(SAMPLES, samples)
