"""A worker process: its memory, and its copies of the DoFns, run by Beam's own invokers."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple

from apache_beam.internal import pickler
from apache_beam.runners.common import DoFnRunner, DoFnSignature, Receiver
from apache_beam.utils.windowed_value import WindowedValue

from simulation import seams
from simulation.cells import BundleState
from simulation.graph import Step

__all__ = ["Copy", "NothingSetUp", "Place", "Worker"]


class Copy:
    """One copy of a step's DoFn in a worker.

    Attributes:
      out: what came out of the bundle: consumer and element.
      emitted: is called for each.
    """

    def __init__(self, step: Step, effect: Callable[[str], None]):
        self.step, self.state = step, BundleState(effect)
        self.out: list[tuple[int, WindowedValue]] = []
        self.emitted: Callable[[WindowedValue], None] = lambda _: None
        self.fn = pickler.loads(step.fn)
        self.signature = DoFnSignature(self.fn)
        self.timers = {spec.name: spec for spec in self.signature.timer_methods}
        receivers = {tag: _Outputs(self, consumers, effect) for tag, consumers in step.outputs.items()}
        every = _Tags(lambda: _Outputs(self, [], effect), receivers)
        state = self.state if step.kind == "keyed" else None
        self.runner = DoFnRunner(
            *(self.fn, step.args, step.kwargs, (), step.windowing, every), user_state_context=state
        )
        self.runner.setup()


class _Tags(dict[Any, Any]):
    """Outputs that nobody reads are there, too."""

    def __init__(self, make: Callable[[], Any], given: dict[Any, Any]):
        super().__init__(given)
        self._make = make
        self.setdefault(None, make())

    def __missing__(self, tag: Any) -> Any:
        return self.setdefault(tag, self._make())


class _Outputs(Receiver):
    def __init__(self, copy: Copy, consumers: list[int], effect: Callable[[str], None]):
        self._copy, self._consumers, self._effect = copy, consumers, effect

    def receive(self, windowed_value: WindowedValue) -> None:
        self._copy.out += [(consumer, windowed_value) for consumer in self._consumers]
        self._effect("output")
        self._copy.emitted(windowed_value)


class NothingSetUp(Exception):
    """A process that was given up has no copy of that step."""


class Worker:
    """
    Attributes:
      name: for traces.
      is_given_up: the job goes on elsewhere. What is set up here may write on; nothing else is set up.
    """

    def __init__(self, name: str, effect: Callable[[str], None]):
        self.name, self._effect = name, effect
        self.is_given_up = False
        self._memory = seams.new_memory()
        self._copies: dict[tuple[int, int], Copy] = {}

    def copy_of(self, step: Step, number: int) -> Copy:
        """A runner may have several copies of a DoFn in one process; they share the process's memory.

        Raises: NothingSetUp.
        """
        found = self._copies.get((step.number, number))
        if found is None and self.is_given_up:
            found = self._copies.get((step.number, 1 - number))
            if found is None:
                raise NothingSetUp
        if found is None:
            with seams.memory_of(self._memory):
                found = self._copies[step.number, number] = Copy(step, self._effect)
        return found

    def discard(self, copy: Copy) -> None:
        """The runner does that to the copy whose bundle failed."""
        self._copies = {place: each for place, each in self._copies.items() if each is not copy}

    def begin_again(self) -> None:
        """Of a new attempt of the job, in the same process: the copies are new, the memory is what it was."""
        self._copies.clear()


class Place(NamedTuple):
    """Where a reader is: what it has not read, and the state of its watermark, encoded.

    Attributes:
      element: the reader's name.
      watermark_us: which it reported.
    """

    element: WindowedValue
    restriction: bytes
    watermark_us: int
    ended: bool = False
