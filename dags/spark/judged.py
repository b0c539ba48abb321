"""What a verdict on a day depends on besides the data: accepted gaps, flags, rules and code."""

from __future__ import annotations

import hashlib
import pkgutil
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

__all__ = ["GAPS", "Judged", "code_version", "sources"]

GAPS = {
    "empty_day": "the archive has no data for the day",
    "no_orders": "the day has no orders",
    "no_clicks": "the day has no clicks",
    "row_count": "far more or fewer rows than on previous days",
    "freshness": "no events in the last hour",
    "no_accounts": "the archive does not account for every offset: it was made from files or by an older release",
    "lost_records": "Kafka deleted records before they were read",
    "missing_offsets": "offsets without a record, as left by compaction and transactions",
    "unread_records": "records not read yet, or a topic whose end offsets were not looked up",
    "file_count": "files hold more or fewer records than accounted for",
}
"""Gaps that may be accepted, by name. Wrong rows may not: nulls, repeated keys, values out of range."""

_ROOT = Path(__file__).parent.parent.parent
_PACKAGES = ("schemas", "transforms/domain", "dags/spark")
_KINDS = {".py", ".avsc", ".yaml"}


@dataclass(frozen=True)
class Judged:
    """
    Attributes:
      accepted: names of `GAPS`.
      by, why: who accepted them, and the reason.
      flags: the job's flags that affect the verdict.
      rules: hash of the fraud rules.
      code: the job's version.
      at: when, RFC 3339.
    """

    accepted: frozenset[str] = frozenset()
    by: str = ""
    why: str = ""
    flags: Mapping[str, Any] = field(default_factory=dict)
    rules: str = ""
    code: str = ""
    at: str = ""

    def as_dict(self) -> dict[str, Any]:
        return {
            "at": self.at,
            "code": self.code,
            "rules": self.rules,
            "flags": dict(self.flags),
            "accepted": sorted(self.accepted),
            "accepted_by": self.by,
            "why": self.why,
        }


def sources() -> list[tuple[str, bytes]]:
    """What the job imports of ours: names in the zip, and contents."""
    found = {_ROOT / "transforms/__init__.py", _ROOT / "dags/__init__.py"}
    for package in _PACKAGES:
        found.update(file for file in (_ROOT / package).rglob("*") if file.suffix in _KINDS)
    return [(file.relative_to(_ROOT).as_posix(), file.read_bytes()) for file in sorted(found)]


def code_version() -> str:
    """A hash of the sources: of the zip that the job came in, or of the checkout that it is run from."""
    try:
        packed = pkgutil.get_data("dags.spark", "version.txt")
    except OSError:
        packed = None
    if packed is not None:
        return packed.decode().strip()
    digest = hashlib.sha256()
    for name, content in sources():
        digest.update(f"{len(name)} {name} {len(content)} ".encode() + content)
    return digest.hexdigest()[:16]
