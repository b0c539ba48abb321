"""API keys: `python -m serving.keys new NAME` makes one. The server is given hashes only.

A key is 256 random bits, so its plain SHA-256 cannot be guessed back: no salt, no slow hash.
"""

from __future__ import annotations

import argparse
import hashlib
import hmac
import re
import secrets
import sys
from collections.abc import Iterable, Sequence
from typing import NamedTuple, NoReturn

__all__ = ["ApiKey", "InvalidKeys", "main", "owner", "read"]

_LINE = re.compile(r"([A-Za-z0-9._-]{1,64}):([0-9a-f]{64})")
_NAME = re.compile(r"[A-Za-z0-9._-]{1,64}")


class InvalidKeys(ValueError):
    """The list of keys cannot be read; the message says where, not what: it may hold a key."""


class ApiKey(NamedTuple):
    """Whose key has which SHA-256, in hex. Several may have the same name: the old one and the new one."""

    name: str
    sha256: str


def read(text: str) -> tuple[ApiKey, ...]:
    """Keys of lines `name:sha256hex`; empty lines and those that begin with # are skipped.

    Raises:
      InvalidKeys: a line is something else, or there is none.
    """
    keys = []
    for number, line in enumerate(text.splitlines(), 1):
        line = line.strip()
        if not line or line.startswith("#"):
            continue
        match = _LINE.fullmatch(line)
        if not match:
            raise InvalidKeys(
                f"line {number} is not name:sha256hex; `python -m serving.keys new NAME` makes such lines"
            )
        keys.append(ApiKey(match[1], match[2]))
    if not keys:
        raise InvalidKeys("no key in it: nobody could get in")
    return tuple(keys)


def owner(keys: Iterable[ApiKey], presented: str) -> str | None:
    """The name of the key, None if it is not among them. Takes as long whether and wherever it is."""
    digest = hashlib.sha256(presented.encode("utf-8", "surrogateescape")).hexdigest()
    name = None
    for key in keys:
        if hmac.compare_digest(key.sha256, digest):
            name = key.name
    return name


class _Parser(argparse.ArgumentParser):
    def error(self, message: str) -> NoReturn:
        self.exit(2, f"{self.prog}: {message} (see --help)\n")


def _name(text: str) -> str:
    if not _NAME.fullmatch(text):
        raise argparse.ArgumentTypeError(f"must be 1 to 64 letters, digits or any of . _ -, not {text!r}")
    return text


def main(argv: Sequence[str] | None = None) -> int:
    parser = _Parser(
        prog="python -m serving.keys",
        description="Makes API keys. Two lines come out: the key, which is for its owner and shown only now, and "
        "NAME:SHA256, which belongs into the file of `python -m serving --api_keys=FILE`.",
        allow_abbrev=False,
    )
    commands = parser.add_subparsers(dest="command", required=True, metavar="new")
    new = commands.add_parser("new", help="a new key", description="Makes a key.", allow_abbrev=False)
    new.add_argument("name", type=_name, metavar="NAME", help="whose it is; rate limits count by it")
    name = parser.parse_args(argv).name
    key = "sf_" + secrets.token_urlsafe(32)
    sys.stdout.write(f"{key}\n{name}:{hashlib.sha256(key.encode()).hexdigest()}\n")
    return 0


if __name__ == "__main__":
    sys.exit(main())
