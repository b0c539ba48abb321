"""docs/hostile.md and docs/threats.md promise a test for each line: the tests that they name exist."""

from __future__ import annotations

import ast
import re
from pathlib import Path

import pytest

from tests.fuzz.__main__ import NAMES

ROOT = Path(__file__).parents[1]
ROWS = [
    line
    for line in (ROOT / "docs/hostile.md").read_text().splitlines()
    if line.startswith("| ") and not line.startswith(("| What is wrong |", "|---"))
]
_, _, THREATS = (
    (ROOT / "docs/threats.md").read_text().partition("| From | What they could try | What stops it | Test |")
)
THREAT_ROWS = [line for line in THREATS.partition("## Fuzzing")[0].splitlines() if line.startswith("| ")]


@pytest.mark.parametrize("row", [*ROWS, *THREAT_ROWS])
def test_each_row_names_tests_that_exist(row: str) -> None:
    *cells, tests = (cell.strip() for cell in row.strip("|").split(" | "))
    assert len(cells) in (2, 3)
    assert all(cells)
    named = re.findall(r"`(tests/[\w/]+\.py)::(test_\w+)`", tests)
    assert named, "a row without a test"
    for path, name in named:
        tree = ast.parse((ROOT / path).read_text())
        assert name in {node.name for node in ast.walk(tree) if isinstance(node, ast.FunctionDef)}, f"{path}::{name}"


def test_the_page_has_a_section_for_each_neighbour() -> None:
    sections = re.findall(r"(?m)^## (\w+)$", (ROOT / "docs/hostile.md").read_text())
    assert sections == ["Record", "Schema", "Registry", "File", "Broker", "Store", "Database", "Client", "Batch"]
    assert len(ROWS) > 3


def test_every_fuzzer_is_on_the_page_of_threats() -> None:
    assert len(THREAT_ROWS) > 15
    table = THREATS.partition("| target | what is read |")[2].partition("\n\n")[0]
    named = [name for row in table.splitlines() for name in re.findall(r"`(\w+)`", row.split("|")[1] if row else "")]
    assert named == NAMES
