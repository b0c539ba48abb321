"""Daily batch: recomputes revenue, sessions and fraud alerts from the archive, compares them with the stream's results,
and publishes them only if the two agree.

    archive ─▶ compute ─▶ a branch of each table ─▶ reconcile ◀─ the stream's tables
                                                 └▶ quality         both passed ─▶ publish ─▶ catch_up ─▶ maintain

Each step can be a run of its own, as the DAG does it. Any of them may be run again: a day is replaced, never added to.
catch_up does the steps before it again for the days of the last week to which replay has added since.
Publishing looks for the gates' verdicts about exactly what is staged, and refuses without.

    spark-submit --py-files streamforge.zip dags/spark/daily_analytics.py --date=2026-11-22 --step=all \\
      --archive=gs://bucket/archive --stream=bigquery://project.dataset --report=gs://bucket/reports \\
      --catalog=catalog.properties --warehouse=gs://bucket/warehouse

Exit status: 0 done; 1 failed; 2 a wrong flag; 3 a gate failed: its report is written, nothing is published.
"""

# Long, as the steps of the day share its frames, and are read in their order.

from __future__ import annotations

import argparse
import hashlib
import json
import sys
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any
from zoneinfo import ZoneInfo

from pyspark.sql import DataFrame, SparkSession

from dags.spark import accounts, comparison, files, quality, recompute, reconcile, report, stream_tables
from dags.spark.day import Day
from dags.spark.judged import GAPS, Judged, code_version
from dags.spark.lake import COMPUTED, Lake, LakeError
from schemas.currencies import DEFAULT, currency
from schemas.flags import Parser, typed
from schemas.tables import TABLES, Table
from schemas.times import time_zone
from transforms.domain.durations import parse_duration_ms
from transforms.domain.fraud_rules import RuleError, Rules, default_rules, parse_rules

__all__ = ["main"]

STEPS = ("compute", "reconcile", "quality", "publish", "catch_up", "maintain")
_NEEDS = {
    "compute": ["archive"],
    "reconcile": ["archive", "stream", "report"],
    "quality": ["archive", "report"],
    "publish": ["report"],
    "catch_up": ["archive", "stream", "report"],
    "maintain": [],
}
_CATALOG = "lake"
_CATCH_UP_DAYS = 7
_MADE_OF = {"fraud_alerts": "orders", "real_time_revenue": "orders", "user_sessions": "clickstream"}
"""What each table is computed from, of the archive."""
_DECIDES = (
    *("archive", "stream", "max_differences", "max_amount_minor", "row_count_factor", "freshness"),
    *("session_gap", "max_session", "settle", "currency", "time_zone"),
)
"""Flags that decide what is found."""


class _GateClosed(Exception):
    """A gate failed, or has not run."""


class _BadInput(Exception):
    """A flag names what is not there."""


def main(argv: Sequence[str] | None = None) -> int:
    options = _parse(sys.argv[1:] if argv is None else argv)
    spark = _session(options)
    try:
        closed = _take(options.steps, _Run(spark, options))
    except _BadInput as error:
        return _say(2, error)
    except LakeError as error:
        return _say(1, error)
    # Dataproc reports no exit status: this line tells the DAG that a retry is useless.
    return _say(3, f"a gate failed: {'; '.join(closed)}") if closed else 0


def _take(steps: Sequence[str], run: _Run) -> list[str]:
    """Takes the steps, publishing only if no gate says no; returns which did, and why."""
    closed: list[str] = []
    for step in steps:
        if step in ("publish", "catch_up", "maintain") and closed:
            break
        begin = time.monotonic()
        try:
            getattr(run, step)()
        except _GateClosed as gate:
            closed.append(f"{step}: {gate}")
            print(closed[-1], flush=True)
        print(f"{step}: {time.monotonic() - begin:.1f} s", flush=True)
    return closed


def _say(status: int, error: object) -> int:
    print(f"daily_analytics: {error}", file=sys.stderr, flush=True)
    return status


class _Run:
    """The steps, each a method."""

    def __init__(self, spark: SparkSession, options: Any):
        self._spark, self._options, self._day = spark, options, options.day
        self._judged = _judged(options)
        self._lake = Lake(spark, _CATALOG, options.namespace)
        self._archive = recompute.Archive(spark, options.archive or "")
        self._tables: list[Table] = [TABLES[name] for name in COMPUTED]

    def _rows(self, archive: recompute.Archive) -> dict[str, DataFrame]:
        options, day = self._options, self._day
        settled_ms = time.time_ns() // 1_000_000 - options.settle
        return {
            "fraud_alerts": recompute.fraud_alerts(archive, day, options.rules),
            "user_sessions": recompute.user_sessions(
                archive, day, options.session_gap, options.max_session, settled_ms
            ),
            "real_time_revenue": recompute.real_time_revenue(archive, day),
        }

    def _landed(self, day: Day) -> recompute.Landed:
        options = self._options
        return recompute.Landed(self._archive, day, options.rules, options.session_gap, options.max_session)

    def compute(self) -> None:
        options, day = self._options, self._day
        self._require_archive()
        if not self._archive.has(day) and "empty_day" not in options.accept:
            raise LakeError(f"the archive {options.archive} has no data for {day}; to accept that: --accept=empty_day")
        # Counted before they are read, so that records that arrive in between are left to the next run, not missed.
        landed = self._landed(day).count()
        rows = self._rows(self._archive)
        for table in self._tables:  # all are checked before the first is written
            self._lake.prepare(table)
        for table in self._tables:
            self._lake.stage(table, day, rows[table.name], landed)
            print(f"compute: {table.name}: {self._lake.staged(table, day).count():,} rows of {day} staged", flush=True)

    def reconcile(self) -> None:
        options, day = self._options, self._day
        self._require_archive()
        if not options.stream.startswith("bigquery://") and not files.exists(self._spark, options.stream):
            raise _BadInput(f"--stream: there is no folder {options.stream}")
        tolerance = comparison.Tolerance(options.max_differences, options.max_amount_minor)
        found = []
        for table in self._tables:
            rows = stream_tables.rows(self._spark, options.stream, table, day)
            stream = stream_tables.current(rows, table)
            batch, snapshot = self._lake.staged(table, day), self._lake.staged_snapshot(table, day)
            compared = reconcile.compare(
                batch, stream, table, snapshot, tolerance, self._replayed(table), options.currency
            )
            none = options.accept & set(quality.NONE[table.name])
            found.append(replace(compared, may_be_empty=bool(none)))
        rows = [row for each in found for row in each.table_rows(day.date)]
        self._record(reconcile.TABLE, reconcile.DDL, rows)
        self._write(
            "reconciliation",
            all(c.passed for c in found),
            report.reconciliation_page(day, found, self._judged),
            report.reconciliation_json(day, found, self._judged),
            report.reconciliation_metrics(day, found),
        )
        for c in found:
            counts = ", ".join(f"{c.rows(kind):,} {kind}" for kind in comparison.KINDS)
            print(f"reconcile: {c.table}: {counts}: {'passed' if c.passed else 'FAILED'}", flush=True)
        if empty := [c.table for c in found if c.nothing_compared and not c.passed]:
            names = ", ".join(f"--accept={quality.NONE[table][0]}" for table in empty)
            raise _GateClosed(f"there is nothing to compare in {', '.join(empty)}; to accept that: {names}")
        if wrong := [c.table for c in found if not c.passed]:
            raise _GateClosed(f"stream and batch disagree about {', '.join(wrong)}")

    def _replayed(self, table: Table) -> reconcile.Replayed | None:
        count = self._lake.staged_landed(table, self._day)
        if not count:
            return None
        without = self._rows(self._archive.as_streamed())[table.name]
        return reconcile.Replayed(count, self._landed(self._day).about(table.name), without)

    def catch_up(self) -> None:
        """The days before this one to which replay has added since they were compared, once more."""
        closed = []
        for days in range(_CATCH_UP_DAYS, 0, -1):
            day = self._day.before(days)
            known = self._known_landed(day)
            if known is not None and self._landed(day).count() > known:
                print(f"catch_up: {day}: replay has added to it", flush=True)
                borne = {"day": day, "accept": self._accepted(day)}
                options = argparse.Namespace(**{**vars(self._options), **borne})
                steps = STEPS[: STEPS.index("catch_up")]
                closed += [f"{day}: {why}" for why in _take(steps, _Run(self._spark, options))]
        if closed:
            raise _GateClosed("; ".join(closed))

    def _accepted(self, day: Day) -> frozenset[str]:
        """What was borne of a day when it was looked at last: what is borne of this one says nothing of others."""
        if not self._lake.exists(quality.TABLE):
            return frozenset()
        self._lake.make(quality.TABLE, quality.DDL, "day")
        rows = self._spark.table(self._lake.name(quality.TABLE)).where(f"day = date'{day}' AND accepted <> ''")
        return frozenset(row["accepted"] for row in rows.select("accepted").distinct().collect())

    def _known_landed(self, day: Day) -> int | None:
        """How many records of replay were known when the day was compared; None if it was not."""
        if not self._lake.exists(reconcile.TABLE):
            return None
        self._lake.make(reconcile.TABLE, reconcile.DDL, "day")
        compared = self._spark.table(self._lake.name(reconcile.TABLE)).where(f"day = date'{day}'")
        row = compared.selectExpr("count(*) AS rows", "max(landed) AS landed").first()
        return (row["landed"] or 0) if row["rows"] else None

    def quality(self) -> None:
        options, day = self._options, self._day
        self._require_archive()
        limits = quality.Limits(options.row_count_factor, options.freshness, time.time_ns() // 1_000_000)
        topics = {table: self._archive.accounted(table, day) for table in recompute.RECORDS}
        found = [
            finding.borne(options.accept)
            for table in self._tables
            for finding in (*self._checked(table, limits), *self._accounted(table, topics, limits))
        ]
        self._record(quality.TABLE, quality.DDL, [finding.table_row(day.date) for finding in found])
        failed = [finding for finding in found if not finding.passed]
        every = [topic for of_table in topics.values() for topic in of_table]
        self._write(
            "quality",
            not failed,
            report.quality_page(day, found, every, self._judged),
            report.quality_json(day, found, every, self._judged),
            report.quality_metrics(day, found, every),
        )
        print(f"quality: {len(found) - len(failed)} of {len(found)} rules passed", flush=True)
        for finding in found:
            if finding.accepted:
                print(f"quality: accepted ({finding.accepted}): {finding}", flush=True)
        for finding in failed:
            print(f"quality: FAILED: {finding}", *(f"  {sample}" for sample in finding.samples), sep="\n", flush=True)
        if failed:
            raise _GateClosed(f"{len(failed)} rules failed")

    def _checked(self, table: Table, limits: quality.Limits) -> Iterator[quality.Finding]:
        staged, published = self._lake.staged(table, self._day), self._spark.table(self._lake.name(table.name))
        snapshot = self._lake.staged_snapshot(table, self._day)
        return quality.check(self._spark, staged, published, table, snapshot, self._day, limits)

    def _accounted(
        self, table: Table, topics: Mapping[str, list[accounts.TopicDay]], limits: quality.Limits
    ) -> Iterator[quality.Finding]:
        """Of the topics that the table is made of."""
        source, snapshot = _MADE_OF[table.name], self._lake.staged_snapshot(table, self._day)
        for rule, name, count, detail in accounts.trouble(
            topics[source], self._day, limits.now_ms, limits.freshness_ms
        ):
            borne_by = quality.NONE[table.name] if name == "empty_day" else (name,)
            yield quality.Finding(table.name, f"{source}: {rule}", snapshot, count, detail, borne_by=borne_by)

    def publish(self) -> None:
        for table in self._tables:  # all of them are looked at before the first is shown
            for gate in (reconcile.TABLE, quality.TABLE):
                self._require(gate, table)
        done: dict[str, str] = {table.name: "not yet" for table in self._tables}
        self._tell_published(done)
        for table in self._tables:
            done[table.name] = self._lake.publish(table, self._day)
            self._tell_published(done)
            print(f"publish: {table.name}: {done[table.name]}", flush=True)

    def _tell_published(self, done: Mapping[str, str]) -> None:
        """How far it came, before and after each table: one that broke off says so, and is to be run again."""
        day, whole = str(self._day), "not yet" not in done.values()
        about = {
            "day": day,
            "time_zone": self._day.zone,
            "done": whole,
            "tables": dict(done),
            "judged_by": self._judged.as_dict(),
        }
        self._write_text(f"{day}/published.json", json.dumps(about))
        before = files.read_text(self._spark, f"{self._folder}/published.status.json")
        newest = [json.loads(before)["newest"] or ""] if before else [""]
        newest += [day] if whole else []
        self._tell_status(
            "published", {"day": day, "time_zone": self._day.zone, "done": whole, "newest": max(newest) or None}
        )

    def maintain(self) -> None:
        before = datetime.now(UTC) - timedelta(milliseconds=self._options.keep_snapshots)
        for table in (*COMPUTED, reconcile.TABLE, quality.TABLE):
            if self._lake.exists(table):
                done = self._lake.maintain(table, before)
                print(f"maintain: {table}: {', '.join(f'{k} {v}' for k, v in done.items())}", flush=True)

    def _require(self, gate: str, table: Table) -> None:
        """A verdict of the gate about the snapshot that is staged."""
        snapshot = self._lake.staged_snapshot(table, self._day)
        verdicts: list[Any] = []
        if self._lake.exists(gate):
            about = f"day = date'{self._day}' AND table_name = '{table.name}' AND snapshot_id = {snapshot}"
            verdicts = self._spark.table(self._lake.name(gate)).where(about).select("passed").collect()
        if not verdicts:
            raise _GateClosed(f"nothing is published: {gate} has not checked the staged rows of {table.name}")
        if not all(row["passed"] for row in verdicts):
            raise _GateClosed(f"nothing is published: {gate} failed for {table.name}")

    def _record(self, table: str, ddl: str, rows: list[tuple[Any, ...]]) -> None:
        self._lake.make(table, ddl, "day")
        found = self._spark.createDataFrame(rows, ddl)
        self._lake.overwrite(table, found.coalesce(1), f"day = date'{self._day}'")

    def _require_archive(self) -> None:
        if not self._archive.exists():
            raise _BadInput(f"--archive: there is no folder {self._options.archive}")

    def _write(self, name: str, passed: bool, page: str, as_json: str, metrics: str) -> None:
        self._write_text(f"{self._day}/{name}.html", page)
        self._write_text(f"{self._day}/{name}.json", as_json)
        self._write_text(f"{name}.prom", metrics)
        self._tell_status(name, {"day": str(self._day), "passed": passed})
        print(f"{name}: report {self._folder}/{self._day}/{name}.html", flush=True)

    def _tell_status(self, name: str, about: Mapping[str, Any]) -> None:
        """For the API's metrics, and so for an alert: what was said last."""
        self._write_text(f"{name}.status.json", json.dumps({**about, "at": self._judged.at}))

    @property
    def _folder(self) -> str:
        return str(self._options.report).rstrip("/")

    def _write_text(self, path: str, text: str) -> None:
        files.write_text(self._spark, f"{self._folder}/{path}", text)


def _judged(options: Any) -> Judged:
    return Judged(
        accepted=frozenset(options.accept),
        by=options.accepted_by,
        why=options.why,
        flags={name: getattr(options, name) for name in _DECIDES},
        rules=hashlib.sha256(repr(options.rules).encode()).hexdigest()[:16],
        code=code_version(),
        at=datetime.now(UTC).isoformat(timespec="seconds"),
    )


def _session(options: Any) -> SparkSession:
    catalog = f"spark.sql.catalog.{_CATALOG}"
    builder = (
        SparkSession.builder.appName(f"daily_analytics {options.day}")
        .config("spark.sql.extensions", "org.apache.iceberg.spark.extensions.IcebergSparkSessionExtensions")
        .config("spark.sql.session.timeZone", "UTC")
        .config(catalog, "org.apache.iceberg.spark.SparkCatalog")
        .config(f"{catalog}.warehouse", options.warehouse)
        # Tables are asked for anew each time: others publish, too.
        .config(f"{catalog}.cache-enabled", "false")
    )
    for key, value in options.catalog_conf.items():
        builder = builder.config(f"{catalog}.{key}", value)
    return builder.getOrCreate()


def _parse(argv: Sequence[str]) -> Any:
    """Exits with status 2 and one line that names the flag when something is wrong."""
    about, _, rest = (__doc__ or "").partition("\n\n")
    parser = Parser(
        prog="daily_analytics.py",
        description=about,
        epilog=rest,
    )
    add = parser.add_argument
    add("--date", type=_day, required=True, dest="day", metavar="YYYY-MM-DD", help="the shop's event day")
    add(
        "--time_zone",
        type=typed(time_zone),
        default="UTC",
        metavar="ZONE",
        help="where days begin and end, such as Europe/Istanbul; keep to one per namespace (default: %(default)s)",
    )
    add("--step", action="append", choices=[*STEPS, "all"], help="a step to run; repeatable (default: all)")
    add("--archive", help="the archive job's folder, local or gs://…; for compute")
    add("--stream", type=_stream, help="folder or bigquery://project.dataset with the stream's rows; for reconcile")
    add("--report", help="folder or gs://… for reports and metrics; for reconcile and quality")
    add(
        "--catalog",
        type=_properties,
        default={},
        metavar="FILE",
        help="settings of the Iceberg catalogue, one key=value per line",
    )
    add(
        "--catalog_conf",
        action="append",
        type=_setting,
        default=[],
        metavar="KEY=VALUE",
        help="another catalogue setting, such as type=rest; repeatable",
    )
    add("--warehouse", required=True, help="location of the tables' files, such as gs://bucket/warehouse")
    add("--namespace", type=_namespace, default="analytics", help="the tables' namespace (default: %(default)s)")
    add(
        "--rules",
        type=_rules,
        default=None,
        metavar="FILE",
        help="the stream's fraud rules (default: the package's)",
    )
    add(
        "--session_gap",
        type=typed(parse_duration_ms),
        default="30m",
        metavar="TIME",
        help="must equal the stream's (default: %(default)s)",
    )
    add(
        "--max_session",
        type=typed(parse_duration_ms),
        default="12h",
        metavar="TIME",
        help="must equal the stream's (default: %(default)s)",
    )
    add(
        "--settle",
        type=typed(parse_duration_ms),
        default="15m",
        metavar="TIME",
        help="how long records may take to reach the archive: a little more than allowed lateness and --flush_every; "
        "sessions that ended more recently count as in progress (default: %(default)s)",
    )
    add(
        "--max_differences",
        type=_number,
        default=0,
        metavar="N",
        help="how many rows of a table may differ (default: 0)",
    )
    add(
        "--max_amount_minor",
        type=_number,
        default=0,
        metavar="N",
        help="by how much in total, in each currency (default: 0)",
    )
    add(
        "--currency",
        type=typed(currency),
        default=DEFAULT,
        metavar="CODE",
        help="the shop's currency, for the revenue of sessions, as clicks name none (default: %(default)s)",
    )
    add(
        "--accept",
        action="append",
        choices=sorted(GAPS),
        default=[],
        metavar="GAP",
        help="accept a known gap; repeatable. " + "; ".join(f"{name}: {about}" for name, about in GAPS.items()),
    )
    add("--accepted_by", default="", metavar="WHO", help="who accepts it, for the report")
    add("--why", default="", metavar="TEXT", help="why, for the report")
    add(
        "--row_count_factor",
        type=_factor,
        default=3.0,
        metavar="X",
        help="how many times more or fewer rows than on previous days are allowed (default: 3)",
    )
    add(
        "--freshness",
        type=typed(parse_duration_ms),
        default="1h",
        metavar="TIME",
        help="how far the day's newest event may be from its end, or from now (default: %(default)s)",
    )
    add(
        "--keep_snapshots",
        type=typed(parse_duration_ms),
        default="7d",
        metavar="TIME",
        help="maintain expires older snapshots (default: %(default)s)",
    )
    options = parser.parse_args(argv)
    options.day = options.day._replace(zone=options.time_zone)
    if options.day.date > datetime.now(ZoneInfo(options.time_zone)).date():
        parser.stop(f"--date: {options.day} lies in the future")
    chosen = options.step or ["all"]
    options.steps = [step for step in STEPS if step in chosen or "all" in chosen]
    for step in options.steps:
        for flag in _NEEDS[step]:
            if not getattr(options, flag):
                parser.stop(f"--{flag}: is needed for the step {step}")
    options.catalog_conf = {**options.catalog, **dict(options.catalog_conf)}
    if not options.catalog_conf:
        parser.stop("--catalog: is needed, or --catalog_conf")
    options.rules = options.rules or default_rules()
    options.accept = frozenset(options.accept)
    return options


def _day(text: str) -> Day:
    try:
        return Day.of(text)
    except ValueError:
        raise argparse.ArgumentTypeError(f"{text!r} is not a date such as 2026-11-22") from None


def _number(text: str) -> int:
    if not text.isdecimal():
        raise argparse.ArgumentTypeError(f"{text!r} is not a whole number of at least 0")
    return int(text)


def _factor(text: str) -> float:
    try:
        if 1 <= float(text) < float("inf"):
            return float(text)
    except ValueError:
        pass
    raise argparse.ArgumentTypeError(f"{text!r} is not a number of at least 1")


def _namespace(text: str) -> str:
    if not (text.isascii() and text.isidentifier()):
        raise argparse.ArgumentTypeError(f"{text!r} is not a name")
    return text


def _stream(text: str) -> str:
    if not text or not stream_tables.is_source(text):
        raise argparse.ArgumentTypeError(f"{text!r} is neither a folder nor bigquery://project.dataset")
    return text


def _setting(text: str) -> tuple[str, str]:
    key, separator, value = (part.strip() for part in text.partition("="))
    if not key or not separator:
        raise argparse.ArgumentTypeError(f"{text!r} is not KEY=VALUE")
    return key, value


def _properties(text: str) -> dict[str, str]:
    try:
        lines = [line.strip() for line in Path(text).read_text(encoding="utf-8").splitlines()]
    except OSError as error:
        raise argparse.ArgumentTypeError(f"cannot read {text}: {error.strerror}") from None
    return dict(_setting(line) for line in lines if line and not line.startswith("#"))


def _rules(text: str) -> Rules:
    try:
        return parse_rules(Path(text).read_text(encoding="utf-8"))
    except (OSError, UnicodeDecodeError, RuleError) as error:
        raise argparse.ArgumentTypeError(f"{text}: {error}") from None


if __name__ == "__main__":
    sys.exit(main())
