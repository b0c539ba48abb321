"""The online store as shops run it, while it fails over, or moves its slots, under load: against the model that one
server passes."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import redis

from connections.store_connection import connections
from schemas.addresses import StoreUrl
from schemas.store_keys import KEYS, Keys
from serving import Config, create_app
from stack import Stack
from stack.valkey_sets import SERVICE, cluster, watched
from tests.build import T0, alert, minute, session
from tests.kept import plain
from tests.live import eventually
from tests.store import Write, opened, order, write, write_bundle
from tests.transforms.io.test_redis import dump, model
from transforms.io.redis import StoreRefusedError, check_store

pytestmark = pytest.mark.stack

USERS = 60
KINDS: list[Callable[[int], Write]] = [
    lambda i: order(f"o-{i}", T0 + i, 100 + i, f"u-{i % USERS}"),
    lambda i: alert(alert_id=f"a-{i}", user_id=f"u-{i % USERS}", event_time=T0 + i),
    lambda i: session(f"u-{i % USERS}", T0 + i // USERS * 60_000, version=1),
    lambda i: minute(T0 + i % 7 * 60_000, version=i),
]


class Load:
    """Writers of each kind, a bundle of one after a bundle of another, and a reader of the API, in two threads until it
    ends."""

    def __init__(self, url: str):
        self.url, self.written, self.statuses = url, list[Write](), list[int]()
        self.error: BaseException | None = None
        self._stop = threading.Event()
        self._threads = [threading.Thread(target=self._run, args=(each,)) for each in (self._write, self._read)]

    def __enter__(self) -> Load:
        for thread in self._threads:
            thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._stop.set()
        for thread in self._threads:
            thread.join(120)
            assert not thread.is_alive()
        assert self.error is None, self.error

    def _run(self, step: Callable[[int], None]) -> None:
        number = 0
        try:
            while not self._stop.is_set():
                step(number)
                number += 1
        except Exception as e:  # noqa: BLE001 - told by `goes_on`, and at the end
            self.error = e

    def _write(self, number: int) -> None:
        if not number:
            self._writers = [opened(self.url, type(kind(0))) for kind in KINDS]
        rows = [KINDS[number % 4](number * 40 + i) for i in range(40)]
        write_bundle(self._writers[number % 4], rows)
        self.written += rows

    def _read(self, number: int) -> None:
        if not number:
            self._client = create_app(Config(redis_url=self.url, redis_timeout_s=2)).test_client()
        path = (f"fraud-alerts/u-{number % USERS}", "fraud-alerts", f"features/u-{number % USERS}", "revenue")[
            number % 4
        ]
        status = self._client.get(f"/api/v1/{path}").status_code
        self.statuses.append(200 if status == 404 else status)  # nothing of that user yet

    def goes_on(self, batches: int = 30) -> None:
        least = len(self.written) + 40 * batches
        eventually(lambda: len(self.written) >= least or self.error, f"{batches} more batches")
        assert self.error is None, self.error


def answers_again(load: Load) -> None:
    seen = len(load.statuses)
    eventually(lambda: load.statuses[seen:][-20:].count(200) == 20, "twenty answers in a row")


@pytest.fixture
def whole(tmp_path: Path) -> Iterator[Stack]:
    """Three masters, each with a replica."""
    with Stack(tmp_path, cluster(replicas=3, node_timeout_ms=1_500), ports="free") as stack:
        yield stack


def seeds(stack: Stack) -> str:
    return ",".join(stack.address(f"valkey-{number}") for number in (1, 2, 3))


def test_a_master_of_a_cluster_dies_under_load_and_nothing_that_replicas_have_is_lost(whole: Stack) -> None:
    url = f"redis+cluster://{seeds(whole)}?wait_replicas=1"
    with Load(url) as load:
        load.goes_on()
        whole.kill("valkey-2")
        with redis.Redis.from_url(f"redis://{whole.address('valkey-5')}") as replica:
            eventually(lambda: replica.role()[0] == b"master", "the replica takes over")
        whole.start("valkey-2")  # as the new master needs a replica to write on
        load.goes_on()
        answers_again(load)
    with redis.RedisCluster.from_url(f"redis://{whole.address('valkey-1')}") as db:
        assert dump(db) == model(load.written, cluster=True)
    assert {*load.statuses} <= {200, 503}


def slots_of(db: redis.Redis) -> dict[int, int]:
    """Slot → how many keys, of a node."""
    counts: dict[int, int] = {}
    for key in db.scan_iter(count=1_000):
        slot = db.execute_command("CLUSTER KEYSLOT", key)
        counts[slot] = counts.get(slot, 0) + 1
    return counts


def move(source: redis.Redis, target: redis.Redis, slot: int, pause_s: float) -> None:
    """As `valkey-cli --cluster reshard` does it, key by key."""
    own, new = (each.execute_command("CLUSTER MYID").decode() for each in (source, target))
    target.execute_command("CLUSTER SETSLOT", slot, "IMPORTING", own)
    source.execute_command("CLUSTER SETSLOT", slot, "MIGRATING", new)
    port = target.connection_pool.connection_kwargs["port"]
    while keys := source.execute_command("CLUSTER GETKEYSINSLOT", slot, 3):
        source.execute_command("MIGRATE", "127.0.0.1", port, "", 0, 5_000, "KEYS", *keys)
        time.sleep(pause_s)  # so that the others meet a slot that is here and there
    for node in (target, source):
        node.execute_command("CLUSTER SETSLOT", slot, "NODE", new)


def test_slots_move_under_load_and_no_write_is_lost_and_no_read_fails(valkey_cluster: Stack) -> None:
    nodes = [redis.Redis.from_url(f"redis://{valkey_cluster.address(f'valkey-{n}')}") for n in (1, 2, 3)]
    for node in nodes:
        node.flushall()
    with Load(f"redis+cluster://{seeds(valkey_cluster)}") as load:
        load.goes_on()
        shared = redis.crc.key_slot(KEYS.shared.encode())
        moved = 0
        for source, target in zip(nodes, [*nodes[1:], nodes[0]], strict=True):
            crowded = sorted((slot for slot in slots_of(source) if slot != shared), key=slots_of(source).get)[-4:]  # type: ignore[arg-type]
            for slot in crowded:
                move(source, target, slot, 0.01)
                moved += 1
        load.goes_on()
    assert moved == 12
    assert {*load.statuses} == {200}
    with redis.RedisCluster.from_url(f"redis://{valkey_cluster.address('valkey-1')}") as db:
        assert dump(db) == model(load.written, cluster=True)


@pytest.fixture
def guarded(tmp_path: Path) -> Iterator[Stack]:
    """A master, a replica and three sentinels."""
    with Stack(tmp_path, watched(down_after_ms=1_000), ports="free") as stack:
        yield stack


def watched_url(stack: Stack) -> str:
    sentinels = ",".join(stack.address(f"sentinel-{number}") for number in (1, 2, 3))
    return f"redis+sentinel://{sentinels}/{SERVICE}"


def master_of(stack: Stack) -> int:
    with redis.Redis.from_url(f"redis://{stack.address('sentinel-1')}") as sentinel:
        return int(sentinel.sentinel_get_master_addr_by_name(SERVICE)[1])


def taken_over(stack: Stack) -> redis.Redis:
    """The replica, once it is the master."""
    replica = redis.Redis.from_url(f"redis://{stack.address('valkey-replica-1')}")
    port = int(stack.address("valkey-replica-1").rpartition(":")[2])
    eventually(lambda: master_of(stack) == port and replica.role()[0] == b"master", "the replica takes over")
    return replica


@pytest.mark.parametrize("how", ["the master dies", "the operator switches"])
def test_sentinels_fail_over_under_load_and_nothing_that_the_replica_has_is_lost(guarded: Stack, how: str) -> None:
    with Load(f"{watched_url(guarded)}?wait_replicas=1") as load:
        load.goes_on()
        if how == "the master dies":
            guarded.kill("valkey")
        else:
            with redis.Redis.from_url(f"redis://{guarded.address('sentinel-1')}") as sentinel:
                sentinel.execute_command("SENTINEL FAILOVER", SERVICE)
        db = taken_over(guarded)
        guarded.start("valkey")  # sentinels make it a replica, which the writes wait for
        load.goes_on()
        answers_again(load)
    assert dump(db) == model(load.written)
    assert {*load.statuses} <= {200, 503}


def cut_off(stack: Stack) -> None:
    """The replica gets nothing any more, while the master takes writes."""
    with redis.Redis.from_url(stack.redis_url) as master, taken(stack) as replica:
        master.execute_command("ACL SETUSER", "default", "-psync", "-sync")
        master.execute_command("CLIENT KILL", "TYPE", "replica")
        eventually(lambda: replica.info("replication")["master_link_status"] == "down", "the replica is cut off")


def taken(stack: Stack) -> redis.Redis:
    return redis.Redis.from_url(f"redis://{stack.address('valkey-replica-1')}")


def test_what_only_the_master_had_is_lost_with_it_until_it_is_written_again(guarded: Stack) -> None:
    """That is what asynchronous replication means: docs/semantics.md. A job that is started from a checkpoint of before
    writes it again."""
    url = watched_url(guarded)
    write(url, [order("o-1", T0)])
    cut_off(guarded)
    write(url, [order("o-2", T0 + 1)])
    guarded.kill("valkey")
    db = taken_over(guarded)
    assert dump(db) == model([order("o-1", T0)])
    write(url, [order("o-1", T0)])
    write(url, [order("o-2", T0 + 1)])
    assert dump(db) == model([order("o-1", T0), order("o-2", T0 + 1)])


def test_a_write_that_waits_for_replicas_is_not_done_before_one_has_it(guarded: Stack) -> None:
    url = f"{watched_url(guarded)}?wait_replicas=1"
    write(url, [order("o-1", T0)])
    cut_off(guarded)
    waiting = threading.Thread(target=write, args=(url, [order("o-2", T0 + 1)]))
    waiting.start()
    with redis.Redis.from_url(guarded.redis_url) as master:
        eventually(lambda: master.zcard(KEYS.user_orders("u-1")) == 2, "the master has it")
    assert waiting.is_alive()
    guarded.kill("valkey")
    db = taken_over(guarded)
    guarded.start("valkey")
    waiting.join(60)
    assert not waiting.is_alive()
    assert dump(db) == model([order("o-1", T0), order("o-2", T0 + 1)])


def test_a_changed_password_of_the_sentinels_is_taken_up_when_they_are_asked_again(
    guarded: Stack, tmp_path: Path
) -> None:
    sentinels = [redis.Redis.from_url(f"redis://{guarded.address(f'sentinel-{n}')}") for n in (1, 2, 3)]
    secret = tmp_path / "secret"
    file = tmp_path / "store.properties"
    file.write_text(f"sentinel_username=shop\nsentinel_password=${{file:{secret}}}\n")
    pool: redis.ConnectionPool | None = None
    for password in ("first", "second"):
        secret.write_text(password)
        for sentinel in sentinels:
            sentinel.acl_setuser("shop", enabled=True, reset=True, passwords=[f"+{password}"], categories=["+@all"])
        pool = pool or connections(StoreUrl(watched_url(guarded), str(file)))
        pool.disconnect()
        with redis.Redis(connection_pool=pool) as store:
            assert store.role()[0] == b"master"
    for sentinel in sentinels:
        sentinel.close()


def test_a_wrong_kind_of_address_is_one_line(guarded: Stack, valkey: Stack) -> None:
    server = valkey.address("valkey")
    with pytest.raises(StoreRefusedError, match="cluster support disabled"):
        check_store(StoreUrl(f"redis+cluster://{server}"))
    check_store(StoreUrl(watched_url(guarded)))


def test_parts_are_as_many_on_each_node_and_users_as_many_in_each_part() -> None:
    keys = Keys(cluster=True)
    slots = sorted(redis.crc.key_slot(part.encode()) for part in keys.parts)
    assert [slot * len(slots) >> 14 for slot in slots] == list(range(len(slots)))
    counts: dict[str, int] = {}
    for number in range(25_600):
        part = keys.part_of(f"user-{number}")
        counts[part] = counts.get(part, 0) + 1
    assert len(counts) == len(slots)
    assert max(counts.values()) < 160
    assert plain(keys.user("u:{a}:b").encode()) == KEYS.user("u:{a}:b")


@pytest.mark.parametrize("user", ["u", "}", "{}", "{a}", "}{", "a:{b}:c", "ü"])
def test_all_keys_of_a_user_are_in_the_slot_of_the_part_whatever_the_id(user: str) -> None:
    keys: Any = Keys(cluster=True)
    names = [first + user for first in keys.of_user(keys.part_of(user))]
    names += [keys.user(user), keys.user_features(user), keys.user_alerts(user), keys.user_sessions(user)]
    assert len({redis.crc.key_slot(name.encode()) for name in names}) == 1
