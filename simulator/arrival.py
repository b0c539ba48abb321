"""The order in which events are sent, and what goes wrong on the way: swaps, poison, late records, duplicates."""

from __future__ import annotations

import heapq
import random
import zlib
from collections import deque
from collections.abc import Iterable, Iterator, Mapping
from typing import Any, Final

import msgspec

from schemas.events import OrderEvent
from simulator.config import INVENTORY, Config, Event, Kind
from simulator.poison import Poison
from simulator.shop import Shop
from simulator.ticks import Ticks
from simulator.wire import Wire

__all__ = ["arrivals", "partition_of", "shuffled"]

_DUPLICATE_WITHIN_MS: Final = 30_000  # well inside any allowed lateness
_LATE_JITTER_MS: Final = 60_000
_KEYS_OF_A_CLOCK: Final = 3
_ENOUGH: Final = 1_003  # records, after which a clock goes without three keys


def arrivals(config: Config, wire: Wire, ticks: Ticks | None = None) -> Iterator[Event]:
    """Everything that is sent, in order.

    The good events are those of `simulator.shop.events`, spaced so that planted ones fit into the rate between them.

    Args:
      ticks: to stop early: after `ticks.stop()` what is under way still comes, nothing else.
    """
    ticks = ticks or Ticks(config)
    shop = Shop(config)
    rng = random.Random(f"{config.seed}/arrival")
    in_order = shuffled(shop.traffic(ticks), config.out_of_orderness_ms, rng)
    if not config.planted_share:
        return in_order
    return _Planting(config, shop, wire, ticks).into(in_order)


def shuffled(events: Iterable[Event], less_than_ms: int, rng: random.Random) -> Iterator[Event]:
    """Events in order of event time, each held back for a random time below the bound: so no event comes after one
    that is later by the bound or more."""
    waiting: list[tuple[int, int, Event]] = []
    for number, event in enumerate(events):
        now = event.timestamp_ms
        if less_than_ms:
            heapq.heappush(waiting, (now + int(rng.random() * less_than_ms), number, event))
            while waiting and waiting[0][0] <= now:
                yield heapq.heappop(waiting)[2]
        else:
            yield event
    while waiting:
        yield heapq.heappop(waiting)[2]


def partition_of(key: str, partitions: int) -> int:
    """Where librdkafka's default partitioner (consistent_random) puts a key that is not empty."""
    return zlib.crc32(key.encode()) % partitions


class _Newest:
    """Per topic and partition: the newest record timestamp sent, and how many records.

    A partition's clock goes once three keys in a row have been heard (docs/semantics.md); before that nothing is late.
    """

    def __init__(self, partitions: Mapping[str, int]):
        self._partitions = partitions
        self._times: dict[tuple[str, int], int] = {}
        self._counts: dict[tuple[str, int], int] = {}
        self._last_keys: dict[tuple[str, int], list[str]] = {}
        self._goes: dict[str, set[int]] = {}

    def partition(self, event: Event) -> tuple[str, int]:
        return event.topic, partition_of(event.key, self._partitions.get(event.topic, 1))

    def saw(self, event: Event) -> None:
        partition = self.partition(event)
        if event.timestamp_ms > self._times.get(partition, 0):
            self._times[partition] = event.timestamp_ms
        self._counts[partition] = self._counts.get(partition, 0) + 1
        goes = self._goes.setdefault(event.topic, set())
        if partition[1] not in goes:
            keys = self._last_keys.setdefault(partition, [])
            if keys[-1:] != [event.key]:
                keys.append(event.key)
            if len(set(keys[-_KEYS_OF_A_CLOCK:])) == _KEYS_OF_A_CLOCK or self._counts[partition] > _ENOUGH:
                goes.add(partition[1])

    def has_clock(self, topic: str) -> bool:
        """Whether the clock of any of its partitions goes."""
        return bool(self._goes.get(topic))

    def of(self, topic: str, key: str) -> tuple[int, int, int] | None:
        """Partition, newest time and count where a key goes; None while the clock of that partition does not go."""
        number = partition_of(key, self._partitions.get(topic, 1))
        if number not in self._goes.get(topic, ()):
            return None
        return number, self._times[topic, number], self._counts[topic, number]


class _Planting:
    """Puts bad, late and repeated records between good ones, in the shares asked for."""

    def __init__(self, config: Config, shop: Shop, wire: Wire, ticks: Ticks):
        self._config = config
        self._shop = shop
        self._ticks = ticks
        self._rng = random.Random(f"{config.seed}/planting")
        self._poison = Poison(shop, wire, self._rng)
        self._newest = _Newest(config.partitions)
        self._recent: dict[str, deque[Event]] = {topic: deque(maxlen=100) for topic in config.topics}

    def into(self, good: Iterable[Event]) -> Iterator[Event]:
        share = self._config.planted_share
        random_ = self._rng.random
        for event in good:
            self._newest.saw(event)
            yield event
            if event.topic == INVENTORY:
                continue
            self._recent[event.topic].append(event)
            # Geometric: share / (1 - share) planted records for each good one.
            while random_() < share and self._ticks.next() is not None:
                planted = self._make(event)
                self._newest.saw(planted)
                yield planted

    def _make(self, after: Event) -> Event:
        u = self._rng.random() * self._config.planted_share
        if u < self._config.bad_share:
            return self._poison.next(after.topic, after.timestamp_ms)
        late = u < self._config.bad_share + self._config.late_share
        if late and self._newest.has_clock(after.topic):
            return self._late(after)
        return self._duplicate(after)

    def _late(self, after: Event) -> Event:
        """A valid record far behind its partition, of a user who does nothing else."""
        topic = after.topic
        user_id = self._shop.identifier("late")
        while (sent := self._newest.of(topic, user_id)) is None:
            user_id = self._shop.identifier("late")
        partition, newest, position = sent
        when = max(1, newest - self._config.late_by_ms - self._rng.randrange(_LATE_JITTER_MS))
        record = self._shop.random_record(topic, when, user_id, "TR-34")
        truth = self._about("late", topic, user_id, record) | {
            "event_time": when,
            "behind_ms": newest - when,
            "partition": partition,
            "records_before": position,
        }
        return Event(topic, user_id, when, record, "late", truth=(truth,))

    def _duplicate(self, after: Event) -> Event:
        original = self._rng.choice(self._recent[after.topic])
        if original.timestamp_ms < after.timestamp_ms - _DUPLICATE_WITHIN_MS:
            original = after
        truth = self._about("duplicate", original.topic, original.key, original.record)
        return msgspec.structs.replace(original, kind="duplicate", truth=(truth,))

    def _about(self, kind: Kind, topic: str, key: str, record: Any) -> dict[str, Any]:
        about = {"kind": kind, "topic": topic, "key": key}
        if isinstance(record, OrderEvent):
            return about | {"order_id": record.order_id, "order_status": record.order_status}
        return about | {"event_id": record.event_id}
