"""The backtest as a command: the alerts that the fraud job gives over the same files, and figures that add up."""

from __future__ import annotations

import importlib
import json
import multiprocessing
import os
import random
import re
import shlex
import subprocess
import sys
from collections import Counter
from pathlib import Path
from typing import Any, get_args

import pytest
import yaml
from hypothesis import given, settings
from hypothesis import strategies as st

from beam_pipelines import backtest, backtest_run, fraud
from schemas import codec
from schemas.currencies import number_of
from schemas.events import OrderEvent, OrderStatus, avro_schema
from tests.beam_pipelines.test_fraud import BAD, RULES, golden, rows, write_avro, write_jsonl
from tests.build import HIGH, HOUR, LOW, MINUTE, T0, order
from tests.live import ROOT
from tests.oracle import expected_alerts
from transforms.domain.archive import File, sort_out
from transforms.domain.fraud import Detector, UserOrders, alert_id, order_flags
from transforms.domain.fraud_rules import default_rules, parse_rules
from transforms.io.archive_files import container
from transforms.keyed_state import shard_of

SCHEMA = codec.parse_schema(avro_schema("OrderEvent"))
STATUSES = get_args(OrderStatus)
DAY = 24 * HOUR


def archive(folder: Path, orders: list[OrderEvent], partitions: int = 3, records_per_file: int = 40) -> Path:
    """As the archiver writes it, in order of arrival."""
    taken: list[list[OrderEvent]] = [[] for _ in range(partitions)]
    for o in orders:
        taken[shard_of(o.user_id.encode(), partitions)].append(o)
    for number, of_partition in enumerate(taken):
        files: dict[File, Any] = {}
        data = [(i, o.event_time, "", codec.encode_datum(o, SCHEMA)) for i, o in enumerate(of_partition)]
        sort_out(data, records_per_file, files)
        for file, contents in files.items():
            name = file.path(f"transactions.orders-{number:05}")
            path = folder / "orders" / name
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_bytes(container(OrderEvent, contents.blocks(), name))
    (folder / "accounts" / "orders").mkdir(parents=True)
    (folder / "accounts" / "orders" / "x.json").write_text("{}")
    return folder


def run(folder: Path, *flags: str, status: int = 0) -> tuple[dict[str, Any], list[dict[str, Any]]]:
    """The report and the alerts."""
    out, alerts = folder / "report.json", folder / "alerts.jsonl"
    words = [*flags, f"--json={out}", f"--alerts={alerts}"]
    if not any(word.startswith("--workers") for word in words):
        words.append("--workers=1")
    assert backtest.main(words) == status
    return json.loads(out.read_bytes()), [json.loads(line) for line in alerts.read_bytes().splitlines()]


def stopped(capsys: pytest.CaptureFixture[str], *flags: str) -> str:
    """What a wrong flag is answered."""
    with pytest.raises(SystemExit) as end:
        backtest.main(list(flags))
    assert end.value.code == 2
    said = capsys.readouterr().err
    assert said.count("\n") == 1
    return said


def traffic(seed: int, count: int) -> list[OrderEvent]:
    rng = random.Random(seed)
    return [
        order(
            f"o-{i}",
            user=f"ü-{rng.randrange(count // 12)}",
            at=T0 + rng.randrange(3 * HOUR),
            amount=rng.choice((LOW, HIGH, HIGH - 1)),
            status=rng.choice((*STATUSES, *["CREATED"] * 6)),
            region=rng.choice(("Istanbul", "Istanbul", "Izmir")),
            currency=rng.choice(("TRY", "TRY", "EUR")),
            is_first_order=rng.random() < 0.1,
        )
        for i in range(count)
    ]


amounts = st.sampled_from([100, 5000, 5000.01, {"TRY": 5000, "EUR": 100}, {"EUR": 5001}])
within = st.sampled_from(["1m", "5m", "30m", "90m"])
rule = st.one_of(
    st.fixed_dictionaries(
        {"kind": st.just("burst"), "orders": st.integers(2, 4), "within": within, "risk_score": st.just(0.5)},
        optional={"status": st.sampled_from(STATUSES), "above": amounts},
    ),
    st.fixed_dictionaries({"kind": st.just("first_order"), "above": amounts, "risk_score": st.just(0.5)}),
    st.fixed_dictionaries({"kind": st.just("location_change"), "within": within, "risk_score": st.just(1)}),
)
rule_sets = st.dictionaries(st.sampled_from(["A", "B", "C", "D"]), rule, min_size=1)


def rules_file(path: Path, rules: dict[str, Any]) -> Path:
    path.write_text(yaml.safe_dump({"version": 1, "currency": "TRY", "rules": rules}))
    return path


def arriving(orders: list[OrderEvent], rules: Path) -> Counter[str]:
    """Ids of the alerts of orders as they arrive in a stream."""
    detector = Detector(parse_rules(rules.read_text()))
    users: dict[str, UserOrders] = {}
    found: Counter[str] = Counter()
    for o in orders:
        flags = order_flags(STATUSES.index(o.order_status), int(o.is_first_order), number_of(o.currency))
        row = (o.event_time, o.order_id, flags, o.total_amount_minor, o.shipping_region)
        known = users.setdefault(o.user_id, [])
        if detector.add(known, row):
            found.update(a.alert_id for a in detector.completed(o.user_id, known, row, 0))
    return found


def test_the_alerts_are_those_of_the_job_over_the_same_archive(tmp_path: Path) -> None:
    orders = [*golden(), *traffic(1, 600)]
    random.Random(2).shuffle(orders)
    orders += random.Random(3).sample(orders, 60)
    data = archive(tmp_path / "archive", orders)
    fraud.main([f"--input={data}/orders/**", f"--output={tmp_path / 'out'}", "--runner=DirectRunner"])
    of_job = {a["alert_id"]: a for a in rows(tmp_path / "out" / "fraud_alerts")}
    report, alerts = run(tmp_path, "--rules=current", f"--input={data}")
    assert Counter(a["alert_id"] for a in alerts) == Counter(of_job.keys())
    assert {alert_id(*key) for key in expected_alerts(orders)} == of_job.keys()
    # All but what depends on when and in which order it was found.
    same = ("user_id", "order_id", "alert_type", "risk_score", "amount_minor", "currency", "event_time")
    assert all(alert[name] == of_job[alert["alert_id"]][name] for alert in alerts for name in same)
    assert {r["name"]: r["alerts"] for r in report["rules"]["rules"]} == Counter(a["alert_type"] for a in alerts)
    assert all(r["alerts"] for r in report["rules"]["rules"])
    assert report["rules"]["orders"] == len({(a["user_id"], a["order_id"]) for a in alerts})
    assert report["read"] == {
        "files": len(list(data.rglob("*.avro"))),
        "records": len(orders),
        "counted": len(orders) - 60,
        "repeats": 60,
        "outside": 0,
        "bad": 0,
        "reasons": [],
        "unreadable": {},
    }


@settings(max_examples=25)
@given(rule_sets, st.integers(0, 1 << 30))
def test_random_rules_give_the_alerts_of_orders_as_they_arrive(
    tmp_path_factory: pytest.TempPathFactory, rules: dict[str, Any], seed: int
) -> None:
    folder = tmp_path_factory.mktemp("random")
    file = rules_file(folder / "rules.yaml", rules)
    orders = traffic(seed, 150)
    orders += random.Random(seed).sample(orders, 20)
    report, alerts = run(folder, f"--rules={file}", f"--input={archive(folder / 'archive', orders)}")
    assert Counter(a["alert_id"] for a in alerts) == arriving(orders, file)
    assert report["rules"]["alerts"] == len(alerts)


def test_neither_workers_nor_how_files_are_split_nor_repeats_change_a_figure(tmp_path: Path) -> None:
    orders = traffic(7, 800)
    chosen = random.Random(1).sample(orders, 90)
    labels = tmp_path / "labels.csv"
    labels.write_text("order_id\n" + "".join(f"{o.order_id}\n" for o in chosen))
    new = rules_file(
        tmp_path / "new.yaml",
        {
            "RAPID_ORDERS": {"kind": "burst", "orders": 2, "within": "3m", "risk_score": 1},
            "LOCATION_ANOMALY": {"kind": "location_change", "within": "4m", "risk_score": 1},
        },
    )
    flags = (f"--rules={new}", "--against=current", f"--labels={labels}")
    first = archive(tmp_path / "a", orders)
    reports = [run(tmp_path, *flags, f"--input={first}", f"--workers={n}") for n in (1, 2, 3)]
    assert reports[0] == reports[1] == reports[2]
    report, alerts = reports[0]
    assert all(change["orders"] for change in report["changes"])
    assert all(change["hits"]["frauds"] for change in report["changes"])

    again = [*orders[::-1], *orders[100:300]]
    other, of_other = run(tmp_path, *flags, f"--input={archive(tmp_path / 'b', again, 5, 7)}", "--workers=2")
    write_jsonl(tmp_path / "c" / "x.jsonl", [codec.to_json(o) for o in again])
    lines, of_lines = run(tmp_path, *flags, f"--input={tmp_path / 'c'}")
    for each, found in ((other, of_other), (lines, of_lines)):
        assert each["read"]["repeats"] == 200
        assert {a["alert_id"] for a in found} == {a["alert_id"] for a in alerts}
        assert {**each, "archive": 0, "read": 0} == {**report, "archive": 0, "read": 0}


def test_workers_that_are_started_anew_find_the_same(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """As on systems that do not fork."""
    data = archive(tmp_path / "archive", traffic(7, 300))
    forked = run(tmp_path, "--rules=current", f"--input={data}", "--workers=2")
    pool = backtest_run.ProcessPoolExecutor
    spawn = multiprocessing.get_context("spawn")
    monkeypatch.setattr(backtest_run, "ProcessPoolExecutor", lambda n, **more: pool(n, mp_context=spawn, **more))
    assert run(tmp_path, "--rules=current", f"--input={data}", "--workers=2") == forked


def test_bad_records_and_files_are_counted_and_named(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    write_jsonl(tmp_path / "in" / "a.jsonl", [codec.to_json(o) for o in golden()] + [payload for payload, _, _ in BAD])
    (tmp_path / "in" / "broken.avro").write_bytes(b"Obj\x01 nothing else")
    write_avro(tmp_path / "in" / "b.avro", golden()[:10])
    report, alerts = run(tmp_path, "--rules=current", f"--input={tmp_path / 'in'}")
    assert {(a["alert_type"], a["user_id"], a["order_id"]) for a in alerts} == expected_alerts(golden())
    read = report["read"]
    assert (read["files"], read["records"], read["counted"]) == (3, len(golden()) + 10 + len(BAD), len(golden()))
    assert (read["repeats"], read["bad"]) == (10, len(BAD))
    assert {r["error_class"]: r["count"] for r in read["reasons"]} == Counter(error for _, _, error in BAD)
    assert all("a.jsonl, record" in r["example"] for r in read["reasons"])
    assert [Path(path).name for path in read["unreadable"]] == ["broken.avro"]
    said = capsys.readouterr()
    assert "broken.avro: the header is broken" in said.out
    assert "1 files could not be read" in said.err


def test_days_are_counted_from_one_to_another_with_what_came_before_them(tmp_path: Path) -> None:
    midnight = T0 - T0 % DAY + DAY  # of 2026-09-22
    orders = [order(f"o-{i}", at=midnight + at) for i, at in enumerate((-2 * MINUTE, -MINUTE, 0, 1, DAY - 1, DAY))]
    orders += [order("far", at=midnight - 5 * DAY, user="u-2")]
    data = archive(tmp_path / "archive", orders)
    report, alerts = run(tmp_path, "--rules=current", f"--input={data}", "--from=2026-09-22", "--to=2026-09-22")
    assert [a["order_id"] for a in alerts] == ["o-2", "o-3"]
    assert report["shop_orders"] == 3
    assert [(d["day"], d["shop_orders"], d["orders"]) for d in report["days"]] == [("2026-09-22", 3, 2)]
    read = report["read"]
    assert (read["records"], read["counted"], read["outside"]) == (5, 3, 2)  # the files of other hours are not read
    later, found = run(tmp_path, "--rules=current", f"--input={data}", "--from=2026-09-22", "--time_zone=Asia/Tokyo")
    assert [d["day"] for d in later["days"]] == ["2026-09-22", "2026-09-23"]
    assert [a["order_id"] for a in found] == ["o-2", "o-3"]


def test_labels_judge_the_alerts_and_the_simulators_truth_is_found_whole(tmp_path: Path) -> None:
    truth = tmp_path / "truth.jsonl"
    simulator = [
        *(sys.executable, "-m", "simulator", "--rate=0", "--events=2000", "--seed=5", "--users=300"),
        *("--topics=transactions.orders", "--fraud_share=0.2", "--duplicate_share=0.05", "--bad_share=0.02"),
        *(f"--output={tmp_path / 'in'}", "--format=jsonl", f"--truth={truth}"),
    ]
    subprocess.run(simulator, check=True, capture_output=True, cwd=ROOT)
    planted = {line["order_id"] for line in map(json.loads, truth.read_text().splitlines()) if line["kind"] == "fraud"}
    report, alerts = run(tmp_path, "--rules=current", f"--input={tmp_path / 'in'}", f"--labels={truth}")
    flagged = {a["order_id"] for a in alerts}
    assert planted
    assert planted <= flagged
    hits, labels = report["rules"]["hits"], report["labels"]
    assert (labels["given"], labels["known"], hits["frauds"]) == (len(planted),) * 3
    assert (hits["recall"], hits["false_alarms"]) == (1.0, len(flagged - planted))
    assert hits["precision"] == round(len(planted) / len(flagged), 4)
    assert hits["caught_minor"] == labels["amounts_minor"]
    assert set(hits["caught_minor"]) == {"TRY"}
    assert report["read"]["bad"] > 0 < report["read"]["repeats"]


def test_labels_that_know_no_order_are_warned_of(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    write_avro(tmp_path / "in" / "a.avro", golden())
    labels = tmp_path / "labels.csv"
    labels.write_text("order_id\nx\n")
    report, _ = run(tmp_path, "--rules=current", f"--input={tmp_path / 'in'}", f"--labels={labels}")
    assert report["rules"]["hits"]["recall"] is None
    assert "warning: none of the 1 labelled orders is in the archive" in capsys.readouterr().err


def test_amounts_of_several_currencies_stay_apart(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    orders = [order(f"{code}-{i}", user=code, at=T0 + i, currency=code) for code in ("TRY", "JPY") for i in range(3)]
    write_avro(tmp_path / "in" / "a.avro", orders)
    report, _ = run(tmp_path, "--rules=current", f"--input={tmp_path / 'in'}")
    assert report["rules"]["amounts_minor"] == {"JPY": LOW, "TRY": LOW}
    assert report["shop_amounts_minor"] == {"JPY": 3 * LOW, "TRY": 3 * LOW}
    assert "10,000 JPY + 100.00 TRY" in capsys.readouterr().out


def test_a_wrong_flag_stops_it_with_one_line(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    write_avro(tmp_path / "in" / "a.avro", golden())
    data = f"--input={tmp_path / 'in'}"
    wrong = tmp_path / "wrong.yaml"
    wrong.write_text("{version: 1, currency: TRY, rules: {A: {kind: burst, orders: 1, within: 5m, risk_score: 1}}}")
    text = tmp_path / "notes.txt"
    text.write_text("id\n1\n")
    (tmp_path / "nothing").mkdir()
    rules = "--rules=current"
    assert f"--rules: {wrong}: A: orders 1 is not" in stopped(capsys, f"--rules={wrong}", data)
    assert "--against" in stopped(capsys, rules, f"--against={wrong}", data)
    assert "--rules" in stopped(capsys, f"--rules={tmp_path / 'gone'}", data)
    assert "no file matches" in stopped(capsys, rules, f"--input={tmp_path / 'gone'}")
    assert "no file matches" in stopped(capsys, rules, f"--input={tmp_path / 'nothing'}")
    assert "neither .avro nor .jsonl" in stopped(capsys, rules, f"--input={text}")
    assert "a topic is not read here" in stopped(capsys, rules, "--input=kafka://127.0.0.1:1/transactions.orders")
    assert f"--labels: {text}: line 1" in stopped(capsys, rules, data, f"--labels={text}")
    assert "--labels" in stopped(capsys, rules, data, f"--labels={tmp_path / 'gone'}")
    assert "--from: '1.1.' is not a date" in stopped(capsys, rules, data, "--from=1.1.")
    assert "--to: 2026-01-01 is before" in stopped(capsys, rules, data, "--from=2026-01-02", "--to=2026-01-01")
    assert "--page" in stopped(capsys, rules, data, f"--page={tmp_path / 'gone' / 'x.html'}")
    assert "--workers" in stopped(capsys, rules, data, "--workers=0")
    assert "--workers" in stopped(capsys, rules, data, "--workers=65")
    assert "--time_zone" in stopped(capsys, rules, data, "--time_zone=Mars")
    folder = archive(tmp_path / "archive", golden())
    (folder / "orders" / "x.parquet").touch()
    assert "x.parquet is neither .avro nor .jsonl" in stopped(capsys, rules, f"--input={folder}")
    (folder / "orders" / "x.parquet").unlink()
    assert "no files of these days" in stopped(capsys, rules, f"--input={folder}", "--from=2030-01-01")


def test_no_order_is_status_1_and_no_scratch_is_left(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    scratch = tmp_path / "scratch"
    scratch.mkdir()
    monkeypatch.setattr("tempfile.tempdir", str(scratch))
    write_avro(tmp_path / "in" / "a.avro", [])
    run(tmp_path, "--rules=current", f"--input={tmp_path / 'in'}", status=1)
    assert "no order was counted" in capsys.readouterr().err
    scratch.rmdir()  # raises if anything is left
    assert backtest.main(["--rules=current", f"--input={tmp_path / 'in'}", "--workers=1"]) == 1
    assert "TMPDIR" in capsys.readouterr().err


def _is_killed(plan: backtest_run.Plan, shard: int) -> backtest_run.Found:
    os._exit(9)


def test_a_worker_that_is_killed_ends_the_run_and_leaves_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path / "scratch"))
    (tmp_path / "scratch").mkdir()
    write_avro(tmp_path / "in" / "a.avro", golden())
    monkeypatch.setattr(backtest_run, "_judge", _is_killed)
    assert backtest.main(["--rules=current", f"--input={tmp_path / 'in'}", "--workers=2"]) == 1
    said = capsys.readouterr()
    assert "a worker was stopped" in said.err
    assert said.out == ""
    assert list((tmp_path / "scratch").iterdir()) == []


def test_the_rules_of_the_package_are_what_current_means(tmp_path: Path) -> None:
    write_avro(tmp_path / "in" / "a.avro", golden())
    report, _ = run(tmp_path, "--rules=current", f"--input={tmp_path / 'in'}")
    assert [r["name"] for r in report["rules"]["rules"]] == [r.name for r in default_rules().rules] == RULES


def test_the_example_of_the_page_prints_what_the_page_shows(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    page = (ROOT / "docs" / "backtest.md").read_text(encoding="utf-8")
    [commands], [shows] = (re.findall(rf"```{language}\n(.*?)```", page, re.DOTALL) for language in ("bash", "text"))
    monkeypatch.chdir(tmp_path)
    [(file, rules)] = re.findall(r"cat > (\S+) <<'END'\n(.*?)END\n", commands, re.DOTALL)
    Path(file).write_text(rules)
    programs = [line for line in commands.splitlines() if line.startswith("python -m ")]
    for line in programs:
        _, _, program, *words = shlex.split(line)
        module = importlib.import_module("simulator.__main__" if program == "simulator" else program)
        assert not module.main(words)
    printed = capfd.readouterr().out.splitlines()
    assert [line for line in shows.splitlines() if line not in printed] == []
    assert len(programs) == 3
    assert Path("backtest.html").stat().st_size > 10_000
