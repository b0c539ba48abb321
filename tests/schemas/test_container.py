"""Object container files: whatever is broken in one costs its own records, counted by the block's own count."""

from __future__ import annotations

import contextlib
import io
import json
import tracemalloc
import zlib
from typing import Any

import fastavro
import pytest
from hypothesis import given
from hypothesis import strategies as st

from schemas import codec
from schemas.codec import Undecodable
from schemas.container import Container, UnreadablePacking
from schemas.events import OrderEvent, avro_schema
from tests import strategies
from tests.build import T0, fetch, order, payload

CODECS = ["null", "deflate", "bzip2", "snappy", "xz", "zstandard"]
SYNC = bytes(range(16))


def container(*records: Any) -> bytes:
    out = io.BytesIO()
    codec.write_container(out, type(records[0]), records)
    return out.getvalue()


def long(value: int) -> bytes:
    out = io.BytesIO()
    fastavro.schemaless_writer(out, "long", value)
    return out.getvalue()


def text(value: bytes) -> bytes:
    return long(len(value)) + value


def header(schema: Any = None, codec: str = "null") -> bytes:
    meta = {"avro.schema": json.dumps(avro_schema("OrderEvent") if schema is None else schema), "avro.codec": codec}
    pairs = b"".join(text(k.encode()) + text(v.encode()) for k, v in meta.items())
    return b"Obj\x01" + long(len(meta)) + pairs + long(0) + SYNC


def blocks_file(blocks: list[bytes], counts: list[int], schema: Any = None, codec: str = "null") -> bytes:
    """A container file put together by hand, so that what is in it can be anything."""
    parts = (long(n) + text(data) + SYNC for n, data in zip(counts, blocks, strict=True))
    return header(schema, codec) + b"".join(parts)


def read(raw: bytes) -> list[Any]:
    return list(Container(io.BytesIO(raw)))


def datum(record: Any) -> bytes:
    return payload(record)[codec.FRAME_BYTES :]


def packed(name: str, blocks: int = 3, of: int = 10) -> tuple[bytes, list[int]]:
    """A file of so many blocks, and where each begins; the codec's own writer made it."""
    out = io.BytesIO()
    writer = fastavro.write.Writer(
        out, fastavro.parse_schema(avro_schema("OrderEvent")), codec=name, sync_interval=1 << 20, sync_marker=SYNC
    )
    starts = []
    for i in range(blocks):
        starts.append(out.tell())
        for k in range(of):
            writer.write(json.loads(codec.to_json(order(f"o-{i}-{k}"))))
        writer.flush()
    return out.getvalue(), starts


@given(st.lists(strategies.orders, min_size=1, max_size=20))
def test_a_container_file_gives_every_record_with_its_bytes(written: list[OrderEvent]) -> None:
    file = Container(io.BytesIO(container(*written)))
    data = list(file)
    decoder = codec.Decoder(OrderEvent, fetch)
    assert [decoder.decode_datum(each.data, file.writer) for each in data] == written
    assert [each.data for each in data] == [datum(record) for record in written]
    assert not any(each.broken for each in data)


@pytest.mark.parametrize("name", CODECS)
def test_every_codec_of_the_specification_is_read(name: str) -> None:
    raw, _ = packed(name)
    assert [d.data for d in read(raw)] == [datum(order(f"o-{i}-{k}")) for i in range(3) for k in range(10)]


@pytest.mark.parametrize("name", CODECS[1:])
def test_a_flipped_byte_costs_at_most_the_records_of_its_block(name: str) -> None:
    raw, starts = packed(name)
    whole = [d.data for d in read(raw)]
    for at in range(starts[1], starts[2], 7):
        flipped = bytearray(raw)
        flipped[at] ^= 0x40
        found = read(bytes(flipped))
        assert [d.data for d in found[:10]] == whole[:10], at
        assert [d.data for d in found[-10:]] == whole[-10:], at


@pytest.mark.parametrize("name", CODECS[1:])
def test_a_block_that_cannot_be_unpacked_is_counted_by_its_own_count(name: str) -> None:
    raw, starts = packed(name)
    flipped = bytearray(raw)
    flipped[starts[1] + 12 : starts[1] + 15] = b"\xff\xff\xff"
    found = read(bytes(flipped))
    assert len(found) == 30
    assert [i for i, d in enumerate(found) if d.broken] == list(range(10, 20))
    assert f"block 2 cannot be unpacked by {name}" in found[10].broken
    assert found[10].data
    assert not any(d.data for d in found[11:20])


def test_a_file_of_several_blocks_gives_them_in_order() -> None:
    data = [datum(order(f"o-{i}")) for i in range(6)]
    assert [d.data for d in read(blocks_file([b"".join(data[:2]), b"".join(data[2:])], [2, 4]))] == data


def test_behind_a_bad_datum_the_rest_of_its_block_is_refused_record_by_record_and_the_next_block_is_read() -> None:
    good, after = datum(order("o-1")), datum(order("o-2"))
    bad = b"\x06o-9\xff\xff\xff\xff\xff\xff\xff\xff\xff\xff\xff"
    found = read(blocks_file([good + bad + after, after], [3, 1]))
    assert [d.data for d in found] == [good, bad + after, b"", after]
    assert [bool(d.broken) for d in found] == [False, True, True, False]


def test_what_a_block_holds_beyond_its_count_is_not_lost() -> None:
    data = [datum(order(f"o-{i}")) for i in range(4)]
    found = read(blocks_file([b"".join(data[:3]), data[3]], [1, 1]))
    assert [d.data for d in found] == [data[0], data[1] + data[2], data[3]]
    assert "behind its 1 records" in found[1].broken


def test_a_block_that_holds_less_than_its_count_says_so_for_each_that_is_missing() -> None:
    data = [datum(order(f"o-{i}")) for i in range(2)]
    found = read(blocks_file(data, [3, 1]))
    assert [(d.data, bool(d.broken)) for d in found] == [(data[0], False), (b"", True), (b"", True), (data[1], False)]


def test_a_file_cut_short_gives_what_is_before_the_cut_and_then_says_so() -> None:
    data = [datum(order(f"o-{i}")) for i in range(4)]
    whole = blocks_file([data[0], data[1], data[2] + data[3]], [1, 1, 2])
    for cut in (1, 17, 40, len(data[2]) + 17):
        found = read(whole[:-cut])
        assert [d.data for d in found[:2]] == data[:2]
        assert len(found) == 4
        assert all("block 3 is cut short" in d.broken for d in found[2:])


@pytest.mark.parametrize(
    ("block", "why"),
    [
        (long(-5) + text(b"x") + SYNC, "says that it has -5 records"),
        (long(1) + long(1 << 40) + b"x" + SYNC, "records in 1099511627776 bytes"),
        (long(1) + long(-3) + b"x" + SYNC, "in -3 bytes"),
        (b"\xff" * 20 + SYNC, "longer than 10 bytes"),
        (long(1) + long(9) + b"x" + SYNC, "does not end where it says"),
        (long(10**10) + text(b"x") + b"no marker" + SYNC, "that it has 10000000000 records is not believed"),
        (long(10**10) + text(b"x") + SYNC, "that it has 10000000000 records is not believed"),
    ],
)
def test_behind_a_block_whose_head_is_wrong_the_next_is_found_by_the_marker(block: bytes, why: str) -> None:
    good = datum(order("o-1"))
    one = long(1) + text(good) + SYNC
    found = read(header() + one + block + one)
    assert [d.data for d in found if not d.broken] == [good, good]
    (refused,) = [d for d in found if d.broken]
    assert why in refused.broken


@given(st.data())
def test_a_compressed_file_with_a_flipped_bit_gives_records_or_says_undecodable(data: st.DataObject) -> None:
    raw = bytearray(container(*[order(f"o-{i}") for i in range(20)]))
    raw[data.draw(st.integers(0, len(raw) - 1))] ^= 1 << data.draw(st.integers(0, 7))
    with contextlib.suppress(Undecodable):
        assert len(read(bytes(raw))) <= 100_000


@pytest.mark.parametrize(
    ("raw", "why"),
    [
        (b"", "the file is empty"),
        (b"Obj", "begins with b'Obj'"),
        (b"Obj\x01", "the header is broken"),
        (b'{"order_id":"o-1"}\n', "not an Avro object container file"),
        (b"junk" * 100, "not an Avro object container file"),
        (b"Obj\x01" + long(10**10), "the header is broken"),
        (header({"type": "object"}), "the schema in the header is not Avro"),
        (header().replace(b'{"type', b'["type'), "the schema in the header is not JSON"),
        (header().replace(b"avro.schema", b"avro.schemo"), "the schema in the header is not JSON"),
    ],
)
def test_what_is_no_container_file_is_undecodable_and_says_why(raw: bytes, why: str) -> None:
    with pytest.raises(Undecodable, match=why):
        read(raw)


def test_a_codec_that_cannot_be_read_is_named() -> None:
    with pytest.raises(UnreadablePacking, match="packed with lz4, and only null, deflate, bzip2, snappy"):
        read(header(codec="lz4"))


def test_a_block_that_unpacks_to_gigabytes_is_refused_in_little_memory() -> None:
    pack = zlib.compressobj(wbits=-15)
    bomb = b"".join(pack.compress(bytes(1 << 20)) for _ in range(600)) + pack.flush()
    tracemalloc.start()
    found = read(blocks_file([bomb], [2], codec="deflate"))
    assert tracemalloc.get_traced_memory()[1] < 300 << 20
    tracemalloc.stop()
    assert [d.broken[:27] for d in found] == ["block 1 cannot be unpacked "] * 2


def test_an_array_of_nulls_that_claims_ten_billion_items_is_a_broken_record() -> None:
    field = {"name": "a", "type": {"type": "array", "items": "null"}}
    schema = {"type": "record", "name": "OrderEvent", "fields": [field]}
    (found,) = read(blocks_file([long(10**10) + b"\0"], [1], schema))
    assert "record 0 of block 1 cannot be read: WalkError" in found.broken


EMPTY = {"type": "record", "name": "E", "fields": []}


def test_a_block_that_claims_ten_billion_records_of_no_bytes_is_refused_at_once() -> None:
    found = read(blocks_file([b"", b""], [10**10, 2], EMPTY))
    broken = [each.broken for each in found if each.broken]
    assert broken == ["block 1 has more than 1000 records of no bytes; that it has 9999999000 records is not believed"]
    assert len(found) == 1_000 + 1 + 2


@pytest.mark.timeout(60)
def test_however_many_blocks_claim_to_be_large_a_file_is_read_once() -> None:
    claims = (long(1) + long(2 << 20) + SYNC) * 300_000
    found = read(header() + claims + long(1) + text(datum(order())) + SYNC)
    assert len(found) > 150_000
    assert sum(not each.broken for each in found) == 0  # what the last claim reaches beyond is cut short


@pytest.mark.timeout(60)
def test_a_header_of_many_names_is_read_or_refused_in_little_time() -> None:
    names = b"".join(text(b"%06d" % i) + text(b"") for i in range(200_000))
    pairs = text(b"avro.schema") + text(json.dumps(avro_schema("OrderEvent")).encode())
    assert read(b"Obj\x01" + long(200_001) + names + pairs + long(0) + SYNC) == []
    large = text(b"a" * (9 << 20)) + text(b"") + text(b"b" * (9 << 20)) + text(b"")
    with pytest.raises(Undecodable, match="more than"):
        read(b"Obj\x01" + long(2) + large + long(0) + SYNC)


def test_a_container_file_keeps_logical_types_for_other_readers() -> None:
    found = fastavro.reader(io.BytesIO(container(order(at=T0))))
    assert next(iter(found))["event_time"].timestamp() * 1_000 == T0  # type: ignore[index,union-attr]
