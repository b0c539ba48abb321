from __future__ import annotations

import random

import apache_beam as beam
import pytest
from apache_beam.options.pipeline_options import PipelineOptions
from apache_beam.runners.direct.direct_runner import BundleBasedDirectRunner
from apache_beam.runners.portability.fn_api_runner import FnApiRunner
from apache_beam.testing import test_pipeline, test_stream
from apache_beam.testing.util import assert_that, equal_to
from hypothesis import given
from hypothesis import strategies as st

from transforms.ledger import Counts, SumCounts, _SumCountsFn

counts = st.builds(Counts, *[st.integers(-1_000, 1 << 40)] * 5)


def test_the_ledger_is_written_with_the_words_of_its_equation() -> None:
    assert Counts(10, 5, 3, 1, 1).as_dict() == {"in": 10, "good": 5, "dead_letters": 3, "late": 1, "duplicates": 1}


def test_counts_of_nothing_are_false_and_corrections_that_cancel_out_are_not() -> None:
    assert not Counts()
    assert Counts(good=-1, duplicates=1)


@given(st.lists(counts, max_size=12), st.data())
def test_sums_do_not_depend_on_how_they_are_divided_or_ordered(parts: list[Counts], data: st.DataObject) -> None:
    combine = _SumCountsFn()
    piles: list[list[Counts]] = [[], [], []]
    for part in data.draw(st.permutations(parts)):
        piles[data.draw(st.integers(0, 2))].append(part)
    totals = []
    for pile in piles:
        total = combine.create_accumulator()
        for part in pile:
            total = combine.add_input(total, part)
        totals.append(total)
    merged = combine.extract_output(combine.merge_accumulators(data.draw(st.permutations(totals))))
    assert merged == Counts(*(sum(getattr(part, field) for part in parts) for field in Counts._fields))


@pytest.mark.parametrize("seed", [1, 2])
def test_bounded_input_gives_one_sum_at_its_end(seed: int) -> None:
    chance = random.Random(seed)
    parts = [Counts(10, 7, 2, 1), Counts(good=-2, duplicates=2)] * 20 + [Counts()]
    chance.shuffle(parts)
    with test_pipeline.TestPipeline(runner=FnApiRunner()) as p:
        # Not Create(parts): that takes whatever has an `as_dict` for a Row of Beam's.
        given_parts = p | beam.Create(range(len(parts))) | beam.Map(parts.__getitem__)
        assert_that(given_parts | SumCounts(None), equal_to([Counts(200, 100, 40, 20, 40)]))


def test_without_counts_there_is_no_sum() -> None:
    with test_pipeline.TestPipeline(runner=FnApiRunner()) as p:
        assert_that(p | beam.Create([]) | SumCounts(None), equal_to([]))


def test_input_without_an_end_gives_the_sum_so_far_from_time_to_time_and_the_whole_at_the_end() -> None:
    stream = (
        test_stream.TestStream()
        .add_elements([Counts(10, 9, 1), Counts(5, 5)])
        .advance_processing_time(3)
        .add_elements([Counts(good=-1, duplicates=1)])
        .advance_processing_time(3)
        .add_elements([Counts(1, 0, 0, 1)])
        .advance_watermark_to_infinity()
    )
    options = PipelineOptions(streaming=True)
    with test_pipeline.TestPipeline(runner=BundleBasedDirectRunner(), options=options) as p:
        found = p | stream | SumCounts(every_s=2)
        assert_that(
            found,
            equal_to([Counts(15, 14, 1), Counts(15, 13, 1, 0, 1), Counts(16, 13, 1, 1, 1)]),
        )
