"""The fraud job from files to folders, in process: every output compared."""

from __future__ import annotations

import base64
import contextlib
import json
import random
from collections import Counter
from collections.abc import Iterator
from importlib.resources import files
from pathlib import Path
from typing import Any

import apache_beam as beam
import msgspec
import pytest
from confluent_kafka import Producer

from beam_pipelines.fraud import Config, build, main
from schemas import codec
from schemas.events import OrderEvent
from tests.build import HIGH, HOUR, LOW, MINUTE, T0, block, item, make_fetch, order
from tests.oracle import expected_alerts
from tests.outline import outline
from tests.rules_oracle import expected_of, expected_over_time
from tests.transforms.domain.test_rule_history import a_version, an_activation
from tests.transforms.io.test_kafka_rules import TOPIC, mock_broker
from transforms.domain.fraud import alert_id
from transforms.domain.fraud_rules import parse_rules
from transforms.domain.rule_history import RuleHistory
from transforms.sharded_rows import Decoding

EXAMPLE = Path(__file__).parents[2] / "docs" / "rules-example.yaml"
RULES = ["HIGH_VALUE_BURST", "RAPID_ORDERS", "HIGH_VALUE_FIRST_ORDER", "LOCATION_ANOMALY", "SUSPICIOUS_PATTERN"]


def golden() -> list[OrderEvent]:
    """A user for each rule, one just short of each, and traffic that is nobody's pattern."""
    orders = []

    def user(name: str, *offsets_ms: int, **fields: Any) -> None:
        for i, offset in enumerate(offsets_ms):
            each = {key: value[i] if isinstance(value, list) else value for key, value in fields.items()}
            orders.append(order(f"{name}-{i}", user=name, at=T0 + offset, **each))

    user("burst", 0, MINUTE, 5 * MINUTE, amount=HIGH)
    user("burst-short", 0, MINUTE, 5 * MINUTE + 1, amount=HIGH)
    user("burst-5000", 0, 3 * MINUTE, 6 * MINUTE, amount=500_000)
    user("rapid", 0, 1, 2, 3)
    user("first", 0, amount=HIGH, is_first_order=True)
    user("first-5000", 0, amount=500_000, is_first_order=True)
    user("moved", 0, 10 * MINUTE, region=["Istanbul", "Izmir"])
    user("moved-late", 0, 10 * MINUTE + 1, region=["Istanbul", "Izmir"])
    user("cancels", 0, 15 * MINUTE, 30 * MINUTE, status="CANCELLED")
    user("cancels-short", 0, 15 * MINUTE, 30 * MINUTE + 1, status="CANCELLED")
    user("Gülşen", 0, 1, 2, amount=HIGH, currency="EUR", region="Muğla")
    for i in range(60):
        user(f"quiet-{i}", i * MINUTE, (i + 11) * MINUTE, amount=LOW, status=["CREATED", "DELIVERED"])
    return orders


BAD = [
    (b"{", "decode", "Undecodable"),
    (b"\0", "decode", "Undecodable"),
    (b'{"order_id":"o-1"}', "decode", "NotThisRecord"),
    (codec.to_json(order(user="bad", total_amount_minor=-1)), "validate", "InvalidRecordError"),
    (codec.to_json(order(user="")), "validate", "InvalidRecordError"),
    (codec.to_json(order(currency="lira")), "validate", "InvalidRecordError"),
    (codec.to_json(order(at=4_000_000_000_000)), "validate", "InvalidRecordError"),
    (codec.to_json(order("\u00e9")).replace("é".encode(), b"\xe9"), "decode", "Undecodable"),
]


def rows(folder: Path) -> list[dict[str, Any]]:
    """All rows of a table; every file of it is named as one."""
    parts = sorted(folder.iterdir()) if folder.exists() else []
    assert all(part.name.startswith("part-") and part.suffix == ".jsonl" for part in parts)
    return [json.loads(line) for part in parts for line in part.read_bytes().splitlines()]


def write_jsonl(path: Path, lines: list[bytes]) -> None:
    path.parent.mkdir(exist_ok=True)
    path.write_bytes(b"".join(line + b"\n" for line in lines))


def write_avro(path: Path, orders: list[OrderEvent]) -> None:
    path.parent.mkdir(exist_ok=True)
    with path.open("wb") as out:
        codec.write_container(out, OrderEvent, orders)


def run(folder: Path, pattern: str, *flags: str) -> tuple[list[dict[str, Any]], list[dict[str, Any]], dict[str, int]]:
    """Alerts, dead letters and ledger of the job over files of the folder."""
    out, ledger = folder / "out", folder / "ledger.json"
    main([f"--input={folder / pattern}", f"--output={out}", f"--ledger={ledger}", "--runner=DirectRunner", *flags])
    assert not (out / "late").exists()
    assert {part.name for part in out.iterdir()} <= {"fraud_alerts", "dead_letters"}
    return rows(out / "fraud_alerts"), rows(out / "dead_letters"), json.loads(ledger.read_text())


def keys(alerts: list[dict[str, Any]]) -> list[tuple[str, str, str]]:
    return sorted((a["alert_type"], a["user_id"], a["order_id"]) for a in alerts)


def test_json_lines_with_bad_records_and_repeats_give_the_oracles_alerts_and_a_ledger_that_balances(
    tmp_path: Path,
) -> None:
    orders = golden()
    repeats = [o for o in orders if o.order_status != "DELIVERED"][:25]
    lines = [codec.to_json(o) for o in orders + repeats] + [payload for payload, _, _ in BAD]
    random.Random(1).shuffle(lines)
    half = len(lines) // 2
    write_jsonl(tmp_path / "in" / "a.jsonl", lines[:half])
    write_jsonl(tmp_path / "in" / "b.jsonl", lines[half:])
    alerts, dead_letters, ledger = run(tmp_path, "in/*.jsonl")

    expected = expected_alerts(orders)
    assert {rule for rule, _, _ in expected} == set(RULES)
    assert keys(alerts) == sorted(expected)
    assert {a["alert_id"] for a in alerts} == {alert_id(*key) for key in expected}
    assert all(a["version"] == a["event_time"] for a in alerts)

    found = Counter((base64.b64decode(d["payload"]), d["stage"], d["error_class"]) for d in dead_letters)
    assert found == Counter(BAD)
    for letter in dead_letters:
        path = Path(letter["topic"])
        line = path.read_bytes().split(b"\n")[letter["offset"]]
        assert base64.b64decode(letter["payload"]) == line
        assert (letter["job"], letter["partition"], letter["attempts"]) == ("fraud-detector", 0, 1)
        assert letter["error_message"]

    assert ledger == {
        "in": len(lines),
        "good": len(orders),
        "dead_letters": len(BAD),
        "late": 0,
        "duplicates": len(repeats),
        "lost": 0,
    }
    assert ledger["in"] == ledger["good"] + ledger["dead_letters"] + ledger["late"] + ledger["duplicates"]


def test_a_row_of_an_alert_has_the_fields_of_the_table(tmp_path: Path) -> None:
    write_avro(tmp_path / "in" / "orders.avro", [order(f"o-{i}", user="Gül", at=T0 + i) for i in (1, 2, 3)])
    (alert,), dead_letters, _ = run(tmp_path, "in/*")
    assert alert.pop("detected_at") > T0
    assert alert == {
        "alert_id": alert_id("RAPID_ORDERS", "Gül", "o-3"),
        "user_id": "Gül",
        "order_id": "o-3",
        "alert_type": "RAPID_ORDERS",
        "risk_score": 0.85,
        "description": "3 CREATED orders within 5 min",
        "amount_minor": LOW,
        "event_time": T0 + 3,
        "related_events": ["o-1", "o-2", "o-3"],
        "currency": "TRY",
        "version": T0 + 3,
    }
    assert dead_letters == []


def test_shuffled_avro_files_give_the_same_alert_ids_as_json_lines(tmp_path: Path) -> None:
    orders = golden()
    expected = {alert_id(*key) for key in expected_alerts(orders)}
    for seed in (1, 2):
        random.Random(seed).shuffle(orders)
        folder = tmp_path / f"shuffled-{seed}"
        for i in range(3):
            (folder / "in").mkdir(parents=True, exist_ok=True)
            write_avro(folder / "in" / f"{i}.avro", orders[i::3])
        alerts, dead_letters, ledger = run(folder, "in/*.avro")
        assert sorted(a["alert_id"] for a in alerts) == sorted(expected)
        assert dead_letters == []
        assert ledger == {
            "in": len(orders),
            "good": len(orders),
            "dead_letters": 0,
            "late": 0,
            "duplicates": 0,
            "lost": 0,
        }


def test_broken_avro_files_lose_only_what_is_broken(tmp_path: Path) -> None:
    orders = [order(f"o-{i}", user=f"u-{i % 2}", at=T0 + i) for i in range(6)]
    write_avro(tmp_path / "in" / "whole.avro", orders)
    whole = (tmp_path / "in" / "whole.avro").read_bytes()
    (tmp_path / "in" / "cut.avro").write_bytes(whole[:-20])
    (tmp_path / "in" / "flipped.avro").write_bytes(whole[:-60] + bytes(b ^ 0xFF for b in whole[-60:-50]) + whole[-50:])
    (tmp_path / "in" / "empty.avro").write_bytes(b"")
    (tmp_path / "in" / "text.avro").write_bytes(b"order_id;user_id\n")
    alerts, dead_letters, ledger = run(tmp_path, "in/*.avro")
    assert keys(alerts) == sorted(expected_alerts(orders))
    assert Counter(Path(d["topic"]).name for d in dead_letters) >= Counter(
        ["cut.avro", "flipped.avro", "empty.avro", "text.avro"]
    )
    assert ledger["good"] == len(orders)
    assert ledger["dead_letters"] == len(dead_letters)
    assert ledger["in"] == ledger["good"] + ledger["dead_letters"] + ledger["duplicates"]


def test_rules_and_folders_of_ones_own(tmp_path: Path) -> None:
    (tmp_path / "rules.yaml").write_text(
        "{version: 1, currency: TRY, rules: {PAIR: {kind: burst, orders: 2, within: 1s, risk_score: 0.5}}}"
    )
    orders = [order("o-1", at=T0), order("o-2", at=T0 + 1_000), order("o-3", at=T0 + 2_001)]
    write_jsonl(tmp_path / "orders.jsonl", [*map(codec.to_json, orders), b"junk"])
    main(
        [
            f"--input={tmp_path / 'orders.jsonl'}",
            f"--output={tmp_path / 'fraud_alerts'}",
            f"--dead_letters={tmp_path / 'refused'}",
            f"--rules={tmp_path / 'rules.yaml'}",
        ]
    )
    assert keys(rows(tmp_path / "fraud_alerts")) == [("PAIR", "u-1", "o-2")]
    assert [base64.b64decode(d["payload"]) for d in rows(tmp_path / "refused" / "dead_letters")] == [b"junk"]


def many(seed: int) -> list[OrderEvent]:
    """Orders of a few users, dense enough for each rule of docs/rules-example.yaml."""
    chance = random.Random(seed)
    return [
        order(
            f"o-{i:03}",
            user=chance.choice(["Gül", "u-1", "u-2", "u-3", "staff-purchases"]),
            at=T0 + chance.randrange(chance.choice([60, 20 * 60])) * MINUTE + chance.choice([0, 0, 1]),
            amount=chance.choice([4_999, 4_999, 5_000, 9_999, 100_000, 500_001, 1_500_000]),
            status=chance.choice(["CREATED", "CREATED", "CREATED", "CANCELLED", "SHIPPED"]),
            region=chance.choice(["Istanbul", "Istanbul", "İzmir"]),
            payment_method=chance.choice(["card", "card", "wallet", "transfer"]),
            is_first_order=chance.random() < 0.05,
            items=[
                item(category=chance.choice(["kitchen", "gift cards", "vouchers"]), quantity=chance.choice([1, 3]))
                for _ in range(chance.randrange(3))
            ],
        )
        for i in range(400)
    ]


@pytest.mark.parametrize("encoding", ["avro", "jsonl"])
def test_rules_of_version_2_find_the_oracles_alerts_by_columns_and_record_by_record(
    tmp_path: Path, encoding: str
) -> None:
    text = EXAMPLE.read_text(encoding="utf-8")
    orders = many(7) + [order(f"card-{i}", user="u-1", at=T0 + i * MINUTE, amount=4_999) for i in range(5)]
    expected = expected_of(text, orders)
    assert {name for name, *_ in expected} == {rule.name for rule in parse_rules(text).rules}
    delivered = orders + random.Random(8).sample(orders, 50)
    random.Random(9).shuffle(delivered)
    for i in range(3):
        some = delivered[i::3]
        if encoding == "avro":
            write_avro(tmp_path / "in" / f"{i}.avro", some)
        else:
            write_jsonl(tmp_path / "in" / f"{i}.jsonl", [codec.to_json(o) for o in some])
    alerts, dead_letters, ledger = run(tmp_path, f"in/*.{encoding}", f"--rules={EXAMPLE}")
    found = sorted((a["alert_type"], a["user_id"], a["order_id"], a["event_time"]) for a in alerts)
    assert found == expected
    assert {a["alert_id"] for a in alerts} == {alert_id(*key[:3]) for key in expected}
    assert dead_letters == []
    assert ledger["in"] == len(delivered) == ledger["good"] + ledger["duplicates"]
    assert ledger["duplicates"] > 10


def test_a_rules_file_that_cannot_be_used_stops_the_job_with_one_line(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    wrong = EXAMPLE.read_text(encoding="utf-8").replace("at_least: 4", "at_most: 4")
    (tmp_path / "rules.yaml").write_text(wrong, encoding="utf-8")
    with pytest.raises(SystemExit) as ended:
        main([f"--input={tmp_path}/*.jsonl", f"--output={tmp_path}/out", f"--rules={tmp_path / 'rules.yaml'}"])
    assert ended.value.code == 2
    said = capsys.readouterr().err
    assert "--rules" in said
    assert said.endswith(
        "CARD_TESTING: at_most: another order would undo the alert; rules are monotone, so that alerts "
        "do not depend on arrival order\n"
    )


def test_a_config_that_cannot_be_is_refused() -> None:
    for fields, why in (
        ({"allowed_lateness_ms": -1}, "allowed_lateness_ms"),
        ({"watermark_lead_ms": -1}, "watermark_lead_ms"),
        ({"shards": 0}, "shards"),
    ):
        with pytest.raises(ValueError, match=why):
            Decoding(**{"job": "j", "shards": 1, "allowed_lateness_ms": 0, "make_fetch": make_fetch} | fields)
    with pytest.raises(ValueError, match="max_orders_per_user must be at least 1"):
        Config(Decoding("j", 1, 0, make_fetch), max_orders_per_user=0)


STRICT = """{version: 2, currency: TRY, rules: {
  PAIR: {kind: count, at_least: 2, within: 20m, risk_score: 0.5},
  CHEAP_GLASS: {kind: count, at_least: 1, risk_score: 0.5,
    where: {items: {category: kitchen}, total_amount: {below: 200}}}
}}"""


@contextlib.contextmanager
def rules_topic(changes: list[tuple[int, str]]) -> Iterator[str]:
    """Its URL; on a mock broker, which keeps the times that the producer gives: all was written long before."""
    with mock_broker() as servers:
        producer = Producer({"bootstrap.servers": servers})
        texts = sorted({text for _, text in changes})
        entries: list[Any] = [a_version(number, text) for number, text in enumerate(texts, 1)]
        for number, (at_ms, text) in enumerate(changes, 1):
            entries.append(an_activation(number, texts.index(text) + 1, at_ms))
        for entry in entries:
            producer.produce(TOPIC, msgspec.json.encode(entry), partition=0, timestamp=T0 - HOUR)
        assert producer.flush(60) == 0
        yield f"kafka://{servers}/{TOPIC}"


def test_with_a_history_each_order_is_judged_by_the_version_in_force_at_its_own_time(tmp_path: Path) -> None:
    orders, default = golden(), files("transforms.domain").joinpath("fraud_rules.yaml").read_text()
    changes = [(T0 + 90_000, STRICT), (T0 + 12 * MINUTE, default)]
    shuffled = orders.copy()
    random.Random(2).shuffle(shuffled)
    write_avro(tmp_path / "in" / "a.avro", shuffled[::2])
    write_avro(tmp_path / "in" / "b.avro", shuffled[1::2])
    with rules_topic(changes) as url:
        alerts, _, ledger = run(tmp_path, "in/*.avro", f"--rules_topic={url}")
    expected = sorted(
        (rule, user, order_id) for rule, user, order_id, _ in expected_over_time(default, changes, orders)
    )
    assert keys(alerts) == expected
    assert {rule for rule, _, _ in expected} > {"PAIR", "CHEAP_GLASS", "SUSPICIOUS_PATTERN"}
    assert ledger["good"] == len(orders)


def test_a_topic_of_rules_that_cannot_be_used_stops_the_job_with_one_line(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    write_jsonl(tmp_path / "in.jsonl", [codec.to_json(order())])
    with rules_topic([(T0, "{version: 9, currency: TRY, rules: {}}")]) as newer:
        for given, why in (
            ("rules.fraud", "--rules_topic: is kafka://host:port/topic when --input is files"),
            ("kafka://127.0.0.1:1/rules.fraud", "--rules_topic: topic rules.fraud at 127.0.0.1:1: "),
            (newer, "version 1 of the rules: version: 9 is not known"),
        ):
            monkeypatch.setattr("transforms.io.kafka.rules._TIMEOUT_S", 0.5 if "127.0.0.1:1/" in given else 10.0)
            with pytest.raises(SystemExit) as stopped:
                run(tmp_path, "in.jsonl", f"--rules_topic={given}")
            assert stopped.value.code == 2
            assert why in capsys.readouterr().err.splitlines()[-1]


def test_a_savepoint_taken_with_a_history_is_one_taken_without() -> None:
    """Its parts are found by the names of steps, states and timers."""

    class Never:
        def known(self, _: int) -> RuleHistory:
            raise AssertionError

    def steps(histories: Never | None) -> str:
        pipeline = beam.Pipeline()
        decoding = Decoding("fraud-detector", 4, 0, make_fetch)
        build(pipeline | beam.Create([block([order()])]), Config(decoding, histories=histories))
        return outline(pipeline.to_runner_api())

    assert steps(None) == steps(Never())
