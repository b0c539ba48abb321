"""The revenue job from files to folders, in process: every output compared."""

from __future__ import annotations

import base64
import json
import random
from collections import Counter
from pathlib import Path
from typing import Any

import pytest

from beam_pipelines.revenue import Config, main
from beam_pipelines.sinks import topic_key
from schemas import codec
from schemas.events import OrderEvent, RevenueWindow
from schemas.jobs import TABLES
from simulator import __main__ as simulator
from tests.build import MINUTE, T0, item, make_fetch, order
from tests.oracle_revenue import Key, Revenue, expected_revenue
from transforms.sharded_rows import Decoding

START = T0 - T0 % MINUTE


def golden() -> list[OrderEvent]:
    """Minutes with their first and last millisecond, users with several orders, and orders that do not count."""
    tea, books = item(category="çay", total_price_minor=700), item(category="books", total_price_minor=300)
    return [
        order("o-1", user="u-1", at=START, amount=1_000, items=[tea, books], is_first_order=True),
        order("o-2", user="u-1", at=START + 59_999, amount=1_400, items=[tea, tea], region="İzmir"),
        order("o-3", user="Gül", at=START + 60_000, amount=300, items=[books]),
        order("o-4", user="Gül", at=START + 60_001, amount=0, items=[]),
        order("o-5", user="u-2", at=START, amount=9_999, status="CANCELLED"),
        order("o-1", user="u-1", at=START + 30_000, amount=1_000, status="CONFIRMED", items=[tea, books]),
    ]


BAD = [b"{", codec.to_json(order(user="")), codec.to_json(order(currency="lira"))]


def lines(folder: Path) -> list[bytes]:
    """All rows of a table; every file of it is named as one."""
    parts = sorted(folder.iterdir()) if folder.exists() else []
    assert all(part.name.startswith("part-") and part.suffix == ".jsonl" for part in parts)
    return [line for part in parts for line in part.read_bytes().splitlines()]


def run(folder: Path, pattern: str) -> tuple[list[dict[str, Any]], list[dict[str, Any]], dict[str, int]]:
    """Revenue, dead letters and ledger of the job over files of the folder."""
    out, ledger = folder / "out", folder / "ledger.json"
    main([f"--input={folder / pattern}", f"--output={out}", f"--ledger={ledger}", "--runner=DirectRunner"])
    assert {part.name for part in out.iterdir()} <= {"real_time_revenue", "dead_letters"}
    rows, letters = (list(map(json.loads, lines(out / table))) for table in ("real_time_revenue", "dead_letters"))
    return rows, letters, json.loads(ledger.read_text())


def figures(rows: list[dict[str, Any]]) -> dict[Key, Revenue]:
    """Of rows that are there once each."""
    found = {
        (r["window_start"], r["currency"], r["dimension"], r["value"]): Revenue(
            r["gmv_minor"], r["order_count"], r["unique_users"], r["first_time_orders"]
        )
        for r in rows
    }
    assert len(found) == len(rows)
    return found


def test_json_lines_with_bad_records_and_repeats_give_the_oracles_revenue_and_a_ledger_that_balances(
    tmp_path: Path,
) -> None:
    orders = golden()
    repeats = orders[:3]
    payloads = [codec.to_json(o) for o in orders + repeats] + BAD
    random.Random(1).shuffle(payloads)
    (tmp_path / "orders.jsonl").write_bytes(b"".join(payload + b"\n" for payload in payloads))
    rows, letters, ledger = run(tmp_path, "orders.jsonl")

    assert figures(rows) == expected_revenue(orders)
    assert Counter(base64.b64decode(letter["payload"]) for letter in letters) == Counter(BAD)
    assert {letter["job"] for letter in letters} == {"revenue-calculator"}
    assert ledger == {
        "in": len(payloads),
        "good": len(orders),
        "dead_letters": len(BAD),
        "late": 0,
        "duplicates": len(repeats),
        "lost": 0,
    }


def test_a_row_has_the_fields_of_the_table(tmp_path: Path) -> None:
    with (tmp_path / "orders.avro").open("wb") as out:
        codec.write_container(out, OrderEvent, golden())
    rows, letters, _ = run(tmp_path, "orders.avro")
    assert letters == []
    minute = {"window_start": START, "window_end": START + 60_000, "pane": "ON_TIME", "currency": "TRY"}
    found = [row for row in rows if row["window_start"] == START and row["dimension"] != "region"]
    assert sorted(found, key=lambda row: row["value"]) == [
        {
            **minute,
            "dimension": "total",
            "value": "*",
            "gmv_minor": 2_400,
            "order_count": 2,
            "unique_users": 1,
            "first_time_orders": 1,
            "version": 9,
        },
        {
            **minute,
            "dimension": "category",
            "value": "books",
            "gmv_minor": 300,
            "order_count": 1,
            "unique_users": 1,
            "first_time_orders": 1,
            "version": 5,
        },
        {
            **minute,
            "dimension": "category",
            "value": "çay",
            "gmv_minor": 2_100,
            "order_count": 2,
            "unique_users": 1,
            "first_time_orders": 1,
            "version": 9,
        },
    ]


def test_the_orders_of_the_simulator_give_the_oracles_revenue(tmp_path: Path) -> None:
    shop = [
        *("--rate=0", "--events=20000", "--seed=5", "--users=1000"),
        *("--topics=transactions.orders", "--event_rate=20", "--bad_share=0.02", "--duplicate_share=0.02"),
        "--currencies=TRY,EUR,JPY,KWD",
        *("--format=jsonl", f"--output={tmp_path}", f"--truth={tmp_path / 'truth'}"),
    ]
    assert simulator.main(shop) == 0
    rows, letters, ledger = run(tmp_path, "transactions.orders.jsonl")
    refused = Counter(base64.b64decode(letter["payload"]) for letter in letters)
    orders = [
        codec.from_json(line, OrderEvent)
        for line in (tmp_path / "transactions.orders.jsonl").read_bytes().split(b"\n")[:-1]
        if line not in refused
    ]
    assert figures(rows) == expected_revenue(orders)
    planted = [json.loads(line) for line in (tmp_path / "truth").read_text().splitlines()][-1]["topics"]
    assert ledger["dead_letters"] == planted["transactions.orders"]["bad"] == len(letters)
    created = Counter(each.order_id for each in orders if each.order_status == "CREATED")
    assert ledger["duplicates"] == created.total() - len(created) > 0
    assert ledger["in"] == 20_000 == ledger["good"] + ledger["dead_letters"] + ledger["duplicates"]


def test_rows_for_kafka_are_keyed_by_what_they_count() -> None:
    row = RevenueWindow(
        window_start=START,
        window_end=START + MINUTE,
        dimension="category",
        value="çay",
        gmv_minor=1,
        order_count=1,
        unique_users=1,
        first_time_orders=0,
        pane="EARLY",
        version=4,
        currency="JPY",
    )
    assert topic_key(TABLES["real_time_revenue"])(row) == "JPY:category:çay"


@pytest.mark.parametrize(
    ("flag", "why"),
    [
        ("--early_every=500ms", "--early_every: 500ms is not a whole number of seconds, at least 1s"),
        ("--early_every=0s", "--early_every: 0s is not a whole number of seconds, at least 1s"),
        ("--early_every=soon", "--early_every: 'soon' is not a duration"),
    ],
)
def test_a_wrong_flag_stops_the_job_before_it_starts(flag: str, why: str, capsys: Any) -> None:
    with pytest.raises(SystemExit) as stopped:
        main(["--input=orders.jsonl", "--output=out", flag])
    assert stopped.value.code == 2
    assert capsys.readouterr().err.startswith(f"beam_pipelines.revenue: {why}")


def test_a_config_that_cannot_be_is_refused() -> None:
    decoding = Decoding("j", 1, 0, make_fetch)
    with pytest.raises(ValueError, match="early_every_s"):
        Config(decoding, early_every_s=0)
