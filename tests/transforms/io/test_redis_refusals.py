"""Stores that refuse: what is waited for, what is refused before the start, and that no password is ever shown."""

from __future__ import annotations

import logging
import socket
import socketserver
import threading
from collections.abc import Iterator
from typing import Self

import pytest
import redis

from schemas.addresses import StoreUrl
from serving.config import Config, ConfigError
from serving.connections import check_store as check_api_store
from stack import Stack
from tests.live import eventually
from transforms.io.redis import RedisFn, StoreError, StoreRefusedError, check_store

pytestmark = pytest.mark.stack

SECRET = "s3cr3t-Geheim"
# Answers with an error for the first two times.
_TWICE = """
if redis.call('INCR', KEYS[1]) < 3 then return redis.error_reply(ARGV[1]) end
return 'written'
"""


@pytest.fixture
def users(db: redis.Redis) -> Iterator[redis.Redis]:
    """`app` may do everything, `reader` may not run scripts; the server is put back as it was."""
    for name, rights in (("app", ["+@all"]), ("reader", ["+@read", "+@connection"])):
        db.execute_command("ACL", "SETUSER", name, "reset", "on", f">{SECRET}", "~*", *rights)
    yield db
    for name in ("app", "reader"):
        db.execute_command("ACL", "DELUSER", name)


def at(valkey: Stack, who: str, path: str = "/0") -> StoreUrl:
    return StoreUrl(f"redis://{who}@{valkey.address('valkey')}{path}")


def opened(url: StoreUrl) -> RedisFn:
    fn = RedisFn(url)
    fn.setup()
    return fn


@pytest.mark.parametrize(
    "reply",
    [
        "NOREPLICAS Not enough good replicas to write.",
        "MASTERDOWN Link with MASTER is down",
        "CLUSTERDOWN The cluster is down",
        "TRYAGAIN Multiple keys request during rehashing of slot",
        "MISCONF Redis is configured to save RDB snapshots",
        "OOM command not allowed when used memory > 'maxmemory'.",
        "LOADING Redis is loading the dataset in memory",
        "READONLY You can't write against a read only replica.",
        "NEVERHEARD of this one",
    ],
)
def test_a_store_that_cannot_take_a_write_now_is_waited_for(valkey: Stack, db: redis.Redis, reply: str) -> None:
    assert opened(StoreUrl(valkey.redis_url))._run(_TWICE, ["k"], [reply]) == b"written"


def test_a_real_store_without_replicas_or_memory_is_waited_for(
    valkey: Stack, db: redis.Redis, caplog: pytest.LogCaptureFixture
) -> None:
    fn = opened(StoreUrl(valkey.redis_url))
    for name, code in (("min-replicas-to-write", "NOREPLICAS"), ("maxmemory", "OOM")):
        db.config_set(name, 1)
        wrote = threading.Thread(target=fn._run, args=("return redis.call('SET', KEYS[1], 'x')", [name], []))
        try:
            wrote.start()
            eventually(lambda code=code: f": {code} " in caplog.text, f"{code} in the log")  # type: ignore[misc]
            assert not db.exists(name)
        finally:
            db.config_set(name, 0)
        wrote.join(timeout=60)
        assert db.get(name) == b"x"


def test_what_is_wrong_with_a_command_is_not_asked_again(valkey: Stack, db: redis.Redis) -> None:
    db.set("k", "text")
    with pytest.raises(StoreError, match="WRONGTYPE"):
        opened(StoreUrl(valkey.redis_url))._run("return redis.call('HSET', KEYS[1], 'a', 'b')", ["k"], [])


@pytest.mark.parametrize(
    ("who", "path", "why"),
    [
        (f"app:{SECRET}x", "/0", "WRONGPASS"),
        (f"nobody:{SECRET}", "/0", "WRONGPASS"),
        (f"reader:{SECRET}", "/0", "NOPERM"),
        (f"app:{SECRET}", "/77", "DB index is out of range"),
    ],
)
def test_a_store_that_will_never_take_us_is_refused_before_the_start(
    valkey: Stack, users: redis.Redis, who: str, path: str, why: str
) -> None:
    with pytest.raises(StoreRefusedError, match=why) as refused:
        check_store(at(valkey, who, path))
    assert SECRET not in str(refused.value)
    assert "\n" not in str(refused.value)
    assert str(refused.value).startswith(f"redis://{valkey.address('valkey')}{path} refuses: ")


def test_a_store_that_takes_us_passes_and_keeps_nothing_of_the_check(valkey: Stack, users: redis.Redis) -> None:
    check_store(at(valkey, f"app:{SECRET}"))
    assert users.keys("sf:check:*") == []


def test_a_store_that_does_not_answer_yet_is_no_reason_not_to_start(caplog: pytest.LogCaptureFixture) -> None:
    check_store(StoreUrl(f"redis://app:{SECRET}@127.0.0.1:1/0"))
    assert "redis://127.0.0.1:1/0 does not answer yet" in caplog.text
    assert SECRET not in caplog.text


def test_a_password_that_is_changed_meanwhile_is_said_loudly_and_waited_for(
    valkey: Stack, users: redis.Redis, caplog: pytest.LogCaptureFixture
) -> None:
    fn = opened(at(valkey, f"app:{SECRET}"))
    users.execute_command("ACL", "SETUSER", "app", "resetpass", ">another")
    users.execute_command("CLIENT", "KILL", "TYPE", "normal", "SKIPME", "yes")
    with caplog.at_level(logging.INFO):
        wrote = threading.Thread(target=fn._run, args=("return redis.call('SET', KEYS[1], 'x')", ["k"], []))
        wrote.start()
        eventually(lambda: any(each.levelno == logging.ERROR for each in caplog.records), "an error in the log")
        users.execute_command("ACL", "SETUSER", "app", f">{SECRET}")
        wrote.join(timeout=60)
    assert users.get("k") == b"x"
    assert "WRONGPASS" in caplog.text
    assert SECRET not in caplog.text


class Another(socketserver.ThreadingTCPServer):
    """A server that is not Redis, and from its third connection on is the store: as a proxy whose store is away."""

    daemon_threads = True

    def __init__(self, reply: bytes, store: str = ""):
        super().__init__(("127.0.0.1", 0), _Answers)
        self.reply, self.store, self.left = reply, store, 2
        self.url = StoreUrl(f"redis://127.0.0.1:{self.server_address[1]}/0")

    def __enter__(self) -> Self:
        threading.Thread(target=self.serve_forever, args=(0.01,), daemon=True).start()
        return self

    def __exit__(self, *_: object) -> None:
        self.shutdown()
        self.server_close()


class _Answers(socketserver.BaseRequestHandler):
    server: Another

    def handle(self) -> None:
        self.server.left -= 1
        if self.server.left >= 0 or not self.server.store:
            while self.request.recv(1_000):
                self.request.sendall(self.server.reply)
            return
        host, _, port = self.server.store.rpartition(":")
        with socket.create_connection((host, int(port))) as store:
            while asked := self.request.recv(65_536):
                store.sendall(asked)
                self.request.sendall(store.recv(65_536))


REPLIES = [b":5\r\n", b"*-1\r\n", b"+OK\r\n", b"SSH-2.0-x\r\n", b"~1\r\n*0\r\n"]


@pytest.mark.parametrize("reply", REPLIES)
def test_another_server_at_the_stores_address_is_refused_before_the_start(reply: bytes) -> None:
    with Another(reply) as server:
        with pytest.raises(StoreRefusedError, match=r"not Redis|Protocol error"):
            check_store(server.url)
        with pytest.raises(ConfigError, match=r"not Redis|Protocol error"):
            check_api_store(Config(redis_url=server.url))


@pytest.mark.parametrize("reply", REPLIES)
def test_another_server_in_the_stores_place_is_waited_for_by_a_write(
    valkey: Stack, db: redis.Redis, reply: bytes, caplog: pytest.LogCaptureFixture
) -> None:
    with Another(reply, valkey.address("valkey")) as server:
        fn = opened(server.url)
        assert fn._run("return redis.call('SET', KEYS[1], 'x')", ["k"], []) == b"OK"
        fn.teardown()
    assert db.get("k") == b"x"
    assert f"cannot write to {server.url}" in caplog.text
