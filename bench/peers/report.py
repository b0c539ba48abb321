"""What a Python peer tells at its end."""

from __future__ import annotations

import argparse
import json
import os
import resource
import sys
import time
from collections.abc import Iterable
from pathlib import Path

__all__ = ["Report", "arguments"]


class Report:
    """Collects what is measured; `finish` prints it."""

    def __init__(self) -> None:
        self._first_read: float | None = None
        self._process_started = _process_start()
        self.events = 0

    def reading(self) -> None:
        """To be called when the first record has arrived."""
        if self._first_read is None:
            self._first_read = time.monotonic()

    def finish(self, alerts: Iterable[str], file: Path | None) -> None:
        """To be called after the last result."""
        now = time.monotonic()
        distinct = sorted(set(alerts))
        if file is not None:
            file.write_text("".join(f"{alert}\n" for alert in distinct), encoding="utf-8")
        usages = [resource.getrusage(who) for who in (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN)]
        line = {
            "events": self.events,
            "seconds": round(now - self._process_started, 3),
            "read_seconds": round(now - (self._first_read or now), 3),
            "cpu_seconds": round(sum(u.ru_utime + u.ru_stime for u in usages), 3),
            "peak_mb": round(usages[0].ru_maxrss / (1024 if sys.platform == "linux" else 1024**2), 1),
            "alerts": len(distinct),
        }
        print(json.dumps(line), flush=True)


def _process_start() -> float:
    """When this process began, on the monotonic clock; imports count as they do for a JVM."""
    if sys.platform != "linux":
        return time.monotonic() - time.process_time()
    ticks = int(Path("/proc/self/stat").read_text().rpartition(")")[2].split()[19])
    age = time.clock_gettime(time.CLOCK_BOOTTIME) - ticks / os.sysconf("SC_CLK_TCK")
    return time.monotonic() - age


def arguments(description: str) -> argparse.ArgumentParser:
    """The flags that all peers have."""
    parser = argparse.ArgumentParser(description=description)
    parser.add_argument("--kafka", required=True, metavar="HOST:PORT", help="bootstrap servers")
    parser.add_argument("--registry", required=True, metavar="URL", help="schema registry, Confluent API")
    parser.add_argument("--topic", required=True)
    parser.add_argument("--workload", choices=("filter", "hot"), required=True)
    parser.add_argument("--alerts", type=Path, metavar="FILE", help="receives the sorted alerts")
    return parser
