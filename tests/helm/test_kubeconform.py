"""Manifests against the schemas of Kubernetes and of the operators, field by field."""

from __future__ import annotations

import json
import subprocess
from typing import Any

import pytest
import yaml

from tests.helm.chart import ENVIRONMENTS, KUBERNETES, render
from tests.helm.kinds import schemas
from tests.tools import tool

pytestmark = pytest.mark.deploy

# What an environment does not have by itself, so that every template is looked at.
MORE = {
    "slots": {"enabled": True},
    "monitoring": {"enabled": True},
    "jobs": {"fraud": {"rules": "rules: []"}, "cdc": {"enabled": True, "hashKeySecret": {"name": "key"}}},
    "images": {"pullSecrets": ["login"]},
    "api": {
        "disruptionBudget": {"enabled": True},
        "autoscaling": {"enabled": True, "maxReplicas": 9},
        "gateway": {"enabled": True, "name": "shared", "namespace": "gateways", "host": "a.example"},
    },
}
INGRESS = {"api": {"gateway": {"enabled": False}, "ingress": {"enabled": True, "host": "a.example", "tlsSecret": "t"}}}


def complaints(objects: list[dict[str, Any]]) -> list[str]:
    """kubeconform's, about manifests."""
    command = [str(tool("kubeconform")), "-strict", "-output=json", "-summary", f"-kubernetes-version={KUBERNETES}"]
    command.append(f"-schema-location={schemas()}/{{{{.ResourceKind}}}}{{{{.KindSuffix}}}}.json")
    done = subprocess.run(command, input=yaml.safe_dump_all(objects), capture_output=True, text=True, check=False)
    report = json.loads(done.stdout)
    summary = report["summary"]
    assert summary["skipped"] == 0
    assert summary["valid"] + summary["invalid"] + summary["errors"] == len(objects), done.stderr
    return [f"{r['kind']} {r['name']}: {r['msg']}" for r in report["resources"] if r["status"] != "statusValid"]


@pytest.mark.parametrize("environment", ENVIRONMENTS)
def test_every_environment_is_what_kubernetes_and_the_operators_know(environment: str) -> None:
    objects = list(render(environment))
    assert len(objects) > 15
    assert complaints(objects) == []


@pytest.mark.parametrize("environment", ENVIRONMENTS)
def test_so_is_every_template_with_everything_on(environment: str) -> None:
    objects = list(render(environment, MORE))
    assert complaints(objects) == []
    assert {o["kind"] for o in objects} >= {
        *("ConfigMap", "Deployment", "FlinkDeployment", "HTTPRoute", "HorizontalPodAutoscaler"),
        *("NetworkPolicy", "Pod", "PodDisruptionBudget", "PodMonitor", "PrometheusRule", "Role", "RoleBinding"),
        *("Service", "ServiceAccount", "ServiceMonitor"),
    }


def test_and_the_other_way_in() -> None:
    assert complaints(list(render("prod", INGRESS))) == []


FAULTS = [
    ("Deployment", "streamforge-api", ("spec", "template", "spec", "containers", 0, "imagePullPolice"), "Always"),
    ("Deployment", "streamforge-api", ("spec", "strategy", "rollingUpdate", "maxUnavailable"), {"percent": 0}),
    ("Deployment", "streamforge-api", ("spec", "template", "spec", "containers", 0, "ports", 0, "containerPort"), "x"),
    ("NetworkPolicy", "streamforge-api", ("spec", "ingress", 0, "form"), []),
    ("HorizontalPodAutoscaler", "streamforge-api", ("spec", "maxReplicas"), "20"),
    ("PodDisruptionBudget", "streamforge-api", ("spec", "maxUnavailble"), 1),
    ("Role", "streamforge-flink", ("rules", 0, "verb"), ["get"]),
    ("FlinkDeployment", "fraud-detector", ("spec", "job", "paralelism"), 2),
    ("FlinkDeployment", "fraud-detector", ("spec", "job", "upgradeMode"), "lastState"),
    ("FlinkDeployment", "fraud-detector", ("spec", "flinkVersion"), "1.19"),
    ("FlinkDeployment", "fraud-detector", ("spec", "flinkConfiguration", "taskmanager.numberOfTaskSlots"), 2),
    ("FlinkDeployment", "fraud-detector", ("spec", "podTemplate", "spec", "containers", 0, "port"), []),
    ("FlinkDeployment", "fraud-detector", ("spec", "taskManager", "resource", "memory"), 2048),
    ("ServiceMonitor", "streamforge-api", ("spec", "endpoints", 0, "intervall"), "15s"),
    ("PodMonitor", "streamforge-flink", ("spec", "podMetricsEndpoints", 0, "relabelings"), {}),
    ("PrometheusRule", "streamforge-api", ("spec", "groups", 0, "rules", 0, "expression"), "up"),
    ("HTTPRoute", "streamforge-api", ("spec", "rules", 0, "backendRefs", 0, "port"), "http"),
]


@pytest.mark.parametrize(("kind", "name", "path", "value"), FAULTS)
def test_a_planted_fault_is_found(kind: str, name: str, path: tuple[Any, ...], value: Any) -> None:
    found = render().one(kind, name)
    at = found
    for step in path[:-1]:
        at = at[step]
    at[path[-1]] = value
    (complaint,) = complaints([found])
    assert complaint.startswith(f"{kind} {name}: ")
    assert f"'{path[-1]}' not allowed" in complaint or f"/{path[-1]}': " in complaint
