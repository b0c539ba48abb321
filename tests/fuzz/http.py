"""Whatever a client sends, the API answers by one of its statuses, in the form that its document says."""

from __future__ import annotations

import json
import random
import re
import tempfile
from functools import cache
from pathlib import Path
from typing import Any
from urllib.parse import quote

from flask import Flask
from werkzeug.test import create_environ, run_wsgi_app

from schemas import codec
from schemas.mapping import SHIPPED
from serving.api_keys import ApiKey, sha256
from tests import foreign
from tests.build import click, order
from tests.fuzz.making import changed, noise, spoilt
from tests.serving.test_ingest import SECRET, Broker, opened, signed

__all__ = ["http"]

STATUSES = {200, 204, 304, 400, 401, 403, 404, 405, 413, 415, 422, 429, 503}
IDS = ["u-1", "o-1", ".", "..", "a/b", "ü 😀", "%2F", "\x00", "x" * 999, "2026-11-22", "alert,revenue", "true", "100"]
NAMES = ["limit", "cursor", "since", "until", "day", "user_id", "alert_type", "open", "events", "currency", "x", ""]
TYPES = ["application/json", "application/x-ndjson", "text/plain", "application/json; charset=\x80", ""]


def http(rng: random.Random) -> None:
    app = _app(with_keys=rng.random() < 0.5)
    rule = rng.choice(list(app.url_map.iter_rules()))
    path = re.sub("<[^>]+>", lambda _: _text(rng, [*IDS, *SHIPPED]), rule.rule)
    asked = "&".join(f"{rng.choice(NAMES)}={_text(rng, IDS)}" for _ in range(rng.randrange(3)))
    body = _body(rng)
    environ = create_environ(
        method=rng.choice([*sorted(rule.methods or ()), "POST", "POST", "PUT", "TRACE"]), data=body
    )
    environ |= {
        "PATH_INFO": path,
        "RAW_URI": f"{path}?{asked}",
        "QUERY_STRING": asked,
        "CONTENT_TYPE": rng.choice(TYPES),
    }
    environ |= {name: rng.choice(values) for name, values in _headers(body).items() if rng.random() < 0.3}
    _, status, _ = run_wsgi_app(app, environ, buffered=True)
    assert int(status[:3]) in STATUSES, f"{status}: {environ['REQUEST_METHOD']} {path[:200]!r} {body[:200]!r}"


def _text(rng: random.Random, texts: list[str]) -> str:
    """As it is in an address; often encoded as it should be."""
    raw = spoilt(rng, rng.choice(texts).encode())
    return quote(raw, safe="") if rng.random() < 0.8 else raw.decode("latin-1")


def _body(rng: random.Random) -> bytes:
    message = foreign.stream(rng.choice(sorted(foreign.SOURCES)), 1, rng.randrange(256))[0].message
    fields = rng.choice([json.loads(codec.to_json(order())), json.loads(codec.to_json(click())), message])
    one = json.dumps(changed(rng, fields) if rng.random() < 0.7 else fields).encode()
    raw = rng.choice([one, b"[" + one + b"," + one + b"]", one + b"\n" + one, b"", b"webhook_id=7", noise(rng)])
    return spoilt(rng, raw) if rng.random() < 0.5 else raw


def _headers(body: bytes) -> dict[str, list[str]]:
    return {
        "HTTP_X_API_KEY": ["all", "none", "\xff", ""],
        "HTTP_AUTHORIZATION": ["Bearer all", "bearer", "Basic \xff", "Bearer \x80"],
        "HTTP_X_SHOPIFY_HMAC_SHA256": [signed(body), signed(body)[:-2], "\xe9", ""],
        "HTTP_X_WC_WEBHOOK_SIGNATURE": [signed(body), "x"],
        "HTTP_X_SHOPIFY_TOPIC": ["orders/create", "\xff"],
        "HTTP_CONTENT_ENCODING": ["gzip", "x"],
        "HTTP_ACCEPT_ENCODING": ["gzip", "zstd;q=\x80", "*;q=x"],
        "HTTP_ACCEPT": ["text/event-stream", "\x80"],
        "HTTP_IF_NONE_MATCH": ['"x"', "W/\x80", "*"],
        "HTTP_ORIGIN": ["https://shop.example", "\x80"],
        "HTTP_LAST_EVENT_ID": ["1-1", "9" * 5_000, "٣-٣".encode().decode("latin-1")],
        "HTTP_X_REQUEST_ID": ["a", "x" * 999],
        "CONTENT_LENGTH": ["-1", "x", "0", str(1 << 70)],
    }


@cache
def _app(with_keys: bool) -> Flask:
    """Kafka takes all; the store is away, so that what only asks it ends behind the parsing, with 503."""
    settings: dict[str, Any] = {"mappings": SHIPPED, "event_rate": "100000000/second", "decisions": True, "streams": 0}
    if with_keys:
        scopes = frozenset(["read", "write", "decide"])
        hooks = Path(tempfile.mkdtemp()) / "webhooks"
        hooks.write_text(f"shopify.secret={SECRET}\nwoocommerce.secret={SECRET}\n")
        settings |= {"api_keys": (ApiKey("all", sha256("all"), scopes),), "webhooks": str(hooks)}
    app: Flask = opened(
        Broker(), redis_url="redis://127.0.0.1:1", cors_origins=("https://shop.example",), **settings
    ).application
    return app
