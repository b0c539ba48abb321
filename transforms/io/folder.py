"""A sink of JSON lines in `folder/table/*.jsonl`, whose parts are written atomically.

Bounded input makes one part per bundle, as there are few. A stream has a bundle every few milliseconds, so its lines
wait in checkpointed state until a part is old or large enough (ADR 33).
"""

from __future__ import annotations

import os
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

    After a failure, rows since the last checkpoint are written again: by a stream into the parts of the same names,
    otherwise into others. Rows carry their key and version, dead letters their origin, so readers tell repeats.

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
        return lines | "Write" >> beam.ParDo(_RollFn(self._folder, self._rolling))


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
    """The lines of a bundle as one element, for one of the writers."""

    def finish_bundle(self) -> Iterator[Any]:
        if self._lines:
            everywhere = window.GlobalWindow()
            content = self._content()
            yield WindowedValue((zlib.crc32(content) % _WRITERS, content), everywhere.start, [everywhere])


class _Part(NamedTuple):
    """The part that is being gathered.

    Attributes:
      run: of this writer, unique in the world, and the same after a restart.
      number: of the part.
      size: bytes that wait.
      timed: whether the timer that writes it is set.
    """

    run: bytes
    number: int
    size: int
    timed: bool


class _PartCoder(coders.Coder):
    """Explicit and versioned, as it lives in savepoints."""

    _V1 = struct.Struct(">B8sqq?")

    def encode(self, part: _Part) -> bytes:
        return self._V1.pack(1, *part)

    def decode(self, encoded: bytes) -> _Part:
        if encoded[:1] != b"\x01":
            raise ValueError(f"folder part of version {encoded[0]}: written by a newer release")
        return _Part(*self._V1.unpack(encoded)[1:])

    def is_deterministic(self) -> bool:
        return True


_PART = ReadModifyWriteStateSpec("part", _PartCoder())
_LINES = BagStateSpec("lines", coders.BytesCoder())
_OLD = TimerSpec("old", TimeDomain.REAL_TIME)
_END = TimerSpec("end", TimeDomain.WATERMARK)


class _RollFn(beam.DoFn):
    def __init__(self, folder: str, rolling: Rolling):
        self._folder, self._rolling = folder, rolling

    def process(
        self,
        keyed: tuple[int, bytes],
        part: Any = beam.DoFn.StateParam(_PART),
        lines: Any = beam.DoFn.StateParam(_LINES),
        old: Any = beam.DoFn.TimerParam(_OLD),
        end: Any = beam.DoFn.TimerParam(_END),
    ) -> None:
        current = part.read()
        if current is None:
            current = _Part(os.urandom(8), 0, 0, False)
            end.set(window.GlobalWindow().max_timestamp())
        if not current.timed:
            old.set(Timestamp.of(time.time() + self._rolling.every_s))
        lines.add(keyed[1])
        current = current._replace(size=current.size + len(keyed[1]), timed=True)
        part.write(self._written(current, lines) if current.size >= self._rolling.size_bytes else current)

    @userstate.on_timer(_OLD)
    def when_old(self, part: Any = beam.DoFn.StateParam(_PART), lines: Any = beam.DoFn.StateParam(_LINES)) -> None:
        self._write_now(part, lines)

    @userstate.on_timer(_END)
    def at_the_end(self, part: Any = beam.DoFn.StateParam(_PART), lines: Any = beam.DoFn.StateParam(_LINES)) -> None:
        self._write_now(part, lines)

    def _write_now(self, part: Any, lines: Any) -> None:
        current = part.read()
        if current is not None:  # Beam's own runner fires a timer also when the state is gone
            part.write(self._written(current, lines)._replace(timed=False))

    def _written(self, part: _Part, lines: Any) -> _Part:
        """Writes what waits; returns the part after it."""
        if not part.size:
            return part
        make_folder(self._folder)
        name = f"part-{part.run.hex()}-{part.number:08d}.jsonl"
        write_whole(FileSystems.join(self._folder, name), b"".join(lines.read()))
        lines.clear()
        return part._replace(number=part.number + 1, size=0)
