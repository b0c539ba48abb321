"""Revenue per minute: what an order adds to which figures, and how figures add up. Pure; tested by properties.

Each currency is a world of its own: amounts of two are never added, and a minute here is that of one. Its revenue is
counted in all, for each category among the items, and for each shipping region. Every figure is a
sum over orders, but for the distinct users; those are counted where all orders of a user come together, once each, so
that their numbers add up too. No order of arrival, no division of orders into batches and no division of users into
shards makes a difference.

Amounts are not negative. So a sum that stops growing at the largest number of 64 bits is the same however it is put
together, and no amount, however absurd, is too large for a row.
"""

from __future__ import annotations

from collections.abc import Iterable

from schemas.events import Dimension, Pane, RevenueWindow
from schemas.times import clamp_ms
from transforms.domain.versions import MAX_LONG, version

__all__ = [
    "MINUTE_MS",
    "Figures",
    "Minute",
    "MinuteState",
    "Order",
    "add_up",
    "category_totals",
    "revenue_rows",
]

MINUTE_MS = 60_000

Order = tuple[str, str, int, int, str, bool, list[tuple[str, int]], str]
"""user_id, order_id, event_time_ms, total_amount_minor, shipping_region, is_first_order; category and its items' total,
for each among its items; currency."""

Figures = tuple[Dimension, str, int, int, int, int]
"""dimension, value, and what there is of them: gmv_minor, orders, distinct users, first orders."""

MinuteState = tuple[list[tuple[Dimension, str]], list[list[int]], list[tuple[str, list[int]]]]
"""The figures of a minute, in the order of their numbers; what there is of each; and for each user the numbers of those
they count in."""

_FEW = 8


class Minute:
    """The revenue of one minute of event time in one currency, of some users: what came since it was last taken, and
    who was ever seen.

    A minute numbers its figures, in the order in which they appear. Most users have one order in a minute, so what is
    kept of a user is small: a tuple of the numbers of the figures they count in, and a set only once there are more.
    """

    __slots__ = ("_categories", "_figures", "_names", "_regions", "_users")

    def __init__(self) -> None:
        self._names: list[tuple[Dimension, str]] = []
        self._figures: list[list[int]] = []  # gmv_minor, orders, new users, first orders
        self._categories: dict[str, int] = {}
        self._regions: dict[str, int] = {}
        self._users: dict[str, tuple[int, ...] | set[int]] = {}
        self._number("total", "*")

    def add(self, order: Order) -> None:
        """Takes in an order of this minute and currency that is no repeat."""
        user_id, _, _, amount_minor, region, is_first_order, categories, _ = order
        figures = self._figures
        number = self._regions.get(region)
        if number is None:
            number = self._regions[region] = self._number("region", region)
        numbers = [0, number]
        for number in numbers:
            figure = figures[number]
            figure[0] += amount_minor
            figure[1] += 1
            figure[3] += is_first_order
        for category, category_minor in categories:
            number = self._categories.get(category)
            if number is None:
                number = self._categories[category] = self._number("category", category)
            figure = figures[number]
            figure[0] += category_minor
            figure[1] += 1
            figure[3] += is_first_order
            numbers.append(number)
        for number in self._unseen(user_id, numbers):
            figures[number][2] += 1

    def take(self) -> list[Figures]:
        """What came since the last time. A user counts only where and when first seen."""
        taken: list[Figures] = []
        for name, figure in zip(self._names, self._figures, strict=True):
            gmv_minor, orders, users, first_orders = figure
            if orders:
                taken.append((*name, min(gmv_minor, MAX_LONG), orders, users, first_orders))
                figure[:] = 0, 0, 0, 0
        return taken

    def state(self) -> MinuteState:
        """All of it, for a snapshot. A sum beyond 64 bits is the largest number, as everywhere."""
        figures = [[min(gmv_minor, MAX_LONG), *counts] for gmv_minor, *counts in self._figures]
        return self._names, figures, [(user_id, list(numbers)) for user_id, numbers in self._users.items()]

    @staticmethod
    def of(state: MinuteState) -> Minute:
        """The minute that said this of itself."""
        minute = Minute()
        names, figures, seen = state
        for dimension, value in names[1:]:
            numbers = minute._regions if dimension == "region" else minute._categories
            numbers[value] = minute._number(dimension, value)
        minute._figures = figures
        for user_id, of_user in seen:
            minute._users[user_id] = tuple(of_user) if len(of_user) <= _FEW else set(of_user)
        return minute

    def _number(self, dimension: Dimension, value: str) -> int:
        self._names.append((dimension, value))
        self._figures.append([0, 0, 0, 0])
        return len(self._names) - 1

    def _unseen(self, user_id: str, numbers: list[int]) -> list[int]:
        """Those of the figures that the user was not seen in; now they are."""
        seen = self._users.get(user_id)
        if seen is None:
            self._users[user_id] = tuple(numbers)
            return numbers
        unseen = [number for number in numbers if number not in seen]
        if isinstance(seen, set):
            seen.update(unseen)
        elif unseen:
            self._users[user_id] = {*seen, *unseen}
        return unseen


def category_totals(items: Iterable[tuple[str, int]]) -> list[tuple[str, int]]:
    """(category, item's total) → (category, its items' total), categories in the order of the alphabet."""
    totals: dict[str, int] = {}
    for category, minor in items:
        totals[category] = min(totals.get(category, 0) + minor, MAX_LONG)
    return sorted(totals.items())


def add_up(parts: Iterable[Iterable[Figures]]) -> list[Figures]:
    """The figures of one minute and currency from those of its parts."""
    sums: dict[tuple[Dimension, str], list[int]] = {}
    for part in parts:
        for dimension, value, *numbers in part:
            known = sums.get((dimension, value))
            if known is None:
                sums[dimension, value] = numbers
            else:
                for i, number in enumerate(numbers):
                    known[i] += number
    return [(*key, min(gmv, MAX_LONG), orders, users, first) for key, (gmv, orders, users, first) in sums.items()]


def revenue_rows(figures: Iterable[Figures], start_ms: int, currency: str, pane: Pane) -> list[RevenueWindow]:
    """The rows of the minute that starts then, one for each figure."""
    return [
        RevenueWindow(
            window_start=start_ms,
            window_end=clamp_ms(start_ms + MINUTE_MS),
            dimension=dimension,
            value=value,
            gmv_minor=gmv_minor,
            order_count=orders,
            unique_users=users,
            first_time_orders=first_orders,
            pane=pane,
            version=version(orders, pane),
            currency=currency,
        )
        for dimension, value, gmv_minor, orders, users, first_orders in figures
    ]
