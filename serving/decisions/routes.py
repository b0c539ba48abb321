"""`POST /api/v1/decisions` judges an order as ours, `POST /api/v1/decisions/<mapping>` one of another system."""

from __future__ import annotations

import time
from typing import Annotated, Any, Final, Literal, cast

from flask import Blueprint, Flask, Response, current_app, request
from msgspec import Meta, Struct
from prometheus_client import Counter, Histogram
from werkzeug.exceptions import InternalServerError

from schemas.events import OrderEvent
from schemas.framing import BOM
from serving import answers
from serving.config import Config
from serving.decisions.judge import Judge, Verdict
from serving.decisions.ruleset import read_rules
from serving.ingest.intake import MAX_EVENT_BYTES, Refused, intakes
from serving.metrics import Metrics
from serving.openapi import JSON, operation
from serving.query import InvalidQuery, Parameter
from serving.resources import One
from serving.store import Store, StoreUnavailable

__all__ = ["PATH", "open_decisions"]

PATH: Final = "/api/v1/decisions"
_OUTCOMES: Final = ("allow", "review", "block")
_SECONDS: Final = (0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5)
_SPACE: Final = b" \t\r\n"

api = Blueprint("decisions", __name__, url_prefix=PATH)


class Reason(Struct):
    """A pattern that the order would complete."""

    rule: str
    risk_score: Annotated[float, Meta(ge=0, le=1)]
    order_id: Annotated[
        str, Meta(description="the order that would complete it: this one, unless a later one is known")
    ]
    description: str
    related_orders: Annotated[list[str], Meta(description="the pattern's orders, oldest first")]


class NotEvaluated(Struct):
    """A rule that found nothing, where the store may lack some of what it looks at."""

    rule: str
    why: str


class Decision(Struct):
    """What is thought of one order."""

    decision: Literal["allow", "review", "block"]
    score: Annotated[float, Meta(ge=0, le=1)] | None
    rules: Annotated[list[Reason], Meta(description="the riskiest first; its score is `score`, which is 0 without any")]
    not_evaluated: list[NotEvaluated]
    rules_version: Annotated[str, Meta(description="changes with what the rules say, not with how they are written")]
    order_id: str
    user_id: str
    fallback: Annotated[
        bool, Meta(description="true: the store did not answer; `decision` is the server's policy, `score` is null")
    ]


class DecisionAnswer(One[Decision]):
    """The decision."""


MAPPING = Parameter(
    "mapping", lambda text: text, {"type": "string", "examples": ["shopify"]}, "A mapping that the server has."
)
_DECLARED: Final[dict[str, Any]] = {
    "media": (JSON,),
    "unfit": "The body is no valid order that is CREATED; `error` names all that is wrong with it.",
    "busy": "The online store does not answer, and the server's policy is not to decide then; see `Retry-After`.",
    "scope": "decide",
}


class Decider:
    """What a process needs to decide."""

    def __init__(self, config: Config, store: Store, metrics: Metrics):
        self._judge, self._store, self._when_down = Judge(read_rules(config.rules)), store, config.when_down
        self._intakes = intakes(config.mappings)
        decided = Counter(
            "streamforge_decisions", "Orders decided by the rules, by outcome.", ("outcome",), registry=metrics.registry
        )
        # Made here, from zero: `labels` takes longer than counting, and so the first is an increase.
        self._decided = {outcome: decided.labels(outcome) for outcome in _OUTCOMES}
        self._fallbacks = Counter(
            "streamforge_decision_fallbacks",
            "Orders answered by --when_down, as the online store did not answer.",
            registry=metrics.registry,
        )
        self._seconds = Histogram(
            "streamforge_decision_seconds",
            "Time to decide on an order, or to find that the online store does not answer.",
            buckets=_SECONDS,
            registry=metrics.registry,
        )

    @property
    def mappings(self) -> list[str]:
        return [name for name in self._intakes if name is not None]

    def order(self, mapping: str | None, body: bytes) -> OrderEvent:
        """Raises: Refused: it is none, or not one that can be decided on."""
        intake = self._intakes[mapping]
        headers = {name: request.headers[name] for name in intake.headers if name in request.headers}
        records = intake.records(body, headers, time.time_ns() // 1_000_000)
        orders = [record for record in records if isinstance(record, OrderEvent)]
        if not orders:
            raise Refused("decode", "NoOrder", "there is no order in it")
        if orders[0].order_status != "CREATED":
            status = orders[0].order_status
            raise Refused(
                "validate", "NotCreated", f"order_status is {status}: only an order that is CREATED is decided"
            )
        return orders[0]

    def decide(self, order: OrderEvent) -> Decision:
        """Raises: StoreUnavailable: the policy is not to decide then."""
        began = time.perf_counter()
        try:
            verdict = self._judge.judge(order, self._store.orders_of(order.user_id))
        except StoreUnavailable:
            self._fallbacks.inc()
            if self._when_down == "503":
                raise
            verdict = None
        finally:
            self._seconds.observe(time.perf_counter() - began)
        if verdict is None:
            policy = cast(Literal["allow", "review"], self._when_down)
            return Decision(policy, None, [], [], self._judge.version, order.order_id, order.user_id, fallback=True)
        self._decided[verdict.decision].inc()
        return _told(verdict, order, self._judge.version)


def _told(verdict: Verdict, order: OrderEvent, version: str) -> Decision:
    return Decision(
        cast(Literal["allow", "review", "block"], verdict.decision),
        verdict.score,
        [
            Reason(each.alert_type, each.risk_score, each.order_id, each.description, each.related_events)
            for each in verdict.alerts
        ],
        [NotEvaluated(*each) for each in verdict.unsure],
        version,
        order.order_id,
        order.user_id,
        fallback=False,
    )


def open_decisions(app: Flask, config: Config, metrics: Metrics) -> None:
    """Registers the routes."""
    app.extensions["streamforge.decider"] = Decider(config, app.extensions["streamforge.store"], metrics)
    app.register_blueprint(api)


@api.post("")
@operation(DecisionAnswer, **_DECLARED)
def decide(body: bytes) -> Response:
    """Says of an order that is not placed yet: allow, review or block.

    The body is one order, with the fields of `OrderEvent` and the status CREATED; amounts in minor units, times in
    milliseconds since 1970. The fraud job's rules are applied to it and to the orders of its user that the online store
    has: those of the last 24 hours that have come through the stream. Nothing is changed, so the same question may be
    asked again.
    """
    return _decided(None, body)


@api.post("/<mapping>")
@operation(DecisionAnswer, path=[MAPPING], missing="The server has no mapping of that name.", **_DECLARED)
def decide_mapped(mapping: str, body: bytes) -> Response:
    """Says the same of an order of another system, through a mapping.

    Otherwise as `POST /decisions`.
    """
    names = _decider().mappings
    if mapping not in names:
        return answers.missing(f"there is no mapping of that name; there are: {', '.join(names) or 'none'}")
    return _decided(mapping, body)


def _decider() -> Decider:
    return cast(Decider, current_app.extensions["streamforge.decider"])


def _decided(mapping: str | None, body: bytes) -> Response:
    body = body.removeprefix(BOM)
    if body.lstrip(_SPACE)[:1] != b"{":
        raise InvalidQuery("the body must be one order, as a JSON object")
    if len(body) > MAX_EVENT_BYTES:
        return answers.too_large(f"{len(body):,} bytes; an order has at most {MAX_EVENT_BYTES:,}")
    try:
        order = _decider().order(mapping, body)
    except Refused as e:
        if e.error_class == "UnexpectedError":  # our own fault, which is logged
            raise InternalServerError from e
        if e.error_class == "Undecodable":
            raise InvalidQuery(f"the body is not JSON: {e}"[:300]) from e
        return answers.unfit(str(e))
    return answers.one(_decider().decide(order))
