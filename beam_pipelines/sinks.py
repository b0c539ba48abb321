"""The sinks of jobs. Each is one class: its URL, its validation, its check before the start, its write.

To add one, add a class here and to SINKS, and its PTransform in `transforms.io`; then every job that writes tables can
write to it. Rewrites after a failure must not change what readers see.

Long, as all sinks are here, so that what one of them refuses can be compared with the next.
"""

from __future__ import annotations

import argparse
import logging
import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from operator import attrgetter
from typing import Any, ClassVar, Protocol, Self
from urllib.parse import urlsplit

import apache_beam as beam
import msgspec
from confluent_kafka import KafkaError, KafkaException
from confluent_kafka.admin import AclOperation

from connections.kafka import Brokers
from connections.settings import SettingsError
from schemas import jobs, tables
from schemas.addresses import Address, StoreUrl, nearly_url, shown
from schemas.avro_of import schema_of
from schemas.codec import encode, parse_schema
from schemas.flags import UsageError
from schemas.jobs import Job
from schemas.store_keys import PREFIX
from transforms.errors import BadRecord
from transforms.io.bigquery import BigQueryUnusableError, WriteToBigQueryTable, check_tables
from transforms.io.folder import Rolling, WriteToFolder
from transforms.io.kafka import KafkaRecord, KafkaTopic, WriteLettersToKafka, WriteToKafka
from transforms.io.kafka.access import missing
from transforms.io.kafka.limits import topic_settings
from transforms.io.redis import StoreRefusedError, WriteLedgerToRedis, check_store
from transforms.io.registry import Registry
from transforms.ledger import Counts
from transforms.letter_envelopes import LEAST_LIMIT, NO_LIMIT, envelopes

__all__ = ["SINKS", "BigQueryUrl", "Folder", "KafkaUrl", "RedisUrl", "Results", "Sink", "host_and_port", "output"]

_LOG = logging.getLogger(__name__)
_NEEDS = "; `python -m stack access` prints what each job needs"

# POSIX extended regular expressions, as Dataflow wants them, of a whole URL. No user and password: whoever may look at
# a job sees its parameters. A secret's name may be seen.
HOST, PORT = "[A-Za-z0-9.-]+", "[1-9][0-9]{0,4}"


@dataclass(frozen=True)
class Results:
    """What a job has for its sinks.

    Attributes:
      table: of `schemas.jobs`, that these are rows of; None: only `to_redis` writes them.
      to_redis: (address, the job's name, the shop's currency, its keys' prefix) → the write to the online store; its
        output are dead letters.
      label: in the steps' names, for a job with several results.
      letters: whether the write to the online store can refuse one of them.
      files: whether a folder gets them as JSON lines.
    """

    rows: beam.PCollection[Any]
    table: str | None
    to_redis: Callable[[StoreUrl | str, str, str, str], beam.PTransform] | None = None
    label: str = ""
    letters: bool = True
    files: bool = True


class Settings(Protocol):
    """What sinks want to know of a job's settings, which are `beam_pipelines.options.Settings`."""

    job: Job
    inputs: tuple[KafkaUrl | Folder, ...]
    dead_letters: KafkaUrl | Folder
    registry: Address
    rolling: Rolling | None
    started_ms: int


class Sink:
    """A value of --output.

    Attributes:
      schemes: what its URLs begin with.
      usage: how one is written.
      pattern: of one in a template.
      name, delivery: for the docs; what repeated writes do.
    """

    schemes: ClassVar[tuple[str, ...]]
    usage: ClassVar[str]
    pattern: ClassVar[str]
    name: ClassVar[str]
    delivery: ClassVar[str]

    @classmethod
    def parse(cls, text: str) -> Sink:
        """Raises: ValueError."""
        raise NotImplementedError

    @classmethod
    def takes(cls, job: Job) -> bool:
        """Whether the job has anything for it."""
        return bool(job.tables)

    def connected(self, flags: argparse.Namespace) -> Self:  # noqa: ARG002
        """With the file that says how to connect to it, if a flag names one. Raises: UsageError."""
        return self

    @property
    def hosts(self) -> tuple[str, ...]:
        """That workers connect to, of those that could be this machine."""
        return ()

    def check(self, flag: str, settings: Settings) -> None:
        """Refuses what cannot work. Raises: UsageError."""

    def write(self, results: Results, settings: Settings, place: int) -> bool:
        """
        Args:
          place: among the outputs; part of the steps' names.

        Returns:
          Whether these results are for this sink.
        """
        raise NotImplementedError

    def write_ledger(self, total: beam.PCollection[Counts], settings: Settings, place: int) -> None:
        """Shows a running job's ledger, in a sink that has a place for it."""


@dataclass(frozen=True)
class RedisUrl(Sink):
    """The online store.

    Attributes:
      url: or, as secret://, the name of one that Secret Manager keeps.
      prefix: what the installation's keys begin with.
    """

    url: StoreUrl | str
    prefix: str = PREFIX

    schemes = (*StoreUrl.schemes, "secret")
    usage = (
        "redis://host:port/db, redis+cluster://host:port[,host:port], redis+sentinel://host:port[,host:port]/service "
        "(or secret://project/secret, if Google's Secret Manager keeps that)"
    )
    secret = "secret://[a-z][a-z0-9-]{4,28}[a-z0-9]/[A-Za-z0-9_-]{1,255}([?]ca=[A-Za-z0-9_-]{1,255})?"  # noqa: S105
    servers = f"{HOST}(:{PORT})?(,{HOST}(:{PORT})?)*"
    pattern = (
        f"rediss?://{HOST}(:{PORT})?(/[0-9]{{1,5}})?|rediss?[+]cluster://{servers}|"
        f"rediss?[+]sentinel://{servers}/[A-Za-z0-9._-]+(/[0-9]{{1,5}})?|{secret}"
    )
    name = "Redis"
    delivery = "one atomic script per batch; an older or equal version changes nothing"

    @classmethod
    def parse(cls, text: str) -> RedisUrl:
        if not text.lower().startswith("secret:"):
            return cls(StoreUrl(text))
        if not re.fullmatch(cls.secret, text):
            raise ValueError(f"{shown(text)} is not secret://project/secret or secret://project/secret?ca=secret")
        return cls(text)

    def connected(self, flags: argparse.Namespace) -> RedisUrl:
        if not hasattr(flags, "store_config"):  # of a job without a store
            return self
        own = replace(self, prefix=flags.store_prefix)
        if flags.store_config is None:
            return own
        if not isinstance(self.url, StoreUrl):
            raise UsageError("--store_config", "is for redis:// and rediss://; what secret:// names has all in it")
        return replace(own, url=StoreUrl(self.url, flags.store_config))

    @classmethod
    def takes(cls, job: Job) -> bool:
        return job.online

    @property
    def hosts(self) -> tuple[str, ...]:
        if isinstance(self.url, StoreUrl):
            return tuple(host for host, _ in self.url.servers)
        return (urlsplit(self.url).hostname or "",)

    def check(self, flag: str, settings: Settings) -> None:  # noqa: ARG002
        """One that does not answer is waited for, by the workers: perhaps it only cannot be reached from here."""
        if isinstance(self.url, StoreUrl):
            try:
                check_store(self.url, self.prefix)
            except StoreRefusedError as e:
                raise UsageError(flag, e) from None
            except SettingsError as e:
                raise UsageError("--store_config", e) from None

    def write(self, results: Results, settings: Settings, place: int) -> bool:
        if results.to_redis is not None:
            label = f"{results.label or 'Redis'}{place}"
            write = results.to_redis(self.url, settings.job.name, settings.currency, self.prefix)
            refused = results.rows | label >> write
            if results.letters:
                write_letters(refused, settings, label)
        return results.to_redis is not None

    def write_ledger(self, total: beam.PCollection[Counts], settings: Settings, place: int) -> None:
        write = WriteLedgerToRedis(self.url, settings.job.name, settings.started_ms, self.prefix)
        total | f"LedgerRedis{place}" >> write


@dataclass(frozen=True)
class BigQueryUrl(Sink):
    project: str
    dataset: str

    schemes = ("bigquery",)
    usage = "bigquery://project.dataset"
    pattern = "bigquery://[a-z][a-z0-9-]{4,28}[a-z0-9][.][A-Za-z0-9_]{1,1000}"
    name = "BigQuery"
    delivery = (
        "tables are append-only and may hold a row twice; `<table>_current` shows the newest version of each key once "
        "([ADR 12](adr/0012-bigquery.md))"
    )
    # As Google has them: letters, digits and - in a project, _ in a dataset.
    _url = re.compile(r"bigquery://([a-z][a-z0-9-]{4,28}[a-z0-9])\.(\w{1,1024})", re.ASCII)

    @classmethod
    def parse(cls, text: str) -> BigQueryUrl:
        found = cls._url.fullmatch(text)
        if not found:
            raise ValueError(f"{shown(text)} is not bigquery://project.dataset")
        return cls(*found.groups())

    @property
    def place(self) -> str:
        return f"{self.project}.{self.dataset}"

    def check(self, flag: str, settings: Settings) -> None:
        try:
            check_tables(self.place, [tables.TABLES[rows.name] for rows in settings.job.tables])
        except BigQueryUnusableError as e:
            raise UsageError(flag, e) from e

    def write(self, results: Results, settings: Settings, place: int) -> bool:
        if results.table is not None:
            label = f"BigQuery{results.label}{place}"
            table, line = tables.TABLES[results.table], to_line(results.table)
            refused = results.rows | label >> WriteToBigQueryTable(self.place, table, line, settings.job.name)
            write_letters(refused, settings, label)
        return results.table is not None


@dataclass(frozen=True)
class KafkaUrl(Sink):
    """A topic, also to read, and for letters."""

    servers: str
    topic: str

    schemes = ("kafka",)
    usage = "kafka://host:port/topic"
    server_pattern = f"kafka://{HOST}:{PORT}(,{HOST}:{PORT})*"
    topic_pattern = "[A-Za-z0-9._-]"
    pattern = f"{server_pattern}/{topic_pattern}+"
    name = "Kafka"
    delivery = (
        "`alerts.fraud` may hold an alert twice; deduplicate by `alert_id`. For sessions and revenue, the newest "
        "`version` of a key counts. Deduplicate dead letters and late records by topic, partition and offset"
    )

    @classmethod
    def parse(cls, text: str) -> KafkaUrl:
        try:
            parts = urlsplit(text)
        except ValueError:
            raise ValueError(f"{shown(text)} is not kafka://host:port/topic") from None
        if parts.query or parts.fragment:
            raise ValueError(f"{shown(text)} has ?options, which kafka:// does not support")
        topic = parts.path.strip("/")
        if not topic or "/" in topic:
            raise ValueError(f"{shown(text)} names no topic; write kafka://host:port/topic")
        try:
            for server in parts.netloc.split(","):
                host_and_port(server)
        except ValueError as e:
            raise ValueError(f"{shown(text)}: {e}") from e
        return cls(parts.netloc, topic)

    def connected(self, flags: argparse.Namespace) -> KafkaUrl:
        return replace(self, servers=Brokers(self.servers, flags.kafka_config)) if flags.kafka_config else self

    @classmethod
    def takes(cls, job: Job) -> bool:
        return bool(job.topic)

    @property
    def hosts(self) -> tuple[str, ...]:
        return tuple(server.rpartition(":")[0] for server in self.servers.split(","))

    def look_up(self, flag: str) -> KafkaTopic:
        """Raises: UsageError."""
        try:
            found = KafkaTopic.look_up(self.servers, self.topic)
            self._check_access(flag)
        except KafkaException as e:
            hint = _NEEDS if e.args[0].code() == KafkaError.TOPIC_AUTHORIZATION_FAILED else ""
            raise UsageError(flag, f"topic {self.topic} at {self.servers}: {e.args[0].str()}{hint}") from e
        except SettingsError as e:
            raise UsageError("--kafka_config", e) from None
        return found

    def _check_access(self, flag: str) -> None:
        """Raises: UsageError."""
        if isinstance(self.servers, Brokers):
            wanted = AclOperation.READ if flag == "--input" else AclOperation.WRITE
            try:
                why = missing(self.servers, self.topic, wanted)
            except RuntimeError as e:
                raise UsageError(flag, e) from None
            if why:
                raise UsageError(flag, f"{why}{_NEEDS}")

    def check(self, flag: str, settings: Settings) -> None:
        self.look_up(flag)
        if flag != "--output":
            self._check_letters(flag, settings)

    def _check_letters(self, flag: str, settings: Settings) -> None:
        """Compares what the topic of letters takes with what the topics of records do, as far as their brokers tell."""
        topic = f"topic {self.topic} at {self.servers}"
        found = self._settings(flag)
        if "compact" in found.get("cleanup.policy", ""):
            raise UsageError(flag, f"{topic} is compacted: of the letters of a key only the newest would stay")
        limit = int(found.get("max.message.bytes", NO_LIMIT))
        if limit < LEAST_LIMIT:
            raise UsageError(flag, f"{topic} takes {limit:,} bytes (max.message.bytes); letters need {LEAST_LIMIT:,}")
        for source in settings.inputs:
            if isinstance(source, KafkaUrl):
                largest = int(source._settings("--input").get("max.message.bytes", 0))
                if largest * 4 // 3 + LEAST_LIMIT > limit:  # a letter has its record in base64
                    _LOG.warning(
                        "%s takes %s bytes (max.message.bytes), %s takes %s: a record that does not fit compressed "
                        "either leaves its head there, and itself lies in %s only for as long as that keeps it",
                        *(topic, f"{limit:,}", source.topic, f"{largest:,}", source.topic),
                    )

    def _settings(self, flag: str) -> dict[str, str]:
        try:
            return topic_settings(self.servers, self.topic) or {}
        except RuntimeError as e:
            raise UsageError(flag, e) from e

    def write(self, results: Results, settings: Settings, place: int) -> bool:
        rows = jobs.TABLES.get(results.table or "")
        if rows is None or not rows.topic:
            return False
        label = f"Kafka{results.label}{place}"
        encoder = AvroEncoder(settings.registry, self.topic, rows)
        refused = results.rows | label >> WriteToKafka(self.servers, self.topic, encoder, settings.job.name)
        write_letters(refused, settings, label)
        return True


@dataclass(frozen=True)
class Folder(Sink):
    """A folder, also for letters; for input a path or glob."""

    path: str

    schemes = ("", "gs", "file")
    usage = "a folder for JSON lines"
    pattern = "gs://[a-z0-9][a-z0-9._-]*[a-z0-9](/[!-~]*)?"
    name = "folder"
    delivery = (
        "a part is there whole or not at all. A stream deletes its parts since the checkpoint, so that each row is "
        "there once; a job on files leaves them, and readers deduplicate rows by key "
        "([ADR 33](adr/0033-rolling-parts.md)). Of the archive, the same file again, with the same content or more "
        "([ADR 13](adr/0013-archive.md))"
    )

    @classmethod
    def parse(cls, text: str) -> Folder:
        if not text:
            raise ValueError("is empty")
        if nearly_url(text):
            raise ValueError(f"{shown(text)} is neither a URL nor a path")
        return cls(text.removeprefix("file://"))

    def subfolder(self, table: str) -> tuple[str, str]:
        """Where a table's parts go, as (folder, table); a folder that is already named for the table is used as is."""
        parent, _, name = self.path.rstrip("/").rpartition("/")
        return (parent or ("/" if self.path.startswith("/") else "."), name) if name == table else (self.path, table)

    def write(self, results: Results, settings: Settings, place: int) -> bool:
        if results.table is not None and results.files:
            where = self.subfolder(results.table)
            write = WriteToFolder(*where, to_line(results.table), settings.rolling)
            results.rows | f"{results.label or 'Folder'}{place}" >> write
        return results.table is not None


SINKS: tuple[type[Sink], ...] = (RedisUrl, BigQueryUrl, KafkaUrl, Folder)


def output(text: str) -> Sink:
    """A value of --output. Raises: ValueError."""
    scheme = text.split("://", 1)[0].lower() if "://" in text else ""
    for sink in SINKS:
        if scheme in sink.schemes:
            return sink.parse(text)
    known = f"{scheme}://" if scheme.isalnum() else "that"
    names = [f"{sink.schemes[0]}://" for sink in SINKS if sink is not Folder]
    raise ValueError(f"{shown(text)}: cannot write to {known}; use {', '.join(names)}, gs:// or a folder")


def host_and_port(text: str) -> str:
    """Raises: ValueError."""
    host, _, port = text.rpartition(":")
    if not host or not port.isdigit() or "@" in host:
        raise ValueError(f"'{shown(text)}' is not host:port")
    return text


def write_letters(refused: beam.PCollection[BadRecord], settings: Settings, label: str) -> None:
    """Writes rows that a sink refused."""
    write_bad(refused, settings.dead_letters, "dead_letters", f"{label}DeadLetters", settings)


def write_bad(
    records: beam.PCollection[BadRecord], url: KafkaUrl | Folder, table: str, label: str, settings: Settings
) -> None:
    """Writes what a job or a sink refused, as envelopes."""
    if isinstance(url, Folder):
        records | label >> WriteToFolder(*url.subfolder(table), _whole, settings.rolling)
    else:
        records | label >> WriteLettersToKafka(url.servers, url.topic)


def _whole(record: BadRecord) -> bytes:
    return next(envelopes(record, NO_LIMIT))


def to_line(table: str) -> Callable[[Any], bytes]:
    """Record → a row of the table as JSON. One that is never corrected has its event time for a version."""
    version = jobs.TABLES[table].version
    if version == "version":
        return msgspec.json.encode
    of_record = attrgetter(version)
    return lambda record: msgspec.json.encode({**msgspec.structs.asdict(record), "version": of_record(record)})


class AvroEncoder:
    """Typed records as Avro for a topic; its schema is registered by the first worker that writes."""

    def __init__(self, registry: Address, topic: str, rows: jobs.Rows):
        self._registry, self._topic, self._rows = registry, topic, rows

    def __call__(self) -> Callable[[Any], KafkaRecord]:
        schema = schema_of(self._rows.record)
        parsed, to_key, to_time = parse_schema(schema), topic_key(self._rows), attrgetter(self._rows.topic_time)
        ids: list[int] = []

        def to_record(record: Any) -> KafkaRecord:
            if not ids:
                ids.append(Registry(self._registry).register(f"{self._topic}-value", schema))
            return KafkaRecord(to_key(record).encode(), encode(record, ids[0], parsed), to_time(record))

        return to_record


def topic_key(rows: jobs.Rows) -> Callable[[Any], str]:
    """Record → its key on the topic."""
    fields: Sequence[Callable[[Any], str]] = [attrgetter(name) for name in rows.topic_key]
    return fields[0] if len(fields) == 1 else lambda record: ":".join(field(record) for field in fields)
