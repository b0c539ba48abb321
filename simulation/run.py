"""One run: a job, a seed's traffic and its faults, step by step to the end, and what was wrong with it.

Long, as what a run does, what befalls it and what it is judged by share its world.
"""

from __future__ import annotations

import base64
import hashlib
import random
import shutil
import traceback
from collections import Counter
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

import msgspec
from apache_beam.utils.windowed_value import WindowedValue
from confluent_kafka import KafkaException

from simulation import faults, oracles, seams, truth
from simulation.clock import Clock
from simulation.committed import Committed
from simulation.faults import Fault
from simulation.graph import Step
from simulation.jobs import JOBS, TOPIC, Setting, steps
from simulation.kafka import Cluster
from simulation.log import BAD, Record, Topic
from simulation.oracles import Seen
from simulation.runner import Runner
from simulation.seams import Killed
from simulation.store import FaultyStore
from simulation.traffic import Burst
from simulation.worker import NothingSetUp
from transforms.blocks import Block
from transforms.io.files import write_whole
from transforms.io.redis import StoreError
from transforms.ledger import Counts

__all__ = ["ACTIONS", "Place", "Plan", "Result", "Run", "plan", "play"]

ACTIONS = 160
_RECORDS = 70
_MOST_RETRIES = 400
_PAUSES_S = (1.0, 7.0, 21.0, 25.0, 25.0, 30.0, 7_200.0, 30.0, 30.0, 1_200.0, 30.0, 30.0, 30.0)
"""At the end: for what is asked every 20 s, for what waits for a part's age, and for windows of event time."""


class Place(NamedTuple):
    """Where runs write: a folder of their own, and a Valkey's socket."""

    folder: Path
    socket: str


class Plan(NamedTuple):
    """All that a run depends on."""

    seed: int
    job: str
    setting: Setting
    bursts: list[Burst]
    faults: list[Fault]


class Result(NamedTuple):
    """
    Attributes:
      wrong: what is, one line each.
      trace: what happened, one line each.
      counts: how often each fault struck, and each state was reached.
    """

    wrong: list[str]
    trace: list[str]
    counts: Counter[str]

    def digest(self) -> str:
        return hashlib.sha256("\n".join(self.trace).encode()).hexdigest()[:16]


class WrongError(Exception):
    """Something that must hold at every step does not."""


def plan(job: str, seed: int) -> Plan:
    chances, its = random.Random(f"plan {seed}"), JOBS[job]
    setting = Setting.drawn(chances, may_idle=its.may_idle)
    bursts = its.traffic(chances, chances.randint(10, _RECORDS), ACTIONS, setting.flags.lateness_ms)
    return Plan(seed, job, setting, bursts, faults.schedule(chances, ACTIONS, its.spared))


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
        self.store.written = self._after_write
        self.store.db.flushdb()
        shutil.rmtree(place.folder, ignore_errors=True)
        place.folder.mkdir(parents=True)
        self.disk_refuses, self.split_after, self.has_grown = 0, 0, False
        self._fuse, self._worker_dies, self._effects = 0, False, 0
        self._zombies: list[Runner] = []
        self._ever_read: set[int] = set()
        self._steps = steps(its.job, its.setting.flags, str(place.folder))
        self.runner = self._new_runner()
        self.runner.start(1 + its.seed % 3)
        self._checkpoints: list[Committed] = [self.runner.state.copy()]
        self._stored: dict[bytes, float] = {}
        self._writes = 0

    def _new_runner(self) -> Runner:
        runner = Runner(self._steps, self.clock, self._effect, in_order=self._job.keeps_order)
        runner.observe = self._observe
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
            return list(self._judge())
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
        transaction = self.topic.begin() if chances.random() < 0.3 else 0
        partitions = self._plan.setting.partitions if self._job.keeps_order else len(self.topic.partitions)
        for event in burst.events:
            partition = event.partition % partitions
            self.topic.write(partition, event.time_ms, event.key, event.value, event.what, transaction)
        newest_ms = max(event.time_ms for event in burst.events)
        self.clock.sleep(max(0, min(newest_ms, self.clock.now_ms + 3_000_000) - self.clock.now_ms) / 1000)
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

    # What must hold

    def _observe(self, step: Step, outputs: list[WindowedValue], state: Committed) -> None:
        if step.kind == "read":
            for element in outputs:
                block: Block = element.value
                state_read = [*map(self._find(block), range(len(block)))]
                known = set(state.read)
                if again := known & set(state_read):
                    raise WrongError(f"records were read twice: {sorted(again)[:5]}")
                state.read += state_read
                state.lost += block.lost
                self._ever_read.update(state_read)
                if block.lost:
                    self.seen("records were lost, and counted")
        elif step.label.endswith("Ledger/Sum"):
            for element in outputs:
                self._check_ledger(element.value, state)

    def _find(self, block: Block) -> Callable[[int], int]:
        def serial(i: int) -> int:
            offset, time_ms, payload = int(block.offsets[i]), int(block.times_ms[i]), block.payload(i)
            for record in reversed(self._at(block.partition, offset)):
                if record.time_ms == time_ms and record.value == payload:
                    if record.state != "committed":
                        raise WrongError(f"record {record.serial} of a transaction that is {record.state} was read")
                    return record.serial
            raise WrongError(f"what was read at {block.partition}/{offset} is in no log")

        return serial

    def _at(self, partition: int, offset: int) -> list[Record]:
        return [r for r in self.topic.every if r.partition == partition and r.offset == offset]

    def _check_ledger(self, counts: Counts, state: Committed) -> None:
        ledger = counts.as_dict()
        if ledger["in"] != sum(ledger[name] for name in ("good", "dead_letters", "late", "duplicates")):
            raise WrongError(f"the ledger does not balance: {ledger}")
        if ledger["in"] > len(state.read):
            raise WrongError(f"the ledger knows {ledger['in']} records of {len(state.read)} that were read")
        if ledger["in"] < state.ledger.get("in", 0):
            raise WrongError(f"the ledger went back from {state.ledger} to {ledger}")
        state.ledger = ledger

    def _after_write(self) -> None:
        """What the store holds only gets newer."""
        self._writes += 1
        if self._writes % 4:
            return
        now = oracles.versions(self.store.db)
        if older := [key for key, version in self._stored.items() if now.get(key, -1) < version]:
            raise WrongError(f"the store went back: {sorted(older)[:3]}")
        self._stored = now

    # What came of it

    def _rows(self, table: str) -> list[dict[str, Any]]:
        files = sorted(Path(self._folder, table).glob("*.jsonl"))
        return [msgspec.json.decode(line) for file in files for line in file.read_bytes().splitlines()]

    def _letters(self, table: str) -> list[dict[str, Any]]:
        return [{**row, "payload": base64.b64decode(row["payload"] or b"")} for row in self._rows(table)]

    def _judge(self) -> Iterator[str]:
        state, topic = self.runner.state, self.topic
        yield from truth.source(topic, state.read, state.lost)
        read, ever = set(state.read), self._ever_read
        excused = {serial for serial in ever - read if topic.every[serial].gone}
        late_rows = self._letters("late")
        late = truth.serials_of(topic, late_rows)
        overtaken = {s for s, row in zip(late, late_rows, strict=True) if row["error_class"] == "Overtaken"} & read
        if overtaken:
            self.seen("a record was overtaken")
            if not self._plan.setting.flags.passes_over and not self.has_grown and not topic.life:
                yield f"records were overtaken, and no partition was passed over: {sorted(overtaken)[:5]}"
        records = [topic.every[serial] for serial in state.read]
        judged = truth.judge(records, self._plan.setting.flags.lateness_ms, overtaken, self._job.identity)
        bad = truth.serials_of(topic, self._letters("dead_letters"))
        yield from truth.letters(topic, bad, judged.bad, excused, "dead_letters")
        yield from truth.letters(topic, late, judged.late, excused, "late")
        expected = judged.ledger(state.lost)
        if state.ledger != expected:
            yield f"the ledger says {state.ledger}, and should say {expected}"
        self._count(judged)
        possible = [topic.every[s] for s in sorted(ever) if topic.every[s].what is not BAD]
        certain = ever == read and not overtaken
        abandoned = [topic.every[serial] for serial in excused if topic.every[serial].what is not BAD]
        seen = Seen(self._rows, self.store.db, self._folder, judged.good if certain else possible, abandoned)
        yield from self._job.check(judged, seen)

    def _count(self, judged: truth.Judged) -> None:
        for name, found in (("late", judged.late), ("dead letters", judged.bad), ("repeats", judged.repeats)):
            if found:
                self.seen(f"there were {name}")
