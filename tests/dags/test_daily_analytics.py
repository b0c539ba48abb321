"""The batch job on a real Spark, against the oracles, against the streaming jobs, and against what was planted.

With STREAMFORGE_BATCH_EVENTS=1000000 on as many events.
"""

from __future__ import annotations

import json
import re
import shutil
import subprocess
import time
from collections.abc import Callable, Iterator
from datetime import UTC, date, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
from msgspec.structs import replace

from dags.spark.package import build as build_package
from schemas.codec import encode_datum
from schemas.events import ClickstreamEvent, OrderEvent
from stack.console import SILENT
from stack.spark import Spark
from tests import build
from tests.dags.lakehouse import DAYS, EVENTS, Job, Row, Shop, started
from tests.live import ROOT
from tests.oracle import expected_alerts
from tests.oracle_revenue import Revenue, expected_revenue
from tests.oracle_sessions import Session, expected_sessions
from transforms.archive import CLICKSTREAM, ORDERS_TABLE
from transforms.domain.archive import HOUR_MS, Contents, File
from transforms.io.archive_files import ArchiveFolder

pytestmark = [pytest.mark.stack, pytest.mark.timeout(1800 if EVENTS <= 100_000 else 3600)]

TABLES = {
    "fraud_alerts": ("alert_id",),
    "user_sessions": ("session_id",),
    "real_time_revenue": ("window_start", "currency", "dimension", "value"),
}
AMOUNTS = {"fraud_alerts": "amount_minor", "user_sessions": "revenue_minor", "real_time_revenue": "gmv_minor"}
TIMES = {"fraud_alerts": "event_time", "user_sessions": "session_start", "real_time_revenue": "window_start"}


def start_ms(day: date) -> int:
    return int(datetime(day.year, day.month, day.day, tzinfo=UTC).timestamp() * 1000)


START_MS, END_MS = start_ms(DAYS[0]), start_ms(DAYS[-1] + timedelta(days=1))


@pytest.fixture(scope="module")
def shop(tmp_path_factory: pytest.TempPathFactory) -> Shop:
    return Shop(tmp_path_factory.mktemp("shop"))


@pytest.fixture(scope="module")
def job(shop: Shop, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Job]:
    """The job, with three days published."""
    with started(tmp_path_factory.mktemp("lake"), shop) as job:
        for day in DAYS:
            status, said = job.run(day, *[f"--step={step}" for step in ("compute", "reconcile", "quality", "publish")])
            assert status == 0, said
        yield job


def day_of(at_ms: int) -> date:
    return datetime.fromtimestamp(at_ms / 1000, UTC).date()


def in_days(at_ms: int) -> bool:
    """Late records begin before the first day, sessions end after the last."""
    return START_MS <= at_ms < END_MS


def test_the_tables_of_three_days_are_the_oracles(job: Job, shop: Shop) -> None:
    orders = shop.records("orders")
    clicks = shop.records("clickstream")
    alerts = {(row["alert_type"], row["user_id"], row["order_id"]) for row in job.rows("fraud_alerts")}
    times = {(order.order_id, order.order_status): order.event_time for order in orders}
    status = {"SUSPICIOUS_PATTERN": "CANCELLED"}
    assert alerts == {a for a in expected_alerts(orders) if in_days(times[a[2], status.get(a[0], "CREATED")])} != set()
    sessions = {
        row["session_id"]: Session(**{f: row[f] for f in Session._fields[:-1]}, clicks=row["version"] // 4)
        for row in job.rows("user_sessions")
    }
    wanted = {id_: session for id_, session in expected_sessions(clicks).items() if in_days(session.session_start)}
    assert sessions == wanted
    assert any(day_of(s.session_start) < day_of(s.session_end) for s in wanted.values()), "some last past midnight"
    revenue = {
        (row["window_start"], row["currency"], row["dimension"], row["value"]): Revenue(
            *(row[f] for f in Revenue._fields)
        )
        for row in job.rows("real_time_revenue")
    }
    assert revenue == expected_revenue(order for order in orders if in_days(order.event_time)) != {}


def test_stream_and_batch_agree_about_every_row(job: Job, shop: Shop) -> None:
    found = job.rows("reconciliation")
    assert {(row["day"], row["table_name"]) for row in found} == {(day, table) for day in DAYS for table in TABLES}
    for row in found:
        assert row["passed"]
        assert (row["differ_rows"], row["missing_rows"], row["extra_rows"]) == (0, 0, 0)
        assert row["batch_amount_minor"] == row["stream_amount_minor"] == row["match_amount_minor"]
    for table, key in TABLES.items():
        stream = {tuple(row[k] for k in key) for row in shop.stream_rows(table) if in_days(row[TIMES[table]])}
        assert sum(row["match_rows"] for row in found if row["table_name"] == table) == len(stream)


def test_a_day_run_again_changes_no_content(job: Job) -> None:
    before = {table: job.rows(table) for table in TABLES}
    snapshots = {table: job.table(table).current_snapshot().snapshot_id for table in TABLES}
    status, said = job.run(DAYS[1], "--step=compute", "--step=reconcile", "--step=quality", "--step=publish")
    assert status == 0, said
    for table, rows in before.items():
        assert job.table(table).current_snapshot().snapshot_id != snapshots[table], "it was written again"
        assert job.rows(table) == rows


def planted(shop: Shop, folder: Path, day: date) -> tuple[Path, dict[str, dict[str, list[Any]]]]:
    """The stream's rows with three of each table taken away, two put there and one changed; and the keys of each.

    Beside them what makes no difference: older versions, repeats, and a session that was taken back.
    """
    keys: dict[str, dict[str, list[Any]]] = {}
    for table, key in TABLES.items():
        every = shop.stream_rows(table)
        rows = sorted((r for r in every if day_of(r[TIMES[table]]) == day), key=lambda r: [r[k] for k in key])
        missing, changed, extra = rows[:3], rows[3], [_another(table, row, i) for i, row in enumerate(rows[4:6])]
        amount = AMOUNTS[table]
        kept = [row for row in every if row not in missing]
        kept += extra
        kept.append({**changed, amount: changed[amount] + 7, "version": changed["version"] + 1})
        kept += [{**row, amount: row[amount] + 1, "version": row["version"] - 1} for row in rows[6:9]]
        kept += rows[9:12]
        if table == "user_sessions":
            id_ = f"nobody:{start_ms(day)}"
            kept.append({**rows[12], "session_id": id_, "session_start": start_ms(day), "deleted": True})
        (folder / table).mkdir(parents=True)
        (folder / table / "part-0.jsonl").write_text("".join(json.dumps(row) + "\n" for row in kept))
        of = {"missing": missing, "extra": extra, "differ": [changed]}
        keys[table] = {kind: [[row[k] for k in key] for row in some] for kind, some in of.items()}
    return folder, keys


def _another(table: str, row: Row, i: int) -> Row:
    names = {"fraud_alerts": "alert_id", "user_sessions": "session_id", "real_time_revenue": "value"}
    return {**row, names[table]: f"another {i}"}


def test_what_is_missing_extra_or_changed_in_the_stream_is_named_and_nothing_is_published(
    job: Job, shop: Shop, tmp_path: Path
) -> None:
    day = DAYS[1]
    before = {table: job.table(table).current_snapshot().snapshot_id for table in TABLES}
    stream, keys = planted(shop, tmp_path / "planted", day)
    status, said = job.run(day, "--step=all", stream=stream)
    assert status == 3
    assert "stream and batch disagree about fraud_alerts, user_sessions, real_time_revenue" in said
    assert "publish" not in said
    assert job.run(day, "--step=publish")[0] == 3
    assert {table: job.table(table).current_snapshot().snapshot_id for table in TABLES} == before
    report = job.said(day, "reconciliation")
    assert not report["passed"]
    for found in report["tables"]:
        wanted = keys[found["table"]]
        assert {kind: n for kind, n in found["rows"].items() if kind != "match"} == {
            "missing": 3,
            "extra": 2,
            "differ": 1,
            "late": 0,
            "open": 0,
        }
        for kind, some in wanted.items():
            named = [list(map(_ms, s["key"].values())) for s in found["samples"] if s["kind"] == kind]
            assert sorted(named) == sorted(some)
        (changed,) = [s for s in found["samples"] if s["kind"] == "differ"]
        amount = AMOUNTS[found["table"]]
        assert set(changed["batch"]) == {amount}
        assert changed["stream"][amount] - changed["batch"][amount] == 7
        assert (
            sorted(found["amounts_minor"]["differ"].values())[-1] == sum(found["amounts_minor"]["differ"].values()) == 7
        )
    page = (job.report / str(day) / "reconciliation.html").read_text()
    assert "<svg" in page
    assert "<script" not in page
    assert "another 1" in page
    metrics = (job.report / "reconciliation.prom").read_text()
    assert 'streamforge_reconciliation_rows{table="fraud_alerts",kind="missing"} 3\n' in metrics
    # What may differ is what is allowed, and the report says what that was. It is replaced, never written over.
    path = job.report / str(day) / "reconciliation.json"
    (tmp_path / "before").hardlink_to(path)
    assert (
        job.run(day, "--step=reconcile", "--max_differences=6", "--max_amount_minor=999999999999", stream=stream)[0]
        == 0
    )
    assert (
        job.run(day, "--step=reconcile", "--max_differences=5", "--max_amount_minor=999999999999", stream=stream)[0]
        == 3
    )
    assert json.loads((tmp_path / "before").read_text()) == report
    assert [p.name for p in path.parent.iterdir() if p.name.startswith(".")] == []
    judged = job.said(day, "reconciliation")
    assert {json.dumps(t["tolerance"]) for t in judged["tables"]} == {'{"rows": 5, "amount_minor": 999999999999}'}
    flags = judged["judged_by"]["flags"]
    assert (flags["max_differences"], flags["session_gap"], flags["stream"]) == (5, 1_800_000, str(stream))
    assert re.fullmatch(r"[0-9a-f]{16}", judged["judged_by"]["code"])
    assert re.fullmatch(r"[0-9a-f]{16}", judged["judged_by"]["rules"])
    assert json.loads((job.report / "reconciliation.status.json").read_text())["passed"] is False


def land(archive: Path, table: str, record: OrderEvent | ClickstreamEvent) -> None:
    """As the archiver does with a late record that replay sent back."""
    of = {each.name: each for each in (ORDERS_TABLE, CLICKSTREAM)}[table]
    contents = Contents()
    contents.add([encode_datum(record, of.schema)])
    path = File(0, record.event_time // HOUR_MS).path(f"{table}-00000", landed=True)
    ArchiveFolder(str(archive / table), type(record), of.id_of).write(path, contents, False)


def late_records(shop: Shop, day: date) -> tuple[OrderEvent, ClickstreamEvent]:
    """An order in a minute that has others, an alert by itself; and a click that gives a session an earlier start."""
    created = [o for o in shop.records("orders") if day_of(o.event_time) == day and o.order_status == "CREATED"]
    orders = [o for o in created if o.currency == "TRY"]  # in which the rules have amounts
    like = orders[len(orders) // 2]
    changes = {"order_id": "landed", "user_id": "u-landed", "is_first_order": True, "total_amount_minor": 900_000_00}
    rows = [row for row in shop.stream_rows("user_sessions") if day_of(row["session_start"]) == day]
    session = sorted(rows, key=lambda row: row["session_start"])[len(rows) // 2]
    click = build.click("landed", user=session["user_id"], at=session["session_start"] - 600_000)
    return replace(like, **changes), click


def run_day(job: Job, day: date, *flags: str) -> None:
    steps = [f"--step={step}" for step in ("compute", "reconcile", "quality", "publish")]
    status, said = job.run(day, *steps, *flags)
    assert status == 0, said


def landed_rows(job: Job, day: date) -> dict[str, int]:
    """How many rows of each table are explained by replay."""
    rows = [row for row in job.rows("reconciliation", "landed") if row["day"] == day]
    assert all(row["passed"] and row["landed"] == 2 for row in rows)
    assert all((row["differ_rows"], row["missing_rows"], row["extra_rows"]) == (0, 0, 0) for row in rows)
    return {table: sum(row["late_rows"] for row in rows if row["table_name"] == table) for table in TABLES}


def test_what_replay_sent_back_an_hour_or_a_day_late_is_in_the_next_batch_and_explained(
    job: Job, shop: Shop, tmp_path: Path
) -> None:
    archive = tmp_path / "archive"
    shutil.copytree(shop.archive, archive)
    flags = [f"--archive={archive}", "--namespace=landed", "--row_count_factor=1000"]
    run_day(job, DAYS[0], *flags)
    before = {table: len(job.rows(table, "landed")) for table in TABLES}

    # After an hour: before the batch of its day.
    order, click = late_records(shop, DAYS[1])
    land(archive, "orders", order)
    land(archive, "clickstream", click)
    run_day(job, DAYS[1], *flags)
    found = landed_rows(job, DAYS[1])
    # Total, category and region of its minute; the session with another start, and the one of that before.
    assert (found["fraud_alerts"], found["user_sessions"]) == (1, 2)
    assert found["real_time_revenue"] >= 3
    assert "landed" in {row["order_id"] for row in job.rows("fraud_alerts", "landed")}
    assert f"{click.user_id}:{click.event_time}" in {row["session_id"] for row in job.rows("user_sessions", "landed")}
    assert (
        "2 records arrived too late for the stream" in (job.report / str(DAYS[1]) / "reconciliation.html").read_text()
    )

    # What nothing explains is a difference, also where such a record is.
    minute = order.event_time - order.event_time % 60_000
    spoilt = tmp_path / "spoilt"
    shutil.copytree(shop.stream, spoilt)
    place = (minute, order.currency, "*")
    [total] = [
        row
        for row in shop.stream_rows("real_time_revenue")
        if (row["window_start"], row["currency"], row["value"]) == place
    ]
    wrong = {**total, "gmv_minor": total["gmv_minor"] + 7, "version": total["version"] + 1}
    (spoilt / "real_time_revenue" / "one-more.jsonl").write_text(json.dumps(wrong) + "\n")
    assert job.run(DAYS[1], "--step=reconcile", *flags, stream=spoilt)[0] == 3
    tables = {found["table"]: found["rows"] for found in job.said(DAYS[1], "reconciliation")["tables"]}
    assert (tables["real_time_revenue"]["differ"], tables["user_sessions"]["differ"]) == (1, 0)

    # After a day: its own day is published already.
    order, click = late_records(shop, DAYS[0])
    land(archive, "orders", order)
    land(archive, "clickstream", click)
    status, said = job.run(DAYS[1], "--step=catch_up", *flags)
    assert status == 0, said
    assert f"catch_up: {DAYS[0]}: replay has added to it" in said
    assert landed_rows(job, DAYS[0])["fraud_alerts"] == 1
    of_day = {t: [r for r in job.rows(t, "landed") if day_of(r[TIMES[t]]) == DAYS[0]] for t in TABLES}
    assert [row for row in of_day["fraud_alerts"] if row["order_id"] == "landed"]
    assert len(of_day["fraud_alerts"]) == before["fraud_alerts"] + 1
    status, said = job.run(DAYS[1], "--step=catch_up", *flags)
    assert (status, "replay has added" in said) == (0, False), "once"


def test_a_stream_that_said_nothing_misses_everything(job: Job, tmp_path: Path) -> None:
    status, said = job.run(DAYS[0], "--step=reconcile", stream=tmp_path)
    assert status == 3, said
    for found in job.said(DAYS[0], "reconciliation")["tables"]:
        assert found["rows"]["missing"] > 0
        kinds = ("match", "differ", "missing", "extra", "late", "open")
        assert found["rows"] == {**dict.fromkeys(kinds, 0), "missing": found["rows"]["missing"]}


def _ms(value: Any) -> Any:
    """Of a time as the report writes it."""
    try:
        return round(datetime.fromisoformat(value).replace(tzinfo=UTC).timestamp() * 1000)
    except ValueError:
        return value


def test_a_failed_quality_rule_names_table_count_and_rows_and_what_the_gates_have_not_seen_is_not_published(
    job: Job,
) -> None:
    day = DAYS[2]
    branch = f"lake.analytics.real_time_revenue.branch_audit_{day:%Y%m%d}"
    before = job.rows("real_time_revenue")
    job.sql(
        f"INSERT INTO {branch} SELECT window_start, window_end, dimension, value, -5 AS gmv_minor, order_count, "
        "unique_users, first_time_orders, pane, version, currency FROM lake.analytics.real_time_revenue "
        f"WHERE window_start >= '{day}' AND dimension = 'category' ORDER BY window_start, value LIMIT 2"
    )
    status, said = job.run(day, "--step=publish")
    assert (status, "reconciliation has not checked the staged rows of real_time_revenue" in said) == (3, True), said
    status, said = job.run(day, "--step=quality")
    assert status == 3
    failed = {rule["rule"]: rule for rule in job.said(day, "quality")["rules"] if not rule["passed"]}
    assert set(failed) == {"one row for each window_start, currency, dimension, value", "revenue not negative"}
    assert failed["revenue not negative"]["table"] == "real_time_revenue"
    assert failed["revenue not negative"]["failed_rows"] == 2
    assert [row["gmv_minor"] for row in failed["revenue not negative"]["samples"]] == [-5, -5]
    assert "real_time_revenue: revenue not negative: 2 rows" in said
    assert 'rule="revenue not negative"} 2\n' in (job.report / "quality.prom").read_text()
    assert job.run(day, "--step=publish")[0] == 3
    assert job.rows("real_time_revenue") == before


def test_a_column_that_was_added_is_null_before_and_filled_from_then_on(job: Job) -> None:
    job.sql("CREATE NAMESPACE lake.older")
    job.sql(
        "CREATE TABLE lake.older.real_time_revenue (window_start timestamp, window_end timestamp, dimension string, "
        "value string, gmv_minor bigint, order_count bigint, unique_users bigint, pane string, version bigint) "
        "USING iceberg PARTITIONED BY (days(window_start))"
    )
    job.sql(
        "INSERT INTO lake.older.real_time_revenue VALUES (timestamp'2026-11-17 10:00:00Z', "
        "timestamp'2026-11-17 10:01:00Z', 'total', '*', 100, 1, 1, 'ON_TIME', 5)"
    )
    status, said = job.run(
        DAYS[0],
        "--step=compute",
        "--step=reconcile",
        "--step=quality",
        "--step=publish",
        "--namespace=older",
        "--row_count_factor=10000",
    )
    assert status == 0, said
    old, *new = sorted(job.rows("real_time_revenue", "older"), key=lambda row: row["window_start"])
    assert (old["gmv_minor"], old["first_time_orders"]) == (100, None)
    by_key: Callable[[Row], Any] = lambda row: (row["window_start"], row["currency"], row["dimension"], row["value"])  # noqa: E731
    wanted = [row for row in job.rows("real_time_revenue") if day_of(row["window_start"]) == DAYS[0]]
    assert sorted(new, key=by_key) == sorted(wanted, key=by_key)


def published(job: Job, day: date) -> Any:
    return json.loads((job.report / str(day) / "published.json").read_text())


def test_days_may_be_published_in_any_order_and_one_that_broke_off_goes_on_where_it_was(job: Job) -> None:
    """Also a first day, before anything is published. The catalogue refuses a commit, as it does when it is away."""
    flags = ["--namespace=first", "--row_count_factor=1000"]
    for _ in range(2):
        status, said = job.run(DAYS[0], "--step=compute", "--step=publish", *flags)
        assert status == 3, said
        assert "reconciliation has not checked the staged rows of fraud_alerts" in said
    assert job.rows("fraud_alerts", "first") == []
    gates = ["--step=reconcile", "--step=quality"]
    for day, steps in ((DAYS[1], ["--step=compute", *gates]), (DAYS[0], gates)):
        status, said = job.run(day, *steps, *flags)
        assert status == 0, said
    with job.refusing_commits("user_sessions"):
        status, said = job.run(DAYS[1], "--step=publish", *flags)
    assert status == 1, said
    assert job.rows("fraud_alerts", "first") != []
    assert job.rows("user_sessions", "first") == job.rows("real_time_revenue", "first") == []
    said_then = published(job, DAYS[1])
    assert said_then["tables"] == {
        "fraud_alerts": "published",
        "user_sessions": "not yet",
        "real_time_revenue": "not yet",
    }
    assert not said_then["done"]
    status = json.loads((job.report / "published.status.json").read_text())
    assert (status["day"], status["done"]) == (str(DAYS[1]), False)

    # That day once more; then the one before, staged when the table did not have it yet: its rows are taken over.
    for day in (DAYS[1], DAYS[0]):
        status, said = job.run(day, "--step=publish", *flags)
        assert status == 0, said
        assert published(job, day)["done"]
    status = json.loads((job.report / "published.status.json").read_text())
    assert (status["day"], status["done"]) == (str(DAYS[0]), True)
    assert status["newest"] == str(DAYS[2]), "of all days that were published, the newest"
    for table in TABLES:
        wanted = [row for row in job.rows(table) if day_of(row[TIMES[table]]) in DAYS[:2]]
        assert job.rows(table, "first") == wanted != []


def without_clicks(shop: Shop, folder: Path, day: date) -> tuple[Path, Path]:
    """An archive and a stream's rows of a shop that had orders on the day, and not one click."""
    archive, stream = folder / "archive", folder / "stream"
    shutil.copytree(shop.archive, archive)
    shutil.rmtree(archive / "clickstream" / f"day={day}")
    (path,) = (archive / "accounts" / "clickstream").glob("*-00000-*.json")
    account = json.loads(path.read_text())
    del account["days"][str(day)], account["archived"][str(day)]
    path.write_text(json.dumps(account))
    shutil.copytree(shop.stream, stream)
    rows = [row for row in shop.stream_rows("user_sessions") if day_of(row["session_start"]) != day]
    shutil.rmtree(stream / "user_sessions")
    (stream / "user_sessions").mkdir()
    (stream / "user_sessions" / "part.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    return archive, stream


def test_a_gap_closes_the_gates_until_somebody_bears_it_by_name_and_the_report_says_who_and_why(
    job: Job, shop: Shop, tmp_path: Path
) -> None:
    archive, stream = without_clicks(shop, tmp_path, DAYS[0])
    flags = ["--step=all", f"--archive={archive}", "--namespace=gaps"]
    status, said = job.run(DAYS[0], *flags, stream=stream)
    assert status == 3
    assert "there is nothing to compare in user_sessions; to accept that: --accept=no_clicks" in said
    assert "user_sessions: events up to the end of the day, or now: 1 rows: there are no rows" in said
    assert "user_sessions: clickstream: the topics have records of the day: 1 rows" in said
    assert "publish" not in said
    assert job.run(DAYS[0], *flags, "--accept=no_orders", stream=stream)[0] == 3, "another gap is not this one"
    borne = ["--accept=no_clicks", "--accepted_by=ayse", "--why=the tag manager was off"]
    status, said = job.run(DAYS[0], *flags, *borne, stream=stream)
    assert status == 0, said
    report = job.said(DAYS[0], "quality")
    wrong = {rule["rule"]: rule["accepted"] for rule in report["rules"] if rule["failed_rows"]}
    assert set(wrong.values()) == {"no_clicks"}
    judged = report["judged_by"]
    assert (judged["accepted"], judged["accepted_by"], judged["why"]) == (
        ["no_clicks"],
        "ayse",
        "the tag manager was off",
    )
    page = (job.report / str(DAYS[0]) / "quality.html").read_text()
    assert "accepted: no_clicks" in page
    assert "the tag manager was off" in page
    assert {row["accepted"] for row in job.rows("quality", "gaps")} == {"", "no_clicks"}
    assert len(job.rows("real_time_revenue", "gaps")) > 0 == len(job.rows("user_sessions", "gaps"))

    empty = date(2026, 11, 1)
    status, said = job.run(empty, *flags)
    assert (status, "has no data for 2026-11-01; to accept that: --accept=empty_day" in said) == (1, True), said
    status, said = job.run(empty, *flags, "--accept=empty_day")
    assert status == 0, said
    assert {t["nothing_compared"] for t in job.said(empty, "reconciliation")["tables"]} == {True}


def test_a_record_that_archive_and_stream_both_missed_closes_a_gate(job: Job, shop: Shop, tmp_path: Path) -> None:
    archive = tmp_path / "archive"
    shutil.copytree(shop.archive, archive)
    told = {topic["topic"]: topic for topic in job.said(DAYS[1], "quality")["topics"]}
    orders = told["transactions.orders"]
    assert orders["in"] == orders["good"] == orders["archived"] == orders["in_files"] > 0
    assert orders["lost"] == orders["missing"] == orders["unread"] == 0
    gone = sorted((archive / "orders" / f"day={DAYS[1]}" / "hour=12").glob("*.avro"))[0]
    gone.unlink()
    status, said = job.run(DAYS[1], "--step=quality", f"--archive={archive}")
    assert status == 3
    assert "orders: files hold the records of the accounts" in said
    assert job.run(DAYS[1], "--step=quality", f"--archive={archive}", "--accept=file_count")[0] == 0
    shutil.rmtree(archive / "accounts")
    status, said = job.run(DAYS[1], "--step=quality", f"--archive={archive}")
    assert (status, "the archive has no accounts of this table; to accept that" in said) == (3, True), said


def test_a_session_that_goes_on_while_the_day_is_computed_is_no_difference_when_it_has_grown_since(
    job: Job, shop: Shop, tmp_path: Path
) -> None:
    """A crawler that never pauses: open at the moment of compute, over before reconcile."""
    day = DAYS[2]
    computed_ms = start_ms(day) + 18 * 3_600_000
    settle = f"--settle={int(time.time() * 1000) - computed_ms}ms"
    every = shop.stream_rows("user_sessions")
    of_day = sorted(
        (row for row in every if day_of(row["session_start"]) == day),
        key=lambda row: (row["session_end"], row["user_id"]),
    )
    over = [row for row in of_day if row["session_end"] < computed_ms - 1_800_000]
    going_on = [row for row in of_day if row["session_end"] >= computed_ms]  # not near the bound: time goes on
    grown, shrunk, late, gone = going_on[0], going_on[1], over[0], going_on[2]
    changed = [
        {**grown, "page_views": grown["page_views"] + 2, "session_end": grown["session_end"] + 900_000},
        {**shrunk, "page_views": shrunk["page_views"] + 2, "session_end": shrunk["session_end"] - 1},
        {**late, "page_views": late["page_views"] + 2, "session_end": late["session_end"] + 900_000},
    ]
    for row in changed:
        row["duration_seconds"] = (row["session_end"] - row["session_start"]) // 1000
        row["version"] += 8
    stream = tmp_path / "stream"
    shutil.copytree(shop.stream, stream)
    shutil.rmtree(stream / "user_sessions")
    (stream / "user_sessions").mkdir()
    lines = "".join(json.dumps(row) + "\n" for row in [*(r for r in every if r is not gone), *changed])
    (stream / "user_sessions" / "part.jsonl").write_text(lines)
    status, said = job.run(day, "--step=compute", "--step=reconcile", "--namespace=open", settle, stream=stream)
    assert status == 3, said
    found = {t["table"]: t for t in job.said(day, "reconciliation")["tables"]}["user_sessions"]
    counts = {kind: n for kind, n in found["rows"].items() if kind != "match"}
    assert counts == {"open": 1, "differ": 2, "missing": 1, "extra": 0, "late": 0}
    ids = {kind: {s["key"]["session_id"] for s in found["samples"] if s["kind"] == kind} for kind in ("open", "differ")}
    assert ids == {"open": {grown["session_id"]}, "differ": {shrunk["session_id"], late["session_id"]}}
    lines = "".join(json.dumps(row) + "\n" for row in [*every, changed[0]])
    (stream / "user_sessions" / "part.jsonl").write_text(lines)
    status, said = job.run(day, "--step=reconcile", "--namespace=open", settle, stream=stream)
    assert status == 0, said


def test_a_column_of_another_type_stops_the_job_before_it_writes(job: Job) -> None:
    job.sql("CREATE NAMESPACE lake.wrong")
    job.sql("CREATE TABLE lake.wrong.fraud_alerts (alert_id string, amount_minor string) USING iceberg")
    status, said = job.run(DAYS[0], "--step=compute", "--namespace=wrong")
    assert status == 1
    assert "column amount_minor is string, not bigint" in said


def test_maintenance_puts_small_files_together_and_forgets_old_snapshots(job: Job) -> None:
    job.sql("CREATE NAMESPACE lake.small")
    job.sql(
        "CREATE TABLE lake.small.fraud_alerts (alert_id string, event_time timestamp) USING iceberg "
        "PARTITIONED BY (days(event_time))"
    )
    for i in range(3):
        job.sql(f"INSERT INTO lake.small.fraud_alerts VALUES ('a{i}', timestamp'2026-11-18 10:00:0{i}Z')")
    before = job.rows("fraud_alerts", "small")
    status, said = job.run(DAYS[0], "--step=maintain", "--namespace=small", "--keep_snapshots=0s")
    assert status == 0, said
    table = job.table("fraud_alerts", "small")
    assert job.rows("fraud_alerts", "small") == before
    assert len(table.inspect.files()) == 1
    assert len(table.snapshots()) == 1


@pytest.mark.parametrize(
    ("flags", "why"),
    [
        (["--date=2026-02-30"], "--date: '2026-02-30' is not a date"),
        (["--date=2999-01-01"], "--date: 2999-01-01 lies in the future"),
        (["--step=publich"], "--step: invalid choice"),
        (["--stream=kafka://x:1/y"], "--stream: 'kafka://x:1/y' is neither a folder nor bigquery://"),
        (["--stream=/nowhere/at/all", "--step=reconcile"], "--stream: there is no folder /nowhere/at/all"),
        (["--archive=/nowhere/at/all", "--step=compute"], "--archive: there is no folder /nowhere/at/all"),
        (["--accept=anything"], "--accept: invalid choice: 'anything'"),
        (["--session_gap=30"], "--session_gap: '30' is not a duration"),
        (["--max_differences=-1"], "--max_differences: '-1' is not a whole number"),
        (["--row_count_factor=0"], "--row_count_factor: '0' is not a number of at least 1"),
        (["--namespace=a.b"], "--namespace: 'a.b' is not a name"),
        (["--catalog_conf=jdbc"], "--catalog_conf: 'jdbc' is not KEY=VALUE"),
        (["--catalog=/nowhere.properties"], "--catalog: cannot read /nowhere.properties"),
        (["--rules=/nowhere.yaml"], "--rules: /nowhere.yaml"),
        (["--archive=", "--step=compute"], "--archive: is needed for the step compute"),
        (["--speed=9"], "unrecognized arguments: --speed=9"),
    ],
)
def test_a_wrong_flag_is_one_line_that_names_it(job: Job, flags: list[str], why: str) -> None:
    status, said = job.run(DAYS[0], *flags)
    assert status == 2
    assert why in said
    assert len(said.splitlines()) == 1


def test_without_its_catalogue_it_does_not_start(job: Job) -> None:
    status, said = job.run_with("--date=2026-11-18", "--warehouse=/tmp", "--step=maintain")
    assert (status, said) == (2, "daily_analytics.py: --catalog: is needed, or --catalog_conf\n")


def test_the_zip_is_all_that_the_job_needs_of_ours(tmp_path: Path) -> None:
    package = tmp_path / "streamforge.zip"
    build_package(package)
    first = package.read_bytes()
    shutil.copy(ROOT / "dags" / "spark" / "daily_analytics.py", tmp_path / "job.py")
    spark = Spark(ROOT / ".stack" / "spark", SILENT)
    code = (
        "import job; from transforms.domain import fraud_rules as f; print(len(f.default_rules().rules), job.__file__)"
    )
    shown = subprocess.run(
        [spark.python, "-c", code], cwd=tmp_path, env={"PYTHONPATH": str(package)}, capture_output=True, text=True
    )
    assert shown.stdout.split() == ["5", str(tmp_path / "job.py")], shown.stderr
    build_package(package)
    assert package.read_bytes() == first, "the same sources, the same bytes"
