"""CDC: turns changes of the shop's database into products, customers, a history and low-stock alerts.

    cdc.public.* ─▶ blocks ─▶ parse ─▶ by shard of products: newest? low? ─▶ Redis; alerts ─▶ Redis, alerts.stock
                                ├─▶ customers, their orders ─▶ Redis
                                ├─▶ every change ─▶ BigQuery, folder
                                └─▶ dead letters ─▶ dlq.cdc-processor

Reads Debezium's records from PostgreSQL (`python -m cdc register`). In whatever order and however often changes arrive,
the result equals the tables' content: each change carries its position in commit order, and only a newer change of a
row replaces an older one. Deleted rows disappear. Every record ends in exactly one of good, dead letters and
duplicates; nothing is late. Personal columns are dropped, or hashed with the key in --hash_key, before anything leaves
the job.

    python -m beam_pipelines.cdc --runner=FlinkRunner
    python -m beam_pipelines.cdc --runner=FlinkRunner --flink_master=host:8081 --environment_type=EXTERNAL \\
        --environment_config=localhost:50000 --output=redis://host:6379/0 --output=bigquery://project.dataset
    python -m beam_pipelines.cdc --runner=DirectRunner --input='changes/*.jsonl' --output=out --ledger=ledger.json
"""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

import apache_beam as beam

from beam_pipelines.options import Settings
from beam_pipelines.run import run
from beam_pipelines.sinks import KafkaUrl, RedisUrl, Results
from schemas.events import LowStockAlert
from schemas.flags import UsageError
from schemas.jobs import JOBS
from transforms.blocks import Block
from transforms.cdc import ChangeDecoding, DecodeChanges, Decoded, TrackStock
from transforms.errors import BadRecord
from transforms.io.redis_cdc import (
    WriteCustomersToRedis,
    WriteEmptiedToRedis,
    WriteOrderPlacesToRedis,
    WriteProductsToRedis,
    WriteStockAlertsToRedis,
)
from transforms.ledger import Counts

JOB = JOBS["cdc"]
_LEAST_KEY_BYTES = 16


@dataclass(frozen=True)
class Config:
    decoding: ChangeDecoding


class Outputs(NamedTuple):
    """Attributes:
    changes: what `DecodeChanges` gives of customers, orders and emptied tables, and every change if that is wanted.
    products: lists of Product.
    """

    changes: Decoded
    products: beam.PCollection[Any]
    alerts: beam.PCollection[LowStockAlert]
    dead_letters: beam.PCollection[BadRecord]
    counts: beam.PCollection[Counts]


def build(blocks: beam.PCollection[Block], config: Config) -> Outputs:
    """The job without its source and sinks: Debezium's records in blocks → what they change."""
    changes = blocks | "Changes" >> DecodeChanges(config.decoding)
    stock = changes.products | "Stock" >> TrackStock()
    counts = (changes.counts, stock.counts) | "Counts" >> beam.Flatten()
    return Outputs(changes, stock.products, stock.alerts, changes.bad, counts)


def make_config(flags: argparse.Namespace, settings: Settings) -> Config:
    return Config(
        ChangeDecoding(
            job=JOB.name,
            shards=settings.state_shards,
            history=any(not isinstance(url, RedisUrl | KafkaUrl) for url in settings.outputs),
            make_hash_key=_HashKey(flags.hash_key),
            max_parallelism=settings.max_parallelism,
        )
    )


def results(outputs: Outputs) -> list[Results]:
    changes = outputs.changes
    return [
        Results(outputs.alerts, "low_stock_alerts", WriteStockAlertsToRedis),
        Results(changes.history, "cdc_changes", label="Changes"),
        Results(outputs.products, None, WriteProductsToRedis, "Products"),
        Results(changes.customers, None, WriteCustomersToRedis, "Customers"),
        Results(changes.orders, None, WriteOrderPlacesToRedis, "Orders"),
        Results(changes.emptied, None, WriteEmptiedToRedis, "Emptied", letters=False),
    ]


class _HashKey:
    """Read by each worker, so that the key is no part of the job that is submitted."""

    def __init__(self, path: str | None):
        """Raises: UsageError."""
        self._path = path
        if path is not None:
            try:
                key = self()
            except OSError as e:
                raise UsageError("--hash_key", e) from e
            if key is None or len(key) < _LEAST_KEY_BYTES:
                raise UsageError("--hash_key", f"{path} holds less than {_LEAST_KEY_BYTES} bytes")

    def __call__(self) -> bytes | None:
        return None if self._path is None else Path(self._path).read_bytes().strip()


def main(argv: Sequence[str] | None = None) -> None:
    run(JOB, argv)


if __name__ == "__main__":
    main()
