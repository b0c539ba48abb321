from __future__ import annotations

from transforms.io.kafka.gaps import cut_back, made_anew, swept_away
from transforms.io.kafka.position import BEGINNING


def test_what_retention_took_is_counted_exactly() -> None:
    gap = swept_away("orders", 3, 1_000, 4_000, None)
    assert (gap.lost, gap.goes_on_at) == (3_000, 4_000)
    assert str(gap) == (
        "records lost: topic orders, partition 3, at offset 1000: offsets 1000 to 3999 were deleted before they were "
        "read; 3000 lost, reading goes on at offset 4000"
    )


def test_what_was_not_to_be_read_is_not_lost() -> None:
    assert swept_away("orders", 3, 1_000, 4_000, 1_500).lost == 500


def test_a_log_that_was_cut_back_is_gone_on_with_where_it_ends() -> None:
    gap = cut_back("orders", 0, 1_000, 600)
    assert (gap.lost, gap.goes_on_at) == (400, 600)
    assert "offsets 600 to 999 were read, and are gone; 400 lost, reading goes on at offset 600" in str(gap)


def test_a_topic_that_was_made_anew_begins_at_its_beginning() -> None:
    gap = made_anew("orders", 0, 1_000, 7)
    assert (gap.lost, gap.goes_on_at) == (7, BEGINNING)
    assert str(gap).endswith("7 lost, reading goes on at its beginning")
