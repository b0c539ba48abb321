"""Rows of a run, by shard, in files of a folder that is removed when the run ends.

What does not fit into memory is sorted by being written: each worker appends to files of its own, one for each shard,
and whoever takes a shard reads those of all workers.
"""

from __future__ import annotations

import os
import struct
from collections.abc import Iterator
from pathlib import Path

__all__ = ["ScratchReader", "ScratchWriter", "make_shards"]

_SIZE = struct.Struct("<I")
_HELD_BYTES = 8 << 20


def make_shards(folder: str, count: int) -> None:
    for shard in range(count):
        Path(folder, str(shard)).mkdir()


class ScratchWriter:
    """Appends to a kind of rows. Nothing is there for sure before `flush`."""

    def __init__(self, folder: str, kind: str):
        self._folder, self._kind = folder, kind
        self._held: dict[int, bytearray] = {}
        self._bytes = 0

    def add(self, shard: int, rows: bytes) -> None:
        held = self._held.setdefault(shard, bytearray())
        held += _SIZE.pack(len(rows))
        held += rows
        self._bytes += len(rows)
        if self._bytes >= _HELD_BYTES:
            self.flush()

    def flush(self) -> None:
        """Raises: OSError: there is no room, for example."""
        for shard, held in self._held.items():
            with Path(self._folder, str(shard), f"{self._kind}-{os.getpid()}").open("ab") as out:
                out.write(held)
        self._held, self._bytes = {}, 0


class ScratchReader:
    """What all writers have written."""

    def __init__(self, folder: str, kind: str):
        self._folder, self._kind = folder, kind

    def take(self, shard: int) -> Iterator[bytes]:
        """What was added to a shard, in no particular order; it is removed as it is read."""
        for path in sorted(Path(self._folder, str(shard)).glob(f"{self._kind}-*")):
            data = memoryview(path.read_bytes())
            at = 0
            while at < len(data):
                (size,) = _SIZE.unpack_from(data, at)
                at += _SIZE.size
                yield bytes(data[at : at + size])
                at += size
            path.unlink()
