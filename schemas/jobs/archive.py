"""Archive: the job's declaration; its page is `beam_pipelines.archive`."""

from __future__ import annotations

from typing import Final

from schemas.events import ClickstreamEvent, OrderEvent
from schemas.jobs.declaration import Flag, Job, Rows, State
from schemas.jobs.messages import FORMAT, MAPPING
from schemas.jobs.shop import CLICKS, ORDERS

JOB: Final = Job(
    module="archive",
    name="archiver",
    summary="Reads orders and clicks and archives each valid one once, in files by event day and hour.",
    topics=(ORDERS, CLICKS),
    # Ids and times come from the producer, which could send one id with two different times.
    tables=(
        Rows(
            "orders",
            OrderEvent,
            key=("order_id", "order_status"),
            day="event_time",
            cluster_by=("user_id", "order_id"),
            day_of_key=False,
            version="event_time",
        ),
        Rows(
            "clickstream",
            ClickstreamEvent,
            key=("event_id",),
            day="event_time",
            cluster_by=("user_id", "event_id"),
            day_of_key=False,
            version="event_time",
        ),
    ),
    reads="both topics, or files",
    writes="every valid record once, as Avro files by event day and hour in `.stack/archive` or another folder, and to "
    "BigQuery",
    flags=(
        FORMAT,
        MAPPING,
        Flag(
            "records_per_file",
            "number",
            "offsets of a partition that one file covers; must never change for an archive",
            default="100000",
            note="Part of the archive's file names: never change it.",
        ),
        Flag(
            "flush_every",
            "seconds",
            "how often to write files that are still open; ignored for bounded input",
            default="60s",
        ),
    ),
    state=(State("ids of records", "a record that is delivered again must be archived once"),),
    topic_words=("order", "click"),
    online=False,
    output_folder=".stack/archive",
    demo=("--flush_every=5s",),
    by_offset=True,
)
