"""The routes. Each declares its parameters and answer, queries the store once and answers in the envelope."""

from __future__ import annotations

from collections.abc import Callable
from importlib.metadata import PackageNotFoundError
from importlib.metadata import version as installed_version
from typing import Any, cast

from flask import Blueprint, Response, current_app, request

from serving import answers, auth, query, resources
from serving.config import Config
from serving.metrics import Metrics
from serving.openapi import operation, operations
from serving.progress import Progress
from serving.query import LISTING, USER_ID
from serving.store import Store, StoreUnavailable
from serving.stream import EventId, Streams, TooManyStreams, Wanted

__all__ = ["api", "declared_metrics", "version"]

api = Blueprint("api", __name__, url_prefix="/api/v1")


def _store() -> Store:
    return cast(Store, current_app.extensions["streamforge.store"])


def _metrics() -> Metrics:
    return cast(Metrics, current_app.extensions["streamforge.metrics"])


def _progress() -> dict[str, Progress]:
    """By job."""
    return cast("Callable[[], dict[str, Progress]]", current_app.extensions["streamforge.progress"])()


def _told(progress: Progress) -> dict[str, Any]:
    return progress._asdict() | {"topics": {name: topic._asdict() for name, topic in progress.topics.items()}}


def _config() -> Config:
    return cast(Config, current_app.extensions["streamforge.config"])


def _currency(asked: str | None) -> str:
    return asked or _config().currency


def version() -> str:
    try:
        return installed_version("streamforge")
    except PackageNotFoundError:  # run from a checkout that is not installed
        return "unknown"


@api.get("/health")
@operation(resources.HealthAnswer, free=True)
def health() -> Response:
    """Health of the store, and the jobs' ledgers, lag and freshness.

    Where API keys are in use, callers without one see only the store's status.
    """
    try:
        store = _store().health()
    except StoreUnavailable:  # its message names the store's address, which is for the log only
        return answers.unavailable("Redis, the online store, does not answer; try again shortly")
    told: dict[str, Any] = {"status": "ok", "redis": {"status": "ok", "latency_ms": store.latency_ms}}
    if auth.is_known_caller():
        told |= {
            "ledgers": store.ledgers,
            "open_sessions": store.open_sessions,
            "freshness_s": store.freshness_s,
            "progress": {job: _told(at) for job, at in _progress().items()},
        }
    return answers.one(told)


@api.get("/health/live")
@operation(resources.ProbeAnswer, needs_store=False, free=True)
def live() -> Response:
    """Whether this process answers.

    For liveness probes: a store that is down is no reason to restart the server.
    """
    return answers.one({"status": "ok"})


@api.get("/health/ready")
@operation(resources.ProbeAnswer, free=True)
def ready() -> Response:
    """Whether the online store answers.

    For readiness probes: without the store the server cannot answer anything else.
    """
    _store().freshness_s()
    return answers.one({"status": "ok"})


@api.get("/info")
@operation(resources.InfoAnswer, needs_store=False)
def info() -> Response:
    """The version, the shop's currency and time zone, and all routes."""
    routes: dict[str, dict[str, Any]] = {}
    for rule, method, view, _ in operations(current_app):
        summary = (view.__doc__ or "").partition("\n")[0]
        routes.setdefault(rule.rule, {"path": rule.rule, "methods": [], "summary": summary})["methods"].append(method)
    config = _config()
    about = {"name": "StreamForge", "version": version(), "currency": config.currency, "time_zone": config.time_zone}
    return answers.one({**about, "may_label": auth.may_label(), "routes": list(routes.values())})


@api.get("/fraud-alerts")
@operation(resources.AlertPage, query=[*LISTING, query.STATE, query.OF_USER])
def fraud_alerts(user_id: str | None, **asked: Any) -> Response:
    """The newest fraud alerts of all users or one."""
    return _alerts(user_id, asked)


@api.get("/fraud-alerts/<user_id>")
@operation(resources.AlertPage, path=[USER_ID], query=[*LISTING, query.STATE])
def fraud_alerts_of_user(user_id: str, **asked: Any) -> Response:
    """The newest fraud alerts of one user."""
    return _alerts(user_id, asked)


def _alerts(user_id: str | None, asked: dict[str, Any]) -> Response:
    state = asked.pop("state")
    page = _store().alerts(user_id, *query.listing(**asked, zone=_config().time_zone), state=state)
    _metrics().fraud_alerts_served.inc(len(page.rows))
    return answers.listing(page)


@api.get("/sessions")
@operation(resources.SessionPage, query=[*LISTING, query.OPEN, query.OF_USER])
def sessions(open: bool, user_id: str | None, **asked: Any) -> Response:  # noqa: A002 - the parameter's name
    """The newest sessions of all users or one.

    A page may have fewer rows than `limit` and still be followed by another.
    """
    return answers.listing(
        _store().sessions(user_id, *query.listing(**asked, zone=_config().time_zone), only_open=open)
    )


@api.get("/sessions/<user_id>")
@operation(resources.SessionPage, path=[USER_ID], query=LISTING)
def sessions_of_user(user_id: str, **asked: Any) -> Response:
    """The newest sessions of one user.

    A page may have fewer rows than `limit` and still be followed by another.
    """
    return answers.listing(_store().sessions(user_id, *query.listing(**asked, zone=_config().time_zone)))


@api.get("/revenue")
@operation(resources.MinutePage, query=[*LISTING, query.CURRENCY])
def revenue(currency: str | None, **asked: Any) -> Response:
    """Revenue per minute in one currency, newest first.

    A page may have fewer rows than `limit` and still be followed by another.
    """
    return answers.listing(_store().revenue(_currency(currency), *query.listing(**asked, zone=_config().time_zone)))


@api.get("/revenue/currencies")
@operation(resources.CurrenciesAnswer)
def revenue_currencies() -> Response:
    """The currencies of the orders of the last 48 hours."""
    codes = _store().currencies()
    return answers.one(codes, count=len(codes))


@api.get("/revenue/realtime")
@operation(resources.MinuteAnswer, query=[query.CURRENCY])
def revenue_realtime(currency: str | None) -> Response:
    """Revenue of the current minute in one currency, or of the last minute with orders in it."""
    minute = _store().revenue_now(_currency(currency))
    return answers.one(None, count=0) if minute is None else answers.one_ready(minute)


@api.get("/features/<user_id>")
@operation(resources.FeaturesAnswer, path=[USER_ID], missing="The user is unknown.")
def features_of_user(user_id: str) -> Response:
    """One user's features: orders and spend, last session, alerts, time last seen."""
    known = _store().features_of(user_id)
    return answers.missing("unknown user") if known is None else answers.one_ready(known)


@api.post("/features")
@operation(resources.FeaturesOfMany, body=resources.UserIds)
def features_of_users(body: resources.UserIds) -> Response:
    """Features of up to 1,000 users, in one round trip to the store.

    `missing` lists unknown users. An id that is requested twice is answered twice.
    """
    user_ids = query.user_ids(body.user_ids)
    return answers.features_of_many(user_ids, _store().features_of_many(user_ids))


@api.get("/stream")
@operation(
    "text/event-stream",
    query=[query.EVENTS, query.ALERT_TYPE, query.OF_USER, query.CURRENCY],
    headers=[query.LAST_EVENT_ID],
    busy="This server has no free stream; retry after the seconds in `Retry-After`, or poll the lists instead.",
    needs_store=False,
)
def stream(
    events: frozenset[str],
    alert_type: str | None,
    user_id: str | None,
    currency: str | None,
    last_event_id: EventId | None,
) -> Response:
    """New alerts, and the current minute's revenue as it changes, as server-sent events.

    `event: alert` has an id and an alert as in /fraud-alerts. After a reconnect, alerts since `Last-Event-ID` come
    first, back to the last 10,000 in the store. A corrected alert is sent again: deduplicate by `alert_id`.
    `event: revenue` has a minute as in /revenue/realtime; the first is sent at once. An idle stream sends a comment
    every 15 seconds.

    The stream stays open while the online store is down, and resumes with it. To get earlier alerts too, open the
    stream first, then read the list. The server closes a stream whose client reads too slowly.
    """
    headers = {"Cache-Control": "no-store", "X-Accel-Buffering": "no"}  # nginx would hold events back
    if request.method == "HEAD":
        return Response(content_type="text/event-stream", headers=headers)
    streams = cast(Streams, current_app.extensions["streamforge.streams"])
    try:
        frames = streams.open(Wanted(events, alert_type, user_id, last_event_id, _currency(currency)))
    except TooManyStreams:
        return answers.unavailable("this server has no free stream; try again shortly")
    return Response(frames, content_type="text/event-stream", headers=headers)


def declared_metrics(view: Callable[[], Response]) -> Callable[[], Response]:
    """Declares /metrics, whose view comes from prometheus-flask-exporter."""
    view.__doc__ = "Prometheus metrics of all workers."
    return operation("text/plain", needs_store=False, free=True)(view)
