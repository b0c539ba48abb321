"""A job is stopped when its rows are there, not when its ledger has counted the records that they came of."""

import json
import sys
from pathlib import Path

import pytest

from bench import drain

JOB = """
import json, pathlib, signal, sys, time
ledger, rows = map(pathlib.Path, sys.argv[1:])
ledger.write_text(json.dumps({"in": 10}))
time.sleep(0.3)
rows.joinpath("fraud_alerts").mkdir(parents=True)
rows.joinpath("fraud_alerts", "part-1.jsonl").write_text("{}")
signal.pause()
"""


def test_the_last_rows_are_waited_for(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(drain, "_QUIET_S", 2.0)
    job = [sys.executable, "-c", JOB, str(tmp_path / "ledger"), str(tmp_path / "rows")]
    monkeypatch.setattr(sys, "argv", ["drain", str(tmp_path / "ledger"), "10", str(tmp_path / "rows"), *job])
    assert drain.main() == 0
    assert (tmp_path / "rows" / "fraud_alerts" / "part-1.jsonl").exists()
    times = json.loads(capfd.readouterr().out)
    assert times["read_seconds"] is None
    assert times["waited_seconds"] >= 2
