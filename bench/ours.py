"""Our own jobs: the same command as in production, stopped when every record is counted. Fraud is a contestant."""

from __future__ import annotations

import json
import sys
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from bench.measure import CommandFailed, Result, Usage, measure
from bench.topics import end_offsets

__all__ = ["NAME", "Drained", "drain", "run"]

NAME = "streamforge"
RUNNER = ("--runner=FlinkRunner", "--parallelism=2")
_RULES_FILTER = Path(__file__).parent / "rules_filter.yaml"


@dataclass(frozen=True)
class Drained:
    """A job's run over a topic.

    Attributes:
      counts: its ledger.
      seconds: from its start to its end, but for the wait for its last rows.
      read_seconds: from its ledger (see `bench.drain`); None when it was over in a second.
    """

    counts: dict[str, int]
    usage: Usage
    seconds: float
    read_seconds: float | None


def drain(
    job: str,
    kafka: str,
    registry: str,
    topic: str,
    out_folder: Path,
    *flags: str,
    records: int | None = None,
    timeout_s: float = 600,
    working: Callable[[float], None] = lambda _: None,
) -> Drained:
    """Drains the topic with `beam_pipelines.<job>`; rows, ledger and log are in the folder.

    Args:
      records: how many the topic holds; looked up if not given.

    Raises:
      CommandFailed: it failed, or its ledger says that records were refused: a job that refuses records is not fast.
    """
    ledger = out_folder / "ledger.json"
    if records is None:
        records = sum(end - begin for begin, end in end_offsets(kafka, topic))
    command = [
        *(sys.executable, "-m", "bench.drain", str(ledger), str(records), str(out_folder / "out")),
        *(sys.executable, "-m", f"beam_pipelines.{job}"),
        *RUNNER,
        f"--input=kafka://{kafka}/{topic}",
        f"--registry={registry}",
        f"--output={out_folder / 'out'}",
        *(["--roll_every=1s"] if job != "archive" else []),
        f"--ledger={ledger}",
        *flags,
    ]
    usage = measure(command, out_folder / "log.txt", timeout_s=timeout_s, working=working)
    try:
        counts = json.loads(ledger.read_text(encoding="utf-8"))
    except (OSError, ValueError) as e:
        raise CommandFailed(f"no ledger: {e}") from e
    if counts["dead_letters"] or counts["late"]:
        raise CommandFailed(f"records were refused: {counts}")
    times = json.loads(usage.output)
    return Drained(counts, usage, usage.seconds - times["waited_seconds"], times["read_seconds"])


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

    Raises:
      CommandFailed: as `drain`.
    """
    flags = [f"--rules={_RULES_FILTER}"] if workload == "filter" else []
    drained = drain(
        "fraud", kafka, registry, topic, out_folder, *flags, records=records, timeout_s=timeout_s, working=working
    )
    return Result(
        name=NAME,
        workload=workload,
        events=drained.counts["in"],
        seconds=drained.seconds,
        read_seconds=drained.read_seconds,
        cpu_seconds=drained.usage.cpu_seconds,
        peak_mb=drained.usage.peak_mb,
        alerts=_alerts(out_folder / "out" / "fraud_alerts"),
    )


def _alerts(folder: Path) -> tuple[str, ...]:
    rows = (json.loads(line) for part in folder.glob("*.jsonl") for line in part.read_text("utf-8").splitlines())
    return tuple(sorted({f"{row['alert_type']} {row['user_id']} {row['order_id']}" for row in rows}))
