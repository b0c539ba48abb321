"""Manifests and permissions, put to a real API server of Kubernetes (api_server.py)."""

from __future__ import annotations

import copy
import json
from typing import Any

import pytest

from tests.helm.api_server import ApiServer
from tests.helm.chart import ENVIRONMENTS, Manifests, render
from tests.helm.test_chart import pods
from tests.helm.test_kubeconform import INGRESS, MORE
from tests.live import eventually

pytestmark = [pytest.mark.deploy, pytest.mark.timeout(1800)]  # the first time, it is built

# What Flink's code asks for: Fabric8FlinkKubeClient, KubernetesLeaderElector and KubernetesConfigMapSharedInformer in
# flink-kubernetes 1.19.
NEEDED = [
    *(("pods", verb) for verb in ("create", "delete", "list", "watch")),
    *(("configmaps", verb) for verb in ("create", "delete", "get", "list", "patch", "update", "watch")),
    *(("services", verb) for verb in ("get", "update")),
    *(("deployments.apps", verb) for verb in ("get", "delete")),
]


def taken(server: ApiServer, objects: Any) -> list[str]:
    """What the server would take, without a warning."""
    found = server.kubectl("apply", "--dry-run=server", objects=objects)
    assert (found.returncode, found.stderr) == (0, "")
    return [line for line in found.stdout.splitlines() if line.endswith("(server dry run)")]


@pytest.mark.parametrize("environment", ENVIRONMENTS)
def test_it_takes_every_manifest_of_every_environment(server: ApiServer, environment: str) -> None:
    for values in ({}, MORE):
        objects = list(render(environment, values))
        assert len(taken(server, objects)) == len(objects) > 15
    objects = list(render("prod", INGRESS))
    assert len(taken(server, objects)) == len(objects)


@pytest.mark.parametrize("environment", ENVIRONMENTS)
def test_pods_that_the_operator_would_make_are_within_the_strictest_standard(
    server: ApiServer, environment: str
) -> None:
    found = []
    for name, spec in pods(environment, {"slots": {"enabled": True}}).items():
        pod = copy.deepcopy(spec) | {"serviceAccountName": "default"}
        for container in pod["containers"]:
            if container["name"] == "flink-main-container":
                container["image"] = "flink"  # the operator's to fill in
        meta = {"name": name.replace("/", "-").lower(), "namespace": "streamforge"}
        found.append({"apiVersion": "v1", "kind": "Pod", "metadata": meta, "spec": pod})
    assert len(found) > 10
    found = [pod for pod in found if pod["metadata"]["name"] != "streamforge-redis"]  # its volume is the set's to make
    assert len(taken(server, found)) == len(found)


def faulty(kind: str, name: str, path: tuple[Any, ...], value: Any) -> dict[str, Any]:
    found = render().one(kind, name)
    at = found
    for step in path[:-1]:
        at = at[step]
    at[path[-1]] = value
    return found


@pytest.mark.parametrize(
    ("fault", "why"),
    [
        (("Deployment", "streamforge-api", ("spec", "replica"), 3), 'replica"'),
        (
            ("Deployment", "streamforge-api", ("spec", "selector", "matchLabels"), {"app": "other"}),
            "`selector` does not match template `labels`",
        ),
        (
            (
                "Deployment",
                "streamforge-api",
                ("spec", "template", "spec", "containers", 0, "volumeMounts", 0, "name"),
                "x",
            ),
            'volumeMounts[0].name: Not found: "x"',
        ),
        (
            ("FlinkDeployment", "fraud-detector", ("spec", "job", "upgradeMode"), "lastState"),
            'Unsupported value: "lastState"',
        ),
        (
            ("FlinkDeployment", "fraud-detector", ("spec", "job", "paralelism"), 2),
            'paralelism"',
        ),
        (
            ("NetworkPolicy", "streamforge-api", ("spec", "ingress", 1, "ports", 0, "port"), 90900),
            "must be between 1 and 65535",
        ),
        (("HTTPRoute", "streamforge-api", ("spec", "hostnames"), ["Not A Host"]), "spec.hostnames[0]: Invalid value"),
        (("PrometheusRule", "streamforge-api", ("spec", "groups", 0, "interval"), "often"), "spec.groups[0].interval"),
        (("Role", "streamforge-flink", ("rules", 0, "verbs"), []), "verbs: Required value"),
    ],
)
def test_it_refuses_a_planted_fault(server: ApiServer, fault: Any, why: str) -> None:
    found = server.kubectl("apply", "--dry-run=server", objects=[faulty(*fault)])
    assert found.returncode == 1
    assert why in found.stderr


def test_it_refuses_a_pod_that_could_become_root(server: ApiServer) -> None:
    pod = render("dev").one("Pod", "streamforge-test")
    pod["spec"]["containers"][0]["securityContext"]["allowPrivilegeEscalation"] = True
    found = server.kubectl("apply", "--dry-run=server", objects=[pod])
    assert found.returncode == 1
    assert 'violates PodSecurity "restricted:latest": allowPrivilegeEscalation != false' in found.stderr


def test_a_new_release_can_be_put_over_an_old_one(server: ApiServer) -> None:
    """Some fields can never change, as a Deployment's selector."""
    values = {"redis": {"inCluster": {"enabled": True}}, "slots": {"enabled": True}}
    old = list(render("dev", values))
    server.done("apply", objects=old)
    try:
        new = json.loads(json.dumps(old).replace('0.1.0"', '0.2.0"'))
        assert new != old
        assert len(taken(server, new)) == len(new)
        selector = copy.deepcopy(Manifests(new).one("Deployment", "streamforge-api"))
        for labels in (selector["spec"]["selector"]["matchLabels"], selector["spec"]["template"]["metadata"]["labels"]):
            labels["helm.sh/chart"] = "streamforge-0.2.0"
        found = server.kubectl("apply", "--dry-run=server", objects=[selector])
        assert "field is immutable" in found.stderr, "and with the version among the selector's labels it could not"
    finally:
        server.done("delete", "--wait=false", "--grace-period=0", objects=old)


# Permissions


def flink_may(server: ApiServer, resource: str, verb: str, namespace: str = "streamforge") -> bool:
    return server.may("streamforge-jobs", verb, resource, namespace)


def test_flink_may_do_what_it_does_and_without_each_permission_it_may_not(
    server: ApiServer, role: dict[str, Any]
) -> None:
    for resource, verb in NEEDED:
        eventually(lambda r=resource, v=verb: flink_may(server, r, v), f"Flink may {verb} {resource}")
    for resource, verb in NEEDED:
        poorer = copy.deepcopy(role)
        for rule in poorer["rules"]:
            if resource.partition(".")[0] in rule["resources"]:
                rule["verbs"].remove(verb)
        server.done("replace", objects=[poorer])
        eventually(lambda r=resource, v=verb: not flink_may(server, r, v), f"Flink may not {verb} {resource}")
        others = [pair for pair in NEEDED if pair != (resource, verb)]
        assert flink_may(server, *others[0]), "and nothing else is gone"


@pytest.mark.parametrize(
    ("resource", "verb"),
    [
        ("secrets", "get"),
        ("secrets", "list"),
        ("pods/exec", "create"),
        ("deployments.apps", "create"),
        ("deployments.apps", "patch"),
        ("roles.rbac.authorization.k8s.io", "update"),
        ("rolebindings.rbac.authorization.k8s.io", "create"),
        ("serviceaccounts/token", "create"),
        ("flinkdeployments.flink.apache.org", "update"),
    ],
)
def test_flink_may_do_nothing_else(server: ApiServer, role: dict[str, Any], resource: str, verb: str) -> None:
    eventually(lambda: flink_may(server, "pods", "create"), "the role is known")
    assert not flink_may(server, resource, verb)


def test_flink_may_do_nothing_in_another_namespace(server: ApiServer, role: dict[str, Any]) -> None:
    eventually(lambda: flink_may(server, "pods", "create"), "the role is known")
    for resource, verb in NEEDED:
        assert not flink_may(server, resource, verb, "default")


def test_the_api_may_do_nothing_at_all(server: ApiServer, role: dict[str, Any]) -> None:
    eventually(lambda: flink_may(server, "pods", "create"), "the role is known")
    for resource, verb in [*NEEDED, ("secrets", "get")]:
        assert not server.may("streamforge-api", verb, resource, "streamforge")
