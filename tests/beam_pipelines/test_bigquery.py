"""Jobs with --output=bigquery://…, as they are started by a user, against the emulator; and the command for tables."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import msgspec
import pytest

from beam_pipelines import archive, fraud, revenue, sessions, tables
from schemas import codec
from schemas.events import OrderEvent, avro_schema
from schemas.tables import TABLES
from stack import Stack
from tests import live
from tests.beam_pipelines.test_fraud import BAD, golden, keys, rows, write_jsonl
from tests.bigquery_emulator import PROJECT, Emulator
from tests.build import HOUR, MINUTE, T0, click
from tests.live import ROOT
from tests.oracle import expected_alerts
from transforms.io.registry import Registry

pytestmark = pytest.mark.stack

ALERTS = TABLES["fraud_alerts"]


def test_a_job_run_twice_leaves_the_view_as_it_was(
    bigquery: Emulator, monkeypatch: pytest.MonkeyPatch, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    dataset = bigquery.make_dataset("fraud")
    url = f"bigquery://{dataset}"
    tables.main(["create", url])
    assert capsys.readouterr().out.startswith(f"{dataset}: created fraud_alerts, fraud_alerts_current, user_sessions")
    tables.main(["create", url])
    assert capsys.readouterr().out == f"{dataset}: nothing is missing\n"

    orders = golden()
    write_jsonl(tmp_path / "orders.jsonl", [codec.to_json(o) for o in orders] + [payload for payload, _, _ in BAD])
    views = []
    for times, flags in ((1, []), (2, [f"--temp_location={bigquery.bucket}/tmp", f"--project={PROJECT}"])):
        if flags:
            bigquery.lead_load_jobs_here(monkeypatch)
        out, ledger = tmp_path / f"out-{times}", tmp_path / f"ledger-{times}.json"
        fraud.main(
            [
                f"--input={tmp_path / 'orders.jsonl'}",
                *(f"--output={url}", f"--output={out}", f"--ledger={ledger}", *flags),
            ]
        )
        assert len(rows(out / "dead_letters")) == len(BAD)
        assert json.loads(ledger.read_text())["good"] == len(orders)
        assert len(bigquery.rows(dataset, ALERTS)) == times * len(rows(out / "fraud_alerts"))
        views.append(bigquery.rows(dataset, ALERTS, ALERTS.view))
        assert keys(views[-1]) == sorted(expected_alerts(orders))
    for view in views:
        for row in view:
            del row["detected_at"]  # the clock; of equal versions the view shows one
    assert views[0] == views[1]


@pytest.mark.parametrize(
    ("job", "records", "table"),
    [
        (
            sessions,
            lambda: [click(f"c-{i}", user=f"u-{i % 3}", at=T0 + i * 20 * MINUTE) for i in range(40)],
            "user_sessions",
        ),
        (revenue, golden, "real_time_revenue"),
        (archive, golden, "orders"),
        (archive, lambda: [click(f"c-{i}", at=T0 + i) for i in range(10)], "clickstream"),
    ],
    ids=["sessions", "revenue", "archive-orders", "archive-clicks"],
)
def test_every_job_writes_its_rows(
    bigquery: Emulator, tmp_path: Path, job: Any, records: Callable[[], list[Any]], table: str
) -> None:
    dataset = bigquery.make_dataset(f"job_{table}")
    tables.main(["create", f"bigquery://{dataset}"])
    path = tmp_path / f"{table}.jsonl"
    write_jsonl(path, [codec.to_json(record) for record in records()])
    out = tmp_path / "out"
    job.main([f"--input={path}", f"--output={out}", f"--output=bigquery://{dataset}"])
    if job is archive:
        expected = [{**msgspec.to_builtins(record), "version": record.event_time} for record in records()]
    else:
        expected = rows(out / table)
    assert expected
    assert in_order(bigquery.rows(dataset, TABLES[table])) == in_order(expected)
    assert not (out / "dead_letters").exists()


def in_order(found: list[dict[str, Any]]) -> list[str]:
    return sorted(json.dumps(row, sort_keys=True) for row in found)


def test_on_flink_rows_arrive_by_streaming_inserts(bigquery: Emulator, live_stack: Stack, tmp_path: Path) -> None:
    dataset = bigquery.make_dataset("flink")
    tables.main(["create", f"bigquery://{dataset}"])
    orders, topic = golden(), "bigquery.orders"
    at = T0 + 12 * HOUR
    live.fill_topic(live_stack, topic, [live.Message(each, b"k", at) for each in _framed(live_stack, orders)])
    flags = live.addresses(live_stack, topic, tmp_path / "out")
    output = [f"--output=bigquery://{dataset}", "--allowed_lateness=1d"]
    with live.job("--runner=FlinkRunner", "--until=latest", *flags, *output, folder=tmp_path) as job:
        assert job.wait()["good"] == len(orders)
    assert len(bigquery.rows(dataset, ALERTS)) >= len(expected_alerts(orders))
    assert keys(bigquery.rows(dataset, ALERTS, ALERTS.view)) == sorted(expected_alerts(orders))


def _framed(stack: Stack, orders: list[OrderEvent]) -> list[bytes]:
    schema = avro_schema("OrderEvent")
    schema_id = Registry(stack.registry_url).register("bigquery.orders-value", schema)
    return [codec.encode(o, schema_id, codec.parse_schema(schema)) for o in orders]


def run(module: str, environment: dict[str, str], arguments: Sequence[str]) -> tuple[int, str]:
    done = subprocess.run(
        [sys.executable, "-m", module, *arguments],
        cwd=ROOT,
        env=os.environ | environment,
        capture_output=True,
        text=True,
    )
    return done.returncode, done.stderr


def test_a_job_is_refused_before_it_starts_when_its_table_is_not_there_or_bigquery_not_to_be_had(
    bigquery: Emulator, tmp_path: Path
) -> None:
    write_jsonl(tmp_path / "orders.jsonl", [])
    dataset = bigquery.make_dataset("empty")
    job = ["--input", str(tmp_path / "orders.jsonl"), "--dead_letters=dlq", "--late=late"]
    code, said = run("beam_pipelines.fraud", {}, [*job, f"--output=bigquery://{dataset}"])
    assert (code, said.count("\n")) == (2, 1)
    assert said.startswith(f"beam_pipelines.fraud: --output: {dataset}: ")
    assert "fraud_alerts" in said
    nowhere = {"GOOGLE_APPLICATION_CREDENTIALS": str(tmp_path / "no-such-key.json")}
    code, said = run("beam_pipelines.fraud", nowhere, [*job, f"--output=bigquery://{dataset}"])
    assert (code, said.count("\n")) == (2, 1)
    assert "no-such-key.json" in said


@pytest.mark.parametrize(
    ("arguments", "why"),
    [
        (["create", "bigquery://nowhere"], "bigquery://nowhere is not bigquery://project.dataset"),
        (["create"], "the following arguments are required: dataset"),
        (["show", "bigquery://shop-1.live", "invoices"], "invoices: is not one of fraud_alerts, user_sessions, "),
        (["drop"], "show|create|alter: invalid choice"),
    ],
)
def test_a_wrong_command_ends_with_one_line_and_status_2(
    arguments: list[str], why: str, capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(SystemExit) as ended:
        tables.main(arguments)
    said = capsys.readouterr().err
    assert (ended.value.code, said.count("\n")) == (2, 1)
    assert why.removeprefix("argument ") in said


def test_show_prints_every_column_and_the_view_for_people_and_resources_for_programs(
    capsys: pytest.CaptureFixture[str],
) -> None:
    tables.main(["show", "bigquery://shop-1.live", "orders"])
    text = capsys.readouterr().out
    assert "  items                RECORD REPEATED" in text
    assert "FROM `shop-1.live.orders` AS row_version" in text
    tables.main(["show", "--json"])
    made = json.loads(capsys.readouterr().out)
    assert set(made) == {name for table in TABLES.values() for name in (table.name, table.view)}
    assert made["clickstream"]["clustering"] == {"fields": ["user_id", "event_id"]}
