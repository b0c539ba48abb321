"""An error that nobody foresaw costs the record that caused it, is told apart, and never stops the others."""

from __future__ import annotations

import logging
from collections.abc import Iterable, Iterator
from typing import Any

import apache_beam as beam
import pytest
from apache_beam.testing.test_pipeline import TestPipeline
from apache_beam.testing.util import assert_that, equal_to
from hypothesis import given
from hypothesis import strategies as st

from schemas import codec
from schemas.codec import SchemaUnavailable
from tests.build import T0, block, make_fetch, order, payload
from transforms import isolate
from transforms.blocks import Block
from transforms.decode import ORDERS
from transforms.errors import Unavailable
from transforms.io.kafka.rules import RulesUnknownError
from transforms.isolate import UNEXPECTED, in_pieces, unexpected
from transforms.ledger import Counts
from transforms.sharded_rows import DecodeRows, Decoding


class BugError(Exception):
    pass


def fails_on(word: bytes) -> Any:
    def work(taken: Block) -> list[int]:
        if word in taken.data:
            raise BugError("as nobody foresaw")
        return taken.offsets.tolist()

    return work


@given(st.lists(st.booleans(), min_size=1, max_size=40))
def test_a_block_is_cut_down_to_the_records_that_fail_and_each_is_there_once_in_order(bad: list[bool]) -> None:
    taken = block([b"BAD" if b else b"ok" for b in bad], first_offset=7)
    found: list[tuple[int, bool]] = []
    for piece, result in in_pieces(taken, fails_on(b"BAD")):
        if isinstance(result, Exception):
            assert len(piece) == 1
        found += [(offset, isinstance(result, Exception)) for offset in piece.offsets.tolist()]
    assert found == [(7 + i, b) for i, b in enumerate(bad)]


def test_one_bad_record_among_thousands_takes_few_calls() -> None:
    calls = 0

    def work(taken: Block) -> None:
        nonlocal calls
        calls += 1
        if b"BAD" in taken.data:
            raise BugError

    list(in_pieces(block([b"ok"] * 2_000 + [b"BAD"] + [b"ok"] * 1_999), work))
    assert calls < 30


def test_a_part_of_a_block_has_all_that_belongs_to_its_messages() -> None:
    whole = block(
        [b"a", None, b"cc", b"d"],
        times_ms=[1, 2, 3, 4],
        watermarks_ms=[5, 6, 7, 8],
        first_offset=10,
        keys=[b"1", None, b"3", b"4"],
        headers={1: [("h", b"1")], 3: [("h", b"3")]},
        broken={2: "why"},
    )
    part = whole.part(1, 3)
    assert [part.payload(i) for i in range(2)] == [None, b"cc"]
    assert (part.offsets.tolist(), part.times_ms.tolist(), part.watermarks_ms.tolist()) == ([11, 12], [2, 3], [6, 7])
    assert (part.keys, part.headers, part.broken) == ([None, b"3"], {0: [("h", b"1")]}, {1: "why"})
    assert whole.part(0, 4).data == whole.data


@pytest.mark.parametrize("away", [SchemaUnavailable, Unavailable, RulesUnknownError])
def test_what_is_away_is_nothing_that_a_record_did(away: type[Exception]) -> None:
    def work(_: Block) -> None:
        raise away

    with pytest.raises(away):
        list(in_pieces(block([b"a", b"b"]), work))


def test_the_dead_letter_has_its_own_class_and_the_log_the_traceback_but_not_for_ever(
    caplog: pytest.LogCaptureFixture,
) -> None:
    isolate._logged.clear()
    ((piece, error),) = in_pieces(block([b"BAD"], first_offset=41, partition=3), fails_on(b"BAD"))
    assert isinstance(error, BugError)
    with caplog.at_level(logging.ERROR):
        letters = [unexpected(piece, 0, "job", error) for _ in range(100)]
    assert {(d.stage, d.error_class, d.error_message) for d in letters} == {
        ("decode", UNEXPECTED, "BugError: as nobody foresaw")
    }
    assert letters[0].payload == b"BAD"
    assert len(caplog.records) == isolate._TRACEBACKS
    assert "partition 3, offset 41" in caplog.text
    assert "in work" in caplog.text


def _rows(decoded: Any, _: int) -> dict[int, list[Any]]:
    names = [name for part in decoded.parts for name in part.columns.texts("order_id", part.rows)]
    names += [record.order_id for record in decoded.records]
    if "o-bug" in names:
        raise BugError("a good order that our rules cannot take")
    return {0: [[name] for name in names]}


def test_in_a_job_a_good_record_that_our_code_fails_on_is_one_dead_letter_and_the_rest_of_its_block_is_good() -> None:
    payloads = [payload(order(f"o-{i}", at=T0)) for i in range(50)]
    payloads[20:20] = [payload(order("o-bug", at=T0)), b"junk"]
    with TestPipeline() as pipeline:
        out = pipeline | beam.Create([block(payloads)]) | DecodeRows(ORDERS, _rows, Decoding("job", 1, 0, make_fetch))
        names = out.good | beam.FlatMap(_names)
        assert_that(names, equal_to([f"o-{i}" for i in range(50)]), label="Good")
        letters = out.bad | beam.Map(lambda d: (d.offset, d.error_class))
        assert_that(letters, equal_to([(20, UNEXPECTED), (21, "NotFramed")]), label="Bad")
        assert_that(out.counts | beam.CombineGlobally(_sum), equal_to([Counts(2, dead_letters=2)]), label="Counts")


def _sum(counts: Iterable[Counts]) -> Counts:
    return Counts(*map(sum, zip(Counts(), *counts, strict=True)))


def _names(keyed: tuple[int, bytes]) -> Iterator[str]:
    yield from (name for (name,) in codec.msgspec.msgpack.decode(keyed[1]))
