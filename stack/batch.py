"""python -m stack.batch: Runs the daily batch job on the demo's archive, and compares it with the demo's stream.

Runs dags/spark/daily_analytics.py on a local Spark, with its tables in .stack/batch/warehouse and an Iceberg catalogue
in SQLite beside it. It recomputes the day, compares it with the stream's rows, checks its quality, and publishes it if
both gates pass. A day can be run any number of times.

Exit status: 0 published; 1 failed; 2 a wrong flag; 3 a gate failed.
"""

from __future__ import annotations

import argparse
import os
import subprocess
import sys
import time
from collections.abc import Sequence
from datetime import date
from pathlib import Path

from schemas.flags import Parser, UsageError
from stack.console import Console
from stack.errors import StackError
from stack.spark import Spark

__all__ = ["catalog_settings", "main"]

_ROOT = Path(__file__).parent.parent
_JOB = _ROOT / "dags" / "spark" / "daily_analytics.py"


def main(arguments: Sequence[str] | None = None) -> int:
    about, _, rest = (__doc__ or "").partition("\n\n")
    parser = Parser(
        prog="python -m stack.batch",
        description=about.partition(": ")[2],
        epilog=rest,
    )
    add = parser.add_argument
    add("--date", type=_date, required=True, metavar="YYYY-MM-DD", help="the shop's event day, in --time_zone")
    add(
        "--data",
        type=Path,
        default=Path(".stack/demo"),
        metavar="DIR",
        help="the demo's folder, with archive and tables (default: %(default)s)",
    )
    add(
        "--home",
        type=Path,
        default=Path(".stack/batch"),
        metavar="DIR",
        help="folder for tables and reports (default: %(default)s)",
    )
    try:
        options, more = parser.parse_known_args(arguments)
    except UsageError as e:
        parser.stop(e)
    data, home = options.data.absolute(), options.home.absolute()
    if not (data / "archive").is_dir():
        parser.stop(f"--data: {data} has no archive: run make demo DURATION=60 first, and wait until it ends")
    console = Console(sys.stdout)
    try:
        spark = Spark(Path(".stack/spark"), console)
    except StackError as error:
        print(f"batch: {error}", file=sys.stderr)
        return 1
    (home / "report").mkdir(parents=True, exist_ok=True)
    (data / "tables").mkdir(exist_ok=True)
    package, log = home / "streamforge.zip", home / "log"
    subprocess.run([sys.executable, "-m", "dags.spark.package", str(package)], check=True, cwd=_ROOT)
    flags = [
        *(f"--date={options.date}", f"--archive={data / 'archive'}", f"--stream={data / 'tables'}"),
        *(f"--report={home / 'report'}", f"--warehouse={(home / 'warehouse').as_uri()}"),
        *(f"--catalog_conf={setting}" for setting in catalog_settings(home / "catalog.db")),
        *more,
    ]
    console.line(f"the day {options.date} on a local Spark (log: {log})")
    begin = time.monotonic()
    with log.open("wb") as errors:
        done = subprocess.run(
            spark.submit(_JOB, package, flags), stderr=errors, cwd=home, env={**os.environ, **spark.environment}
        )
    console.line(_summary(done.returncode, options.date, home, time.monotonic() - begin, log))
    return done.returncode


def catalog_settings(database: Path) -> list[str]:
    """Of an Iceberg catalogue in a file, as the job's --catalog_conf."""
    return ["type=jdbc", f"uri=jdbc:sqlite:{database}", "jdbc.schema-version=V1"]


def _summary(status: int, day: date, home: Path, seconds: float, log: Path) -> str:
    report = home / "report" / str(day)
    match status:
        case 0:
            verdict = f"{day} is published: tables in {home / 'warehouse'}"
        case 3:
            verdict = f"{day} is NOT published: a gate failed; the report says why"
        case _:
            lines = log.read_text(errors="replace").splitlines()
            return next((line for line in reversed(lines) if "daily_analytics:" in line), f"failed; see {log}")
    pages = "\n".join(f"  {page}" for page in sorted(report.glob("*.html")))
    return f"{verdict}\n{pages}\ntook {seconds:.0f} s"


def _date(text: str) -> date:
    try:
        return date.fromisoformat(text)
    except ValueError:
        raise argparse.ArgumentTypeError(f"{text!r} is not a date such as 2026-11-22") from None


if __name__ == "__main__":
    sys.exit(main())
