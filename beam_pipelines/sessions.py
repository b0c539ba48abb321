"""Sessions: groups clicks into each user's visits; emits each early, when it ends, and again when it is corrected.

    clickstream.events ─▶ blocks ─▶ decode, validate ─▶ bursts by user ─▶ sessions ─▶ Redis, analytics.sessions, folder
                                         ├─▶ dead letters ─▶ dlq.session-aggregator
                                         └─▶ late         ─▶ late.session-aggregator

A user's clicks belong to one session while each comes less than 30 min after another, for at most 12 h. Every record
ends in exactly one of good, dead letters, late and duplicates, and the ledger counts each. A row is replaced by one
with a newer version, computed from more clicks, and a session that turns out to be part of another is retracted by a
row with `deleted`. So final results are exact, however often parts of the input are read again.

    python -m beam_pipelines.sessions --runner=FlinkRunner
    python -m beam_pipelines.sessions --runner=FlinkRunner --flink_master=host:8081 --environment_type=EXTERNAL \\
        --environment_config=localhost:50000
    python -m beam_pipelines.sessions --runner=DirectRunner --input='clicks/*.jsonl' --output=out --ledger=ledger.json
"""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from dataclasses import dataclass
from typing import NamedTuple

import apache_beam as beam

from beam_pipelines import connect
from beam_pipelines.options import Settings
from beam_pipelines.run import run
from beam_pipelines.sinks import Folder, Results
from schemas.events import UserSession
from schemas.jobs import JOBS
from transforms.blocks import Block
from transforms.decode import CLICKS
from transforms.domain.visits import MAX_SESSION_MS
from transforms.errors import BadRecord
from transforms.io.redis import WriteSessionsToRedis
from transforms.ledger import Counts
from transforms.sessions import AggregateSessions, ClickRows
from transforms.sharded_rows import DecodeRows, Decoding

JOB = JOBS["sessions"]


@dataclass(frozen=True)
class Config:
    """What the pipeline computes, apart from where it reads and writes.

    Attributes:
      gap_ms: clicks this far apart belong to different sessions.
      max_session_ms: no session reaches this length.
      early_every_ms: how long a click may wait for a first result; None for bounded input, which has no early results.
      only_once: whether all input is read before the first result, as with files: then no result is ever retracted.
    """

    decoding: Decoding
    gap_ms: int = 30 * 60 * 1000
    max_session_ms: int = MAX_SESSION_MS
    early_every_ms: int | None = None
    only_once: bool = False

    def __post_init__(self) -> None:
        if self.gap_ms < 1:
            raise ValueError("gap_ms must be at least 1")
        least_ms = self.gap_ms + self.decoding.keep_ms
        if self.max_session_ms <= least_ms:
            raise ValueError(f"max_session_ms must be more than the gap and the allowed lateness, {least_ms}")
        if self.early_every_ms is not None and self.early_every_ms < 1:
            raise ValueError("early_every_ms must be at least 1")


class Outputs(NamedTuple):
    sessions: beam.PCollection[UserSession]
    dead_letters: beam.PCollection[BadRecord]
    late: beam.PCollection[BadRecord]
    counts: beam.PCollection[Counts]


def build(blocks: beam.PCollection[Block], config: Config) -> Outputs:
    """The job without its source and sinks: clicks in blocks → sessions, dead letters, late records and counts."""
    clicks = blocks | "Clicks" >> DecodeRows(CLICKS, ClickRows(), config.decoding)
    sessions, tracked = clicks.good | "Sessions" >> AggregateSessions(
        config.gap_ms,
        config.decoding.keep_ms,
        config.early_every_ms,
        config.max_session_ms,
        only_once=config.only_once,
    )
    counts = (clicks.counts, tracked) | "Counts" >> beam.Flatten()
    return Outputs(sessions, clicks.bad, clicks.late, counts)


def make_config(flags: argparse.Namespace, settings: Settings) -> Config:
    return Config(
        decoding=connect.decoding(settings),
        gap_ms=flags.session_gap,
        max_session_ms=flags.max_session,
        early_every_ms=None if settings.bounded else flags.early_every,
        only_once=isinstance(settings.input, Folder),
    )


def results(outputs: Outputs) -> list[Results]:
    return [Results(outputs.sessions, "user_sessions", WriteSessionsToRedis)]


def main(argv: Sequence[str] | None = None) -> None:
    run(JOB, argv)


if __name__ == "__main__":
    main()
