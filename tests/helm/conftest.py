"""A real API server, for all tests of the chart that want one."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from tests.helm import api_server
from tests.helm.api_server import ApiServer
from tests.helm.chart import render
from tests.helm.kinds import custom_kinds

# No pod in it may be what the strictest of Kubernetes' standards for pods does not allow; templates are only warned of.
NAMESPACE = {
    "apiVersion": "v1",
    "kind": "Namespace",
    "metadata": {
        "name": "streamforge",
        "labels": {f"pod-security.kubernetes.io/{mode}": "restricted" for mode in ("enforce", "warn")},
    },
}
# A controller would make it, and there is none.
ACCOUNT = {"apiVersion": "v1", "kind": "ServiceAccount", "metadata": {"name": "default", "namespace": "streamforge"}}


@pytest.fixture(scope="session")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[ApiServer]:
    """With the namespace streamforge, and with the operators' kinds."""
    context = api_server.running(tmp_path_factory.mktemp("kubernetes"))
    try:
        server = context.__enter__()
        kinds = custom_kinds()
    except RuntimeError as e:
        pytest.skip(str(e))
    try:
        server.done("create", objects=[NAMESPACE])
        server.done("create", objects=[ACCOUNT])
        server.done("create", objects=kinds)
        names = [f"crd/{kind['metadata']['name']}" for kind in kinds]
        server.done("wait", "--for=condition=Established", "--timeout=60s", *names)
        yield server
    finally:
        context.__exit__(None, None, None)


@pytest.fixture
def role(server: ApiServer) -> Iterator[dict]:
    """Flink's, with its binding and its account."""
    manifests = render()
    objects = [
        manifests.one("Role", "streamforge-flink"),
        manifests.one("RoleBinding", "streamforge-flink"),
        *manifests.all("ServiceAccount").values(),
    ]
    server.done("apply", objects=objects)
    yield objects[0]
    server.done("delete", objects=objects)
