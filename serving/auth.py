"""Who may call, how often, and from which web pages. Each check is off by default, and costs nothing when off."""

from __future__ import annotations

import logging
import math
import re
import time
from collections.abc import Iterator, Sequence

import limits
import redis
from flask import Flask, Response, current_app, g, request
from limits.storage import RedisClusterStorage, RedisStorage
from limits.strategies import FixedWindowRateLimiter
from redis.exceptions import RedisClusterException

from connections.store_connection import connection_settings, connections
from schemas.store_keys import Keys
from serving import answers, api_keys
from serving.config import Config
from serving.connections import store_settings
from serving.metrics import Metrics
from serving.openapi import Operation

__all__ = ["caller_name", "guard", "is_known_caller", "may_label", "parsed"]

_LOG = logging.getLogger(__name__)

_METHODS = "GET, POST, PUT"
_HEADERS = "Authorization, Content-Type, Last-Event-ID, X-API-Key, X-Request-ID"
_EXPOSED = "Retry-After, X-Next-Cursor, X-Request-ID"
_PREFLIGHT_S = 3600
_HERE = re.compile(r"(127\.0\.0\.1|localhost|\[::1\])(:\d{1,5})?", re.IGNORECASE)


def guard(app: Flask, config: Config) -> None:
    """Turns on what the config asks for."""
    if config.cors_origins:
        _allow_origins(app, config.cors_origins)
    if config.api_keys:
        _require_key(app, config.api_keys)
    if config.rate_limit:
        _limit_rate(app, config)


def parsed(rate: str) -> tuple[int, int]:
    """How many in how many seconds."""
    found = limits.parse(rate)
    return found.amount, found.get_expiry()


def is_known_caller() -> bool:
    """Whether the caller may be told what is behind keys: everybody, where there are none."""
    config: Config = current_app.extensions["streamforge.config"]
    return not config.api_keys or "caller" in g


def caller_name() -> str | None:
    """The name of the key that came with the request; None without."""
    kind, _, name = str(g.get("caller", "")).partition("/")
    return name if kind == "key" else None


def may_label() -> bool:
    """Whether this caller may give alerts a state."""
    config: Config = current_app.extensions["streamforge.config"]
    return "label" in g.get("scopes", ()) if config.api_keys else config.keyless_labels and _is_from_here()


def _is_from_here() -> bool:
    """A web page whose name was made to lead here (DNS rebinding) asks for that name; a proxy says for whom it asks."""
    handed_on = "X-Forwarded-For" in request.headers or "Forwarded" in request.headers
    return not handed_on and _HERE.fullmatch(request.headers.get("Host", "")) is not None


def _is_free() -> bool:
    """Whether the address is for everybody: pages, documents, metrics, health. A CORS preflight never has a key."""
    if request.method == "OPTIONS" or request.url_rule is None:
        return True
    operation = _operation()
    return operation.free if operation else not request.url_rule.rule.startswith("/api/")


def _require_key(app: Flask, known: Sequence[api_keys.ApiKey]) -> None:
    @app.before_request
    def _check() -> Response | None:
        if "caller" in g:  # who signed the request, which is no key's owner
            return None
        keys = [api_keys.found(known, presented) for presented in _presented()]
        if _is_free():
            if keys and None not in keys:
                g.caller = f"key/{keys[0].name}"  # type: ignore[union-attr]
            return None
        if not keys:
            return answers.unauthorized("this address needs an API key, as Authorization: Bearer KEY or X-API-Key: KEY")
        if None in keys:  # also beside a right one: a wrong key never passes unnoticed
            return answers.unauthorized("unknown API key")
        wanted = _scope()
        for key in filter(None, keys):
            if wanted not in key.scopes:
                return answers.forbidden(f"this key may not {wanted}: it is for {' and '.join(sorted(key.scopes))}")
            g.caller, g.scopes = f"key/{key.name}", g.get("scopes", key.scopes) & key.scopes
        return None


def _scope() -> str:
    operation = _operation()
    return operation.scope if operation else "read"


def _operation() -> Operation | None:
    rule = request.url_rule
    return getattr(current_app.view_functions[rule.endpoint], "operation", None) if rule else None


def _presented() -> Iterator[str]:
    authorization = request.headers.get("Authorization")
    if authorization is not None:
        scheme, _, token = authorization.partition(" ")
        yield token.strip() if scheme.lower() == "bearer" else ""
    if "X-API-Key" in request.headers:
        yield request.headers["X-API-Key"]


def _limit_rate(app: Flask, config: Config) -> None:
    """Counts in Redis: right across workers and servers, for one more round trip a request.

    When Redis does not answer, or refuses to count, nothing is limited for `retry_after_s`, which log and metric say.
    A store that is away makes reads fail by themselves, and one that only refuses writes should go on serving them.
    """
    metrics: Metrics = app.extensions["streamforge.metrics"]
    rate = limits.parse(config.rate_limit or "")
    limiter: FixedWindowRateLimiter | None = None  # made by the first request: that of a cluster connects at once
    off_until = 0.0
    is_failing = False

    @app.before_request
    def _count() -> Response | None:
        nonlocal limiter, off_until, is_failing
        if _is_free() or time.monotonic() < off_until:
            return None
        caller = g.get("caller") or f"address/{request.remote_addr}"
        try:
            limiter = limiter or FixedWindowRateLimiter(_storage(config))
            is_below = limiter.hit(rate, caller)
            if is_failing:
                is_failing = False
                _LOG.warning("requests are counted again")
            if is_below:
                return None
            wait_s = limiter.get_window_stats(rate, caller).reset_time - time.time()
        except (redis.RedisError, RedisClusterException) as e:
            off_until = time.monotonic() + config.retry_after_s
            metrics.rate_limit_failures.inc()
            if not is_failing:  # one line an outage
                is_failing = True
                _LOG.warning("--rate_limit: Redis does not count requests, so none is limited: %s", e)
            return None
        return answers.too_many(f"more than {rate}; try again shortly", max(1, math.ceil(wait_s)))


def _storage(config: Config) -> RedisStorage:
    url, settings, prefix = config.redis_url, store_settings(config), Keys(config.store_prefix).rate
    if not url.cluster:
        return RedisStorage("redis://", connection_pool=connections(url, **settings), key_prefix=prefix)
    own = connection_settings(url, settings)
    nodes = ",".join(f"{host}:{port}" for host, port in url.servers)
    options = {name: value for name, value in own.items() if name not in ("host", "port", "db")}
    return RedisClusterStorage(f"redis+cluster://{nodes}", key_prefix=prefix, ssl=url.tls, **options)


def _allow_origins(app: Flask, origins: Sequence[str]) -> None:
    @app.after_request
    def _allow(response: Response) -> Response:
        response.vary.add("Origin")
        origin = request.headers.get("Origin")
        if origin in origins:
            response.headers["Access-Control-Allow-Origin"] = origin
            response.headers["Access-Control-Expose-Headers"] = _EXPOSED
            if request.method == "OPTIONS":
                response.headers["Access-Control-Allow-Methods"] = _METHODS
                response.headers["Access-Control-Allow-Headers"] = _HEADERS
                response.headers["Access-Control-Max-Age"] = str(_PREFLIGHT_S)
        return response
