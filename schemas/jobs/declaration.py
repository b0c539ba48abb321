"""The types that declare a job. Data only, so that everything may import it."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

import msgspec

from schemas.jobs.shop import CLICKS, ORDERS

__all__ = ["LETTERS", "Flag", "Job", "Rows", "State"]

LETTERS: Final = {"dead_letters": "dlq", "late": "late"}
"""Default topics for rejected records: flag → prefix of the topic's name."""


@dataclass(frozen=True)
class Flag:
    """A flag of a command line, a template and the chart.

    Attributes:
      kind: a key of `beam_pipelines.flags.KINDS`: how it is parsed, and what templates and chart accept.
      note: comment on its value in the chart.
      asked: its help in a template; None: `help`.
      left_out: why templates omit it.
      pattern: the template's pattern, where it depends on the job rather than the kind.
      required: whether templates require it.
      several: whether it is repeatable.
    """

    name: str
    kind: str
    help: str
    default: str | None = None
    metavar: str | None = None
    note: str = ""
    asked: str | None = None
    left_out: str = ""
    pattern: str = ""
    required: bool = False
    several: bool = False


@dataclass(frozen=True)
class Rows:
    """A table that a job writes, and the topic that carries the same rows.

    Attributes:
      record: the class of a row; the table adds `version`. `make generate` writes the Avro schema of a new one.
      key, day, cluster_by, day_of_key, emptied_by: see `schemas.tables.Table`, where `day` is `partition_by`.
      version: the field to use as version, for a record that is never corrected and so has none.
      topic: the default output topic; "": rows do not go to Kafka.
      topic_key: fields, joined by a colon.
      topic_time: the field that is the topic's record timestamp.
    """

    name: str
    record: type[msgspec.Struct]
    key: tuple[str, ...]
    day: str
    cluster_by: tuple[str, ...]
    day_of_key: bool = True
    emptied_by: tuple[str, ...] = ()
    version: str = "version"
    topic: str = ""
    topic_key: tuple[str, ...] = ()
    topic_time: str = ""


@dataclass(frozen=True)
class State:
    """What a job remembers of its input.

    Attributes:
      what, until, why: descriptions for people; what would be wrong if it were forgotten sooner.
      spans: flags whose sum is how long after its event time it is kept, in addition to what `until` says.
      within: a flag that must be longer than that, or the job does not start.
    """

    what: str
    why: str
    spans: tuple[str, ...] = ("allowed_lateness",)
    until: str = ""
    within: str = ""


@dataclass(frozen=True)
class Job:
    """
    Attributes:
      module: its module in `beam_pipelines`, and its name on the command line.
      name: its name in dead letters, metrics, consumer groups and topics (`dlq.<name>`, `late.<name>`).
      topics: the default input. A job with several takes --input several times.
      state: what it remembers between records, apart from the ledger.
      topic_words: the words by which the name of any other topic tells what it holds; (): names do not matter.
      files: the file types that --input accepts.
      online: whether it writes to the online store.
      output_folder: the default output, instead of the online store and a topic.
      readers: readers per topic, by default.
      profile: the compose profile of an optional job; None: the job always runs.
      demo: its flags in the demo and in compose.
      by_offset: whether it accounts for its records by offset. In a topic that is recreated these begin again, so it
        fails instead of reading on.
      reads, writes: descriptions for people.
    """

    module: str
    name: str
    summary: str
    topics: tuple[str, ...]
    tables: tuple[Rows, ...]
    reads: str
    writes: str
    flags: tuple[Flag, ...] = ()
    state: tuple[State, ...] = ()
    topic_words: tuple[str, ...] = ()
    files: tuple[str, ...] = (".avro", ".jsonl")
    online: bool = True
    output_folder: str | None = None
    readers: str = "auto"
    profile: str | None = None
    demo: tuple[str, ...] = ()
    by_offset: bool = False

    @property
    def page(self) -> str:
        return f"beam_pipelines.{self.module}"

    @property
    def sections(self) -> frozenset[str]:
        """Of a mapping, those that the job can use."""
        named = {ORDERS: "orders", CLICKS: "clicks"}
        return frozenset(named[topic] for topic in self.topics if topic in named)

    @property
    def topic(self) -> str:
        """The default output topic, or ""."""
        return next((rows.topic for rows in self.tables if rows.topic), "")

    @property
    def letters(self) -> tuple[str, ...]:
        """Topics for rejected records."""
        return tuple(f"{start}.{self.name}" for start in LETTERS.values())
