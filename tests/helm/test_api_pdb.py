"""The API's disruption budget."""

from __future__ import annotations

import pytest

from tests.helm.chart import render

pytestmark = pytest.mark.deploy


def test_nodes_are_drained_one_pod_at_a_time_and_never_held_up() -> None:
    manifests = render()
    budget = manifests.one("PodDisruptionBudget", "streamforge-api")["spec"]
    assert budget["maxUnavailable"] == 1
    assert "minAvailable" not in budget
    assert budget["unhealthyPodEvictionPolicy"] == "AlwaysAllow"
    assert budget["selector"] == manifests.one("Deployment", "streamforge-api")["spec"]["selector"]


def test_it_is_not_there_when_it_is_off() -> None:
    assert not render("dev").all("PodDisruptionBudget")
