"""The CDC job from files to folders, in process: every output compared."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

import tests
from beam_pipelines.cdc import main
from tests.beam_pipelines.test_fraud import rows
from tests.build import T0
from tests.changes import CUSTOMER, ITEM, MOVEMENT, ORDER, envelope, product, record
from transforms.domain.cdc import alert_of, parse, product_of

REAL = Path(tests.__file__).parent / "cdc" / "records.jsonl"
KEY = b"0123456789abcdef"


def line(key: bytes | None, value: bytes | None) -> bytes:
    """As in records.jsonl: the record's bytes as text."""
    return json.dumps({"key": key and key.decode(), "value": value and value.decode()}).encode()


def run(folder: Path, *flags: str) -> tuple[dict[str, list[dict[str, Any]]], dict[str, int]]:
    """Rows of each output's folder, and the ledger."""
    out, ledger = folder / "out", folder / "ledger.json"
    main([f"--output={out}", f"--ledger={ledger}", "--runner=DirectRunner", *flags])
    return {part.name: rows(part) for part in out.iterdir()}, json.loads(ledger.read_text())


def current(changes: list[dict[str, Any]]) -> dict[tuple[str, str], Any]:
    """The rows of view cdc_changes_current, by table and key."""
    newest: dict[tuple[str, str], dict[str, Any]] = {}
    emptied: dict[str, str] = {}
    for row in changes:
        if row["op"] == "t":
            emptied[row["table_name"]] = max(row["version"], emptied.get(row["table_name"], ""))
        place = (row["table_name"], row["key"])
        if place not in newest or newest[place]["version"] < row["version"]:
            newest[place] = row
    return {
        place: json.loads(row["after"])
        for place, row in newest.items()
        if not row["deleted"] and row["version"] >= emptied.get(place[0], "")
    }


CHANGES = [
    record("r", "products", None, product(), lsn=100, snapshot="first"),
    record("r", "customers", None, CUSTOMER, lsn=100, snapshot="true"),
    record("c", "orders", None, ORDER, lsn=130),
    record("c", "order_items", None, ITEM, lsn=140),
    record("u", "products", product(), product(stock=10), lsn=150, at=T0 + 1),
    record("u", "products", product(stock=10), product(stock=9), lsn=151),
    record("u", "products", product(stock=9), product(stock=40), lsn=152),
    record("u", "products", product(stock=40), product(stock=0, rating=5), lsn=153, at=T0 + 2),
    record("c", "inventory_movements", None, MOVEMENT, lsn=160),
    record("d", "orders", ORDER, lsn=170, commit=165),
    (b'{"order_id":"o-1"}', None),
    record("t", "order_items", lsn=180, commit=175),
    record("c", "products", None, product(product_id="p-2", stock=1), lsn=190, commit=185),
]
BAD = [
    b"\0",
    b"{",
    b"7",
    line(b"{}", b"{"),
    line(b"{}", b"\xc3\xa9"),
    line(*record("u", "secrets", None, None)),
    line(None, json.dumps(envelope("u", "products", None, product(stock="many"))).encode()),
    line(None, json.dumps(envelope("u", "customers", CUSTOMER, {**CUSTOMER, "customer_id": ""})).encode()),
    line(b'{"order_id":"o-1"}', json.dumps(envelope("d", "orders")).encode()),
]


@pytest.mark.parametrize("reverse", [False, True])
def test_changes_become_a_history_alerts_and_dead_letters_in_whatever_order(tmp_path: Path, reverse: bool) -> None:
    lines = [line(*each) for each in CHANGES] + BAD
    lines += lines[4:5]  # a repeat
    if reverse:
        lines.reverse()
    (tmp_path / "in.jsonl").write_bytes(b"".join(each + b"\n" for each in lines))
    found, ledger = run(tmp_path, f"--input={tmp_path}/in.jsonl")
    assert found.keys() == {"cdc_changes", "low_stock_alerts", "dead_letters"}

    wanted = [product_of(parse(*CHANGES[i])) for i in (4, 7, 12)]  # type: ignore[arg-type]
    alerts = {row["alert_id"]: row for row in found["low_stock_alerts"]}
    assert alerts.keys() == {alert_of(each).alert_id for each in wanted}
    assert [(row["stock"], row["event_time"]) for row in sorted(alerts.values(), key=lambda r: r["version"])] == [
        (10, T0 + 1),
        (0, T0 + 2),
        (1, T0),
    ]
    assert current(found["cdc_changes"]) == {
        ("products", '{"product_id":"p-1"}'): product(stock=0, rating=5),
        ("products", '{"product_id":"p-2"}'): product(product_id="p-2", stock=1),
        ("customers", '{"customer_id":"k-1"}'): {
            name: CUSTOMER[name] for name in ("customer_id", "region", "created_at", "updated_at")
        },
        ("inventory_movements", '{"movement_id":1}'): MOVEMENT,
    }
    assert len(found["cdc_changes"]) == len(CHANGES)  # all but the tombstone, and one twice

    letters = found["dead_letters"]
    assert len(letters) == len(BAD)
    assert {(row["job"], row["stage"], row["error_class"]) for row in letters} == {
        ("cdc-processor", "decode", "MalformedChangeError")
    }
    for secret in ("ayse", "Yılmaz", "555 000"):
        assert secret not in json.dumps(found, ensure_ascii=False)
    assert ledger["in"] == len(lines) == sum(ledger.values()) - ledger["in"]
    assert (ledger["dead_letters"], ledger["late"]) == (len(BAD), 0)
    # Turned round, what is older than what is known counts as seen.
    assert ledger["duplicates"] == (4 if reverse else 1)


def test_real_records_give_a_row_for_each_that_is_no_tombstone(tmp_path: Path) -> None:
    real = [json.loads(each) for each in REAL.read_text(encoding="utf-8").splitlines()]
    key = tmp_path / "key"
    key.write_bytes(KEY + b"\n")
    found, ledger = run(tmp_path, f"--input={REAL}", f"--hash_key={key}")
    assert len(found["cdc_changes"]) == sum(each["value"] is not None for each in real)
    assert ledger == {"in": len(real), "good": len(real), "dead_letters": 0, "late": 0, "duplicates": 0, "lost": 0}
    assert found.keys() == {"cdc_changes", "low_stock_alerts"}
    emails = {
        json.loads(row["after"]).get("email")
        for row in found["cdc_changes"]
        if row["table_name"] == "customers"
        if row["after"]
    }
    assert len(emails) > 5
    assert all(len(each) == 64 for each in emails)


def test_bare_envelopes_and_objects_are_lines_too(tmp_path: Path) -> None:
    (tmp_path / "in.jsonl").write_text(
        json.dumps(envelope("c", "products", None, product(stock=1)))
        + "\n"
        + json.dumps({"key": {"product_id": "p-1"}, "value": envelope("d", "products", lsn=101)})
        + "\n"
        + json.dumps({"key": {"product_id": "p-1"}, "value": None})
        + "\n"
        + json.dumps(
            {"value": envelope("c", "products", None, product(), lsn=102), "headers": [["__debezium.oldkey", "{}"]]}
        )
        + "\n"
    )
    found, ledger = run(tmp_path, f"--input={tmp_path}/in.jsonl")
    assert (ledger["in"], ledger["good"]) == (4, 4)
    assert [row["stock"] for row in found["low_stock_alerts"]] == [1]
    assert current(found["cdc_changes"]) == {("products", '{"product_id":"p-1"}'): product()}


@pytest.mark.parametrize(
    ("flags", "names"),
    [
        (["--input=nowhere/*.jsonl", "--output=out"], "--input: no file matches"),
        (["--input={here}/x.avro", "--output=out"], ".avro: cdc-processor reads .jsonl files"),
        (["--input={here}/in.jsonl", "--input={here}/in.jsonl", "--output=out"], "--input: names something twice"),
        (["--input={here}/in.jsonl", "--input=kafka://h:1/t", "--output=out"], "--input: is either topics or files"),
        (["--input={here}/in.jsonl"], "--output: is needed"),
        (["--input={here}/in.jsonl", "--output=out", "--hash_key={here}/none"], "--hash_key: "),
        (["--input={here}/in.jsonl", "--output=out", "--hash_key={here}/short"], "less than 16 bytes"),
        (["--input={here}/in.jsonl", "--output=out", "--hash=x"], "--hash: no such flag; did you mean --hash_key?"),
    ],
)
def test_a_wrong_flag_stops_the_job_with_one_line_that_names_it(
    tmp_path: Path, flags: list[str], names: str, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "in.jsonl").write_bytes(line(*CHANGES[0]))
    (tmp_path / "x.avro").write_bytes(b"")
    (tmp_path / "short").write_bytes(b"secret\n")
    with pytest.raises(SystemExit) as ended:
        main([flag.format(here=tmp_path) for flag in flags])
    assert ended.value.code == 2
    error = capsys.readouterr().err
    assert names in error
    assert error.count("\n") == 1
    assert "secret" not in error
