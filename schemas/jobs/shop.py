"""Topics of the shop's own: events, which the simulator fills, and the API where it takes them over HTTP; rules."""

from __future__ import annotations

from typing import Final

__all__ = ["CLICKS", "EVENTS_API", "EVENTS_LETTERS", "INVENTORY", "ORDERS", "RULES", "RULES_GROUP", "RULES_TOPIC"]

CLICKS: Final = "clickstream.events"
ORDERS: Final = "transactions.orders"
INVENTORY: Final = "inventory.events"

EVENTS_API: Final = "events-api"
"""What the API calls itself in the dead letters of events that it refused."""
EVENTS_LETTERS: Final = f"dlq.{EVENTS_API}"

RULES: Final = "rules.fraud"
"""The history of the fraud rules, which people write with `beam_pipelines.rules`."""
RULES_GROUP: Final = "streamforge-rules"
"""What readers of the rules call their group, which nobody joins: the client asks for its coordinator all the same."""
RULES_TOPIC: Final = {"cleanup.policy": "compact", "message.timestamp.type": "LogAppendTime"}
"""Its settings: kept for ever, and with the broker's clock, by which an activation is in time or not."""
