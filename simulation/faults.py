"""What can go wrong, and when: the schedule of a seed, and how each fault is done to a run."""

from __future__ import annotations

import random
from typing import TYPE_CHECKING, NamedTuple

if TYPE_CHECKING:
    from simulation.run import Run

__all__ = ["ANEW", "CUT", "KINDS", "OF_THE_LOG", "OLDER", "PARTITION", "ZOMBIE", "Fault", "schedule", "strike"]

LEADER, ZOMBIE = "another leader", "an attempt that was given up writes on"
ADMIN = "the cluster does not answer"

KINDS = {
    "a bundle fails": 8,
    "a worker dies": 4,
    "the runner splits a reader": 3,
    "the clock jumps": 2,
    "the job restarts": 4,
    "the job goes back to an earlier checkpoint": 3,
    ZOMBIE: 2,
    "the store fails before a write": 2,
    "the store fails after a write": 2,
    "the store is away for minutes": 1,
    "the disk refuses a file": 2,
    "fetches fail": 1,
    ADMIN: 1,
    LEADER: 3,
}
"""By how often they are drawn."""

PARTITION, ANEW = "a partition is added", "the topic is made anew"
CUT, OLDER = "an unclean leader cuts the log back", "the log is an older copy"
OF_THE_LOG = (PARTITION, "retention", CUT, OLDER, ANEW)
"""Of these, a seed has one kind, or none: what the log loses, no job can find again, and less can be asked then."""


class Fault(NamedTuple):
    """
    Attributes:
      at: the action before which it strikes.
      kind: of KINDS.
      lot: in [0, 1): how hard, where, or when.
    """

    at: int
    kind: str
    lot: float

    def __str__(self) -> str:
        return f"at {self.at}: {self.kind} ({self.lot:.3f})"


def schedule(chances: random.Random, actions: int, spared: frozenset[str]) -> list[Fault]:
    """The faults of a seed.

    Args:
      spared: kinds that there are not.
    """
    weights = {kind: weight for kind, weight in KINDS.items() if kind not in spared}
    drawn = chances.choices([*weights], [*weights.values()], k=chances.choice((0, 2, 4, 6, 9, 12)))
    if chances.random() < 0.4:
        kind = chances.choice([kind for kind in OF_THE_LOG if kind not in spared])
        drawn += [kind] * chances.choice((1, 2, 3))
        if kind == OLDER:  # than what a later leader wrote
            drawn += [LEADER] * 3
        if kind == ANEW:  # a defect that is known: docs/proof.md
            drawn = [each for each in drawn if each != ADMIN]
    return sorted(Fault(chances.randrange(1, actions), kind, chances.random()) for kind in drawn)


def strike(run: Run, fault: Fault) -> None:
    """Does a fault to a run. It counts when it had something to strike."""
    if _struck(run, fault):
        run.seen(fault.kind)


def _struck(run: Run, fault: Fault) -> bool:
    lot, topic = fault.lot, run.topic
    chances = random.Random(f"fault {run.seed} {fault}")
    match fault.kind:
        case "a bundle fails" | "a worker dies":
            run.arm(1 + int(lot * 12), worker_dies=fault.kind == "a worker dies")
            return False  # it counts when it strikes
        case "the job restarts":
            return run.restore(chances, back=0)
        case "the job goes back to an earlier checkpoint":
            return run.restore(chances, back=1 + int(lot * 4))
        case "an attempt that was given up writes on":
            run.leave_a_zombie()
            return run.restore(chances, back=0)
        case "the store fails before a write":
            run.store.before += 1 + int(lot * 3)
        case "the store fails after a write":
            run.store.after += 1 + int(lot * 3)
        case "the store is away for minutes":
            run.store.before += 40
        case "the disk refuses a file":
            run.disk_refuses += 1
            return False
        case "fetches fail":
            run.cluster.trouble += 1 + int(lot * 5)
        case "the cluster does not answer":
            run.cluster.away += 1 + int(lot * 3)
        case "another leader":
            chances.choice(topic.partitions).epoch += 1
        case "the runner splits a reader":
            run.split_after = 1 + int(lot * 2)
            return False
        case "the clock jumps":
            run.clock.sleep(lot * 120)
        case _:
            return _strike_the_log(run, fault, chances)
    return True


def _strike_the_log(run: Run, fault: Fault, chances: random.Random) -> bool:
    topic = run.topic
    log = chances.choice([each for each in topic.partitions if each.records] or topic.partitions)
    match fault.kind:
        case "retention":
            start = log.start + round((log.stable_end - log.start) * fault.lot)
            log.sweep(start)
            return start > 0
        case "an unclean leader cuts the log back":
            end = log.end - round((log.end - log.start) * fault.lot / 2)
            cuts = end < log.end
            log.cut(end)
            log.epoch += 1
            log.cuts += cuts
            log.is_doubtful |= log.cuts > 1
            return cuts
        case "the log is an older copy":
            end = log.end - round((log.end - log.start) * fault.lot / 2)
            if end == log.end or not log.epoch:
                return False
            log.is_doubtful = True
            log.cut(end)
            log.epoch = max((record.epoch for record in log.records), default=0)
        case "the topic is made anew":
            if not any(log.end for log in topic.partitions):
                return False
            run.clock.sleep(2.0)
            topic.make_anew()
        case "a partition is added":
            topic.partitions.append(type(log)())
    return True
