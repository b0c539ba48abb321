"""Topics of the shop's own events, which the simulator fills."""

from __future__ import annotations

from typing import Final

__all__ = ["CLICKS", "INVENTORY", "ORDERS"]

CLICKS: Final = "clickstream.events"
ORDERS: Final = "transactions.orders"
INVENTORY: Final = "inventory.events"
