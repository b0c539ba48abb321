"""Whatever bytes, schemas, headers and files come, decoding refuses or reads: nothing else, in bounded time and memory.

    python -m tests.fuzz.hostile --seconds=60 --seed=7       # every target for a minute
    python -m tests.fuzz.hostile --target=avro --case=1234   # one case again

Each case is made from its target, seed and number alone. It runs in a process of its own, with limits: a segmentation
fault or an endless loop in a library is a finding like any other.
"""

from __future__ import annotations

import argparse
import copy
import faulthandler
import io
import json
import random
import resource
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import fastavro

from schemas import codec
from schemas.events import avro_schema
from tests.build import T0, block, click, fetch, order, payload
from tests.changes import CUSTOMER, ITEM, MOVEMENT, ORDER, PRODUCT, record
from transforms.archive import ORDERS_TABLE, ArchiveRows
from transforms.blocks import Block
from transforms.cdc import ChangeDecoding, DecodeChanges
from transforms.decode import CLICKS, ORDERS, BlockDecoder, RecordKind
from transforms.errors import ATTEMPTS_HEADER, BadRecord
from transforms.io import files
from transforms.isolate import UNEXPECTED, in_pieces

MEMORY = 3 << 30
CASE_SECONDS = 20  # on a machine that does other things as well
CODECS = ["null", "deflate", "bzip2", "snappy", "xz", "zstandard"]
NUMBERS = [0, 1, -1, 2, 3, 63, 64, -64, 127, 1 << 31, 10**10, (1 << 62), -(1 << 63), (1 << 63) - 1]


def long(value: int) -> bytes:
    out = io.BytesIO()
    fastavro.schemaless_writer(out, "long", value)
    return out.getvalue()


def noise(rng: random.Random, most: int = 200) -> bytes:
    """Bytes that look like Avro now and then."""
    parts = [
        lambda: rng.randbytes(rng.randrange(12)),
        lambda: long(rng.choice(NUMBERS)),
        lambda: bytes([rng.choice([0, 1, 2, 4, 0xFF])]) * rng.choice([1, 2, 70, 3_000, 30_000]),
        lambda: long(rng.randrange(8)) + b"o-9",
    ]
    out = b""
    while rng.random() < 0.8 and len(out) < most:
        out += rng.choice(parts)()
    return out


def spoilt(rng: random.Random, raw: bytes) -> bytes:
    """The bytes with some of them changed, cut out, doubled or put in."""
    out = bytearray(raw)
    for _ in range(rng.choice([0, 1, 1, 2, 5])):
        at = rng.randrange(len(out) + 1)
        match rng.randrange(5):
            case 0 if at < len(out):
                out[at] ^= 1 << rng.randrange(8)
            case 1:
                del out[at : at + rng.choice([1, 2, 30])]
            case 2:
                out[at:at] = out[at : at + rng.choice([1, 5, 100])]
            case 3:
                out[at:at] = noise(rng, 20)
            case _:
                del out[at:]
    return bytes(out)


def schema(rng: random.Random, names: list[str], depth: int) -> Any:
    """A schema, often a recursive one and sometimes none."""
    kinds = ["primitive"] * 4 + ["name", "name", "record", "array", "map", "union", "enum", "fixed", "junk"]
    kind = rng.choice(kinds if depth else ["primitive"])
    name = f"N{len(names)}"

    def inner() -> Any:
        return schema(rng, names, depth - 1)

    match kind:
        case "name" if names:
            return rng.choice(names)
        case "record":
            names.append(name)
            fields = [{"name": f"f{i}", "type": inner()} for i in range(rng.randrange(4))]
            if fields and rng.random() < 0.3:
                fields[0]["default"] = rng.choice([None, "x", 7, {}])
            return {"type": "record", "name": name, "fields": fields}
        case "array":
            return {"type": "array", "items": inner()}
        case "map":
            return {"type": "map", "values": inner()}
        case "union":
            return [inner() for _ in range(rng.randrange(4))]
        case "enum":
            names.append(name)
            return {"type": "enum", "name": name, "symbols": rng.choice([["A", "B"], [], "AB", [1], ["A", "A"]])}
        case "fixed":
            names.append(name)
            return {"type": "fixed", "name": name, "size": rng.choice([0, 1, 3, -1, 1 << 40, "3", None, True])}
        case "junk":
            return rng.choice([None, 7, {}, [], "Nobody", {"type": []}, {"type": {"type": "string"}}, {"fields": []}])
    return rng.choice(["null", "boolean", "int", "long", "float", "double", "string", "bytes"])


def writer_of(rng: random.Random, record: str) -> Any:
    """A writer's schema: the record's own with some of it changed, or any."""
    if rng.random() < 0.2:
        return schema(rng, [], 4)
    found = copy.deepcopy(avro_schema(record))
    for _ in range(rng.randrange(3)):
        field = {"name": f"x{rng.randrange(100)}", "type": schema(rng, [found["name"]], 3)}
        match rng.randrange(3):
            case 0:
                rng.choice(found["fields"])["type"] = field["type"]
            case 1:
                found["fields"].remove(rng.choice(found["fields"]))
            case _:
                found["fields"].insert(rng.choice([0, len(found["fields"])]), field)
    return found


def headers(rng: random.Random) -> list[tuple[str, bytes | None]]:
    names = ["a", "", "ü" * 50, ATTEMPTS_HEADER, "__value_schema_id", "content-type", "\x00"]
    values = [None, b"", b"1", b"9" * 5_000, b"\xff\xfe", b"-1", b"application/json"]
    return [(rng.choice(names), rng.choice(values)) for _ in range(rng.randrange(3))]


def read(taken: Block, kind: RecordKind[Any], fetch_schema: Callable[[int], Any]) -> None:
    """Decodes a block as a job does. Every record is good, bad or late, and no error is one that nobody foresaw."""
    decoder = BlockDecoder(kind, "fuzz", fetch_schema, 0)
    rows = ArchiveRows(ORDERS_TABLE) if kind is ORDERS else None
    decoded = decoder.decode(taken)
    if rows is not None:
        rows(decoded, 4)
    assert decoded.good + len(decoded.bad) + len(decoded.late) == len(taken)
    for letter in (*decoded.bad, *decoded.late):
        assert letter.error_class != UNEXPECTED
        assert BadRecord.from_json(letter.to_json()) == letter
    for piece, _ in in_pieces(taken, len):
        assert piece is taken


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


def schemas(rng: random.Random) -> None:
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
    raw = out.getvalue()
    if rng.random() < 0.3:
        hostile = json.dumps(writer_of(rng, "OrderEvent")).encode()
        body = noise(rng)
        raw = b"Obj\x01\x02" + long(11) + b"avro.schema" + long(len(hostile)) + hostile + b"\0" + bytes(16)
        raw += long(rng.choice(NUMBERS)) + long(len(body)) + body + bytes(16)
    _file(rng, "x.avro", spoilt(rng, raw))


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
    _file(rng, "x.jsonl", rng.choice([b"\n", b"\r\n", b"\n\n"]).join(found))


def _file(rng: random.Random, name: str, raw: bytes) -> None:
    path = Path(_folder) / name
    path.write_bytes(raw)
    blocks = list(files._ReadFileFn(T0).process(str(path)))
    for each in blocks:
        read(each, ORDERS, fetch)


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
TARGETS = {f.__name__: f for f in (avro, schemas, containers, lines, changes)}
_folder = "."


def main() -> None:
    global _folder
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--target", choices=TARGETS, action="append")
    parser.add_argument("--seconds", type=float, default=3, help="for each target")
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--case", type=int, help="this one only")
    parser.add_argument("--folder", default="/tmp", help="for the files that are tried, and `case`: what is tried now")
    flags = parser.parse_args()
    _folder = flags.folder
    resource.setrlimit(resource.RLIMIT_AS, (MEMORY, MEMORY))
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    faulthandler.enable()
    for target in flags.target or TARGETS:
        until = time.monotonic() + flags.seconds
        number = flags.case or 0
        while (flags.case is None and time.monotonic() < until) or number == flags.case:
            Path(_folder, "case").write_text(f"--target={target} --seed={flags.seed} --case={number}")
            faulthandler.dump_traceback_later(CASE_SECONDS, exit=True)
            TARGETS[target](random.Random(f"{target} {flags.seed} {number}"))
            number += 1
        faulthandler.cancel_dump_traceback_later()
        print(f"{target}: {number} cases", flush=True)
    sys.exit(0)


if __name__ == "__main__":
    main()
