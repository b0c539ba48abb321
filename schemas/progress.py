"""What a reader commits besides the offset: the partition's watermark, in the commit's metadata. So whoever can see a
job's lag in Kafka can also see how far it is behind in event time. Restarts use neither."""

from __future__ import annotations

import re

__all__ = ["commit_metadata", "watermark_ms_of"]

_NAME = "watermark_ms="
_COMMIT = re.compile(_NAME + r"(-?[0-9]{1,19})")


def commit_metadata(watermark_ms: int) -> str:
    return f"{_NAME}{watermark_ms}"


def watermark_ms_of(metadata: str | None) -> int | None:
    """None when the commit is somebody else's."""
    found = _COMMIT.fullmatch(metadata or "")
    return int(found[1]) if found else None
