"""The ledger, which accounts for every record: in = good + dead letters + late + duplicates.

It is pipeline data, not a metric: counts travel with the records and are summed in checkpointed state. So they are
exact after a crash, when a runner's counters start again or count twice.
"""

from __future__ import annotations

import struct
import time
from collections.abc import Iterable, Iterator
from typing import Any, NamedTuple

import apache_beam as beam
from apache_beam import coders, typehints
from apache_beam.metrics import Metrics
from apache_beam.transforms import userstate, window
from apache_beam.transforms.timeutil import TimeDomain
from apache_beam.transforms.userstate import ReadModifyWriteStateSpec, TimerSpec
from apache_beam.utils.timestamp import Timestamp
from apache_beam.utils.windowed_value import WindowedValue

__all__ = ["Counts", "SumCounts", "counted", "of_bundle"]


class Counts(NamedTuple):
    """How many records were read, by outcome. Corrections may be negative.

    Attributes:
      ignored: messages that a mapping skips because they are not records of this job; not part of `in`.
      lost: records that Kafka deleted before they were read; not part of `in`.
    """

    records_in: int = 0
    good: int = 0
    dead_letters: int = 0
    late: int = 0
    duplicates: int = 0
    lost: int = 0
    ignored: int = 0

    def __bool__(self) -> bool:
        return any(self)

    def __add__(self, other: tuple[int, ...]) -> Counts:  # type: ignore[override]
        return Counts(*(a + b for a, b in zip(self, other, strict=True)))

    def as_dict(self) -> dict[str, int]:
        """`ignored` is there when something was: without a mapping nothing can be."""
        counts = {"in": self.records_in, **{name: getattr(self, name) for name in self._fields[1:]}}
        return counts if self.ignored else {name: n for name, n in counts.items() if name != "ignored"}


_METRICS = {name: Metrics.counter("streamforge", name) for name in Counts._fields}


def counted(counts: Counts) -> Counts:
    """The counts, added to the runner's counters of the same names, for dashboards and alerts: those are there at once,
    and start again when a job does."""
    for name, number in zip(Counts._fields, counts, strict=True):
        if number:
            _METRICS[name].inc(number)
    return counts


def of_bundle(counts: Counts) -> Iterator[beam.pvalue.TaggedOutput]:
    """What a step's finish_bundle gives to its output `counts`, if there is anything to count."""
    if counts:
        everywhere = window.GlobalWindow()
        value = WindowedValue(counted(counts), everywhere.start, [everywhere])
        yield beam.pvalue.TaggedOutput("counts", value)


class _TotalCoder(coders.Coder):
    """The sum so far, and whether the timer that shows it is set; explicit and versioned, as it lives in savepoints."""

    _FORMATS = {1: struct.Struct(">B6q?"), 2: struct.Struct(">B7q?")}  # noqa: RUF012 - 1 knew nothing of ignored

    def encode(self, total: tuple[Counts, bool]) -> bytes:
        return self._FORMATS[2].pack(2, *total[0], total[1])

    def decode(self, encoded: bytes) -> tuple[Counts, bool]:
        if encoded[0] not in self._FORMATS:
            raise ValueError(f"ledger of version {encoded[0]}: written by a newer release")
        _, *counts, shown = self._FORMATS[encoded[0]].unpack(encoded)
        return Counts(*counts), shown

    def is_deterministic(self) -> bool:
        return True


_TOTAL = ReadModifyWriteStateSpec("total", _TotalCoder())
_SHOW = TimerSpec("show", TimeDomain.REAL_TIME)
_END = TimerSpec("end", TimeDomain.WATERMARK)


class _SumCountsFn(beam.DoFn):
    """One key's sum: a few integers of state, however long the job runs and however often the sum is shown."""

    def __init__(self, every_s: float | None):
        self._every_s = every_s

    def process(
        self,
        keyed: tuple[bytes, Counts],
        total: Any = beam.DoFn.StateParam(_TOTAL),
        show: Any = beam.DoFn.TimerParam(_SHOW),
        end: Any = beam.DoFn.TimerParam(_END),
    ) -> None:
        # Each time: Beam's own runner fires it when it has nothing to do for a moment.
        end.set(window.GlobalWindow().max_timestamp())
        counts, shown = total.read() or (Counts(), False)
        if self._every_s is not None and not shown:
            show.set(Timestamp.of(time.time() + self._every_s))
            shown = True
        total.write((counts + keyed[1], shown))

    @userstate.on_timer(_SHOW)
    def show(self, total: Any = beam.DoFn.StateParam(_TOTAL)) -> Iterable[Counts]:
        counts, _ = total.read()
        total.write((counts, False))
        yield counts

    @userstate.on_timer(_END)
    def end(self, total: Any = beam.DoFn.StateParam(_TOTAL)) -> Iterable[Counts]:
        yield total.read()[0]


def _nothing(_: bytes) -> Counts:
    """Not a lambda: Beam would infer its type from what it returns, and take that for a Row, as it has `as_dict`."""
    return Counts()


class SumCounts(beam.PTransform):
    """All counts as one.

    Input:  Counts, at most one per block and bundle.
    Output: Counts since the job began: once, when the input ends, zeros for input without a record; and again and again
      while input without an end goes on. The last one counts: Beam's own runner takes any pause for the end.
    State:  the sum, of constant size.

    Args:
      every_s: how soon a change is shown, for input without an end; None for input that ends.
    """

    def __init__(self, every_s: float | None):
        super().__init__()
        self._every_s = every_s

    def expand(self, counts: beam.PCollection[Counts]) -> beam.PCollection[Counts]:
        # So that a job without a record has a ledger too.
        nothing = counts.pipeline | "Impulse" >> beam.Impulse() | "Nothing" >> beam.Map(_nothing)
        keyed = (counts, nothing) | beam.Flatten() | "ToOneKey" >> beam.Map(lambda c: (b"", c))
        keyed.element_type = typehints.Tuple[bytes, Counts]
        sums = keyed | "Sum" >> beam.ParDo(_SumCountsFn(self._every_s))
        sums.element_type = Counts
        return sums
