"""Who has to reach whom, and who must not: asked of the chart's network policies by a real engine."""

from __future__ import annotations

import functools
import ipaddress
import json
import subprocess
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from tests.live import ROOT

__all__ = ["FLOWS", "NO_FLOWS", "Flow", "Place", "passing", "places"]

_SOURCE = Path(__file__).parent / "policy_engine"


@dataclass(frozen=True)
class Place:
    """A pod, if it has a namespace; else an address outside of the cluster."""

    address: str
    namespace: str = ""
    labels: Mapping[str, str] = field(default_factory=dict)


@dataclass(frozen=True)
class Flow:
    """By the names of places()."""

    source: str
    target: str
    port: int
    protocol: str = "TCP"

    def __str__(self) -> str:
        return f"{self.source} → {self.target}:{self.port}/{self.protocol}"


def passing(policies: Iterable[dict[str, Any]], where: Mapping[str, Place], flows: Sequence[Flow]) -> set[Flow]:
    """Those that the policies let through."""
    asked = [{**asdict(f), "source": asdict(where[f.source]), "target": asdict(where[f.target])} for f in flows]
    done = subprocess.run(
        [_engine()],
        input=json.dumps({"policies": list(policies), "flows": asked}),
        capture_output=True,
        text=True,
        check=True,
    )
    return {flow for flow, passes in zip(flows, json.loads(done.stdout), strict=True) if passes}


@functools.cache
def _engine() -> Path:
    program = ROOT / ".stack" / "tools" / "policy_engine"
    program.parent.mkdir(parents=True, exist_ok=True)
    subprocess.run(["go", "build", "-o", program, "."], cwd=_SOURCE, check=True)
    return program


def places(ranges: Mapping[str, str]) -> dict[str, Place]:
    """Everything that a flow begins or ends at.

    Args:
      ranges: nodes, pods, private_services and control_plane, as Terraform has them.
    """

    def inside(name: str, number: int) -> str:
        return str(ipaddress.ip_network(ranges[name])[number])

    def pod(number: int, namespace: str, **labels: str) -> Place:
        return Place(
            inside("pods", number), namespace, {k.replace("__", "/").replace("_", "-"): v for k, v in labels.items()}
        )

    def ours(number: int, component: str, **more: str) -> Place:
        labels = {f"app.kubernetes.io/{k}": v for k, v in (("name", "streamforge"), ("instance", "streamforge"))}
        return Place(
            inside("pods", number), "streamforge", {**labels, "app.kubernetes.io/component": component, **more}
        )

    def job(number: int, name: str) -> Place:
        return ours(number, "flink", **{"streamforge/job": name})

    return {
        "api": ours(10, "api"),
        "store in the cluster": ours(11, "redis"),
        "slots": ours(12, "slots"),
        "helm test": ours(13, "test"),
        "fraud": job(14, "fraud-detector"),
        "archiver": job(15, "archiver"),
        "kafka in the cluster": pod(20, "kafka"),
        "operator": pod(21, "flink-operator"),
        "prometheus": pod(22, "monitoring"),
        "kube-dns": pod(23, "kube-system", k8s_app="kube-dns"),
        "node-local-dns": pod(24, "kube-system", k8s_app="node-local-dns"),
        "kube-system": pod(25, "kube-system", k8s_app="konnectivity-agent"),
        "other namespace": pod(26, "other"),
        "neighbour": pod(27, "streamforge", app="other"),
        "managed kafka": Place(inside("nodes", 20)),
        "memorystore": Place(inside("private_services", 3)),
        "cloud sql": Place(inside("private_services", 260)),
        "control plane": Place(inside("control_plane", 2)),
        "load balancer": Place("35.191.4.5"),
        "health check": Place("130.211.1.9"),
        "google apis": Place("199.36.153.9"),
        "metadata": Place("169.254.169.254"),
        "metadata, older network": Place("169.254.169.252"),
        "internet": Place("93.184.215.14"),
    }


FLOWS = [
    Flow("load balancer", "api", 8090),
    Flow("health check", "api", 8090),
    Flow("helm test", "api", 8090),
    Flow("prometheus", "api", 9090),
    Flow("api", "memorystore", 6378),
    Flow("api", "managed kafka", 9092),
    Flow("api", "metadata", 80),
    Flow("api", "metadata, older network", 988),
    Flow("api", "google apis", 443),
    Flow("fraud", "fraud", 6123),
    Flow("fraud", "fraud", 41234),
    Flow("operator", "fraud", 8081),
    Flow("prometheus", "fraud", 9249),
    Flow("fraud", "managed kafka", 9092),
    Flow("fraud", "kafka in the cluster", 8080),  # the registry
    Flow("fraud", "memorystore", 6378),
    Flow("fraud", "google apis", 443),
    Flow("fraud", "metadata", 80),
    Flow("fraud", "metadata, older network", 988),
    Flow("fraud", "control plane", 443),
    Flow("archiver", "google apis", 443),
    Flow("prometheus", "slots", 9090),
    Flow("slots", "cloud sql", 5432),
    *(
        Flow(pod, names, 53, protocol)
        for pod in ("api", "fraud", "slots", "helm test")
        for names in ("kube-dns", "node-local-dns", "metadata")
        for protocol in ("UDP", "TCP")
    ),
]
"""Of prod, with Terraform's values."""

NO_FLOWS = [
    Flow("other namespace", "api", 8090),
    Flow("neighbour", "api", 8090),
    Flow("load balancer", "api", 9090),
    Flow("prometheus", "api", 8090),
    Flow("internet", "api", 8090),
    Flow("api", "internet", 443),
    Flow("api", "control plane", 443),
    Flow("api", "fraud", 8081),
    Flow("api", "memorystore", 22),
    Flow("api", "cloud sql", 5432),
    Flow("api", "kube-system", 53),
    Flow("fraud", "api", 8090),
    Flow("fraud", "archiver", 6123),
    Flow("fraud", "internet", 443),
    Flow("fraud", "cloud sql", 5432),
    Flow("fraud", "kafka in the cluster", 9092),  # not where it is
    Flow("other namespace", "fraud", 8081),
    Flow("operator", "fraud", 6123),
    Flow("prometheus", "fraud", 8081),
    Flow("archiver", "memorystore", 6378),
    Flow("slots", "memorystore", 6378),
    Flow("slots", "managed kafka", 9092),
    Flow("slots", "metadata", 80),
    Flow("other namespace", "slots", 9090),
    Flow("helm test", "memorystore", 6378),
    Flow("helm test", "fraud", 8081),
    Flow("helm test", "internet", 443),
]
"""With googleApis narrowed to those that a VPC reaches privately."""
