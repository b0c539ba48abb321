"""What the documents name exists: links and headings, files, make targets, panels, commands with their flags."""

from __future__ import annotations

import contextlib
import io
import re
import runpy
import subprocess
import sys
from collections.abc import Iterator
from functools import cache
from pathlib import Path

import pytest

from docker.grafana.dashboards import dashboards
from stack.commands import COMMANDS as STREAMFORGE

ROOT = Path(__file__).parents[1]
TRACKED = subprocess.check_output(["git", "ls-files"], cwd=ROOT, text=True).split()
FOLDERS = {name.partition("/")[0] for name in TRACKED if "/" in name}
PAGES = [name for name in TRACKED if name.endswith(".md")]

# Options that Beam reads itself; the jobs' --help names only some.
BEAMS = {
    *("--project", "--region", "--temp_location", "--staging_location", "--service_account_email", "--subnetwork"),
    *("--sdk_container_image", "--savepoint_path", "--runner", "--parallelism"),
}


def text_of(page: str) -> str:
    return (ROOT / page).read_text(encoding="utf-8")


def unfenced(text: str) -> str:
    return re.sub(r"(?ms)^ *```.*?^ *```", "", text)


def anchors(page: Path) -> set[str]:
    headings = re.findall(r"(?m)^#+ (.+)$", unfenced(page.read_text(encoding="utf-8")))
    return {re.sub(r"[^\w -]", "", heading.lower()).replace(" ", "-") for heading in headings}


def code_of(text: str) -> list[str]:
    """Lines of code without their comments, continued ones joined; and inline code."""
    fenced = "\n".join(re.findall(r"(?ms)^ *```[^\n]*\n(.*?)^ *```", text)).replace("\\\n", " ")
    inline = re.findall(r"`([^`]+)`", unfenced(text))
    return [line.partition("  # ")[0] for line in fenced.splitlines()] + [" ".join(each.split()) for each in inline]


@pytest.mark.parametrize("page", PAGES)
def test_a_page_s_links_lead_somewhere(page: str) -> None:
    for target in re.findall(r"\]\(([^)\s]+)\)", unfenced(text_of(page))):
        if re.match(r"[a-z]+:", target):
            continue
        path, _, anchor = target.partition("#")
        file = (ROOT / page).parent / path if path else ROOT / page
        assert file.exists(), target
        assert not anchor or anchor in anchors(file), target


@pytest.mark.parametrize("page", PAGES)
def test_files_and_make_targets_that_a_page_names_exist(page: str) -> None:
    targets = set(re.findall(r"(?m)^([\w-]+):", text_of("Makefile")))
    for code in code_of(text_of(page)):
        path = code.partition("::")[0].rstrip("/")
        if re.fullmatch(r"[\w.-]+(/[\w.-]+)+", path) and path.partition("/")[0] in FOLDERS:
            # Words in capitals stand for names. What Git ignores is for the reader to write.
            found = any(ROOT.glob(re.sub(r"\b[A-Z]+\b", "*", path)))
            assert found or not subprocess.call(["git", "check-ignore", "-q", path], cwd=ROOT), path
        for target in re.findall(r"\bmake ([a-z][a-z-]+)", code):
            assert target in targets, target


def test_panels_that_a_page_names_exist() -> None:
    titles = set(re.findall(r'"title": "(.+?)"', "\n".join(dashboards().values())))
    named = {
        " ".join(panel.split()) for page in PAGES for panel in re.findall(r"\bpanels?\s\*([^*]+)\*", text_of(page))
    }
    assert len(named) > 5
    assert named - titles == set()


def shown() -> Iterator[tuple[str, str, str]]:
    """Page, module, and what stands behind it, of each program; `streamforge NAME` is one, too."""
    for page in PAGES:
        for code in code_of(text_of(page)):
            for module, words in re.findall(r"\bpython -m (\w+(?:\.\w+)*)(?![\w.])([^;>]*)", code):
                yield page, module, words.strip()
            for name, words in re.findall(r"(?:^|\.venv/bin/)streamforge ([a-z][a-z-]+)([^;>]*)", code):
                yield page, STREAMFORGE.get(name, (name,))[0], words.strip()


SHOWN = sorted(set(shown()))
# Those of tests have no --help: they would run.
COMMANDS = [each for each in SHOWN if each[1].partition(".")[0] in FOLDERS - {"tests"}]


def test_every_module_that_is_shown_is_a_program() -> None:
    def is_program(module: str) -> bool:
        path = ROOT / module.replace(".", "/")
        return (path / "__main__.py").is_file() or path.with_suffix(".py").is_file()

    outside = {"venv", "pip", "apache_beam.runners.worker.worker_pool_main", "MODULE"}
    assert {(page, module) for page, module, _ in SHOWN if module not in outside and not is_program(module)} == set()


@cache
def help_of(module: str, *words: str) -> str:
    printed, argv = io.StringIO(), sys.argv
    sys.argv = [module, *words, "--help"]
    try:
        with contextlib.redirect_stdout(printed), pytest.raises(SystemExit) as ended:
            runpy.run_module(module, run_name="__main__", alter_sys=False)
    finally:
        sys.argv = argv
    assert not ended.value.code, f"python -m {module} {' '.join(words)} --help"
    return printed.getvalue()


@pytest.mark.filterwarnings("ignore:.*found in sys.modules:RuntimeWarning")
@pytest.mark.parametrize(("page", "module", "words"), COMMANDS)
def test_a_command_that_a_page_shows_is_one_that_the_program_knows(page: str, module: str, words: str) -> None:
    subcommands = (
        re.findall(r"\w+", words.split()[0]) if words and "..." in help_of(module).partition("\n\n")[0] else []
    )
    known = {flag for each in subcommands or [""] for flag in re.findall(r"--[\w-]+", help_of(module, *each.split()))}
    assert set(re.findall(r"(?<!\S)--[\w-]+", words)) <= known | BEAMS


def test_there_is_something_to_check() -> None:
    assert len(PAGES) > 80
    assert len(COMMANDS) > 80
    assert {"stack", "simulator", "serving", "beam_pipelines.fraud"} <= {module for _, module, _ in COMMANDS}
    assert sum(len(re.findall(r"\bmake [a-z]", code)) for page in PAGES for code in code_of(text_of(page))) > 20
