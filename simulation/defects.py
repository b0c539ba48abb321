"""Plants defects in a copy of the tree, one at a time, and says which seed of the simulation finds each.

    python -m simulation.defects             all of them: a table
    python -m simulation.defects WORD…       those with one of the words in what they are, or where

They are those that were mended here (`simulation/defects.toml`), and those of the mutation tests
(`tests/mutants/faults.toml`) in code that is simulated.
"""

from __future__ import annotations

import re
import shutil
import subprocess
import sys
import tempfile
import time
import tomllib
from pathlib import Path
from typing import NamedTuple

from schemas.flags import Parser, typed
from simulation.numbers import positive, whole
from tests.mutants.faults import ROOT, Fault, faults

__all__ = ["Verdict", "defects", "main", "planted"]

_JOBS = {
    **dict.fromkeys(("transforms/archive_topic.py",), "archive"),
    **dict.fromkeys(("transforms/domain/sessions.py", "transforms/sessions.py"), "sessions"),
    **dict.fromkeys(("transforms/io/redis_scripts.py", "transforms/domain/versions.py"), "sessions"),
    **dict.fromkeys(("transforms/domain/revenue.py", "transforms/gather.py", "transforms/revenue.py"), "revenue"),
    **dict.fromkeys(("transforms/domain/fraud.py", "transforms/fraud.py", "transforms/io/folder.py"), "fraud"),
    **dict.fromkeys(("transforms/keyed_state.py", "transforms/ledger.py", "transforms/watermarks.py"), "fraud"),
    **dict.fromkeys(("transforms/partition_clock.py", "transforms/io/redis.py"), "fraud"),
}
"""Code that is simulated, and a job that uses it."""
_SIMULATED = (*("transforms/io/kafka/", "transforms/domain/seen.py", *_JOBS),)


class Verdict(NamedTuple):
    """
    Attributes:
      job, seed, wrong: where it was found, and as what; job is '' when it was not.
    """

    defect: Fault
    job: str
    seed: int
    wrong: str
    seconds: float


def defects() -> list[Fault]:
    with (ROOT / "simulation/defects.toml").open("rb") as toml:
        mended = [Fault(**each) for each in tomllib.load(toml)["defect"]]
    return mended + [fault for fault in faults() if fault.file.startswith(_SIMULATED)]


def main(arguments: list[str] | None = None) -> int:
    parser = Parser(prog="python -m simulation.defects", description=__doc__.partition("\n\n    ")[0])
    parser.add_argument("words", nargs="*", metavar="WORD", help="only defects with one of these words")
    parser.add_argument("--seeds", type=typed(positive), default=400, metavar="N", help="tried for each; default 400")
    parser.add_argument("--first", type=typed(whole), default=0, metavar="N", help="the first seed; default 0")
    flags = parser.parse_args(arguments)
    chosen = [d for d in defects() if not flags.words or any(word in f"{d.file} {d.what}" for word in flags.words)]
    if not chosen:
        parser.stop(f"no defect has {' or '.join(flags.words)} in it")
    found = 0
    print("| defect | found as | job | seed | s |\n|---|---|---|---|---|", flush=True)
    with tempfile.TemporaryDirectory(prefix="defects-") as folder:
        tree = _copy(Path(folder))
        for defect in chosen:
            verdict = planted(defect, tree, flags.first, flags.seeds)
            found += bool(verdict.job)
            what = f"{verdict.wrong} | {verdict.job} | {verdict.seed}" if verdict.job else "**not found** | | "
            print(f"| {defect.what} | {what} | {verdict.seconds:.0f} |", flush=True)
    print(f"\n{found} of {len(chosen)} defects were found")
    return 0


def planted(defect: Fault, tree: Path, first: int, seeds: int) -> Verdict:
    """Runs the simulation on a tree with a defect in it, which is taken out again."""
    path, began = tree / defect.file, time.monotonic()
    before = path.read_text(encoding="utf-8")
    path.write_text(defect.planted_in(before), encoding="utf-8")
    try:
        words = ["-m", "simulation", f"--seeds={seeds}", f"--first={first}", "--stop"]
        words += [f"--job={_JOBS[defect.file]}"] if defect.file in _JOBS else []
        words += ["--job=fraud"] if defect.file.startswith("transforms/io/kafka/") else []
        done = subprocess.run([sys.executable, *words], cwd=tree, capture_output=True, text=True, check=False)
    finally:
        path.write_text(before, encoding="utf-8")
    seconds = time.monotonic() - began
    wrong = re.search(r"WRONG seed (\d+), (\w+): (.*)", done.stdout)
    if wrong:
        return Verdict(defect, wrong[2], int(wrong[1]), re.split(r"[:{;(]", wrong[3])[0].strip(), seconds)
    if done.returncode and "NEVER REACHED" not in done.stdout:
        raise RuntimeError(f"{defect.what}: {done.stderr[-2_000:]}")
    return Verdict(defect, "", 0, "", seconds)


def _copy(tree: Path) -> Path:
    """What git knows of, as it stands in the working tree."""
    wanted = ("*.py", "*.yaml", "*.avsc", "*.toml", "*.json")
    listed = subprocess.run(["git", "ls-files", "-z", *wanted], cwd=ROOT, capture_output=True, check=True)
    for name in listed.stdout.decode().split("\0"):
        if name and (ROOT / name).is_file():
            (tree / name).parent.mkdir(parents=True, exist_ok=True)
            shutil.copy2(ROOT / name, tree / name)
    return tree


if __name__ == "__main__":
    sys.exit(main())
