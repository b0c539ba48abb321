"""A runner that does what Beam's model allows, and no more. What it does next is for its caller to choose.

A bundle is any part of what waits for a step. It is committed whole or not at all; what it did outside stays. Nothing
is said of the order of elements between steps, unless the job needs it. Timers fire when they are due or later, never
before; watermarks are as late as they like.
"""

from __future__ import annotations

import random
import zlib
from collections.abc import Callable
from functools import partial
from typing import Any

from apache_beam.runners.common import DoFnSignature
from apache_beam.transforms.timeutil import TimeDomain
from apache_beam.transforms.trigger import InMemoryUnmergedState, create_trigger_driver
from apache_beam.transforms.window import GlobalWindow
from apache_beam.utils.timestamp import MIN_TIMESTAMP, Timestamp
from apache_beam.utils.windowed_value import PANE_INFO_UNKNOWN, WindowedValue

from simulation.clock import Clock
from simulation.committed import MAX_US, MIN_US, Committed, Pending
from simulation.graph import Step
from simulation.worker import Copy, Place, Worker

__all__ = ["Runner"]

Due = tuple[Step, Any, str]
"""A timer: step, key, name. Of a group, the name is ''."""


class Runner:
    """
    Attributes:
      state: what is committed.
      in_order: whether elements of a key come in the order in which they were emitted.
      observe: is called with step and outputs of each bundle, before it is committed.
    """

    def __init__(self, steps: list[Step], clock: Clock, effect: Callable[[str], None], *, in_order: bool):
        self.steps, self._clock, self._effect, self._in_order = steps, clock, effect, in_order
        self.state = Committed(steps)
        self.observe: Callable[[Step, list[WindowedValue], Committed], None] = lambda *_: None
        self._born = 0
        self.workers: list[Worker] = []
        self.start(1)
        self._drivers = {
            step.number: create_trigger_driver(step.windowing, clock=clock) for step in steps if step.kind == "group"
        }

    def start(self, parallelism: int) -> None:
        """New processes."""
        self.workers = []
        for _ in range(parallelism):
            self._born += 1
            self.workers.append(Worker(f"worker {self._born}", self._effect))

    def replace(self, worker: Worker) -> None:
        """A process dies, another one takes its place."""
        self._born += 1
        self.workers[self.workers.index(worker)] = Worker(f"worker {self._born}", self._effect)

    def worker_of(self, step: Step, key: Any, chances: random.Random) -> Worker:
        if step.kind == "do":
            return chances.choice(self.workers)
        return self.workers[zlib.crc32(repr(key).encode()) % len(self.workers)]

    # What there is to do

    def waiting(self) -> list[Step]:
        """Steps with something to process; impulses that were not sent."""
        queues = self.state.queues
        return [step for step in self.steps if queues[step.number] or step.number in self.state.impulses]

    def readers(self) -> list[tuple[Step, Any]]:
        found = ((step, self.state.readers[step.number]) for step in self.steps)
        return [(step, key) for step, places in found for key, place in places.items() if not place.ended]

    def due(self, *, in_event_time: bool) -> list[Due]:
        found: list[Due] = []
        now_us = self._clock.now_ms * 1000
        for step in self.steps:
            until_us = self.state.reached_us[step.number] if in_event_time else now_us
            for key, cells in self.state.cells[step.number].items():
                mine = [(t.at_us, name) for name, t in cells.timers.items() if t.in_event_time == in_event_time]
                if mine and min(mine)[0] <= until_us:
                    found.append((step, key, min(mine)[1]))
            domain = TimeDomain.WATERMARK if in_event_time else TimeDomain.REAL_TIME
            for key, group in self.state.groups[step.number].items():
                times = [at for of in group.timers.values() for (_, d, _), at in of.items() if d == domain]
                if times and _micros(min(times)) <= until_us:
                    found.append((step, key, ""))
        return found

    def next_timer_ms(self) -> int | None:
        """When the next timer of processing time is due."""
        of_cells = (c.timers.values() for cells in self.state.cells for c in cells.values())
        times = [t.at_us // 1000 for timers in of_cells for t in timers if not t.in_event_time]
        for group in (each for groups in self.state.groups for each in groups.values()):
            of = (item for timers in group.timers.values() for item in timers.items())
            times += [_micros(at) // 1000 for (_, domain, _), at in of if domain == TimeDomain.REAL_TIME]
        return min(times, default=None)

    # Doing it

    def advance(self, chances: random.Random | None) -> None:
        """Watermarks move on: as far as they may, or, by chance, less."""
        state = self.state
        for step in self.steps:
            bound_us, at_us = state.bound_us(step), state.reached_us[step.number]
            lot = 0.0 if chances is None else chances.random()
            if bound_us > at_us and lot < 0.85:
                if chances is not None and lot > 0.7 and at_us > MIN_US and bound_us < MAX_US:
                    bound_us = chances.randint(at_us, bound_us)
                state.advance(step, bound_us)
            else:
                state.settle(step)

    def process(self, step: Step, chances: random.Random, most: int = 8) -> str:
        """A bundle of some of what waits for a step. Returns what it did."""
        if step.number in self.state.impulses:
            self.state.impulses.discard(step.number)
            element = WindowedValue(b"", MIN_TIMESTAMP, (GlobalWindow(),))
            self._emit(step, [(consumer, element) for consumer in step.outputs.get(None, [])])
            return step.label
        queue = self.state.queues[step.number]
        if step.kind == "read":
            return self._begin_reading(step, queue)
        its_worker = lambda i: self.worker_of(step, queue[i].element.value[0], chances)  # noqa: E731
        if step.kind in ("keyed", "group"):
            worker = its_worker(chances.randrange(len(queue)))
            places = [i for i in range(len(queue)) if its_worker(i) is worker]
        else:
            worker, places = self.worker_of(step, None, chances), list(range(len(queue)))
        count = min(len(places), chances.randint(1, most))
        chosen = places[:count] if self._in_order else chances.sample(places, count)
        elements = [queue[i].element for i in chosen]
        left = [pending for i, pending in enumerate(queue) if i not in set(chosen)]
        if step.kind == "group":
            self._group(step, elements)
        else:
            copy = worker.copy_of(step, chances.choice((0, 0, 1)))
            self._bundle(step, worker, copy, partial(self._each, copy, elements))
        self.state.queues[step.number] = left
        return f"{step.label}: {len(elements)} of {len(queue)} on {worker.name}"

    def _each(self, copy: Copy, elements: list[WindowedValue]) -> None:
        for element in elements:
            self._effect("element")
            copy.runner.process(element)

    def _begin_reading(self, step: Step, queue: list[Pending]) -> str:
        for element, _ in queue:
            signature = DoFnSignature(self.workers[0].copy_of(step, 0).fn)
            restriction = signature.initial_restriction_method.method_value(element.value)
            encoded = signature.get_restriction_coder().encode((restriction, None))
            self.state.readers[step.number][element.value] = Place(element, encoded, MIN_US)
        queue.clear()
        return step.label

    def read(self, step: Step, key: Any, chances: random.Random, split_after: int | None) -> str:
        """A bundle of a reader.

        Args:
          split_after: the runner takes a checkpoint of it after so many blocks; None: it gives back by itself.
        """
        place = self.state.readers[step.number][key]
        worker = self.worker_of(step, key, chances)
        copy = worker.copy_of(step, 0)
        coder = copy.signature.get_restriction_coder()
        given = place.element.with_value(((key, coder.decode(place.restriction)), 0.0))
        residuals: list[Any] = []
        blocks = 0

        def emitted(_block: WindowedValue) -> None:
            nonlocal blocks
            blocks += 1
            if blocks == split_after and (split := copy.runner.try_split(0.0)) is not None:
                residuals.extend(split[1])

        def work() -> None:
            residuals.extend(copy.runner.process_with_sized_restriction(given))

        copy.emitted = emitted
        self._bundle(step, worker, copy, work, before_commit=lambda: self._move(step, key, place, coder, residuals))
        return f"{step.label} {key}: {blocks} blocks on {worker.name}"

    def _move(self, step: Step, key: Any, place: Place, coder: Any, residuals: list[Any]) -> None:
        if not residuals:
            moved = place._replace(ended=True, watermark_us=MAX_US)
        else:
            (_, left), _ = residuals[-1].residual_value.value
            watermark = residuals[-1].current_watermark
            reached_us = place.watermark_us if watermark is None else max(watermark.micros, place.watermark_us)
            moved = place._replace(restriction=coder.encode(left), watermark_us=reached_us)
        self.state.readers[step.number][key] = moved

    def fire(self, due: Due, chances: random.Random) -> str:
        step, key, name = due
        worker = self.worker_of(step, key, chances)
        if step.kind == "group":
            self._fire_group(step, key)
            return f"{step.label}: panes of {key!r}"
        copy = worker.copy_of(step, chances.choice((0, 0, 1)))

        def work() -> None:
            timer = copy.state.cells(key).timers.pop(name)
            copy.runner.process_user_timer(
                copy.timers[name], key, timer.window, Timestamp(micros=timer.at_us), PANE_INFO_UNKNOWN, ""
            )

        self._bundle(step, worker, copy, work)
        return f"{step.label}: timer {name} of {key!r} on {worker.name}"

    def _bundle(
        self,
        step: Step,
        worker: Worker,
        copy: Copy,
        work: Callable[[], Any],
        before_commit: Callable[[], None] | None = None,
    ) -> None:
        copy.out, committed = [], self.state.cells[step.number]
        copy.state.begin(committed)
        try:
            copy.runner.start()
            work()
            copy.runner.finish()
            self._effect("end of bundle")
            self.observe(step, [element for _, element in copy.out], self.state)
        except BaseException:
            worker.discard(copy)
            raise
        if before_commit:
            before_commit()
        committed.update(copy.state.written)
        self._emit(step, copy.out)

    def _emit(self, step: Step, outputs: list[tuple[int, WindowedValue]]) -> None:
        reached_us = self.state.output_us[step.number]
        for consumer, element in outputs:
            self.state.queues[consumer].append(Pending(element, max(element.timestamp.micros, reached_us)))

    # Groups: Beam's own triggers

    def _group(self, step: Step, elements: list[WindowedValue]) -> None:
        by_key: dict[Any, list[WindowedValue]] = {}
        for element in elements:
            key, value = element.value
            by_key.setdefault(key, []).append(element.with_value(value))
        for key, values in by_key.items():
            found = self.state.groups[step.number].get(key)
            group = InMemoryUnmergedState() if found is None else found.copy()
            reached = Timestamp(micros=self.state.reached_us[step.number])
            output = Timestamp(micros=self.state.output_us[step.number])
            panes = list(self._drivers[step.number].process_elements(group, values, output, reached))
            self._keep_group(step, key, group, panes)

    def _fire_group(self, step: Step, key: Any) -> None:
        group = self.state.groups[step.number][key].copy()
        reached = Timestamp(micros=self.state.reached_us[step.number])
        now = self._clock.time()
        panes: list[WindowedValue] = []
        for window, (name, domain, at, _) in group.get_timers(clear=True, watermark=reached, processing_time=now)[0]:
            # Of a timer of processing time, the driver would take the time for a watermark.
            at = at if domain == TimeDomain.WATERMARK else reached
            panes += self._drivers[step.number].process_timer(window, name, domain, at, group, reached)
        self._keep_group(step, key, group, panes)

    def _keep_group(self, step: Step, key: Any, group: InMemoryUnmergedState, panes: list[WindowedValue]) -> None:
        self.state.groups[step.number][key] = group
        out = [pane.with_value((key, list(pane.value))) for pane in panes]
        self._emit(step, [(consumer, pane) for pane in out for consumer in step.outputs.get(None, [])])


def _micros(at: Any) -> int:
    """Of a trigger's timer: those of processing time are seconds."""
    return Timestamp.of(at).micros
