"""What a whole run must have reached, or it has shown less than it says."""

from __future__ import annotations

from collections import Counter

from simulation.faults import KINDS, OF_THE_LOG

__all__ = ["ENOUGH", "STATES", "missing"]

ENOUGH = 200
"""With fewer seeds, a rare state may be missed by chance."""

STATES = (
    "a bundle failed after effects",
    "a bundle was given up: KafkaException",
    "a bundle was given up: OSError",
    "a bundle was given up: StoreError",
    "a connection knows a newer leader than there is",
    "a fetch failed",
    "a question to the cluster got no answer",
    "a record was overtaken",
    "a transaction holds records back",
    "a transaction was aborted",
    "a transaction was committed",
    "records were lost, and counted",
    "restored in new processes",
    "restored in processes that remember",
    "restored with another parallelism",
    "the store failed after a write",
    "the store failed before a write",
    "there were dead letters",
    "there were late",
    "there were repeats",
)


def missing(counts: Counter[str]) -> list[str]:
    """Faults and states that were never reached."""
    return [name for name in (*KINDS, *OF_THE_LOG, *STATES) if not counts[name]]
