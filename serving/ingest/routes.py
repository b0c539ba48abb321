"""`POST /api/v1/events` takes events as ours, `POST /api/v1/events/<mapping>` those of others."""

from __future__ import annotations

import math
import re
from typing import Annotated, Any, Final, Literal, cast

import msgspec
from flask import Blueprint, Flask, Response, current_app, g, request
from msgspec import Meta, Struct

from schemas.framing import BOM
from serving import answers, auth
from serving.config import Config
from serving.ingest.budget import Budget
from serving.ingest.door import Door, Fate, Unavailable
from serving.ingest.webhooks import HEADERS, Webhooks
from serving.metrics import Metrics
from serving.openapi import JSON, operation
from serving.query import InvalidQuery, Parameter
from serving.resources import Count

__all__ = ["MOST_EVENTS", "PATH", "open_door"]

PATH: Final = "/api/v1/events"
MOST_EVENTS: Final = 1_000
_LINES: Final = ("application/x-ndjson", "application/jsonl")
_SPACE: Final = b" \t\r\n"
_PING: Final = re.compile(rb"webhook_id=\d{1,19}")

api = Blueprint("ingest", __name__, url_prefix=PATH)


class Placed(Struct):
    """Where a record is."""

    topic: str
    partition: int
    offset: Annotated[int, Meta(ge=0)]


class EventFate(Struct, omit_defaults=True):
    """What became of one event."""

    status: Annotated[
        Literal["accepted", "refused", "ignored", "unknown"],
        Meta(description="unknown: Kafka did not confirm it in time; send it again, which does no harm"),
    ]
    records: Annotated[list[Placed], Meta(description="of an accepted event: an order, a click, or both")] = []
    error_class: Annotated[str | None, Meta(description="of a refused event, as in its dead letter")] = None
    error: Annotated[str | None, Meta(description="all that is wrong with it")] = None
    dead_letter: Annotated[bool, Meta(description="whether a refused event is in the dead-letter topic")] = False


class EventsAnswer(Struct):
    """Every event's fate is final, in the order sent. Refused ones are among the dead letters."""

    success: Annotated[bool, Meta(extra_json_schema={"const": True})]
    data: list[EventFate]
    count: Annotated[int, Meta(ge=0, description="rows in `data`")]
    accepted: Count
    refused: Count
    ignored: Annotated[int, Meta(ge=0, description="that the mapping says are no events of ours")]


class EventsUnconfirmed(Struct):
    """Send all of the request again; what is there already counts once."""

    success: Annotated[bool, Meta(extra_json_schema={"const": False})]
    error: str
    data: Annotated[list[EventFate], Meta(description="absent when nothing was tried")] = []


def _name(text: str) -> str:
    return text


MAPPING = Parameter("mapping", _name, {"type": "string", "examples": ["shopify"]}, "A mapping that the server has.")
_DECLARED: Final[dict[str, Any]] = {
    "media": (JSON, *_LINES),
    "busy": "Kafka or the schema registry did not answer in time; send all again after the seconds in `Retry-After`.",
    "needs_store": False,
    "scope": "write",
    "counted": True,
    "failed": {503: EventsUnconfirmed},
}


def open_door(app: Flask, config: Config, metrics: Metrics) -> None:
    """Registers the routes. To be called before `auth.guard`: what is signed needs no key."""
    door = Door(config, metrics)
    webhooks = Webhooks(config.webhooks, door.mappings)
    app.extensions["streamforge.door"] = door
    app.extensions["streamforge.event_budget"] = Budget(*auth.parsed(config.event_rate))
    app.register_blueprint(api)

    @app.before_request
    def _check_signature() -> Response | None:
        if request.blueprint != api.name or request.method != "POST":
            return None
        mapping = (request.view_args or {}).get("mapping", "")
        header = webhooks.header(mapping)
        if header is None:
            return None
        signature = request.headers.get(header)
        if signature is None:
            if header == HEADERS["woocommerce"] and _PING.fullmatch(request.get_data()):
                return answers.one([], 0, accepted=0, refused=0, ignored=0)
            if config.api_keys:
                return None
            return answers.unauthorized(f"this address needs a signature in {header}")
        if not webhooks.is_right(mapping, signature, request.get_data()):
            return answers.unauthorized(
                f"the signature in {header} is not of this body with the secret that is set here"
            )
        g.caller = f"webhook/{mapping}"
        return None


@api.post("")
@operation(EventsAnswer, **_DECLARED)
def events(body: bytes) -> Response:
    """Takes orders and clicks: one JSON object, an array of them, or a line each.

    The fields are those of `OrderEvent` and `ClickstreamEvent`, amounts in minor units, times in milliseconds since
    1970. What has `order_id` is an order, what has `event_id` a click.

    200 says that each event is in its topic, with all replicas, or was refused and is among the dead letters: `data`
    says which, in the order sent. After any other status send the request again: an event that is there already counts
    once. At most 1,000 events of 256 KiB each.
    """
    return _take(None, PATH, body)


@api.post("/<mapping>")
@operation(EventsAnswer, path=[MAPPING], missing="The server has no mapping of that name.", signed=True, **_DECLARED)
def mapped_events(mapping: str, body: bytes) -> Response:
    """Takes events of other systems, through a mapping.

    Otherwise as `POST /events`. Webhooks of Shopify and WooCommerce are known by their signature instead of a key,
    where the server has the secret.
    """
    door = cast(Door, current_app.extensions["streamforge.door"])
    if mapping not in door.mappings:
        return answers.missing(f"there is no mapping of that name; there are: {', '.join(door.mappings) or 'none'}")
    return _take(mapping, f"{PATH}/{mapping}", body)


def _take(mapping: str | None, route: str, body: bytes) -> Response:
    found = _split(body, request.mimetype in _LINES)
    if len(found) > MOST_EVENTS:
        return answers.too_large(f"{len(found):,} events; a request has at most {MOST_EVENTS:,}")
    budget = cast(Budget, current_app.extensions["streamforge.event_budget"])
    wait_s = budget.spend(g.get("caller") or f"address/{request.remote_addr}", len(found))
    if wait_s:
        rate = cast(Config, current_app.extensions["streamforge.config"]).event_rate
        return answers.too_many(f"more events than {rate}; try again shortly", math.ceil(wait_s))
    door = cast(Door, current_app.extensions["streamforge.door"])
    headers = {name: request.headers[name] for name in door.headers(mapping) if name in request.headers}
    try:
        fates = door.take(mapping, route, found, headers)
    except Unavailable as e:
        return answers.unavailable(f"{e}; nothing was sent; try again shortly")
    told = [_told(fate) for fate in fates]
    if not all(fate.is_final for fate in fates):
        return answers.unavailable("Kafka did not confirm all of them in time; send all again", data=told)
    counts = {name: sum(fate.outcome == name for fate in fates) for name in ("accepted", "refused", "ignored")}
    return answers.one(told, len(told), **counts)


def _told(fate: Fate) -> EventFate:
    records = [Placed(topic, place.partition, place.offset) for topic, place in fate.records]
    return EventFate(fate.outcome, records, fate.error_class, fate.error, fate.is_kept)  # type: ignore[arg-type]


def _split(body: bytes, lines: bool) -> list[bytes]:
    """The events in a body, each as it came. Raises: InvalidQuery."""
    body = body.removeprefix(BOM)
    if lines:
        found = [line for line in body.split(b"\n") if line.strip(_SPACE)]
    else:
        try:
            if body.lstrip(_SPACE)[:1] == b"[":
                raws = msgspec.json.decode(body, type=list[msgspec.Raw])
            else:
                raws = [msgspec.json.decode(body, type=msgspec.Raw)]
        except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as e:
            raise InvalidQuery(f"the body is not JSON: {str(e)[:200]}") from e
        found = [bytes(each) for each in raws]
    if not found:
        raise InvalidQuery("there is no event in the body")
    return found
