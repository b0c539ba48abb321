"""What the fuzzers make their cases of: valid inputs that are spoilt, hostile schemas, and noise."""

from __future__ import annotations

import copy
import io
import random
from typing import Any

import fastavro

from schemas.events import avro_schema
from transforms.errors import ATTEMPTS_HEADER

CODECS = ["null", "deflate", "bzip2", "snappy", "xz", "zstandard"]
NUMBERS = [0, 1, -1, 2, 3, 63, 64, -64, 127, 1 << 31, 10**10, (1 << 62), -(1 << 63), (1 << 63) - 1]
VALUES = [None, "", 7, -1, 1 << 70, 1.5, 1e400, "x" * 999, [], {}, True, [[]], {"": None}, "\x00", "2026-01-01"]


class Drawn(random.Random):
    """Chances that are drawn from given bytes, so that an engine that changes bytes chooses what is tried.

    Behind their end they are those of one seed: a case needs no more bytes than it begins with.
    """

    def __new__(cls, data: bytes) -> Drawn:  # noqa: ARG004 - Random's own takes a seed
        return super().__new__(cls)

    def __init__(self, data: bytes):
        super().__init__(0)
        self._data, self._at = data, 0

    def _take(self, size: int) -> int | None:
        end = self._at + size
        if end > len(self._data):
            return None
        taken, self._at = self._data[self._at : end], end
        return int.from_bytes(taken, "little")

    def random(self) -> float:
        taken = self._take(1)
        return super().random() if taken is None else taken / 256

    def getrandbits(self, k: int) -> int:
        taken = self._take((k + 7) // 8)
        return super().getrandbits(k) if taken is None else taken & ((1 << k) - 1)

    def _randbelow(self, n: int) -> int:
        """What `choice`, `randrange` and `sample` ask; Random's own draws again until a number fits."""
        return self.getrandbits(max(8, n.bit_length())) % n


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


def spoilt_text(rng: random.Random, text: str, words: list[str]) -> str:
    """The text with some of its lines changed, moved or left out, and words put in."""
    lines = text.splitlines(keepends=True)
    for _ in range(rng.choice([0, 1, 1, 2, 4])):
        at = rng.randrange(len(lines) + 1)
        match rng.randrange(5):
            case 0 if at < len(lines):
                del lines[at]
            case 1 if at < len(lines):
                lines.insert(rng.randrange(len(lines)), lines[at])
            case 2:
                lines.insert(at, " " * rng.randrange(6) + rng.choice(words) + "\n")
            case 3 if at < len(lines):
                line = lines[at]
                cut = rng.randrange(len(line) or 1)
                lines[at] = line[:cut] + rng.choice(words) + line[rng.choice([cut, -1]) :]
            case _ if at < len(lines):
                lines[at] = spoilt(rng, lines[at].encode()).decode(errors="replace")
    return "".join(lines)


def changed(rng: random.Random, fields: Any, depth: int = 3) -> Any:
    """JSON values with one of them, somewhere, replaced, left out or added."""
    if not depth or rng.random() < 0.2 or not fields or not isinstance(fields, dict | list):
        return rng.choice(VALUES)
    out = copy.copy(fields)
    at = rng.choice(list(out) if isinstance(out, dict) else range(len(out)))
    match rng.randrange(6):
        case 0:
            del out[at]
        case 1 if isinstance(out, dict):
            out[rng.choice(["", "x", "a.b", "\x00"])] = rng.choice(VALUES)
        case 2 if isinstance(out, list):
            out.extend(out * rng.choice([1, 30]))
        case _:
            out[at] = changed(rng, out[at], depth - 1)
    return out


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
    names = ["a", "", "ü" * 50, ATTEMPTS_HEADER, "__value_schema_id", "content-type", "ce_specversion", "\x00"]
    values = [None, b"", b"1", b"9" * 5_000, b"\xff\xfe", b"-1", b"application/json", b"application/cloudevents+json"]
    return [(rng.choice(names), rng.choice(values)) for _ in range(rng.randrange(3))]
