"""The scripts that a cluster of the online store needs beside those of `redis_scripts`, and how a batch is split.

On one server a batch is one script, which writes what is a user's and what all share. In a cluster a script may touch
one slot: so each part of the users gets the same script without what is shared, and then what is shared gets one of its
own. That one does not go by what the others found new, as they may have run before, for a bundle that failed after
them: it keeps the versions of its own members. So here, too, any repeat in any order leaves the same contents; only
that the lists of all users are bounded by themselves, and keep what a user's own list has pushed out.

All keys are named: before it runs a script, a server that is moving a slot looks at those alone, and runs it as a whole
or not at all.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from itertools import chain
from typing import Any, Final

from connections.store_cluster import Cluster
from connections.store_node import Command
from schemas.store_keys import Keys
from transforms.io.redis_scripts import FRESHNESS

__all__ = ["ALL_ALERTS", "ALL_FRESHNESS", "ALL_SESSIONS", "OfAll", "Split", "run", "run_split"]

Row = tuple[Any, ...]

# KEYS: freshness. ARGV: TTL in s, family, newest event time in ms.
ALL_FRESHNESS: Final = (
    FRESHNESS
    + """
fresh(KEYS[1], ARGV[2], tonumber(ARGV[3]))
redis.call('EXPIRE', KEYS[1], ARGV[1])
"""
)

# `versions` has, by id, the version and what `set` holds.
_ALL: Final = (
    FRESHNESS
    + """
local function place(set, versions, others, id, version, score, json)
  local stored = redis.call('HGET', versions, id)
  if stored then
    local before, old = string.match(stored, '^(%S+) (.*)$')
    if tonumber(before) >= tonumber(version) then return false end
    redis.call('ZREM', set, old)
    for _, other in ipairs(others) do redis.call('ZREM', other, old) end
  end
  redis.call('HSET', versions, id, version .. ' ' .. json)
  redis.call('ZADD', set, score, json)
  return true
end

-- Forgets the oldest beyond `most`.
local function bound(set, versions, others, id_of, most)
  local over = redis.call('ZCARD', set) - most
  if over <= 0 then return end
  local out = redis.call('ZPOPMIN', set, over)
  for i = 1, #out, 2 do
    redis.call('HDEL', versions, id_of(cjson.decode(out[i])))
    for _, other in ipairs(others) do redis.call('ZREM', other, out[i]) end
  end
end
"""
)

# KEYS: recent, versions, log, freshness. ARGV: TTL in s, recent, logged, family, then per alert as in ALERTS.
ALL_ALERTS: Final = (
    _ALL
    + """
local most, logged, newest = tonumber(ARGV[2]), ARGV[3], 0
local function id_of(alert) return alert.user_id .. '\\n' .. alert.alert_id end
for i = 5, #ARGV, 4 do
  local user, id, at, json = unpack(ARGV, i, i + 3)
  if place(KEYS[1], KEYS[2], {}, user .. '\\n' .. id, at, at, json) then
    bound(KEYS[1], KEYS[2], {}, id_of, most)
    if redis.call('ZSCORE', KEYS[1], json) then  -- else a replay of what was pushed out would be news
      redis.call('XADD', KEYS[3], 'MAXLEN', '~', logged, '*', 'alert', json)
    end
  end
  newest = math.max(newest, tonumber(at))
end
fresh(KEYS[4], ARGV[4], newest)
for i = 1, 4 do redis.call('EXPIRE', KEYS[i], ARGV[1]) end
"""
)

# KEYS: recent, open, versions, freshness. ARGV: TTL in s, recent, family, then per session as in SESSIONS.
ALL_SESSIONS: Final = (
    _ALL
    + """
local most, newest = tonumber(ARGV[2]), 0
local function id_of(session) return session.session_id end
for i = 4, #ARGV, 7 do
  local user, id, start, ended, version, open, json = unpack(ARGV, i, i + 6)
  if place(KEYS[1], KEYS[3], {KEYS[2]}, id, version, start, json) then
    if open == '1' then redis.call('ZADD', KEYS[2], start, json) end
    bound(KEYS[1], KEYS[3], {KEYS[2]}, id_of, most)
  end
  newest = math.max(newest, tonumber(ended))
end
fresh(KEYS[4], ARGV[3], newest)
for i = 1, 4 do redis.call('EXPIRE', KEYS[i], ARGV[1]) end
"""
)


@dataclass(frozen=True)
class OfAll:
    """A run of a script about what is shared."""

    script: str
    keys: Sequence[str]
    arguments: Iterable[Any]


@dataclass(frozen=True)
class Split:
    """How a table is written in a cluster. Its rows begin with the id of a user or customer.

    Attributes:
      script: of a part.
      first: of a part, the arguments before those of its rows.
      keys: of a part, the keys that the script takes as such.
      of_id: of a part, what the keys of an id begin with.
      of_all: what there is to write of the rows beside it; None: nothing.
    """

    script: str
    first: Callable[[str], tuple[Any, ...]]
    of_id: Callable[[str], tuple[str, ...]]
    keys: Callable[[str], tuple[str, ...]] = lambda _: ()
    of_all: Callable[[Sequence[Row]], OfAll] | None = None


def run(cluster: Cluster, script: str, keys: Sequence[str], arguments: Iterable[Any]) -> Any:
    return cluster.ask(("EVAL", script, len(keys), *keys, *arguments))[0]


def run_split(cluster: Cluster, keys: Keys, split: Split, rows: Sequence[Row]) -> None:
    """Raises redis.RedisError when a part of it may be done; it is to be repeated then."""
    cluster.ask(*_of_parts(keys, split, rows), before=[("SCRIPT", "LOAD", split.script)])
    if split.of_all is not None:
        rest = split.of_all(rows)
        run(cluster, rest.script, rest.keys, rest.arguments)


def _of_parts(keys: Keys, split: Split, rows: Sequence[Row]) -> Iterator[Command]:
    parts: dict[str, list[Row]] = {}
    for row in rows:
        parts.setdefault(keys.part_of(row[0]), []).append(row)
    digest = hashlib.sha1(split.script.encode(), usedforsecurity=False).hexdigest()
    for part, own in parts.items():
        prefixes = split.of_id(part)
        names = [*split.keys(part), *(first + an_id for an_id in {row[0] for row in own} for first in prefixes)]
        yield "EVALSHA", digest, len(names), *names, *split.first(part), *chain.from_iterable(own)
