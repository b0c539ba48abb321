"""Plants each fault of `faults.toml` in a copy of the tree, and tells which test noticed: `make mutants`.

`python -m tests.mutants WORD…` plants those with one of the words in what they are or where.
"""

from __future__ import annotations

import multiprocessing
import os
import queue
import re
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from pathlib import Path
from typing import NamedTuple

from tests.mutants import forked
from tests.mutants.faults import ROOT, Fault, faults

_TIMEOUT_S = 1_800
# What is long to import and none of ours; each run is forked from a process that has it.
_PRELOAD = ["apache_beam", "confluent_kafka", "fastavro", "hypothesis", "numpy", "pytest", "redis", "yaml"]
_FORKS = multiprocessing.get_context("forkserver")


class Verdict(NamedTuple):
    """
    Attributes:
      noticed_by: the first test that failed; '' when none did.
    """

    fault: Fault
    noticed_by: str
    seconds: float


def main(words: list[str]) -> int:
    planted = [f for f in faults() if not words or any(word in f"{f.file} {f.what}" for word in words)]
    began = time.monotonic()
    _FORKS.set_forkserver_preload(_PRELOAD)
    with tempfile.TemporaryDirectory(prefix="mutants-") as folder:
        trees: queue.SimpleQueue[Path] = queue.SimpleQueue()
        for number in range(os.cpu_count() or 1):
            trees.put(_copy(Path(folder) / str(number)))
        files = sorted({test for fault in planted for test in fault.tests})
        print(f"{len(planted)} faults, {len(files)} files of tests; first without any fault", flush=True)
        with ThreadPoolExecutor(trees.qsize()) as threads:
            if broken := [name for name in threads.map(partial(_broken, trees), files) if name]:
                print(f"fails without any fault: {', '.join(broken)}")
                return 2
            verdicts = list(threads.map(partial(_judge, trees), planted))
    survived = [verdict.fault for verdict in verdicts if not verdict.noticed_by]
    for fault in survived:
        print(f"{'ARGUED' if fault.argued else 'SURVIVED'}  {fault.file}: {fault.what}. {fault.argued}")
    noticed = len(planted) - len(survived)
    print(f"{noticed} of {len(planted)} faults were noticed, in {(time.monotonic() - began) / 60:.1f} minutes")
    return int(any(not fault.argued for fault in survived))


def _copy(tree: Path) -> Path:
    """What git knows of, as it stands in the working tree."""
    listed = subprocess.run(
        ["git", "ls-files", "-co", "--exclude-standard", "-z"], cwd=ROOT, capture_output=True, check=True
    )
    for name in listed.stdout.decode().split("\0"):
        if name and (ROOT / name).is_file():
            (tree / name).parent.mkdir(parents=True, exist_ok=True)
            shutil.copy2(ROOT / name, tree / name)
    return tree


def _broken(trees: queue.SimpleQueue[Path], file: str) -> str:
    tree = trees.get()
    try:
        return _first_failure(tree, [file])
    finally:
        trees.put(tree)


def _judge(trees: queue.SimpleQueue[Path], fault: Fault) -> Verdict:
    tree, began = trees.get(), time.monotonic()
    path = tree / fault.file
    before = path.read_text(encoding="utf-8")
    try:
        path.write_text(fault.planted_in(before), encoding="utf-8")
        verdict = Verdict(fault, _first_failure(tree, fault.tests), time.monotonic() - began)
    finally:
        path.write_text(before, encoding="utf-8")
        trees.put(tree)
    print(
        f"{verdict.seconds:5.0f} s  {fault.file}: {fault.what}\n         {verdict.noticed_by or 'NOBODY'}", flush=True
    )
    return verdict


def _first_failure(tree: Path, tests: list[str]) -> str:
    """The name of the first test that fails; '' when all pass.

    Raises: RuntimeError: the tests could not be run.
    """
    said = tree / ".said"
    run = _FORKS.Process(target=forked.run_pytest, args=(tree, tests, said))
    run.start()
    run.join(_TIMEOUT_S)
    if run.exitcode is None:
        os.killpg(run.pid, signal.SIGKILL)
        return f"{tests}: no end after {_TIMEOUT_S} s"
    words = said.read_text(errors="replace")
    failed = re.search(r"^(?:FAILED|ERROR) (\S+)", words, re.MULTILINE)
    if run.exitcode not in (0, 1) or (run.exitcode == 1) != bool(failed):
        raise RuntimeError(f"status {run.exitcode} of {tests}: {words[-4_000:]}")
    return failed[1] if failed else ""


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
