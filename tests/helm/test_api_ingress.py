"""The way in by an Ingress."""

from __future__ import annotations

from typing import Any

import pytest

from tests.helm.chart import ENVIRONMENTS, refusal, render

pytestmark = pytest.mark.deploy


def values(**ingress: Any) -> dict[str, Any]:
    return {
        "api": {
            "gateway": {"enabled": False},
            "ingress": {"enabled": True, "host": "api.shop.example", "tlsSecret": "api-tls", **ingress},
        }
    }


def test_it_leads_to_the_api_and_ends_tls() -> None:
    manifests = render("prod", values(annotations={"kubernetes.io/ingress.allow-http": "false"}))
    found = manifests.one("Ingress", "streamforge-api")
    assert found["metadata"]["annotations"] == {"kubernetes.io/ingress.allow-http": "false"}
    assert found["spec"]["tls"] == [{"hosts": ["api.shop.example"], "secretName": "api-tls"}]
    (rule,) = found["spec"]["rules"]
    assert rule["host"] == "api.shop.example"
    backend = rule["http"]["paths"][0]["backend"]["service"]
    service = manifests.one("Service", backend["name"])
    assert backend["port"]["name"] in {p["name"] for p in service["spec"]["ports"]}
    assert backend["port"]["name"] != "metrics"


@pytest.mark.parametrize(("missing", "path"), [("host", "/api/ingress/host"), ("tlsSecret", "/api/ingress/tlsSecret")])
def test_without_a_host_or_tls_it_is_refused(missing: str, path: str) -> None:
    assert path in refusal(values=values(**{missing: ""}))


def test_there_is_one_way_in() -> None:
    both = {"api": {**values()["api"], "gateway": {"enabled": True}}}
    assert "api: either ingress or gateway, not both" in refusal(values=both)


@pytest.mark.parametrize("environment", ENVIRONMENTS)
def test_it_is_off_unless_it_is_wanted(environment: str) -> None:
    assert not render(environment).all("Ingress")
