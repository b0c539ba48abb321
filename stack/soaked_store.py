"""The online store during a soak: what it keeps for days would not stop growing in minutes, were it not made to."""

from __future__ import annotations

from typing import Any, Final

import redis

from schemas.store_keys import KEYS

__all__ = ["LIFE_S", "age", "size_bytes"]

LIFE_S: Final = 300
"""How long a key lives at most, in a soak."""

# ARGV: the longest time to live in ms. Returns the first key that has none, if any.
_AGE: Final = """
local cursor, immortal = '0', nil
repeat
  local page = redis.call('SCAN', cursor, 'COUNT', 1000)
  cursor = page[1]
  for _, key in ipairs(page[2]) do
    local left = redis.call('PTTL', key)
    if left == -1 then immortal = immortal or key
    elseif left > tonumber(ARGV[1]) then redis.call('PEXPIRE', key, ARGV[1]) end
  end
until cursor == '0'
return immortal
"""


def age(store: redis.Redis) -> None:
    """Gives each key that would live for longer `LIFE_S`. The demo's account then misses alerts that have expired.

    Raises:
      RuntimeError: a key would live for ever.
      redis.RedisError: the store does not answer.
    """
    immortal: Any = store.eval(_AGE, 0, LIFE_S * 1000)
    if immortal is not None:
        raise RuntimeError(f"{immortal.decode()} is in the store without a time to live")


def size_bytes(store: redis.Redis) -> float:
    """Memory in use, but for the lists of a fixed length, which all events of an installation share.

    Raises: redis.RedisError.
    """
    shared = (KEYS.recent_alerts, KEYS.alert_log, KEYS.recent_sessions, KEYS.stock_alerts)
    capped = sum(store.memory_usage(key, samples=100) or 0 for key in shared)
    return float(store.info("memory")["used_memory"]) - capped
