"""The real PostgreSQL, Debezium, Kafka, Flink and Valkey: what is kept equals the tables, whatever is killed.

CDC_TRANSACTIONS=20000 plays more of them than the suite does.
"""

from __future__ import annotations

import json
import os
import signal
from collections.abc import Iterator
from datetime import datetime
from pathlib import Path
from typing import Any

import pytest
import redis

from schemas import codec, inventory
from schemas.events import LowStockAlert, avro_schema
from schemas.store_keys import KEYS
from stack import Stack
from stack.flink import Cluster
from tests import live
from tests.beam_pipelines.test_cdc import REAL, current
from tests.beam_pipelines.test_fraud import rows
from tests.cdc.capture import TOPICS, Capture
from tests.changes import PRIMARY_KEYS, product, record
from transforms.domain.cdc import parse
from transforms.io.kafka import KafkaTopic
from transforms.io.registry import Registry

pytestmark = pytest.mark.stack

TRANSACTIONS = int(os.environ.get("CDC_TRANSACTIONS", "2000"))


@pytest.fixture(scope="module")
def stack(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Stack]:
    services = ["kafka", "registry", "valkey", "postgres", "connect"]
    with Stack(tmp_path_factory.mktemp("cdc"), services, ports="free") as stack:
        yield stack


@pytest.fixture(scope="module")
def capture(stack: Stack) -> Iterator[Capture]:
    capture = Capture(stack, stack.log("connect").parent.parent)
    capture.cdc("setup", "--sample_data")
    capture.cdc("register")
    yield capture
    capture.close()


def flags(stack: Stack, folder: Path) -> list[str]:
    kafka = stack.address("kafka")
    return [
        *(f"--input=kafka://{kafka}/{topic}" for topic in TOPICS),
        *(f"--registry={stack.registry_url}", f"--output={stack.redis_url}", f"--output={folder / 'out'}"),
        *(f"--output=kafka://{kafka}/alerts.stock", f"--dead_letters={folder / 'out'}", "--roll_every=1s"),
    ]


def told(stack: Stack) -> int:
    """How many records the topics hold."""
    return sum(sum(KafkaTopic.look_up(stack.address("kafka"), topic).ends.values()) for topic in TOPICS)


# What the database says, in the words of the store and of the history.


def tables(capture: Capture) -> dict[tuple[str, str], dict[str, Any]]:
    """Without NULLs (a new column of a row that nobody touched is told by no record) and personal columns."""
    found = {}
    for table, key in PRIMARY_KEYS.items():
        for (row,) in capture.sql(f"SELECT row_to_json(t) FROM {table} t"):
            its_key = json.dumps({name: row[name] for name in sorted(key)}, separators=(",", ":"))
            found[table, its_key] = comparable(row)
    return found


def comparable(row: dict[str, Any]) -> dict[str, Any]:
    return {
        name: datetime.fromisoformat(value) if name.endswith("_at") else value
        for name, value in row.items()
        if value is not None and name not in ("email", "full_name", "phone")
    }


def in_store(stack: Stack) -> dict[str, Any]:
    with redis.Redis.from_url(stack.redis_url) as db:
        stored = {i.decode(): inventory.product_of(v) for i, v in db.hgetall(KEYS.products).items()}
        products = {i: json.loads(v) for i, v in stored.items() if v}
        assert {json.loads(v)["product_id"] for v in db.zrange(KEYS.all_products, 0, -1)} == products.keys()
        low = {json.loads(v)["product_id"] for v in db.zrange(KEYS.low_products, 0, -1)}
        customers = {}
        for key in db.scan_iter(f"{KEYS.of_customer(KEYS.shared)[0]}*", count=1_000):
            figures = inventory.customer_figures(db.hgetall(key))
            if figures is not None:
                customers[key.decode().removeprefix(KEYS.of_customer(KEYS.shared)[0])] = figures
    for row in products.values():
        row["updated_at"] = datetime.fromisoformat(row["updated_at"])
    return {"products": products, "low": low, "customers": customers}


def store_of_tables(capture: Capture) -> dict[str, Any]:
    products = {}
    for (row,) in capture.sql("SELECT row_to_json(t) FROM products t"):
        updated = datetime.fromisoformat(row.pop("updated_at"))
        row["price"] = row.pop("price_minor") / 100
        row.pop("rating", None)
        row["updated_at"] = updated.replace(microsecond=updated.microsecond // 1_000 * 1_000)
        row["low_stock"] = row["stock"] <= row["low_stock_threshold"]
        products[row["product_id"]] = row
    customers = {
        customer: {"region": region or "", "orders": orders, "cancelled": cancelled, "spent_minor": int(spent)}
        for customer, region, orders, cancelled, spent in capture.sql(
            "SELECT c.customer_id, c.region, count(o), count(o) FILTER (WHERE status IN ('CANCELLED', 'REFUNDED')),"
            " coalesce(sum(total_minor) FILTER (WHERE status NOT IN ('CANCELLED', 'REFUNDED')), 0)"
            " FROM customers c LEFT JOIN orders o USING (customer_id) GROUP BY c.customer_id"
        )
    }
    return {"products": products, "low": {i for i, p in products.items() if p["low_stock"]}, "customers": customers}


def crossings(stack: Stack) -> set[tuple[str, str]]:
    """Product and version of each change after which stock was low and before which it was not, read in order."""
    found = set()
    low: dict[str, bool] = {}
    newest: dict[str, str] = {}
    messages = [m for m in live.messages_of(stack.address("kafka"), TOPICS[0]) if m.value() is not None]
    for message in sorted(messages, key=lambda m: (m.partition(), m.offset())):
        moved = any(name == "__debezium.oldkey" for name, _ in message.headers() or [])
        change = parse(message.key(), message.value(), moved)
        assert change is not None
        product_id = change.key["product_id"]
        if change.version <= newest.get(product_id, ""):
            continue  # told again after Connect was killed
        newest[product_id] = change.version
        is_low = change.row is not None and change.row.stock <= change.row.low_stock_threshold
        was_low = low.get(product_id, moved or change.op == "r")
        if is_low and not was_low:
            found.add((product_id, change.version))
        low[product_id] = is_low
        if change.row is None:
            del low[product_id]
    return found


def assert_is_the_tables(stack: Stack, capture: Capture, folder: Path, job: live.Job) -> dict[str, int]:
    """Once all that was told is counted, everything must be equal; Debezium may still be behind the tables."""
    expected_store, expected_rows = store_of_tables(capture), tables(capture)

    try:
        live.equals_soon(lambda: in_store(stack), expected_store, "the tables in the store", 600)
    except AssertionError:
        told_by = (capture.run("status").stdout, capture.run("slots").stdout, job.log[-3_000:])
        print(*told_by, f"{told(stack)} records in the topics, of which the job knows {job.ledger()}", sep="\n")
        raise
    ledger = job.wait_for_ledger(told(stack), 600)
    live.equals_soon(
        lambda: {place: comparable(row) for place, row in current(rows(folder / "out" / "cdc_changes")).items()},
        expected_rows,
        "the tables in the history",
    )
    assert ledger["in"] == ledger["good"] + ledger["dead_letters"] + ledger["late"] + ledger["duplicates"]
    assert ledger["dead_letters"] == ledger["late"] == 0
    return ledger


def test_store_and_history_equal_the_tables_after_random_transactions_with_everything_killed_on_the_way(
    stack: Stack, capture: Capture, cluster: Cluster, pool: live.Workers, tmp_path: Path
) -> None:
    with live.job(
        *live.on_cluster(cluster, pool, tmp_path), *flags(stack, tmp_path), folder=tmp_path, module="beam_pipelines.cdc"
    ) as job:
        job_id = live.running_job(cluster.rest_url, 300)
        assert_is_the_tables(stack, capture, tmp_path, job)

        def kill(number: int) -> None:
            if number == TRANSACTIONS // 4:
                stack.kill("connect")
                stack.start("connect")
            elif number == TRANSACTIONS // 2:
                for pid in pool.pids():
                    os.kill(pid, signal.SIGKILL)
            elif number == TRANSACTIONS * 3 // 4:
                live.eventually(lambda: live.all_running(cluster.rest_url, job_id), "the job on its feet again", 300)
                cluster.kill_taskmanager()
                cluster.start_taskmanager()

        # Half of the products a sale or two away from running low.
        capture.sql("UPDATE products SET low_stock_threshold = greatest(stock - 3, 0) WHERE product_id < 'P0140'")
        done = capture.workload(TRANSACTIONS, seed=11, progress=kill)
        assert done["column added"] == 1
        assert min(done[kind] for kind in ("order rolled back", "order deleted", "product renumbered")) > 0
        assert_is_the_tables(stack, capture, tmp_path, job)
        assert live.restored_from(cluster.rest_url, job_id) is not None

        before = in_store(stack), told(stack)
        capture.cdc("snapshot", "--initial")
        held = sum(len(capture.sql(f"SELECT 1 FROM {table}")) for table in PRIMARY_KEYS)
        live.eventually(lambda: told(stack) >= before[1] + held, "every row told again", 600)
        ledger = assert_is_the_tables(stack, capture, tmp_path, job)
        assert in_store(stack) == before[0]
        wanted = crossings(stack)
        assert len(wanted) > 50
        live.equals_soon(
            lambda: {(row["product_id"], row["version"]) for row in rows(tmp_path / "out" / "low_stock_alerts")},
            wanted,
            "the alerts in the folder",
        )
        live.cancel(cluster.rest_url, job_id)

    assert {(each.product_id, each.version) for each in alerts_in_topic(stack)} == wanted
    with redis.Redis.from_url(stack.redis_url) as db:
        stored = [json.loads(row)["alert_id"] for row in db.zrange(KEYS.stock_alerts, 0, -1)]
    assert len(stored) == len(set(stored)) == len(wanted)
    personal = (b"@example", b'"full_name\\', b'"phone\\')
    out = b"".join(part.read_bytes() for part in (tmp_path / "out" / "cdc_changes").iterdir())
    assert not any(each in out for each in personal)
    print(f"\n{TRANSACTIONS} transactions, {ledger['in']} records, {len(wanted)} alerts, ledger {ledger}")


def alerts_in_topic(stack: Stack) -> list[LowStockAlert]:
    schema_id = Registry(stack.registry_url).register("alerts.stock-value", avro_schema("LowStockAlert"))
    decoder = codec.Decoder(LowStockAlert, {schema_id: avro_schema("LowStockAlert")}.__getitem__)
    return [decoder.decode(m.value()) for m in live.messages_of(stack.address("kafka"), "alerts.stock")]


def test_real_records_on_kafka_and_embedded_flink_with_bad_ones_between(live_stack: Stack, tmp_path: Path) -> None:
    real = [json.loads(each) for each in REAL.read_text(encoding="utf-8").splitlines()]
    bad = [b"{", b"", b'{"op":"u"}', b"\x00\x00\x00\x00\x01"]
    topic = "recorded.changes"
    messages = [
        live.Message(
            *(each[name] and each[name].encode() for name in ("value", "key")),
            time_ms=each["timestamp_ms"],
            headers=[(name, value.encode()) for name, value in each["headers"]],
        )
        for each in real
    ]
    count = live.fill_topic(live_stack, topic, messages + [live.Message(each, b"{}", 1) for each in bad])
    with live.job(
        *live.addresses(live_stack, topic, tmp_path / "out"),
        *("--runner=FlinkRunner", "--until=latest"),
        folder=tmp_path,
        module="beam_pipelines.cdc",
    ) as job:
        ledger = job.wait()
    letters = rows(tmp_path / "out" / "dead_letters")
    assert ledger == {"in": count, "good": len(real), "dead_letters": len(bad), "late": 0, "duplicates": 0, "lost": 0}
    assert {(row["topic"], row["error_class"]) for row in letters} == {(topic, "MalformedChangeError")}
    assert len(rows(tmp_path / "out" / "cdc_changes")) == sum(each["value"] is not None for each in real)
    assert len(rows(tmp_path / "out" / "low_stock_alerts")) >= 1


def test_what_a_bundle_gives_that_ends_with_a_checkpoint_does_not_wait_for_the_next_record(
    live_stack: Stack, tmp_path: Path
) -> None:
    """Of any job; here the second step counts. Without Flink's flag the ledger stands short in most rounds."""
    topic, sent = "quiet.changes", 0
    flags = [*live.addresses(live_stack, topic, live_stack.redis_url), f"--dead_letters={tmp_path / 'bad'}"]
    rows_of = [product(product_id=f"p-{i}") for i in range(20)]

    def send(lsn: int) -> int:
        changes = [record("u", "products", row, row, lsn=lsn) for row in rows_of]
        return live.fill_topic(live_stack, topic, [live.Message(value, key) for key, value in changes])

    sent += send(1)
    with live.job(
        *flags, "--runner=FlinkRunner", "--checkpointing_interval=300", folder=tmp_path, module="beam_pipelines.cdc"
    ) as job:
        job.wait_for_ledger(sent, 300)
        for lsn in range(2, 9):
            sent += send(lsn)
            job.wait_for_ledger(sent, 30)
