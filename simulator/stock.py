"""Warehouses: sales, returns, restocking."""

from __future__ import annotations

from functools import partial
from typing import Final

from schemas.events import InventoryEvent, Movement, OrderItem
from simulator.config import INVENTORY, Event
from simulator.timeline import Timeline

__all__ = ["Stock"]

_MINUTE: Final = 60_000
_WAREHOUSES: Final = ("IST-1", "ANK-1", "IZM-1")
_LOW: Final = 30
_DELIVERY: Final = 300


class Stock:
    """How many of each product lie in each warehouse; never fewer than none."""

    def __init__(self, timeline: Timeline):
        self._timeline = timeline
        self._shelves: dict[tuple[str, str], int] = {}
        self._restocking: set[tuple[str, str]] = set()

    def sold(self, order_id: str, lines: list[OrderItem], when: int) -> None:
        """The lines of an order leave the warehouse soon after `when`."""
        for line in lines:
            soon = when + 200 + int(self._timeline.random.random() * 700)
            self._timeline.at(soon, partial(self.sell, order_id, line))

    def returned(self, order_id: str, lines: list[OrderItem], when: int) -> None:
        for line in lines:
            self._timeline.at(when + 2_000, partial(self._move, line.product_id, "RETURN", line.quantity, order_id))

    def sell(self, order_id: str, line: OrderItem, when: int) -> Event:
        return self._move(line.product_id, "SALE", -line.quantity, order_id, when)

    def _move(self, product_id: str, movement: Movement, change: int, order_id: str | None, when: int) -> Event:
        timeline, rng = self._timeline, self._timeline.random
        shelf = (product_id, _WAREHOUSES[int(rng.random() ** 2 * 3)])
        stock = self._shelves.get(shelf)
        if stock is None:
            stock = rng.randrange(35, 160)
        if stock + change < 0:
            # Sold faster than restocked: goods come first, the sale follows at once.
            timeline.at(when, partial(self._move, product_id, movement, change, order_id))
            return self._restock(shelf, when)
        self._shelves[shelf] = stock = stock + change
        if stock < _LOW and shelf not in self._restocking:
            self._restocking.add(shelf)
            timeline.at(when + rng.randrange(10, 60) * _MINUTE, partial(self._restock, shelf))
        if rng.random() < 0.002:
            found = rng.choice((-2, -1, 1))
            timeline.at(when + _MINUTE, partial(self._move, product_id, "ADJUSTMENT", found, None))
        return self._moved(shelf, movement, change, order_id, when)

    def _restock(self, shelf: tuple[str, str], when: int) -> Event:
        self._restocking.discard(shelf)
        self._shelves[shelf] = self._shelves.get(shelf, 0) + _DELIVERY
        return self._moved(shelf, "RESTOCK", _DELIVERY, None, when)

    def _moved(self, shelf: tuple[str, str], movement: Movement, change: int, order_id: str | None, when: int) -> Event:
        product_id, warehouse = shelf
        left = self._shelves[shelf]
        event_id = self._timeline.identifier("i")
        record = InventoryEvent(event_id, product_id, warehouse, movement, change, left, when, order_id)
        return Event(INVENTORY, product_id, when, record)
