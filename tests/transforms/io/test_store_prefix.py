"""Two shops on one server: neither sees, changes or counts what is the other's."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import pytest
import redis
import yaml
from flask.testing import FlaskClient

from schemas import currencies
from schemas.addresses import StoreUrl
from schemas.store_keys import KEYS, PREFIX, PREFIX_PATTERN, Keys, store_prefix
from serving import Config, create_app
from stack import Stack
from stack.valkey import _READER, _WRITER
from tests.build import T0, alert, minute, session
from tests.kept import Kept, plain
from tests.store import Write, order, write
from tests.transforms.io.test_redis_cdc import of_product, version
from tests.transforms.io.test_redis_cdc import write as write_cdc
from transforms.domain.cdc import Customer, OrderPlace
from transforms.io.redis import StoreRefusedError, _WriteLedgerFn, check_store
from transforms.ledger import Counts

OURS = "shop-a"
THEIRS = "shop-a.b"  # begins as ours does


@pytest.mark.parametrize("text", ["", "a:b", "{a}", "a*", "a b", "-a", "ü", "a" * 64, "a\n"])
def test_a_prefix_can_be_no_pattern_and_no_other_ones_beginning(text: str) -> None:
    with pytest.raises(ValueError, match="letters, digits"):
        store_prefix(text)


def test_without_a_prefix_keys_are_what_they_were() -> None:
    assert store_prefix(PREFIX) == PREFIX == "sf"
    assert vars(Keys()) == vars(KEYS)
    assert KEYS.user("u") == "sf:user:u"
    assert KEYS.recent_alerts == "sf:alerts:recent"


def test_the_charts_prefix_is_the_same() -> None:
    chart = Path(__file__).parents[3] / "helm/streamforge"
    rules = json.loads((chart / "values.schema.json").read_text())["properties"]["redis"]["properties"]["prefix"]
    assert rules["pattern"] == f"^{PREFIX_PATTERN}$"
    assert yaml.safe_load((chart / "values.yaml").read_text())["redis"]["prefix"] == PREFIX


def fill(url: str, shop: str) -> None:
    """Something under every key, the same ids in each shop."""
    batches: list[list[Write]] = [
        [alert(alert_id="a-1", description=shop)],
        [session("u-1", version=1, pane="EARLY", page_views=len(shop))],
        [order("o-1", T0, len(shop))],
        [minute(T0, gmv_minor=len(shop))],
    ]
    for batch in batches:
        write(url, batch, prefix=shop)
    rows = [
        of_product(1, "p-1", stock=len(shop)),
        Customer("c-1", version(1), True, shop, T0),
        OrderPlace("c-1", "o-1", version(1), "CREATED", len(shop), T0),
    ]
    write_cdc(url, rows, prefix=shop)
    ledger = _WriteLedgerFn(url, "fraud-detector", 1, shop)
    ledger.setup()
    ledger.process(Counts(good=len(shop)))


def contents(db: redis.Redis, shop: str) -> dict[str, bytes]:
    """Of each key that is this shop's, as DUMP tells it."""
    return {plain(key): db.dump(key) for key in db.scan_iter(f"{shop}:*", count=1_000)}


@pytest.mark.stack
def test_two_shops_share_a_store_and_neither_touches_the_others_keys(kept: Kept) -> None:
    db = kept.db
    fill(kept.url, THEIRS)
    before = contents(db, THEIRS)
    assert len(before) == len(list(db.scan_iter()))
    fill(kept.url, OURS)
    ours = contents(db, OURS)
    assert {key.removeprefix(OURS) for key in ours} == {key.removeprefix(THEIRS) for key in before}
    write_cdc(kept.url, [(table, version(2)) for table in ("products", "customers", "orders")], prefix=OURS)
    assert contents(db, OURS) != ours
    assert contents(db, THEIRS) == before
    assert all(key.startswith((b"shop-a:", b"shop-a.b:")) for key in db.scan_iter())


@pytest.fixture
def api(kept: Kept) -> Callable[..., FlaskClient]:
    def make(shop: str, **more: str) -> FlaskClient:
        return create_app(Config(redis_url=kept.url, store_prefix=shop, **more)).test_client()  # type: ignore[arg-type]

    return make


PATHS = [
    "fraud-alerts",
    "fraud-alerts/u-1",
    "sessions",
    "sessions/u-1",
    f"revenue?currency={currencies.DEFAULT}",
    "features/u-1",
    "inventory/p-1",
    "inventory",
]


@pytest.mark.stack
@pytest.mark.parametrize("path", PATHS)
def test_each_shops_api_tells_of_its_own_alone(kept: Kept, api: Callable[..., FlaskClient], path: str) -> None:
    fill(kept.url, OURS)
    told = api(OURS).get(f"/api/v1/{path}").get_json()
    assert told["success"]
    assert told["data"]
    assert not api(THEIRS).get(f"/api/v1/{path}").get_json().get("data")
    fill(kept.url, THEIRS)
    assert api(OURS).get(f"/api/v1/{path}").get_json() == told
    assert api(THEIRS).get(f"/api/v1/{path}").get_json()["data"] not in ([], None, told["data"])


@pytest.mark.stack
def test_the_health_and_the_rate_limit_are_each_shops_own(kept: Kept, api: Callable[..., FlaskClient]) -> None:
    fill(kept.url, OURS)
    assert api(OURS).get("/api/v1/health").get_json()["data"]["ledgers"]
    ours, theirs = api(OURS, rate_limit="1/hour"), api(THEIRS, rate_limit="1/hour")
    assert [ours.get("/api/v1/sessions").status_code for _ in range(2)] == [200, 429]
    assert theirs.get("/api/v1/sessions").status_code == 200


@pytest.mark.stack
def test_a_user_of_one_shop_may_do_all_that_its_jobs_do_and_nothing_of_the_others(
    valkey: Stack, db: redis.Redis
) -> None:
    """With the rules of docs/security.md, the prefix in place of `sf`."""
    db.execute_command("ACL", "SETUSER", "writer", "on", ">pw", "resetchannels", f"~{OURS}:*", *_WRITER.split())
    db.execute_command("ACL", "SETUSER", "reader", "on", ">pw", "resetchannels", f"~{OURS}:*", *_READER.split())
    url = valkey.redis_url.replace("redis://", "redis://writer:pw@")
    try:
        fill(url, OURS)
        check_store(StoreUrl(url), OURS)
        with pytest.raises(StoreRefusedError, match="permission"):
            check_store(StoreUrl(url), THEIRS)
        reader = valkey.redis_url.replace("redis://", "redis://reader:pw@")
        for shop, status in ((OURS, 200), (THEIRS, 503)):
            client = create_app(Config(redis_url=reader, store_prefix=shop)).test_client()
            assert client.get("/api/v1/fraud-alerts").status_code == status
    finally:
        db.execute_command("ACL", "DELUSER", "writer", "reader")
