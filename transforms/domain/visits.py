"""Where to split a session that never pauses, and which clicks can already be assigned to a session.

A *run* is a user's clicks each of which comes less than the gap after another. Most runs are one session. A run that
reaches `max_session` is cut there, and after that at the multiples of `max_session` since 1970 (12 h: at noon and
midnight UTC); a session begins with the first click after a cut. So no session is longer, none that is shorter changes,
and where a run is cut follows from its start alone: far from the start, from nothing but the time.

While clicks still come out of order, a run's start may move back, or two runs may become one. `floor_ms` is the event
time before which no click can come any more. What it leaves open is held back, and nothing that was said is ever cut.
See docs/adr/0032-max-session.md.
"""

from __future__ import annotations

from typing import Final

from transforms.domain.sessions import Click

__all__ = ["MAX_SESSION_MS", "WHOLE", "Bound", "Visitor", "cut_before"]

MAX_SESSION_MS: Final = 12 * 3_600_000
"""As web analytics commonly has it: nobody clicks for twelve hours without half an hour's pause."""
WHOLE: Final = -1
"""The part of a run before its first cut."""
_MINUTE_MS = 60_000
_STEPS = 16


def cut_before(start_ms: int, at_ms: int, max_ms: int) -> int:
    """The last cut, up to that time, of a run that starts then; WHOLE when there is none. It names the session."""
    first_ms = start_ms + max_ms
    return WHOLE if at_ms < first_ms else max(first_ms, at_ms - at_ms % max_ms)


class Visitor:
    """What is known of a user's runs.

    Attributes:
      runs: [first, last click] of those that a click can still join, in order; of the clicks that are not held.
      held: clicks, in the order they came, of which it cannot be told which session they are of.
      safe_ms: clicks before that are in the part before the first cut, whatever comes.
    """

    __slots__ = ("held", "runs", "safe_ms")

    def __init__(self) -> None:
        self.runs: list[list[int]] = []
        self.held: list[Click] = []
        self.safe_ms = 0


class Bound:
    """The rule, for one gap and one longest session.

    Args:
      gap_ms: clicks this far apart are of two runs.
      max_ms: no session is this long.
      keep_ms: how far apart in event time two clicks may come in the wrong order, while there is no floor.
    """

    def __init__(self, gap_ms: int, max_ms: int, keep_ms: int):
        self._gap_ms, self._max_ms, self._keep_ms = gap_ms, max_ms, keep_ms
        self._step_ms = max(1, max_ms // _STEPS)

    def part_of(self, visitor: Visitor, at_ms: int, floor_ms: int | None) -> int | None:
        """The cut before a click that has come, which joins its run; None when that is open, and it must be held."""
        runs = visitor.runs
        start_ms = runs[0][0] if runs else at_ms
        earliest_ms = start_ms - self._keep_ms if floor_ms is None else min(start_ms, floor_ms)
        visitor.safe_ms = earliest_ms + self._max_ms
        if at_ms < visitor.safe_ms:
            self.join(visitor, at_ms)
            return WHOLE
        if runs and floor_ms is not None and start_ms <= floor_ms and at_ms < runs[0][1] + self._gap_ms:
            self.join(visitor, at_ms)
            return cut_before(start_ms, at_ms, self._max_ms)
        return None

    def join(self, visitor: Visitor, at_ms: int) -> None:
        """Adds a click to the runs."""
        runs, gap_ms = visitor.runs, self._gap_ms
        if runs and runs[-1][0] <= at_ms < runs[-1][1] + gap_ms:  # nearly every click
            if at_ms > runs[-1][1]:
                runs[-1][1] = at_ms
            return
        near = [run for run in runs if run[0] < at_ms + gap_ms and at_ms < run[1] + gap_ms]
        apart = [run for run in runs if run not in near]
        joined = [min([at_ms, *(run[0] for run in near)]), max([at_ms, *(run[1] for run in near)])]
        visitor.runs = sorted([*apart, joined])

    def settle(self, visitor: Visitor, floor_ms: int | None) -> list[tuple[int, Click]]:
        """Forgets runs that no click can join any more, and lets go of the held clicks that can be told by now.

        Returns: those with their parts, in the order they came.
        """
        if floor_ms is not None:
            visitor.runs = [run for run in visitor.runs if run[1] > floor_ms - self._gap_ms]
        if not visitor.held:
            return []
        parts = {at_ms: self.part_of(visitor, at_ms, floor_ms) for at_ms in sorted({c[2] for c in visitor.held})}
        told = [(part, click) for click in visitor.held if (part := parts[click[2]]) is not None]
        visitor.held = [click for click in visitor.held if parts[click[2]] is None]
        return told

    def look_ms(self, visitor: Visitor, floor_ms: int | None) -> int:
        """The least floor at which `settle` will have something to do. There is a run, or a click is held."""
        runs = visitor.runs
        if not visitor.held:
            return -(-(runs[-1][1] + self._gap_ms) // _MINUTE_MS) * _MINUTE_MS
        if runs and floor_ms is not None and runs[0][0] <= floor_ms:
            return runs[0][1] + self._gap_ms
        reach_ms = min(click[2] for click in visitor.held) - self._max_ms
        reach_ms += self._step_ms - reach_ms % self._step_ms
        return min(reach_ms, runs[0][0]) if runs and floor_ms is not None else reach_ms
