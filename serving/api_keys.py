"""API keys as the server stores them: names and hashes.

A key is 256 random bits, so its plain SHA-256 cannot be guessed back: no salt, no slow hash.
"""

from __future__ import annotations

import hashlib
import hmac
import re
from collections.abc import Iterable
from typing import NamedTuple

__all__ = ["KEY_NAME", "ApiKey", "InvalidKeys", "owner", "read", "sha256"]

KEY_NAME = re.compile(r"[A-Za-z0-9._-]{1,64}")
_LINE = re.compile(rf"({KEY_NAME.pattern}):([0-9a-f]{{64}})")


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


def sha256(key: str) -> str:
    return hashlib.sha256(key.encode("utf-8", "surrogateescape")).hexdigest()


def owner(keys: Iterable[ApiKey], presented: str) -> str | None:
    """The name of the key, None if it is not among them. Takes as long whether and wherever it is."""
    digest = sha256(presented)
    name = None
    for key in keys:
        if hmac.compare_digest(key.sha256, digest):
            name = key.name
    return name
