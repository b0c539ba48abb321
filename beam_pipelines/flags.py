"""The flags that all jobs share, and for each kind of flag: its parser, its template pattern, its schema in the chart.

`read` accepts all that a template's pattern accepts (except ports above 65535), so that a launch that Dataflow accepts
does not fail minutes later on a machine started for it.

Long, as it is mostly declarations: every common flag is here.
"""

from __future__ import annotations

import argparse
import re
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, TypeVar

from apache_beam.io.filesystems import FileSystems

from beam_pipelines import per_topic, sinks
from beam_pipelines.sinks import BigQueryUrl, Folder, KafkaUrl, Sink
from connections.kafka import kafka_file
from connections.registry import registry_file
from connections.store import store_file
from schemas import currencies
from schemas.addresses import Address
from schemas.flags import Parser, UsageError
from schemas.framing import FORMATS
from schemas.jobs import Flag, Job
from schemas.logs import FORMATS as LOG_FORMATS
from schemas.mapping import SHIPPED, MappingError, parse_mapping, shipped
from schemas.store_keys import PREFIX, PREFIX_PATTERN, store_prefix
from transforms.domain.durations import parse_duration_ms
from transforms.domain.sizes import parse_size_bytes
from transforms.key_groups import MAX_PARALLELISM

__all__ = [
    "KINDS",
    "LOCAL_KAFKA",
    "LOCAL_REDIS",
    "LOCAL_REGISTRY",
    "Kind",
    "inputs",
    "mapping_text",
    "of_job",
    "parser",
    "read",
    "takes",
]

T = TypeVar("T")

LOCAL_KAFKA = "127.0.0.1:29092"
LOCAL_REDIS = "redis://127.0.0.1:6379/0"
LOCAL_REGISTRY = "http://127.0.0.1:8081/apis/ccompat/v7"
OWN = "rules and windows"
_SEVERAL = "repeat the flag, or separate URLs by spaces"

# POSIX extended regular expressions, as Dataflow requires. Durations: up to about a hundred years in each unit.
_COUNT = "[1-9][0-9]{0,5}"
_SECONDS = "[1-9][0-9]{0,8}s|[1-9][0-9]{0,6}m|[1-9][0-9]{0,4}h|[1-9][0-9]{0,3}d"
_LASTING = f"[1-9][0-9]{{0,11}}ms|{_SECONDS}"
_CURRENCIES = "|".join(sorted(currencies.EXPONENTS))
_DURATION = {"$ref": "#/$defs/duration"}


@dataclass(frozen=True)
class Kind:
    """
    Attributes:
      read: text → value; raises ValueError.
      pattern: matches the whole value in a template.
      chart: JSON schema of the value in the chart; None: the chart sets it otherwise, or not at all.
      parameter: Dataflow's parameter type.
      choices: all allowed values.
    """

    read: Callable[[str], Any] = str
    pattern: str = ""
    chart: dict[str, Any] | None = None
    parameter: str = "TEXT"
    choices: tuple[str, ...] | None = None


def _choice(*names: str, chart: bool = False) -> Kind:
    return Kind(pattern="|".join(names), chart={"enum": list(names)} if chart else None, choices=names)


def _at_least_one(text: str) -> int:
    if not text.isdigit() or int(text) < 1:
        raise ValueError(f"{text} is not a whole number of at least 1")
    return int(text)


def _up_to(most: int, why: str) -> Callable[[str], int]:
    def read(text: str) -> int:
        if (number := _at_least_one(text)) > most:
            raise ValueError(f"{text} is more than {why}")
        return number

    return read


def _lasting_ms(text: str) -> int:
    if (ms := parse_duration_ms(text)) < 1:
        raise ValueError(f"{text} is not a positive duration")
    return ms


def _seconds(text: str) -> float:
    if (ms := parse_duration_ms(text)) < 1_000:
        raise ValueError(f"{text} is less than a second")
    return ms / 1_000


def _whole_seconds(text: str) -> int:
    ms = parse_duration_ms(text)
    if ms < 1_000 or ms % 1_000:
        raise ValueError(f"{text} is not a whole number of seconds, at least 1s")
    return ms // 1_000


def _part_size(text: str) -> int:
    size = parse_size_bytes(text)
    if size > 256 << 20:
        raise ValueError(f"{text} is more than 256MiB; a part is held in the job's state until it is written")
    return size


def _group_prefix(text: str) -> str:
    if text and not re.fullmatch(_PREFIX, text):
        raise ValueError(f"'{text}' is not such as shop-a.")
    return text


def number(least: int, most: int) -> dict[str, Any]:
    return {"type": "integer", "minimum": least, "maximum": most}


_MOST_PARALLELISM = 1 << 15
_PREFIX = "[A-Za-z0-9][A-Za-z0-9._-]{0,62}[._-]"
_FORMATS = ("auto", *FORMATS)
# Workers of Dataflow have no files but the image's.
SETTINGS = "secret://[a-z][a-z0-9-]{4,28}[a-z0-9]/[A-Za-z0-9_-]{1,255}"


def _rules_topic(text: str) -> str:
    """A topic's name, or its URL."""
    KafkaUrl.parse(text if "://" in text else f"kafka://{LOCAL_KAFKA}/{text}")
    return text


KINDS: dict[str, Kind] = {
    "text": Kind(),
    "url": Kind(lambda text: Address(text.rstrip("/")), f"https?://{sinks.HOST}(:{sinks.PORT})?(/[A-Za-z0-9._~/-]*)?"),
    "server": Kind(sinks.host_and_port),
    "letters": Kind(pattern=f"{KafkaUrl.pattern}|{Folder.pattern}"),
    "yaml_file": Kind(pattern=f"{Folder.pattern}[.]ya?ml", parameter="GCS_READ_FILE"),
    "mapping": Kind(
        per_topic.per_topic,
        per_topic.pattern(f"{Folder.pattern}[.]ya?ml|{'|'.join(SHIPPED)}"),
        {"type": "string"},
    ),
    "secret_file": Kind(),
    "kafka_file": Kind(kafka_file, SETTINGS),
    "registry_file": Kind(registry_file, SETTINGS),
    "store_file": Kind(store_file, SETTINGS),
    "store_prefix": Kind(store_prefix, PREFIX_PATTERN),
    "group_prefix": Kind(_group_prefix, _PREFIX),
    "currency": Kind(currencies.currency, _CURRENCIES, {"type": "string", "pattern": f"^({_CURRENCIES})$"}),
    "duration": Kind(parse_duration_ms, f"0(ms|s|m|h|d)|{_LASTING}", _DURATION),
    "lasting": Kind(_lasting_ms, _LASTING, _DURATION),
    "seconds": Kind(
        _seconds, _SECONDS, {"type": "string", "pattern": "^([1-9][0-9]{3,8}ms|[1-9][0-9]{0,5}(s|m|h|d))$"}
    ),
    "whole_seconds": Kind(_whole_seconds, _SECONDS, {"type": "string", "pattern": "^[1-9][0-9]{0,5}(s|m)$"}),
    "size": Kind(
        _part_size,
        "[1-9][0-9]{0,4}KiB|([1-9]|[1-9][0-9]|1[0-9]{2}|2[0-4][0-9]|25[0-6])MiB",
        {"$ref": "#/$defs/size"},
    ),
    "count": Kind(_at_least_one, _COUNT, number(1, _MOST_PARALLELISM), "NUMBER"),
    "number": Kind(_up_to(10_000_000, "10000000"), "[1-9][0-9]{0,6}|10000000", number(1, 10_000_000), "NUMBER"),
    "parallelism": Kind(
        _up_to(_MOST_PARALLELISM, f"Flink's {_MOST_PARALLELISM}"), _COUNT, number(1, _MOST_PARALLELISM), "NUMBER"
    ),
    "readers": Kind(
        lambda text: None if text == "auto" else _at_least_one(text), f"auto|{_COUNT}", {"$ref": "#/$defs/readers"}
    ),
    "on_lost": _choice("continue", "stop", chart=True),
    "log_format": _choice(*LOG_FORMATS, chart=True),
    "kafka_read": _choice("blocks", "native"),
    "format": Kind(
        lambda text: per_topic.per_topic(text, _FORMATS),
        per_topic.pattern("|".join(_FORMATS)),
        {"type": "string", "pattern": f"^{per_topic.pattern('|'.join(_FORMATS))}$"},
    ),
    "rules_topic": Kind(
        _rules_topic,
        f"{KafkaUrl.topic_pattern}+|{KafkaUrl.pattern}",
        {"type": "string", "pattern": f"^({KafkaUrl.topic_pattern}+|{KafkaUrl.pattern})$"},
    ),
    "until": _choice("latest"),
}


def mapping_text(name: str) -> str:
    """Of a mapping that is shipped or in a file. Raises: ValueError: it cannot be used; OSError."""
    if name in SHIPPED:
        return shipped(name)
    try:
        with FileSystems.open(name) as file:
            text: str = file.read().decode()
        parse_mapping(text)
    except (UnicodeDecodeError, MappingError) as e:
        raise ValueError(f"{name}: {e}") from e
    return text


def inputs(job: Job) -> list[str]:
    """The default of --input."""
    return [f"kafka://{LOCAL_KAFKA}/{topic}" for topic in job.topics]


def takes(job: Job) -> list[type[Sink]]:
    """The sinks that --output accepts."""
    return [sink for sink in sinks.SINKS if sink.takes(job)]


def several(url: str) -> str:
    return f"({url})( ({url}))*"


def of_job(job: Job) -> dict[str, list[Flag]]:
    """All flags of a job, in the groups and order of --help."""
    return {
        "input, output": [_input(job), _output(job), *_letters(job), *_PLACES, *_SHOP],
        "connections": [*_CONNECTIONS, *(_STORE if job.online else [])],
        OWN: list(job.flags),
        "reading": [*_READING, _readers(job)],
    }


def _input(job: Job) -> Flag:
    many = len(job.topics) > 1
    word = f"{KafkaUrl.topic_pattern}*({'|'.join(job.topic_words)}){KafkaUrl.topic_pattern}*"
    url = f"{KafkaUrl.server_pattern}/{word}" if job.topic_words else KafkaUrl.pattern
    named = f", with {' or '.join(job.topic_words)} in its name" if job.topic_words else ""
    default = f"(default: {' and '.join(inputs(job))})"
    return Flag(
        "input",
        "text",
        f"kafka://host:port[,host:port]/topic, or a path or glob of {' or '.join(job.files)} files, local or gs://"
        f"{f'; {_SEVERAL}' if many else ''} {default}",
        asked=f"Kafka topics to read, each as kafka://host:port[,host:port]/topic{named}, separated by spaces"
        if many
        else "Kafka topic to read, as kafka://host:port[,host:port]/topic",
        pattern=several(url) if many else url,
        required=True,
        several=many,
    )


def _output(job: Job) -> Flag:
    given = job.output_folder or f"{LOCAL_REDIS} and the topic {job.topic} on the input's broker"
    usages = [sink.usage for sink in takes(job)]
    pattern = several("|".join(sink.pattern for sink in takes(job)))
    asked = "Where results go: redis://host:port/db (redis+cluster:// and redis+sentinel:// for those), or "
    asked += "secret://project/secret?ca=secret if it has a password, "
    asked += "bigquery://project.dataset, kafka://host:port/topic, or a folder on gs:// for JSON lines; separate "
    asked += "several by spaces"
    if job.output_folder:
        folder, rows = Folder.pattern, BigQueryUrl.pattern
        pattern = f"{folder}|{rows}|{folder} {rows}|{rows} {folder}"
        asked = "The job's folder on gs://, or bigquery://project.dataset, or both separated by a space"
    what = f"{', '.join(usages[:-1])}, or {usages[-1]}; {_SEVERAL} (default, for Kafka input: {given})"
    return Flag("output", "text", what, asked=asked, pattern=pattern, required=True, several=True)


def _letters(job: Job) -> list[Flag]:
    where = "(default: in the output folder if there is one, else the topic {}." + job.name + ")"
    return [
        Flag(
            "dead_letters",
            "letters",
            f"kafka://host:port/topic or a folder for invalid records {where.format('dlq')}",
            asked="Where invalid records go: kafka://host:port/topic or a folder on gs://; by default, into the output "
            "folder if there is one, else to the topic dlq.<job> on the input's broker",
        ),
        Flag(
            "late",
            "letters",
            f"the same for records beyond the allowed lateness {where.format('late')}",
            asked="The same for records beyond the allowed lateness; the default topic is late.<job>",
        ),
    ]


def _readers(job: Job) -> Flag:
    each = " per topic" if len(job.topics) > 1 else ""
    return Flag(
        "readers",
        "readers",
        f"parallel Kafka readers{each}, which share the partitions; fixed for the life of a job. auto: --parallelism, "
        "but at most one per partition",
        job.readers,
        asked="Parallel Kafka readers per topic; fixed for the life of a job and its updates. auto: the largest number "
        "of workers, but at most one per partition",
    )


_PLACES = [
    Flag("registry", "url", "URL of the schema registry (Confluent API)", LOCAL_REGISTRY, required=True),
    Flag(
        "ledger",
        "text",
        "file for the counts of records: in, good, dead letters, late, duplicates and lost",
        left_out="would rewrite an object every second, the most that Cloud Storage allows; the ledger is in Redis",
    ),
    Flag(
        "roll_every",
        "seconds",
        "folder output of Kafka input: write a part this long after its first row",
        "1m",
    ),
    Flag(
        "roll_size",
        "size",
        "folder output of Kafka input: or once it is this large; until then its rows are in the job's state",
        "16MiB",
    ),
    Flag(
        "log_format",
        "log_format",
        "of log lines, on standard error; workers of embedded Flink have it, too",
        "text",
        left_out="Dataflow has fields of its own for log lines",
    ),
    Flag(
        "until",
        "until",
        "stop at the end offsets the topic has when the job starts (default: never stop)",
        left_out="a template starts a job that does not end",
    ),
]
_FILE = "properties, with passwords by reference; the file must be on every worker and may change (docs/security.md)"
_KEPT = "project/secret in Google's Secret Manager, with the connection settings of"


def _connection(name: str, system: str, names: str) -> Flag:
    text = f"file with the connection settings of {system}: {names} {_FILE}"
    asked = f"secret://{_KEPT} {system} (docs/security.md)"
    return Flag(f"{name}_config", f"{name}_file", text, metavar="FILE", asked=asked)


_CONNECTIONS = [
    _connection("kafka", "Kafka", "librdkafka's or the Java client's"),
    _connection("registry", "the schema registry", "its clients'"),
]
_STORE = [
    _connection("store", "the online store", "its URL's options as"),
    Flag(
        "store_prefix",
        "store_prefix",
        "what the keys of this installation begin with in the online store; two that share a server need two",
        PREFIX,
    ),
]
_SHOP = [
    Flag(
        "currency",
        "currency",
        "the shop's currency (ISO 4217), for the revenue of sessions, as clicks name none, and for a user's spend as "
        "one number; orders name their own, and amounts in different currencies are never added",
        currencies.DEFAULT,
    ),
]
_READING = [
    Flag("out_of_orderness", "duration", "how far a partition's watermark trails its newest record", "10s"),
    Flag("allowed_lateness", "duration", "records further behind the watermark are late", "10m"),
    Flag(
        "max_ahead",
        "lasting",
        "reject an event that is further than this ahead of its partition's clock, as a dead letter",
        "1h",
    ),
    Flag(
        "kafka_read",
        "kafka_read",
        "blocks: our own fast source; native: Beam's Java KafkaIO, slower, for RocksDB with Beam's older job servers",
        "blocks",
        left_out="native needs Java and an expansion service at submission, which the launcher's image lacks",
    ),
    Flag(
        "expansion_service",
        "server",
        "host:port of the Java expansion service for --kafka_read=native (default: start one while the pipeline is "
        "built)",
        left_out="belongs to --kafka_read=native",
    ),
    Flag(
        "discover_every", "lasting", "how often to check for new partitions and for a topic that was recreated", "20s"
    ),
    Flag(
        "group_prefix",
        "group_prefix",
        "stands before the job's name in that of its consumer group, by which Kafka shows how far it is; of shops that "
        "share a Kafka each needs its own, such as shop-a.",
    ),
    Flag(
        "idle_after",
        "lasting",
        "a partition without new records holds the watermark this long; then it follows the topic's other partitions",
        "10s",
    ),
    Flag(
        "on_lost",
        "on_lost",
        "when Kafka has deleted records before they were read: count them as lost and continue, or stop the job",
        "continue",
    ),
    Flag(
        "state_shards",
        "count",
        "shards of keyed state, spread evenly up to this --parallelism; fixed for the life of a job",
        "32",
        asked="Shards of keyed state, and so its largest parallelism; fixed for the life of a job and its updates",
    ),
    Flag(
        "max_parallelism",
        "parallelism",
        "largest --parallelism that a job on Flink can be restarted with; fixed for the life of a job",
        str(MAX_PARALLELISM),
        left_out="applies to Flink only",
    ),
]


def parser(job: Job) -> Parser:
    """The parser of a job's own and common flags, without Beam's."""
    made = Parser(
        prog=f"python -m {job.page}",
        description=job.summary,
        epilog="Options of Beam and its runners work as well, such as --runner=FlinkRunner --parallelism=4.\n"
        "Durations are whole numbers with a unit: 500ms, 10s, 30m, 2h, 7d.",
    )
    for title, flags in of_job(job).items():
        group = made.add_argument_group(title)
        for flag in flags:
            group.add_argument(
                f"--{flag.name}",
                action="append" if flag.several else "store",
                default=flag.default,
                choices=KINDS[flag.kind].choices,
                metavar=flag.metavar,
                help=flag.help if flag.default is None else f"{flag.help} (default: %(default)s)",
            )
    return made


def values(job: Job, given: argparse.Namespace) -> dict[str, Any]:
    """Flag → value, parsed by its kind. Raises: UsageError."""
    found: dict[str, Any] = {}
    for flag in (flag for group in of_job(job).values() for flag in group):
        text = getattr(given, flag.name)
        found[flag.name] = read(f"--{flag.name}", KINDS[flag.kind].read, text) if isinstance(text, str) else text
    return found


def read(flag: str, convert: Callable[[str], T], text: str) -> T:
    """Raises: UsageError."""
    try:
        return convert(text)
    except (ValueError, OSError) as e:
        raise UsageError(flag, e) from e
