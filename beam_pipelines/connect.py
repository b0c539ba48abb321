"""From URLs to Beam's reads and writes, the same for every job."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

import apache_beam as beam

from beam_pipelines import expansion
from beam_pipelines.options import Settings
from beam_pipelines.report import LEDGER, REASONS
from beam_pipelines.sinks import Folder, KafkaUrl, Results, write_bad
from connections.java import java
from connections.kafka import Brokers
from connections.settings import SettingsError
from schemas.addresses import Address
from schemas.codec import Fetch
from schemas.flags import UsageError
from schemas.framing import FORMATS, format_of
from transforms.blocks import Block
from transforms.errors import BadRecord
from transforms.io.files import ReadBlocksFromFiles, WriteLedgerToFile, match_files, write_whole
from transforms.io.kafka import ReadBlocksFromKafka
from transforms.io.kafka.access import may_commit
from transforms.io.kafka.sample import newest
from transforms.io.kafka_native import ReadBlocksFromKafkaNative
from transforms.io.registry import WAITS_S, Registry
from transforms.ledger import Counts, SumCounts
from transforms.reasons import CountReasons
from transforms.sharded_rows import Decoding

__all__ = ["SchemasFrom", "check", "decoding", "files", "formats_seen", "read_blocks", "source", "write"]

_LEDGER_EVERY_S = 1


class SchemasFrom:
    """Fetches writer schemas from a registry; created in the launcher, connected in the worker."""

    def __init__(self, url: Address):
        self._url = url

    def __call__(self) -> Fetch:
        return Registry(self._url, WAITS_S).schema


def decoding(settings: Settings) -> Decoding:
    """How the job decodes its input, or the first."""
    topic = getattr(settings.input, "topic", None)
    return Decoding(
        job=settings.job.name,
        shards=settings.state_shards,
        allowed_lateness_ms=settings.allowed_lateness_ms,
        make_fetch=SchemasFrom(settings.registry),
        max_parallelism=settings.max_parallelism,
        format=settings.format.of(topic) or "auto",
        mapping=settings.mapping.of(topic),
        watermark_lead_ms=settings.watermark_lead_ms,
    )


def formats_seen(settings: Settings) -> Iterator[str]:
    """What the newest messages of each topic look like, for a job that tells formats apart."""
    if not any(flag.name == "format" for flag in settings.job.flags):
        return
    for url in settings.inputs:
        if isinstance(url, KafkaUrl):
            counts = Counter(format_of(m.value() or b"", m.headers() or ()) for m in newest(url.servers, url.topic))
            words = ", ".join(f"{FORMATS.get(f or '', 'no known format')} ({n})" for f, n in counts.most_common())
            given = settings.format.of(url.topic) or "auto"
            yield f"{url.topic}: --format={given}; its newest messages are {words or 'not there yet'}"


def check(settings: Settings) -> None:
    """Rejects what cannot work, before anything starts.

    Raises:
      UsageError.
    """
    for url in settings.outputs:
        url.check("--output", settings)
    settings.dead_letters.check("--dead_letters", settings)
    settings.late.check("--late", settings)
    if any(isinstance(url, KafkaUrl) for url in (*settings.inputs, *settings.outputs)):
        try:
            Registry(settings.registry).check()
        except SettingsError as e:
            raise UsageError("--registry_config", e) from None
        except OSError as e:
            raise UsageError("--registry", e) from e


def source(settings: Settings) -> Callable[[beam.Pipeline], beam.PCollection[Block]]:
    """Reads every --input into one collection of blocks.

    Raises:
      UsageError: there is no such topic or file.
    """
    if len(set(settings.inputs)) < len(settings.inputs):
        raise UsageError("--input", "names something twice")
    topics = [url for url in settings.inputs if isinstance(url, KafkaUrl)]
    reads = [read_blocks(settings, url) for url in topics]
    if not topics:
        reads = [ReadBlocksFromFiles(files(settings), settings.started_ms)]
    if len(settings.job.topics) == 1:
        return lambda pipeline: pipeline | "Read" >> reads[0]
    return lambda pipeline: [pipeline | f"Read{i}" >> each for i, each in enumerate(reads)] | "Blocks" >> beam.Flatten()


def files(settings: Settings) -> list[str]:
    """All that --input names. Raises: UsageError."""
    paths: set[str] = set()
    for url in settings.inputs:
        assert isinstance(url, Folder)
        try:
            paths.update(match_files(url.path))
        except (ValueError, OSError) as e:
            raise UsageError("--input", e) from e
    for path in sorted(paths):
        if not path.endswith(settings.job.files):
            raise UsageError("--input", f"{path}: {settings.job.name} reads {' or '.join(settings.job.files)} files")
    return sorted(paths)


def read_blocks(settings: Settings, url: KafkaUrl) -> beam.PTransform:
    """Raises: UsageError: there is no such topic."""
    topic = url.look_up("--input")
    if settings.kafka_read == "native":
        _check_java(url)
        return ReadBlocksFromKafkaNative(
            topic, expansion.service(settings), settings.out_of_orderness_ms, settings.max_ahead_ms
        )
    if isinstance(url.servers, Brokers) and (why := may_commit(url.servers, url.topic, settings.group)):
        raise UsageError("--input", f"{why}, so nobody would see how far the job has come")
    return ReadBlocksFromKafka(
        topic,
        group=settings.group,
        readers=settings.readers,
        out_of_orderness_ms=settings.out_of_orderness_ms,
        max_ahead_ms=settings.max_ahead_ms,
        until_end=settings.until_end,
        discover_every_s=settings.discover_every_s,
        idle_after_ms=settings.idle_after_ms,
        on_lost=settings.on_lost,
        by_offset=settings.job.by_offset,
        place=(settings.inputs.index(url), len(settings.inputs)),
        max_parallelism=settings.max_parallelism,
    )


def _check_java(url: KafkaUrl) -> None:
    """Raises: UsageError: Java's client cannot be told what the file says."""
    config = getattr(url.servers, "config", None)
    try:
        if config is not None:
            java(config)
    except SettingsError as e:
        raise UsageError("--kafka_config", e) from None


def write(
    results: Sequence[Results],
    dead_letters: beam.PCollection[BadRecord],
    late: beam.PCollection[BadRecord] | None,
    counts: beam.PCollection[Counts],
    settings: Settings,
) -> None:
    """Writes a job's outputs to where its flags say; `late` is None for a job without late records."""
    taken = {
        place for each in results for place, url in enumerate(settings.outputs) if url.write(each, settings, place)
    }
    require_all_written(settings, taken)
    write_bad(dead_letters, settings.dead_letters, "dead_letters", "DeadLetters", settings)
    if late is not None:
        write_bad(late, settings.late, "late", "Late", settings)
    total = counts | "Ledger" >> SumCounts(None if settings.bounded else _LEDGER_EVERY_S)
    if settings.report is not None:
        total | "ReportLedger" >> WriteLedgerToFile(str(Path(settings.report, LEDGER)))
        reasons = dead_letters | "Reasons" >> CountReasons()
        reasons | "ReportReasons" >> beam.Map(
            lambda text, path: write_whole(path, text), str(Path(settings.report, REASONS))
        )
    if settings.ledger:
        total | "LedgerFile" >> WriteLedgerToFile(settings.ledger)
    if isinstance(settings.input, Folder):
        return  # the store shows the ledger of the job that is running, which this is beside
    for place, url in enumerate(settings.outputs):
        url.write_ledger(total, settings, place)


def require_all_written(settings: Settings, taken: set[int]) -> None:
    """Raises: RuntimeError: a job's declaration promises a sink what its page has not."""
    for place, url in enumerate(settings.outputs):
        if place not in taken and not isinstance(url, Folder):  # `build` may have written its files
            raise RuntimeError(f"{settings.job.name} has nothing for {type(url).__name__}: see its `results`")
