"""Dead letters for the eye: payloads decoded where that is possible, and nothing that a terminal would obey."""

from __future__ import annotations

import io
import struct
from collections import Counter
from collections.abc import Callable, Sequence
from datetime import UTC, datetime
from typing import Any

import fastavro
import msgspec

from schemas import codec
from schemas.addresses import Address
from transforms.errors import BadRecord
from transforms.io.dead_letters import Letter
from transforms.io.registry import Registry

__all__ = ["Newest", "Payloads", "Summary", "as_json", "as_text", "printable", "rfc3339", "table"]

_LONGEST = 400
# What fastavro raises on bytes that are not a record of the schema. Nothing depends on a payload that cannot be shown.
_UNDECODABLE = (
    EOFError,
    LookupError,
    ValueError,
    ArithmeticError,
    MemoryError,
    TypeError,
    RecursionError,
    struct.error,
)


class Payloads:
    """Shows payloads.

    Args:
      registry: URL; asked only for payloads that name a schema, and no more once it failed to answer.
      tell: told then.
    """

    def __init__(self, registry: Address, tell: Callable[[str], None]):
        self._url, self._tell = registry, tell
        self._registry: Registry | None = None
        self._schemas: dict[int, Any] = {}
        self._gone = False

    def fields(self, payload: bytes | None) -> Any:
        """The fields by name, of Avro by its writer's schema and of JSON; None when the bytes are neither."""
        if not payload:
            return None
        try:
            writer = self._schema(codec.schema_id(payload))
            if writer is not None:
                datum = payload[codec.FRAME_BYTES :]
                writer.walk.end(datum)
                return _jsonable(fastavro.schemaless_reader(io.BytesIO(datum), writer.schema, None))
        except codec.NotFramed:
            try:
                found = msgspec.json.decode(payload)
            except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
                return None
            return found if isinstance(found, dict) else None
        except _UNDECODABLE:
            pass
        return None

    def show(self, payload: bytes) -> str:
        """Short, in one line."""
        fields = self.fields(payload)
        return _short(msgspec.json.encode(fields).decode()) if fields is not None else self.text(payload)

    @staticmethod
    def text(data: bytes | None) -> str:
        """Bytes as text if they are text, else in hex; short, in one line."""
        if data is None:
            return "none"
        try:
            return _short(data[: 4 * _LONGEST].decode())
        except UnicodeDecodeError:
            return _short("hex " + data[:_LONGEST].hex())

    def _schema(self, schema_id: int) -> Any:
        if schema_id not in self._schemas and not self._gone:
            self._schemas[schema_id] = None
            try:
                self._registry = self._registry or Registry(self._url)
                self._schemas[schema_id] = codec.Writer(self._registry.schema(schema_id))
            except codec.CodecError:
                pass
            except codec.SchemaUnavailable as e:
                self._gone = True
                words = self._url.hide(e)
                self._tell(f"payloads are not decoded, as the registry at {self._url} does not answer: {words}")
        return self._schemas.get(schema_id)


class Summary:
    """Letters by error class, stage and source topic."""

    def __init__(self) -> None:
        self._groups: dict[tuple[str, str, str], list[Any]] = {}
        self.count = 0

    def add(self, record: BadRecord | None) -> None:
        self.count += 1
        if record is None:
            record = _NO_RECORD
        group = self._groups.setdefault(
            (record.error_class, record.stage, record.topic), [Counter(), Counter(), record.seen_at, record.seen_at]
        )
        group[0][record.partition] += 1
        group[1][record.attempts] += 1
        group[2], group[3] = min(group[2], record.seen_at), max(group[3], record.seen_at)

    def table(self) -> str:
        head = ["error class", "stage", "source", "letters", "partitions", "attempts", "oldest", "newest"]
        return table(head, self._rows())

    def _sorted(self) -> list[tuple[tuple[str, str, str], list[Any]]]:
        return sorted(self._groups.items(), key=lambda item: (-item[1][0].total(), item[0]))

    def _rows(self) -> list[list[str]]:
        return [
            [
                *map(printable, names),
                f"{at[0].total():,}",
                _spread(at[0]),
                _spread(at[1]),
                rfc3339(at[2]),
                rfc3339(at[3]),
            ]
            for names, at in self._sorted()
        ]

    def as_dicts(self) -> list[dict[str, Any]]:
        return [
            {
                **dict(zip(("error_class", "stage", "topic"), names, strict=True)),
                "letters": at[0].total(),
                "partitions": dict(sorted(at[0].items())),
                "attempts": dict(sorted(at[1].items())),
                "oldest": at[2],
                "newest": at[3],
            }
            for names, at in self._sorted()
        ]


_NO_RECORD = BadRecord(None, "", "-", "(no envelope)", "", "-", -1, -1, 0, None, [], None, 0, 0)


def _spread(counts: Counter[int]) -> str:
    shown = [f"{value}: {n:,}" for value, n in sorted(counts.items())]
    return ", ".join(shown if len(shown) <= 4 else [*shown[:4], f"{len(shown) - 4} more"])


class Newest:
    """The n newest letters."""

    def __init__(self, n: int):
        self._n = n
        self._letters: list[Letter] = []

    def add(self, letter: Letter) -> None:
        if self._n:
            self._letters.append(letter)
            if len(self._letters) > 2 * self._n + 100:
                self._letters = self.letters()

    def letters(self) -> list[Letter]:
        newest = sorted(self._letters, key=lambda each: each.record.seen_at if each.record else 0, reverse=True)
        return newest[: self._n]


def as_text(letter: Letter, payloads: Payloads) -> str:
    record = letter.record
    if record is None:
        return f"{letter.part}:{letter.position}  no envelope\n  {payloads.text(letter.envelope)}"
    lines = [
        f"{record.topic} partition {record.partition} offset {record.offset}",
        f"  reason    {record.error_class}: {record.error_message}",
        f"  origin    {record.job}, {record.stage}; seen {rfc3339(record.seen_at)}",
        f"  record    of {rfc3339(record.timestamp)}",
        f"  attempts  {record.attempts}" + (f"; schema {record.schema_id}" if record.schema_id else ""),
        f"  key       {'-' if record.key is None else payloads.text(record.key)}",
        *(f"  header    {name} = {payloads.text(value)}" for name, value in record.headers),
    ]
    size = "none" if record.payload is None else f"{len(record.payload):,} bytes: {payloads.show(record.payload)}"
    if letter.cut:
        size = f"the head of {letter.cut.bytes:,} bytes: {payloads.text(record.payload)}"
    return "\n".join(map(printable, [*lines, f"  payload   {size}"]))


def as_json(letter: Letter, payloads: Payloads) -> dict[str, Any]:
    if letter.record is None:
        return {"envelope": payloads.text(letter.envelope)}
    fields: dict[str, Any] = msgspec.to_builtins(letter.record)
    cut = {"cut": msgspec.to_builtins(letter.cut)} if letter.cut else {}
    return fields | {"decoded": payloads.fields(letter.record.payload)} | cut


def _jsonable(fields: Any) -> Any:
    return msgspec.to_builtins(fields, enc_hook=repr)


def _short(text: str) -> str:
    text = printable(text)
    return text if len(text) <= _LONGEST else text[:_LONGEST] + " …"


def printable(text: str) -> str:
    """The text with everything escaped that is not to be seen: line ends, colours, changes of direction."""
    return "".join(c if c.isprintable() else c.encode("unicode_escape", "backslashreplace").decode() for c in text)


def rfc3339(time_ms: int) -> str:
    try:
        return datetime.fromtimestamp(time_ms / 1000, UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z")
    except (ValueError, OverflowError, OSError):
        return f"{time_ms} ms"


def table(head: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    widths = [max(map(len, column)) for column in zip(head, *rows, strict=True)]
    return "\n".join("  ".join(c.ljust(w) for c, w in zip(row, widths, strict=True)).rstrip() for row in [head, *rows])
