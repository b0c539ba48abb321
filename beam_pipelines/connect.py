"""From URLs to Beam's reads and writes, the same for every job."""

from __future__ import annotations

import logging
import time
from collections.abc import Callable
from typing import Any

import apache_beam as beam
from confluent_kafka import KafkaException

from beam_pipelines import expansion
from beam_pipelines.options import BigQueryUrl, Folder, KafkaUrl, RedisUrl, Settings, UsageError
from schemas.addresses import Address, StoreUrl
from schemas.codec import encode, parse_schema
from schemas.events import avro_schema
from schemas.tables import TABLES
from transforms.errors import BadRecord
from transforms.io.bigquery import BigQueryUnusableError, WriteToBigQueryTable, check_tables
from transforms.io.files import ReadBlocksFromFiles, WriteLedgerToFile, match_files
from transforms.io.folder import WriteToFolder
from transforms.io.kafka import KafkaRecord, KafkaTopic, ReadBlocksFromKafka, WriteLettersToKafka, WriteToKafka
from transforms.io.kafka.limits import topic_settings
from transforms.io.kafka_native import ReadBlocksFromKafkaNative
from transforms.io.redis import StoreRefusedError, WriteLedgerToRedis, check_store
from transforms.io.registry import WAITS_S, Registry
from transforms.ledger import Counts, SumCounts
from transforms.letter_envelopes import LEAST_LIMIT, NO_LIMIT, envelopes
from transforms.sharded_rows import Decoding

__all__ = [
    "AvroEncoder",
    "SchemasFrom",
    "check",
    "decoding",
    "read_blocks",
    "write_ledger",
    "write_letters",
    "write_refused",
    "write_rows",
    "write_to_bigquery",
]

_LOG = logging.getLogger(__name__)
_LEDGER_EVERY_S = 1
STARTED_MS = time.time_ns() // 1_000_000


class SchemasFrom:
    """Writer schemas from a registry; made in the launcher, connected in the worker."""

    def __init__(self, url: Address):
        self._url = url

    def __call__(self) -> Callable[[int], dict[str, Any]]:
        return Registry(self._url, WAITS_S).schema


def decoding(settings: Settings) -> Decoding:
    """How the job decodes its input."""
    return Decoding(
        job=settings.job.name,
        shards=settings.state_shards,
        allowed_lateness_ms=settings.allowed_lateness_ms,
        make_fetch=SchemasFrom(settings.registry),
        max_parallelism=settings.max_parallelism,
    )


class AvroEncoder:
    """Typed records as Avro for a topic; its schema is registered by the first worker that writes.

    Args:
      to_key: record → (key, record timestamp in ms).
    """

    def __init__(self, registry: Address, topic: str, record: type, to_key: Callable[[Any], tuple[str, int]]):
        self._registry, self._topic, self._record, self._to_key = registry, topic, record, to_key

    def __call__(self) -> Callable[[Any], KafkaRecord]:
        schema = avro_schema(self._record.__name__)
        parsed, to_key = parse_schema(schema), self._to_key
        ids: list[int] = []

        def to_record(record: Any) -> KafkaRecord:
            if not ids:
                ids.append(Registry(self._registry).register(f"{self._topic}-value", schema))
            key, time_ms = to_key(record)
            return KafkaRecord(key.encode(), encode(record, ids[0], parsed), time_ms)

        return to_record


def check(settings: Settings) -> None:
    """Refuses what cannot work, before anything starts.

    Raises:
      UsageError.
    """
    named = [("--output", o) for o in settings.outputs]
    named += [("--dead_letters", settings.dead_letters), ("--late", settings.late)]
    for flag, url in named:
        if isinstance(url, KafkaUrl):
            _topic(flag, url)
            if flag != "--output":
                _takes_letters(flag, url, settings)
        elif isinstance(url, BigQueryUrl):
            _tables(flag, url, settings)
        elif isinstance(url, RedisUrl):
            _store(flag, url)
    if any(isinstance(url, KafkaUrl) for url in (*settings.inputs, *settings.outputs)):
        try:
            Registry(settings.registry).check()
        except OSError as e:
            raise UsageError("--registry", e) from e


def _store(flag: str, url: RedisUrl) -> None:
    """One that does not answer is waited for, by the workers: perhaps it only cannot be reached from here."""
    if isinstance(url.url, StoreUrl):
        try:
            check_store(url.url)
        except StoreRefusedError as e:
            raise UsageError(flag, e) from None


def _takes_letters(flag: str, url: KafkaUrl, settings: Settings) -> None:
    """Compares what the topic of letters takes with what the topics of records do, as far as their brokers tell."""
    topic = f"topic {url.topic} at {url.servers}"
    found = _settings_of(flag, url)
    if "compact" in found.get("cleanup.policy", ""):
        raise UsageError(flag, f"{topic} is compacted: of the letters of a key only the newest would stay")
    limit = int(found.get("max.message.bytes", NO_LIMIT))
    if limit < LEAST_LIMIT:
        raise UsageError(flag, f"{topic} takes {limit:,} bytes (max.message.bytes); letters need {LEAST_LIMIT:,}")
    for source in settings.inputs:
        if isinstance(source, KafkaUrl):
            largest = int(_settings_of("--input", source).get("max.message.bytes", 0))
            if largest * 4 // 3 + LEAST_LIMIT > limit:  # a letter has its record in base64
                _LOG.warning(
                    "%s takes %s bytes (max.message.bytes), %s takes %s: a record that does not fit compressed either "
                    "leaves its head there, and itself lies in %s only for as long as that keeps it",
                    *(topic, f"{limit:,}", source.topic, f"{largest:,}", source.topic),
                )


def _settings_of(flag: str, url: KafkaUrl) -> dict[str, str]:
    try:
        return topic_settings(url.servers, url.topic) or {}
    except RuntimeError as e:
        raise UsageError(flag, e) from e


def _tables(flag: str, url: BigQueryUrl, settings: Settings) -> None:
    if not settings.job.tables:
        raise UsageError(flag, f"{settings.job.name} writes no table of BigQuery")
    try:
        check_tables(url.name, [TABLES[name] for name in settings.job.tables])
    except BigQueryUnusableError as e:
        raise UsageError(flag, e) from e


def read_blocks(settings: Settings, url: KafkaUrl | None = None) -> beam.PTransform:
    """The source that --input names; of several topics, the one given.

    Raises:
      UsageError: there is no such topic or file.
    """
    source = url or settings.input
    if isinstance(source, Folder):
        try:
            return ReadBlocksFromFiles(match_files(source.path), STARTED_MS)
        except (ValueError, OSError) as e:
            raise UsageError("--input", e) from e
    topic = _topic("--input", source)
    if settings.kafka_read == "native":
        return ReadBlocksFromKafkaNative(
            topic, expansion.service(settings), settings.out_of_orderness_ms, settings.max_ahead_ms
        )
    return ReadBlocksFromKafka(
        topic,
        group=settings.job.name,
        readers=settings.readers,
        out_of_orderness_ms=settings.out_of_orderness_ms,
        max_ahead_ms=settings.max_ahead_ms,
        until_end=settings.until_end,
        discover_every_s=settings.discover_every_s,
        on_lost=settings.on_lost,
        place=(settings.inputs.index(source), len(settings.inputs)),
        max_parallelism=settings.max_parallelism,
    )


def _topic(flag: str, url: KafkaUrl) -> KafkaTopic:
    try:
        return KafkaTopic.look_up(url.servers, url.topic)
    except KafkaException as e:
        raise UsageError(flag, f"topic {url.topic} at {url.servers}: {e.args[0].str()}") from e


def write_rows(
    rows: beam.PCollection[Any],
    settings: Settings,
    table: str,
    to_line: Callable[[Any], bytes],
    to_redis: Callable[[StoreUrl | str, str], beam.PTransform],
    to_kafka: Callable[[str], Callable[[], Callable[[Any], KafkaRecord]]],
) -> None:
    """Writes the rows of one table to every --output.

    Args:
      to_line: row → JSON line, for folders and BigQuery.
      to_redis: URL and the job's name → the write; its output are dead letters.
      to_kafka: topic → an encoder, as `WriteToKafka` wants it.
    """
    for i, url in enumerate(settings.outputs):
        match url:
            case RedisUrl():
                refused = rows | f"Redis{i}" >> to_redis(url.url, settings.job.name)
                write_letters(refused, settings, f"Redis{i}DeadLetters")
            case KafkaUrl():
                write = WriteToKafka(url.servers, url.topic, to_kafka(url.topic), settings.job.name)
                refused = rows | f"Kafka{i}" >> write
                write_letters(refused, settings, f"Kafka{i}DeadLetters")
            case Folder():
                rows | f"Folder{i}" >> WriteToFolder(*url.subfolder(table), to_line, settings.rolling)
    write_to_bigquery(rows, settings, table, to_line)


def write_to_bigquery(
    rows: beam.PCollection[Any], settings: Settings, table: str, to_line: Callable[[Any], bytes], label: str = ""
) -> None:
    """Appends the rows of one table to every bigquery:// of --output. Rows that it refuses are dead letters.

    Args:
      to_line: row → JSON line, as in a folder.
      label: in the steps' names, for a job that calls this several times.
    """
    for i, url in enumerate(settings.outputs):
        if isinstance(url, BigQueryUrl):
            write = WriteToBigQueryTable(url.name, TABLES[table], to_line, settings.job.name)
            refused = rows | f"BigQuery{label}{i}" >> write
            write_letters(refused, settings, f"BigQuery{label}{i}DeadLetters")


def write_letters(letters: beam.PCollection[BadRecord], settings: Settings, label: str) -> None:
    """Writes rows that a sink refused."""
    _write_bad(letters, settings.dead_letters, "dead_letters", label, settings)


def write_refused(
    dead_letters: beam.PCollection[BadRecord], late: beam.PCollection[BadRecord] | None, settings: Settings
) -> None:
    """Writes what a job refused; `late` is None for a job to which nothing is late."""
    for records, url, table in (
        (dead_letters, settings.dead_letters, "dead_letters"),
        (late, settings.late, "late"),
    ):
        if records is not None:
            _write_bad(records, url, table, table.title().replace("_", ""), settings)


def _write_bad(
    records: beam.PCollection[BadRecord], url: KafkaUrl | Folder, table: str, label: str, settings: Settings
) -> None:
    if isinstance(url, Folder):
        records | label >> WriteToFolder(*url.subfolder(table), _whole, settings.rolling)
    else:
        records | label >> WriteLettersToKafka(url.servers, url.topic)


def _whole(record: BadRecord) -> bytes:
    return next(envelopes(record, NO_LIMIT))


def write_ledger(counts: beam.PCollection[Counts], settings: Settings) -> None:
    """Sums the counts, to --ledger and, beside the job's other output, to Redis."""
    total = counts | "Ledger" >> SumCounts(None if settings.bounded else _LEDGER_EVERY_S)
    if settings.ledger:
        total | "LedgerFile" >> WriteLedgerToFile(settings.ledger)
    for i, url in enumerate(settings.outputs):
        if isinstance(url, RedisUrl):
            total | f"LedgerRedis{i}" >> WriteLedgerToRedis(url.url, settings.job.name, STARTED_MS)
