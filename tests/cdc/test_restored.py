"""The database is lost and restored on another server, whose log begins anew; with the real PostgreSQL and Debezium."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
from confluent_kafka.admin import AdminClient, AlterConfigOpType, ConfigEntry, ConfigResource

from stack import Stack
from tests.cdc.capture import Capture, Record
from tests.live import eventually
from transforms.domain.cdc import Change, parse, product_of

pytestmark = [pytest.mark.stack, pytest.mark.timeout(900)]  # two servers, one after the other


@pytest.fixture
def stack(tmp_path: Path) -> Iterator[Stack]:
    with Stack(tmp_path / "stack", ["kafka", "postgres", "connect"], ports="free") as stack:
        yield stack


def of_products(records: list[Record]) -> list[Change]:
    found = [parse(r.key and r.key.encode(), r.value.encode()) for r in records if r.value and "products" in r.topic]
    return [change for change in found if change is not None]


def newest(changes: list[Change]) -> dict[str, int]:
    by_version = sorted(changes, key=lambda change: change.version)
    return {change.key["product_id"]: product_of(change).stock for change in by_version}


def _limit(kafka: str, topic: str, size: int) -> None:
    entry = ConfigEntry("max.message.bytes", str(size), incremental_operation=AlterConfigOpType.SET)
    resource = ConfigResource(ConfigResource.Type.TOPIC, topic, incremental_configs=[entry])
    admin = AdminClient({"bootstrap.servers": kafka})  # named: its futures fail when it is gone
    for changed in admin.incremental_alter_configs([resource]).values():
        changed.result(timeout=30)


def until_stock(stock: int) -> object:
    return lambda seen: any(c.row and c.row.stock == stock for c in of_products(seen))


def test_a_restored_database_replaces_what_the_old_server_said(stack: Stack, tmp_path: Path) -> None:
    capture = Capture(stack, tmp_path / "stack")
    try:
        capture.cdc("setup", "--sample_data")
        assert "created" in capture.cdc("register")
        for _ in range(4):  # 16 MB of log each
            capture.sql("SELECT pg_switch_wal()")
            capture.sql("UPDATE products SET stock = stock + 1 WHERE product_id = 'P0002'")
        capture.sql("UPDATE products SET stock = 7777 WHERE product_id = 'P0001'")
        before = of_products(capture.records(until_stock(7777)))  # type: ignore[arg-type]

        # A row of 1.4 MB, twice in its change, and a table that keeps quiet about the old row.
        large = "(SELECT string_agg(md5(i::text), '') FROM generate_series(1, 44000) AS i)"
        capture.sql(f"UPDATE products SET name = {large}, stock = 8888 WHERE product_id = 'P0003'")
        capture.sql("ALTER TABLE orders REPLICA IDENTITY DEFAULT")
        before += of_products(capture.records(until_stock(8888)))  # type: ignore[arg-type]
        assert max(len(bytes(change.after)) for change in before) > 1_400_000
        lacking = "orders lacks REPLICA IDENTITY FULL"
        assert lacking in capture.cdc("status")
        kafka = stack.address("kafka")
        _limit(kafka, "cdc.public.orders", 1_000_000)
        told = capture.cdc("register", "--kafka", kafka)
        assert lacking in told
        assert "cdc.public.orders takes 1000000 bytes, and a change may have 16777216: kafka-configs --alter" in told
        assert "cdc.public.products takes" not in told
        assert 'streamforge_replica_identity_full{table="orders"} 0' in capture.run("slots", "--prometheus").stdout

        stack.stop("postgres", wipe=True)
        stack.start("postgres")
        capture.cdc("setup", "--sample_data")
        capture.sql("UPDATE products SET stock = 5555 WHERE product_id = 'P0001'")
        assert "python -m cdc register" in capture.run("status").stdout
        assert "another server than before" in capture.cdc("register")
        assert "unchanged" in capture.cdc("register")
        capture.sql("UPDATE products SET stock = 6666 WHERE product_id = 'P0002'")
        after = of_products(capture.records(until_stock(6666)))  # type: ignore[arg-type]

        assert max(change.lsn for change in after) < max(change.lsn for change in before)
        for order in (before + after, after + before):
            stocks = newest(order)
            assert (stocks["P0001"], stocks["P0002"]) == (5555, 6666)
        eventually(lambda: capture.run("slots").returncode == 0, "a slot that is read")
    finally:
        capture.close()
