"""The shortest plan that could be found which still goes wrong in the same way."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TypeVar

from simulation.plans import Place, Plan
from simulation.run import play
from simulation.traffic import Burst, Event

__all__ = ["shrunk"]

T = TypeVar("T")
_MOST_RUNS = 250


def shrunk(plan: Plan, wrong: str, place: Place) -> Plan:
    """Leaves out faults, then records, as long as what is wrong stays the same but for its numbers."""
    runs = 0

    def fails(tried: Plan) -> bool:
        nonlocal runs
        runs += 1
        if runs > _MOST_RUNS:
            return False
        found = play(tried, place).wrong
        return bool(found) and _kind(found[0]) == _kind(wrong)

    plan = plan._replace(faults=_fewest(plan.faults, lambda faults: fails(plan._replace(faults=faults))))
    sent = [(burst.at, event) for burst in plan.bursts for event in burst.events]
    sent = _fewest(sent, lambda kept: fails(plan._replace(bursts=_bursts(kept))))
    return plan._replace(bursts=_bursts(sent))


def _kind(wrong: str) -> str:
    """Its first words."""
    return " ".join(word for word in wrong.split()[:6] if not any(c.isdigit() for c in word))


def _bursts(sent: Sequence[tuple[int, Event]]) -> list[Burst]:
    times = dict.fromkeys(at for at, _ in sent)
    return [Burst(at, [event for its, event in sent if its == at]) for at in times]


def _fewest(parts: list[T], fails: Callable[[list[T]], bool]) -> list[T]:
    """Delta debugging: leaves out ever smaller pieces."""
    size = len(parts)
    while size:
        start = 0
        while start < len(parts):
            fewer = parts[:start] + parts[start + size :]
            if len(fewer) < len(parts) and fails(fewer):
                parts = fewer
            else:
                start += size
        size //= 2
    return parts
