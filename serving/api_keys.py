"""API keys as the server stores them: names and hashes.

A key is 256 random bits, so its plain SHA-256 cannot be guessed back: no salt, no slow hash.
"""

from __future__ import annotations

import hashlib
import hmac
import re
from collections.abc import Iterable
from typing import Final, NamedTuple

__all__ = ["KEY_NAME", "SCOPES", "ApiKey", "InvalidKeys", "found", "read", "sha256"]

KEY_NAME = re.compile(r"[A-Za-z0-9._-]{1,64}")
SCOPES: Final = ("read", "write", "decide", "label")
_SCOPE = "|".join(SCOPES)
_LINE = re.compile(rf"({KEY_NAME.pattern}):([0-9a-f]{{64}})(?::((?:{_SCOPE})(?:\+(?:{_SCOPE}))*))?")


class InvalidKeys(ValueError):
    """The list of keys cannot be read; the message says where, not what: it may hold a key."""


class ApiKey(NamedTuple):
    """Whose key has which SHA-256, in hex. Several may have the same name: the old one and the new one.

    Attributes:
      scopes: of `SCOPES`, what the key is for.
    """

    name: str
    sha256: str
    scopes: frozenset[str] = frozenset(["read"])


def read(text: str) -> tuple[ApiKey, ...]:
    """Keys of lines `name:sha256hex`, which read, or `name:sha256hex:read+write`; empty lines and those that begin with
    # are skipped.

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
                f"line {number} is not name:sha256hex[:scopes]; `python -m serving.keys new NAME` makes such lines"
            )
        keys.append(ApiKey(match[1], match[2], frozenset((match[3] or "read").split("+"))))
    if not keys:
        raise InvalidKeys("no key in it: nobody could get in")
    return tuple(keys)


def sha256(key: str) -> str:
    return hashlib.sha256(key.encode("utf-8", "surrogateescape")).hexdigest()


def found(keys: Iterable[ApiKey], presented: str) -> ApiKey | None:
    """The key that it is, None if it is not among them. Takes as long whether and wherever it is."""
    digest, known = sha256(presented), None
    for key in keys:
        if hmac.compare_digest(key.sha256, digest):
            known = key
    return known
