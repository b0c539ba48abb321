from __future__ import annotations

import msgspec
import pytest

from tests.build import T0
from transforms.io.kafka.position import BEGINNING, At, Position, PositionCoder, PositionTracker
from transforms.partition_clock import Clock

CLOCK = Clock(T0, 3, T0 - 1, (T0, T0 - 2, T0 + 9), (11, 12, -13))
START = Position(1, 3, backlog=40)
LATER = Position(1, 3, "jGJ4SnOTR1iemvdT7rBo5g", {1: At(7, 2, CLOCK, 5), 4: At(), 1_000: At(1 << 40)}, backlog=12)
ENDED = LATER._replace(partitions={}, ended=True, backlog=0)


@pytest.mark.parametrize("position", [START, LATER, ENDED])
def test_a_position_is_read_back_from_a_checkpoint(position: Position) -> None:
    coder = PositionCoder()
    assert coder.decode(coder.encode(position)) == position


def test_a_position_of_the_release_before_had_read_the_record_before_its_offset() -> None:
    before = b"\x02" + msgspec.msgpack.encode((1, 3, "t", [[1, 7, 2, CLOCK.encode()]], False, 12))
    assert PositionCoder().decode(before) == Position(1, 3, "t", {1: At(7, 2, CLOCK, 7)}, backlog=12)


def test_a_position_is_some_bytes_a_partition() -> None:
    many = Position(0, 1, LATER.topic_id, {p: At(1 << 33, 5, CLOCK) for p in range(100)})
    assert len(PositionCoder().encode(many)) < 100 * 90


@pytest.mark.parametrize(
    ("encoded", "why"),
    [(b'{"v": 1, "partitions": [[0, 7, 1]]}', "cannot be gone on from"), (b"\x04...", "version 4: .* newer release")],
)
def test_a_position_of_another_release_is_refused_by_name(encoded: bytes, why: str) -> None:
    with pytest.raises(ValueError, match=why):
        PositionCoder().decode(encoded)


def test_a_reader_owns_partitions_by_a_rule() -> None:
    readers = [Position(reader, 3) for reader in range(3)]
    assert [[r.reader for r in readers if r.owns(partition)] for partition in range(5)] == [[0], [1], [2], [0], [1]]


def test_a_split_hands_on_all_that_is_left_and_then_nothing_can_be_claimed() -> None:
    tracker = PositionTracker(START)
    assert tracker.try_claim(LATER)
    assert tracker.try_split(0.5) is None
    assert tracker.try_split(0) == (ENDED, LATER)
    assert not tracker.try_claim(LATER)
    assert tracker.try_split(0) is None
    assert tracker.check_done()


def test_a_reader_without_partitions_may_still_get_some_and_hands_itself_on() -> None:
    tracker = PositionTracker(START)
    assert tracker.try_split(0) == (START._replace(ended=True, backlog=0), START)


def test_a_reader_that_forgets_to_hand_on_is_found_out() -> None:
    tracker = PositionTracker(LATER)
    with pytest.raises(ValueError, match="without giving back"):
        tracker.check_done()
    assert tracker.try_claim(ENDED)
    assert tracker.check_done()
    assert tracker.try_split(0) is None


def test_progress_is_what_was_read_and_what_is_left_in_records() -> None:
    tracker = PositionTracker(LATER)
    assert tracker.current_progress().completed_work == 0
    assert tracker.current_progress().remaining_work == 12
    read = {1: At(10, 2, CLOCK), 4: At(5), 1_000: At(1 << 40)}
    assert tracker.try_claim(LATER._replace(partitions=read, backlog=4))
    assert LATER.partitions[4].offset == BEGINNING, "from where on is not known"
    assert (tracker.current_progress().completed_work, tracker.current_progress().remaining_work) == (3, 4)
