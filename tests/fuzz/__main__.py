"""Whatever comes from outside, our parsers read it or refuse it: nothing else, in bounded time and memory.

    make fuzz SECONDS=60 TARGET=avro                     # guided by coverage; SECONDS=0: until Ctrl-C
    python -m tests.fuzz --seconds=60 --seed=7           # by chance: every target for a minute
    python -m tests.fuzz --target=avro --case=1234       # one case again
    python -m tests.fuzz --target=avro --input=FILE      # one again that coverage led to

By chance, a case is made from its target, seed and number alone. By coverage, Atheris (libFuzzer) changes the bytes
that the same choices are drawn from, and keeps those that reach lines of ours that no others did. Either way there are
limits, and the case is named when its process dies: a segmentation fault or an endless loop in a library is a finding
like any other.
"""

from __future__ import annotations

import argparse
import faulthandler
import importlib
import io
import os
import random
import re
import resource
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, nullcontext, redirect_stderr
from pathlib import Path

from stack.console import Console
from stack.environment import python_of
from stack.errors import StackError

TARGETS = {
    "records": ("avro", "messages", "schemas", "containers", "lines", "changes"),
    "texts": ("rules", "mappings", "settings", "urls", "labels", "letters", "requests"),
    "http": ("http",),
}
"""By module of this folder."""
NAMES = [name for names in TARGETS.values() for name in names]
OURS = ["schemas", "transforms", "serving", "connections", "beam_pipelines"]
MEMORY = 3 << 30
CASE_SECONDS = 20  # on a machine that does other things as well
ROUND_SECONDS = 60
HOME = Path(__file__).parents[2] / ".stack" / "fuzz"

Target = Callable[[random.Random], None]


def load(names: list[str], instrumented: AbstractContextManager[object]) -> dict[str, Target]:
    with instrumented:
        modules = {each: importlib.import_module(f"tests.fuzz.{each}") for each in TARGETS}
    return {name: getattr(modules[each], name) for each, of in TARGETS.items() for name in of if name in names}


def by_chance(targets: dict[str, Target], flags: argparse.Namespace) -> int:
    resource.setrlimit(resource.RLIMIT_AS, (MEMORY, MEMORY))
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    faulthandler.enable()
    numbers = dict.fromkeys(targets, flags.case or 0)
    for name, seconds in _rounds(targets, flags.seconds):
        until, begin = 0.0, numbers[name]
        while numbers[name] == begin or (flags.case is None and time.monotonic() < until):
            number = numbers[name]
            Path(flags.folder, "case").write_text(f"--target={name} --seed={flags.seed} --case={number}")
            faulthandler.dump_traceback_later(CASE_SECONDS, exit=True)
            targets[name](random.Random(f"{name} {flags.seed} {number}"))
            numbers[name] += 1
            until = until or time.monotonic() + seconds  # the first case sets up what the others use
        faulthandler.cancel_dump_traceback_later()
        print(f"{name}: {numbers[name] - begin} cases", flush=True)
    return 0


def by_coverage(names: list[str], flags: argparse.Namespace) -> int:
    """Each target in a fork, as libFuzzer ends its process. What was reached is kept for the next time."""
    try:
        home = python_of(HOME, Path(__file__).with_name("atheris.txt"), Console(sys.stderr)).parents[1]
        sys.path += map(str, home.glob("lib/python*/site-packages"))
        import atheris  # type: ignore[import-not-found]
    except (StackError, ImportError) as e:
        print(f"no coverage, only chance: {e}", file=sys.stderr)
        return by_chance(load(names, nullcontext()), flags)

    from tests.fuzz.making import Drawn

    with redirect_stderr(io.StringIO()):  # Atheris names each module that it instruments
        targets = load(names, atheris.instrument_imports(include=OURS))
    found = 0
    for name, seconds in _rounds(targets, flags.seconds):
        corpus, log = HOME / "corpus" / name, HOME / f"{name}.log"
        corpus.mkdir(parents=True, exist_ok=True)
        child = os.fork()
        if not child:
            with log.open("w") as said:
                os.dup2(said.fileno(), 1)
                os.dup2(said.fileno(), 2)
            limits = [
                f"-timeout={CASE_SECONDS}",
                f"-rss_limit_mb={MEMORY >> 20}",
                f"-max_total_time={max(1, int(seconds))}",
            ]
            where = [f"-artifact_prefix={HOME}/{name}-", "-max_len=4096", "-len_control=10", f"-seed={flags.seed}"]
            atheris.Setup(
                ["fuzz", *limits, *where, str(corpus)], lambda data, target=targets[name]: target(Drawn(data))
            )
            atheris.Fuzz()
            os._exit(0)
        status = os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])
        told = log.read_text(errors="replace")
        cases, reached = re.findall(r"^#(\d+)", told, re.MULTILINE), re.findall(r"cov: (\d+)", told)
        print(f"{name}: {(cases or ['0'])[-1]} cases, {(reached or ['0'])[-1]} places reached", flush=True)
        if status:
            found = 1
            [*_, file] = re.findall(r"Test unit written to (\S+)", told) or ["-"]
            print(f"{told[-3_000:]}\nagain: python -m tests.fuzz --target={name} --input={file}", file=sys.stderr)
    return found


def _rounds(targets: dict[str, Target], seconds: float) -> Iterator[tuple[str, float]]:
    """Without bound, all targets in turn."""
    yield from ((name, seconds or ROUND_SECONDS) for name in targets)
    while not seconds:
        yield from ((name, ROUND_SECONDS) for name in targets)


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--target", choices=NAMES, action="append")
    parser.add_argument("--seconds", type=float, default=3, help="for each target; 0: in turn, for ever")
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--by", choices=["chance", "coverage"], default="chance")
    parser.add_argument("--case", type=int, help="this one only")
    parser.add_argument("--input", type=Path, help="the bytes in this file only")
    parser.add_argument("--folder", default="/tmp", help="for `case`: what is tried now")
    flags = parser.parse_args()
    names = flags.target or NAMES
    if flags.input:
        from tests.fuzz.making import Drawn

        for target in load(names, nullcontext()).values():
            target(Drawn(flags.input.read_bytes()))
        return 0
    if flags.by == "coverage":
        return by_coverage(names, flags)
    return by_chance(load(names, nullcontext()), flags)


if __name__ == "__main__":
    try:
        sys.exit(main())
    except KeyboardInterrupt:
        sys.exit(130)
