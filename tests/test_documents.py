"""What the documents name exists: links and headings, files, make targets. The commands they show run."""

from __future__ import annotations

import contextlib
import io
import json
import re
import runpy
import shlex
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


def called(module: str, words: str) -> tuple[str, str]:
    """A program, and its subcommand if it has some."""
    has_commands = module in {"bench", "cdc", "stack", "beam_pipelines.dead_letters", "beam_pipelines.tables"}
    return module, words.split()[0] if has_commands and words else ""


# How each program that needs a service is run by a test: its subcommand → the test, and words with which that runs it.
LIVE = {
    "beam_pipelines.archive": {"": ("beam_pipelines/test_archive_live.py", "beam_pipelines.archive")},
    "beam_pipelines.cdc": {"": ("beam_pipelines/test_cdc_live.py", "beam_pipelines.cdc")},
    "beam_pipelines.dead_letters": {
        "inspect": ("beam_pipelines/test_dead_letters.py", '"inspect"'),
        "replay": ("beam_pipelines/test_replay_live.py", '"replay"'),
    },
    "beam_pipelines.fraud": {"": ("beam_pipelines/test_fraud_live.py", "beam_pipelines.fraud")},
    "beam_pipelines.revenue": {"": ("beam_pipelines/test_revenue_live.py", "beam_pipelines.revenue")},
    "beam_pipelines.sessions": {"": ("beam_pipelines/test_sessions_live.py", "beam_pipelines.sessions")},
    "beam_pipelines.tables": {
        "create": ("beam_pipelines/test_bigquery.py", '"create"'),
        "alter": ("transforms/io/test_bigquery.py", "alter_tables("),  # the emulator has no address to give as a flag
    },
    "beam_pipelines.worker_pool": {"": ("live.py", "beam_pipelines.worker_pool")},
    "bench": {
        "latency": ("bench/test_bench_latency.py", '"latency"'),
        "throughput": ("bench/test_bench_throughput.py", '"throughput"'),
    },
    "cdc": {
        **{name: ("cdc/test_capture.py", f'"{name}"') for name in ("register", "snapshot", "status", "slots")},
        "setup": ("cdc/capture.py", '"setup"'),
    },
    "cdc.workload": {"": ("test_demo.py", '"workload"')},
    "serving": {"": ("server.py", '"serving"')},
    "stack": {name: ("stack/test_main.py", f'"{name}"') for name in ("up", "down", "status", "logs")},
    "stack.demo": {"": ("test_demo.py", '"stack.demo"')},
}
BY_HAND = {("bench", "jobs"), ("bench", "cdc"), ("bench", "serving")}  # minutes each, for docs/performance.md

# In the order of the pages: a command may need what one before it wrote. In capitals: what the reader fills in.
HERE = [
    (module, words)
    for _, module, words in dict.fromkeys(shown())
    if module in {"serving.keys", "dags.spark.package", "bench.peers.plain_python"}
    or (module == "beam_pipelines.templates" and words.startswith("specs"))
    or (module, words) == ("beam_pipelines.tables", "show")
    or (module in {"simulator", "beam_pipelines.fraud"} and "/tmp/" in words)
]


def test_every_command_that_a_page_shows_is_run_by_a_test_or_by_hand() -> None:
    here = {called(module, words) for module, words in HERE}
    for page, module, words in COMMANDS:
        for name in called(module, words)[1].split("|"):
            assert name == "" or name in help_of(module), page
            if (module, name) in here | BY_HAND or not words:
                continue
            file, run_as = LIVE[module][name]
            assert run_as in text_of(f"tests/{file}"), (page, module, name)


def test_commands_that_need_no_service_run_as_they_stand(tmp_path: Path) -> None:
    filled = {
        "/tmp/": f"{tmp_path}/",
        "gs://PROJECT-streamforge-templates": str(tmp_path),
        "PREFIX": "host/shop/images",
    }
    assert len(HERE) >= 8
    for module, words in HERE:
        for word, value in filled.items():
            words = words.replace(word, value)
        command = [sys.executable, "-m", module, *shlex.split(words)]
        done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, check=False)
        assert done.returncode == 0, f"python -m {module} {words}: {done.stderr}"
    ledger = json.loads((tmp_path / "ledger.json").read_text())
    assert ledger["in"] == ledger["good"] + ledger["dead_letters"] > 0


def test_there_is_something_to_check() -> None:
    assert len(PAGES) > 80
    assert len(COMMANDS) > 80
    assert {"stack", "simulator", "serving", "beam_pipelines.fraud"} <= {module for _, module, _ in COMMANDS}
    assert sum(len(re.findall(r"\bmake [a-z]", code)) for page in PAGES for code in code_of(text_of(page))) > 20
