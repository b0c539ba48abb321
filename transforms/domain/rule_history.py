"""The history of a rule set: its numbered versions, and from which event time on each of them holds.

An order is judged by the version in force at its own `event_time`, so which alerts there are depends on the data alone:
not on when a worker heard of a version. For that, an activation may only concern what nobody can have judged yet. It
counts if it was written at least `LEAD_MS` before it takes effect; every reader looks more often than that.

Entries are read in the order in which they were written. The first with a number has it; a later one with the same
number is void, as is whatever cannot be read. So all readers agree, and a version never changes.
"""

from __future__ import annotations

import hashlib
from bisect import bisect_right
from collections.abc import Iterable
from dataclasses import dataclass, field
from functools import cached_property
from typing import Final, NamedTuple

import msgspec

__all__ = ["END_MS", "LEAD_MS", "Activation", "Entry", "RuleHistory", "Version", "Written", "key_of", "sha256_of"]

END_MS: Final = 253_402_300_800_000
"""The year 10000, of which no date can be written."""
LEAD_MS: Final = 5_000
"""At least so long after it was written, an activation takes effect. Workers and the command share it."""


class Version(msgspec.Struct, frozen=True, tag="version", tag_field="kind"):
    """A rule set that was put; it never changes.

    Attributes:
      number: from 1 on. 0 are the rules that a job is started with.
      text: the rules file.
      sha256: of the text.
      when_ms: by the clock of who put it.
    """

    number: int
    text: str
    sha256: str
    who: str
    when_ms: int
    comment: str = ""


class Activation(msgspec.Struct, frozen=True, tag="activation", tag_field="kind"):
    """From when on a version holds: for orders whose event time is not before `effective_from_ms`."""

    number: int
    version: int
    effective_from_ms: int
    who: str
    when_ms: int


Entry = Version | Activation

_decode = msgspec.json.Decoder(Entry).decode


class Written(NamedTuple):
    """An entry as the topic has it.

    Attributes:
      at_ms: when it was written, by the broker's clock.
    """

    value: bytes
    at_ms: int


def sha256_of(text: str) -> str:
    return hashlib.sha256(text.encode()).hexdigest()


def key_of(entry: Entry) -> str:
    """What the topic is compacted by. It has a part of the content's hash, as compaction keeps the last of a key, and
    of two entries with the same number the first counts."""
    digest = hashlib.sha256(msgspec.json.encode(entry)).hexdigest()[:12]
    return f"{'version' if isinstance(entry, Version) else 'activation'}:{entry.number}:{digest}"


@dataclass(frozen=True)
class RuleHistory:
    """All that is known of versions and activations.

    Attributes:
      versions: by number.
      activations: those that count, by effective time; of two of the same instant the later written is the last.
      void: why other entries do not count.
    """

    versions: dict[int, Version] = field(default_factory=dict)
    activations: tuple[Activation, ...] = ()
    void: tuple[str, ...] = ()

    @cached_property
    def _from_ms(self) -> list[int]:
        return [each.effective_from_ms for each in self.activations]

    def at(self, event_time_ms: int) -> int:
        """The number of the version in force at that event time."""
        place = bisect_right(self._from_ms, event_time_ms)
        return self.activations[place - 1].version if place else 0

    def before(self, event_time_ms: int) -> int | None:
        """The version that was in force before the one that is in force at that time; None: there was none."""
        now = self.at(event_time_ms)
        so_far = self.activations[: bisect_right(self._from_ms, event_time_ms)]
        for version in reversed({each.effective_from_ms: each.version for each in so_far}.values()):
            if version != now:  # of one instant, only the last was ever in force
                return version
        return 0 if now else None

    def next_number(self, kind: type[Entry]) -> int:
        """That nobody has used, not even in vain."""
        if kind is Version:
            return max(self.versions, default=0) + 1
        return max((each.number for each in self.activations), default=0) + 1

    def after(self, entries: Iterable[Written]) -> RuleHistory:
        """The history with these, which were written next."""
        versions, activations, void = dict(self.versions), list(self.activations), list(self.void)
        for written in entries:
            try:
                entry = _decode(written.value)
            except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as e:
                void.append(f"an entry that cannot be read: {e}")
                continue
            numbers = {each.number for each in activations}
            if why := _why_void(entry, written.at_ms, versions, numbers):
                void.append(why)
            elif isinstance(entry, Version):
                versions[entry.number] = entry
            else:
                activations.append(entry)
        activations.sort(key=lambda each: each.effective_from_ms)  # stable: later written ones come after
        return RuleHistory(versions, tuple(activations), tuple(void))


def _why_void(entry: Entry, at_ms: int, versions: dict[int, Version], activations: set[int]) -> str | None:
    if not -END_MS // 8 < entry.when_ms < END_MS:
        return f"an entry by {entry.who}: no time of day is {entry.when_ms}"
    if isinstance(entry, Version):
        name = f"version {entry.number} by {entry.who}"
        if entry.number < 1 or entry.number in versions:
            return f"{name}: the number is taken"
        return None if sha256_of(entry.text) == entry.sha256 else f"{name}: the text is not that of its SHA-256"
    name = f"activation {entry.number} of version {entry.version} by {entry.who}"
    if entry.number < 1 or entry.number in activations:
        return f"{name}: the number is taken"
    if entry.version and entry.version not in versions:
        return f"{name}: there is no such version"
    if not entry.effective_from_ms < END_MS:
        return f"{name}: for after the year 9999"
    if entry.effective_from_ms < at_ms + LEAD_MS:
        return f"{name}: written {(at_ms + LEAD_MS - entry.effective_from_ms) / 1000:.1f} s too late"
    return None
