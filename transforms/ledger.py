"""The ledger: every record that came in, accounted for. in = good + dead letters + late + duplicates.

It is data in the pipeline, not a metric: counts travel with the records, are summed in checkpointed state, and so are
exact after a kill, where a runner's counters start again or count twice.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import NamedTuple

import apache_beam as beam
from apache_beam.metrics import Metrics
from apache_beam.transforms import trigger, window
from apache_beam.utils.windowed_value import WindowedValue

__all__ = ["Counts", "SumCounts", "counted", "of_bundle"]


class Counts(NamedTuple):
    """How many records came in, and what became of them. Corrections may be negative."""

    records_in: int = 0
    good: int = 0
    dead_letters: int = 0
    late: int = 0
    duplicates: int = 0

    def __bool__(self) -> bool:
        return any(self)

    def as_dict(self) -> dict[str, int]:
        return {"in": self.records_in, **{name: getattr(self, name) for name in self._fields[1:]}}


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


class _SumCountsFn(beam.CombineFn):
    def create_accumulator(self) -> tuple[int, ...]:
        return (0,) * len(Counts._fields)

    def add_input(self, total: tuple[int, ...], counts: Counts) -> tuple[int, ...]:
        return tuple(a + b for a, b in zip(total, counts, strict=True))

    def merge_accumulators(self, totals: Iterable[tuple[int, ...]]) -> tuple[int, ...]:
        return tuple(map(sum, zip(*totals, strict=True)))

    def extract_output(self, total: tuple[int, ...]) -> Counts:
        return Counts(*total)


class SumCounts(beam.PTransform):
    """All counts as one.

    Input:  Counts, at most one per block and bundle.
    Output: Counts since the job began: once, when the input ends; or again and again while it goes on.

    Args:
      every_s: how often, for input without an end; None for input that ends.
    """

    def __init__(self, every_s: int | None):
        super().__init__()
        self._every_s = every_s

    def expand(self, counts: beam.PCollection[Counts]) -> beam.PCollection[Counts]:
        early = None if self._every_s is None else trigger.AfterProcessingTime(self._every_s)
        return (
            counts
            | "AllTime"
            >> beam.WindowInto(
                window.GlobalWindows(),
                trigger=trigger.AfterWatermark(early=early),
                accumulation_mode=trigger.AccumulationMode.ACCUMULATING,
            )
            | "Sum" >> beam.CombineGlobally(_SumCountsFn()).without_defaults()
        )
