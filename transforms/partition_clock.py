"""A partition's clock in event time: a function of its records, not of when or in which blocks they are read.

A record's timestamp is a claim by some device. The clock accepts it if the latest records of three different keys agree
to within the out-of-orderness; otherwise it advances only as far as all three have come. So a device with a wrong clock
cannot move it, however much it sends, while three customers in the morning move it past the night (ADR 29).

Whether a record is from the future depends on the records after it, so the verdict is the same live and years later.
Only at the partition's end, where nothing follows yet, does the wall clock decide, and only for that record.
"""

from __future__ import annotations

import zlib
from collections.abc import Sequence
from typing import NamedTuple

import numpy as np

from schemas.columns import Ints
from transforms.blocks import NO_WATERMARK_MS

__all__ = ["Clock", "Judged", "advance", "judge", "key_numbers"]

_ALONE = 1_000
"""After so many records without a third key, records are believed as keys are; as before there was any other."""

_VOTES = 3
_VOTERS = 1_000
"""Of so many records that follow, the first three votes decide whether one is from the future."""

_MOST_MS = 1 << 53  # no timestamp is later; sums of two do not overflow


class Clock(NamedTuple):
    """All that is known of the records so far; part of a savepoint.

    A run is successive records of one key; it counts as the last of them.

    Attributes:
      reached_ms: the clock; `NO_WATERMARK_MS` while it does not go.
      alone: how many records there were since a third key was heard; at most `_ALONE`.
      before_ms: timestamp of the last record but one.
      times_ms, keys: timestamps and keys of the last three runs, the newest first.
    """

    reached_ms: int = NO_WATERMARK_MS
    alone: int = _ALONE
    before_ms: int = NO_WATERMARK_MS
    times_ms: tuple[int, int, int] = (NO_WATERMARK_MS,) * 3
    keys: tuple[int, int, int] = (NO_WATERMARK_MS, NO_WATERMARK_MS - 1, NO_WATERMARK_MS - 2)

    def watermark_ms(self, out_of_orderness_ms: int) -> int:
        return self.reached_ms if self.reached_ms == NO_WATERMARK_MS else self.reached_ms - out_of_orderness_ms

    def encode(self) -> list[int]:
        return [self.reached_ms, self.alone, self.before_ms, *self.times_ms, *self.keys]

    @classmethod
    def decode(cls, numbers: Sequence[int]) -> Clock:
        reached_ms, alone, before_ms, t0, t1, t2, k0, k1, k2 = numbers
        return cls(reached_ms, alone, before_ms, (t0, t1, t2), (k0, k1, k2))

    @classmethod
    def at(cls, reached_ms: int) -> Clock:
        """A clock of which nothing but the time is known, as older positions have it."""
        return cls(reached_ms)


class Judged(NamedTuple):
    """Records that were read.

    Attributes:
      taken: how many of them could be judged. The others wait for what follows, and are to be given again with it.
      watermarks_ms: [taken] the partition's watermark just before each record.
      limits_ms: [taken] a later event time is from the future.
      clock: after them.
    """

    taken: int
    watermarks_ms: Ints
    limits_ms: Ints
    clock: Clock


def key_numbers(keys: Sequence[bytes | None], offsets: Ints) -> Ints:
    """[n] a number for each key; a record without one is a key of its own."""
    try:
        return np.fromiter(map(zlib.crc32, keys), np.int64, len(keys))  # type: ignore[arg-type]
    except TypeError:
        pairs = zip(keys, offsets.tolist(), strict=True)
        return np.array([-1 - offset if key is None else zlib.crc32(key) for key, offset in pairs], np.int64)


def judge(
    clock: Clock,
    times_ms: Ints,
    keys: Ints,
    out_of_orderness_ms: int,
    max_ahead_ms: int,
    *,
    wall_ms: int,
    at_end: bool,
    sent_back: Sequence[int] = (),
) -> Judged:
    """Judges a partition's next records.

    Args:
      times_ms, keys: [n] their timestamps, and `key_numbers`.
      at_end: whether the partition holds nothing after them yet.
      sent_back: numbers of those that replay sent back. They come out of their time, and say nothing of that of others.
    """
    if sent_back:
        return _judge_the_others(clock, times_ms, keys, out_of_orderness_ms, max_ahead_ms, wall_ms, at_end, sent_back)
    times_ms = times_ms.clip(max=_MOST_MS)
    before, after = advance(clock, times_ms, keys, out_of_orderness_ms)
    taken, goes = len(times_ms), before > NO_WATERMARK_MS
    # A record that is no further ahead than disorder explains may hold an event that is as far ahead of the record.
    limits = before + (times_ms - before).clip(0, out_of_orderness_ms) + max_ahead_ms
    # A record's own place is between where the one before has left the clock and where the next one leaves it.
    later = np.append(before[2:], after.reached_ms)
    for i in np.nonzero(times_ms > before + max_ahead_ms)[0].tolist():
        if i < taken - 1 and times_ms[i] <= later[i] + max_ahead_ms:
            limits[i] = later[i] + max_ahead_ms
            continue
        good = _is_followed(times_ms, keys, i, max_ahead_ms, wall_ms, at_end)
        if good is None:
            taken = i
            _, after = advance(clock, times_ms[:i], keys[:i], out_of_orderness_ms)
            break
        if good:
            limits[i] = times_ms[i] + max_ahead_ms
        else:
            limits[i] = before[i] + max_ahead_ms if goes[i] else times_ms[i] - 1
    watermarks = np.where(goes, before - out_of_orderness_ms, NO_WATERMARK_MS)
    return Judged(taken, watermarks[:taken], limits[:taken], after)


def _judge_the_others(
    clock: Clock,
    times_ms: Ints,
    keys: Ints,
    out_of_orderness_ms: int,
    max_ahead_ms: int,
    wall_ms: int,
    at_end: bool,
    sent_back: Sequence[int],
) -> Judged:
    others = np.ones(len(times_ms), np.bool_)
    others[list(sent_back)] = False
    of_others = judge(
        clock, times_ms[others], keys[others], out_of_orderness_ms, max_ahead_ms, wall_ms=wall_ms, at_end=at_end
    )
    numbers = np.nonzero(others)[0]
    taken = len(times_ms) if of_others.taken == len(numbers) else int(numbers[of_others.taken])
    next_other = (np.cumsum(others) - others)[:taken]
    after_ms = of_others.clock.watermark_ms(out_of_orderness_ms)
    watermarks = np.concatenate((of_others.watermarks_ms, np.array([after_ms], np.int64)))[next_other]
    goes = watermarks > NO_WATERMARK_MS
    limits = np.where(goes, watermarks + out_of_orderness_ms, wall_ms) + max_ahead_ms
    limits[others[:taken]] = of_others.limits_ms
    return Judged(taken, watermarks, limits, of_others.clock)


def advance(clock: Clock, times_ms: Ints, keys: Ints, out_of_orderness_ms: int) -> tuple[Ints, Clock]:
    """The clock just before each of the next records, and after them."""
    if not len(times_ms):
        return times_ms, clock
    times = np.concatenate((clock.times_ms[::-1], times_ms))  # of the last runs so far, and of the records
    keys = np.concatenate((clock.keys[::-1], keys))
    every = np.arange(len(times))
    new_run = np.ones(len(times), np.bool_)
    new_run[3:] = keys[3:] != keys[2:-1]
    start = np.maximum.accumulate(np.where(new_run, every, 0))
    one = start - 1  # the last record of the run before that of each, and of the one before that
    one[:2] = 0
    two = start[one] - 1
    one, two, new = one[3:], two[3:], slice(3, None)
    three = (keys[new] != keys[two]) & (keys[two] > NO_WATERMARK_MS)
    agreed = np.where(three, np.minimum(np.minimum(times[new], times[one]), times[two]), NO_WATERMARK_MS)

    since = np.maximum.accumulate(np.where(three & new_run[new], every[new], -1))
    alone = np.where(since < 0, every[new] - 2 + clock.alone, every[new] - since)
    if alone.max() >= _ALONE:
        times[1] = clock.before_ms
        by_record = np.minimum(np.minimum(times[new], times[2:-1]), times[1:-2])
        agreed = np.where(alone >= _ALONE, by_record, agreed)
        times[1] = clock.times_ms[1]

    moved = np.where(times[new] <= agreed + out_of_orderness_ms, times[new], agreed)
    reached = np.maximum(np.maximum.accumulate(moved), clock.reached_ms)
    before = np.concatenate((np.array([clock.reached_ms]), reached[:-1]))
    last = [len(times) - 1, int(one[-1]), int(two[-1])]
    after = Clock(
        int(reached[-1]),
        min(int(alone[-1]), _ALONE),
        int(times[-2]),
        tuple(times[last].tolist()),
        tuple(keys[last].tolist()),
    )
    return before, after


def _is_followed(times_ms: Ints, keys: Ints, i: int, max_ahead_ms: int, wall_ms: int, at_end: bool) -> bool | None:
    """Whether a record far ahead of the clock is where the partition goes on; None: that is not yet known.

    Of what follows, each other key votes once, by its first record: whether that is no more than half of `max_ahead_ms`
    behind. A device does not vote for itself; but against itself, with each record.
    """
    time_ms, key = int(times_ms[i]), int(keys[i])
    least_ms = time_ms - max_ahead_ms // 2
    for voters in (16, _VOTERS):  # most often a few will do
        votes = _votes(times_ms[i + 1 : i + 1 + voters], keys[i + 1 : i + 1 + voters], key, least_ms)
        if max(votes) == _VOTES:
            return votes[True] == _VOTES
    if len(times_ms) - i - 1 < _VOTERS and not at_end:
        return None
    if abs(time_ms - wall_ms) <= max_ahead_ms:
        return True
    return time_ms < wall_ms and votes[True] >= votes[False]


def _votes(times_ms: Ints, keys: Ints, key: int, least_ms: int) -> tuple[int, int]:
    """How many say no and how many say yes, when one of them has enough votes or all have voted."""
    voters = np.nonzero((keys != key) | (times_ms < least_ms))[0]
    voted = set()
    votes = [0, 0]
    for its_time_ms, its_key in zip(times_ms[voters].tolist(), keys[voters].tolist(), strict=True):
        if its_key not in voted:
            votes[its_time_ms >= least_ms] += 1
            if max(votes) == _VOTES:
                break
            if its_key != key:
                voted.add(its_key)
    return votes[False], votes[True]
