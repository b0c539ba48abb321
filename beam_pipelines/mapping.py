"""Tries a mapping on a sample of messages, or proposes one.

    python -m beam_pipelines.mapping try --mapping=segment --input=events.jsonl
    python -m beam_pipelines.mapping try --mapping=ours.yaml --input=kafka://127.0.0.1:29092/shop.orders --page=try.html
    python -m beam_pipelines.mapping suggest --input=events.jsonl > ours.yaml

`try` says what a job would make of the messages: how many it recognises, ignores and refuses, and why; which of our
fields are never filled, and what does not work then; and one message beside what it becomes. It writes nothing but the
page. Status 0 when anything was recognised, 1 when nothing was.
"""

from __future__ import annotations

import argparse
import html
import itertools
import sys
import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import msgspec
from apache_beam.io.filesystems import FileSystems

from beam_pipelines.flags import LOCAL_REGISTRY, mapping_text, read
from beam_pipelines.options import input_url
from beam_pipelines.sinks import KafkaUrl
from schemas import codec
from schemas.addresses import Address
from schemas.container import Container
from schemas.events import OrderEvent
from schemas.flags import Parser, UsageError
from schemas.framing import FORMATS
from schemas.mapping import Envelope, not_an_object, parse_mapping
from schemas.suggestion import suggest
from schemas.trial import Trial, try_out
from transforms.domain.validity import check_click, check_order
from transforms.io.files import lines, match_files
from transforms.io.kafka.sample import newest
from transforms.io.registry import Registry

__all__ = ["main"]

_CHECKS = {"orders": check_order, "clicks": check_click}
_SHOWN = 10
_PAGE_CHARS = 20_000  # of a message
Message = tuple[Any, Envelope]


def _parser() -> Parser:
    parser = Parser(prog="python -m beam_pipelines.mapping", description=__doc__)
    commands = parser.add_subparsers(dest="command", required=True)
    for name, words in (
        ("try", "apply a mapping to a sample and report the results"),
        ("suggest", "propose a mapping for a sample"),
    ):
        command = commands.add_parser(name, help=words, description=words)
        command.add_argument("--input", required=True, help="kafka://host:port/topic, or .jsonl or .avro files")
        command.add_argument(
            "--count", type=int, default=1_000, help="number of messages in the sample (default: %(default)s)"
        )
        command.add_argument("--format", default="auto", choices=("auto", *FORMATS), help="same as for a job")
        command.add_argument("--registry", default=LOCAL_REGISTRY, help="URL of the schema registry")
        command.add_argument("--kafka_config", help="same as for a job")
        command.add_argument("--registry_config", help="same as for a job")
        if name == "try":
            command.add_argument("--mapping", required=True, help="YAML file, or the name of a shipped mapping")
            command.add_argument("--json", action="store_true", help="print JSON, one section per line")
            command.add_argument("--page", metavar="FILE", help="write an HTML page, too")
    return parser


def messages(flags: argparse.Namespace) -> Iterator[Message]:
    """The sample. Raises: UsageError."""
    url = read("--input", input_url, flags.input)
    if isinstance(url, KafkaUrl):
        url = url.connected(flags)
        url.look_up("--input")
        yield from _of_topic(url, flags)
        return
    try:
        paths = match_files(url.path)
    except (ValueError, OSError) as e:
        raise UsageError("--input", e) from e
    now_ms = time.time_ns() // 1_000_000
    for path in paths:
        envelope = Envelope(topic=path, time_ms=now_ms)
        with FileSystems.open(path) as stream:
            if path.endswith(".jsonl"):
                yield from ((_read(codec.json_fields, line.data), envelope) for line in lines(stream))
            else:
                container = Container(stream)
                yield from ((_read(container.writer.fields, datum.data), envelope) for datum in container)


def _of_topic(url: KafkaUrl, flags: argparse.Namespace) -> Iterator[Message]:
    registry = Registry(Address(flags.registry, flags.registry_config))
    decoder = codec.Decoder(OrderEvent, registry.schema, flags.format)
    for message in newest(url.servers, url.topic, flags.count):
        headers = message.headers() or []
        texts = {name.lower(): (value or b"").decode(errors="replace") for name, value in headers}
        key = None if message.key() is None else message.key().decode(errors="replace")
        try:
            fields = _read(lambda payload, given=headers: decoder.fields(payload, given), message.value())
        except codec.SchemaUnavailable as e:
            raise UsageError("--registry", e) from e
        yield fields, Envelope(texts, key, url.topic, message.timestamp()[1])


def _read(decode: Any, payload: Any) -> Any:
    try:
        return decode(payload)
    except codec.CodecError as e:
        return e


def _check_objects(sample: Sequence[Any]) -> None:
    """Raises: UsageError: there is nothing to draft a mapping of."""
    if not any(isinstance(fields, dict) for fields in sample):
        first = sample[0] if isinstance(sample[0], Exception) else not_an_object(sample[0])
        raise UsageError("--input", f"none of {len(sample)} messages is an object with fields; the first: {first}")


def text_of(trial: Trial) -> Iterator[str]:
    counts = (f"{getattr(trial, name):,} {name}" for name in ("messages", "recognised", "ignored", "refused"))
    yield f"{trial.section}: {', '.join(counts)}"
    for refusal in trial.reasons[:_SHOWN]:
        yield f"  {refusal.count:,} x {' '.join(refusal.reason.split())[:300]} (message {refusal.example})"
    if len(trial.reasons) > _SHOWN:
        yield f"  and {len(trial.reasons) - _SHOWN} other reasons"
    for warning in trial.warnings:
        yield f"  note: {warning}"
    if trial.never_filled:
        yield "  never filled:"
        yield from (f"    {name}: {words}" if words else f"    {name}" for name, words in trial.never_filled.items())
    if trial.record is not None:
        yield "  for example, from"
        yield f"    {msgspec.json.encode(trial.source).decode()[:2_000]}"
        yield f"    {msgspec.json.encode(trial.record).decode()}"


def page_of(trials: Sequence[Trial]) -> str:
    """Everything that came from a message is escaped: it is somebody else's text."""
    parts = ["<!doctype html><meta charset=utf-8><title>A mapping, tried</title>", _STYLE, "<h1>A mapping, tried</h1>"]
    for trial in trials:
        parts.append(f"<h2>{html.escape(trial.section)}</h2><table><tr>")
        words = ("messages", "recognised", "ignored", "refused")
        parts += [f"<td><b>{getattr(trial, name):,}</b><br>{name}</td>" for name in words]
        parts.append("</tr></table>")
        if trial.reasons:
            parts.append("<h3>Why refused</h3><table>")
            parts += [f"<tr><td>{r.count:,}</td><td>{html.escape(r.reason)}</td></tr>" for r in trial.reasons[:100]]
            parts.append("</table>")
        notes = trial.warnings + [f"{name} is never filled. {why}" for name, why in trial.never_filled.items()]
        parts.append("<ul>" + "".join(f"<li>{html.escape(note)}</li>" for note in notes) + "</ul>")
        if trial.record is not None:
            pretty = [msgspec.json.format(msgspec.json.encode(each)).decode() for each in (trial.source, trial.record)]
            cells = "".join(f"<td><pre>{html.escape(each[:_PAGE_CHARS])}</pre></td>" for each in pretty)
            parts.append(f"<table><tr><th>message</th><th>becomes</th></tr><tr>{cells}</tr></table>")
    return "\n".join(parts) + "\n"


_STYLE = (
    "<style>body{font:15px system-ui;max-width:75rem;margin:2rem auto;padding:0 1rem}td,th{padding:.3rem .8rem;"
    "text-align:left;vertical-align:top;border-top:1px solid #ccc}pre{white-space:pre-wrap;overflow-wrap:anywhere}"
    "</style>"
)


def main(argv: Sequence[str] | None = None) -> int:
    parser = _parser()
    try:
        flags = parser.read(argv)
        sample = list(itertools.islice(messages(flags), max(1, flags.count)))
        if not sample:
            raise UsageError("--input", f"{flags.input} holds no messages")
        if flags.command == "suggest":
            _check_objects([fields for fields, _ in sample])
            sys.stdout.write(suggest(fields for fields, _ in sample))
            return 0
        mapping = parse_mapping(read("--mapping", mapping_text, flags.mapping))
    except UsageError as e:
        parser.stop(e)
    now_ms = time.time_ns() // 1_000_000
    trials = [
        try_out(mapping, name, sample, lambda record, e, check=_CHECKS[name]: check(record, e.time_ms or now_ms))
        for name in mapping.sections
    ]
    if flags.page:
        try:
            Path(flags.page).write_text(page_of(trials), encoding="utf-8")
        except OSError as e:
            parser.stop(UsageError("--page", e))
    for trial in trials:
        written = msgspec.json.encode(trial).decode() if flags.json else "\n".join(text_of(trial))
        sys.stdout.write(written + "\n")
    return 0 if any(trial.recognised for trial in trials) else 1


if __name__ == "__main__":
    sys.exit(main())
