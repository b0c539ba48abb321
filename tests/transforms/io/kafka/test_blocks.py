"""Messages become a block: their bytes end to end, and what is said of each beside them."""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from transforms.io.kafka.blocks import columns_of, lost_block, make_block
from transforms.partition_clock import Clock, Judged


class Message(NamedTuple):
    """As librdkafka's."""

    at: int
    time_ms: int
    k: bytes | None
    v: bytes | None
    h: list[tuple[str, bytes | None]] | None

    def offset(self) -> int:
        return self.at

    def timestamp(self) -> tuple[int, int]:
        return 1, self.time_ms

    def key(self) -> bytes | None:
        return self.k

    def value(self) -> bytes | None:
        return self.v

    def headers(self) -> list[tuple[str, bytes | None]] | None:
        return self.h


payloads = st.none() | st.binary(max_size=9)
headers = st.none() | st.lists(st.tuples(st.text(max_size=3), payloads), max_size=2)
rows = st.lists(st.tuples(st.integers(0, 99), payloads, payloads, headers), max_size=8)


@given(rows, st.data())
def test_a_block_has_what_was_judged_of_its_messages_and_no_more(rows: Any, data: st.DataObject) -> None:
    messages: Any = [Message(7 + i, *row) for i, row in enumerate(rows)]
    taken = data.draw(st.integers(0, len(messages)))
    judged = Judged(taken, np.arange(taken), np.arange(taken) + 5, Clock())
    block = make_block("orders", 3, messages, columns_of(messages), judged, passed_ms=11, lost=2)
    assert (block.topic, block.partition, block.passed_ms, block.lost, len(block)) == ("orders", 3, 11, 2, taken)
    for i, message in enumerate(messages[:taken]):
        assert block.payload(i) == message.v
        assert (block.offsets[i], block.times_ms[i], block.keys[i]) == (message.at, message.time_ms, message.k)
        assert block.headers.get(i, []) == (message.h or [])
    assert set(block.headers) <= set(range(taken))


def test_a_loss_is_a_block_without_records() -> None:
    block = lost_block("orders", 1, 40)
    assert (len(block), block.lost, block.partition) == (0, 40, 1)
