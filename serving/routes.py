"""The routes. Each reads its parameters, asks the store once and answers in the envelope."""

from __future__ import annotations

from importlib.metadata import PackageNotFoundError
from importlib.metadata import version as installed_version
from typing import cast

import msgspec
from flask import Blueprint, Response, current_app, request

from serving import answers, query
from serving.metrics import Metrics
from serving.store import Page, Store, StoreUnavailable

__all__ = ["api", "scrape"]

api = Blueprint("api", __name__, url_prefix="/api/v1")
scrape = Blueprint("scrape", __name__)


def _store() -> Store:
    return cast(Store, current_app.extensions["streamforge.store"])


def _metrics() -> Metrics:
    return cast(Metrics, current_app.extensions["streamforge.metrics"])


@api.get("/health")
def health() -> Response:
    """Whether the API can answer, and the pipelines' ledgers."""
    try:
        store = _store().health()
    except StoreUnavailable as e:
        return answers.unavailable(str(e))
    return answers.one(
        {
            "status": "ok",
            "redis": {"status": "ok", "latency_ms": store.latency_ms},
            "ledgers": store.ledgers,
        }
    )


@api.get("/info")
def info() -> Response:
    """The version, and every route."""
    try:
        version = installed_version("streamforge")
    except PackageNotFoundError:  # run from a checkout that is not installed
        version = "unknown"
    routes = [
        {
            "path": rule.rule,
            "methods": sorted((rule.methods or set()) - {"HEAD", "OPTIONS"}),
            "summary": (current_app.view_functions[rule.endpoint].__doc__ or "").partition("\n")[0],
        }
        for rule in sorted(current_app.url_map.iter_rules(), key=lambda rule: rule.rule)
    ]
    return answers.one({"name": "StreamForge", "version": version, "routes": routes})


@api.get("/fraud-alerts")
def fraud_alerts() -> Response:
    """The newest fraud alerts of all users; limit, cursor, since, until."""
    return _alerts(None)


@api.get("/fraud-alerts/<user_id>")
def fraud_alerts_of_user(user_id: str) -> Response:
    """The newest fraud alerts of one user; limit, cursor, since, until."""
    return _alerts(query.user_id(user_id))


def _alerts(user_id: str | None) -> Response:
    wanted = query.listing(request.args)
    page = _store().alerts(user_id, *wanted)
    _metrics().fraud_alerts_served.inc(len(page.rows))
    return _listing(page)


def _listing(page: Page) -> Response:
    return answers.listing(page.rows, query.cursor_text(page.end) if page.end else None)


@api.get("/sessions")
def sessions() -> Response:
    """The newest sessions of all users; limit, cursor, since, until; open=true for those in progress."""
    wanted, only_open = query.listing(request.args), query.flag(request.args, "open")
    return _listing(_store().sessions(None, *wanted, only_open=only_open))


@api.get("/sessions/<user_id>")
def sessions_of_user(user_id: str) -> Response:
    """The newest sessions of one user; limit, cursor, since, until."""
    return _listing(_store().sessions(query.user_id(user_id), *query.listing(request.args)))


@api.get("/revenue")
def revenue() -> Response:
    """Revenue by the minute, newest first; limit, cursor, since, until."""
    return _listing(_store().revenue(*query.listing(request.args)))


@api.get("/revenue/realtime")
def revenue_realtime() -> Response:
    """Revenue of the minute that is open, or of the last one with orders."""
    minute = _store().revenue_now()
    return answers.one(None, count=0) if minute is None else answers.one(msgspec.Raw(minute))


@api.get("/features/<user_id>")
def features_of_user(user_id: str) -> Response:
    """What is known of one user: orders and spend, last session, alerts, when last seen."""
    known = _store().features_of(query.user_id(user_id))
    return answers.missing("nothing is known of this user") if known is None else answers.one(msgspec.Raw(known))


@scrape.get("/metrics")
def metrics() -> Response:
    """Prometheus metrics of all workers."""
    try:
        freshness_s = _store().freshness_s()
    except StoreUnavailable:  # counted by the store; a scrape must still show the count
        freshness_s = {}
    body, content_type = _metrics().exposition(request.headers.get("Accept", ""), freshness_s)
    return Response(body, content_type=content_type)
