"""Revenue: orders in, the figures of every minute out, while it is open, when it is over, and when it is corrected.

    transactions.orders ─▶ blocks ─▶ decode, validate ─▶ sums by shard ─▶ minutes ─▶ Redis, analytics.revenue, folder
                                          ├─▶ orders by user ─▶ features in Redis
                                          ├─▶ dead letters ─▶ dlq.revenue-calculator
                                          └─▶ late         ─▶ late.revenue-calculator

For each minute of event time, in all, per category and per region: GMV, orders, distinct users, first orders. Every
record ends in exactly one of good, dead letters, late, duplicates, and the ledger says how many in each. A row is
replaced by one of a newer version, which knows more orders: so results are exact once nothing more can come, however
often parts of the input are read again.

    python -m beam_pipelines.revenue --runner=FlinkRunner
    python -m beam_pipelines.revenue --runner=FlinkRunner --flink_master=host:8081 --environment_type=EXTERNAL \\
        --environment_config=localhost:50000
    python -m beam_pipelines.revenue --runner=DirectRunner --input='orders/*.jsonl' --output=out --ledger=ledger.json
"""

from __future__ import annotations

import sys
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

import apache_beam as beam
import msgspec

from beam_pipelines import connect, options, runners
from beam_pipelines.options import Job, RedisUrl, UsageError
from schemas.events import RevenueWindow
from transforms.blocks import Block
from transforms.decode import ORDERS
from transforms.domain.durations import parse_duration_ms
from transforms.errors import BadRecord
from transforms.io.redis import WriteOrderFeaturesToRedis, WriteRevenueToRedis
from transforms.ledger import Counts
from transforms.revenue import CalculateRevenue, RevenueRows
from transforms.sharded_rows import DecodeRows, Decoding

JOB = Job(
    name="revenue-calculator",
    module="beam_pipelines.revenue",
    summary="Reads orders, adds up the revenue of every minute.",
    input_topic="transactions.orders",
    output_topic="analytics.revenue",
    tables=("real_time_revenue",),
)


@dataclass(frozen=True)
class Config:
    """What the pipeline computes, apart from where it reads and writes.

    Attributes:
      early_every_s: how often there are results of open minutes; None for input with an end, which needs none.
      watermark_lead_ms: how far Beam's watermark runs ahead of the one that tells late records; minutes stay open that
        much longer.
    """

    decoding: Decoding
    early_every_s: int | None = None
    watermark_lead_ms: int = 0

    def __post_init__(self) -> None:
        if self.early_every_s is not None and self.early_every_s < 1:
            raise ValueError("early_every_s must be at least 1")
        if self.watermark_lead_ms < 0:
            raise ValueError("watermark_lead_ms must not be negative")


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
    """The job without its ends: blocks of orders in, revenue and everything that is none out."""
    orders = blocks | "Orders" >> DecodeRows(ORDERS, RevenueRows(), config.decoding)
    revenue, tracked = orders.good | "Revenue" >> CalculateRevenue(
        config.decoding.allowed_lateness_ms + config.watermark_lead_ms, config.early_every_s
    )
    counts = (orders.counts, tracked) | "Counts" >> beam.Flatten()
    return Outputs(revenue, orders.good, orders.bad, orders.late, counts)


def main(argv: Sequence[str] | None = None) -> None:
    try:
        flags, settings, rest = options.parse(JOB, sys.argv[1:] if argv is None else argv, _add_flags)
        every_s = _early_every_s(flags.early_every)
        config = Config(
            decoding=connect.decoding(settings),
            early_every_s=None if settings.bounded else every_s,
            watermark_lead_ms=settings.watermark_lead_ms,
        )
        read = connect.read_blocks(settings)
        connect.check(settings)
        pipeline_options = runners.pipeline_options(settings, rest)
    except UsageError as e:
        options.stop(e, JOB.module)
    with runners.running(pipeline_options) as p:
        outputs = build(p | "Read" >> read, config)
        connect.write_rows(
            outputs.revenue,
            settings,
            "real_time_revenue",
            msgspec.json.encode,
            WriteRevenueToRedis,
            lambda topic: connect.AvroEncoder(settings.registry, topic, RevenueWindow, _key_and_time),
        )
        for i, url in enumerate(settings.outputs):
            if isinstance(url, RedisUrl):
                outputs.orders | f"Features{i}" >> WriteOrderFeaturesToRedis(url.url, JOB.name)
        connect.write_refused(outputs.dead_letters, outputs.late, settings)
        connect.write_ledger(outputs.counts, settings)


def _key_and_time(row: RevenueWindow) -> tuple[str, int]:
    return f"{row.dimension}:{row.value}", row.window_start


def _add_flags(group: Any) -> None:
    group.add_argument(
        "--early_every",
        default="2s",
        help="how often there are results of minutes that are still open, in whole seconds; not for input with an end "
        "(default: %(default)s)",
    )


def _early_every_s(text: str) -> int:
    try:
        every_ms = parse_duration_ms(text)
    except ValueError as e:
        raise UsageError("--early_every", e) from e
    if every_ms < 1_000 or every_ms % 1_000:
        raise UsageError("--early_every", f"{text} is not a whole number of seconds, at least 1s")
    return every_ms // 1_000


if __name__ == "__main__":
    from beam_pipelines.revenue import main  # classes of __main__ cannot be unpickled by workers

    main()
