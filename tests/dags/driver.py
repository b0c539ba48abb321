"""A program in another Python, which answers a line of JSON with a line of JSON: Airflow's and Spark's drivers."""

from __future__ import annotations

import json
import subprocess
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

__all__ = ["Driver", "driving"]


class Driver:
    """
    Attributes:
      log: what it writes to stderr.
    """

    def __init__(self, process: subprocess.Popen[str], log: Path):
        self._process, self.log = process, log

    def ask(self, request: Mapping[str, Any]) -> Any:
        assert self._process.stdin
        assert self._process.stdout
        self._process.stdin.write(json.dumps(request) + "\n")
        self._process.stdin.flush()
        answer = self._process.stdout.readline()
        assert answer, f"the driver ended; its log: {self.log.read_text(errors='replace')[-2000:]}"
        return json.loads(answer)


@contextmanager
def driving(command: Sequence[str], log: Path, cwd: Path, environment: Mapping[str, str]) -> Iterator[Driver]:
    """Runs it for the block; it ends when its stdin does."""
    with log.open("wb") as errors:
        process = subprocess.Popen(
            command,
            cwd=cwd,
            env=dict(environment),
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=errors,
            text=True,
        )
        try:
            yield Driver(process, log)
        finally:
            assert process.stdin
            process.stdin.close()
            try:
                process.wait(60)
            finally:
                process.kill()
