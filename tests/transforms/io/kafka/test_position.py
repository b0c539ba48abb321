from __future__ import annotations

import pytest

from tests.build import T0
from transforms.io.kafka.position import Position, PositionCoder, PositionTracker
from transforms.partition_clock import Clock

START = Position({0: (0, Clock()), 2: (0, Clock())})
LATER = Position({0: (7, Clock(T0, 3, T0 - 1, (T0, T0 - 2, T0 + 9), (11, 12, -13))), 2: (3, Clock(T0 + 1_000))})


@pytest.mark.parametrize("position", [START, LATER, Position({})])
def test_a_position_is_read_back_from_a_checkpoint(position: Position) -> None:
    coder = PositionCoder()
    assert coder.decode(coder.encode(position)) == position


def test_a_position_of_a_newer_release_is_refused() -> None:
    with pytest.raises(ValueError, match="newer release"):
        PositionCoder().decode(b'{"v": 99, "partitions": []}')


def test_a_position_with_watermarks_of_an_older_release_goes_on_from_those() -> None:
    older = PositionCoder().decode(b'{"v": 1, "partitions": [[0, 7, %d], [2, 3, %d]]}' % (T0, T0 + 1_000))
    assert older == Position({0: (7, Clock(T0)), 2: (3, Clock(T0 + 1_000))})


def test_a_split_hands_on_all_that_is_left_and_then_nothing_can_be_claimed() -> None:
    tracker = PositionTracker(START)
    assert tracker.try_claim(LATER)
    assert tracker.try_split(0.5) is None
    assert tracker.try_split(0) == (Position({}), LATER)
    assert not tracker.try_claim(LATER)
    assert tracker.try_split(0) is None
    assert tracker.check_done()


def test_a_reader_that_forgets_to_hand_on_is_found_out() -> None:
    tracker = PositionTracker(START)
    with pytest.raises(ValueError, match="without giving back"):
        tracker.check_done()
    assert tracker.try_claim(Position({}))
    assert tracker.check_done()
