"""Who may talk to whom, by a reading of the policies as Kubernetes reads them."""

from __future__ import annotations

import ipaddress
from dataclasses import dataclass, field
from typing import Any

import pytest

from tests.helm.chart import ENVIRONMENTS, refusal, render

pytestmark = pytest.mark.deploy


@dataclass(frozen=True)
class Place:
    """A pod, in our namespace unless said, or an address outside of the cluster."""

    labels: dict[str, str] = field(default_factory=dict)
    namespace: str = "streamforge"
    address: str | None = None


def ours(component: str, **labels: str) -> Place:
    return Place(
        {
            "app.kubernetes.io/name": "streamforge",
            "app.kubernetes.io/instance": "streamforge",
            "app.kubernetes.io/component": component,
            **{f"streamforge/{k}": v for k, v in labels.items()},
        }
    )


API, REDIS, SLOTS, TEST = ours("api"), ours("redis"), ours("slots"), ours("test")
FRAUD, ARCHIVER = ours("flink", job="fraud-detector"), ours("flink", job="archiver")
KAFKA, OPERATOR, PROMETHEUS = (Place(namespace=n) for n in ("kafka", "flink-operator", "monitoring"))
SOMEBODY, NEIGHBOUR = Place(namespace="other"), Place({"app": "other"})
NAMES = Place({"k8s-app": "kube-dns"}, "kube-system")
MEMORYSTORE, POSTGRES = Place(address="10.30.0.3"), Place(address="10.30.1.7")
LOAD_BALANCER, GOOGLE_APIS = Place(address="35.191.4.5"), Place(address="199.36.153.9")
CONTROL_PLANE, METADATA = Place(address="172.16.0.2"), Place(address="169.254.169.254")
INTERNET = Place(address="93.184.215.14")

FLOWS = [
    (LOAD_BALANCER, API, 8090),
    (TEST, API, 8090),
    (PROMETHEUS, API, 9090),
    (API, MEMORYSTORE, 6378),
    (API, KAFKA, 9092),
    (API, NAMES, 53),
    (FRAUD, FRAUD, 6123),
    (FRAUD, FRAUD, 41234),
    (OPERATOR, FRAUD, 8081),
    (PROMETHEUS, FRAUD, 9249),
    (FRAUD, KAFKA, 9092),
    (FRAUD, KAFKA, 8080),
    (FRAUD, MEMORYSTORE, 6378),
    (FRAUD, GOOGLE_APIS, 443),
    (FRAUD, METADATA, 80),
    (FRAUD, CONTROL_PLANE, 443),
    (FRAUD, NAMES, 53),
    (ARCHIVER, GOOGLE_APIS, 443),
    (PROMETHEUS, SLOTS, 9090),
    (SLOTS, POSTGRES, 5432),
]
NO_FLOWS = [
    (SOMEBODY, API, 8090),
    (NEIGHBOUR, API, 8090),
    (LOAD_BALANCER, API, 9090),
    (PROMETHEUS, API, 8090),
    (INTERNET, API, 8090),
    (API, INTERNET, 443),
    (API, GOOGLE_APIS, 443),
    (API, METADATA, 80),
    (API, CONTROL_PLANE, 443),
    (API, FRAUD, 8081),
    (API, MEMORYSTORE, 22),
    (FRAUD, API, 8090),
    (FRAUD, ARCHIVER, 6123),
    (SOMEBODY, FRAUD, 8081),
    (OPERATOR, FRAUD, 6123),
    (PROMETHEUS, FRAUD, 8081),
    (FRAUD, INTERNET, 443),
    (FRAUD, POSTGRES, 5432),
    (ARCHIVER, MEMORYSTORE, 6378),
    (SLOTS, MEMORYSTORE, 6378),
    (SLOTS, KAFKA, 9092),
    (SOMEBODY, SLOTS, 9090),
    (TEST, MEMORYSTORE, 6378),
    (TEST, INTERNET, 443),
]


NARROW = {"networkPolicy": {"googleApis": {"cidrs": ["199.36.153.8/30"]}}}


def policies(environment: str = "prod", values: Any = None) -> list[dict[str, Any]]:
    return [p["spec"] for p in render(environment, values).all("NetworkPolicy").values()]


def may(policies: list[dict[str, Any]], source: Place, target: Place, port: int) -> bool:
    return _one_way(policies, source, target, port, "egress", "to") and _one_way(
        policies, target, source, port, "ingress", "from"
    )


def _one_way(policies: list[dict[str, Any]], who: Place, other: Place, port: int, way: str, peers: str) -> bool:
    """A pod that no policy chooses may do everything; else what any of them allows."""
    if who.address or who.namespace != "streamforge":
        return True
    choosing = [
        p
        for p in policies
        if p["podSelector"]["matchLabels"].items() <= who.labels.items() and way.title() in p["policyTypes"]
    ]
    rules = [rule for policy in choosing for rule in policy.get(way, [])]
    return not choosing or any(
        (peers not in rule or any(_matches(peer, other) for peer in rule[peers]))
        and ("ports" not in rule or port in [p["port"] for p in rule["ports"]])
        for rule in rules
    )


def _matches(peer: dict[str, Any], place: Place) -> bool:
    if "ipBlock" in peer:
        return bool(place.address) and ipaddress.ip_address(place.address) in ipaddress.ip_network(
            peer["ipBlock"]["cidr"]
        )
    if place.address:
        return False
    namespace = peer.get("namespaceSelector", {}).get("matchLabels", {}).get("kubernetes.io/metadata.name")
    labels = peer.get("podSelector", {}).get("matchLabels", {})
    return place.namespace == (namespace or "streamforge") and labels.items() <= place.labels.items()


@pytest.mark.parametrize(("source", "target", "port"), FLOWS)
def test_what_has_to_be_reached_is(source: Place, target: Place, port: int) -> None:
    assert may(policies(), source, target, port)
    assert may(policies("prod", NARROW), source, target, port)


@pytest.mark.parametrize(("source", "target", "port"), NO_FLOWS)
def test_what_need_not_be_reached_is_not(source: Place, target: Place, port: int) -> None:
    assert not may(policies("prod", NARROW), source, target, port)
    assert not may(policies(), source, target, port) or (source, target, port) == (FRAUD, INTERNET, 443)


@pytest.mark.parametrize("dropped", range(len(FLOWS)))
def test_each_flow_needs_a_rule_and_without_rules_there_is_none(dropped: int) -> None:
    """The reading itself would find a policy that is missing what it should say."""
    bare = [{**p, "ingress": [], "egress": []} for p in policies()]
    assert not may(bare, *FLOWS[dropped])


def test_the_store_inside_the_cluster_is_for_the_api_and_the_jobs() -> None:
    dev = policies("dev")
    for source in (API, FRAUD):
        assert may(dev, source, REDIS, 6379)
        assert not may(dev, source, MEMORYSTORE, 6379)
    for source in (TEST, SOMEBODY, NEIGHBOUR, PROMETHEUS):
        assert not may(dev, source, REDIS, 6379)
    assert not may(dev, REDIS, INTERNET, 443)


@pytest.mark.parametrize("environment", ENVIRONMENTS)
def test_every_pod_is_chosen_by_the_policy_that_begins_with_nothing(environment: str) -> None:
    manifests = render(environment)
    chooses = manifests.one("NetworkPolicy", "streamforge-default")["spec"]["podSelector"]["matchLabels"]
    pods = [o["spec"]["template"]["metadata"]["labels"] for o in manifests if "template" in o.get("spec", {})]
    pods += [j["spec"]["podTemplate"]["metadata"]["labels"] for j in manifests.all("FlinkDeployment").values()]
    pods += [p["metadata"]["labels"] for p in manifests.all("Pod").values()]
    assert len(pods) >= 6
    for labels in pods:
        assert chooses.items() <= labels.items()


def test_ports_are_those_of_the_addresses() -> None:
    values = {
        "kafka": {"servers": "b1.shop:9093,b2.shop:9094,b3.shop:9094"},
        "registry": {"url": "https://registry.shop/ccompat"},
        "redis": {"url": "rediss://10.30.0.3", "urlSecret": {"name": ""}},
    }
    found = policies("prod", values)
    for port in (9093, 9094, 443):
        assert may(found, FRAUD, KAFKA, port)
    assert not may(found, FRAUD, KAFKA, 9092)
    assert may(found, API, MEMORYSTORE, 6379)
    assert may(found, API, KAFKA, 9093)
    assert not may(found, API, KAFKA, 443), "the API does not ask the registry"


def test_who_asks_kafka_for_nothing_does_not_reach_it() -> None:
    assert not may(policies("prod", {"api": {"kafkaProgress": False}}), API, KAFKA, 9092)


def test_the_api_reaches_googles_storage_only_to_read_the_daily_batchs_reports() -> None:
    assert not may(policies("prod"), API, GOOGLE_APIS, 443)
    assert may(policies("prod", {"api": {"batchReport": "gs://shop-lake/reports"}}), API, GOOGLE_APIS, 443)


def test_nobody_is_let_in_by_a_rule_without_peers() -> None:
    assert "/networkPolicy/kafka" in refusal(values={"networkPolicy": {"kafka": {"namespaces": None}}})
    for policy in policies():
        for rule in (*policy.get("ingress", []), *policy.get("egress", [])):
            assert rule.get("from", rule.get("to"))


def test_they_can_be_left_out() -> None:
    assert not policies("prod", {"networkPolicy": {"enabled": False}})
