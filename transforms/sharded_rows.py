"""Blocks in, rows by shard out: how every job begins. What a row holds is the job's own; the rest is the same.

Decoding, validation and lateness happen on whole blocks in the same step, and only the small rows that later steps need
are shuffled: one element per block and shard, however many records it stands for.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any, NamedTuple, Protocol

import apache_beam as beam
import msgspec
from apache_beam import typehints

from schemas.codec import Fetch
from schemas.mapping import parse_mapping
from transforms.blocks import Block
from transforms.decode import BlockDecoder, DecodedBlock, RecordKind
from transforms.errors import BadRecord
from transforms.isolate import in_pieces, unexpected
from transforms.key_groups import MAX_PARALLELISM, shard_keys
from transforms.ledger import Counts, counted

__all__ = ["Beside", "DecodeRows", "Decoding", "RowsOf", "ShardedRows", "encode_rows"]

encode_rows: Callable[[list[Any]], bytes] = msgspec.msgpack.Encoder().encode


class RowsOf(Protocol):
    """What a job keeps of the good records of a block: shard → rows, each of which msgpack can write.

    Records without a row are good and end here.
    """

    def __call__(self, decoded: DecodedBlock[Any], shard_count: int) -> dict[int, list[Any]]: ...


Beside = Callable[[DecodedBlock[Any]], tuple[int, Any]]
"""What a job keeps of a block beside its rows, whatever is good in it: a shard, and something that msgpack can write.
Elements are [that, rows] then: of this shard also without rows, of other shards with None in its place."""


@dataclass(frozen=True)
class Decoding:
    """What decoding needs to know, whatever the record.

    Attributes:
      job: name written into dead letters.
      shards: number of shards; part of a savepoint.
      allowed_lateness_ms: a valid record further behind its partition's watermark is late.
      watermark_lead_ms: how far Beam's watermark runs ahead of the one that tells late records.
      make_fetch: called in the worker; returns what asks for writer schemas.
      lands_replays: see `BlockDecoder`.
      format: what payloads of a topic are framed as; see `BlockDecoder`.
      mapping: text of a mapping, for messages that are not ours.
      max_parallelism: of the runner, which shards are spread over; part of a savepoint.
    """

    job: str
    shards: int
    allowed_lateness_ms: int
    make_fetch: Callable[[], Fetch]
    lands_replays: bool = False
    max_parallelism: int = MAX_PARALLELISM
    format: str = "auto"
    mapping: str | None = None
    watermark_lead_ms: int = 0

    def __post_init__(self) -> None:
        if self.allowed_lateness_ms < 0:
            raise ValueError("allowed_lateness_ms must not be negative")
        if self.watermark_lead_ms < 0:
            raise ValueError("watermark_lead_ms must not be negative")
        if self.shards < 1:
            raise ValueError("shards must be at least 1")
        if self.max_parallelism < 1:
            raise ValueError("max_parallelism must be at least 1")

    @property
    def keep_ms(self) -> int:
        """How far Beam's watermark may be past a record that is not late: what it may meet is kept for as long."""
        return self.allowed_lateness_ms + self.watermark_lead_ms


class ShardedRows(NamedTuple):
    """Output of `DecodeRows`.

    Attributes:
      good: KV[key of the shard, rows], as msgpack.
      bad, late: refused records.
      counts: for the ledger, one per block: all but the records that have a row. Those are counted where they end, as
        the ledger shall not know a record before what comes of it is written.
    """

    good: beam.PCollection[tuple[int, bytes]]
    bad: beam.PCollection[BadRecord]
    late: beam.PCollection[BadRecord]
    counts: beam.PCollection[Counts]


class DecodeRows(beam.PTransform):
    """Decode and validate blocks of one kind of record, and keep what the job needs of it.

    Input:  Block of payloads.
    Output: ShardedRows, at the block's timestamp.

    Args:
      spread: whether `rows_of` names shards, which get keys that Flink spreads evenly; if not, it names the keys.

    Raises: whatever the registry client raises when the registry cannot be reached: the bundle is retried.
    """

    def __init__(
        self,
        kind: RecordKind[Any],
        rows_of: RowsOf,
        decoding: Decoding,
        *,
        spread: bool = True,
        beside: Beside | None = None,
    ):
        super().__init__()
        self._fn = _DecodeRowsFn(kind, rows_of, decoding, spread, beside)

    def expand(self, blocks: beam.PCollection[Block]) -> ShardedRows:
        outputs = blocks | "Decode" >> beam.ParDo(self._fn).with_outputs("bad", "late", "counts", main="good")
        outputs.good.element_type = typehints.Tuple[int, bytes]
        outputs.bad.element_type = outputs.late.element_type = BadRecord
        outputs.counts.element_type = Counts
        return ShardedRows(outputs.good, outputs.bad, outputs.late, outputs.counts)


_Sorted = tuple[DecodedBlock[Any], list[tuple[int, bytes]], int]  # rows by key, as msgpack; how many rows


class _DecodeRowsFn(beam.DoFn):
    def __init__(self, kind: RecordKind[Any], rows_of: RowsOf, decoding: Decoding, spread: bool, beside: Beside | None):
        self._kind, self._rows_of, self._decoding = kind, rows_of, decoding
        self._spread, self._beside = spread, beside

    def setup(self) -> None:
        d = self._decoding
        mapped = None if d.mapping is None else parse_mapping(d.mapping).of(self._kind.record)
        self._decoder = BlockDecoder(
            self._kind, d.job, d.make_fetch(), d.allowed_lateness_ms, d.lands_replays, d.format, mapped
        )
        self._keys = shard_keys(d.shards, d.max_parallelism)

    def process(self, block: Block) -> Iterator[Any]:
        for piece, found in in_pieces(block, self._take):
            if isinstance(found, Exception):
                letter = unexpected(piece, 0, self._decoding.job, found)
                found = self._sort(DecodedBlock([], [], [letter], [], piece, [], set(), []))
            decoded, rows, kept = found
            yield from rows
            for bad in decoded.bad:
                yield beam.pvalue.TaggedOutput("bad", bad)
            for late in decoded.late:
                yield beam.pvalue.TaggedOutput("late", late)
            ignored = len(decoded.ignored)
            sums = (len(piece) - ignored - kept, decoded.good - kept, len(decoded.bad), len(decoded.late))
            counts = Counts(*sums, lost=piece.lost, ignored=ignored)
            if counts:
                yield beam.pvalue.TaggedOutput("counts", counted(counts))

    def _take(self, block: Block) -> _Sorted:
        return self._sort(self._decoder.decode(block))

    def _sort(self, decoded: DecodedBlock[Any]) -> _Sorted:
        shards = self._rows_of(decoded, self._decoding.shards)
        kept = sum(map(len, shards.values()))
        key_of = self._keys.__getitem__ if self._spread else int
        if self._beside is None:
            return decoded, [(key_of(shard), encode_rows(rows)) for shard, rows in shards.items()], kept
        its_shard, kept_beside = self._beside(decoded)
        rows = [(key_of(its_shard), encode_rows([kept_beside, shards.pop(its_shard, [])]))]
        rows += [(key_of(shard), encode_rows([None, others])) for shard, others in shards.items()]
        return decoded, rows, kept
