"""How the API is connected to its store: one server, the one that sentinels name, or a cluster."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import redis

from connections.store import store_options
from connections.store_cluster import Cluster, connected
from connections.store_node import Command, Node
from schemas.store_errors import about, distrusted, words_of
from schemas.store_keys import Keys
from serving.config import Config, ConfigError

__all__ = ["Command", "check_store", "connect", "store_settings"]


def store_settings(config: Config) -> dict[str, Any]:
    """Of a connection, by redis-py's names; the URL's own options win."""
    waits = {"socket_connect_timeout": config.redis_timeout_s, "socket_timeout": config.redis_timeout_s}
    return waits | store_options(config.redis_url)


def check_store(config: Config) -> None:
    """Whether the store is one, and lets us read; of one that does not answer, or not now, this says nothing.

    Raises: ConfigError.
    """
    try:
        connect(config, lambda _: None).ask(
            ("EXISTS", Keys(config.store_prefix, config.redis_url.cluster).check("api"))
        )
    except redis.ResponseError as e:
        if about(words_of(e)) == "access":
            raise _refused(config, e) from None
    except (redis.AuthenticationError, redis.InvalidResponse) as e:
        raise _refused(config, e) from None
    except redis.RedisError as e:
        if distrusted(e):
            raise _refused(config, e) from None


def _refused(config: Config, error: redis.RedisError) -> ConfigError:
    return ConfigError(f"{config.redis_url} refuses: {config.redis_url.hide(words_of(error))}")


def connect(config: Config, count_open: Callable[[int], None]) -> Node | Cluster:
    """
    Args:
      count_open: called with 1 when a connection is opened, with -1 when one breaks.
    """
    return connected(config.redis_url, store_settings(config), count_open)
