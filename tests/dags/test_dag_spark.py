"""The DAG with the real Spark job, on a small shop: a fake of Dataproc starts spark-submit on this machine.

Each of the steps is a Spark of its own here, so this takes minutes: `make dag-test` runs it, `make test` does not.
"""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Iterator
from datetime import UTC, date, datetime
from pathlib import Path
from typing import Any

import pytest

from dags.spark.package import build
from stack.batch import catalog_settings
from stack.console import SILENT
from stack.spark import Spark
from tests.dags.airflow_environment import Airflow, started
from tests.dags.lakehouse import DAYS, Job, Row, Shop
from tests.live import ROOT

pytestmark = [
    pytest.mark.stack,
    pytest.mark.skipif("STREAMFORGE_DAG_SPARK" not in os.environ, reason="takes minutes: run make dag-test"),
]

EVENTS = 6_000
TABLES = {"fraud_alerts": "event_time", "user_sessions": "session_start", "real_time_revenue": "window_start"}


@pytest.fixture(scope="module")
def shop(tmp_path_factory: pytest.TempPathFactory) -> Shop:
    return Shop(tmp_path_factory.mktemp("shop"), EVENTS)


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    found = tmp_path_factory.mktemp("dataproc")
    (found / "code").mkdir()
    shutil.copy(ROOT / "dags" / "spark" / "daily_analytics.py", found / "code")
    build(found / "code" / "streamforge.zip")
    return found


@pytest.fixture(scope="module")
def airflow(folder: Path) -> Iterator[Airflow]:
    spark = Spark(ROOT / ".stack" / "spark", SILENT)
    submit = spark.submit(Path("{main}"), Path("{packages}"), [])
    with started(folder, submit, spark.environment) as airflow:
        yield airflow


@pytest.fixture(scope="module")
def lake(folder: Path, shop: Shop) -> Job:
    """The tables and reports; the job itself is the DAG's to run."""
    return Job(None, folder, shop)


def run(airflow: Airflow, folder: Path, shop: Shop, day: date, stream: Path | None = None) -> Any:
    variable = {
        "project": "shop-test",
        "region": "europe-west1",
        "bucket": "shop-dataproc",
        "code": (folder / "code").as_uri(),
        "archive": shop.archive.as_uri(),
        "stream": (stream or shop.stream).as_uri(),
        "warehouse": (folder / "warehouse").as_uri(),
        "report": (folder / "report").as_uri(),
        "catalog": dict(setting.split("=", 1) for setting in catalog_settings(folder / "catalog.db")),
        "service_account": "daily-analytics@shop-test.iam.gserviceaccount.com",
        "freshness": "6h",
    }
    return airflow.run(str(day), variable=json.dumps(variable))


@pytest.fixture(scope="module")
def first(airflow: Airflow, folder: Path, shop: Shop) -> Any:
    """The run of the first day."""
    return run(airflow, folder, shop, DAYS[0])


def is_of(day: date, at_ms: int) -> bool:
    return datetime.fromtimestamp(at_ms / 1000, UTC).date() == day


def contents(lake: Job) -> dict[str, list[Row]]:
    return {table: lake.rows(table) for table in TABLES}


def test_a_day_on_which_stream_and_batch_agree_is_published(first: Any, lake: Job, shop: Shop) -> None:
    assert first["state"] == "success", first["log"][-3000:]
    assert {task["tries"] for name, task in first["tasks"].items() if name != "cluster_is_gone"} == {1}
    assert first["clusters"] == []
    assert lake.said(DAYS[0], "reconciliation")["passed"]
    for table, at in TABLES.items():
        rows = lake.rows(table)
        assert rows, table
        assert all(is_of(DAYS[0], row[at]) for row in rows)
    sessions = {row["session_id"] for row in shop.stream_rows("user_sessions") if is_of(DAYS[0], row["session_start"])}
    assert {row["session_id"] for row in lake.rows("user_sessions")} == sessions


def test_a_difference_in_the_streams_table_keeps_the_next_day_from_readers(
    first: Any, airflow: Airflow, lake: Job, folder: Path, shop: Shop, tmp_path: Path
) -> None:
    before = contents(lake)
    rows = shop.stream_rows("user_sessions")
    gone = next(row["session_id"] for row in rows if is_of(DAYS[1], row["session_start"]))
    shutil.copytree(shop.stream, tmp_path / "stream")
    shutil.rmtree(tmp_path / "stream" / "user_sessions")
    (tmp_path / "stream" / "user_sessions").mkdir()
    kept = [row for row in rows if row["session_id"] != gone]
    (tmp_path / "stream" / "user_sessions" / "part.jsonl").write_text("".join(json.dumps(row) + "\n" for row in kept))

    found = run(airflow, folder, shop, DAYS[1], stream=tmp_path / "stream")

    assert found["state"] == "failed"
    assert found["tasks"]["reconcile"] == {"state": "failed", "tries": 1}
    assert found["tasks"]["quality"]["state"] == "success"
    assert found["tasks"]["publish"]["state"] == "upstream_failed"
    assert (found["tasks"]["delete_cluster"]["state"], found["clusters"]) == ("success", [])
    assert "a gate failed: reconcile: stream and batch disagree about user_sessions" in found["log"]
    (sessions,) = (t for t in lake.said(DAYS[1], "reconciliation")["tables"] if t["table"] == "user_sessions")
    assert (sessions["rows"]["missing"], sessions["rows"]["differ"], sessions["rows"]["extra"]) == (1, 0, 0)
    assert contents(lake) == before


def test_the_same_day_again_changes_no_content(
    first: Any, airflow: Airflow, lake: Job, folder: Path, shop: Shop
) -> None:
    before = contents(lake)
    snapshot = lake.table("user_sessions").current_snapshot().snapshot_id
    assert run(airflow, folder, shop, DAYS[0])["state"] == "success"
    assert lake.table("user_sessions").current_snapshot().snapshot_id != snapshot, "it was written again"
    assert contents(lake) == before
