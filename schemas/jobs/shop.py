"""Topics of the shop's own events, which the simulator fills, and the API where it takes events over HTTP."""

from __future__ import annotations

from typing import Final

__all__ = ["CLICKS", "EVENTS_API", "EVENTS_LETTERS", "INVENTORY", "ORDERS"]

CLICKS: Final = "clickstream.events"
ORDERS: Final = "transactions.orders"
INVENTORY: Final = "inventory.events"

EVENTS_API: Final = "events-api"
"""What the API calls itself in the dead letters of events that it refused."""
EVENTS_LETTERS: Final = f"dlq.{EVENTS_API}"
