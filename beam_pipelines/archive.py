"""The archive: every valid order and click, once, in files by event day and hour; the input of the batch layer.

    transactions.orders ─▶ blocks ─▶ decode, validate ─▶ per partition: repeats, files ─▶ orders/day=…/hour=…/*.avro
    clickstream.events  ─▶   …            ├─▶ dead letters ─▶ dlq.archiver  └──────────▶ clickstream/day=…/hour=…/*.avro
                                          └─▶ late         ─▶ late.archiver

It holds what every other job counts as good: neither invalid nor late nor a duplicate. So another job's `build` over
these files yields the final rows of its stream. A file's name and content are determined by topic, partition, offsets
and hour: a job that is restarted, or rerun from the beginning, rewrites identical files. Open files are rewritten
atomically every --flush_every. With --output=bigquery://project.dataset, in addition to a folder or alone, each record
is also a row; readers use orders_current and clickstream_current.

    python -m beam_pipelines.archive --runner=FlinkRunner
    python -m beam_pipelines.archive --runner=FlinkRunner --output=gs://bucket/archive --records_per_file=500000
    python -m beam_pipelines.archive --runner=DirectRunner --input='data/*.avro' --output=archive --ledger=ledger.json
    python -m beam_pipelines.fraud --runner=DirectRunner --input='archive/orders/**' --output=alerts
"""

from __future__ import annotations

import argparse
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Any, NamedTuple

import apache_beam as beam
from apache_beam.io.filesystems import FileSystems
from confluent_kafka import KafkaException

from beam_pipelines import connect
from beam_pipelines.options import Settings
from beam_pipelines.run import run
from beam_pipelines.sinks import Folder, KafkaUrl, Results
from schemas.flags import UsageError
from schemas.jobs import JOBS
from schemas.mapping import MappingError, parse_mapping
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
from transforms.archive_topic import ArchiveTopic, topic_id_in
from transforms.blocks import Block
from transforms.domain.archive import Contents
from transforms.errors import BadRecord
from transforms.io.archive_files import AccountFolder, ArchiveFolder, record_in
from transforms.io.files import ReadBlocksFromFiles
from transforms.io.kafka import KafkaTopic
from transforms.io.kafka.gaps import offsets_begin_again
from transforms.ledger import Counts
from transforms.sharded_rows import DecodeRows, Decoding

JOB = JOBS["archive"]
TABLES = (ORDERS_TABLE, CLICKSTREAM)


@dataclass(frozen=True)
class Config:
    """What the pipeline computes, independent of its input.

    Attributes:
      folder: the archive's folder; None: write no files.
      rows: whether to emit archived records as rows, too, which requires decoding them.
      records_per_file: offsets of a partition that a file covers; part of the archive's file names.
      flush_every_s: how long a record may wait to be written; None for bounded input.
    """

    decoding: Decoding
    folder: Folder | None
    rows: bool = False
    records_per_file: int = 100_000
    flush_every_s: float | None = None

    def __post_init__(self) -> None:
        if self.records_per_file < 1:
            raise ValueError("records_per_file must be at least 1")
        if self.flush_every_s is not None and self.flush_every_s <= 0:
            raise ValueError("flush_every_s must be above 0")

    def store(self, table: Table, ends: Callable[[], tuple[str, dict[int, int]]] | None = None) -> Store:
        """
        Args:
          ends: of a topic, as `Store` wants it.
        """
        write: Callable[[str, Contents, bool], None] | None = None
        accounts = None
        if self.folder is not None:
            folder = FileSystems.join(*self.folder.subfolder(table.name))
            write = ArchiveFolder(folder, table.kind.record, table.id_of).write
            accounts = _accounts(self.folder, table)
        return Store(write, self.rows, self.records_per_file, self.flush_every_s, self.decoding.keep_ms, accounts, ends)


class Input(NamedTuple):
    """Blocks of one kind of record.

    Attributes:
      topic: None for blocks of files.
      ends: of the topic's partitions, as `transforms.archive.Store` wants it.
      format, mapping: see `Decoding`, of which they take the place.
    """

    table: Table
    topic: str | None
    blocks: beam.PCollection[Block]
    ends: Callable[[], tuple[str, dict[int, int]]] | None = None
    format: str = "auto"
    mapping: str | None = None


class Outputs(NamedTuple):
    """Attributes:
    records: table and what was archived of it, one per input; none unless rows are wanted.
    """

    records: list[tuple[Table, beam.PCollection[Any]]]
    dead_letters: beam.PCollection[BadRecord]
    late: beam.PCollection[BadRecord]
    counts: beam.PCollection[Counts]


def build(inputs: Sequence[Input], config: Config) -> Outputs:
    """The job without its source: reads blocks of orders and clicks, writes files, returns all other outputs."""
    records, bad, late, counts = [], [], [], []
    for i, (table, topic, blocks, ends, form, mapping) in enumerate(inputs):
        beside = None if topic is None else account_of
        decoding = replace(config.decoding, format=form, mapping=mapping)
        decode = DecodeRows(table.kind, ArchiveRows(table), decoding, spread=False, beside=beside)
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


def _accounts(folder: Folder, table: Table) -> AccountFolder:
    return AccountFolder(FileSystems.join(*folder.subfolder("accounts"), table.name))


def make_config(flags: argparse.Namespace, settings: Settings) -> Config:
    return Config(
        decoding=replace(connect.decoding(settings), lands_replays=True),
        folder=_folder(settings),
        rows=any(not isinstance(url, Folder) for url in settings.outputs),
        records_per_file=flags.records_per_file,
        flush_every_s=None if settings.bounded else flags.flush_every,
    )


def _folder(settings: Settings) -> Folder | None:
    return next((url for url in settings.outputs if isinstance(url, Folder)), None)


def source(settings: Settings) -> Callable[[beam.Pipeline], list[Input]]:
    """Each topic, or all files of a table."""
    topics = [url for url in settings.inputs if isinstance(url, KafkaUrl)]
    if len({url.topic for url in topics}) < len(topics):
        raise UsageError("--input", "names a topic twice")
    for url in topics:
        _check_same(url, settings)
    reads: list[tuple[Table, str | None, beam.PTransform, _Ends | None]] = [
        (table_of(url.topic), url.topic, connect.read_blocks(settings, url), _Ends(url)) for url in topics
    ]
    by_table: dict[str, list[str]] = {}
    for path in connect.files(settings) if not topics else ():
        for table in _tables_in(path, settings.mapping.rest):
            by_table.setdefault(table.name, []).append(path)
    reads += [
        (table, None, ReadBlocksFromFiles(by_table[table.name], settings.started_ms), None)
        for table in TABLES
        if table.name in by_table
    ]
    messages = [_messages(settings, table, topic) for table, topic, _, _ in reads]
    return lambda pipeline: [
        Input(table, topic, pipeline | f"Read{i}" >> read, ends, *messages[i])
        for i, (table, topic, read, ends) in enumerate(reads)
    ]


def _messages(settings: Settings, table: Table, topic: str | None) -> tuple[str, str | None]:
    """Format and mapping of an input. Raises: UsageError: the mapping makes no such records."""
    mapping = settings.mapping.of(topic)
    try:
        if mapping is not None:
            parse_mapping(mapping).of(table.kind.record)
    except MappingError as e:
        raise UsageError("--mapping", f"{topic or table.name}: {e}") from e
    return settings.format.of(topic) or "auto", mapping


def results(outputs: Outputs) -> list[Results]:
    return [
        Results(records, table.name, label=f"{table.name.title()}{i}", files=False)
        for i, (table, records) in enumerate(outputs.records)
    ]


class _Ends:
    """Asks where the partitions of a topic end."""

    def __init__(self, url: KafkaUrl):
        self._url = url

    def __call__(self) -> tuple[str, dict[int, int]]:
        try:
            found = KafkaTopic.look_up(self._url.servers, self._url.topic)
        except KafkaException as e:
            raise OSError(str(e)) from e
        return found.id, found.ends


def _check_same(url: KafkaUrl, settings: Settings) -> None:
    """Raises: UsageError: the folder is of another topic of that name, which was deleted or is on another cluster."""
    folder = _folder(settings)
    if folder is None:
        return
    known = topic_id_in(_accounts(folder, table_of(url.topic)), url.topic)
    if known is not None and known != url.look_up("--input").id:
        raise UsageError("--output", f"{folder} is of a topic with another id: {offsets_begin_again(url.topic)}")


def table_of(topic: str) -> Table:
    """What is archived of a topic. Raises: UsageError: its name does not say."""
    for table, word in ((CLICKSTREAM, "click"), (ORDERS_TABLE, "order")):
        if word in topic:
            return table
    raise UsageError("--input", f"cannot tell what topic {topic} holds: its name has neither order nor click in it")


def _tables_in(path: str, mapping: str | None) -> list[Table]:
    """Where a mapping makes both of the messages, a file holds both."""
    if mapping is None:
        return [_table_in(path)]
    made = parse_mapping(mapping).records
    return [table for table in TABLES if table.kind.record in made]


def _table_in(path: str) -> Table:
    record = record_in(path, {"event_id": "ClickstreamEvent", "order_id": "OrderEvent"})
    if record is None:
        return ORDERS_TABLE  # whatever it is taken for, all of it will be dead letters
    for table in TABLES:
        if table.kind.record.__name__ == record:
            return table
    raise UsageError("--input", f"{path} holds {record}, which is not archived; orders and clicks are")


def main(argv: Sequence[str] | None = None) -> None:
    run(JOB, argv)


if __name__ == "__main__":
    main()
