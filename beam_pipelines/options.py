"""The flags that every job has, read strictly: what cannot work is refused before anything starts.

A wrong flag, URL, schema or file ends the program with exit status 2 and one line that names the flag and the reason.
"""

from __future__ import annotations

import argparse
import difflib
import re
import sys
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, NoReturn, TypeVar
from urllib.parse import urlsplit

from apache_beam.options.pipeline_options import PipelineOptions, StandardOptions

from schemas.addresses import Address, StoreUrl, nearly_url, scrub, shown
from schemas.flags import Parser, UsageError
from transforms.domain.durations import parse_duration_ms
from transforms.domain.sizes import parse_size_bytes
from transforms.io.folder import Rolling
from transforms.key_groups import MAX_PARALLELISM

__all__ = [
    "FLINK_ONLY",
    "SECRET_URL",
    "BigQueryUrl",
    "Folder",
    "Job",
    "KafkaUrl",
    "Parser",
    "RedisUrl",
    "Settings",
    "UsageError",
    "bigquery_url",
    "http_url",
    "input_url",
    "parse",
    "parser",
    "stop",
]

LOCAL_KAFKA = "127.0.0.1:29092"
LOCAL_REDIS = "redis://127.0.0.1:6379/0"
LOCAL_REGISTRY = "http://127.0.0.1:8081/apis/ccompat/v7"
STATE_SHARDS = 64
_MOST_PARALLELISM = 1 << 15
_SEVERAL = "several URLs at once, with spaces between them, or the flag several times"

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

_WRITABLE = "redis://, bigquery://, kafka://, gs:// or a folder"
_BETWEEN_URLS = re.compile(r"\s+(?=[a-z]+://)")
# As Google has them: letters, digits and - in a project, _ in a dataset.
_BIGQUERY = re.compile(r"bigquery://([a-z][a-z0-9-]{4,28}[a-z0-9])\.(\w{1,1024})", re.ASCII)
SECRET_URL = re.compile(r"secret://[a-z][a-z0-9-]{4,28}[a-z0-9]/[A-Za-z0-9_-]{1,255}([?]ca=[A-Za-z0-9_-]{1,255})?")

T = TypeVar("T")


@dataclass(frozen=True)
class KafkaUrl:
    servers: str
    topic: str


@dataclass(frozen=True)
class RedisUrl:
    """Attributes:
    url: or, as secret://, the name of one that Secret Manager keeps.
    """

    url: StoreUrl | str


@dataclass(frozen=True)
class BigQueryUrl:
    project: str
    dataset: str

    @property
    def name(self) -> str:
        return f"{self.project}.{self.dataset}"


@dataclass(frozen=True)
class Folder:
    """A folder, or for input a path or glob."""

    path: str

    def subfolder(self, table: str) -> tuple[str, str]:
        """Where a table's parts go, as (folder, table); a folder that is already named for the table is used as is."""
        parent, _, name = self.path.rstrip("/").rpartition("/")
        return (parent or ("/" if self.path.startswith("/") else "."), name) if name == table else (self.path, table)


@dataclass(frozen=True)
class Job:
    """What the flags of a job are named after.

    Attributes:
      name: as in dead letters, metrics and topics (`dlq.<name>`, `late.<name>`).
      input_topic, output_topic: read and written when no flag says otherwise; written beside Redis.
      more_topics: read too, by a job that takes --input several times.
      output_folder: written when no flag says otherwise, instead of Redis and a topic.
      tables: of `schemas.tables`, that it can write to BigQuery.
      readers: of each topic, when no flag says otherwise.
    """

    name: str
    module: str
    summary: str
    input_topic: str
    output_topic: str = ""
    more_topics: tuple[str, ...] = ()
    output_folder: str | None = None
    tables: tuple[str, ...] = ()
    readers: str = "auto"


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
      on_lost: continue or stop.
      roll: when a part of a folder is written.
    """

    job: Job
    inputs: tuple[KafkaUrl | Folder, ...]
    outputs: tuple[KafkaUrl | RedisUrl | BigQueryUrl | Folder, ...]
    dead_letters: KafkaUrl | Folder
    late: KafkaUrl | Folder
    registry: Address
    ledger: str | None
    until_end: bool
    kafka_read: str
    expansion_service: str | None
    readers: int | None
    discover_every_s: float
    on_lost: Literal["continue", "stop"]
    allowed_lateness_ms: int
    out_of_orderness_ms: int
    max_ahead_ms: int
    state_shards: int
    max_parallelism: int
    roll: Rolling

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


def stop(error: object, job: str) -> NoReturn:
    """Ends the program as a usage error does."""
    print(f"{job}: {error}", file=sys.stderr)  # noqa: T201
    sys.exit(2)


def parse(
    job: Job, argv: Sequence[str], add_flags: Callable[[Any], None]
) -> tuple[argparse.Namespace, Settings, list[str]]:
    """Reads a job's command line.

    Args:
      add_flags: adds the job's own flags to an argument group.

    Returns:
      All flags as argparse gives them, the common ones read, and what is left for Beam.

    Raises:
      UsageError.
    """
    ours = parser(job, add_flags)
    flags, rest = ours.parse_known_args(argv)
    _refuse_unknown(rest, ours)
    return flags, _settings(job, flags), rest


def parser(job: Job, add_flags: Callable[[Any], None]) -> argparse.ArgumentParser:
    """Of a job's own flags, the common ones included; Beam's are not among them. For `add_flags` see `parse`."""
    made = Parser(
        prog=f"python -m {job.module}",
        description=job.summary,
        epilog="All options of Beam and of its runner are taken too, as --runner=FlinkRunner --parallelism=4.\n"
        "Durations are whole numbers with a unit: 500ms, 10s, 30m, 2h, 7d.",
    )
    _add_common(made.add_argument_group("input, output"), job)
    add_flags(made.add_argument_group("rules and windows"))
    _add_tuning(made.add_argument_group("reading"), job)
    return made


def _add_common(group: Any, job: Job) -> None:
    inputs = _default_inputs(job)
    group.add_argument(
        "--input",
        action="append" if len(inputs) > 1 else "store",
        help="kafka://host:port[,host:port]/topic, or a path or glob of .avro or .jsonl files, local or gs://"
        f"{f'; {_SEVERAL}' if len(inputs) > 1 else ''} (default: {' and '.join(inputs)})",
    )
    outputs = job.output_folder or f"{LOCAL_REDIS} and the topic {job.output_topic} beside the input"
    group.add_argument(
        "--output",
        action="append",
        help="redis://host:port/db (or secret://project/secret, if Google's Secret Manager keeps that), "
        "bigquery://project.dataset, kafka://host:port/topic, or a folder for JSON lines; "
        f"{_SEVERAL} (default, for Kafka input: {outputs})",
    )
    group.add_argument(
        "--dead_letters",
        help="kafka://host:port/topic or a folder for records that cannot be used "
        f"(default: beside the rows if --output has a folder, else the topic dlq.{job.name})",
    )
    group.add_argument(
        "--late",
        help="the same for records beyond the allowed lateness "
        f"(default: beside the rows if --output has a folder, else the topic late.{job.name})",
    )
    group.add_argument(
        "--registry", default=LOCAL_REGISTRY, help="URL of the schema registry, Confluent API (default: %(default)s)"
    )
    group.add_argument(
        "--ledger", help="file that receives the counts of records in, good, dead letters, late and duplicates"
    )
    group.add_argument(
        "--roll_every",
        default="1m",
        help="of a folder, for Kafka input: a part is written so long after its first row (default: %(default)s)",
    )
    group.add_argument(
        "--roll_size",
        default="16MiB",
        help="of a folder, for Kafka input: or once it holds so much; until then its rows are in the job's state "
        "(default: %(default)s)",
    )
    group.add_argument(
        "--until", choices=["latest"], help="stop at the end offsets that the topic has at the start (default: never)"
    )


def _add_tuning(group: Any, job: Job) -> None:
    group.add_argument(
        "--out_of_orderness",
        default="10s",
        help="how far a partition's watermark stays behind its newest record (default: %(default)s)",
    )
    group.add_argument(
        "--allowed_lateness",
        default="10m",
        help="records further behind the watermark are late (default: %(default)s)",
    )
    group.add_argument(
        "--max_ahead",
        default="1h",
        help="an event this much further ahead of its partition's clock is from the future, and a dead letter "
        "(default: %(default)s)",
    )
    group.add_argument(
        "--kafka_read",
        choices=["blocks", "native"],
        default="blocks",
        help="blocks: our own source, fast; native: Beam's Java KafkaIO, slower, for RocksDB on Beam's older "
        "job servers (default: %(default)s)",
    )
    group.add_argument(
        "--expansion_service",
        help="host:port of the Java expansion service that --kafka_read=native is built with "
        "(default: one is started while the pipeline is built)",
    )
    group.add_argument(
        "--readers",
        default=job.readers,
        help=f"Kafka readers side by side{', of each topic' if job.more_topics else ''}, which share the partitions; a "
        "restored job keeps the number that it began with. auto: as many as --parallelism, but no more than partitions "
        "(default: %(default)s)",
    )
    group.add_argument(
        "--discover_every",
        default="30s",
        help="how often to look whether a topic has new partitions or was made anew (default: %(default)s)",
    )
    group.add_argument(
        "--on_lost",
        choices=["continue", "stop"],
        default="continue",
        help="what to do when Kafka no longer holds what was to be read next: count it as lost and go on, or end the "
        "job (default: %(default)s)",
    )
    group.add_argument(
        "--state_shards",
        default=str(STATE_SHARDS),
        help="parts that keyed state is divided into, evenly over --parallelism up to as many; fixed for the life of a "
        "job (default: %(default)s)",
    )
    group.add_argument(
        "--max_parallelism",
        default=str(MAX_PARALLELISM),
        help="the most --parallelism that a job on Flink can be restarted with; fixed for the life of a job "
        "(default: %(default)s)",
    )


def _settings(job: Job, flags: argparse.Namespace) -> Settings:
    given = [flags.input] if isinstance(flags.input, str) else _listed(flags.input) or _default_inputs(job)
    inputs = tuple(_read("--input", input_url, text) for text in given)
    source = inputs[0]
    if len({type(url) for url in inputs}) > 1:
        raise UsageError("--input", "is either topics or files, not both")
    texts = _listed(flags.output) or (_default_outputs(job, source) if _is_kafka(source) else [])
    if not texts:
        raise UsageError("--output", "is needed when --input is files")
    outputs = tuple(_read("--output", _output_url, text) for text in texts)
    beside = outputs if flags.output else ()  # a default folder is no place that anybody would look for dead letters in
    if flags.until and not _is_kafka(source):
        raise UsageError("--until", "is for Kafka input; files have an end by themselves")
    if flags.until and flags.kafka_read == "native":
        raise UsageError("--until", "needs --kafka_read=blocks: the native read cannot stop at an offset")
    if flags.on_lost == "stop" and flags.kafka_read == "native":
        raise UsageError("--on_lost", "needs --kafka_read=blocks: the native read does not see what is lost")
    return Settings(
        job=job,
        inputs=inputs,
        outputs=outputs,
        dead_letters=_side("--dead_letters", flags.dead_letters, f"dlq.{job.name}", source, beside),
        late=_side("--late", flags.late, f"late.{job.name}", source, beside),
        registry=_read("--registry", http_url, flags.registry),
        ledger=None if flags.ledger is None else _read("--ledger", _file, flags.ledger),
        until_end=flags.until == "latest",
        kafka_read=flags.kafka_read,
        expansion_service=None
        if flags.expansion_service is None
        else _read("--expansion_service", _server, flags.expansion_service),
        readers=_read("--readers", _readers, flags.readers),
        discover_every_s=_read("--discover_every", _lasting_ms, flags.discover_every) / 1000,
        on_lost=flags.on_lost,
        allowed_lateness_ms=_read("--allowed_lateness", parse_duration_ms, flags.allowed_lateness),
        out_of_orderness_ms=_read("--out_of_orderness", parse_duration_ms, flags.out_of_orderness),
        max_ahead_ms=_read("--max_ahead", _lasting_ms, flags.max_ahead),
        state_shards=_read("--state_shards", _at_least_one, flags.state_shards),
        max_parallelism=_read("--max_parallelism", _max_parallelism, flags.max_parallelism),
        roll=Rolling(
            _read("--roll_every", _some_seconds, flags.roll_every), _read("--roll_size", _part_size, flags.roll_size)
        ),
    )


def _listed(given: Sequence[str] | None) -> list[str]:
    """One value may name several, with a space before each further URL: a template's parameter is given once.

    Not a comma, which kafka:// has within itself; and a path may hold spaces, but no URL does.
    """
    return [text for value in given or () for text in _BETWEEN_URLS.split(value)]


def _default_inputs(job: Job) -> list[str]:
    return [f"kafka://{LOCAL_KAFKA}/{topic}" for topic in (job.input_topic, *job.more_topics)]


def _default_outputs(job: Job, source: Any) -> list[str]:
    return [job.output_folder] if job.output_folder else [LOCAL_REDIS, f"kafka://{source.servers}/{job.output_topic}"]


def _side(flag: str, text: str | None, topic: str, source: Any, outputs: Sequence[Any]) -> KafkaUrl | Folder:
    if text is not None:
        url = _read(flag, _output_url, text)
        if isinstance(url, RedisUrl | BigQueryUrl):
            raise UsageError(flag, f"{shown(text)} is neither a Kafka topic nor a folder")
        return url
    for output in outputs:
        if isinstance(output, Folder):
            return output
    for kafka in (source, *outputs):
        if isinstance(kafka, KafkaUrl):
            return KafkaUrl(kafka.servers, topic)
    raise UsageError(flag, "is needed when there is neither a folder nor Kafka among --input and --output")


def _is_kafka(url: Any) -> bool:
    return isinstance(url, KafkaUrl)


def _read(flag: str, convert: Callable[[str], T], text: str) -> T:
    try:
        return convert(text)
    except (ValueError, OSError) as e:
        raise UsageError(flag, e) from e


def _kafka_url(text: str) -> KafkaUrl:
    try:
        parts = urlsplit(text)
    except ValueError:
        raise ValueError(f"{shown(text)} is not kafka://host:port/topic") from None
    if parts.query or parts.fragment:
        raise ValueError(f"{shown(text)} has ?options, which kafka:// does not take")
    topic = parts.path.strip("/")
    if not topic or "/" in topic:
        raise ValueError(f"{shown(text)} names no topic; write kafka://host:port/topic")
    try:
        for server in parts.netloc.split(","):
            _server(server)
    except ValueError as e:
        raise ValueError(f"{shown(text)}: {e}") from e
    return KafkaUrl(parts.netloc, topic)


def _server(text: str) -> str:
    host, _, port = text.rpartition(":")
    if not host or not port.isdigit() or "@" in host:
        raise ValueError(f"'{shown(text)}' is not host:port")
    return text


def input_url(text: str) -> KafkaUrl | Folder:
    scheme = _scheme(text)
    if scheme == "kafka":
        return _kafka_url(text)
    if scheme in ("", "gs", "file"):
        return _folder(text)
    raise ValueError(f"{shown(text)}: cannot read {_known(scheme)}; use kafka://, gs:// or a path")


def _output_url(text: str) -> KafkaUrl | RedisUrl | BigQueryUrl | Folder:
    scheme = _scheme(text)
    if scheme == "kafka":
        return _kafka_url(text)
    if scheme in ("redis", "rediss"):
        return RedisUrl(StoreUrl(text))
    if scheme == "secret":
        if not SECRET_URL.fullmatch(text):
            raise ValueError(f"{shown(text)} is not secret://project/secret or secret://project/secret?ca=secret")
        return RedisUrl(text)
    if scheme == "bigquery":
        return bigquery_url(text)
    if scheme in ("", "gs", "file"):
        return _folder(text)
    raise ValueError(f"{shown(text)}: cannot write to {_known(scheme)}; use {_WRITABLE}")


def _folder(text: str) -> Folder:
    if not text:
        raise ValueError("is empty")
    if nearly_url(text):
        raise ValueError(f"{shown(text)} is neither a URL nor a path")
    return Folder(text.removeprefix("file://"))


def bigquery_url(text: str) -> BigQueryUrl:
    found = _BIGQUERY.fullmatch(text)
    if not found:
        raise ValueError(f"{shown(text)} is not bigquery://project.dataset")
    return BigQueryUrl(*found.groups())


def _scheme(text: str) -> str:
    return text.split("://", 1)[0].lower() if "://" in text else ""


def _known(scheme: str) -> str:
    return f"{scheme}://" if scheme.isalnum() else "that"


def _some_seconds(text: str) -> float:
    duration_ms = parse_duration_ms(text)
    if duration_ms < 1_000:
        raise ValueError(f"{text} is less than a second")
    return duration_ms / 1_000


def _part_size(text: str) -> int:
    size = parse_size_bytes(text)
    if size > 256 << 20:
        raise ValueError(f"{text} is more than 256MiB, and a part waits in the job's state")
    return size


def http_url(text: str) -> Address:
    return Address(text.rstrip("/"))


def _file(text: str) -> str:
    if not text or text.endswith("/") or Path(text).is_dir():
        raise ValueError(f"'{text}' is not the name of a file")
    return text


def _at_least_one(text: str) -> int:
    if not text.isdigit() or int(text) < 1:
        raise ValueError(f"{text} is not a whole number of at least 1")
    return int(text)


def _max_parallelism(text: str) -> int:
    if _at_least_one(text) > _MOST_PARALLELISM:
        raise ValueError(f"{text} is more than Flink's {_MOST_PARALLELISM}")
    return int(text)


def _readers(text: str) -> int | None:
    return None if text == "auto" else _at_least_one(text)


def _lasting_ms(text: str) -> int:
    if (ms := parse_duration_ms(text)) < 1:
        raise ValueError(f"{text} is no time at all")
    return ms


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
    parser = Parser(prog=prog, add_help=False, conflict_handler="resolve")
    classes = [PipelineOptions]
    while classes:
        options = classes.pop()
        classes += options.__subclasses__()
        if "_add_argparse_args" in options.__dict__:
            options._add_argparse_args(parser)
    return parser
