"""A topic's good records → files and accounts: the stateful step, keyed by partition.

A partition arrives in order, without end. Its state is a log of what was read. The files and the account of the current
range of offsets are derived from it, so they come out the same after any failure, and are rewritten as they grow.

Long, as the step, its log and its accounts must change together.
"""

from __future__ import annotations

import logging
import time
import zlib
from collections.abc import Callable, Iterator
from typing import Any

import apache_beam as beam
import msgspec
from apache_beam.transforms import userstate
from apache_beam.transforms.timeutil import TimeDomain
from apache_beam.transforms.userstate import TimerSpec
from apache_beam.utils.shared import Shared
from apache_beam.utils.timestamp import Timestamp

from schemas import codec
from schemas.events import avro_history, avro_schema
from schemas.times import END_MS
from transforms.archive import AccountStore, Archived, Store, Table, encode_data, landed_key
from transforms.domain.account import Account, Accounts, Read
from transforms.domain.archive import Contents, File, Partition, Row
from transforms.keyed_state import LOG, TOKEN, Expiry, Memory, Shard, Shards
from transforms.ledger import Counts, of_bundle
from transforms.sharded_rows import encode_rows

__all__ = ["ArchiveTopic", "topic_id_in"]

_LOG = logging.getLogger(__name__)


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


def topic_id_in(accounts: AccountStore, topic: str) -> str | None:
    """The id of the topic that the accounts are of; None where they do not say, as those of earlier releases."""
    text = accounts.read(_ends_name(topic))
    return None if text is None else msgspec.json.decode(text).get("topic_id")


def _ends_name(topic: str) -> str:
    return f"{topic}.ends.json"


class _ArchiveTopicFn(beam.DoFn):
    def __init__(self, table: Table, topic: str, store: Store):
        self._table, self._topic, self._store = table, topic, store
        self._memory = Shared()
        self._format = _format(avro_schema(table.kind.record.__name__))
        self._renewals: dict[bytes, codec.Renewal[Any]] = {}

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
        self._topic_id: str | None = None  # that the folder is of, which never changes

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
        kept = live.state
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
            yield encode_data(new)

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
            live.state.accounts.go_on_from(Account.from_json(text))
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
            topic_id, ends = store.ends()
        except OSError as error:
            _LOG.warning("cannot ask for the ends of %s: %s", self._topic, error)
            return
        if self._topic_id is None:
            self._topic_id = topic_id_in(store.accounts, self._topic) or topic_id
        if self._topic_id != topic_id:
            return  # recreated: the reader fails as soon as it knows, and the next start finds it by the old id
        told = {"topic": self._topic, "topic_id": topic_id, "asked_at": time.time_ns() // 1_000_000}
        text = msgspec.json.encode({**told, "ends": [*sorted(ends.items())]})
        store.accounts.write(_ends_name(self._topic), text + b"\n")

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
        firing: Timestamp = beam.DoFn.TimestampParam,
        token: Any = beam.DoFn.StateParam(TOKEN),
        log: Any = beam.DoFn.StateParam(LOG),
        expiry: Any = beam.DoFn.TimerParam(_EXPIRY),
    ) -> None:
        live = self._timely.open(number, token, log)
        self._timely.expire(live, int(firing.micros // 1000), token, log)
        self._timely.wake(live, expiry)
        self._timely.keep(number, live)

    def _write_open(self, number: int, token: Any, log: Any) -> None:
        """Writes the files that have grown. Those of the range being read are kept, as they will grow again."""
        live = self._shards(number).open(number, token, log)
        live.state.flush_is_set = False
        self._shards(number).fired(live, token)
        partition = live.state.partition
        accounts = live.state.accounts
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
        partition = landed_key(number) if number < 0 else number
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
        format_, body = entry[1 : 1 + _FORMAT_BYTES], entry[1 + _FORMAT_BYTES :]
        renewal = None if format_ == self._format else self._renewal(kind, format_)
        if kind == _SNAPSHOT:
            snapshot, accounts = _decode_snapshot(body)
            partition.restore(snapshot)
            kept.accounts.restore(accounts)
            if renewal is not None:
                for contents in partition.files.values():
                    contents.renew(renewal)
            return
        read, repeats, began, reached, rows = _decode_entry(body)
        if renewal is not None and self._store.write is not None:
            rows = [(offset, time_ms, id_, renewal(datum)[0]) for offset, time_ms, id_, datum in rows]
        partition.new(rows)
        if self._store.write is not None:
            _add(partition, rows, began, reached)
            self._account(kept, read, rows, repeats)

    def _renewal(self, kind: bytes, format_: bytes) -> codec.Renewal[Any]:
        """For data that a job with an older version of the schema left in state. Raises: ValueError: there is none."""
        if not self._renewals:
            record = self._table.kind.record
            history = avro_history(record.__name__)
            self._renewals = {_format(old): codec.Renewal(old, record) for old in history}
        if kind not in (_ROWS, _SNAPSHOT) or format_ not in self._renewals:
            raise ValueError(
                "the state is of a version of the schema, or of a release, that this one does not know: a newer one? "
                "Go back to that, or start the job anew, without a savepoint: it reads its topics again, and writes "
                "the same files"
            )
        return self._renewals[format_]

    def _snapshot(self, kept: _Kept) -> bytes:
        return _SNAPSHOT + self._format + encode_rows([kept.partition.snapshot(), kept.accounts.state()])


def _format(schema: dict[str, Any]) -> bytes:
    """What entries with data of this schema are marked by."""
    return zlib.crc32((codec.canonical(schema) + _FORMAT).encode()).to_bytes(_FORMAT_BYTES, "big")


def _span(read: Read | None, rows: list[Row]) -> tuple[int, int]:
    """The first and the last offset of what was read; (0, -1) of nothing, as a block may stand for a loss alone."""
    if read is not None and read.runs:
        return read.runs[0][0], read.runs[-1][1] - 1
    return (rows[0][0], rows[-1][0]) if rows else (0, -1)


def _add(partition: Partition, rows: list[Row], began: int, reached: int) -> list[tuple[File, Contents, bool]]:
    return partition.add(rows, began, reached) if reached >= began else []
