"""The archive: every valid order and click, once, as files by event day and hour. The batch layer begins with them.

    transactions.orders ─▶ blocks ─▶ decode, validate ─▶ per partition: repeats, files ─▶ orders/day=…/hour=…/*.avro
    clickstream.events  ─▶   …            ├─▶ dead letters ─▶ dlq.archiver  └──────────▶ clickstream/day=…/hour=…/*.avro
                                          └─▶ late         ─▶ late.archiver

What is in it is what every other job counts as good: neither bad nor late nor a repeat. So the same `build` of another
job over these files gives the final rows of its stream. A file's name is fixed by topic, partition, offsets and hour,
and so is its content: a job that is restarted, or run again from the beginning, writes what is there already. Open
files are written again every --flush_every, each whole or not at all. With --output=bigquery://project.dataset, beside
a folder or alone, each record is a row too; readers take orders_current and clickstream_current.

    python -m beam_pipelines.archive --runner=FlinkRunner
    python -m beam_pipelines.archive --runner=FlinkRunner --output=gs://bucket/archive --records_per_file=500000
    python -m beam_pipelines.archive --runner=DirectRunner --input='data/*.avro' --output=archive --ledger=ledger.json
    python -m beam_pipelines.fraud --runner=DirectRunner --input='archive/orders/**' --output=alerts
"""

from __future__ import annotations

import sys
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Any, NamedTuple

import apache_beam as beam
import msgspec
from apache_beam.io.filesystems import FileSystems
from confluent_kafka import KafkaException

from beam_pipelines import connect, options, runners
from beam_pipelines.options import BigQueryUrl, Folder, Job, KafkaUrl, RedisUrl, Settings, UsageError
from schemas.events import ClickstreamEvent, OrderEvent
from transforms.archive import (
    CLICKSTREAM,
    ORDERS_TABLE,
    Archived,
    ArchiveFiles,
    ArchiveRows,
    Records,
    Store,
    Table,
    account_of,
)
from transforms.archive_topic import ArchiveTopic
from transforms.blocks import Block
from transforms.domain.archive import Contents
from transforms.domain.durations import parse_duration_ms
from transforms.errors import BadRecord
from transforms.io.archive_files import AccountFolder, ArchiveFolder, record_in
from transforms.io.files import ReadBlocksFromFiles, match_files
from transforms.io.kafka import KafkaTopic
from transforms.ledger import Counts
from transforms.sharded_rows import DecodeRows, Decoding

JOB = Job(
    name="archiver",
    module="beam_pipelines.archive",
    summary="Reads orders and clicks, keeps each valid one once, in files by event day and hour.",
    input_topic="transactions.orders",
    more_topics=("clickstream.events",),
    output_folder=".stack/archive",
    tables=("orders", "clickstream"),
)
TABLES = (ORDERS_TABLE, CLICKSTREAM)


@dataclass(frozen=True)
class Config:
    """What the pipeline computes, apart from where it reads.

    Attributes:
      folder: the archive's; None: no files are written.
      rows: whether what is archived is wanted as rows too, which costs its decoding.
      records_per_file: offsets of a partition that a file stands for; part of the archive's file names.
      flush_every_s: how long a record may wait for being in a file; None when the input has an end.
      watermark_lead_ms: how far Beam's watermark runs ahead of the one that tells late records.
    """

    decoding: Decoding
    folder: Folder | None
    rows: bool = False
    records_per_file: int = 100_000
    flush_every_s: float | None = None
    watermark_lead_ms: int = 0

    def __post_init__(self) -> None:
        if self.records_per_file < 1:
            raise ValueError("records_per_file must be at least 1")
        if self.flush_every_s is not None and self.flush_every_s <= 0:
            raise ValueError("flush_every_s must be above 0")
        if self.watermark_lead_ms < 0:
            raise ValueError("watermark_lead_ms must not be negative")

    def store(self, table: Table, ends: Callable[[], dict[int, int]] | None = None) -> Store:
        """
        Args:
          ends: of a topic, as `Store` wants it.
        """
        write: Callable[[str, Contents, bool], None] | None = None
        accounts = None
        if self.folder is not None:
            folder = FileSystems.join(*self.folder.subfolder(table.name))
            write = ArchiveFolder(folder, table.kind.record, table.id_of).write
            accounts = AccountFolder(FileSystems.join(*self.folder.subfolder("accounts"), table.name))
        keep_ms = self.decoding.allowed_lateness_ms + self.watermark_lead_ms
        return Store(write, self.rows, self.records_per_file, self.flush_every_s, keep_ms, accounts, ends)


class Input(NamedTuple):
    """Blocks of one kind of record.

    Attributes:
      topic: None for blocks of files.
      ends: of the topic's partitions, as `transforms.archive.Store` wants it.
    """

    table: Table
    topic: str | None
    blocks: beam.PCollection[Block]
    ends: Callable[[], dict[int, int]] | None = None


class Outputs(NamedTuple):
    """Attributes:
    records: table and what was archived of it, one per input; none unless rows are wanted.
    """

    records: list[tuple[Table, beam.PCollection[Any]]]
    dead_letters: beam.PCollection[BadRecord]
    late: beam.PCollection[BadRecord]
    counts: beam.PCollection[Counts]


def build(inputs: Sequence[Input], config: Config) -> Outputs:
    """The job without its source: blocks of orders and clicks in, files written, everything that is in none out."""
    records, bad, late, counts = [], [], [], []
    for i, (table, topic, blocks, ends) in enumerate(inputs):
        beside = None if topic is None else account_of
        decode = DecodeRows(table.kind, ArchiveRows(table), config.decoding, spread=False, beside=beside)
        rows = blocks | f"Decode{i}" >> decode
        store = config.store(table, ends)
        step = ArchiveFiles(store, config.decoding.shards) if topic is None else ArchiveTopic(table, topic, store)
        archived: Archived = rows.good | f"Archive{i}" >> step
        if config.rows:
            records.append((table, archived.data | f"Records{i}" >> Records(table)))
        bad.append(rows.bad)
        late.append(rows.late)
        counts += [rows.counts, archived.counts]
    return Outputs(
        records,
        bad | "AllBad" >> beam.Flatten(),
        late | "AllLate" >> beam.Flatten(),
        counts | "Counts" >> beam.Flatten(),
    )


def main(argv: Sequence[str] | None = None) -> None:
    try:
        flags, settings, rest = options.parse(JOB, sys.argv[1:] if argv is None else argv, _add_flags)
        config = Config(
            decoding=replace(connect.decoding(settings), lands_replays=True),
            folder=_folder(settings),
            rows=any(isinstance(url, BigQueryUrl) for url in settings.outputs),
            records_per_file=_records_per_file(flags.records_per_file),
            flush_every_s=None if settings.bounded else _flush_every_s(flags.flush_every),
            watermark_lead_ms=settings.watermark_lead_ms,
        )
        reads = _reads(settings)
        connect.check(settings)
        pipeline_options = runners.pipeline_options(settings, rest)
    except UsageError as e:
        options.stop(e, JOB.module)
    with runners.running(pipeline_options) as p:
        ends = {url.topic: _Ends(url) for url in settings.inputs if isinstance(url, KafkaUrl)}
        inputs = [
            Input(table, topic, p | f"Read{i}" >> read, ends.get(topic or ""))
            for i, (table, topic, read) in enumerate(reads)
        ]
        outputs = build(inputs, config)
        for i, (table, records) in enumerate(outputs.records):
            connect.write_to_bigquery(records, settings, table.name, archive_row, f"{table.name.title()}{i}")
        connect.write_refused(outputs.dead_letters, outputs.late, settings)
        connect.write_ledger(outputs.counts, settings)


def archive_row(record: OrderEvent | ClickstreamEvent) -> bytes:
    """A row of table orders or clickstream as JSON. Records are never corrected, so the version is the event time."""
    return msgspec.json.encode({**msgspec.structs.asdict(record), "version": record.event_time})


class _Ends:
    """Asks where the partitions of a topic end."""

    def __init__(self, url: KafkaUrl):
        self._url = url

    def __call__(self) -> dict[int, int]:
        try:
            return KafkaTopic.look_up(self._url.servers, self._url.topic).ends
        except KafkaException as e:
            raise OSError(str(e)) from e


def _reads(settings: Settings) -> list[tuple[Table, str | None, beam.PTransform]]:
    """Table, topic and read of each topic, or of all files of a table."""
    files: dict[str, list[str]] = {}
    reads: list[tuple[Table, str | None, beam.PTransform]] = []
    for url in settings.inputs:
        if isinstance(url, KafkaUrl):
            reads.append((_table_of(url.topic), url.topic, connect.read_blocks(settings, url)))
        else:
            for path in _files(url.path):
                table = _table_in(path)
                files.setdefault(table.name, []).append(path)
    if len({(table.name, topic) for table, topic, _ in reads}) < len(reads):
        raise UsageError("--input", "names a topic twice")
    return reads + [
        (table, None, ReadBlocksFromFiles(sorted(set(files[table.name])), connect.STARTED_MS))
        for table in TABLES
        if table.name in files
    ]


def _table_of(topic: str) -> Table:
    for table, word in ((CLICKSTREAM, "click"), (ORDERS_TABLE, "order")):
        if word in topic:
            return table
    raise UsageError("--input", f"cannot tell what topic {topic} holds: its name says neither order nor click")


def _files(pattern: str) -> list[str]:
    try:
        return match_files(pattern)
    except (ValueError, OSError) as e:
        raise UsageError("--input", e) from e


def _table_in(path: str) -> Table:
    record = record_in(path, {"event_id": "ClickstreamEvent", "order_id": "OrderEvent"})
    if record is None:
        return ORDERS_TABLE  # whatever it is taken for, all of it will be dead letters
    for table in TABLES:
        if table.kind.record.__name__ == record:
            return table
    raise UsageError("--input", f"{path} holds {record}, which is not archived; orders and clicks are")


def _folder(settings: Settings) -> Folder | None:
    folders = []
    for url in settings.outputs:
        match url:
            case Folder():
                folders.append(url)
            case RedisUrl():
                raise UsageError("--output", f"{url.url}: the archive is files, not rows of a store; name a folder")
            case KafkaUrl():
                raise UsageError("--output", "the archive is files; its records come from Kafka; name a folder")
    if len(folders) > 1:
        raise UsageError("--output", "names two folders; the archive is one")
    return folders[0] if folders else None


def _add_flags(group: Any) -> None:
    group.add_argument(
        "--records_per_file",
        default="100000",
        help="offsets of a partition that one file stands for; an archive must keep to one number "
        "(default: %(default)s)",
    )
    group.add_argument(
        "--flush_every",
        default="60s",
        help="how often open files are written, when the input has no end (default: %(default)s)",
    )


def _records_per_file(text: str) -> int:
    if not text.isdigit() or not 1 <= int(text) <= 10_000_000:
        raise UsageError("--records_per_file", f"{text} is not a whole number from 1 to 10000000")
    return int(text)


def _flush_every_s(text: str) -> float:
    try:
        every_ms = parse_duration_ms(text)
    except ValueError as e:
        raise UsageError("--flush_every", e) from e
    if every_ms < 1_000:
        raise UsageError("--flush_every", f"{text} is below 1s")
    return every_ms / 1_000


if __name__ == "__main__":
    from beam_pipelines.archive import main  # classes of __main__ cannot be unpickled by workers

    main()
