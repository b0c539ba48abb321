"""The simulation finds nothing, finds what is planted, and gives the same again for the same number."""

from __future__ import annotations

import ast
import os
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from simulation import __main__ as command
from simulation import known
from simulation.defects import defects
from simulation.jobs import JOBS
from simulation.plans import Place, Plan, plan
from simulation.run import play
from simulation.shrink import shrunk
from simulation.store import valkey
from tests.mutants import faults as mutants
from tests.mutants.faults import ROOT
from transforms.keyed_state import Shard, Shards

pytestmark = pytest.mark.stack

SEEDS = 300
KEPT = [("fraud", 81)]
"""Seeds that find what was mended: their job, and they. If draws change, `simulation.defects` finds others."""


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Place]:
    with valkey() as socket:
        yield Place(tmp_path_factory.mktemp("simulation") / "out", socket)


def test_other_seeds_each_time_find_nothing_and_reach_every_fault(place: Place) -> None:
    first = int(time.time()) % 1_000_000 * 1_000
    print(f"seeds from {first}")
    jobs, counts = list(JOBS), Counter[str]()
    for seed in range(first, first + SEEDS):
        job = jobs[seed % len(jobs)]
        result = play(plan(job, seed), place)
        assert result.wrong == [], f"python -m simulation --job={job} --seed={seed} --trace"
        counts += result.counts
    assert known.missing(counts) == [], f"seeds from {first} have shown less than they say"


@pytest.mark.parametrize(("job", "seed"), KEPT)
def test_seeds_that_have_found_something_find_it_no_more(place: Place, job: str, seed: int) -> None:
    assert play(plan(job, seed), place).wrong == []


@pytest.mark.parametrize("job", JOBS)
def test_a_run_without_faults_does_something_and_is_right(place: Place, job: str) -> None:
    result = play(plan(job, 3)._replace(faults=[]), place)
    assert result.wrong == []
    assert len(result.trace) > 200
    assert list(place.folder.rglob("*.jsonl"))


def test_a_seed_gives_the_same_trace_in_another_process() -> None:
    def traced(hash_seed: str) -> str:
        done = subprocess.run(
            [sys.executable, "-m", "simulation", "--job=fraud", "--seed=41", "--trace"],
            cwd=ROOT,
            env={**os.environ, "PYTHONHASHSEED": hash_seed},
            capture_output=True,
            text=True,
            check=False,
        )
        assert done.returncode == 0, done.stderr
        return done.stdout

    once = traced("1")
    assert once.count("\n") > 180
    assert once == traced("2")


def test_a_defect_is_found_told_in_few_steps_and_those_can_be_played_again(
    place: Place, monkeypatch: pytest.MonkeyPatch
) -> None:
    def whatever_is_in_memory(self: Shards[Any], shard: int, token: Any, log: Any) -> Shard[Any]:
        copy = self._memory.take(shard)
        return original(self, shard, token, log) if copy is None else copy

    original = Shards.open
    monkeypatch.setattr(Shards, "open", whatever_is_in_memory)
    its, wrong = next(found for seed in range(400) if (found := _wrong("fraud", seed, place)) is not None)
    least = shrunk(its, wrong, place)
    assert 1 <= len(least.faults) <= 3
    assert _records(least) < _records(its)
    again = play(least, place)
    assert again.wrong
    assert again.digest() == play(least, place).digest()
    monkeypatch.undo()
    assert play(least, place).wrong == []


def _wrong(job: str, seed: int, place: Place) -> tuple[Plan, str] | None:
    its = plan(job, seed)
    wrong = play(its, place).wrong
    return (its, wrong[0]) if wrong else None


def _records(its: Plan) -> int:
    return sum(len(burst.events) for burst in its.bursts)


def test_a_run_that_never_reached_a_fault_names_it() -> None:
    reached = Counter(dict.fromkeys(known.missing(Counter()), 1))
    assert len(reached) > 30
    assert known.missing(reached) == []
    del reached["a worker dies"]
    assert known.missing(reached) == ["a worker dies"]


@pytest.mark.parametrize("defect", defects(), ids=lambda defect: defect.what)
def test_a_defect_can_be_planted(defect: mutants.Fault) -> None:
    text = Path(ROOT, defect.file).read_text(encoding="utf-8")
    assert ast.dump(ast.parse(defect.planted_in(text))) != ast.dump(ast.parse(text))


@pytest.mark.parametrize(
    ("words", "why"),
    [
        (["--seeds=none"], "simulation: --seeds: 'none' is not a whole number; see --help"),
        (["--seeds=0"], "simulation: --seeds: must be at least 1; see --help"),
        (["--job=cdc"], "simulation: --job: invalid choice: 'cdc' (choose from "),
        (["--trace"], "simulation: --trace: of one seed alone: give --seed, too"),
        (["more"], "simulation: unrecognized arguments: more"),
    ],
)
def test_a_wrong_flag_is_one_line_and_status_2(words: list[str], why: str, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as ended:
        command.main(words)
    assert ended.value.code == 2
    (line,) = capsys.readouterr().err.splitlines()
    assert line.startswith(why)


def test_many_seeds_side_by_side_are_counted_and_end_well() -> None:
    done = subprocess.run(
        [sys.executable, "-m", "simulation", "--seeds=8", "--first=100", "--processes=2"],
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    assert done.stdout.startswith("seeds 100 to 107 of fraud, sessions, revenue, archive\n")
    assert "8 seeds in " in done.stdout
    assert done.stdout.endswith(": 0 wrong\n")
