"""One run: a job, a seed's traffic and its faults, step by step to the end."""

from __future__ import annotations

import random
import shutil
import traceback
from collections import Counter
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from typing import Any

from confluent_kafka import KafkaException

from simulation import faults, seams
from simulation.clock import Clock
from simulation.committed import Committed
from simulation.graph import Step
from simulation.jobs import JOBS, TOPIC, steps
from simulation.kafka import Cluster
from simulation.log import BAD, Topic
from simulation.plans import ACTIONS, Place, Plan, Result
from simulation.runner import Runner
from simulation.seams import Killed
from simulation.store import FaultyStore
from simulation.traffic import Burst
from simulation.watch import Watch, WrongError
from simulation.worker import NothingSetUp
from transforms.io.files import write_whole
from transforms.io.redis import StoreError

__all__ = ["Run", "play"]

_MOST_RETRIES = 400
_PAUSES_S = (1.0, 7.0, 21.0, 25.0, 25.0, 30.0, 7_200.0, 30.0, 30.0, 1_200.0, 30.0, 30.0, 30.0)
"""At the end: for what is asked every 20 s, for what waits for a part's age, and for windows of event time."""


def play(its: Plan, place: Place) -> Result:
    """Runs a plan; the same plan gives the same result."""
    run = Run(its, place)
    with seams.replaced(run.clock, run.cluster, run.store, run.write_whole, its.seed):
        wrong = run.play()
    return Result(wrong, run.trace, run.counts)


class Run:
    def __init__(self, its: Plan, place: Place):
        self.seed, self._plan, self._folder = its.seed, its, place.folder
        self._job = JOBS[its.job]
        self.counts: Counter[str] = Counter()
        self.trace: list[str] = []
        self.clock = Clock()
        self.topic = Topic(TOPIC, its.setting.partitions)
        self.cluster = Cluster(self.topic, self.clock, self.seen)
        self.store = FaultyStore(place.socket, self._effect, self.seen)
        self.store.db.flushdb()
        shutil.rmtree(place.folder, ignore_errors=True)
        place.folder.mkdir(parents=True)
        self.disk_refuses = self.split_after = 0
        self._fuse, self._worker_dies, self._effects = 0, False, 0
        self._zombies: list[Runner] = []
        self._watch = Watch(its, self.topic, place.folder, self.store.db, self.seen)
        self.store.written = self._watch.after_write
        self._steps = steps(its.job, its.setting.flags, str(place.folder))
        self.runner = self._new_runner()
        self.runner.start(1 + its.seed % 3)
        self._checkpoints: list[Committed] = [self.runner.state.copy()]

    def _new_runner(self) -> Runner:
        runner = Runner(self._steps, self.clock, self._effect, in_order=self._job.keeps_order)
        runner.observe = self._watch.observe
        return runner

    def seen(self, what: str) -> None:
        self.counts[what] += 1

    # What faults do

    def arm(self, effects: int, *, worker_dies: bool) -> None:
        """After so many effects, what is going on fails."""
        self._fuse, self._worker_dies = effects, worker_dies

    def _effect(self, _what: str) -> None:
        self._effects += 1
        if self._fuse:
            self._fuse -= 1
            if not self._fuse:
                raise Killed

    def restore(self, chances: random.Random, back: int) -> bool:
        """To the newest checkpoint, or one so much older."""
        if len(self._checkpoints) <= back:
            return False
        del self._checkpoints[len(self._checkpoints) - back :]
        before, parallelism = len(self.runner.workers), chances.choice((1, 2, 3))
        self.runner.state = self._checkpoints[-1].copy()
        if parallelism == before and chances.random() < 0.4:
            for worker in self.runner.workers:
                worker.begin_again()
            self.seen("restored in processes that remember")
        else:
            self.runner.start(parallelism)
            self.seen("restored with another parallelism" if parallelism != before else "restored in new processes")
        return True

    def leave_a_zombie(self) -> None:
        zombie = self._new_runner()
        zombie.observe = lambda *_: None
        zombie.state, zombie.workers = self.runner.state.copy(), self.runner.workers
        for worker in zombie.workers:
            worker.is_given_up = True
        self._zombies.append(zombie)
        self.runner.start(len(self.runner.workers))

    def write_whole(self, path: str, content: bytes) -> None:
        self._effect("file")
        if self.disk_refuses:
            self.disk_refuses -= 1
            self.seen("the disk refuses a file")
            raise OSError("No space left on device")
        write_whole(path, content)
        self._effect("file written")

    # What happens

    def play(self) -> list[str]:
        try:
            for number in range(ACTIONS):
                self._act(number)
            self._drain()
            return list(self._watch.judge(self.runner.state))
        except WrongError as e:
            return [str(e)]
        except Exception as e:  # noqa: BLE001 - whatever a job raises that no fault explains is its fault
            where = traceback.extract_tb(e.__traceback__)[-1]
            return [f"the job raised {type(e).__name__} in {Path(where.filename).name}: {e}"]

    def _act(self, number: int) -> None:
        chances = self.cluster.random = random.Random(f"{self.seed}/{number}")
        for fault in self._plan.faults:
            if fault.at == number:
                self._say(number, f"FAULT {fault}")
                faults.strike(self, fault)
        for burst in self._plan.bursts:
            if burst.at == number:
                self._say(number, self._send(burst, chances))
        action = chances.choices(*zip(*self._choices(chances), strict=True))[0]
        self._say(number, self._try(action, chances))

    def _choices(self, chances: random.Random) -> Iterator[tuple[Callable[[], str], float]]:
        runner = self.runner
        yield lambda: self._tick(chances), 1
        yield lambda: self._advance(chances), 3
        yield self._checkpoint, 1
        if waiting := runner.waiting():
            yield lambda: runner.process(chances.choice(waiting), chances), 8
        if readers := runner.readers():
            yield lambda: self._read(*chances.choice(readers), chances), 4
        if due := runner.due(in_event_time=True):
            yield lambda: runner.fire(chances.choice(due), chances), 4
        if due_now := runner.due(in_event_time=False):
            yield lambda: runner.fire(chances.choice(due_now), chances), 3
        if open_ := self.topic.open_transactions():
            yield lambda: self._end(chances.choice(open_), chances), 1
        if self._zombies:
            yield lambda: self._haunt(chances), 4

    def _try(self, action: Callable[[], str], chances: random.Random) -> str:
        before = self._effects
        try:
            return action()
        except Killed:
            if self._worker_dies:
                self.runner.replace(chances.choice(self.runner.workers))
            self.seen("a worker dies" if self._worker_dies else "a bundle fails")
            if self._effects - before > 1:
                self.seen("a bundle failed after effects")
            return f"killed after {self._effects - before} effects"
        except (StoreError, KafkaException, TimeoutError, OSError) as e:
            self.seen(f"a bundle was given up: {type(e).__name__}")
            return f"failed: {type(e).__name__}"

    def _send(self, burst: Burst, chances: random.Random) -> str:
        transaction = self.topic.begin() if chances.random() < 0.4 else 0
        partitions = self._plan.setting.partitions if self._job.keeps_order else len(self.topic.partitions)
        for event in burst.events:
            partition = event.partition % partitions
            self.topic.write(partition, event.time_ms, event.key, event.value, event.what, transaction)
        newest_ms = max((event.time_ms for event in burst.events if event.what is not BAD), default=0)
        self.clock.sleep(max(0, newest_ms - self.clock.now_ms) / 1000)
        return f"{len(burst.events)} records are sent" + (f" in transaction {transaction}" if transaction else "")

    def _end(self, transaction: int, chances: random.Random) -> str:
        commits = chances.random() < 0.6
        self.topic.end_transaction(transaction, commits=commits)
        self.seen("a transaction was committed" if commits else "a transaction was aborted")
        return f"transaction {transaction} ends: {commits}"

    def _tick(self, chances: random.Random) -> str:
        self.clock.sleep(chances.choice((0.1, 1.0, 6.0, 25.0)))
        return "time passes"

    def _advance(self, chances: random.Random) -> str:
        self.runner.advance(chances)
        return "watermarks"

    def _checkpoint(self) -> str:
        self._checkpoints.append(self.runner.state.copy())
        return f"checkpoint {len(self._checkpoints)}"

    def _read(self, step: Step, key: Any, chances: random.Random) -> str:
        split, self.split_after = self.split_after, 0
        said = self.runner.read(step, key, chances, split or None)
        if split:
            self.seen("the runner splits a reader")
        return said

    def _haunt(self, chances: random.Random) -> str:
        """A bundle of an attempt that was given up: what it does outside is done, and nothing is committed."""
        zombie = self._zombies[0]
        if chances.random() < 0.3:
            self._zombies.pop(0)
        due = zombie.due(in_event_time=False)
        waiting = [step for step in zombie.waiting() if step.kind != "read"]
        try:
            if due and chances.random() < 0.5:
                return f"zombie: {zombie.fire(chances.choice(due), chances)}"
            if waiting:
                return f"zombie: {zombie.process(chances.choice(waiting), chances)}"
        except NothingSetUp:
            pass
        return "a zombie has nothing to do"

    def _drain(self) -> None:
        """No more faults: everything that is under way arrives, and event time goes past all windows."""
        self._fuse = self.store.before = self.store.after = self.disk_refuses = 0
        self.cluster.trouble = self.cluster.away = 0
        self._zombies.clear()
        for transaction in self.topic.open_transactions():
            self.topic.end_transaction(transaction, commits=True)
        for number, pause_s in enumerate(_PAUSES_S):
            chances = self.cluster.random = random.Random(f"{self.seed}/end {number}")
            self.clock.sleep(pause_s)
            for step, key in self.runner.readers():
                self._say(number, self._try(partial(self._read, step, key, chances), chances))
            self._settle(number, chances)

    def _settle(self, number: int, chances: random.Random) -> None:
        runner = self.runner
        for _ in range(_MOST_RETRIES):
            runner.advance(None)
            due = [*runner.due(in_event_time=True), *runner.due(in_event_time=False)]
            waiting = runner.waiting()
            if not due and not waiting:
                return
            for step in waiting:
                self._say(number, self._try(partial(runner.process, step, chances, 1_000), chances))
            for each in due:
                self._say(number, self._try(partial(runner.fire, each, chances), chances))
        raise WrongError("the job does not come to an end")

    def _say(self, number: int, what: str) -> None:
        watermarks = " ".join(str(us // 1000) for us in self.runner.state.output_us[3:6])
        self.trace.append(f"{number:4} {self.clock.now_ms} {what} | {watermarks} | {self._effects}")
