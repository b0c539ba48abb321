"""Sharded keyed state: the state of millions of users at the cost of a few dozen keys.

From Python on a portable runner, every read or write of a state cell is a blocking call of about a millisecond, per key
and bundle. State per user would cap a worker at some hundred users a second. So users are hashed to a fixed number of
shards (part of a savepoint: it can never change for a running job), and a stateful DoFn keyed by shard keeps

- in memory: the state of every user of the shard;
- in Flink: a log of what changed it, one append per bundle, and a random token that changes with it.

The token tells whether the copy in memory matches the log. After a failed bundle, a restart from a checkpoint or a move
to another worker it does not, and the log is replayed. When the log has doubled since its last compaction, a snapshot
replaces it, so rewriting costs no more than writing did. Log entries are applied by the same function as live batches.

The state is a function of the log alone. An expiry is a log entry, too: a repeat that arrives afterwards counts as new,
and must do so in a replay. Expiry happens at fixed instants of event time, whether or not a timer fired in between.
"""

from __future__ import annotations

import os
import struct
import threading
import time
import zlib
from collections.abc import Callable
from typing import Any, Generic, TypeVar

from apache_beam import coders
from apache_beam.transforms.userstate import BagStateSpec, ReadModifyWriteStateSpec
from apache_beam.utils.timestamp import Timestamp

__all__ = ["LOG", "TOKEN", "Expiry", "Memory", "Shard", "Shards", "shard_of"]

T = TypeVar("T")

TOKEN = ReadModifyWriteStateSpec("token", coders.BytesCoder())
LOG = BagStateSpec("log", coders.BytesCoder())

# Every log entry begins with its kind, which is also the version of its format.
_CHANGE_V1, _EXPIRED_V1 = b"\x01", b"\x02"
_TIME = struct.Struct(">q")
_SMALL_LOG_BYTES = 64 * 1024  # a log this short is never worth rewriting
_IDLE_S = 600


def shard_of(user_id: bytes, shards: int) -> int:
    """The shard of a user: CRC-32 modulo the number of shards, the same in every process and release."""
    return zlib.crc32(user_id) % shards


class Shard(Generic[T]):
    """One shard in memory.

    Attributes:
      state: of all its users.
      wake_ms: what the timer is set for; None: not known.
    """

    __slots__ = ("compact_bytes", "log_bytes", "state", "token", "used_s", "wake_ms")

    def __init__(self, state: T):
        self.state = state
        self.token: bytes | None = None
        self.log_bytes = 0
        self.compact_bytes = 0  # what log_bytes was when the log was last a snapshot
        self.wake_ms: int | None = None
        self.used_s = 0.0


class Memory:
    """The copies that a process has of one stateful DoFn's shards.

    All instances of the DoFn share them (`apache_beam.utils.shared`): a runner gives the same shard to any of them,
    bundle by bundle, never to two at once.

    Bound: a copy that no bundle has asked for in ten minutes is dropped, as its shard has moved away, or has little to
    do. When the runner has let go of the last instance, all are gone.
    """

    def __init__(self, clock: Callable[[], float] = time.monotonic):
        self._clock, self._lock = clock, threading.Lock()
        self._copies: dict[int, Shard[Any]] = {}  # the one that was used longest ago is the first

    def take(self, shard: int) -> Shard[Any] | None:
        with self._lock:
            return self._copies.pop(shard, None)

    def put(self, shard: int, copy: Shard[Any]) -> None:
        now_s = copy.used_s = self._clock()
        with self._lock:
            self._copies[shard] = copy
            while (oldest := next(iter(self._copies))) != shard and self._copies[oldest].used_s < now_s - _IDLE_S:
                del self._copies[oldest]

    def __len__(self) -> int:
        return len(self._copies)


class Expiry(Generic[T]):
    """How a state forgets.

    Args:
      forget: forgets, in place, what is of no use once the watermark has got there (event time, ms).
      next_ms: the least watermark at which there will be something to forget; None when nothing is left.
      every_ms: it is looked at at multiples of this, so that one timer is for much that expires at about the same time.
    """

    def __init__(self, forget: Callable[[T, int], None], next_ms: Callable[[T], int | None], every_ms: int):
        self.forget, self._next_ms, self._every_ms = forget, next_ms, every_ms

    def at_ms(self, state: T) -> int | None:
        """When there is something to do next; a multiple."""
        next_ms = self._next_ms(state)
        return None if next_ms is None else -(-next_ms // self._every_ms) * self._every_ms

    def last_ms(self, firing_ms: int) -> int:
        """The newest multiple that a timer which fires then has reached."""
        return firing_ms - firing_ms % self._every_ms


class Shards(Generic[T]):
    """The shards of one stateful DoFn, in this process.

    Args:
      memory: shared by all instances of the DoFn.
      new: an empty shard's state.
      apply: applies a log entry to a shard's state; in place, without output.
      snapshot: a shard's whole state as one entry.
    """

    def __init__(
        self,
        memory: Memory,
        new: Callable[[], T],
        apply: Callable[[T, bytes], None],
        snapshot: Callable[[T], bytes],
        expiry: Expiry[T] | None = None,
    ):
        self._memory, self._expiry = memory, expiry
        self._new, self._apply, self._snapshot = new, apply, snapshot

    def open(self, shard: int, token: Any, log: Any) -> Shard[T]:
        """The shard, from memory if that is current, else replayed from the log.

        It leaves the memory until `keep` puts it back: whoever fails in between leaves nothing half done behind.
        """
        live = self._memory.take(shard)
        stored = token.read()
        if live is not None and live.token == stored:
            return live
        live = Shard(self._new())
        live.token = stored
        if stored is not None:
            for entry in log.read():
                self._replay(live.state, entry[:1], entry[1:])
                live.log_bytes += len(entry)
        return live

    def _replay(self, state: T, kind: bytes, body: bytes) -> None:
        if kind == _CHANGE_V1:
            self._apply(state, body)
        elif kind == _EXPIRED_V1 and self._expiry is not None:
            self._expiry.forget(state, *_TIME.unpack(body))
        else:
            raise ValueError(f"state entry of format {kind!r}: written by a newer release")

    def append(self, live: Shard[T], entry: bytes, token: Any, log: Any) -> None:
        """Logs a change that has been applied to `live.state`."""
        self._log(live, _CHANGE_V1 + entry, token, log)

    def expire(self, live: Shard[T], firing_ms: int, token: Any, log: Any) -> None:
        """Forgets what has expired, and rewrites the log if it has doubled."""
        assert self._expiry is not None
        self.fired(live, token)
        live.wake_ms = None
        at_ms, next_ms = self._expiry.last_ms(firing_ms), self._expiry.at_ms(live.state)
        if next_ms is not None and next_ms <= at_ms:
            self._expiry.forget(live.state, at_ms)
            self._log(live, _EXPIRED_V1 + _TIME.pack(at_ms), token, log)
        self.compact(live, token, log)

    def fired(self, live: Shard[T], token: Any) -> None:
        """Call it when a timer fires: it is not set any more. A copy that another worker kept does not know that, also
        when nothing else has changed; so it must not be current."""
        self._renew(live, token)

    def wake(self, live: Shard[T], timer: Any, due_ms: int | None = None) -> None:
        """Makes sure that the timer fires (event time) when something expires, and by `due_ms`.

        It may fire before: then nothing has expired. So a copy that does not know what the timer is set for, as another
        worker set it, may set it again.
        """
        assert self._expiry is not None
        at_ms = min((at for at in (self._expiry.at_ms(live.state), due_ms) if at is not None), default=None)
        if at_ms is not None and (live.wake_ms is None or at_ms < live.wake_ms):
            live.wake_ms = at_ms
            timer.set(Timestamp(micros=at_ms * 1000))

    def compact(self, live: Shard[T], token: Any, log: Any) -> None:
        """Replaces the log by a snapshot if it has doubled since the last one."""
        if live.state and live.log_bytes <= max(2 * live.compact_bytes, _SMALL_LOG_BYTES):
            return
        log.clear()
        live.log_bytes = 0
        if live.state:
            entry = _CHANGE_V1 + self._snapshot(live.state)
            log.add(entry)
            live.log_bytes = len(entry)
        live.compact_bytes = live.log_bytes
        self._renew(live, token)

    def keep(self, shard: int, live: Shard[T]) -> None:
        self._memory.put(shard, live)

    def _log(self, live: Shard[T], entry: bytes, token: Any, log: Any) -> None:
        log.add(entry)
        live.log_bytes += len(entry)
        self._renew(live, token)

    @staticmethod
    def _renew(live: Shard[T], token: Any) -> None:
        live.token = os.urandom(8)
        token.write(live.token)
