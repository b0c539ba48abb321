"""The commands that the documents show exist."""

from __future__ import annotations

import re
from pathlib import Path

from stack.commands import COMMANDS
from tests.live import ROOT

PAGES = [ROOT / "README.md", ROOT / "CONTRIBUTING.md", ROOT / "SECURITY.md", *sorted((ROOT / "docs").glob("*.md"))]
SHOWN = re.compile(
    r"(?:python|\.venv/bin/python) -m (?P<module>[a-z_]+(?:\.[a-z_]+)*)(?P<flags>[^`\n|;&>]*)"
    r"|(?:^|\.venv/bin/)streamforge (?P<name>[a-z][a-z-]+)(?P<more>[^`\n|;&>]*)",
    re.MULTILINE,
)
CODE = re.compile(r"^```[^\n]*\n(.*?)^```|`([^`\n]+)`", re.MULTILINE | re.DOTALL)


def code(page: Path) -> str:
    """What a page shows as code; a command that goes on in the next line is one line."""
    text = "\n".join(block or inline for block, inline in CODE.findall(page.read_text()))
    return re.sub(r"\\\n\s*", " ", text)


def commands(page: Path) -> set[tuple[str, str]]:
    """Module and what stands behind it, of a page."""
    found = set()
    for shown in SHOWN.finditer(code(page)):
        if shown["module"]:
            found.add((shown["module"], shown["flags"].strip()))
        else:
            assert shown["name"] in COMMANDS, f"{page.name}: streamforge {shown['name']}"
            found.add((COMMANDS[shown["name"]][0], shown["more"].strip()))
    return found


ALL = {(page, *command) for page in PAGES for command in commands(page)}


def test_the_pages_show_commands() -> None:
    assert len(ALL) > 60
    assert {"stack", "simulator", "serving", "beam_pipelines.fraud"} <= {module for _, module, _ in ALL}


def test_every_module_that_is_shown_is_a_program() -> None:
    def is_program(module: str) -> bool:
        path = ROOT / module.replace(".", "/")
        return (path / "__main__.py").is_file() or path.with_suffix(".py").is_file()

    outside = {"venv", "pip", "apache_beam.runners.worker.worker_pool_main"}
    wrong = {f"{page.name}: {module}" for page, module, _ in ALL if module not in outside and not is_program(module)}
    assert wrong == set()


def test_every_target_of_make_that_is_shown_is_there() -> None:
    targets = set(re.findall(r"^([a-z-]+):", (ROOT / "Makefile").read_text(), re.MULTILINE))
    shown = {(page.name, target) for page in PAGES for target in re.findall(r"\bmake ([a-z][a-z-]+)", code(page))}
    assert len(shown) > 20
    assert {at for at in shown if at[1] not in targets} == set()
