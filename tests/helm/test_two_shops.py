"""Two shops in one cluster: a namespace each, and nothing that both write, read as their own, or answer to."""

from __future__ import annotations

import copy
from typing import Any

import pytest

from tests.helm.chart import Manifests, render

pytestmark = pytest.mark.deploy

# Kinds without a namespace would be both releases' own.
NAMESPACED = {
    *("ConfigMap", "Deployment", "FlinkDeployment", "GCPBackendPolicy", "HorizontalPodAutoscaler", "HTTPRoute"),
    *("HealthCheckPolicy", "Ingress", "NetworkPolicy", "Pod", "PodDisruptionBudget", "PodMonitor", "PrometheusRule"),
    *("Role", "RoleBinding", "Service", "ServiceAccount", "ServiceMonitor", "StatefulSet", "BackendConfig"),
}
SHOPS = ("shop-a", "shop-b")


def values(shop: str) -> dict[str, Any]:
    """What docs/kubernetes.md asks for, where all that can be shared is shared."""
    return {
        "kafka": {"prefix": f"{shop}."},
        "redis": {"prefix": shop},
        "bigquery": {"dataset": shop.replace("-", "_")},
        "storage": {"state": f"gs://shared-state/{shop}", "archive": f"gs://shared-archive/{shop}"},
        "api": {"gateway": {"host": f"{shop}.example"}, "batchReport": f"gs://shared-lake/{shop}/reports"},
    }


def rendered(of: dict[str, dict[str, Any]]) -> dict[str, Manifests]:
    return {shop: render("prod", own, namespace=shop) for shop, own in of.items()}


def outside(manifests: Manifests) -> set[str]:
    """Names of what is outside of the namespace and belongs to this shop alone."""
    found = set()
    for job in manifests.all("FlinkDeployment").values():
        spec = job["spec"]
        found |= {value for key, value in spec["flinkConfiguration"].items() if str(value).startswith("gs://")}
        (launcher,) = spec["jobManager"]["podTemplate"]["spec"]["initContainers"]
        flags = [word.removeprefix("--").partition("=")[::2] for word in launcher["args"][2:]]
        given: dict[str, list[str]] = {}
        for name, value in flags:
            given.setdefault(name, []).append(value)
        (store_prefix,) = given.get("store_prefix", [""])
        found |= {
            f"{value} {store_prefix}" if value.startswith("redis") else value
            for name in ("input", "output", "dead_letters", "late")
            for value in given[name]
        }
        found.add(f"group {''.join(given.get('group_prefix', ['']))}{job['metadata']['name']}")
    for route in manifests.all("HTTPRoute").values():
        found |= set(route["spec"]["hostnames"])
    (api,) = manifests.one("Deployment", "streamforge-api")["spec"]["template"]["spec"]["containers"]
    found |= {word for word in api["args"] if word.startswith("--batch_report=")}
    return found


def test_two_releases_have_no_object_and_no_name_in_common() -> None:
    made = rendered({shop: values(shop) for shop in SHOPS})
    for shop, manifests in made.items():
        assert {o["kind"] for o in manifests} <= NAMESPACED
        assert {o["metadata"]["namespace"] for o in manifests} == {shop}
        subjects = [s for binding in manifests.all("RoleBinding").values() for s in binding["subjects"]]
        assert {subject["namespace"] for subject in subjects} == {shop}
    first, second = (outside(manifests) for manifests in made.values())
    assert len(first) > 20
    assert first & second == set()


@pytest.mark.parametrize(
    ("path", "shared"),
    [
        (("kafka", "prefix"), "group fraud-detector"),
        (("kafka", "prefix"), "/dlq.fraud-detector"),
        (("redis", "prefix"), "rediss://"),
        (("bigquery", "dataset"), "bigquery://"),
        (("storage", "state"), "/checkpoints/fraud-detector"),
        (("storage", "archive"), "archive"),
        (("api", "gateway", "host"), "streamforge.shop.example"),
        (("api", "batchReport"), "/reports"),
    ],
)
def test_what_is_not_told_apart_is_found(path: tuple[str, ...], shared: str) -> None:
    of = {}
    for shop in SHOPS:
        own: Any = of.setdefault(shop, copy.deepcopy(values(shop)))
        for step in path[:-1]:
            own = own[step]
        del own[path[-1]]
    first, second = (outside(manifests) for manifests in rendered(of).values())
    assert [name for name in first & second if shared in name]


def test_what_the_api_and_the_test_pod_look_at_is_the_shops_own() -> None:
    manifests = render("prod", values("shop-a"), namespace="shop-a")
    (api,) = manifests.one("Deployment", "streamforge-api")["spec"]["template"]["spec"]["containers"]
    assert {"--group_prefix=shop-a.", "--store_prefix=shop-a"} <= set(api["args"])
    (doctor,) = manifests.one("Pod", "streamforge-doctor")["spec"]["containers"]
    topics = {word.partition("=")[2] for word in doctor["args"] if word.startswith("--topic=")}
    jobs = [
        d["spec"]["jobManager"]["podTemplate"]["spec"]["initContainers"][0]
        for d in manifests.all("FlinkDeployment").values()
    ]
    kafka = {word.rpartition("/")[2] for job in jobs for word in job["args"] if "=kafka://" in word}
    assert topics == kafka
    assert all(topic.startswith("shop-a.") for topic in topics)
