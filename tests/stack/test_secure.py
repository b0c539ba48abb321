"""The local stack with TLS, passwords and access rules: what works there, what is refused, and where no secret is."""

from __future__ import annotations

import contextlib
import datetime
import json
import shutil
import subprocess
import sys
import time
import urllib.request
import zipfile
from collections.abc import Iterator
from pathlib import Path

import msgspec
import pytest
import redis
from confluent_kafka.admin import (
    AdminClient,
    ScramCredentialInfo,
    ScramMechanism,
    UserScramCredentialUpsertion,
)

from connections import settings
from connections.kafka import Brokers, Connection
from schemas.access import API, LETTERS_TOOL, SIMULATOR
from schemas.jobs import JOBS
from schemas.store_keys import KEYS
from stack import Stack
from stack.ports import pick_free
from stack.secure import ADMIN, Secure, write_private
from tests import live
from tests.build import click
from transforms.domain.fraud import alert_id
from transforms.io.kafka import KafkaRecord
from transforms.io.kafka.sink import _WriteRecordsFn

pytestmark = pytest.mark.stack

FRAUD = JOBS["fraud"]
(ORDERS,) = FRAUD.topics
EVENTS = 3_000


@pytest.fixture(scope="module")
def stack(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Stack]:
    folder = tmp_path_factory.mktemp("secure")
    with Stack(folder, ("kafka", "registry", "valkey"), ports="free", secure=True) as made:
        yield made


@pytest.fixture(scope="module")
def planted(stack: Stack, tmp_path_factory: pytest.TempPathFactory) -> list[dict[str, str]]:
    """Orders in their topic, by the simulator with its own rights; the frauds among them."""
    truth = tmp_path_factory.mktemp("truth") / "truth.jsonl"
    flags = [f"--topics={ORDERS}", f"--events={EVENTS}", "--rate=0", "--fraud_share=0.2", "--bad_share=0.02"]
    flags += [f"--output=kafka://{stack.address('kafka')}", f"--registry={stack.registry_url}", f"--truth={truth}"]
    done = run("simulator", *flags, *stack.flags(SIMULATOR, "kafka", "registry"))
    assert done.returncode == 0, done.stderr
    lines = [json.loads(line) for line in truth.read_text().splitlines()]
    return [line for line in lines if line["kind"] == "fraud"]


def run(module: str, *flags: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", module, *flags]
    return subprocess.run(command, capture_output=True, text=True, cwd=live.ROOT, timeout=600)


def secure(stack: Stack) -> Secure:
    assert stack.secure is not None
    return stack.secure


def fraud_flags(stack: Stack, **instead: str) -> list[str]:
    kafka = f"kafka://{stack.address('kafka')}"
    flags = [f"--input={kafka}/{ORDERS}", f"--output={stack.redis_url}", f"--output={kafka}/{FRAUD.topic}"]
    files = dict(
        flag.removeprefix("--").split("=", 1) for flag in stack.flags(FRAUD.name, "kafka", "registry", "store")
    )
    return [*flags, f"--registry={stack.registry_url}", *(f"--{n}={v}" for n, v in {**files, **instead}.items())]


def secrets_of(stack: Stack) -> list[bytes]:
    """Every password, and a line of every private key."""
    folder = secure(stack).folder
    keys = [path.read_text().splitlines()[1] for path in folder.glob("**/*.key")]
    return [word.encode() for word in (*(path.read_text() for path in folder.glob("*/password")), *keys)]


def found_in(secrets: list[bytes], *folders: Path) -> list[str]:
    """Files that hold one of them; jars are opened."""

    def contents(path: Path) -> Iterator[bytes]:
        yield path.read_bytes()
        if path.suffix == ".jar":
            with zipfile.ZipFile(path) as jar:
                yield from (jar.read(name) for name in jar.namelist() if not name.endswith(".class"))

    files = [path for folder in folders for path in folder.rglob("*") if path.is_file()]
    return [str(path) for path in files if any(secret in held for held in contents(path) for secret in secrets)]


@pytest.mark.parametrize("read", ["blocks", "native"])
def test_fraud_is_found_and_no_secret_is_seen(
    stack: Stack, planted: list[dict[str, str]], tmp_path: Path, read: str
) -> None:
    secrets = secrets_of(stack)
    assert len(secrets) > 20
    with redis.Redis(**stack.store) as store:
        store.flushall()
    flags = [*fraud_flags(stack), "--runner=FlinkRunner", f"--kafka_read={read}", "--checkpointing_interval=1000"]
    flags.append(f"--state_backend_storage_path={(tmp_path / 'state').as_uri()}")
    to_jar = [f"--output_executable_path={tmp_path / 'job.jar'}", "--environment_type=EXTERNAL"]
    with live.job(*flags, *to_jar, "--environment_config=127.0.0.1:50000", folder=tmp_path / "jar") as made:
        made.wait()
    with live.job(*flags, folder=tmp_path / "job") as running, redis.Redis(**stack.store) as store:
        running.wait_for_ledger(EVENTS)
        wanted = [(f["user_id"], alert_id(f["rule"], f["user_id"], f["order_id"])) for f in planted]

        def all_found() -> bool:
            return all(store.hexists(KEYS.user_alert_ids(user), alert) for user, alert in wanted)

        live.eventually(all_found, f"{len(wanted)} planted frauds in the store")
        live.eventually(lambda: list((tmp_path / "state").rglob("_metadata")), "a checkpoint")
        shown = subprocess.run(["ps", "-ewwo", "args="], capture_output=True, check=True).stdout
    assert str(tmp_path / "state").encode() in shown, "ps shows the job's flags"
    assert not [secret for secret in secrets if secret in shown]
    logs = secure(stack).folder.parent / "logs"
    assert (tmp_path / "job.jar").exists()
    assert found_in(secrets, tmp_path, logs) == []


def changed(file: str, folder: Path, **lines: str) -> str:
    """A copy of a settings file with other lines."""
    written = {**settings.raw(file), **{name.replace("__", "."): value for name, value in lines.items()}}
    path = folder / "changed.properties"
    path.write_text("".join(f"{name}={value}\n" for name, value in written.items()))
    return str(path)


def refusal(stack: Stack, flags: list[str]) -> str:
    """The one line in which a job ends that is refused."""
    done = run(FRAUD.page, *flags, "--runner=FlinkRunner")
    assert done.returncode == 2, done.stderr
    (line,) = [line for line in done.stderr.splitlines() if line.startswith(FRAUD.page)]
    assert "Traceback" not in done.stderr
    assert not [secret for secret in secrets_of(stack) if secret in done.stderr.encode()]
    return line


def test_a_wrong_password_is_told_in_one_line(stack: Stack, tmp_path: Path) -> None:
    wrong = changed(str(secure(stack).kafka(FRAUD.name)), tmp_path, sasl__password="not-this-one")
    line = refusal(stack, fraud_flags(stack, kafka_config=wrong))
    assert "--input: topic transactions.orders" in line
    assert "authentication" in line.lower()
    assert "not-this-one" not in line


def test_a_certificate_of_another_authority_is_told_in_one_line(stack: Stack, tmp_path: Path) -> None:
    Secure(tmp_path / "other").make()
    file = changed(str(secure(stack).kafka(FRAUD.name)), tmp_path, ssl__ca__location=str(tmp_path / "other" / "ca.crt"))
    assert "certificate verify failed" in refusal(stack, fraud_flags(stack, kafka_config=file))


def test_an_expired_certificate_is_told_in_one_line(stack: Stack, tmp_path: Path) -> None:
    copy = Secure(tmp_path / "copy")
    shutil.copytree(secure(stack).folder, copy.folder)
    copy.renew(FRAUD.name, datetime.timedelta(days=-1))
    flags = [flag.replace(stack.address("kafka"), stack.address("kafka-tls")) for flag in fraud_flags(stack)]
    flags.append(f"--kafka_config={copy.kafka(FRAUD.name, mutual=True)}")
    assert "certificate" in refusal(stack, flags).lower()


def test_a_certificate_is_as_good_as_a_password(stack: Stack) -> None:
    """And the same rights belong to it."""
    mine = Brokers(stack.address("kafka-tls"), str(secure(stack).kafka(FRAUD.name, mutual=True)))
    topics = AdminClient(Connection(mine).settings).list_topics(timeout=30).topics
    assert {ORDERS, FRAUD.topic} <= topics.keys()
    assert JOBS["revenue"].topic not in topics


def test_rights_of_another_job_are_not_enough(stack: Stack) -> None:
    other = str(secure(stack).kafka(JOBS["revenue"].name))
    line = refusal(stack, fraud_flags(stack, kafka_config=other))
    assert "python -m stack access" in line or "READ is not allowed" in line


def test_a_registry_and_a_store_that_refuse_are_told_in_one_line(stack: Stack, tmp_path: Path) -> None:
    wrong = changed(str(secure(stack).registry(FRAUD.name)), tmp_path, basic__auth__user__info="fraud-detector:no")
    line = refusal(stack, fraud_flags(stack, registry_config=wrong))
    assert "--registry: " in line
    assert "401" in line or "not authorized" in line
    wrong = changed(str(secure(stack).store(FRAUD.name)), tmp_path, password="not-this-one")
    line = refusal(stack, fraud_flags(stack, store_config=wrong))
    assert "--output: rediss://" in line
    assert "WRONGPASS" in line


def test_api_and_tools_work_with_their_own_rights(stack: Stack, planted: list[dict[str, str]], tmp_path: Path) -> None:
    assert planted
    kafka = stack.address("kafka")
    letters = run(
        "beam_pipelines.dead_letters",
        *("inspect", f"kafka://{kafka}/dlq.{FRAUD.name}", "--json", f"--registry={stack.registry_url}"),
        *stack.flags(LETTERS_TOOL, "kafka", "registry"),
    )
    assert letters.returncode == 0, letters.stderr
    port = pick_free()
    flags = [f"--port={port}", f"--redis={stack.redis_url}", f"--kafka={kafka}"]
    flags += [f"--events=kafka://{kafka}", f"--registry={stack.registry_url}"]
    flags += stack.flags(API, "kafka", "store", "registry")
    with (tmp_path / "api.log").open("wb") as log:
        api = subprocess.Popen([sys.executable, "-m", "serving", *flags], stdout=log, stderr=log, cwd=live.ROOT)
    try:

        def answer() -> bytes:
            with contextlib.suppress(OSError):
                return bytes(urllib.request.urlopen(f"http://127.0.0.1:{port}/api/v1/fraud-alerts", timeout=60).read())
            assert api.poll() is None, (tmp_path / "api.log").read_text()
            return b""

        assert json.loads(live.eventually(answer, "the API answers"))["success"]
        # A click, which no test of this file counts, and what is none.
        sent = urllib.request.Request(
            f"http://127.0.0.1:{port}/api/v1/events",
            msgspec.json.encode([click(at=time.time_ns() // 1_000_000), {}]),
            {"Content-Type": "application/json"},
        )
        with urllib.request.urlopen(sent, timeout=60) as told:
            fates = json.loads(told.read())["data"]
        assert fates[0]["status"] == "accepted"
        assert fates[1]["dead_letter"]
    finally:
        api.terminate()
        api.wait(60)


def test_a_password_that_is_changed_is_taken_up_between_two_bundles(
    stack: Stack, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(settings, "_LOOK_EVERY_S", 0.0)
    mine = Secure(tmp_path / "mine")
    shutil.copytree(secure(stack).folder, mine.folder)
    name = JOBS["sessions"].name
    fn = _WriteRecordsFn(
        Brokers(stack.address("kafka"), str(mine.kafka(name))),
        JOBS["sessions"].topic,
        lambda: lambda value: KafkaRecord(b"key", value, 1),
        name,
    )

    def write() -> None:
        fn.start_bundle()
        fn.process(b"value")
        assert list(fn.finish_bundle()) == []

    fn.setup()
    write()
    before = fn._producer
    admin = AdminClient(Connection(Brokers(stack.address("kafka"), str(mine.kafka(ADMIN)))).settings)
    scram = ScramCredentialInfo(ScramMechanism.SCRAM_SHA_512, 4096)
    for done in admin.alter_user_scram_credentials(
        [UserScramCredentialUpsertion(name, scram, b"another-one")]
    ).values():
        done.result(30)
    write_private(mine.folder / name / "password", "another-one")
    write()
    assert fn._producer is not before
