"""`helm test` looks from inside at what the jobs need."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from schemas.jobs import JOBS
from stack.__main__ import _parser
from tests.helm.chart import ENVIRONMENTS, render, told
from tests.helm.mounted import here

pytestmark = pytest.mark.deploy


def pod(environment: str = "prod", values: Any = None) -> dict[str, Any]:
    return render(environment, values).one("Pod", "streamforge-doctor")


@pytest.mark.parametrize("environment", ENVIRONMENTS)
def test_its_command_takes_every_flag_that_the_chart_gives_it(environment: str, tmp_path: Path) -> None:
    (container,) = pod(environment)["spec"]["containers"]
    assert container["args"][:2] == ["-m", "stack"]
    found = _parser().parse_args(here(container["args"][2:], tmp_path))
    values = told(environment)
    assert found.kafka == values["kafka"]["servers"]
    assert found.bigquery == f"{values['googleCloud']['project']}.{values['bigquery']['dataset']}"
    assert [folder.rpartition("/")[0] for folder in found.folder] == [
        "/".join(place.split("/")[:3]) for place in (values["storage"]["state"], values["storage"]["archive"])
    ]
    assert {JOBS[job].name for job in found.job} == render(environment).all("FlinkDeployment").keys()


def test_it_asks_as_a_job_asks_with_its_account_its_environment_and_its_network_policy() -> None:
    manifests = render()
    doctor = manifests.one("Pod", "streamforge-doctor")
    job = manifests.one("FlinkDeployment", doctor["metadata"]["labels"]["streamforge/job"])["spec"]
    (launcher,) = job["jobManager"]["podTemplate"]["spec"]["initContainers"]
    (container,) = doctor["spec"]["containers"]
    assert container["image"] == launcher["image"]
    assert container["env"] == launcher["env"]
    assert doctor["spec"]["serviceAccountName"] == job["serviceAccount"]
    assert doctor["metadata"]["labels"].items() >= job["podTemplate"]["metadata"]["labels"].items()
    connections = [arg for arg in launcher["args"] if "_config=/etc/streamforge/" in arg]
    assert connections
    assert connections == [arg for arg in container["args"] if "_config=/etc/streamforge/" in arg]
    assert {m["name"] for m in container["volumeMounts"]} >= {"store-config"}


def test_without_a_job_there_is_nothing_to_look_at() -> None:
    off = {"jobs": {module: {"enabled": False} for module in JOBS}}
    assert "streamforge-doctor" not in render("prod", off).all("Pod")
