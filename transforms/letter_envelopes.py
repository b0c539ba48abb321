"""Envelopes of dead letters within a size limit: fuller forms first, and a last one that always fits.

whole       the envelope with the payload as it came
compressed  the payload gzipped; readers get it back whole
head        the payload's first bytes, its length and SHA-256. The original lies where topic, partition and offset of
            the envelope say, and `dead_letters` fetches it from there
"""

from __future__ import annotations

import gzip
import hashlib
import zlib
from collections.abc import Iterator
from typing import Annotated, Literal

import msgspec

from transforms.errors import BadRecord

__all__ = ["LEAST_LIMIT", "NO_LIMIT", "Cut", "cut_of", "envelopes", "read_envelope"]

NO_LIMIT = 1 << 62
LEAST_LIMIT = 32_768
"""A place that takes less than this takes no letters: the last rung fits it, whatever the record."""

_COMPRESSED_FROM = 1 << 20  # where there is no limit, too: a folder's letters are read by people and by line
_HEAD_BYTES = 4_096
_LARGEST = 128 << 20  # no client sends, and no broker takes, a record of so many bytes
_TEXT = 1_024  # of a text in the last rung, in characters: at most 6 times as many bytes as JSON


class Cut(msgspec.Struct, frozen=True):
    """What a letter says of a payload of which it has the head alone; key and headers are cut as well."""

    bytes: Annotated[int, msgspec.Meta(ge=0, le=(1 << 63) - 1)]
    sha256: str

    def fits(self, payload: bytes) -> bool:
        return len(payload) == self.bytes and hashlib.sha256(payload).hexdigest() == self.sha256


class _Compressed(BadRecord, frozen=True, kw_only=True):
    compressed: Literal["gzip"] = "gzip"


class _Head(BadRecord, frozen=True, kw_only=True):
    cut: Cut


class _Rung(msgspec.Struct):
    compressed: Literal["gzip"] | None = None
    cut: Cut | None = None


_rung = msgspec.json.Decoder(_Rung).decode


def envelopes(record: BadRecord, limit: int) -> Iterator[bytes]:
    """The envelopes of a letter that have at most `limit` bytes, the fullest first; the last one always has."""
    payload = record.payload
    # Base64 makes four bytes of three, so what cannot fit is not even written.
    if len(payload or b"") <= (_COMPRESSED_FROM if limit == NO_LIMIT else limit) * 3 // 4:
        yield from _if_fits(record.to_json(), limit)
    if payload:
        small = msgspec.structs.asdict(record) | {"payload": gzip.compress(payload, mtime=0)}
        yield from _if_fits(msgspec.json.encode(_Compressed(**small)), limit)
    yield msgspec.json.encode(_head(record))


def _if_fits(envelope: bytes, limit: int) -> Iterator[bytes]:
    if len(envelope) <= limit:
        yield envelope


def _head(record: BadRecord) -> _Head:
    payload = record.payload or b""
    cut = Cut(len(payload), hashlib.sha256(payload).hexdigest())
    fields = {name: _short(value) for name, value in msgspec.structs.asdict(record).items()}
    shortened = {
        "payload": record.payload and payload[:_HEAD_BYTES],
        "key": record.key and record.key[:_TEXT],
        "headers": [],
    }
    return _Head(**(fields | shortened), cut=cut)


def _short(value: object) -> object:
    return value[:_TEXT] if isinstance(value, str) else value


def read_envelope(line: bytes) -> BadRecord:
    """The letter, its payload whole unless `cut_of` says that it is not.

    Raises: msgspec.DecodeError, UnicodeDecodeError, RecursionError.
    """
    record = BadRecord.from_json(line)
    if b'"compressed"' not in line or _rung(line).compressed is None:
        return record
    return msgspec.structs.replace(record, payload=_unpacked(record.payload or b""))


def _unpacked(packed: bytes) -> bytes:
    """Bounded, as whoever may write to the topic can make a letter of a megabyte that unpacks to a thousand."""
    inflate = zlib.decompressobj(wbits=31)
    try:
        payload = inflate.decompress(packed, _LARGEST)
    except zlib.error as e:
        raise msgspec.DecodeError(f"the payload is not what was compressed: {e}") from e
    if not inflate.eof:
        raise msgspec.DecodeError(f"the compressed payload is cut short, or of more than {_LARGEST:,} bytes")
    return payload


def cut_of(line: bytes) -> Cut | None:
    """What the envelope says of a payload of which it has the head alone; None when it has all of it."""
    return _rung(line).cut if b'"cut"' in line else None
