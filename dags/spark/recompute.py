"""Recomputes a day's revenue, sessions and fraud alerts from the archive, by the stream's rules.

Spark brings together what a rule looks at together, sorted by time, and `dags.spark.steps` goes through it.

What a day needs of its neighbours:

- alerts belong to the day of the order that completes them: the longest span of a rule is read from before midnight;
- sessions belong to the day of their first click. One gap is read from before midnight, which is enough to tell that a
  click does not begin a run, and the longest session after it, of the users who were there in the last gap; of those
  who were there in the gap before midnight, two longest sessions before that, which is enough to tell where a run that
  never pauses is cut (`transforms.domain.visits`);
- minutes of revenue need nothing.
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Iterable, Iterator, Sequence
from datetime import UTC, datetime
from functools import partial
from itertools import islice

import pyarrow as pa
from pyspark.sql import DataFrame, SparkSession
from pyspark.sql import functions as F

from dags.spark import accounts, files
from dags.spark.columns import arrow_schema, ddl, with_timestamps
from dags.spark.day import DAY_MS, HOUR_MS, Day
from dags.spark.steps import Rows, add_minutes, aggregate_sessions, detect_fraud, spans_ms, sum_up_minutes
from schemas.events import avro_schema
from schemas.tables import TABLES, Column
from transforms.domain.archive import LANDED
from transforms.domain.fraud_orders import STATUSES, record_fields
from transforms.domain.fraud_rules import Rules

__all__ = ["RECORDS", "Archive", "Landed", "fraud_alerts", "real_time_revenue", "user_sessions"]

_BATCH = 5_000
RECORDS = {"orders": "OrderEvent", "clickstream": "ClickstreamEvent"}
_PARTS = (
    Column("start_ms", "INT64"),
    Column("currency", "STRING"),
    Column("dimension", "STRING"),
    Column("value", "STRING"),
    *(Column(name, "INT64") for name in ("gmv_minor", "orders", "users", "first_orders")),
)


# Names of files, for Spark: by their end, what a partition held in time, and what replay sent back too late.
_TIMELY, _LANDED, _EVERY = "*[0-9].avro", f"*{LANDED}", "*.avro"


class Archive:
    """Reads `beam_pipelines.archive`'s files: FOLDER/orders|clickstream/day=YYYY-MM-DD/hour=HH/*.avro.

    Args:
      files: which of them; see `as_streamed`.
    """

    def __init__(self, spark: SparkSession, folder: str, files: str = _EVERY):
        self._spark, self._folder, self._files = spark, folder.rstrip("/"), files

    def as_streamed(self) -> Archive:
        """What the streaming jobs took in: without what replay sent back when it was late."""
        return Archive(self._spark, self._folder, _TIMELY)

    def landed(self) -> Archive:
        """What replay sent back when it was late."""
        return Archive(self._spark, self._folder, _LANDED)

    def exists(self) -> bool:
        return files.exists(self._spark, self._folder)

    def accounted(self, table: str, day: Day) -> list[accounts.TopicDay]:
        """What became of every offset of the table's topics, and how many records the day's files hold of each."""
        listed = files.listed(self._spark, f"{self._folder}/accounts/{table}/*.json")
        texts = files.read_texts(self._spark, accounts.wanted(listed, day))
        found = accounts.of_day(texts.values(), table, day)
        hours = self._hours(table, day.utc_days.start * DAY_MS, day.utc_days.stop * DAY_MS)
        paths = [path for hour in hours for path in files.match(self._spark, f"{hour}/*.avro")]
        for topic in found:
            mine = [path for path in paths if _is_timely(topic.topic, path.rpartition("/")[2])]
            topic.in_files = self._spark.read.format("avro").load(mine).count() if mine else 0
        return found

    def has(self, day: Day) -> bool:
        return any(self._hours(table, day.start_ms, day.end_ms) for table in RECORDS)

    def read(self, table: str, start_ms: int, end_ms: int) -> DataFrame:
        """The records from `start_ms` until before `end_ms`, as their newest schema has them; event_time in ms."""
        schema = json.dumps(avro_schema(RECORDS[table]))
        hours = self._hours(table, start_ms, end_ms)
        read = self._spark.read.format("avro").option("avroSchema", schema).option("pathGlobFilter", self._files)
        records = read.load(hours)
        return records.withColumn("event_time", F.unix_millis("event_time")).where(
            f"event_time >= {start_ms} AND event_time < {end_ms}"
        )

    def _hours(self, table: str, start_ms: int, end_ms: int) -> list[str]:
        """The folders of the hours that lie in that time, at least in part."""
        hours_ms = range(start_ms - start_ms % HOUR_MS, end_ms, HOUR_MS)
        names = {f"{datetime.fromtimestamp(ms // 1000, UTC):day=%Y-%m-%d/hour=%H}" for ms in hours_ms}
        days = sorted({name.partition("/")[0] for name in names})
        found = [path for day in days for path in files.match(self._spark, f"{self._folder}/{table}/{day}/hour=*")]
        return [path for path in found if "/".join(path.rsplit("/", 2)[1:]) in names]


def _is_timely(topic: str, name: str) -> bool:
    """Whether a file has records of the topic, other than such as replay sent back too late."""
    return re.fullmatch(rf"{re.escape(topic)}-\d{{5,}}-\d{{20}}\.avro", name) is not None


class Landed:
    """What replay sent back too late for the stream, of what a day's rows are computed from."""

    def __init__(self, archive: Archive, day: Day, rules: Rules, gap_ms: int, max_ms: int):
        landed = archive.landed()
        self._orders = landed.read("orders", day.start_ms - max(spans_ms(rules)), day.end_ms)
        self._clicks = _clicks(landed, archive, day, gap_ms, max_ms)

    def count(self) -> int:
        return self._orders.count() + self._clicks.count()

    def about(self, table: str) -> DataFrame:
        """The values of a column of the table whose rows it may have changed."""
        if table == "real_time_revenue":
            minute = F.timestamp_millis(F.expr("event_time - event_time % 60000")).alias("window_start")
            return self._orders.select(minute).distinct()
        records = self._orders if table == "fraud_alerts" else self._clicks
        return records.select("user_id").distinct()


def fraud_alerts(archive: Archive, day: Day, rules: Rules) -> DataFrame:
    looked_at = F.lit(False)
    for status, name in enumerate(STATUSES):
        of_status, floors = F.col("order_status") == name, rules.least_minor(status)
        if floors is None:
            looked_at |= of_status
        for code, least in (floors or {}).items():
            looked_at |= of_status & (F.col("currency") == code) & (F.col("total_amount_minor") > least)
    orders = (
        archive.read("orders", day.start_ms - max(spans_ms(rules)), day.end_ms)
        .where(looked_at)
        .select(
            *("user_id", "event_time", "order_id", "order_status", "is_first_order"),
            *("currency", "total_amount_minor", "shipping_region"),
            *record_fields(rules.bits),
        )
        .repartition("user_id")
        .sortWithinPartitions("user_id", "event_time", "order_id", "order_status")
    )
    return _table("fraud_alerts", orders, partial(detect_fraud, rules=rules, start_ms=day.start_ms))


def user_sessions(archive: Archive, day: Day, gap_ms: int, max_ms: int, settled_ms: int) -> DataFrame:
    """
    Args:
      settled_ms: the time until which the archive is complete. A session that may go on after it is a row of pane
        EARLY: what was known of it.
    """
    columns = ["user_id", "event_time", "event_id", "event_type", "device_type", "geo_region", "category"]
    columns += ["price_minor", "quantity"]
    clicks = (
        _clicks(archive, archive, day, gap_ms, max_ms)
        .select(columns)
        .repartition("user_id")
        .sortWithinPartitions("user_id", "event_time", "event_id")
    )
    step = partial(
        aggregate_sessions,
        gap_ms=gap_ms,
        max_ms=max_ms,
        start_ms=day.start_ms,
        end_ms=day.end_ms,
        over_ms=settled_ms - gap_ms,
    )
    return _table("user_sessions", clicks, step)


def _clicks(source: Archive, archive: Archive, day: Day, gap_ms: int, max_ms: int) -> DataFrame:
    """Those of a source that can belong to a session of the day, or tell where it is cut."""
    first_ms = day.start_ms - gap_ms
    before = source.read("clickstream", first_ms - 2 * max_ms, first_ms)
    after = source.read("clickstream", day.end_ms, day.end_ms + max_ms)
    return (
        source.read("clickstream", first_ms, day.end_ms)
        .unionByName(before.join(_there(archive, first_ms, day.start_ms), "user_id", "left_semi"))
        .unionByName(after.join(_there(archive, day.end_ms - gap_ms, day.end_ms), "user_id", "left_semi"))
    )


def _there(archive: Archive, start_ms: int, end_ms: int) -> DataFrame:
    """The users whose run may go on."""
    return archive.read("clickstream", start_ms, end_ms).select("user_id").distinct()


def real_time_revenue(archive: Archive, day: Day) -> DataFrame:
    """In two steps, as in the stream: users are counted where all their orders are, and a minute's may be too many."""
    orders = (
        archive.read("orders", day.start_ms, day.end_ms)
        .where("order_status = 'CREATED'")
        .selectExpr(
            *("user_id", "event_time", "order_id", "total_amount_minor", "shipping_region", "is_first_order"),
            *("currency", "items.category", "items.total_price_minor"),
        )
        .repartition("user_id")
        .sortWithinPartitions("event_time", "order_id", "user_id")
    )
    parts = _mapped(orders, sum_up_minutes, _PARTS).repartition("start_ms", "currency")
    parts = parts.sortWithinPartitions("start_ms", "currency")
    return _table("real_time_revenue", parts, add_minutes)


def _table(name: str, records: DataFrame, step: Callable[[Rows], Rows]) -> DataFrame:
    """What a step makes of the records, as rows of a table."""
    return with_timestamps(_mapped(records, step, TABLES[name].columns), TABLES[name])


def _mapped(records: DataFrame, step: Callable[[Rows], Rows], columns: Sequence[Column]) -> DataFrame:
    """What a step makes of each part's records, in their order."""
    schema = arrow_schema(columns)

    def in_batches(batches: Iterable[pa.RecordBatch]) -> Iterator[pa.RecordBatch]:
        found = step(row for batch in batches for row in zip(*(c.to_pylist() for c in batch.columns), strict=True))
        while some := list(islice(found, _BATCH)):
            values = zip(zip(*some, strict=True), schema, strict=True)
            yield pa.RecordBatch.from_arrays([pa.array(of, field.type) for of, field in values], schema=schema)

    return records.mapInArrow(in_batches, ddl(columns))
