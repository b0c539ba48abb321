"""Runs a job as in production, with no end, checkpoints on, until its ledger counts so many records; then stops it.

With --until=latest Flink would take no checkpoints while it drains, which the peers do.

    python -m bench.drain LEDGER RECORDS COMMAND...

Prints {"read_seconds": …}: how long it read, by the ledger, which is written every second: the time from its first
count to its last, stretched by the records that the first count held already. None when the first is the last.
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


def main() -> int:
    ledger, records, command = Path(sys.argv[1]), int(sys.argv[2]), sys.argv[3:]
    job = subprocess.Popen(command, stdout=sys.stderr)
    first, first_s = 0, 0.0
    while (counted := _counted(ledger)) < records:
        if job.poll() is not None:
            return job.returncode or 1
        if counted and not first:
            first, first_s = counted, time.monotonic()
        time.sleep(_POLL_S)
    read_s = (time.monotonic() - first_s) * records / (records - first) if first else None
    print(json.dumps({"read_seconds": read_s}))
    job.send_signal(signal.SIGINT)
    try:
        job.wait(_STOP_S)
    except subprocess.TimeoutExpired:
        job.kill()
        job.wait()
        return 1
    return 0


def _counted(ledger: Path) -> int:
    with contextlib.suppress(FileNotFoundError, ValueError):
        return int(json.loads(ledger.read_text(encoding="utf-8"))["in"])
    return 0


if __name__ == "__main__":
    sys.exit(main())
