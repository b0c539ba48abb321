"""python -m stack.soak: Runs the demo's jobs for hours and reports whether memory, checkpoints or the store grow.

The jobs run on their own ports and in their own folder, with windows so short that their state reaches in minutes what
it would otherwise reach in hours. So does the store: at each sample, keys that would live for days are given five
minutes. (So the account that the demo prints at its end, in demo.log, does not find alerts of before.) Its lists of a
fixed length, which fill up in hours, are left out of its size. Samples are taken from outside: each job's newest
checkpoint, the memory of its JVM and its Python workers, its ledger, and the store's memory. At the end, or at Ctrl-C,
it fits a line to each series after the warm-up and reports whether it rises.

The slope is the Theil-Sen estimator, the median of the slopes between any two of twelve points, with Sen's 95 %
confidence interval, so a few steps or spikes do not distort it. Each point is the mean of one twelfth of the time, not
a single sample: neighbouring samples are correlated (garbage is collected now and then) and would make the interval too
narrow. A series grows if the whole interval is above zero and it gained more than 3 % of its level.

Exit status: 0 nothing grows; 1 something grows, there are too few samples, or the run failed; 2 a wrong flag.
"""

from __future__ import annotations

import argparse
import contextlib
import csv
import itertools
import json
import math
import signal
import statistics
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import NamedTuple

import redis

from schemas.flags import Parser
from schemas.jobs import JOBS
from stack.children import memory_bytes
from stack.ports import HOST, pick_free
from stack.process import Process
from stack.soaked_store import age, size_bytes

__all__ = ["Slope", "fit", "main", "table"]

_JOBS = tuple(name for name, job in JOBS.items() if job.profile is None)
_PORTS = ("kafka", "registry", "valkey", "api")
_READY_S = 900.0
_END_S = 240.0
_STRETCHES = 12
_SURE = 1.96  # standard deviations of Kendall's statistic: 95 %
_MATTERS = 0.03  # of the level, over the time of the fit
_YEAR_H = 365 * 24

Series = dict[str, list[tuple[float, float]]]
"""Name → (seconds since the start, bytes)."""


class Slope(NamedTuple):
    """A line through a series.

    Attributes:
      level: mean, bytes.
      per_hour, low, high: slope and its confidence interval, bytes an hour.
      hours: time of the fit.
    """

    level: float
    per_hour: float
    low: float
    high: float
    hours: float

    @property
    def grows(self) -> bool:
        return self.low > 0 and self.per_hour * self.hours > _MATTERS * self.level


def fit(samples: Sequence[tuple[float, float]]) -> Slope | None:
    """None when there are too few samples for a line with an interval."""
    if len(samples) < 2 * _STRETCHES:
        return None
    begin, end = samples[0][0], samples[-1][0]
    width = (end - begin) / _STRETCHES
    groups: list[list[tuple[float, float]]] = [[] for _ in range(_STRETCHES)]
    for at, value in samples:
        groups[min(int((at - begin) / width), _STRETCHES - 1)].append((at / 3600, value))
    points = [(_mean([x for x, _ in g]), _mean([y for _, y in g])) for g in groups if g]
    slopes = sorted((d - b) / (c - a) for (a, b), (c, d) in itertools.combinations(points, 2))
    n = len(points)
    off = round((len(slopes) - _SURE * math.sqrt(n * (n - 1) * (2 * n + 5) / 18)) / 2)
    if off < 0:
        return None
    return Slope(
        _mean([y for _, y in samples]),
        statistics.median(slopes),
        slopes[off],
        slopes[-1 - off],
        (end - begin) / 3600,
    )


def _mean(values: Sequence[float]) -> float:
    return sum(values) / len(values)


def table(series: Series, warm_up_s: float) -> str:
    """Each series and its slope; the last line says what grows, or that nothing does."""
    lines = [
        "| series | level, MB | slope, MB/h | 95 % | in a year, GB | at the end of the warm-up → last, MB | |",
        "|---|---|---|---|---|---|---|",
    ]
    grows, unknown = [], [] if series else ["everything"]
    for name, samples in series.items():
        warm = [sample for sample in samples if sample[0] >= warm_up_s]
        slope = fit(warm)
        if slope is None:
            lines.append(f"| {name} | | | | | | too few samples |")
            unknown.append(name)
            continue
        if slope.grows:
            grows.append(name)
        level, per_hour, low, high = (f"{number / 1e6:.3f}" for number in slope[:4])
        lines.append(
            f"| {name} | {level} | {per_hour} | {low} to {high} | {slope.per_hour * _YEAR_H / 1e9:.1f} "
            f"| {warm[0][1] / 1e6:.2f} → {warm[-1][1] / 1e6:.2f} | {'GROWS' if slope.grows else 'level'} |"
        )
    told = [f"grows: {', '.join(grows)}"] if grows else []
    told += [f"too few samples: {', '.join(unknown)}"] if unknown else []
    return "\n".join([*lines, "", *(told or ["nothing grows"])])


def measure(home: Path, valkey_port: int) -> dict[str, float]:
    """What there is now, in bytes; what cannot be seen just now is left out."""
    found: dict[str, float] = {}
    for job in _JOBS:
        group = Process(home / f"{job}.pid").pid()
        if group:
            java, python = memory_bytes(group, "java"), memory_bytes(group) - memory_bytes(group, "java")
            found[f"{job}: JVM"], found[f"{job}: Python"] = java, python
        with contextlib.suppress(OSError, ValueError):
            found[f"{job}: checkpoint"] = _newest_checkpoint(home / "checkpoints" / job)
    with contextlib.suppress(redis.RedisError), redis.Redis(HOST, valkey_port, socket_timeout=5) as store:
        age(store)
        found["store"] = size_bytes(store)
    return found


def _newest_checkpoint(folder: Path) -> float:
    """Raises: OSError, when it is deleted meanwhile; ValueError, when there is none."""
    newest = max(folder.glob("*/chk-*/_metadata"), key=lambda path: path.stat().st_mtime).parent
    return float(sum(path.stat().st_size for path in newest.rglob("*")))


def ledgers(home: Path) -> dict[str, dict[str, int]]:
    found = {}
    for job in _JOBS:
        with contextlib.suppress(OSError, ValueError):
            found[job] = json.loads((home / f"{job}.ledger.json").read_text())
    return found


def main(arguments: Sequence[str] | None = None) -> int:
    options = _parser().parse_args(arguments)
    for number in (signal.SIGINT, signal.SIGTERM):  # the first is ignored in what a script starts with &
        signal.signal(number, signal.default_int_handler)
    home = options.data.absolute()
    home.mkdir(parents=True, exist_ok=True)
    series: Series = {}
    counts: list[tuple[float, dict[str, dict[str, int]]]] = []
    begin = time.monotonic()
    end_s = options.hours * 3600
    ok = False
    try:
        with _demo(home, options.rate) as (demo, ports):
            begin = time.monotonic()
            print(f"soak: {options.hours:g} h from now; Ctrl-C ends it early, with a report", flush=True)
            while (now := time.monotonic() - begin) < end_s:
                if demo.poll() is not None:
                    raise RuntimeError(f"the demo ended; see {home / 'demo.log'}")
                for name, value in measure(home / "demo", ports["valkey"]).items():
                    series.setdefault(name, []).append((now, value))
                counts.append((now, ledgers(home / "demo")))
                time.sleep(options.every)
        ok = True
    except KeyboardInterrupt:
        ok = True
    except RuntimeError as error:
        print(f"soak: {error}", file=sys.stderr)
    report = table(series, options.warm_up * (time.monotonic() - begin if ok else end_s))
    _write(home, series, counts, report)
    print(f"{report}\n\n{home / 'soak.csv'}, {home / 'soak.json'}")
    return 0 if ok and report.endswith("nothing grows") else 1


def _parser() -> Parser:
    about, _, rest = (__doc__ or "").partition("\n\n")
    parser = Parser(
        prog="python -m stack.soak",
        description=about.partition(": ")[2],
        epilog=rest,
    )
    add = parser.add_argument
    add("--hours", type=_positive, default=0.7, help="how long to run (default: %(default)s)")
    add("--rate", type=int, default=100, help="events per second (default: %(default)s)")
    add("--every", type=_positive, default=5.0, metavar="SECONDS", help="sampling interval (default: 5)")
    add(
        "--warm_up",
        type=_share,
        default=0.35,
        help="fraction of the time to leave out of the fit (default: %(default)s)",
    )
    add(
        "--data",
        type=Path,
        default=Path(".stack") / "soak",
        metavar="DIR",
        help="folder for data, logs and results (default: %(default)s)",
    )
    return parser


def _number(is_right: Callable[[float], bool], wanted: str, text: str) -> float:
    try:
        if is_right(number := float(text)):
            return number
    except ValueError:
        pass
    raise argparse.ArgumentTypeError(f"{text!r} is not a number {wanted}")


def _positive(text: str) -> float:
    return _number(lambda number: 0 < number < math.inf, "above 0", text)


def _share(text: str) -> float:
    return _number(lambda number: 0 <= number < 1, "from 0 to below 1", text)


@contextlib.contextmanager
def _demo(home: Path, rate: int) -> Iterator[tuple[subprocess.Popen[bytes], dict[str, int]]]:
    """The demo, once everything in it works. Raises: RuntimeError."""
    ports = {name: pick_free() for name in _PORTS}
    command = [sys.executable, "-m", "stack.demo", "--short", f"--rate={rate}", f"--data={home / 'demo'}"]
    command += [f"--port={name}={port}" for name, port in ports.items()]
    log = home / "demo.log"
    with log.open("wb") as out:
        demo = subprocess.Popen(command, stdin=subprocess.DEVNULL, stdout=out, stderr=out, start_new_session=True)
    try:
        deadline = time.monotonic() + _READY_S
        while "StreamForge runs on" not in log.read_text(errors="replace"):
            if demo.poll() is not None or time.monotonic() > deadline:
                raise RuntimeError(f"the demo did not start; see {log}")
            time.sleep(1)
        yield demo, ports
    finally:
        if demo.poll() is None:
            demo.send_signal(signal.SIGINT)
            try:
                demo.wait(_END_S)
            except subprocess.TimeoutExpired:
                demo.send_signal(signal.SIGINT)  # without its account
                demo.wait(_END_S)


def _write(home: Path, series: Series, counts: Sequence[tuple[float, dict[str, dict[str, int]]]], report: str) -> None:
    with (home / "soak.csv").open("w", newline="") as out:
        rows = csv.writer(out)
        rows.writerow(["series", "seconds", "bytes"])
        rows.writerows((name, f"{at:.1f}", f"{value:.0f}") for name, samples in series.items() for at, value in samples)
    result = {"series": series, "ledgers": counts, "report": report.splitlines()}
    (home / "soak.json").write_text(json.dumps(result))


if __name__ == "__main__":
    sys.exit(main())
