"""The archive job on the real services: killed in the middle, then read, written again, and read by another job."""

from __future__ import annotations

import hashlib
import io
import json
import subprocess
import sys
import threading
from collections import Counter
from collections.abc import Iterator
from itertools import groupby
from operator import itemgetter
from pathlib import Path
from typing import Any

import fastavro
import pytest
from confluent_kafka import Message as KafkaMessage

from beam_pipelines.archive import main
from beam_pipelines.sinks import to_line
from schemas.codec import from_fields, to_json
from schemas.events import ClickstreamEvent, OrderEvent, avro_schema
from schemas.tables import TABLES
from stack import Stack
from stack.flink import Cluster
from tests import live
from tests.beam_pipelines import test_revenue_live, test_sessions_live
from tests.bigquery_emulator import Emulator
from tests.build import T0, click, order
from tests.oracle import expected_alerts
from tests.oracle_revenue import expected_revenue
from tests.oracle_sessions import expected_sessions
from transforms.io.bigquery import create_tables

pytestmark = pytest.mark.stack

TOPICS = {"orders": "transactions.orders", "clickstream": "clickstream.events"}
RECORDS = {"orders": "OrderEvent", "clickstream": "ClickstreamEvent"}
OUT_OF_ORDERNESS_MS, ALLOWED_LATENESS_MS = 10_000, 600_000

Fields = dict[str, Any]


def shop(stack: Stack, folder: Path) -> tuple[dict[str, list[KafkaMessage]], set[str]]:
    """A shop's traffic, each topic's messages by partition and offset; and the hashes of the bad ones."""
    truth = folder / "truth.jsonl"
    simulator = [
        *(sys.executable, "-m", "simulator", "--rate=0", "--events=40000", "--event_rate=20", "--seed=5"),
        *("--users=500", f"--topics={','.join(TOPICS.values())}", "--bad_share=0.05", "--late_share=0.02"),
        *("--duplicate_share=0.03", f"--truth={truth}", f"--registry={stack.registry_url}"),
        f"--output=kafka://{stack.address('kafka')}",
    ]
    subprocess.run(simulator, check=True, capture_output=True, cwd=live.ROOT)
    planted = [json.loads(line) for line in truth.read_text().splitlines()]
    bad = {line["sha256"] for line in planted if line["kind"] == "bad"}
    return {table: ordered(live.messages_of(stack.address("kafka"), topic)) for table, topic in TOPICS.items()}, bad


def ordered(messages: list[KafkaMessage]) -> list[KafkaMessage]:
    return sorted(messages, key=lambda m: (m.partition(), m.offset()))


def expected(table: str, messages: list[KafkaMessage], bad: set[str]) -> tuple[list[Fields], dict[str, int]]:
    """What must be in the archive, and the ledger: written from the semantics, sharing no code with the job."""
    schema = fastavro.parse_schema(avro_schema(RECORDS[table]))
    good = []
    counts = {"in": len(messages), "good": 0, "dead_letters": 0, "late": 0, "duplicates": 0, "lost": 0}
    for _, partition in groupby(messages, key=lambda m: m.partition()):
        newest_ms, ids = 0, set()
        for message in partition:
            value, time_ms = message.value(), message.timestamp()[1]
            if value is None or hashlib.sha256(value).hexdigest() in bad:
                counts["dead_letters"] += 1
            else:
                fields = plain(fastavro.schemaless_reader(io.BytesIO(value[5:]), schema))
                id_ = id_of(fields)
                if fields["event_time"] < newest_ms - OUT_OF_ORDERNESS_MS - ALLOWED_LATENESS_MS:
                    counts["late"] += 1
                elif id_ in ids:
                    counts["duplicates"] += 1
                else:
                    ids.add(id_)
                    good.append(fields)
            newest_ms = max(newest_ms, time_ms)
    counts["good"] = len(good)
    return good, counts


def plain(fields: Fields) -> Fields:
    return {**fields, "event_time": round(fields["event_time"].timestamp() * 1000)}


def id_of(fields: Fields) -> tuple[str, ...]:
    return (fields["event_id"],) if "event_id" in fields else (fields["order_id"], fields["order_status"])


def archived(folder: Path) -> Iterator[Fields]:
    for path in folder.rglob("*.avro"):
        with path.open("rb") as stream:
            yield from map(plain, fastavro.reader(stream))


def content(folder: Path) -> dict[str, bytes]:
    files = [*folder.rglob("*.avro"), *folder.glob("accounts/*/*-*.json")]
    return {str(path.relative_to(folder)): path.read_bytes() for path in files}


def accounted(folder: Path) -> tuple[Counter[str], dict[tuple[str, int], tuple[int, int]]]:
    """What the accounts say became of all records; and of each partition, from which offset to which they say it."""
    total, reach = Counter[str](), dict[tuple[str, int], tuple[int, int]]()
    for path in sorted(folder.glob("accounts/*/*-*.json")):
        account = json.loads(path.read_text())
        for counts in account["days"].values():
            total.update(counts)
        partition = account["topic"], account["partition"]
        first, reached = reach.get(partition, (account["first"], account["first"]))
        assert account["first"] == reached, "an account goes on where the one before it ended"
        assert account["missing"] == []
        reach[partition] = first, account["next"]
    return total, reach


def halves(messages: list[KafkaMessage]) -> tuple[list[live.Message], list[live.Message]]:
    """As they are to be sent again: of each partition, what comes before the middle of the time, and the rest.

    All partitions move on together, each in its order: one that is left behind would follow the topic's time as idle.
    """
    times = [m.timestamp()[1] for m in messages]
    middle_ms = (min(times) + max(times)) // 2
    reached: list[tuple[int, live.Message]] = []
    for _, partition in groupby(messages, key=lambda m: m.partition()):
        newest_ms = 0
        for m in partition:
            newest_ms = max(newest_ms, m.timestamp()[1])
            message = live.Message(m.value(), m.key(), m.timestamp()[1], m.partition(), m.headers() or [])
            reached.append((newest_ms, message))
    reached.sort(key=itemgetter(0))
    return [m for at, m in reached if at <= middle_ms], [m for at, m in reached if at > middle_ms]


def test_killed_in_the_middle_the_archive_has_each_good_record_once_and_gives_the_streams_results_in_batch(
    cluster: Cluster, pool: live.Workers, tmp_path: Path
) -> None:
    with Stack(tmp_path / "stack", ["kafka", "registry"], ports="free") as stack:
        messages, bad = shop(stack, tmp_path)
        wanted = {table: expected(table, found, bad) for table, found in messages.items()}
        ledger = {key: sum(counts[key] for _, counts in wanted.values()) for key in wanted["orders"][1]}
        assert all(count for name, count in ledger.items() if name != "lost")
        sent = {table: halves(found) for table, found in messages.items()}
        assert all(first and second for first, second in sent.values())
        topics = {table: f"kill.{table}" for table in TOPICS}
        for table, (first, _) in sent.items():
            live.fill_topic(stack, topics[table], first)
        read = sum(len(first) for first, _ in sent.values())

        out = tmp_path / "archive"
        inputs = [f"--input=kafka://{stack.address('kafka')}/{topic}" for topic in topics.values()]
        where = [*inputs, f"--registry={stack.registry_url}", f"--output={out}", "--records_per_file=2000"]
        refused = [f"--dead_letters={tmp_path / 'refused'}", f"--late={tmp_path / 'refused'}"]
        flink = [
            *("--runner=FlinkRunner", f"--flink_master={cluster.master}", *pool.flags, "--parallelism=2"),
            *("--checkpointing_interval=2000", f"--state_backend_storage_path={(tmp_path / 'state').as_uri()}"),
        ]
        flags = [*flink, *where, *refused, "--flush_every=2s"]
        with live.job(*flags, folder=tmp_path / "job", module="beam_pipelines.archive") as job:
            job_id = live.running_job(cluster.rest_url, 300)
            job.wait_for_ledger(read, 300)
            before = live.completed_checkpoints(cluster.rest_url, job_id)
            live.eventually(
                lambda: live.completed_checkpoints(cluster.rest_url, job_id) > before, "a checkpoint with state", 120
            )
            # The rest arrives over some time; the blow falls between, when some of it is in files and in no checkpoint.
            sender = threading.Thread(
                target=_send, args=(stack, topics, {t: second for t, (_, second) in sent.items()})
            )
            sender.start()
            job.wait_for_ledger(read + 1_000, 300)
            cluster.kill_taskmanager()
            cluster.start_taskmanager()
            sender.join()
            restored = live.eventually(lambda: live.restored_from(cluster.rest_url, job_id), "a restored job", 300)
            found = job.wait_for_ledger(ledger["in"], 300)
            live.eventually(lambda: accounted(out)[0]["in"] == ledger["in"], "accounts of all records", 60)
            live.cancel(cluster.rest_url, job_id)
        assert restored >= 1
        assert found == ledger
        for table, (good, _) in wanted.items():
            assert sorted(archived(out / table), key=id_of) == sorted(good, key=id_of)
        total, reach = accounted(out)
        assert {key: total[key] for key in ledger} == ledger
        for table, found_messages in messages.items():
            for number, partition in groupby(found_messages, key=lambda m: m.partition()):
                assert reach[topics[table], number] == (0, len(list(partition)))
            told = json.loads((out / "accounts" / table / f"{topics[table]}.ends.json").read_text())
            assert dict(told["ends"]).keys() == set(range(len(told["ends"])))

        once = content(out)
        assert len(once) > 8, "several files for a partition"
        again = ["--runner=DirectRunner", "--until=latest", *where, f"--dead_letters={tmp_path}", f"--late={tmp_path}"]
        assert live.run_here(*again, folder=tmp_path / "again", module="beam_pipelines.archive") == ledger
        assert content(out) == once

    batch = tmp_path / "batch"
    for name, table in (("fraud", "orders"), ("revenue", "orders"), ("sessions", "clickstream")):
        flags = ["--runner=DirectRunner", f"--input={out / table / '**'}", f"--output={batch}"]
        found = live.run_here(*flags, folder=tmp_path / name, module=f"beam_pipelines.{name}")
        assert found == {**dict.fromkeys(ledger, 0), "in": (n := len(wanted[table][0])), "good": n}
    orders = [from_fields(fields, OrderEvent) for fields in wanted["orders"][0]]
    clicks = [from_fields(fields, ClickstreamEvent) for fields in wanted["clickstream"][0]]
    assert live.alerts_in_folder(batch) == expected_alerts(orders) != set()
    assert test_revenue_live.newest(test_revenue_live.rows_in_folder(batch)) == expected_revenue(orders)
    assert test_sessions_live.current(test_sessions_live.rows_in_folder(batch)) == expected_sessions(clicks)


def _send(stack: Stack, topics: dict[str, str], rest: dict[str, list[live.Message]]) -> None:
    for table, messages in rest.items():
        for start in range(0, len(messages), 1_000):
            live.fill_topic(stack, topics[table], messages[start : start + 1_000])


@pytest.mark.parametrize("with_folder", [True, False], ids=["beside files", "alone"])
def test_in_bigquery_the_current_views_have_each_good_record_once_however_often_it_is_archived(
    with_folder: bool, bigquery: Emulator, tmp_path: Path
) -> None:
    dataset = bigquery.make_dataset(f"archive_{with_folder}")
    create_tables(dataset, TABLES.values())
    orders = [order(f"o-{i}", at=T0 + i) for i in range(5)]
    clicks = [click(f"c-{i}", at=T0 + i, price_minor=i or None) for i in range(6)]
    (tmp_path / "in").mkdir()
    for name, records in (("orders", orders + orders[:2]), ("clicks", clicks + clicks[3:])):
        (tmp_path / "in" / f"{name}.jsonl").write_bytes(b"".join(to_json(record) + b"\n" for record in records))
    refused, ledger = tmp_path / "refused", tmp_path / "ledger.json"
    flags = [f"--input={tmp_path / 'in'}", f"--output=bigquery://{dataset}", f"--ledger={ledger}"]
    flags += [f"--dead_letters={refused}", f"--late={refused}"]
    for _ in range(2):
        main([*flags, f"--output={tmp_path / 'files'}"] if with_folder else flags)
        assert json.loads(ledger.read_text()) == {
            "in": 16,
            "good": 11,
            "dead_letters": 0,
            "late": 0,
            "duplicates": 5,
            "lost": 0,
        }
    assert not refused.exists()
    for name, records in (("orders", orders), ("clickstream", clicks)):
        table = TABLES[name]
        found = bigquery.rows(dataset, table, table.view)
        assert sorted(found, key=id_of) == [json.loads(to_line("orders")(record)) for record in records]
        assert len(bigquery.rows(dataset, table)) == 2 * len(records), "appended to"
    if with_folder:
        assert len(list(archived(tmp_path / "files"))) == 11
