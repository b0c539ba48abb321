"""What Google's load balancers are told of the API."""

from __future__ import annotations

import json
from typing import Any

import pytest

import serving
from tests.helm.chart import render
from tests.helm.test_api_ingress import values

pytestmark = pytest.mark.deploy

LIVE = "/api/v1/health/live"


def container() -> dict[str, Any]:
    (found,) = render().one("Deployment", "streamforge-api")["spec"]["template"]["spec"]["containers"]
    return found


def test_a_gateways_stream_is_not_cut_after_half_a_minute() -> None:
    manifests = render("prod", {"api": {"longestAnswer": 7200}})
    policy = manifests.one("GCPBackendPolicy", "streamforge-api")["spec"]
    assert policy["default"]["timeoutSec"] == 7200
    (route,) = manifests.one("HTTPRoute", "streamforge-api")["spec"]["rules"]
    (backend,) = route["backendRefs"]
    assert policy["targetRef"] == {"group": "", "kind": "Service", "name": backend["name"]}


def test_a_gateway_asks_whether_the_process_answers_and_not_whether_the_store_does() -> None:
    check = render().one("HealthCheckPolicy", "streamforge-api")["spec"]["default"]["config"]["httpHealthCheck"]
    assert check["requestPath"] == LIVE
    assert check["port"] == next(p["containerPort"] for p in container()["ports"] if p["name"] == "http")
    assert LIVE in {rule.rule for rule in serving.create_app(serving.Config()).url_map.iter_rules()}


def test_an_ingress_of_googles_is_told_the_same() -> None:
    manifests = render("prod", values())
    config = manifests.one("BackendConfig", "streamforge-api")
    assert config["spec"]["timeoutSec"] == 3600
    assert config["spec"]["healthCheck"]["requestPath"] == LIVE
    annotations = manifests.one("Service", "streamforge-api")["metadata"]["annotations"]
    assert json.loads(annotations["cloud.google.com/backend-config"]) == {"ports": {"http": config["metadata"]["name"]}}
    assert not manifests.all("GCPBackendPolicy")


@pytest.mark.parametrize("environment", ["dev"])
def test_elsewhere_there_is_nothing_of_googles(environment: str) -> None:
    kinds = {"GCPBackendPolicy", "HealthCheckPolicy", "BackendConfig"}
    nginx = values(className="nginx")
    off = {"googleCloud": {"project": ""}, "bigquery": {"dataset": ""}}
    gateway = {"api": {"gateway": {"enabled": True, "name": "g", "namespace": "g", "host": "a.example"}}, **off}
    for manifests in (render(environment), render("prod", nginx), render(environment, gateway)):
        assert not [o for o in manifests if o["kind"] in kinds]
        assert "annotations" not in manifests.one("Service", "streamforge-api")["metadata"]
