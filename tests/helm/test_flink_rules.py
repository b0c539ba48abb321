"""Fraud rules of one's own, as a file."""

from __future__ import annotations

import pytest

from tests.helm.chart import CHART, ENVIRONMENTS, render
from transforms.domain.fraud_rules import default_rules, parse_rules

pytestmark = pytest.mark.deploy


def test_the_file_holds_the_rules_as_they_are() -> None:
    rules = (CHART.parents[1] / "transforms" / "domain" / "fraud_rules.yaml").read_text()
    manifests = render("prod", {"jobs": {"fraud": {"rules": rules}}})
    data = manifests.one("ConfigMap", "fraud-detector-rules")["data"]
    assert data.keys() == {"fraud_rules.yaml"}
    assert data["fraud_rules.yaml"] == rules
    assert parse_rules(data["fraud_rules.yaml"]) == default_rules()


def test_the_launcher_reads_that_file() -> None:
    spec = render("prod", {"jobs": {"fraud": {"rules": "x"}}}).one("FlinkDeployment", "fraud-detector")["spec"]
    own = spec["jobManager"]["podTemplate"]["spec"]
    assert {"name": "rules", "configMap": {"name": "fraud-detector-rules"}} in own["volumes"]
    (launcher,) = own["initContainers"]
    assert {"name": "rules", "mountPath": "/etc/streamforge/rules", "readOnly": True} in launcher["volumeMounts"]
    assert "--rules=/etc/streamforge/rules/fraud_rules.yaml" in launcher["args"]


@pytest.mark.parametrize("environment", ENVIRONMENTS)
def test_without_rules_there_is_no_file(environment: str) -> None:
    assert "fraud-detector-rules" not in render(environment).all("ConfigMap")
