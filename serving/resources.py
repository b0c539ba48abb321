"""The API's answers as types, for the OpenAPI document and for tests, which parse every answer with them.

Most answers are bytes that the store keeps ready (`schemas/features.py` writes them), so serving runs none of this.

Long, as these types refer to each other.
"""

from __future__ import annotations

from datetime import datetime
from typing import Annotated, Generic, Literal, TypeVar

from msgspec import UNSET, Meta, Struct, UnsetType

from schemas.alert_states import StateName
from schemas.ids import ID_PATTERN

__all__ = [
    "Alert",
    "AlertPage",
    "CurrenciesAnswer",
    "Failure",
    "Features",
    "FeaturesAnswer",
    "FeaturesOfMany",
    "HealthAnswer",
    "InfoAnswer",
    "LabelAnswer",
    "LabelPage",
    "Minute",
    "MinuteAnswer",
    "MinutePage",
    "OrdersAnswer",
    "Page",
    "ProbeAnswer",
    "Session",
    "SessionPage",
    "UserIds",
]

T = TypeVar("T")

Time = Annotated[datetime, Meta(tz=True, description="RFC 3339, UTC, to the millisecond")]
Amount = Annotated[float, Meta(ge=0, description="in main units of `currency`, with all its decimals")]
Currency = Annotated[str, Meta(pattern="^[A-Z]{3}$", description="ISO 4217", examples=["TRY"])]
Count = Annotated[int, Meta(ge=0)]
_True = Annotated[bool, Meta(extra_json_schema={"const": True})]
_False = Annotated[bool, Meta(extra_json_schema={"const": False})]


class Alert(Struct):
    """An order completed a fraud pattern."""

    alert_id: Annotated[str, Meta(description="the same alert always has the same id")]
    user_id: str
    alert_type: Annotated[str, Meta(description="the rule", examples=["RAPID_ORDERS"])]
    risk_score: Annotated[float, Meta(ge=0, le=1)]
    order_id: Annotated[str, Meta(description="the order that completes the pattern")]
    amount: Annotated[float, Meta(ge=0, description="that order's amount, in `currency`")]
    timestamp: Annotated[datetime, Meta(tz=True, description="event time of that order")]
    description: str
    related_events: Annotated[list[str], Meta(description="the pattern's orders, oldest first")]
    currency: Annotated[str, Meta(description="of that order; absent from rows of older releases: TRY")] | UnsetType = (
        UNSET
    )
    state: (
        Annotated[
            StateName, Meta(description="what was said of it; absent until somebody has, and from events of /stream")
        ]
        | UnsetType
    ) = UNSET
    state_by: (
        Annotated[str | None, Meta(description="name of the API key; null without keys. Absent until it has a state")]
        | UnsetType
    ) = UNSET
    state_at: Annotated[datetime, Meta(tz=True)] | UnsetType = UNSET
    state_note: str | UnsetType | None = UNSET


class Label(Struct):
    """What somebody said of an alert."""

    alert_id: str
    at: Annotated[datetime, Meta(tz=True, description="when it was said; RFC 3339, UTC")]
    order_id: Annotated[str, Meta(description="the order that the alert is on")]
    kind: Annotated[
        Literal["fraud", "false_alarm", "new"], Meta(description="fraud when it is confirmed, else its state")
    ]
    state: StateName
    by: Annotated[str | None, Meta(description="name of the API key; null without keys")]
    note: str | None
    user_id: str
    alert_type: str


class Order(Struct):
    """What the store keeps of an order."""

    order_id: str
    timestamp: Annotated[datetime, Meta(tz=True, description="event time")]
    amount: Amount
    currency: Currency
    region: Annotated[str | None, Meta(description="null if an older release stored it")]


class Session(Struct):
    """One visit of a user."""

    session_id: Annotated[str, Meta(description="the user's id and the start in ms")]
    start_time: Time
    user_id: str
    end_time: Annotated[datetime, Meta(tz=True, description="time of the last click")]
    duration_seconds: Count
    page_views: Count
    product_views: Count
    add_to_carts: Count
    purchases: Count
    revenue: Annotated[float, Meta(ge=0, description="total of its purchases, in `currency`")]
    device_type: Annotated[str, Meta(description="the most frequent one")]
    geo_region: Annotated[str, Meta(description="the most frequent one")]
    primary_category: Annotated[str | None, Meta(description="the most frequent one; null if there was none")]
    open: Annotated[bool, Meta(description="true while the session is in progress")]
    currency: (
        Annotated[str, Meta(description="the shop's, as clicks name none; absent from rows of older releases: TRY")]
        | UnsetType
    ) = UNSET


class Minute(Struct):
    """Revenue of one minute of event time in one currency."""

    window_start: Time
    window_end: Time
    currency: Currency
    total_gmv: Amount
    order_count: Count
    avg_order_value: Amount
    unique_users: Count
    first_time_orders: Count
    top_category: str | None
    by_category: dict[str, Amount]
    by_region: dict[str, Amount]


class Spend(Struct):
    """In one currency."""

    spend_1h: Annotated[float, Meta(ge=0, description="in the hour up to last_order_at")]
    spend_24h: Annotated[float, Meta(ge=0, description="in the day up to last_order_at")]


class Features(Struct):
    """A user's features. Without events, counts and sums are zero and all other fields null."""

    user_id: str
    last_seen: Time | None
    orders_1h: Annotated[int, Meta(ge=0, description="in the hour up to last_order_at, in any currency")]
    spend_1h: Annotated[float, Meta(ge=0, description="in the hour up to last_order_at, in `currency`")]
    orders_24h: Annotated[int, Meta(ge=0, description="in the day up to last_order_at")]
    spend_24h: Annotated[float, Meta(ge=0, description="in the day up to last_order_at, in `currency`")]
    currency: Annotated[str, Meta(description="the shop's")]
    spend_by_currency: Annotated[dict[str, Spend], Meta(description="of every currency of that day; never added")]
    last_order_at: Time | None
    last_session: Annotated[Session | None, Meta(description="the session with the latest start")]
    alerts: Annotated[int, Meta(ge=0, description="number of alerts kept in the store")]
    last_alert_type: str | None
    last_alert_at: Time | None


class UserIds(Struct, forbid_unknown_fields=True):
    """The users whose features are requested."""

    # The pattern is for the document only: msgspec would take 30 µs to check 100 ids; `query.user_ids` takes 4.
    user_ids: Annotated[
        list[Annotated[str, Meta(extra_json_schema={"pattern": ID_PATTERN})]],
        Meta(min_length=1, max_length=1000, examples=[["user-1", "user-2"]]),
    ]


class Ledger(Struct, rename={"in_": "in"}):
    """A job's record counts: in = good + dead_letters + late + duplicates.

    Jobs of earlier releases do not report `lost`; only jobs with a mapping report `ignored`.
    """

    in_: Count | UnsetType = UNSET
    good: Count | UnsetType = UNSET
    dead_letters: Count | UnsetType = UNSET
    late: Count | UnsetType = UNSET
    duplicates: Count | UnsetType = UNSET
    lost: (
        Annotated[int, Meta(ge=0, description="records deleted by Kafka before they were read; not part of `in`")]
        | UnsetType
    ) = UNSET
    ignored: (
        Annotated[int, Meta(ge=0, description="messages that the job's mapping ignores; not part of `in`")] | UnsetType
    ) = UNSET
    updated_at: Time | UnsetType = UNSET


class Redis(Struct):
    status: Literal["ok"]
    latency_ms: Annotated[float, Meta(ge=0)]


class Topic(Struct):
    """The partitions of a topic that a job reads."""

    partitions: Annotated[int, Meta(ge=0)]
    empty_partitions: Annotated[int, Meta(ge=0, description="those that hold no records")]
    truncated_partitions: Annotated[
        int, Meta(ge=0, description="those that end before the offset that the job committed")
    ]


class Progress(Struct):
    """How far a job is behind its topics."""

    lag: Annotated[int, Meta(ge=0, description="records not read yet")]
    watermark_delay_s: Annotated[
        float | None, Meta(description="now minus its smallest watermark; null before the first record")
    ]
    topics: Annotated[dict[str, Topic], Meta(description="those that it reads now")]


class Health(Struct):
    """Health of the store and the jobs. Where API keys are in use, callers without one see only the store's status."""

    status: Literal["ok"]
    redis: Redis
    ledgers: Annotated[dict[str, Ledger], Meta(description="per job, once it has written one")] | UnsetType = UNSET
    open_sessions: (
        Annotated[int, Meta(ge=0, description="sessions in progress among the newest 10,000")] | UnsetType
    ) = UNSET
    freshness_s: (
        Annotated[
            dict[str, float], Meta(description="now minus the newest event time in the store, per feature family")
        ]
        | UnsetType
    ) = UNSET
    progress: (
        Annotated[dict[str, Progress], Meta(description="per job that Kafka knows; empty without --kafka")] | UnsetType
    ) = UNSET


class Probe(Struct):
    status: Literal["ok"]


class Route(Struct):
    path: str
    methods: list[str]
    summary: str


class Info(Struct):
    name: str
    version: str
    currency: Annotated[str, Meta(description="the shop's: of revenue, where none is asked for")]
    time_zone: Annotated[str, Meta(description="where `day` begins and ends", examples=["UTC"])]
    may_label: Annotated[bool, Meta(description="whether this caller may give alerts a state")]
    routes: list[Route]


class Page(Struct, Generic[T]):
    success: _True
    data: list[T]
    count: Annotated[int, Meta(ge=0, description="rows in this answer")]
    next_cursor: Annotated[str | None, Meta(description="`cursor` of the next page; null when there is none")]


class One(Struct, Generic[T]):
    success: _True
    data: T
    count: Annotated[int, Meta(ge=0, le=1)]


class AlertPage(Page[Alert]):
    """Alerts, newest first."""


class LabelAnswer(One[Label]):
    """The alert's state."""


class LabelPage(Page[Label]):
    """States that alerts were given, the last first."""


class OrdersAnswer(Struct):
    """The user's orders, newest first; empty when none is known."""

    success: _True
    data: list[Order]
    count: Count


class SessionPage(Page[Session]):
    """Sessions, latest start first."""


class MinutePage(Page[Minute]):
    """Minutes, newest first."""


class CurrenciesAnswer(Struct):
    """The currencies, by their codes."""

    success: _True
    data: list[Currency]
    count: Count


class MinuteAnswer(One[Minute | None]):
    """The minute; null, with count 0, before the first order."""


class FeaturesAnswer(One[Features]):
    """The user's features."""


class FeaturesOfMany(Struct):
    """Features of the known users, in the order requested, and the ids of the others."""

    success: _True
    data: list[Features]
    count: Annotated[int, Meta(ge=0, description="rows in `data`")]
    missing: Annotated[list[str], Meta(description="unknown users, in the order requested")]


class HealthAnswer(One[Health]):
    """The store answers; includes the jobs' ledgers."""


class ProbeAnswer(One[Probe]):
    """The check passed."""


class InfoAnswer(One[Info]):
    """Name, version and routes of this server."""


class Failure(Struct):
    """The body of every error."""

    success: _False
    error: Annotated[str, Meta(description="what is wrong, in one sentence")]
