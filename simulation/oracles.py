"""Whether what a run left behind is what should have come of its events: by the oracles of the tests."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Hashable, Iterable
from pathlib import Path
from typing import Any, NamedTuple

import fastavro
import msgspec
import redis

from schemas.store_keys import KEYS
from simulation.log import Record
from simulation.truth import Judged
from tests.oracle import expected_alerts
from tests.oracle_revenue import expected_revenue
from tests.oracle_sessions import expected_sessions

__all__ = [
    "GAP_MS",
    "Seen",
    "check_archive",
    "check_fraud",
    "check_revenue",
    "check_sessions",
    "of_archive",
    "of_fraud",
    "of_revenue",
    "of_sessions",
    "versions",
]

GAP_MS = 120_000
"""Of sessions."""


class Seen(NamedTuple):
    """What a run left behind.

    Attributes:
      rows: of the folder, by table.
      db: the store.
      possible: records that may have left something in the store: the good ones, and those that some attempt has read
        and the last one has not, or has judged otherwise.
      abandoned: those that only an attempt has read that was given up; the log has lost them since.
    """

    rows: Callable[[str], list[dict[str, Any]]]
    db: redis.Redis
    folder: Path
    possible: list[Record]
    abandoned: list[Record]


def versions(db: Any) -> dict[bytes, float]:
    """Of each id that the store keeps, the version that it has."""
    keys = sorted(db.keys(f"{KEYS.shared}*:ids:*") + db.keys(f"{KEYS.minute}*"))
    with db.pipeline(transaction=False) as asked:
        for key in keys:
            asked.hgetall(key)
        found = asked.execute()
    return {key + b" " + id_: float(v.split()[0]) for key, of in zip(keys, found, strict=True) for id_, v in of.items()}


def of_fraud(record: Record) -> Hashable | None:
    order: Any = record.what
    return (order.order_id, order.order_status) if order.order_status in ("CREATED", "CANCELLED") else None


def check_fraud(judged: Judged, seen: Seen) -> Iterable[str]:
    expected = expected_alerts(_events(judged))
    possible = expected_alerts([record.what for record in seen.possible])  # type: ignore[misc]
    yield from _same("the folder's alerts", Counter(map(_alert, seen.rows("fraud_alerts"))), expected, possible)
    kept: Any = seen.db.zrange(KEYS.recent_alerts, 0, -1)
    stored = {_alert(msgspec.json.decode(each)) for each in kept}
    if missing := expected - stored:
        yield f"the store lacks alerts: {sorted(missing)[:3]}"
    if more := stored - possible:
        yield f"the store has alerts of nothing: {sorted(more)[:3]}"


def _alert(row: dict[str, Any]) -> tuple[str, str, str]:
    return row["alert_type"], row["user_id"], row["order_id"]


def _events(judged: Judged) -> list[Any]:
    return [record.what for record in judged.good]


def _same(name: str, found: Counter[Any], expected: set[Any], possible: set[Any]) -> Iterable[str]:
    if twice := [each for each, times in found.items() if times > 1]:
        yield f"{name} are there more than once: {sorted(twice)[:3]}"
    if missing := expected - found.keys():
        yield f"{name} lack {len(missing)}: {sorted(missing)[:3]}"
    if more := found.keys() - expected - possible:
        yield f"{name} are {len(more)} too many: {sorted(more)[:3]}"


def of_sessions(record: Record) -> Hashable | None:
    click: Any = record.what
    return click.user_id, click.event_id


_FIGURES = (
    *("session_start", "session_end", "duration_seconds", "page_views", "product_views", "add_to_carts"),
    *("purchases", "revenue_minor", "device_type", "geo_region", "primary_category"),
)


def check_sessions(judged: Judged, seen: Seen) -> Iterable[str]:
    expected = {id_: tuple(s)[: len(_FIGURES)] for id_, s in expected_sessions(_events(judged), GAP_MS).items()}
    newest = _newest(seen.rows("user_sessions"), ("session_id",))
    rows = {id_: tuple(row[f] for f in _FIGURES) for (id_,), row in newest.items() if not row["deleted"]}
    if _is_certain(judged, seen):
        yield from _equal("the folder's sessions", rows, expected)
        stored = _stored_sessions(seen.db)
        named = {id_: tuple(dict(zip(_FIGURES, s, strict=True))[f] for f in _STORED) for id_, s in expected.items()}
        yield from _equal("the store's sessions", stored, named)


_STORED = ("duration_seconds", "page_views", "product_views", "add_to_carts", "purchases", "primary_category")


def _stored_sessions(db: redis.Redis) -> dict[str, tuple[Any, ...]]:
    kept: Any = db.zrange(KEYS.recent_sessions, 0, -1)
    found = [msgspec.json.decode(each) for each in kept]
    return {each["session_id"]: tuple(each[f] for f in _STORED) for each in found if "deleted" not in each}


def of_revenue(record: Record) -> Hashable | None:
    order: Any = record.what
    return order.order_id if order.order_status == "CREATED" else None


_MINUTE = ("window_start", "currency", "dimension", "value")
_SUMS = ("gmv_minor", "order_count", "unique_users", "first_time_orders")


def check_revenue(judged: Judged, seen: Seen) -> Iterable[str]:
    expected = {key: tuple(figures) for key, figures in expected_revenue(_events(judged)).items()}
    newest = _newest(seen.rows("real_time_revenue"), _MINUTE)
    rows = {key: tuple(row[f] for f in _SUMS) for key, row in newest.items()}
    if _is_certain(judged, seen):
        yield from _equal("the folder's minutes", rows, expected)
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


def of_archive(record: Record) -> Hashable | None:
    order: Any = record.what
    return record.life, record.partition, order.order_status, order.order_id


def check_archive(judged: Judged, seen: Seen) -> Iterable[str]:
    """Each good record is in one file, and the accounts say so."""
    found: Counter[Any] = Counter()
    for file in sorted(seen.folder.glob("orders/**/[!.]*.avro")):
        partition = int(file.name.split("-")[-2])
        with file.open("rb") as opened:
            records: Any = fastavro.reader(opened)
            found.update((partition, record["order_status"], record["order_id"]) for record in records)
    expected, possible = ({_archived(r) for r in records} for records in (judged.good, seen.possible))
    # A repeat of one is the first of its kind to whoever reads what is left.
    for key in {_archived(r) for r in seen.abandoned} & found.keys():
        found[key] = 1
    yield from _same("the archive's records", found, expected, possible)
    if not _is_certain(judged, seen):
        return
    sums: Counter[str] = Counter()
    for file in sorted(seen.folder.glob("accounts/orders/*-[0-9]*.json")):
        for day in msgspec.json.decode(file.read_bytes())["days"].values():
            sums.update({name: day[name] for name in ("in", "good", "dead_letters", "late", "duplicates")})
    told = {name: sums[name] for name in ("in", "good", "dead_letters", "late", "duplicates")}
    ledger = {name: n for name, n in judged.ledger(0).items() if name != "lost"}
    if told != ledger:
        yield f"the accounts add up to {told}, and should to {ledger}"


def _archived(record: Record) -> tuple[int, str, str]:
    order: Any = record.what
    return record.partition, order.order_status, order.order_id
