"""The fuzzers, some seconds each; FUZZ_SECONDS and FUZZ_SEED for more and others."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path

from tests.fuzz import hostile

ROOT = Path(__file__).parents[2]
SECONDS = float(os.environ.get("FUZZ_SECONDS", "3"))
SEED = os.environ.get("FUZZ_SEED", "1")


def test_decoding_refuses_or_reads_whatever_comes_and_does_nothing_else(tmp_path: Path) -> None:
    command = [sys.executable, "-m", "tests.fuzz.hostile", f"--seconds={SECONDS}", f"--seed={SEED}"]
    ended = subprocess.run(
        [*command, f"--folder={tmp_path}"],
        cwd=ROOT,
        capture_output=True,
        text=True,
        timeout=180 + 10 * SECONDS * len(hostile.TARGETS),
        check=False,
    )
    case = tmp_path / "case"
    at = case.read_text() if case.exists() else "none began"
    assert ended.returncode == 0, f"status {ended.returncode} at: {at}\n{ended.stderr[-5_000:]}"
    tried = dict(re.findall(r"(\w+): (\d+) cases", ended.stdout))
    assert tried.keys() == hostile.TARGETS.keys()
    assert all(int(cases) >= 3 for cases in tried.values()), tried
