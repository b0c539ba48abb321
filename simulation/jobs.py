"""The jobs that are simulated: each built as its page does, with all its sinks, and judged by its oracle."""

from __future__ import annotations

import functools
import random
from collections.abc import Callable, Hashable, Iterable
from typing import Any, NamedTuple

import apache_beam as beam
import msgspec

from beam_pipelines import archive, fraud, revenue, sessions
from beam_pipelines.sinks import Folder
from simulation import oracles, traffic
from simulation.faults import ANEW, CUT, OLDER, PARTITION, ZOMBIE
from simulation.graph import Step, steps_of
from simulation.log import Record
from simulation.oracles import GAP_MS, Seen
from simulation.traffic import Burst
from simulation.truth import DISORDER_MS, Judged
from tests.build import make_fetch
from transforms.archive import ORDERS_TABLE
from transforms.io.folder import Rolling, WriteToFolder
from transforms.io.kafka.source import ReadBlocksFromKafka
from transforms.io.kafka.topic import KafkaTopic
from transforms.io.redis import (
    WriteAlertsToRedis,
    WriteLedgerToRedis,
    WriteOrderFeaturesToRedis,
    WriteRevenueToRedis,
    WriteSessionsToRedis,
)
from transforms.ledger import SumCounts
from transforms.sharded_rows import Decoding

__all__ = ["JOBS", "TOPIC", "Flags", "Job", "Setting", "steps"]

TOPIC = "simulated.orders"
_STORE = "redis://simulated/0"
_SHARDS = 4
_ROLLING = Rolling(20, 3_000)
_EARLY_MS = 5_000
_LONG_MS = 6 * 3_600_000


class Flags(NamedTuple):
    """Of a job's start."""

    readers: int
    lateness_ms: int
    idle_after_ms: int
    block_messages: int

    @property
    def passes_over(self) -> bool:
        """Whether a run is long enough for a partition to be passed over."""
        return self.idle_after_ms < _LONG_MS


_FLAGS = (
    Flags(1, 60_000, _LONG_MS, 4_000),
    Flags(2, 600_000, _LONG_MS, 3),
    Flags(1, 600_000, _LONG_MS, 4_000),
    Flags(2, 60_000, 10_000, 4_000),
    Flags(1, 60_000, 10_000, 3),
)
"""A few, as a pipeline takes longer to build than to run."""


class Setting(NamedTuple):
    """What a seed chooses."""

    partitions: int
    flags: Flags

    @staticmethod
    def drawn(chances: random.Random, *, may_idle: bool) -> Setting:
        return Setting(
            chances.randint(1, 3), chances.choice([flags for flags in _FLAGS if may_idle or not flags.passes_over])
        )


class Job(NamedTuple):
    """
    Attributes:
      results: blocks, flags and folder → dead letters, late records and counts; the results are written.
      identity: by which it recognises repeats.
      check: what is wrong with its results.
      keeps_order: it needs the order from one keyed step to the next, and a user's events in one partition, as its ADR
        says.
      spared: faults after which it refuses to go on, or its results are not defined.
    """

    name: str
    traffic: Callable[[random.Random, int, int, int], list[Burst]]
    results: Callable[[Any, Flags, str], Any]
    identity: Callable[[Record], Hashable | None]
    check: Callable[[Judged, Seen], Iterable[str]]
    keeps_order: bool = False
    may_idle: bool = True
    spared: frozenset[str] = frozenset()


@functools.cache
def steps(name: str, flags: Flags, folder: str) -> list[Step]:
    """A job with all its sinks, as its start would submit it."""
    job = JOBS[name]
    pipeline = beam.Pipeline()
    blocks = pipeline | "Read" >> ReadBlocksFromKafka(
        KafkaTopic("simulated:9092", TOPIC, {0: 0}, "an-id"),
        group=name,
        readers=flags.readers,
        out_of_orderness_ms=DISORDER_MS,
        max_ahead_ms=3_600_000,
        until_end=False,
        idle_after_ms=flags.idle_after_ms,
        by_offset=name == "archive",
        block_messages=flags.block_messages,
    )
    outputs = job.results(blocks, flags, folder)
    for table, letters in (("dead_letters", outputs.dead_letters), ("late", outputs.late)):
        letters | table >> WriteToFolder(folder, table, msgspec.json.encode, _ROLLING)
    total = outputs.counts | "Ledger" >> SumCounts(1.0)
    total | "ShowLedger" >> WriteLedgerToRedis(_STORE, name, 1)
    return steps_of(pipeline)


def _decoding(name: str, flags: Flags, **more: Any) -> Decoding:
    return Decoding(name, _SHARDS, flags.lateness_ms, make_fetch, **more)


def _rows(collection: Any, folder: str, table: str) -> None:
    collection | "Rows" >> WriteToFolder(folder, table, msgspec.json.encode, _ROLLING)


def _fraud(blocks: Any, flags: Flags, folder: str) -> Any:
    outputs = fraud.build(blocks, fraud.Config(_decoding("fraud", flags)))
    outputs.alerts | "Store" >> WriteAlertsToRedis(_STORE, "fraud")
    _rows(outputs.alerts, folder, "fraud_alerts")
    return outputs


def _sessions(blocks: Any, flags: Flags, folder: str) -> Any:
    config = sessions.Config(_decoding("sessions", flags), gap_ms=GAP_MS, early_every_ms=_EARLY_MS)
    outputs = sessions.build(blocks, config)
    outputs.sessions | "Store" >> WriteSessionsToRedis(_STORE, "sessions")
    _rows(outputs.sessions, folder, "user_sessions")
    return outputs


def _revenue(blocks: Any, flags: Flags, folder: str) -> Any:
    outputs = revenue.build(blocks, revenue.Config(_decoding("revenue", flags), early_every_s=_EARLY_MS // 1000))
    outputs.revenue | "Store" >> WriteRevenueToRedis(_STORE, "revenue")
    outputs.orders | "Features" >> WriteOrderFeaturesToRedis(_STORE, "revenue")
    _rows(outputs.revenue, folder, "real_time_revenue")
    return outputs


def _archive(blocks: Any, flags: Flags, folder: str) -> Any:
    decoding = _decoding("archive", flags, lands_replays=True)
    config = archive.Config(decoding, Folder(folder), records_per_file=16, flush_every_s=10)
    return archive.build([archive.Input(ORDERS_TABLE, TOPIC, blocks)], config)


JOBS = {
    job.name: job
    for job in (
        Job("fraud", traffic.orders, _fraud, oracles.of_fraud, oracles.check_fraud),
        Job("sessions", traffic.clicks, _sessions, oracles.of_sessions, oracles.check_sessions, keeps_order=True),
        Job("revenue", traffic.orders, _revenue, oracles.of_revenue, oracles.check_revenue),
        Job(
            *("archive", traffic.orders, _archive, oracles.of_archive, oracles.check_archive),
            keeps_order=True,
            may_idle=False,
            spared=frozenset({ANEW, CUT, OLDER, PARTITION, ZOMBIE}),
        ),
    )
}
