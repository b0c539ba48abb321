"""The command line of `python -m beam_pipelines.dead_letters`."""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from datetime import datetime
from typing import Any, NamedTuple

from beam_pipelines.flags import KINDS, LOCAL_KAFKA, LOCAL_REGISTRY
from beam_pipelines.options import input_url
from beam_pipelines.sinks import Folder, KafkaUrl
from connections.kafka import Brokers, kafka_file
from connections.registry import registry_file
from schemas.addresses import Address, shown
from schemas.flags import Parser, UsageError, typed
from transforms.errors import ATTEMPTS_HEADER, BadRecord

__all__ = ["BATCH", "EVERY", "MAX_ATTEMPTS", "Filters", "parse"]

MAX_ATTEMPTS = 5
BATCH = 500


class Filters(NamedTuple):
    """Which letters a command applies to. Of several values any may match; times are when the job saw the record."""

    error_classes: frozenset[str]
    topics: frozenset[str]
    partitions: frozenset[int]
    since_ms: int | None
    until_ms: int | None

    def match(self, record: BadRecord | None) -> bool:
        if record is None:
            return self == EVERY
        return (
            (not self.error_classes or record.error_class in self.error_classes)
            and (not self.topics or record.topic in self.topics)
            and (not self.partitions or record.partition in self.partitions)
            and (self.since_ms is None or record.seen_at >= self.since_ms)
            and (self.until_ms is None or record.seen_at < self.until_ms)
        )


EVERY = Filters(frozenset(), frozenset(), frozenset(), None, None)


def parse(argv: Sequence[str] | None) -> tuple[argparse.Namespace, Filters]:
    """The flags; `source`, `to` and the like converted.

    Raises:
      UsageError.
    """
    flags = _parser().read(argv)
    flags.source = flags.source.connected(flags)
    if getattr(flags, "kafka", None):
        flags.kafka = Brokers(flags.kafka, flags.kafka_config)
    if isinstance(getattr(flags, "to", None), KafkaUrl):
        flags.to = flags.to.connected(flags)
    if hasattr(flags, "registry"):
        flags.registry = Address(flags.registry, flags.registry_config)
    _check(flags)
    return flags, Filters(
        frozenset(flags.error_class), frozenset(flags.topic), frozenset(flags.partition), flags.since, flags.until
    )


def _check(flags: argparse.Namespace) -> None:
    if flags.since is not None and flags.until is not None and flags.since >= flags.until:
        raise UsageError("--until", "is not after --since")
    if flags.command in ("replay", "export"):
        if isinstance(flags.source, KafkaUrl) and flags.kafka:
            raise UsageError("--kafka", "is for a folder; letters in a topic belong to records on the same broker")
        flags.kafka = flags.kafka or Brokers(LOCAL_KAFKA, flags.kafka_config)
        if flags.to == flags.source:
            raise UsageError("--to", "is the same as SOURCE")


def _parser() -> Parser:
    parser = Parser(
        prog="python -m beam_pipelines.dead_letters",
        description="Inspects dead letters, replays them to their topics, exports or discards them.",
        epilog="See COMMAND --help. Exit status: 0 done; 1 a broker does not answer or rejects a record; 2 a wrong "
        "flag or source.",
    )
    commands = parser.add_subparsers(required=True, metavar="COMMAND")
    added = _command(commands, "inspect", "count the letters by reason and origin, and show the newest")
    added.add_argument("--show", type=_count, default=0, metavar="N", help="show the newest N letters too")
    added.add_argument("--all", action="store_true", help="include letters that are done")
    _add_registry(added)
    added = _command(
        commands,
        "replay",
        "send the original records back to their topics, each once",
        "Sends each open letter's record back to its topic and partition with the same bytes, key, headers and "
        f"timestamp, plus the header {ATTEMPTS_HEADER}; the letter is then done. A letter with {MAX_ATTEMPTS} attempts "
        "is skipped and stays open. Repeating a replay sends nothing twice. Only a crash may make the next replay "
        f"resend the last batch of up to {BATCH}; jobs recognise repeats of good records. Run one replay at a time.",
    )
    added.add_argument("--dry_run", action="store_true", help="only report what would be sent")
    added.add_argument(
        "--to",
        type=typed(_kafka_topic),
        metavar="kafka://HOST:PORT/TOPIC",
        help="send to this topic instead, bytes unchanged; required for records that came from a file",
    )
    added.add_argument(
        "--rate", type=typed(_positive), metavar="N", help="at most N records per second (default: no limit)"
    )
    added.add_argument(
        "--max", type=typed(_positive), metavar="N", help="send at most N records and leave the rest (default: all)"
    )
    _add_kafka(added)
    added = _command(
        commands,
        "export",
        "write letters to a folder, for repair",
        "Writes letters.jsonl, one envelope per line with the reason, the origin and what could be decoded, and each "
        "original payload as a file payloads/…, named by `file` in its envelope. The letters stay open. Repair the "
        "payloads, send them with `replay FOLDER`, then `discard` the originals.",
    )
    added.add_argument(
        "--to", type=typed(_folder), required=True, metavar="FOLDER", help="a new or empty folder, local or gs://"
    )
    added.add_argument(
        "--avro",
        action="store_true",
        help="write one Avro file, letters.avro, to load or query elsewhere; replay reads the other form alone",
    )
    _add_registry(added)
    _add_kafka(added)
    added = _command(
        commands,
        "discard",
        "mark letters as done without replaying them",
        "Marks letters as done: they are no longer shown or replayed. Nothing is deleted from Kafka or the folder.",
    )
    added.add_argument("--yes", action="store_true", help="do it; otherwise only report how many letters match")
    return parser


def _command(commands: Any, name: str, help_text: str, description: str | None = None) -> Any:
    sub = commands.add_parser(
        name, help=help_text, description=description or f"{help_text[0].upper()}{help_text[1:]}."
    )
    sub.allow_abbrev = False
    sub.set_defaults(command=name)
    sub.add_argument(
        "source",
        nargs="?",
        type=typed(_source),
        default=f"kafka://{LOCAL_KAFKA}/dlq.fraud-detector",
        metavar="SOURCE",
        help="kafka://host:port[,host:port]/topic, or a job's output folder or its subfolder dead_letters, local or "
        "gs:// (default: %(default)s)",
    )
    group = sub.add_argument_group("filters (default: all open letters)")
    group.add_argument(
        "--error_class", action="append", default=[], metavar="NAME", help="such as UnknownSchema; repeatable"
    )
    group.add_argument("--topic", action="append", default=[], help="the record's topic; repeatable")
    group.add_argument(
        "--partition", action="append", default=[], type=_count, metavar="N", help="the record's partition; repeatable"
    )
    group.add_argument("--since", type=typed(_instant), metavar="TIME", help="seen at or after 2026-09-21T14:00:00Z")
    group.add_argument("--until", type=typed(_instant), metavar="TIME", help="seen before this time")
    sub.add_argument("--json", action="store_true", help="print JSON, one object per line")
    sub.add_argument(
        "--kafka_config", type=typed(kafka_file), metavar="FILE", help="how to connect to Kafka (docs/security.md)"
    )
    return sub


def _add_kafka(parser: Any) -> None:
    parser.add_argument(
        "--kafka",
        type=typed(_servers),
        metavar="HOST:PORT[,HOST:PORT]",
        help=f"if SOURCE is a folder: the broker with the records' topics (default: {LOCAL_KAFKA})",
    )


def _add_registry(parser: Any) -> None:
    parser.add_argument(
        "--registry",
        type=typed(KINDS["url"].read),
        default=LOCAL_REGISTRY,
        help="schema registry for decoding payloads (default: %(default)s)",
    )
    parser.add_argument(
        "--registry_config",
        type=typed(registry_file),
        metavar="FILE",
        help="how to connect to it (docs/security.md)",
    )


def _source(text: str) -> KafkaUrl | Folder:
    return input_url(text)


def _kafka_topic(text: str) -> KafkaUrl:
    url = input_url(text)
    if not isinstance(url, KafkaUrl):
        raise ValueError(f"{shown(text)} is not kafka://host:port/topic")
    return url


def _folder(text: str) -> Folder:
    url = input_url(text)
    if not isinstance(url, Folder):
        raise ValueError(f"{shown(text)} is not a folder")
    return url


def _servers(text: str) -> str:
    return _kafka_topic(f"kafka://{text}/-").servers


def _instant(text: str) -> int:
    try:
        instant = datetime.fromisoformat(text)
    except ValueError:
        instant = datetime.min
    if instant.tzinfo is None:
        raise ValueError(f"'{text}' is not a time with a zone, such as 2026-09-21T14:00:00Z")
    return round(instant.timestamp() * 1000)


def _positive(text: str) -> int:
    if (number := _count(text)) < 1:
        raise ValueError(f"'{text}' is not a whole number of at least 1")
    return number


def _count(text: str) -> int:
    if not (text.isdecimal() and text.isascii()):
        raise argparse.ArgumentTypeError(f"'{text}' is not a whole number of at least 0")
    return int(text)
