"""Serves the API and the dashboard: python -m serving --port 8090 --redis redis://127.0.0.1:6379/0

Long, as all of its flags are here.
"""

from __future__ import annotations

import argparse
import os
import sys
from collections.abc import Callable, Sequence
from pathlib import Path

from connections.kafka import kafka_file
from connections.registry import registry_file
from connections.store import store_file
from schemas.addresses import Address
from schemas.flags import Parser, typed
from schemas.logs import add_log_format
from serving import Config, ConfigError, api_keys
from serving.config import LOOPBACK, WHEN_DOWN

__all__ = ["main"]

_KEYS_VARIABLE = "STREAMFORGE_API_KEYS"


class _Help(argparse.ArgumentDefaultsHelpFormatter):
    def _get_help_string(self, action: argparse.Action) -> str | None:
        """What is off by default needs no "default: None"."""
        return action.help if action.default is None else super()._get_help_string(action)


def _whole(low: int, high: int) -> Callable[[str], int]:
    def parse(text: str) -> int:
        if text.isascii() and text.isdigit() and len(text) <= 9 and low <= int(text) <= high:
            return int(text)
        raise argparse.ArgumentTypeError(f"must be a whole number from {low} to {high}, not {text!r}")

    return parse


def _setting(name: str, read: Callable[[str], object]) -> Callable[[str], object]:
    """Checks a flag as the Config field it fills, so that the error names the flag."""

    def parse(text: str) -> object:
        try:
            value = read(text)
            Config(**{name: value})  # type: ignore[arg-type]
        except ConfigError as e:
            raise argparse.ArgumentTypeError(str(e)) from e
        return value

    parse.__name__ = name  # argparse: "invalid redis_timeout_s value: 'x'"
    return parse


def _parser() -> Parser:
    parser = Parser(
        prog="python -m serving",
        description="Serves StreamForge's API, its metrics and the dashboard. Stops cleanly on SIGTERM and Ctrl-C.",
        formatter_class=_Help,
    )
    parser.add_argument("--host", default="127.0.0.1", help="address to listen on; 0.0.0.0 for all")
    parser.add_argument("--port", type=_whole(1, 65535), default=8090, help="port to listen on")
    parser.add_argument(
        "--redis",
        type=_setting("redis_url", str),
        default=Config.redis_url,
        metavar="URL",
        help="URL of the online store, redis:// or rediss:// (TLS)",
    )
    parser.add_argument(
        "--store_prefix",
        type=_setting("store_prefix", str),
        default=Config.store_prefix,
        metavar="NAME",
        help="what this installation's keys in the store begin with; as the jobs'",
    )
    parser.add_argument(
        "--redis_timeout",
        type=_setting("redis_timeout_s", float),
        default=Config.redis_timeout_s,
        metavar="SECONDS",
        help="timeout for connecting to the store, and for its answers",
    )
    parser.add_argument(
        "--currency",
        type=_setting("currency", str),
        default=Config.currency,
        metavar="CODE",
        help="the shop's: of revenue, where a caller asks for no other",
    )
    parser.add_argument(
        "--time_zone",
        type=_setting("time_zone", str),
        default=Config.time_zone,
        metavar="ZONE",
        help="where the shop's days begin and end, as Europe/Istanbul: of lists that are asked for by day",
    )
    parser.add_argument(
        "--kafka",
        type=_setting("kafka", str),
        metavar="HOST:PORT",
        help="broker to ask how far the jobs lag, for health and metrics",
    )
    parser.add_argument(
        "--group_prefix", default="", metavar="TEXT", help="that of the jobs, before the names of their consumer groups"
    )
    _add_events(parser)
    _add_decisions(parser)
    for flag, kind, of in (
        ("kafka", kafka_file, "Kafka"),
        ("registry", registry_file, "the registry"),
        ("store", store_file, "the store"),
    ):
        parser.add_argument(
            f"--{flag}_config",
            type=typed(kind),
            metavar="FILE",
            help=f"how to connect to {of}, with passwords by reference (docs/security.md)",
        )
    parser.add_argument(
        "--batch_report",
        type=_setting("batch_report", str),
        metavar="FOLDER",
        help="folder or gs://bucket/path with the daily batch's reports, to show in metrics",
    )
    parser.add_argument("--workers", type=_whole(1, 64), default=1, help="worker processes; at most one per core")
    parser.add_argument(
        "--redis_connections",
        type=_setting("redis_connections", int),
        default=Config.redis_connections,
        metavar="N",
        help="requests that each worker answers at once, each on its own connection; raise it for a remote store",
    )
    parser.add_argument(
        "--streams",
        type=_setting("streams", int),
        default=Config.streams,
        help="maximum open event streams per worker; each takes a thread",
    )
    parser.add_argument(
        "--api_keys",
        type=_keys,
        metavar="FILE",
        help="require an API key. The file has lines name:sha256hex, made by `python -m serving.keys new NAME`, and is "
        f"read at startup; {_KEYS_VARIABLE} can hold more, separated by commas. Health, metrics and pages stay open",
    )
    parser.add_argument(
        "--rate_limit",
        type=_setting("rate_limit", str),
        metavar="RATE",
        help="answer 429 above this rate per caller (API key, else address), such as 1000/second; counted in the store",
    )
    parser.add_argument(
        "--cors_origin",
        type=_origin,
        action="append",
        metavar="ORIGIN",
        help="allow calls from web pages of this origin, such as https://shop.example; repeatable",
    )
    parser.add_argument(
        "--metrics_port",
        type=_whole(1, 65535),
        metavar="PORT",
        help="serve /metrics on this port of the same host instead of beside the API",
    )
    parser.add_argument(
        "--access_log",
        type=_setting("access_log", str),
        default=Config.access_log,
        metavar="{off,route,path}",
        help="log each request to standard output as JSON: its route, or also its path, which reveals user ids",
    )
    add_log_format(parser)
    return parser


def _add_events(parser: Parser) -> None:
    add = parser.add_argument_group("events over HTTP (docs/api.md)").add_argument
    add(
        "--events",
        type=_setting("events", str),
        metavar="kafka://HOST:PORT",
        help="take events at POST /api/v1/events and produce them to this cluster",
    )
    add(
        "--registry",
        type=_setting("registry", Address),
        default=Config.registry,
        metavar="URL",
        help="that cluster's schema registry (Confluent API); schemas are registered as <topic>-value",
    )
    add(
        "--mapping",
        type=_mapping,
        action="append",
        metavar="FILE",
        help="also take other systems' events, at /api/v1/events/NAME and /api/v1/decisions/NAME: a YAML file "
        "NAME.yaml (docs/mapping.md), or ga4, segment, shopify, snowplow or woocommerce; repeatable",
    )
    add(
        "--webhooks",
        metavar="FILE",
        help="secrets with which requests for a mapping are signed, by reference; such requests need no key",
    )
    add(
        "--event_rate",
        type=_setting("event_rate", str),
        default=Config.event_rate,
        metavar="RATE",
        help="answer 429 when a caller sends more events than this to a worker process",
    )


def _add_decisions(parser: Parser) -> None:
    add = parser.add_argument_group("decisions at the checkout (docs/api.md)").add_argument
    add(
        "--decisions",
        action="store_true",
        help="answer allow, review or block at POST /api/v1/decisions, of orders that are not placed yet",
    )
    add(
        "--rules",
        type=_setting("rules", str),
        metavar="FILE",
        help="YAML file of the fraud rules to judge by, as the fraud job's (default: those that are shipped)",
    )
    add(
        "--when_down",
        choices=WHEN_DOWN,
        default=Config.when_down,
        help="what to answer while the online store does not",
    )


def _mapping(text: str) -> str:
    _setting("mappings", lambda name: (name,))(text)
    return text


def _keys(path: str) -> tuple[api_keys.ApiKey, ...]:
    try:
        return api_keys.read(Path(path).read_text(encoding="ascii"))
    except (OSError, UnicodeDecodeError) as e:
        raise argparse.ArgumentTypeError(f"{path} cannot be read: {getattr(e, 'strerror', None) or e}") from e
    except api_keys.InvalidKeys as e:
        raise argparse.ArgumentTypeError(f"{path}: {e}") from e


def _origin(text: str) -> str:
    _setting("cors_origins", lambda origin: (origin,))(text)
    return text


def main(argv: Sequence[str] | None = None) -> int:
    args = _parser().parse_args(argv)
    if args.metrics_port == args.port:
        return _failed(f"--metrics_port must be another port than --port, not {args.port} too", 2)
    known = args.api_keys or ()
    if _KEYS_VARIABLE in os.environ:
        try:
            known += api_keys.read(os.environ[_KEYS_VARIABLE].replace(",", "\n"))
        except api_keys.InvalidKeys as e:
            return _failed(f"{_KEYS_VARIABLE}: {e}", 2)
    if args.webhooks and not args.events:
        return _failed("--webhooks needs --events", 2)
    if args.mapping and not (args.events or args.decisions):
        return _failed("--mapping needs --events or --decisions", 2)
    if args.rules and not args.decisions:
        return _failed("--rules needs --decisions", 2)
    config = Config(
        redis_url=args.redis,
        redis_timeout_s=args.redis_timeout,
        store_config=args.store_config,
        store_prefix=args.store_prefix,
        currency=args.currency,
        time_zone=args.time_zone,
        kafka=args.kafka,
        kafka_config=args.kafka_config,
        group_prefix=args.group_prefix,
        events=args.events,
        registry=args.registry,
        registry_config=args.registry_config,
        mappings=tuple(args.mapping or ()),
        webhooks=args.webhooks,
        event_rate=args.event_rate,
        decisions=args.decisions,
        rules=args.rules,
        when_down=args.when_down,
        batch_report=args.batch_report,
        redis_connections=args.redis_connections,
        streams=args.streams,
        api_keys=known,
        keyless_labels=args.host in LOOPBACK,
        rate_limit=args.rate_limit,
        cors_origins=tuple(args.cors_origin or ()),
        access_log=args.access_log,
        log_format=args.log_format,
    )
    # Not before the flags are right: it takes a moment.
    from serving.connections import check_store
    from serving.server import serve

    try:
        check_store(config)
    except ConfigError as e:
        return _failed(f"--redis: {e}", 2)
    if config.events:
        from serving.ingest.check import check_events

        try:
            check_events(config, args.host)
        except ConfigError as e:
            return _failed(str(e), 2)

    def announce() -> None:
        print(f"StreamForge on http://{args.host}:{args.port} (workers: {args.workers})", flush=True)

    try:
        serve(config, args.host, args.port, args.workers, announce, args.metrics_port)
    except KeyboardInterrupt:  # before the server took over the signal: nothing was being served
        return 0
    except OSError as e:
        return _failed(f"cannot serve on {e.filename or f'{args.host}:{args.port}'}: {e.strerror or e}", 2)
    except RuntimeError as e:
        return _failed(str(e), 1)
    return 0


def _failed(reason: str, status: int) -> int:
    print(f"python -m serving: {reason}", file=sys.stderr)
    return status


if __name__ == "__main__":
    sys.exit(main())
