"""One raw event to records of ours, by the code that the jobs judge records with."""

from __future__ import annotations

import logging
import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Final, NamedTuple

import msgspec

from schemas import codec
from schemas.events import ClickstreamEvent, OrderEvent
from schemas.framing import other_json
from schemas.jobs.shop import CLICKS, ORDERS
from schemas.mapping import SHIPPED, Envelope, NotMappable, parse_mapping, shipped
from transforms.domain.validity import InvalidRecordError, check_click, check_order, wrong_in_fields

__all__ = [
    "KINDS",
    "MAX_EVENT_BYTES",
    "Encode",
    "Intake",
    "Kind",
    "Made",
    "Refused",
    "intakes",
    "mapping_name",
    "named_headers",
    "read_mapping",
]

_LOG = logging.getLogger(__name__)


class Kind(NamedTuple):
    topic: str
    record: type[msgspec.Struct]
    check: Callable[[Any, int], None]
    id_field: str


KINDS: Final = {
    "orders": Kind(ORDERS, OrderEvent, check_order, "order_id"),
    "clicks": Kind(CLICKS, ClickstreamEvent, check_click, "event_id"),
}
"""By a mapping's section."""

Encode = Callable[[Kind, Any], bytes]


class Made(NamedTuple):
    """A record, ready for its topic."""

    topic: str
    key: bytes
    value: bytes
    event_time_ms: int


MAX_EVENT_BYTES: Final = 256 << 10
"""No order is as large; one that is would make a record that topics refuse by default."""

_NAME = re.compile(r"[a-z0-9][a-z0-9_-]{0,63}")
# What a caller proves itself by goes neither into a mapping nor into a dead letter.
_PRIVATE = frozenset(["authorization", "cookie", "proxy-authorization", "x-api-key"])


class Refused(Exception):
    """An event is none of ours, or breaks a rule. The words are those of a job's dead letter."""

    def __init__(self, stage: str, error_class: str, message: str):
        super().__init__(message)
        self.stage, self.error_class = stage, error_class


def mapping_name(text: str) -> str:
    """A mapping's name in addresses: its own, or its file's without the ending. Raises: ValueError."""
    name = text if text in SHIPPED else Path(text).stem
    if not _NAME.fullmatch(name):
        raise ValueError(f"{name!r} would be in addresses: name the file in small letters, digits, _ and -")
    return name


def read_mapping(text: str) -> str:
    """What a mapping says, of one that is shipped or in a file. Raises: OSError, MappingError."""
    said = shipped(text) if text in SHIPPED else Path(text).read_text(encoding="utf-8")
    parse_mapping(said)
    return said


def intakes(mappings: Sequence[str]) -> dict[str | None, Intake]:
    """By a mapping's name in addresses; None: of events that are as ours. Raises: as `read_mapping`."""
    return {None: Intake(None)} | {mapping_name(text): Intake(read_mapping(text)) for text in mappings}


def named_headers(said: str) -> tuple[str, ...]:
    """Which headers a mapping looks at; no others are kept."""
    names = {name.lower() for name in re.findall(r"\$header\.([A-Za-z0-9_-]+)", said)}
    return tuple(sorted(names - _PRIVATE))


class Intake:
    """
    Args:
      said: what the mapping says; None: events are as ours.
    """

    def __init__(self, said: str | None):
        self._mapped = None if said is None else parse_mapping(said).sections
        self.headers: Sequence[str] = () if said is None else named_headers(said)

    def read(self, raw: bytes, headers: Mapping[str, str], now_ms: int, encode: Encode) -> list[Made]:
        """The records of an event: one, or an order and a click; none where the mapping ignores it.

        Raises: Refused.
        """
        with self._refusals(raw, now_ms):
            found = self._found(raw, headers, now_ms)
            return [Made(k.topic, r.user_id.encode(), encode(k, r), r.event_time) for k, r in found]

    def records(self, raw: bytes, headers: Mapping[str, str], now_ms: int) -> list[msgspec.Struct]:
        """As `read`, of what goes to no topic. Raises: Refused."""
        with self._refusals(raw, now_ms):
            return [record for _, record in self._found(raw, headers, now_ms)]

    def _found(self, raw: bytes, headers: Mapping[str, str], now_ms: int) -> list[tuple[Kind, Any]]:
        if len(raw) > MAX_EVENT_BYTES:
            raise Refused("decode", "TooLarge", f"{len(raw):,} bytes; an event has at most {MAX_EVENT_BYTES:,}")
        return self._ours(raw, now_ms) if self._mapped is None else self._theirs(raw, headers, now_ms)

    @contextmanager
    def _refusals(self, raw: bytes, now_ms: int) -> Iterator[None]:
        """Whatever is wrong with an event, as Refused."""
        try:
            yield
        except codec.CodecError as e:
            faults = [str(e)]
            if isinstance(e, codec.NotThisRecord) and self._mapped is None:
                faults += wrong_in_fields(codec.json_fields(raw), now_ms)
            raise Refused("decode", type(e).__name__, "; ".join(faults)) from e
        except InvalidRecordError as e:
            raise Refused("validate", type(e).__name__, str(e)) from e
        except Refused:
            raise
        except Exception as e:
            # As in a job: an event that makes our own code fail costs itself, and its bytes are kept.
            _LOG.exception("an event made our code fail")
            raise Refused("decode", "UnexpectedError", f"{type(e).__name__}: {str(e)[:200]}") from e

    @staticmethod
    def _ours(raw: bytes, now_ms: int) -> list[tuple[Kind, Any]]:
        fields = codec.json_fields(raw)
        for kind in KINDS.values():
            if isinstance(fields, dict) and kind.id_field in fields:
                record = codec.from_json(raw, kind.record)
                kind.check(record, now_ms)
                return [(kind, record)]
        seems = other_json(fields) or ("" if isinstance(fields, dict) else "not a JSON object")
        raise codec.NotThisRecord("; ".join(["neither order_id nor event_id is there", *([seems] if seems else [])]))

    def _theirs(self, raw: bytes, headers: Mapping[str, str], now_ms: int) -> list[tuple[Kind, Any]]:
        """All of an event or nothing: were its click taken and its order refused, it could not be sent again."""
        assert self._mapped is not None
        fields, envelope = codec.json_fields(raw), Envelope(headers, time_ms=now_ms)
        found = []
        for name, mapped in self._mapped.items():
            try:
                record = mapped(fields, envelope)
            except NotMappable as e:
                raise codec.NotThisRecord(str(e)) from e
            if record is not None:
                KINDS[name].check(record, now_ms)
                found.append((KINDS[name], record))
        return found
