"""Fraud rules that change without a redeploy: put a version, activate it, roll back.

    python -m beam_pipelines.rules put my_rules.yaml --comment='gift cards'
    python -m beam_pipelines.rules list
    python -m beam_pipelines.rules diff 1 2
    python -m beam_pipelines.rules activate 2
    python -m beam_pipelines.rules activate 2 --from=2026-11-27T00:00:00+03:00
    python -m beam_pipelines.rules rollback

A version never changes. An activation says from which event time on one holds, a few seconds from now at the earliest;
a job that runs with --rules_topic judges every order by the version in force at its `event_time`. Nothing is deleted,
so which version was in force when can always be told. Version 0 is what each job was started with (--rules).

What is guaranteed when several people write at once: each version and each activation has a number of its own, since of
two with the same number the first in the topic counts. The command reads what it has written, and if somebody was
faster, it takes the next number and says so.
"""

from __future__ import annotations

import argparse
import difflib
import getpass
import os
import sys
import time
from collections.abc import Callable, Sequence
from datetime import datetime
from pathlib import Path
from typing import Any

import msgspec
from confluent_kafka import KafkaError, KafkaException

from beam_pipelines.flags import LOCAL_KAFKA
from beam_pipelines.sinks import KafkaUrl
from connections.kafka import kafka_file
from connections.settings import SettingsError
from schemas.features import rfc3339
from schemas.flags import Parser, UsageError, typed
from schemas.jobs.shop import RULES
from transforms.domain.fraud_rules import RuleError, parse_rules
from transforms.domain.rule_history import END_MS, LEAD_MS, Activation, Entry, RuleHistory, Version, sha256_of
from transforms.io.kafka.rules import RulesReader, why, write

__all__ = ["main"]

_MARGIN_MS = 1_500  # for the way to the broker, and a clock that is a little slow
_TRIES = 5
_NO_TOPIC = (KafkaError.UNKNOWN_TOPIC_OR_PART, KafkaError._UNKNOWN_TOPIC, KafkaError._UNKNOWN_PARTITION)
_MOST_BYTES = 900_000  # with its envelope below a topic's usual limit of 1 MiB


class _NotTaken(Exception):
    """What was written does not count."""


def put(topic: KafkaUrl, reader: RulesReader, flags: argparse.Namespace) -> int:
    try:
        text = Path(flags.file).read_text(encoding="utf-8")
        parse_rules(text)
    except (OSError, UnicodeDecodeError, RuleError) as e:
        raise UsageError("FILE", f"{flags.file}: {e}" if not isinstance(e, OSError) else e) from e
    if len(text.encode()) > _MOST_BYTES:
        raise UsageError("FILE", f"{flags.file}: more than {_MOST_BYTES:,} bytes")
    digest = sha256_of(text)
    same = [v.number for v in reader.history.versions.values() if v.sha256 == digest]
    if same:
        _tell(f"the same as version {same[-1]}")

    def made(history: RuleHistory, _: int) -> Entry:
        return Version(history.next_number(Version), text, digest, flags.who, _now_ms(), flags.comment)

    entry = _append(topic, reader, made)
    _print(f"version {entry.number} of {topic.topic}; activate {entry.number} puts it in force")
    return 0


def activate(topic: KafkaUrl, reader: RulesReader, flags: argparse.Namespace) -> int:
    if flags.number and flags.number not in reader.history.versions:
        raise UsageError("N", _no_version(reader.history, flags.number))
    return _activate(topic, reader, flags, flags.number)


def rollback(topic: KafkaUrl, reader: RulesReader, flags: argparse.Namespace) -> int:
    """To what was in force before; done twice, it is where it began, so it says what it does."""
    at_ms = _now_ms() + LEAD_MS + _MARGIN_MS  # an activation may be on its way
    before = reader.history.before(at_ms)
    if before is None:
        raise UsageError("rollback", "no version was in force before")
    _print(f"from version {reader.history.at(at_ms)} back to version {before}")
    return _activate(topic, reader, flags, before)


def _activate(topic: KafkaUrl, reader: RulesReader, flags: argparse.Namespace, version: int) -> int:
    from_ms: int | None = getattr(flags, "from_ms", None)
    if from_ms is not None and from_ms < (earliest_ms := _now_ms() + LEAD_MS):
        why = "is in the past" if from_ms <= earliest_ms - LEAD_MS else f"is less than {LEAD_MS // 1000} s from now"
        raise UsageError("--from", f"{why}; orders of that time may have been judged")

    def made(history: RuleHistory, attempt: int) -> Entry:
        now_ms = _now_ms()
        at_ms = from_ms if from_ms is not None else now_ms + LEAD_MS + _MARGIN_MS * 2**attempt
        return Activation(history.next_number(Activation), version, at_ms, flags.who, now_ms)

    entry = _append(topic, reader, made)
    assert isinstance(entry, Activation)
    wait_s = (entry.effective_from_ms - _now_ms()) / 1000
    _print(f"version {version} holds for orders from {rfc3339(entry.effective_from_ms)} on, in {wait_s:,.1f} s")
    later = [each for each in reader.history.activations if each.effective_from_ms > entry.effective_from_ms]
    for each in later:
        _tell(f"but version {each.version} is scheduled from {rfc3339(each.effective_from_ms)} on")
    return 0


def _append(topic: KafkaUrl, reader: RulesReader, made: Callable[[RuleHistory, int], Entry]) -> Entry:
    """Writes an entry, and reads whether it counts; if not, tries the next number.

    Raises: _NotTaken.
    """
    void: tuple[str, ...] = ()
    for attempt in range(_TRIES):
        entry, before = made(reader.history, attempt), reader.history
        write(topic.servers, topic.topic, entry)
        history = reader.read()
        if history.versions.get(entry.number) == entry or entry in history.activations:
            return entry
        void = history.void[len(before.void) :]
        _tell(f"{void[-1] if void else 'somebody was faster'}; trying again")
    raise _NotTaken(void[-1] if void else "somebody was always faster")


def list_(topic: KafkaUrl, reader: RulesReader, flags: argparse.Namespace) -> int:
    history, now = reader.history, _now_ms()
    if flags.json:
        versions = [
            {name: value for name, value in msgspec.to_builtins(v).items() if name not in ("text", "kind")}
            for v in history.versions.values()
        ]
        activations = [
            {name: value for name, value in msgspec.to_builtins(a).items() if name != "kind"}
            for a in history.activations
        ]
        found = {"versions": versions, "activations": activations, "in_force": history.at(now), "void": history.void}
        _print(msgspec.json.encode(found).decode())
        return 0
    _print(f"{topic.topic}: version {history.at(now)} is in force" + _of_job(history.at(now)))
    for v in history.versions.values():
        _print(f"  version {v.number:3}  put {rfc3339(v.when_ms)} by {v.who}  {v.sha256[:12]}  {v.comment}".rstrip())
    for a in history.activations:
        mark = "  scheduled" if a.effective_from_ms > now else ""
        _print(f"  from {rfc3339(a.effective_from_ms)}  version {a.version}{_of_job(a.version)}  by {a.who}{mark}")
    for void in history.void:
        _print(f"  does not count: {void}")
    return 0


def show(_: KafkaUrl, reader: RulesReader, flags: argparse.Namespace) -> int:
    _print(_text(reader.history, flags.number).removesuffix("\n"))
    return 0


def diff(_: KafkaUrl, reader: RulesReader, flags: argparse.Namespace) -> int:
    older, newer = (_text(reader.history, n).splitlines() for n in (flags.older, flags.newer))
    names = f"version {flags.older}", f"version {flags.newer}"
    for line in difflib.unified_diff(older, newer, *names, lineterm=""):
        _print(line)
    return 0


def _text(history: RuleHistory, number: int) -> str:
    if number == 0:
        raise UsageError("N", "version 0 is what each job was started with (--rules)")
    if number not in history.versions:
        raise UsageError("N", _no_version(history, number))
    return history.versions[number].text


def _no_version(history: RuleHistory, number: int) -> str:
    newest = max(history.versions, default=0)
    return f"there is no version {number}; " + (f"the newest is {newest}" if newest else "there are none yet")


def main(argv: Sequence[str] | None = None) -> int:
    try:
        flags = _parser().read(argv)
        topic = KafkaUrl.parse(f"kafka://{flags.bootstrap_servers}/{flags.topic}").connected(flags)
        reader = RulesReader(topic.servers, topic.topic)
        try:
            reader.read()
            return _COMMANDS[flags.command](topic, reader, flags)
        finally:
            reader.close()
    except UsageError as e:
        _tell(str(e))
        return 2
    except SettingsError as e:
        _tell(f"--kafka_config: {e}")
        return 2
    except (KafkaException, TimeoutError, _NotTaken) as e:
        _tell(f"topic {flags.topic} at {flags.bootstrap_servers}: {why(e)}")
        return 2 if isinstance(e.args[0], KafkaError) and e.args[0].code() in _NO_TOPIC else 1
    except KeyboardInterrupt:
        _tell("interrupted; list says what was done")
        return 130
    except BrokenPipeError:  # as by `| head`
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 1


_COMMANDS: dict[str, Callable[[KafkaUrl, RulesReader, argparse.Namespace], int]] = {
    "put": put,
    "list": list_,
    "show": show,
    "diff": diff,
    "activate": activate,
    "rollback": rollback,
}


def _parser() -> Parser:
    parser = Parser(
        prog="python -m beam_pipelines.rules",
        description="Puts versions of the fraud rules, and says from when on one is in force.",
        epilog="See COMMAND --help. Exit status: 0 done; 1 the broker does not answer, or the entry was not taken; 2 a "
        "wrong flag, file, version or time.",
    )
    commands = parser.add_subparsers(required=True, metavar="COMMAND")
    added = _command(commands, "put", "check a rules file and keep it as the next version")
    added.add_argument("file", metavar="FILE", help="the rules, as YAML")
    added.add_argument("--comment", default="", metavar="TEXT", help="what it is for")
    _who(added)
    added = _command(commands, "list", "versions, when each holds, and which does now")
    added.add_argument("--json", action="store_true", help="as JSON")
    _command(commands, "show", "print a version").add_argument("number", type=_number, metavar="N")
    added = _command(commands, "diff", "what differs between two versions")
    added.add_argument("older", type=_number, metavar="A")
    added.add_argument("newer", type=_number, metavar="B")
    added = _command(commands, "activate", "put a version in force; 0 is what each job was started with")
    added.add_argument("number", type=_number, metavar="N")
    added.add_argument(
        "--from",
        dest="from_ms",
        type=typed(_instant),
        metavar="TIME",
        help="for orders from this event time on, such as 2026-11-27T00:00:00+03:00 (default: a few seconds from now)",
    )
    _who(added)
    _who(_command(commands, "rollback", "put the version in force that was so before"))
    return parser


def _command(commands: Any, name: str, help_text: str) -> Any:
    sub = commands.add_parser(name, help=help_text, description=f"{help_text[0].upper()}{help_text[1:]}.")
    sub.allow_abbrev = False
    sub.set_defaults(command=name)
    sub.add_argument("--topic", type=typed(_topic), default=RULES, help="topic of the history (default: %(default)s)")
    sub.add_argument(
        "--bootstrap_servers",
        default=LOCAL_KAFKA,
        type=typed(_servers),
        metavar="HOST:PORT[,HOST:PORT]",
        help="the broker that has it (default: %(default)s)",
    )
    sub.add_argument(
        "--kafka_config", type=typed(kafka_file), metavar="FILE", help="how to connect to Kafka (docs/security.md)"
    )
    return sub


def _who(parser: Any) -> None:
    parser.add_argument("--who", default=_user(), metavar="NAME", help="who does it (default: %(default)s)")


def _user() -> str:
    try:
        return getpass.getuser()
    except (KeyError, OSError):  # a container without a name for its user
        return "unknown"


def _servers(text: str) -> str:
    return KafkaUrl.parse(f"kafka://{text}/-").servers


def _number(text: str) -> int:
    if not (text.isdecimal() and text.isascii()):
        raise argparse.ArgumentTypeError(f"'{text}' is not the number of a version")
    return int(text)


def _topic(text: str) -> str:
    return KafkaUrl.parse(f"kafka://{LOCAL_KAFKA}/{text}").topic


def _instant(text: str) -> int:
    try:
        instant = datetime.fromisoformat(text)
    except ValueError:
        instant = datetime.min
    if instant.tzinfo is None:
        raise ValueError(f"'{text}' is not a time with a zone, such as 2026-11-27T00:00:00+03:00")
    if (ms := round(instant.timestamp() * 1000)) >= END_MS:
        raise ValueError(f"'{text}' is after the year 9999")
    return ms


def _of_job(number: int) -> str:
    return "" if number else " (what each job was started with)"


def _now_ms() -> int:
    return time.time_ns() // 1_000_000


def _print(text: str) -> None:
    print(text)  # noqa: T201


def _tell(text: str) -> None:
    print(f"rules: {text}", file=sys.stderr)  # noqa: T201


if __name__ == "__main__":
    sys.exit(main())
