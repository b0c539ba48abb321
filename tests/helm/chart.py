"""The chart as helm renders it."""

from __future__ import annotations

import functools
import json
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import yaml

from tests.tools import tool

__all__ = ["CHART", "ENVIRONMENTS", "KUBERNETES", "TERRAFORMS", "Manifests", "refusal", "render", "text", "told"]

CHART = Path(__file__).parents[2] / "helm" / "streamforge"
ENVIRONMENTS = ("dev", "staging", "prod")
TERRAFORMS = Path(__file__).parent / "terraform"
"""What Terraform's output helm_values is, for each environment: written and compared by tests/terraform."""
KUBERNETES = "1.33.13"
"""That manifests are made for, checked against, and applied to."""


def told(environment: str = "prod") -> dict[str, Any]:
    """Terraform's values for the chart."""
    return yaml.safe_load((TERRAFORMS / f"{environment}.yaml").read_text())  # type: ignore[no-any-return]


class Manifests:
    """What one rendering gave, in helm's order."""

    def __init__(self, objects: list[dict[str, Any]]):
        self._objects = objects

    def __iter__(self) -> Iterator[dict[str, Any]]:
        return iter(self._objects)

    def all(self, kind: str) -> dict[str, dict[str, Any]]:
        """By name."""
        found = [o for o in self._objects if o["kind"] == kind]
        names = [o["metadata"]["name"] for o in found]
        assert len(set(names)) == len(names), f"two {kind} of one name: {names}"
        return dict(zip(names, found, strict=True))

    def one(self, kind: str, name: str) -> dict[str, Any]:
        return self.all(kind)[name]


def render(
    environment: str = "prod", values: dict[str, Any] | None = None, namespace: str = "streamforge"
) -> Manifests:
    """The manifests of an environment, with values over its own.

    Raises:
      AssertionError: helm refuses.
    """
    found = yaml.load_all(text(environment, values, namespace), Loader=getattr(yaml, "CSafeLoader", yaml.SafeLoader))
    return Manifests([o for o in found if o])


def text(environment: str = "prod", values: dict[str, Any] | None = None, namespace: str = "streamforge") -> str:
    status, out, error = _helm(environment, json.dumps(values or {}), namespace)
    assert status == 0, error
    return out


def refusal(environment: str = "prod", values: dict[str, Any] | None = None) -> str:
    """Why helm refuses."""
    status, _, error = _helm(environment, json.dumps(values or {}))
    assert status, f"helm takes {values}"
    return error


@functools.cache
def _helm(environment: str, values: str, namespace: str = "streamforge") -> tuple[int, str, str]:
    command = [tool("helm"), "template", "streamforge", CHART, f"--namespace={namespace}"]
    command += [f"--kube-version={KUBERNETES}", f"--values={CHART}/values-{environment}.yaml"]
    command += [f"--values={TERRAFORMS}/{environment}.yaml", "--values=-"]
    done = subprocess.run(command, input=values, capture_output=True, text=True, check=False)
    return done.returncode, done.stdout, done.stderr
