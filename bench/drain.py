"""Runs a job as in production, with no end, checkpoints on, until its ledger counts so many records and its rows are
written; then stops it.

With --until=latest Flink would take no checkpoints while it drains, which the peers do.

    python -m bench.drain LEDGER RECORDS ROWS COMMAND...

ROWS is the folder of the rows. A stream writes parts (`--roll_every`), so the last rows come after the last count: they
are there once no part has come for a while.

Prints {"read_seconds": …, "waited_seconds": …}. The former is how long it read, by the ledger, which is written every
second: the time from its first count to its last, stretched by the records that the first count held already; None when
the first is the last. The latter is how long the wait for the rows was.
"""

from __future__ import annotations

import contextlib
import json
import signal
import subprocess
import sys
import time
from pathlib import Path

_STOP_S = 30
_POLL_S = 0.02
_QUIET_S = 5.0


def main() -> int:
    ledger, records, rows, command = Path(sys.argv[1]), int(sys.argv[2]), Path(sys.argv[3]), sys.argv[4:]
    job = subprocess.Popen(command, stdout=sys.stderr)
    first, first_s = 0, 0.0
    while (counted := _counted(ledger)) < records:
        if job.poll() is not None:
            return job.returncode or 1
        if counted and not first:
            first, first_s = counted, time.monotonic()
        time.sleep(_POLL_S)
    counted_s, counted_at = time.monotonic(), time.time()
    read_s = (counted_s - first_s) * records / (records - first) if first else None
    while time.time() < max(counted_at, _last_change(rows)) + _QUIET_S:
        time.sleep(_POLL_S)
    print(json.dumps({"read_seconds": read_s, "waited_seconds": time.monotonic() - counted_s}))
    job.send_signal(signal.SIGINT)
    try:
        job.wait(_STOP_S)
    except subprocess.TimeoutExpired:
        job.kill()
        job.wait()
        return 1
    return 0


def _last_change(folder: Path) -> float:
    """When a part came last; 0 when none has."""
    return max((path.stat().st_mtime for path in folder.glob("*")), default=0.0)


def _counted(ledger: Path) -> int:
    with contextlib.suppress(FileNotFoundError, ValueError):
        return int(json.loads(ledger.read_text(encoding="utf-8"))["in"])
    return 0


if __name__ == "__main__":
    sys.exit(main())
