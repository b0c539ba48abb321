"""Which way imports point, read from the source without importing any of it. The directions are CONTRIBUTING's."""

from __future__ import annotations

import ast
import re
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent

# What each part may import of ours, itself included; the longest matching name decides. A part that is not here may
# not exist: a new one has to say where it stands.
MAY_IMPORT = {
    "schemas": {"schemas"},
    "connections": {"schemas.addresses", "connections"},
    "transforms.domain": {"schemas", "transforms.domain"},
    "transforms": {"schemas", "transforms"},
    "transforms.io": {"schemas", "connections", "transforms"},
    "beam_pipelines": {"schemas", "connections", "transforms", "beam_pipelines"},
    "beam_pipelines.generate": {"schemas", "beam_pipelines", "docker.grafana"},
    "serving": {"schemas", "connections", "serving"},
    # An event over HTTP is judged, registered and refused as the jobs do: by pure modules of theirs (ADR 56).
    "serving.ingest": {
        *("schemas", "connections", "serving", "transforms.domain.validity", "transforms.errors"),
        *("transforms.io.registry", "transforms.letter_envelopes"),
    },
    # An order is judged at the checkout by the rules of the fraud job (ADR 63).
    "serving.decisions": {"schemas", "connections", "serving", "transforms.domain"},
    "simulator": {"schemas", "connections", "transforms.io", "transforms.domain", "simulator"},
    # The jobs as they are, on a Valkey, judged by the oracles of the tests.
    "simulation": {
        *("schemas", "transforms", "beam_pipelines", "stack.errors", "stack.valkey", "simulation"),
        *("tests.build", "tests.oracle", "tests.oracle_clock", "tests.oracle_revenue", "tests.oracle_sessions"),
    },
    "simulation.defects": {"schemas.flags", "simulation", "tests.mutants.faults"},
    "stack": {
        *("schemas.addresses", "schemas.flags", "schemas.jobs", "schemas.access", "schemas.store_keys"),
        *("connections", "stack"),
    },
    "dags": {"dags"},
    "dags.spark": {"schemas", "transforms.domain", "dags.spark"},
    "cdc": {"schemas", "connections", "simulator.catalogue", "cdc"},
    "docker.compose": {"connections", "simulator.sinks", "stack.topics", "docker.compose"},
    "docker.dataflow": {"beam_pipelines", "docker.dataflow"},
    "docker.grafana": {"docker.grafana"},
    "helm": set(),
}
ONLY_IN_FUNCTIONS = {"beam_pipelines": {"stack"}}  # what is local is found when it is needed: workers have no stack
BUT_NOT = {"transforms": {"transforms.io"}}  # only jobs join rules and systems
FREE = {"bench", "tests", "stack.demo", "setup"}

CLIENTS = {
    *("boto3", "confluent_kafka", "flask", "google", "granian", "http", "httpx", "httpx2", "kafka", "psycopg"),
    *("redis", "requests", "socket", "sqlalchemy", "ssl", "subprocess", "urllib", "urllib3", "valkey"),
}
CLOCK_AND_ENVIRONMENT = {"asyncio", "os", "random", "secrets", "sys", "tempfile", "threading", "time", "uuid"}
PURE = ("urllib.parse", "google.protobuf")  # of a client's package, and none itself
BEAM = {"apache_beam"}
NEVER = {
    "schemas": BEAM | CLIENTS | CLOCK_AND_ENVIRONMENT,
    "transforms.domain": BEAM | CLIENTS | CLOCK_AND_ENVIRONMENT,
    "transforms": CLIENTS,
    "transforms.io": set(),
    "serving": BEAM,
}
CLOCK_CALLS = {"now", "utcnow", "today"}  # of datetime and date

MOST_LINES = 330  # about 300; a longer module says why: "Long, as …"
EMPTY = ("transforms/__init__.py", "transforms/domain/__init__.py")
SAYS_NOTHING = {"utils", "util", "helpers", "common", "base", "manager", "processor", "engine", "misc"}


def violations(root: Path) -> list[str]:
    """What is wrong in a source tree, one line each."""
    wrong = [f"{name} is not empty" for name in EMPTY if (root / name).exists() and (root / name).read_text().strip()]
    for path in sorted(root.glob("*.py")) + sorted(root.glob("[!.]*/**/*.py")):
        relative = path.relative_to(root)
        if relative.parts[0] in ("build", "dist"):
            continue
        if SAYS_NOTHING & {part.lower() for part in relative.with_suffix("").parts}:
            wrong.append(f"{relative}: the name says nothing")
        text = path.read_text(encoding="utf-8")
        is_long = text.count("\n") > MOST_LINES and relative.parts[0] != "tests"
        if is_long and not re.search(r"^(# )?Long, as ", text, re.MULTILINE):
            wrong.append(f"{relative}: has more than {MOST_LINES} lines, and does not say why")
        wrong += [f"{relative}:{line}: {why}" for line, why in _wrong_imports(path, relative, root)]
    return wrong


def _wrong_imports(path: Path, relative: Path, root: Path) -> Iterator[tuple[int, str]]:
    module = ".".join(relative.with_suffix("").parts).removesuffix(".__init__")
    ours = {p.split(".")[0] for p in MAY_IMPORT.keys() | FREE}
    tree = ast.parse(path.read_text(encoding="utf-8"))
    if not module.startswith("tests."):
        yield from _private_names(tree, ours)
    if _longest(module, FREE):
        return
    part = _longest(module, MAY_IMPORT)
    if part is None:
        yield 1, f"{module} belongs to no part in MAY_IMPORT"
        return
    never = NEVER.get(_longest(module, NEVER) or "", set())
    pure = never >= CLOCK_AND_ENVIRONMENT
    for line, name, in_function in _imports(tree, module, is_package=path.name == "__init__.py", root=root):
        if name.split(".")[0] in ours:
            may = MAY_IMPORT[part] | (ONLY_IN_FUNCTIONS.get(part, set()) if in_function else set())
            if not _longest(name, may) or _longest(name, BUT_NOT.get(part, set())):
                yield line, f"{part} must not import {name}"
        elif name.split(".")[0] in never and not name.startswith(PURE):
            yield line, f"{part} must not import {name}"
    for node in ast.walk(tree):
        if pure and isinstance(node, ast.Attribute) and node.attr in CLOCK_CALLS:
            yield node.lineno, f"{part} must not read the clock"


def _imports(tree: ast.AST, module: str, is_package: bool, root: Path) -> Iterator[tuple[int, str, bool]]:
    """Every imported module with its line and whether it is indented; `from a import b` is a.b if that is a module."""
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            yield from ((node.lineno, alias.name, node.col_offset > 0) for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            source = node.module or ""
            if node.level:
                parents = module.split(".")[: len(module.split(".")) - node.level + is_package]
                source = ".".join([*parents, *([source] if source else [])])
            for alias in node.names:
                inner = root.joinpath(*source.split("."), alias.name)
                is_module = inner.with_suffix(".py").exists() or inner.is_dir()
                yield node.lineno, f"{source}.{alias.name}" if is_module else source, node.col_offset > 0


def _private_names(tree: ast.AST, ours: set[str]) -> Iterator[tuple[int, str]]:
    """Names of our other modules that begin with an underscore: imported, or taken from an imported module."""
    modules = set()
    for node in ast.walk(tree):
        if isinstance(node, ast.ImportFrom) and (node.level or (node.module or "").split(".")[0] in ours):
            for alias in node.names:
                modules.add(alias.asname or alias.name)
                if alias.name.startswith("_"):
                    yield node.lineno, f"{alias.name} is private to {node.module}"
    for node in ast.walk(tree):
        if not (isinstance(node, ast.Attribute) and isinstance(node.value, ast.Name) and node.value.id in modules):
            continue
        if node.value.id[0].islower() and node.attr.startswith("_") and not node.attr.startswith("__"):
            yield node.lineno, f"{node.attr} is private to {node.value.id}"


def _longest(module: str, names: dict[str, set[str]] | set[str]) -> str | None:
    """The longest of the dotted names that the module is, or lies in."""
    return max((n for n in names if module == n or module.startswith(f"{n}.")), key=len, default=None)


def test_imports_point_the_right_way_and_no_module_is_named_for_nothing() -> None:
    assert violations(ROOT) == []


def test_every_part_that_the_design_separates_has_modules_that_are_looked_at() -> None:
    for part in ("schemas", "transforms/domain", "transforms", "transforms/io", "beam_pipelines", "serving"):
        assert list((ROOT / part).glob("*.py")), part


@pytest.mark.parametrize(
    ("path", "source", "why"),
    [
        ("schemas/events.py", "from transforms.domain import durations", "schemas must not import transforms.domain"),
        ("schemas/events.py", "import apache_beam as beam", "schemas must not import apache_beam"),
        ("schemas/codec.py", "def f():\n    import redis", "schemas must not import redis"),
        ("schemas/codec.py", "from os import environ", "schemas must not import os"),
        ("schemas/features.py", "from datetime import datetime\nx = datetime.now()", "schemas must not read the clock"),
        ("transforms/domain/fraud.py", "import time", "transforms.domain must not import time"),
        ("transforms/domain/fraud.py", "from transforms import fraud", "transforms.domain must not import transforms"),
        ("transforms/domain/fraud.py", "from .. import decode", "transforms.domain must not import transforms"),
        ("transforms/decode.py", "from transforms.io import kafka", "transforms must not import transforms.io.kafka"),
        ("transforms/decode.py", "from .io import kafka", "transforms must not import transforms.io.kafka"),
        ("transforms/fraud.py", "import beam_pipelines.options", "transforms must not import beam_pipelines.options"),
        ("transforms/fraud.py", "import confluent_kafka", "transforms must not import confluent_kafka"),
        ("transforms/io/kafka.py", "import beam_pipelines", "transforms.io must not import beam_pipelines"),
        ("beam_pipelines/fraud.py", "from stack.flink import x", "beam_pipelines must not import stack.flink"),
        ("beam_pipelines/fraud.py", "import serving", "beam_pipelines must not import serving"),
        ("serving/store.py", "import apache_beam", "serving must not import apache_beam"),
        ("serving/store.py", "from transforms.domain import fraud", "serving must not import transforms.domain"),
        ("simulator/run.py", "from transforms import decode", "simulator must not import transforms.decode"),
        ("simulator/run.py", "from serving import store", "simulator must not import serving"),
        ("stack/kafka.py", "import schemas.events", "stack must not import schemas.events"),
        ("dags/daily.py", "from schemas import events", "dags must not import schemas"),
        ("transforms/fraud.py", "from transforms.decode import _Plan", "_Plan is private to transforms.decode"),
        ("transforms/fraud.py", "from transforms import decode\nx = decode._Plan", "_Plan is private to decode"),
        ("newcomer/x.py", "", "newcomer.x belongs to no part"),
        ("transforms/__init__.py", "from transforms import fraud", "transforms/__init__.py is not empty"),
        ("serving/utils.py", "", "serving/utils.py: the name says nothing"),
        ("serving/long.py", "x = 1\n" * 331, "serving/long.py: has more than 330 lines"),
        ("stack/base/x.py", "", "stack/base/x.py: the name says nothing"),
    ],
)
def test_a_planted_violation_is_found(tmp_path: Path, path: str, source: str, why: str) -> None:
    for name in ("transforms/domain/fraud.py", "transforms/decode.py", "transforms/io/kafka.py", "serving/x.py", path):
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).touch()
    assert not [w for w in violations(tmp_path) if path not in w]
    (tmp_path / path).write_text(source)
    found = [w for w in violations(tmp_path) if why in w]
    assert found
    assert all(path in w for w in found)


@pytest.mark.parametrize(
    ("path", "source"),
    [
        ("transforms/fraud.py", "import time\nimport apache_beam\nfrom transforms.domain import fraud\nimport schemas"),
        ("transforms/io/kafka.py", "import os\nimport confluent_kafka\nfrom transforms.blocks import Block"),
        ("beam_pipelines/runners.py", "def f():\n    from stack.flink import job_server_jar"),
        ("simulator/x.py", "from transforms.domain.durations import y\nfrom transforms.io.registry import Registry"),
        ("schemas/features.py", "from datetime import datetime\nx = datetime.fromtimestamp(0)"),
        ("serving/long.py", '"""Many.\n\nLong, as it must be.\n"""\n' + "x = 1\n" * 331),
        ("stack/demo.py", "import serving\nimport simulator\nimport beam_pipelines.fraud"),
        ("dags/spark/sessions.py", "from transforms.domain import sessions\nimport schemas.events"),
    ],
)
def test_what_the_directions_allow_is_left_alone(tmp_path: Path, path: str, source: str) -> None:
    (tmp_path / path).parent.mkdir(parents=True)
    (tmp_path / path).write_text(source)
    assert violations(tmp_path) == []
