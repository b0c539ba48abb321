"""`streamforge COMMAND …`: one name for every program here, each of which also runs as `python -m MODULE`."""

from __future__ import annotations

import importlib.metadata
import os
import sys
from collections.abc import Sequence
from difflib import get_close_matches
from typing import Final

from schemas.jobs import JOBS

__all__ = ["COMMANDS", "main"]

COMMANDS: Final = {
    "demo": ("stack.demo", "the whole system on this machine, until Ctrl-C"),
    "stack": ("stack", "start and stop the local services: Kafka, registry, Valkey, PostgreSQL, Flink"),
    "simulate": ("simulator", "generate a shop's orders and clicks"),
    **{name: (job.page, f"run the job {job.name}") for name, job in JOBS.items()},
    "dead-letters": ("beam_pipelines.dead_letters", "inspect, replay, export or discard refused records"),
    "mapping": ("beam_pipelines.mapping", "try a mapping on a sample of messages, or suggest one"),
    "rules": ("beam_pipelines.rules", "versions of the fraud rules, and which is in force from when"),
    "backtest": ("beam_pipelines.backtest", "try fraud rules on archived orders"),
    "rebuild": ("beam_pipelines.rebuild", "rebuild the online store from the archive"),
    "tables": ("beam_pipelines.tables", "create the tables in BigQuery"),
    "templates": ("beam_pipelines.templates", "write Dataflow flex templates"),
    "worker-pool": ("beam_pipelines.worker_pool", "serve Python workers beside a Flink task manager"),
    "serve": ("serving", "serve the REST API and the dashboard"),
    "keys": ("serving.keys", "make a key for a caller of the API"),
    "capture": ("cdc", "register and watch change data capture"),
    "batch": ("stack.batch", "recompute a day with Spark and compare it with the stream"),
    "soak": ("stack.soak", "run the demo's jobs for hours and report what grows"),
}
"""Name → module and what it does."""


def main(arguments: Sequence[str] | None = None) -> int:
    """Becomes `python -m MODULE`, so that a program behaves the same under both names."""
    given = list(sys.argv[1:] if arguments is None else arguments)
    if not given or given[0] in ("-h", "--help"):
        print(_help())
        return 0
    if given[0] == "--version":
        print(f"streamforge {importlib.metadata.version('streamforge')}")
        return 0
    name, *rest = given
    if name not in COMMANDS:
        near = get_close_matches(name, COMMANDS, n=1)
        meant = f"did you mean {near[0]}?" if near else "streamforge --help lists them"
        print(f"streamforge: unknown command {name!r}: {meant}", file=sys.stderr)
        return 2
    os.execv(sys.executable, [sys.executable, "-m", COMMANDS[name][0], *rest])
    raise AssertionError("execv does not return")


def _help() -> str:
    width = max(map(len, COMMANDS))
    lines = "\n".join(f"  {name:{width}}  {about}" for name, (_, about) in COMMANDS.items())
    return f"""usage: streamforge COMMAND [flags]
       streamforge COMMAND --help

{lines}

streamforge COMMAND is python -m MODULE: streamforge fraud is python -m {COMMANDS["fraud"][0]}."""
