"""Files, local or `gs://`: a bounded source of blocks, a sink of JSON lines, and the ledger's file."""

from __future__ import annotations

import itertools
import json
import uuid
from collections.abc import Callable, Iterable, Iterator
from typing import Any

import apache_beam as beam
import numpy as np
from apache_beam.io.filesystems import FileSystems

from schemas import codec
from transforms.blocks import NO_WATERMARK_MS, Block
from transforms.ledger import Counts

__all__ = ["ReadBlocksFromFiles", "WriteLedgerToFile", "WriteToFolder", "match_files"]

_BLOCK_RECORDS = 4_000
_SUFFIXES = (".avro", ".jsonl")


def match_files(pattern: str) -> list[str]:
    """Paths of the .avro and .jsonl files that a path, glob or folder names; of a folder, also those in its folders.

    In a glob, `**` stands for any path, `/` in it or not. Files whose name begins with . or _ have to be named in full.

    Raises:
      ValueError: there are none, or one is of another kind.
    """
    paths = _match(pattern)
    if not pattern.endswith(_SUFFIXES) and not any(sign in pattern for sign in "*?["):
        paths = _match(f"{pattern.rstrip('/')}/**") or paths
    if not paths:
        raise ValueError(f"no file matches {pattern}")
    for path in paths:
        if not path.endswith(_SUFFIXES):
            raise ValueError(f"{path} is neither .avro nor .jsonl")
    return paths


def _match(pattern: str) -> list[str]:
    found = sorted(m.path for m in FileSystems.match([pattern])[0].metadata_list)
    return [path for path in found if path == pattern or FileSystems.split(path)[1][:1] not in (".", "_")]


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
                lines = (line.rstrip(b"\r\n") for line in stream)
                yield from self._blocks(path, ((None, line) for line in lines), "json")
            else:
                yield from self._blocks(path, _container(stream), "avro")

    def _blocks(
        self, path: str, records: Iterator[tuple[dict[str, Any] | None, bytes]], encoding: Any
    ) -> Iterator[Block]:
        offset = 0
        while batch := list(itertools.islice(records, _BLOCK_RECORDS)):
            sizes = np.fromiter((len(datum) for _, datum in batch), np.int64, len(batch))
            yield Block(
                topic=path,
                partition=0,
                data=b"".join(datum for _, datum in batch),
                bounds=np.concatenate((np.zeros(1, np.int64), np.cumsum(sizes))),
                offsets=np.arange(offset, offset + len(batch)),
                times_ms=np.full(len(batch), self._now_ms),
                watermarks_ms=np.full(len(batch), NO_WATERMARK_MS),
                encoding=encoding,
                schema=batch[0][0],
            )
            offset += len(batch)


def _container(stream: Any) -> Iterator[tuple[dict[str, Any] | None, bytes]]:
    """The data of a container file; where the file breaks off, one empty datum stands for what is missing, so that
    it becomes a dead letter and not a crash."""
    writer: dict[str, Any] = {"type": "null"}
    try:
        for writer, datum in codec.read_container(stream):
            yield writer, datum
    except codec.Undecodable:
        yield writer, b""


class WriteToFolder(beam.PTransform):
    """Writes JSON lines to `folder/table/*.jsonl`, a part per bundle; a part is there whole or not at all.

    A bundle that is retried writes its rows again: rows carry their key and version, dead letters their origin.

    Args:
      to_line: element → JSON, without the line end.
    """

    def __init__(self, folder: str, table: str, to_line: Callable[[Any], bytes]):
        super().__init__()
        self._fn = _WriteToFolderFn(FileSystems.join(folder, table), to_line)

    def expand(self, rows: beam.PCollection[Any]) -> beam.PCollection[None]:
        return rows | "Write" >> beam.ParDo(self._fn)


class _WriteToFolderFn(beam.DoFn):
    def __init__(self, folder: str, to_line: Callable[[Any], bytes]):
        self._folder, self._to_line = folder, to_line

    def start_bundle(self) -> None:
        self._lines: list[bytes] = []

    def process(self, row: Any) -> Iterable[None]:
        self._lines.append(self._to_line(row))
        return ()

    def finish_bundle(self) -> None:
        if self._lines:
            make_folder(self._folder)
            write_whole(
                FileSystems.join(self._folder, f"part-{uuid.uuid4().hex}.jsonl"), b"\n".join(self._lines) + b"\n"
            )


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
