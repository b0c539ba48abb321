"""Pre-aggregation by shard before the shuffle, so that Beam's windows keep up with heavy traffic.

Beam's windowing costs tens of microseconds per element in the runner, and runners do not lift combiners in streaming.
So a windowed job first gathers related rows in the sharded state of `transforms.keyed_state`: it drops duplicates, sums
up the rest per user or per minute, and emits few, full elements

- shortly after the first row arrived (`every_s`, processing time), so that early results are early; and
- before the watermark passes the instant at which they are due, so that waiting here never makes anything late.

The timer for the second holds the watermark back, so it is correct at any speed. The first serves freshness only: it is
omitted for bounded input, and postponed while a backlog is read, when a moment of processing time covers so many
minutes of events that it would split everything into small pieces.
"""

from __future__ import annotations

import struct
import time
from collections.abc import Iterable, Iterator
from typing import Any, Generic, NamedTuple, Protocol, TypeVar

import apache_beam as beam
from apache_beam.transforms import userstate
from apache_beam.transforms.timeutil import TimeDomain
from apache_beam.transforms.userstate import TimerSpec
from apache_beam.transforms.window import TimestampedValue
from apache_beam.utils.shared import Shared
from apache_beam.utils.timestamp import Timestamp

from transforms.keyed_state import LOG, TOKEN, Expiry, Memory, Shard, Shards
from transforms.ledger import Counts, of_bundle

__all__ = ["Added", "Gather", "Gathering", "expire_every_ms"]

S = TypeVar("S")

_EXPIRY = TimerSpec("expiry", TimeDomain.WATERMARK)
_FLUSH = TimerSpec("flush", TimeDomain.REAL_TIME)
_ROWS, _TAKEN, _SNAPSHOT = b"r", b"t", b"s"
_TIME = struct.Struct(">q")
# A step whose event time runs this many times as fast as the clock is catching up.
_CATCHING_UP = 10


class Added(NamedTuple):
    """What became of a batch of rows.

    Attributes:
      entry: the new rows, encoded as they came; None when there is none.
      new, repeats: how many.
      earliest_ms: the smallest event time of what is pending because of them; None when nothing is.
    """

    entry: bytes | None
    new: int
    repeats: int
    earliest_ms: int | None = None


def expire_every_ms(keep_ms: int) -> int:
    """So seldom that a firing, some calls to the runner for each shard, is for much; state holds a quarter more than it
    must."""
    return max(1_000, keep_ms // 4)


class Gathering(Protocol[S]):
    """What is gathered: pure functions of a shard's state, in which the order of rows does not matter.

    A state that holds nothing is false.

    Attributes:
      keep_ms: a row may be forgotten once the watermark is this far past its event time.
      expire_every_ms: how often in event time it is looked at what may be.
    """

    keep_ms: int
    expire_every_ms: int

    def new(self) -> S: ...

    def add(self, state: S, rows: bytes) -> Added:
        """Takes in the rows of a batch that are no repeats."""
        ...

    def due_ms(self, event_time_ms: int) -> int:
        """Until when a row of that event time must have been handed on."""
        ...

    def take(self, state: S, at_ms: int | None) -> Iterable[tuple[Any, int]]:
        """What is pending and due by then, of which there is some, and what else may go with it, as (element, timestamp
        in ms); everything if None. It is pending no more. The same state and time take the same: logs are replayed."""
        ...

    def earliest_ms(self, state: S) -> int | None:
        """The smallest event time of what is pending; None when nothing is."""
        ...

    def expire(self, state: S, before_ms: int) -> None:
        """Forgets what only rows with an event time before that need. What is pending has later ones. What could not be
        pending before, may be now."""
        ...

    def expires_ms(self, state: S) -> int | None:
        """The least `before_ms` at which there is something to forget; None when nothing is left."""
        ...

    def snapshot(self, state: S) -> bytes:
        """The state as bytes, with what is pending."""
        ...

    def restore(self, state: S, snapshot: bytes) -> None:
        """Puts back into a new state what a snapshot holds."""
        ...


class Gather(beam.PTransform, Generic[S]):
    """Aggregate by shard, into as few elements as freshness allows.

    Input:  KV[shard, rows] of `transforms.sharded_rows.DecodeRows`, in any order.
    Output: what the gathering hands on, at its timestamps; and Counts of the rows: good, or duplicates.
    State:  per shard what the gathering keeps; freed by event-time timer.

    Args:
      every_s: how long something may wait here, in processing time; None when the input has an end.
      element_type: of what is handed on.
    """

    def __init__(self, gathering: Gathering[S], every_s: float | None, element_type: Any):
        super().__init__()
        self._fn, self._type = _GatherFn(gathering, every_s), element_type

    def expand(
        self, rows: beam.PCollection[tuple[int, bytes]]
    ) -> tuple[beam.PCollection[Any], beam.PCollection[Counts]]:
        outputs = rows | "Gather" >> beam.ParDo(self._fn).with_outputs("counts", main="gathered")
        outputs.gathered.element_type, outputs.counts.element_type = self._type, Counts
        return outputs.gathered, outputs.counts


class _Gathered(Generic[S]):
    """A shard in memory.

    Attributes:
      pending_ms: the smallest event time of what is pending; None when nothing is.
      flush_is_set: whether the timer for freshness is.
      reached_ms: about how far in event time the rows have come; and where that was when the timer was set.
    """

    __slots__ = ("flush_is_set", "pending_ms", "reached_ms", "set_at_ms", "state")

    def __init__(self, state: S):
        self.state = state
        self.pending_ms: int | None = None
        self.flush_is_set = False
        self.reached_ms = self.set_at_ms = 0

    def __bool__(self) -> bool:
        return bool(self.state)


class _GatherFn(beam.DoFn):
    def __init__(self, gathering: Gathering[Any], every_s: float | None):
        self._gathering, self._every_s = gathering, every_s
        self._memory = Shared()

    def setup(self) -> None:
        new = self._gathering.new
        expiry = Expiry(self._forget, self._forgets_ms, self._gathering.expire_every_ms)
        self._shards: Shards[_Gathered[Any]] = Shards(
            self._memory.acquire(Memory), lambda: _Gathered(new()), self._replay, self._snapshot, expiry
        )

    def start_bundle(self) -> None:
        self._new = self._repeats = 0

    def finish_bundle(self) -> Iterator[Any]:
        yield from of_bundle(Counts(self._new + self._repeats, self._new, duplicates=self._repeats))

    def process(
        self,
        keyed: tuple[int, bytes],
        token: Any = beam.DoFn.StateParam(TOKEN),
        log: Any = beam.DoFn.StateParam(LOG),
        expiry: Any = beam.DoFn.TimerParam(_EXPIRY),
        flush: Any = beam.DoFn.TimerParam(_FLUSH),
    ) -> None:
        shard, rows = keyed
        live = self._shards.open(shard, token, log)
        kept = live.state
        added = self._add(kept, rows)
        if added.entry is not None:
            self._shards.append(live, _ROWS + added.entry, token, log)
            self._wake(live, expiry)
            kept.reached_ms = max(kept.reached_ms, added.earliest_ms or 0)
            if self._every_s is not None and not kept.flush_is_set:
                self._set(flush, kept, self._every_s)
        self._shards.keep(shard, live)
        self._new += added.new
        self._repeats += added.repeats

    @userstate.on_timer(_FLUSH)
    def flush(
        self,
        shard: int = beam.DoFn.KeyParam,
        token: Any = beam.DoFn.StateParam(TOKEN),
        log: Any = beam.DoFn.StateParam(LOG),
        again: Any = beam.DoFn.TimerParam(_FLUSH),
    ) -> Iterator[TimestampedValue]:
        assert self._every_s is not None
        live = self._shards.open(shard, token, log)
        kept = live.state
        kept.flush_is_set = False
        self._shards.fired(live, token)
        taken: list[TimestampedValue] = []
        if kept.reached_ms - kept.set_at_ms > _CATCHING_UP * self._every_s * 1000:
            self._set(again, kept, self._every_s)
        else:
            taken = self._take(live, None, token, log)
        self._shards.keep(shard, live)
        yield from taken

    @userstate.on_timer(_EXPIRY)
    def expire(
        self,
        shard: int = beam.DoFn.KeyParam,
        firing: Timestamp = beam.DoFn.TimestampParam,
        token: Any = beam.DoFn.StateParam(TOKEN),
        log: Any = beam.DoFn.StateParam(LOG),
        expiry: Any = beam.DoFn.TimerParam(_EXPIRY),
    ) -> Iterator[TimestampedValue]:
        live = self._shards.open(shard, token, log)
        at_ms = int(firing.micros // 1000)
        taken = self._take(live, at_ms, token, log)
        self._shards.expire(live, at_ms, token, log)
        taken += self._take(live, at_ms, token, log)
        self._wake(live, expiry)
        self._shards.keep(shard, live)
        yield from taken

    @staticmethod
    def _set(flush: Any, kept: _Gathered[Any], every_s: float) -> None:
        flush.set(Timestamp.of(time.time() + every_s))
        kept.flush_is_set, kept.set_at_ms = True, kept.reached_ms

    def _add(self, kept: _Gathered[Any], rows: bytes) -> Added:
        added = self._gathering.add(kept.state, rows)
        if added.earliest_ms is not None:
            kept.pending_ms = added.earliest_ms if kept.pending_ms is None else min(kept.pending_ms, added.earliest_ms)
        return added

    def _take(self, live: Shard[_Gathered[Any]], at_ms: int | None, token: Any, log: Any) -> list[TimestampedValue]:
        """What is due by then; everything if None."""
        kept = live.state
        if kept.pending_ms is None or (at_ms is not None and at_ms < self._gathering.due_ms(kept.pending_ms)):
            return []
        taken = self._hand_over(kept, at_ms)
        self._shards.append(live, _TAKEN + (b"" if at_ms is None else _TIME.pack(at_ms)), token, log)
        return [TimestampedValue(element, Timestamp(micros=ms * 1000)) for element, ms in taken]

    def _hand_over(self, kept: _Gathered[Any], at_ms: int | None) -> list[tuple[Any, int]]:
        taken = list(self._gathering.take(kept.state, at_ms))
        kept.pending_ms = self._gathering.earliest_ms(kept.state)
        return taken

    def _wake(self, live: Shard[_Gathered[Any]], timer: Any) -> None:
        pending_ms = live.state.pending_ms
        self._shards.wake(live, timer, None if pending_ms is None else self._gathering.due_ms(pending_ms))

    def _forget(self, kept: _Gathered[Any], watermark_ms: int) -> None:
        self._gathering.expire(kept.state, watermark_ms - self._gathering.keep_ms)
        kept.pending_ms = self._gathering.earliest_ms(kept.state)

    def _forgets_ms(self, kept: _Gathered[Any]) -> int | None:
        expires_ms = self._gathering.expires_ms(kept.state)
        return None if expires_ms is None else expires_ms + self._gathering.keep_ms

    def _replay(self, kept: _Gathered[Any], entry: bytes) -> None:
        kind, body = entry[:1], entry[1:]
        if kind == _ROWS:
            self._add(kept, body)
        elif kind == _TAKEN:
            self._hand_over(kept, _TIME.unpack(body)[0] if body else None)
        elif kind == _SNAPSHOT:
            self._gathering.restore(kept.state, body)
            kept.pending_ms = self._gathering.earliest_ms(kept.state)
        else:
            raise ValueError(f"state entry of kind {kind!r}: written by a newer release")

    def _snapshot(self, kept: _Gathered[Any]) -> bytes:
        return _SNAPSHOT + self._gathering.snapshot(kept.state)
