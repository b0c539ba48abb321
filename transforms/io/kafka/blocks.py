"""Messages of one partition as a block."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
from confluent_kafka import Message

from schemas.columns import Ints
from transforms.blocks import Block
from transforms.io.kafka.headers import headers_of
from transforms.partition_clock import Judged

__all__ = ["Columns", "columns_of", "lost_block", "make_block"]


class Columns(NamedTuple):
    """Of messages: offset, record timestamp and key of each; number → headers, of those that have any."""

    offsets: Ints
    times_ms: Ints
    keys: list[bytes | None]
    headers: dict[int, list[tuple[str, bytes | None]]]


def columns_of(messages: Sequence[Message]) -> Columns:
    return Columns(
        np.fromiter((m.offset() for m in messages), np.int64, len(messages)),
        np.fromiter((m.timestamp()[1] for m in messages), np.int64, len(messages)),
        [m.key() for m in messages],
        headers_of(messages),
    )


def make_block(
    topic: str,
    partition: int,
    messages: Sequence[Message],
    columns: Columns,
    judged: Judged,
    passed_ms: int,
    lost: int,
) -> Block:
    """The messages that could be judged.

    Args:
      columns: of all messages.
      passed_ms, lost: as in `Block`.
    """
    taken = judged.taken
    messages = messages[:taken]
    values = [m.value() for m in messages]
    nulls = frozenset(i for i, v in enumerate(values) if v is None)
    if nulls:
        values = [v or b"" for v in values]
    sizes = np.fromiter(map(len, values), np.int64, taken)
    return Block(
        topic=topic,
        partition=partition,
        data=b"".join(values),
        bounds=np.concatenate((np.zeros(1, np.int64), np.cumsum(sizes))),
        offsets=columns.offsets[:taken],
        times_ms=columns.times_ms[:taken],
        watermarks_ms=judged.watermarks_ms,
        keys=columns.keys[:taken],
        headers={i: headers for i, headers in columns.headers.items() if i < taken},
        nulls=nulls,
        limits_ms=judged.limits_ms,
        passed_ms=passed_ms,
        lost=lost,
    )


def lost_block(topic: str, partition: int, lost: int) -> Block:
    """A block that stands for a loss alone."""
    none = np.zeros(0, np.int64)
    return Block(topic, partition, b"", np.zeros(1, np.int64), none, none, none, keys=[], limits_ms=none, lost=lost)
