"""What GKE Autopilot makes of the pods: within its documented limits they run as they are written.

Limits: cloud.google.com/kubernetes-engine/docs/concepts/autopilot-resource-requests, general-purpose class. Below a
minimum or outside of the ratio Autopilot raises requests without a word, and with them the bill; above a maximum it
refuses the pod. A container without a request for ephemeral storage gets one of 1 GiB.
"""

from __future__ import annotations

import re
from typing import Any, NamedTuple

import pytest

from tests.helm.chart import ENVIRONMENTS, render
from tests.helm.test_chart import pods

pytestmark = pytest.mark.deploy

GIB = 2**30
UNITS = {"": 1, "m": 2**20, "g": GIB, "Mi": 2**20, "Gi": GIB}  # m and g as Flink has them
RATIO = (1.0, 6.5)  # GiB of memory for each vCPU
CPU, MEMORY, DISK = (0.05, 30), (52 * 2**20, 110 * GIB), (10 * 2**20, 10 * GIB)
EXTENDED_CPU, EXTENDED_MEMORY = 0.5, 512 * 2**20  # of pods that must not be moved (safe-to-evict: false)
DEFAULT_DISK = GIB
EXTENDED = "cluster-autoscaler.kubernetes.io/safe-to-evict"


class Asked(NamedTuple):
    cpu: float
    memory: float
    disk: float


def bytes_of(text: str) -> float:
    number, unit = re.fullmatch(r"([0-9.]+)([A-Za-z]*)", str(text)).groups()  # type: ignore[union-attr]
    return float(number) * UNITS[unit]


def cores(text: Any) -> float:
    return float(text[:-1]) / 1000 if str(text).endswith("m") else float(text)


def asked(requests: dict[str, Any]) -> Asked:
    """One container's. Without a request Autopilot would invent one."""
    disk = requests.get("ephemeral-storage", requests.get("ephemeralStorage"))
    return Asked(cores(requests["cpu"]), bytes_of(requests["memory"]), bytes_of(disk) if disk else DEFAULT_DISK)


def total(name: str, spec: dict[str, Any], environment: str, values: Any = None) -> Asked:
    """A pod's: the sum of its containers, or an init container that asks for more."""
    flink: dict[str, Any] = {}
    if "/" in name:
        job, part = name.split("/")
        flink = render(environment, values).one("FlinkDeployment", job)["spec"][part]["resource"]

    def of(container: dict[str, Any]) -> Asked:
        return asked(flink if container["name"] == "flink-main-container" else container["resources"]["requests"])

    together = [sum(parts) for parts in zip(*map(of, spec["containers"]), strict=True)]
    for first in map(of, spec.get("initContainers", [])):
        together = [max(pair) for pair in zip(together, first, strict=True)]
    return Asked(*together)


def faults(asks: Asked, extended: bool) -> list[str]:
    found = []
    least_cpu, least_memory = (EXTENDED_CPU, EXTENDED_MEMORY) if extended else (CPU[0], MEMORY[0])
    if not least_cpu <= asks.cpu <= CPU[1]:
        found.append(f"cpu {asks.cpu}")
    if not least_memory <= asks.memory <= MEMORY[1]:
        found.append(f"memory {asks.memory / GIB:.2f}Gi")
    if not DISK[0] <= asks.disk <= DISK[1]:
        found.append(f"ephemeral storage {asks.disk / GIB:.2f}Gi")
    ratio = asks.memory / GIB / asks.cpu
    if not RATIO[0] <= ratio <= RATIO[1]:
        found.append(f"{ratio:.2f} GiB for each vCPU")
    return found


@pytest.mark.parametrize("environment", ENVIRONMENTS)
def test_every_pod_is_within_the_limits(environment: str) -> None:
    values = {"slots": {"enabled": True}, "jobs": {"cdc": {"enabled": True}}}
    manifests = render(environment, values)
    kept = {
        name
        for name, job in manifests.all("FlinkDeployment").items()
        if job["spec"]["podTemplate"]["metadata"]["annotations"][EXTENDED] == "false"
    }
    found = {}
    for name, spec in pods(environment, values).items():
        wrong = faults(total(name, spec, environment, values), name.partition("/")[0] in kept)
        found |= {name: wrong} if wrong else {}
    assert not found


def test_a_pods_files_have_room_in_what_it_asks_for() -> None:
    """Autopilot makes the request the limit, and a pod over it is evicted: volumes in it count."""
    for environment in ENVIRONMENTS:
        for name, spec in pods(environment).items():
            sized = [
                v["emptyDir"]["sizeLimit"] for v in spec.get("volumes", []) if v.get("emptyDir", {}).get("sizeLimit")
            ]
            assert sum(map(bytes_of, sized)) <= total(name, spec, environment).disk, (environment, name)


@pytest.mark.parametrize(
    ("asks", "why"),
    [
        (Asked(6, 8 * GIB, 11 * GIB), "ephemeral storage 11.00Gi"),
        (Asked(2, 0.75 * GIB, GIB), "0.38 GiB for each vCPU"),
        (Asked(0.25, 2 * GIB, GIB), "8.00 GiB for each vCPU"),
        (Asked(0.01, 0.0625 * GIB, GIB), "cpu 0.01"),
    ],
)
def test_what_is_over_a_limit_is_found(asks: Asked, why: str) -> None:
    assert why in faults(asks, extended=False)


def test_a_pod_that_stays_asks_for_more() -> None:
    assert faults(Asked(0.25, GIB, GIB), extended=True) == ["cpu 0.25"]
