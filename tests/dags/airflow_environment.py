"""python -m tests.dags.airflow_environment: Airflow for the DAG's tests, in an environment of its own (.stack/airflow).

Airflow pins what the streaming jobs and Spark need in other versions, so it shares an environment with neither. Prints
the environment's Python; does nothing when it is there already. `started` runs the tests' driver in it.
"""

from __future__ import annotations

import json
import os
import sys
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from stack.console import Console
from stack.environment import python_of
from tests.dags.driver import Driver, driving

__all__ = ["Airflow", "install", "started"]

_ROOT = Path(__file__).parent.parent.parent
_REQUIREMENTS = Path(__file__).parent / "airflow.txt"
_HOME = _ROOT / ".stack" / "airflow"


def install() -> Path:
    """The Python of the environment."""
    return python_of(_HOME, _REQUIREMENTS, Console(sys.stderr))


class Airflow:
    """tests/dags/airflow_driver.py, which is asked in JSON."""

    def __init__(self, driver: Driver):
        self._driver = driver

    def ask(self, **request: Any) -> Any:
        return self._driver.ask(request)

    def run(self, day: str, **request: Any) -> Any:
        """A run whose data interval begins on the day; beside what the driver tells, "log": what Airflow said."""
        begin = self._driver.log.stat().st_size
        answer = self.ask(day=day, **request)
        return {**answer, "log": self._driver.log.read_bytes()[begin:].decode(errors="replace")}


@contextmanager
def started(folder: Path, submit: list[str], environment: Mapping[str, str] | None = None) -> Iterator[Airflow]:
    """Airflow, and a Dataproc that runs jobs by the command `submit`, in this environment beside ours."""
    command = [str(install()), "-m", "tests.dags.airflow_driver", str(folder), json.dumps(submit)]
    with driving(command, folder / "airflow.log", _ROOT, {**os.environ, **(environment or {})}) as driver:
        yield Airflow(driver)


if __name__ == "__main__":
    print(install())
