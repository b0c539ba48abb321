"""What a runner has committed: all that a checkpoint holds of a job, and how far event time has come."""

from __future__ import annotations

from typing import Any, NamedTuple

from apache_beam.transforms.trigger import InMemoryUnmergedState
from apache_beam.utils.timestamp import MAX_TIMESTAMP, MIN_TIMESTAMP
from apache_beam.utils.windowed_value import WindowedValue

from simulation.cells import Cells
from simulation.graph import Step
from simulation.worker import Place

__all__ = ["MAX_US", "MIN_US", "Committed", "Pending"]

MIN_US, MAX_US = MIN_TIMESTAMP.micros, MAX_TIMESTAMP.micros


class Pending(NamedTuple):
    """An element on its way to a step.

    Attributes:
      hold_us: the watermark does not overtake it: it stays where it was when the element was emitted, or below its
        timestamp.
    """

    element: WindowedValue
    hold_us: int


class Committed:
    """
    Attributes:
      queues: by step, what it has not processed.
      cells: by step, of each key; groups: of those that group, by key.
      readers: by step, of each element.
      reached_us: by step, its input watermark.
      output_us: by step.
      read: serials of the records that were read, in order; lost: how many the source said were lost.
      ledger: as it was shown last.
    """

    def __init__(self, steps: list[Step]):
        self.steps = steps
        self.queues: list[list[Pending]] = [[] for _ in steps]
        self.cells: list[dict[Any, Cells]] = [{} for _ in steps]
        self.groups: list[dict[Any, InMemoryUnmergedState]] = [{} for _ in steps]
        self.readers: list[dict[Any, Place]] = [{} for _ in steps]
        self.reached_us = [MIN_US for _ in steps]
        self.output_us = [MIN_US for _ in steps]
        self.impulses = {step.number for step in steps if step.kind == "impulse"}
        self.read: list[int] = []
        self.lost = 0
        self.ledger: dict[str, int] = {}

    def copy(self) -> Committed:
        """Cells and elements are never changed in place, so that they may be shared."""
        made = Committed(self.steps)
        for name in ("queues", "cells", "groups", "readers"):
            setattr(made, name, [each.copy() for each in getattr(self, name)])
        made.reached_us, made.output_us = [*self.reached_us], [*self.output_us]
        made.impulses, made.read, made.lost = set(self.impulses), [*self.read], self.lost
        made.ledger = self.ledger
        return made

    def bound_us(self, step: Step) -> int:
        """How far a step's input watermark may be at most."""
        upstream = [self.output_us[number] for number in step.inputs]
        return min([*upstream, *(pending.hold_us for pending in self.queues[step.number])], default=MAX_US)

    def advance(self, step: Step, to_us: int) -> None:
        self.reached_us[step.number] = max(self.reached_us[step.number], to_us)
        self.settle(step)

    def settle(self, step: Step) -> None:
        """Moves a step's output watermark as far as it may be."""
        number = step.number
        at_us = self.reached_us[number]
        match step.kind:
            case "impulse":
                at_us = MIN_US if number in self.impulses else MAX_US
            case "read":
                readers = self.readers[number].values()
                at_us = MIN_US if self.queues[number] or not readers else min(each.watermark_us for each in readers)
            case "keyed":
                holds = (t.hold_us for cells in self.cells[number].values() for t in cells.timers.values())
                at_us = min([at_us, *holds])
            case "group":
                holds = (state.get_earliest_hold().micros for state in self.groups[number].values())
                at_us = min([at_us, *holds])
        self.output_us[number] = max(self.output_us[number], at_us)
