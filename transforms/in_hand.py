"""Which block this worker is decoding, said where whoever finds it dead can read it, and how many died before it.

A segmentation fault or the kernel's out-of-memory killer leaves no traceback: the block is where to begin.
"""

from __future__ import annotations

import itertools
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Protocol

from apache_beam.metrics import Metrics

from transforms.blocks import Block

__all__ = ["SIZE", "decoding", "keep_in", "said"]

_SLOT = 256
_SLOTS = 32  # threads of a worker that decode at once; more than that share the last
SIZE = _SLOT * _SLOTS
"""Bytes of the buffer."""

_DEATHS = Metrics.counter("streamforge", "worker_deaths")


class Buffer(Protocol):
    """Bytes that outlive this process, as a mapped file."""

    def __setitem__(self, where: slice, what: bytes) -> None: ...


_buffer: Buffer = bytearray(SIZE)
_deaths = 0
_numbers = itertools.count()
_mine = threading.local()


def keep_in(buffer: Buffer, deaths: int = 0) -> None:
    """Says from now on what is decoded here.

    Args:
      buffer: of SIZE bytes, all zero.
      deaths: how many workers died that no other has counted; only a worker can, as the counter is the runner's.
    """
    global _buffer, _deaths
    _buffer, _deaths = buffer, deaths


@contextmanager
def decoding(block: Block) -> Iterator[None]:
    """The block is in hand until the end."""
    global _deaths
    _DEATHS.inc(_deaths)  # from zero on: a counter that nobody tells cannot be missed
    _deaths = 0
    if not hasattr(_mine, "at"):
        _mine.at = min(next(_numbers), _SLOTS - 1) * _SLOT
    at = _mine.at
    first, last = (int(block.offsets[0]), int(block.offsets[-1])) if len(block) else (0, 0)
    where = f", partition {block.partition}, offsets {first} to {last}".encode()
    name = block.topic.encode(errors="replace")[-(_SLOT - len(where)) :]
    _buffer[at : at + _SLOT] = (name + where).ljust(_SLOT, b"\0")
    try:
        yield
    finally:
        _buffer[at : at + _SLOT] = bytes(_SLOT)


def said(buffer: bytes) -> list[str]:
    """What a worker had in hand."""
    slots = (buffer[at : at + _SLOT].rstrip(b"\0") for at in range(0, SIZE, _SLOT))
    return [slot.decode(errors="replace") for slot in slots if slot]
