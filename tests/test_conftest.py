"""What our pytest does for every test."""

from __future__ import annotations

import re

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


def test_the_files_that_take_longest_are_there() -> None:
    assert [name for name in conftest.SLOWEST if not (ROOT / "tests" / f"{name}.py").exists()] == []
