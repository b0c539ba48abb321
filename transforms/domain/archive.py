"""Which files the archive of a partition has, and what is in each. Pure functions of the partition's content.

A file holds the records of one range of offsets (`records_per_file` of them) and one hour of event time, so its name is
known before its first record arrives. Reading the partition again, from the beginning or from a checkpoint, writes the
same names with the same content, and that makes the archive exactly-once.
"""

from __future__ import annotations

import zlib
from collections.abc import Callable, Sequence
from datetime import UTC, datetime
from typing import Any, NamedTuple

import msgspec

from transforms.domain.seen import BUCKET_MS, Seen

__all__ = ["HOUR_MS", "LANDED", "Contents", "File", "Partition", "Row", "avro_long", "sort_out"]

HOUR_MS = 3_600_000
LANDED = ".late.avro"
"""How the files end that hold what replay sent back when it was late: the batch has it, the stream has not."""
_BLOCK_BYTES = 65_536
# Level 1: 1.5 µs a record; level 6 takes 3.5 µs and makes files a tenth smaller.
_LEVEL = 1

Row = tuple[int, int, str, bytes]
"""Offset, event time (ms), the id by which repeats are known, Avro datum."""


class File(NamedTuple):
    """Which file.

    Attributes:
      first: the offset that its range begins with.
      hour: of event time, in hours since 1970.
    """

    first: int
    hour: int

    def path(self, source: str, landed: bool = False) -> str:
        """Within the folder of its table; `source` names topic and partition."""
        at = datetime.fromtimestamp(self.hour * 3600, UTC)
        return f"day={at:%Y-%m-%d}/hour={at:%H}/{source}-{self.first:020}{LANDED if landed else '.avro'}"


class Contents:
    """Records of a file, in blocks as Avro's container files have them; all but the last are compressed already.

    A block ends with the record that fills it, so it is the same in however many pieces the records came.

    Attributes:
      uncounted: how many records the ledger does not know yet, as they are in no file.
    """

    __slots__ = ("_blocks", "_tail", "_tail_bytes", "uncounted")

    def __init__(self) -> None:
        self._blocks: list[bytes] = []
        self._tail: list[bytes] = []
        self._tail_bytes = 0
        self.uncounted = 0

    def add(self, data: Sequence[bytes]) -> None:
        start, size = 0, self._tail_bytes
        for i, datum in enumerate(data, 1):
            size += len(datum)
            if size >= _BLOCK_BYTES:
                self._blocks.append(_block([*self._tail, *data[start:i]]))
                self._tail, start, size = [], i, 0
        self._tail += data[start:]
        self._tail_bytes = size
        self.uncounted += len(data)

    def blocks(self) -> list[bytes]:
        """What a container file has between its sync markers."""
        return [*self._blocks, _block(self._tail)] if self._tail else self._blocks

    def state(self) -> tuple[Any, ...]:
        return self._blocks, self._tail, self.uncounted

    def restore(self, blocks: list[bytes], tail: list[bytes], uncounted: int) -> None:
        self._blocks, self._tail, self.uncounted = blocks, tail, uncounted
        self._tail_bytes = sum(map(len, tail))

    def renew(self, renewal: Callable[[bytes], list[bytes]]) -> None:
        """Writes the records anew, as if they had come so: `renewal` makes a list of data that follow one another."""
        blocks, tail, uncounted = self.state()
        self.restore([], [], 0)
        for data in (*map(_unpacked, blocks), b"".join(tail)):
            self.add(renewal(data))
        self.uncounted = uncounted


def _unpacked(block: bytes) -> bytes:
    at = 0
    for _ in range(2):  # how many records, how many bytes
        while block[at] >= 0x80:
            at += 1
        at += 1
    return zlib.decompress(block[at:], -zlib.MAX_WBITS)


def _block(data: list[bytes]) -> bytes:
    deflate = zlib.compressobj(_LEVEL, zlib.DEFLATED, -zlib.MAX_WBITS)
    body = deflate.compress(b"".join(data)) + deflate.flush()
    return avro_long(len(data)) + avro_long(len(body)) + body


def avro_long(value: int) -> bytes:
    """Avro's long of a number that is not negative."""
    value <<= 1
    out = bytearray()
    while value >= 0x80:
        out.append(value & 0x7F | 0x80)
        value >>= 7
    out.append(value)
    return bytes(out)


def sort_out(rows: Sequence[Row], records_per_file: int, files: dict[File, Contents]) -> None:
    """Puts each row into the file that it belongs to."""
    if not rows:
        return
    offsets, times_ms, _, data = zip(*rows, strict=True)
    ranges = min(offsets) // records_per_file, max(offsets) // records_per_file
    hours = min(times_ms) // HOUR_MS, max(times_ms) // HOUR_MS
    sorted_out: dict[tuple[int, int], Sequence[bytes]]
    if ranges[0] == ranges[1] and hours[0] == hours[1]:  # nearly always
        sorted_out = {(ranges[0], hours[0]): data}
    else:
        lists: dict[tuple[int, int], list[bytes]] = {}
        for offset, time_ms, _, datum in rows:
            lists.setdefault((offset // records_per_file, time_ms // HOUR_MS), []).append(datum)
        sorted_out = dict(lists)
    for (number, hour), found in sorted_out.items():
        files.setdefault(File(number * records_per_file, hour), Contents()).add(found)


class Partition:
    """What is kept of a partition that is read in order: the ids seen, and the files of the range being read.

    Args:
      records_per_file: offsets in a range. State holds as many records, compressed, at most.
      landed: whether it is about the partition's late records that replay sent back. Event time says nothing of when
        those may repeat, so ids are known within a range.
    """

    __slots__ = ("_floor", "_landed", "_per_file", "files", "seen")

    def __init__(self, records_per_file: int, landed: bool = False):
        self._per_file, self._landed = records_per_file, landed
        self._floor: int | None = None
        self.seen = Seen()
        self.files: dict[File, Contents] = {}

    def __bool__(self) -> bool:
        return self._floor is not None or bool(self.seen)

    def new(self, rows: list[Row]) -> list[Row]:
        """The rows that repeat none seen before."""
        if self._landed:
            return [row for row in rows if self._is_new_in_range(row)]
        add = self.seen.add
        return [row for row in rows if add(row[2], row[1])]

    def _is_new_in_range(self, row: Row) -> bool:
        range_ms = row[0] // self._per_file * BUCKET_MS
        self.seen.expire(range_ms)
        return self.seen.add(row[2], range_ms)

    def add(self, rows: list[Row], began: int, reached: int) -> list[tuple[File, Contents, bool]]:
        """Takes in new rows; `began` and `reached` are the first and the last offset that they were read among.

        Returns: the files that are finished, and whether each is whole (`is_whole`); they are not kept any longer.
        """
        if self._floor is None:
            self._floor = began
        sort_out(rows, self._per_file, self.files)
        newest = reached - reached % self._per_file
        finished = [
            (file, self.files.pop(file), self.is_whole(file)) for file in list(self.files) if file.first < newest
        ]
        self._floor = max(self._floor, newest)
        return finished

    def is_whole(self, file: File) -> bool:
        """Whether all records of the file came here. If not, others may be in the file already, and must stay there.

        So it is with the first range when the topic has lost its beginning (retention), and would be with records
        of a range that was finished before, if a runner did not keep a partition in order.
        """
        return self._floor is not None and file.first >= self._floor

    def snapshot(self) -> bytes:
        files = [(*file, *contents.state()) for file, contents in self.files.items()]
        return _encode((self._floor, self.seen.items(), files))

    def restore(self, snapshot: bytes) -> None:
        self._floor, seen, files = _decode(snapshot)
        self.seen.restore(seen)
        for first, hour, blocks, tail, uncounted in files:
            self.files[File(first, hour)] = contents = Contents()
            contents.restore(blocks, tail, uncounted)


_encode = msgspec.msgpack.Encoder().encode
_decode = msgspec.msgpack.Decoder(
    tuple[int | None, list[tuple[int, list[str]]], list[tuple[int, int, list[bytes], list[bytes], int]]]
).decode
