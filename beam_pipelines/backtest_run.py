"""A backtest's work, by processes of this machine: files → rows by shard of users on disk → what the rules find.

Memory is bounded by what a worker holds at a time: 512 blocks of files, at most 32 MiB, while it reads, then one of
`_SHARDS` shards of users with the orders of theirs that rules look at. Disk takes the rest, about 90 bytes an order.
"""

from __future__ import annotations

import gc
import marshal
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import FIRST_COMPLETED, Future, ProcessPoolExecutor, wait
from concurrent.futures.process import BrokenProcessPool
from dataclasses import dataclass, field, replace
from functools import lru_cache
from typing import IO, Any, TypeVar

import msgspec
import numpy as np

from transforms.decode import ORDERS, BlockDecoder
from transforms.domain.backtest import Tally, alerts_of, reach_ms, tally
from transforms.domain.backtest_report import Bad
from transforms.domain.days import Days
from transforms.domain.fraud import UserOrders
from transforms.domain.fraud_rules import Rules
from transforms.fraud import FraudRows
from transforms.io.scratch import ScratchReader, ScratchWriter, make_shards
from transforms.io.whole_files import Unreadable, read_files
from transforms.order_facts import FACTS, facts_of, fingerprints, once, totals

__all__ = ["Found", "Plan", "Progress", "WorkerLost", "run"]

_SHARDS = 256
_FACTS, _ALERTS = "facts", "alerts"
_MOST_FILES = 64  # that a worker takes at a time
_TAKEN = 16  # times that each worker takes some
_FACTS_HELD = 100_000
_SAY_S = 2.0

Progress = Callable[[str], None]
R = TypeVar("R")


class WorkerLost(Exception):
    """A worker process ended; the kernel may have stopped it for want of memory."""


@dataclass(frozen=True)
class Plan:
    """
    Attributes:
      sets: the rules to try, and those to compare them with if there are any.
      start_ms, end_ms: alerts and orders from the one until before the other are counted.
      labels: ids of orders that were fraud; None without labels.
      now_ms: no order may be later than an hour after this.
    """

    sets: tuple[Rules, ...]
    now_ms: int
    start_ms: int = 0
    end_ms: int = 1 << 62
    time_zone: str = "UTC"
    labels: frozenset[str] | None = None
    max_orders_per_user: int = 1_000
    scratch: str = ""
    keeps_alerts: bool = False

    @property
    def reach_ms(self) -> int:
        return max(map(reach_ms, self.sets))


@dataclass
class Found:
    """What a run found: `tally`, and what became of each record that was read."""

    records: int = 0
    bad: int = 0
    outside: int = 0
    repeats: int = 0
    reasons: dict[str, Bad] = field(default_factory=dict)
    unreadable: dict[str, str] = field(default_factory=dict)
    tally: Tally = field(default_factory=Tally)

    def add(self, other: Found) -> None:
        self.records += other.records
        self.bad += other.bad
        self.outside += other.outside
        self.repeats += other.repeats
        for error_class, bad in other.reasons.items():
            self.refuse(error_class, bad.count, bad.example)
        self.unreadable |= other.unreadable
        self.tally.add(other.tally)

    def refuse(self, error_class: str, count: int, example: str) -> None:
        """The example is the same in whatever order files were read."""
        known = self.reasons.get(error_class, Bad(error_class, 0, example))
        self.reasons[error_class] = Bad(error_class, known.count + count, min(known.example, example))


def run(paths: Sequence[str], plan: Plan, workers: int, say: Progress, alerts_to: IO[bytes] | None = None) -> Found:
    """
    Args:
      alerts_to: receives the alerts of the rules that are tried, as lines of JSON.

    Raises:
      WorkerLost.
      OSError: there is no room for the scratch files, for example.
    """
    with tempfile.TemporaryDirectory(prefix="streamforge-backtest-") as scratch:
        make_shards(scratch, _SHARDS)
        plan = replace(plan, scratch=scratch, keeps_alerts=alerts_to is not None)
        size = max(1, min(_MOST_FILES, len(paths) // (workers * _TAKEN)))
        takes = [paths[at : at + size] for at in range(0, len(paths), size)]
        total, began, said = Found(), time.monotonic(), 0.0
        done = 0
        with _Workers(plan, workers) as pool:
            for found in pool.each(_read, takes):
                total.add(found)
                done += 1
                if time.monotonic() - said > _SAY_S or done == len(takes):
                    said = time.monotonic()
                    files = min(done * size, len(paths))
                    say(f"read {files:,} of {len(paths):,} files, {total.records:,} orders ({said - began:.0f} s)")
            for number, found in enumerate(pool.each(_judge, range(_SHARDS)), 1):
                total.add(found)
                if time.monotonic() - said > _SAY_S or number == _SHARDS:
                    said = time.monotonic()
                    say(f"rules applied to {number * 100 // _SHARDS} % of users ({said - began:.0f} s)")
        for shard in range(_SHARDS) if alerts_to else ():
            for lines in ScratchReader(scratch, _ALERTS).take(shard):
                alerts_to.write(lines)
    return total


class _Workers:
    """One worker is this process itself."""

    def __init__(self, plan: Plan, count: int):
        self._plan = plan
        self._pool = ProcessPoolExecutor(count, initializer=_begin, initargs=(plan,)) if count > 1 else None
        self._count = count

    def __enter__(self) -> _Workers:
        return self

    def __exit__(self, *error: object) -> None:
        if self._pool:
            self._pool.shutdown(cancel_futures=True)

    def each(self, step: Callable[[Plan, Any], R], tasks: Sequence[Any]) -> Iterator[R]:
        """In no particular order. Raises: WorkerLost."""
        if self._pool is None:
            yield from (step(self._plan, task) for task in tasks)
            return
        left = iter(tasks)
        running: set[Future[R]] = set()
        try:
            while True:
                while len(running) < 2 * self._count and (task := next(left, None)) is not None:
                    running.add(self._pool.submit(_in_worker, step, task))
                if not running:
                    return
                ended, running = wait(running, return_when=FIRST_COMPLETED)
                yield from (future.result() for future in ended)
        except BrokenProcessPool as e:
            raise WorkerLost from e


_of_worker: list[Plan] = []  # which is sent once, and not with each task


def _begin(plan: Plan) -> None:
    _of_worker.append(plan)
    gc.disable()  # nothing here is in a cycle, and it would visit every row


def _in_worker(step: Callable[[Plan, Any], R], task: Any) -> R:
    return step(_of_worker[0], task)


def _read(plan: Plan, paths: Sequence[str]) -> Found:
    """Writes what the rules and the totals need of the files' orders."""
    found = Found()
    decoder = BlockDecoder(ORDERS, "backtest", _no_registry, 0)
    rows_of = [FraudRows(rules) for rules in plan.sets]
    rows_out = [ScratchWriter(plan.scratch, str(i)) for i in range(len(plan.sets))]
    facts_out = ScratchWriter(plan.scratch, _FACTS)
    facts: list[Any] = []
    for decoded in read_files(paths, decoder, plan.now_ms):
        if isinstance(decoded, Unreadable):
            found.unreadable[decoded.path] = decoded.why
            continue
        found.records += decoded.good + len(decoded.bad)
        found.bad += len(decoded.bad)
        for bad in decoded.bad:
            found.refuse(bad.error_class, 1, f"{bad.error_message} ({bad.topic}, record {bad.offset})")
        facts.append(facts_of(decoded, _SHARDS))
        for rows, out in zip(rows_of, rows_out, strict=True):
            for shard, of_shard in rows(decoded, _SHARDS).items():
                out.add(shard, marshal.dumps(of_shard))
        if sum(map(len, facts)) >= _FACTS_HELD:
            found.outside += _write_facts(plan, facts, facts_out)
            facts = []
    found.outside += _write_facts(plan, facts, facts_out)
    for out in (facts_out, *rows_out):
        out.flush()
    return found


def _no_registry(key: Any) -> Any:
    raise LookupError(f"schema {key}: files have their own")


def _write_facts(plan: Plan, facts: list[Any], out: ScratchWriter) -> int:
    """Returns: how many are of other days."""
    every = np.concatenate(facts) if facts else np.zeros(0, FACTS)
    within = every[(every["at_ms"] >= plan.start_ms) & (every["at_ms"] < plan.end_ms)]
    by_shard = within[np.argsort(within["shard"], kind="stable")]
    bounds = np.searchsorted(by_shard["shard"], np.arange(_SHARDS + 1)).tolist()
    for shard in range(_SHARDS):
        if of_shard := by_shard[bounds[shard] : bounds[shard + 1]].tobytes():
            out.add(shard, of_shard)
    return len(every) - len(within)


def _judge(plan: Plan, shard: int) -> Found:
    """Applies the rules to the users of a shard."""
    read = np.frombuffer(b"".join(ScratchReader(plan.scratch, _FACTS).take(shard)), FACTS)
    facts = once(read)
    days = Days(plan.time_zone)
    labels = None if plan.labels is None else _by_fingerprint(plan.labels)
    counts, frauds = totals(facts, labels or {}, days)
    alerts = [
        list(alerts_of(_orders(plan, i, shard), rules, plan.max_orders_per_user, plan.start_ms))
        for i, rules in enumerate(plan.sets)
    ]
    if plan.keeps_alerts:
        ordered = sorted(alerts[0], key=lambda alert: (alert.event_time, alert.alert_id))
        out = ScratchWriter(plan.scratch, _ALERTS)
        out.add(shard, b"".join(msgspec.json.encode(alert) + b"\n" for alert in ordered))
        out.flush()
    judged = tally(alerts[0], alerts[1] if len(alerts) > 1 else None, None if labels is None else frauds, days.of)
    judged.counts.update(counts)
    return Found(repeats=len(read) - len(facts), tally=judged)


@lru_cache(1)
def _by_fingerprint(labels: frozenset[str]) -> dict[int, str]:
    ids = sorted(labels)
    return dict(zip(fingerprints(ids).tolist(), ids, strict=True))


def _orders(plan: Plan, number: int, shard: int) -> dict[str, UserOrders]:
    """What a set of rules looks at, by user: rows are tuples of whatever `FraudRows` keeps."""
    first_ms, end_ms = plan.start_ms - plan.reach_ms, plan.end_ms
    orders: dict[str, UserOrders] = {}
    for rows in ScratchReader(plan.scratch, str(number)).take(shard):
        for user_id, order in marshal.loads(rows):  # noqa: S302 - from this run, in a folder of its own
            if first_ms <= order[0] < end_ms:
                if user_id in orders:
                    orders[user_id].append(order)
                else:
                    orders[user_id] = [order]
    return orders
