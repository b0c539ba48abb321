"""Rebuilds the online store, or the tables, from the archive: each job reads it once, one after the other.

    python -m beam_pipelines.rebuild --archive=gs://bucket/archive --output=redis://host:6379/0
    python -m beam_pipelines.rebuild --archive=gs://bucket/archive --output=redis://host:6379/0 --days='2026-11-2*'

Give the flags that the jobs run with (--session_gap=…, --rules=…, --store_config=…): each goes to every job that has
it, and Beam's, such as --runner=FlinkRunner, to all. The jobs may run meanwhile: what they write is as new or newer,
and stays. What capture writes is not in the archive: `python -m cdc snapshot` reads it from the database again.
"""

from __future__ import annotations

import sys
from collections.abc import Sequence

from beam_pipelines import flags
from beam_pipelines.archive import table_of
from beam_pipelines.run import run
from schemas.flags import Parser, UsageError
from schemas.jobs import JOBS, Job
from transforms.io.files import match_files

__all__ = ["main"]

_OURS = frozenset({"input", "output", "dead_letters", "late", "ledger", "until", "mapping", "format"})


def main(argv: Sequence[str] | None = None) -> None:
    parser = _parser()
    try:
        given, rest = parser.parse_known_args(argv)
        files = {job: _files(job, given.archive, given.days) for job in JOBS.values() if _is_archived(job)}
        if not any(files.values()):
            raise UsageError("--archive", f"{given.archive} has no files of days {given.days}")
        own = {job: _own(job, rest) for job in files}
    except UsageError as e:
        parser.stop(e)
    letters = [f"--{name}={given.dead_letters}" for name in ("dead_letters", "late")]
    for job, named in files.items():
        sys.stderr.write(f"{job.name}: {named or 'there are no files of it'}\n")
        if named:
            run(job, [f"--input={named}", *(f"--output={url}" for url in given.output), *letters, *own[job]])


def _parser() -> Parser:
    about, _, rest = (__doc__ or "").partition("\n\n")
    parser = Parser(prog="python -m beam_pipelines.rebuild", description=about, epilog=rest.rpartition("\n\n")[2])
    add = parser.add_argument
    add("--archive", required=True, metavar="FOLDER", help="what the archiver wrote, local or gs://")
    add("--output", required=True, action="append", metavar="URL", help="as the jobs' --output; repeatable")
    add("--days", default="*", metavar="GLOB", help="event days, such as '2026-11-2*' (default: all)")
    add("--dead_letters", default="rebuild", metavar="FOLDER", help="for what is refused (default: %(default)s)")
    return parser


def _is_archived(job: Job) -> bool:
    """Whether the archive has all that it reads."""
    return job.online and set(job.topics) <= set(JOBS["archive"].topics)


def _files(job: Job, archive: str, days: str) -> str | None:
    """A glob of the files that a job reads; None if there are none."""
    (topic,) = job.topics
    named = f"{archive.rstrip('/')}/{table_of(topic).name}/day={days}/**"
    try:
        match_files(named)
    except ValueError:
        return None
    except OSError as e:
        raise UsageError("--archive", e) from e
    return named


def _joined(words: Sequence[str]) -> list[str]:
    """`--flag value` as `--flag=value`: the value is of whom the flag is of."""
    found: list[str] = []
    for word in words:
        if word.startswith("-") or not found or "=" in found[-1]:
            found.append(word)
        else:
            found[-1] += f"={word}"
    return found


def _own(job: Job, words: Sequence[str]) -> list[str]:
    """Of the flags, those that are not another job's alone. Raises: UsageError."""
    of = {each: {flag.name for group in flags.of_job(each).values() for flag in group} for each in JOBS.values()}
    found = []
    for word in _joined(words):
        name = word.removeprefix("--").partition("=")[0]
        if name in _OURS:
            raise UsageError(f"--{name}", "the archive holds our records, each once; see --help")
        if name in of[job] or not any(name in names for names in of.values()):
            found.append(word)
    return found


if __name__ == "__main__":
    main()
