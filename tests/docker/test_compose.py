"""docker/compose.yaml, held against the programs that it starts and the local stack that the tests run on."""

from __future__ import annotations

import copy
import re
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import yaml

from cdc.connect import settings as connector_settings
from schemas.jobs import CAPTURED
from stack import connect, kafka, postgres, valkey
from stack.java import ADD_OPENS
from stack.service import Place
from tests.docker.compose import COMPOSE, PORTS, command, load, problems
from tests.docker.images import ROOT, targets

DOCUMENT = load()
SERVICES: dict[str, Any] = DOCUMENT["services"]
JOBS = {"archive", "cdc", "fraud", "revenue", "sessions"}
FLINK = yaml.safe_load((ROOT / "docker" / "flink" / "config.yaml").read_text())


def test_nothing_is_wrong_with_it() -> None:
    assert problems(DOCUMENT) == []


def set_to(*path: str | int, value: object) -> Callable[[dict[str, Any]], None]:
    def change(services: dict[str, Any]) -> None:
        found: Any = services
        for step in path[:-1]:
            found = found[step]
        found[path[-1]] = value

    return change


def without(*path: str) -> Callable[[dict[str, Any]], None]:
    def change(services: dict[str, Any]) -> None:
        found: Any = services
        for step in path[:-1]:
            found = found[step]
        del found[path[-1]]

    return change


@pytest.mark.parametrize(
    ("fault", "why"),
    [
        (set_to("kafka-ui", "ports", value=["127.0.0.1:8082:8080"]), "port 8082 is jobmanager's already"),
        (set_to("valkey", "ports", value=["0.0.0.0:6379:6379"]), "valkey: port 6379 is open to other machines"),
        (set_to("api", "depends_on", "valky", value={"condition": "service_healthy"}), "api: there is no valky"),
        (
            set_to("api", "depends_on", "valkey", "condition", value="service_started"),
            "api: does not wait until valkey",
        ),
        (without("registry", "healthcheck"), "registry: nobody can tell whether it is healthy"),
        (without("worker", "healthcheck"), "fraud: waits until worker is healthy, which nobody can tell"),
        (set_to("prepare", "restart", value="always"), "api: waits for the end of prepare, which begins again"),
        (without("connect", "profiles"), "connect: passwords is not there without its profile"),
        (
            set_to("kafka", "image", value="docker.io/apache/kafka:latest"),
            "kafka: docker.io/apache/kafka:latest is not",
        ),
        (set_to("kafka", "image", value="kafka:4.1.1"), "kafka: kafka:4.1.1 is not pinned, or says no registry"),
        (set_to("api", "image", value="${REGISTRY:-}streamforge-web:${TAG:-dev}"), "api: no image is called"),
        (without("api", "read_only"), "api: can change its own files"),
        (without("worker", "tmpfs"), "worker: has no /tmp"),
        (without("fraud", "cap_drop"), "fraud: keeps capabilities"),
        (without("postgres", "security_opt"), "postgres: may gain privileges"),
        (without("grafana", "deploy"), "grafana: has no limits"),
        (set_to("api", "volumes", value=["/var/run/docker.sock:/s"]), "api: has the machine in its hands"),
        (
            set_to("postgres", "environment", "POSTGRES_PASSWORD", value="x"),
            "postgres: POSTGRES_PASSWORD holds a secret",
        ),
        (set_to("shop", "environment", value={"URL": "postgresql://a:b@c/d"}), "shop: URL holds a password"),
        (
            set_to("prometheus", "volumes", 0, value="./prometheus/prom.yaml:/x:ro"),
            "prometheus: ./prometheus/prom.yaml is",
        ),
        (set_to("kafka", "volumes", 0, value="kafa:/var/lib/kafka/data"), "kafka: there is no volume kafa"),
        # What only the programs themselves know:
        (
            set_to("fraud", "command", 1, value="--inptu=kafka://kafka:9092/transactions.orders"),
            "fraud: its command is",
        ),
        (
            set_to("fraud", "command", 1, value="--input=kafka://kafka:9092/orders"),
            "fraud: its command is refused: no topics",
        ),
        (
            set_to("fraud", "environment", "FLINK_FLAGS", value="--runner=FlinkRunner --paralelism=2"),
            "fraud: its command",
        ),
        (set_to("api", "command", 0, value="--hots=0.0.0.0"), "api: its command is refused"),
        (set_to("simulator", "command", 1, value="--rate=fast"), "simulator: its command is refused"),
        (set_to("connector", "command", 0, value="regster"), "connector: its command is refused"),
        (set_to("worker", "command", 0, value="--hots=127.0.0.1"), "worker: its command is refused"),
        (set_to("shop", "command", 1, value="--rat=10"), "shop: its command is refused"),
        (set_to("slots", "command", 4, value="--prot=9187"), "slots: its command is refused"),
    ],
)
def test_a_planted_fault_is_found(fault: Callable[[dict[str, Any]], None], why: str) -> None:
    document = load()  # anew: services share what they have from one anchor
    document = copy.deepcopy(document)
    fault(document["services"])
    found = problems(document)
    assert [line for line in found if why in line], found


# What it says twice, because others' programs cannot read our Python


def place(folder: Path = Path("/data")) -> Place:
    ports = {**kafka.Kafka.ports, **connect.Connect.ports, **postgres.Postgres.ports, **valkey.Valkey.ports}
    return Place(folder, ports)


def test_kafka_is_set_up_as_the_one_that_the_tests_run_on() -> None:
    environment = SERVICES["kafka"]["environment"]
    elsewhere = {"listeners", "advertised.listeners", "controller.quorum.voters", "log.dirs"}
    expected = {name: value for name, value in kafka._settings(place()).items() if name not in elsewhere}
    assert len(expected) > 15
    for name, value in expected.items():
        assert str(environment[f"KAFKA_{name.replace('.', '_').upper()}"]) == str(value), name


def test_valkey_refuses_when_it_is_full_as_the_one_that_the_tests_run_on(tmp_path: Path) -> None:
    words = SERVICES["valkey"]["command"]
    options = dict(zip(words[1::2], words[2::2], strict=True))
    ours = valkey.Valkey().command(place(tmp_path))
    expected = dict(zip(ours[1::2], ours[2::2], strict=True))
    for name in ("--maxmemory", "--maxmemory-policy", "--appendonly"):
        assert options[name] == expected[name]


def test_postgres_is_set_up_as_the_one_that_the_tests_run_on() -> None:
    source = (ROOT / "stack" / "postgres.py").read_text()
    body = source.partition("settings = {")[2].partition("}")[0]
    expected = dict(re.findall(r'"(\w+)": "?(\w+)"?,', body))
    here = {"listen_addresses", "port", "unix_socket_directories"}
    assert {f"-c{n}={v}" for n, v in expected.items() if n not in here} == set(SERVICES["postgres"]["command"][1:])
    assert SERVICES["postgres"]["environment"]["POSTGRES_DB"] == postgres.DATABASE


def test_connect_is_set_up_as_the_one_that_the_tests_run_on() -> None:
    environment = {k: str(v) for k, v in SERVICES["connect"]["environment"].items()}
    elsewhere = {"bootstrap.servers", "listeners", "rest.advertised.host.name", "plugin.path", "plugin.discovery"}
    expected = {k: str(v) for k, v in connect._settings(place()).items() if k not in elsewhere}
    assert len(expected) > 15
    for name, value in expected.items():
        found = environment.get(f"CONNECT_{name.replace('.', '_').upper()}") or environment.get(
            name.replace(".", "_").upper()
        )
        if name == "config.providers.dir.param.allowed.paths":
            value = "/run/capture"
        assert found == value, name


def test_a_password_is_made_once_and_each_is_another(tmp_path: Path) -> None:
    files = [tmp_path / "owner", tmp_path / "capture"]
    program = [sys.executable, str(ROOT / "docker" / "compose" / "passwords.py"), *map(str, files)]
    subprocess.run(program, check=True)
    first = [file.read_text() for file in files]
    assert first[0] != first[1]
    assert min(map(len, first)) > 30
    files[1].unlink()
    subprocess.run(program, check=True)
    assert files[0].read_text() == first[0]
    assert files[1].read_text() != first[1]


def test_the_capture_password_is_where_the_connector_looks_for_it() -> None:
    for name in ("connector", "database", "slots"):
        assert "--secrets=/run/capture" in SERVICES[name]["command"]
    for name in ("connect", "database", "passwords", "slots"):
        assert any(v.startswith("capture-password:/run/capture") for v in SERVICES[name]["volumes"])
    for role in ("capture", "monitor"):
        assert f"/run/capture/{role}-password" in SERVICES["passwords"]["command"]
    assert connector_settings()["connector.class"].endswith("PostgresConnector")


def test_the_job_that_follows_the_database_reads_every_table_that_is_captured() -> None:
    topics = {word.rpartition("/")[2] for word in command(SERVICES["cdc"]) if word.startswith("--input=")}
    assert topics == {f"cdc.public.{table}" for table in CAPTURED}


def test_flink_opens_to_kryo_what_the_tests_open_and_tells_prometheus() -> None:
    assert set(ADD_OPENS) <= set(FLINK["env.java.opts.all"].split())
    assert FLINK["metrics.reporter.prom.port"] == "9249"
    scraped = yaml.safe_load((ROOT / "docker" / "prometheus" / "prometheus.yaml").read_text())["scrape_configs"]
    found = {
        *(t for s in scraped for c in s.get("static_configs", []) for t in c["targets"]),
        *(f"{name}:{c['port']}" for s in scraped for c in s.get("dns_sd_configs", []) for name in c["names"]),
    }
    assert found == {"api:9090", "jobmanager:9249", "taskmanager:9249", "slots:9187"}
    assert {target.partition(":")[0] for target in found} <= SERVICES.keys()


def test_there_is_room_in_flink_for_every_job() -> None:
    assert set(SERVICES) >= JOBS
    assert FLINK["taskmanager.numberOfTaskSlots"] >= 2 * len(JOBS)  # --parallelism is 2 by default
    sizes = {"m": 1, "g": 1024}
    for name in ("jobmanager", "taskmanager"):
        limit, process = SERVICES[name]["deploy"]["resources"]["limits"]["memory"], FLINK[f"{name}.memory.process.size"]
        assert int(process[:-1]) * sizes[process[-1]] < int(limit[:-1]) * sizes[limit[-1]]


def test_all_jobs_share_their_flags_and_a_volume_with_flink() -> None:
    flags = {SERVICES[job]["environment"]["FLINK_FLAGS"] for job in JOBS}
    assert len(flags) == 1
    for name in (*JOBS, "jobmanager", "taskmanager", "worker"):
        assert "state:/var/lib/streamforge" in SERVICES[name]["volumes"]
    assert SERVICES["worker"]["network_mode"] == "service:taskmanager"
    assert "--environment_config=localhost:50000" in flags.pop()


def test_what_it_builds_are_images_of_the_list() -> None:
    built = {service["build"]["target"] for service in SERVICES.values() if "build" in service}
    assert built == {"api", "cdc", "flink", "launcher", "simulator", "worker"}
    assert built < {target.stage for target in targets().values()}


def test_its_first_lines_and_the_documentation_name_the_ports() -> None:
    text = (ROOT / "docs" / "docker.md").read_text()
    assert all(str(port) in text for port in PORTS.values())
    assert "8090" in COMPOSE.read_text().partition("\nname:")[0]
