"""Who may talk to whom: the policies' effect, flow by flow, with the ranges that Terraform makes."""

from __future__ import annotations

from typing import Any

import pytest

from tests.helm.chart import ENVIRONMENTS, refusal, render
from tests.helm.flows import FLOWS, NO_FLOWS, Flow, passing, places
from tests.terraform.configuration import ranges

pytestmark = pytest.mark.deploy

NARROW = {"networkPolicy": {"googleApis": {"cidrs": ["199.36.153.8/30"]}}}
PLACES = places(ranges())


def policies(environment: str = "prod", values: Any = None) -> list[dict[str, Any]]:
    return list(render(environment, values).all("NetworkPolicy").values())


def may(policies: list[dict[str, Any]], source: str, target: str, port: int) -> bool:
    return bool(passing(policies, PLACES, [Flow(source, target, port)]))


@pytest.mark.parametrize("values", [{}, NARROW], ids=["any address of Google's", "private.googleapis.com"])
def test_what_has_to_be_reached_is(values: Any) -> None:
    missing = set(FLOWS) - passing(policies("prod", values), PLACES, FLOWS)
    assert not missing, [str(flow) for flow in missing]


def test_what_need_not_be_reached_is_not() -> None:
    found = passing(policies("prod", NARROW), PLACES, NO_FLOWS)
    assert not found, [str(flow) for flow in found]
    # Google's public addresses are many, so without a narrower range every address is reached at their port.
    open_to_all = passing(policies(), PLACES, NO_FLOWS)
    assert {(flow.target, flow.port) for flow in open_to_all} <= {("internet", 443), ("control plane", 443)}


def test_each_flow_needs_a_rule_and_without_rules_there_is_none() -> None:
    bare = [{**p, "spec": {**p["spec"], "ingress": [], "egress": []}} for p in policies()]
    assert not passing(bare, PLACES, FLOWS)


def test_without_any_policy_everything_passes() -> None:
    assert passing([], PLACES, [*FLOWS, *NO_FLOWS]) == {*FLOWS, *NO_FLOWS}


def test_every_rule_is_needed_by_a_flow() -> None:
    """A rule that no flow needs would let through what nobody asked for."""
    found = policies("prod", NARROW)
    idle = []
    for p, policy in enumerate(found):
        for way in ("ingress", "egress"):
            for r, rule in enumerate(policy["spec"].get(way, [])):
                rules = [other for o, other in enumerate(policy["spec"][way]) if o != r]
                others = [*found[:p], {**policy, "spec": {**policy["spec"], way: rules}}, *found[p + 1 :]]
                if passing(others, PLACES, FLOWS) == set(FLOWS):
                    idle.append((policy["metadata"]["name"], way, rule))
    # The other jobs' policies are the fraud detector's; the archiver's flows are a part of those.
    jobs = ("streamforge-archiver", "streamforge-cdc-", "streamforge-revenue-", "streamforge-session-")
    assert not [each for each in idle if not each[0].startswith(jobs)]


def test_the_store_inside_the_cluster_is_for_the_api_and_the_jobs() -> None:
    dev = policies("dev")
    for source in ("api", "fraud"):
        assert may(dev, source, "store in the cluster", 6379)
        assert not may(dev, source, "memorystore", 6379)
    for source in ("helm test", "other namespace", "neighbour", "prometheus"):
        assert not may(dev, source, "store in the cluster", 6379)
    assert not may(dev, "store in the cluster", "internet", 443)


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
        "api": {"batchReport": ""},
        "redis": {"url": f"rediss://{PLACES['memorystore'].address}"},
    }
    found = policies("prod", values)
    for port in (9093, 9094, 443):
        assert may(found, "fraud", "managed kafka" if port != 443 else "kafka in the cluster", port)
    assert not may(found, "fraud", "managed kafka", 9092)
    assert may(found, "api", "memorystore", 6379)
    assert may(found, "api", "managed kafka", 9093)
    assert not may(found, "api", "kafka in the cluster", 443), "the API does not ask the registry"


def test_who_asks_kafka_for_nothing_does_not_reach_it() -> None:
    assert not may(policies("prod", {"api": {"kafkaProgress": False}}), "api", "managed kafka", 9092)


def test_an_api_that_takes_events_reaches_kafka_and_the_registry() -> None:
    api = {"kafkaProgress": False, "events": {"enabled": True}}
    found = policies("prod", {"api": api, "registry": {"url": "https://registry.shop/ccompat"}})
    assert may(found, "api", "managed kafka", 9092)
    assert may(found, "api", "kafka in the cluster", 443)


def test_the_api_reaches_googles_storage_only_to_read_the_daily_batchs_reports() -> None:
    assert not may(policies("prod", {"api": {"batchReport": ""}}), "api", "google apis", 443)
    assert may(policies("prod"), "api", "google apis", 443)


def test_tokens_are_for_an_api_that_asks_google_for_something() -> None:
    alone = {"api": {"batchReport": "", "kafkaProgress": False}}
    for values in (alone, {"googleCloud": {"project": ""}, "bigquery": {"dataset": ""}}):
        assert not may(policies("prod", values), "api", "metadata", 80)


def test_nobody_is_let_in_by_a_rule_without_peers() -> None:
    assert "/networkPolicy/kafka" in refusal(values={"networkPolicy": {"kafka": {"cidrs": [], "namespaces": []}}})
    for policy in policies():
        for rule in (*policy["spec"].get("ingress", []), *policy["spec"].get("egress", [])):
            assert rule.get("from", rule.get("to"))


def test_they_can_be_left_out() -> None:
    assert not policies("prod", {"networkPolicy": {"enabled": False}})
