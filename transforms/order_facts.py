"""What is counted of every order, whatever the rules: 37 bytes each, made of whole columns.

Rules look at some orders; how many orders, users and how much money there were in all must not depend on that. Ids are
kept as fingerprints of 64 bits. Among ten million of them, two are the same by chance once in 400,000 times.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping
from itertools import pairwise
from typing import Final

import numpy as np
import numpy.typing as npt

from schemas.columns import Columns, Ints
from schemas.currencies import NUMBERS, code_of, number_of
from schemas.events import OrderEvent
from transforms.decode import DecodedBlock
from transforms.domain.backtest import Counts, Fraud
from transforms.domain.days import Days
from transforms.domain.fraud_orders import CREATED, STATUSES
from transforms.keyed_state import shard_of

__all__ = ["FACTS", "Facts", "facts_of", "fingerprints", "once", "totals"]

FACTS: Final = np.dtype(
    [
        *(("order", "<u8"), ("user", "<u8"), ("at_ms", "<i8"), ("amount", "<i8")),
        *(("currency", "<i2"), ("shard", "<i2"), ("status", "i1")),
    ]
)
Facts = np.ndarray[tuple[int], np.dtype[np.void]]
"""Of n orders, each in one status: a structured array of FACTS."""

_U64s = npt.NDArray[np.uint64]
_FACTOR: Final = 0x9E3779B97F4A7C15
_LONGEST: Final = 1_024  # bytes of an id of 256 characters
_POWERS: Final[_U64s] = np.array([pow(_FACTOR, i, 1 << 64) for i in range(1, _LONGEST + 1)], np.uint64)


def facts_of(decoded: DecodedBlock[OrderEvent], shard_count: int) -> Facts:
    """Of all good records of a block; a user has the shard that the jobs' rows have."""
    found = [_of_columns(part.columns, part.rows, part.symbols["order_status"], shard_count) for part in decoded.parts]
    if decoded.records:
        found.append(_of_records(decoded.records, shard_count))
    return np.concatenate(found) if found else np.zeros(0, FACTS)


def _of_columns(columns: Columns, rows: Ints, symbols: list[str], shard_count: int) -> Facts:
    facts = np.zeros(len(rows), FACTS)
    for name in ("order", "user"):
        starts, ends = columns.spans[f"{name}_id"]
        facts[name] = _fingerprints(columns.data, starts[rows], ends[rows])
    data, bounds = columns.data, (starts[rows].tolist(), ends[rows].tolist())  # of user_id
    facts["shard"] = [shard_of(data[start:end], shard_count) for start, end in zip(*bounds, strict=True)]
    facts["at_ms"] = columns.ints["event_time"][rows]
    facts["amount"] = columns.ints["total_amount_minor"][rows]
    facts["currency"] = columns.currencies("currency", rows)
    facts["status"] = np.array([STATUSES.index(s) for s in symbols])[columns.ints["order_status"][rows]]
    return facts


def _of_records(orders: list[OrderEvent], shard_count: int) -> Facts:
    facts = np.zeros(len(orders), FACTS)
    facts["order"] = fingerprints(o.order_id for o in orders)
    facts["user"] = fingerprints(o.user_id for o in orders)
    facts["shard"] = [shard_of(o.user_id.encode(), shard_count) for o in orders]
    facts["at_ms"] = [o.event_time for o in orders]
    facts["amount"] = [o.total_amount_minor for o in orders]
    facts["currency"] = [number_of(o.currency) for o in orders]
    facts["status"] = [STATUSES.index(o.order_status) for o in orders]
    return facts


def fingerprints(ids: Iterable[str]) -> _U64s:
    """Of texts of 1 to 256 characters."""
    encoded = [text.encode() for text in ids]
    sizes = np.array([len(text) for text in encoded], np.int64)
    ends = np.cumsum(sizes)
    return _fingerprints(b"".join(encoded), ends - sizes, ends)


def _fingerprints(data: bytes, starts: Ints, ends: Ints) -> _U64s:
    """A polynomial of the bytes, then mixed so that every bit depends on all."""
    if not len(starts):
        return np.zeros(0, np.uint64)
    sizes = ends - starts
    first = np.cumsum(sizes) - sizes
    place = np.arange(int(sizes.sum())) - np.repeat(first, sizes)
    letters = np.frombuffer(data, np.uint8)[place + np.repeat(starts, sizes)].astype(np.uint64) + np.uint64(1)
    found: _U64s = np.add.reduceat(letters * _POWERS[place], first)
    for shift, factor in ((33, 0xFF51AFD7ED558CCD), (33, 0xC4CEB9FE1A85EC53)):  # MurmurHash3's finalizer
        found ^= found >> np.uint64(shift)
        found *= np.uint64(factor)
    return found ^ (found >> np.uint64(33))


def once(facts: Facts) -> Facts:
    """The facts without repeats: of a user's order in one status the earliest counts, then the smallest amount."""
    key = facts["order"] ^ (facts["user"] * np.uint64(_FACTOR)) ^ (facts["status"].astype(np.uint64) << np.uint64(61))
    order = np.argsort(key)
    same = np.zeros(len(key), np.bool_)
    same[1:] = key[order[1:]] == key[order[:-1]]
    if not same.any():
        return facts
    order = np.lexsort((facts["currency"], facts["amount"], facts["at_ms"], key))
    same[1:] = key[order[1:]] == key[order[:-1]]
    kept: Facts = facts[order[~same]]
    return kept


def totals(facts: Facts, labels: Mapping[int, str], days: Days) -> tuple[Counts, dict[str, Fraud]]:
    """What there was of some users, without repeats, whatever the rules; and which of their orders were fraud.

    Args:
      labels: by fingerprint.
    """
    counts: Counts = Counter()
    counts["shop", "records"] = len(facts)
    created = facts[facts["status"] == CREATED]
    counts["shop", "users"] = len(np.unique(created["user"]))
    key = days.numbers(created["at_ms"]) * NUMBERS + created["currency"]
    order = np.argsort(key, kind="stable")
    firsts = np.flatnonzero(np.diff(key[order], prepend=-1)).tolist()
    amounts = created["amount"][order].tolist()  # Python's numbers do not overflow
    for start, end in pairwise([*firsts, len(order)]):
        number, currency = divmod(int(key[order[start]]), NUMBERS)
        amount, code, name = sum(amounts[start:end]), code_of(currency), days.name(number)
        counts["shop", "orders"] += end - start
        counts["shop", "amount", code] += amount
        counts["shop", "day", name, "orders"] += end - start
        counts["shop", "day", name, "amount", code] += amount
    frauds: dict[str, Fraud] = {}
    if labels:
        known = facts[np.isin(facts["order"], np.fromiter(labels, np.uint64, len(labels)))]
        for row in known[np.lexsort((known["status"], known["amount"], known["at_ms"]))].tolist():
            order_id = labels[row[0]]
            frauds.setdefault(order_id, Fraud(order_id, row[2], row[3], code_of(row[4])))
    for fraud in frauds.values():
        counts["labels", "known"] += 1
        counts["labels", "amount", fraud.currency] += fraud.amount_minor
    return counts, frauds
