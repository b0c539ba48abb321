"""The `streamforge` command: every program under one name, the same as `python -m`."""

from __future__ import annotations

import ast
import re
import subprocess
import sys
from pathlib import Path

import pytest

from stack.commands import COMMANDS
from tests.live import ROOT

STREAMFORGE = Path(sys.executable).with_name("streamforge")


def run(*command: str | Path) -> subprocess.CompletedProcess[str]:
    return subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=120, check=False)


def test_every_program_of_the_packages_has_a_name_and_one_line() -> None:
    programs = {
        str(path.relative_to(ROOT).with_suffix("")).replace("/", ".").removesuffix(".__main__")
        for package in ("beam_pipelines", "cdc", "serving", "simulator", "stack")
        for path in (ROOT / package).rglob("*.py")
        if any(isinstance(n, ast.If) and "__name__" in ast.unparse(n.test) for n in ast.parse(path.read_text()).body)
    }
    assert {module for module, _ in COMMANDS.values()} | {
        "stack.java",
        "stack.tls_front",
        "cdc.workload",
        "beam_pipelines.generate",
    } == programs
    assert all(about and about[0].islower() and "\n" not in about and len(about) < 90 for _, about in COMMANDS.values())


def test_help_lists_them_all() -> None:
    shown = run(STREAMFORGE).stdout
    assert shown == run(STREAMFORGE, "--help").stdout
    assert [line.split()[0] for line in shown.splitlines() if re.match("  [a-z]", line)] == list(COMMANDS)


def test_the_version_is_the_packages() -> None:
    pyproject = (ROOT / "pyproject.toml").read_text()
    assert f'version = "{run(STREAMFORGE, "--version").stdout.split()[1]}"' in pyproject


@pytest.mark.parametrize(("name", "said"), [("fruad", "did you mean fraud?"), ("x", "streamforge --help lists them")])
def test_an_unknown_command_is_one_line_and_status_2(name: str, said: str) -> None:
    done = run(STREAMFORGE, name)
    assert (done.returncode, done.stdout) == (2, "")
    assert done.stderr == f"streamforge: unknown command {name!r}: {said}\n"


@pytest.mark.parametrize("flags", [("--help",), ("--no-such-flag",)])
def test_a_command_is_its_module_flags_output_and_status(flags: tuple[str, ...]) -> None:
    by_name, by_module = run(STREAMFORGE, "keys", *flags), run(sys.executable, "-m", "serving.keys", *flags)
    assert (by_name.returncode, by_name.stdout, by_name.stderr) == (
        by_module.returncode,
        by_module.stdout,
        by_module.stderr,
    )
    assert by_name.returncode == (0 if flags == ("--help",) else 2)
