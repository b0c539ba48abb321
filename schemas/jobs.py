"""The jobs, each declared once: its name, its input, the tables it writes and its own flags.

Topics, health names, the demo, worker imports and flags read this at run time. Templates, chart, compose, Terraform and
docs cannot, so `make generate` writes them from it. Data only, so that everything may import it. What a job does is in
its module, `beam_pipelines/<module>.py`.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Final

__all__ = ["CAPTURED", "JOBS", "LETTERS", "TABLES", "Flag", "Job", "Rows", "topics"]

LETTERS: Final = {"dead_letters": "dlq", "late": "late"}
"""Default topics for rejected records: flag → prefix of the topic's name."""
CAPTURED: Final = ("products", "customers", "orders", "order_items", "inventory_movements")


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
      record: the Avro record of a row; the table adds `version`.
      key, day, cluster_by, day_of_key, emptied_by: see `schemas.tables.Table`, where `day` is `partition_by`.
      version: the field to use as version, for a record that is never corrected and so has none.
      topic: the default output topic; "": rows do not go to Kafka.
      topic_key: fields, joined by a colon.
      topic_time: the field that is the topic's record timestamp.
    """

    name: str
    record: str
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
class Job:
    """
    Attributes:
      module: its module in `beam_pipelines`, and its name on the command line.
      name: its name in dead letters, metrics, consumer groups and topics (`dlq.<name>`, `late.<name>`).
      topics: the default input. A job with several takes --input several times.
      topic_words: the words by which the name of any other topic tells what it holds; (): names do not matter.
      files: the file types that --input accepts.
      online: whether it writes to the online store.
      output_folder: the default output, instead of the online store and a topic.
      readers: readers per topic, by default.
      profile: the compose profile of an optional job; None: the job always runs.
      demo: its flags in the demo and in compose.
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
    topic_words: tuple[str, ...] = ()
    files: tuple[str, ...] = (".avro", ".jsonl")
    online: bool = True
    output_folder: str | None = None
    readers: str = "auto"
    profile: str | None = None
    demo: tuple[str, ...] = ()

    @property
    def page(self) -> str:
        return f"beam_pipelines.{self.module}"

    @property
    def sections(self) -> frozenset[str]:
        """Of a mapping, those that the job can use."""
        named = {_ORDERS: "orders", _CLICKS: "clicks"}
        return frozenset(named[topic] for topic in self.topics if topic in named)

    @property
    def topic(self) -> str:
        """The default output topic, or ""."""
        return next((rows.topic for rows in self.tables if rows.topic), "")

    @property
    def letters(self) -> tuple[str, ...]:
        """Topics for rejected records."""
        return tuple(f"{start}.{self.name}" for start in LETTERS.values())


_ORDERS: Final = "transactions.orders"
_CLICKS: Final = "clickstream.events"

_FORMAT: Final = Flag(
    "format",
    "format",
    "framing of the topic's messages: json, confluent (Avro, JSON Schema or Protobuf, according to the registry), "
    "single_object (Avro) or cloudevents; auto: detect it for each message, and log what was found at the start",
    default="auto",
)

_MAPPING: Final = Flag(
    "mapping",
    "mapping",
    "how to turn foreign messages into orders or clicks: a YAML file, local or gs:// (docs/mapping.md), or a built-in "
    "mapping: ga4, segment, shopify, snowplow, woocommerce",
    asked="How to turn messages into orders or clicks: a YAML file on gs://, or ga4, segment, shopify, snowplow or "
    "woocommerce",
)

_FRAUD = Job(
    module="fraud",
    name="fraud-detector",
    summary="Reads orders and alerts on those that complete a fraud pattern.",
    topics=(_ORDERS,),
    tables=(
        Rows(
            "fraud_alerts",
            "FraudAlert",
            key=("alert_id",),
            day="event_time",
            cluster_by=("user_id", "alert_type"),
            version="event_time",
            topic="alerts.fraud",
            topic_key=("user_id",),
            topic_time="event_time",
        ),
    ),
    reads="topic `transactions.orders`, or files",
    writes="alerts to Redis, topic `alerts.fraud`, BigQuery or a folder",
    flags=(
        _FORMAT,
        _MAPPING,
        Flag(
            "rules",
            "yaml_file",
            "YAML file with the fraud rules, local or gs:// "
            "(default: transforms/domain/fraud_rules.yaml, which explains the format)",
            asked="YAML file with the fraud rules, on gs://; by default, the rules in the image",
            note="The fraud rules, as YAML. Empty: those in the image (transforms/domain/fraud_rules.yaml, which "
            "explains the format).",
        ),
    ),
)

_SESSIONS = Job(
    module="sessions",
    name="session-aggregator",
    summary="Reads clicks and groups them into each user's sessions.",
    topics=(_CLICKS,),
    tables=(
        Rows(
            "user_sessions",
            "UserSession",
            key=("session_id",),
            day="session_start",
            cluster_by=("user_id", "session_id"),
            topic="analytics.sessions",
            topic_key=("user_id",),
            topic_time="session_end",
        ),
    ),
    reads="topic `clickstream.events`, or files",
    writes="sessions to Redis, topic `analytics.sessions`, BigQuery or a folder",
    flags=(
        _FORMAT,
        _MAPPING,
        Flag(
            "session_gap",
            "lasting",
            "a click this long after the previous one starts a new session; to change the gap, use another --output, "
            "because a session is identified by its start",
            default="30m",
        ),
        Flag(
            "max_session",
            "lasting",
            "split a session that never pauses at multiples of this duration since 1970: 12h splits at noon and "
            "midnight UTC",
            default="12h",
        ),
        Flag(
            "early_every",
            "lasting",
            "emit early results so that no click waits longer than this; ignored for bounded input",
            default="5s",
        ),
    ),
)

_REVENUE = Job(
    module="revenue",
    name="revenue-calculator",
    summary="Reads orders and computes revenue per minute.",
    topics=(_ORDERS,),
    tables=(
        Rows(
            "real_time_revenue",
            "RevenueWindow",
            key=("window_start", "currency", "dimension", "value"),
            day="window_start",
            cluster_by=("dimension", "value"),
            topic="analytics.revenue",
            topic_key=("currency", "dimension", "value"),
            topic_time="window_start",
        ),
    ),
    reads="topic `transactions.orders`, or files",
    writes="revenue per minute to Redis, topic `analytics.revenue`, BigQuery or a folder; user features to Redis",
    flags=(
        _FORMAT,
        _MAPPING,
        Flag(
            "early_every",
            "whole_seconds",
            "how often to emit early results for open minutes, in whole seconds; ignored for bounded input",
            default="2s",
        ),
    ),
)

_ARCHIVE = Job(
    module="archive",
    name="archiver",
    summary="Reads orders and clicks and archives each valid one once, in files by event day and hour.",
    topics=(_ORDERS, _CLICKS),
    # Ids and times come from the producer, which could send one id with two different times.
    tables=(
        Rows(
            "orders",
            "OrderEvent",
            key=("order_id", "order_status"),
            day="event_time",
            cluster_by=("user_id", "order_id"),
            day_of_key=False,
            version="event_time",
        ),
        Rows(
            "clickstream",
            "ClickstreamEvent",
            key=("event_id",),
            day="event_time",
            cluster_by=("user_id", "event_id"),
            day_of_key=False,
            version="event_time",
        ),
    ),
    reads="both topics, or files",
    writes="every valid record once, as Avro files by event day and hour in `.stack/archive` or another folder, and to "
    "BigQuery",
    flags=(
        _FORMAT,
        _MAPPING,
        Flag(
            "records_per_file",
            "number",
            "offsets of a partition that one file covers; must never change for an archive",
            default="100000",
            note="Part of the archive's file names: never change it.",
        ),
        Flag(
            "flush_every",
            "seconds",
            "how often to write files that are still open; ignored for bounded input",
            default="60s",
        ),
    ),
    topic_words=("order", "click"),
    online=False,
    output_folder=".stack/archive",
    demo=("--flush_every=5s",),
)

_CDC = Job(
    module="cdc",
    name="cdc-processor",
    summary="Reads changes from the shop's database, maintains current state and history, and alerts on low stock.",
    topics=tuple(f"cdc.public.{table}" for table in CAPTURED),
    tables=(
        Rows(
            "cdc_changes",
            "CdcChange",
            key=("table_name", "key"),
            day="event_time",
            cluster_by=("table_name", "key"),
            day_of_key=False,
            emptied_by=("table_name",),
        ),
        Rows(
            "low_stock_alerts",
            "LowStockAlert",
            key=("alert_id",),
            day="event_time",
            cluster_by=("product_id", "alert_id"),
            topic="alerts.stock",
            topic_key=("product_id",),
            topic_time="event_time",
        ),
    ),
    reads="topics `cdc.public.*`, which Debezium fills from PostgreSQL, or files",
    writes="products, customers' figures and low-stock alerts to Redis, alerts to `alerts.stock`, every change to "
    "BigQuery or a folder",
    flags=(
        Flag(
            "hash_key",
            "secret_file",
            "file on every worker holding a key of at least 16 bytes, used to hash the personal columns that may be "
            "hashed, with HMAC-SHA256 (default: drop all personal columns)",
            metavar="FILE",
            note="A Secret's file of at least 16 bytes: the key that hashes the personal columns that may be hashed. "
            "Empty: all are dropped.",
            left_out="every worker needs the file, but a Dataflow worker has only the files in its image, and a key "
            "must not be in one. Without it all personal columns are dropped",
        ),
    ),
    files=(".jsonl",),
    readers="1",  # of five topics
    profile="cdc",
)

UNREAD: Final = ("inventory.events",)
"""Topics that the simulator writes and no job reads."""
JOBS: Final[dict[str, Job]] = {job.module: job for job in (_FRAUD, _SESSIONS, _REVENUE, _ARCHIVE, _CDC)}
TABLES: Final[dict[str, Rows]] = {rows.name: rows for job in JOBS.values() for rows in job.tables}


def topics(jobs: Iterable[Job]) -> dict[str, dict[str, str]]:
    """Every topic that the jobs read or write → its settings.

    A dead letter holds its record in base64, so it may be larger than the record; a database change holds a whole row
    twice, up to the limit in cdc/connector.json.
    """
    found: dict[str, dict[str, str]] = {topic: {} for topic in UNREAD}
    for job in jobs:
        for topic in job.topics:
            found[topic] = {"max.message.bytes": "16777216"} if topic.startswith("cdc.") else {}
        found |= {rows.topic: {} for rows in job.tables if rows.topic}
        found |= {topic: {"max.message.bytes": "4194304"} for topic in job.letters}
    return found
