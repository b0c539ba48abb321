"""What a reader commits besides the offset, in the commit's metadata: the partition's watermark, and what tells the
topics that a job reads from those that it once read. So whoever can see a job's lag in Kafka can also see how far it is
behind in event time. Restarts use none of it."""

from __future__ import annotations

import re
from typing import NamedTuple

__all__ = ["Commit", "commit_metadata", "commit_of"]

_COMMIT = re.compile(
    r"(?:committed_ms=(?P<committed_ms>[0-9]{1,19}) topics=(?P<topics>[0-9]{1,9}))?"
    r" ?(?:watermark_ms=(?P<watermark_ms>-?[0-9]{1,19}))?"
)


class Commit(NamedTuple):
    """
    Attributes:
      watermark_ms: the partition's; None before the first record.
      committed_ms: when, by the reader's clock; 0 when the commit does not say.
      topics: how many the job reads; 0 when the commit does not say.
    """

    watermark_ms: int | None = None
    committed_ms: int = 0
    topics: int = 0


def commit_metadata(commit: Commit) -> str:
    said = f"committed_ms={commit.committed_ms} topics={commit.topics}"
    return said if commit.watermark_ms is None else f"{said} watermark_ms={commit.watermark_ms}"


def commit_of(metadata: str | None) -> Commit:
    """One that says nothing when the commit is somebody else's."""
    found = _COMMIT.fullmatch(metadata or "")
    return Commit(**{name: int(text) for name, text in found.groupdict().items() if text}) if found else Commit()
