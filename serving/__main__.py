"""Serves the API and the dashboard: python -m serving --port 8090 --redis redis://127.0.0.1:6379/0"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Callable, Sequence
from typing import NoReturn

from serving import Config, ConfigError

__all__ = ["main"]


class _Parser(argparse.ArgumentParser):
    def error(self, message: str) -> NoReturn:
        """One line; argparse would print the usage before it."""
        self.exit(2, f"{self.prog}: {message} (see --help)\n")


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


def _parser() -> argparse.ArgumentParser:
    parser = _Parser(
        prog="python -m serving",
        description="Serves StreamForge's API, its metrics and the dashboard. Stops cleanly on SIGTERM and Ctrl-C.",
        formatter_class=argparse.ArgumentDefaultsHelpFormatter,
        allow_abbrev=False,
    )
    parser.add_argument("--host", default="127.0.0.1", help="address to listen on; 0.0.0.0 for all")
    parser.add_argument("--port", type=_whole(1, 65535), default=8090, help="port to listen on")
    parser.add_argument(
        "--redis",
        type=_setting("redis_url", str),
        default=Config.redis_url,
        metavar="URL",
        help="online store, redis:// or rediss:// (TLS)",
    )
    parser.add_argument(
        "--redis_timeout",
        type=_setting("redis_timeout_s", float),
        default=Config.redis_timeout_s,
        metavar="SECONDS",
        help="longest wait for a connection to the store, and for its answer",
    )
    parser.add_argument("--workers", type=_whole(1, 64), default=1, help="processes that answer; one per core at most")
    return parser


def main(argv: Sequence[str] | None = None) -> int:
    args = _parser().parse_args(argv)
    config = Config(redis_url=args.redis, redis_timeout_s=args.redis_timeout)
    from serving.server import serve  # not before the flags are right: it takes a moment

    def announce() -> None:
        print(f"StreamForge on http://{args.host}:{args.port} (workers: {args.workers})", flush=True)

    try:
        serve(config, args.host, args.port, args.workers, announce)
    except KeyboardInterrupt:  # before the server took over the signal: nothing was being served
        return 0
    except OSError as e:
        return _failed(f"cannot serve on {args.host}:{args.port}: {e.strerror or e}", 2)
    except RuntimeError as e:
        return _failed(str(e), 1)
    return 0


def _failed(reason: str, status: int) -> int:
    print(f"python -m serving: {reason}", file=sys.stderr)
    return status


if __name__ == "__main__":
    sys.exit(main())
