"""Runs seeds, and says what was wrong: `python -m simulation --help`."""

from __future__ import annotations

import contextlib
import logging
import multiprocessing
import os
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from schemas.flags import Parser, typed
from simulation import known
from simulation.jobs import JOBS
from simulation.numbers import positive, whole
from simulation.plans import Place, Plan, Result, plan
from simulation.run import play
from simulation.shrink import shrunk
from simulation.store import valkey
from stack.errors import StackError

_DESCRIPTION = """\
Runs the real jobs on a simulated Kafka, clock and runner and a real Valkey, with faults that follow from a number, and
compares what came of it with what was sent. docs/proof.md says what that shows.

  python -m simulation --seeds=300               300 seeds, of all jobs in turn; the first is drawn, and printed
  python -m simulation --seed=17 --trace         one again, step by step
  python -m simulation --job=fraud --seeds=1000 --first=0"""
_EVERY_S = 10.0


def main(arguments: Sequence[str] | None = None) -> int:
    flags = _parser().parse_args(arguments)
    jobs = flags.job or list(JOBS)
    if flags.trace and flags.seed is None:
        _parser().stop("--trace: of one seed alone: give --seed, too")
    first = flags.first if flags.first is not None else int(time.time()) % 1_000_000 * 1_000
    try:
        with _in_silence():
            if flags.seed is not None:
                return _one(jobs, flags.seed, trace=flags.trace)
            return _many(jobs, range(first, first + flags.seeds), min(flags.processes, flags.seeds), stop=flags.stop)
    except StackError as e:  # there is no Valkey
        print(f"simulation: {e}", file=sys.stderr)
        return 1


@contextlib.contextmanager
def _in_silence() -> Iterator[None]:
    """The jobs warn of what is done to them."""
    before = logging.root.manager.disable
    logging.disable()
    try:
        yield
    finally:
        logging.disable(before)


def _parser() -> Parser:
    parser = Parser(prog="python -m simulation", description=_DESCRIPTION)
    number = typed(positive)
    parser.add_argument("--seeds", type=number, default=300, metavar="N", help="how many seeds; default 300")
    parser.add_argument("--first", type=typed(whole), metavar="N", help="the first; default: drawn by the clock")
    parser.add_argument("--job", action="append", choices=JOBS, help="only this; may be repeated; default: all in turn")
    parser.add_argument("--seed", type=typed(whole), metavar="N", help="run this seed alone")
    parser.add_argument("--trace", action="store_true", help="print each step of --seed")
    parser.add_argument(
        "--processes", type=number, default=os.cpu_count() or 1, metavar="N", help="seeds side by side; default: cores"
    )
    parser.add_argument("--stop", action="store_true", help="end at the first seed that goes wrong")
    return parser


def _job_of(jobs: Sequence[str], seed: int) -> str:
    return jobs[seed % len(jobs)]


# One


def _one(jobs: list[str], seed: int, *, trace: bool) -> int:
    with _place() as place:
        its = plan(_job_of(jobs, seed), seed)
        result = play(its, place)
        if trace:
            print("\n".join(result.trace))
        print(f"seed {seed}, {its.job}: trace {result.digest()}; {'; '.join(result.wrong) or 'nothing is wrong'}")
        if result.wrong:
            _explain(its, result, place)
    return int(bool(result.wrong))


def _explain(its: Plan, result: Result, place: Place) -> None:
    print("looking for fewer faults and records that do the same ...", flush=True)
    least = shrunk(its, result.wrong[0], place)
    wrong = play(least, place).wrong
    print(f"  {its.setting}")
    for fault in least.faults:
        print(f"  {fault}")
    for burst in least.bursts:
        for event in burst.events:
            name = getattr(event.what, "order_id", getattr(event.what, "event_id", event.what))
            print(f"  sent at {burst.at}: {name} of {event.key!r} at {event.time_ms}")
    print(f"  {wrong[0] if wrong else result.wrong[0]}", flush=True)


@contextlib.contextmanager
def _place() -> Iterator[Place]:
    memory = Path("/dev/shm")
    with valkey() as socket, tempfile.TemporaryDirectory(dir=memory if memory.is_dir() else None) as folder:
        yield Place(Path(folder, "out"), socket)


# Many

_mine: list[Place] = []


def _begin(places: Any) -> None:
    _mine.append(places.get())


def _run(task: tuple[str, int]) -> tuple[str, int, list[str], Counter[str]]:
    job, seed = task
    result = play(plan(job, seed), _mine[0])
    return job, seed, result.wrong, result.counts


def _many(jobs: list[str], seeds: range, processes: int, *, stop: bool) -> int:
    print(f"seeds {seeds.start} to {seeds.stop - 1} of {', '.join(jobs)}", flush=True)
    began = said = time.monotonic()
    counts: Counter[str] = Counter()
    wrong: list[tuple[str, int]] = []
    context = multiprocessing.get_context("fork")
    with contextlib.ExitStack() as opened:
        places = context.Queue()
        for _ in range(processes):
            places.put(opened.enter_context(_place()))
        pool = opened.enter_context(context.Pool(processes, _begin, [places]))
        tasks = ((_job_of(jobs, seed), seed) for seed in seeds)
        for done, (job, seed, its_wrong, its_counts) in enumerate(pool.imap_unordered(_run, tasks), 1):
            counts += its_counts
            if its_wrong:
                wrong.append((job, seed))
                print(f"WRONG seed {seed}, {job}: {its_wrong[0]}", flush=True)
                if stop:
                    return 1
            if time.monotonic() - said > _EVERY_S:
                said = time.monotonic()
                print(f"  {done} of {len(seeds)} seeds, {len(wrong)} wrong, {said - began:.0f} s", flush=True)
    seconds = time.monotonic() - began
    for name, times in sorted(counts.items()):
        print(f"{times:8} {name}")
    print(f"{len(seeds)} seeds in {seconds:.0f} s, {len(seeds) / seconds * 3600:.0f} an hour: {len(wrong)} wrong")
    missed = known.missing(counts) if len(seeds) >= known.ENOUGH and set(jobs) == set(JOBS) else []
    for name in missed:
        print(f"NEVER REACHED: {name}")
    if wrong:
        job, seed = min(wrong)
        print(f"again: python -m simulation --job={job} --seed={seed} --trace", flush=True)
        with _place() as place:
            its = plan(job, seed)
            _explain(its, play(its, place), place)
    return int(bool(wrong or missed))


if __name__ == "__main__":
    sys.exit(main())
