"""The simulated runner: what it may do and what not, with a pipeline of its own."""

from __future__ import annotations

import random
from typing import Any

import apache_beam as beam
import pytest
from apache_beam import coders
from apache_beam.transforms.timeutil import TimeDomain
from apache_beam.transforms.userstate import BagStateSpec, TimerSpec, on_timer
from apache_beam.transforms.window import TimestampedValue
from apache_beam.utils.timestamp import Timestamp

from simulation.clock import Clock
from simulation.graph import steps_of
from simulation.runner import Runner

_KEPT = BagStateSpec("kept", coders.VarIntCoder())
_DUE = TimerSpec("due", TimeDomain.WATERMARK)


class _KeepFn(beam.DoFn):
    """Keeps numbers until the watermark is at 10 s."""

    def process(
        self,
        keyed: tuple[str, int],
        kept: Any = beam.DoFn.StateParam(_KEPT),
        due: Any = beam.DoFn.TimerParam(_DUE),
    ) -> None:
        kept.add(keyed[1])
        due.set(Timestamp(10))
        if keyed[1] == 13 and _fails:
            _fails.pop()
            raise ValueError("once")

    @on_timer(_DUE)
    def fire(self, kept: Any = beam.DoFn.StateParam(_KEPT), key: Any = beam.DoFn.KeyParam) -> Any:
        yield key, sorted(kept.read())
        kept.clear()


_fails: list[int] = []


def _started(numbers: list[int]) -> Runner:
    pipeline = beam.Pipeline()
    stamped = pipeline | beam.Create(numbers, reshuffle=False) | beam.Map(lambda n: TimestampedValue(("k", n), n))
    stamped | beam.ParDo(_KeepFn()) | beam.Map(lambda found: found)
    runner = Runner(steps_of(pipeline), Clock(), lambda _: None, in_order=False)
    chances = random.Random(1)
    while runner.waiting() and runner.waiting()[0].kind != "keyed":
        runner.process(runner.waiting()[0], chances)
    return runner


def _kept(runner: Runner) -> list[bytes]:
    (cells,) = [cells for by_key in runner.state.cells for cells in by_key.values()]
    return sorted(cells.values.get("kept", ()))


def test_a_bundle_that_fails_leaves_no_state_and_its_elements_wait() -> None:
    runner = _started([13])
    _fails.append(1)
    (step,) = runner.waiting()
    with pytest.raises(ValueError, match="once"):
        runner.process(step, random.Random(1))
    assert runner.state.cells[step.number] == {}
    runner.process(step, random.Random(1))
    assert len(_kept(runner)) == 1


def test_a_timer_fires_when_the_watermark_is_there_and_holds_the_next_one_back() -> None:
    runner = _started([1, 2, 3])
    (step,) = runner.waiting()
    assert runner.due(in_event_time=True) == []
    while runner.waiting():
        runner.process(runner.waiting()[0], random.Random(1))
    assert runner.due(in_event_time=True) == [], "the watermark has not come"
    runner.advance(None)
    (due,) = runner.due(in_event_time=True)
    assert runner.state.output_us[step.number] == 10_000_000
    runner.fire(due, random.Random(1))
    (pending,) = runner.state.queues[runner.waiting()[0].number]
    assert pending.element.value == ("k", [1, 2, 3])
    assert runner.due(in_event_time=True) == []


def test_the_watermark_does_not_overtake_what_waits() -> None:
    runner = _started([4, 7])
    (step,) = runner.waiting()
    runner.advance(None)
    assert runner.state.reached_us[step.number] == 4_000_000


def test_a_checkpoint_is_not_changed_by_what_comes_after_it() -> None:
    runner = _started([1, 2, 3])
    before = runner.state.copy()
    runner.process(runner.waiting()[0], random.Random(1))
    assert len(before.queues[runner.steps[-2].number]) == 3
    assert before.cells[runner.steps[-2].number] == {}
