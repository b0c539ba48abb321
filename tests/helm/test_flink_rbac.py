"""What Flink's pods may do at Kubernetes' API. test_api_server.py asks a real one."""

from __future__ import annotations

import pytest

from tests.helm.chart import render

pytestmark = pytest.mark.deploy


def test_the_jobs_account_has_the_role() -> None:
    manifests = render()
    binding = manifests.one("RoleBinding", "streamforge-flink")
    assert binding["roleRef"]["name"] in manifests.all("Role")
    (subject,) = binding["subjects"]
    assert subject["name"] in manifests.all("ServiceAccount")
    assert subject["namespace"] == "streamforge"


def test_it_may_not_read_secrets_nor_give_itself_more() -> None:
    rules = render().one("Role", "streamforge-flink")["rules"]
    resources = {resource for rule in rules for resource in rule["resources"]}
    assert resources == {"pods", "configmaps", "services", "deployments", "deployments/finalizers"}
    for rule in rules:
        assert "*" not in rule["verbs"] + rule["resources"] + rule["apiGroups"]


def test_there_is_nothing_for_the_whole_cluster() -> None:
    kinds = {o["kind"] for o in render()}
    assert not kinds & {"ClusterRole", "ClusterRoleBinding"}
