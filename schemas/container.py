"""Reads Avro object container files block by block: a broken block costs its own records and no others.

fastavro's reader stops at the first broken block, and unpacks whatever a block claims to hold. This one skips a block
that does not unpack, using the marker after each block, and rejects as many records as the block says it has.

Specification: https://avro.apache.org/docs/1.12.0/specification/#object-container-files
"""

from __future__ import annotations

import bz2
import io
import json
import lzma
import zlib
from collections.abc import Callable, Iterator
from typing import IO, NamedTuple

import fastavro
import zstandard

from schemas import columns
from schemas.codec import DECODE_ERRORS, Undecodable, Writer
from schemas.walk import WalkError

__all__ = ["Container", "Datum", "Unpacked", "UnreadablePacking"]

_MAGIC = b"Obj\x01"
_SYNC_BYTES = 16
_MAX_META_BYTES = 16 << 20
_MAX_BLOCK_BYTES = 64 << 20  # as stored, and unpacked
_MAX_LOST = 100_000  # a broken block that claims more records is not believed
_MAX_EMPTY = 1_000  # records of no bytes, in a block: of a schema without fields a block may claim any number
_CHUNK = 1 << 16


class UnreadablePacking(Undecodable):
    """Nothing is known to be wrong with the records, but they are packed in a way that cannot be read here."""


class Datum(NamedTuple):
    """A record of the file.

    Attributes:
      broken: why there is no datum; '' when there is one. `data` has then what bytes there are.
    """

    data: bytes
    broken: str = ""


class Unpacked(NamedTuple):
    """A block of the file, as it says itself.

    Attributes:
      number: of the block, from 1.
      claims: how many records it says that it holds.
    """

    number: int
    claims: int
    data: bytes


class Container:
    """The header of a container file, and its records.

    Raises: Undecodable, at construction: it is no container file, or one that cannot be read here; it says why.

    Attributes:
      writer: the writer's schema.
    """

    def __init__(self, stream: IO[bytes]):
        self._bytes = _Bytes(stream)
        magic = self._bytes.read(len(_MAGIC))
        if not magic:
            raise Undecodable("the file is empty")
        if magic != _MAGIC:
            raise Undecodable(f"not an Avro object container file: begins with {magic!r}")
        try:
            meta = self._meta()
            self._sync = self._exactly(_SYNC_BYTES)
        except (EOFError, ValueError) as e:
            raise Undecodable(f"the header is broken: {e}") from e
        codec = meta.get(b"avro.codec", b"null").decode(errors="replace")
        if codec not in _CODECS:
            raise UnreadablePacking(f"the file is packed with {codec[:40]}, and only {', '.join(_CODECS)} can be read")
        self._codec, self._unpack = codec, _CODECS[codec]
        try:
            schema = json.loads(meta.get(b"avro.schema", b""))
        except (ValueError, RecursionError) as e:
            raise Undecodable(f"the schema in the header is not JSON: {str(e)[:200]}") from e
        self.writer = Writer(schema, "the schema in the header")
        self._end = _ends(self.writer)

    def __iter__(self) -> Iterator[Datum]:
        """Every record, in order. The first broken one of a block has the rest of its bytes."""
        for block in self.blocks():
            yield from self.records(block) if isinstance(block, Unpacked) else [block]

    def blocks(self) -> Iterator[Unpacked | Datum]:
        """The same, with blocks that could be unpacked as they are: for a reader that finds many records at once."""
        number = 0
        while self._bytes.holds(1):
            number += 1
            yield from self._block(number)

    def _block(self, number: int) -> Iterator[Unpacked | Datum]:
        count = 0
        try:
            count, size = self._long(), self._long()
            if count < 0 or not 0 <= size <= _MAX_BLOCK_BYTES:
                raise ValueError(f"says that it has {count} records in {size} bytes")
            if not self._bytes.holds(size + _SYNC_BYTES):
                rest = self._bytes.read(size + _SYNC_BYTES)
                yield from _lost(count, rest, f"block {number} is cut short: {len(rest)} of {size} bytes")
                return
            if not self._is_sync(self._bytes.ahead(size, _SYNC_BYTES)):
                raise ValueError("does not end where it says")
        except (EOFError, ValueError) as e:
            self._bytes.skip_past(self._sync)
            yield from _lost(count, b"", f"block {number} is broken: {e}")
            return
        stored = self._bytes.read(size)
        self._bytes.read(_SYNC_BYTES)
        try:
            data = self._unpack(stored)
        except (zlib.error, lzma.LZMAError, zstandard.ZstdError, OSError, ValueError) as e:
            yield from _lost(count, stored, f"block {number} cannot be unpacked by {self._codec}: {e}")
            return
        yield Unpacked(number, count, data)

    def records(self, block: Unpacked) -> Iterator[Datum]:
        """The records of a block. The first broken one has the rest of its bytes."""
        number, count, data = block
        ends = self._end(data)
        start = empty = 0
        for i in range(count):
            try:
                end = next(ends)
            except (WalkError, *DECODE_ERRORS) as e:
                why = f"{type(e).__name__} {e}".rstrip()
                yield from _lost(count - i, data[start:], f"record {i} of block {number} cannot be read: {why}")
                return
            empty += end == start
            if empty > _MAX_EMPTY:
                yield from _lost(count - i, b"", f"block {number} has more than {_MAX_EMPTY} records of no bytes")
                return
            yield Datum(data[start:end])
            start = end
        if start < len(data):
            yield Datum(data[start:], f"block {number} has {len(data) - start} bytes behind its {count} records")

    def _is_sync(self, marker: bytes) -> bool:
        """It may be what is broken, and then nothing else is."""
        return sum(a != b for a, b in zip(marker, self._sync, strict=True)) <= _SYNC_BYTES // 4

    def _meta(self) -> dict[bytes, bytes]:
        meta: dict[bytes, bytes] = {}
        size = 0
        while count := self._long():
            if count < 0:
                self._long()
            for _ in range(abs(count)):
                key = self._exactly(self._long())
                meta[key] = self._exactly(self._long())
                size += len(key) + len(meta[key])
                if size > _MAX_META_BYTES:
                    raise ValueError(f"it has more than {_MAX_META_BYTES} bytes")
        return meta

    def _exactly(self, size: int) -> bytes:
        if not 0 <= size <= _MAX_META_BYTES:
            raise ValueError(f"a length of {size}")
        data = self._bytes.read(size)
        if len(data) < size:
            raise EOFError("the file ends there")
        return data

    def _long(self) -> int:
        value = 0
        for shift in range(0, 70, 7):
            byte = self._exactly(1)[0]
            value |= (byte & 0x7F) << shift
            if byte < 0x80:
                return value >> 1 ^ -(value & 1)
        raise ValueError("a number longer than 10 bytes")


def _lost(count: int, data: bytes, why: str) -> Iterator[Datum]:
    """The records of a broken block, as many as it says; the first has its bytes. At least one, to say that it was."""
    if count > _MAX_LOST:
        count, why = 1, f"{why}; that it has {count} records is not believed"
    for i in range(max(count, 1)):
        yield Datum(b"" if i else data, why)


def _ends(writer: Writer) -> Callable[[bytes], Iterator[int]]:
    """The function from a block's data to where its records end.

    fastavro steps three times as fast, and bytes cannot mislead it when the schema is one that columns can read.
    """

    def by_walk(data: bytes) -> Iterator[int]:
        at = 0
        while True:
            at = writer.walk.end(data, at)
            yield at

    def by_fastavro(data: bytes) -> Iterator[int]:
        stream = io.BytesIO(data)
        while True:
            fastavro.schemaless_reader(stream, writer.schema, None)
            yield stream.tell()

    try:
        columns.plan(writer.schema)
    except columns.UnsupportedSchemaError:
        return by_walk
    return by_fastavro


def _deflate(data: bytes) -> bytes:
    unpack = zlib.decompressobj(-zlib.MAX_WBITS)
    return _whole(unpack.decompress(data, _MAX_BLOCK_BYTES), unpack.eof)


def _bzip2(data: bytes) -> bytes:
    unpack = bz2.BZ2Decompressor()
    return _whole(unpack.decompress(data, _MAX_BLOCK_BYTES), unpack.eof)


def _xz(data: bytes) -> bytes:
    unpack = lzma.LZMADecompressor(memlimit=4 * _MAX_BLOCK_BYTES)
    return _whole(unpack.decompress(data, _MAX_BLOCK_BYTES), unpack.eof)


def _zstandard(data: bytes) -> bytes:
    unpack = zstandard.ZstdDecompressor(max_window_size=_MAX_BLOCK_BYTES).decompressobj()
    out, size = [], 0
    for at in range(0, len(data), 1 << 10):  # by little, as nothing bounds what one call gives
        out.append(unpack.decompress(data[at : at + (1 << 10)]))
        size += len(out[-1])
        if unpack.eof or size > _MAX_BLOCK_BYTES:
            break
    return _whole(b"".join(out), unpack.eof and size <= _MAX_BLOCK_BYTES)


def _snappy(data: bytes) -> bytes:
    import cramjam  # nothing else needs it

    raw, checksum = data[:-4], data[-4:]
    try:
        if cramjam.snappy.decompress_raw_len(raw) > _MAX_BLOCK_BYTES:
            return _whole(b"", ended=False)
        out = bytes(cramjam.snappy.decompress_raw(raw))
    except cramjam.DecompressionError as e:
        raise ValueError(str(e)) from e
    if zlib.crc32(out).to_bytes(4, "big") != checksum:
        raise ValueError("the checksum is wrong")
    return out


def _whole(data: bytes, ended: bool) -> bytes:
    if not ended:
        raise ValueError(f"cut short, or more than {_MAX_BLOCK_BYTES} bytes")
    return data


_CODECS: dict[str, Callable[[bytes], bytes]] = {
    "null": bytes,
    "deflate": _deflate,
    "bzip2": _bzip2,
    "snappy": _snappy,
    "xz": _xz,
    "zstandard": _zstandard,
}


class _Bytes:
    """A stream that can be looked ahead in."""

    def __init__(self, stream: IO[bytes]):
        self._stream = stream
        self._held, self._at = b"", 0

    def read(self, size: int) -> bytes:
        """As many bytes as there are, up to `size`."""
        self.holds(size)
        out = self._held[self._at : self._at + size]
        self._at += len(out)
        return out

    def ahead(self, at: int, size: int) -> bytes:
        """Bytes that are not read yet, of those that it holds."""
        return self._held[self._at + at : self._at + at + size]

    def skip_past(self, mark: bytes) -> None:
        """To what follows the next `mark`; to the end when there is none."""
        while True:
            found = self._held.find(mark, self._at)
            if found >= 0:
                self._at = found + len(mark)
                return
            self._at = max(self._at, len(self._held) - len(mark) + 1)
            if not self.holds(len(self._held) - self._at + 1):
                self._at = len(self._held)
                return

    def holds(self, size: int) -> bool:
        """Whether so many bytes are left."""
        missing = size - (len(self._held) - self._at)
        if missing > 0:
            parts = [self._held[self._at :]]
            while missing > 0 and (more := self._stream.read(max(missing, _CHUNK))):
                parts.append(more)
                missing -= len(more)
            self._held, self._at = b"".join(parts), 0
        return missing <= 0
