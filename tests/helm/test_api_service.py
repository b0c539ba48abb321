"""The API's Service leads to its pods."""

from __future__ import annotations

import pytest

from tests.helm.chart import render

pytestmark = pytest.mark.deploy


def test_it_chooses_the_apis_pods_and_no_others() -> None:
    manifests = render("dev", {"slots": {"enabled": True}})
    service = manifests.one("Service", "streamforge-api")["spec"]
    chosen = [
        o["metadata"]["name"]
        for o in manifests
        if "template" in o.get("spec", {})
        and service["selector"].items() <= o["spec"]["template"]["metadata"]["labels"].items()
    ]
    assert chosen == ["streamforge-api"]
    for job in manifests.all("FlinkDeployment").values():
        assert not service["selector"].items() <= job["spec"]["podTemplate"]["metadata"]["labels"].items()


def test_its_ports_are_the_containers() -> None:
    manifests = render()
    service = manifests.one("Service", "streamforge-api")["spec"]
    (container,) = manifests.one("Deployment", "streamforge-api")["spec"]["template"]["spec"]["containers"]
    assert {p["name"]: p["port"] for p in service["ports"]} == {"http": 80, "metrics": 9090}
    assert {p["targetPort"] for p in service["ports"]} == {p["name"] for p in container["ports"]}
    assert service["type"] == "ClusterIP"
