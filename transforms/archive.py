"""Orders and clicks in blocks → files, wired for Beam; which file a record belongs to says `transforms.domain.archive`.

A topic's partition comes in order, without end: it is the key of a stateful step that keeps the files of the range of
offsets being read, and writes each again as it grows. Files as input come in any order, and end: there, ranges are
gathered whole, and written once.
"""

from __future__ import annotations

import functools
import hashlib
import logging
import time
import zlib
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from operator import attrgetter, itemgetter
from typing import Any, NamedTuple, Protocol

import apache_beam as beam
import msgspec
from apache_beam import typehints
from apache_beam.transforms import userstate
from apache_beam.transforms.timeutil import TimeDomain
from apache_beam.transforms.userstate import TimerSpec
from apache_beam.utils.shared import Shared
from apache_beam.utils.timestamp import Timestamp

from schemas import codec
from schemas.events import OrderEvent, avro_schema
from schemas.times import END_MS
from transforms.decode import CLICKS, ORDERS, DecodedBlock, Part, RecordKind
from transforms.domain.account import Account, Accounts, Read, read_of
from transforms.domain.archive import Contents, File, Partition, Row, sort_out
from transforms.keyed_state import LOG, TOKEN, Expiry, Memory, Shard, Shards, shard_of
from transforms.ledger import Counts, counted, of_bundle
from transforms.sharded_rows import encode_rows

__all__ = [
    "CLICKSTREAM",
    "ORDERS_TABLE",
    "AccountStore",
    "ArchiveFiles",
    "ArchiveRows",
    "ArchiveTopic",
    "Archived",
    "Records",
    "Store",
    "Table",
    "account_of",
]

_LOG = logging.getLogger(__name__)

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
    """How a table is kept.

    Attributes:
      write: writes a file of the table: its path, its contents, and whether they are all that it shall hold; None when
        no files are wanted.
      data: whether `Archived.data` is wanted too.
      records_per_file: offsets that a file stands for.
      flush_every_s: how long a record may wait for being in a file; None when the input has an end.
      keep_ms: an id may be forgotten once the watermark is this far past its event time.
      accounts: where what became of each offset is kept; None when nobody wants to know, or no files are written.
      ends: asks the broker for the offset after each partition's last record; raises OSError when it does not answer.
    """

    write: Callable[[str, Contents, bool], None] | None
    data: bool
    records_per_file: int
    flush_every_s: float | None
    keep_ms: int
    accounts: AccountStore | None = None
    ends: Callable[[], dict[int, int]] | None = None


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
    file a hash of its path; below 0 (`_landed_key`) for late records that replay sent back."""

    def __init__(self, table: Table):
        self._table = table

    def __call__(self, decoded: DecodedBlock[Any], shards: int) -> dict[int, list[Row]]:  # noqa: ARG002
        block, table = decoded.block, self._table
        data, schema, record = block.data, table.schema, table.kind.record
        rows: list[Row] = []
        for part in decoded.parts:
            numbers = part.numbers[part.rows]
            starts, ends = part.starts[part.rows].tolist(), block.bounds[numbers + 1].tolist()
            datums = [data[s:e] for s, e in zip(starts, ends, strict=True)]
            if part.writer is not None:
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
        keyed = {key: [r for r in rows if r[0] not in late], _landed_key(key): [r for r in rows if r[0] in late]}
        return {key: rows for key, rows in keyed.items() if rows}


def account_of(decoded: DecodedBlock[Any]) -> tuple[int, Read]:
    """What was read of a topic's partition; see `transforms.sharded_rows.Beside`."""
    block = decoded.block
    refused = ([bad.offset for bad in decoded.bad], [late.offset for late in decoded.late])
    landed = block.offsets[sorted(decoded.landed)].tolist() if decoded.landed else []
    return block.partition, read_of(block.offsets, block.times_ms, landed, *refused, block.lost)


def _landed_key(key: int) -> int:
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


def _encode_data(rows: Iterable[Row]) -> bytes:
    return encode_rows([row[3] for row in rows])


class ArchiveTopic(beam.PTransform):
    """Archive each good record of a topic once.

    Input:  KV[partition, [account, rows]] of `account_of` and `ArchiveRows`, each partition in order.
    Output: Archived.
    State:  per partition, the ids of the time in which a repeat is not late, freed by event-time timer; the records of
            the range being read, compressed, at most `records_per_file`; and counts of that range by day.
    """

    def __init__(self, table: Table, topic: str, store: Store):
        super().__init__()
        self._fn = _ArchiveTopicFn(table, topic, store)

    def expand(self, rows: beam.PCollection[tuple[int, bytes]]) -> Archived:
        return Archived.of(rows | "Archive" >> beam.ParDo(self._fn).with_outputs("counts", main="data"))


_EXPIRY = TimerSpec("expiry", TimeDomain.WATERMARK)
_FLUSH = TimerSpec("flush", TimeDomain.REAL_TIME)
_END = TimerSpec("end", TimeDomain.WATERMARK)
_ROWS, _COUNTED, _SNAPSHOT, _ACCOUNT = b"r", b"c", b"s", b"a"
_FORMAT_BYTES = 4
_FORMAT = "2"  # of entries of these kinds

_decode_element: Callable[[bytes], tuple[Read | None, list[Row]]] = msgspec.msgpack.Decoder(
    tuple[Read | None, list[Row]]
).decode
_decode_entry: Callable[[bytes], tuple[Read | None, list[int], int, int, list[Row]]] = msgspec.msgpack.Decoder(
    tuple[Read | None, list[int], int, int, list[Row]]
).decode
_decode_snapshot: Callable[[bytes], tuple[bytes, list[Any]]] = msgspec.msgpack.Decoder(tuple[bytes, list[Any]]).decode


class _Kept:
    """A partition in memory, what became of its offsets, and which timers are known to be set."""

    __slots__ = ("accounts", "end_is_set", "flush_is_set", "partition")

    def __init__(self, partition: Partition, per_file: int):
        self.partition, self.accounts = partition, Accounts(per_file)
        self.flush_is_set = self.end_is_set = False

    def __bool__(self) -> bool:
        return bool(self.partition) or bool(self.accounts)


class _ArchiveTopicFn(beam.DoFn):
    def __init__(self, table: Table, topic: str, store: Store):
        self._table, self._topic, self._store = table, topic, store
        self._memory = Shared()
        # Data in state are of this schema.
        schema = codec.canonical(avro_schema(table.kind.record.__name__))
        self._format = zlib.crc32((schema + _FORMAT).encode()).to_bytes(_FORMAT_BYTES, "big")

    def setup(self) -> None:
        per_file, keep_ms = self._store.records_per_file, self._store.keep_ms
        expiry = Expiry[_Kept](
            lambda kept, watermark_ms: kept.partition.seen.expire(watermark_ms - keep_ms),
            lambda kept: None if (at_ms := kept.partition.seen.expires_ms()) is None else at_ms + keep_ms,
            max(1_000, keep_ms // 8),  # state holds an eighth more than it must
        )
        memory = self._memory.acquire(Memory)
        self._timely: Shards[_Kept] = Shards(
            memory, lambda: _Kept(Partition(per_file), per_file), self._replay, self._snapshot, expiry
        )
        self._landed: Shards[_Kept] = Shards(
            memory, lambda: _Kept(Partition(per_file, landed=True), per_file), self._replay, self._snapshot
        )
        self._ends_asked_s = float("-inf")

    def _shards(self, number: int) -> Shards[_Kept]:
        return self._landed if number < 0 else self._timely

    def start_bundle(self) -> None:
        self._good = self._repeats = 0

    def finish_bundle(self) -> Iterator[Any]:
        yield from of_bundle(Counts(self._good + self._repeats, self._good, duplicates=self._repeats))

    def process(
        self,
        keyed: tuple[int, bytes],
        token: Any = beam.DoFn.StateParam(TOKEN),
        log: Any = beam.DoFn.StateParam(LOG),
        expiry: Any = beam.DoFn.TimerParam(_EXPIRY),
        flush: Any = beam.DoFn.TimerParam(_FLUSH),
        end: Any = beam.DoFn.TimerParam(_END),
    ) -> Iterator[bytes]:
        number, element = keyed
        shards = self._shards(number)
        live = shards.open(number, token, log)
        kept = live.users
        read, rows = _decode_element(element)
        new = kept.partition.new(rows)
        repeats = sorted({row[0] for row in rows} - {row[0] for row in new}) if len(new) < len(rows) else []
        began, reached = _span(read, rows)
        if self._store.write is None:
            self._good += len(new)
            new_without_data = [(offset, time_ms, id_, b"") for offset, time_ms, id_, _ in new]
            entry = encode_rows([None, repeats, began, reached, new_without_data])
        else:
            if read is not None and kept.accounts.open is None:
                self._go_on_with_account(number, live, began, token, log)
            for file, contents, whole in _add(kept.partition, new, began, reached):
                self._write(number, file, contents, whole)
            for first, account in self._account(kept, read, new, repeats):
                self._write_account(number, first, account)
            entry = encode_rows([read, repeats, began, reached, new])
            self._set_timers(kept, flush, end)
        shards.append(live, _ROWS + self._format + entry, token, log)
        shards.compact(live, token, log)
        if new and number >= 0:
            shards.wake(live, expiry)
        shards.keep(number, live)
        self._repeats += len(rows) - len(new)
        if new and self._store.data:
            yield _encode_data(new)

    def _account(self, kept: _Kept, read: Read | None, new: list[Row], repeats: list[int]) -> list[tuple[int, Account]]:
        if read is None or self._store.accounts is None:
            return []
        return kept.accounts.add(read, [row[:2] for row in new], repeats)

    def _go_on_with_account(self, number: int, live: Shard[_Kept], began: int, token: Any, log: Any) -> None:
        """Where reading begins within a range, an earlier job may have its beginning, which the topic has lost."""
        per_file = self._store.records_per_file
        if self._store.accounts is None or began % per_file == 0:
            return
        text = self._store.accounts.read(self._account_name(number, began - began % per_file))
        if text is not None:
            live.users.accounts.go_on_from(Account.from_json(text))
            self._shards(number).append(live, _ACCOUNT + text, token, log)

    def _account_name(self, number: int, first: int) -> str:
        return f"{self._topic}-{number:05}-{first:020}.json"

    def _write_account(self, number: int, first: int, account: Account) -> None:
        """Call it after the files are written: an account never tells of a record that is in none."""
        assert self._store.accounts is not None
        self._store.accounts.write(self._account_name(number, first), account.to_json(self._topic, number))

    def _write_ends(self) -> None:
        """Where the topic's partitions end, whoever reads them: what was never read is missed by that."""
        store, now_s = self._store, time.monotonic()
        if store.accounts is None or store.ends is None or now_s - self._ends_asked_s < (store.flush_every_s or 0) / 2:
            return
        self._ends_asked_s = now_s
        try:
            ends = store.ends()
        except OSError as error:
            _LOG.warning("cannot ask for the ends of %s: %s", self._topic, error)
            return
        told = {"topic": self._topic, "asked_at": time.time_ns() // 1_000_000, "ends": [*sorted(ends.items())]}
        store.accounts.write(f"{self._topic}.ends.json", msgspec.json.encode(told) + b"\n")

    def _set_timers(self, kept: _Kept, flush: Any, end: Any) -> None:
        if self._store.flush_every_s is not None and not kept.flush_is_set:
            flush.set(Timestamp.of(time.time() + self._store.flush_every_s))
            kept.flush_is_set = True
        if not kept.end_is_set:
            end.set(Timestamp(micros=END_MS * 1000))
            kept.end_is_set = True

    @userstate.on_timer(_FLUSH)
    def flush(
        self,
        number: int = beam.DoFn.KeyParam,
        token: Any = beam.DoFn.StateParam(TOKEN),
        log: Any = beam.DoFn.StateParam(LOG),
    ) -> None:
        self._write_open(number, token, log)

    @userstate.on_timer(_END)
    def end(
        self,
        number: int = beam.DoFn.KeyParam,
        token: Any = beam.DoFn.StateParam(TOKEN),
        log: Any = beam.DoFn.StateParam(LOG),
    ) -> None:
        """No event is of a later time: the input has ended."""
        self._write_open(number, token, log)

    @userstate.on_timer(_EXPIRY)
    def expire(
        self,
        number: int = beam.DoFn.KeyParam,
        watermark: Timestamp = beam.DoFn.TimestampParam,
        token: Any = beam.DoFn.StateParam(TOKEN),
        log: Any = beam.DoFn.StateParam(LOG),
        expiry: Any = beam.DoFn.TimerParam(_EXPIRY),
    ) -> None:
        live = self._timely.open(number, token, log)
        self._timely.expire(live, int(watermark.micros // 1000), token, log)
        self._timely.wake(live, expiry)
        self._timely.keep(number, live)

    def _write_open(self, number: int, token: Any, log: Any) -> None:
        """Writes the files that have grown. Those of the range being read are kept, as they will grow again."""
        live = self._shards(number).open(number, token, log)
        live.users.flush_is_set = False
        partition = live.users.partition
        accounts = live.users.accounts
        grown = [(file, contents) for file, contents in partition.files.items() if contents.uncounted]
        for file, contents in grown:
            self._write(number, file, contents, partition.is_whole(file))
        if accounts.unwritten and accounts.open is not None:
            self._write_account(number, accounts.range_first, accounts.open)
            self._write_ends()
        if grown or accounts.unwritten:
            accounts.unwritten = False
            self._shards(number).append(live, _COUNTED, token, log)
        self._shards(number).keep(number, live)

    def _write(self, number: int, file: File, contents: Contents, whole: bool) -> None:
        assert self._store.write is not None
        partition = _landed_key(number) if number < 0 else number
        self._store.write(file.path(f"{self._topic}-{partition:05}", landed=number < 0), contents, whole)
        self._good += contents.uncounted
        contents.uncounted = 0

    def _replay(self, kept: _Kept, entry: bytes) -> None:
        partition, kind = kept.partition, entry[:1]
        if kind == _COUNTED:
            kept.accounts.unwritten = False
            for contents in partition.files.values():
                contents.uncounted = 0
            return
        if kind == _ACCOUNT:
            kept.accounts.go_on_from(Account.from_json(entry[1:]))
            return
        if kind not in (_ROWS, _SNAPSHOT) or entry[1 : 1 + _FORMAT_BYTES] != self._format:
            raise ValueError(
                "the state is of another version of the schema or of another release; start the job anew, without a "
                "savepoint: it reads its topics again, and writes the same files"
            )
        body = entry[1 + _FORMAT_BYTES :]
        if kind == _SNAPSHOT:
            snapshot, accounts = _decode_snapshot(body)
            partition.restore(snapshot)
            kept.accounts.restore(accounts)
            return
        read, repeats, began, reached, rows = _decode_entry(body)
        partition.new(rows)
        if self._store.write is not None:
            _add(partition, rows, began, reached)
            self._account(kept, read, rows, repeats)

    def _snapshot(self, kept: _Kept) -> bytes:
        return _SNAPSHOT + self._format + encode_rows([kept.partition.snapshot(), kept.accounts.state()])


def _span(read: Read | None, rows: list[Row]) -> tuple[int, int]:
    """The first and the last offset of what was read; (0, -1) of nothing, as a block may stand for a loss alone."""
    if read is not None and read.runs:
        return read.runs[0][0], read.runs[-1][1] - 1
    return (rows[0][0], rows[-1][0]) if rows else (0, -1)


def _add(partition: Partition, rows: list[Row], began: int, reached: int) -> list[tuple[File, Contents, bool]]:
    return partition.add(rows, began, reached) if reached >= began else []


Range = tuple[int, int]
"""A file's key, and the first offset of a range in it."""


class ArchiveFiles(beam.PTransform):
    """Archive each good record of some files once; of repeats, the one in the first of them.

    Which is first does not depend on the order they are read in: ranges and ids are gathered before anything is
    decided, so the input must have an end.

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
            yield _encode_data(rows)
        yield beam.pvalue.TaggedOutput("counts", counted(Counts(len(every), len(rows), duplicates=len(repeats))))
