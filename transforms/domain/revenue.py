"""Revenue by the minute: what an order adds to which figures, and how figures add up. Pure sums, tested by properties.

A minute's revenue is counted in all, for each category among the items, and for each shipping region. Every figure is a
sum over orders, but for the distinct users; those are counted where all orders of a user come together, once each, so
that their numbers add up too. No order of arrival, no division of orders into batches and no division of users into
shards makes a difference.

Amounts are not negative. So a sum that stops growing at the largest number of 64 bits is the same however it is put
together, and no amount, however absurd, is too large for a row.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator

from schemas.events import Dimension, Pane, RevenueWindow

__all__ = [
    "MAX_LONG",
    "MINUTE_MS",
    "Figures",
    "Minute",
    "Order",
    "add_up",
    "category_totals",
    "revenue_rows",
    "version",
]

MINUTE_MS = 60_000
MAX_LONG = (1 << 63) - 1

Order = tuple[str, str, int, int, str, bool, list[tuple[str, int]]]
"""user_id, order_id, event_time_ms, total_amount_minor, shipping_region, is_first_order; category and its items' total,
for each among its items."""

Figures = tuple[Dimension, str, int, int, int, int]
"""dimension, value, and what there is of them: gmv_minor, orders, distinct users, first orders."""

_RANK: dict[Pane, int] = {"EARLY": 0, "ON_TIME": 1, "LATE": 2}


class _Figure:
    """What came since it was last taken; the users since ever."""

    __slots__ = ("first_orders", "gmv_minor", "new_users", "orders", "users")

    def __init__(self) -> None:
        self.gmv_minor = self.orders = self.new_users = self.first_orders = 0
        self.users: set[str] = set()

    def add(self, user_id: str, amount_minor: int, is_first_order: bool) -> None:
        self.gmv_minor += amount_minor
        self.orders += 1
        self.first_orders += is_first_order
        if user_id not in self.users:
            self.users.add(user_id)
            self.new_users += 1


class Minute:
    """The revenue of one minute of event time, of some users."""

    __slots__ = ("_categories", "_regions", "_total")

    def __init__(self) -> None:
        self._total = _Figure()
        self._categories: dict[str, _Figure] = {}
        self._regions: dict[str, _Figure] = {}

    def add(self, order: Order) -> None:
        """Takes in an order of this minute that is no repeat."""
        user_id, _, _, amount_minor, region, is_first_order, categories = order
        self._total.add(user_id, amount_minor, is_first_order)
        figure = self._regions.get(region)
        if figure is None:
            figure = self._regions[region] = _Figure()
        figure.add(user_id, amount_minor, is_first_order)
        for category, category_minor in categories:
            figure = self._categories.get(category)
            if figure is None:
                figure = self._categories[category] = _Figure()
            figure.add(user_id, category_minor, is_first_order)

    def take(self) -> list[Figures]:
        """What came since the last time. A user counts only where and when first seen."""
        taken: list[Figures] = []
        for dimension, value, figure in self._figures():
            if figure.orders:
                gmv_minor = min(figure.gmv_minor, MAX_LONG)
                taken.append((dimension, value, gmv_minor, figure.orders, figure.new_users, figure.first_orders))
                figure.gmv_minor = figure.orders = figure.new_users = figure.first_orders = 0
        return taken

    def users(self) -> list[tuple[Dimension, str, list[str]]]:
        """All that is left once everything was taken: who was seen, for a snapshot."""
        return [(dimension, value, list(figure.users)) for dimension, value, figure in self._figures()]

    def restore(self, users: Iterable[tuple[Dimension, str, list[str]]]) -> None:
        """Puts back into a new minute what `users` said."""
        for dimension, value, seen in users:
            match dimension:
                case "total":
                    self._total.users.update(seen)
                case "category":
                    self._categories.setdefault(value, _Figure()).users.update(seen)
                case "region":
                    self._regions.setdefault(value, _Figure()).users.update(seen)

    def _figures(self) -> Iterator[tuple[Dimension, str, _Figure]]:
        yield "total", "*", self._total
        for value, figure in self._categories.items():
            yield "category", value, figure
        for value, figure in self._regions.items():
            yield "region", value, figure


def category_totals(items: Iterable[tuple[str, int]]) -> list[tuple[str, int]]:
    """(category, item's total) → (category, its items' total), categories in the order of the alphabet."""
    totals: dict[str, int] = {}
    for category, minor in items:
        totals[category] = min(totals.get(category, 0) + minor, MAX_LONG)
    return sorted(totals.items())


def add_up(parts: Iterable[Iterable[Figures]]) -> list[Figures]:
    """The figures of one minute from those of its parts."""
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


def version(order_count: int, pane: Pane) -> int:
    """Of a row: one that knows more orders is newer, and of the same orders the later pane is.

    A function of what the row says: so whoever reads the input again gives a result the version it had, and what was
    known better before a failure is not replaced by what is known less well after it.
    """
    return 4 * order_count + _RANK[pane]


def revenue_rows(figures: Iterable[Figures], start_ms: int, pane: Pane) -> list[RevenueWindow]:
    """The rows of the minute that starts then, one for each figure."""
    return [
        RevenueWindow(
            window_start=start_ms,
            window_end=start_ms + MINUTE_MS,
            dimension=dimension,
            value=value,
            gmv_minor=gmv_minor,
            order_count=orders,
            unique_users=users,
            first_time_orders=first_orders,
            pane=pane,
            version=version(orders, pane),
        )
        for dimension, value, gmv_minor, orders, users, first_orders in figures
    ]
