"""What was reported of other systems that follow a database, played through the job into a real store."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import redis

import tests
from beam_pipelines.cdc import main
from schemas import inventory
from schemas.store_keys import KEYS
from stack import Stack
from tests.beam_pipelines.test_cdc import current
from tests.beam_pipelines.test_fraud import rows

pytestmark = pytest.mark.stack

CASES = Path(tests.__file__).parent / "cases"


class Shop:
    """The job, run on one case after another into the same store and folder."""

    def __init__(self, url: str, db: redis.Redis, folder: Path):
        self._url, self._db, self._folder = url, db, folder

    def play(self, *names: str) -> dict[str, int]:
        """Returns: the ledger of the last."""
        for name in names:
            ledger = self._folder / "ledger.json"
            main(
                [
                    f"--input={CASES / name}.jsonl",
                    f"--output={self._url}",
                    f"--output={self._folder / 'out'}",
                    f"--ledger={ledger}",
                    "--runner=DirectRunner",
                ]
            )
        return dict(json.loads(ledger.read_text()))

    def products(self) -> dict[str, dict[str, Any]]:
        found = {i.decode(): inventory.product_of(v) for i, v in self._db.hgetall(KEYS.products).items()}
        return {i: json.loads(v) for i, v in found.items() if v}

    def orders_of(self, customer: str) -> int:
        return int(self._db.hget(KEYS.customer(customer), "orders") or 0)

    def rows(self, table: str) -> list[dict[str, Any]]:
        return rows(self._folder / "out" / table)


@pytest.fixture
def shop(valkey: Stack, db: redis.Redis, tmp_path: Path) -> Shop:
    return Shop(valkey.redis_url, db, tmp_path)


RESTORED = {"P0": (2, 5.55), "P2": (40, 1.0), "P3": (40, 1.0), "P4": (40, 1.0)}


@pytest.mark.parametrize(
    "order",
    [
        ("database-before-restore", "database-after-restore"),
        ("database-before-restore", "database-after-restore", "database-before-restore"),
        ("database-after-restore", "database-before-restore"),
    ],
)
def test_what_a_restored_database_says_replaces_what_the_old_server_said(shop: Shop, order: tuple[str, ...]) -> None:
    shop.play(*order)
    assert {i: (p["stock"], p["price"]) for i, p in shop.products().items()} == RESTORED
    view = {json.loads(key)["product_id"]: row["stock"] for (_, key), row in current(shop.rows("cdc_changes")).items()}
    assert view == {i: stock for i, (stock, _) in RESTORED.items()}


def test_without_replica_identity_nothing_counts_twice_and_no_placeholder_is_a_value(shop: Shop) -> None:
    ledger = shop.play("no-replica-identity")
    assert (ledger["good"], ledger["dead_letters"]) == (4, 2)
    assert (shop.orders_of("A"), shop.orders_of("B")) == (1, 0)
    for letter in shop.rows("dead_letters"):
        assert "REPLICA IDENTITY" in letter["error_message"]
    assert shop.products()["P"]["name"] == "a long description, kept out of line"
    assert "__debezium" not in json.dumps([shop.rows("cdc_changes"), shop.products()])


def test_a_time_beyond_what_can_be_written_costs_neither_the_row_nor_the_job(shop: Shop) -> None:
    ledger = shop.play("far-times")
    assert (ledger["in"], ledger["good"]) == (6, 6)
    found = [(p["stock"], p["updated_at"]) for _, p in sorted(shop.products().items())]
    first, last = (50, "1970-01-01T00:00:00.000Z"), (50, "9999-12-31T23:59:59.999Z")
    assert found == [last, last, first, first, last, first]
    assert len(shop.rows("cdc_changes")) == 6
