"""What our pytest does for every test."""

from __future__ import annotations

import re
from types import SimpleNamespace

import pytest

from tests import conftest
from tests.live import ROOT

pytest_plugins = ["pytester"]

FAILS = """
import subprocess, sys
BROKEN = [sys.executable, "-c", "import sys; print('to people'); sys.exit('the reason')"]
def test_by_status():
    done = subprocess.run(BROKEN, capture_output=True)
    assert done.returncode == 0
def test_by_check():
    subprocess.run(BROKEN, capture_output=True, text=True, check=True)
def test_by_words():
    status, out, err = 1, "to people", "the reason"
    assert status == 0
"""


@pytest.mark.parametrize(
    ("test", "title"),
    [("test_by_status", "done said (1)"), ("test_by_check", "the command said (1)"), ("test_by_words", "err")],
)
def test_a_test_that_fails_shows_what_the_commands_said(pytester: pytest.Pytester, test: str, title: str) -> None:
    hook = "from tests.conftest import pytest_runtest_makereport"
    pytester.makeconftest(f"import sys; sys.path.insert(0, {str(ROOT)!r})\n{hook}")
    pytester.makepyfile(FAILS)
    told = pytester.runpytest_inprocess("-k", test, "-p", "no:cacheprovider")
    told.assert_outcomes(failed=1, deselected=2)
    told.stdout.re_match_lines([rf"-+ {re.escape(title)} -+", "the reason"])


@pytest.mark.parametrize(
    ("expression", "cores", "memory_gb", "processes"),
    [
        ("not deploy", 2, 24, 4),
        ("not deploy", 2, 8, 2),
        ("not deploy", 2, 3, 1),
        ("not deploy", 4, 16, 4),
        ("not stack and not deploy", 2, 24, 2),
    ],
)
def test_as_many_processes_run_as_cores_and_memory_can_bear(
    expression: str, cores: int, memory_gb: int, processes: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(conftest.os, "sched_getaffinity", lambda _: set(range(cores)), raising=False)
    monkeypatch.setattr(conftest.os, "sysconf", {"SC_PAGE_SIZE": 4_096, "SC_PHYS_PAGES": memory_gb << 18}.__getitem__)
    config = SimpleNamespace(option=SimpleNamespace(markexpr=expression))
    assert conftest.pytest_xdist_auto_num_workers(config) == processes


def test_the_files_that_take_longest_are_there() -> None:
    assert [name for name in conftest.SLOWEST if not (ROOT / "tests" / f"{name}.py").exists()] == []
