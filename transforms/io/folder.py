"""A sink of JSON lines in `folder/table/*.jsonl`, whose parts are written atomically.

Bounded input makes one part per bundle, as there are few. A stream has a bundle every few milliseconds, so its lines
wait in checkpointed state until a part is old or large enough (ADR 33).
"""

from __future__ import annotations

import os
import re
import struct
import time
import uuid
import zlib
from collections.abc import Callable, Iterable, Iterator
from typing import Any, NamedTuple

import apache_beam as beam
from apache_beam import coders, typehints
from apache_beam.io.filesystems import FileSystems
from apache_beam.transforms import userstate, window
from apache_beam.transforms.timeutil import TimeDomain
from apache_beam.transforms.userstate import BagStateSpec, ReadModifyWriteStateSpec, TimerSpec
from apache_beam.utils.timestamp import Timestamp
from apache_beam.utils.windowed_value import WindowedValue

from transforms.io.files import make_folder, write_whole

__all__ = ["Rolling", "WriteToFolder"]

_WRITERS = 4  # parts that may be open at once, so that a flood is not written by one worker alone
_OVERLAP_MS = 600_000  # so long, an attempt looks for parts of one that was given up and writes still


class Rolling(NamedTuple):
    """When a part of a stream is written: the first of the two.

    Attributes:
      every_s: so long after its first line.
      size_bytes: once it holds that much.
    """

    every_s: float
    size_bytes: int


class WriteToFolder(beam.PTransform):
    """Writes JSON lines.

    After a failure, a stream deletes its parts since the last checkpoint and writes their rows again: in the end, each
    row is there exactly once. Input that ends leaves them, and writes rows again under other names. Rows carry their
    key and version, dead letters their origin, so readers tell repeats.

    State: of a stream, the lines that wait: `rolling.size_bytes` and a bundle for each of a few writers at most.

    Args:
      to_line: element → JSON, without the line end.
      rolling: None for input that ends.
    """

    def __init__(self, folder: str, table: str, to_line: Callable[[Any], bytes], rolling: Rolling | None = None):
        super().__init__()
        self._folder, self._to_line, self._rolling = FileSystems.join(folder, table), to_line, rolling

    def expand(self, rows: beam.PCollection[Any]) -> beam.PCollection[Any]:
        if self._rolling is None:
            return rows | "Write" >> beam.ParDo(_WriteBundleFn(self._folder, self._to_line))
        lines = rows | "Lines" >> beam.ParDo(_LinesFn(self._to_line))
        lines.element_type = typehints.Tuple[int, bytes]
        return lines | "Write" >> beam.ParDo(_RollFn(self._folder, self._rolling, os.urandom(7)))


class _BundleFn(beam.DoFn):
    def __init__(self, to_line: Callable[[Any], bytes]):
        self._to_line = to_line

    def start_bundle(self) -> None:
        self._lines: list[bytes] = []

    def process(self, row: Any) -> Iterable[Any]:
        self._lines.append(self._to_line(row))
        return ()

    def _content(self) -> bytes:
        return b"\n".join(self._lines) + b"\n"


class _WriteBundleFn(_BundleFn):
    def __init__(self, folder: str, to_line: Callable[[Any], bytes]):
        super().__init__(to_line)
        self._folder = folder

    def finish_bundle(self) -> None:
        if self._lines:
            make_folder(self._folder)
            write_whole(FileSystems.join(self._folder, f"part-{uuid.uuid4().hex}.jsonl"), self._content())


class _LinesFn(_BundleFn):
    """The lines of a bundle as one element, for one of the writers.

    The first bundle also wakes the others: after a failure its rows may come to another writer than before, and each
    has to delete what it wrote of them.
    """

    def setup(self) -> None:
        self._first = True

    def finish_bundle(self) -> Iterator[Any]:
        if not self._lines:
            return
        content = self._content()
        chosen = zlib.crc32(content) % _WRITERS
        everywhere = window.GlobalWindow()
        for writer in range(_WRITERS) if self._first else (chosen,):
            lines = content if writer == chosen else b""
            yield WindowedValue((writer, lines), everywhere.start, [everywhere])
        self._first = False


class _Part(NamedTuple):
    """The part that is being gathered.

    Attributes:
      run: of this writer, unique in the world, and the same after a restart.
      attempt: greater after each restart: milliseconds since 1970, of its beginning, or of clocks that disagree one
        more than before. 0: before there were attempts.
      number: of the part.
      size: bytes that wait.
      timed: whether the timer that writes it is set.
    """

    run: bytes
    number: int
    size: int
    timed: bool
    attempt: int


class _PartCoder(coders.Coder):
    """Explicit and versioned, as it lives in savepoints."""

    _V1 = struct.Struct(">B8sqq?")
    _V2 = struct.Struct(">B8sqq?q")

    def encode(self, part: _Part) -> bytes:
        return self._V2.pack(2, *part)

    def decode(self, encoded: bytes) -> _Part:
        if encoded[0] == 1:
            return _Part(*self._V1.unpack(encoded)[1:], attempt=0)
        if encoded[0] != 2:
            raise ValueError(f"folder part of version {encoded[0]}: written by a newer release")
        return _Part(*self._V2.unpack(encoded)[1:])

    def is_deterministic(self) -> bool:
        return True


_PART = ReadModifyWriteStateSpec("part", _PartCoder())
_LINES = BagStateSpec("lines", coders.BytesCoder())
_OLD = TimerSpec("old", TimeDomain.REAL_TIME)
_END = TimerSpec("end", TimeDomain.WATERMARK)


class _RollFn(beam.DoFn):
    """Gathers and writes the parts of each writer.

    A restart comes with new instances. One that meets a writer for the first time begins an attempt and deletes the
    parts that the state does not know. The instances of an attempt that was given up may write for a while. As its
    number is lower, it neither replaces nor deletes a newer one's parts, and the newer one deletes its.

    Args:
      run: seven bytes, unique in the world. They are the job's, not drawn by a writer: one that fails before its first
        checkpoint has to find its parts.
    """

    def __init__(self, folder: str, rolling: Rolling, run: bytes):
        self._folder, self._rolling, self._run = folder, rolling, run

    def setup(self) -> None:
        # Now, not when a writer is met: an attempt may be given up before its first bundle, and go on later.
        self._began_ms = int(time.time() * 1000)
        self._met: set[bytes] = set()

    def process(
        self,
        keyed: tuple[int, bytes],
        part: Any = beam.DoFn.StateParam(_PART),
        lines: Any = beam.DoFn.StateParam(_LINES),
        old: Any = beam.DoFn.TimerParam(_OLD),
        end: Any = beam.DoFn.TimerParam(_END),
    ) -> None:
        writer, content = keyed
        current = part.read()
        if current is None:
            current = _Part(self._run + bytes([writer]), 0, 0, False, 0)
            end.set(window.GlobalWindow().max_timestamp())
        current = self._resumed(current)
        if not current.timed:
            old.set(Timestamp.of(time.time() + self._rolling.every_s))
        if content:
            lines.add(content)
        current = current._replace(size=current.size + len(content), timed=True)
        part.write(self._written(current, lines) if current.size >= self._rolling.size_bytes else current)

    @userstate.on_timer(_OLD)
    def when_old(self, part: Any = beam.DoFn.StateParam(_PART), lines: Any = beam.DoFn.StateParam(_LINES)) -> None:
        self._write_now(part, lines)

    @userstate.on_timer(_END)
    def at_the_end(self, part: Any = beam.DoFn.StateParam(_PART), lines: Any = beam.DoFn.StateParam(_LINES)) -> None:
        self._write_now(part, lines)

    def _write_now(self, part: Any, lines: Any) -> None:
        current = part.read()
        if current is None:  # Beam's own runner fires a timer also when the state is gone
            return
        current = self._written(self._resumed(current), lines)._replace(timed=False)
        if time.time() * 1000 - current.attempt < _OVERLAP_MS:
            self._clean(current)
        part.write(current)

    def _resumed(self, part: _Part) -> _Part:
        if part.run in self._met:
            return part
        self._met.add(part.run)
        part = part._replace(attempt=max(self._began_ms, part.attempt + 1))
        self._clean(part)
        return part

    def _written(self, part: _Part, lines: Any) -> _Part:
        """Writes what waits; returns the part after it."""
        if not part.size:
            return part
        make_folder(self._folder)
        name = f"part-{part.run.hex()}-{part.number:08d}-{part.attempt}.jsonl"
        write_whole(FileSystems.join(self._folder, name), b"".join(lines.read()))
        lines.clear()
        return part._replace(number=part.number + 1, size=0)

    def _clean(self, part: _Part) -> None:
        """Deletes this writer's parts that are no longer counted on."""
        _delete(_stale(part, self._there(part)))

    def _there(self, part: _Part) -> dict[str, tuple[int, int]]:
        """Path → number and attempt, of the parts of this writer that the folder has."""
        begin = FileSystems.join(self._folder, f"part-{part.run.hex()}-")
        paths = (found.path for found in FileSystems.match([_pattern(begin) + "*"])[0].metadata_list)
        ends = ((path, re.fullmatch(r"(\d+)(?:-(\d+))?\.jsonl", path.removeprefix(begin))) for path in paths)
        return {path: (int(end[1]), int(end[2] or 0)) for path, end in ends if end}


def _stale(part: _Part, there: dict[str, tuple[int, int]]) -> list[str]:
    """Parts that are no longer counted on: written since the checkpoint, or by an attempt that was given up.

    Numbers below the writer's are written once in each attempt that comes to them, and the newest one counts.
    """
    newest: dict[int, int] = {}
    for number, attempt in there.values():
        newest[number] = max(attempt, newest.get(number, 0))
    return [
        path
        for path, (number, attempt) in there.items()
        if attempt < newest[number] or (number >= part.number and attempt <= part.attempt)
    ]


def _pattern(path: str) -> str:
    return re.sub(r"[*?\[]", "?", path)


def _delete(paths: list[str]) -> None:
    """Deletes files; others may try at once."""
    if not paths:
        return
    try:
        FileSystems.delete([_pattern(path) for path in paths])
    except OSError:
        if any(map(FileSystems.exists, paths)):
            raise
