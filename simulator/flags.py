"""The command line."""

from __future__ import annotations

import argparse
import random
import re
import textwrap
from collections.abc import Callable, Sequence
from datetime import datetime
from pathlib import Path
from typing import Any, Final

from connections.kafka import Brokers, kafka_file
from connections.registry import registry_file
from schemas.addresses import Address, nearly_url, shown
from schemas.currencies import DEFAULT
from schemas.flags import Parser, typed
from schemas.logs import add_log_format
from simulator.config import TOPICS, Config, ConfigError
from simulator.ticks import start_for
from transforms.domain.durations import parse_duration_ms

__all__ = ["Flags", "parse"]

_DAY_MS: Final = 86_400_000
_EVENT_RATE: Final = 50.0

_STORY = """\
Simulates an online shop: users browse, search, fill carts and buy; orders are confirmed, shipped, delivered, cancelled
or refunded; stock moves. Writes events as Avro (Confluent wire format) to Kafka, or to files:

  clickstream.events   key user_id      what users do on the site
  transactions.orders  key user_id      every status an order enters
  inventory.events     key product_id   stock movements

Among the good records it plants what a pipeline must handle, in shares you choose: fraud for every rule, records that
are undecodable or invalid, late records, and duplicates. --truth writes down what was planted. Runs with equal flags,
--seed and --start included, generate the same events."""

_EXAMPLES = """\
examples:
  python -m simulator --rate 50                                    live traffic until Ctrl-C
  python -m simulator --rate 0 --events 1000000                    a million events of past hours, at full speed
  python -m simulator --rate 0 --duration 24h --output data        a whole day, as data/<topic>.avro
  python -m simulator --rate 200 --duration 60s --bad_share 0.2 --truth truth.jsonl

exit status: 0 done, or stopped by Ctrl-C; 1 no broker or registry, or undelivered events; 2 a wrong flag"""


class Flags(argparse.Namespace):
    config: Config
    servers: str | None  # Kafka; else `folder` is set
    folder: Path | None
    format: str
    registry: Address
    kafka_config: str | None
    registry_config: str | None
    truth: Path | None
    rate: float
    log_format: str


def _typed(convert: Callable[[str], Any], what: str) -> Callable[[str], Any]:
    def parse_value(text: str) -> Any:
        try:
            return convert(text)
        except ValueError:
            raise argparse.ArgumentTypeError(f"{text!r} is not {what}") from None

    return parse_value


def _number(text: str) -> float:
    value = float(text)
    if not 0 <= value < float("inf"):
        raise ValueError
    return value


def _instant(text: str) -> int:
    value = datetime.fromisoformat(text)
    if value.tzinfo is None:
        raise ValueError
    return round(value.timestamp() * 1000)


def _broker_list(text: str) -> str:
    if not re.fullmatch(r"[^\s/:,]+:\d{1,5}(,[^\s/:,]+:\d{1,5})*", text):
        raise ValueError
    if any(int(server.rpartition(":")[2]) > 65_535 for server in text.split(",")):
        raise ValueError
    return text


def _registry(text: str) -> Address:
    try:
        return Address(text)
    except ValueError as e:
        raise argparse.ArgumentTypeError(str(e)) from None


_COUNT = _typed(int, "a whole number")
_SHARE = _typed(_number, "a share such as 0.01")
_DURATION = _typed(parse_duration_ms, "a duration such as 10s, 30m or 2h")


def _parser() -> Parser:
    parser = Parser(
        prog="python -m simulator",
        description=_STORY,
        epilog=_EXAMPLES,
    )
    add = parser.add_argument_group("volume").add_argument
    _add(
        add,
        "--rate",
        _typed(_number, "a number of at least 0"),
        "N",
        50.0,
        "events per second over all topics, in real time; 0: as fast as possible",
    )
    _add(add, "--events", _COUNT, "N", None, "stop after N events")
    _add(add, "--duration", _DURATION, "TIME", None, "stop after this span of event time (10s, 30m, 2h)")
    add("--infinite", action="store_true", help="never stop (the default without --events and --duration)")

    add = parser.add_argument_group("content").add_argument
    _add(add, "--seed", _COUNT, "N", None, "seed of the random events (default: a new one each time; it is printed)")
    _add(add, "--users", _COUNT, "N", 100_000, "number of ordinary users")
    _add(add, "--currencies", str, "A,B", DEFAULT, "currencies that users pay in, one each, at rough fixed rates")
    _add(add, "--topics", str, "A,B", ",".join(TOPICS), "only these topics")
    _add(
        add,
        "--start",
        _typed(_instant, "an instant such as 2026-11-22T10:00:00Z"),
        "INSTANT",
        None,
        "event time of the first event (default: now; with --rate 0, early enough for the last event to be now, or a "
        "day ago if there is no last event: it catches up, then goes on live)",
    )
    _add(
        add,
        "--event_rate",
        _typed(_number, "a number of at least 0"),
        "N",
        None,
        "with --rate 0: events per second of event time, averaged over day and night (default: 50)",
    )

    add = parser.add_argument_group("planted faults").add_argument
    _add(add, "--fraud_share", _SHARE, "SHARE", 0.05, "share of orders that belong to planted fraud")
    _add(add, "--bad_share", _SHARE, "SHARE", 0.01, "share of orders and clicks that are invalid")
    _add(add, "--late_share", _SHARE, "SHARE", 0.005, "share of orders and clicks that are late")
    _add(add, "--duplicate_share", _SHARE, "SHARE", 0.01, "share of orders and clicks that are duplicates")
    _add(add, "--out_of_orderness", _DURATION, "TIME", "5s", "events arrive out of order within this span")
    _add(add, "--late_by", _DURATION, "TIME", "15m", "how far late records trail the newest of their partition")
    _add(add, "--truth", Path, "FILE", None, "write what was planted as JSON lines; the last line is a summary")

    add = parser.add_argument_group("output").add_argument
    _add(add, "--output", str, "URL", "kafka://127.0.0.1:29092", "kafka://host:port[,host:port], or a folder")
    add("--format", choices=("avro", "jsonl"), help="format of files (default: avro)")
    _add(
        add,
        "--registry",
        _registry,
        "URL",
        "http://127.0.0.1:8081/apis/ccompat/v7",
        "schema registry (Confluent API); schemas are registered as <topic>-value",
    )
    for flag, kind, of in (("kafka", kafka_file, "Kafka"), ("registry", registry_file, "the registry")):
        text = f"how to connect to {of}, with passwords by reference (docs/security.md)"
        add(f"--{flag}_config", type=typed(kind), metavar="FILE", help=text)
    add_log_format(parser)
    return parser


def _add(add: Any, flag: str, kind: Any, metavar: str, default: Any, text: str) -> None:
    if default is not None:
        text += f" (default: {default:g})" if isinstance(default, float) else f" (default: {default})"
    add(flag, type=kind, metavar=metavar, default=default, help=textwrap.dedent(text))


def parse(arguments: Sequence[str], now_ms: int) -> Flags:
    """Exits with status 2 and one line that names the flag when something is wrong."""
    parser = _parser()
    flags: Flags = parser.parse_args(arguments, Flags())
    try:
        _output(flags)
        flags.registry = Address(flags.registry, flags.registry_config)
        if flags.infinite and (flags.events is not None or flags.duration is not None):
            raise ConfigError("infinite", "contradicts --events and --duration")
        if flags.rate > 0 and flags.event_rate is not None:
            raise ConfigError("event_rate", "is for --rate 0; else event time passes as the clock does")
        if flags.event_rate == 0:
            raise ConfigError("event_rate", "must be positive")
        if flags.servers and flags.start is not None and flags.start > now_ms:
            raise ConfigError("start", "lies in the future, and Kafka refuses records from there")
        flags.config = _config(flags, now_ms)
    except ConfigError as e:
        parser.stop(e)
    return flags


def _output(flags: Flags) -> None:
    flags.servers = flags.folder = None
    scheme, separator, rest = flags.output.partition("://")
    if not separator:
        if not flags.output:
            raise ConfigError("output", "must be kafka://host:port or a folder")
        if nearly_url(flags.output):
            raise ConfigError("output", f"{shown(flags.output)!r} is neither kafka://host:port nor a folder")
        flags.folder = Path(flags.output)
        flags.format = flags.format or "avro"
        return
    if scheme != "kafka":
        raise ConfigError("output", f"{shown(flags.output)!r} is neither kafka://host:port[,host:port] nor a folder")
    try:
        flags.servers = Brokers(_broker_list(rest.rstrip("/")), flags.kafka_config)
    except ValueError:
        raise ConfigError("output", f"{shown(flags.output)!r} is not kafka://host:port[,host:port]") from None
    if flags.format:
        raise ConfigError("format", "is for files; records on Kafka are always Avro")


def _config(flags: Flags, now_ms: int) -> Config:
    paced = flags.rate > 0
    if flags.events is not None and flags.events < 1:
        raise ConfigError("events", "must be at least 1")
    rate = flags.rate if paced else flags.event_rate or _EVENT_RATE
    start = flags.start
    if start is None:
        start = now_ms
        if paced:
            # Events are held back for up to that long, in event time, and none of them shall lie in the future.
            start -= flags.out_of_orderness
        else:
            spans = [] if flags.duration is None else [flags.duration]
            if flags.events is not None:
                spans.append(now_ms - start_for(flags.events, rate, now_ms))
            start -= min(spans, default=_DAY_MS)
    return Config(
        seed=random.SystemRandom().randrange(1_000_000) if flags.seed is None else flags.seed,
        start_ms=start,
        rate=rate,
        events=flags.events,
        duration_ms=flags.duration,
        rhythm=not paced,
        users=flags.users,
        currencies=tuple(code.strip() for code in flags.currencies.split(",")),
        topics=tuple(topic for topic in TOPICS if topic in _topics(flags.topics)),
        fraud_share=flags.fraud_share,
        bad_share=flags.bad_share,
        late_share=flags.late_share,
        duplicate_share=flags.duplicate_share,
        out_of_orderness_ms=flags.out_of_orderness,
        late_by_ms=flags.late_by,
    )


def _topics(text: str) -> list[str]:
    topics = [topic.strip() for topic in text.split(",")]
    for topic in topics:
        if topic not in TOPICS:
            raise ConfigError("topics", f"{topic!r} is none of {', '.join(TOPICS)}")
    return topics
