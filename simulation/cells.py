"""State cells and timers of one bundle: what it wrote counts once the bundle is committed."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple

from apache_beam.transforms.timeutil import TimeDomain
from apache_beam.transforms.userstate import BagStateSpec, BaseTimer, UserStateContext
from apache_beam.utils.timestamp import Timestamp

__all__ = ["BundleState", "Cells", "Timer"]


class Timer(NamedTuple):
    """
    Attributes:
      at_us, hold_us: when it fires; until then the output watermark is no further than the latter.
      in_event_time: whether by the watermark, not by the clock.
    """

    at_us: int
    hold_us: int
    in_event_time: bool
    window: Any


class Cells:
    """Of one key of one step: state by name, encoded; and timers."""

    __slots__ = ("timers", "values")

    def __init__(self, values: dict[str, tuple[bytes, ...]] | None = None, timers: dict[str, Timer] | None = None):
        self.values, self.timers = dict(values or {}), dict(timers or {})

    def copy(self) -> Cells:
        return Cells(self.values, self.timers)


class BundleState(UserStateContext):
    """What a bundle sees, and has written.

    Attributes:
      written: key → cells, of the keys that it touched.
    """

    def __init__(self, effect: Callable[[str], None]):
        self._effect = effect
        self.begin({})

    def begin(self, committed: dict[Any, Cells]) -> None:
        self._committed = committed
        self.written: dict[Any, Cells] = {}

    def cells(self, key: Any) -> Cells:
        if key not in self.written:
            found = self._committed.get(key)
            self.written[key] = Cells() if found is None else found.copy()
        return self.written[key]

    def get_state(self, state_spec: Any, key: Any, _window: Any) -> Any:
        kind = _Bag if isinstance(state_spec, BagStateSpec) else _Value
        return kind(self.cells(key), state_spec.name, state_spec.coder, self._effect)

    def get_timer(self, timer_spec: Any, key: Any, window: Any, timestamp: Timestamp, _pane: Any) -> _SetTimer:
        return _SetTimer(self.cells(key), timer_spec, window, timestamp.micros)

    def commit(self) -> None:
        """Whoever runs the bundle does that."""

    def reset(self) -> None:
        """Nothing to do."""


class _State:
    def __init__(self, cells: Cells, name: str, coder: Any, effect: Callable[[str], None]):
        self._values, self._name, self._coder, self._effect = cells.values, name, coder, effect

    def clear(self) -> None:
        self._effect("state")
        self._values[self._name] = ()


class _Value(_State):
    def read(self) -> Any:
        found = self._values.get(self._name)
        return self._coder.decode(found[0]) if found else None

    def write(self, value: Any) -> None:
        self._effect("state")
        self._values[self._name] = (self._coder.encode(value),)


class _Bag(_State):
    def read(self) -> list[Any]:
        return [self._coder.decode(each) for each in self._values.get(self._name, ())]

    def add(self, value: Any) -> None:
        self._effect("state")
        self._values[self._name] = (*self._values.get(self._name, ()), self._coder.encode(value))


class _SetTimer(BaseTimer):
    def __init__(self, cells: Cells, spec: Any, window: Any, input_us: int):
        self._cells, self._spec, self._window, self._input_us = cells, spec, window, input_us

    def set(self, ts: Any, dynamic_timer_tag: str = "") -> None:  # noqa: ARG002
        at_us = Timestamp.of(ts).micros
        in_event_time = TimeDomain.is_event_time(self._spec.time_domain)
        hold_us = at_us if in_event_time else self._input_us
        self._cells.timers[self._spec.name] = Timer(at_us, hold_us, in_event_time, self._window)

    def clear(self, dynamic_timer_tag: str = "") -> None:  # noqa: ARG002
        self._cells.timers.pop(self._spec.name, None)
