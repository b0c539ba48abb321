"""What a day was judged by: which gaps somebody has said are understood, and all that decides besides the data."""

from __future__ import annotations

import hashlib
import pkgutil
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

__all__ = ["GAPS", "Judged", "code_version", "sources"]

GAPS = {
    "empty_day": "the archive has nothing of the day",
    "no_orders": "there is no order on it",
    "no_clicks": "there is no click on it",
    "row_count": "far more or fewer rows than on the days before",
    "freshness": "nothing of its last hour",
    "no_accounts": "the archive does not account for each offset: it is of files, or of an older release",
    "lost_records": "the log had lost records before they were read",
    "missing_offsets": "offsets without a record, as compaction and transactions leave them",
    "unread_records": "records that nobody has read yet, or a topic that was not asked where it ends",
    "file_count": "files hold more or fewer records than the accounts say",
}
"""What may be borne, by name. What makes rows wrong is not: nulls, repeated keys, values out of their range."""

_ROOT = Path(__file__).parent.parent.parent
_PACKAGES = ("schemas", "transforms/domain", "dags/spark")
_KINDS = {".py", ".avsc", ".yaml"}


@dataclass(frozen=True)
class Judged:
    """
    Attributes:
      accepted: names of `GAPS`.
      by, why: who bears them, and what was understood.
      flags: of the job, as far as they decide.
      rules: of fraud, by a hash.
      code: version of the job.
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
