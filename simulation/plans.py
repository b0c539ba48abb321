"""What a seed says: the plan of a run. And what a run gives back."""

from __future__ import annotations

import hashlib
import random
from collections import Counter
from pathlib import Path
from typing import NamedTuple

from simulation import faults
from simulation.faults import Fault
from simulation.jobs import JOBS, Setting
from simulation.traffic import Burst

__all__ = ["ACTIONS", "Place", "Plan", "Result", "plan"]

ACTIONS = 160
_RECORDS = 70


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


def plan(job: str, seed: int) -> Plan:
    chances, its = random.Random(f"plan {seed}"), JOBS[job]
    setting = Setting.drawn(chances, may_idle=its.may_idle)
    bursts = its.traffic(chances, chances.randint(10, _RECORDS), ACTIONS, setting.flags.lateness_ms)
    return Plan(seed, job, setting, bursts, faults.schedule(chances, ACTIONS, its.spared))
