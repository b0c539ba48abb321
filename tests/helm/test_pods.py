"""What a cluster asks of every pod: where it runs, what it is called, what it is given beside what is ours."""

from __future__ import annotations

from typing import Any

import pytest

from tests.helm.chart import refusal, render
from tests.helm.test_chart import pods

pytestmark = pytest.mark.deploy

PLACE = {
    "nodeSelector": {"disktype": "ssd"},
    "tolerations": [{"key": "dedicated", "operator": "Exists"}],
    "affinity": {"nodeAffinity": {}},
    "priorityClassName": "shop",
}
GIVEN = {
    "extraEnv": [{"name": "HTTPS_PROXY", "value": "http://proxy.shop:3128"}],
    "extraVolumes": [{"name": "extra", "configMap": {"name": "extra"}}],
    "extraVolumeMounts": [{"name": "extra", "mountPath": "/etc/extra"}],
}
MARKS = {"annotations": {"shop.example/team": "fraud"}, "labels": {"team": "fraud"}}
ALL = {"pods": {**PLACE, **GIVEN, **MARKS}, "slots": {"enabled": True}}
DIGEST = f"sha256:{'0' * 64}"


@pytest.mark.parametrize("environment", ["dev", "prod"])
def test_every_pod_runs_where_it_is_told_to(environment: str) -> None:
    found = pods(environment, ALL)
    assert len(found) > 8
    for name, spec in found.items():
        assert {field: spec.get(field) for field in PLACE} == PLACE, name


def test_ours_have_what_else_they_are_given() -> None:
    for name, spec in pods("prod", ALL).items():
        if name in ("streamforge-slots", "streamforge-test"):  # neither asks anybody but the database and the API
            continue
        assert GIVEN["extraVolumes"][0] in spec["volumes"], name
        for container in [*spec["containers"], *spec.get("initContainers", [])]:
            where = f"{name}: {container['name']}"
            assert GIVEN["extraVolumeMounts"][0] in container["volumeMounts"], where
            assert GIVEN["extraEnv"][0] in container["env"], where


def test_marks_are_beside_ours() -> None:
    manifests = render("prod", ALL)
    api = manifests.one("Deployment", "streamforge-api")["spec"]["template"]["metadata"]
    fraud = manifests.one("FlinkDeployment", "fraud-detector")["spec"]["podTemplate"]["metadata"]
    for metadata in (api, fraud):
        assert metadata["annotations"].items() >= MARKS["annotations"].items()
        assert metadata["labels"].items() >= {**MARKS["labels"], "app.kubernetes.io/name": "streamforge"}.items()
    assert "cluster-autoscaler.kubernetes.io/safe-to-evict" in fraud["annotations"]


def test_the_apis_and_a_jobs_own_win() -> None:
    values: dict[str, Any] = {
        "pods": PLACE,
        "api": {"pods": {"priorityClassName": "api"}},
        "jobs": {"fraud": {"pods": {"nodeSelector": {"disktype": "nvme"}}}},
    }
    found = pods("prod", values)
    assert found["streamforge-api"]["priorityClassName"] == "api"
    assert found["streamforge-api"]["nodeSelector"] == PLACE["nodeSelector"]
    assert found["fraud-detector/taskManager"]["nodeSelector"] == {"disktype": "nvme"}
    assert found["archiver/taskManager"]["nodeSelector"] == PLACE["nodeSelector"]


def test_an_image_is_exactly_the_one_of_a_digest() -> None:
    values = {"images": {"tag": "1.2.3", "digests": {"streamforge-worker": DIGEST}}}
    images = {c["image"] for spec in pods("prod", values).values() for c in spec["containers"] if "image" in c}
    assert {image.partition("streamforge-")[2] for image in images if "worker" in image} == {f"worker:1.2.3@{DIGEST}"}
    assert not [image for image in images if "@" in image and "worker" not in image]
    assert "invalid propertyName 'streamforge-shop'" in refusal(
        values={"images": {"digests": {"streamforge-shop": DIGEST}}}
    )
