"""Blocks sorted out into good, bad and late: every record exactly once, however the partition was cut into blocks."""

from __future__ import annotations

import copy
import io
import json
from collections.abc import Sequence
from typing import Any, NamedTuple

import fastavro
import msgspec
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from schemas import codec
from schemas.events import OrderEvent, avro_schema
from schemas.times import START_MS
from tests.build import (
    HIGH,
    HOUR,
    MINUTE,
    SECOND,
    T0,
    UNKNOWN_ID,
    block,
    click,
    fetch,
    item,
    order,
    payload,
)
from transforms.blocks import NO_WATERMARK_MS, Block
from transforms.decode import ORDERS, BlockDecoder, DecodedBlock
from transforms.errors import ATTEMPTS_HEADER, LATE_BY_REPLAY, BadRecord
from transforms.partition_clock import Clock, judge

LATENESS_MS = 10 * MINUTE
ALONE_ID = 11


def alone(writer_id: int) -> dict[str, Any]:
    """Also the schema of a writer whose records are not read by columns, though their bytes are the same."""
    if writer_id != ALONE_ID:
        return fetch(writer_id)
    ours = copy.deepcopy(avro_schema("OrderEvent"))
    [status] = [f for f in ours["fields"] if f["name"] == "order_status"]
    status["type"]["symbols"].append("NEW")
    return ours


def decoder(schema_of: Any = fetch) -> BlockDecoder[OrderEvent]:
    return BlockDecoder(ORDERS, "fraud-detector", schema_of, LATENESS_MS)


def good(decoded: DecodedBlock[OrderEvent]) -> list[str]:
    """order_ids of the good records."""
    by_columns = [name for part in decoded.parts for name in part.columns.texts("order_id", part.rows)]
    return sorted(by_columns + [record.order_id for record in decoded.records])


def offsets(refused: Sequence[BadRecord]) -> list[int]:
    return sorted(r.offset for r in refused)


def spoilt(framed: bytes, old: bytes, new: bytes) -> bytes:
    assert framed.count(old) == 1
    return framed.replace(old, new)


class Bad(NamedTuple):
    """A payload and how it must be refused."""

    payload: bytes | None
    stage: str
    error_class: str
    message: str
    schema_id: int | None = 1


ORDER = payload(order("o-9", user="uuu"))
BAD = {
    "no payload": Bad(None, "decode", "NotFramed", "empty payload", None),
    "empty payload": Bad(b"", "decode", "NotFramed", "empty payload", None),
    "too short for a frame": Bad(b"\0\0\0", "decode", "NotFramed", "3 bytes are too short", None),
    "JSON that lacks fields": Bad(
        b'{"order_id":"o-9"}', "decode", "NotThisRecord", "required and not there: user_id, session_id", None
    ),
    "JSON that lacks fields and breaks rules in others": Bad(
        json.dumps({"order_id": "", "subtotal_minor": -1, "currency": "eur", "event_time": T0 // 1_000}).encode(),
        "decode",
        "NotThisRecord",
        "is_first_order; order_id is empty; subtotal_minor is negative: -1; "
        "currency is not three capital letters: 'eur'; "
        f"event_time {T0 // 1_000} is before the year 2000: seconds? Milliseconds since 1970 are wanted",
        None,
    ),
    "no known format": Bad(b"\x9f{}", "decode", "NotFramed", "it begins with 9f 7b 7d", None),
    "a frame and nothing in it": Bad(ORDER[:5], "decode", "Undecodable", "ends inside a value"),
    "cut in the middle": Bad(ORDER[: len(ORDER) // 2], "decode", "Undecodable", "not a OrderEvent"),
    "the last byte missing": Bad(ORDER[:-1], "decode", "Undecodable", "not a OrderEvent"),
    "a byte too many": Bad(ORDER + b"x", "decode", "Undecodable", "1 bytes left after the record"),
    "an unknown schema id": Bad(
        payload(order("o-9"), UNKNOWN_ID), "decode", "UnknownSchema", f"no schema with id {UNKNOWN_ID}", UNKNOWN_ID
    ),
    "a record of another kind": Bad(payload(click()), "decode", "Undecodable", "SchemaResolutionError", 2),
    "text that is not UTF-8": Bad(spoilt(ORDER, b"uuu", b"u\xffu"), "decode", "Undecodable", "UnicodeDecodeError"),
    "a status that does not exist": Bad(
        spoilt(ORDER, b"\x06s-1\0", b"\x06s-1\x0e"), "decode", "Undecodable", "index 7 of an enum"
    ),
    "a status below zero": Bad(spoilt(ORDER, b"\x06s-1\0", b"\x06s-1\1"), "decode", "Undecodable", "index -1"),
    "a negative amount": Bad(
        payload(order(total_amount_minor=-1)), "validate", "InvalidRecordError", "total_amount_minor is negative: -1"
    ),
    "a quantity of 0": Bad(
        payload(order(items=[item(), item(quantity=0)])), "validate", "InvalidRecordError", "quantity is below 1: 0"
    ),
    "an empty order_id": Bad(payload(order("")), "validate", "InvalidRecordError", "order_id is empty"),
    "an empty user_id": Bad(payload(order(user="")), "validate", "InvalidRecordError", "user_id is empty"),
    "a currency in small letters": Bad(
        payload(order(currency="try")), "validate", "InvalidRecordError", "currency is not three capital letters: 'try'"
    ),
    "more than an hour in the future": Bad(
        payload(order(at=T0 + HOUR + 1)), "validate", "InvalidRecordError", "more than 1 h after its record's"
    ),
    "an event time of 0": Bad(
        payload(order(at=0)), "validate", "InvalidRecordError", "event_time 0 is before the year 2000"
    ),
    "an event time below 0": Bad(
        payload(order(at=-5)), "validate", "InvalidRecordError", "event_time -5 is before the year 2000"
    ),
}


@pytest.mark.parametrize("name", BAD)
def test_a_bad_record_is_refused_with_stage_class_and_reason_and_spoils_no_other(name: str) -> None:
    bad = BAD[name]
    decoded = decoder().decode(block([order("o-1"), bad.payload, order("o-2")]))
    assert good(decoded) == ["o-1", "o-2"]
    (refused,) = decoded.bad
    assert (refused.stage, refused.error_class, refused.schema_id) == (bad.stage, bad.error_class, bad.schema_id)
    assert bad.message in refused.error_message
    assert refused.payload == bad.payload
    assert refused.offset == 1
    assert not decoded.late


def test_a_block_with_every_kind_of_bad_record_gives_one_dead_letter_each() -> None:
    payloads: list[Any] = []
    for bad in BAD.values():
        payloads += [order(f"o-{len(payloads):02}"), bad.payload]
    decoded = decoder().decode(block(payloads))
    assert good(decoded) == [f"o-{i:02}" for i in range(0, len(payloads), 2)]
    assert offsets(decoded.bad) == list(range(1, len(payloads), 2))
    by_offset = sorted(decoded.bad, key=lambda r: r.offset)
    assert [(r.payload, r.stage, r.error_class, r.schema_id) for r in by_offset] == [
        (b.payload, b.stage, b.error_class, b.schema_id) for b in BAD.values()
    ]


def test_a_dead_letter_says_where_it_came_from_and_when() -> None:
    headers = [("trace", b"\xff"), (ATTEMPTS_HEADER, b"2"), ("empty", None)]
    (refused,) = (
        decoder()
        .decode(
            block(
                [order("o-1"), b"junk"],
                topic="transactions.orders",
                partition=3,
                first_offset=41,
                times_ms=[T0, T0 + 7],
                keys=[b"u-1", b"\xffkey"],
                headers={1: headers},
            )
        )
        .bad
    )
    assert refused.seen_at > T0
    assert msgspec.structs.replace(refused, seen_at=0) == BadRecord(
        payload=b"junk",
        job="fraud-detector",
        stage="decode",
        error_class="NotFramed",
        error_message="in none of the formats that are read: magic byte is 106, it begins with 6a 75 6e 6b",
        topic="transactions.orders",
        partition=3,
        offset=42,
        timestamp=T0 + 7,
        key=b"\xffkey",
        headers=headers,
        schema_id=None,
        attempts=3,
        seen_at=0,
    )
    assert BadRecord.from_json(refused.to_json()) == refused


@pytest.mark.parametrize("value", [None, b"", b"x", b"-1", b"1.5", "٣".encode(), b"9" * 5_000])
def test_a_header_of_attempts_that_is_no_number_counts_as_none(value: bytes | None) -> None:
    (refused,) = decoder().decode(block([b"junk"], headers={0: [(ATTEMPTS_HEADER, value)]})).bad
    assert refused.attempts == 1


# Late records


def test_a_record_exactly_the_allowed_lateness_behind_the_watermark_is_good_and_one_more_millisecond_is_late() -> None:
    edge = T0 - LATENESS_MS
    decoded = decoder().decode(block([order("o-1", at=edge), order("o-2", at=edge - 1)], watermarks_ms=T0))
    assert good(decoded) == ["o-1"]
    (late,) = decoded.late
    assert (late.payload, late.offset) == (payload(order("o-2", at=edge - 1)), 1)
    assert (late.stage, late.error_class) == ("lateness", "Late")
    assert str(T0) in late.error_message
    assert not decoded.bad


def test_each_record_is_compared_with_the_watermark_before_it_not_with_its_blocks() -> None:
    orders = [order("o-1", at=T0), order("o-2", at=T0)]
    decoded = decoder().decode(block(orders, watermarks_ms=[T0, T0 + LATENESS_MS + 1]))
    assert good(decoded) == ["o-1"]
    assert offsets(decoded.late) == [1]


@pytest.mark.parametrize("behind_ms", [HOUR, 24 * HOUR])
@pytest.mark.parametrize("writer_id", [1, ALONE_ID])
def test_a_late_record_that_replay_sent_back_lands_or_is_named_late_by_replay(behind_ms: int, writer_id: int) -> None:
    """Whether it is read by columns or alone; and one that is not late is good like any other."""
    sent_back = [(ATTEMPTS_HEADER, b"1")]
    orders = [order("o-late", at=T0 - behind_ms), order("o-old", at=T0 - behind_ms), order("o-new", at=T0)]
    late = block(
        [payload(each, writer_id) for each in orders],
        watermarks_ms=T0,
        headers={1: sent_back, 2: sent_back},
    )
    refused = decoder(alone).decode(late)
    assert [(bad.offset, bad.stage, bad.error_class) for bad in refused.late] == [
        (0, "lateness", "Late"),
        (1, "replay", LATE_BY_REPLAY),
    ]
    assert (good(refused), refused.bad, refused.landed) == (["o-new"], [], set())
    landed = BlockDecoder(ORDERS, "archiver", alone, LATENESS_MS, lands_replays=True).decode(late)
    assert (good(landed), offsets(landed.late), landed.landed) == (["o-new", "o-old"], [0], {1})


def test_before_the_first_watermark_nothing_is_late() -> None:
    assert good(decoder().decode(block([order("o-1", at=START_MS)], watermarks_ms=NO_WATERMARK_MS))) == ["o-1"]


def test_a_bad_record_is_bad_even_if_it_is_late_as_well() -> None:
    decoded = decoder().decode(block([order("o-1", at=START_MS, currency="?")], watermarks_ms=T0))
    assert offsets(decoded.bad) == [0]
    assert not decoded.late


def test_a_late_record_that_had_to_be_read_alone_is_late_too() -> None:
    lines = [codec.to_json(order("o-1", at=T0 - LATENESS_MS - 1)), codec.to_json(order("o-2"))]
    decoded = decoder().decode(block(lines, encoding="json", watermarks_ms=T0))
    assert (good(decoded), offsets(decoded.late)) == (["o-2"], [0])


# Events from the future, and what was passed over


@pytest.mark.parametrize("writer_id", [1, ALONE_ID])
def test_an_event_at_its_limit_is_good_and_one_more_millisecond_is_from_the_future(writer_id: int) -> None:
    orders = [payload(order(f"o-{i}", at=T0 + i), writer_id) for i in range(3)]
    decoded = decoder(alone).decode(block(orders, limits_ms=np.array([T0, T0, T0 + 3])))
    assert good(decoded) == ["o-0", "o-2"]
    (bad,) = decoded.bad
    assert (bad.offset, bad.stage, bad.error_class) == (1, "validate", "InvalidRecordError")
    assert bad.error_message == f"event_time {T0 + 1} is from the future: its partition's clock allows none after {T0}"


@pytest.mark.parametrize("encoding", ["confluent", "json"])
def test_what_is_behind_a_watermark_that_passed_its_partition_over_is_refused_by_a_name_of_its_own(
    encoding: str,
) -> None:
    edge = T0 - LATENESS_MS
    orders = [order("o-1", at=edge), order("o-2", at=edge - 1), order("o-3", at=T0 - HOUR - LATENESS_MS - 1)]
    raw = [codec.to_json(each) if encoding == "json" else payload(each) for each in orders]
    decoded = decoder().decode(block(raw, encoding=encoding, watermarks_ms=T0 - HOUR, passed_ms=T0))
    assert good(decoded) == ["o-1"]
    assert [(late.offset, late.stage, late.error_class) for late in decoded.late] == [
        (1, "lateness", "Overtaken"),
        (2, "lateness", "Late"),
    ]
    archive = BlockDecoder(ORDERS, "archiver", fetch, LATENESS_MS, lands_replays=True)
    landed = archive.decode(block(raw, encoding=encoding, watermarks_ms=T0 - HOUR, passed_ms=T0))
    assert (good(landed), offsets(landed.late), landed.landed) == (["o-1", "o-2"], [2], {1})
    overtaken, late = (each.error_message for each in decoded.late)
    assert f"the job's watermark {T0}, which had passed the partition over" in overtaken
    assert f"the partition's watermark {T0 - HOUR}" in late


# Whatever is in a block


@st.composite
def mixtures(draw: Any) -> list[tuple[bytes | None, int]]:
    """Payloads with record timestamps: good, bad of every kind, late; named by their place."""
    kinds = draw(st.lists(st.sampled_from(["good", "good", "good", "old", "bad", "long"]), min_size=1, max_size=40))
    at, out = T0, []
    for i, kind in enumerate(kinds):
        at += draw(st.sampled_from([0, SECOND, MINUTE, 4 * MINUTE]))
        time_ms = at - (draw(st.sampled_from([MINUTE, 15 * MINUTE, HOUR])) if kind == "old" else 0)
        items = [item()] * (40 if kind == "long" else draw(st.integers(0, 3)))
        raw = payload(order(f"o-{i:02}", at=time_ms, items=items))
        if kind == "bad":
            raw = draw(st.sampled_from(list(BAD.values()))).payload
            time_ms = T0
        out.append((raw, time_ms))
    return out


def whole(records: Sequence[tuple[bytes | None, int]]) -> Block:
    return judged(records, Clock(), 0, at_end=True)[0]


def judged(
    records: Sequence[tuple[bytes | None, int]], clock: Clock, start: int, *, at_end: bool
) -> tuple[Block, Clock]:
    """A block of those that can be judged, as the source makes it, and the clock after it."""
    times_ms = np.array([t for _, t in records], np.int64)
    keys = np.arange(start, start + len(records)) % 5
    found = judge(clock, times_ms, keys, 10 * SECOND, HOUR, wall_ms=T0 + 100 * HOUR, at_end=at_end)
    made = block(
        [p for p, _ in records[: found.taken]],
        times_ms=times_ms[: found.taken].tolist(),
        watermarks_ms=found.watermarks_ms.tolist(),
        limits_ms=found.limits_ms,
        first_offset=start,
    )
    return made, found.clock


@given(mixtures())
def test_every_record_of_a_block_is_good_bad_or_late_and_none_of_them_twice(
    records: list[tuple[bytes | None, int]],
) -> None:
    taken = whole(records)
    decoded = decoder().decode(taken)
    assert len(taken) == decoded.good + len(decoded.bad) + len(decoded.late)
    accounted = [int(name[2:]) for name in good(decoded)] + offsets(decoded.bad) + offsets(decoded.late)
    assert sorted(accounted) == list(range(len(records)))
    for refused in decoded.bad + decoded.late:
        assert (refused.payload, refused.timestamp) == records[refused.offset]


@given(mixtures(), st.data())
def test_which_records_are_good_bad_and_late_does_not_depend_on_where_the_partition_is_cut(
    records: list[tuple[bytes | None, int]], data: st.DataObject
) -> None:
    cuts = sorted(data.draw(st.sets(st.integers(1, len(records)), max_size=6)) | {0, len(records)})
    clock, one = Clock(), decoder()
    pieces, start = [], 0
    for stop in cuts[1:]:
        piece, clock = judged(records[start:stop], clock, start, at_end=stop == len(records))
        pieces.append(one.decode(piece))
        start += len(piece)
    at_once = decoder().decode(whole(records))
    assert sorted(name for p in pieces for name in good(p)) == good(at_once)
    assert offsets([r for p in pieces for r in p.bad]) == offsets(at_once.bad)
    assert offsets([r for p in pieces for r in p.late]) == offsets(at_once.late)


# Writers of other versions, other encodings


def written(fields: Any, schema: Any, writer_id: int = 7) -> bytes:
    out = io.BytesIO()
    fastavro.schemaless_writer(out, codec.parse_schema(schema), fields)
    return b"\0" + writer_id.to_bytes(4, "big") + out.getvalue()


def changed(change: Any) -> dict[str, Any]:
    schema = copy.deepcopy(avro_schema("OrderEvent"))
    change(schema, {f["name"]: f for f in schema["fields"]})
    return schema


OTHER_ENUM = ["REFUNDED", "CANCELLED", "CREATED"]
WRITERS = {
    "the same": changed(lambda _s, _f: None),
    "an extra field": changed(lambda s, _: s["fields"].insert(2, {"name": "gift", "type": ["null", "string"]})),
    "fields in another order": changed(lambda s, _: s["fields"].reverse()),
    "symbols in another order": changed(lambda _, f: f["order_status"]["type"].update(symbols=OTHER_ENUM)),
    "symbols that we do not know": changed(lambda _, f: f["order_status"]["type"]["symbols"].insert(0, "LOST")),
    "narrower numbers": changed(lambda _, f: f["total_amount_minor"].update(type="int")),
    "another namespace": changed(lambda s, _: s.update(namespace="shop")),
    "aliases": changed(lambda s, f: (s.update(aliases=["Purchase"]), f["user_id"].update(aliases=["customer"]))),
    "a map, which columns cannot read": changed(
        lambda s, _: s["fields"].append({"name": "labels", "type": {"type": "map", "values": "string"}})
    ),
    "another name": changed(lambda s, _: s.update(name="Purchase")),
    "another name of an enum": changed(lambda _, f: f["order_status"]["type"].update(name="State")),
    "another name of the items": changed(lambda _, f: f["items"]["type"]["items"].update(name="Line")),
    "a missing field": changed(lambda s, f: s["fields"].remove(f["currency"])),
}


@pytest.mark.parametrize("name", WRITERS)
def test_a_block_says_the_same_of_a_writers_records_as_the_decoder_of_single_ones(name: str) -> None:
    schema = WRITERS[name]
    statuses = next(f["type"]["symbols"] for f in schema["fields"] if f["name"] == "order_status")
    orders = [{**msgspec.to_builtins(order(f"o-{i}")), "order_status": s} for i, s in enumerate(statuses)]
    raws = [written({"labels": {"a": "b"}, "gift": "ja", **fields}, schema) for fields in orders]
    one, expected = codec.Decoder(OrderEvent, lambda _: schema), {}
    for i, raw in enumerate(raws):
        try:
            expected[f"o-{i}"] = one.decode(raw).order_status
        except codec.Undecodable:
            continue
    decoded = decoder(lambda _: schema).decode(block(raws))
    found = {record.order_id: record.order_status for record in decoded.records}
    for part in decoded.parts:
        symbols = [part.symbols["order_status"][k] for k in part.columns.ints["order_status"][part.rows]]
        found |= dict(zip(part.columns.texts("order_id", part.rows), symbols, strict=True))
    assert found == expected
    assert len(decoded.bad) == len(raws) - len(expected)


def test_records_of_several_writers_in_one_block_are_all_read() -> None:
    schemas = {10: WRITERS["an extra field"], 11: WRITERS["fields in another order"], 12: WRITERS["narrower numbers"]}
    raws = []
    for i in range(12):
        fields = {**msgspec.to_builtins(order(f"o-{i:02}", amount=HIGH)), "gift": None}
        raws.append(written(fields, schemas[10 + i % 3], 10 + i % 3))
    decoded = decoder(schemas.__getitem__).decode(block(raws))
    assert good(decoded) == [f"o-{i:02}" for i in range(12)]


@pytest.mark.parametrize(
    "schema", ["string", {"type": "string"}, ["null", "string"], [], {}, {"type": "object"}, {"type": "map"}], ids=str
)
def test_an_id_under_which_no_avro_record_is_registered_gives_dead_letters_and_no_crash(schema: Any) -> None:
    one = decoder(lambda writer_id: schema if writer_id == 9 else fetch(writer_id))
    decoded = one.decode(block([order("o-1"), payload(order("o-2"), 9), order("o-3")]))
    assert good(decoded) == ["o-1", "o-3"]
    assert [(r.offset, r.error_class, r.schema_id) for r in decoded.bad] == [(1, "Undecodable", 9)]


def test_an_unreachable_registry_makes_no_dead_letters() -> None:
    def unreachable(_: int) -> dict[str, Any]:
        raise ConnectionRefusedError

    with pytest.raises(codec.SchemaUnavailable, match="ConnectionRefusedError"):
        decoder(unreachable).decode(block([order()]))


def test_an_id_that_is_registered_later_is_read_from_then_on() -> None:
    known: dict[int, dict[str, Any]] = {}

    def registry(writer_id: int) -> dict[str, Any]:
        if writer_id not in known:
            raise codec.UnknownSchema("not yet")
        return known[writer_id]

    one = decoder(registry)
    assert len(one.decode(block([payload(order("o-1"), 8)])).bad) == 1
    known[8] = avro_schema("OrderEvent")
    assert good(one.decode(block([payload(order("o-1"), 8)]))) == ["o-1"]


def test_json_lines_are_read_one_at_a_time_with_the_same_rules() -> None:
    missing = json.dumps({"order_id": "o-9"}).encode()
    lines = [
        codec.to_json(order("o-1")),
        b"{",
        missing,
        codec.to_json(order("o-2", total_amount_minor=-1)),
        codec.to_json(order("o-3")).replace(b'"total_amount_minor":10000', b'"total_amount_minor":1' + b"0" * 30),
        b"",
    ]
    decoded = decoder().decode(block(lines, encoding="json"))
    assert good(decoded) == ["o-1"]
    assert [(r.offset, r.error_class) for r in decoded.bad] == [
        (1, "Undecodable"),
        (2, "NotThisRecord"),
        (3, "InvalidRecordError"),
        (4, "NotThisRecord"),
        (5, "Undecodable"),
    ]
    assert [r.payload for r in decoded.bad] == lines[1:]


def test_data_of_a_container_file_are_read_with_its_schema() -> None:
    data = [payload(order(f"o-{i}"))[5:] for i in range(3)]
    data[1] = data[1][:-1]
    decoded = decoder().decode(block(data, encoding="avro", schema=codec.parse_schema(avro_schema("OrderEvent"))))
    assert good(decoded) == ["o-0", "o-2"]
    assert [(r.offset, r.error_class, r.schema_id) for r in decoded.bad] == [(1, "Undecodable", None)]


@pytest.mark.parametrize("schema", [{"type": "null"}, {"type": "string"}, {"type": "array", "items": "long"}], ids=str)
def test_a_container_file_of_something_else_gives_dead_letters(schema: Any) -> None:
    decoded = decoder().decode(block([b"", b"\x02x"], encoding="avro", schema=schema))
    assert [r.error_class for r in decoded.bad] == ["Undecodable"] * 2


_SPOILT = st.sampled_from(
    [
        b"",
        b"[]",
        b"{",
        b'{"order_id":"\\ud800"}',
        b'{"order_id":1e999}',
        b"[" * 5_000,
        b'{"order_id":NaN}',
        b"\xef\xbb\xbf{}",
        b"{\xff}",
    ]
)
_FIELDS = st.dictionaries(
    st.sampled_from([*OrderEvent.__struct_fields__, "other"]), st.none() | st.integers() | st.text(max_size=3)
)


def _json_of(given: tuple[OrderEvent, dict[str, Any]]) -> bytes:
    record, changes = given
    return msgspec.json.encode(msgspec.to_builtins(record) | changes)


@given(
    st.lists(
        st.builds(order, st.text(max_size=3), currency=st.sampled_from(["TRY", "JPY", "QQQ", "eur"])).map(codec.to_json)
        | st.tuples(st.builds(order), _FIELDS).map(_json_of)
        | _SPOILT,
        max_size=8,
    )
)
def test_a_block_of_json_gives_what_its_messages_give_one_by_one(lines: list[bytes]) -> None:
    alone, wanted, refused = codec.Decoder(OrderEvent, fetch), [], []
    for i, line in enumerate(lines):
        try:
            record = alone.decode(line)
            ORDERS.check(record, T0)
        except (codec.CodecError, ValueError) as e:
            refused.append((i, type(e).__name__))
        else:
            wanted.append((i, record))
    decoded = decoder().decode(block(lines, times_ms=[T0] * len(lines)))
    assert sorted(zip(decoded.numbers, decoded.records, strict=True), key=lambda each: each[0]) == wanted
    assert sorted((bad.offset, bad.error_class) for bad in decoded.bad) == refused
