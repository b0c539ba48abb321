"""docs/hostile.md promises a test for each line: the tests that it names exist."""

from __future__ import annotations

import ast
import re
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
ROWS = [
    line
    for line in (ROOT / "docs/hostile.md").read_text().splitlines()
    if line.startswith("| ") and not line.startswith(("| What is wrong |", "|---"))
]


@pytest.mark.parametrize("row", ROWS)
def test_each_row_names_tests_that_exist(row: str) -> None:
    wrong, happens, tests = (cell.strip() for cell in row.strip("|").split(" | "))
    assert wrong
    assert happens
    named = re.findall(r"`(tests/[\w/]+\.py)::(test_\w+)`", tests)
    assert named, "a row without a test"
    for path, name in named:
        tree = ast.parse((ROOT / path).read_text())
        assert name in {node.name for node in ast.walk(tree) if isinstance(node, ast.FunctionDef)}, f"{path}::{name}"


def test_the_page_has_a_section_for_each_neighbour() -> None:
    sections = re.findall(r"(?m)^## (\w+)$", (ROOT / "docs/hostile.md").read_text())
    assert sections == ["Record", "Schema", "Registry", "File", "Broker", "Store", "Database", "Client", "Batch"]
    assert len(ROWS) > 3
