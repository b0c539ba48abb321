"""The routes. Each reads its parameters, asks the store once and answers in the envelope."""

from __future__ import annotations

from importlib.metadata import PackageNotFoundError
from importlib.metadata import version as installed_version
from typing import cast

from flask import Blueprint, Response, current_app, request

from serving import answers, query
from serving.metrics import Metrics
from serving.store import AlertPage, Store, StoreUnavailable

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
    page: AlertPage = _store().alerts(user_id, *wanted)
    _metrics().fraud_alerts_served.inc(len(page.alerts))
    return answers.listing(page.alerts, query.cursor_text(page.end) if page.end else None)


@scrape.get("/metrics")
def metrics() -> Response:
    """Prometheus metrics of all workers."""
    try:
        freshness_s = _store().freshness_s()
    except StoreUnavailable:  # counted by the store; a scrape must still show the count
        freshness_s = {}
    body, content_type = _metrics().exposition(request.headers.get("Accept", ""), freshness_s)
    return Response(body, content_type=content_type)
