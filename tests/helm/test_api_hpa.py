"""The API's autoscaler."""

from __future__ import annotations

import pytest

from tests.helm.chart import refusal, render

pytestmark = pytest.mark.deploy


def test_it_scales_the_apis_deployment_by_its_cpu() -> None:
    manifests = render("prod", {"api": {"autoscaling": {"targetCPU": 50}}})
    found = manifests.one("HorizontalPodAutoscaler", "streamforge-api")["spec"]
    target = found["scaleTargetRef"]
    assert target["name"] in manifests.all(target["kind"])
    assert (found["minReplicas"], found["maxReplicas"]) == (3, 20)
    (metric,) = found["metrics"]
    assert metric["resource"] == {"name": "cpu", "target": {"type": "Utilization", "averageUtilization": 50}}
    (container,) = manifests.one("Deployment", "streamforge-api")["spec"]["template"]["spec"]["containers"]
    assert container["resources"]["requests"]["cpu"], "utilization is of what is requested"


def test_it_goes_up_at_once_and_down_one_by_one() -> None:
    behavior = render().one("HorizontalPodAutoscaler", "streamforge-api")["spec"]["behavior"]
    assert behavior["scaleUp"]["stabilizationWindowSeconds"] == 0
    assert behavior["scaleDown"]["stabilizationWindowSeconds"] == 300
    assert behavior["scaleDown"]["policies"] == [{"type": "Pods", "value": 1, "periodSeconds": 60}]


def test_it_is_not_there_when_it_is_off() -> None:
    assert not render("dev").all("HorizontalPodAutoscaler")


def test_more_at_least_than_at_most_is_refused() -> None:
    values = {"api": {"autoscaling": {"minReplicas": 21}}}
    assert "api.autoscaling.minReplicas: is more than maxReplicas" in refusal(values=values)
