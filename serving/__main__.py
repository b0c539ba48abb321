"""Serves the API and the dashboard: python -m serving --port 8090 --redis redis://127.0.0.1:6379/0"""

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
        group_prefix=args.group_prefix,
