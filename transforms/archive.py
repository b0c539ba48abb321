"""Orders and clicks in blocks → files, wired for Beam; `transforms.domain.archive` assigns records to files.

A topic's partition arrives in order, without end: `transforms.archive_topic` keeps the files of the current range of
offsets and rewrites each as it grows. Input files arrive in any order and end: here, each range is gathered completely
and written once.

Long, as the wiring of batch and stream share rows and files.
"""

from __future__ import annotations

import functools
import hashlib
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from operator import attrgetter, itemgetter
from typing import Any, NamedTuple, Protocol

import apache_beam as beam
import msgspec
import numpy as np
from apache_beam import typehints

from schemas import codec
from schemas.events import OrderEvent, avro_schema
from transforms.decode import CLICKS, ORDERS, DecodedBlock, Part, RecordKind
from transforms.domain.account import Read, read_of
from transforms.domain.archive import Contents, File, Row, sort_out
from transforms.keyed_state import shard_of
from transforms.ledger import Counts, counted
from transforms.sharded_rows import encode_rows

__all__ = [
    "CLICKSTREAM",
    "ORDERS_TABLE",
    "AccountStore",
    "ArchiveFiles",
    "ArchiveRows",
    "Archived",
    "Records",
    "Store",
    "Table",
    "account_of",
    "decode_rows",
    "encode_data",
    "landed_key",
]

decode_rows: Callable[[bytes], list[Row]] = msgspec.msgpack.Decoder(list[Row]).decode


class Table(NamedTuple):
    """What is archived together.

    Attributes:
      id_of: what a record is known by, for telling repeats.
      ids_of: the same for the good records of a part.
    """

    name: str
    kind: RecordKind[Any]
    id_of: Callable[[Any], str]
    ids_of: Callable[[Part], list[str]]

    @property
    def schema(self) -> dict[str, Any]:
        return _schema(self.kind.record.__name__)


@functools.cache
def _schema(name: str) -> dict[str, Any]:
    return codec.parse_schema(avro_schema(name))


def _order_id(order: OrderEvent) -> str:
    return f"{order.order_status} {order.order_id}"


def _order_ids(part: Part) -> list[str]:
    symbols = part.symbols["order_status"]
    statuses = part.columns.ints["order_status"][part.rows].tolist()
    texts = part.columns.texts("order_id", part.rows)
    return [f"{symbols[status]} {text}" for status, text in zip(statuses, texts, strict=True)]


def _click_ids(part: Part) -> list[str]:
    return part.columns.texts("event_id", part.rows)


ORDERS_TABLE = Table("orders", ORDERS, _order_id, _order_ids)
CLICKSTREAM = Table("clickstream", CLICKS, attrgetter("event_id"), _click_ids)


class AccountStore(Protocol):
    """Where the accounts of a topic are kept, by name; each is there whole or not at all."""

    def write(self, name: str, text: bytes) -> None: ...

    def read(self, name: str) -> bytes | None: ...


@dataclass(frozen=True)
class Store:
    """How a table is stored.

    Attributes:
      write: writes a file of the table: its path, its contents, and whether they are all that it shall hold; None when
        no files are wanted.
      data: whether `Archived.data` is wanted too.
      records_per_file: offsets that a file stands for.
      flush_every_s: how long a record may wait for being in a file; None when the input has an end.
      keep_ms: an id may be forgotten once the watermark is this far past its event time.
      accounts: where what became of each offset is kept; None when nobody wants to know, or no files are written.
      ends: asks the broker for the topic's id and the offset after each partition's last record; raises OSError when
        it does not answer.
    """

    write: Callable[[str, Contents, bool], None] | None
    data: bool
    records_per_file: int
    flush_every_s: float | None
    keep_ms: int
    accounts: AccountStore | None = None
    ends: Callable[[], tuple[str, dict[int, int]]] | None = None


class Archived(NamedTuple):
    """Output of the archiving steps.

    Attributes:
      data: each good record once, as Avro data of our schema: lists of them, as msgpack. `Records` makes records of it.
        Empty when not wanted.
      counts: of the records: good, once they are in a file; or duplicates.
    """

    data: beam.PCollection[bytes]
    counts: beam.PCollection[Counts]

    @staticmethod
    def of(outputs: Any) -> Archived:
        outputs.data.element_type, outputs.counts.element_type = bytes, Counts
        return Archived(outputs.data, outputs.counts)


class ArchiveRows:
    """The good records of a block, as rows; see `transforms.sharded_rows.RowsOf`. The key is the partition, or for a
    file a hash of its path; below 0 (`landed_key`) for late records that replay sent back."""

    def __init__(self, table: Table):
        self._table = table

    def __call__(self, decoded: DecodedBlock[Any], shard_count: int) -> dict[int, list[Row]]:  # noqa: ARG002
        block, table = decoded.block, self._table
        data, schema, record = block.data, table.schema, table.kind.record
        rows: list[Row] = []
        for part in decoded.parts:
            numbers = part.numbers[part.rows]
            starts, ends = part.starts[part.rows].tolist(), block.bounds[numbers + 1].tolist()
            datums = [data[s:e] for s, e in zip(starts, ends, strict=True)]
            if part.suffix:
                datums = [datum + part.suffix for datum in datums]
            elif part.suffix is None:
                records = (codec.decode_valid(datum, part.writer, schema, record) for datum in datums)
                datums = [codec.encode_datum(record, schema) for record in records]
            times = part.columns.ints["event_time"][part.rows].tolist()
            rows += zip(block.offsets[numbers].tolist(), times, table.ids_of(part), datums, strict=True)
        for number, good in zip(decoded.numbers, decoded.records, strict=True):
            datum = codec.encode_datum(good, schema)
            rows.append((int(block.offsets[number]), good.event_time, table.id_of(good), datum))
        if len(decoded.parts) > 1 or decoded.records:
            rows.sort(key=itemgetter(0))
        key = block.partition if block.encoding == "confluent" else _hash(block.topic)
        if not decoded.landed:
            return {key: rows} if rows else {}
        late = {int(block.offsets[number]) for number in decoded.landed}
        keyed = {key: [r for r in rows if r[0] not in late], landed_key(key): [r for r in rows if r[0] in late]}
        return {key: rows for key, rows in keyed.items() if rows}


def account_of(decoded: DecodedBlock[Any]) -> tuple[int, Read]:
    """What was read of a topic's partition; see `transforms.sharded_rows.Beside`."""
    block = decoded.block
    offsets, times_ms = block.offsets, block.times_ms
    if decoded.ignored:  # an account is of records, and these are none
        offsets, times_ms = np.delete(offsets, decoded.ignored), np.delete(times_ms, decoded.ignored)
    refused = ([bad.offset for bad in decoded.bad], [late.offset for late in decoded.late])
    landed = block.offsets[sorted(decoded.landed)].tolist() if decoded.landed else []
    return block.partition, read_of(offsets, times_ms, landed, *refused, block.lost)


def landed_key(key: int) -> int:
    """Key of a partition's late records that replay sent back; and back again."""
    return -1 - key


def _hash(path: str) -> int:
    return int.from_bytes(hashlib.sha256(path.encode()).digest()[:8], "big") >> 1


class Records(beam.PTransform):
    """Typed records of `Archived.data`."""

    def __init__(self, table: Table):
        super().__init__()
        self._table = table

    def expand(self, data: beam.PCollection[bytes]) -> beam.PCollection[Any]:
        records = data | "Decode" >> beam.FlatMap(_records, self._table)
        records.element_type = self._table.kind.record
        return records


def _records(data: bytes, table: Table) -> Iterator[Any]:
    schema, record = table.schema, table.kind.record
    for datum in _decode_data(data):
        yield codec.decode_valid(datum, schema, schema, record)


_decode_data: Callable[[bytes], list[bytes]] = msgspec.msgpack.Decoder(list[bytes]).decode


def encode_data(rows: Iterable[Row]) -> bytes:
    return encode_rows([row[3] for row in rows])


Range = tuple[int, int]
"""A file's key, and the first offset of a range in it."""


class ArchiveFiles(beam.PTransform):
    """Archive each good record of some files once; of duplicates, the one in the first file.

    Which file is first does not depend on the order of reading: ranges and ids are gathered before anything is decided,
    so the input must be bounded.

    Input:  KV[file, rows] of `ArchiveRows`, in any order.
    Output: Archived.
    """

    def __init__(self, store: Store, shards: int):
        super().__init__()
        self._store, self._shards = store, shards

    def expand(self, rows: beam.PCollection[tuple[int, bytes]]) -> Archived:
        per_file = self._store.records_per_file
        apart = rows | "Apart" >> beam.ParDo(_ApartFn(per_file, self._shards)).with_outputs("ids", main="rows")
        apart.rows.element_type = typehints.Tuple[typehints.Tuple[int, int], bytes]
        apart.ids.element_type = typehints.Tuple[int, bytes]
        repeats = apart.ids | "ById" >> beam.GroupByKey() | "FindRepeats" >> beam.ParDo(_FindRepeatsFn(per_file))
        repeats.element_type = typehints.Tuple[typehints.Tuple[int, int], bytes]
        return Archived.of(
            {"rows": apart.rows, "repeats": repeats}
            | "ByRange" >> beam.CoGroupByKey()
            | "Archive" >> beam.ParDo(_ArchiveRangeFn(self._store)).with_outputs("counts", main="data")
        )


class _ApartFn(beam.DoFn):
    def __init__(self, per_file: int, shards: int):
        self._per_file, self._shards = per_file, shards

    def process(self, keyed: tuple[int, bytes]) -> Iterator[Any]:
        key, batch = keyed
        ranges: dict[int, list[Row]] = {}
        ids: dict[int, list[Any]] = {}
        for row in decode_rows(batch):
            offset, _, id_, _ = row
            ranges.setdefault(offset - offset % self._per_file, []).append(row)
            ids.setdefault(shard_of(id_.encode(), self._shards), []).append((id_, key, offset))
        for first, rows in ranges.items():
            yield (key, first), encode_rows(rows)
        for shard, found in ids.items():
            yield beam.pvalue.TaggedOutput("ids", (shard, encode_rows(found)))


class _FindRepeatsFn(beam.DoFn):
    def __init__(self, per_file: int):
        self._per_file = per_file

    def process(self, keyed: tuple[int, Iterable[bytes]]) -> Iterator[tuple[Range, bytes]]:
        firsts: dict[str, tuple[int, int]] = {}
        repeats: dict[Range, list[int]] = {}
        for batch in keyed[1]:
            for id_, *place in _decode_ids(batch):
                first, (key, offset) = sorted((tuple(place), firsts.get(id_, tuple(place))))
                if id_ in firsts:
                    repeats.setdefault((key, offset - offset % self._per_file), []).append(offset)
                firsts[id_] = first
        for range_, offsets in repeats.items():
            yield range_, encode_rows(offsets)


_decode_ids: Callable[[bytes], list[tuple[str, int, int]]] = msgspec.msgpack.Decoder(list[tuple[str, int, int]]).decode
_decode_offsets: Callable[[bytes], list[int]] = msgspec.msgpack.Decoder(list[int]).decode


class _ArchiveRangeFn(beam.DoFn):
    def __init__(self, store: Store):
        self._store = store

    def process(self, keyed: tuple[Range, dict[str, Iterable[bytes]]]) -> Iterator[Any]:
        (key, _), found = keyed
        every = sorted((row for batch in found["rows"] for row in decode_rows(batch)), key=itemgetter(0))
        repeats = {offset for batch in found["repeats"] for offset in _decode_offsets(batch)}
        rows = [row for row in every if row[0] not in repeats]
        if self._store.write is not None:
            files: dict[File, Contents] = {}
            sort_out(rows, self._store.records_per_file, files)
            for file, contents in files.items():
                self._store.write(file.path(f"file-{key:016x}"), contents, True)
        if rows and self._store.data:
            yield encode_data(rows)
        yield beam.pvalue.TaggedOutput("counts", counted(Counts(len(every), len(rows), duplicates=len(repeats))))
