"""A job's command line, read strictly: what cannot work is refused before anything starts.

Long, as it lists the options that only Flink's side of Beam knows.
"""

from __future__ import annotations

import argparse
import difflib
import re
import time
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal

from apache_beam.options.pipeline_options import PipelineOptions, StandardOptions

from beam_pipelines import flags as flags_
from beam_pipelines import sinks
from beam_pipelines.flags import LOCAL_REDIS, read
from beam_pipelines.per_topic import PerTopic
from beam_pipelines.sinks import Folder, KafkaUrl, Sink
from schemas.addresses import Address, scrub, shown
from schemas.flags import Parser, UsageError
from schemas.jobs import LETTERS, Job
from schemas.logs import Logs
from schemas.mapping import parse_mapping
from transforms.io.folder import Rolling

__all__ = ["FLINK_ONLY", "Settings", "check_state", "input_url", "parse"]

_BETWEEN_URLS = re.compile(r"\s+(?=[a-z+]+://)")

# Options of Beam's Flink runner that exist only on its Java side; the Python SDK passes them on without knowing them.
FLINK_ONLY = frozenset(
    [
        "attach_to_job",
        "auto_balance_write_files_sharding_enabled",
        "auto_watermark_interval",
        "block_on_migration",
        "checkpoint_timeout_millis",
        "checkpointing_interval",
        "checkpointing_mode",
        "disable_metrics",
        "enable_stable_input_drain",
        "execution_mode_for_batch",
        "execution_retry_delay",
        "externalized_checkpoints_enabled",
        "fail_on_checkpointing_errors",
        "faster_copy",
        "files_to_stage",
        "finish_bundle_before_checkpointing",
        "flink_conf_dir",
        "force_unaligned_checkpoint_enabled",
        "jobcheckinterval_in_secs",
        "latency_tracking_interval",
        "max_bundle_size",
        "max_bundle_time_mills",
        "min_pause_between_checkpoints",
        "number_of_concurrent_checkpoints",
        "number_of_execution_retries",
        "object_reuse",
        "operator_chaining",
        "re_iterable_group_by_key_result",
        "report_checkpoint_duration",
        "retain_externalized_checkpoints_on_cancellation",
        "savepoint_path",
        "allow_non_restored_state",
        "shutdown_sources_after_idle_ms",
        "state_backend",
        "state_backend_factory",
        "state_backend_storage_path",
        "tolerable_checkpoint_failure_number",
        "unaligned_checkpoint_enabled",
        "use_data_stream_for_batch",
    ]
)


@dataclass(frozen=True)
class Settings:
    """The common flags, read.

    Attributes:
      inputs: all of one sort; a job of one kind of record has one.
      until_end: stop at the end offsets seen at start.
      dead_letters, late: where refused records go.
      ledger: file or None.
      expansion_service: host:port, or None for one of our own; for `kafka_read` native.
      readers: how many Kafka readers of a topic side by side; None: as the runner's parallelism and the partitions say.
      discover_every_s: how often topics are looked at.
      group: the consumer group that shows how far the job is.
      idle_after_ms: for so long a partition without new records is waited for.
      on_lost: continue or stop.
      roll: when a part of a folder is written.
      format: what messages are framed as, of a job that reads more than its own.
      mapping: texts of the mappings, if messages are not ours.
      report: folder of this machine for what a run that ends says in the end.
      currency: the shop's.
      logs: how launcher and workers log.
      started_ms: when the job was started.
    """

    job: Job
    inputs: tuple[KafkaUrl | Folder, ...]
    outputs: tuple[Sink, ...]
    dead_letters: KafkaUrl | Folder
    late: KafkaUrl | Folder
    registry: Address
    ledger: str | None
    until_end: bool
    kafka_read: str
    expansion_service: str | None
    readers: int | None
    discover_every_s: float
    group: str
    idle_after_ms: int
    on_lost: Literal["continue", "stop"]
    allowed_lateness_ms: int
    out_of_orderness_ms: int
    max_ahead_ms: int
    state_shards: int
    max_parallelism: int
    roll: Rolling
    currency: str
    logs: Logs
    format: PerTopic[str] = PerTopic("auto")  # noqa: RUF009 - frozen
    mapping: PerTopic[str] = PerTopic()  # noqa: RUF009
    report: str | None = None
    started_ms: int = field(default_factory=lambda: time.time_ns() // 1_000_000, compare=False)

    @property
    def input(self) -> KafkaUrl | Folder:
        """The only input, or the first."""
        return self.inputs[0]

    @property
    def bounded(self) -> bool:
        """Whether the input has an end."""
        return self.until_end or isinstance(self.input, Folder)

    @property
    def rolling(self) -> Rolling | None:
        """When parts of folders are written; None for input that ends: that has few bundles, and each is a part."""
        return None if self.bounded else self.roll

    @property
    def watermark_lead_ms(self) -> int:
        """How far Beam's watermark runs ahead of the one that lateness is measured by."""
        native = isinstance(self.input, KafkaUrl) and self.kafka_read == "native"
        return self.out_of_orderness_ms if native else 0


def parse(job: Job, argv: Sequence[str]) -> tuple[argparse.Namespace, Settings, list[str]]:
    """Reads a job's command line.

    Returns:
      All flags with their values, the common ones as the job's settings, and what is left for Beam.

    Raises:
      UsageError.
    """
    ours = flags_.parser(job)
    given, rest = ours.parse_known_args(argv)
    _refuse_unknown(rest, ours)
    flags = argparse.Namespace(**flags_.values(job, given))
    return flags, _settings(job, flags), rest


def check_state(flags: argparse.Namespace, settings: Settings) -> None:
    """Compares for how long state is kept with its bound. Raises: UsageError."""
    for state in settings.job.state:
        kept_ms = sum(getattr(flags, span) for span in state.spans) + settings.watermark_lead_ms
        if state.within and getattr(flags, state.within) <= kept_ms:
            spans = ", ".join(f"--{span}" for span in state.spans)
            reason = f"must be more than {spans} and, with --kafka_read=native, --out_of_orderness together"
            raise UsageError(f"--{state.within}", reason)


def _settings(job: Job, flags: argparse.Namespace) -> Settings:
    given = [flags.input] if isinstance(flags.input, str) else _listed(flags.input) or flags_.inputs(job)
    inputs = tuple(read("--input", input_url, text).connected(flags) for text in given)
    source = inputs[0]
    if len({type(url) for url in inputs}) > 1:
        raise UsageError("--input", "is either topics or files, not both")
    texts = _listed(flags.output) or (_default_outputs(job, source) if isinstance(source, KafkaUrl) else [])
    if not texts:
        raise UsageError("--output", "is needed when --input is files")
    outputs = tuple(read("--output", sinks.output, text).connected(flags) for text in texts)
    for url, text in zip(outputs, texts, strict=True):
        if not url.takes(job):
            usages = " and ".join(sink.usage for sink in flags_.takes(job))
            raise UsageError("--output", f"{shown(text)}: {job.name} has nothing for that; it writes to {usages}")
    if job.output_folder and sum(isinstance(url, Folder) for url in outputs) > 1:
        raise UsageError("--output", "names two folders; the files are in one")
    beside = outputs if flags.output else ()  # a default folder is no place that anybody would look for dead letters in
    _check_modes(flags, source)
    return Settings(
        job=job,
        inputs=inputs,
        outputs=outputs,
        dead_letters=_side("dead_letters", flags.dead_letters, job, source, beside).connected(flags),
        late=_side("late", flags.late, job, source, beside).connected(flags),
        registry=Address(flags.registry, flags.registry_config),
        ledger=None if flags.ledger is None else read("--ledger", _file, flags.ledger),
        until_end=flags.until == "latest",
        kafka_read=flags.kafka_read,
        expansion_service=flags.expansion_service,
        readers=flags.readers,
        discover_every_s=flags.discover_every / 1000,
        group=f"{flags.group_prefix or ''}{job.name}",
        idle_after_ms=flags.idle_after,
        on_lost=flags.on_lost,
        allowed_lateness_ms=flags.allowed_lateness,
        out_of_orderness_ms=flags.out_of_orderness,
        max_ahead_ms=flags.max_ahead,
        state_shards=flags.state_shards,
        max_parallelism=flags.max_parallelism,
        roll=Rolling(flags.roll_every, flags.roll_size),
        format=_of_topics("--format", inputs, getattr(flags, "format", None) or PerTopic("auto")),
        mapping=_of_topics("--mapping", inputs, getattr(flags, "mapping", None) or PerTopic()).each(
            lambda name: _mapping(job, name)
        ),
        currency=flags.currency,
        logs=Logs(flags.log_format, job.name),
    )


def _of_topics(flag: str, inputs: Sequence[KafkaUrl | Folder], given: PerTopic[str]) -> PerTopic[str]:
    """Raises: UsageError: it names another topic."""
    try:
        given.check(url.topic for url in inputs if isinstance(url, KafkaUrl))
    except ValueError as e:
        raise UsageError(flag, e) from e
    return given


def _mapping(job: Job, given: str) -> str:
    """Its text. Raises: UsageError: it cannot be used, or says nothing of what the job reads."""
    text = read("--mapping", flags_.mapping_text, given)
    sections = parse_mapping(text).sections
    if not sections.keys() & job.sections:
        raise UsageError("--mapping", f"{given} has no section {' or '.join(sorted(job.sections))}")
    return text


def _check_modes(flags: argparse.Namespace, source: KafkaUrl | Folder) -> None:
    if flags.until and not isinstance(source, KafkaUrl):
        raise UsageError("--until", "is for Kafka input; files have an end by themselves")
    if flags.until and flags.kafka_read == "native":
        raise UsageError("--until", "needs --kafka_read=blocks: the native read cannot stop at an offset")
    if flags.on_lost == "stop" and flags.kafka_read == "native":
        raise UsageError("--on_lost", "needs --kafka_read=blocks: the native read does not see what is lost")


def _listed(given: Sequence[str] | None) -> list[str]:
    """One value may name several, with a space before each further URL: a template's parameter is given once.

    Not a comma, which kafka:// has within itself; and a path may hold spaces, but no URL does.
    """
    return [text for value in given or () for text in _BETWEEN_URLS.split(value)]


def _default_outputs(job: Job, source: KafkaUrl) -> list[str]:
    if job.output_folder:
        return [job.output_folder]
    return [LOCAL_REDIS] * job.online + [f"kafka://{source.servers}/{job.topic}"] * bool(job.topic)


def _side(
    name: str, text: str | None, job: Job, source: KafkaUrl | Folder, outputs: Sequence[Sink]
) -> KafkaUrl | Folder:
    flag = f"--{name}"
    if text is not None:
        url = read(flag, sinks.output, text)
        if not isinstance(url, KafkaUrl | Folder):
            raise UsageError(flag, f"{shown(text)} is neither a Kafka topic nor a folder")
        return url
    for output in outputs:
        if isinstance(output, Folder):
            return output
    for kafka in (source, *outputs):
        if isinstance(kafka, KafkaUrl):
            return KafkaUrl(kafka.servers, f"{LETTERS[name]}.{job.name}")
    raise UsageError(flag, "is needed when there is neither a folder nor Kafka among --input and --output")


def input_url(text: str) -> KafkaUrl | Folder:
    """A value of --input. Raises: ValueError."""
    scheme = text.split("://", 1)[0].lower() if "://" in text else ""
    if scheme in KafkaUrl.schemes:
        return KafkaUrl.parse(text)
    if scheme in Folder.schemes:
        return Folder.parse(text)
    known = f"{scheme}://" if scheme.isalnum() else "that"
    raise ValueError(f"{shown(text)}: cannot read {known}; use kafka://, gs:// or a path")


def _file(text: str) -> str:
    if not text or text.endswith("/") or Path(text).is_dir():
        raise ValueError(f"'{text}' is not the name of a file")
    return text


def _refuse_unknown(rest: Sequence[str], ours: argparse.ArgumentParser) -> None:
    """Beam drops what it does not know; a typing error must not run a job with a default instead."""
    theirs = _beam_parser(ours.prog)
    values, left = theirs.parse_known_args(list(rest))
    names = FLINK_ONLY | {o[2:] for action in theirs._actions for o in action.option_strings}
    takes_value = False
    for word in left:
        name = word[2:].split("=", 1)[0]
        if not word.startswith("--"):
            if not takes_value:
                raise UsageError(scrub(word), "is not a flag; see --help")
        elif name.removeprefix("no_") not in names and name not in names:
            every = sorted(names) + [o[2:] for action in ours._actions for o in action.option_strings]
            close = difflib.get_close_matches(name, every, n=1)
            raise UsageError(
                f"--{name}", "no such flag" + (f"; did you mean --{close[0]}?" if close else "; see --help")
            )
        takes_value = word.startswith("--") and "=" not in word
    runners = {name.lower(): name for name in StandardOptions.KNOWN_RUNNER_NAMES}
    if values.runner and "." not in values.runner and values.runner.lower() not in runners:
        raise UsageError("--runner", f"{values.runner} is not one of {', '.join(sorted(runners.values()))}")


def _beam_parser(prog: str) -> argparse.ArgumentParser:
    parser = Parser(prog=prog, add_help=False, conflict_handler="resolve", allow_abbrev=False)
    classes = [PipelineOptions]
    while classes:
        options = classes.pop()
        classes += options.__subclasses__()
        if "_add_argparse_args" in options.__dict__:
            options._add_argparse_args(parser)
    return parser
