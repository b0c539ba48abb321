"""The jobs that are simulated: each built as its page does, and judged by its oracle."""

from __future__ import annotations

import functools
import random
from collections import Counter
from collections.abc import Callable, Hashable, Iterable
from typing import Any, NamedTuple

import apache_beam as beam
import msgspec
import redis

from beam_pipelines import fraud, revenue, sessions
from schemas.store_keys import KEYS
from simulation import traffic
from simulation.graph import Step, steps_of
from simulation.log import Record
from simulation.traffic import Burst
from simulation.truth import DISORDER_MS, Judged
from tests.build import make_fetch
from tests.oracle import expected_alerts
from tests.oracle_revenue import expected_revenue
from tests.oracle_sessions import expected_sessions
from transforms.io.folder import Rolling, WriteToFolder
from transforms.io.kafka.source import ReadBlocksFromKafka
from transforms.io.kafka.topic import KafkaTopic
from transforms.io.redis import WriteAlertsToRedis, WriteLedgerToRedis, WriteRevenueToRedis, WriteSessionsToRedis
from transforms.ledger import SumCounts
from transforms.sharded_rows import Decoding

__all__ = ["JOBS", "Job", "Seen", "Setting", "TOPIC", "steps"]

TOPIC = "simulated"
_STORE = "redis://simulated/0"
_SHARDS = 4
_ROLLING = Rolling(20, 3_000)
_GAP_MS = 120_000
_EARLY_MS = 5_000


class Setting(NamedTuple):
    """What a seed chooses of a job's flags."""

    partitions: int
    readers: int
    lateness_ms: int
    idle_after_ms: int
    block_messages: int

    @staticmethod
    def drawn(chances: random.Random) -> Setting:
        partitions = chances.randint(1, 3)
        return Setting(
            partitions,
            chances.choice((1, 1, 2)),
            chances.choice((60_000, 600_000)),
            chances.choice((10_000, 6 * 3_600_000, 6 * 3_600_000)),
            chances.choice((3, 4_000)),
        )


class Seen(NamedTuple):
    """What a run left behind.

    Attributes:
      rows: of the folder, by table.
      db: the store.
      possible: events that may have left something in the store: the good ones, and those that an attempt has read of
        which nobody can read again, or may judge otherwise.
    """

    rows: Callable[[str], list[dict[str, Any]]]
    db: redis.Redis
    possible: list[Any]


class Job(NamedTuple):
    """
    Attributes:
      results: blocks and setting → dead letters, late records and counts, when its results are written to a folder.
      identity: by which it recognises repeats.
      check: what is wrong with its results.
    """

    name: str
    traffic: Callable[[random.Random, int, int, int], list[Burst]]
    results: Callable[[Any, Setting, str], Any]
    identity: Callable[[Record], Hashable | None]
    check: Callable[[Judged, Seen], Iterable[str]]
    in_order: bool = False


@functools.cache
def steps(name: str, setting: Setting, folder: str) -> list[Step]:
    """A job with all its sinks, as its start would submit it."""
    job = JOBS[name]
    pipeline = beam.Pipeline()
    blocks = pipeline | "Read" >> ReadBlocksFromKafka(
        KafkaTopic("simulated:9092", TOPIC, dict.fromkeys(range(setting.partitions), 0)),
        group=name,
        readers=setting.readers,
        out_of_orderness_ms=DISORDER_MS,
        max_ahead_ms=3_600_000,
        until_end=False,
        idle_after_ms=setting.idle_after_ms,
        block_messages=setting.block_messages,
    )
    outputs = job.results(blocks, setting, folder)
    for table, letters in (("dead_letters", outputs.dead_letters), ("late", outputs.late)):
        letters | table >> WriteToFolder(folder, table, msgspec.json.encode, _ROLLING)
    total = outputs.counts | "Ledger" >> SumCounts(1.0)
    total | "ShowLedger" >> WriteLedgerToRedis(_STORE, name, 1)
    return steps_of(pipeline)


def _decoding(name: str, setting: Setting) -> Decoding:
    return Decoding(name, _SHARDS, setting.lateness_ms, make_fetch)


# Fraud


def _fraud(blocks: Any, setting: Setting, folder: str) -> fraud.Outputs:
    outputs = fraud.build(blocks, fraud.Config(_decoding("fraud", setting)))
    outputs.alerts | "Store" >> WriteAlertsToRedis(_STORE, "fraud")
    outputs.alerts | "Rows" >> WriteToFolder(folder, "fraud_alerts", msgspec.json.encode, _ROLLING)
    return outputs


def _tracked_by_fraud(record: Record) -> Hashable | None:
    order: Any = record.what
    return (order.order_id, order.order_status) if order.order_status in ("CREATED", "CANCELLED") else None


def _check_fraud(judged: Judged, seen: Seen) -> Iterable[str]:
    expected = expected_alerts(_events(judged))
    yield from _same("the folder's alerts", Counter(map(_alert, seen.rows("fraud_alerts"))), expected)
    stored = {_alert(msgspec.json.decode(each)) for each in seen.db.zrange(KEYS.recent_alerts, 0, -1)}  # type: ignore[union-attr]
    if missing := expected - stored:
        yield f"the store lacks alerts: {sorted(missing)[:3]}"
    if more := stored - expected_alerts(seen.possible):
        yield f"the store has alerts of nothing: {sorted(more)[:3]}"


def _alert(row: dict[str, Any]) -> tuple[str, str, str]:
    return row["alert_type"], row["user_id"], row["order_id"]


def _events(judged: Judged) -> list[Any]:
    return [record.what for record in judged.good]


def _same(name: str, found: Counter[Any], expected: set[Any]) -> Iterable[str]:
    if twice := [each for each, times in found.items() if times > 1]:
        yield f"{name} are there more than once: {sorted(twice)[:3]}"
    if missing := expected - found.keys():
        yield f"{name} lack {len(missing)}: {sorted(missing)[:3]}"
    if more := found.keys() - expected:
        yield f"{name} are {len(more)} too many: {sorted(more)[:3]}"


# Sessions


def _sessions(blocks: Any, setting: Setting, folder: str) -> sessions.Outputs:
    config = sessions.Config(_decoding("sessions", setting), gap_ms=_GAP_MS, early_every_ms=_EARLY_MS)
    outputs = sessions.build(blocks, config)
    outputs.sessions | "Store" >> WriteSessionsToRedis(_STORE, "sessions")
    outputs.sessions | "Rows" >> WriteToFolder(folder, "user_sessions", msgspec.json.encode, _ROLLING)
    return outputs


def _tracked_by_sessions(record: Record) -> Hashable | None:
    click: Any = record.what
    return click.user_id, click.event_id


_FIGURES = (
    *("session_start", "session_end", "duration_seconds", "page_views", "product_views", "add_to_carts"),
    *("purchases", "revenue_minor", "device_type", "geo_region", "primary_category"),
)


def _check_sessions(judged: Judged, seen: Seen) -> Iterable[str]:
    expected = {id_: tuple(s)[: len(_FIGURES)] for id_, s in expected_sessions(_events(judged), _GAP_MS).items()}
    newest = _newest(seen.rows("user_sessions"), ("session_id",))
    rows = {id_: tuple(row[f] for f in _FIGURES) for (id_,), row in newest.items() if not row["deleted"]}
    yield from _equal("the folder's sessions", rows, expected)
    if _is_certain(judged, seen):
        stored = _stored_sessions(seen.db)
        named = {id_: tuple(dict(zip(_FIGURES, s, strict=True))[f] for f in _STORED) for id_, s in expected.items()}
        yield from _equal("the store's sessions", stored, named)


_STORED = ("duration_seconds", "page_views", "product_views", "add_to_carts", "purchases", "primary_category")


def _stored_sessions(db: redis.Redis) -> dict[str, tuple[Any, ...]]:
    found = [msgspec.json.decode(each) for each in db.zrange(KEYS.recent_sessions, 0, -1)]  # type: ignore[union-attr]
    return {each["session_id"]: tuple(each[f] for f in _STORED) for each in found if "deleted" not in each}


# Revenue


def _revenue(blocks: Any, setting: Setting, folder: str) -> Any:
    config = revenue.Config(_decoding("revenue", setting), early_every_s=_EARLY_MS // 1000)
    outputs = revenue.build(blocks, config)
    outputs.revenue | "Store" >> WriteRevenueToRedis(_STORE, "revenue")
    outputs.revenue | "Rows" >> WriteToFolder(folder, "real_time_revenue", msgspec.json.encode, _ROLLING)
    return outputs


def _tracked_by_revenue(record: Record) -> Hashable | None:
    order: Any = record.what
    return order.order_id if order.order_status == "CREATED" else None


_MINUTE = ("window_start", "currency", "dimension", "value")
_SUMS = ("gmv_minor", "order_count", "unique_users", "first_time_orders")


def _check_revenue(judged: Judged, seen: Seen) -> Iterable[str]:
    expected = {key: tuple(figures) for key, figures in expected_revenue(_events(judged)).items()}
    newest = _newest(seen.rows("real_time_revenue"), _MINUTE)
    rows = {key: tuple(row[f] for f in _SUMS) for key, row in newest.items()}
    yield from _equal("the folder's minutes", rows, expected)
    if _is_certain(judged, seen):
        stored = {}
        for start_ms, currency, dimension, value in expected:
            kept: Any = seen.db.hget(KEYS.revenue_minute(currency, start_ms), f"{dimension}:{value}")
            figures = None if kept is None else tuple(map(int, kept.split()[1:5]))
            stored[start_ms, currency, dimension, value] = figures
        yield from _equal("the store's minutes", stored, expected)


def _newest(rows: list[dict[str, Any]], key: tuple[str, ...]) -> dict[Any, dict[str, Any]]:
    """The row that counts of each key."""
    found: dict[Any, dict[str, Any]] = {}
    for row in rows:
        its = tuple(row[name] for name in key)
        if its not in found or row["version"] >= found[its]["version"]:
            found[its] = row
    return found


def _equal(name: str, found: dict[Any, Any], expected: dict[Any, Any]) -> Iterable[str]:
    for key in sorted(found.keys() | expected.keys()):
        if found.get(key) != expected.get(key):
            yield f"{name} of {key} are {found.get(key)}, and should be {expected.get(key)}"
            return


def _is_certain(judged: Judged, seen: Seen) -> bool:
    return len(seen.possible) == len(judged.good)


JOBS = {
    job.name: job
    for job in (
        Job("fraud", traffic.orders, _fraud, _tracked_by_fraud, _check_fraud),
        Job("sessions", traffic.clicks, _sessions, _tracked_by_sessions, _check_sessions, in_order=True),
        Job("revenue", traffic.orders, _revenue, _tracked_by_revenue, _check_revenue),
    )
}
