"""Terraform, run on copies of terraform/, with the Google provider's schema where the provider itself cannot be had.

STREAMFORGE_TERRAFORM_REGISTRY=1 takes the real provider from the registry; the tests are the same then, and say more.
"""

from __future__ import annotations

import fcntl
import hashlib
import json
import os
import re
import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from tests.live import ROOT
from tests.terraform.provider_schema import PROVIDER_VERSION, Schemas, fetch

__all__ = ["TERRAFORM", "Copy", "Result"]

TERRAFORM = ROOT / "terraform"
_HOME = ROOT / ".stack" / "tools" / "terraform-provider-schema"
_SOURCE = ROOT / "tests" / "terraform" / "provider"
_USED = re.compile(r'^\s*(resource|data)\s+"(google_\w+)"', re.MULTILINE)


class Result:
    """How a command of Terraform ended."""

    def __init__(self, done: subprocess.CompletedProcess[str]):
        self.ok = done.returncode == 0
        self.text = done.stdout + done.stderr
        self._stdout = done.stdout

    def messages(self, kind: str) -> Iterator[dict[str, Any]]:
        """Of `-json`: those of a type."""
        for line in self._stdout.splitlines():
            message = json.loads(line)
            if message.get("type") == kind:
                yield message


class Copy:
    """A copy of terraform/, to be initialised, spoilt and run."""

    def __init__(self, folder: Path):
        self.root = folder / "terraform"
        # Not the locks: they refuse every provider but the registry's.
        shutil.copytree(TERRAFORM, self.root, ignore=shutil.ignore_patterns(".terraform*", "*.tfstate*"))
        self._settings = folder / "terraform.rc"
        self._from_registry = os.environ.get("STREAMFORGE_TERRAFORM_REGISTRY") == "1"
        self._environment = {
            **{name: value for name, value in os.environ.items() if not name.startswith("TF_")},
            "TF_CLI_CONFIG_FILE": str(self._settings),
            "CHECKPOINT_DISABLE": "1",
            "TF_IN_AUTOMATION": "1",
        }

    def replace(self, path: str, old: str, new: str) -> None:
        """Spoils a file."""
        file = self.root / path
        text = file.read_text()
        assert text.count(old) >= 1, f"{old!r} is not in {path}"
        file.write_text(text.replace(old, new))

    def init(self, module: str) -> Result:
        self._settings.write_text("" if self._from_registry else _installation(_mirror(self.root)))
        return self.run(module, "init", "-backend=false", "-input=false", "-no-color")

    def run(self, module: str, *arguments: str) -> Result:
        command = ["terraform", f"-chdir={self.root / module}", *arguments]
        try:
            done = subprocess.run(command, env=self._environment, capture_output=True, text=True, check=False)
        except OSError as e:
            raise RuntimeError(f"terraform 1.9 or newer is needed: {e}") from e
        return Result(done)


def _installation(mirror: Path) -> str:
    return f'provider_installation {{\n  filesystem_mirror {{\n    path = "{mirror}"\n  }}\n}}\n'


def _mirror(root: Path) -> Path:
    """A folder from which Terraform installs a Google provider that has the types which a configuration uses."""
    used = {found for file in sorted(root.rglob("*.tf")) for found in _USED.findall(file.read_text())}
    sources = b"".join(
        file.read_bytes() for file in [*sorted(_SOURCE.iterdir()), Path(__file__).with_name("provider_schema.py")]
    )
    name = hashlib.sha256(repr(sorted(used)).encode() + sources).hexdigest()[:16]
    _HOME.mkdir(parents=True, exist_ok=True)
    with (_HOME / "lock").open("w") as lock:  # two at once: the second finds it made
        fcntl.flock(lock, fcntl.LOCK_EX)
        if not (_HOME / name).exists():
            part = _HOME / "part"
            shutil.rmtree(part, ignore_errors=True)
            place = part / "registry.terraform.io" / "hashicorp" / "google" / PROVIDER_VERSION / _platform()
            place.mkdir(parents=True)
            (place / f"terraform-provider-google_v{PROVIDER_VERSION}").hardlink_to(_program())
            schemas = Schemas(fetch(_HOME / "package")).of(
                sorted(name for kind, name in used if kind == "resource"),
                sorted(name for kind, name in used if kind == "data"),
            )
            (place / "schema.json").write_text(json.dumps(schemas))
            part.rename(_HOME / name)
    return _HOME / name


def _program() -> Path:
    sources = b"".join(file.read_bytes() for file in sorted(_SOURCE.iterdir()))
    program = _HOME / f"provider-{hashlib.sha256(sources).hexdigest()[:16]}"
    if not program.exists():
        _run(["go", "build", "-o", str(program), "."], cwd=_SOURCE)
    return program


def _platform() -> str:
    return _run(["go", "env", "GOOS", "GOARCH"], cwd=_SOURCE).strip().replace("\n", "_")


def _run(command: list[str], cwd: Path) -> str:
    try:
        done = subprocess.run(command, cwd=cwd, capture_output=True, text=True, check=False)
    except OSError as e:
        raise RuntimeError(f"{command[0]} is needed: {e}") from e
    if done.returncode:
        raise RuntimeError(f"{' '.join(command)}: {done.stderr[-500:]}")
    return done.stdout
