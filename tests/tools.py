"""The deployment's tools, of one version each, fetched once below .stack/tools: for tests marked `deploy`."""

from __future__ import annotations

import fcntl
import functools
import os
import shutil
import subprocess
import sys
from pathlib import Path

__all__ = ["tool"]

_HOME = Path(__file__).parents[1] / ".stack" / "tools"
_GO = {
    "actionlint": "github.com/rhysd/actionlint/cmd/actionlint@v1.7.12",
    "helm": "helm.sh/helm/v3/cmd/helm@v3.22.0",
    "kubeconform": "github.com/yannh/kubeconform/cmd/kubeconform@v0.7.0",
}
# In packages of Debian and Ubuntu, unpacked and not installed: that needs no root and starts no service.
_DEBIAN = {
    "etcd": ("etcd-server", "usr/bin/etcd"),
    "prometheus": ("prometheus", "usr/bin/prometheus"),
    "promtool": ("prometheus", "usr/bin/promtool"),
}
# Recipes of their own, given a version.
_SHELL = {"kube-apiserver": ("1.33.13", Path(__file__).parent / "helm" / "kube-apiserver.sh")}


@functools.cache
def tool(name: str) -> Path:
    """The program; the first call builds or unpacks it.

    Raises:
      RuntimeError: it cannot be had.
    """
    if name in _GO:
        package = _GO[name]
        return _made(f"{name}-{package.rpartition('@')[2]}", name, ["go", "install", package])
    if name in _SHELL:
        version, script = _SHELL[name]
        return _made(f"{name}-v{version}", name, ["sh", str(script), version])
    package, path = _DEBIAN[name]
    if found := shutil.which(name):
        return Path(found)
    return _made(package, path, ["sh", "-c", f"apt-get download {package} && dpkg-deb -x {package}_*.deb ."])


def _made(folder: str, program: str, command: list[str]) -> Path:
    home = _HOME / folder
    home.mkdir(parents=True, exist_ok=True)
    with (home / "lock").open("w") as lock:  # two at once: the second finds it made
        fcntl.flock(lock, fcntl.LOCK_EX)
        if not (home / program).exists():
            environment = {**os.environ, "GOBIN": str(home), "GOFLAGS": "-mod=mod"}
            try:
                done = subprocess.run(command, cwd=home, env=environment, capture_output=True, text=True, check=False)
            except OSError as e:
                raise RuntimeError(f"{folder}: {command[0]} is needed: {e}") from e
            if done.returncode:
                raise RuntimeError(f"{folder} cannot be had: {done.stderr[-500:]}")
    return home / program


if __name__ == "__main__":  # python -m tests.tools helm template …
    os.execv(tool(sys.argv[1]), sys.argv[1:])
