"""The archive job from files to files, in process: every output compared, and read again by other jobs."""

from __future__ import annotations

import base64
import json
import random
from pathlib import Path
from typing import Any

import fastavro
import pytest

from beam_pipelines import fraud
from beam_pipelines.archive import JOB, Config, main
from beam_pipelines.sinks import to_line
from bench.orders import Spec, generate
from schemas import codec
from schemas.events import ClickstreamEvent, InventoryEvent, OrderEvent
from schemas.tables import TABLES, to_bigquery
from tests import live
from tests.build import HOUR, T0, click, inventory, make_fetch, order
from tests.oracle import expected_alerts
from transforms.sharded_rows import Decoding

ORDERS = [order(f"o-{i}", user=f"u-{i % 3}", at=T0 + i * HOUR // 4) for i in range(8)]
CLICKS = [click(f"c-{i}", user=f"u-{i % 3}", at=T0 + i * HOUR // 3, price_minor=i or None) for i in range(9)]
BAD = [b"{", b"\0", codec.to_json(order(user="")), codec.to_json(click(quantity=0))]


def write_jsonl(path: Path, lines: list[bytes]) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(b"".join(line + b"\n" for line in lines))


def write_avro(path: Path, records: list[Any]) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("wb") as out:
        codec.write_container(out, type(records[0]), records)


def archived(folder: Path, record: type) -> list[Any]:
    """What lies in the files of a table, each in the folder of its hour."""
    found = []
    for path in sorted(folder.rglob("*")):
        if path.is_file():
            with path.open("rb") as stream:
                for fields in fastavro.reader(stream):
                    at = fields["event_time"]
                    assert path.parent == folder / f"day={at:%Y-%m-%d}" / f"hour={at:%H}"
                    fields["event_time"] = round(at.timestamp() * 1000)
                    found.append(codec.from_fields(fields, record))
    return found


def by_time(records: Any) -> list[Any]:
    return sorted(records, key=lambda record: (record.event_time, repr(record)))


def content(folder: Path) -> dict[str, bytes]:
    return {str(p.relative_to(folder)): p.read_bytes() for p in folder.rglob("*.avro")}


def test_orders_and_clicks_are_kept_once_by_hour_and_everything_else_is_accounted_for(tmp_path: Path) -> None:
    lines = [*map(codec.to_json, ORDERS + ORDERS[:3]), BAD[2]]
    random.Random(1).shuffle(lines)
    write_jsonl(tmp_path / "in" / "a.jsonl", lines[:6])
    write_jsonl(tmp_path / "in" / "b.jsonl", [BAD[0], *lines[6:]])
    write_avro(tmp_path / "in" / "shipped.avro", [order("o-1", at=T0, status="SHIPPED")])
    write_jsonl(tmp_path / "in" / "clicks.jsonl", [BAD[1], *map(codec.to_json, CLICKS[:5]), BAD[3]])
    write_avro(tmp_path / "in" / "more" / "clicks.avro", CLICKS[3:])
    out, ledger = tmp_path / "out", tmp_path / "ledger.json"
    flags = [f"--input={tmp_path / 'in' / '*.*'}", f"--input={tmp_path / 'in' / 'more'}", f"--output={out}"]
    main([*flags, f"--ledger={ledger}", "--runner=DirectRunner"])

    expected_orders = by_time([*ORDERS, order("o-1", at=T0, status="SHIPPED")])
    assert by_time(archived(out / "orders", OrderEvent)) == expected_orders
    assert by_time(archived(out / "clickstream", ClickstreamEvent)) == CLICKS
    letters = [json.loads(line) for part in (out / "dead_letters").iterdir() for line in part.read_bytes().splitlines()]
    assert sorted(base64.b64decode(letter["payload"]) for letter in letters) == sorted(BAD)
    assert {letter["job"] for letter in letters} == {"archiver"}
    assert sorted(path.name for path in out.iterdir()) == ["clickstream", "dead_letters", "orders"]
    assert json.loads(ledger.read_text()) == {
        "in": 27,
        "good": 18,
        "dead_letters": 4,
        "late": 0,
        "duplicates": 5,
        "lost": 0,
    }

    before = content(out)
    main([*flags, "--runner=DirectRunner"])
    assert content(out) == before


def test_another_job_over_the_archives_folder_gives_what_it_gives_over_the_records(tmp_path: Path) -> None:
    spec = Spec(orders=4_000, users=300, duplicates=60)
    orders = list(generate(spec).events())
    write_avro(tmp_path / "orders.avro", orders)
    flags = [f"--input={tmp_path / 'orders.avro'}", f"--output={tmp_path / 'archive'}", "--records_per_file=1000"]
    main([*flags, f"--ledger={tmp_path / 'archived.json'}"])
    assert len(content(tmp_path / "archive")) >= 4
    for i, pattern in enumerate(("archive/orders", "archive/orders/**", "archive/orders/day=*/hour=*/*.avro")):
        out, ledger = tmp_path / f"out{i}", tmp_path / f"ledger{i}.json"
        fraud.main([f"--input={tmp_path / pattern}", f"--output={out}", f"--ledger={ledger}"])
        assert live.alerts_in_folder(out) == expected_alerts(orders)
        counts = json.loads(ledger.read_text())
        assert counts["in"] == counts["good"] == json.loads((tmp_path / "archived.json").read_text())["good"]


def test_a_row_of_a_record_is_one_of_its_table() -> None:
    for table, record in (("orders", ORDERS[0]), ("clickstream", CLICKS[1])):
        row = json.loads(to_line("orders")(record))
        assert row["version"] == row["event_time"] == record.event_time
        assert to_bigquery(TABLES[table], row).keys() == row.keys()


@pytest.mark.parametrize(
    ("flags", "why"),
    [
        (
            ["--output=redis://h:1/0", "--dead_letters=a", "--late=a"],
            "--output: redis://h:1/0: archiver has nothing for that; it writes to bigquery://project.dataset "
            "and a folder",
        ),
        (["--output=kafka://h:1/t"], "--output: kafka://h:1/t: archiver has nothing for that"),
        (["--output=a", "--output=b"], "--output: names two folders; the files are in one"),
        ([], "--output: is needed when --input is files"),
        (["--output=a", "--records_per_file=0"], "--records_per_file: 0 is not a whole number of at least 1"),
        (["--output=a", "--input=movements.avro"], "movements.avro holds InventoryEvent, which is not archived"),
        (["--output=a", "--input=kafka://h:1/t"], "--input: is either topics or files, not both"),
        (["--output=a", "--input=nothing/**"], "--input: no file matches nothing/**"),
    ],
)
def test_what_cannot_be_archived_is_refused_in_one_line(
    flags: list[str], why: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    write_avro(tmp_path / "orders.avro", ORDERS)
    with (tmp_path / "movements.avro").open("wb") as out:
        codec.write_container(out, InventoryEvent, [inventory()])
    with pytest.raises(SystemExit) as stopped:
        main(["--input=orders.avro", *flags])
    assert stopped.value.code == 2
    (line,) = capsys.readouterr().err.splitlines()
    assert why in line


@pytest.mark.parametrize(
    ("flags", "why"),
    [
        (["--flush_every=500ms"], "--flush_every: 500ms is less than a second"),
        (["--flush_every=often"], "--flush_every: "),
        (["--input=kafka://h:1/movements"], "its name has neither order nor click in it"),
    ],
)
def test_what_only_topics_have_is_refused_in_one_line(
    flags: list[str], why: str, capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(SystemExit) as stopped:
        main(flags)
    assert stopped.value.code == 2
    assert why in capsys.readouterr().err


def test_a_config_that_cannot_be_is_refused() -> None:
    decoding = Decoding("j", 1, 0, make_fetch)
    for fields in ({"records_per_file": 0}, {"flush_every_s": 0}):
        (name,) = fields
        with pytest.raises(ValueError, match=name):
            Config(decoding, None, **fields)


def test_the_job_reads_both_topics_and_writes_into_the_local_stacks_folder() -> None:
    assert (JOB.name, JOB.topics, JOB.output_folder) == (
        "archiver",
        ("transactions.orders", "clickstream.events"),
        ".stack/archive",
    )


def test_a_file_of_messages_that_a_mapping_makes_both_of_is_archived_as_both(tmp_path: Path) -> None:
    at = {"type": "track", "userId": "u-1", "timestamp": "2026-09-21T14:00:00Z"}
    bought = {"order_id": "o-1", "currency": "EUR", "total": 12.5}
    lines = [
        {**at, "event": "Product Viewed", "messageId": "m-1", "properties": {"product_id": "p-1"}},
        {**at, "event": "Order Completed", "messageId": "m-2", "properties": bought},
        {**at, "event": "Order Cancelled", "messageId": "m-3", "properties": bought},
    ]
    write_jsonl(tmp_path / "events.jsonl", [json.dumps(line).encode() for line in lines])
    out, ledger = tmp_path / "out", tmp_path / "ledger.json"
    flags = [f"--input={tmp_path / 'events.jsonl'}", f"--output={out}", f"--ledger={ledger}", "--mapping=segment"]
    main([*flags, "--runner=DirectRunner"])
    orders = {each.order_status: each.total_amount_minor for each in archived(out / "orders", OrderEvent)}
    assert orders == {"CREATED": 1_250, "CANCELLED": 1_250}
    assert {each.event_id for each in archived(out / "clickstream", ClickstreamEvent)} == {"m-1", "m-2"}
    assert json.loads(ledger.read_text()) == {
        "in": 4, "good": 4, "dead_letters": 0, "late": 0, "duplicates": 0, "lost": 0, "ignored": 2
    }  # fmt: skip
