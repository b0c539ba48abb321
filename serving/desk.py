"""What a fraud team works with beside the alerts: their states, the labels that these make, the orders behind them."""

from __future__ import annotations

from typing import Annotated, Any, cast

import msgspec
from flask import Blueprint, Response, current_app
from msgspec import Meta, Struct

from schemas import currencies, features
from schemas.alert_states import NOTE_CHARS, StateName
from schemas.ids import ID_PATTERN
from serving import answers, auth, query, resources
from serving.config import Config
from serving.openapi import operation
from serving.query import LISTING
from serving.store import Store

__all__ = ["api"]

api = Blueprint("desk", __name__, url_prefix="/api/v1")

ALERT_ID = query.Parameter(
    "alert_id",
    query.an_id("alert"),
    {"type": "string", "pattern": ID_PATTERN, "examples": ["alert-1"]},
    "The alert, percent-encoded.",
)
LINES = (
    query.limit(10_000, 10_000),
    *(parameter for parameter in LISTING if parameter.name != "limit"),
)


class NewState(Struct, forbid_unknown_fields=True):
    """What is now thought of an alert."""

    state: Annotated[StateName, Meta(description="`new` takes a label back")]
    note: Annotated[str, Meta(max_length=NOTE_CHARS, description="why")] | None = None
    user_id: (
        Annotated[
            str,
            Meta(
                description="of the alert; without, it is looked for among the newest 10,000 alerts",
                extra_json_schema={"pattern": ID_PATTERN},
            ),
        ]
        | None
    ) = None


def _store() -> Store:
    return cast(Store, current_app.extensions["streamforge.store"])


def _config() -> Config:
    return cast(Config, current_app.extensions["streamforge.config"])


@api.put("/fraud-alerts/<alert_id>/state")
@operation(
    resources.LabelAnswer,
    path=[ALERT_ID],
    body=NewState,
    missing="There is no such alert, and there was none with a state.",
    scope="label",
    guarded="This server is open to others and has no API keys, so nobody may label.",
)
def label_alert(alert_id: str, body: NewState) -> Response:
    """Says that an alert is confirmed, a false alarm, or new again.

    The last word counts. Who said it is the name of the API key, when is the server's time. Needs a key of the scope
    `label`; without API keys it is only possible on loopback addresses.
    """
    if not auth.may_label():
        return answers.forbidden(
            "this server is open to others: to label it needs --api_keys, with a key of scope label"
        )
    if body.user_id is not None:
        query.user_id(body.user_id)
    made = _store().label(alert_id, body.user_id, body.state, auth.caller_name(), body.note or None)
    if made is None:
        return answers.missing("there is no such alert")
    return answers.one(made)


@api.get("/labels")
@operation(resources.LabelPage, query=LISTING)
def labels(**asked: Any) -> Response:
    """The states that alerts were given, the last first; `since`, `until` and `day` are of that time.

    The newest 100,000 are kept, also when their alerts have left the store.
    """
    return answers.listing(_store().labels(*query.listing(**asked, zone=_config().time_zone)))


@api.get("/labels/export")
@operation(answers.LINES, query=LINES)
def labels_export(**asked: Any) -> Response:
    """The same as a line of JSON each: a file for `python -m beam_pipelines.backtest --labels`.

    Lines of confirmed alerts have the `kind` fraud, which is what counts there. If there are more than `limit`, the
    header `X-Next-Cursor` has the `cursor` of the next part.
    """
    return answers.lines(_store().labels(*query.listing(**asked, zone=_config().time_zone)))


@api.get("/orders")
@operation(resources.OrdersAnswer, query=[query.WHOSE])
def orders(user_id: str) -> Response:
    """One user's CREATED orders of the 24 hours up to the newest, newest first; at most 1,000."""
    rows = [
        {
            "order_id": order.order_id,
            "timestamp": features.rfc3339(int(at_ms)),
            "amount": msgspec.Raw(currencies.decimal(order.amount_minor, order.currency).encode()),
            "currency": order.currency,
            "region": order.region,
        }
        for member, at_ms in reversed(_store().orders_of(user_id))
        if (order := features.kept_order(member)) is not None
    ]
    return answers.compressed(answers.one(rows, count=len(rows)))
