"""Decodes and validates blocks, separates late records, and accounts for every record.

Whole blocks go through `schemas.columns`; a record that columns cannot confirm as good goes through `schemas.codec` by
itself, which either reads it or says what is wrong. One bad record costs one dead letter.

Long, as the ways of reading a block, by columns and one by one, sort into one result.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from typing import Any, Generic, NamedTuple, TypeVar

import msgspec
import numpy as np

from schemas import codec
from schemas.columns import Bools, Columns, Ints
from schemas.events import ClickstreamEvent, OrderEvent, avro_schema
from schemas.framing import format_of
from schemas.mapping import Compiled, Envelope, NotMappable
from schemas.resolution import Resolution, resolve
from transforms.blocks import Block
from transforms.domain.valid_columns import good_clicks, good_orders
from transforms.domain.validity import (
    InvalidRecordError,
    check_click,
    check_not_ahead,
    check_order,
    wrong_in_fields,
)
from transforms.errors import LATE_BY_REPLAY, BadRecord, attempts_before

__all__ = ["CLICKS", "ORDERS", "BlockDecoder", "DecodedBlock", "Part", "RecordKind", "refused"]

_LONGEST_MESSAGE = 1_000  # as some quote what they found

R = TypeVar("R", bound=msgspec.Struct)


class RecordKind(NamedTuple, Generic[R]):
    """A record type with its rules of validity, one at a time and by columns."""

    record: type[R]
    check: Callable[[R, int], None]
    good: Callable[[Columns, Ints], Bools]


ORDERS = RecordKind(OrderEvent, check_order, good_orders)
CLICKS = RecordKind(ClickstreamEvent, check_click, good_clicks)


class Part(NamedTuple):
    """Records of a block that were read by columns.

    Attributes:
      rows: row numbers in `columns` of the good ones that are not late.
      numbers: [n] record number in the block of each row.
      starts: [n] where its datum begins in the block's data; it ends where the payload does.
      writer: the writer's schema.
      suffix: what makes a datum just what we would write; None: it has to be read and written anew.
    """

    columns: Columns
    rows: Ints
    symbols: dict[str, list[str]]
    numbers: Ints
    starts: Ints
    writer: dict[str, Any]
    suffix: bytes | None


class DecodedBlock(NamedTuple, Generic[R]):
    """A decoded block: good, bad and late records.

    Attributes:
      parts: good records by columns, one part per writer schema.
      records: good records that had to be read one at a time.
      bad, late: everything else. len(block) = good + bad + late + ignored.
      block: what it was.
      numbers: record number in the block of each of `records`.
      landed: record numbers of those of `records` that would be late, had replay not sent them back.
      ignored: numbers of the messages that a mapping says are no records of this kind; of no other count.
    """

    parts: list[Part]
    records: list[R]
    bad: list[BadRecord]
    late: list[BadRecord]
    block: Block
    numbers: list[int]
    landed: set[int]
    ignored: list[int]

    @property
    def good(self) -> int:
        return sum(len(p.rows) for p in self.parts) + len(self.records)


_Plan = tuple[Resolution, dict[str, Any]]
"""And the writer's schema."""


class BlockDecoder(Generic[R]):
    """Decodes blocks of one kind of record.

    Args:
      kind: the record type and its rules.
      job: name written into dead letters.
      fetch: see `codec.Fetch`.
      allowed_lateness_ms: a valid record further behind its partition's watermark is late.
      lands_replays: a late record that replay sent back, or whose partition was passed over, is good: for a job that
        needs no state to take it in.
      wanted: what payloads of a topic are framed as; auto: each as it looks. See `schemas.framing`.
      mapped: makes records of payloads that are not ours; see `schemas.mapping`.
    """

    def __init__(
        self,
        kind: RecordKind[R],
        job: str,
        fetch: codec.Fetch,
        allowed_lateness_ms: int,
        lands_replays: bool = False,
        wanted: str = "auto",
        mapped: Compiled | None = None,
    ):
        self._kind, self._job, self._lateness_ms = kind, job, allowed_lateness_ms
        self._lands_replays, self._wanted = lands_replays, wanted
        self._decoder = codec.Decoder(kind.record, fetch, wanted)
        self._from_json = msgspec.json.Decoder(kind.record if mapped is None else Any).decode
        self._mapped = mapped
        self._plans: dict[int | str, _Plan | None] = {}
        self._file: tuple[Any, tuple[str, codec.Writer]] | None = None

    def decode(self, block: Block) -> DecodedBlock[R]:
        out: DecodedBlock[R] = DecodedBlock([], [], [], [], block, [], set(), [])
        alone = np.ones(len(block), np.bool_)
        if block.encoding != "json" and self._mapped is None:
            for (plan, writer), rows, header_bytes in self._by_schema(block):
                starts = block.bounds[rows] + header_bytes
                cols = plan.decode(block.data, starts, block.bounds[rows + 1])
                good = self._kind.good(cols, block.times_ms[rows])
                if block.limits_ms is not None:
                    good &= cols.ints["event_time"] <= block.limits_ms[rows]
                late = good & (cols.ints["event_time"] < _reached(block)[rows] - self._lateness_ms)
                kept = np.nonzero(good & ~late)[0]
                out.parts.append(Part(cols, kept, plan.symbols, rows, starts, writer, plan.suffix))
                alone[rows[good]] = False
                for i, time_ms in zip(rows[late].tolist(), cols.ints["event_time"][late].tolist(), strict=True):
                    if self._lands(block, i, time_ms):
                        alone[i] = True
                    else:
                        out.late.append(self._late(block, i, time_ms))
        self._plain_json(block, alone, out)
        for i in np.nonzero(alone)[0].tolist():
            self._one(block, i, out)
        return out

    def _plain_json(self, block: Block, alone: Bools, out: DecodedBlock[R]) -> None:
        """Takes the good and timely records of JSON topics, which is all but a few; the others stay `alone`."""
        if block.encoding == "avro" or self._wanted not in ("auto", "json"):
            return
        first = np.frombuffer(block.data + b"\0", np.uint8)[block.bounds[:-1]]
        candidates = alone & (first == ord("{"))
        candidates[list(_said_by_headers(block))] = False
        floors = (_reached(block) - self._lateness_ms).tolist()
        limits, times, bounds = block.limits_ms, block.times_ms.tolist(), block.bounds.tolist()
        read, check, data, mapped = self._from_json, self._kind.check, block.data, self._mapped
        for i in np.nonzero(candidates)[0].tolist():
            try:
                record = read(data[bounds[i] : bounds[i + 1]])
                if mapped is not None:
                    record = mapped(record, self._envelope(block, i))
                    if record is None:
                        out.ignored.append(i)
                        alone[i] = False
                        continue
                check(record, times[i])
            except (NotMappable, msgspec.MsgspecError, InvalidRecordError, UnicodeDecodeError, RecursionError):
                continue
            if record.event_time >= floors[i] and (limits is None or record.event_time <= limits[i]):
                out.records.append(record)
                out.numbers.append(i)
                alone[i] = False

    def _by_schema(self, block: Block) -> list[tuple[_Plan, Ints, int]]:
        """The records that can be read by columns, per writer schema: plan, record numbers, bytes before the datum."""
        if block.encoding == "avro":
            try:
                plan = self._plan(*self._writer_of(block))
            except codec.Undecodable:
                return []
            whole = np.array([i for i in range(len(block)) if i not in block.broken], np.int64)
            return [(plan, whole, 0)] if plan else []
        if self._wanted not in ("auto", "confluent"):
            return []
        header = np.frombuffer(block.data + bytes(codec.FRAME_BYTES), np.uint8)
        at = block.bounds[:-1]
        framed = (np.diff(block.bounds) > codec.FRAME_BYTES) & (header[at] == 0)
        framed[list(_said_by_headers(block))] = False
        ids = np.zeros(len(block), np.int64)
        for i in range(1, codec.FRAME_BYTES):
            ids = ids << 8 | header[at + i]
        found = []
        for writer_id in np.unique(ids[framed]).tolist():
            try:
                writer = self._decoder.writer(writer_id)
            except codec.CodecError:
                continue  # each record finds out again, alone, and becomes a dead letter
            plan = self._plan(writer_id, writer) if isinstance(writer, codec.Writer) else None
            if plan:
                found.append((plan, np.nonzero(framed & (ids == writer_id))[0], codec.FRAME_BYTES))
        return found

    def _plan(self, key: int | str, writer: codec.Writer) -> _Plan | None:
        if key not in self._plans:
            resolution = resolve(writer.schema, codec.parse_schema(avro_schema(self._kind.record.__name__)))
            self._plans[key] = resolution and (resolution, writer.schema)
        return self._plans[key]

    def _writer_of(self, block: Block) -> tuple[str, codec.Writer]:
        """The schema of a block of bare data. Raises: Undecodable."""
        if self._file is None or self._file[0] != block.schema:
            self._file = block.schema, (repr(block.schema), codec.Writer(block.schema))
        return self._file[1]

    def _one(self, block: Block, i: int, out: DecodedBlock[R]) -> None:
        try:
            record = self._read(block, i)
            if record is None:
                out.ignored.append(i)
                return
            self._kind.check(record, int(block.times_ms[i]))
            if block.limits_ms is not None:
                check_not_ahead(record.event_time, int(block.limits_ms[i]))
        except (codec.CodecError, InvalidRecordError) as e:
            stage = "validate" if isinstance(e, InvalidRecordError) else "decode"
            faults = [str(e)]
            if isinstance(e, codec.NotThisRecord) and self._mapped is None:
                faults += wrong_in_fields(self._fields(block, i), int(block.times_ms[i]))
            out.bad.append(refused(block, i, self._job, stage, type(e).__name__, "; ".join(faults)))
            return
        if record.event_time < max(block.watermarks_ms[i], block.passed_ms) - self._lateness_ms:
            if not self._lands(block, i, record.event_time):
                out.late.append(self._late(block, i, record.event_time))
                return
            out.landed.add(i)
        out.records.append(record)
        out.numbers.append(i)

    def _read(self, block: Block, i: int) -> R | None:
        """None: the mapping ignores it. Raises: codec.CodecError."""
        payload = block.payload(i)
        if i in block.broken:
            raise codec.Undecodable(block.broken[i])
        if self._mapped is not None:
            try:
                found: R | None = self._mapped(self._fields(block, i), self._envelope(block, i))
            except NotMappable as e:
                raise codec.NotThisRecord(str(e)) from e
            return found
        if block.encoding == "confluent":
            return self._decoder.decode(payload, block.headers.get(i, ()))
        if block.encoding == "avro":
            return self._decoder.decode_datum(payload or b"", self._writer_of(block)[1])
        return codec.from_json(payload or b"", self._kind.record)

    def _fields(self, block: Block, i: int) -> Any:
        """Raises: codec.CodecError."""
        payload = block.payload(i)
        if block.encoding == "confluent":
            return self._decoder.fields(payload, block.headers.get(i, ()))
        if block.encoding == "avro":
            return self._writer_of(block)[1].fields(payload or b"")
        return codec.json_fields(payload or b"")

    @staticmethod
    def _envelope(block: Block, i: int) -> Envelope:
        headers = block.headers.get(i)
        texts = {name.lower(): (value or b"").decode(errors="replace") for name, value in headers or ()}
        key = block.keys[i] if block.keys else None
        return Envelope(
            texts, None if key is None else key.decode(errors="replace"), block.topic, int(block.times_ms[i])
        )

    def _lands(self, block: Block, i: int, event_time_ms: int) -> bool:
        return self._lands_replays and (_was_sent_back(block, i) or not self._is_late(block, i, event_time_ms))

    def _is_late(self, block: Block, i: int, event_time_ms: int) -> bool:
        """By what the partition holds; else the partition was passed over (ADR 29)."""
        return bool(event_time_ms < block.watermarks_ms[i] - self._lateness_ms)

    def _late(self, block: Block, i: int, event_time_ms: int) -> BadRecord:
        late = self._is_late(block, i, event_time_ms)
        behind = f"more than {self._lateness_ms} ms behind " + (
            f"the partition's watermark {int(block.watermarks_ms[i])}"
            if late
            else f"the job's watermark {block.passed_ms}, which had passed the partition over while that stood still"
        )
        if _was_sent_back(block, i):
            behind += ": replayed after this job dropped the state that the record belongs to"
            return refused(block, i, self._job, "replay", LATE_BY_REPLAY, behind)
        return refused(block, i, self._job, "lateness", "Late" if late else "Overtaken", behind)


def _said_by_headers(block: Block) -> Iterator[int]:
    """Numbers of the messages whose headers say what their payload is."""
    return (i for i, headers in block.headers.items() if format_of(b"", headers) is not None)


def _reached(block: Block) -> Ints:
    """[n] what lateness of each record is measured from: its partition's watermark, or Beam's if that is further on, as
    state and windows are kept no longer."""
    reached: Ints = np.maximum(block.watermarks_ms, block.passed_ms)
    return reached


def _was_sent_back(block: Block, i: int) -> bool:
    return attempts_before(block.headers.get(i, [])) > 0


def refused(block: Block, i: int, job: str, stage: str, error_class: str, message: str) -> BadRecord:
    """A record of a block as a dead letter or late record."""
    payload, headers = block.payload(i), block.headers.get(i, [])
    try:
        writer_id = codec.schema_id(payload) if block.encoding == "confluent" else None
    except codec.NotFramed:
        writer_id = None
    return BadRecord(
        payload=payload,
        job=job,
        stage=stage,
        error_class=error_class,
        error_message=message[:_LONGEST_MESSAGE].encode(errors="replace").decode(),
        topic=block.topic,
        partition=block.partition,
        offset=int(block.offsets[i]),
        timestamp=int(block.times_ms[i]),
        key=block.keys[i] if block.keys else None,
        headers=headers,
        schema_id=writer_id,
        attempts=attempts_before(headers) + 1,
        seen_at=time.time_ns() // 1_000_000,
    )
