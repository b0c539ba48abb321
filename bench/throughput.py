"""Throughput side by side: every contestant drains the same topic, one after the other."""

from __future__ import annotations

import argparse
import dataclasses
import json
import os
import platform
import shutil
import sys
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from bench import contestants, ours
from bench.contestants import PEERS
from bench.measure import CommandFailed, Result
from bench.orders import Spec, fill
from stack import Stack
from stack.console import Console
from stack.kafka import Kafka

__all__ = ["Measurement", "add_arguments", "add_run_arguments", "main", "positive", "services", "table"]

_CONTESTANTS = (*PEERS, ours.NAME)


@dataclass(frozen=True)
class Measurement:
    """A contestant on a workload.

    Attributes:
      error: why there is no result.
    """

    name: str
    workload: str
    result: Result | None = None
    error: str | None = None

    @property
    def rate(self) -> float:
        """Events per second of the whole run, start and end of the processes included."""
        return self.result.events / self.result.seconds if self.result else 0.0

    @property
    def read_rate(self) -> float | None:
        """Events per second while it read: without the start, which a job that runs for weeks pays once."""
        return self.result.events / self.result.read_seconds if self.result and self.result.read_seconds else None


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "--events", type=positive, default=1_000_000, metavar="N", help="orders in the topic (default: 1000000)"
    )
    parser.add_argument(
        "--users", type=positive, default=100_000, metavar="N", help="number of users (default: 100000)"
    )
    parser.add_argument(
        "--rate", type=positive, default=100, metavar="N", help="orders per second of event time (default: 100)"
    )
    parser.add_argument("--workload", choices=("filter", "hot", "both"), default="both")
    parser.add_argument(
        "--peers",
        default=",".join(_CONTESTANTS),
        metavar="A,B",
        help=f"who runs, in order: {', '.join(_CONTESTANTS)} (default: all)",
    )
    parser.add_argument(
        "--repeat", type=positive, default=1, metavar="N", help="runs of each; the median counts (default: 1)"
    )
    add_run_arguments(parser)
    parser.add_argument("--json", type=Path, metavar="FILE", help="write all figures here")


def add_run_arguments(parser: argparse.ArgumentParser) -> None:
    """What a drain needs: its timeout, and the flags that `services` reads."""
    parser.add_argument(
        "--timeout", type=positive, default=600, metavar="S", help="timeout of a run, in seconds (default: 600)"
    )
    parser.add_argument("--kafka", metavar="HOST:PORT", help="use this running broker instead of starting one")
    parser.add_argument("--registry", metavar="URL", help="that broker's schema registry")
    parser.add_argument(
        "--kafka-heap", default="768m", metavar="SIZE", help="heap of the broker it starts, as in -Xmx (default: 768m)"
    )
    parser.add_argument(
        "--data",
        type=Path,
        default=Path(".stack/bench"),
        metavar="DIR",
        help="folder for the broker's data and logs (default: .stack/bench)",
    )


def positive(text: str) -> int:
    if not text.isdigit() or int(text) < 1:
        raise argparse.ArgumentTypeError(f"{text!r} is not a whole number of at least 1")
    return int(text)


def main(options: argparse.Namespace) -> int:
    """Returns the exit status: 1 when a contestant failed or found other alerts than the first one."""
    names = [name for name in options.peers.split(",") if name]
    if unknown := set(names) - set(_CONTESTANTS):
        raise SystemExit(f"bench throughput: --peers: {min(unknown)} is none of {', '.join(_CONTESTANTS)}")
    if bool(options.kafka) != bool(options.registry):
        raise SystemExit("bench throughput: --kafka and --registry must be given together")
    console = Console(sys.stderr)
    for name in names:
        contestants.prepare(name, console)
    workloads = ("filter", "hot") if options.workload == "both" else (options.workload,)
    spec = Spec(options.events, options.users, options.rate)
    measurements: list[Measurement] = []
    with services(options, console) as (kafka, registry):
        topic = fill(kafka, registry, spec, say=console.line)
        bench = _Bench(kafka, registry, options.data / "runs", options.timeout, options.repeat, console)
        for workload in workloads:
            done = [bench.measure(name, workload, topic) for name in names]
            print(table(done, spec), flush=True)
            measurements += done
    if options.json:
        options.json.write_text(json.dumps(_figures(measurements, spec), indent=2) + "\n", encoding="utf-8")
    return 0 if _agree(measurements) else 1


@contextmanager
def services(options: argparse.Namespace, console: Console) -> Iterator[tuple[str, str]]:
    """The broker's address and the registry's URL: those that the options name, or some of our own for a while."""
    if options.kafka:
        yield options.kafka, options.registry
        return
    kafka = Kafka(heap=options.kafka_heap, quick_start=False, topics={})
    with Stack(options.data, [kafka, "registry"], ports="free", console=console) as stack:
        yield stack.address("kafka"), stack.registry_url


@dataclass(frozen=True)
class _Bench:
    kafka: str
    registry: str
    folder: Path
    timeout_s: float
    repeat: int
    console: Console

    def measure(self, name: str, workload: str, topic: str) -> Measurement:
        try:
            result = self._median(name, workload, topic)
        except CommandFailed as e:
            self.console.line(f"{name}, {workload}: failed: {e}")
            return Measurement(name, workload, error=str(e))
        measurement = Measurement(name, workload, result)
        self.console.line(f"{name}, {workload}: {measurement.rate:,.0f} events/s in {result.seconds:.1f} s")
        return measurement

    def _median(self, name: str, workload: str, topic: str) -> Result:
        """The run of the median time."""
        runs = [
            self._run(name, workload, topic, f"{name}, {workload}: run {i + 1} of {self.repeat}")
            for i in range(self.repeat)
        ]
        return sorted(runs, key=lambda run: run.seconds)[(self.repeat - 1) // 2]

    def _run(self, name: str, workload: str, topic: str, what: str) -> Result:
        folder = (self.folder / f"{name}-{workload}").absolute()
        shutil.rmtree(folder, ignore_errors=True)
        folder.mkdir(parents=True)
        run: Callable[..., Result] = ours.run if name == ours.NAME else _peer(name)
        return run(
            workload,
            self.kafka,
            self.registry,
            topic,
            folder,
            timeout_s=self.timeout_s,
            working=lambda seconds: self.console.waiting(f"{what}, {seconds:.0f} s"),
        )


def _peer(name: str) -> Callable[..., Result]:
    def run(*args: object, **kwargs: object) -> Result:
        return contestants.run(name, *args, **kwargs)  # type: ignore[arg-type]

    return run


def table(measurements: Sequence[Measurement], spec: Spec) -> str:
    """One workload's measurements for a person.

    `ours ÷` is our rate divided by that row's: above 1, ours is faster.
    """
    reference = _reference(measurements)
    mine = next((m for m in measurements if m.name == ours.NAME and m.result), None)
    titles = ("", "run s", "events/s", "ours ÷", "read s", "read/s", "ours ÷", "CPU s/M", "peak MB", "alerts")
    rows = [titles, *(_row(m, mine, reference) for m in measurements)]
    widths = [max(len(row[i]) for row in rows) for i in range(len(titles))]
    lines = []
    for row in rows:
        first, *middle, last = (cell.rjust(width) for cell, width in zip(row, widths, strict=True))
        lines.append("  ".join([row[0].ljust(len(first)), *middle, last.strip().ljust(len(last))]).rstrip())
    head = f"\n{measurements[0].workload}: {spec.orders:,} orders of {spec.users:,} users"
    return "\n".join([head, *lines, *(f"{m.name}: {m.error}" for m in measurements if m.error)])


def _row(m: Measurement, mine: Measurement | None, reference: Result | None) -> tuple[str, ...]:
    if m.result is None:
        return (m.name, *["-"] * 8, "failed")
    read, mine_read = m.read_rate, mine.read_rate if mine else None
    return (
        m.name,
        f"{m.result.seconds:.1f}",
        f"{m.rate:,.0f}",
        f"{mine.rate / m.rate:.2f}" if mine else "-",
        f"{m.result.read_seconds:.1f}" if m.result.read_seconds else "-",
        f"{read:,.0f}" if read else "-",
        f"{mine_read / read:.2f}" if mine_read and read else "-",
        f"{m.result.cpu_seconds / m.result.events * 1e6:.1f}",
        f"{m.result.peak_mb:,.0f}",
        _compare(m.result, reference),
    )


def _reference(measurements: Sequence[Measurement]) -> Result | None:
    return next((m.result for m in measurements if m.result), None)


def _compare(result: Result, reference: Result | None) -> str:
    count = f"{len(result.alerts):,}"
    if reference is None or reference is result:
        return count
    found, expected = set(result.alerts), set(reference.alerts)
    if found == expected:
        return f"{count} equal"
    return f"{count} DIFFER: -{len(expected - found)} +{len(found - expected)}"


def _agree(measurements: Sequence[Measurement]) -> bool:
    by_workload: dict[str, set[tuple[str, ...]]] = {}
    for m in measurements:
        if m.result is None:
            return False
        by_workload.setdefault(m.workload, set()).add(m.result.alerts)
    return all(len(sets) == 1 for sets in by_workload.values())


def _figures(measurements: Sequence[Measurement], spec: Spec) -> dict[str, object]:
    runs = []
    for m in measurements:
        result = m.result and {k: v for k, v in dataclasses.asdict(m.result).items() if k != "alerts"}
        runs.append(
            {
                "name": m.name,
                "workload": m.workload,
                "error": m.error,
                "result": result and {**result, "alerts": len(m.result.alerts) if m.result else 0},
                "events_per_second": m.rate if m.result else None,
                "read_events_per_second": m.read_rate,
                "alerts_equal": _compare_to_first(m, measurements),
            }
        )
    machine = {"cores": _cores(), "machine": platform.machine(), "python": platform.python_version()}
    return {"spec": dataclasses.asdict(spec), "machine": machine, "runs": runs}


def _compare_to_first(m: Measurement, measurements: Sequence[Measurement]) -> bool | None:
    reference = _reference([other for other in measurements if other.workload == m.workload])
    return m.result.alerts == reference.alerts if m.result and reference else None


def _cores() -> int:
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
