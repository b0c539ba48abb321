"""Sharded keyed state: millions of users' state at the price of a few dozen keys.

From Python on a portable runner, every read or write of a state cell is a blocking call of about a millisecond, per key
and bundle. State per user would cap a worker at some hundred users a second. So users are hashed to a fixed number of
shards (part of a savepoint: it can never change for a running job), and a stateful DoFn keyed by shard keeps

- in memory: the state of every user of the shard;
- in Flink: a log of what changed it, one append per bundle, and a random token that changes with it.

The token says whether the copy in memory is the log's: after a failed bundle, a restart from a checkpoint or a move to
another worker it is not, and the log is replayed. When the log has doubled since it was last compact, it is replaced by
a snapshot, so rewriting costs no more than writing did. An entry is applied by the same function as a live batch.
"""

from __future__ import annotations

import os
import zlib
from collections.abc import Callable
from typing import Any, Generic, TypeVar

from apache_beam import coders
from apache_beam.transforms.userstate import BagStateSpec, ReadModifyWriteStateSpec
from apache_beam.utils.timestamp import Timestamp

__all__ = ["LOG", "TOKEN", "Shard", "Shards", "multiple_after", "shard_of"]

T = TypeVar("T")

TOKEN = ReadModifyWriteStateSpec("token", coders.BytesCoder())
LOG = BagStateSpec("log", coders.BytesCoder())

_ENTRY_V1 = b"\x01"  # every log entry begins with the version of its format
_SMALL_LOG_BYTES = 64 * 1024  # a log this short is never worth rewriting


def shard_of(user_id: bytes, shards: int) -> int:
    """The shard of a user: CRC-32 modulo the number of shards, the same in every process and release."""
    return zlib.crc32(user_id) % shards


def multiple_after(at_ms: int, every_ms: int) -> int:
    """The next multiple of `every_ms`: timers set for those fire once for much that expires at about the same time."""
    return at_ms + every_ms - at_ms % every_ms


class Shard(Generic[T]):
    """One shard in memory.

    Attributes:
      users: the state.
      expiry_ms: when the timer that will next expire state is set for; None: not known to be set.
    """

    __slots__ = ("compact_bytes", "expiry_ms", "log_bytes", "token", "users")

    def __init__(self, users: T):
        self.users = users
        self.token: bytes | None = None
        self.log_bytes = 0
        self.compact_bytes = 0  # what log_bytes was when the log was last a snapshot
        self.expiry_ms: int | None = None

    def expire_by(self, at_ms: int, timer: Any) -> None:
        """Makes sure that the timer fires by then (event time)."""
        if self.expiry_ms is None or at_ms < self.expiry_ms:
            self.expiry_ms = at_ms
            timer.set(Timestamp(micros=at_ms * 1000))


# Copies in memory, per DoFn (by an id made at construction) and shard. Shared by all instances in a process: a runner
# gives the same shard to any of them, bundle by bundle, never to two at once.
_MEMORY: dict[str, dict[int, Shard[Any]]] = {}


class Shards(Generic[T]):
    """The shards of one stateful DoFn, in this process.

    Args:
      owner: id of the DoFn, the same in all its copies.
      new: an empty shard's state.
      apply: applies a log entry to a shard's state; in place, without output.
      snapshot: a shard's whole state as one entry.
    """

    def __init__(
        self, owner: str, new: Callable[[], T], apply: Callable[[T, bytes], None], snapshot: Callable[[T], bytes]
    ):
        self._live = _MEMORY.setdefault(owner, {})
        self._new, self._apply, self._snapshot = new, apply, snapshot

    def open(self, shard: int, token: Any, log: Any) -> Shard[T]:
        """The shard, from memory if that is current, else replayed from the log.

        It leaves the memory until `keep` puts it back: whoever fails in between leaves nothing half done behind.
        """
        live = self._live.pop(shard, None)
        stored = token.read()
        if live is not None and live.token == stored:
            return live
        live = Shard(self._new())
        live.token = stored
        if stored is not None:
            for entry in log.read():
                if entry[:1] != _ENTRY_V1:
                    raise ValueError(f"state entry of format {entry[:1]!r}: written by a newer release")
                self._apply(live.users, entry[1:])
                live.log_bytes += len(entry)
        return live

    def append(self, live: Shard[T], entry: bytes, token: Any, log: Any) -> None:
        """Logs a change that has been applied to `live.users`."""
        log.add(_ENTRY_V1 + entry)
        live.log_bytes += len(entry) + 1
        self._renew(live, token)

    def compact(self, live: Shard[T], token: Any, log: Any) -> None:
        """Replaces the log by a snapshot if it has doubled since the last one. Call it when state has expired."""
        if live.users and live.log_bytes <= max(2 * live.compact_bytes, _SMALL_LOG_BYTES):
            return
        log.clear()
        live.log_bytes = 0
        if live.users:
            entry = _ENTRY_V1 + self._snapshot(live.users)
            log.add(entry)
            live.log_bytes = len(entry)
        live.compact_bytes = live.log_bytes
        self._renew(live, token)

    def keep(self, shard: int, live: Shard[T]) -> None:
        self._live[shard] = live

    @staticmethod
    def _renew(live: Shard[T], token: Any) -> None:
        live.token = os.urandom(8)
        token.write(live.token)
