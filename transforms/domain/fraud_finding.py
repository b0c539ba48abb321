"""How patterns of version 2 are found: a rule becomes a function of a user's sorted orders and a new one among them.

It yields, for each pattern that the new order completes, the places of its orders; the last completes it. That is the
new order, or a later one whose pattern was not complete without the new one. Both are one pass over the orders of the
span, however many patterns are completed.
"""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Callable, Iterator
from typing import Any, Protocol

from schemas.currencies import code_of, decimal
from transforms.domain.conditions import matcher, value_of
from transforms.domain.fraud_orders import CURRENCY_SHIFT, Order, UserOrders
from transforms.domain.fraud_patterns import Change, Count, Distinct, First, Pattern, Sequence, Sum
from transforms.domain.rule_text import span_text

__all__ = ["Find", "Tell", "compiled"]

Find = Callable[[UserOrders, int], Iterator[tuple[list[int], int]]]
"""A user's orders and the place of the new one → the pattern's places and its last."""
Tell = Callable[[list[Order]], str]
"""The description of a pattern."""


def compiled(rule: Pattern, bits: int) -> tuple[Find, Tell]:
    """
    Args:
      bits: the fields that orders are kept with.
    """
    if isinstance(rule, Sequence):
        steps = ", then ".join(map(str, rule.steps))
        text = f"{len(rule.steps)} orders one after the other within {span_text(rule.span_ms)}: {steps}"
        return _sequence([matcher(step, bits) for step in rule.steps], rule.span_ms), lambda _: text
    within = f"within {span_text(rule.span_ms)}"
    match rule:
        case First():
            text = f"first order: {rule.where}"
            return _window(rule, matcher(rule.where, bits), lambda: _Counted(1)), lambda _: text
        case Count():
            text = f"{rule.at_least} orders {within}: {rule.where}" if rule.span_ms else f"order: {rule.where}"
            return _window(rule, matcher(rule.where, bits), lambda: _Counted(rule.at_least)), lambda _: text
        case Sum():
            amount, above = value_of(rule.of, bits), rule.above_minor
            find = _window(rule, matcher(rule.where, bits, rule.of), lambda: _Summed(amount, above))
            return (
                find,
                lambda orders: (
                    f"{rule.of} of {decimal(sum(map(amount, orders)), rule.currency)} {rule.currency}, above "
                    f"{decimal(above, rule.currency)}, {within}: {rule.where}"
                ),
            )
        case Distinct():
            values = _values_of(rule.of, bits)
            find = _window(rule, matcher(rule.where, bits, rule.of), lambda: _Varied(values, rule.at_least))
            text = f"{rule.at_least} values of {rule.of} {within}: {rule.where}"
            return find, lambda _: text
        case Change():
            # An order has another value than an earlier one when there are two values up to it.
            values, shown = _values_of(rule.of, bits), _shown(rule.of, bits)
            find = _window(rule, matcher(rule.where, bits, rule.of), lambda: _Varied(values, 2))
            return find, lambda orders: f"{rule.of} {shown(orders[-1])} {within} of {shown(orders[0])}: {rule.where}"


def _values_of(field: str, bits: int) -> Callable[[Order], Any]:
    value = value_of(field, bits)
    return value if field.startswith("items.") else lambda o: (value(o),)


def _shown(field: str, bits: int) -> Callable[[Order], str]:
    if field == "currency":
        return lambda o: code_of(o[2] >> CURRENCY_SHIFT)
    return value_of(field, bits)


class _Tally(Protocol):
    """Orders that a window holds. `complete` never turns false by another order: that is what monotone means."""

    def add(self, order: Order) -> None: ...

    def remove(self, order: Order) -> None: ...

    def complete(self) -> bool: ...


class _Counted:
    __slots__ = ("_need", "_orders")

    def __init__(self, need: int):
        self._need, self._orders = need, 0

    def add(self, _: Order) -> None:
        self._orders += 1

    def remove(self, _: Order) -> None:
        self._orders -= 1

    def complete(self) -> bool:
        return self._orders >= self._need


class _Summed:
    __slots__ = ("_above", "_amount", "_sum")

    def __init__(self, amount: Callable[[Order], int], above: int):
        self._amount, self._above, self._sum = amount, above, 0

    def add(self, order: Order) -> None:
        self._sum += self._amount(order)

    def remove(self, order: Order) -> None:
        self._sum -= self._amount(order)

    def complete(self) -> bool:
        return self._sum > self._above


class _Varied:
    __slots__ = ("_need", "_orders", "_values")

    def __init__(self, values: Callable[[Order], Any], need: int):
        self._values, self._need = values, need
        self._orders: dict[str, int] = {}  # by value

    def add(self, order: Order) -> None:
        orders = self._orders
        for value in self._values(order):
            orders[value] = orders.get(value, 0) + 1

    def remove(self, order: Order) -> None:
        orders = self._orders
        for value in self._values(order):
            if orders[value] == 1:
                del orders[value]
            else:
                orders[value] -= 1

    def complete(self) -> bool:
        return len(self._orders) >= self._need


def _window(rule: Pattern, matches: Callable[[Order], bool], tally_of: Callable[[], _Tally]) -> Find:
    """Patterns that are complete when the orders of the span up to one amount to enough."""
    span_ms = rule.span_ms

    def newest(orders: UserOrders, last: int) -> list[int] | None:
        """The newest orders up to one that are enough; None: all of the span are not."""
        tally, floor, pattern = tally_of(), orders[last][0] - span_ms, []
        for i in range(last, -1, -1):
            order = orders[i]
            if order[0] < floor:
                return None
            if matches(order):
                tally.add(order)
                pattern.append(i)
                if tally.complete():
                    return pattern[::-1]
        return None

    def find(orders: UserOrders, at: int) -> Iterator[tuple[list[int], int]]:
        new = orders[at]
        if not matches(new):
            return
        if pattern := newest(orders, at):
            yield pattern, at
        if at == len(orders) - 1:
            return
        tally, without = tally_of(), tally_of()  # of a window that slides over the later orders, and but for the new
        window = [i for i in range(_since(orders, new[0] - span_ms), at) if matches(orders[i])]
        for i in window:
            tally.add(orders[i])
            without.add(orders[i])
        window.append(at)
        tally.add(new)
        oldest = 0
        for i in range(at + 1, len(orders)):
            later = orders[i]
            if later[0] - new[0] > span_ms:
                return
            if not matches(later):
                continue
            window.append(i)
            tally.add(later)
            without.add(later)
            while orders[window[oldest]][0] < later[0] - span_ms:
                tally.remove(orders[window[oldest]])
                without.remove(orders[window[oldest]])
                oldest += 1
            if tally.complete() and not without.complete() and (pattern := newest(orders, i)):
                yield pattern, i

    return find


def _since(orders: UserOrders, at_ms: int) -> int:
    return bisect_left(orders, at_ms, key=lambda o: o[0])


def _sequence(steps: list[Callable[[Order], bool]], span_ms: int) -> Find:
    """An order of the last step completes a pattern when a chain of all steps before it begins within the span. Of
    chains, only the one that begins last counts."""
    last = len(steps) - 1

    def find(orders: UserOrders, at: int) -> Iterator[tuple[list[int], int]]:
        new = orders[at]
        if not any(step(new) for step in steps) or (at == len(orders) - 1 and not steps[last](new)):
            return
        chains: list[list[int]] = [[] for _ in steps]  # of as many steps as its place and one; empty: none yet
        without: list[list[int]] = [[] for _ in steps]  # but for the new order
        for i in range(_since(orders, new[0] - span_ms), len(orders)):
            order = orders[i]
            if order[0] - new[0] > span_ms:
                return
            meets = [step(order) for step in steps]
            if i >= at and meets[last]:
                floor, chain, other = order[0] - span_ms, chains[last - 1], without[last - 1]
                if chain and orders[chain[0]][0] >= floor and (i == at or not other or orders[other[0]][0] < floor):
                    yield [*chain, i], i
            for step in range(last - 1, 0, -1):
                if meets[step]:
                    chains[step] = [*chains[step - 1], i] if chains[step - 1] else chains[step]
                    if i != at:
                        without[step] = [*without[step - 1], i] if without[step - 1] else without[step]
            if meets[0]:
                chains[0] = [i]
                if i != at:
                    without[0] = [i]

    return find
