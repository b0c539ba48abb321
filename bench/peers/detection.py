"""The five fraud rules for the Python peers: one user's orders, in any order of arrival.

Orders are sorted by (event time, order id); an alert belongs to the order that completes a pattern. An order that
arrives late can complete the pattern of a later one, so its followers are looked at again: an alert may then be told
twice, with the same key.
"""

from __future__ import annotations

import json
from bisect import bisect_left
from collections.abc import Callable
from io import BytesIO
from typing import Any, Final, NamedTuple

import fastavro
from confluent_kafka.schema_registry import SchemaRegistryClient

__all__ = ["HIGH_VALUE_MINOR", "HORIZON_MS", "LATENESS_MS", "OUT_OF_ORDERNESS_MS", "Order", "UserOrders", "decoder"]

_MINUTE_MS: Final = 60_000
OUT_OF_ORDERNESS_MS: Final = 10_000
LATENESS_MS: Final = 10 * _MINUTE_MS
# The longest span, and what may still arrive.
HORIZON_MS: Final = 30 * _MINUTE_MS + LATENESS_MS + OUT_OF_ORDERNESS_MS

_COUNT: Final = 3
_BURST_MS: Final = 5 * _MINUTE_MS
_CANCELLED_MS: Final = 30 * _MINUTE_MS
_LOCATION_MS: Final = 10 * _MINUTE_MS
HIGH_VALUE_MINOR: Final = 500_000

Entry = tuple[int, str, str]
"""event_time, order_id, shipping_region"""


class Order(NamedTuple):
    event_time: int
    order_id: str
    shipping_region: str
    cancelled: bool
    amount_minor: int
    is_first: bool


class UserOrders:
    """What is remembered of one user. `add` returns the alerts that an order completes, as (rule, order_id)."""

    __slots__ = ("cancelled", "created", "high", "newest")

    def __init__(self) -> None:
        self.created: list[Entry] = []
        self.cancelled: list[Entry] = []
        self.high: list[Entry] = []
        self.newest = 0

    def add(self, order: Order) -> list[tuple[str, str]]:
        """All five rules."""
        event_time, order_id, region, cancelled, amount, is_first = order
        entry = (event_time, order_id, region)
        alerts: list[tuple[str, str]] = []
        if cancelled:
            self._count(self.cancelled, entry, _CANCELLED_MS, "SUSPICIOUS_PATTERN", alerts)
        else:
            at = self._count(self.created, entry, _BURST_MS, "RAPID_ORDERS", alerts)
            if at is not None:
                self._locate(at, entry, alerts)
            if amount > HIGH_VALUE_MINOR:
                self._count(self.high, entry, _BURST_MS, "HIGH_VALUE_BURST", alerts)
                if is_first:
                    alerts.append(("HIGH_VALUE_FIRST_ORDER", order_id))
        self._forget(event_time)
        return alerts

    def add_high(self, order: Order) -> list[tuple[str, str]]:
        """HIGH_VALUE_BURST alone; the caller passes only CREATED orders above 5000 TRY."""
        alerts: list[tuple[str, str]] = []
        self._count(self.high, order[:3], _BURST_MS, "HIGH_VALUE_BURST", alerts)
        self._forget(order[0])
        return alerts

    @staticmethod
    def _count(
        entries: list[Entry], entry: Entry, span_ms: int, rule: str, alerts: list[tuple[str, str]]
    ) -> int | None:
        """Inserts the entry and finds those that are now at least the third within the span; None for a repeat."""
        at = len(entries)
        if at and entry <= entries[-1]:
            at = bisect_left(entries, entry)
            if entries[at] == entry:
                return None
            entries.insert(at, entry)
        else:
            entries.append(entry)
        completing = range(max(at, _COUNT - 1), min(at + _COUNT, len(entries)))
        alerts += [(rule, entries[i][1]) for i in completing if entries[i - _COUNT + 1][0] >= entries[i][0] - span_ms]
        return at

    def _locate(self, at: int, entry: Entry, alerts: list[tuple[str, str]]) -> None:
        entries, (event_time, order_id, region) = self.created, entry
        for i in range(at - 1, -1, -1):
            earlier = entries[i]
            if earlier[0] < event_time - _LOCATION_MS:
                break
            if earlier[2] != region:
                alerts.append(("LOCATION_ANOMALY", order_id))
                break
        for i in range(at + 1, len(entries)):
            later = entries[i]
            if later[0] > event_time + _LOCATION_MS:
                break
            if later[2] != region:
                alerts.append(("LOCATION_ANOMALY", later[1]))

    def _forget(self, event_time: int) -> None:
        if event_time <= self.newest:
            return
        self.newest = event_time
        oldest = event_time - HORIZON_MS
        for entries in (self.created, self.cancelled, self.high):
            if entries and entries[0][0] < oldest:
                del entries[: bisect_left(entries, (oldest, "", ""))]


_NEEDED: Final = {
    "order_id",
    "user_id",
    "order_status",
    "total_amount_minor",
    "shipping_region",
    "event_time",
    "is_first_order",
}


def decoder(registry: str) -> Callable[[bytes], dict[str, Any]]:
    """A function from a Kafka payload to the needed fields; writer schemas come from the registry, once per id."""
    client = SchemaRegistryClient({"url": registry})
    schemas: dict[bytes, tuple[Any, Any]] = {}
    read = fastavro.schemaless_reader

    def decode(payload: bytes) -> dict[str, Any]:
        frame = payload[:5]
        found = schemas.get(frame)
        if found is None:
            text = client.get_schema(int.from_bytes(frame[1:], "big")).schema_str or ""
            # Times stay integers: fastavro would make a datetime of each.
            writer = json.loads(text, object_hook=lambda part: {k: v for k, v in part.items() if k != "logicalType"})
            reader = {**writer, "fields": [field for field in writer["fields"] if field["name"] in _NEEDED]}
            found = schemas[frame] = (fastavro.parse_schema(writer), fastavro.parse_schema(reader))
        record: dict[str, Any] = read(BytesIO(payload[5:]), *found)
        return record

    return decode
