"""Reasons of refused records: grouped whatever values they quote, counted exactly, bounded."""

from __future__ import annotations

import apache_beam as beam
import msgspec
from apache_beam.options.pipeline_options import PipelineOptions
from apache_beam.testing.test_pipeline import TestPipeline
from apache_beam.testing.test_stream import TestStream
from apache_beam.testing.util import assert_that, equal_to

from transforms.errors import BadRecord
from transforms.reasons import CountReasons, Reason, _ReasonsCombineFn


def letter(message: str, offset: int = 0, error_class: str = "InvalidRecordError") -> BadRecord:
    return BadRecord(b"", "j", "validate", error_class, message, "t", 0, offset, 0, None, [], None, 1, 0)


def test_messages_that_differ_in_their_values_are_one_reason_with_an_example() -> None:
    letters = [letter(f"quantity is below 1: -{i}", i) for i in range(5)]
    letters += [
        letter("currency is not three capital letters: 'try'", 9),
        letter("currency is not three capital letters: 'eu'", 8),
    ]
    wanted = [
        Reason("InvalidRecordError", 5, "quantity is below 1: -0 (t, partition 0, offset 0)"),
        Reason("InvalidRecordError", 2, "currency is not three capital letters: 'eu' (t, partition 0, offset 8)"),
    ]
    with TestPipeline() as pipeline:
        counted = pipeline | beam.Create(letters) | CountReasons()
        assert_that(counted, equal_to([msgspec.json.encode(wanted)]))


def test_a_topic_that_is_read_to_its_end_is_unbounded_to_beam() -> None:
    letters = [letter("quantity is below 1: 0", 1), letter("quantity is below 1: -1", 2)]
    wanted = [Reason("InvalidRecordError", 2, "quantity is below 1: -1 (t, partition 0, offset 2)")]
    with TestPipeline(options=PipelineOptions(streaming=True)) as pipeline:
        stream = TestStream().add_elements(letters).advance_watermark_to_infinity()
        assert_that(pipeline | stream | CountReasons(), equal_to([msgspec.json.encode(wanted)]))


def test_nothing_refused_is_nothing_said() -> None:
    with TestPipeline() as pipeline:
        assert_that(pipeline | beam.Create([]) | CountReasons(), equal_to([]))


def test_reasons_are_bounded_and_none_is_lost() -> None:
    combine = _ReasonsCombineFn()
    found = combine.create_accumulator()
    for i in range(3_000):
        name = "".join(chr(97 + int(digit)) for digit in str(i))
        found = combine.add_input(found, letter(name))
    reasons = msgspec.json.decode(combine.extract_output(combine.merge_accumulators([found, found])), type=list[Reason])
    assert len(reasons) <= 1_001
    assert sum(reason.count for reason in reasons) == 6_000
