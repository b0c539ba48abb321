"""Packing of KafkaIO's rows into blocks, without Kafka."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any, NamedTuple

import numpy as np
import pytest

from tests.build import HOUR, MINUTE, SECOND, T0
from transforms.blocks import NO_WATERMARK_MS, Block
from transforms.io.kafka_native import _PackFn


class Header(NamedTuple):
    key: str
    value: bytes | None


class Row(NamedTuple):
    """What KafkaIO's schema decodes to, as far as it is used."""

    partition: int
    offset: int
    timestamp: int
    value: bytes | None = b"v"
    key: bytes | None = b"k"
    headers: list[Header] | None = None
    topic: str = "orders"


def pack(fn: _PackFn, rows: Iterable[Row]) -> list[tuple[Block, float]]:
    """The blocks of one bundle, with their timestamps in seconds."""
    fn.start_bundle()
    out: list[Any] = [each for row in rows for each in fn.process(row)]
    out += fn.finish_bundle()
    return [(each.value, float(each.timestamp)) for each in out]


@pytest.fixture
def fn() -> _PackFn:
    fn = _PackFn(10 * SECOND, HOUR, 3)
    fn.setup()
    return fn


def test_a_bundle_becomes_blocks_of_one_partition_each_in_order(fn: _PackFn) -> None:
    rows = [Row(p, i, T0 + 10 * p + i, b"%d.%d" % (p, i)) for i in range(4) for p in (0, 1)]
    found = pack(fn, rows)
    assert [(b.partition, b.offsets.tolist(), at) for b, at in found] == [
        (0, [0, 1, 2], T0 / 1000),
        (1, [0, 1, 2], (T0 + 10) / 1000),
        (0, [3], (T0 + 3) / 1000),
        (1, [3], (T0 + 13) / 1000),
    ]
    assert [b.payload(i) for b, _ in found for i in range(len(b))] == [
        *(b"0.0", b"0.1", b"0.2", b"1.0", b"1.1", b"1.2", b"0.3", b"1.3")
    ]
    assert pack(fn, []) == []


def test_the_timestamp_of_a_block_is_its_smallest(fn: _PackFn) -> None:
    [(found, at)] = pack(fn, [Row(0, 0, T0 + 5), Row(0, 1, T0)])
    assert at == T0 / 1000
    assert found.times_ms.tolist() == [T0 + 5, T0]


def test_what_is_missing_stays_missing(fn: _PackFn) -> None:
    headers = [Header("a", b"1"), Header("a", None)]
    [(found, _)] = pack(fn, [Row(0, 7, T0, None, None), Row(0, 8, T0, b"", b"", []), Row(0, 9, T0, headers=headers)])
    assert [found.payload(i) for i in range(3)] == [None, b"", b"v"]
    assert found.keys == [None, b"", b"k"]
    assert found.headers == {2: [("a", b"1"), ("a", None)]}


def test_the_watermark_of_a_partition_goes_on_from_bundle_to_bundle_in_any_instance(fn: _PackFn) -> None:
    pack(fn, [*(Row(0, i, T0) for i in range(3)), *(Row(1, i, T0 + MINUTE) for i in range(3))])
    other = _PackFn.__new__(_PackFn)
    other.__dict__.update(fn.__dict__)
    other.setup()
    [(found, _)] = pack(other, [Row(0, 3, T0 + 5 * SECOND), Row(0, 4, T0 + 1)])
    assert found.watermarks_ms.tolist() == [T0 - 10 * SECOND, T0 - 5 * SECOND]


def test_a_bundle_that_is_tried_again_finds_nothing_late_that_was_not(fn: _PackFn) -> None:
    rows = [Row(0, 5 + i, T0 + i * MINUTE) for i in range(6)]
    first, again = pack(fn, rows), pack(fn, rows)
    watermarks = [[w for block, _ in found for w in block.watermarks_ms.tolist()] for found in (first, again)]
    assert watermarks[0] == watermarks[1] == [NO_WATERMARK_MS] * 3 + [T0 + i * MINUTE - 10 * SECOND for i in range(3)]


def test_a_fast_clock_does_not_make_the_others_late_and_one_from_the_future_is_found_out() -> None:
    fn = _PackFn(10 * SECOND, HOUR, 12)
    fn.setup()
    rows = [Row(0, i, T0 + i, key=b"u-%d" % i) for i in range(12)]
    rows[6] = rows[6]._replace(timestamp=T0 + 50 * MINUTE)
    rows[8] = rows[8]._replace(timestamp=T0 + 1_000 * HOUR)
    [(found, _)] = pack(fn, rows)
    assert np.all(found.watermarks_ms <= T0 + 12)
    assert found.offsets[found.times_ms > found.limits_ms].tolist() == [8]
