"""The configuration as it is written, without Terraform: what python-hcl2 reads of terraform/."""

from __future__ import annotations

import functools
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

import hcl2

from tests.live import ROOT

__all__ = ["ENVIRONMENTS", "MODULES", "ROOTS", "TERRAFORM", "Resource", "blocks", "ranges", "read", "resources"]

TERRAFORM = ROOT / "terraform"
MODULES = sorted(path for path in (TERRAFORM / "modules").iterdir() if path.is_dir())
ENVIRONMENTS = sorted(path for path in (TERRAFORM / "environments").iterdir() if path.is_dir())
ROOTS = [*ENVIRONMENTS, *sorted(path for path in (TERRAFORM / "examples").iterdir() if path.is_dir())]
"""Where Terraform is started."""


class Resource(NamedTuple):
    """A resource or data source, as it is written: an expression is a text in ${}."""

    type: str
    name: str
    body: dict[str, Any]
    file: Path


def read(folder: Path) -> Iterator[tuple[Path, dict[str, Any]]]:
    """A module's files."""
    for file in sorted(folder.glob("*.tf")):
        yield file, _parsed(file)


@functools.cache  # parsing takes most of the tests' time
def _parsed(file: Path) -> dict[str, Any]:
    return parsed(file.read_text())


def parsed(text: str) -> dict[str, Any]:
    return _plain(hcl2.loads(text))


def blocks(folder: Path, kind: str) -> dict[str, dict[str, Any]]:
    """A module's blocks of a kind that have one name: variable, output, module."""
    return {name: body for _, file in read(folder) for block in file.get(kind, []) for name, body in block.items()}


def ranges() -> dict[str, str]:
    """The network's address ranges, by the names of places: nodes, pods, services, private_services, control_plane."""
    said = blocks(TERRAFORM / "modules" / "platform", "variable")["network"]["type"]
    return dict(re.findall(r'(\w+)_cidr\s+= optional\(string, "([0-9./]+)"\)', said))


def resources(*folders: Path) -> list[Resource]:
    return [found for folder in folders for path, file in read(folder) for found in resources_of(file, path)]


def resources_of(file: dict[str, Any], path: Path) -> Iterator[Resource]:
    for kind in ("resource", "data"):
        for block in file.get(kind, []):
            for type_name, named in block.items():
                for name, body in named.items():
                    yield Resource(type_name, name, body, path)


def _plain(value: Any) -> Any:
    """Without the quotes, comments and marks that the parser leaves."""
    if isinstance(value, dict):
        return {_plain(key): _plain(inner) for key, inner in value.items() if not key.startswith("__")}
    if isinstance(value, list):
        return [_plain(inner) for inner in value]
    if isinstance(value, str) and len(value) > 1 and value[0] == value[-1] == '"':
        return value[1:-1]
    return value
