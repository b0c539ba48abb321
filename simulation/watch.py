"""What must hold at every step of a run, and what should have come of it in the end."""

from __future__ import annotations

import base64
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import msgspec
from apache_beam.utils.windowed_value import WindowedValue

from simulation import oracles, truth
from simulation.committed import Committed
from simulation.graph import Step
from simulation.jobs import JOBS
from simulation.log import BAD, Record, Topic
from simulation.oracles import Seen
from simulation.plans import Plan
from transforms.blocks import Block
from transforms.ledger import Counts

__all__ = ["Watch", "WrongError"]


class WrongError(Exception):
    """Something that must hold at every step does not."""


class Watch:
    """
    Args:
      db: the store.
      seen: is told what a run has reached, for counters.
    """

    def __init__(self, plan: Plan, topic: Topic, folder: Path, db: Any, seen: Callable[[str], None]):
        self._plan, self._topic, self._folder, self._db, self._seen = plan, topic, folder, db, seen
        self._partitions = len(topic.partitions)
        self._job = JOBS[plan.job]
        self._ever_read: set[int] = set()
        self._stored: dict[bytes, float] = {}
        self._writes = 0

    # At every step

    def observe(self, step: Step, outputs: list[WindowedValue], state: Committed) -> None:
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
                    self._seen("records were lost, and counted")
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
        return [r for r in self._topic.every if r.partition == partition and r.offset == offset]

    def _check_ledger(self, counts: Counts, state: Committed) -> None:
        ledger = counts.as_dict()
        if ledger["in"] != sum(ledger[name] for name in ("good", "dead_letters", "late", "duplicates")):
            raise WrongError(f"the ledger does not balance: {ledger}")
        if ledger["in"] > len(state.read):
            raise WrongError(f"the ledger knows {ledger['in']} records of {len(state.read)} that were read")
        if ledger["in"] < state.ledger.get("in", 0):
            raise WrongError(f"the ledger went back from {state.ledger} to {ledger}")
        state.ledger = ledger

    def after_write(self) -> None:
        """What the store holds only gets newer."""
        self._writes += 1
        if self._writes % 4:
            return
        now = oracles.versions(self._db)
        if older := [key for key, version in self._stored.items() if now.get(key, -1) < version]:
            raise WrongError(f"the store went back: {sorted(older)[:3]}")
        self._stored = now

    # In the end

    def _rows(self, table: str) -> list[dict[str, Any]]:
        files = sorted(Path(self._folder, table).glob("*.jsonl"))
        return [msgspec.json.decode(line) for file in files for line in file.read_bytes().splitlines()]

    def _letters(self, table: str) -> list[dict[str, Any]]:
        return [{**row, "payload": base64.b64decode(row["payload"] or b"")} for row in self._rows(table)]

    def judge(self, state: Committed) -> Iterator[str]:
        topic = self._topic
        yield from truth.source(topic, state.read, state.lost)
        read, ever = set(state.read), self._ever_read
        excused = {serial for serial in ever - read if topic.every[serial].gone}
        late_rows = self._letters("late")
        late = truth.serials_of(topic, late_rows)
        overtaken = {s for s, row in zip(late, late_rows, strict=True) if row["error_class"] == "Overtaken"} & read
        if overtaken:
            self._seen("a record was overtaken")
            is_as_it_was = len(topic.partitions) == self._partitions and not topic.life
            if is_as_it_was and not self._plan.setting.flags.passes_over:
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
        seen = Seen(self._rows, self._db, self._folder, judged.good if certain else possible, abandoned)
        yield from self._job.check(judged, seen)

    def _count(self, judged: truth.Judged) -> None:
        for name, found in (("late", judged.late), ("dead letters", judged.bad), ("repeats", judged.repeats)):
            if found:
                self._seen(f"there were {name}")
