"""Who the pods are, for Kubernetes and for Google."""

from __future__ import annotations

import pytest

from tests.helm.chart import ENVIRONMENTS, render, told

pytestmark = pytest.mark.deploy


@pytest.mark.parametrize("environment", ENVIRONMENTS)
def test_each_is_a_google_account_of_the_same_name(environment: str) -> None:
    """Terraform binds them by these names."""
    found = render(environment).all("ServiceAccount")
    assert found.keys() == {"streamforge-jobs", "streamforge-api"}
    project = told(environment)["googleCloud"]["project"]
    for name, account in found.items():
        assert account["metadata"]["annotations"] == {
            "iam.gke.io/gcp-service-account": f"{name}@{project}.iam.gserviceaccount.com"
        }


def test_off_google_there_is_no_google_account() -> None:
    values = {"googleCloud": {"project": ""}, "bigquery": {"dataset": ""}}
    for account in render("dev", values).all("ServiceAccount").values():
        assert "annotations" not in account["metadata"]


def test_only_flink_is_given_a_token_for_kubernetes() -> None:
    found = render().all("ServiceAccount")
    assert found["streamforge-api"]["automountServiceAccountToken"] is False
    assert "automountServiceAccountToken" not in found["streamforge-jobs"]


def test_another_name_is_the_accounts_and_their_users() -> None:
    manifests = render("prod", {"serviceAccounts": {"jobs": "flink", "api": "web"}})
    assert manifests.all("ServiceAccount").keys() == {"flink", "web"}
    assert {d["spec"]["serviceAccount"] for d in manifests.all("FlinkDeployment").values()} == {"flink"}
    assert manifests.one("RoleBinding", "streamforge-flink")["subjects"][0]["name"] == "flink"
    api = manifests.one("Deployment", "streamforge-api")["spec"]["template"]["spec"]
    assert api["serviceAccountName"] == "web"
