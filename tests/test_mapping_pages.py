"""The page of each shipped mapping: its commands run as they are written, and print what it shows."""

from __future__ import annotations

import importlib
import re
import shlex
from pathlib import Path

import pytest

from schemas.mapping import RECORDS, SHIPPED, parse_mapping, shipped

PAGES = Path(__file__).parent.parent / "docs" / "mappings"
_FILE = re.compile(r"cat > (\S+) <<'END'\n(.*?)END\n", re.DOTALL)


def blocks(page: str, language: str) -> list[str]:
    return re.findall(rf"```{language}\n(.*?)```", page, re.DOTALL)


def test_each_shipped_mapping_has_a_page() -> None:
    assert sorted(path.stem for path in PAGES.iterdir()) == list(SHIPPED)


@pytest.mark.parametrize("name", SHIPPED)
def test_a_page_s_commands_print_what_it_shows(
    name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    page = (PAGES / f"{name}.md").read_text(encoding="utf-8")
    [commands], [shows] = blocks(page, "bash"), blocks(page, "text")
    monkeypatch.chdir(tmp_path)
    for file, text in _FILE.findall(commands):
        Path(file).write_text(text, encoding="utf-8")
    jobs = set()
    for line in _FILE.sub("", commands).splitlines():
        python, module, program, *arguments = shlex.split(line)
        assert (python, module) == ("python", "-m")
        assert not importlib.import_module(program).main(arguments)
        jobs.add(program.rpartition(".")[2])
    said = capfd.readouterr()
    printed = (said.out + said.err).splitlines()
    assert [line for line in shows.splitlines() if line not in printed] == []
    of_section = {"orders": "revenue", "clicks": "sessions"}
    assert jobs == {"mapping", *(of_section[section] for section in parse_mapping(shipped(name)).sections)}


@pytest.mark.parametrize("name", SHIPPED)
def test_a_page_names_what_its_mapping_never_fills(name: str) -> None:
    """Of an order: what the file does not say how to fill, but for what follows from other fields."""
    page = (PAGES / f"{name}.md").read_text(encoding="utf-8")
    mapping = parse_mapping(shipped(name))
    _, kinds = RECORDS["orders"]
    follows = {field for field, kind in kinds.items() if "v_" in (kind.default or "")}
    unfilled = kinds.keys() - mapping.filled["orders"] - follows
    [told] = re.findall(r"\*\*Never filled:\*\*(.*?)\n\n", page, re.DOTALL)
    assert [field for field in unfilled if f"`{field}`" not in told] == []
