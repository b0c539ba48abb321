"""A real API server of Kubernetes, on a real etcd, and nothing else: it checks and keeps what it is told, and runs none
of it."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import urllib.error
import urllib.request
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from ssl import create_default_context
from typing import Any

from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import rsa

from stack.ports import pick_free
from tests.live import eventually
from tests.tools import tool

__all__ = ["ApiServer", "running"]

_TOKEN = "admin"


class ApiServer:
    """
    Attributes:
      url: https://…
    """

    def __init__(self, url: str, authority: Path, home: Path):
        self.url, self._authority, self._home = url, authority, home

    def kubectl(self, *words: str, objects: Any = None) -> subprocess.CompletedProcess[str]:
        """As the cluster's administrator.

        Args:
          objects: given as -f -.
        """
        command = ["kubectl", f"--server={self.url}", f"--certificate-authority={self._authority}", f"--token={_TOKEN}"]
        command += [*words, *(["-f", "-"] if objects is not None else [])]
        given = None if objects is None else json.dumps({"apiVersion": "v1", "kind": "List", "items": list(objects)})
        environment = {**os.environ, "HOME": str(self._home), "KUBECONFIG": "/dev/null"}
        return subprocess.run(command, input=given, env=environment, capture_output=True, text=True, check=False)

    def done(self, *words: str, objects: Any = None) -> str:
        """What kubectl prints.

        Raises:
          AssertionError: it fails.
        """
        found = self.kubectl(*words, objects=objects)
        assert found.returncode == 0, found.stderr
        return found.stdout

    def may(self, account: str, verb: str, resource: str, namespace: str) -> bool:
        """Whether a service account of the namespace streamforge may do this."""
        who = f"--as=system:serviceaccount:streamforge:{account}"
        kind, _, part = resource.partition("/")
        part_of = [f"--subresource={part}"] if part else []
        answer = self.kubectl("auth", "can-i", verb, kind, *part_of, f"--namespace={namespace}", who)
        assert answer.stdout.strip() in ("yes", "no"), answer.stderr
        return answer.stdout.strip() == "yes"

    def objects(self, kind: str) -> dict[str, dict[str, Any]]:
        """Those in the namespace streamforge, by name."""
        found = json.loads(self.done("get", kind, "--namespace=streamforge", "--output=json"))["items"]
        return {o["metadata"]["name"]: o for o in found}

    def kubeconfig(self, path: Path, account: str | None = None) -> Path:
        """A file that leads a client here: as a service account of the namespace streamforge, else as administrator."""
        token = self.done("create", "token", account, "--namespace=streamforge").strip() if account else _TOKEN
        cluster = {"server": self.url, "certificate-authority": str(self._authority)}
        config = {
            "apiVersion": "v1",
            "kind": "Config",
            "clusters": [{"name": "here", "cluster": cluster}],
            "users": [{"name": "who", "user": {"token": token}}],
            "contexts": [{"name": "now", "context": {"cluster": "here", "user": "who", "namespace": "streamforge"}}],
            "current-context": "now",
        }
        path.write_text(json.dumps(config))
        return path

    def ready(self) -> bool:
        request = urllib.request.Request(f"{self.url}/readyz", headers={"Authorization": f"Bearer {_TOKEN}"})
        try:
            context = create_default_context(cafile=str(self._authority))
            with urllib.request.urlopen(request, timeout=5, context=context) as answer:
                return bool(answer.status == 200)
        except (urllib.error.URLError, OSError):
            return False


@contextmanager
def running(folder: Path) -> Iterator[ApiServer]:
    """
    Raises:
      RuntimeError: a program that it takes cannot be had.
    """
    if not shutil.which("kubectl"):
        raise RuntimeError("kubectl is needed")
    programs = {name: tool(name) for name in ("etcd", "kube-apiserver")}
    key = folder / "accounts.pem"
    key.write_bytes(_private_key())
    (folder / "tokens.csv").write_text(f"{_TOKEN},admin,admin,system:masters\n")
    ports = [pick_free() for _ in range(3)]
    store = f"http://127.0.0.1:{ports[0]}"
    etcd = [
        programs["etcd"],
        f"--data-dir={folder}/etcd",
        f"--listen-client-urls={store}",
        f"--advertise-client-urls={store}",
        f"--listen-peer-urls=http://127.0.0.1:{ports[1]}",
        "--unsafe-no-fsync",
    ]
    server = [
        programs["kube-apiserver"],
        f"--etcd-servers={store}",
        "--bind-address=127.0.0.1",
        f"--secure-port={ports[2]}",
        f"--cert-dir={folder}/certificates",
        f"--token-auth-file={folder}/tokens.csv",
        "--authorization-mode=RBAC",
        "--service-cluster-ip-range=10.96.0.0/24",
        "--service-account-issuer=https://kubernetes.default.svc",
        f"--service-account-key-file={key}",
        f"--service-account-signing-key-file={key}",
    ]
    with ExitStack() as until_the_end:
        for name, command in (("etcd", etcd), ("server", server)):
            log = until_the_end.enter_context((folder / f"{name}.log").open("wb"))
            process = subprocess.Popen(command, stdout=log, stderr=subprocess.STDOUT)
            until_the_end.callback(process.wait, 60)
            until_the_end.callback(process.terminate)
        found = ApiServer(f"https://127.0.0.1:{ports[2]}", folder / "certificates" / "apiserver.crt", folder)

        def ready() -> bool:
            assert process.poll() is None, (folder / "server.log").read_text()[-2000:]
            return found.ready()

        eventually(ready, "the API server is ready", 120)
        yield found


def _private_key() -> bytes:
    """Made for this run: of the accounts' tokens, which nobody here uses."""
    return rsa.generate_private_key(public_exponent=65537, key_size=2048).private_bytes(
        serialization.Encoding.PEM, serialization.PrivateFormat.TraditionalOpenSSL, serialization.NoEncryption()
    )
