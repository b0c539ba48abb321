"""CDC: changes of the shop's database in; products, customers, a history, and an alert when stock runs low out.

    cdc.public.* ─▶ blocks ─▶ parse ─▶ by shard of products: newest? low? ─▶ Redis; alerts ─▶ Redis, alerts.stock
                                ├─▶ customers, their orders ─▶ Redis
                                ├─▶ every change ─▶ BigQuery, folder
                                └─▶ dead letters ─▶ dlq.cdc-processor

Reads what Debezium writes of PostgreSQL (`python -m cdc register`). Whatever order changes come in, and however often,
what is kept is what the tables hold: each change carries its place in the order of commits, and only a newer one of a
row replaces an older. Deleted rows go. Every record ends in exactly one of good, dead letters and duplicates; nothing
is late. Personal columns are dropped, or hashed with the key of --hash_key, before anything leaves the job.

    python -m beam_pipelines.cdc --runner=FlinkRunner
    python -m beam_pipelines.cdc --runner=FlinkRunner --flink_master=host:8081 --environment_type=EXTERNAL \\
        --environment_config=localhost:50000 --output=redis://host:6379/0 --output=bigquery://project.dataset
    python -m beam_pipelines.cdc --runner=DirectRunner --input='changes/*.jsonl' --output=out --ledger=ledger.json
"""

from __future__ import annotations

import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

import apache_beam as beam
import msgspec

from beam_pipelines import connect, options, runners
from beam_pipelines.options import BigQueryUrl, Folder, Job, KafkaUrl, RedisUrl, Settings, UsageError
from schemas.events import LowStockAlert
from transforms.blocks import Block
from transforms.cdc import ChangeDecoding, DecodeChanges, Decoded, TrackStock
from transforms.errors import BadRecord
from transforms.io.files import ReadBlocksFromFiles, match_files
from transforms.io.folder import WriteToFolder
from transforms.io.redis_cdc import (
    WriteCustomersToRedis,
    WriteEmptiedToRedis,
    WriteOrderPlacesToRedis,
    WriteProductsToRedis,
    WriteStockAlertsToRedis,
)
from transforms.ledger import Counts

JOB = Job(
    name="cdc-processor",
    module="beam_pipelines.cdc",
    summary="Reads the changes of the shop's database, keeps what is current and all that was, alerts on low stock.",
    input_topic="cdc.public.products",
    more_topics=tuple(f"cdc.public.{t}" for t in ("customers", "orders", "order_items", "inventory_movements")),
    output_topic="alerts.stock",
    tables=("cdc_changes", "low_stock_alerts"),
    readers="1",  # of five topics
)
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
    """The job without its ends: blocks of Debezium's records in, what they say out."""
    changes = blocks | "Changes" >> DecodeChanges(config.decoding)
    stock = changes.products | "Stock" >> TrackStock()
    counts = (changes.counts, stock.counts) | "Counts" >> beam.Flatten()
    return Outputs(changes, stock.products, stock.alerts, changes.bad, counts)


def main(argv: Sequence[str] | None = None) -> None:
    try:
        flags, settings, rest = options.parse(JOB, sys.argv[1:] if argv is None else argv, _add_flags)
        config = Config(
            ChangeDecoding(
                job=JOB.name,
                shards=settings.state_shards,
                history=any(isinstance(url, BigQueryUrl | Folder) for url in settings.outputs),
                make_hash_key=_HashKey(flags.hash_key),
                max_parallelism=settings.max_parallelism,
            )
        )
        reads = _reads(settings)
        connect.check(settings)
        pipeline_options = runners.pipeline_options(settings, rest)
    except UsageError as e:
        options.stop(e, JOB.module)
    with runners.running(pipeline_options) as p:
        blocks = [p | f"Read{i}" >> read for i, read in enumerate(reads)]
        outputs = build(blocks | "Blocks" >> beam.Flatten(), config)
        _write(outputs, settings)
        connect.write_refused(outputs.dead_letters, None, settings)
        connect.write_ledger(outputs.counts, settings)


def _write(outputs: Outputs, settings: Settings) -> None:
    connect.write_rows(
        outputs.alerts,
        settings,
        "low_stock_alerts",
        msgspec.json.encode,
        WriteStockAlertsToRedis,
        lambda topic: connect.AvroEncoder(settings.registry, topic, LowStockAlert, _key_and_time),
    )
    history = outputs.changes.history
    connect.write_to_bigquery(history, settings, "cdc_changes", msgspec.json.encode, "Changes")
    for i, url in enumerate(settings.outputs):
        if isinstance(url, Folder):
            history | f"Changes{i}" >> WriteToFolder(
                *url.subfolder("cdc_changes"), msgspec.json.encode, settings.rolling
            )
        elif isinstance(url, RedisUrl):
            for label, rows, write in (
                (f"Products{i}", outputs.products, WriteProductsToRedis),
                (f"Customers{i}", outputs.changes.customers, WriteCustomersToRedis),
                (f"Orders{i}", outputs.changes.orders, WriteOrderPlacesToRedis),
            ):
                refused = rows | label >> write(url.url, JOB.name)
                connect.write_letters(refused, settings, f"{label}DeadLetters")
            outputs.changes.emptied | f"Emptied{i}" >> WriteEmptiedToRedis(url.url, JOB.name)


def _key_and_time(alert: LowStockAlert) -> tuple[str, int]:
    return alert.product_id, alert.event_time


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


def _reads(settings: Settings) -> list[beam.PTransform]:
    """Raises: UsageError."""
    if len(set(settings.inputs)) < len(settings.inputs):
        raise UsageError("--input", "names something twice")
    topics = [url for url in settings.inputs if isinstance(url, KafkaUrl)]
    if topics:
        return [connect.read_blocks(settings, url) for url in topics]
    paths: set[str] = set()
    for url in settings.inputs:
        assert isinstance(url, Folder)
        try:
            paths.update(match_files(url.path))
        except (ValueError, OSError) as e:
            raise UsageError("--input", e) from e
    for path in sorted(paths):
        if not path.endswith(".jsonl"):
            raise UsageError("--input", f"{path}: changes are read from .jsonl files")
    return [ReadBlocksFromFiles(sorted(paths), connect.STARTED_MS)]


def _add_flags(group: Any) -> None:
    group.add_argument(
        "--hash_key",
        metavar="FILE",
        help=f"file with a key of at least {_LEAST_KEY_BYTES} bytes, there on every worker: personal columns that may "
        "be hashed are, with HMAC-SHA256 (default: all personal columns are dropped)",
    )


if __name__ == "__main__":
    from beam_pipelines.cdc import main  # classes of __main__ cannot be unpickled by workers

    main()
