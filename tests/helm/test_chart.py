"""The chart as a whole: what every manifest has, what every pod may not, and that no template goes untested."""

from __future__ import annotations

import json
import subprocess
from pathlib import Path
from typing import Any

import pytest
import yaml

from schemas.jobs import JOBS
from tests.helm.chart import CHART, ENVIRONMENTS, TERRAFORMS, render, told
from tests.tools import tool


def templates() -> list[Path]:
    return [p.relative_to(CHART / "templates") for p in sorted((CHART / "templates").rglob("*.yaml"))]


def test_every_template_has_a_test_file() -> None:
    assert len(templates()) > 10
    for path in templates():
        name = "_".join(path.with_suffix("").parts).replace("-", "_")
        assert (Path(__file__).parent / f"test_{name}.py").exists(), f"{path} has no tests/helm/test_{name}.py"


def test_every_value_is_in_the_schema_and_every_name_in_the_schema_has_a_value() -> None:
    schema = json.loads((CHART / "values.schema.json").read_text())

    def compare(values: Any, rules: Any, at: str) -> None:
        rules = resolved(rules, schema)
        if isinstance(values, dict) and "properties" in rules:
            assert values.keys() <= rules["properties"].keys(), at
            for name, value in values.items():
                compare(value, rules["properties"][name], f"{at}.{name}")
            inherits = at.startswith(".jobs.") or at in (".api.pods", ".jobDefaults.pods")
            if not inherits:  # from jobDefaults, and from pods
                # Either peers may be left out.
                missing = rules["properties"].keys() - values.keys() - {"global", "cidrs", "namespaces", "cpu"}
                assert not missing, f"{at} has no default of {missing}"

    values = yaml.safe_load((CHART / "values.yaml").read_text())
    assert values["jobs"].keys() == JOBS.keys()
    compare(values, schema, "")


def resolved(rules: dict[str, Any], schema: dict[str, Any]) -> dict[str, Any]:
    if "allOf" in rules:
        rules = rules["allOf"][0]
    if "$ref" in rules:
        rules = schema["$defs"][rules["$ref"].rpartition("/")[2]]
    return rules


@pytest.mark.deploy
def test_helm_finds_nothing_to_complain_of() -> None:
    for environment in ENVIRONMENTS:
        values = CHART / f"values-{environment}.yaml"
        done = subprocess.run(
            [
                *(tool("helm"), "lint", "--strict", "--kube-version=1.33.0", CHART),
                *(f"--values={values}", f"--values={TERRAFORMS}/{environment}.yaml"),
            ],
            capture_output=True,
            text=True,
            check=False,
        )
        assert done.returncode == 0, done.stdout + done.stderr
        assert "1 chart(s) linted, 0 chart(s) failed" in done.stdout


@pytest.mark.deploy
@pytest.mark.parametrize("environment", ENVIRONMENTS)
def test_every_object_is_in_the_releases_namespace_and_says_whose_it_is(environment: str) -> None:
    manifests = list(render(environment))
    assert len(manifests) > 15
    for found in manifests:
        assert found["metadata"]["namespace"] == "streamforge", found
        labels = found["metadata"]["labels"]
        assert labels["app.kubernetes.io/name"] == labels["app.kubernetes.io/instance"] == "streamforge"
        assert labels["app.kubernetes.io/managed-by"] == "Helm"


def pods(environment: str, values: Any = None) -> dict[str, dict[str, Any]]:
    """Specs of all pods, by the name of what makes them; of a Flink cluster both sorts, joined as the operator does."""
    found = {}
    for o in render(environment, values):
        if o["kind"] in ("Deployment", "StatefulSet"):
            found[o["metadata"]["name"]] = o["spec"]["template"]["spec"]
        elif o["kind"] == "Pod":
            found[o["metadata"]["name"]] = o["spec"]
        elif o["kind"] == "FlinkDeployment":
            for part in ("jobManager", "taskManager"):
                found[f"{o['metadata']['name']}/{part}"] = joined(
                    o["spec"]["podTemplate"]["spec"], o["spec"][part]["podTemplate"]["spec"]
                )
    return found


def joined(common: dict[str, Any], own: dict[str, Any]) -> dict[str, Any]:
    """Lists by the name of what is in them, as kubernetes.operator.pod-template.merge-arrays-by-name asks."""
    result = dict(common)
    for key, value in own.items():
        if isinstance(value, list) and key in result:
            by_name = {i.get("name", i.get("mountPath")): i for i in result[key]}
            for item in value:
                name = item.get("name", item.get("mountPath"))
                by_name[name] = joined(by_name[name], item) if name in by_name else item
            result[key] = list(by_name.values())
        else:
            result[key] = joined(result[key], value) if isinstance(value, dict) and key in result else value
    return result


@pytest.mark.deploy
@pytest.mark.parametrize("environment", ENVIRONMENTS)
def test_no_container_is_root_or_can_become_it_or_writes_to_its_image(environment: str) -> None:
    found = pods(environment)
    assert {"streamforge-api", "streamforge-test", "fraud-detector/jobManager", "archiver/taskManager"} <= found.keys()
    for name, spec in found.items():
        assert spec["enableServiceLinks"] is False, name
        assert spec["securityContext"]["runAsNonRoot"] is True, name
        assert spec["securityContext"]["runAsUser"] == 10001, name
        assert spec["securityContext"]["seccompProfile"] == {"type": "RuntimeDefault"}, name
        containers = [*spec["containers"], *spec.get("initContainers", [])]
        assert containers
        for container in containers:
            security = container["securityContext"]
            assert security["allowPrivilegeEscalation"] is False, name
            assert security["readOnlyRootFilesystem"] is True, name
            assert security["capabilities"] == {"drop": ["ALL"]}, name


@pytest.mark.deploy
@pytest.mark.parametrize("environment", ENVIRONMENTS)
def test_every_container_says_what_it_needs_and_every_mount_has_its_volume(environment: str) -> None:
    for name, spec in pods(environment).items():
        volumes = {v["name"] for v in spec.get("volumes", [])} | ({"data"} if name == "streamforge-redis" else set())
        for container in [*spec["containers"], *spec.get("initContainers", [])]:
            if container["name"] != "flink-main-container":  # its own are in spec.jobManager and spec.taskManager
                assert container["resources"]["requests"].keys() == {"cpu", "memory"}, name
                assert container["resources"]["limits"]["memory"], name
            mounts = [m["name"] for m in container.get("volumeMounts", [])]
            assert set(mounts) <= volumes, f"{name}/{container['name']}"
        used = (
            {m["name"] for c in [*spec["containers"], *spec.get("initContainers", [])] for m in c["volumeMounts"]}
            if (name != "streamforge-test")
            else set()
        )
        assert volumes <= used, f"{name}: volumes that nobody mounts"


@pytest.mark.deploy
@pytest.mark.parametrize("environment", ENVIRONMENTS)
def test_images_are_of_one_registry_and_one_version(environment: str) -> None:
    images = {
        c["image"]
        for s in pods(environment).values()
        for c in [*s["containers"], *s.get("initContainers", [])]
        if "image" in c
    }
    images |= {o["spec"]["image"] for o in render(environment).all("FlinkDeployment").values()}
    ours = {image for image in images if "/streamforge" in image}
    registry = told(environment)["images"]["registry"]
    assert {f"{registry}/streamforge-{n}:0.1.0" for n in ("api", "flink", "launcher", "worker")} <= ours
    assert all(image.startswith(f"{registry}/") and image.endswith(":0.1.0") for image in ours)
    assert all(image.startswith("docker.io/valkey/valkey:") for image in images - ours)


@pytest.mark.deploy
def test_another_tag_and_pull_secrets_reach_every_pod() -> None:
    values = {"images": {"tag": "1.2.3", "pullSecrets": ["registry-login"]}, "slots": {"enabled": True}}
    for name, spec in pods("dev", values).items():
        assert spec["imagePullSecrets"] == [{"name": "registry-login"}], name
        for container in [*spec["containers"], *spec.get("initContainers", [])]:
            if "/streamforge" in container.get("image", ""):
                assert container["image"].endswith(":1.2.3"), name


@pytest.mark.deploy
@pytest.mark.parametrize("environment", ENVIRONMENTS)
def test_no_password_is_written_anywhere(environment: str) -> None:
    """Secrets are named, never made: the chart holds no Secret, and no value of one."""
    manifests = render(environment)
    assert "Secret" not in {o["kind"] for o in manifests}
    for o in manifests:
        assert "password=" not in json.dumps(o)
