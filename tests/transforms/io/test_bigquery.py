"""Tables, views and the write itself, against an emulator; what only the real service shows is in ADR 12."""

from __future__ import annotations

import random
import zlib
from pathlib import Path
from typing import Any

import apache_beam as beam
import msgspec
import pytest
from apache_beam.options.pipeline_options import PipelineOptions
from apache_beam.transforms.window import Sessions, TimestampedValue
from google.cloud import bigquery as google_bigquery

from schemas.tables import TABLES, Table, resources
from stack.ports import pick_free
from tests.bigquery_emulator import PROJECT, Emulator
from tests.build import T0, alert, click, minute, order
from transforms.errors import BadRecord
from transforms.io.bigquery import (
    BigQueryUnusableError,
    WriteToBigQueryTable,
    alter_tables,
    check_tables,
    create_tables,
)
from transforms.io.folder import WriteToFolder

pytestmark = pytest.mark.stack

ALERTS, SESSIONS, REVENUE, ORDERS, CLICKS, CHANGES, LOW_STOCK = (
    TABLES[name]
    for name in (
        *("fraud_alerts", "user_sessions", "real_time_revenue", "orders", "clickstream"),
        *("cdc_changes", "low_stock_alerts"),
    )
)


FIRST = google_bigquery.SchemaField("event_id", "STRING")


@pytest.fixture
def dataset(bigquery: Emulator, request: pytest.FixtureRequest) -> str:
    """With all tables and views."""
    found = bigquery.make_dataset(f"d_{zlib.crc32(request.node.nodeid.encode())}")
    create_tables(found, TABLES.values())
    return found


@pytest.fixture(params=["inserts", "loads"])
def flags(request: pytest.FixtureRequest, bigquery: Emulator, monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """Of a pipeline that writes by streaming inserts, or by load jobs."""
    if request.param == "inserts":
        return []
    bigquery.lead_load_jobs_here(monkeypatch)
    return [f"--temp_location={bigquery.bucket}/tmp", f"--project={PROJECT}"]


def session(session_id: str, version: int = 1, **changes: Any) -> dict[str, Any]:
    fields = {
        "session_id": session_id,
        "user_id": "u-1",
        "session_start": T0,
        "session_end": T0 + 1,
        "duration_seconds": 0,
        "page_views": 1,
        "product_views": 0,
        "add_to_carts": 0,
        "purchases": 0,
        "revenue_minor": (1 << 63) - 1,
        "device_type": "mobile",
        "geo_region": "Muğla",
        "primary_category": None,
        "pane": "EARLY",
        "version": version,
        "deleted": False,
    }
    return fields | changes


def change(key: str, version: int, op: str = "u", table: str = "products", **changes: Any) -> dict[str, Any]:
    fields = {
        "table_name": table,
        "key": key,
        "op": op,
        "before": None,
        "after": None if op in "dt" else f'{{"stock":{version}}}',
        "event_time": T0 + version,
        "lsn": version,
        "tx_id": None,
        "snapshot": "false",
        "version": f"{version:032x}",
        "deleted": op in "dt",
    }
    return fields | changes


def versioned(record: Any) -> dict[str, Any]:
    return {**msgspec.to_builtins(record), "version": record.event_time}


def write(dataset: str, table: Table, rows: list[Any], folder: Path, flags: list[str] | None = None) -> list[BadRecord]:
    """Writes rows, and returns what became a dead letter."""
    with beam.Pipeline("FnApiRunner", options=PipelineOptions(flags or [])) as p:
        (
            p
            | beam.Create([TimestampedValue(row, i * 10) for i, row in enumerate(rows)])
            | beam.WindowInto(Sessions(5))
            | WriteToBigQueryTable(dataset, table, msgspec.json.encode, "some-job")
            | WriteToFolder(str(folder), "dead_letters", BadRecord.to_json)
        )
    lines = [line for part in folder.glob("dead_letters/*.jsonl") for line in part.read_bytes().splitlines()]
    return [BadRecord.from_json(line) for line in lines]


def in_order(rows: list[Any]) -> list[Any]:
    return sorted(rows, key=msgspec.json.encode)


def test_every_table_gives_back_the_rows_that_were_written(
    bigquery: Emulator, dataset: str, flags: list[str], tmp_path: Path
) -> None:
    most = (1 << 63) - 1
    rows = {
        "fraud_alerts": [versioned(alert()), versioned(alert(alert_id="a-2", related_events=[], risk_score=1.0))],
        "user_sessions": [session("s-1"), session("s-2", primary_category="çay", deleted=True)],
        "real_time_revenue": [
            {"window_start": T0, "window_end": T0 + 60_000, "dimension": "region", "value": "*", "gmv_minor": most}
            | {"order_count": 0, "unique_users": 1, "first_time_orders": 0, "pane": "LATE", "version": most}
            | {"currency": "JPY"}
        ],
        "orders": [versioned(order(at=253_402_300_799_999)), versioned(order("o-2", at=1, items=[]))],
        "clickstream": [versioned(click()), versioned(click("c-2", category="a\"'\n\\", quantity=3, referrer=""))],
        "cdc_changes": [change('{"product_id":"p-1"}', 7, lsn=most), change("", 3, "t", tx_id=most)],
        "low_stock_alerts": [
            {"alert_id": "a", "product_id": "p", "product_name": "Çay", "category": "", "stock": -1}
            | {"low_stock_threshold": 10, "event_time": T0, "version": "0" * 32}
        ],
    }
    for name, table in TABLES.items():
        assert write(dataset, table, rows[name], tmp_path / name, flags) == []
        assert in_order(bigquery.rows(dataset, table)) == in_order(rows[name])


def test_the_current_view_has_the_newest_version_of_each_key_once_whatever_was_written_how_often(
    bigquery: Emulator, dataset: str, tmp_path: Path
) -> None:
    newest = [
        session("corrected", 7, pane="LATE", page_views=9),
        session("repeated", 1),
        session("grown", 3, session_end=T0 + 5_000),
    ]
    older = [
        *(session("corrected", version, page_views=version) for version in (1, 2, 6)),
        session("grown", 2, deleted=True),
        session("merged", 1),
        session("merged", 2, deleted=True),
        session("merged", 1, page_views=5),
    ]
    rows = newest + older
    write(dataset, SESSIONS, rows, tmp_path)
    assert in_order(bigquery.rows(dataset, SESSIONS, SESSIONS.view)) == in_order(newest)
    random.Random(1).shuffle(rows)
    write(dataset, SESSIONS, rows + rows[:4], tmp_path)
    assert len(bigquery.rows(dataset, SESSIONS)) == 2 * len(rows) + 4
    assert in_order(bigquery.rows(dataset, SESSIONS, SESSIONS.view)) == in_order(newest)


def test_rows_of_a_release_without_currencies_are_lira_in_the_current_view(
    bigquery: Emulator, dataset: str, tmp_path: Path
) -> None:
    table = TABLES["real_time_revenue"]
    new = [msgspec.to_builtins(minute(version=version, currency=code)) for version, code in ((2, "TRY"), (1, "JPY"))]
    old = [{**new[0], "version": 1, "currency": None}, {**new[0], "value": "old", "currency": None}]
    assert write(dataset, table, [*new, *old], tmp_path / "rows", []) == []
    shown = {(row["currency"], row["value"], row["version"]) for row in bigquery.rows(dataset, table, of=table.view)}
    assert shown == {("TRY", "*", 2), ("JPY", "*", 1), ("TRY", "old", 2)}


def test_the_current_view_of_changes_has_no_row_that_was_deleted_or_older_than_the_last_time_its_table_was_emptied(
    bigquery: Emulator, dataset: str, tmp_path: Path
) -> None:
    current = [change("kept", 9), change("old", 0x1F, "c"), change("o-1", 1, table="orders"), change("back", 0x30, "c")]
    rows = [
        *current,
        change("kept", 8),
        change("gone", 3),
        change("emptied", 5),
        change("emptied", 4, "c"),
        change("gone", 10, "d"),
        change("old", 0x1E, "d"),
        change("back", 7),
        change("", 6, "t"),
        change("", 5, "t"),
    ]
    random.Random(2).shuffle(rows)
    write(dataset, CHANGES, rows, tmp_path)
    assert in_order(bigquery.rows(dataset, CHANGES, CHANGES.view)) == in_order(current)


def test_keys_of_several_columns_are_told_apart_and_equal_versions_give_every_reader_the_same_row(
    bigquery: Emulator, dataset: str, tmp_path: Path
) -> None:
    created, shipped = order("o-1"), order("o-1", status="SHIPPED")
    earlier = order("o-1", at=T0 - 86_400_000, amount=1)  # of another day: still the same order in the same status
    write(dataset, ORDERS, [versioned(o) for o in (shipped, created, earlier, created)], tmp_path)
    assert in_order(bigquery.rows(dataset, ORDERS, ORDERS.view)) == in_order([versioned(created), versioned(shipped)])

    twice = [versioned(alert(detected_at=T0 + 10)), versioned(alert(detected_at=T0 + 20))]
    seen = []
    for rows in (twice, twice[::-1]):
        write(dataset, ALERTS, rows, tmp_path)
        seen.append(bigquery.rows(dataset, ALERTS, ALERTS.view))
    assert seen[0] == seen[1]
    assert len(seen[0]) == 1


def test_rows_that_are_not_of_the_table_are_dead_letters_and_the_others_are_written(
    bigquery: Emulator, dataset: str, flags: list[str], tmp_path: Path
) -> None:
    good = versioned(alert(alert_id="good"))
    bad = {
        "event_time is out of range: 253402300800000": good | {"event_time": 253_402_300_800_000},
        "version is out of range: 9223372036854775808": good | {"version": 1 << 63},
        "user_id is missing": good | {"user_id": None},
        "amount_minor is str, not INT64": good | {"amount_minor": "1"},
        "surprise is not a column": good | {"surprise": 1},
        "the row has ": good | {"description": "x" * (9 << 20)},
    }
    letters = write(dataset, ALERTS, [good, *bad.values()], tmp_path, flags)
    assert bigquery.rows(dataset, ALERTS) == [good]
    assert len(letters) == len(bad)
    for letter in letters:
        (row,) = [row for why, row in bad.items() if letter.error_message.startswith(why)]
        assert letter.payload is not None
        payload = letter.payload
        assert msgspec.json.decode(payload) == row
        assert (letter.job, letter.stage, letter.error_class) == ("some-job", "bigquery", "RowError")
        assert letter.topic == f"bigquery://{dataset}.fraud_alerts"
    assert len({letter.offset for letter in letters}) == len(bad)  # letters of different rows are no copies


def test_rows_that_the_service_refuses_or_that_are_too_large_for_it_are_dead_letters(
    bigquery: Emulator, dataset: str, tmp_path: Path
) -> None:
    table, _ = resources(ALERTS, dataset)
    for field in table["schema"]["fields"]:
        if field["name"] == "order_id":
            field["type"] = "INT64"  # so that it takes some order_ids only
    client = google_bigquery.Client(project=PROJECT)
    client.delete_table(f"{dataset}.{ALERTS.name}")
    client.create_table(google_bigquery.Table.from_api_repr(table))

    refused = versioned(alert(alert_id="refused", order_id="o-1"))
    large = versioned(alert(alert_id="large", order_id="3", related_events=[f"o-{i}" for i in range(400_000)]))
    letters = write(dataset, ALERTS, [versioned(alert(order_id="2")), refused, large], tmp_path)
    assert [row["order_id"] for row in bigquery.rows(dataset, ALERTS)] == [2]
    found = {letter.error_class: letter for letter in letters}
    assert set(found) == {"invalid", "tooLarge"}
    assert msgspec.json.decode(found["invalid"].payload or b"") == refused
    assert msgspec.json.decode(found["tooLarge"].payload or b"") == large
    assert "exceeds the maximum" in found["tooLarge"].error_message


def test_a_table_that_went_away_stops_the_write_and_makes_no_dead_letters(dataset: str, tmp_path: Path) -> None:
    google_bigquery.Client(project=PROJECT).delete_table(f"{dataset}.{ALERTS.name}")
    with pytest.raises(RuntimeError, match="fraud_alerts: Not Found"):
        write(dataset, ALERTS, [versioned(alert())], tmp_path)
    assert not list(tmp_path.glob("dead_letters/*"))


def test_tables_are_made_once_and_found_good(bigquery: Emulator) -> None:
    dataset = bigquery.make_dataset("made")
    with pytest.raises(BigQueryUnusableError, match="fraud_alerts"):
        check_tables(dataset, [ALERTS])
    assert create_tables(dataset, [ALERTS, CLICKS]) == [ALERTS.name, ALERTS.view, CLICKS.name, CLICKS.view]
    assert create_tables(dataset, [CLICKS, SESSIONS]) == [SESSIONS.name, SESSIONS.view]
    assert create_tables(dataset, [ALERTS, CLICKS, SESSIONS]) == []
    check_tables(dataset, [ALERTS, CLICKS, SESSIONS])
    made = google_bigquery.Client(project=PROJECT).get_table(f"{dataset}.{SESSIONS.name}")
    assert (made.time_partitioning.type_, made.time_partitioning.field) == ("DAY", "session_start")
    assert made.clustering_fields == ["user_id", "session_id"]


@pytest.mark.parametrize(
    ("change", "why"),
    [
        ({"name": "other"}, "column risk_score is missing, and REQUIRED"),
        ({"type": "STRING"}, "column risk_score is STRING, not FLOAT64"),
        ({"mode": "REPEATED"}, "column risk_score is REPEATED, not REQUIRED"),
        ({"mode": "NULLABLE"}, None),
    ],
)
def test_a_table_with_other_columns_is_named_and_left_alone(
    bigquery: Emulator, change: dict[str, str], why: str | None
) -> None:
    dataset = bigquery.make_dataset("other_columns")
    table, _ = resources(ALERTS, dataset)
    next(field for field in table["schema"]["fields"] if field["name"] == "risk_score").update(change)
    google_bigquery.Client(project=PROJECT).create_table(google_bigquery.Table.from_api_repr(table))
    for look in (check_tables, create_tables):
        if why is None:
            look(dataset, [ALERTS])
        else:
            with pytest.raises(BigQueryUnusableError, match=why):
                look(dataset, [ALERTS])


def test_columns_that_a_table_lacks_are_added_and_rows_that_are_there_stay(bigquery: Emulator, tmp_path: Path) -> None:
    dataset = bigquery.make_dataset("grown")
    fewer = tuple(column for column in CLICKS.columns if column.name not in ("referrer", "quantity"))
    older = msgspec.structs.replace(CLICKS, columns=fewer)
    create_tables(dataset, [older])
    old = {name: value for name, value in versioned(click("c-1")).items() if name not in ("referrer", "quantity")}
    write(dataset, older, [old], tmp_path)
    with pytest.raises(BigQueryUnusableError, match=r"column quantity is missing, see .*tables alter"):
        check_tables(dataset, [CLICKS])
    assert alter_tables(dataset, [CLICKS]) == ["clickstream.quantity", "clickstream.referrer"]
    assert alter_tables(dataset, [CLICKS]) == []
    check_tables(dataset, [CLICKS])
    check_tables(dataset, [older])  # a job of the older release may be started again
    # The emulator changes the schema and not its storage: it takes no row after that.
    rows = google_bigquery.Client(project=PROJECT).list_rows(f"{dataset}.{CLICKS.name}", selected_fields=[FIRST])
    assert [row[0] for row in rows] == ["c-1"]


@pytest.mark.parametrize(
    ("change", "why"),
    [({"name": "other"}, "column page_url is missing, and REQUIRED"), ({"type": "INT64"}, "column page_url is INT64")],
)
def test_what_cannot_be_added_is_refused_in_one_line_and_nothing_is_changed(
    bigquery: Emulator, change: dict[str, str], why: str
) -> None:
    dataset = bigquery.make_dataset(f"not_grown_{len(change['name' if 'name' in change else 'type'])}")
    required = [msgspec.structs.replace(c, mode="REQUIRED") if c.name == "page_url" else c for c in CLICKS.columns]
    table, _ = resources(CLICKS, dataset)
    fields = table["schema"]["fields"] = [f for f in table["schema"]["fields"] if f["name"] != "referrer"]
    next(field for field in fields if field["name"] == "page_url").update(change)
    client = google_bigquery.Client(project=PROJECT)
    client.create_table(google_bigquery.Table.from_api_repr(table))
    before = client.get_table(f"{dataset}.{CLICKS.name}").schema
    with pytest.raises(BigQueryUnusableError, match=why) as refused:
        alter_tables(dataset, [msgspec.structs.replace(CLICKS, columns=tuple(required))])
    assert "\n" not in str(refused.value)
    assert client.get_table(f"{dataset}.{CLICKS.name}").schema == before


def test_a_service_that_cannot_be_reached_or_entered_is_said_in_one_line(
    bigquery: Emulator, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    with pytest.raises(BigQueryUnusableError, match="no_such_dataset"):
        check_tables(f"{PROJECT}.no_such_dataset", [ALERTS])
    monkeypatch.setenv("BIGQUERY_EMULATOR_HOST", f"http://127.0.0.1:{pick_free()}")
    with pytest.raises(BigQueryUnusableError) as refused:
        check_tables(f"{PROJECT}.d", [ALERTS])
    assert "\n" not in str(refused.value)
    monkeypatch.setenv("GOOGLE_APPLICATION_CREDENTIALS", str(tmp_path / "no-such-key.json"))
    with pytest.raises(BigQueryUnusableError, match=r"no-such-key\.json"):
        check_tables(f"{PROJECT}.d", [ALERTS])
