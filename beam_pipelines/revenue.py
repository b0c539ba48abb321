"""Revenue: aggregates orders per minute; emits each minute early, on time, and again when it is corrected.

    transactions.orders ─▶ blocks ─▶ decode, validate ─▶ sums by shard ─▶ minutes ─▶ Redis, analytics.revenue, folder
                                          ├─▶ orders by user ─▶ features in Redis
                                          ├─▶ dead letters ─▶ dlq.revenue-calculator
                                          └─▶ late         ─▶ late.revenue-calculator

For each minute of event time, in total, per category and per region: GMV, orders, distinct users, first orders. Every
record ends in exactly one of good, dead letters, late and duplicates, and the ledger counts each. A row is replaced by
one with a newer version, computed from more orders. So final results are exact, however often parts of the input are
read again.

    python -m beam_pipelines.revenue --runner=FlinkRunner
    python -m beam_pipelines.revenue --runner=FlinkRunner --flink_master=host:8081 --environment_type=EXTERNAL \\
        --environment_config=localhost:50000
    python -m beam_pipelines.revenue --runner=DirectRunner --input='orders/*.jsonl' --output=out --ledger=ledger.json
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
from beam_pipelines.sinks import Results
from schemas.events import RevenueWindow
from schemas.jobs import JOBS
from transforms.blocks import Block
from transforms.decode import ORDERS
from transforms.errors import BadRecord
from transforms.io.redis import WriteOrderFeaturesToRedis, WriteRevenueToRedis
from transforms.ledger import Counts
from transforms.revenue import CalculateRevenue, RevenueRows
from transforms.sharded_rows import DecodeRows, Decoding

JOB = JOBS["revenue"]


@dataclass(frozen=True)
class Config:
    """What the pipeline computes, apart from where it reads and writes.

    Attributes:
      early_every_s: how often to emit results for open minutes; None for bounded input, which needs none.
    """

    decoding: Decoding
    early_every_s: int | None = None

    def __post_init__(self) -> None:
        if self.early_every_s is not None and self.early_every_s < 1:
            raise ValueError("early_every_s must be at least 1")


class Outputs(NamedTuple):
    """What comes of the orders.

    Attributes:
      orders: KV[shard, rows], for `transforms.revenue.decode_rows`: the CREATED orders, repeats among them.
    """

    revenue: beam.PCollection[RevenueWindow]
    orders: beam.PCollection[tuple[int, bytes]]
    dead_letters: beam.PCollection[BadRecord]
    late: beam.PCollection[BadRecord]
    counts: beam.PCollection[Counts]


def build(blocks: beam.PCollection[Block], config: Config) -> Outputs:
    """The job without its source and sinks: orders in blocks → revenue, dead letters, late records and counts."""
    orders = blocks | "Orders" >> DecodeRows(ORDERS, RevenueRows(), config.decoding)
    revenue, tracked = orders.good | "Revenue" >> CalculateRevenue(config.decoding.keep_ms, config.early_every_s)
    counts = (orders.counts, tracked) | "Counts" >> beam.Flatten()
    return Outputs(revenue, orders.good, orders.bad, orders.late, counts)


def make_config(flags: argparse.Namespace, settings: Settings) -> Config:
    early_every_s = None if settings.bounded else flags.early_every
    return Config(connect.decoding(settings), early_every_s)


def results(outputs: Outputs) -> list[Results]:
    return [
        Results(outputs.revenue, "real_time_revenue", WriteRevenueToRedis),
        Results(outputs.orders, None, WriteOrderFeaturesToRedis, label="Features", letters=False),
    ]


def main(argv: Sequence[str] | None = None) -> None:
    run(JOB, argv)


if __name__ == "__main__":
    main()
