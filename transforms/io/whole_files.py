"""Reads files of orders faster than one by one: the blocks of many container files are stepped through abreast.

For whoever reads an archive without a runner. It gives what `transforms.io.files` and `BlockDecoder` give record by
record, bad records included: where anything looks wrong, a block is read again in their way.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import NamedTuple

import numpy as np
from apache_beam.io.filesystems import FileSystems

from schemas import codec
from schemas.container import Container, Datum, Unpacked
from schemas.events import OrderEvent
from schemas.runs import Skip, record_ends, skips
from transforms.blocks import NO_WATERMARK_MS, Block
from transforms.decode import BlockDecoder, DecodedBlock
from transforms.io.files import blocks_of, lines

__all__ = ["Unreadable", "read_files"]

_TOGETHER = 512  # blocks
_TOGETHER_BYTES = 32 << 20
_FEWEST = 16  # blocks as long as the longest; of fewer, one by one is faster
_RECORDS = 4_000  # decoded at once

Decoded = DecodedBlock[OrderEvent]


class Unreadable(NamedTuple):
    """A file that is no container file, or that could not be read to its end."""

    path: str
    why: str


class _Run(NamedTuple):
    """A block of a container file.

    Attributes:
      first: number of its first record in the file.
    """

    path: str
    container: Container
    block: Unpacked
    first: int


def read_files(paths: Sequence[str], decoder: BlockDecoder[OrderEvent], now_ms: int) -> Iterator[Decoded | Unreadable]:
    """Every record of the files, in no particular order.

    Args:
      now_ms: taken as the records' timestamp.
    """
    runs: list[_Run] = []
    size = 0
    for path in paths:
        try:
            for found in _file(path, now_ms):
                if isinstance(found, Block):
                    yield decoder.decode(found)
                    continue
                if runs and runs[0].container.writer.schema != found.container.writer.schema:
                    yield from _abreast(runs, decoder, now_ms)
                    runs, size = [], 0
                runs.append(found)
                size += len(found.block.data)
                if len(runs) >= _TOGETHER or size >= _TOGETHER_BYTES:
                    yield from _abreast(runs, decoder, now_ms)
                    runs, size = [], 0
        except (OSError, codec.Undecodable) as e:
            yield Unreadable(path, " ".join(str(e).split()))
    if runs:
        yield from _abreast(runs, decoder, now_ms)


def _file(path: str, now_ms: int) -> Iterator[Block | _Run]:
    """Raises: OSError; Undecodable: it is no container file."""
    with FileSystems.open(path) as stream:
        if path.endswith(".jsonl"):
            yield from blocks_of(path, lines(stream), now_ms)
            return
        container = Container(stream)
        first = 0
        for each in container.blocks():
            if isinstance(each, Datum):
                yield from blocks_of(path, iter([each]), now_ms, "avro", container.writer.schema, first)
                first += 1
            else:
                yield _Run(path, container, each, first)
                first += each.claims


def _abreast(runs: list[_Run], decoder: BlockDecoder[OrderEvent], now_ms: int) -> Iterator[Decoded]:
    claims = [run.block.claims for run in runs]
    skip = skips(runs[0].container.writer.schema) if sum(claims) >= _FEWEST * max(claims) else None
    again = runs
    if skip is not None:
        blocks, again = _joined(runs, skip, now_ms)
        for some, block in blocks:
            decoded = decoder.decode(block)
            if decoded.bad:  # it has to be named by its place in its own file
                again += some
            else:
                yield decoded
    for run in again:
        schema = run.container.writer.schema
        for block in blocks_of(run.path, run.container.records(run.block), now_ms, "avro", schema, run.first):
            yield decoder.decode(block)


def _joined(runs: list[_Run], skip: Skip, now_ms: int) -> tuple[Iterator[tuple[list[_Run], Block]], list[_Run]]:
    """Blocks of the records of many runs, each with those runs; and the runs whose records cannot be found so."""
    data = b"".join(run.block.data for run in runs)
    counts = np.array([min(run.block.claims, len(run.block.data)) for run in runs], np.int64)
    ends = np.cumsum([len(run.block.data) for run in runs])
    starts = np.concatenate((np.zeros(1, np.int64), ends[:-1]))
    found, right = record_ends(data, starts, ends, counts, skip)
    right &= counts == [run.block.claims for run in runs]
    firsts = np.cumsum(counts) - counts

    def blocks() -> Iterator[tuple[list[_Run], Block]]:
        at = 0
        while at < len(runs):
            stop = at
            while stop < len(runs) and right[stop] and (stop == at or firsts[stop] - firsts[at] < _RECORDS):
                stop += 1
            if stop > at and (total := int(counts[at:stop].sum())):
                bounds = np.concatenate((starts[at : at + 1], found[firsts[at] : firsts[at] + total]))
                yield (
                    runs[at:stop],
                    Block(
                        topic=runs[at].path,
                        partition=0,
                        data=data[bounds[0] : bounds[-1]],
                        bounds=bounds - bounds[0],
                        offsets=np.arange(total),
                        times_ms=np.full(total, now_ms),
                        watermarks_ms=np.full(total, NO_WATERMARK_MS),
                        encoding="avro",
                        schema=runs[at].container.writer.schema,
                    ),
                )
            at = max(stop, at + 1)

    return blocks(), [run for run, is_right in zip(runs, right.tolist(), strict=True) if not is_right]
