"""The way in by a Gateway."""

from __future__ import annotations

import pytest

from tests.helm.chart import refusal, render

pytestmark = pytest.mark.deploy


def test_it_leads_from_the_gateways_tls_listener_to_the_api() -> None:
    manifests = render("prod")
    route = manifests.one("HTTPRoute", "streamforge-api")["spec"]
    assert route["parentRefs"] == [{"name": "shared", "namespace": "gateways", "sectionName": "https"}]
    assert route["hostnames"] == ["streamforge.shop.example"]
    (rule,) = route["rules"]
    (backend,) = rule["backendRefs"]
    ports = {p["port"]: p["name"] for p in manifests.one("Service", backend["name"])["spec"]["ports"]}
    assert ports[backend["port"]] == "http", "and not metrics"


@pytest.mark.parametrize("missing", ["name", "namespace", "host"])
def test_it_is_refused_without_what_it_needs(missing: str) -> None:
    assert f"/api/gateway/{missing}" in refusal(values={"api": {"gateway": {missing: ""}}})


def test_it_is_not_there_when_it_is_off() -> None:
    assert not render("dev").all("HTTPRoute")
