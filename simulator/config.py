"""What to generate: the settings, and the event that every stage passes on."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Final, Literal

import msgspec

from schemas.currencies import DEFAULT, currency
from schemas.events import ClickstreamEvent, InventoryEvent, OrderEvent
from schemas.jobs.shop import CLICKS, INVENTORY, ORDERS

__all__ = ["CLICKS", "INVENTORY", "ORDERS", "RECORDS", "TOPICS", "Config", "ConfigError", "Event", "Kind"]

RECORDS: Final[dict[str, type[msgspec.Struct]]] = {
    CLICKS: ClickstreamEvent,
    ORDERS: OrderEvent,
    INVENTORY: InventoryEvent,
}
TOPICS: Final = tuple(RECORDS)

Kind = Literal["good", "bad", "late", "duplicate"]


class ConfigError(ValueError):
    """A setting makes no sense; `flag` is its name."""

    def __init__(self, flag: str, reason: str):
        super().__init__(f"--{flag}: {reason}")
        self.flag = flag


@dataclass(frozen=True)
class Config:
    """Equal configs give equal events, byte for byte.

    Attributes:
      start_ms: event time of the first event.
      rate: events per second of event time, over all topics and kinds.
      events: stop after as many; None: no such limit.
      duration_ms: stop after this span of event time; None: no such limit.
      rhythm: fewer events at night, `rate` being the mean over a day.
      currencies: that users pay in, one each. Planted fraud is in lira, as the rules that are shipped.
      users: how many ordinary users the shop has; planted users come on top.
      fraud_share: share of the order records that belong to planted fraud.
      bad_share, late_share, duplicate_share: shares of the order and click records.
      out_of_orderness_ms: an event arrives less than this after its time, so that neighbours swap places.
      late_by_ms: how far behind the newest event time of its partition a late record lies, at least.
      partitions: partitions per topic, by which late records find what is late there; 1 when not named.
    """

    seed: int = 1
    start_ms: int = 1_767_225_600_000  # 2026-01-01T00:00:00Z
    rate: float = 50.0
    events: int | None = None
    duration_ms: int | None = None
    rhythm: bool = False
    users: int = 100_000
    currencies: tuple[str, ...] = (DEFAULT,)
    topics: tuple[str, ...] = TOPICS
    fraud_share: float = 0.05
    bad_share: float = 0.0
    late_share: float = 0.0
    duplicate_share: float = 0.0
    out_of_orderness_ms: int = 0
    late_by_ms: int = 15 * 60_000
    partitions: Mapping[str, int] = field(default_factory=dict)

    def __post_init__(self) -> None:
        if self.rate <= 0:
            raise ConfigError("rate", "must be positive")
        if self.start_ms <= 0:
            raise ConfigError("start", "must be after 1970")
        if self.events is not None and self.events < 1:
            raise ConfigError("events", "must be at least 1")
        if self.duration_ms is not None and self.duration_ms <= 0:
            raise ConfigError("duration", "must be positive")
        if self.users < 1:
            raise ConfigError("users", "must be at least 1")
        if not self.currencies:
            raise ConfigError("currencies", "names none")
        for code in self.currencies:
            try:
                currency(code)
            except ValueError as e:
                raise ConfigError("currencies", str(e)) from None
        if not self.topics or any(topic not in TOPICS for topic in self.topics):
            raise ConfigError("topics", f"must be some of {', '.join(TOPICS)}")
        for flag in ("fraud_share", "bad_share", "late_share", "duplicate_share"):
            if not 0 <= getattr(self, flag) <= 0.9:
                raise ConfigError(flag, "must lie between 0 and 0.9")
        if self.planted_share > 0.9:
            raise ConfigError("bad_share", "together with --late_share and --duplicate_share it must not exceed 0.9")
        if self.out_of_orderness_ms < 0:
            raise ConfigError("out_of_orderness", "must not be negative")
        if self.late_by_ms <= self.out_of_orderness_ms:
            raise ConfigError("late_by", "must be longer than --out_of_orderness")

    @property
    def planted_share(self) -> float:
        return self.bad_share + self.late_share + self.duplicate_share

    @property
    def run(self) -> str:
        """A short name in every id, so that runs with other seeds or starts do not repeat each other's orders."""
        return hashlib.sha256(f"{self.seed}/{self.start_ms}".encode()).hexdigest()[:6]


class Event(msgspec.Struct, frozen=True):
    """One message.

    Attributes:
      timestamp_ms: the Kafka record timestamp; the record's event time, unless that is the planted fault.
      record: None when the payload cannot be written as a record: then `payload` holds its bytes, or None.
      truth: lines for the truth file, due once this event is sent.
    """

    topic: str
    key: str
    timestamp_ms: int
    record: ClickstreamEvent | OrderEvent | InventoryEvent | None
    kind: Kind = "good"
    payload: bytes | None = None
    truth: tuple[dict[str, Any], ...] = ()
