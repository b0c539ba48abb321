"""Jobs: how fast each of our jobs drains a backlog, and the CPU and memory it needs."""

from __future__ import annotations

import argparse
import shutil
import sys
from collections.abc import Callable

from bench import clicks, orders, ours
from bench.measure import CommandFailed
from bench.throughput import add_run_arguments, positive, services
from stack.console import Console

__all__ = ["add_arguments", "main"]

_FILL: dict[str, Callable[[str, str, int, int, Callable[[str], None]], str]] = {
    "sessions": lambda kafka, registry, n, users, say: clicks.fill(
        kafka, registry, clicks.ClickSpec(n, users), say=say
    ),
    "revenue": lambda kafka, registry, n, users, say: orders.fill(kafka, registry, orders.Spec(n, users), say=say),
    "archive": lambda kafka, registry, n, users, say: orders.fill(kafka, registry, orders.Spec(n, users), say=say),
}
_FLAGS = {"archive": ("--flush_every=5s",)}  # what it counts is in a file: else the end waits for a minute
_TITLES = ("", "run s", "events/s", "read s", "read/s", "CPU s/M", "peak MB")


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "--events", type=positive, default=1_000_000, metavar="N", help="records in a topic (default: 1000000)"
    )
    parser.add_argument(
        "--users", type=positive, default=100_000, metavar="N", help="number of users (default: 100000)"
    )
    parser.add_argument(
        "--jobs", default=",".join(_FILL), metavar="A,B", help=f"any of {', '.join(_FILL)} (default: all)"
    )
    add_run_arguments(parser)


def main(options: argparse.Namespace) -> int:
    """Returns the exit status: 1 when a job failed."""
    names = [name for name in options.jobs.split(",") if name]
    if unknown := set(names) - set(_FILL):
        raise SystemExit(f"bench jobs: --jobs: {min(unknown)} is none of {', '.join(_FILL)}")
    if bool(options.kafka) != bool(options.registry):
        raise SystemExit("bench jobs: --kafka and --registry must be given together")
    console = Console(sys.stderr)
    failed = False
    print(_line(_TITLES), flush=True)
    with services(options, console) as (kafka, registry):
        for name in names:
            topic = _FILL[name](kafka, registry, options.events, options.users, console.line)
            folder = (options.data / "runs" / name).absolute()
            shutil.rmtree(folder, ignore_errors=True)
            folder.mkdir(parents=True)
            try:
                drained = ours.drain(
                    name,
                    kafka,
                    registry,
                    topic,
                    folder,
                    *_FLAGS.get(name, ()),
                    timeout_s=options.timeout,
                    working=lambda seconds, name=name: console.waiting(f"{name}, {seconds:.0f} s"),  # type: ignore[misc]
                )
            except CommandFailed as e:
                print(f"{name}: failed: {e}", flush=True)
                failed = True
            else:
                print(_line(_row(name, drained)), flush=True)
    return 1 if failed else 0


def _row(name: str, drained: ours.Drained) -> tuple[str, ...]:
    usage, n, run_s, read_s = drained.usage, drained.counts["in"], drained.seconds, drained.read_seconds
    return (
        name,
        f"{run_s:.1f}",
        f"{n / run_s:,.0f}",
        f"{read_s:.1f}" if read_s else "-",
        f"{n / read_s:,.0f}" if read_s else "-",
        f"{usage.cpu_seconds / n * 1e6:.1f}",
        f"{usage.peak_mb:,.0f}",
    )


def _line(cells: tuple[str, ...]) -> str:
    first, *rest = cells
    return first.ljust(12) + "".join(cell.rjust(10) for cell in rest)
