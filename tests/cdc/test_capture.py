"""The real PostgreSQL, Connect, Debezium and Kafka: what happens to the tables arrives, whatever is killed."""

from __future__ import annotations

import json
import subprocess
import sys
import urllib.request
from collections.abc import Iterator
from datetime import datetime
from pathlib import Path
from typing import Any

import psycopg
import pytest

from cdc.database import ROLE, TABLES, Database
from stack import Stack
from stack.ports import pick_free
from stack.service import fetch_url
from tests.cdc.capture import Capture, Record
from tests.changes import PRIMARY_KEYS
from tests.live import eventually

pytestmark = pytest.mark.stack

SAMPLE = 280 + 500  # products and customers


@pytest.fixture(scope="module")
def stack(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Stack]:
    with Stack(tmp_path_factory.mktemp("cdc"), ["kafka", "postgres", "connect"], ports="free") as stack:
        yield stack


@pytest.fixture(scope="module")
def capture(stack: Stack) -> Iterator[Capture]:
    capture = Capture(stack, stack.log("connect").parent.parent)
    capture.cdc("setup", "--sample_data")
    assert "created" in capture.cdc("register")
    yield capture
    capture.close()


class Follower:
    """What somebody who reads the topics takes the tables to be: of each key what is newest, whenever it comes."""

    def __init__(self, capture: Capture) -> None:
        self._capture = capture
        self._newest: dict[tuple[str, str], tuple[tuple[int, int], dict[str, Any] | None]] = {}

    def tables(self) -> dict[str, dict[str, Any]]:
        found: dict[str, dict[str, Any]] = {table: {} for table in TABLES}
        for (table, key), (_, row) in self._newest.items():
            if row is not None:
                found[table][key] = row
        return found

    def read(self, records: list[Record]) -> None:
        for record in records:
            envelope = record.envelope
            if envelope is None:
                continue
            table = record.topic.removeprefix("cdc.public.")
            if envelope["op"] == "t":
                for known in [key for key in self._newest if key[0] == table]:
                    self._newest[known] = (version(envelope), None)
                continue
            assert record.key is not None
            key = (table, json.dumps(json.loads(record.key)))
            if key not in self._newest or version(envelope) >= self._newest[key][0]:
                self._newest[key] = (version(envelope), values(envelope["after"]) if envelope["after"] else None)

    def catches_up(self, timeout_s: float = 60) -> None:
        """Raises: AssertionError, when what was read does not become what is in the tables."""
        truth = in_database(self._capture)

        def equal(new: list[Record]) -> bool:
            self.read(new[self._taken :])
            self._taken = len(new)
            return self.tables() == truth

        self._taken = 0
        self._capture.records(until=equal, timeout_s=timeout_s)


def version(envelope: dict[str, Any]) -> tuple[int, int]:
    """As docs/cdc.md says: by commit, then by position; not by position alone."""
    commit, position = json.loads(envelope["source"]["sequence"])
    return int(commit or position), int(position)


def values(row: dict[str, Any]) -> dict[str, Any]:
    """Without NULLs: a new column of a row that nobody touched since is told by no record."""
    return {n: datetime.fromisoformat(v) if n.endswith("_at") else v for n, v in row.items() if v is not None}


def in_database(capture: Capture) -> dict[str, dict[str, Any]]:
    found: dict[str, dict[str, Any]] = {}
    for table, key in PRIMARY_KEYS.items():
        rows = [values(row) for (row,) in capture.sql(f"SELECT row_to_json(t) FROM {table} t")]
        found[table] = {json.dumps({column: row[column] for column in key}): row for row in rows}
    return found


@pytest.fixture(scope="module")
def follower(capture: Capture) -> Follower:
    follower = Follower(capture)
    snapshot = capture.records(until=lambda seen: len(seen) >= SAMPLE)
    assert {record.op for record in snapshot} == {"r"}
    follower.read(snapshot)
    assert follower.tables() == in_database(capture)
    return follower


def test_every_table_equals_its_topic_after_random_transactions_and_a_new_column(
    capture: Capture, follower: Follower
) -> None:
    done = capture.workload(600, seed=1)
    assert done["column added"] == 1
    assert min(done[kind] for kind in ("order rolled back", "order deleted", "product renumbered", "product deleted"))
    follower.catches_up()
    assert any(row.get("rating") for row in follower.tables()["products"].values())


def test_registering_again_changes_nothing_and_takes_no_second_snapshot(capture: Capture, follower: Follower) -> None:
    assert "unchanged" in capture.cdc("register")
    capture.sql("UPDATE products SET low_stock_threshold = 11 WHERE product_id = 'P0001' OR name = 'Siyah Kazak'")
    capture.sql("INSERT INTO customers (customer_id) VALUES ('again')")
    new = capture.records(until=lambda seen: any(record.key == '{"customer_id":"again"}' for record in seen))
    assert not [record for record in new if record.op == "r"]
    follower.read(new)
    follower.catches_up()


def test_a_delete_is_followed_by_a_tombstone_of_its_key(capture: Capture, follower: Follower) -> None:
    capture.sql("DELETE FROM customers WHERE customer_id = 'again'")
    gone = capture.records(until=lambda seen: any(record.op == "tombstone" for record in seen))
    first, second = [record for record in gone if record.key == '{"customer_id":"again"}']
    assert (first.op, first.partition) == ("d", second.partition)
    assert first.envelope
    assert first.envelope["before"]["customer_id"] == "again"
    assert second.value is None
    follower.read(gone)
    follower.catches_up()


def test_connect_killed_in_the_middle_loses_nothing(capture: Capture, follower: Follower, stack: Stack) -> None:
    def kill(number: int) -> None:
        if number == 150:
            stack.kill("connect")

    capture.workload(300, seed=2, progress=kill)
    assert stack.pid("connect") is None
    stack.start("connect")
    follower.catches_up()


def test_the_database_killed_comes_back_with_its_data_and_the_connector_finds_it_by_itself(
    capture: Capture, follower: Follower, stack: Stack
) -> None:
    capture.workload(50, seed=3)
    before = in_database(capture)
    stack.kill("postgres")
    stack.start("postgres")
    assert in_database(capture) == before
    capture.workload(50, seed=4)
    follower.catches_up()


def test_a_row_read_by_an_incremental_snapshot_is_older_than_a_change_that_was_open_meanwhile(
    capture: Capture, follower: Follower
) -> None:
    def of_product(seen: list[Record]) -> list[Record]:
        return [r for r in seen if r.op == "r" and r.key == f'{{"product_id":"{product}"}}']

    ((product,),) = capture.sql("SELECT min(product_id) FROM products")
    with capture.connect() as connection, connection.transaction():
        connection.execute("UPDATE products SET price_minor = 1 WHERE product_id = %s", [product])
        assert "public.products, public.orders" in capture.cdc("snapshot", "products", "orders")
        seen = capture.records(until=of_product)
    follower.read(seen)
    (read,) = of_product(seen)
    assert read.envelope
    assert read.envelope["source"]["snapshot"] == "incremental"
    assert read.envelope["source"]["lsn"] is None
    changes = capture.records(until=lambda new: any(r.key == read.key and r.op == "u" for r in new))
    (change,) = [r.envelope for r in changes if r.key == read.key and r.op == "u"]
    assert change
    assert change["source"]["lsn"] < version(read.envelope)[1]  # by position alone it would lose
    assert version(change) > version(read.envelope)
    follower.read(changes)
    follower.catches_up()


def test_an_incremental_snapshot_brings_every_row_again_and_changes_nothing(
    capture: Capture, follower: Follower
) -> None:
    orders = in_database(capture)["orders"]
    before = follower.tables()
    capture.cdc("snapshot", "orders")
    again = capture.records(until=lambda seen: {r.key for r in seen if r.is_incremental("orders")} >= set_of(orders))
    follower.read(again)
    assert follower.tables() == before


def set_of(rows: dict[str, Any]) -> set[str]:
    return {json.dumps(json.loads(key), separators=(",", ":")) for key in rows}


def test_a_truncated_table_is_told(capture: Capture, follower: Follower) -> None:
    capture.sql("TRUNCATE order_items")
    told = capture.records(until=lambda seen: any(record.op == "t" for record in seen))
    (record,) = [record for record in told if record.op == "t"]
    assert (record.topic, record.key) == ("cdc.public.order_items", None)
    follower.read(told)
    follower.catches_up()


def test_a_failed_task_is_told_with_its_cause_and_started_again_by_register(
    capture: Capture, follower: Follower, stack: Stack
) -> None:
    capture.sql("ALTER PUBLICATION streamforge RENAME TO elsewhere")
    restart(stack)
    eventually(lambda: "FAILED" in capture.run("status").stdout, "a failed task")
    failed = capture.run("status")
    assert failed.returncode == 1
    assert "Publication autocreation is disabled" in failed.stdout
    refused = capture.run("register")
    assert refused.returncode == 1
    assert len(refused.stderr.splitlines()) == 1
    assert "Publication autocreation is disabled" in refused.stderr
    capture.sql("ALTER PUBLICATION elsewhere RENAME TO streamforge")
    assert "restarted" in capture.cdc("register")
    # For PostgreSQL the publication is still missing at the place in the WAL where the slot stands. So:
    assert_anew_brings_everything(capture, follower)


def assert_anew_brings_everything(capture: Capture, follower: Follower) -> None:
    rows = {(table, key) for table, found in in_database(capture).items() for key in set_of(found)}
    assert "began anew" in capture.cdc("snapshot", "--initial")
    again = capture.records(
        until=lambda seen: {(r.topic.removeprefix("cdc.public."), r.key) for r in seen if r.op == "r"} >= rows
    )
    follower.read(again)
    capture.workload(20, seed=6)
    follower.catches_up()


def test_a_slot_left_behind_is_reported_until_somebody_reads_it_again(
    capture: Capture, stack: Stack, tmp_path: Path
) -> None:
    def lag() -> int:
        metrics = (tmp_path / "slots.prom").read_text()
        (line,) = [x for x in metrics.splitlines() if x.startswith("streamforge_replication_slot_lag_bytes{")]
        assert 'slot="streamforge"' in line
        return int(line.split()[-1])

    def report() -> tuple[int, str]:
        done = capture.run("slots", "--output", str(tmp_path / "slots.prom"))
        return done.returncode, done.stdout

    eventually(lambda: report()[0] == 0, "a slot that is read")
    stack.stop("connect")
    eventually(lambda: report()[0] == 1, "a slot that nobody reads")
    before = lag()
    capture.workload(50, seed=5)
    code, said = report()
    assert code == 1
    assert "nobody reads it, and it retains" in said
    assert lag() > before + 10_000
    assert (
        'streamforge_replication_slot_active{slot="streamforge",database="shop"} 0'
        in (tmp_path / "slots.prom").read_text()
    )
    stack.start("connect")
    eventually(lambda: report()[0] == 0 and lag() < before + 10_000, "a slot that is read up to the end")


def test_the_metrics_of_the_slots_are_served_until_the_server_is_stopped(capture: Capture) -> None:
    port = pick_free()
    addresses = ["--database", capture.url, "--secrets", str(capture.secrets), "--port", str(port)]
    server = subprocess.Popen([sys.executable, "-m", "cdc", "slots", *addresses])
    try:
        scraped = eventually(lambda: fetch_url(f"http://127.0.0.1:{port}/metrics"), "a scrape")
        assert b'streamforge_replication_slot_lost{slot="streamforge",database="shop"} 0' in scraped
        server.terminate()
        assert server.wait(20) == 0
    finally:
        server.kill()
        server.wait()


def restart(stack: Stack) -> None:
    url = f"http://{stack.address('connect')}/connectors/shop/restart?includeTasks=true"
    urllib.request.urlopen(urllib.request.Request(url, method="POST"), timeout=60).close()


def test_a_wrong_password_is_one_line_that_says_where_to_look(capture: Capture) -> None:
    wrong = capture.secrets / "wrong"
    wrong.mkdir(exist_ok=True)
    (wrong / "capture-password").write_text("wrong")
    refused = capture.run("register", "--secrets", str(wrong), "--name", "other")
    assert refused.returncode == 1
    (line,) = refused.stderr.splitlines()
    assert "password authentication failed" in line
    assert "--secrets" in line


def test_connect_reads_no_secrets_outside_of_its_folder(capture: Capture, tmp_path: Path) -> None:
    (tmp_path / "capture-password").write_text((capture.secrets / "capture-password").read_text())
    refused = capture.run("register", "--secrets", str(tmp_path), "--name", "other")
    assert refused.returncode == 1
    assert "password authentication failed" in refused.stderr


def test_no_password_is_in_the_connectors_configuration(capture: Capture, stack: Stack) -> None:
    with urllib.request.urlopen(f"http://{stack.address('connect')}/connectors/shop", timeout=60) as answer:
        shown = answer.read().decode()
    assert "${dir:" in shown
    assert (capture.secrets / "capture-password").read_text() not in shown
    assert (capture.secrets / "capture-password").stat().st_mode & 0o077 == 0


GRANTED = {
    **{f"public.{table}": {"SELECT"} for table in TABLES},
    "capture.signal": {"SELECT", "INSERT"},
    "capture.heartbeat": {"SELECT", "UPDATE"},
}


def test_the_capture_role_may_do_exactly_what_capture_needs(capture: Capture) -> None:
    rights = capture.sql(
        "SELECT n.nspname || '.' || c.relname, p FROM pg_class c JOIN pg_namespace n ON n.oid = c.relnamespace,"
        " unnest('{SELECT,INSERT,UPDATE,DELETE,TRUNCATE,REFERENCES,TRIGGER,MAINTAIN}'::text[]) p"
        " WHERE c.relkind IN ('r', 'p', 'v', 'S') AND n.nspname NOT IN ('pg_catalog', 'information_schema')"
        f" AND c.relkind <> 'S' AND has_table_privilege('{ROLE}', c.oid, p)"
    )
    found: dict[str, set[str]] = {}
    for table, right in rights:
        found.setdefault(table, set()).add(right)
    assert found == GRANTED
    attributes = "rolsuper, rolcreaterole, rolcreatedb, rolbypassrls, rolreplication, rolcanlogin"
    assert capture.sql(f"SELECT {attributes} FROM pg_roles WHERE rolname = '{ROLE}'") == [
        (False, False, False, False, True, True)
    ]
    assert not capture.sql(f"SELECT 1 FROM pg_auth_members WHERE member = '{ROLE}'::regrole")


@pytest.mark.parametrize(
    "statement",
    [
        *(f"INSERT INTO {table} SELECT * FROM {table}" for table in TABLES if table != "inventory_movements"),
        "INSERT INTO inventory_movements (product_id, delta, reason) VALUES ('P0001', 1, 'RESTOCK')",
        "UPDATE products SET price_minor = 0",
        *(f"DELETE FROM {table}" for table in TABLES),
        *(f"TRUNCATE {table} CASCADE" for table in TABLES),
        "ALTER TABLE products ADD COLUMN mine text",
        "DROP TABLE order_items",
        "DELETE FROM capture.signal",
        "CREATE TABLE public.mine (a int)",
        "CREATE TABLE capture.mine (a int)",
        "CREATE SCHEMA mine",
        "DROP PUBLICATION streamforge",
        "CREATE ROLE mine",
    ],
)
def test_the_capture_role_cannot_change_the_shop(capture: Capture, statement: str) -> None:
    password = (capture.secrets / "capture-password").read_text()
    with (
        Database.parse(capture.url).connect(password, user=ROLE) as connection,
        pytest.raises(psycopg.errors.InsufficientPrivilege),
    ):
        connection.execute(statement.encode())


def test_setting_up_again_changes_nothing(capture: Capture) -> None:
    before = in_database(capture)
    password = (capture.secrets / "capture-password").read_text()
    capture.cdc("setup", "--sample_data")
    after = in_database(capture)
    # Sample products that the workload deleted or renumbered come back; nothing else does.
    for table, rows in before.items():
        assert rows.items() <= after[table].items(), table
    assert (capture.secrets / "capture-password").read_text() == password
    assert capture.run("status").returncode == 0
