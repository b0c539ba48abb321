"""Revenue: the job's declaration; its page is `beam_pipelines.revenue`."""

from __future__ import annotations

from typing import Final

from schemas.events import RevenueWindow
from schemas.jobs.declaration import Flag, Job, Rows, State
from schemas.jobs.messages import FORMAT, MAPPING
from schemas.jobs.shop import ORDERS

JOB: Final = Job(
    module="revenue",
    name="revenue-calculator",
    summary="Reads orders and computes revenue per minute.",
    topics=(ORDERS,),
    tables=(
        Rows(
            "real_time_revenue",
            RevenueWindow,
            key=("window_start", "currency", "dimension", "value"),
            day="window_start",
            cluster_by=("dimension", "value"),
            topic="analytics.revenue",
            topic_key=("currency", "dimension", "value"),
            topic_time="window_start",
        ),
    ),
    reads="topic `transactions.orders`, or files",
    writes="revenue per minute to Redis, topic `analytics.revenue`, BigQuery or a folder; user features to Redis",
    flags=(
        FORMAT,
        MAPPING,
        Flag(
            "early_every",
            "whole_seconds",
            "how often to emit early results for open minutes, in whole seconds; ignored for bounded input",
            default="2s",
        ),
    ),
    state=(
        State("sums of each minute, with its users", "a late order corrects its minute"),
        State("ids of orders", "an order that is delivered again must count once"),
    ),
)
