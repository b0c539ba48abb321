"""Our own fraud job as a contestant: the same command as in production, stopped when every record is counted."""

from __future__ import annotations

import json
import sys
from collections.abc import Callable
from pathlib import Path

from bench.measure import CommandFailed, Result, measure
from bench.orders import end_offsets

__all__ = ["NAME", "run"]

NAME = "streamforge"
RUNNER = ("--runner=FlinkRunner", "--parallelism=2")
_RULES_FILTER = Path(__file__).parent / "rules_filter.yaml"


def run(
    workload: str,
    kafka: str,
    registry: str,
    topic: str,
    out_folder: Path,
    *,
    records: int | None = None,
    timeout_s: float = 600,
    working: Callable[[float], None] = lambda _: None,
) -> Result:
    """Drains the topic with the fraud job.

    Args:
      records: how many the topic holds; looked up if not given.

    Raises:
      CommandFailed: it failed, or its ledger does not say that every record was good.
    """
    ledger = out_folder / "ledger.json"
    if records is None:
        records = sum(end - begin for begin, end in end_offsets(kafka, topic))
    command = [
        *(sys.executable, "-m", "bench.drain", str(ledger), str(records)),
        *(sys.executable, "-m", "beam_pipelines.fraud"),
        *RUNNER,
        f"--input=kafka://{kafka}/{topic}",
        f"--registry={registry}",
        f"--output={out_folder / 'out'}",
        f"--ledger={ledger}",
    ]
    if workload == "filter":
        command.append(f"--rules={_RULES_FILTER}")
    usage = measure(command, out_folder / "log.txt", timeout_s=timeout_s, working=working)
    try:
        counts = json.loads(ledger.read_text(encoding="utf-8"))
    except (OSError, ValueError) as e:
        raise CommandFailed(f"no ledger: {e}") from e
    # A fast job that refuses records is not fast.
    if counts["dead_letters"] or counts["late"]:
        raise CommandFailed(f"records were refused: {counts}")
    return Result(
        name=NAME,
        workload=workload,
        events=counts["in"],
        seconds=usage.seconds,
        read_seconds=json.loads(usage.output)["read_seconds"],
        cpu_seconds=usage.cpu_seconds,
        peak_mb=usage.peak_mb,
        alerts=_alerts(out_folder / "out" / "fraud_alerts"),
    )


def _alerts(folder: Path) -> tuple[str, ...]:
    rows = (json.loads(line) for part in folder.glob("*.jsonl") for line in part.read_text("utf-8").splitlines())
    return tuple(sorted({f"{row['alert_type']} {row['user_id']} {row['order_id']}" for row in rows}))
