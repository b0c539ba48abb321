"""Changes of the database: the job's declaration; its page is `beam_pipelines.cdc`."""

from __future__ import annotations

from typing import Final

from schemas.events import CdcChange, LowStockAlert
from schemas.jobs.declaration import Flag, Job, Rows, State

CAPTURED: Final = ("products", "customers", "orders", "order_items", "inventory_movements")
JOB: Final = Job(
    module="cdc",
    name="cdc-processor",
    summary="Reads changes from the shop's database, maintains current state and history, and alerts on low stock.",
    topics=tuple(f"cdc.public.{table}" for table in CAPTURED),
    tables=(
        Rows(
            "cdc_changes",
            CdcChange,
            key=("table_name", "key"),
            day="event_time",
            cluster_by=("table_name", "key"),
            day_of_key=False,
            emptied_by=("table_name",),
        ),
        Rows(
            "low_stock_alerts",
            LowStockAlert,
            key=("alert_id",),
            day="event_time",
            cluster_by=("product_id", "alert_id"),
            topic="alerts.stock",
            topic_key=("product_id",),
            topic_time="event_time",
        ),
    ),
    reads="topics `cdc.public.*`, which Debezium fills from PostgreSQL, or files",
    writes="products, customers' figures and low-stock alerts to Redis, alerts to `alerts.stock`, every change to "
    "BigQuery or a folder",
    flags=(
        Flag(
            "hash_key",
            "secret_file",
            "file on every worker holding a key of at least 16 bytes, used to hash the personal columns that may be "
            "hashed, with HMAC-SHA256 (default: drop all personal columns)",
            metavar="FILE",
            note="A Secret's file of at least 16 bytes: the key that hashes the personal columns that may be hashed. "
            "Empty: all are dropped.",
            left_out="every worker needs the file, but a Dataflow worker has only the files in its image, and a key "
            "must not be in one. Without it all personal columns are dropped",
        ),
    ),
    state=(
        State(
            "each product's newest stock",
            "an older change must neither replace it nor alert",
            spans=(),
            until="for good",
        ),
    ),
    files=(".jsonl",),
    readers="1",  # of five topics
    profile="cdc",
)
