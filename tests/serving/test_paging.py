"""Page by page, while rows come, go and change between the pages: what is there all the time is on exactly one."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable
from typing import Any

import pytest

from serving import Config
from serving.openapi import operations
from serving.store import Store
from tests.build import MINUTE, T0, alert, minute, session
from tests.serving.test_inventory import alert as stock_alert
from tests.store import write as write_rows
from tests.transforms.io.test_redis_cdc import of_product
from tests.transforms.io.test_redis_cdc import write as write_changes

pytestmark = pytest.mark.stack

ROWS, LIMIT = 40, 3


class Alerts:
    key = "alert_id"

    def __init__(self, stack: Any):
        self.url = stack.redis_url

    def fill(self) -> None:
        write_rows(self.url, [self._row(i) for i in range(0, 2 * ROWS, 2)])

    def change(self, page: int) -> None:
        """Newer ones, and late ones of any time between the others."""
        write_rows(self.url, [self._row(2 * ROWS + page), self._row(2 * page + 1), self._row(2 * (ROWS - page) - 1)])

    def _row(self, number: int) -> Any:
        return alert(alert_id=f"a-{number}", event_time=T0 + number // 4)  # several of one instant


class Sessions:
    key = "session_id"

    def __init__(self, stack: Any):
        self.url = stack.redis_url

    def fill(self) -> None:
        write_rows(self.url, [session(start=T0 + i * MINUTE) for i in range(0, 2 * ROWS, 2)])

    def change(self, page: int) -> None:
        """All last longer; others begin, earlier and later; some are taken back."""
        longer = [session(start=T0 + i * MINUTE, version=100 + page, page_views=page) for i in range(0, 2 * ROWS, 2)]
        others = [session(start=T0 + i * MINUTE) for i in (2 * page + 1, 2 * ROWS + page)]
        gone = session(start=T0 + (2 * page - 1) * MINUTE, deleted=True)
        write_rows(self.url, [*longer, *others, gone])


class Revenue:
    key = "window_start"

    def __init__(self, stack: Any):
        self.url = stack.redis_url

    def fill(self) -> None:
        self._write(range(0, 2 * ROWS, 2), 1)

    def change(self, page: int) -> None:
        self._write(range(0, 2 * ROWS, 2), 1 + page)
        self._write([2 * page + 1, 2 * ROWS + page], 1)

    def _write(self, numbers: Any, version: int) -> None:
        write_rows(self.url, [minute(T0 - T0 % MINUTE + i * MINUTE, version=version) for i in numbers])


class Products:
    key = "product_id"

    def __init__(self, stack: Any):
        self.stack = stack

    def fill(self) -> None:
        self._write(1, range(0, 2 * ROWS, 2))

    def change(self, page: int) -> None:
        """Those read last and those to be read next are sold, others are new or gone."""
        middle = 2 * LIMIT * page
        self._write(100 * page, (i for i in range(middle - 8, middle + 8, 2) if 0 <= i < 2 * ROWS))
        self._write(100 * page + 50, [(middle + 41) % 80, (middle - 3) % 80])
        write_changes(self.stack.redis_url, [of_product(100 * page + 90, f"p-{(middle - 3) % 80:03}", 0, exists=False)])

    def _write(self, version: int, numbers: Any) -> None:
        write_changes(self.stack.redis_url, [of_product(version + i % 7, f"p-{i:03}", 5) for i in numbers])


class StockAlerts:
    key = "alert_id"

    def __init__(self, stack: Any):
        self.stack = stack

    def fill(self) -> None:
        write_changes(self.stack.redis_url, [stock_alert(i) for i in range(0, 2 * ROWS, 2)])

    def change(self, page: int) -> None:
        write_changes(
            self.stack.redis_url,
            [stock_alert(2 * page + 1), stock_alert(2 * ROWS + page), of_product(page, "p-1", page)],
        )


class Labels:
    key = "alert_id"

    def __init__(self, stack: Any):
        self.url = stack.redis_url
        self.store = Store(Config(redis_url=self.url), lambda: None)

    def fill(self) -> None:
        write_rows(self.url, [alert(alert_id=f"a-{i}") for i in range(4 * ROWS)])
        for i in range(ROWS):
            self.store.label(f"a-{i}", "u-1", "confirmed", None, None)

    def change(self, page: int) -> None:
        """Others are labelled; one that has a label and gets another would move."""
        self.store.label(f"a-{ROWS + page}", "u-1", "false_alarm", None, None)


LISTS: dict[str, Callable[[Any], Any]] = {
    "/api/v1/fraud-alerts": Alerts,
    "/api/v1/fraud-alerts/u-1": Alerts,
    "/api/v1/fraud-alerts?state=new": Alerts,
    "/api/v1/labels": Labels,
    "/api/v1/sessions": Sessions,
    "/api/v1/sessions?open=true": Sessions,
    "/api/v1/sessions/u-1": Sessions,
    "/api/v1/revenue": Revenue,
    "/api/v1/inventory": Products,
    "/api/v1/inventory?low_stock=true": Products,
    "/api/v1/inventory-alerts": StockAlerts,
}


@pytest.mark.parametrize("path", LISTS)
def test_a_row_that_is_there_all_the_time_is_on_exactly_one_page(client, valkey, db, path):
    rows = LISTS[path](valkey)
    rows.fill()
    there = {
        row[rows.key]
        for row in client.get(path.partition("?")[0], query_string={"limit": 1000} | asked(path)).json["data"]
    }
    assert len(there) == ROWS
    seen: Counter[str] = Counter()
    page, cursor = 0, ""
    while cursor is not None:
        answer = client.get(
            path.partition("?")[0], query_string={"limit": LIMIT} | asked(path) | ({"cursor": cursor} if cursor else {})
        )
        assert answer.status_code == 200
        seen.update(row[rows.key] for row in answer.json["data"])
        cursor, page = answer.json["next_cursor"], page + 1
        rows.change(page)
        assert page < 3 * ROWS
    assert page > 10
    assert {each: seen[each] for each in there if seen[each] != 1} == {}


def asked(path: str) -> dict[str, str]:
    """Flask's client takes a path's own query or another, not both."""
    query = path.partition("?")[2]
    return dict([query.split("=")]) if query else {}


def test_every_list_is_among_these(client):
    lists = {
        rule.rule.replace("<user_id>", "u-1")
        for rule, _, _, operation in operations(client.application)
        if operation and any(parameter.name == "cursor" for parameter in operation.query)
    }
    # The export has lines and a header: test_desk.py.
    assert lists - {"/api/v1/labels/export"} == {path.partition("?")[0] for path in LISTS}


def test_products_that_an_earlier_release_listed_by_time_are_listed_by_id_once_one_is_written(client, valkey, db):
    rows = Products(valkey)
    rows.fill()
    for key in ("sf:inventory:all", "sf:inventory:low"):
        for at, member in enumerate(reversed(db.zrange(key, 0, -1))):
            db.zadd(key, {member: T0 + at})
    write_changes(valkey.redis_url, [of_product(1, "p-000", 5)])
    for path in ("/api/v1/inventory", "/api/v1/inventory?low_stock=true"):
        found = [row["product_id"] for row in client.get(path).json["data"]]
        assert found == sorted(found)
        assert len(found) == ROWS
