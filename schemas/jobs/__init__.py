"""The jobs, each declared once, in a module of its own: its name, its input, the tables it writes and its own flags.

Topics, health names, the demo, worker imports and flags read this at run time. Templates, chart, compose, Terraform and
docs cannot, so `make generate` writes them from it. What a job does is in its module, `beam_pipelines/<module>.py`.
"""

from __future__ import annotations

from collections.abc import Iterable
from importlib import import_module
from typing import Final

from schemas.jobs.cdc import CAPTURED
from schemas.jobs.declaration import LETTERS, Flag, Job, Rows, State
from schemas.jobs.shop import INVENTORY

__all__ = ["CAPTURED", "JOBS", "LETTERS", "LETTER_TOPIC", "TABLES", "Flag", "Job", "Rows", "State", "topics"]

_MODULES: Final = (
    "fraud",
    "sessions",
    "revenue",
    "archive",
    "cdc",
)
JOBS: Final[dict[str, Job]] = {module: import_module(f"{__name__}.{module}").JOB for module in _MODULES}
TABLES: Final[dict[str, Rows]] = {rows.name: rows for job in JOBS.values() for rows in job.tables}

LETTER_TOPIC: Final = {"max.message.bytes": "4194304"}
"""Settings of a topic of dead letters."""


def topics(jobs: Iterable[Job]) -> dict[str, dict[str, str]]:
    """Every topic that the jobs read or write → its settings.

    A dead letter holds its record in base64, so it may be larger than the record; a database change holds a whole row
    twice, up to the limit in cdc/connector.json.
    """
    found: dict[str, dict[str, str]] = {INVENTORY: {}}  # that no job reads
    for job in jobs:
        for topic in job.topics:
            found[topic] = {"max.message.bytes": "16777216"} if topic.startswith("cdc.") else {}
        found |= {rows.topic: {} for rows in job.tables if rows.topic}
        found |= dict.fromkeys(job.letters, LETTER_TOPIC)
    return found
