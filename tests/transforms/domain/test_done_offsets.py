"""What is done is remembered exactly, through a commit's text."""

import random

import pytest
from hypothesis import given
from hypothesis import strategies as st

from transforms.domain.done_offsets import METADATA_BYTES, DoneOffsets


def through_a_commit(done: DoneOffsets, low: int = 0, end: int = 10**9) -> DoneOffsets:
    text = done.metadata()
    assert text is not None
    return DoneOffsets.restore(done.first_open, text, low, end)


@given(low=st.integers(0, 50), batches=st.lists(st.lists(st.integers(0, 300), max_size=40), max_size=5))
def test_what_was_added_is_done_and_nothing_else_through_commits(low: int, batches: list[list[int]]) -> None:
    done, added = DoneOffsets.restore(-1001, None, low, 400), set()
    for batch in batches:
        for offset in batch:
            done.add(offset)
            added.add(offset)
        done = through_a_commit(done, low)
        expected = {offset for offset in range(400) if offset < low or offset in added}
        assert {offset for offset in range(400) if offset in done} == expected
        assert done.first_open == min(set(range(500)) - expected)
        assert done.highest > max(expected, default=-1)


def test_retention_that_took_letters_away_moves_the_first_open_one() -> None:
    done = DoneOffsets(0, 0)
    for offset in (3, 10, 11):
        done.add(offset)
    done = through_a_commit(done, low=10)
    assert done.first_open == 12


def test_a_topic_that_was_made_anew_has_no_past() -> None:
    assert DoneOffsets.restore(500, "", 0, 20).first_open == 0


def test_any_pattern_over_25_000_offsets_fits_and_a_regular_one_over_a_million() -> None:
    wild, regular = DoneOffsets(0, 0), DoneOffsets(0, 0)
    coin = random.Random(1)
    for offset in range(1, 25_000):
        if coin.random() < 0.5:
            wild.add(offset)
    for offset in range(1, 1_000_000):
        regular.add(offset)
    for done in (wild, regular):
        assert len(done.metadata() or "") in range(1, METADATA_BYTES + 1)
    for offset in range(25_000, 60_000):
        if coin.random() < 0.5:
            wild.add(offset)
    assert wild.metadata() is None


@pytest.mark.parametrize(
    "text", ["v1:", "v1:0", "v1:x:", "v1:0:~", "v1:0:c-mu", "v1:-8:c-k$200961", "v1:99:c-k$200961"]
)
def test_what_something_else_committed_is_refused_rather_than_taken_for_done(text: str) -> None:
    with pytest.raises(ValueError, match="is not what was committed"):
        DoneOffsets.restore(10, text, 0, 20)
