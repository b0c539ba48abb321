"""Clicks in blocks → sessions, wired for Beam; the aggregation itself is in `transforms.domain.sessions`.

Long, as the step's state and its windows are two halves of one rule.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from heapq import heappop, heappush
from typing import Any

import apache_beam as beam
import msgspec
import numpy as np
from apache_beam.transforms import trigger
from apache_beam.transforms.window import GlobalWindows, IntervalWindow, Sessions
from apache_beam.utils.timestamp import Duration, Timestamp
from apache_beam.utils.windowed_value import WindowedValue

from schemas.events import ClickstreamEvent, UserSession
from transforms.decode import DecodedBlock, Part
from transforms.domain.seen import Seen
from transforms.domain.sessions import (
    KINDS,
    PURCHASE,
    Burst,
    Click,
    add_burst,
    add_click,
    decode_burst,
    encode_burst,
    former_starts,
    retraction,
    session_of,
)
from transforms.domain.versions import MAX_LONG
from transforms.domain.visits import MAX_SESSION_MS, WHOLE, Bound, Visitor
from transforms.gather import Added, Gather, expire_every_ms
from transforms.keyed_state import shard_of
from transforms.ledger import Counts
from transforms.panes import pane_name
from transforms.sharded_rows import encode_rows

__all__ = ["AggregateSessions", "ClickGathering", "ClickRows", "decode_rows"]

_OTHER = len(KINDS)
# floor, epoch, seen; pending; of each visitor runs and held clicks; when to look at whom
_Snapshot = tuple[
    int | None,
    int,
    list[tuple[int, list[str]]],
    list[tuple[str, list[bytes]]],
    list[tuple[str, list[list[int]], list[Click]]],
    list[tuple[int, list[str]]],
]
_LONG_AGO_MS = -(1 << 62)
_CUT = "\0"  # between a user_id, which has no such character, and the cut that a session begins after

decode_rows: Callable[[bytes], list[Click]] = msgspec.msgpack.Decoder(list[Click]).decode
_decode_snapshot: Callable[[bytes], _Snapshot] = msgspec.msgpack.Decoder(_Snapshot).decode
_encode: Callable[[Any], bytes] = msgspec.msgpack.Encoder().encode


class ClickRows:
    """The fields of each click that sessions need, as rows. See `transforms.sharded_rows.RowsOf`."""

    def __call__(self, decoded: DecodedBlock[ClickstreamEvent], shard_count: int) -> dict[int, list[Click]]:
        rows: list[list[Click]] = [[] for _ in range(shard_count)]
        for part in decoded.parts:
            _add_columns(part, rows)
        for click in decoded.records:
            _add_record(click, rows)
        return {shard: of_shard for shard, of_shard in enumerate(rows) if of_shard}


def _add_record(click: ClickstreamEvent, by_shard: list[list[Click]]) -> None:
    kind = KINDS.get(click.event_type, _OTHER)
    row = (
        click.user_id,
        click.event_id,
        click.event_time,
        kind,
        click.device_type,
        click.geo_region,
        click.category,
        _revenue(click.price_minor or 0, click.quantity or 0) if kind == PURCHASE else 0,
    )
    by_shard[shard_of(click.user_id.encode(), len(by_shard))].append(row)


def _revenue(price_minor: int, quantity: int) -> int:
    """Price × quantity; 0 stands for no quantity, which means 1."""
    return min(price_minor * (quantity or 1), MAX_LONG)


def _add_columns(part: Part, by_shard: list[list[Click]]) -> None:
    """`_add_record` for all good records of a part at once."""
    columns, rows = part.columns, part.rows
    ints, data = columns.ints, columns.data
    kinds = np.array([KINDS.get(s, _OTHER) for s in part.symbols["event_type"]])[ints["event_type"][rows]]
    revenue = [0] * len(rows)
    bought = np.nonzero(kinds == PURCHASE)[0]
    prices, quantities = (ints[name][rows[bought]].tolist() for name in ("price_minor", "quantity"))
    for i, price, quantity in zip(bought.tolist(), prices, quantities, strict=True):
        revenue[i] = _revenue(price, quantity)
    categories: list[str | None] = [*columns.texts("category", rows)]
    for i in np.nonzero(ints["category?"][rows] == 0)[0].tolist():
        categories[i] = None
    starts, ends = (bound[rows].tolist() for bound in columns.spans["user_id"])
    users = [data[s:e] for s, e in zip(starts, ends, strict=True)]
    clicks = zip(
        [user.decode() for user in users],
        columns.texts("event_id", rows),
        ints["event_time"][rows].tolist(),
        kinds.tolist(),
        columns.texts("device_type", rows),
        columns.texts("geo_region", rows),
        categories,
        revenue,
        strict=True,
    )
    count = len(by_shard)
    for user, click in zip(users, clicks, strict=True):
        by_shard[shard_of(user, count)].append(click)


class _State:
    """What is known of a shard's users.

    Attributes:
      epoch: how often something was handed on. It tells which of two bursts came first, so it never starts again.
      pending: bursts that were not handed on, by user, and by the cut before them.
      floor_ms: no click comes from before that; None while that is not known.
      visitors: users of whom a session may go on.
      looks: who is to be looked at when the floor gets there.
    """

    __slots__ = ("_look_times", "_starts", "epoch", "floor_ms", "looks", "pending", "seen", "visitors")

    def __init__(self, floor_ms: int | None) -> None:
        self.seen = Seen()
        self.epoch = 0
        self.pending: dict[str, list[Burst]] = {}
        self._starts: list[tuple[int, str]] = []  # a heap: of each key when it starts, and when it once did
        self.floor_ms = floor_ms
        self.visitors: dict[str, Visitor] = {}
        self.looks: dict[int, dict[str, None]] = {}
        self._look_times: list[int] = []  # a heap of the keys of `looks`

    def __bool__(self) -> bool:
        return bool(self.epoch or self.seen)

    def starts(self, key: str, at_ms: int) -> None:
        """The first of a key's pending bursts starts then, no longer later."""
        heappush(self._starts, (at_ms, key))

    def earliest_ms(self) -> int | None:
        starts, pending = self._starts, self.pending
        while starts:
            at_ms, key = starts[0]
            bursts = pending.get(key)
            if bursts is not None and bursts[0].start_ms == at_ms:
                return at_ms
            heappop(starts)
        return None

    def take(self, until_ms: int | None) -> dict[str, list[Burst]]:
        """Of each key whose first burst starts by then, all that are pending; None: of every key."""
        if until_ms is None:
            taken, self.pending, self._starts = self.pending, {}, []
            return taken
        taken = {}
        while (at_ms := self.earliest_ms()) is not None and at_ms <= until_ms:
            key = heappop(self._starts)[1]
            taken[key] = self.pending.pop(key)
        return taken

    def look_at(self, user: str, floor_ms: int) -> None:
        if floor_ms not in self.looks:
            self.looks[floor_ms] = {}
            heappush(self._look_times, floor_ms)
        self.looks[floor_ms][user] = None

    def next_look_ms(self) -> int | None:
        return self._look_times[0] if self._look_times else None

    def due_looks(self, floor_ms: int) -> list[str]:
        """Whom to look at by then, in order."""
        due: list[str] = []
        while self._look_times and self._look_times[0] <= floor_ms:
            due += self.looks.pop(heappop(self._look_times))
        return due


def _key(user: str, part: int) -> str:
    return user if part == WHOLE else f"{user}{_CUT}{part}"


class ClickGathering:
    """Clicks of a shard → bursts of its users. See `transforms.gather.Gathering`.

    Hands on KV[user_id and the cut before, PackedBurst as bytes], at the burst's start.

    State: the event_ids of each user that can still be repeated, and the bursts that wait; of each user whose session
    may go on, when it began; of one that reaches `max_ms`, the clicks of which it cannot be told yet on which side of
    a cut they are.

    Args:
      keep_ms: how far Beam's watermark may be past a click that is not late.
      max_ms: no session is this long; see `transforms.domain.visits`.
      any_order: whether clicks come in any order at all until there is a watermark, as of files.
    """

    def __init__(self, gap_ms: int, keep_ms: int, max_ms: int = MAX_SESSION_MS, *, any_order: bool = False):
        self._gap_ms, self.keep_ms = gap_ms, keep_ms
        self._bound, self._first_floor_ms = Bound(gap_ms, max_ms, keep_ms), _LONG_AGO_MS if any_order else None
        # A session that is cut must be there before Beam forgets it, a gap later.
        self.expire_every_ms = max(1, min(expire_every_ms(keep_ms), gap_ms // 4))
        # An earlier session that a click belongs to may be over a millisecond after it, and Beam forgets it `keep_ms`
        # later: by then the click must be there. Half a gap, so that few sessions are over before it is.
        self._wait_ms = min(keep_ms, gap_ms // 2)

    def new(self) -> _State:
        return _State(self._first_floor_ms)

    def add(self, state: _State, rows: bytes) -> Added:
        clicks = decode_rows(rows)
        is_new, visitors, join = state.seen.add, state.visitors, self._bound.join
        repeats: list[int] = []
        earliest_ms = None
        for i, click in enumerate(clicks):
            user, event_id, at_ms = click[:3]
            # A user's repeats count, not another user's click of the same id: two users may be in different shards.
            if not is_new(f"{len(user)}:{user}{event_id}", at_ms):
                repeats.append(i)
                continue
            visitor = visitors.get(user)
            if visitor is None or at_ms >= visitor.safe_ms or visitor.held:
                first_ms = self._place(state, click)
            else:
                join(visitor, at_ms)
                first_ms = self._take_in(state, WHOLE, click)
            if first_ms is not None and (earliest_ms is None or first_ms < earliest_ms):
                earliest_ms = first_ms
        if len(repeats) == len(clicks):
            return Added(None, 0, len(repeats))
        if repeats:
            for i in reversed(repeats):
                del clicks[i]
            rows = encode_rows(clicks)
        return Added(rows, len(clicks), len(repeats), earliest_ms)

    def _place(self, state: _State, click: Click) -> int | None:
        """Takes in a click that may be in another part than the first of its run, and what else it makes clear.

        Returns: the earliest time among those; None when there is none.
        """
        bound, floor_ms, user = self._bound, state.floor_ms, click[0]
        visitor = state.visitors.get(user)
        if visitor is None:
            visitor = state.visitors[user] = Visitor()
            part = bound.part_of(visitor, click[2], floor_ms)
            if part is not None:
                state.look_at(user, bound.look_ms(visitor, floor_ms))
        else:
            part = bound.part_of(visitor, click[2], floor_ms)
        if part is not None and not visitor.held:
            return self._take_in(state, part, click)
        if part is None:
            visitor.held.append(click)
        times = self._let_go(state, visitor, user)
        if part is not None:
            times.append(self._take_in(state, part, click))
        if visitor.held:
            state.look_at(user, bound.look_ms(visitor, floor_ms))
        return min(times, default=None)

    def _take_in(self, state: _State, part: int, click: Click) -> int:
        key = _key(click[0], part)
        at_ms = click[2]
        bursts = state.pending.get(key)
        if bursts is None:
            state.pending[key] = [Burst(click)]
            state.starts(key, at_ms)
        else:
            if at_ms < bursts[0].start_ms:
                state.starts(key, at_ms)
            add_click(bursts, click, self._gap_ms)
        return at_ms

    def _let_go(self, state: _State, visitor: Visitor, user: str) -> list[int]:
        """Takes in held clicks that can be told by now, and returns their times.

        Later clicks of their sessions may have gone on before them. In another attempt, with another watermark, these
        may not have been held; so what each of their sessions began with is a start that may have been given out.
        """
        apart: dict[int, list[Burst]] = {}
        told = self._bound.settle(visitor, state.floor_ms)
        for part, click in told:
            add_click(apart.setdefault(part, []), click, self._gap_ms)
        for part, bursts in apart.items():
            for burst in bursts:
                burst.overtaken, burst.former = [burst.start_ms, *burst.former], []
                key = _key(user, part)
                add_burst(state.pending.setdefault(key, []), burst, self._gap_ms)
                state.starts(key, burst.start_ms)
        return [click[2] for _, click in told]

    def due_ms(self, event_time_ms: int) -> int:
        return event_time_ms + self._wait_ms

    def take(self, state: _State, at_ms: int | None) -> list[tuple[tuple[str, bytes], int]]:
        """All bursts of the users of whom one is due, or will be soon: a visit that others wait for is not cut in two,
        and a shard is looked at a few times in a wait, not once for every user."""
        taken = state.take(None if at_ms is None else at_ms - self._wait_ms + self._wait_ms // 4)
        if not taken:
            return []
        epoch, state.epoch = state.epoch, state.epoch + 1
        return [
            ((key, encode_burst(epoch, burst)), burst.start_ms) for key, bursts in taken.items() for burst in bursts
        ]

    def earliest_ms(self, state: _State) -> int | None:
        return state.earliest_ms()

    def expire(self, state: _State, before_ms: int) -> None:
        state.seen.expire(before_ms)
        state.floor_ms = before_ms if state.floor_ms is None else max(before_ms, state.floor_ms)
        for user in state.due_looks(before_ms):
            visitor = state.visitors.get(user)
            if visitor is None:
                continue
            self._let_go(state, visitor, user)
            if visitor.runs or visitor.held:
                state.look_at(user, self._bound.look_ms(visitor, state.floor_ms))
            else:
                del state.visitors[user]

    def expires_ms(self, state: _State) -> int | None:
        times = [at_ms for at_ms in (state.seen.expires_ms(), state.next_look_ms()) if at_ms is not None]
        return min(times, default=None)

    def snapshot(self, state: _State) -> bytes:
        pending = [(key, [encode_burst(0, burst) for burst in bursts]) for key, bursts in state.pending.items()]
        visitors = [(user, visitor.runs, visitor.held) for user, visitor in state.visitors.items()]
        looks = [(at_ms, list(users)) for at_ms, users in state.looks.items()]
        return _encode((state.floor_ms, state.epoch, state.seen.items(), pending, visitors, looks))

    def restore(self, state: _State, snapshot: bytes) -> None:
        state.floor_ms, state.epoch, seen, pending, visitors, looks = _decode_snapshot(snapshot)
        state.seen.restore(seen)
        for key, bursts in pending:
            state.pending[key] = [Burst.unpacked(decode_burst(burst)) for burst in bursts]
            state.starts(key, state.pending[key][0].start_ms)
        for user, runs, held in visitors:
            visitor = state.visitors[user] = Visitor()
            visitor.runs, visitor.held = runs, held
        for at_ms, users in looks:
            for user in users:
                state.look_at(user, at_ms)


class AggregateSessions(beam.PTransform):
    """Each user's sessions: early, when the watermark has passed them, and again when they are corrected.

    Input:  KV[shard, rows] of `ClickRows`, in any order.
    Output: UserSession each time there is more to say; and Counts of the clicks. Of the rows of a session_id the one of
            the newest version counts, and it does not if it is deleted.
    State:  see `ClickGathering`; and of each session until it is over for late clicks, its bursts.

    Args:
      gap_ms: clicks this far apart are of different sessions.
      allowed_lateness_ms: how far Beam's watermark may be past a click that is not late.
      early_every_ms: how long a click may wait before there is a result with it; None when the input has an end.
      max_ms: no session is this long.
      only_once: whether no session is given out before all clicks are in: then there is nothing to take back.
    """

    def __init__(
        self,
        gap_ms: int,
        allowed_lateness_ms: int,
        early_every_ms: int | None,
        max_ms: int = MAX_SESSION_MS,
        *,
        only_once: bool = False,
    ):
        super().__init__()
        self._gap_ms, self._lateness_ms, self._max_ms = gap_ms, allowed_lateness_ms, max_ms
        self._early_every_ms, self._only_once = early_every_ms, only_once

    def expand(
        self, clicks: beam.PCollection[tuple[int, bytes]]
    ) -> tuple[beam.PCollection[UserSession], beam.PCollection[Counts]]:
        every_ms = self._early_every_ms
        bursts, counts = clicks | "Shards" >> Gather(
            ClickGathering(self._gap_ms, self._lateness_ms, self._max_ms, any_order=every_ms is None),
            None if every_ms is None else every_ms / 1000,
            tuple[str, bytes],
        )
        sessions = (
            bursts
            | "Windows"
            >> beam.WindowInto(
                Sessions(Duration(micros=self._gap_ms * 1000)),
                trigger=trigger.AfterWatermark(
                    early=None if every_ms is None else trigger.AfterCount(1), late=trigger.AfterCount(1)
                ),
                accumulation_mode=trigger.AccumulationMode.ACCUMULATING,
                allowed_lateness=Duration(micros=self._lateness_ms * 1000),
            )
            | "Stretch" >> beam.ParDo(_StretchFn(self._gap_ms)).with_output_types(tuple[str, bytes])
            | "Together" >> beam.GroupByKey()
            | "Sum" >> beam.ParDo(_SumFn(self._gap_ms, self._only_once)).with_output_types(UserSession)
            | "AllTime" >> beam.WindowInto(GlobalWindows())
        )
        return sessions, counts


class _StretchFn(beam.DoFn):
    """Gives a burst the window that all its clicks would have had together, so that it can travel as one element.

    Runners merge session windows by their bounds, whatever made them.
    """

    def __init__(self, gap_ms: int):
        self._gap_ms = gap_ms

    def process(self, keyed: tuple[str, bytes], at: Timestamp = beam.DoFn.TimestampParam) -> Iterable[WindowedValue]:
        _, start_ms, end_ms, *_ = decode_burst(keyed[1])
        window = IntervalWindow(Timestamp(micros=start_ms * 1000), Timestamp(micros=(end_ms + self._gap_ms) * 1000))
        return (WindowedValue(keyed, at, (window,)),)


class _SumFn(beam.DoFn):
    def __init__(self, gap_ms: int, only_once: bool):
        self._gap_ms, self._only_once = gap_ms, only_once

    def process(
        self, keyed: tuple[str, Iterable[bytes]], pane_info: Any = beam.DoFn.PaneInfoParam
    ) -> Iterator[UserSession]:
        user_id, pane = keyed[0].partition(_CUT)[0], pane_name(pane_info)
        bursts = [decode_burst(burst) for burst in keyed[1]]
        yield session_of(user_id, bursts, pane)
        if not self._only_once:
            for start_ms in former_starts(bursts, self._gap_ms):
                yield retraction(user_id, start_ms, pane)
