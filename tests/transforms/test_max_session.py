"""Sessions that never pause, through a shard and Beam's session windows as a runner keeps them, against the oracle."""

from __future__ import annotations

import copy
import random
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from schemas.events import ClickstreamEvent, UserSession
from tests.build import click
from tests.oracle_sessions import expected_sessions
from tests.transforms.test_log_replay import Worker
from tests.transforms.test_sessions import batch, current
from transforms.domain.sessions import decode_burst, former_starts, retraction, session_of
from transforms.domain.visits import WHOLE, Bound, Visitor, cut_before
from transforms.gather import _GatherFn
from transforms.sessions import ClickGathering

SECOND = 1_000
GAP_MS, KEEP_MS, MAX_MS = 60 * SECOND, 40 * SECOND, 200 * SECOND
BEGIN_MS = 1_790_000_000_000
Window = tuple[int, int, list[bytes]]
"""Start, end, bursts."""


class Job:
    """A shard, and session windows that merge, give early results, and forget when the allowed lateness is over."""

    def __init__(self, *, any_order: bool = False):
        self.shard = Worker(
            lambda: _GatherFn(ClickGathering(GAP_MS, KEEP_MS, MAX_MS, any_order=any_order), None if any_order else 1e6)
        )
        self.windows: dict[str, list[Window]] = {}
        self.watermark_ms = BEGIN_MS
        self.rows: list[UserSession] = []
        self.largest_pending = 0

    def comes(self, clicks: list[ClickstreamEvent]) -> None:
        self.shard.rows(batch(*clicks))
        self._hand_on()

    def flushes(self) -> None:
        self.shard.fires_flush()
        self._hand_on()

    def advances(self, watermark_ms: int) -> None:
        # In small steps: timers fire on the way, as a timer holds back the watermark of those after it.
        while self.watermark_ms < watermark_ms:
            self.watermark_ms = min(watermark_ms, self.watermark_ms + SECOND)
            self.shard.reaches(self.watermark_ms)
            self._hand_on()
        for key, windows in self.windows.items():
            self.windows[key] = [w for w in windows if w[1] - 1 + KEEP_MS >= self.watermark_ms]

    def ends(self) -> None:
        for _ in range(1_000):
            if self.shard.expiry.at is None:
                return
            self.advances(max(self.watermark_ms + 1, self.shard.expiry.at.micros // 1000))
        raise AssertionError("the timer fires for ever")

    def checkpoint(self) -> Any:
        return copy.deepcopy((self.shard.checkpoint(), self.windows, self.watermark_ms))

    def restore(self, checkpoint: Any) -> None:
        """What was given out since stays given out."""
        shard, self.windows, self.watermark_ms = copy.deepcopy(checkpoint)
        self.shard.restore(shard)

    def _hand_on(self) -> None:
        handed, self.shard.out = self.shard.out, []
        for key, burst in (output for output in handed if isinstance(output, tuple) and isinstance(output[0], str)):
            _, start, end, *_ = decode_burst(burst)
            assert end + GAP_MS - 1 + KEEP_MS >= self.watermark_ms, "Beam would drop it"
            near = [w for w in self.windows.get(key, []) if w[0] < end + GAP_MS and start < w[1]]
            window = (
                min([start, *(w[0] for w in near)]),
                max([end + GAP_MS, *(w[1] for w in near)]),
                [b for w in near for b in w[2]] + [burst],
            )
            self.windows[key] = [w for w in self.windows.get(key, []) if w not in near] + [window]
            bursts = [decode_burst(b) for b in window[2]]
            user = key.partition("\0")[0]
            self.rows.append(session_of(user, bursts, "EARLY"))
            self.rows += [retraction(user, at, "EARLY") for at in former_starts(bursts, GAP_MS)]


def traffic(chance: random.Random) -> Any:
    """Steps of a job: crawlers that never pause, others that nearly never do, people; out of order; and a watermark
    that sometimes stands still for longer than the longest session."""
    number = 0
    habits = [chance.choice([5, 20, 45, 59, 60, 61, 90]) * SECOND for _ in range(4)]
    newest = [BEGIN_MS + chance.randrange(MAX_MS) for _ in habits]
    watermark_ms, lag_ms = BEGIN_MS, 0
    for _ in range(chance.randrange(20, 150)):
        user = chance.randrange(len(habits))
        clicks = []
        for _ in range(chance.randint(1, 4)):
            newest[user] += chance.choice([habits[user], chance.randrange(1, habits[user] + 1)])
            at = newest[user] - chance.choice([0, 0, 0, chance.randrange(KEEP_MS)])
            clicks.append(click(f"c-{number}", user=f"u-{user}", at=max(at, watermark_ms - KEEP_MS)))
            newest[user] = max(newest[user], clicks[-1].event_time)
            number += 1
        yield "clicks", clicks
        lag_ms = chance.choice([lag_ms] * 8 + [0, 5 * SECOND, MAX_MS, 3 * MAX_MS])
        watermark_ms = max(watermark_ms, min(newest) - lag_ms)
        yield chance.choice(["advance", "advance", "flush", "checkpoint", "move", "restore"]), watermark_ms


@given(st.integers(0, 1 << 32))
@pytest.mark.parametrize("restores", [False, True])
def test_whatever_comes_when_the_sessions_are_the_oracles(restores: bool, seed: int) -> None:
    job = Job()
    clicks: list[ClickstreamEvent] = []
    saved: Any = None
    for what, given_ in traffic(random.Random(seed)):
        match what:
            case "clicks":
                clicks += given_
                job.comes(given_)
            case "advance":
                job.advances(given_)
            case "flush":
                job.flushes()
            case "move":
                job.shard.move()
            case "checkpoint" if restores:
                saved = (job.checkpoint(), len(clicks))
            case "restore" if saved:
                job.restore(saved[0])
                lost = clicks[saved[1] :]
                for again in lost:
                    job.comes([again])
    job.ends()
    assert current(job.rows) == expected_sessions(clicks, GAP_MS, MAX_MS)


@given(st.integers(0, 1 << 32))
def test_files_in_any_order_give_the_oracles_sessions(seed: int) -> None:
    chance = random.Random(seed)
    clicks = [c for what, given_ in traffic(chance) if what == "clicks" for c in given_]
    chance.shuffle(clicks)
    job = Job(any_order=True)
    job.watermark_ms = BEGIN_MS - 10 * MAX_MS
    for i in range(0, len(clicks), 7):
        job.comes(clicks[i : i + 7])
    job.ends()
    assert current(job.rows) == expected_sessions(clicks, GAP_MS, MAX_MS)


def test_a_start_that_only_a_lost_attempt_gave_out_is_taken_back_though_its_click_was_overtaken() -> None:
    first, late, early = (click(f"c-{at}", at=BEGIN_MS + at * SECOND) for at in (0, 205, 150))
    job = Job()
    job.comes([first])
    saved = job.checkpoint()
    job.advances(BEGIN_MS + 140 * SECOND)
    job.comes([late])  # it can be told that no cut comes before it: it goes on
    job.flushes()
    assert f"u-1:{late.event_time}" in {row.session_id for row in job.rows}
    job.restore(saved)
    job.comes([late])  # it cannot be told yet: it waits
    job.comes([early])
    job.ends()
    assert current(job.rows) == expected_sessions([first, late, early], GAP_MS, MAX_MS)


def test_no_session_is_as_long_as_the_longest() -> None:
    assert cut_before(BEGIN_MS, BEGIN_MS + MAX_MS - 1, MAX_MS) == WHOLE
    assert cut_before(BEGIN_MS, BEGIN_MS + MAX_MS, MAX_MS) == BEGIN_MS + MAX_MS


@pytest.mark.parametrize(
    ("floor_ms", "is_told"), [(BEGIN_MS - 1, False), (BEGIN_MS, True)], ids=["a click may come before", "none may"]
)
def test_a_click_is_held_until_it_is_known_where_its_run_begins(floor_ms: int, is_told: bool) -> None:
    visitor, at_ms = Visitor(), BEGIN_MS + MAX_MS + SECOND
    visitor.runs = [[BEGIN_MS, at_ms - SECOND]]
    part = Bound(GAP_MS, MAX_MS, KEEP_MS).part_of(visitor, at_ms, floor_ms)
    assert part == (cut_before(BEGIN_MS, at_ms, MAX_MS) if is_told else None)
