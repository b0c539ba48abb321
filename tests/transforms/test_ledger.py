from __future__ import annotations

import random
import struct

import apache_beam as beam
import pytest
from apache_beam.options.pipeline_options import PipelineOptions
from apache_beam.runners.direct.direct_runner import BundleBasedDirectRunner
from apache_beam.runners.portability.fn_api_runner import FnApiRunner
from apache_beam.testing import test_pipeline, test_stream
from apache_beam.testing.util import assert_that, equal_to
from hypothesis import given
from hypothesis import strategies as st

from transforms.ledger import Counts, SumCounts, _SumCountsFn, _TotalCoder

counts = st.builds(Counts, *[st.integers(-1_000, 1 << 40)] * len(Counts._fields))


class Cell:
    """A state cell that keeps what Flink would: encoded bytes."""

    def __init__(self) -> None:
        self.stored: bytes | None = None

    def read(self) -> tuple[Counts, bool] | None:
        return None if self.stored is None else _TotalCoder().decode(self.stored)

    def write(self, value: tuple[Counts, bool]) -> None:
        self.stored = _TotalCoder().encode(value)


class Timer:
    def __init__(self) -> None:
        self.sets = 0

    def set(self, _: object) -> None:
        self.sets += 1


def test_the_ledger_is_written_with_the_words_of_its_equation() -> None:
    written = {"in": 10, "good": 5, "dead_letters": 3, "late": 1, "duplicates": 1, "lost": 7}
    assert Counts(10, 5, 3, 1, 1, 7).as_dict() == written


def test_counts_of_nothing_are_false_and_corrections_that_cancel_out_are_not() -> None:
    assert not Counts()
    assert Counts(good=-1, duplicates=1)
    assert Counts(lost=1)


@given(st.lists(st.one_of(counts, st.none()), max_size=60))
def test_state_stays_as_small_as_one_sum_and_a_timer_is_set_once_until_it_fires(steps: list[Counts | None]) -> None:
    """None: the timer that shows the sum fires."""
    fn, cell, show, end = _SumCountsFn(1), Cell(), Timer(), Timer()
    total, pending, sizes = Counts(), False, set()
    for step in steps:
        if step is not None:
            fn.process((b"", step), cell, show, end)
            total += step
            assert show.sets == (0 if pending else 1)
            show.sets, pending = 0, True
        elif pending:
            assert list(fn.show(cell)) == [total]
            pending = False
        if cell.stored is not None:
            sizes.add(len(cell.stored))
    assert len(sizes) <= 1
    assert end.sets == sum(step is not None for step in steps)
    if cell.stored is not None:
        assert list(fn.end(cell)) == [total]


def test_a_sum_of_a_newer_release_is_refused() -> None:
    with pytest.raises(ValueError, match="newer release"):
        _TotalCoder().decode(b"\x03" + bytes(57))


def test_a_sum_of_a_release_that_knew_no_mappings_is_read() -> None:
    old = struct.pack(">B6q?", 1, 10, 4, 3, 2, 1, 7, True)
    assert _TotalCoder().decode(old) == (Counts(10, 4, 3, 2, 1, 7), True)
    assert _TotalCoder().decode(_TotalCoder().encode((Counts(ignored=5), False))) == (Counts(ignored=5), False)


def test_what_was_ignored_is_shown_when_there_is_any() -> None:
    assert "ignored" not in Counts(1, 1).as_dict()
    assert Counts(1, 1, ignored=2).as_dict()["ignored"] == 2


@pytest.mark.parametrize("seed", [1, 2])
def test_bounded_input_gives_one_sum_at_its_end(seed: int) -> None:
    chance = random.Random(seed)
    parts = [Counts(10, 7, 2, 1), Counts(good=-2, duplicates=2, lost=1)] * 20 + [Counts()]
    chance.shuffle(parts)
    with test_pipeline.TestPipeline(runner=FnApiRunner()) as p:
        # Not Create(parts): that takes whatever has an `as_dict` for a Row of Beam's.
        given_parts = p | beam.Create(range(len(parts))) | beam.Map(parts.__getitem__)
        assert_that(given_parts | SumCounts(None), equal_to([Counts(200, 100, 40, 20, 40, 20)]))


def test_without_a_record_the_sum_is_zero() -> None:
    with test_pipeline.TestPipeline(runner=FnApiRunner()) as p:
        assert_that(p | beam.Create([]) | SumCounts(None), equal_to([Counts()]))


def test_input_without_an_end_gives_the_sum_so_far_from_time_to_time_and_the_whole_at_the_end() -> None:
    stream = (
        test_stream.TestStream()
        .advance_processing_time(10_000_000_000)  # past now: whatever is set for a moment from now fires at once
        .add_elements([Counts(10, 9, 1)])
        .advance_processing_time(3)
        .add_elements([Counts(good=-1, duplicates=1)])
        .advance_processing_time(3)
        .add_elements([Counts(1, 0, 0, 1)])
        .advance_watermark_to_infinity()
    )
    options = PipelineOptions(streaming=True)
    seen = {Counts(10, 9, 1), Counts(10, 8, 1, 0, 1), Counts(11, 8, 1, 1, 1)}

    def shows_each_state(sums: list[Counts]) -> None:
        assert {*sums} - {Counts()} == seen

    with test_pipeline.TestPipeline(runner=BundleBasedDirectRunner(), options=options) as p:
        assert_that(p | stream | SumCounts(every_s=2), shows_each_state)
