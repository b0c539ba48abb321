"""Who may do what in Kafka, and no more: one principal per job and per program, from the jobs' own declarations.

What is written here is given to the brokers of `python -m stack up --secure`, and printed for any other cluster by
`python -m stack access`. The secure demo runs on it.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import Final, Literal, NamedTuple

from schemas.jobs import CAPTURED, JOBS, Job
from schemas.jobs.shop import CLICKS, EVENTS_LETTERS, INVENTORY, ORDERS, RULES, RULES_GROUP

__all__ = ["API", "CONNECT", "LETTERS_TOOL", "RULES_TOOL", "SIMULATOR", "Grant", "grants", "principals"]

SIMULATOR: Final = "simulator"
API: Final = "api"
LETTERS_TOOL: Final = "dead-letters"
RULES_TOOL: Final = "rules"
CONNECT: Final = "connect"

Operation = Literal["READ", "WRITE", "CREATE", "DESCRIBE", "DESCRIBE_CONFIGS"]
_READS: Final[tuple[Operation, ...]] = ("READ", "DESCRIBE", "DESCRIBE_CONFIGS")
_WRITES: Final[tuple[Operation, ...]] = ("WRITE", "DESCRIBE", "DESCRIBE_CONFIGS")


class Grant(NamedTuple):
    """
    Attributes:
      prefix: whether `name` is what the names begin with.
      why: for people.
    """

    principal: str
    resource: Literal["TOPIC", "GROUP"]
    name: str
    operations: tuple[Operation, ...]
    why: str
    prefix: bool = False


def principals(jobs: Iterable[Job] = JOBS.values()) -> tuple[str, ...]:
    return (*(job.name for job in jobs), API, SIMULATOR, LETTERS_TOOL, RULES_TOOL, CONNECT)


def grants(jobs: Iterable[Job] = JOBS.values()) -> list[Grant]:
    """All there are, by principal. No operation is granted twice, which brokers' clients refuse."""
    jobs = tuple(jobs)
    granted: set[tuple[object, ...]] = set()
    found = []
    for each in (*(grant for job in jobs for grant in _of_job(job)), *_of_api(jobs), *_of_tools(jobs), *_of_connect()):
        new = tuple(op for op in each.operations if (*each[:3], each.prefix, op) not in granted)
        granted.update((*each[:3], each.prefix, op) for op in new)
        if new:
            found.append(each._replace(operations=new))
    return found


def _of_job(job: Job) -> Iterator[Grant]:
    for topic in job.topics:
        yield Grant(job.name, "TOPIC", topic, _READS, "its input")
    if any(flag.name == "rules_topic" for flag in job.flags):
        yield Grant(job.name, "TOPIC", RULES, _READS, "which rules are in force (--rules_topic)")
        yield Grant(job.name, "GROUP", RULES_GROUP, ("DESCRIBE",), "which its reader of rules names, and never joins")
    yield Grant(job.name, "GROUP", job.name, ("READ",), "where it shows how far it has come")
    for rows in job.tables:
        if rows.topic:
            yield Grant(job.name, "TOPIC", rows.topic, _WRITES, "its results")
    for topic in job.letters:
        yield Grant(job.name, "TOPIC", topic, _WRITES, "what it refuses")


def _of_api(jobs: tuple[Job, ...]) -> Iterator[Grant]:
    for job in jobs:
        yield Grant(API, "GROUP", job.name, ("DESCRIBE",), "how far the job has come (--kafka)")
    for topic in _read(jobs):
        yield Grant(API, "TOPIC", topic, ("DESCRIBE",), "where the topic ends")
    for topic in (ORDERS, CLICKS):
        yield Grant(API, "TOPIC", topic, ("WRITE", "DESCRIBE"), "events that it is sent (--events)")
    yield Grant(API, "TOPIC", EVENTS_LETTERS, ("WRITE", "DESCRIBE"), "those that it refuses (--events)")


def _of_tools(jobs: tuple[Job, ...]) -> Iterator[Grant]:
    for topic in (ORDERS, CLICKS, INVENTORY):
        yield Grant(SIMULATOR, "TOPIC", topic, ("WRITE", "DESCRIBE"), "events")
    for topic in (*(topic for job in jobs for topic in job.letters), EVENTS_LETTERS):
        yield Grant(LETTERS_TOOL, "TOPIC", topic, _READS, "letters")
    for topic in _read(jobs):
        yield Grant(LETTERS_TOOL, "TOPIC", topic, ("READ", "WRITE", "DESCRIBE"), "where a replay sends them back")
    yield Grant(LETTERS_TOOL, "GROUP", "streamforge-", ("READ",), "which letters are done", prefix=True)
    yield Grant(RULES_TOOL, "TOPIC", RULES, ("READ", *_WRITES), "versions of the rules, and which is in force")
    yield Grant(RULES_TOOL, "GROUP", RULES_GROUP, ("DESCRIBE",), "which its reader names, and never joins")


def _of_connect() -> Iterator[Grant]:
    for table in CAPTURED:
        yield Grant(CONNECT, "TOPIC", f"cdc.public.{table}", ("CREATE", *_WRITES), "changes of the database")
    for topic in ("configs", "offsets", "status"):
        yield Grant(CONNECT, "TOPIC", f"connect.{topic}", ("CREATE", "READ", *_WRITES), "Connect's own")
    yield Grant(CONNECT, "GROUP", "connect", ("READ",), "Connect's workers")


def _read(jobs: tuple[Job, ...]) -> list[str]:
    return sorted({topic for job in jobs for topic in job.topics})
