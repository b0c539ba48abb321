"""Why records were refused: the reasons of a run that ends, counted, with an example each."""

from __future__ import annotations

import re
from collections.abc import Iterable
from typing import Any

import apache_beam as beam
import msgspec
from apache_beam.transforms import trigger, window

from transforms.errors import BadRecord

__all__ = ["CountReasons", "Reason", "commonest"]

_MOST = 1_000
_VALUES = re.compile(r"'[^']*'|\"[^\"]*\"|-?\d+(\.\d+)?")


class Reason(msgspec.Struct, frozen=True):
    """
    Attributes:
      example: the message and the place of one of them.
    """

    error_class: str
    count: int
    example: str


class _ReasonsCombineFn(beam.CombineFn):
    """Messages that differ only in the values that they quote are one reason."""

    def create_accumulator(self) -> dict[str, tuple[str, int, str]]:
        return {}

    def add_input(self, found: dict[str, tuple[str, int, str]], bad: BadRecord) -> dict[str, tuple[str, int, str]]:
        place = f"{bad.topic}, partition {bad.partition}, offset {bad.offset}"
        self._add(found, _key(bad), (bad.error_class, 1, f"{bad.error_message} ({place})"))
        return found

    def merge_accumulators(self, several: Iterable[dict[str, Any]]) -> dict[str, tuple[str, int, str]]:
        merged = self.create_accumulator()
        for found in several:
            for key, reason in found.items():
                self._add(merged, key, reason)
        return merged

    @staticmethod
    def _add(found: dict[str, tuple[str, int, str]], key: str, reason: tuple[str, int, str]) -> None:
        if key not in found and len(found) >= _MOST:
            key, reason = "", ("and others", reason[1], "reasons beyond the first thousand")
        name, count, example = found.get(key, (reason[0], 0, reason[2]))
        found[key] = name, count + reason[1], min(example, reason[2])  # whatever order they came in

    def extract_output(self, found: dict[str, tuple[str, int, str]]) -> bytes:
        return msgspec.json.encode(commonest(Reason(*reason) for reason in found.values()))


def _key(bad: BadRecord) -> str:
    return f"{bad.stage} {bad.error_class} {_VALUES.sub('…', bad.error_message)[:300]}"


def commonest(reasons: Iterable[Reason]) -> list[Reason]:
    return sorted(reasons, key=lambda reason: (-reason.count, reason.error_class, reason.example))


class CountReasons(beam.PTransform):
    """
    Input:  BadRecord, of an input that ends.
    Output: JSON of the Reasons, the commonest first; nothing when nothing was refused. The last one counts: Beam's own
      runner takes any pause for the end.
    """

    def expand(self, letters: beam.PCollection[BadRecord]) -> beam.PCollection[bytes]:
        return (
            letters
            | "Together"
            >> beam.WindowInto(
                window.GlobalWindows(),
                # Said in full, as Beam takes a topic that is read to its end for unbounded.
                trigger=trigger.AfterWatermark(late=trigger.AfterCount(1)),
                accumulation_mode=trigger.AccumulationMode.ACCUMULATING,
            )
            | "Count" >> beam.CombineGlobally(_ReasonsCombineFn()).without_defaults()
        )
