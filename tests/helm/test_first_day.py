"""The page "Your first day": its values are taken by the chart and by the jobs, and its pods ask for what it says."""

from __future__ import annotations

import re
from typing import Any

import pytest
import yaml

from beam_pipelines.sinks import KafkaUrl
from tests.helm.chart import render
from tests.helm.test_autopilot import GIB, total
from tests.helm.test_chart import pods
from tests.helm.test_flink_deployments import parsed
from tests.live import ROOT

pytestmark = pytest.mark.deploy

PAGE = (ROOT / "docs" / "first-day.md").read_text(encoding="utf-8")


def values() -> dict[str, Any]:
    (text,) = re.findall(r"(?s)```yaml\n(.*?)```", PAGE)
    return yaml.safe_load(text.replace("REGISTRY", "registry.shop.example"))  # type: ignore[no-any-return]


@pytest.mark.parametrize("module", ["fraud", "revenue"])
def test_the_jobs_take_the_values_of_the_page(module: str) -> None:
    manifests = render("dev", values())
    assert manifests.all("FlinkDeployment").keys() == {"fraud-detector", "revenue-calculator"}
    (job,) = [d for name, d in manifests.all("FlinkDeployment").items() if name.startswith(module)]
    pod = job["spec"]["jobManager"]["podTemplate"]["spec"]
    (launcher,) = pod["initContainers"]
    _, settings = parsed(module, launcher["args"])
    assert settings.currency == "EUR"
    assert settings.mapping
    assert "shop.orders" in {url.topic for url in settings.inputs if isinstance(url, KafkaUrl)}
    assert str(settings.registry) == "https://registry.shop.example"
    # What the launcher reads is mounted where it looks.
    mounts = {mount["name"]: mount["mountPath"] for mount in launcher["volumeMounts"]}
    (volume,) = [v for v in job["spec"]["podTemplate"]["spec"]["volumes"] if v["name"] == "mapping"]
    assert (mounts["mapping"], volume["configMap"]["name"]) == ("/etc/streamforge/mapping", "mapping")
    assert "create configmap mapping --from-file=ours.yaml" in PAGE


@pytest.mark.parametrize(
    ("environment", "said"),
    [("dev", r"dev's ([\d.]+) vCPU and (\d+) GiB"), ("prod", r"prod: (\d+) vCPU and (\d+) GiB")],
)
def test_the_page_says_what_the_pods_ask_for(environment: str, said: str) -> None:
    manifests = render(environment)
    cpu = memory = 0.0
    for name, spec in pods(environment).items():
        job, _, part = name.partition("/")
        if part == "jobManager":
            count = manifests.one("FlinkDeployment", job)["spec"]["jobManager"]["replicas"]
        elif part:
            spec_of = manifests.one("FlinkDeployment", job)["spec"]
            slots = int(spec_of["flinkConfiguration"]["taskmanager.numberOfTaskSlots"])
            count = spec_of["job"]["parallelism"] // slots
        elif name in manifests.all("HorizontalPodAutoscaler"):
            count = manifests.one("HorizontalPodAutoscaler", name)["spec"]["minReplicas"]
        elif name in manifests.all("Pod"):
            continue  # of `helm test`
        else:
            count = {**manifests.all("Deployment"), **manifests.all("StatefulSet")}[name]["spec"]["replicas"]
        asks = total(name, spec, environment)
        cpu, memory = cpu + count * asks.cpu, memory + count * asks.memory / GIB
    found = re.search(said, PAGE)
    assert found
    assert (float(found[1]), float(found[2])) == (pytest.approx(cpu, abs=0.1), pytest.approx(memory, abs=0.5))
