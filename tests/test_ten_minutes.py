"""The page "Ten minutes with your own events": its commands are run as they are written."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).parent.parent


def test_the_commands_of_the_page_lead_from_own_orders_to_an_alert(tmp_path: Path) -> None:
    page = (ROOT / "docs" / "ten-minutes.md").read_text(encoding="utf-8")
    script = "set -e\n" + "\n".join(re.findall(r"```bash\n(.*?)```", page, re.DOTALL))
    path = f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"
    ran = subprocess.run(
        ["bash", "-c", script],
        cwd=tmp_path,
        env=os.environ | {"PATH": path, "PYTHONPATH": str(ROOT)},
        capture_output=True,
        text=True,
        check=False,
    )
    assert ran.returncode == 0, ran.stderr
    assert "orders: 5 messages, 3 recognised, 1 ignored, 1 refused" in ran.stdout
    assert "'many' is not an amount" in ran.stdout
    assert "LOCATION_ANOMALY" in ran.stdout
    assert ran.stderr.count("ledger: in 4, good 3, dead letters 1, late 0, duplicates 0, lost 0, ignored 1") == 2, (
        ran.stderr
    )
    alerts = [
        json.loads(line)
        for part in (tmp_path / "out" / "fraud_alerts").glob("*.jsonl")
        for line in part.read_text().splitlines()
    ]
    assert {alert["alert_type"] for alert in alerts if alert["order_id"] == "A-3"} == {"RAPID_ORDERS"}
    assert (tmp_path / "try.html").exists()
