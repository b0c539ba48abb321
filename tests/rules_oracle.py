"""Which alerts a rules file of version 2 must give, read from the same YAML and sharing no code with `transforms`.

Written from docs/semantics.md, plain and slow on purpose: every rule looks at every order with all orders before it,
and a sequence at every choice of them.
"""

from __future__ import annotations

import re
from collections import defaultdict
from collections.abc import Callable, Iterable
from datetime import UTC, datetime, timedelta
from decimal import Decimal
from typing import Any
from zoneinfo import ZoneInfo

import yaml

from schemas.events import OrderEvent

Alert = tuple[str, str, str, int]
"""Rule, user, completing order, its time."""

DECIMALS = {"TRY": 2, "EUR": 2, "JPY": 0, "KWD": 3}
UNITS_MS = {"ms": 1, "s": 1_000, "m": 60_000, "h": 3_600_000, "d": 86_400_000}
STATUSES = ["CREATED", "CONFIRMED", "SHIPPED", "DELIVERED", "CANCELLED", "REFUNDED"]
MONEY = {"total_amount", "subtotal", "discount", "shipping", "unit_price", "total_price"}
COMPARE: dict[str, Callable[[Any, Any], bool]] = {
    "above": lambda value, bound: value > bound,
    "at_least": lambda value, bound: value >= bound,
    "below": lambda value, bound: value < bound,
    "at_most": lambda value, bound: value <= bound,
}


def expected_of(text: str, orders: Iterable[OrderEvent]) -> list[Alert]:
    """The alerts of valid orders that are not late; repeats of an order in the same status count once."""
    file = yaml.safe_load(text)
    once = {(o.user_id, o.order_id, o.order_status): o for o in orders}
    of_user: dict[str, list[OrderEvent]] = defaultdict(list)
    for order in sorted(once.values(), key=place):
        of_user[order.user_id].append(order)
    return sorted(
        (name, user, mine[i].order_id, mine[i].event_time)
        for name, rule in file["rules"].items()
        for user, mine in of_user.items()
        for i in range(len(mine))
        if completes(rule, mine, i, file)
    )


def place(o: OrderEvent) -> tuple[Any, ...]:
    """Where an order stands: what comes after its id only tells its statuses apart."""
    return o.event_time, o.order_id, o.currency, o.is_first_order, STATUSES.index(o.order_status)


def completes(rule: dict[str, Any], mine: list[OrderEvent], i: int, file: dict[str, Any]) -> bool:
    """Whether the order `i` of a user's sorted orders completes the pattern."""
    order = mine[i]
    span_ms = milliseconds(rule["within"]) if "within" in rule else 0

    def meeting(where: Any) -> list[OrderEvent]:
        """The orders of the span up to this one; none if it does not meet the condition itself."""
        of = rule.get("of", "total_amount")
        if not meets(where, order, file, of):
            return []
        return [o for o in mine[: i + 1] if o.event_time >= order.event_time - span_ms and meets(where, o, file, of)]

    match rule["kind"]:
        case "count":
            return len(meeting(rule.get("where"))) >= rule["at_least"]
        case "sum":
            ((currency, bound),) = amounts(rule["above"], file).items()
            paid = [o for o in meeting(rule.get("where")) if o.currency == currency]
            of = rule.get("of", "total_amount")
            return order.currency == currency and sum(getattr(o, f"{of}_minor") for o in paid) > bound
        case "distinct":
            return len({v for o in meeting(rule.get("where")) for v in values(o, rule["of"])}) >= rule["at_least"]
        case "change":
            earlier = meeting(rule.get("where"))[:-1]
            return any(values(o, rule["of"]) != values(order, rule["of"]) for o in earlier)
        case "first":
            return order.is_first_order and meets(rule.get("where"), order, file)
        case "sequence":
            since_ms = order.event_time - span_ms
            return meets(rule["steps"][-1], order, file) and follows(rule["steps"][:-1], mine[:i], since_ms, file)
        case "burst":
            where = {"order_status": rule.get("status", "CREATED")}
            above = {"total_amount": {"above": rule["above"]}} if "above" in rule else {}
            return len(meeting({**where, **above})) >= rule["orders"]
        case "first_order":
            return order.is_first_order and meets({"total_amount": {"above": rule["above"]}}, order, file)
        case "location_change":
            return any(o.shipping_region != order.shipping_region for o in meeting(None)[:-1])
    raise AssertionError(rule["kind"])


def follows(steps: list[Any], before: list[OrderEvent], since_ms: int, file: dict[str, Any]) -> bool:
    """Whether some orders not older than that meet the steps, one after the other."""
    if not steps:
        return True
    return any(
        before[j].event_time >= since_ms
        and meets(steps[-1], before[j], file)
        and follows(steps[:-1], before[:j], since_ms, file)
        for j in range(len(before))
    )


def meets(where: Any, order: OrderEvent, file: dict[str, Any], *more: str) -> bool:
    """
    Args:
      more: fields that the rule needs beside those of the condition.
    """
    lacks: set[str] = getattr(order, "lacks", set())  # of orders that rules over time kept; see `Kept`
    if lacks & {*said(where), *more}:
        return False
    if where is None:
        return order.order_status == "CREATED"
    if not names_status(where) and order.order_status != "CREATED":
        return False
    return all(holds(name, test, order, order, file) for name, test in where.items())


def names_status(said: Any) -> bool:
    if isinstance(said, dict):
        return "order_status" in said or any(map(names_status, said.values()))
    return isinstance(said, list) and any(map(names_status, said))


def said(where: Any, of: str = "") -> set[str]:
    """The fields that a condition looks at."""
    if isinstance(where, list):
        return {name for each in where for name in said(each, of)}
    found: set[str] = set()
    for name, test in (where or {}).items():
        if name in ("all", "any", "not"):
            found |= said(test, of)
        elif name == "items":
            found |= said(test, "items.")
        else:
            found.add(of + name)
    return found


def holds(name: str, test: Any, of: Any, order: OrderEvent, file: dict[str, Any]) -> bool:
    """
    Args:
      of: the order or one of its items.
    """
    match name:
        case "all":
            return all(holds(n, t, of, order, file) for each in test for n, t in each.items())
        case "any":
            return any(all(holds(n, t, of, order, file) for n, t in each.items()) for each in test)
        case "not":
            return not all(holds(n, t, of, order, file) for n, t in test.items())
        case "items":
            return any(all(holds(n, t, item, order, file) for n, t in test.items()) for item in order.items)
    if name in MONEY:
        return all(
            order.currency in amounts(bound, file)
            and COMPARE[sign](getattr(of, f"{name}_minor"), amounts(bound, file)[order.currency])
            for sign, bound in test.items()
        )
    value = hour(order.event_time, file) if name == "hour" else getattr(of, name)
    if isinstance(test, dict):
        return all(COMPARE[sign](value, bound) for sign, bound in test.items())
    return value in (test if isinstance(test, list) else [test])


def hour(at_ms: int, file: dict[str, Any]) -> int:
    instant = datetime(1970, 1, 1, tzinfo=UTC) + timedelta(milliseconds=at_ms)
    return instant.astimezone(ZoneInfo(file.get("time_zone", "UTC"))).hour


def values(order: OrderEvent, of: str) -> set[str]:
    if of.startswith("items."):
        return {getattr(item, of.removeprefix("items.")) for item in order.items}
    return {getattr(order, of)}


def amounts(bound: Any, file: dict[str, Any]) -> dict[str, int]:
    of_each = bound if isinstance(bound, dict) else {file["currency"]: bound}
    return {code: int(Decimal(str(amount)).scaleb(DECIMALS[code])) for code, amount in of_each.items()}


def milliseconds(text: str) -> int:
    number, unit = re.fullmatch(r"(\d+)(ms|s|m|h|d)", text).groups()  # type: ignore[union-attr]
    return int(number) * UNITS_MS[unit]


# Versions over time: each order by the one in force at its own time.

NOT_ALWAYS_KEPT = {
    *("user_id", "session_id", "payment_method", "subtotal", "discount", "shipping"),
    *("items.product_id", "items.product_name", "items.category", "items.quantity", "items.unit_price"),
    "items.total_price",
}
OLDER = {"burst", "first_order", "location_change"}


class Kept:
    """An order as the version in force at its time kept it."""

    def __init__(self, order: OrderEvent, file: dict[str, Any]):
        self._order, self.lacks = order, NOT_ALWAYS_KEPT - needs(file)

    def __getattr__(self, name: str) -> Any:
        return getattr(self._order, name)


def expected_over_time(base: str, activations: list[tuple[int, str]], orders: Iterable[OrderEvent]) -> set[Alert]:
    """
    Args:
      activations: (from which event time, rules file); of two of one instant the last counts.
    """
    begins = {-(1 << 62): yaml.safe_load(base)} | {at_ms: yaml.safe_load(text) for at_ms, text in activations}

    def begin_at(at_ms: int) -> int:
        return max(begin for begin in begins if begin <= at_ms)

    def remembered_until(order: OrderEvent) -> int:
        until = order.event_time + span(begins[begin_at(order.event_time)], order.order_status)
        while True:
            while_it_is = [b for b in begins if order.event_time < b <= until]
            longer = max([order.event_time + span(begins[b], order.order_status) for b in while_it_is], default=until)
            if longer <= until:
                return until
            until = longer

    once = {(o.user_id, o.order_id, o.order_status): o for o in orders}
    kept = [o for o in once.values() if keeps(begins[begin_at(o.event_time)], o)]
    found = set()
    for last in kept:
        begin = begin_at(last.event_time)
        file = begins[begin]
        seen = [
            Kept(o, begins[begin_at(o.event_time)])
            for o in kept
            if o.user_id == last.user_id and place(o) <= place(last) and remembered_until(o) >= begin
        ]
        mine: Any = sorted(seen, key=place)
        for name, rule in file["rules"].items():
            if completes(rule, mine, len(mine) - 1, file):
                found.add((name, last.user_id, last.order_id, last.event_time))
    return found


def conditions(rule: dict[str, Any]) -> list[Any]:
    """What orders of a pattern meet, each one of them."""
    match rule["kind"]:
        case "sequence":
            return list(rule["steps"])
        case "burst":
            above = {"total_amount": {"above": rule["above"]}} if "above" in rule else {}
            return [{"order_status": rule.get("status", "CREATED"), **above}]
        case "first_order":
            return [{"is_first_order": True, "total_amount": {"above": rule["above"]}}]
        case "location_change":
            return [{"order_status": "CREATED"}]
        case "first":
            return [{"all": [{"is_first_order": True}, *([rule["where"]] if "where" in rule else [])]}]
    return [rule.get("where")]


def keeps(file: dict[str, Any], order: OrderEvent) -> bool:
    """Whether an order can be part of a pattern; of a file with older kinds alone, by status and amount."""
    rules = file["rules"].values()
    every = [where for rule in rules for where in conditions(rule)]
    if all(rule["kind"] in OLDER for rule in rules):
        every = [{name: test for name, test in where.items() if name != "is_first_order"} for where in every]
    return any(meets(where, order, file) for where in every)


def needs(file: dict[str, Any]) -> set[str]:
    """The fields that a file looks at."""
    found: set[str] = set()
    for rule in file["rules"].values():
        for where in conditions(rule):
            found |= said(where)
        found |= {rule["of"]} if "of" in rule else set()
    return found


def span(file: dict[str, Any], status: str) -> int:
    """How far apart an order of this status and another can be in one pattern."""
    return max(
        [
            milliseconds(rule["within"])
            for rule in file["rules"].values()
            if "within" in rule and any(may_meet(where, status) is not False for where in conditions(rule))
        ],
        default=0,
    )


def may_meet(where: Any, status: str) -> bool | None:
    """Whether orders of a status meet a condition, by that alone; None: it depends."""
    parts = [_may(name, test, status) for name, test in (where or {}).items()]
    if not names_status(where):
        parts.append(status == "CREATED")
    return False if False in parts else None if None in parts else True


def _may(name: str, test: Any, status: str) -> bool | None:
    if name == "order_status":
        return status in (test if isinstance(test, list) else [test])
    if name not in ("all", "any", "not"):
        return None
    if name == "not":
        inner = _all_may(test, status)
        return None if inner is None else not inner
    parts = [_all_may(each, status) for each in test]
    if name == "any":
        return True if True in parts else None if None in parts else False
    return False if False in parts else None if None in parts else True


def _all_may(where: Any, status: str) -> bool | None:
    parts = [_may(name, test, status) for name, test in where.items()]
    return False if False in parts else None if None in parts else True
