"""Records that a job could not use, with everything needed to see why and to retry."""

from __future__ import annotations

import hashlib
import time
from typing import Annotated, NamedTuple

import msgspec

__all__ = [
    "ATTEMPTS_HEADER",
    "LATE_BY_REPLAY",
    "UNREADABLE_HEADERS",
    "BadRecord",
    "SinkLetters",
    "attempts_before",
    "sent_back",
]

ATTEMPTS_HEADER = "streamforge-attempts"
"""Set by `beam_pipelines.dead_letters replay`; absent on a record's first delivery."""

LATE_BY_REPLAY = "LateByReplay"
"""Error class of a record that replay sent back too late for the job's state; the archive has it."""

UNREADABLE_HEADERS = "streamforge-headers-unreadable"
"""Stands for the headers of a record one of whose names is not UTF-8: the client gives none of them then."""


_Int32 = Annotated[int, msgspec.Meta(ge=-(1 << 31), le=(1 << 31) - 1)]
_Int64 = Annotated[int, msgspec.Meta(ge=-(1 << 63), le=(1 << 63) - 1)]


class Unavailable(Exception):
    """Something that a step needs is not there; that says nothing of a record, so the bundle is tried again."""


class BadRecord(msgspec.Struct, frozen=True):
    """A dead letter or a late record: the original bytes, where they came from, and the reason.

    Attributes:
      payload: the bytes as they came; None for a record without a value.
      timestamp: record timestamp, ms.
      attempts: how often it has been tried, this time included.
      seen_at: when this job saw it, ms.
    """

    payload: bytes | None
    job: str
    stage: str
    error_class: str
    error_message: str
    topic: str
    partition: _Int32
    offset: _Int64
    timestamp: _Int64
    key: bytes | None
    headers: list[tuple[str, bytes | None]]
    schema_id: _Int64 | None
    attempts: _Int64
    seen_at: _Int64

    def to_json(self) -> bytes:
        """The envelope; `payload`, `key` and header values are base64."""
        return msgspec.json.encode(self)

    @staticmethod
    def from_json(line: bytes) -> BadRecord:
        """Raises: msgspec.ValidationError."""
        return _bad_record(line)


_bad_record = msgspec.json.Decoder(BadRecord).decode


def attempts_before(headers: list[tuple[str, bytes | None]]) -> int:
    """How often a record was tried before, as its headers say."""
    for name, value in headers:
        if name == ATTEMPTS_HEADER and value is not None and value.isdigit() and len(value) < 10:
            return int(value)
    return 0


def sent_back(headers: dict[int, list[tuple[str, bytes | None]]]) -> list[int]:
    """Of a block's messages, the numbers of those that replay sent back."""
    return [i for i, of_one in headers.items() if attempts_before(of_one)]


class SinkLetters(NamedTuple):
    """Makes dead letters of rows that a sink refuses; the same row always makes the same one, but for `seen_at`.

    Attributes:
      where: the sink's address, without secrets; the letters' topic.
    """

    job: str
    stage: str
    where: str

    def letter(
        self,
        payload: bytes | None,
        error_class: str,
        message: str,
        *,
        key: bytes | None = None,
        timestamp: int = 0,
        headers: list[tuple[str, bytes | None]] | None = None,
    ) -> BadRecord:
        return BadRecord(
            payload=payload,
            job=self.job,
            stage=self.stage,
            error_class=error_class,
            error_message=message,
            topic=self.where,
            partition=0,
            offset=int.from_bytes(hashlib.sha256((key or b"") + (payload or b"")).digest()[:7]),
            timestamp=timestamp,
            key=key,
            headers=headers or [],
            schema_id=None,
            attempts=1,
            seen_at=time.time_ns() // 1_000_000,
        )
