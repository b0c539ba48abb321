"""What jobs read: messages, schemas, files, database changes. Every record is good, bad, late or ignored."""

from __future__ import annotations

import contextlib
import io
import json
import random
import tempfile
from collections.abc import Callable
from functools import cache
from pathlib import Path
from typing import Any

import fastavro
import msgspec

from schemas import codec
from schemas.events import avro_schema
from schemas.framing import FORMATS
from schemas.mapping import parse_mapping, shipped
from schemas.proto_text import ProtoTextError, file_of
from tests import foreign
from tests.build import T0, block, click, fetch, order, payload
from tests.changes import CUSTOMER, ITEM, MOVEMENT, ORDER, PRODUCT, record
from tests.framed import _PROTO, _message_class
from tests.fuzz.making import CODECS, NUMBERS, changed, headers, long, noise, spoilt, writer_of
from transforms.archive import CLICKSTREAM, ORDERS_TABLE, ArchiveRows
from transforms.blocks import Block
from transforms.cdc import ChangeDecoding, DecodeChanges
from transforms.decode import CLICKS, ORDERS, BlockDecoder, DecodedBlock, RecordKind
from transforms.errors import BadRecord
from transforms.io import files
from transforms.isolate import UNEXPECTED, in_pieces

__all__ = ["avro", "changes", "containers", "lines", "messages", "schemas"]


def read(
    taken: Block, kind: RecordKind[Any], fetch_schema: Callable[[int], Any], wanted: str = "auto", mapped: Any = None
) -> DecodedBlock[Any]:
    """Decodes a block as a job does. Every record is good, bad or late, and no error is one that nobody foresaw."""
    decoded = BlockDecoder(kind, "fuzz", fetch_schema, 0, wanted=wanted, mapped=mapped).decode(taken)
    assert decoded.good + len(decoded.bad) + len(decoded.late) + len(decoded.ignored) == len(taken)
    for letter in (*decoded.bad, *decoded.late):
        assert letter.error_class != UNEXPECTED
        assert BadRecord.from_json(letter.to_json()) == letter
    for piece, _ in in_pieces(taken, len):
        assert piece is taken
    table = ORDERS_TABLE if kind is ORDERS else CLICKSTREAM
    ours = codec.parse_schema(avro_schema(kind.record.__name__))
    archived = [row for rows in ArchiveRows(table)(decoded, 4).values() for row in rows]
    assert len(archived) == decoded.good
    if taken.encoding == "confluent" and mapped is None:
        for offset, _, _, datum in archived:
            raw = taken.payload(offset) or b""
            if raw[:1] == b"\0" and not taken.headers.get(offset):
                _agrees(raw, datum, fetch_schema(int.from_bytes(raw[1:5], "big")), ours)
            elif raw[:1] == b"{" and not taken.headers.get(offset):
                found = msgspec.convert(json.loads(raw), kind.record)
                assert datum == codec.encode_datum(found, ours)
    return decoded


def _agrees(raw: bytes, datum: bytes, writer: Any, ours: Any) -> None:
    """What the columns made of Avro is what fastavro reads."""
    if not isinstance(writer, codec.Described):
        read_alone = fastavro.schemaless_reader(io.BytesIO(raw[5:]), codec.Writer(writer).schema, ours)
        assert fastavro.schemaless_reader(io.BytesIO(datum), ours, None) == read_alone


def avro(rng: random.Random) -> None:
    kind, make = rng.choice([(ORDERS, order), (CLICKS, click)])
    writers = {i: writer_of(rng, kind.record.__name__) for i in range(10, 13)}

    def fetch_schema(writer_id: int) -> Any:
        return writers[writer_id] if writer_id in writers else fetch(writer_id)

    payloads: list[bytes | None] = []
    for i in range(rng.choice([1, 12, 12, 40])):
        good = payload(make(f"o-{i}"))
        body = rng.choice([good[5:], good[5:] + noise(rng), spoilt(rng, good[5:]), noise(rng)])
        frame = b"\0" + rng.choice([1, 2, 10, 11, 12, 12, 4_040]).to_bytes(4, "big")
        payloads.append(rng.choice([frame + body] * 8 + [noise(rng), None, good]))
    times = [rng.choice([T0, T0, 0, -1, 1 << 62]) for _ in payloads]
    found = {i: headers(rng) for i in range(len(payloads)) if rng.random() < 0.3}
    read(block(payloads, times_ms=times, headers=found, watermarks_ms=rng.choice([T0, 0])), kind, fetch_schema)


def messages(rng: random.Random) -> None:
    """Every other format, and every mapping that is shipped."""
    source = rng.choice(sorted(foreign.SOURCES))
    mapped = parse_mapping(shipped(source)).of(ORDERS.record) if rng.random() < 0.5 else None
    protos = {20: _PROTO, 21: spoilt(rng, _PROTO.encode()).decode(errors="replace"), 22: "\0" * 9}

    def fetch_schema(key: Any) -> Any:
        if key in protos:
            return codec.Described("PROTOBUF", protos[key], (("other.proto", protos[21]),))
        return codec.Described("JSON", "{") if key == 23 else fetch(key)

    payloads: list[bytes | None] = []
    for _ in range(rng.choice([1, 6])):
        ours = msgspec.to_builtins(order())
        theirs = foreign.stream(source, 1, rng.randrange(256))[0].message
        event = {"specversion": "1.0", "id": "1", "source": "/s", "type": "o", "data": ours, "data_base64": "e30="}
        fields = rng.choice([ours, theirs, event])
        as_json = json.dumps(changed(rng, fields) if rng.random() < 0.7 else fields).encode()
        frame = b"\0" + rng.choice([20, 20, 21, 22, 23, 1]).to_bytes(4, "big")
        raw = rng.choice(
            [as_json, frame + b"\0" + _as_protobuf(), frame + as_json, b"\xc3\x01" + noise(rng), noise(rng)]
        )
        payloads.append(spoilt(rng, raw) if rng.random() < 0.5 else raw)
    found = {i: headers(rng) for i in range(len(payloads)) if rng.random() < 0.3}
    read(block(payloads, headers=found), ORDERS, fetch_schema, rng.choice(["auto", "auto", *FORMATS]), mapped)


@cache
def _as_protobuf() -> bytes:
    return bytes(_message_class()(**msgspec.to_builtins(order())).SerializeToString())


def schemas(rng: random.Random) -> None:
    with contextlib.suppress(ProtoTextError):
        file_of(spoilt(rng, _PROTO.encode()).decode(errors="replace"), "x.proto")
    text = spoilt(rng, json.dumps(writer_of(rng, "OrderEvent")).encode())
    if rng.random() < 0.2:
        text = b'{"type":' * rng.randrange(5_000) + text
    try:
        found = json.loads(text)
    except (ValueError, RecursionError):
        return
    try:
        codec.Writer(found)
    except codec.Undecodable:
        return
    read(block([b"\0\0\0\0\x09" + noise(rng) for _ in range(9)]), ORDERS, lambda _: found)


def containers(rng: random.Random) -> None:
    out = io.BytesIO()
    writer = fastavro.parse_schema(avro_schema("OrderEvent"))
    orders = [json.loads(codec.to_json(order(f"o-{i}"))) for i in range(rng.choice([1, 30]))]
    fastavro.writer(out, writer, orders, codec=rng.choice(CODECS), sync_interval=rng.choice([1, 1_000]))
    whole = raw = out.getvalue()
    if rng.random() < 0.3:
        hostile = json.dumps(writer_of(rng, "OrderEvent")).encode()
        body = noise(rng)
        raw = b"Obj\x01\x02" + long(11) + b"avro.schema" + long(len(hostile)) + hostile + b"\0" + bytes(16)
        raw += long(rng.choice(NUMBERS)) + long(len(body)) + body + bytes(16)
    raw = spoilt(rng, raw)
    good = _file("x.avro", raw)
    assert raw != whole or good == len(orders)


def lines(rng: random.Random) -> None:
    parts = [
        codec.to_json(order()),
        b"[" * 50_000,
        b'{"a":' * 50_000,
        b"1" * 20_000,
        b"NaN",
        b'"\\ud800"',
        b"\xef\xbb\xbf",
    ]
    fields = [b'"order_id":"x"', b'"total_amount_minor":1e400', b'"event_time":-0', b'"items":[[]]', b'"a":"\\u0000"']
    found = []
    for _ in range(20):
        raw = rng.choice(parts)
        if rng.random() < 0.4:
            raw = raw.replace(b"{", b"{" + rng.choice(fields) + b",", 1)
        found.append(spoilt(rng, raw) if len(raw) < 5_000 else raw)
    _file("x.jsonl", rng.choice([b"\n", b"\r\n", b"\n\n"]).join(found))


def _file(name: str, raw: bytes) -> int:
    """How many good orders a job finds in it."""
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / name
        path.write_bytes(raw)
        return sum(read(each, ORDERS, fetch).good for each in files._ReadFileFn(T0).process(str(path)))


def changes(rng: random.Random) -> None:
    decode = DecodeChanges(ChangeDecoding("fuzz", 4, history=True, make_hash_key=lambda: None))._fn
    decode.setup()
    raws: list[bytes | None] = []
    for _ in range(20):
        table = rng.choice(list(ROWS))
        row = dict(ROWS[table])
        row[rng.choice(list(row))] = rng.choice([None, "", 7, -1, 1 << 70, 1.5, "x" * 999, [], {}, True])
        key, value = record(rng.choice("cudrtm"), table, *rng.choice([(None, row), (row, None), (row, row)]))
        raw = rng.choice([value, value, key, b"[" * 50_000, None, json.dumps({"key": None, "value": row}).encode()])
        raws.append(raw if raw is None or len(raw) > 9_000 else spoilt(rng, raw))
    as_json = rng.random() < 0.5
    taken = block([raw or b"{}" for raw in raws] if as_json else raws, encoding="json" if as_json else "confluent")
    for out in decode.process(taken):
        if getattr(out, "tag", "") == "bad":
            assert out.value.error_class != UNEXPECTED, out.value.error_message
            out.value.to_json()


ROWS: dict[str, dict[str, Any]] = {
    "products": PRODUCT,
    "customers": CUSTOMER,
    "orders": ORDER,
    "order_items": ITEM,
    "inventory_movements": MOVEMENT,
}
