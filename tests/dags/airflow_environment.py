"""python -m tests.dags.airflow_environment: Airflow for the DAG's tests, in an environment of its own (.stack/airflow).

Airflow pins what the streaming jobs and Spark need in other versions, so it shares an environment with neither. Prints
the environment's Python; does nothing when it is there already. `started` runs the tests' driver in it.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from stack.console import Console
from stack.environment import python_of

__all__ = ["Airflow", "install", "started"]

_ROOT = Path(__file__).parent.parent.parent
_REQUIREMENTS = Path(__file__).parent / "airflow.txt"
_HOME = _ROOT / ".stack" / "airflow"


def install() -> Path:
    """The Python of the environment."""
    return python_of(_HOME, _REQUIREMENTS, Console(sys.stderr))


class Airflow:
    """tests/dags/airflow_driver.py, which is asked in JSON."""

    def __init__(self, driver: subprocess.Popen[str], log: Path):
        self._driver, self._log = driver, log

    def ask(self, **request: Any) -> Any:
        assert self._driver.stdin
        assert self._driver.stdout
        self._driver.stdin.write(json.dumps(request) + "\n")
        self._driver.stdin.flush()
        answer = self._driver.stdout.readline()
        assert answer, f"Airflow's driver ended; its log: {self._log.read_text(errors='replace')[-2000:]}"
        return json.loads(answer)

    def run(self, day: str, **request: Any) -> Any:
        """A run whose data interval begins on the day; beside what the driver tells, "log": what Airflow said."""
        begin = self._log.stat().st_size
        answer = self.ask(day=day, **request)
        return {**answer, "log": self._log.read_bytes()[begin:].decode(errors="replace")}


@contextmanager
def started(folder: Path, submit: list[str], environment: Mapping[str, str] | None = None) -> Iterator[Airflow]:
    """Airflow, and a Dataproc that runs jobs by the command `submit`, in this environment beside ours."""
    log = folder / "airflow.log"
    command = [str(install()), "-m", "tests.dags.airflow_driver", str(folder), json.dumps(submit)]
    with log.open("wb") as errors:
        driver = subprocess.Popen(
            command,
            cwd=_ROOT,
            env={**os.environ, **(environment or {})},
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=errors,
            text=True,
        )
        try:
            yield Airflow(driver, log)
        finally:
            assert driver.stdin
            driver.stdin.close()
            try:
                driver.wait(60)
            finally:
                driver.kill()


if __name__ == "__main__":
    print(install())
