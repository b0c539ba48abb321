"""The real services, on free ports."""

import json
import os
import signal
import socket
import subprocess
import sys
import time
import urllib.error
import urllib.request
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import ClassVar

import pytest
from confluent_kafka import Consumer, KafkaError, Producer, TopicPartition
from confluent_kafka.admin import AdminClient

from stack import Stack, StackError
from stack.ports import pick_free
from stack.process import Process
from stack.service import Place, Service
from stack.topics import TOPICS

pytestmark = pytest.mark.stack


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("data with a space")


@pytest.fixture(scope="module")
def stack(data: Path) -> Iterator[Stack]:
    with Stack(data, ["kafka", "registry", "valkey"], ports="free") as stack:
        yield stack


def command(*arguments: str | Path) -> subprocess.CompletedProcess[str]:
    return subprocess.run([sys.executable, "-m", "stack", *arguments], capture_output=True, text=True, check=False)


def post_schema(stack: Stack, subject: str, schema: object) -> int:
    request = urllib.request.Request(
        f"{stack.registry_url}/subjects/{subject}/versions",
        json.dumps({"schema": json.dumps(schema)}).encode(),
        {"Content-Type": "application/vnd.schemaregistry.v1+json"},
    )
    with urllib.request.urlopen(request, timeout=60) as answer:
        return int(json.load(answer)["id"])


def record(*fields: Mapping[str, object]) -> Mapping[str, object]:
    return {"type": "record", "name": "R", "fields": fields}


def redis(stack: Stack, text: bytes) -> bytes:
    host, port = stack.address("valkey").split(":")
    with socket.create_connection((host, int(port)), timeout=5) as connection:
        connection.sendall(text + b"\r\n")
        return connection.recv(4096)


def wait_until_gone(pid: int) -> None:
    deadline = time.monotonic() + 10
    while time.monotonic() < deadline:
        state = subprocess.run(["ps", "-o", "stat=", "-p", str(pid)], capture_output=True, text=True, check=False)
        if state.stdout.strip() in ("", "Z", "Zs"):  # a zombie waits for init to notice
            return
        time.sleep(0.05)
    raise AssertionError(f"process {pid} is still there")


def test_kafka_returns_what_was_sent_with_its_old_event_time(stack: Stack) -> None:
    producer = Producer({"bootstrap.servers": stack.address("kafka")})
    producer.produce("transactions.orders", b"value", b"key", partition=0, timestamp=1_000_000_000_000)
    assert producer.flush(10) == 0
    consumer = Consumer({"bootstrap.servers": stack.address("kafka"), "group.id": "test", "enable.auto.commit": False})
    consumer.assign([TopicPartition("transactions.orders", 0, 0)])
    message = consumer.poll(10)
    consumer.close()
    assert message is not None
    assert not message.error()
    assert (message.key(), message.value(), message.timestamp()[1]) == (b"key", b"value", 1_000_000_000_000)


def test_kafka_has_the_topics_of_the_project_and_makes_no_others(stack: Stack) -> None:
    admin = AdminClient({"bootstrap.servers": stack.address("kafka")})
    topics = admin.list_topics(timeout=60).topics
    assert {name: len(topics[name].partitions) for name in TOPICS} == TOPICS
    asked_for = admin.list_topics("no.such.topic", timeout=60).topics["no.such.topic"]
    assert asked_for.error.code() == KafkaError.UNKNOWN_TOPIC_OR_PART


def test_the_registry_refuses_a_schema_that_cannot_read_the_old_data(stack: Stack) -> None:
    post_schema(stack, "refusal", record({"name": "a", "type": "string"}))
    with pytest.raises(urllib.error.HTTPError) as refused:
        post_schema(stack, "refusal", record({"name": "a", "type": "string"}, {"name": "b", "type": "int"}))
    assert refused.value.code == 409
    post_schema(stack, "refusal", record({"name": "a", "type": "string"}, {"name": "b", "type": "int", "default": 0}))


def test_the_registry_keeps_its_ids_over_a_restart(stack: Stack) -> None:
    schema = record({"name": "kept", "type": "string"})
    number = post_schema(stack, "restart", schema)
    stack.kill("registry")
    stack.start("registry")
    with urllib.request.urlopen(f"{stack.registry_url}/schemas/ids/{number}", timeout=60) as answer:
        assert json.loads(json.load(answer)["schema"])["fields"] == [{"name": "kept", "type": "string"}]
    assert post_schema(stack, "restart", schema) == number


def test_valkey_keeps_nothing_on_disk_and_evicts_nothing(stack: Stack) -> None:
    assert redis(stack, b"PING").startswith(b"+PONG")
    assert b"\r\nno\r\n" in redis(stack, b"CONFIG GET appendonly")
    assert redis(stack, b"CONFIG GET save").endswith(b"$0\r\n\r\n")
    assert b"noeviction" in redis(stack, b"CONFIG GET maxmemory-policy")
    assert b"536870912" in redis(stack, b"CONFIG GET maxmemory")


def test_everything_listens_on_the_loopback_interface_only(stack: Stack) -> None:
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as probe:
        try:
            probe.connect(("192.0.2.1", 9))  # sends nothing; tells the address of the outer interface
        except OSError:
            pytest.skip("no other interface")
        outer = probe.getsockname()[0]
    for name in ("kafka", "kafka-controller", "registry", "valkey"):
        with pytest.raises(OSError):  # noqa: PT011 - refused or unreachable, as the system likes
            socket.create_connection((outer, int(stack.address(name).split(":")[1])), timeout=2)


def test_up_again_says_so_and_changes_nothing(stack: Stack, data: Path) -> None:
    before = [stack.pid(name) for name in ("kafka", "registry", "valkey")]
    again = command("up", "--data", data)
    assert again.returncode == 0, again.stderr
    assert again.stderr.count("already up") == 3
    assert stack.address("kafka") in again.stderr
    assert [stack.pid(name) for name in ("kafka", "registry", "valkey")] == before
    status = command("status", "--data", data)
    assert status.returncode == 0
    assert status.stdout.count("healthy") == 3


def test_status_is_1_when_one_has_died_and_up_brings_it_back(stack: Stack, data: Path) -> None:
    stack.kill("valkey")
    status = command("status", "--data", data)
    assert status.returncode == 1
    assert "not running" in status.stdout
    stack.start()
    assert command("status", "--data", data).returncode == 0


def test_logs_are_not_silent(stack: Stack, data: Path) -> None:
    shown = command("logs", "--data", data, "--lines", "5")
    assert shown.returncode == 0
    assert all(f"{name} | " in shown.stdout for name in ("kafka", "registry", "valkey"))


def test_down_leaves_no_process_and_keeps_the_data(tmp_path: Path) -> None:
    ports = {name: pick_free() for name in ("kafka", "kafka-controller", "valkey")}
    words = [word for name, port in ports.items() for word in ("--port", f"{name}={port}")]
    assert command("up", "kafka", "valkey", "--data", tmp_path, *words).returncode == 0
    pids = [pid for name in ("kafka", "valkey") if (pid := Process(tmp_path / name / "pid").pid())]
    assert len(pids) == 2
    assert command("down", "--data", tmp_path).returncode == 0
    for pid in pids:
        wait_until_gone(pid)
    assert (tmp_path / "kafka" / "data" / "alerts.fraud-0").is_dir()
    assert (tmp_path / "kafka" / "data" / ".kafka_cleanshutdown").exists()
    assert command("down", "--wipe", "--data", tmp_path).returncode == 0
    assert not (tmp_path / "kafka").exists()


def test_down_finds_what_a_killed_owner_left(tmp_path: Path) -> None:
    code = (
        "import os, signal, sys; from stack import Stack\n"
        "with Stack(sys.argv[1], ['valkey'], ports='free'): os.kill(os.getpid(), signal.SIGKILL)"
    )
    assert subprocess.run([sys.executable, "-c", code, tmp_path], check=False).returncode == -signal.SIGKILL
    pid = Process(tmp_path / "valkey" / "pid").pid()
    assert pid
    assert command("down", "--data", tmp_path).returncode == 0
    wait_until_gone(pid)


def test_an_interrupted_up_leaves_nothing_running(tmp_path: Path) -> None:
    words = [w for name in ("kafka", "kafka-controller") for w in ("--port", f"{name}={pick_free()}")]
    up = subprocess.Popen([sys.executable, "-m", "stack", "up", "kafka", "--data", tmp_path, *words])
    process = Process(tmp_path / "kafka" / "pid")
    deadline = time.monotonic() + 20
    while not (pid := process.pid()) and time.monotonic() < deadline:
        time.sleep(0.02)
    assert pid
    up.send_signal(signal.SIGINT)
    assert up.wait(30) == 130
    wait_until_gone(pid)


def test_two_at_once_in_one_folder_start_one_and_two_folders_start_two(tmp_path: Path) -> None:
    words = ["--port", f"valkey={pick_free()}", "--data", str(tmp_path / "one")]
    ups = [
        subprocess.Popen([sys.executable, "-m", "stack", "up", "valkey", *words], stderr=subprocess.PIPE, text=True)
        for _ in range(2)
    ]
    said = sorted(up.communicate()[1] for up in ups)
    assert [up.returncode for up in ups] == [0, 0], said
    assert "already up" in said[0]
    assert "up after" in said[1]
    with Stack(tmp_path / "two", ["valkey"], ports="free") as other:
        assert other.pid("valkey") != Process(tmp_path / "one" / "valkey" / "pid").pid() is not None
    assert command("down", "--data", tmp_path / "one").returncode == 0


class Doomed(Service):
    name = "doomed"
    ports: ClassVar[Mapping[str, int]] = {"doomed": 0}

    def command(self, place: Place) -> list[str]:  # noqa: ARG002
        return ["/bin/sh", "-c", "echo starting; echo 'ERROR: the disk is full'; echo bye; exit 3"]

    def healthy(self, place: Place) -> bool:  # noqa: ARG002
        return False


def test_a_service_that_dies_at_start_is_reported_with_its_reason_and_the_others_are_stopped(tmp_path: Path) -> None:
    stack = Stack(tmp_path, ["valkey", Doomed()], ports="free")
    with pytest.raises(StackError) as caught:
        stack.start()
    assert str(caught.value) == (
        f"doomed died at start: ERROR: the disk is full (log: {tmp_path / 'logs' / 'doomed.log'})"
    )
    assert stack.pid("valkey") is None


class Stubborn(Service):
    """Ignores the polite signal, as a JVM in a long pause would."""

    name = "stubborn"
    ports: ClassVar[Mapping[str, int]] = {}

    def command(self, place: Place) -> list[str]:  # noqa: ARG002
        return ["/bin/sh", "-c", "trap '' TERM; touch ready; while :; do sleep 1; done"]

    def healthy(self, place: Place) -> bool:
        return (place.folder / "ready").exists()


def test_what_ignores_the_polite_signal_is_killed_after_a_while(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("stack.stack._GRACE_S", 0.5)
    stack = Stack(tmp_path, [Stubborn()])
    stack.start()
    pid = stack.pid("stubborn")
    assert pid
    assert stack.stop() == ["stubborn"]
    wait_until_gone(pid)


def test_leaving_the_context_stops_only_what_it_started(tmp_path: Path) -> None:
    with Stack(tmp_path, ["valkey"], ports="free") as owner:
        pid = owner.pid("valkey")
        with Stack(tmp_path, ["valkey"]) as guest:
            assert guest.address("valkey") == owner.address("valkey")
        assert owner.pid("valkey") == pid
    assert pid
    with pytest.raises(ProcessLookupError):
        os.kill(pid, 0)


def test_an_unknown_service_or_port_name_is_an_error(tmp_path: Path) -> None:
    with pytest.raises(StackError, match="no service is called 'kafak'"):
        Stack(tmp_path, ["kafak"])
    with pytest.raises(StackError, match="no port is called 'kafka'"):
        Stack(tmp_path, ["valkey"], ports={"kafka": 1})
