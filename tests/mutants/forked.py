"""What runs in a process forked with Beam imported. Forked processes find it by name, so it is a module of its own."""

from __future__ import annotations

import os
import sys
from pathlib import Path

import pytest

from tests.mutants.faults import ROOT

_PYTEST = ("-q", "-x", "-p", "no:cacheprovider", "-p", "no:xdist", "--hypothesis-profile=mutants")


def run_pytest(tree: Path, tests: list[str], said: Path) -> None:
    os.setsid()
    os.chdir(tree)
    out = os.open(said, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o644)
    for stream in (1, 2):
        os.dup2(out, stream)
    sys.dont_write_bytecode = True
    sys.path[:] = [str(tree), *(place for place in sys.path if place not in ("", str(ROOT)))]
    for name in [name for name in sys.modules if name.partition(".")[0] == "tests"]:
        del sys.modules[name]
    sys.exit(int(pytest.main([*_PYTEST, *tests])))
