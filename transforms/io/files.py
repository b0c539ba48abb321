"""Files, local or `gs://`: a bounded source of blocks, and the ledger's file."""

from __future__ import annotations

import json
import re
import uuid
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import apache_beam as beam
import numpy as np
from apache_beam.io.filesystems import FileSystems

from schemas import codec
from schemas.container import Container, Datum, UnreadablePacking
from transforms.blocks import NO_WATERMARK_MS, Block, Encoding
from transforms.ledger import Counts

__all__ = [
    "ReadBlocksFromFiles",
    "WriteLedgerToFile",
    "blocks_of",
    "lines",
    "make_folder",
    "match_files",
    "write_whole",
]

_BLOCK_RECORDS = 4_000
_BLOCK_BYTES = 32 << 20
_LONGEST_LINE = 16 << 20
_LINE_HEAD = 64 << 10  # what is kept of a longer one
_CHUNK = 1 << 20
_SUFFIXES = (".avro", ".jsonl")
_LOOKED_INTO = 100  # files, before the job starts
_BOM = b"\xef\xbb\xbf"
_OTHER_KINDS = {
    b"\x1f\x8b": "packed with gzip; unpack it first",
    b"BZh": "packed with bzip2; unpack it first",
    b"\xfd7zXZ": "packed with xz; unpack it first",
    b"\x28\xb5\x2f\xfd": "packed with zstandard; unpack it first",
    b"PK\x03\x04": "a zip archive; unpack it first",
    b"PAR1": "a Parquet file; only Avro container files and JSON lines are read",
    b"\xff\xfe\0\0": "text in UTF-32; only UTF-8 is read",
    b"\xff\xfe": "text in UTF-16; only UTF-8 is read",
    b"\xfe\xff": "text in UTF-16; only UTF-8 is read",
}
"""By their first bytes."""


def match_files(pattern: str) -> list[str]:
    """Paths of the .avro and .jsonl files that a path, glob or folder names; of a folder, also those in its folders.

    A path that exists is taken as it is, whatever signs it has. In a glob, `**` stands for any path, `/` in it or not.
    Files whose name begins with . or _ have to be named in full.

    Raises:
      ValueError: there are none, or one is of another kind, or packed in a way that cannot be read here.
      OSError: one cannot be read.
    """
    if FileSystems.exists(pattern):
        paths = _in_folder(pattern) or ([] if Path(pattern).is_dir() else [pattern])
    else:  # of gs://, folders are but the beginnings of names
        paths = _match(pattern) or _in_folder(pattern)
    if not paths:
        raise ValueError(f"no file matches {pattern}")
    for path in paths:
        if not path.endswith(_SUFFIXES):
            raise ValueError(f"{path} is neither .avro nor .jsonl")
    for path in paths[:_LOOKED_INTO]:
        _look_into(path)
    return paths


def _match(pattern: str) -> list[str]:
    # Beam looks into the folder that stands before the first sign of a glob, and finds none where there is none.
    here = "./" if re.match(r"[^/]*[*?\[]", pattern) else ""
    found = sorted(m.path.removeprefix(here) for m in FileSystems.match([here + pattern])[0].metadata_list)
    return [path for path in found if path == pattern or FileSystems.split(path)[1][:1] not in (".", "_")]


def _in_folder(folder: str) -> list[str]:
    begin = f"{folder.rstrip('/')}/"
    return [path for path in _match(re.sub(r"[*?\[]", "?", begin) + "**") if path.startswith(begin)]


def _look_into(path: str) -> None:
    """Refuses what would only give dead letters although nothing is wrong with its records.

    Raises: ValueError; OSError.
    """
    with FileSystems.open(path) as stream:
        head = stream.read(5)
    kind = next((kind for sign, kind in _OTHER_KINDS.items() if head.startswith(sign)), None)
    if path.endswith(".jsonl") and head.startswith(b"Obj\x01"):
        kind = "an Avro file, and its name ends in .jsonl"
    if kind:
        raise ValueError(f"{path} is {kind}")
    if path.endswith(".jsonl"):
        return
    with FileSystems.open(path) as stream:
        try:
            Container(stream)
        except UnreadablePacking as e:
            raise ValueError(f"{path}: {e}") from e
        except codec.Undecodable:
            pass  # a broken file is data: its dead letter says what is wrong


class ReadBlocksFromFiles(beam.PTransform):
    """Blocks of the records of Avro object container files and JSON-lines files.

    Output: Block; `topic` is the path, offsets count the records of the file from 0. Nothing in a file is late.

    Args:
      now_ms: taken as the records' timestamp.
    """

    def __init__(self, paths: list[str], now_ms: int):
        super().__init__()
        self._paths, self._now_ms = paths, now_ms

    def expand(self, begin: beam.pvalue.PBegin) -> beam.PCollection[Block]:
        blocks = (
            begin.pipeline
            | "Paths" >> beam.Create(self._paths)
            | "Spread" >> beam.Reshuffle()
            | "Read" >> beam.ParDo(_ReadFileFn(self._now_ms))
        )
        blocks.element_type = Block
        return blocks


class _ReadFileFn(beam.DoFn):
    def __init__(self, now_ms: int):
        self._now_ms = now_ms

    def process(self, path: str) -> Iterator[Block]:
        with FileSystems.open(path) as stream:
            if path.endswith(".jsonl"):
                yield from blocks_of(path, lines(stream), self._now_ms)
                return
            try:
                container = Container(stream)
            except codec.Undecodable as e:
                yield from blocks_of(path, iter([Datum(b"", str(e))]), self._now_ms, "avro")
                return
            yield from blocks_of(path, iter(container), self._now_ms, "avro", container.writer.schema)


def blocks_of(
    path: str, records: Iterator[Datum], now_ms: int, encoding: Encoding = "json", schema: Any = None, first: int = 0
) -> Iterator[Block]:
    """Blocks of a file's records.

    Args:
      now_ms: taken as the records' timestamp.
      first: number of the first of the records in the file.
    """
    offset = first
    for batch in _batches(records):
        sizes = np.fromiter((len(record.data) for record in batch), np.int64, len(batch))
        yield Block(
            topic=path,
            partition=0,
            data=b"".join(record.data for record in batch),
            bounds=np.concatenate((np.zeros(1, np.int64), np.cumsum(sizes))),
            offsets=np.arange(offset, offset + len(batch)),
            times_ms=np.full(len(batch), now_ms),
            watermarks_ms=np.full(len(batch), NO_WATERMARK_MS),
            encoding=encoding,
            schema=schema,
            broken={i: record.broken for i, record in enumerate(batch) if record.broken},
        )
        offset += len(batch)


def _batches(records: Iterator[Datum]) -> Iterator[list[Datum]]:
    batch: list[Datum] = []
    size = 0
    for record in records:
        batch.append(record)
        size += len(record.data)
        if len(batch) == _BLOCK_RECORDS or size >= _BLOCK_BYTES:
            yield batch
            batch, size = [], 0
    if batch:
        yield batch


def lines(stream: Any) -> Iterator[Datum]:
    """The lines of a file. Blank ones are no records, and a byte order mark before one is none of its bytes.

    A line longer than any record is refused without being held in memory.
    """
    held, size = b"", 0  # of the line that has begun: its bytes, or their head; how many there are
    while chunk := stream.read(_CHUNK):
        *ended, rest = chunk.split(b"\n")
        for i, piece in enumerate(ended):
            yield from _line(piece if i else held + piece, len(piece) + (0 if i else size))
        held, size = (rest, len(rest)) if ended else (held + rest, size + len(rest))
        if size > _LONGEST_LINE:
            held = held[:_LINE_HEAD]
    yield from _line(held, size)


def _line(line: bytes, size: int) -> Iterator[Datum]:
    if size > _LONGEST_LINE:
        yield Datum(line[:_LINE_HEAD], f"a line of {size} bytes is longer than {_LONGEST_LINE}; its head is here")
    elif (text := line.removeprefix(_BOM)).strip():
        yield Datum(text.rstrip(b"\r"))


class WriteLedgerToFile(beam.PTransform):
    """Keeps the newest counts in a file, as one JSON object."""

    def __init__(self, path: str):
        super().__init__()
        self._path = path

    def expand(self, counts: beam.PCollection[Counts]) -> beam.PCollection[None]:
        return counts | "Write" >> beam.Map(_write_ledger, self._path)


def _write_ledger(counts: Counts, path: str) -> None:
    write_whole(path, json.dumps(counts.as_dict()).encode() + b"\n")


def make_folder(path: str) -> None:
    """Makes a folder if it is not there; several workers may try at once."""
    try:
        FileSystems.mkdirs(path)
    except OSError:
        if not FileSystems.exists(path):
            raise


def write_whole(path: str, content: bytes) -> None:
    """Writes a file so that a reader sees all of it or nothing: under another name first, then renamed."""
    parent, _ = FileSystems.split(path)
    hidden = FileSystems.join(parent, f".{uuid.uuid4().hex}.tmp")
    with FileSystems.create(hidden, mime_type="application/octet-stream") as out:
        out.write(content)
    FileSystems.rename([hidden], [path])
