"""What is wrong is said in one line, with what to change."""

from __future__ import annotations

import json
import shutil
import socket
import time
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path
from threading import Thread

import pytest
import redis
from confluent_kafka.admin import AdminClient, ConfigResource, NewTopic

from connections.kafka import Brokers
from schemas.addresses import Address, StoreUrl
from schemas.jobs import JOBS, topics
from schemas.store_keys import Keys
from stack import Stack
from stack.__main__ import main
from stack.doctor import Addresses, Finding, system
from stack.ports import HOST
from tests.live import eventually

_USAGE = shutil.disk_usage


def found(at: Addresses) -> dict[str, Finding]:
    return {finding.name: finding for finding in system(at)}


def test_a_machine_on_which_nothing_was_started_says_what_to_start(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["doctor", "--data", str(tmp_path)]) == 1
    lines = capsys.readouterr().out.splitlines()
    good, wrong = ([line for line in lines if line.startswith(word)] for word in ("ok ", "WRONG "))
    assert len(good) + len(wrong) == len(lines)
    assert any("python" in line for line in good)
    for service in ("kafka", "registry", "valkey"):
        (line,) = [line for line in wrong if f" {service} " in line]
        assert f"python -m stack up {service}" in line or "is taken" in line


def test_a_port_that_another_holds_is_named(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    port = int(Stack(tmp_path).address("valkey").rpartition(":")[2])
    try:
        holder = socket.create_server((HOST, port))
    except OSError:
        holder = None  # another has it already
    try:
        main(["doctor", "--data", str(tmp_path), "--json"])
    finally:
        if holder:
            holder.close()
    (valkey,) = [f for f in json.loads(capsys.readouterr().out) if f["name"] == "valkey"]
    assert not valkey["ok"]
    assert f"its port {port} is taken" in valkey["text"]


def test_a_full_disk_is_found(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(shutil, "disk_usage", lambda path: _USAGE(path)._replace(free=1 << 20))
    main(["doctor", "--data", str(tmp_path / "not" / "there"), "--json"])
    (disk,) = [f for f in json.loads(capsys.readouterr().out) if f["name"] == "disk"]
    assert not disk["ok"]
    assert disk["text"].startswith(f"1 MiB are free in {tmp_path}")


def test_a_store_that_is_well_and_one_that_throws_keys_away(valkey: Stack) -> None:
    at = Addresses(redis=StoreUrl(valkey.redis_url), prefix="shop-b")
    assert all(finding.ok for finding in system(at)), found(at)
    client = redis.Redis.from_url(valkey.redis_url)
    client.config_set("maxmemory-policy", "allkeys-lru")
    try:
        store = found(at)["store"]
    finally:
        client.config_set("maxmemory-policy", "noeviction")
    assert not store.ok
    assert "set noeviction" in store.text
    assert not client.exists(Keys("shop-b").check("doctor"))


def test_a_store_that_gives_no_more_rights_than_are_needed_is_well(valkey: Stack) -> None:
    client = redis.Redis.from_url(valkey.redis_url)
    client.acl_setuser("least", enabled=True, reset=True, passwords=["+p"], keys=["*"], categories=["+@all"])
    client.execute_command("ACL", "SETUSER", "least", "-info")
    try:
        at = Addresses(redis=StoreUrl(valkey.redis_url.replace("redis://", "redis://least:p@")))
        assert found(at)["store"] == Finding("store", True, found(at)["store"].text)
        assert "without +info" in found(at)["store"].text
    finally:
        client.acl_deluser("least")


def test_every_node_of_a_cluster_is_asked(valkey_cluster: Stack) -> None:
    at = Addresses(redis=StoreUrl(f"redis+cluster://{valkey_cluster.address('valkey-1')}"))
    assert all(finding.ok for finding in system(at)), found(at)
    last = redis.Redis.from_url(f"redis://{valkey_cluster.address('valkey-3')}")
    last.config_set("maxmemory-policy", "allkeys-lru")
    try:
        assert "set noeviction" in found(at)["store"].text
    finally:
        last.config_set("maxmemory-policy", "noeviction")


def test_clocks_that_differ_are_found(valkey: Stack, monkeypatch: pytest.MonkeyPatch) -> None:
    ahead = time.time
    monkeypatch.setattr("stack.doctor.time.time", lambda: ahead() + 60)
    clock = found(Addresses(redis=StoreUrl(valkey.redis_url)))["clock"]
    assert not clock.ok
    assert "-60.0 s" in clock.text


def test_what_cannot_be_reached_is_one_line_each() -> None:
    nowhere = f"{HOST}:1"
    store = StoreUrl(f"redis://:secret@{nowhere}/0")
    at = Addresses(("fraud",), kafka=Brokers(nowhere), registry=Address(f"http://{nowhere}"), redis=store)
    findings = list(system(at))
    assert [f.ok for f in findings] == [False] * 4
    assert not [f for f in findings if "\n" in f.text or "secret" in f.text]


@pytest.fixture
def registry() -> Iterator[HTTPServer]:
    """That answers with `level`."""

    class _Answer(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            body = json.dumps({"compatibilityLevel": self.server.level}).encode()  # type: ignore[attr-defined]
            self.send_response(200)
            self.end_headers()
            self.wfile.write(body)

        def log_message(self, *_: object) -> None:
            pass

    with HTTPServer((HOST, 0), _Answer) as server:
        thread = Thread(target=server.serve_forever)
        thread.start()
        yield server
        server.shutdown()
        thread.join()


@pytest.mark.parametrize(("level", "ok"), [("BACKWARD", True), ("NONE", False)])
def test_a_registry_that_takes_every_schema_is_found(registry: HTTPServer, level: str, ok: bool) -> None:
    registry.level = level  # type: ignore[attr-defined]
    finding = found(Addresses(registry=Address(f"http://{HOST}:{registry.server_port}")))["registry's rules"]
    assert finding.ok == ok, finding


def test_a_folder_is_written_to_and_left_empty(tmp_path: Path) -> None:
    assert found(Addresses(folders=(str(tmp_path),)))[str(tmp_path)].ok
    assert not list(tmp_path.iterdir())
    file = tmp_path / "file"
    file.touch()
    assert not found(Addresses(folders=(f"{file}/folder",)))[f"{file}/folder"].ok


@pytest.mark.stack
def test_a_topic_that_is_missing_or_too_small_is_named(tmp_path: Path) -> None:
    with Stack(tmp_path, ["kafka"], ports="free") as stack:
        servers = Brokers(stack.address("kafka"))
        at = Addresses(kafka=servers)
        assert found(at)["kafka's topics"].ok
        admin = AdminClient({"bootstrap.servers": servers})
        name = next(topic for topic, settings in topics([JOBS["archive"]]).items() if settings)
        small = ConfigResource(ConfigResource.Type.TOPIC, name, set_config={"max.message.bytes": "1000"})
        admin.alter_configs([small])[small].result(10)
        small_is_said = f"{name}: max.message.bytes is 1000"
        eventually(lambda: found(at)["kafka's topics"].text.startswith(small_is_said), small_is_said)
        admin.delete_topics([name])[name].result(10)
        missing = f"no topic {name} at {servers}"
        eventually(lambda: found(at)["kafka's topics"].text.startswith(missing), missing)
        assert found(Addresses(kafka=servers, jobs=("fraud",)))["kafka's topics"].ok, "another job's"
        # A shop's own names: only those, and with the settings of what they are for.
        letters = "shop-a.dlq.fraud-detector"
        look = Addresses(kafka=servers, topics=(letters,))
        assert f"no topic {letters}" in found(look)["kafka's topics"].text
        admin.create_topics([NewTopic(letters, 1, 1)])[letters].result(10)
        small_is_said = f"{letters}: max.message.bytes is"
        eventually(lambda: found(look)["kafka's topics"].text.startswith(small_is_said), small_is_said)
