"""The fuzzers, by chance and for a moment; FUZZ_SECONDS and FUZZ_SEED for more and others (docs/threats.md)."""

from __future__ import annotations

import os
import random
import re
import subprocess
import sys
from pathlib import Path

import pytest

from tests.fuzz.__main__ import NAMES
from tests.fuzz.making import Drawn

ROOT = Path(__file__).parents[2]
SECONDS = float(os.environ.get("FUZZ_SECONDS", "0.7"))
SEED = os.environ.get("FUZZ_SEED", "1")


def test_decoding_refuses_or_reads_whatever_comes_and_does_nothing_else(tmp_path: Path) -> None:
    command = [sys.executable, "-m", "tests.fuzz", f"--seconds={SECONDS}", f"--seed={SEED}", f"--folder={tmp_path}"]
    ended = subprocess.run(
        command, cwd=ROOT, capture_output=True, text=True, timeout=300 + 20 * SECONDS * len(NAMES), check=False
    )
    case = tmp_path / "case"
    at = case.read_text() if case.exists() else "none began"
    assert ended.returncode == 0, f"status {ended.returncode} at: {at}\n{ended.stderr[-5_000:]}"
    tried = dict(re.findall(r"(\w+): (\d+) cases", ended.stdout))
    assert [*tried] == NAMES
    assert all(int(cases) for cases in tried.values()), tried


def test_chances_drawn_from_bytes_are_those_bytes_and_go_on_behind_their_end() -> None:
    assert [Drawn(b"\x05\xff").randrange(8), Drawn(b"\x40").random()] == [5, 0.25]
    assert Drawn(b"ab-cd").randbytes(5) == b"ab-cd"

    def draws(rng: random.Random) -> list[object]:
        return [rng.choice("abc"), rng.random(), rng.randrange(10**30), rng.sample(range(9), 3), rng.randbytes(3)]

    assert draws(Drawn(b"")) == draws(Drawn(b"")), "and are the same each time"
    assert draws(Drawn(b"\x01" * 40)) != draws(Drawn(b"\x02" * 40))


@pytest.mark.deploy
def test_guided_by_coverage_cases_reach_places_of_ours() -> None:
    command = [sys.executable, "-m", "tests.fuzz", "--by=coverage", "--target=requests", "--seconds=5"]
    ended = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
    assert ended.returncode == 0, ended.stderr[-5_000:]
    [(cases, places)] = re.findall(r"requests: (\d+) cases, (\d+) places reached", ended.stdout)
    assert int(cases) > 100
    assert int(places) > 30
