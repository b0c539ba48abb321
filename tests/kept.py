"""Online stores to look into, whatever they are made of."""

from __future__ import annotations

import re
from typing import NamedTuple

import redis

from schemas.store_keys import Keys


class Kept(NamedTuple):
    """An online store, and how to look into it.

    Attributes:
      db: all of it, as if it were one server.
    """

    url: str
    db: redis.Redis
    keys: Keys


_TAG = re.compile(r"(?<=:)\{[^}]*\}:")


def plain(key: bytes) -> str:
    """A key's name as it is on one server."""
    return _TAG.sub("", key.decode(), count=1)
