"""Accounts for every offset of a partition. Pure functions of the partition's content, like the archive's files.

An account stands for the range of offsets that a file of the archive stands for, and goes on where the one before it
ended, so accounts of a partition that follow each other leave no offset out. Days are those of record timestamps, in
UTC: what is read of a record that cannot be decoded, too.
"""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Iterable, Sequence
from datetime import date
from itertools import pairwise
from typing import Any, NamedTuple

import msgspec
import numpy as np
import numpy.typing as npt

__all__ = ["DAY_MS", "OUTCOMES", "Account", "Accounts", "Read", "read_of"]

DAY_MS = 86_400_000
OUTCOMES = ("in", "good", "landed", "dead_letters", "late", "duplicates")
"""`landed`: late, but sent back by replay, and archived beside the others; also those that repeat one of them."""
_EPOCH = date(1970, 1, 1).toordinal()

Ints = npt.NDArray[np.int64]


class Read(NamedTuple):
    """What was read of a partition at once.

    Attributes:
      runs: first offset, the offset after the last, and day (since 1970) of records that follow each other.
      landed, dead, late: offsets of such records, in order.
      lost: records before the first one that the log no longer held.
    """

    runs: list[tuple[int, int, int]]
    landed: list[int]
    dead: list[int]
    late: list[int]
    lost: int = 0


def read_of(
    offsets: Ints, times_ms: Ints, landed: Iterable[int], dead: Iterable[int], late: Iterable[int], lost: int
) -> Read:
    days = times_ms // DAY_MS
    ends = np.flatnonzero((np.diff(offsets) != 1) | (np.diff(days) != 0)) + 1
    bounds = [0, *ends.tolist(), len(offsets)] if len(offsets) else [0]
    runs = [(int(offsets[a]), int(offsets[b - 1]) + 1, int(days[a])) for a, b in pairwise(bounds)]
    return Read(runs, sorted(landed), sorted(dead), sorted(late), lost)


class Account:
    """Of the offsets from `first` until before `next`.

    Attributes:
      last: day of the last record before `next`; None when none is known.
      days: day → how many records, by `OUTCOMES`.
      missing: (day of the record before, or None; day of the record after) → offsets in between that hold no record,
        and how many of them the source knows as lost. Others are left by compaction or transactions, or were skipped.
      archived: day of event time → good records, as the archive's files hold them; without those that landed.
    """

    __slots__ = ("archived", "days", "first", "last", "missing", "next")

    def __init__(self, first: int, last: int | None):
        self.first = self.next = first
        self.last = last
        self.days: dict[int, list[int]] = {}
        self.missing: dict[tuple[int | None, int], list[int]] = {}
        self.archived: dict[int, int] = {}

    def to_json(self, topic: str, partition: int) -> bytes:
        """The same bytes for the same account."""
        days = {_text(day): dict(zip(OUTCOMES, counts, strict=True)) for day, counts in sorted(self.days.items())}
        missing = [
            {"after": None if after is None else _text(after), "before": _text(before), "offsets": n, "lost": lost}
            for (after, before), (n, lost) in sorted(self.missing.items(), key=lambda item: (item[0][1], str(item[0])))
        ]
        archived = {_text(day): n for day, n in sorted(self.archived.items())}
        about: dict[str, Any] = {"topic": topic, "partition": partition, "first": self.first, "next": self.next}
        about["last"] = None if self.last is None else _text(self.last)
        return _JSON.encode({**about, "days": days, "missing": missing, "archived": archived}) + b"\n"

    @classmethod
    def from_json(cls, text: bytes) -> Account:
        fields = msgspec.json.decode(text)
        account = cls(fields["first"], None if fields["last"] is None else _day(fields["last"]))
        account.next = fields["next"]
        account.days = {_day(day): [counts[name] for name in OUTCOMES] for day, counts in fields["days"].items()}
        for each in fields["missing"]:
            after = None if each["after"] is None else _day(each["after"])
            account.missing[after, _day(each["before"])] = [each["offsets"], each["lost"]]
        account.archived = {_day(day): n for day, n in fields["archived"].items()}
        return account

    def state(self) -> tuple[Any, ...]:
        missing = [(*days, *counts) for days, counts in self.missing.items()]
        return self.first, self.last, self.next, list(self.days.items()), missing, list(self.archived.items())

    @classmethod
    def of_state(cls, state: Sequence[Any]) -> Account:
        account = cls(state[0], state[1])
        account.next = state[2]
        account.days = dict(state[3])
        account.missing = {(after, before): [offsets, lost] for after, before, offsets, lost in state[4]}
        account.archived = dict(state[5])
        return account


class Accounts:
    """The account of the range being read, and what the next one needs to know.

    Args:
      per_file: offsets in a range.

    Attributes:
      unwritten: whether the open account has grown since it was written.
    """

    __slots__ = ("_known", "_lost", "_per_file", "_range", "open", "unwritten")

    def __init__(self, per_file: int):
        self._per_file = per_file
        self._range = 0
        self._known = 0  # offsets before it were counted by a job before this one
        self._lost = 0  # not yet known between which days
        self.open: Account | None = None
        self.unwritten = False

    def __bool__(self) -> bool:
        return self.open is not None or self._lost > 0

    @property
    def range_first(self) -> int:
        """What the open account's file is named by."""
        return self._range * self._per_file

    def go_on_from(self, account: Account) -> None:
        """Begins with what an earlier job has written of the range that is read first."""
        self.open, self._known = account, account.next
        self._range = max(account.next - 1, account.first) // self._per_file

    def add(self, read: Read, archived: Sequence[tuple[int, int]], repeats: Sequence[int]) -> list[tuple[int, Account]]:
        """Takes in what was read.

        Args:
          archived: offset and event time (ms) of each record that is archived, in order.
          repeats: offsets of the others that are good.

        Returns: the accounts that are finished, each with the first offset of its range.
        """
        finished = []
        offsets = [offset for offset, _ in archived]
        self._lost += read.lost
        for whole_first, whole_next, day in read.runs:
            first = max(whole_first, self._known)
            while first < whole_next:
                number = first // self._per_file
                after = min(whole_next, (number + 1) * self._per_file)
                if self.open is None:
                    self._range, self.open = number, Account(max(0, first - self._lost), None)
                elif number > self._range:
                    finished.append((self.range_first, self.open))
                    self._range, self.open = number, Account(self.open.next, self.open.last)
                self._count(self.open, first, after, day, read, repeats)
                for _, time_ms in archived[bisect_left(offsets, first) : bisect_left(offsets, after)]:
                    of = time_ms // DAY_MS
                    self.open.archived[of] = self.open.archived.get(of, 0) + 1
                self.unwritten = True
                first = after
        return finished

    def _count(self, account: Account, first: int, after: int, day: int, read: Read, repeats: Sequence[int]) -> None:
        if first != account.next or self._lost:
            # Behind where the account is already: a runner that does not keep order brings what was taken for missing.
            between = (account.last, day) if first >= account.next else (day, day)
            missing = account.missing.setdefault(between, [0, 0])
            missing[0] += first - account.next if first >= account.next else first - after
            missing[1] += self._lost
            self._lost = 0
        counts = account.days.setdefault(day, [0] * len(OUTCOMES))
        others = [
            bisect_left(of, after) - bisect_left(of, first) for of in (read.landed, read.dead, read.late, repeats)
        ]
        for i, count in enumerate((after - first, after - first - sum(others), *others)):
            counts[i] += count
        if after > account.next:
            account.next, account.last = after, day

    def state(self) -> tuple[Any, ...]:
        account = None if self.open is None else self.open.state()
        return self._range, self._known, self._lost, account, self.unwritten

    def restore(self, state: Sequence[Any]) -> None:
        self._range, self._known, self._lost, account, self.unwritten = state
        self.open = None if account is None else Account.of_state(account)


_JSON = msgspec.json.Encoder(order="deterministic")


def _text(day: int) -> str:
    """Days that the calendar does not have, as a broken producer may send, are numbers."""
    try:
        return date.fromordinal(day + _EPOCH).isoformat()
    except (ValueError, OverflowError):
        return str(day)


def _day(text: str) -> int:
    try:
        return date.fromisoformat(text).toordinal() - _EPOCH
    except ValueError:
        return int(text)
