"""What is stored can be looked up: any id that a job accepts, by every route that takes one, in the real server."""

from __future__ import annotations

import http.client
import json
from collections.abc import Iterator
from urllib.parse import quote

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from schemas.ids import is_id
from tests.build import T0, alert, session
from tests.server import Server, running
from tests.store import order
from tests.store import write as write_rows
from tests.transforms.io.test_redis_cdc import of_product
from tests.transforms.io.test_redis_cdc import write as write_changes

pytestmark = pytest.mark.stack

ODD = [
    "auth0|5f",
    "https://id.example/u/7",
    "..",
    ".",
    "a?b#c",
    "a%2Fb",
    "ü 😀",
    "Ürün-1",
    "A B",
    " lead",
    "q1w/2e+3r==",
]
ODD += [
    "/",
    "//",
    "/a/",
    "a/",
    "\u2028",
    "\ufeff",
    "�",
    "%",
    "%00",
    "null",
    "*",
    "[a]",
    "{}",
    '"',
    "\\",
    "a:1",
    "😀" * 256,
]
ids = st.sampled_from(ODD) | st.text(min_size=1, max_size=40).filter(is_id)


@pytest.fixture(scope="module")
def server(valkey, tmp_path_factory) -> Iterator[Server]:
    with running(valkey.redis_url, "--redis_timeout", "30", tmp_path=tmp_path_factory.mktemp("server")) as server:
        yield server


def ask(server: Server, path: str, body: object = None) -> tuple[int, dict]:
    """Sends the path as it is."""
    connection = http.client.HTTPConnection("127.0.0.1", server.port, timeout=30)
    text = None if body is None else json.dumps(body)
    connection.request("POST" if text else "GET", path, text, {"Content-Type": "application/json"} if text else {})
    answer = connection.getresponse()
    try:
        return answer.status, json.loads(answer.read())
    finally:
        connection.close()


def store(valkey, name: str) -> None:
    """By the jobs' own writers."""
    write_rows(valkey.redis_url, [order("o-1", T0, 100, name)])
    write_rows(valkey.redis_url, [session(name, T0), session(name, T0 + 1)])
    write_rows(valkey.redis_url, [alert(user_id=name, alert_id="a-1"), alert(user_id=name, alert_id="a-2")])
    write_changes(valkey.redis_url, [of_product(1, name, 4)])


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture], deadline=None, max_examples=50)
@given(name=ids, other=ids)
def test_what_is_stored_under_any_id_is_found_by_every_route(server, valkey, db, name, other):
    db.flushall()
    store(valkey, name)
    store(valkey, other)
    encoded = quote(name, safe="")
    for path, its_id in (
        (f"features/{encoded}", "user_id"),
        (f"fraud-alerts/{encoded}", "user_id"),
        (f"fraud-alerts?user_id={encoded}", "user_id"),
        (f"sessions/{encoded}", "user_id"),
        (f"sessions?open=true&user_id={encoded}", "user_id"),
        (f"inventory/{encoded}", "product_id"),
        (f"inventory?product_id={encoded}", "product_id"),
    ):
        status, answer = ask(server, f"/api/v1/{path}")
        assert status == 200, (path, answer)
        rows = answer["data"] if isinstance(answer["data"], list) else [answer["data"]]
        assert {row[its_id] for row in rows} == {name}, path
        assert len(rows) == (2 if "alerts" in path or "sessions" in path else 1)
        if answer.get("next_cursor", 0) is None and len(rows) == 2:
            cursor = ask(server, f"/api/v1/{path}{'&' if '?' in path else '?'}limit=1")[1]["next_cursor"]
            rest = ask(server, f"/api/v1/{path}{'&' if '?' in path else '?'}limit=1&cursor={cursor}")[1]
            assert rest["data"] == rows[1:]


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture], deadline=None, max_examples=5)
@given(more=st.lists(ids, max_size=30))
def test_no_id_spoils_the_others_of_a_batch(server, valkey, db, more):
    db.flushall()
    asked = [*ODD, *more, "nobody"]
    for name in set(asked) - {"nobody"}:
        write_rows(valkey.redis_url, [order("o-1", T0, 100, name)])
    status, answer = ask(server, "/api/v1/features", {"user_ids": asked})
    assert (status, answer["missing"]) == (200, ["nobody"])
    assert [row["user_id"] for row in answer["data"]] == asked[:-1]


@pytest.mark.parametrize("path", ["features/%0A", "features/%C2%85", "fraud-alerts/" + "x" * 257, "inventory/%7F"])
def test_what_can_be_no_id_is_refused_in_one_sentence(server, path):
    status, answer = ask(server, f"/api/v1/{path}")
    assert status == 400
    assert "id is 1 to 256 characters" in answer["error"]
