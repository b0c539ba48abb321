"""Somebody else's messages through Flink: by a shipped mapping, what the generator planted, record by record."""

from __future__ import annotations

import json
import subprocess
import sys
from collections import Counter
from pathlib import Path

import pytest

from tests.foreign import stream

pytestmark = pytest.mark.stack

COUNT = 20_000


def test_twenty_thousand_mapped_messages_give_the_oracles_ledger_and_revenue(tmp_path: Path) -> None:
    sample = stream("segment", COUNT, seed=7)
    (tmp_path / "events.jsonl").write_text("".join(json.dumps(each.message) + "\n" for each in sample))
    places = [f"--input={tmp_path}/events.jsonl", f"--output={tmp_path}/out", f"--ledger={tmp_path}/ledger.json"]
    command = [sys.executable, "-m", "beam_pipelines.revenue", "--runner=FlinkRunner", "--mapping=segment", *places]
    ran = subprocess.run(command, capture_output=True, text=True, check=True)
    orders = [each.order for each in sample if each.order]
    ignored, refused = sum(not (m.order or m.fault) for m in sample), sum(bool(m.fault) for m in sample)
    ledger = {"in": COUNT - ignored, "good": len(orders), "dead_letters": refused, "late": 0, "duplicates": 0}
    assert json.loads((tmp_path / "ledger.json").read_text()) == {**ledger, "lost": 0, "ignored": ignored}
    assert f"dead letters {refused:,}" in ran.stderr
    assert "is not an amount" in ran.stderr
    wanted: Counter[int] = Counter()
    for order in orders:
        if order.order_status == "CREATED":
            wanted[order.event_time // 60_000 * 60_000] += 1
    newest: dict[tuple[int, str], dict[str, int]] = {}
    for part in (tmp_path / "out" / "real_time_revenue").glob("*.jsonl"):
        for row in map(json.loads, part.read_text().splitlines()):
            key = row["window_start"], row.get("currency", "")
            if row["dimension"] == "total" and row["version"] > newest.get(key, {"version": -1})["version"]:
                newest[key] = row
    found: Counter[int] = Counter()
    for (minute, _), row in newest.items():
        found[minute] += row["order_count"]
    assert found == wanted
