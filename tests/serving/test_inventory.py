"""Products and stock alerts: the writer's bytes, read by the API."""

from __future__ import annotations

from typing import Any

import msgspec
import pytest
import redis
from flask.testing import FlaskClient

from schemas.events import LowStockAlert
from schemas.features import rfc3339
from serving.inventory import ProductAnswer, ProductPage, StockAlertPage
from stack import Stack
from tests.build import T0
from tests.transforms.io.test_redis_cdc import of_product, version, write

pytestmark = pytest.mark.stack


def alert(number: int, product_id: str = "p-1") -> LowStockAlert:
    return LowStockAlert(f"a-{number}", product_id, "Eski ad", "mutfak", 3, 10, T0 + number, version(number))


def ids(answer: Any) -> list[str]:
    return [row["product_id"] for row in answer.json["data"]]


def test_a_product_is_what_the_database_says(client: FlaskClient, db: redis.Redis, valkey: Stack) -> None:
    write(valkey.redis_url, [of_product(7, "p-1", 4)])
    answer = client.get("/api/v1/inventory/p-1")
    assert answer.json == {
        "success": True,
        "count": 1,
        "data": {
            "product_id": "p-1",
            "name": "Çay",
            "category": "mutfak",
            "price": 7.0,
            "currency": "TRY",
            "stock": 4,
            "low_stock_threshold": 10,
            "low_stock": True,
            "updated_at": rfc3339(T0 + 7),
        },
    }
    assert msgspec.json.decode(answer.data, type=ProductAnswer).data.low_stock


def test_one_that_is_not_there_or_no_more_is_not_found(client: FlaskClient, db: redis.Redis, valkey: Stack) -> None:
    write(valkey.redis_url, [of_product(1, "gone", 5), of_product(2, "gone", 0, exists=False)])
    for product_id in ("gone", "never"):
        answer = client.get(f"/api/v1/inventory/{product_id}")
        assert (answer.status_code, answer.json) == (404, {"success": False, "error": "there is no such product"})
    assert client.get("/api/v1/inventory").json["count"] == 0
    assert client.get("/api/v1/inventory/a%0Ab").status_code == 400


def test_all_products_or_those_low_on_stock_by_their_id_page_by_page(
    client: FlaskClient, db: redis.Redis, valkey: Stack
) -> None:
    write(valkey.redis_url, [of_product(i, f"p-{i:02}", i) for i in range(1, 21)])
    everything = client.get("/api/v1/inventory")
    assert ids(everything) == [f"p-{i:02}" for i in range(1, 21)]
    assert len(msgspec.json.decode(everything.data, type=ProductPage).data) == 20
    low = client.get("/api/v1/inventory?low_stock=true&limit=6")
    assert ids(low) == [f"p-{i:02}" for i in range(1, 7)]
    rest = client.get(f"/api/v1/inventory?low_stock=true&cursor={low.json['next_cursor']}")
    assert ids(rest) == [f"p-{i:02}" for i in range(7, 11)]
    assert ids(client.get("/api/v1/inventory", query_string={"since": rfc3339(T0 + 19)})) == ["p-19", "p-20"]
    assert ids(client.get("/api/v1/inventory", query_string={"until": rfc3339(T0 + 1)})) == ["p-01"]


@pytest.mark.parametrize("query", ["low_stock=yes", "low=true", "limit=0", "cursor=x"])
def test_a_wrong_parameter_is_refused_in_one_sentence(client: FlaskClient, db: redis.Redis, query: str) -> None:
    answer = client.get(f"/api/v1/inventory?{query}")
    assert answer.status_code == 400
    assert answer.json["error"]


def test_an_alert_says_what_was_and_what_its_product_is_now(
    client: FlaskClient, db: redis.Redis, valkey: Stack
) -> None:
    write(valkey.redis_url, [of_product(9, "p-1", 60), alert(1), alert(2, "gone"), alert(3)])
    answer = client.get("/api/v1/inventory-alerts?limit=2")
    (third, second) = answer.json["data"]
    assert (third["alert_id"], third["product_name"], third["stock"]) == ("a-3", "Eski ad", 3)
    assert (third["product"]["name"], third["product"]["stock"], third["product"]["low_stock"]) == ("Çay", 60, False)
    assert (second["product_id"], second["product"]) == ("gone", None)
    assert len(msgspec.json.decode(answer.data, type=StockAlertPage).data) == 2
    (first,) = client.get(f"/api/v1/inventory-alerts?cursor={answer.json['next_cursor']}").json["data"]
    assert (first["alert_id"], first["timestamp"]) == ("a-1", rfc3339(T0 + 1))
    assert client.get("/api/v1/inventory-alerts?since=2200-01-01T00:00:00Z").json["data"] == []
