"""`python -m simulator` as its users meet it."""

import json
import signal
import subprocess
import sys
import time
from collections import Counter, defaultdict
from datetime import datetime
from pathlib import Path

import pytest
from confluent_kafka import Consumer, TopicPartition

from schemas.codec import CodecError, Decoder
from schemas.events import OrderEvent
from simulator.__main__ import main
from simulator.config import ORDERS, TOPICS
from simulator.flags import parse

NOW = 1_795_000_000_000


def run_main(*arguments: str | Path) -> int:
    try:
        return main([str(argument) for argument in arguments])
    except SystemExit as e:
        return int(e.code or 0)


def test_help_explains_every_flag_and_ends_well(capsys: pytest.CaptureFixture[str]) -> None:
    assert run_main("--help") == 0
    text = capsys.readouterr().out
    flags = (
        "rate events duration infinite seed users topics start event_rate fraud_share bad_share late_share "
        "duplicate_share out_of_orderness late_by truth output format registry"
    )
    assert [flag for flag in flags.split(" ") if f"--{flag}" not in text] == []
    assert "examples:" in text
    assert all(len(line) <= 120 for line in text.splitlines())


@pytest.mark.parametrize(
    ("arguments", "named"),
    [
        ("--rate fast", "--rate"),
        ("--rate -1", "--rate"),
        ("--rate nan", "--rate"),
        ("--events 0", "--events"),
        ("--events 1.5", "--events"),
        ("--duration 90", "--duration"),
        ("--duration 0s", "--duration"),
        ("--infinite --events 5", "--infinite"),
        ("--infinite --duration 5s", "--infinite"),
        ("--seed x", "--seed"),
        ("--users 0", "--users"),
        ("--topics orders", "--topics"),
        ("--start yesterday", "--start"),
        ("--start 2026-01-01T00:00:00", "--start"),
        ("--start 2999-01-01T00:00:00Z", "--start"),
        ("--start 1960-01-01T00:00:00Z", "--start"),
        ("--rate 0 --event_rate 0", "--event_rate"),
        ("--rate 50 --event_rate 5", "--event_rate"),
        ("--fraud_share 2", "--fraud_share"),
        ("--bad_share lots", "--bad_share"),
        ("--bad_share 0.5 --late_share 0.5", "--bad_share"),
        ("--out_of_orderness 5", "--out_of_orderness"),
        ("--late_by 1s", "--late_by"),
        ("--output redis://127.0.0.1:6379", "--output"),
        ("--output kafka://localhost", "--output"),
        ("--output kafka://localhost:99999", "--output"),
        ("--output kafka://localhost:9092/topic", "--output"),
        ("--format avro", "--format"),
        ("--output somewhere --format parquet", "--format"),
        ("--registry 127.0.0.1:8081", "--registry"),
        ("--truth /no/such/folder/truth.jsonl", "--truth"),
        ("--output /dev/null/folder", "--output"),
        ("--rat 5", "--rat"),
        ("extra", "extra"),
    ],
)
def test_wrong_input_ends_with_2_and_one_line_that_names_the_flag(
    arguments: str, named: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert run_main(*arguments.split()) == 2
    said = capsys.readouterr()
    assert said.out == ""
    assert said.err.startswith("simulator: ")
    assert said.err.count("\n") == 1
    assert named in said.err


def test_a_broker_that_is_not_there_is_one_line(unused_tcp_address: str, capsys: pytest.CaptureFixture[str]) -> None:
    started = time.monotonic()
    assert run_main("--output", f"kafka://{unused_tcp_address}") == 1
    assert time.monotonic() - started < 60
    assert capsys.readouterr().err == f"simulator: --output: no Kafka broker answers at {unused_tcp_address}\n"


def test_live_traffic_starts_now_and_a_backlog_ends_now() -> None:
    live = parse(["--out_of_orderness=5s"], NOW).config
    assert live.start_ms == NOW - 5_000
    assert not live.rhythm
    assert parse(["--rate=0", "--duration=2h"], NOW).config.start_ms == NOW - 2 * 3_600_000
    assert parse(["--rate=0"], NOW).config.start_ms == NOW - 24 * 3_600_000
    backlog = parse(["--rate=0", "--events=10000", "--event_rate=10"], NOW).config
    assert backlog.start_ms < NOW - 100_000
    assert backlog.rhythm
    assert parse(["--start=2026-11-18T10:00:00+03:00"], NOW).config.start_ms == 1_794_985_200_000


def test_seeds_differ_unless_given() -> None:
    assert parse([], NOW).config.seed != parse([], NOW).config.seed
    assert parse(["--seed=5"], NOW).config.seed == 5


def test_equal_flags_write_equal_files(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    flags = ("--rate=0", "--events=2000", "--seed=3", "--start=2026-01-01T00:00:00Z", "--format=jsonl")
    for name in ("a", "b"):
        assert run_main(*flags, "--output", tmp_path / name, "--truth", tmp_path / f"{name}.truth") == 0

    for topic in TOPICS:
        assert (tmp_path / "a" / f"{topic}.jsonl").read_bytes() == (tmp_path / "b" / f"{topic}.jsonl").read_bytes()
    assert (tmp_path / "a.truth").read_bytes() == (tmp_path / "b.truth").read_bytes()
    assert "2,000 events" in capsys.readouterr().out


def test_the_rate_is_kept(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    started = time.monotonic()
    assert run_main("--rate", "500", "--duration", "2s", "--output", tmp_path) == 0
    assert time.monotonic() - started == pytest.approx(2, abs=1)
    assert "1,000 events" in capsys.readouterr().out


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_ctrl_c_ends_cleanly(tmp_path: Path, number: signal.Signals) -> None:
    truth = tmp_path / "truth.jsonl"
    command = [sys.executable, "-m", "simulator", "--rate=200", f"--output={tmp_path}", "--format=jsonl"]
    process = subprocess.Popen(
        [*command, f"--truth={truth}"], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    )
    assert process.stderr is not None
    while "sent" not in process.stderr.readline():  # the first line of progress
        assert process.poll() is None

    process.send_signal(number)
    out, _ = process.communicate()

    assert process.returncode == 0
    assert "events in" in out
    summary = json.loads(truth.read_text().splitlines()[-1])
    for topic, counts in summary["topics"].items():
        assert len((tmp_path / f"{topic}.jsonl").read_bytes().splitlines()) == counts["sent"]


@pytest.mark.stack
def test_a_real_broker_and_registry_take_every_record_and_the_truth_describes_them(tmp_path: Path) -> None:
    from stack import Stack
    from transforms.io.registry import Registry

    truth_file = tmp_path / "truth.jsonl"
    with Stack(tmp_path / "stack", ["kafka", "registry"], ports="free") as services:
        address = services.address("kafka")
        flags = [f"--output=kafka://{address}", f"--registry={services.registry_url}", f"--truth={truth_file}"]
        shares = ["--bad_share=0.2", "--late_share=0.05", "--duplicate_share=0.05"]
        assert run_main(*flags, *shares, "--rate=0", "--events=6000", "--topics=transactions.orders") == 0

        decoder = Decoder(OrderEvent, Registry(services.registry_url).schema)
        consumer = Consumer({"bootstrap.servers": address, "group.id": "test", "auto.offset.reset": "earliest"})
        consumer.assign([TopicPartition(ORDERS, n, 0) for n in range(4)])
        messages = []
        while len(messages) < 6_000:
            messages += [m for m in consumer.consume(1_000, timeout=20) if not m.error()]
        consumer.close()

        refused, orders = Counter(), Counter()
        partition_of_order = {}
        for message in messages:
            try:
                order = decoder.decode(message.value())
            except CodecError as e:
                refused[type(e).__name__] += 1
                continue
            orders[order.order_id, order.order_status] += 1
            partition_of_order[order.order_id] = message.partition()
            if order.user_id.startswith(("fraud-", "late-")):
                assert message.timestamp()[1] == order.event_time
                assert message.key().decode() == order.user_id

    truth = defaultdict(list)
    for line in truth_file.read_text().splitlines():
        fact = json.loads(line)
        truth[fact["kind"]].append(fact)
    (summary,) = truth["summary"]
    assert summary["topics"][ORDERS]["sent"] == len(messages) == 6_000
    undecodable = [fact for fact in truth["bad"] if "id" not in fact]
    assert sum(refused.values()) == len(undecodable) > 300
    assert set(refused) == {"NotFramed", "UnknownSchema", "Undecodable"}
    repeats = Counter((fact["order_id"], fact["order_status"]) for fact in truth["duplicate"])
    assert len(repeats) > 50
    assert all(orders[key] == 1 + count for key, count in repeats.items())
    assert all(partition_of_order[fact["order_id"]] == fact["partition"] for fact in truth["late"])
    assert all(orders[fact["order_id"], "CREATED"] for fact in truth["fraud"] if fact["rule"] == "RAPID_ORDERS")
    newest = max(m.timestamp()[1] for m in messages)
    assert newest <= datetime.now().timestamp() * 1000
