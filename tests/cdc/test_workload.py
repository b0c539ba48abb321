"""Against PostgreSQL alone: what the workload promises of its tables."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import psycopg
import pytest

from cdc import database, sample, server, slots, workload
from cdc.database import Database
from cdc.errors import CdcError
from simulator.catalogue import CATALOGUE
from stack import Stack
from tests.live import eventually

pytestmark = pytest.mark.stack


@pytest.fixture(scope="module")
def postgres(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Stack]:
    with Stack(tmp_path_factory.mktemp("postgres"), ["postgres"], ports="free") as stack:
        yield stack


@pytest.fixture
def shop(postgres: Stack, tmp_path_factory: pytest.TempPathFactory) -> Iterator[psycopg.Connection[tuple[object, ...]]]:
    """An empty schema as of `setup`."""
    where = Database.parse(f"postgresql://postgres@{postgres.address('postgres')}/shop")
    folder = postgres.log("postgres").parent.parent / "postgres"
    with where.connect((folder / "password").read_text()) as connection:
        connection.execute("DROP SCHEMA public CASCADE")
        connection.execute("CREATE SCHEMA public")
        database.set_up(connection, tmp_path_factory.mktemp("secrets"))
        yield connection


def rows(shop: psycopg.Connection[tuple[object, ...]], query: str) -> list[tuple[object, ...]]:
    return shop.execute(query.encode()).fetchall()


def test_a_movement_and_its_stock_stand_or_fall_together(shop: psycopg.Connection[tuple[object, ...]]) -> None:
    sample.fill(shop)
    shop.execute("CREATE TABLE begun AS SELECT product_id, stock FROM products")
    # Follows renumbered products, so that each can be compared with what it began with.
    shop.execute(
        "ALTER TABLE begun ADD FOREIGN KEY (product_id) REFERENCES products ON UPDATE CASCADE ON DELETE CASCADE"
    )
    done = workload.run(shop, 500, seed=11)
    assert done["order rolled back"]
    assert done["product renumbered"]
    wrong = rows(
        shop,
        "SELECT * FROM begun b JOIN products p USING (product_id) WHERE p.stock <> b.stock +"
        " coalesce((SELECT sum(delta) FROM inventory_movements m WHERE m.product_id = p.product_id), 0)",
    )
    assert wrong == []
    assert rows(shop, "SELECT * FROM products WHERE stock < 0") == []
    # An order's total is the sum of its lines: none was cut in two by a rollback.
    assert (
        rows(
            shop,
            "SELECT order_id FROM orders o WHERE total_minor <>"
            " (SELECT coalesce(sum(quantity * unit_price_minor), 0) FROM order_items i WHERE i.order_id = o.order_id)",
        )
        == []
    )
    assert len(rows(shop, "SELECT 1 FROM orders")) == done["order"] - done["order deleted"]


def test_the_same_seed_on_the_same_tables_does_the_same(
    shop: psycopg.Connection[tuple[object, ...]], tmp_path_factory: pytest.TempPathFactory
) -> None:
    query = (
        "SELECT product_id, name, price_minor, stock, rating FROM products ORDER BY product_id",
        "SELECT customer_id, full_name, email, phone, region FROM customers ORDER BY customer_id",
        "SELECT order_id, customer_id, status, total_minor FROM orders ORDER BY order_id",
        "SELECT * FROM order_items ORDER BY order_id, line_no",
        "SELECT product_id, delta, reason, order_id FROM inventory_movements ORDER BY movement_id",
    )
    ends = []
    for _ in range(2):
        shop.execute("DROP SCHEMA public CASCADE")
        shop.execute("CREATE SCHEMA public")
        database.set_up(shop, tmp_path_factory.mktemp("secrets"))
        sample.fill(shop)
        counts = workload.run(shop, 200, seed=5)
        ends.append((counts, [rows(shop, each) for each in query]))
    assert ends[0] == ends[1]
    assert ends[0][0]["column added"] == 1


def test_it_can_go_on_where_another_run_ended(shop: psycopg.Connection[tuple[object, ...]]) -> None:
    sample.fill(shop)
    first = workload.run(shop, 100, seed=5)
    second = workload.run(shop, 100, seed=5)
    (count,) = rows(shop, "SELECT count(*) FROM orders")[0]
    assert count == first["order"] + second["order"] - first["order deleted"] - second["order deleted"]


def test_without_products_it_says_what_to_do(shop: psycopg.Connection[tuple[object, ...]]) -> None:
    with pytest.raises(CdcError, match="--sample_data"):
        workload.run(shop, 1, seed=1)


def test_the_sample_products_are_those_that_the_simulator_sells(shop: psycopg.Connection[tuple[object, ...]]) -> None:
    sample.fill(shop)
    shown = rows(shop, "SELECT product_id, name, category, price_minor, currency FROM products ORDER BY product_id")
    assert shown == [(p.product_id, p.name, p.category, p.price_minor, "TRY") for p in CATALOGUE]
    assert all(str(email).endswith("@example.com") for (email,) in rows(shop, "SELECT email FROM customers"))


def test_a_container_that_is_stopped_ends_it_with_what_was_done(
    shop: psycopg.Connection[tuple[object, ...]], postgres: Stack
) -> None:
    """A first process has no default for SIGTERM: without a handler it would be killed after the time of grace."""
    sample.fill(shop)
    url = f"postgresql://postgres@{postgres.address('postgres')}/shop"
    password = postgres.log("postgres").parent.parent / "postgres" / "password"
    command = [sys.executable, "-m", "cdc.workload", "--database", url, "--password_file", str(password), "--rate=50"]
    process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    try:
        eventually(lambda: rows(shop, "SELECT 1 FROM orders LIMIT 1"), "an order")
        process.terminate()
        out, _ = process.communicate(timeout=60)
    finally:
        process.kill()
        process.wait()
    assert process.returncode == 0
    assert " transactions in " in out


def test_the_role_that_watches_slots_sees_them_and_reads_no_table(
    shop: psycopg.Connection[tuple[object, ...]], postgres: Stack, tmp_path: Path
) -> None:
    database.set_up(shop, tmp_path)
    shop.execute("SELECT pg_create_logical_replication_slot('watched', 'pgoutput')")
    where = Database.parse(f"postgresql://postgres@{postgres.address('postgres')}/shop")
    try:
        with where.connect(database.secret(tmp_path, database.MONITOR), user=database.MONITOR) as monitor:
            assert [slot.name for slot in slots.read_slots(monitor)] == ["watched"]
            assert set(server.identities(monitor)) == set(database.TABLES)
            for table in (*(f"public.{name}" for name in database.TABLES), "capture.signal"):
                with pytest.raises(psycopg.errors.InsufficientPrivilege):
                    monitor.execute(f"SELECT * FROM {table}".encode())
    finally:
        shop.execute("SELECT pg_drop_replication_slot('watched')")
    attributes = "rolsuper, rolcreaterole, rolcreatedb, rolbypassrls, rolreplication"
    assert rows(shop, f"SELECT {attributes} FROM pg_roles WHERE rolname = '{database.MONITOR}'") == [(False,) * 5]
