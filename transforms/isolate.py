"""Whatever a record does to our code costs that record and no other (ADR 35).

Steps name the errors that they know. One that nobody foresaw would fail the bundle, the runner would try the same
records again and again, and one record would stop the job. So it becomes a dead letter of a class of its own, is logged
with its traceback, and counted by the runner: it is a bug of ours.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterator
from typing import TypeVar

from apache_beam.metrics import Metrics

from schemas.codec import SchemaUnavailable
from transforms.blocks import Block
from transforms.decode import refused
from transforms.errors import BadRecord, Unavailable
from transforms.in_hand import decoding

__all__ = ["UNEXPECTED", "in_pieces", "unexpected"]

UNEXPECTED = "UnexpectedError"
"""Error class of such dead letters."""

_LOG = logging.getLogger(__name__)
_COUNTER = Metrics.counter("streamforge", "unexpected_errors")
_TRACEBACKS = 10  # of one kind and worker: one record in each block would fill the log
_logged: dict[str, int] = {}

T = TypeVar("T")


def in_pieces(block: Block, work: Callable[[Block], T]) -> Iterator[tuple[Block, T | Exception]]:
    """What `work` returns for a block; if it raises, for ever smaller pieces, down to the record that it fails on.

    Halves, as that takes some dozens of calls for one bad record among thousands.

    Args:
      work: has no effect but its result.

    Raises: SchemaUnavailable or Unavailable, which say nothing of a record.
    """
    _COUNTER.inc(0)  # from zero on: a counter that nobody tells cannot be missed
    try:
        with decoding(block):
            found: T | Exception = work(block)
    except (SchemaUnavailable, Unavailable):
        raise
    except Exception as e:  # noqa: BLE001 - that is what this is for
        if len(block) > 1:
            middle = len(block) // 2
            yield from in_pieces(block.part(0, middle), work)
            yield from in_pieces(block.part(middle, len(block)), work)
            return
        found = e
    yield block, found


def unexpected(block: Block, i: int, job: str, error: Exception) -> BadRecord:
    """The dead letter of a record that our code failed on."""
    _COUNTER.inc()
    kind = type(error).__name__
    _logged[kind] = _logged.get(kind, 0) + 1
    if _logged[kind] <= _TRACEBACKS:
        where = f"{block.topic}, partition {block.partition}, offset {int(block.offsets[i])}"
        _LOG.error("a bug: this error was not expected; the record becomes a dead letter: %s", where, exc_info=error)
    return refused(block, i, job, "decode", UNEXPECTED, f"{kind}: {error}")
