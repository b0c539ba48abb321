"""What a run that ends says in the end: its ledger, and the commonest reasons for which records were refused.

The counts are data of the pipeline, so they are exact, and come from its workers by files of this machine. Workers
elsewhere cannot write those; then nothing is said that is not known.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import msgspec

from transforms.reasons import Reason

__all__ = ["LEDGER", "REASONS", "lines"]

LEDGER, REASONS = "ledger.json", "reasons.json"
_FIELDS = "docs/mapping.md#required-fields"
_SHOWN = 10
_WORDS = 300


def lines(folder: str, dead_letters: str) -> Iterator[str]:
    """
    Args:
      folder: where the workers wrote.
      dead_letters: where the refused records are, in words.
    """
    try:
        counts = msgspec.json.decode(Path(folder, LEDGER).read_bytes(), type=dict[str, int])
    except OSError:
        yield "the run has ended; its workers are on other machines: --ledger keeps what they counted"
        return
    yield "ledger: " + ", ".join(f"{name.replace('_', ' ')} {count:,}" for name, count in counts.items())
    try:
        reasons = msgspec.json.decode(Path(folder, REASONS).read_bytes(), type=list[Reason])
    except OSError:
        return
    yield f"why records were refused (they are in {dead_letters}):"
    for reason in reasons[:_SHOWN]:
        yield f"  {reason.count:,} x {reason.error_class}: {' '.join(reason.example.split())[:_WORDS]}"
    if any(reason.error_class == "NotThisRecord" for reason in reasons):
        yield f"  the fields of a record, and how to map others to them: {_FIELDS}"
    if len(reasons) > _SHOWN:
        rest = sum(reason.count for reason in reasons[_SHOWN:])
        yield f"  {rest:,} x {len(reasons) - _SHOWN} other reasons"
